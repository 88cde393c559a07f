//! The statements about sessions.

use std::time::Duration;

use foundation::db::{FromRow, Row, Statement, Tx};
use foundation::kernel::{Digest, Id, Timestamp};
use foundation::{params, record, statements};

use super::devices::DeviceRow;
use super::model::{EndReason, SessionRow};
use crate::accounts::{User, UserRow};

statements! {
    /// Locks the person as every session that begins does, less strictly than whoever changes what they sign in
    /// with: what was changed meanwhile is seen by the next statement.
    LOCK_BEGINNER = "SELECT id FROM users WHERE id = $1 /*pg FOR SHARE */";
    /// The same where beginners must wait for each other, because their sessions are counted.
    LOCK_COUNTED = "SELECT id FROM users WHERE id = $1 /*pg FOR UPDATE */";
    /// Begins a session only for a person who is not suspended, whose password, when it was the proof, is (still) this
    /// one, and who has no second factor that was neither shown nor is trusted to this device beside the password. $13 is what was shown beside
    /// the password: 0 nothing, 1 the mailbox, 2 a factor; $14 whether devices are trusted here.
    BEGIN = "INSERT INTO sessions
            (id, user_id, created_at, authenticated_at, expires_at, aal, amr, device_id, device_name, address,
                last_seen_at, idle, place, factor_at)
        SELECT $1, u.id, $3, $3, $4, $5, $6, $7, $8, $9, $3, $11, $12,
            CASE WHEN CAST($13 AS BIGINT) = 2 THEN CAST($3 AS BIGINT) ELSE CAST(0 AS BIGINT) END
        FROM users u
        WHERE u.id = $2
            AND (CAST($10 AS TEXT) = ''
                OR (EXISTS (SELECT 1 FROM password_credentials c WHERE c.user_id = u.id AND c.password_hash = $10)
                    AND NOT EXISTS (SELECT 1 FROM password_change_demands d WHERE d.user_id = u.id)))
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = u.id)
            AND ((CAST($13 AS BIGINT) >= 2 OR NOT EXISTS (SELECT 1 FROM totp_factors f WHERE f.user_id = u.id)
                        AND NOT EXISTS (SELECT 1 FROM passkeys p WHERE p.user_id = u.id))
                    AND (CAST($13 AS BIGINT) >= 1
                        OR NOT EXISTS (SELECT 1 FROM email_code_factors f WHERE f.user_id = u.id))
                OR (CAST($10 AS TEXT) <> '' AND CAST($14 AS BIGINT) = 1 AND EXISTS (SELECT 1 FROM trusted_devices d
                    WHERE d.user_id = u.id AND d.device_id = $7 AND d.expires_at > $3)))
        RETURNING created_at";
    /// An operator is somebody else for a while: without a refresh token, and never fresh. Of whoever is shut out there is
    /// nothing to be.
    BEGIN_AS = "INSERT INTO sessions
            (id, user_id, created_at, authenticated_at, expires_at, aal, amr, device_id, device_name, address,
                last_seen_at, idle, place, factor_at)
        SELECT $1, u.id, $3, 0, $4, 1, 'impersonation', $5, $6, '', $3, CAST($4 AS BIGINT) - CAST($3 AS BIGINT), '', 0
        FROM users u WHERE u.id = $2 AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = u.id)
        RETURNING created_at";
    /// Sessions in which somebody is another, or another is them.
    AS_ANOTHER = "SELECT i.session_id FROM impersonations i WHERE i.operator_id = $1
        UNION SELECT s.id FROM sessions s JOIN impersonations i ON i.session_id = s.id WHERE s.user_id = $1";
    IMPERSONATE = "INSERT INTO impersonations (session_id, operator_id, operator_session_id, reason)
        VALUES ($1, $2, $3, $4)";
    BEGIN_REFRESH = "INSERT INTO refresh_tokens
            (session_id, user_id, current_digest, previous_digest, rotated_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    /// A session in which an operator is somebody else lives as long as theirs does, and they may.
    LOAD = "SELECT u.id, e.address,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT),
            u.display_name, u.locale, u.metadata, u.created_at, s.id, s.created_at, s.authenticated_at, s.expires_at,
            s.idle, s.aal, s.amr, s.device_id, s.device_name, s.factor_at,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM passkeys p WHERE p.user_id = s.user_id) THEN 2
                WHEN NOT EXISTS (SELECT 1 FROM totp_factors f WHERE f.user_id = s.user_id) THEN 0
                WHEN EXISTS (SELECT 1 FROM password_credentials c WHERE c.user_id = s.user_id) THEN 2 ELSE 1 END AS BIGINT),
            COALESCE((SELECT m.since FROM mail_suppressions m WHERE m.recipient = e.address_key AND m.until > $2), 0),
            COALESCE((SELECT string_agg(g.role, '
' ORDER BY g.role) FROM user_roles g WHERE g.user_id = s.user_id AND g.resource = ''), '')
        FROM sessions s JOIN users u ON u.id = s.user_id JOIN user_emails e ON e.user_id = s.user_id
        WHERE s.id = $1 AND s.expires_at > $2
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = s.user_id)
            AND (s.amr <> 'impersonation' OR EXISTS (SELECT 1 FROM impersonations i
                JOIN sessions o ON o.id = i.operator_session_id
                JOIN user_roles g ON g.user_id = i.operator_id AND g.resource = ''
                JOIN role_effects f ON f.role = g.role
                WHERE i.session_id = s.id AND o.expires_at > $2 AND o.aal >= 2
                    AND f.permission IN ('*', 'users:*', 'users:impersonate')
                    AND EXISTS (SELECT 1 FROM user_roles k JOIN roles r ON r.name = k.role
                        WHERE k.user_id = i.operator_id AND k.resource = ''
                            AND (r.level >= 100 OR r.level > COALESCE((SELECT MAX(t.level) FROM user_roles h
                                JOIN roles t ON t.name = h.role WHERE h.user_id = s.user_id), 0)))))";
    /// The same for whoever shows the refresh token itself, as a cookie: the current one, or its predecessor as long
    /// as that is given the same successor.
    LOAD_BY_TOKEN = "SELECT u.id, e.address,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT),
            u.display_name, u.locale, u.metadata, u.created_at, s.id, s.created_at, s.authenticated_at, s.expires_at,
            s.idle, s.aal, s.amr, s.device_id, s.device_name, s.factor_at,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM passkeys p WHERE p.user_id = s.user_id) THEN 2
                WHEN NOT EXISTS (SELECT 1 FROM totp_factors f WHERE f.user_id = s.user_id) THEN 0
                WHEN EXISTS (SELECT 1 FROM password_credentials c WHERE c.user_id = s.user_id) THEN 2 ELSE 1 END AS BIGINT),
            COALESCE((SELECT m.since FROM mail_suppressions m WHERE m.recipient = e.address_key AND m.until > $2), 0),
            COALESCE((SELECT string_agg(g.role, '
' ORDER BY g.role) FROM user_roles g WHERE g.user_id = s.user_id AND g.resource = ''), ''),
            CAST(CASE WHEN r.current_digest = $3 AND r.previous_digest <> r.current_digest AND r.rotated_at < $4
                THEN 1 ELSE 0 END AS BIGINT)
        FROM refresh_tokens r JOIN sessions s ON s.id = r.session_id JOIN users u ON u.id = s.user_id
            JOIN user_emails e ON e.user_id = s.user_id
        WHERE r.session_id = $1 AND s.expires_at > $2 AND r.expires_at > $2
            AND (r.current_digest = $3 OR (r.previous_digest = $3 AND r.rotated_at >= $4))
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = s.user_id)";
    /// Case 1. The row decides; session and person are part of the condition.
    ROTATE = "UPDATE refresh_tokens
        SET previous_digest = current_digest, current_digest = $3, rotated_at = $4,
            expires_at = $4 + (SELECT s.idle FROM sessions s WHERE s.id = refresh_tokens.session_id)
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
            (SELECT s.idle FROM sessions s WHERE s.id = refresh_tokens.session_id),
            (SELECT s.aal FROM sessions s WHERE s.id = refresh_tokens.session_id),
            (SELECT s.amr FROM sessions s WHERE s.id = refresh_tokens.session_id),
            (SELECT s.device_id FROM sessions s WHERE s.id = refresh_tokens.session_id), '',
            (SELECT s.factor_at FROM sessions s WHERE s.id = refresh_tokens.session_id),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM passkeys p WHERE p.user_id = refresh_tokens.user_id) THEN 2
                WHEN NOT EXISTS (SELECT 1 FROM totp_factors f WHERE f.user_id = refresh_tokens.user_id) THEN 0
                WHEN EXISTS (SELECT 1 FROM password_credentials c WHERE c.user_id = refresh_tokens.user_id) THEN 2 ELSE 1 END AS BIGINT),
            CAST(0 AS BIGINT),
            COALESCE((SELECT string_agg(g.role, '
' ORDER BY g.role) FROM user_roles g WHERE g.user_id = refresh_tokens.user_id AND g.resource = ''), '')";
    /// Locks a session for the decision about a token that is not the current one, as ending it does. What is
    /// decided is read by the next statement: one that waited for its lock sees what was there before it waited.
    LOCK = "SELECT user_id FROM sessions WHERE id = $1 /*pg FOR UPDATE */";
    INSPECT = "SELECT r.user_id, r.current_digest, r.previous_digest, r.rotated_at, r.expires_at, s.expires_at, s.idle,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = r.user_id) THEN 1 ELSE 0 END AS BIGINT)
        FROM refresh_tokens r JOIN sessions s ON s.id = r.session_id WHERE r.session_id = $1";
    /// Case 3: another successor of the previous token takes the place of the one that was never presented.
    REPLACE = "UPDATE refresh_tokens SET current_digest = $3, rotated_at = $4, expires_at = $5
        WHERE session_id = $1 AND previous_digest = $2 AND rotated_at = $6";
    /// A token like any other takes the place of the current one, which has no successor: re-authentication.
    RENEW = "UPDATE refresh_tokens SET current_digest = $2, previous_digest = $3, rotated_at = $4, expires_at = $5
        WHERE session_id = $1";
    /// $3 is whether the password is among what was shown, $6 whether a factor was shown now: password and factor together
    /// are level 2.
    PROVEN_AGAIN = "UPDATE sessions SET authenticated_at = $2, amr = $4, device_name = $5,
            aal = CASE WHEN CAST($3 AS BIGINT) = 1 AND (CAST($6 AS BIGINT) = 1 OR factor_at > 0) THEN 2 ELSE aal END,
            factor_at = CASE WHEN CAST($6 AS BIGINT) = 1 THEN $2 ELSE factor_at END
        WHERE id = $1";
    SHOWN = "UPDATE sessions SET factor_at = $2, aal = CASE WHEN CAST($3 AS BIGINT) = 1 THEN 2 ELSE aal END, amr = $4
        WHERE id = $1";
    SHORTEN = "UPDATE sessions SET expires_at = CASE WHEN expires_at > $2 THEN $2 ELSE expires_at END,
            idle = CASE WHEN idle > $3 THEN $3 ELSE idle END
        WHERE id = $1";
    STRONG = "SELECT s.id FROM sessions s WHERE s.user_id = $1 AND s.aal >= 2";
    SHORTEN_TOKEN = "UPDATE refresh_tokens SET expires_at = CASE WHEN expires_at > $2 THEN $2 ELSE expires_at END
        WHERE session_id = $1";
    /// The factor is gone: nobody has shown it any more.
    FACTOR_GONE = "UPDATE sessions SET aal = 1, factor_at = 0, amr = REPLACE(amr, ' mfa', '') WHERE user_id = $1";
    FACTOR_WAS_GONE = "UPDATE replaced_tokens SET aal = 1, factor_at = 0, amr = REPLACE(amr, ' mfa', '')
        WHERE session_id IN (SELECT s.id FROM sessions s WHERE s.user_id = $1)";
    /// What a session has proven, for a living one.
    PROVEN = "SELECT s.authenticated_at, s.aal, s.factor_at FROM sessions s WHERE s.id = $1";
    TRUST = "INSERT INTO trusted_devices (user_id, device_id, expires_at) VALUES ($1, $2, $3)
        ON CONFLICT (user_id, device_id) DO UPDATE SET expires_at = excluded.expires_at";
    UNTRUST_OF_SESSION = "DELETE FROM trusted_devices WHERE user_id = $2
        AND device_id IN (SELECT s.device_id FROM sessions s WHERE s.id = $1 AND s.user_id = $2)";
    UNTRUST = "DELETE FROM trusted_devices WHERE user_id = $1 AND device_id = $2";
    UNTRUST_OTHERS = "DELETE FROM trusted_devices WHERE user_id = $1 AND device_id <> $2";
    SWEEP_TRUST = "DELETE FROM trusted_devices WHERE expires_at <= $1";
    KEEP_REPLACED = "INSERT INTO replaced_tokens
            (session_id, digest, previous_digest, successor_digest, authenticated_at, aal, amr, factor_at)
        SELECT s.id, r.current_digest, r.previous_digest, $2, s.authenticated_at, s.aal, s.amr, s.factor_at
        FROM sessions s JOIN refresh_tokens r ON r.session_id = s.id WHERE s.id = $1
        ON CONFLICT (session_id) DO UPDATE SET digest = excluded.digest, previous_digest = excluded.previous_digest,
            successor_digest = excluded.successor_digest, authenticated_at = excluded.authenticated_at,
            aal = excluded.aal, amr = excluded.amr, factor_at = excluded.factor_at";
    /// The new token was never used, and is replaced by another new one: what was before stays what was before.
    KEEP_BEFORE = "UPDATE replaced_tokens SET successor_digest = $3 WHERE session_id = $1 AND successor_digest = $2
        RETURNING digest";
    /// The token that this one took the place of, as long as this one was never used.
    TAKEN_OVER = "SELECT digest FROM replaced_tokens WHERE session_id = $1 AND successor_digest = $2";
    /// What a session was before its token was replaced, as long as the new token is the current one: never used.
    REPLACED = "SELECT authenticated_at, aal, amr, factor_at FROM replaced_tokens
        WHERE session_id = $1 AND (digest = $2 OR previous_digest = $2) AND successor_digest = $3";
    /// The current token was shown: nothing that came before it leads anywhere.
    CONFIRM = "UPDATE refresh_tokens SET previous_digest = current_digest
        WHERE session_id = $1 AND current_digest = $2 AND previous_digest <> current_digest AND rotated_at < $3";
    AS_BEFORE = "UPDATE sessions SET authenticated_at = $2, aal = $3, amr = $4, factor_at = $5 WHERE id = $1";
    LIST = "SELECT s.id, s.device_name, COALESCE((SELECT d.first_seen_at FROM devices d
                WHERE d.user_id = s.user_id AND d.device_id = s.device_id), s.created_at),
            s.place, s.address, s.created_at, s.last_seen_at, s.expires_at, COALESCE(r.expires_at, s.expires_at), s.aal, s.amr,
            COALESCE((SELECT t.expires_at FROM trusted_devices t
                WHERE t.user_id = s.user_id AND t.device_id = s.device_id), 0)
        FROM sessions s LEFT JOIN refresh_tokens r ON r.session_id = s.id
        WHERE s.user_id = $1 AND s.expires_at > $2 AND COALESCE(r.expires_at, s.expires_at) > $2 AND s.created_at < $3
        ORDER BY s.created_at DESC, s.id DESC LIMIT $4";
    END_OWN = "DELETE FROM sessions WHERE id = $1 AND user_id = $2 RETURNING id, user_id, device_name, expires_at, amr";
    /// The oldest sessions of a person beyond so many beside this one.
    BEYOND = "SELECT id FROM sessions WHERE user_id = $1 AND id <> $3 AND amr <> 'impersonation' ORDER BY created_at DESC, id DESC
        LIMIT 10000 OFFSET $2";
    DEVICE = "INSERT INTO devices (user_id, device_id, first_seen_at, last_seen_at) VALUES ($1, $2, $3, $3)
        ON CONFLICT (user_id, device_id) DO UPDATE SET last_seen_at = excluded.last_seen_at";
    KNOWN_DEVICE = "SELECT first_seen_at FROM devices WHERE user_id = $1 AND device_id = $2";
    FORGET_DEVICE = "DELETE FROM devices WHERE user_id = $1 AND device_id = $2";
    /// Whether a sign-in on a device that nobody knows is news: not to somebody who proves their address just now.
    IS_NEWS = "SELECT v.verified_at FROM verified_emails v WHERE v.user_id = $1 AND (v.verified_at < $3
        OR EXISTS (SELECT 1 FROM devices d WHERE d.user_id = v.user_id AND d.device_id <> $2))";
    SEEN = "UPDATE sessions SET last_seen_at = $2 WHERE id = $1 AND last_seen_at < $2 RETURNING user_id, device_id";
    DEVICE_SEEN = "UPDATE devices SET last_seen_at = $3 WHERE user_id = $1 AND device_id = $2 AND last_seen_at < $3";
    /// Devices that were not seen for longer than any session lives.
    SWEEP_DEVICES = "DELETE FROM devices WHERE last_seen_at <= $1";
    NOTICE = "INSERT INTO new_device_notices
            (link_digest, user_id, session_id, device_id, device_name, amr, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    NOTICE_OPEN = "SELECT device_name FROM new_device_notices WHERE link_digest = $1 AND expires_at > $2";
    NOTICE_OF = "SELECT user_id, device_id, amr, expires_at FROM new_device_notices WHERE link_digest = $1 AND expires_at > $2";
    NOTICE_CONSUME = "DELETE FROM new_device_notices WHERE link_digest = $1 AND expires_at > $2 RETURNING user_id";
    /// A session proves more while it lives; what was proven on a device counts for its notice.
    NOTICE_PROVEN = "UPDATE new_device_notices SET amr = $3 WHERE user_id = $1 AND session_id = $2";
    SWEEP_NOTICES = "DELETE FROM new_device_notices WHERE expires_at <= $1";
    END = "DELETE FROM sessions WHERE id = $1 RETURNING id, user_id, device_name, expires_at, amr";
    /// Remembers the ends of all sessions of a person but one; their person is locked, so that none begins meanwhile.
    REMEMBER_ENDS = "INSERT INTO ended_sessions (id, user_id, reason, ended_at, kept_until)
        SELECT s.id, s.user_id, $3, $4, CASE WHEN s.expires_at < $4 + s.idle THEN s.expires_at ELSE $4 + s.idle END
        FROM sessions s WHERE s.user_id = $1 AND s.id <> $2 ON CONFLICT (id) DO NOTHING";
    END_OTHERS = "DELETE FROM sessions WHERE user_id = $1 AND id <> $2 RETURNING id";
    OF_DEVICE = "SELECT s.id FROM sessions s WHERE s.user_id = $1 AND s.device_id = $2";
    DEVICE_OF = "SELECT s.device_id FROM sessions s WHERE s.id = $1";
    /// Why a session does not begin: suspended; a factor is there; the password is not this one any more.
    BARS = "SELECT
            CAST(CASE WHEN EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM totp_factors f WHERE f.user_id = u.id)
                OR EXISTS (SELECT 1 FROM passkeys p WHERE p.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM email_code_factors f WHERE f.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT),
            CAST(CASE WHEN CAST($2 AS TEXT) = ''
                OR (EXISTS (SELECT 1 FROM password_credentials c WHERE c.user_id = u.id AND c.password_hash = $2)
                    AND NOT EXISTS (SELECT 1 FROM password_change_demands d WHERE d.user_id = u.id))
                THEN 1 ELSE 0 END AS BIGINT)
        FROM users u WHERE u.id = $1";
    REMEMBER_END = "INSERT INTO ended_sessions (id, user_id, reason, ended_at, kept_until) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (id) DO NOTHING";
    ENDED = "SELECT reason FROM ended_sessions WHERE id = $1";
    ENDED_SINCE = "SELECT id, user_id, reason, ended_at FROM ended_sessions WHERE ended_at > $1
        ORDER BY ended_at, id LIMIT $2";
    /// Whose access changed: a person's id, or the name of a role that many may have.
    CHANGED_SINCE = "SELECT subject, changed_at FROM access_changes WHERE changed_at > $1 AND changed_at <= $2
        ORDER BY changed_at, subject LIMIT $3";
    ENDED_AT = "SELECT id, user_id, reason, ended_at FROM ended_sessions WHERE ended_at = $1 ORDER BY id";
    SWEEP_EXPIRED = "SELECT id FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT 100";
    /// A token that is being rotated is not idle: it is skipped while it is locked.
    SWEEP_IDLE = "SELECT session_id FROM refresh_tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT 100
        /*pg FOR UPDATE SKIP LOCKED */";
    SWEEP_ENDED = "DELETE FROM ended_sessions WHERE kept_until <= $1";
    KEYS = "SELECT kid, algorithm, sealed, public_jwk, created_at, signs_from FROM signing_keys
        ORDER BY signs_from, created_at, kid";
    LOCK_KEYS = "SELECT CAST(1 AS BIGINT) /*pg FROM pg_advisory_xact_lock(7306086865420302) */";
    INSERT_KEY = "INSERT INTO signing_keys (kid, algorithm, sealed, public_jwk, created_at, signs_from)
        VALUES ($1, $2, $3, $4, $5, $6)";
    DELETE_KEY = "DELETE FROM signing_keys WHERE kid = $1 RETURNING signs_from";
    RESEAL_KEY = "UPDATE signing_keys SET sealed = $2 WHERE kid = $1 AND sealed = $3";
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
        /// How long its refresh token is good unused, in microseconds.
        pub idle: i64,
        /// Authenticator assurance level.
        pub aal: i64,
        /// Methods, joined with spaces.
        pub amr: String,
        /// The device.
        pub device_id: Id<DeviceRow>,
        /// Its name.
        pub device_name: String,
        /// When a second factor was last shown in it; 0 for never.
        pub factor_at: Timestamp,
        /// What the person's account can show: 0 without a second factor, 1 with an app, 2 with a passkey, or with an app and
        /// a password.
        pub strength: i64,
        /// Since when mail does not reach them; 0 when it does, or where nobody asked.
        pub unreachable_since: Timestamp,
        /// The roles that they have everywhere, a line each.
        pub roles: String,
    }
}

/// A session whose cookie was shown, and whether that is news: nothing has confirmed its token yet.
#[derive(Debug)]
pub(super) struct ByToken(pub(super) SessionUser, pub(super) bool);

impl FromRow for ByToken {
    fn from_row(row: &Row<'_>) -> foundation::db::Result<Self> {
        row.expect_width(21)?;
        let session = SessionUser {
            user_id: row.get(0)?,
            address: row.get(1)?,
            verified: row.get(2)?,
            display_name: row.get(3)?,
            locale: row.get(4)?,
            metadata: row.get(5)?,
            user_created_at: row.get(6)?,
            session_id: row.get(7)?,
            created_at: row.get(8)?,
            authenticated_at: row.get(9)?,
            expires_at: row.get(10)?,
            idle: row.get(11)?,
            aal: row.get(12)?,
            amr: row.get(13)?,
            device_id: row.get(14)?,
            device_name: row.get(15)?,
            factor_at: row.get(16)?,
            strength: row.get(17)?,
            unreachable_since: row.get(18)?,
            roles: row.get(19)?,
        };
        Ok(Self(session, row.get(20)?))
    }
}

impl SessionUser {
    /// The person as applications see them.
    pub fn user(&self) -> User {
        let (address, name) = (self.address.clone(), self.display_name.clone());
        User {
            mfa_enabled: self.strength > 0,
            roles: self.roles(),
            ..User::new(self.user_id, address, self.verified, name, self.user_created_at)
        }
    }

    /// The names of the roles that they have everywhere.
    pub fn roles(&self) -> Vec<String> {
        self.roles.lines().map(str::to_owned).collect()
    }

    /// How long its refresh token is good unused.
    pub fn idle(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.idle).unwrap_or(0))
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
        pub(super) idle: i64,
        pub(super) suspended: bool,
    }
}

impl Inspected {
    /// Why the session is over, when it is.
    pub(super) fn over(&self, now: Timestamp) -> Option<EndReason> {
        let over = [
            (self.suspended, EndReason::Suspended),
            (self.session_expires_at <= now, EndReason::Expired),
            (self.expires_at <= now, EndReason::Idle),
        ];
        over.into_iter().find(|(applies, _)| *applies).map(|(_, reason)| reason)
    }

    /// How long the refresh token is good unused.
    pub(super) fn idle(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.idle).unwrap_or(0))
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
        pub(super) amr: String,
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
        pub(super) signs_from: Timestamp,
    }
}

record! {
    /// A living session as its person sees it.
    #[derive(Debug)]
    pub(super) struct Listed {
        pub(super) id: Id<SessionRow>,
        pub(super) device_name: String,
        pub(super) first_seen_at: Timestamp,
        pub(super) place: String,
        pub(super) address: String,
        pub(super) created_at: Timestamp,
        pub(super) last_seen_at: Timestamp,
        pub(super) expires_at: Timestamp,
        pub(super) token_expires_at: Timestamp,
        pub(super) aal: i64,
        pub(super) amr: String,
        pub(super) trusted_until: Timestamp,
    }
}

record! {
    /// Whose roles changed.
    #[derive(Debug, Clone)]
    pub(super) struct Changed {
        pub(super) subject: String,
        pub(super) changed_at: Timestamp,
    }
}

record! {
    /// A session that ended.
    #[derive(Debug, Clone)]
    pub(super) struct Over {
        pub(super) id: Id<SessionRow>,
        pub(super) user_id: Id<UserRow>,
        pub(super) reason: String,
        pub(super) ended_at: Timestamp,
    }
}

pub(super) fn load(
    tx: &mut Tx<'_>,
    session: Id<SessionRow>,
    now: Timestamp,
) -> foundation::db::Result<Option<SessionUser>> {
    tx.opt(&LOAD, params![session, now])
}
