//! The statements about passwords.

use foundation::kernel::Id;
use foundation::{record, statements};

use crate::accounts::UserRow;

statements! {
    SET = "INSERT INTO password_credentials (user_id, password_hash, set_at) VALUES ($1, $2, $3)
        ON CONFLICT (user_id) DO UPDATE SET password_hash = excluded.password_hash, set_at = excluded.set_at";
    /// The old hash is part of the condition: of two changes at the same time one wins.
    /// A password that its owner has disowned is nobody's any more: it does not set another one either.
    REPLACE = "UPDATE password_credentials SET password_hash = $3, set_at = $4 WHERE user_id = $1 AND password_hash = $2
            AND NOT EXISTS (SELECT 1 FROM password_change_demands d WHERE d.user_id = $1 AND d.reason = 'not_me')
        RETURNING set_at";
    /// The same password under a better hash: when it was set does not change.
    RENEW = "UPDATE password_credentials SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2 RETURNING set_at";
    OF_SESSION = "SELECT c.password_hash FROM password_credentials c JOIN sessions s ON s.user_id = c.user_id WHERE s.id = $1
        AND NOT EXISTS (SELECT 1 FROM password_change_demands d WHERE d.user_id = c.user_id AND d.reason = 'not_me')";
    STILL_THERE = "SELECT s.user_id FROM sessions s WHERE s.id = $1 AND s.expires_at > $2
        AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = s.user_id)";
    /// What a new password must not be about, and whether the account has a second factor.
    PERSON = "SELECT e.address, e.address_key, u.display_name,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM totp_factors f WHERE f.user_id = u.id)
                OR EXISTS (SELECT 1 FROM passkeys p WHERE p.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT)
        FROM users u JOIN user_emails e ON e.user_id = u.id WHERE u.id = $1";
    CLEAR_DEMAND = "DELETE FROM password_change_demands WHERE user_id = $1";
    /// Of the password with this hash, or of whichever it is: one that was set meanwhile is not meant.
    DEMAND = "INSERT INTO password_change_demands (user_id, reason, demanded_at)
        SELECT u.id, $2, $3 FROM users u WHERE u.id = $1 AND (CAST($4 AS TEXT) = ''
            OR EXISTS (SELECT 1 FROM password_credentials c WHERE c.user_id = u.id AND c.password_hash = $4))
        ON CONFLICT (user_id) DO UPDATE SET reason = excluded.reason RETURNING demanded_at";
    CLEAR_FOREIGN = "DELETE FROM foreign_hashes WHERE user_id = $1";
    PENDING = "INSERT INTO pending_breach_checks (user_id, since) VALUES ($1, $2)
        ON CONFLICT (user_id) DO UPDATE SET since = excluded.since";
    CLEAR_PENDING = "DELETE FROM pending_breach_checks WHERE user_id = $1";
    SCHEMES = "SELECT DISTINCT scheme FROM foreign_hashes ORDER BY scheme";
    SAMPLE = "SELECT COALESCE((SELECT c.password_hash FROM password_credentials c WHERE c.user_id = f.user_id),
            (SELECT t.password_hash FROM email_verification_tokens t WHERE t.user_id = f.user_id), '')
        FROM foreign_hashes f WHERE f.scheme = $1 LIMIT 1";
}

record! {
    /// Whom a password is for.
    #[derive(Debug)]
    pub(super) struct Owner {
        pub(super) address: String,
        pub(super) address_key: String,
        pub(super) display_name: String,
        pub(super) second_factor: bool,
    }
}

/// For a record without an id of its own.
pub(super) type User = Id<UserRow>;
