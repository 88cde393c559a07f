//! The statements about signing in.

use foundation::{record, statements};

statements! {
    /// Whose an address is.
    WHO = "SELECT user_id FROM user_emails WHERE address_key = $1";
    /// What counts at a sign-in of a person: always one row, with as many looks for nobody as for somebody. The one hash is
    /// the account's, or the one that waits for a proof.
    DETAILS = "SELECT
            COALESCE((SELECT c.password_hash FROM password_credentials c WHERE c.user_id = $1),
                (SELECT t.password_hash FROM email_verification_tokens t WHERE t.user_id = $1), ''),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM password_credentials c WHERE c.user_id = $1)
                THEN 1 ELSE 0 END AS BIGINT),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM pending_breach_checks b WHERE b.user_id = $1)
                THEN 1 ELSE 0 END AS BIGINT),
            CAST(CASE WHEN EXISTS (SELECT 1 FROM password_change_demands d WHERE d.user_id = $1)
                THEN 1 ELSE 0 END AS BIGINT)";
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
    /// What counts at a sign-in of somebody.
    #[derive(Debug, Clone)]
    pub(super) struct Details {
        pub(super) password_hash: String,
        pub(super) has_credential: bool,
        pub(super) breach_check_pending: bool,
        pub(super) change_demanded: bool,
    }
}
