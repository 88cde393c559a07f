//! The statements about people: their profiles, who is shut out, who leaves, and what is stored about them.

use foundation::kernel::{Id, Timestamp};
use foundation::{record, statements};

use super::model::UserRow;
use crate::access::KeyRow;
use crate::passkeys::PasskeyRow;
use crate::sessions::{DeviceRow, SessionRow};

statements! {
    /// Changes what is given (a 1 says so), for a person whose session still lives.
    UPDATE_PROFILE = "UPDATE users SET
            display_name = CASE WHEN CAST($2 AS BIGINT) = 1 THEN $3 ELSE display_name END,
            locale = CASE WHEN CAST($4 AS BIGINT) = 1 THEN $5 ELSE locale END,
            metadata = CASE WHEN CAST($6 AS BIGINT) = 1 THEN $7 ELSE metadata END,
            name_key = CASE WHEN CAST($2 AS BIGINT) = 1 THEN $9 ELSE name_key END
        WHERE id = $1 AND EXISTS (SELECT 1 FROM sessions s WHERE s.id = $8 AND s.user_id = users.id)
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = users.id)
        RETURNING display_name, locale, metadata";
    BY_ADDRESS = "SELECT user_id FROM user_emails WHERE address_key = $1";
    EXISTS = "SELECT id FROM users WHERE id = $1";
    /// $4 is when it ends by itself; 0 for never.
    SUSPEND = "INSERT INTO suspensions (user_id, reason, suspended_at, ends_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_id) DO UPDATE SET reason = excluded.reason, ends_at = excluded.ends_at RETURNING suspended_at";
    /// One whose end was moved meanwhile stays; and nobody comes back by it whose account is to be deleted.
    LIFT = "DELETE FROM suspensions WHERE user_id = $1 AND ends_at > 0 AND ends_at <= $2
            AND NOT EXISTS (SELECT 1 FROM closings c WHERE c.user_id = suspensions.user_id)
        RETURNING suspended_at";
    UNSUSPEND = "DELETE FROM suspensions WHERE user_id = $1 RETURNING suspended_at";

    /// The session still lives, and nobody suspended the person.
    LIVES = "SELECT s.created_at FROM sessions s WHERE s.id = $1 AND s.user_id = $2 AND s.expires_at > $3
        AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = s.user_id)";
    /// Until when somebody at a former address of the account ($2 is now) can say that it was not them; 0 for nobody.
    WAY_BACK = "SELECT CAST(COALESCE(MAX(n.expires_at), 0) AS BIGINT) FROM not_me_tokens n
        WHERE n.user_id = $1 AND n.expires_at > $2
            AND n.address_key <> (SELECT e.address_key FROM user_emails e WHERE e.user_id = $1)";
    /// One for each person: whoever asked first. They are shut out by it, unless they are already.
    CLOSE = "INSERT INTO closings (user_id, link_digest, asked_by, asked_at, due_at, shut_out)
        SELECT u.id, $2, $3, $4, $5,
            CASE WHEN EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = u.id) THEN 0 ELSE 1 END
        FROM users u WHERE u.id = $1
        ON CONFLICT (user_id) DO NOTHING RETURNING shut_out";
    CLOSING = "SELECT due_at FROM closings WHERE user_id = $1";
    SHUT_OUT = "INSERT INTO suspensions (user_id, reason, suspended_at, ends_at) VALUES ($1, $2, $3, 0)
        ON CONFLICT (user_id) DO NOTHING";
    /// Somebody suspended them meanwhile: they stay out when their account is kept.
    STAYS_OUT = "UPDATE closings SET shut_out = 0 WHERE user_id = $1";
    CLOSING_BY_LINK = "SELECT c.user_id, e.address FROM closings c JOIN user_emails e ON e.user_id = c.user_id
        WHERE c.link_digest = $1 AND c.due_at > $2";
    /// The row decides: kept once, and never after its time.
    KEEP_BY_LINK = "DELETE FROM closings WHERE link_digest = $1 AND due_at > $2 RETURNING shut_out";
    /// Only what was asked for in the person's own name, since a moment.
    KEEP_OWN = "DELETE FROM closings WHERE user_id = $1 AND asked_by = $2 AND asked_at >= $3 RETURNING shut_out";
    KEEP = "DELETE FROM closings WHERE user_id = $1 RETURNING shut_out";
    /// What shut them out, when that was the closing ($2 is 1), or what would have ended meanwhile.
    LET_IN = "DELETE FROM suspensions WHERE user_id = $1
            AND (CAST($2 AS BIGINT) = 1 OR (ends_at > 0 AND ends_at <= $3))
        RETURNING suspended_at";

    DUE = "SELECT asked_by FROM closings WHERE user_id = $1 AND due_at <= $2";
    /// The addresses that mail about this account went to, as far as they are known.
    ADDRESSES = "SELECT e.address_key FROM user_emails e WHERE e.user_id = $1
        UNION SELECT n.address_key FROM not_me_tokens n WHERE n.user_id = $1
        UNION SELECT c.address_key FROM email_change_tokens c WHERE c.user_id = $1";
    /// Unless the address is somebody else's ($2 is not) by now.
    MAILS_TO = "SELECT m.id FROM mail_deliveries m WHERE m.recipient = $1
        AND NOT EXISTS (SELECT 1 FROM user_emails e WHERE e.address_key = $1 AND e.user_id <> $2)";
    FORGET_MAILS = "DELETE FROM mail_deliveries WHERE recipient = $1
        AND NOT EXISTS (SELECT 1 FROM user_emails e WHERE e.address_key = $1 AND e.user_id <> $2)";
    FORGET_INVITATION = "DELETE FROM invitations WHERE address_key = $1
        AND NOT EXISTS (SELECT 1 FROM user_emails e WHERE e.address_key = $1 AND e.user_id <> $2)";
    /// Mails that were given up: what a server said of them may hold the address.
    DEAD_MAILS = "SELECT id, payload FROM dead_jobs WHERE died_at > $1 AND kind = 'mail.deliver'";
    FORGET_DEAD_MAIL = "DELETE FROM dead_jobs WHERE id = $1 AND kind = 'mail.deliver'";
    ATTEMPTS_AT = "SELECT id FROM sign_in_attempts WHERE at > $1 AND subject = $2";
    FORGET_ATTEMPT = "DELETE FROM sign_in_attempts WHERE id = $1";
    FORGET_GUESSES = "DELETE FROM password_guesses WHERE subject = $1";
    /// Everything that is theirs goes with them.
    ERASE = "DELETE FROM users WHERE id = $1";

    PERSON = "SELECT u.id, u.display_name, u.locale, u.metadata, u.created_at, e.address, e.address_key,
            COALESCE((SELECT v.verified_at FROM verified_emails v WHERE v.user_id = u.id), 0),
            COALESCE((SELECT p.set_at FROM password_credentials p WHERE p.user_id = u.id), 0),
            COALESCE((SELECT d.reason FROM password_change_demands d WHERE d.user_id = u.id), ''),
            COALESCE((SELECT i.source FROM imported_users i WHERE i.user_id = u.id), ''),
            COALESCE((SELECT i.imported_at FROM imported_users i WHERE i.user_id = u.id), 0)
        FROM users u JOIN user_emails e ON e.user_id = u.id WHERE u.id = $1";
    PENDING_ADDRESS = "SELECT address, expires_at FROM email_change_tokens WHERE user_id = $1 AND expires_at > $2";
    UNREACHABLE = "SELECT reason, since, until FROM mail_suppressions WHERE recipient = $1 AND until > $2";
    SESSIONS = "SELECT s.id, s.device_id, s.device_name, s.place, s.address, s.created_at, s.authenticated_at,
            s.last_seen_at, s.expires_at, s.aal, s.amr
        FROM sessions s WHERE s.user_id = $1 ORDER BY s.created_at, s.id";
    ENDED_SESSIONS = "SELECT id, reason, ended_at FROM ended_sessions WHERE user_id = $1 ORDER BY ended_at, id";
    DEVICES = "SELECT d.device_id, d.first_seen_at, d.last_seen_at, d.failures,
            COALESCE((SELECT t.expires_at FROM trusted_devices t
                WHERE t.user_id = d.user_id AND t.device_id = d.device_id), 0)
        FROM devices d WHERE d.user_id = $1 ORDER BY d.first_seen_at, d.device_id";
    FACTORS = "SELECT COALESCE((SELECT f.confirmed_at FROM totp_factors f WHERE f.user_id = $1), 0),
            COALESCE((SELECT f.since FROM email_code_factors f WHERE f.user_id = $1), 0),
            (SELECT COUNT(*) FROM recovery_codes r WHERE r.user_id = $1),
            COALESCE((SELECT g.until FROM enrolment_graces g WHERE g.user_id = $1), 0),
            COALESCE((SELECT r.due_at FROM factor_resets r WHERE r.user_id = $1), 0)";
    WRONG_CODES = "SELECT factor, failures, blocked_until FROM factor_failures WHERE user_id = $1 ORDER BY factor";
    WRONG_MAILED_CODES = "SELECT in_a_row, today FROM code_failures WHERE user_id = $1";
    WRONG_PASSWORDS = "SELECT strangers, devices, locked_until, last_at FROM password_guesses WHERE subject = $1";
    PASSKEYS = "SELECT id, name, transports, backup_eligible, backed_up, created_at, last_used_at FROM passkeys
        WHERE user_id = $1 ORDER BY created_at, id";
    IDENTITIES = "SELECT provider, subject, linked_at FROM federated_identities WHERE user_id = $1
        ORDER BY provider, subject";
    ROLES_OF = "SELECT role, resource, granted_at FROM user_roles WHERE user_id = $1 ORDER BY role, resource";
    KEYS_OF = "SELECT id, name, prefix, created_at, expires_at, last_used_at FROM api_keys WHERE created_by = $1
        ORDER BY created_at, id";
    KEY_MAY = "SELECT permission FROM api_key_permissions WHERE key_id = $1 ORDER BY permission";
    MAILS = "SELECT kind, state, created_at, changed_at FROM mail_deliveries WHERE recipient = $1
        ORDER BY created_at, id";
    ATTEMPTS = "SELECT at, network, device, outcome FROM sign_in_attempts WHERE at > $1 AND subject = $2
        ORDER BY at LIMIT 10000";
    NOT_ME_LINKS = "SELECT address, created_at, expires_at FROM not_me_tokens WHERE user_id = $1 AND expires_at > $2
        ORDER BY created_at";
    DEVICE_NOTICES = "SELECT device_name, expires_at FROM new_device_notices WHERE user_id = $1 AND expires_at > $2
        ORDER BY expires_at";
}

record! {
    /// Somebody, and what there is once of them. Moments are 0 for what is not there.
    #[derive(Debug)]
    pub(super) struct Person {
        pub(super) id: Id<UserRow>,
        pub(super) display_name: String,
        pub(super) locale: String,
        pub(super) metadata: String,
        pub(super) created_at: Timestamp,
        pub(super) address: String,
        pub(super) address_key: String,
        pub(super) verified_at: Timestamp,
        pub(super) password_set_at: Timestamp,
        pub(super) change_demanded: String,
        pub(super) source: String,
        pub(super) imported_at: Timestamp,
    }
}

record! {
    /// A living session.
    #[derive(Debug)]
    pub(super) struct Session {
        pub(super) id: Id<SessionRow>,
        pub(super) device_id: Id<DeviceRow>,
        pub(super) device_name: String,
        pub(super) place: String,
        pub(super) address: String,
        pub(super) created_at: Timestamp,
        pub(super) authenticated_at: Timestamp,
        pub(super) last_seen_at: Timestamp,
        pub(super) expires_at: Timestamp,
        pub(super) aal: i64,
        pub(super) amr: String,
    }
}

record! {
    /// A device on which they signed in.
    #[derive(Debug)]
    pub(super) struct Device {
        pub(super) id: Id<DeviceRow>,
        pub(super) first_seen_at: Timestamp,
        pub(super) last_seen_at: Timestamp,
        pub(super) failures: i64,
        pub(super) trusted_until: Timestamp,
    }
}

record! {
    /// What they show beside a password. Moments are 0 for what is not there.
    #[derive(Debug)]
    pub(super) struct Factors {
        pub(super) totp_since: Timestamp,
        pub(super) email_code_since: Timestamp,
        pub(super) recovery_codes: i64,
        pub(super) grace_until: Timestamp,
        pub(super) reset_due_at: Timestamp,
    }
}

record! {
    /// A passkey.
    #[derive(Debug)]
    pub(super) struct Passkey {
        pub(super) id: Id<PasskeyRow>,
        pub(super) name: String,
        pub(super) transports: String,
        pub(super) backup_eligible: bool,
        pub(super) backed_up: bool,
        pub(super) created_at: Timestamp,
        pub(super) last_used_at: Timestamp,
    }
}

record! {
    /// A key of a machine that they made.
    #[derive(Debug)]
    pub(super) struct MadeKey {
        pub(super) id: Id<KeyRow>,
        pub(super) name: String,
        pub(super) prefix: String,
        pub(super) created_at: Timestamp,
        pub(super) expires_at: Timestamp,
        pub(super) last_used_at: Timestamp,
    }
}
