//! The statements about signing in.

use foundation::kernel::Id;
use foundation::{record, statements};

use crate::accounts::UserRow;

statements! {
    /// The person behind an address and the one hash that counts: the account's, or the one that waits for a proof.
    FIND = "SELECT e.user_id,
            COALESCE((SELECT c.password_hash FROM password_credentials c WHERE c.user_id = e.user_id),
                (SELECT t.password_hash FROM email_verification_tokens t WHERE t.user_id = e.user_id), ''),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM password_credentials c WHERE c.user_id = e.user_id)
                THEN 1 ELSE 0 END AS BIGINT),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM pending_breach_checks b WHERE b.user_id = e.user_id)
                THEN 1 ELSE 0 END AS BIGINT),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM password_change_demands d WHERE d.user_id = e.user_id)
                THEN 1 ELSE 0 END AS BIGINT)
        FROM user_emails e WHERE e.address_key = $1";
    NOTE = "INSERT INTO sign_in_attempts (id, at, subject, network, device, outcome) VALUES ($1, $2, $3, $4, $5, $6)";
    NOTED = "SELECT id, at, subject, network, device, outcome FROM sign_in_attempts
        WHERE at >= $1 AND (at > $2 OR (at = $2 AND id > $3)) ORDER BY at, id LIMIT $4";
    SWEEP_NOTED = "DELETE FROM sign_in_attempts WHERE id IN
        (SELECT a.id FROM sign_in_attempts a WHERE a.at <= $1 ORDER BY a.at LIMIT 500
            /*pg FOR UPDATE SKIP LOCKED */)";
    /// The password of somebody who is signed in; one that has to be replaced proves nothing.
    PASSWORD_OF = "SELECT c.password_hash FROM password_credentials c WHERE c.user_id = $1
        AND NOT EXISTS (SELECT 1 FROM password_change_demands d WHERE d.user_id = c.user_id)";
}

record! {
    /// Who may be signing in.
    #[derive(Debug, Clone)]
    pub(super) struct Candidate {
        pub(super) user_id: Id<UserRow>,
        pub(super) password_hash: String,
        pub(super) has_credential: bool,
        pub(super) breach_check_pending: bool,
        pub(super) change_demanded: bool,
    }
}
