//! The statements about providers, sign-ins on their way through one, and identities.

use foundation::kernel::{Digest, Id, Timestamp};
use foundation::{record, statements};

use crate::accounts::UserRow;
use crate::sessions::SessionRow;

statements! {
    PROVIDER = "SELECT id, sealed, changed_at FROM identity_providers WHERE id = $1";
    PROVIDERS = "SELECT id, sealed, changed_at FROM identity_providers ORDER BY id";
    ADD_PROVIDER = "INSERT INTO identity_providers (id, sealed, changed_at) VALUES ($1, $2, $3)
        ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed, changed_at = excluded.changed_at";
    /// What was sealed anew meanwhile stays.
    RESEAL_PROVIDER = "UPDATE identity_providers SET sealed = $2 WHERE id = $1 AND sealed = $3";
    REMOVE_PROVIDER = "DELETE FROM identity_providers WHERE id = $1 RETURNING changed_at";
    IS_DISABLED = "SELECT disabled_at FROM disabled_providers WHERE id = $1";
    ALL_DISABLED = "SELECT id FROM disabled_providers ORDER BY id";
    DISABLE = "INSERT INTO disabled_providers (id, disabled_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
    ENABLE = "DELETE FROM disabled_providers WHERE id = $1";
    BEGIN = "INSERT INTO oauth_sign_ins (state_digest, browser_digest, provider, return_to, challenge, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    /// The first that was used under this name stays.
    ISSUER = "INSERT INTO provider_issuers (id, issuer) VALUES ($1, $2)
        ON CONFLICT (id) DO UPDATE SET issuer = provider_issuers.issuer RETURNING issuer";
    ISSUER_OF = "SELECT issuer FROM provider_issuers WHERE id = $1";
    /// An operator ends what is on its way through a provider.
    END_SIGN_INS = "DELETE FROM oauth_sign_ins WHERE provider = $1";
    END_CODES = "DELETE FROM oauth_codes WHERE provider = $1";
    END_INCOMPLETE = "DELETE FROM incomplete_sign_ins WHERE provider = $1";
    END_TICKETS = "DELETE FROM link_tickets WHERE provider = $1";
    END_LINKS = "DELETE FROM oauth_links WHERE provider = $1";
    /// A provider's word, that waits for its second step: whose it was is not written there.
    END_HALVES = "DELETE FROM half_logins WHERE amr = $1";
    END_PENDING = "DELETE FROM pending_identities WHERE provider = $1";
    /// The row decides: once, in the browser that began, at the provider that it was begun for.
    ARRIVE = "DELETE FROM oauth_sign_ins
        WHERE state_digest = $1 AND browser_digest = $2 AND provider = $3 AND expires_at > $4
        RETURNING return_to, challenge";
    KEEP_CODE = "INSERT INTO oauth_codes (code_digest, browser_digest, challenge, provider, said, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    /// Whoever shows it uses it up, also when it is not theirs.
    TAKE_CODE = "DELETE FROM oauth_codes WHERE code_digest = $1 AND expires_at > $2
        RETURNING browser_digest, challenge, provider, said";
    KEEP_INCOMPLETE = "INSERT INTO incomplete_sign_ins (digest, provider, said, expires_at) VALUES ($1, $2, $3, $4)";
    INCOMPLETE = "SELECT provider, said FROM incomplete_sign_ins WHERE digest = $1 AND expires_at > $2";
    TAKE_INCOMPLETE = "DELETE FROM incomplete_sign_ins WHERE digest = $1 AND expires_at > $2 RETURNING provider, said";
    USE_NONCE = "INSERT INTO used_nonces (digest, expires_at) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING
        RETURNING expires_at";
    TICKET = "INSERT INTO link_tickets (digest, user_id, session_id, provider, return_to, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    /// Whose account it links to.
    TICKET_FOR = "SELECT e.address FROM link_tickets t JOIN user_emails e ON e.user_id = t.user_id
        WHERE t.digest = $1 AND t.provider = $2 AND t.expires_at > $3";
    TAKE_TICKET = "DELETE FROM link_tickets WHERE digest = $1 AND provider = $2 AND expires_at > $3
        RETURNING user_id, session_id, return_to";
    BEGIN_LINK = "INSERT INTO oauth_links
            (state_digest, browser_digest, user_id, session_id, provider, return_to, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    ARRIVE_LINK = "DELETE FROM oauth_links
        WHERE state_digest = $1 AND browser_digest = $2 AND provider = $3 AND expires_at > $4
        RETURNING user_id, session_id, return_to";
    /// The session still lives, and nobody suspended the person.
    LIVES = "SELECT s.created_at FROM sessions s WHERE s.id = $1 AND s.user_id = $2 AND s.expires_at > $3
        AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = s.user_id)";
    WHOSE = "SELECT user_id FROM federated_identities WHERE provider = $1 AND subject = $2";
    /// One of a provider for each person, and one person for each.
    LINK = "INSERT INTO federated_identities (provider, subject, user_id, linked_at)
        SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), u.id, CAST($4 AS BIGINT) FROM users u
        WHERE u.id = $3
            AND NOT EXISTS (SELECT 1 FROM federated_identities f WHERE f.user_id = u.id AND f.provider = $1)
        ON CONFLICT (provider, subject) DO NOTHING RETURNING linked_at";
    LIST = "SELECT provider, subject, linked_at FROM federated_identities WHERE user_id = $1
        ORDER BY provider, subject";
    UNLINK = "DELETE FROM federated_identities WHERE user_id = $1 AND provider = $2 RETURNING subject";
    UNLINK_SINCE = "DELETE FROM federated_identities WHERE user_id = $1 AND linked_at >= $2 RETURNING provider";
    LINKED_SINCE = "SELECT subject FROM federated_identities WHERE user_id = $1 AND linked_at >= $2";
    /// Other ways in: a password, a passkey.
    OTHER_WAYS = "SELECT
            CAST(CASE WHEN EXISTS (SELECT 1 FROM password_credentials c WHERE c.user_id = $1) THEN 1 ELSE 0 END AS BIGINT),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM passkeys p WHERE p.user_id = $1) THEN 1 ELSE 0 END AS BIGINT)";
    ADDRESS = "SELECT e.address, e.address_key FROM user_emails e JOIN verified_emails v ON v.user_id = e.user_id
        WHERE e.user_id = $1";
    IS_VERIFIED = "SELECT verified_at FROM verified_emails WHERE user_id = $1";
    SWEEP_SIGN_INS = "DELETE FROM oauth_sign_ins WHERE state_digest IN
        (SELECT o.state_digest FROM oauth_sign_ins o WHERE o.expires_at <= $1 ORDER BY o.expires_at LIMIT 500
            /*pg FOR UPDATE SKIP LOCKED */)";
    SWEEP_CODES = "DELETE FROM oauth_codes WHERE expires_at <= $1";
    SWEEP_INCOMPLETE = "DELETE FROM incomplete_sign_ins WHERE expires_at <= $1";
    SWEEP_TICKETS = "DELETE FROM link_tickets WHERE expires_at <= $1";
    SWEEP_LINKS = "DELETE FROM oauth_links WHERE expires_at <= $1";
    SWEEP_NONCES = "DELETE FROM used_nonces WHERE expires_at <= $1";
}

record! {
    /// A provider that was added while the server ran.
    #[derive(Debug, Clone)]
    pub(super) struct Row {
        pub(super) id: String,
        pub(super) sealed: Vec<u8>,
        pub(super) changed_at: Timestamp,
    }
}

record! {
    /// A sign-in that came back.
    #[derive(Debug, Clone)]
    pub(super) struct Arrived {
        pub(super) return_to: String,
        pub(super) challenge: String,
    }
}

record! {
    /// A link that came back, or is about to leave.
    #[derive(Debug, Clone)]
    pub(super) struct Linking {
        pub(super) user: Id<UserRow>,
        pub(super) session: Id<SessionRow>,
        pub(super) return_to: String,
    }
}

record! {
    /// A code that was shown.
    #[derive(Debug, Clone)]
    pub(super) struct Taken {
        pub(super) browser: Digest,
        pub(super) challenge: String,
        pub(super) provider: String,
        pub(super) said: Vec<u8>,
    }
}

record! {
    /// A linked identity.
    #[derive(Debug, Clone)]
    pub(super) struct Identity {
        pub(super) provider: String,
        pub(super) subject: String,
        pub(super) linked_at: Timestamp,
    }
}
