//! The statements about second factors.

use foundation::kernel::{Id, Timestamp};
use foundation::{record, statements};

use crate::accounts::UserRow;
use crate::sessions::DeviceRow;

statements! {
    /// What somebody has: since when an app (0: none), recovery codes, whether an app, passkeys, whether a mailed code.
    HAS = "SELECT COALESCE((SELECT f.confirmed_at FROM totp_factors f WHERE f.user_id = $1), 0),
            (SELECT COUNT(*) FROM recovery_codes r WHERE r.user_id = $1),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM totp_factors f WHERE f.user_id = $1) THEN 1 ELSE 0 END AS BIGINT),
            (SELECT COUNT(*) FROM passkeys p WHERE p.user_id = $1),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM email_code_factors f WHERE f.user_id = $1) THEN 1 ELSE 0 END AS BIGINT)";
    SEALED = "SELECT sealed FROM totp_factors WHERE user_id = $1";
    /// Only later steps than any that was accepted: whoever sees a code has nothing, also when the clock is put back.
    USE_STEP = "UPDATE totp_factors SET last_step = $2 WHERE user_id = $1 AND last_step < $2 RETURNING last_step";
    ENROL = "INSERT INTO totp_enrolments (user_id, sealed, expires_at) VALUES ($1, $2, $3)
        ON CONFLICT (user_id) DO UPDATE SET sealed = excluded.sealed, expires_at = excluded.expires_at";
    ENROLMENT = "SELECT sealed FROM totp_enrolments WHERE user_id = $1 AND expires_at > $2";
    DROP_ENROLMENT = "DELETE FROM totp_enrolments WHERE user_id = $1";
    /// Another app in the place of one keeps the date: it was the same person's before.
    CONFIRM = "INSERT INTO totp_factors (user_id, sealed, last_step, confirmed_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_id) DO UPDATE SET sealed = excluded.sealed, last_step = excluded.last_step
        RETURNING confirmed_at";
    REMOVE = "DELETE FROM totp_factors WHERE user_id = $1 RETURNING confirmed_at";
    /// What was added since.
    REMOVE_NEW = "DELETE FROM totp_factors WHERE user_id = $1 AND confirmed_at >= $2 RETURNING confirmed_at";
    REMOVE_NEW_PASSKEYS = "DELETE FROM passkeys WHERE user_id = $1 AND created_at >= $2";
    REMOVE_NEW_CODES = "DELETE FROM recovery_codes WHERE user_id = $1 AND made_at >= $2";
    ADDED_SINCE = "SELECT user_id FROM totp_factors WHERE user_id = $1 AND confirmed_at >= $2
        UNION ALL SELECT user_id FROM passkeys WHERE user_id = $1 AND created_at >= $2";
    REMOVE_PASSKEYS = "DELETE FROM passkeys WHERE user_id = $1";
    ADD_RECOVERY_CODE = "INSERT INTO recovery_codes (user_id, digest, made_at) VALUES ($1, $2, $3)";
    USE_RECOVERY_CODE = "DELETE FROM recovery_codes WHERE user_id = $1 AND digest = $2 RETURNING digest";
    DROP_RECOVERY_CODES = "DELETE FROM recovery_codes WHERE user_id = $1";
    CHOOSE_EMAIL_CODE = "INSERT INTO email_code_factors (user_id, since) VALUES ($1, $2) ON CONFLICT (user_id) DO NOTHING";
    DROP_EMAIL_FACTOR = "DELETE FROM email_code_factors WHERE user_id = $1 RETURNING since";
    OPEN_EMAIL_CODE = "INSERT INTO email_codes (user_id, code_digest, failures, expires_at) VALUES ($1, $2, 0, $3)
        ON CONFLICT (user_id) DO UPDATE SET code_digest = excluded.code_digest, failures = 0,
            expires_at = excluded.expires_at";
    SPEND_EMAIL_CODE = "UPDATE email_codes SET failures = failures + 1
        WHERE user_id = $1 AND failures < $2 AND expires_at > $3 RETURNING code_digest";
    DROP_EMAIL_CODE = "DELETE FROM email_codes WHERE user_id = $1";
    /// $3 now, $4 how many in all.
    SPEND = "INSERT INTO factor_failures (user_id, factor, failures, blocked_until) VALUES ($1, $2, 1, 0)
        ON CONFLICT (user_id, factor) DO UPDATE SET failures = factor_failures.failures + 1
        WHERE factor_failures.blocked_until <= $3 AND factor_failures.failures < $4
        RETURNING failures";
    BLOCK = "UPDATE factor_failures SET blocked_until = $3 WHERE user_id = $1 AND factor = $2";
    FAILED = "SELECT failures, blocked_until FROM factor_failures WHERE user_id = $1 AND factor = $2";
    FORGIVE = "DELETE FROM factor_failures WHERE user_id = $1 AND factor = $2";
    FORGIVE_ALL = "DELETE FROM factor_failures WHERE user_id = $1";
    SWITCHED_OFF = "SELECT factor FROM factor_failures WHERE user_id = $1 AND failures >= $2 ORDER BY factor";
    BEGIN_HALF = "INSERT INTO half_logins
            (digest, user_id, purpose, client_id, transport, password_hash, amr, device_id, device_name, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    /// The oldest of more than somebody begins at a time.
    END_BEYOND = "DELETE FROM half_logins WHERE digest IN (SELECT h.digest FROM half_logins h WHERE h.user_id = $1
        ORDER BY h.expires_at DESC, h.digest LIMIT 10000 OFFSET $2)";
    WHOSE_HALF = "SELECT user_id FROM half_logins WHERE digest = $1 AND expires_at > $2";
    HALF = "SELECT user_id, purpose, client_id, transport, password_hash, amr, device_id, device_name
        FROM half_logins WHERE digest = $1 AND expires_at > $2";
    END_HALF = "DELETE FROM half_logins WHERE digest = $1";
    SWEEP_HALVES = "DELETE FROM half_logins WHERE expires_at <= $1";
    SWEEP_ENROLMENTS = "DELETE FROM totp_enrolments WHERE expires_at <= $1";
    SWEEP_EMAIL_CODES = "DELETE FROM email_codes WHERE expires_at <= $1";
    /// The one time that somebody has; whichever was first.
    GRACE = "INSERT INTO enrolment_graces (user_id, until) VALUES ($1, $2)
        ON CONFLICT (user_id) DO UPDATE SET until = enrolment_graces.until RETURNING until";
    /// Nobody goes on without a factor who had one.
    END_GRACE = "INSERT INTO enrolment_graces (user_id, until) VALUES ($1, $2)
        ON CONFLICT (user_id) DO UPDATE SET until = excluded.until WHERE enrolment_graces.until > excluded.until";
    GRACE_OF = "SELECT until FROM enrolment_graces WHERE user_id = $1";
    ADDRESS = "SELECT e.address, e.address_key FROM user_emails e JOIN verified_emails v ON v.user_id = e.user_id
        WHERE e.user_id = $1";
    ANNOUNCE_RESET = "INSERT INTO factor_resets (user_id, link_digest, due_at) VALUES ($1, $2, $3)
        ON CONFLICT (user_id) DO UPDATE SET link_digest = excluded.link_digest, due_at = excluded.due_at";
    RESET_OF = "SELECT due_at FROM factor_resets WHERE user_id = $1";
    RESET_BY_LINK = "SELECT user_id FROM factor_resets WHERE link_digest = $1";
    CANCEL_RESET = "DELETE FROM factor_resets WHERE user_id = $1 RETURNING due_at";
    DUE_RESET = "DELETE FROM factor_resets WHERE user_id = $1 AND due_at <= $2 RETURNING due_at";
}

record! {
    /// What somebody has.
    #[derive(Debug, Clone)]
    pub(super) struct Has {
        pub(super) confirmed_at: Timestamp,
        pub(super) recovery_codes: i64,
        pub(super) totp: bool,
        pub(super) passkeys: i64,
        pub(super) email_code: bool,
    }
}

impl Has {
    /// Whether there is a second factor; a code from the mailbox is none.
    pub(super) fn factor(&self) -> bool {
        self.totp || self.passkeys > 0
    }
}

record! {
    /// A sign-in between its two steps.
    #[derive(Debug, Clone)]
    pub(super) struct Half {
        pub(super) user: Id<UserRow>,
        pub(super) purpose: String,
        pub(super) client_id: String,
        pub(super) transport: String,
        pub(super) password_hash: String,
        pub(super) amr: String,
        pub(super) device: Id<DeviceRow>,
        pub(super) device_name: String,
    }
}
