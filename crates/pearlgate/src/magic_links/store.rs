//! The statements about magic links.

use foundation::statements;

statements! {
    WHO = "SELECT user_id FROM user_emails WHERE address_key = $1";
    ADDRESS = "SELECT address FROM user_emails WHERE user_id = $1";
    /// One open link per person: a newer one takes the place of the older one.
    OPEN = "INSERT INTO magic_link_tokens (user_id, magic_link_id, link_digest, code_digest, failures, expires_at)
        VALUES ($1, $2, $3, $4, 0, $5)
        ON CONFLICT (user_id) DO UPDATE SET magic_link_id = excluded.magic_link_id, link_digest = excluded.link_digest,
            code_digest = excluded.code_digest, failures = 0, expires_at = excluded.expires_at";
    ID_OF = "SELECT magic_link_id FROM magic_link_tokens WHERE user_id = $1";
    BY_ID = "SELECT user_id FROM magic_link_tokens WHERE magic_link_id = $1";
}
