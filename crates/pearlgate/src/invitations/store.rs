//! The statements about invitations.

use foundation::kernel::{Id, Timestamp};
use foundation::{record, statements};

use super::model::InvitationRow;
use crate::accounts::UserRow;

statements! {
    PAGE = "SELECT id, address, invited_by, created_at, expires_at FROM invitations
        WHERE id < $1 AND expires_at > $2 ORDER BY id DESC LIMIT $3";
    ONE = "SELECT id, address, invited_by, created_at, expires_at FROM invitations WHERE id = $1";
    ROLES_OF = "SELECT role, resource FROM invitation_roles WHERE invitation_id = $1 ORDER BY role, resource";
    /// Whose the address is, and whether they have proven it.
    HOLDER = "SELECT e.user_id, CAST(CASE WHEN EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = e.user_id)
            THEN 1 ELSE 0 END AS BIGINT)
        FROM user_emails e WHERE e.address_key = $1";
    OPEN_TO = "SELECT id FROM invitations WHERE address_key = $1 AND expires_at > $2";
    FORGET_EXPIRED = "DELETE FROM invitations WHERE address_key = $1 AND expires_at <= $2";
    INVITE = "INSERT INTO invitations (id, address, address_key, link_digest, invited_by, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (address_key) DO NOTHING RETURNING created_at";
    ADD_ROLE = "INSERT INTO invitation_roles (invitation_id, role, resource) VALUES ($1, $2, $3)";
    REVOKE = "DELETE FROM invitations WHERE id = $1 RETURNING created_at";
    /// To which address a link leads, and whether somebody has proven it by now.
    IS_OPEN = "SELECT i.address, CAST(CASE WHEN EXISTS
            (SELECT 1 FROM user_emails e JOIN verified_emails v ON v.user_id = e.user_id WHERE e.address_key = i.address_key)
            THEN 1 ELSE 0 END AS BIGINT)
        FROM invitations i WHERE i.link_digest = $1 AND i.expires_at > $2";
    BY_LINK = "SELECT id, address, invited_by, created_at, expires_at FROM invitations
        WHERE link_digest = $1 AND expires_at > $2";
    /// The row decides: once, and in its time.
    TAKE = "DELETE FROM invitations WHERE id = $1 AND expires_at > $2 RETURNING created_at";
    SWEEP = "DELETE FROM invitations WHERE id IN
        (SELECT i.id FROM invitations i WHERE i.expires_at <= $1 ORDER BY i.expires_at LIMIT 500
            /*pg FOR UPDATE SKIP LOCKED */)";
}

record! {
    /// An invitation as it is stored, without its link.
    #[derive(Debug, Clone)]
    pub(super) struct Stored {
        pub(super) id: Id<InvitationRow>,
        pub(super) address: String,
        pub(super) invited_by: String,
        pub(super) created_at: Timestamp,
        pub(super) expires_at: Timestamp,
    }
}

record! {
    /// Whose an address is.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct Holder {
        pub(super) user: Id<UserRow>,
        pub(super) proven: bool,
    }
}

record! {
    /// Where a link leads.
    #[derive(Debug, Clone)]
    pub(super) struct Waiting {
        pub(super) address: String,
        /// Whether an account has proven the address by now.
        pub(super) proven: bool,
    }
}
