//! The statements about people.

use foundation::statements;

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
    /// One whose end was moved meanwhile stays.
    LIFT = "DELETE FROM suspensions WHERE user_id = $1 AND ends_at > 0 AND ends_at <= $2 RETURNING suspended_at";
    UNSUSPEND = "DELETE FROM suspensions WHERE user_id = $1 RETURNING suspended_at";
}
