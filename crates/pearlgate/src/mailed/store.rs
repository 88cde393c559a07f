//! The statements about mailed secrets. The three tables have one shape; each has its four statements.

use foundation::statements;

use super::model::Kind;

statements! {
    /// Locks a person for a change of what they sign in with. Beginning a session locks the same row less strictly,
    /// so that no session begins from what is being replaced.
    LOCK_PERSON = "SELECT id FROM users WHERE id = $1 /*pg FOR UPDATE */";
    /// Where somebody can be told of something: at an address that they have proven.
    PROVEN_ADDRESS = "SELECT e.address FROM user_emails e JOIN verified_emails v ON v.user_id = e.user_id
        WHERE e.user_id = $1";
    ADDRESS_KEY = "SELECT address_key FROM user_emails WHERE user_id = $1";
    SPEND_ACCOUNT_GUESS = "INSERT INTO code_failures (user_id, in_a_row, today, today_ends_at)
        SELECT u.id, 1, 1, $3 FROM users u WHERE u.id = $1
        ON CONFLICT (user_id) DO UPDATE SET in_a_row = code_failures.in_a_row + 1,
            today = CASE WHEN code_failures.today_ends_at <= $2 THEN 1 ELSE code_failures.today + 1 END,
            today_ends_at = CASE WHEN code_failures.today_ends_at <= $2 THEN excluded.today_ends_at
                ELSE code_failures.today_ends_at END
        WHERE code_failures.in_a_row < $4 AND (code_failures.today < $5 OR code_failures.today_ends_at <= $2)
        RETURNING in_a_row";
    GIVE_ACCOUNT_GUESS_BACK = "UPDATE code_failures SET in_a_row = in_a_row - 1, today = today - 1 WHERE user_id = $1";
    FORGET_FAILURES = "DELETE FROM code_failures WHERE user_id = $1";
    DROP_VERIFICATIONS = "DELETE FROM email_verification_tokens WHERE user_id = $1";
    DROP_RESETS = "DELETE FROM password_reset_tokens WHERE user_id = $1";
    DROP_MAGIC_LINKS = "DELETE FROM magic_link_tokens WHERE user_id = $1";
    DROP_CHANGES = "DELETE FROM email_change_tokens WHERE user_id = $1";
    /// A sign-in between its two steps rests on what was proven before.
    DROP_HALF_LOGINS = "DELETE FROM half_logins WHERE user_id = $1";
    DROP_EMAIL_CODE = "DELETE FROM email_codes WHERE user_id = $1";
    DROP_TRUST = "DELETE FROM trusted_devices WHERE user_id = $1";
    DROP_NOTICES = "DELETE FROM new_device_notices WHERE user_id = $1";
    /// What is being renewed while it is swept is spared: locked rows are skipped, and a row that was locked is looked
    /// at again before it goes. A statement that merely waited would take away what it saw before it waited.
    SWEEP_RESETS = "DELETE FROM password_reset_tokens WHERE user_id IN
        (SELECT t.user_id FROM password_reset_tokens t WHERE t.expires_at <= $1 ORDER BY t.expires_at LIMIT 500
            /*pg FOR UPDATE SKIP LOCKED */)";
    SWEEP_MAGIC_LINKS = "DELETE FROM magic_link_tokens WHERE user_id IN
        (SELECT t.user_id FROM magic_link_tokens t WHERE t.expires_at <= $1 ORDER BY t.expires_at LIMIT 500
            /*pg FOR UPDATE SKIP LOCKED */)";
    SWEEP_CHANGES = "DELETE FROM email_change_tokens WHERE user_id IN
        (SELECT t.user_id FROM email_change_tokens t WHERE t.expires_at <= $1 ORDER BY t.expires_at LIMIT 500
            /*pg FOR UPDATE SKIP LOCKED */)";
    SWEEP_NOT_ME = "DELETE FROM not_me_tokens WHERE link_digest IN
        (SELECT t.link_digest FROM not_me_tokens t WHERE t.expires_at <= $1 ORDER BY t.expires_at LIMIT 500
            /*pg FOR UPDATE SKIP LOCKED */)";
    OPEN_NOT_ME = "INSERT INTO not_me_tokens (link_digest, user_id, address, address_key, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    /// Counts on, and locks the mailbox until the transaction ends: others look again after it.
    ASK = "INSERT INTO mailboxes (mailbox, number, last_at) VALUES ($1, 1, $2)
        ON CONFLICT (mailbox) DO UPDATE SET number = mailboxes.number + 1, last_at = excluded.last_at RETURNING number";
    /// $4 the kind; $5 an hour ago, $6 how many since, $7 of this kind; $8 a day ago, $9 how many since, $10 of this kind.
    ASKED = "INSERT INTO mails_asked (mailbox, number, kind, at) SELECT m.mailbox, $2, $4, $3 FROM mailboxes m
        WHERE m.mailbox = $1
            AND (SELECT COUNT(*) FROM mails_asked a WHERE a.mailbox = $1 AND a.at > $5) < $6
            AND (SELECT COUNT(*) FROM mails_asked a WHERE a.mailbox = $1 AND a.at > $5 AND a.kind = $4) < $7
            AND (SELECT COUNT(*) FROM mails_asked a WHERE a.mailbox = $1 AND a.at > $8) < $9
            AND (SELECT COUNT(*) FROM mails_asked a WHERE a.mailbox = $1 AND a.at > $8 AND a.kind = $4) < $10
        RETURNING number";
    FORGET_ASKED = "DELETE FROM mails_asked WHERE mailbox = $1 AND at <= $2";
    SWEEP_MAILBOXES = "DELETE FROM mailboxes WHERE mailbox IN
        (SELECT m.mailbox FROM mailboxes m WHERE m.last_at <= $1 ORDER BY m.last_at LIMIT 500
            /*pg FOR UPDATE SKIP LOCKED */)";
    /// The link that was mailed last works again until $2, when it expired after $3 and before now ($4); its code does not.
    KEEP_RESET = "UPDATE password_reset_tokens SET expires_at = $2, failures = $5
        WHERE user_id = $1 AND expires_at <= $4 AND expires_at > $3";
    KEEP_MAGIC_LINK = "UPDATE magic_link_tokens SET expires_at = $2, failures = $5
        WHERE user_id = $1 AND expires_at <= $4 AND expires_at > $3";
    RESET_BY_LINK = "SELECT user_id FROM password_reset_tokens WHERE link_digest = $1 AND expires_at > $2";
    RESET_SPEND = "UPDATE password_reset_tokens SET failures = failures + 1
        WHERE user_id = $1 AND failures < $2 AND expires_at > $3 RETURNING code_digest";
    RESET_GIVE_BACK = "UPDATE password_reset_tokens SET failures = failures - 1 WHERE user_id = $1";
    RESET_CONSUME = "DELETE FROM password_reset_tokens
        WHERE user_id = $1 AND (link_digest = $2 OR code_digest = $2) AND expires_at > $3 RETURNING failures";
    MAGIC_LINK_BY_LINK = "SELECT user_id FROM magic_link_tokens WHERE link_digest = $1 AND expires_at > $2";
    MAGIC_LINK_SPEND = "UPDATE magic_link_tokens SET failures = failures + 1
        WHERE user_id = $1 AND failures < $2 AND expires_at > $3 RETURNING code_digest";
    MAGIC_LINK_GIVE_BACK = "UPDATE magic_link_tokens SET failures = failures - 1 WHERE user_id = $1";
    MAGIC_LINK_CONSUME = "DELETE FROM magic_link_tokens
        WHERE user_id = $1 AND (link_digest = $2 OR code_digest = $2) AND expires_at > $3 RETURNING failures";
    CHANGE_BY_LINK = "SELECT user_id FROM email_change_tokens WHERE link_digest = $1 AND expires_at > $2";
    CHANGE_SPEND = "UPDATE email_change_tokens SET failures = failures + 1
        WHERE user_id = $1 AND failures < $2 AND expires_at > $3 RETURNING code_digest";
    CHANGE_GIVE_BACK = "UPDATE email_change_tokens SET failures = failures - 1 WHERE user_id = $1";
    CHANGE_CONSUME = "DELETE FROM email_change_tokens
        WHERE user_id = $1 AND (link_digest = $2 OR code_digest = $2) AND expires_at > $3 RETURNING failures";
}

/// A reset of the password.
pub const RESET: Kind = Kind {
    prefix: "pgp_",
    purpose: "reset",
    by_link: &RESET_BY_LINK,
    spend: &RESET_SPEND,
    give_back: &RESET_GIVE_BACK,
    consume: &RESET_CONSUME,
};

/// A sign-in without a password.
pub const MAGIC_LINK: Kind = Kind {
    prefix: "pgl_",
    purpose: "magic_link",
    by_link: &MAGIC_LINK_BY_LINK,
    spend: &MAGIC_LINK_SPEND,
    give_back: &MAGIC_LINK_GIVE_BACK,
    consume: &MAGIC_LINK_CONSUME,
};

/// A change of address, proven at the new one.
pub const EMAIL_CHANGE: Kind = Kind {
    prefix: "pge_",
    purpose: "email_change",
    by_link: &CHANGE_BY_LINK,
    spend: &CHANGE_SPEND,
    give_back: &CHANGE_GIVE_BACK,
    consume: &CHANGE_CONSUME,
};
