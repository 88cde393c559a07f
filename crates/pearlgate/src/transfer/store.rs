//! The statements about moving people in and out.

use foundation::kernel::{Id, Timestamp};
use foundation::{record, statements};

use crate::accounts::UserRow;

statements! {
    PROGRESS = "SELECT done FROM imports WHERE file_digest = $1";
    SET_PROGRESS = "INSERT INTO imports (file_digest, done, updated_at) VALUES ($1, $2, $3)
        ON CONFLICT (file_digest) DO UPDATE SET done = excluded.done, updated_at = excluded.updated_at";
    FORGET_PROGRESS = "DELETE FROM imports WHERE file_digest = $1";
    EXISTS = "SELECT user_id FROM user_emails WHERE address_key = $1";
    PERSON = "INSERT INTO users (id, display_name, locale, metadata, created_at, name_key)
        VALUES ($1, $2, $3, $4, $5, $6)";
    ADDRESS = "INSERT INTO user_emails (user_id, address, address_key) VALUES ($1, $2, $3)
        ON CONFLICT (address_key) DO NOTHING RETURNING user_id";
    NOBODY = "DELETE FROM users WHERE id = $1";
    VERIFIED = "INSERT INTO verified_emails (user_id, verified_at) VALUES ($1, $2)";
    PASSWORD = "INSERT INTO password_credentials (user_id, password_hash, set_at) VALUES ($1, $2, $3)";
    FOREIGN = "INSERT INTO foreign_hashes (user_id, scheme) VALUES ($1, $2)";
    /// Waits for its owner: nobody knows these secrets, and a mail that is asked for renews them.
    WAITING = "INSERT INTO email_verification_tokens
            (user_id, verification_id, link_digest, code_digest, password_hash, failures, expires_at)
        VALUES ($1, $2, $3, $4, $5, 0, $6)";
    FACTOR = "INSERT INTO totp_factors (user_id, sealed, last_step, confirmed_at) VALUES ($1, $2, $4, $3)";
    IDENTITY = "INSERT INTO federated_identities (provider, subject, user_id, linked_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (provider, subject) DO NOTHING RETURNING linked_at";
    /// A name that nobody declared is a role that may do nothing.
    ROLE_NAMED = "INSERT INTO roles (id, name, description, level, created_at, changed_at) VALUES ($1, $2, '', 0, $3, $3)
        ON CONFLICT (name) DO NOTHING";
    /// An ordinary person's: operators are not made by a file of somebody else's.
    ROLE = "INSERT INTO user_roles (user_id, role, granted_at, resource, granted_by)
        SELECT $1, r.name, $3, '', '' FROM roles r WHERE r.name = $2 AND r.level = 0
        ON CONFLICT (user_id, role, resource) DO UPDATE SET granted_by = user_roles.granted_by RETURNING granted_at";
    SUSPENSION = "INSERT INTO suspensions (user_id, reason, suspended_at) VALUES ($1, $2, $3)";
    CAME_FROM = "INSERT INTO imported_users (user_id, source, imported_at) VALUES ($1, $2, $3)";
    FACTORS = "SELECT user_id, sealed FROM totp_factors WHERE user_id > $1 ORDER BY user_id LIMIT 500";
    RESEAL_FACTOR = "UPDATE totp_factors SET sealed = $2 WHERE user_id = $1 AND sealed = $3";
    PEOPLE = "SELECT u.id, e.address,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT),
            u.display_name, u.locale, u.metadata, u.created_at,
            COALESCE((SELECT c.password_hash FROM password_credentials c WHERE c.user_id = u.id),
                (SELECT t.password_hash FROM email_verification_tokens t WHERE t.user_id = u.id), '')
        FROM users u JOIN user_emails e ON e.user_id = u.id WHERE u.id > $1 ORDER BY u.id LIMIT 500";
    FACTOR_OF = "SELECT sealed FROM totp_factors WHERE user_id = $1";
    IDENTITIES_OF = "SELECT provider, subject FROM federated_identities WHERE user_id = $1 ORDER BY provider, subject";
    ROLES_OF = "SELECT role FROM user_roles WHERE user_id = $1 AND resource = '' ORDER BY role";
    SUSPENSION_OF = "SELECT reason FROM suspensions WHERE user_id = $1";
}

record! {
    /// A person as they are stored.
    #[derive(Debug)]
    pub(super) struct Person {
        pub(super) id: Id<UserRow>,
        pub(super) address: String,
        pub(super) verified: bool,
        pub(super) display_name: String,
        pub(super) locale: String,
        pub(super) metadata: String,
        pub(super) created_at: Timestamp,
        pub(super) password_hash: String,
    }
}
