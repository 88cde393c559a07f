//! The statements about guessing.

use foundation::statements;

statements! {
    /// $1 the subject, $2 its tag, $3 now, $4 the moment before which failures are forgotten, $5 how many in all. A slot
    /// that counted another address begins anew.
    RESERVE = "INSERT INTO password_guesses (subject, tag, in_a_row, strangers, devices, locked_until, last_at)
            VALUES ($1, $2, 1, 1, 0, 0, $3)
        ON CONFLICT (subject) DO UPDATE SET last_at = excluded.last_at, tag = excluded.tag,
            in_a_row = CASE WHEN password_guesses.last_at <= $4 OR password_guesses.tag <> excluded.tag THEN 1
                ELSE password_guesses.in_a_row + 1 END,
            strangers = CASE WHEN password_guesses.tag <> excluded.tag THEN 1 ELSE password_guesses.strangers + 1 END,
            locked_until = CASE WHEN password_guesses.tag <> excluded.tag THEN 0 ELSE password_guesses.locked_until END
        WHERE password_guesses.tag <> excluded.tag
            OR (password_guesses.locked_until <= $3 AND password_guesses.strangers < $5)
        RETURNING in_a_row, strangers";
    ADOPT = "INSERT INTO password_guesses (subject, tag, in_a_row, strangers, devices, locked_until, last_at)
        SELECT $1, 0, g.in_a_row, g.strangers, 0, g.locked_until, g.last_at FROM password_guesses g
            WHERE g.subject = $2 AND g.tag = $3
        ON CONFLICT (subject) DO NOTHING";
    DISOWN = "INSERT INTO password_guesses (subject, tag, in_a_row, strangers, devices, locked_until, last_at)
        SELECT $1, $2, g.in_a_row, g.strangers, 0, g.locked_until, g.last_at FROM password_guesses g WHERE g.subject = $3
        ON CONFLICT (subject) DO UPDATE SET tag = excluded.tag, in_a_row = excluded.in_a_row, strangers = excluded.strangers,
            locked_until = excluded.locked_until, last_at = excluded.last_at";
    IS_LOCKED = "SELECT locked_until FROM password_guesses
        WHERE subject = $1 AND tag = $2 AND (locked_until > $3 OR strangers >= $4)";
    /// Whether strangers are kept out, or were a moment ago.
    GOES_ON = "SELECT CAST(CASE WHEN strangers >= $3 THEN 1 ELSE 0 END AS BIGINT) FROM password_guesses
        WHERE subject = $1 AND (in_a_row >= $2 OR strangers >= $3)";
    TOLD = "SELECT expires_at FROM unlock_tokens WHERE user_id = $1 AND expires_at > $2";
    LOCK = "UPDATE password_guesses SET locked_until = $2 WHERE subject = $1 AND locked_until < $2";
    /// The owner said that it was somebody else.
    KEEP_OUT = "INSERT INTO password_guesses (subject, tag, in_a_row, strangers, devices, locked_until, last_at)
            VALUES ($1, 0, 0, 0, 0, $2, $3)
        ON CONFLICT (subject) DO UPDATE SET locked_until = excluded.locked_until
        WHERE password_guesses.locked_until < $2";
    LOCKED = "SELECT locked_until FROM password_guesses WHERE subject = $1";
    RESERVE_DEVICE = "UPDATE devices SET failures = failures + 1
        WHERE user_id = $1 AND device_id = $2 AND failures < $3 RETURNING failures";
    RESERVE_OF_DEVICES = "INSERT INTO password_guesses (subject, tag, in_a_row, strangers, devices, locked_until, last_at)
            VALUES ($1, 0, 0, 0, 1, 0, $2)
        ON CONFLICT (subject) DO UPDATE SET devices = password_guesses.devices + 1
        WHERE password_guesses.devices < $3 RETURNING devices";
    /// The password was right, and it was a stranger's.
    RIGHT = "UPDATE password_guesses SET in_a_row = 0, strangers = 0, devices = 0, locked_until = 0 WHERE subject = $1";
    RIGHT_ON_DEVICE = "UPDATE devices SET failures = 0 WHERE user_id = $1 AND device_id = $2 AND failures > 0";
    RIGHT_OF_DEVICES = "UPDATE password_guesses SET devices = 0 WHERE subject = $1";
    /// Nobody looked at the password; the lock that it began, if it did, is over.
    UNUSED = "UPDATE password_guesses SET strangers = strangers - 1, in_a_row = in_a_row - 1,
            locked_until = CASE WHEN locked_until = $2 THEN 0 ELSE locked_until END
        WHERE subject = $1 AND strangers > 0 AND in_a_row > 0";
    UNUSED_ON_DEVICE = "UPDATE devices SET failures = failures - 1 WHERE user_id = $1 AND device_id = $2 AND failures > 0";
    UNUSED_OF_DEVICES = "UPDATE password_guesses SET devices = devices - 1 WHERE subject = $1 AND devices > 0";
    FORGET = "DELETE FROM password_guesses WHERE subject = $1 RETURNING strangers";
    FORGET_ON_DEVICES = "UPDATE devices SET failures = 0 WHERE user_id = $1 AND failures > 0";
    /// A proven address that somebody has.
    OWNER = "SELECT e.user_id, e.address FROM user_emails e
        JOIN verified_emails v ON v.user_id = e.user_id WHERE e.address_key = $1";
    OPEN = "INSERT INTO unlock_tokens (user_id, link_digest, expires_at) VALUES ($1, $2, $3)
        ON CONFLICT (user_id) DO UPDATE SET link_digest = excluded.link_digest, expires_at = excluded.expires_at";
    BY_LINK = "SELECT t.user_id, e.address FROM unlock_tokens t JOIN user_emails e ON e.user_id = t.user_id
        WHERE t.link_digest = $1 AND t.expires_at > $2";
    CONSUME = "DELETE FROM unlock_tokens WHERE user_id = $1 AND link_digest = $2 AND expires_at > $3 RETURNING user_id";
    DROP_LINK = "DELETE FROM unlock_tokens WHERE user_id = $1";
    SWEEP_LINKS = "DELETE FROM unlock_tokens WHERE user_id IN
        (SELECT t.user_id FROM unlock_tokens t WHERE t.expires_at <= $1 ORDER BY t.expires_at LIMIT 500
            /*pg FOR UPDATE SKIP LOCKED */)";
    /// Accounts and addresses that nobody has alike: whoever could wait for one of them to be forgotten would know which
    /// it is.
    SWEEP = "DELETE FROM password_guesses WHERE subject IN
        (SELECT g.subject FROM password_guesses g WHERE g.last_at <= $1 ORDER BY g.last_at LIMIT 500
            /*pg FOR UPDATE SKIP LOCKED */)";
}
