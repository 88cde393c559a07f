//! The statements about changes of address.

use foundation::kernel::Id;
use foundation::{record, statements};

use crate::accounts::UserRow;

statements! {
    /// One open change per person, and only while the session that asks for it lives.
    OPEN = "INSERT INTO email_change_tokens (user_id, address, address_key, link_digest, code_digest, failures, expires_at)
        SELECT u.id, $2, $3, $4, $5, 0, $6 FROM users u WHERE u.id = $1
            AND EXISTS (SELECT 1 FROM sessions s WHERE s.id = $7 AND s.user_id = u.id)
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = u.id)
        ON CONFLICT (user_id) DO UPDATE SET address = excluded.address, address_key = excluded.address_key,
            link_digest = excluded.link_digest, code_digest = excluded.code_digest, failures = 0,
            expires_at = excluded.expires_at
        RETURNING expires_at";
    STILL_MAY = "SELECT u.created_at FROM users u WHERE u.id = $1
        AND EXISTS (SELECT 1 FROM sessions s WHERE s.id = $2 AND s.user_id = u.id)
        AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = u.id)";
    /// Somebody who proved this address, and its spelling there.
    PROVEN_HOLDER = "SELECT e.user_id, e.address FROM user_emails e JOIN verified_emails v ON v.user_id = e.user_id
        WHERE e.address_key = $1";
    PENDING = "SELECT c.address, c.address_key FROM email_change_tokens c WHERE c.user_id = $1
        AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = c.user_id)";
    HOLDER = "SELECT user_id FROM user_emails WHERE address_key = $1";
    IS_VERIFIED = "SELECT verified_at FROM verified_emails WHERE user_id = $1";
    /// Not somebody who was suspended, or brought here by an operator: they are not anybody's to forget.
    FORGET_STRANGER = "DELETE FROM users WHERE id = $1
        AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = users.id)
        AND NOT EXISTS (SELECT 1 FROM imported_users i WHERE i.user_id = users.id)
        AND NOT EXISTS (SELECT 1 FROM user_roles g JOIN roles r ON r.name = g.role
            WHERE g.user_id = users.id AND r.level > 0)";
    LET_GO = "DELETE FROM user_emails WHERE user_id = $1 RETURNING address, address_key";
    TAKE = "INSERT INTO user_emails (user_id, address, address_key) VALUES ($1, $2, $3)
        ON CONFLICT (address_key) DO NOTHING RETURNING user_id";
    PROVEN = "UPDATE verified_emails SET verified_at = $2 WHERE user_id = $1";
    OPEN_ADDRESS = "SELECT address FROM email_change_tokens WHERE link_digest = $1 AND expires_at > $2";
}

record! {
    /// Whose address it is.
    #[derive(Debug)]
    pub(super) struct Holder {
        pub(super) user_id: Id<UserRow>,
        pub(super) address: String,
    }
}

record! {
    /// An address in both forms.
    #[derive(Debug, Clone)]
    pub(super) struct Address {
        pub(super) address: String,
        pub(super) address_key: String,
    }
}
