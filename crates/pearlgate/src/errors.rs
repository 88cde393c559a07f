//! Every error code with its status, title, cause and remedy: one table from which problems, the pages under
//! `/errors/{code}` and the guide are made.

use std::sync::LazyLock;

use foundation::kernel::Problem;
use serde::{Deserialize, Serialize};

/// The table as it is written.
const TABLE: &str = include_str!("errors.toml");

/// What a code means.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorCode {
    /// The stable code.
    #[serde(default)]
    pub code: String,
    /// The HTTP status it comes with.
    pub status: u16,
    /// What happened.
    pub title: String,
    /// Why, for a developer.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

static CODES: LazyLock<Vec<ErrorCode>> = LazyLock::new(|| {
    let table: std::collections::BTreeMap<String, ErrorCode> = toml::from_str(TABLE).unwrap_or_default();
    table.into_iter().map(|(code, entry)| ErrorCode { code, ..entry }).collect()
});

/// All codes, by name.
pub fn all() -> &'static [ErrorCode] {
    &CODES
}

/// The entry of a code.
pub fn find(code: &str) -> Option<&'static ErrorCode> {
    CODES.iter().find(|entry| entry.code == code)
}

/// A problem of this code, its detail the remedy until somebody says more.
pub fn problem(code: &str) -> Problem {
    find(code).map_or_else(Problem::internal, |entry| {
        Problem::new(entry.status, &entry.code, &entry.title).detail(entry.remedy.clone())
    })
}

/// 401 `session_ended` with the reason that the session was ended for.
pub fn session_ended(reason: &str) -> Problem {
    problem("session_ended").member("reason", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete_and_its_words_are_sentences() {
        assert!(CODES.len() > 35);
        for entry in all() {
            assert!((400..600).contains(&entry.status), "{}", entry.code);
            assert!(entry.cause.ends_with('.') && entry.remedy.ends_with('.'), "{}", entry.code);
        }
        for problem in [
            Problem::internal(),
            Problem::not_found(),
            Problem::malformed(""),
            Problem::invalid(vec![]),
            Problem::unavailable(""),
        ] {
            assert_eq!(find(problem.code).map(|e| e.status), Some(problem.status), "{}", problem.code);
        }
    }
}
