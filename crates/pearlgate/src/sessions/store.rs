//! The statements about sessions.

use foundation::db::{Statement, Tx};
use foundation::kernel::{Digest, Id, Timestamp};
use foundation::{params, record, statements};

use super::devices::DeviceRow;
use super::model::SessionRow;
use crate::accounts::{User, UserRow};

statements! {
    /// Locks the person as every session that begins does, less strictly than whoever changes what they sign in
    /// with: what was changed meanwhile is seen by the next statement.
    LOCK_BEGINNER = "SELECT id FROM users WHERE id = $1 /*pg FOR SHARE */";
    /// Begins a session only for a person who is not suspended, whose password, when it was the proof, is (still) this
    /// one, and who has no second factor that was not shown.
    BEGIN = "INSERT INTO sessions
            (id, user_id, created_at, authenticated_at, expires_at, aal, amr, device_id, device_name, address)
        SELECT $1, u.id, $3, $3, $4, CAST($5 AS BIGINT), $6, $7, $8, $9 FROM users u
        WHERE u.id = $2
            AND (CAST($10 AS TEXT) = ''
                OR EXISTS (SELECT 1 FROM password_credentials c WHERE c.user_id = u.id AND c.password_hash = $10))
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = u.id)
            AND (CAST($5 AS BIGINT) >= 2 OR NOT EXISTS (SELECT 1 FROM totp_factors f WHERE f.user_id = u.id))
        RETURNING created_at";
    BEGIN_REFRESH = "INSERT INTO refresh_tokens
            (session_id, user_id, current_digest, previous_digest, rotated_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    LOAD = "SELECT u.id, e.address,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT),
            u.display_name, u.locale, u.metadata, u.created_at, s.id, s.created_at, s.authenticated_at, s.expires_at,
            s.aal, s.amr, s.device_id, s.device_name
        FROM sessions s JOIN users u ON u.id = s.user_id JOIN user_emails e ON e.user_id = s.user_id
        WHERE s.id = $1 AND s.expires_at > $2
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = s.user_id)";
    /// Case 1. The row decides; session and person are part of the condition.
    ROTATE = "UPDATE refresh_tokens
        SET previous_digest = current_digest, current_digest = $3, rotated_at = $4, expires_at = $5
        WHERE session_id = $1 AND current_digest = $2 AND expires_at > $4
            AND EXISTS (SELECT 1 FROM sessions s WHERE s.id = refresh_tokens.session_id AND s.expires_at > $4)
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = refresh_tokens.user_id)
        RETURNING user_id,
            (SELECT e.address FROM user_emails e WHERE e.user_id = refresh_tokens.user_id),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = refresh_tokens.user_id)
                THEN 1 ELSE 0 END AS BIGINT),
            (SELECT u.display_name FROM users u WHERE u.id = refresh_tokens.user_id), '', '{}',
            (SELECT u.created_at FROM users u WHERE u.id = refresh_tokens.user_id), session_id,
            (SELECT s.created_at FROM sessions s WHERE s.id = refresh_tokens.session_id),
            (SELECT s.authenticated_at FROM sessions s WHERE s.id = refresh_tokens.session_id),
            (SELECT s.expires_at FROM sessions s WHERE s.id = refresh_tokens.session_id),
            (SELECT s.aal FROM sessions s WHERE s.id = refresh_tokens.session_id),
            (SELECT s.amr FROM sessions s WHERE s.id = refresh_tokens.session_id),
            (SELECT s.device_id FROM sessions s WHERE s.id = refresh_tokens.session_id), ''";
    /// Locks a session for the decision about a token that is not the current one, as ending it does. What is
    /// decided is read by the next statement: one that waited for its lock sees what was there before it waited.
    LOCK = "SELECT user_id FROM sessions WHERE id = $1 /*pg FOR UPDATE */";
    INSPECT = "SELECT r.user_id, r.current_digest, r.previous_digest, r.rotated_at, r.expires_at, s.expires_at,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = r.user_id) THEN 1 ELSE 0 END AS BIGINT)
        FROM refresh_tokens r JOIN sessions s ON s.id = r.session_id WHERE r.session_id = $1";
    /// Case 3: another successor of the previous token takes the place of the one that was never presented.
    REPLACE = "UPDATE refresh_tokens SET current_digest = $3, rotated_at = $4, expires_at = $5
        WHERE session_id = $1 AND previous_digest = $2 AND rotated_at = $6";
    END = "DELETE FROM sessions WHERE id = $1 RETURNING id, user_id, device_name, expires_at";
    END_ALL = "DELETE FROM sessions WHERE user_id = $1 RETURNING id, user_id, device_name, expires_at";
    END_OTHERS = "DELETE FROM sessions WHERE user_id = $1 AND id <> $2 RETURNING id, user_id, device_name, expires_at";
    /// Why a session does not begin.
    BARS = "SELECT
            CAST(CASE WHEN EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM totp_factors f WHERE f.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT)
        FROM users u WHERE u.id = $1";
    REMEMBER_END = "INSERT INTO ended_sessions (id, user_id, reason, ended_at, kept_until) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (id) DO NOTHING";
    ENDED = "SELECT reason FROM ended_sessions WHERE id = $1";
    /// What decides why a session that cannot be loaded does not work.
    STATE = "SELECT s.expires_at,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = s.user_id) THEN 1 ELSE 0 END AS BIGINT)
        FROM sessions s WHERE s.id = $1";
    ADDRESS = "SELECT e.address FROM user_emails e JOIN verified_emails v ON v.user_id = e.user_id WHERE e.user_id = $1";
    SWEEP_EXPIRED = "SELECT id FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT 500";
    /// A token that is being rotated is not idle: it is skipped while it is locked.
    SWEEP_IDLE = "SELECT session_id FROM refresh_tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT 500
        /*pg FOR UPDATE SKIP LOCKED */";
    SWEEP_ENDED = "DELETE FROM ended_sessions WHERE kept_until <= $1";
    KEYS = "SELECT kid, algorithm, sealed, public_jwk, created_at FROM signing_keys ORDER BY created_at, kid";
    LOCK_KEYS = "SELECT CAST(1 AS BIGINT) /*pg FROM pg_advisory_xact_lock(7306086865420302) */";
    INSERT_KEY = "INSERT INTO signing_keys (kid, algorithm, sealed, public_jwk, created_at) VALUES ($1, $2, $3, $4, $5)";
}

/// The rotation and nothing else: what a benchmark compares a whole refresh with.
pub const RAW_ROTATION: Statement = Statement {
    name: "RAW_ROTATION",
    text: "UPDATE refresh_tokens SET previous_digest = current_digest, current_digest = $3, rotated_at = $4, expires_at = $5
        WHERE session_id = $1 AND current_digest = $2 RETURNING user_id",
};

record! {
    /// A session and its person: everything that tokens and `/v1/me` tell.
    #[derive(Debug, Clone)]
    pub struct SessionUser {
        /// The person.
        pub user_id: Id<UserRow>,
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
        pub user_created_at: Timestamp,
        /// The session.
        pub session_id: Id<SessionRow>,
        /// When it began.
        pub created_at: Timestamp,
        /// When the person last proved who they are.
        pub authenticated_at: Timestamp,
        /// When it ends at the latest.
        pub expires_at: Timestamp,
        /// Authenticator assurance level.
        pub aal: i64,
        /// Methods, joined with spaces.
        pub amr: String,
        /// The device.
        pub device_id: Id<DeviceRow>,
        /// Its name.
        pub device_name: String,
    }
}

impl SessionUser {
    /// The person as applications see them.
    pub fn user(&self) -> User {
        let (address, name) = (self.address.clone(), self.display_name.clone());
        User::new(self.user_id, address, self.verified, name, self.user_created_at)
    }
}

record! {
    /// What a presented token is compared with when it is not the current one.
    #[derive(Debug)]
    pub(super) struct Inspected {
        pub(super) user_id: Id<UserRow>,
        pub(super) current: Digest,
        pub(super) previous: Digest,
        pub(super) rotated_at: Timestamp,
        pub(super) expires_at: Timestamp,
        pub(super) session_expires_at: Timestamp,
        pub(super) suspended: bool,
    }
}

record! {
    /// A session that was ended just now.
    #[derive(Debug, Clone)]
    pub(super) struct Ended {
        pub(super) id: Id<SessionRow>,
        pub(super) user_id: Id<UserRow>,
        pub(super) device_name: String,
        pub(super) expires_at: Timestamp,
    }
}

record! {
    /// A signing key as it is stored.
    #[derive(Debug, Clone)]
    pub(super) struct StoredKey {
        pub(super) kid: String,
        pub(super) algorithm: String,
        pub(super) sealed: Vec<u8>,
        pub(super) public_jwk: String,
        pub(super) created_at: Timestamp,
    }
}

pub(super) fn load(
    tx: &mut Tx<'_>,
    session: Id<SessionRow>,
    now: Timestamp,
) -> foundation::db::Result<Option<SessionUser>> {
    tx.opt(&LOAD, params![session, now])
}
