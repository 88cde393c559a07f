//! The statements about registrations and verifications.

use foundation::kernel::{Digest, Id};
use foundation::{record, statements};

use super::model::VerificationRow;
use crate::accounts::UserRow;

statements! {
    /// Whose address it is. Registering, resending and proving the same address wait for each other at the person's
    /// lock; what is decided under the lock is read by the next statement: a statement that waited for its lock
    /// still sees what was there before it waited.
    HOLDER = "SELECT e.user_id, e.address FROM user_emails e WHERE e.address_key = $1";
    IS_VERIFIED = "SELECT verified_at FROM verified_emails WHERE user_id = $1";
    INSERT_USER = "INSERT INTO users (id, display_name, locale, metadata, created_at, name_key)
        VALUES ($1, $2, $3, $4, $5, $6)";
    INSERT_EMAIL = "INSERT INTO user_emails (user_id, address, address_key) VALUES ($1, $2, $3)
        ON CONFLICT (address_key) DO NOTHING RETURNING user_id";
    DELETE_USER = "DELETE FROM users WHERE id = $1";
    REPLACE_PROFILE = "UPDATE users SET display_name = $2, locale = $3, metadata = $4, name_key = $5 WHERE id = $1";
    REPLACE_ADDRESS = "UPDATE user_emails SET address = $2 WHERE user_id = $1";
    OPEN = "INSERT INTO email_verification_tokens
            (user_id, verification_id, link_digest, code_digest, password_hash, failures, expires_at)
        VALUES ($1, $2, $3, $4, $5, 0, $6)
        ON CONFLICT (user_id) DO UPDATE SET verification_id = excluded.verification_id,
            link_digest = excluded.link_digest, code_digest = excluded.code_digest,
            password_hash = excluded.password_hash, failures = 0, expires_at = excluded.expires_at";
    /// The open verification of an unproven address, with the address as typed.
    OPEN_OF = "SELECT t.user_id, t.verification_id, e.address FROM email_verification_tokens t
        JOIN user_emails e ON e.user_id = t.user_id
        WHERE e.address_key = $1 AND NOT EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = t.user_id)";
    RENEW = "UPDATE email_verification_tokens SET link_digest = $2, code_digest = $3, failures = 0, expires_at = $4
        WHERE verification_id = $1
            AND NOT EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = email_verification_tokens.user_id)";
    BY_ID = "SELECT user_id FROM email_verification_tokens WHERE verification_id = $1";
    BY_LINK = "SELECT user_id FROM email_verification_tokens WHERE link_digest = $1";
    IS_OPEN = "SELECT e.address FROM email_verification_tokens t JOIN user_emails e ON e.user_id = t.user_id
        WHERE t.link_digest = $1 AND t.expires_at > $2";
    CONSUME_LINK = "DELETE FROM email_verification_tokens WHERE verification_id = $1 AND link_digest = $2 AND expires_at > $3
            AND NOT EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = email_verification_tokens.user_id)
        RETURNING user_id, password_hash";
    CONSUME_LINK_ALONE = "DELETE FROM email_verification_tokens WHERE link_digest = $1 AND expires_at > $2
            AND NOT EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = email_verification_tokens.user_id)
        RETURNING user_id";
    /// A guess is spent before it is compared, so that parallel guesses cannot overshoot.
    SPEND_GUESS = "UPDATE email_verification_tokens SET failures = failures + 1
        WHERE verification_id = $1 AND failures < $2 AND expires_at > $3 RETURNING user_id, code_digest";
    CONSUME_CODE = "DELETE FROM email_verification_tokens WHERE verification_id = $1 AND code_digest = $2
            AND NOT EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = email_verification_tokens.user_id)
        RETURNING user_id, password_hash";
    VERIFIED = "INSERT INTO verified_emails (user_id, verified_at) VALUES ($1, $2) ON CONFLICT (user_id) DO NOTHING
        RETURNING verified_at";
    DROP_PASSWORD = "DELETE FROM password_credentials WHERE user_id = $1";
    DROP_FOREIGN = "DELETE FROM foreign_hashes WHERE user_id = $1";
    DROP_IDENTITIES = "DELETE FROM federated_identities WHERE user_id = $1";
    DROP_PENDING = "DELETE FROM pending_identities WHERE user_id = $1";
    PENDING = "INSERT INTO pending_identities (user_id, verification_id, provider, subject) VALUES ($1, $2, $3, $4)";
    PENDING_OF = "SELECT provider, subject FROM pending_identities WHERE verification_id = $1";
    /// Somebody else may have it by now, who came first.
    LINK_PENDING = "INSERT INTO federated_identities (provider, subject, user_id, linked_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (provider, subject) DO NOTHING RETURNING linked_at";
    /// People who never proved their address, a while after their last mail became useless; not those that an
    /// operator brought here. Whoever is registering or proving that address has their lock, and is spared.
    NEVER_PROVEN = "SELECT u.id FROM users u WHERE u.id IN
        (SELECT t.user_id FROM email_verification_tokens t WHERE t.expires_at <= $1
            AND NOT EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = t.user_id)
            AND NOT EXISTS (SELECT 1 FROM imported_users i WHERE i.user_id = t.user_id)
            ORDER BY t.expires_at LIMIT 500)
        /*pg FOR UPDATE SKIP LOCKED */";
    /// Decided again under the lock.
    FORGET = "DELETE FROM users WHERE id = $1
        AND EXISTS (SELECT 1 FROM email_verification_tokens t WHERE t.user_id = users.id AND t.expires_at <= $2)
        AND NOT EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = users.id)
        AND NOT EXISTS (SELECT 1 FROM user_roles g JOIN roles r ON r.name = g.role
            WHERE g.user_id = users.id AND r.level > 0)";
    /// Whether somebody is here already as far as the policy is concerned: their address is proven, or an operator brought them.
    IS_HERE = "SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = $1)
            OR EXISTS (SELECT 1 FROM imported_users i WHERE i.user_id = $1) THEN 1 ELSE 0 END AS BIGINT)";
    /// An operator brought them here: they are not swept away.
    BROUGHT = "INSERT INTO imported_users (user_id, source, imported_at) VALUES ($1, $2, $3)";
    /// Whether a link is the one that an operator had mailed to somebody whom they made: nobody has registered since.
    IS_MADE = "SELECT t.user_id FROM email_verification_tokens t JOIN imported_users i ON i.user_id = t.user_id
        WHERE t.link_digest = $1 AND t.password_hash = '' AND i.source = 'operator'
            AND NOT EXISTS (SELECT 1 FROM pending_identities p WHERE p.verification_id = t.verification_id)";
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
    /// An open verification, for another mail.
    #[derive(Debug)]
    pub(super) struct Open {
        pub(super) user_id: Id<UserRow>,
        pub(super) verification_id: Id<VerificationRow>,
        pub(super) address: String,
    }
}

record! {
    /// A guess that was spent.
    #[derive(Debug)]
    pub(super) struct Guess {
        pub(super) user_id: Id<UserRow>,
        pub(super) code_digest: Digest,
    }
}

record! {
    /// A verification that was consumed just now.
    #[derive(Debug)]
    pub(super) struct Consumed {
        pub(super) user_id: Id<UserRow>,
        /// "" when it is an identity that waited.
        pub(super) password_hash: String,
    }
}
