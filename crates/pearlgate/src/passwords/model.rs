//! What may be a password: pure.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use foundation::kernel::{FieldError, Secret};
use unicode_normalization::UnicodeNormalization;
use zxcvbn::{Score, zxcvbn};

use super::filter::{Filter, key_of};

/// The longest password, in bytes: enough for any person, too little to make normalising or hashing slow
/// (Django CVE-2013-1443, CVE-2023-46695).
pub const MAX_BYTES: usize = 1_024;

/// A password that somebody wants to set, accepted and normalised.
#[derive(Debug, Clone)]
pub struct Password(Secret);

/// A password that somebody signs in with: only capped and normalised; policy is for setting, never for checking.
#[derive(Debug, Clone)]
pub struct Attempt {
    typed: Secret,
    normalised: Secret,
}

/// Characters of a word about the person from which on a password with little else is refused.
const TELLING: usize = 4;
/// Letters and digits that a password must have besides words about the person.
const BESIDES: usize = 8;
/// How much of a password the estimator looks at: its time grows much faster than the length, and somebody who writes
/// nothing but substitutions would keep a thread busy for a quarter of a second with 64 characters.
const ESTIMATED: usize = 24;

/// The most common passwords, as a filter; `cargo xtask common-passwords` makes it again.
static COMMON: LazyLock<Option<Filter>> = LazyLock::new(|| Filter::built_in(include_bytes!("common.filter")));

/// How many passwords are in the built-in list.
pub fn common_passwords() -> u64 {
    COMMON.as_ref().map_or(0, Filter::entries)
}

/// Whom a password is for: what it must not be about.
#[derive(Debug, Clone, Default)]
pub struct About {
    words: Vec<String>,
    /// Fewest characters.
    min_length: usize,
}

impl About {
    /// A person with this address and name at this service, whose password needs `min_length` characters.
    pub fn new(service_name: &str, email: &str, display_name: &str, min_length: usize) -> Self {
        let local = email.split('@').next().unwrap_or_default();
        let names = display_name.split_whitespace().chain(local.split(['.', '-', '_', '+']));
        let whole = [email, local, display_name, service_name];
        let mut words: Vec<String> =
            whole.into_iter().chain(names).map(fold).filter(|w| !w.is_empty()).collect();
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words.dedup();
        Self { words, min_length }
    }

    /// Fewest characters of a password.
    pub fn min_length(&self) -> usize {
        self.min_length
    }

    /// Whether a password is, or is little more than, one of the words.
    fn is_all_of(&self, password: &str) -> bool {
        let folded = fold(password);
        let without = |words: &mut dyn Iterator<Item = &String>| {
            words.fold(folded.clone(), |left, word| left.replace(word.as_str(), ""))
        };
        let left = without(&mut self.words.iter().filter(|word| word.chars().count() >= TELLING));
        let short = without(&mut self.words.iter());
        (left.len() < folded.len() && left.chars().count() < BESIDES)
            || (short.len() < folded.len() && short.is_empty())
    }
}

/// What two spellings of one word have in common.
fn fold(text: &str) -> String {
    text.nfkc().flat_map(char::to_lowercase).filter(|c| c.is_alphanumeric()).collect()
}

impl Password {
    /// Accepts a password under the part of the policy that needs nobody else: length, who it is about, and the most
    /// common ones (NIST SP 800-63B-4 §3.1.1.2). The whole password is compared, never a part of it.
    ///
    /// # Errors
    /// The field error that says what is wrong with it.
    pub fn accept(field: &str, text: &Secret, about: &About) -> Result<Self, FieldError> {
        cap(field, text)?;
        let characters = text.reveal().chars().count();
        if characters < about.min_length {
            let message =
                format!("use at least {} characters; a few words are easiest to remember", about.min_length);
            return Err(FieldError::new(field, "password_too_short", message));
        }
        let password = Self(normalise(text));
        if about.is_all_of(password.reveal()) {
            let message = "choose one that is not your name, your address, or the name of this service";
            return Err(FieldError::new(field, "password_matches_identity", message));
        }
        if password.is_common() {
            let message =
                "this is one of the most common passwords, which are tried first; choose another one";
            return Err(FieldError::new(field, "password_breached", message));
        }
        Ok(password)
    }

    fn is_common(&self) -> bool {
        let lowered = self.reveal().to_lowercase();
        let in_list = |text: &str| {
            let key = key_of(sha1_hex(text).as_bytes()).unwrap_or_default();
            COMMON.as_ref().is_some_and(|list| list.contains(key).unwrap_or(false))
        };
        in_list(self.reveal()) || in_list(&lowered)
    }

    /// Whether somebody who tries patterns (repetitions, rows of keys, dates, words of the person) finds it within a
    /// million guesses. Takes up to a few milliseconds: not for a thread that others wait for.
    pub(super) fn is_guessable(&self, about: &About) -> bool {
        let beginning: String = self.reveal().chars().take(ESTIMATED).collect();
        let words: Vec<&str> = about.words.iter().map(String::as_str).collect();
        zxcvbn(&beginning, &words).score() < Score::Two
    }

    /// The normalised text, for hashing.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

/// SHA-1 in upper-case hexadecimal: what breach lists are made of.
pub(super) fn sha1_hex(text: &str) -> String {
    data_encoding::HEXUPPER
        .encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref())
}

impl Attempt {
    /// Takes a password to be checked.
    ///
    /// # Errors
    /// When it is longer than any password can be.
    pub fn accept(field: &str, text: &Secret) -> Result<Self, FieldError> {
        cap(field, text)?;
        Ok(Self { typed: text.clone(), normalised: normalise(text) })
    }

    /// The normalised text, for hashing.
    pub fn reveal(&self) -> &str {
        self.normalised.reveal()
    }

    /// What was typed: other systems hashed that.
    pub(super) fn typed(&self) -> &str {
        self.typed.reveal()
    }
}

/// The length in bytes, before anything else touches a password: it decides whether anything is done.
///
/// # Errors
/// `password_too_long`.
pub fn cap(field: &str, text: &Secret) -> Result<(), FieldError> {
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

    fn about(min_length: usize) -> About {
        About::new("Quill & Co", "ada.lovelace@example.com", "Ada King Lovelace", min_length)
    }
    fn accept(text: &str) -> Result<String, &'static str> {
        Password::accept("password", &Secret::new(text.into()), &about(15))
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

    #[test]
    fn a_password_is_not_its_owner() {
        for refused in [
            "ada.lovelace@example.com",
            "ADA.LOVELACE@EXAMPLE.COM",
            "Ada King Lovelace",
            "ada lovelace 2026",
            "lovelacelovelace",
            "quill&co quill&co",
            "ａｄａ ｌｏｖｅｌａｃｅ １２３",
            "quill & co 12345",
            "adaadaadaadaada",
        ] {
            assert_eq!(accept(refused), Err("password_matches_identity"), "{refused}");
        }
        for fine in
            ["nine purple lanterns drift", "what would lovelace compute next", "ada and nine purple lanterns"]
        {
            assert!(accept(fine).is_ok(), "{fine}");
        }
    }

    #[test]
    fn the_most_common_passwords_are_refused_and_said_to_be() {
        let short = |text: &str| {
            Password::accept("p", &Secret::new(text.into()), &about(8)).map(|_| ()).map_err(|e| e.code)
        };
        for common in ["password", "PASSWORD", "Password", "iloveyou1", "12345678", "qwertyuiop", "trustno1"]
        {
            assert_eq!(short(common), Err("password_breached"), "{common}");
        }
        assert_eq!(short("pale orchid"), Ok(()));
        assert!(common_passwords() > 50_000, "{}", common_passwords());
    }

    #[test]
    fn patterns_are_guessable_and_a_few_words_are_not() {
        let guessable = |text: &str| {
            // Some are in the list besides.
            Password::accept("p", &Secret::new(text.into()), &About::default())
                .map_or(true, |p| p.is_guessable(&about(15)))
        };
        for pattern in [
            "aaaaaaaaaaaaaaa",
            "abcabcabcabcabc",
            "123456789012345",
            "qwertyuiopasdfgh",
            "passwordpassword",
            "               ",
            "Summer2026Summer2026",
            "lovelacelovelacelovelace",
        ] {
            assert!(guessable(pattern), "{pattern}");
        }
        // Nothing but substitutions: 64 of them took a quarter of a second once.
        let leet = "@{({<[3&24#t1705x5+eez@|/{<[3&z9#11%07$8+%2z@4({[i3&62#!1|07x{+6";
        assert!(!guessable(leet) && leet.len() > 2 * ESTIMATED, "only the beginning is looked at");
        for fine in ["nine purple lanterns drift", "🦀🐚🌊🐙🦑🐠🐟🐬🐳🐋🦈🐊🐢🐍🦎", "Zq7#kd!mw2Pb9xL"]
        {
            assert!(!guessable(fine), "{fine}");
        }
        assert!(!guessable(&format!("nine purple lanterns drift{}", "x".repeat(900))));
    }

    proptest! {
        #[test]
        fn nothing_is_trimmed_cut_or_folded(text in "[ -~]{15,200}") {
            prop_assert_eq!(accept(&text), Ok(text));
        }
    }
}
