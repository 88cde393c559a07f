//! The statements about passkeys.

use foundation::kernel::{Id, Timestamp};
use foundation::{record, statements};

use super::model::PasskeyRow;
use crate::accounts::UserRow;

statements! {
    ADD = "INSERT INTO passkeys (id, user_id, credential_id, public_key, sign_count, backup_eligible, backed_up, transports,
            name, created_at, last_used_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0) ON CONFLICT (credential_id) DO NOTHING RETURNING id";
    COUNT = "SELECT COUNT(*) FROM passkeys WHERE user_id = $1";
    LIST = "SELECT id, name, transports, backup_eligible, backed_up, created_at, last_used_at FROM passkeys
        WHERE user_id = $1 ORDER BY created_at, id";
    BY_CREDENTIAL = "SELECT id, user_id, public_key, sign_count, backup_eligible FROM passkeys WHERE credential_id = $1";
    IDS_OF = "SELECT credential_id FROM passkeys WHERE user_id = $1 ORDER BY created_at, id";
    /// The same of an address that somebody has proven.
    IDS_AT = "SELECT p.credential_id FROM user_emails e JOIN verified_emails v ON v.user_id = e.user_id
        JOIN passkeys p ON p.user_id = e.user_id WHERE e.address_key = $1 ORDER BY p.created_at, p.id";
    /// A counter only goes up, whoever else uses the key at the same time; authenticators that do not count stay at 0.
    USED = "UPDATE passkeys SET sign_count = $2, backed_up = $3, last_used_at = $4
        WHERE id = $1 AND (sign_count < $2 OR (sign_count = 0 AND $2 = 0)) RETURNING user_id";
    RENAME = "UPDATE passkeys SET name = $3 WHERE id = $1 AND user_id = $2 RETURNING id";
    REMOVE = "DELETE FROM passkeys WHERE id = $1 AND user_id = $2 RETURNING id";
    ANSWERED = "INSERT INTO used_challenges (digest, expires_at) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING
        RETURNING expires_at";
    SWEEP = "DELETE FROM used_challenges WHERE expires_at <= $1";
    PASSWORD = "SELECT set_at FROM password_credentials WHERE user_id = $1";
    NAME_OF = "SELECT e.address, u.display_name FROM users u JOIN user_emails e ON e.user_id = u.id WHERE u.id = $1";
}

record! {
    /// A key as its use is checked.
    #[derive(Debug, Clone)]
    pub(super) struct Kept {
        pub(super) id: Id<PasskeyRow>,
        pub(super) user_id: Id<UserRow>,
        pub(super) public_key: Vec<u8>,
        pub(super) sign_count: i64,
        pub(super) backup_eligible: bool,
    }
}

record! {
    /// A key as its owner sees it.
    #[derive(Debug)]
    pub(super) struct Listed {
        pub(super) id: Id<PasskeyRow>,
        pub(super) name: String,
        pub(super) transports: String,
        pub(super) backup_eligible: bool,
        pub(super) backed_up: bool,
        pub(super) created_at: Timestamp,
        pub(super) last_used_at: Timestamp,
    }
}
