//! The statements about people as operators see them.

use foundation::kernel::{Id, Timestamp};
use foundation::{record, statements};

use super::bulk::BulkActionRow;
use crate::accounts::UserRow;

statements! {
    NEWEST = "SELECT u.id FROM users u WHERE u.id < $1 ORDER BY u.id DESC LIMIT $2";
    /// By how the address begins: from $1 (not itself) up to $2.
    BY_ADDRESS = "SELECT e.user_id, e.address_key FROM user_emails e WHERE e.address_key > $1 AND e.address_key < $2
        ORDER BY e.address_key LIMIT $3";
    BY_ADDRESS_FROM = "SELECT e.user_id, e.address_key FROM user_emails e WHERE e.address_key >= $1 AND e.address_key < $2
        ORDER BY e.address_key LIMIT $3";
    /// By how the name begins, then by id: from $1 with an id after $2.
    BY_NAME = "SELECT u.id, u.name_key FROM users u
        WHERE u.name_key >= $1 AND u.name_key < $3 AND (u.name_key > $1 OR u.id > $2)
        ORDER BY u.name_key, u.id LIMIT $4";
    ONE = "SELECT u.id, e.address,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT),
            u.display_name, u.locale, u.metadata, u.created_at,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM totp_factors f WHERE f.user_id = u.id)
                OR EXISTS (SELECT 1 FROM passkeys p WHERE p.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT),
            COALESCE((SELECT string_agg(g.role, '
' ORDER BY g.role) FROM user_roles g WHERE g.user_id = u.id AND g.resource = ''), ''),
            COALESCE((SELECT x.suspended_at FROM suspensions x WHERE x.user_id = u.id), 0),
            COALESCE((SELECT x.reason FROM suspensions x WHERE x.user_id = u.id), ''),
            COALESCE((SELECT x.ends_at FROM suspensions x WHERE x.user_id = u.id), 0),
            COALESCE((SELECT MAX(s.last_seen_at) FROM sessions s WHERE s.user_id = u.id), 0),
            COALESCE((SELECT c.due_at FROM closings c WHERE c.user_id = u.id), 0),
            COALESCE((SELECT c.asked_by FROM closings c WHERE c.user_id = u.id), '')
        FROM users u JOIN user_emails e ON e.user_id = u.id WHERE u.id = $1";
    CHANGE = "UPDATE users SET
            display_name = CASE WHEN CAST($2 AS BIGINT) = 1 THEN $3 ELSE display_name END,
            locale = CASE WHEN CAST($4 AS BIGINT) = 1 THEN $5 ELSE locale END,
            metadata = CASE WHEN CAST($6 AS BIGINT) = 1 THEN $7 ELSE metadata END,
            name_key = CASE WHEN CAST($2 AS BIGINT) = 1 THEN $8 ELSE name_key END
        WHERE id = $1 RETURNING created_at";
    BULK_BEGIN = "INSERT INTO bulk_actions
            (id, action, details, asked_by, asker, session, address, state, total, done, refused, created_at, changed_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 'running', $8, 0, 0, $9, $9)";
    BULK_TARGET = "INSERT INTO bulk_targets (bulk_id, number, user_id, outcome) VALUES ($1, $2, $3, '')";
    BULK = "SELECT id, action, asked_by, asker, state, total, done, refused, created_at, changed_at FROM bulk_actions WHERE id = $1";
    BULKS = "SELECT id, action, asked_by, asker, state, total, done, refused, created_at, changed_at FROM bulk_actions
        WHERE id < $1 ORDER BY id DESC LIMIT $2";
    BULK_REFUSED = "SELECT t.user_id, t.outcome FROM bulk_targets t
        WHERE t.bulk_id = $1 AND t.outcome <> '' AND t.outcome <> 'done' ORDER BY t.number LIMIT $2";
    /// Whoever is next, and what is done to them. Whatever changes an action does so under the lock of who may do what.
    BULK_NEXT = "SELECT b.action, b.details, b.asked_by, b.asker, b.session, b.address, t.number, t.user_id
        FROM bulk_actions b JOIN bulk_targets t ON t.bulk_id = b.id
        WHERE b.id = $1 AND b.state = 'running' AND t.outcome = '' ORDER BY t.number LIMIT 1";
    BULK_OUTCOME = "UPDATE bulk_targets SET outcome = $3 WHERE bulk_id = $1 AND number = $2";
    BULK_PROGRESS = "UPDATE bulk_actions SET done = done + $2, refused = refused + $3, changed_at = $4 WHERE id = $1";
    BULK_END = "UPDATE bulk_actions SET state = $2, changed_at = $3 WHERE id = $1 AND state = 'running' RETURNING total";
    SWEEP_BULK = "DELETE FROM bulk_actions WHERE id IN
        (SELECT b.id FROM bulk_actions b WHERE b.changed_at <= $1 ORDER BY b.changed_at LIMIT 100)";
}

record! {
    /// Something that is done to many.
    #[derive(Debug)]
    pub(super) struct BulkRow {
        pub(super) id: Id<BulkActionRow>,
        pub(super) action: String,
        pub(super) asked_by: String,
        pub(super) asker: Id<UserRow>,
        pub(super) state: String,
        pub(super) total: i64,
        pub(super) done: i64,
        pub(super) refused: i64,
        pub(super) created_at: Timestamp,
        pub(super) changed_at: Timestamp,
    }
}

record! {
    /// The next of many.
    #[derive(Debug)]
    pub(super) struct NextTarget {
        pub(super) action: String,
        pub(super) details: String,
        pub(super) asked_by: String,
        pub(super) asker: Id<UserRow>,
        pub(super) session: String,
        pub(super) address: String,
        pub(super) number: i64,
        pub(super) user_id: Id<UserRow>,
    }
}

record! {
    /// Somebody, as operators see them: never a hash, a seed or a token.
    #[derive(Debug, Clone)]
    pub struct Found {
        /// Their id.
        pub id: Id<UserRow>,
        /// Their address.
        pub address: String,
        /// Whether it was proven.
        pub verified: bool,
        /// Their name.
        pub display_name: String,
        /// Their language.
        pub locale: String,
        /// JSON text.
        pub metadata: String,
        /// Since when they have an account.
        pub created_at: Timestamp,
        /// Whether they have a second factor.
        pub mfa: bool,
        /// Roles that they have everywhere, a line each.
        pub roles: String,
        /// Since when they are shut out; 0 when they are not.
        pub suspended_at: Timestamp,
        /// Why.
        pub suspended_for: String,
        /// Until when; 0 for until somebody lifts it.
        pub suspended_until: Timestamp,
        /// When one of their living sessions was last used; 0 when there is none.
        pub last_seen_at: Timestamp,
        /// When their account is deleted; 0 when it is not to be.
        pub closes_at: Timestamp,
        /// Who asked for that, as in the trail.
        pub closing_asked_by: String,
    }
}
