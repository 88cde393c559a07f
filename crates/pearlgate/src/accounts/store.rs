//! The statements about people.

use foundation::statements;

statements! {
    UPDATE_PROFILE = "UPDATE users SET display_name = $2, locale = $3, metadata = $4 WHERE id = $1 RETURNING created_at";
}
