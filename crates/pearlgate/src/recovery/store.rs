//! The statements about ways back in.

use foundation::kernel::{Id, Timestamp};
use foundation::{record, statements};

use crate::accounts::UserRow;

statements! {
    WHO = "SELECT user_id FROM user_emails WHERE address_key = $1";
    ADDRESS = "SELECT address FROM user_emails WHERE user_id = $1";
    /// One open reset per person: a newer one takes the place of the older one.
    OPEN = "INSERT INTO password_reset_tokens (user_id, link_digest, code_digest, failures, expires_at) VALUES ($1, $2, $3, 0, $4)
        ON CONFLICT (user_id) DO UPDATE SET link_digest = excluded.link_digest, code_digest = excluded.code_digest,
            failures = 0, expires_at = excluded.expires_at";
    SUSPENDED = "SELECT suspended_at FROM suspensions WHERE user_id = $1";
    /// One that would end by itself does not any more.
    SUSPEND = "INSERT INTO suspensions (user_id, reason, suspended_at, ends_at) VALUES ($1, $2, $3, 0)
        ON CONFLICT (user_id) DO UPDATE SET reason = excluded.reason, ends_at = 0";
    /// Whether a reset was opened a moment ago: it is good for longer than this.
    OPENED = "SELECT expires_at FROM password_reset_tokens WHERE user_id = $1 AND expires_at > $2";
    NOT_ME = "SELECT user_id, address, address_key, created_at FROM not_me_tokens WHERE link_digest = $1 AND expires_at > $2";
    CONSUME_NOT_ME = "DELETE FROM not_me_tokens WHERE link_digest = $1 AND expires_at > $2 RETURNING user_id";
    /// What was said to be possible after that moment is not: it may have been said to whoever took the account.
    DROP_LATER_NOT_ME = "DELETE FROM not_me_tokens WHERE user_id = $1 AND created_at >= $2";
}

record! {
    /// Whose the account was when the notice was sent.
    #[derive(Debug, Clone)]
    pub(super) struct NotMe {
        pub(super) user_id: Id<UserRow>,
        pub(super) address: String,
        pub(super) address_key: String,
        pub(super) created_at: Timestamp,
    }
}
