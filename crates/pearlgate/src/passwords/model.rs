//! What may be a password: pure.

use foundation::kernel::{FieldError, Secret};
use unicode_normalization::UnicodeNormalization;

/// The longest password, in bytes: enough for any person, too little to make normalising or hashing slow
/// (Django CVE-2013-1443, CVE-2023-46695).
pub const MAX_BYTES: usize = 1_024;

/// A password that somebody wants to set, accepted and normalised.
#[derive(Debug, Clone)]
pub struct Password(Secret);

/// A password that somebody signs in with: only capped and normalised; policy is for setting, never for checking.
#[derive(Debug, Clone)]
pub struct Attempt(Secret);

impl Password {
    /// Accepts a password under the policy.
    ///
    /// # Errors
    /// The field error that says what is wrong with it.
    pub fn accept(field: &str, text: &Secret, min_length: usize) -> Result<Self, FieldError> {
        cap(field, text)?;
        let characters = text.reveal().chars().count();
        if characters < min_length {
            let message =
                format!("use at least {min_length} characters; a few words are easiest to remember");
            return Err(FieldError::new(field, "password_too_short", message));
        }
        Ok(Self(normalise(text)))
    }

    /// The normalised text, for hashing.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

impl Attempt {
    /// Takes a password to be checked.
    ///
    /// # Errors
    /// When it is longer than any password can be.
    pub fn accept(field: &str, text: &Secret) -> Result<Self, FieldError> {
        cap(field, text)?;
        Ok(Self(normalise(text)))
    }

    /// The normalised text, for hashing.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

fn cap(field: &str, text: &Secret) -> Result<(), FieldError> {
    if text.reveal().len() <= MAX_BYTES {
        return Ok(());
    }
    Err(FieldError::new(field, "password_too_long", format!("use at most {MAX_BYTES} bytes")))
}

fn normalise(text: &Secret) -> Secret {
    Secret::new(text.reveal().nfkc().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accept(text: &str) -> Result<String, &'static str> {
        Password::accept("password", &Secret::new(text.into()), 15)
            .map(|p| p.reveal().to_owned())
            .map_err(|e| e.code)
    }

    #[test]
    fn fifteen_code_points_are_enough_and_fourteen_are_not() {
        assert_eq!(accept(&"🦀".repeat(14)), Err("password_too_short"));
        assert!(accept(&"🦀".repeat(15)).is_ok());
        assert!(accept("               ").is_ok(), "spaces are characters like others");
        assert!(accept(&"a".repeat(1_024)).is_ok());
        assert_eq!(accept(&"a".repeat(1_025)), Err("password_too_long"));
        assert_eq!(
            accept(&"\u{0301}".repeat(600)),
            Err("password_too_long"),
            "bytes count, before normalising"
        );
    }

    #[test]
    fn the_same_letters_are_the_same_password_on_every_machine() {
        assert_eq!(accept("Ame\u{301}lie and the sea"), accept("Am\u{e9}lie and the sea"));
    }

    proptest! {
        #[test]
        fn nothing_is_trimmed_cut_or_folded(text in "[ -~]{15,200}") {
            prop_assert_eq!(accept(&text), Ok(text));
        }
    }
}
