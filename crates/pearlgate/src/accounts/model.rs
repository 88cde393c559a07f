//! What a person's details look like: pure.

use foundation::kernel::{Entity, FieldError, Id, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Ids of users.
#[derive(Debug)]
pub struct UserRow;
impl Entity for UserRow {
    const PREFIX: &'static str = "usr";
}

/// One mailbox, as RFC 5321 §4.1.2 has it without quoted names: what most of the world can type and no parser reads
/// in two ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailAddress {
    text: String,
    key: String,
}

const MAX_ADDRESS: usize = 254;
const MAX_LOCAL: usize = 64;
/// What may stand before the @ besides letters, digits and dots (RFC 5322 `atext`).
const LOCAL_SIGNS: &[u8] = b"!#$%&'*+-/=?^_`{|}~";

impl EmailAddress {
    /// Parses an address. The part before the @ is ASCII: look-alikes of other scripts are refused rather than
    /// folded into somebody else's address (Django CVE-2019-19844). A domain may be international; it is kept in
    /// its ASCII form.
    ///
    /// # Errors
    /// `email_invalid`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        Self::read(text).ok_or_else(|| {
            FieldError::new(field, "email_invalid", "give one e-mail address such as ada@example.com")
        })
    }

    fn read(text: &str) -> Option<Self> {
        // Before anything looks at it: international domains are expensive to read.
        let (local, domain) = text.split_once('@').filter(|_| text.len() <= 2 * MAX_ADDRESS)?;
        let local_fine = (1..=MAX_LOCAL).contains(&local.len())
            && local.split('.').all(|atom| {
                !atom.is_empty()
                    && atom.bytes().all(|b| b.is_ascii_alphanumeric() || LOCAL_SIGNS.contains(&b))
            });
        // What IDNA would fold away (upper case aside: invisible characters, other forms of letters and dots) is
        // refused, so that one address has one spelling. Only ASCII is lowered: U+212A would become a `k`.
        let typed = domain.to_ascii_lowercase();
        let domain = idna::domain_to_ascii_strict(domain).ok()?;
        if typed != domain && typed != idna::domain_to_unicode(&domain).0 {
            return None;
        }
        let labels: Vec<&str> = domain.split('.').collect();
        let domain_fine = labels.len() >= 2
            && labels.iter().all(|label| !label.is_empty() && label.len() <= 63)
            && labels.last().is_some_and(|top| !top.bytes().all(|b| b.is_ascii_digit()));
        if !local_fine || !domain_fine || local.len() + 1 + domain.len() > MAX_ADDRESS {
            return None;
        }
        Some(Self {
            key: format!("{}@{domain}", local.to_ascii_lowercase()),
            text: format!("{local}@{domain}"),
        })
    }

    /// As it was typed, the domain in ASCII.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What decides whether two addresses are one.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// How an address is compared with others, also one that nobody could register with today.
pub fn address_key(text: &str) -> String {
    EmailAddress::parse("email", text)
        .map_or_else(|_| text.trim().to_lowercase(), |address| address.key().to_owned())
}

/// Whether a character has no place on one line of text: it controls, breaks the line, or turns the text around.
pub fn is_odd(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    c.is_control() || turns
}

/// What a person wants to be called: at most 100 characters on one line, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DisplayName(pub String);

impl DisplayName {
    /// Takes a name as it is; control characters and invisible ones that turn text around are refused.
    ///
    /// # Errors
    /// `too_long` or `invalid`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        if text.chars().count() > 100 {
            return Err(FieldError::new(field, "too_long", "use at most 100 characters"));
        }
        if text.chars().any(is_odd) {
            return Err(FieldError::new(field, "invalid", "use one line without control characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A language tag such as `de-CH` (BCP 47), or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locale(pub String);

impl Locale {
    /// Takes a tag by its shape.
    ///
    /// # Errors
    /// `invalid`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldError> {
        let fine = text.len() <= 35
            && text.split('-').enumerate().all(|(at, part)| {
                (1..=8).contains(&part.len())
                    && part.bytes().all(|b| b.is_ascii_alphanumeric())
                    && (at > 0 || part.bytes().all(|b| b.is_ascii_alphabetic()))
            });
        if text.is_empty() || fine {
            return Ok(Self(text.to_owned()));
        }
        Err(FieldError::new(field, "invalid", "give a language tag such as en or de-CH"))
    }
}

/// What an application keeps about a person: an object of at most 4 KiB, never in a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata(pub String);

impl Metadata {
    /// Takes an object.
    ///
    /// # Errors
    /// `too_long`.
    pub fn parse(field: &str, object: &Map<String, Value>) -> Result<Self, FieldError> {
        let text = Value::Object(object.clone()).to_string();
        if text.len() > 4_096 {
            return Err(FieldError::new(field, "too_long", "use at most 4 KiB"));
        }
        Ok(Self(text))
    }
}

/// A person as applications see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// `usr_…`
    #[schema(value_type = String, example = "usr_019326f0c8a17c4f9d4b1f0e6a5c3b2d")]
    pub id: Id<UserRow>,
    /// The address.
    #[schema(example = "ada@example.com")]
    pub email: String,
    /// Whether the address was proven.
    pub email_verified: bool,
    /// What they want to be called; empty when they did not say.
    pub display_name: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// Whether a second factor is set up.
    pub mfa_enabled: bool,
    /// RFC 3339, UTC.
    #[schema(example = "2026-11-23T10:00:00.000000Z")]
    pub created_at: String,
}

impl User {
    /// From what the database holds; without roles and second factors, which are somebody else's to add.
    pub fn new(
        id: Id<UserRow>,
        email: String,
        email_verified: bool,
        display_name: String,
        created_at: Timestamp,
    ) -> Self {
        let created_at = created_at.to_string();
        Self { id, email, email_verified, display_name, roles: Vec::new(), mfa_enabled: false, created_at }
    }
}

/// A name as it is searched for: by how it begins, whatever the case.
pub fn name_key(name: &str) -> String {
    name.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> Option<String> {
        EmailAddress::parse("email", text).ok().map(|address| address.key().to_owned())
    }

    #[test]
    fn addresses_are_one_mailbox_in_one_spelling() {
        assert_eq!(key("Ada@Example.COM").as_deref(), Some("ada@example.com"));
        assert_eq!(EmailAddress::parse("email", "Ada@Example.COM").unwrap().as_str(), "Ada@example.com");
        assert_eq!(key("ada+news@xn--bcher-kva.example"), key("ada+news@bücher.example"));
        assert!(key(&format!("{}@example.com", "a".repeat(64))).is_some());
        for refused in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@localhost",
            "a@b@example.com",
            "ada@example.com ",
            " ada@example.com",
            "v@ex.test,m@evil.test",
            "v@ex.test;m@evil.test",
            "v@ex.test\r\nBcc: m@evil.test",
            "v@ex.test\0",
            "\"a@evil.test\"@ex.test",
            "Ada <ada@ex.test>",
            "@a.test:b@c.test",
            "a..b@ex.test",
            ".a@ex.test",
            "a.@ex.test",
            "ada@ex..test",
            "ada@ex.test.",
            "ada@.ex.test",
            "ada@1.2.3.4",
            "ada@[1.2.3.4]",
            "mıke@ex.test",
            "ſ@ex.test",
            "\u{212a}@ex.test",
            "v\u{ff20}ex.test",
            "ß@ex.test",
            "e\u{301}@ex.test",
            "v\u{200b}@ex.test",
            "v%0a@",
            "\u{202e}v@ex.test",
            "v@e\u{200b}x.test",
            "v@ex\u{ad}.test",
            "v@ex\u{3002}test",
            "v@\u{212a}.test",
            "v@te\u{17f}t.test",
        ] {
            assert_eq!(key(refused), None, "{refused:?}");
        }
        assert_eq!(key(&format!("{}@example.com", "a".repeat(65))), None);
        assert_eq!(key(&format!("a@{}.com", "a".repeat(250))), None);
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_its_own_canonical_form(text in "\\PC{0,40}@\\PC{0,40}") {
            if let Some(once) = key(&text) {
                prop_assert!(once.is_ascii());
                prop_assert_eq!(key(&once), Some(once));
            }
        }
    }

    #[test]
    fn names_and_tags_are_one_line() {
        assert!(
            DisplayName::parse("n", "Ada Lovelace 🦀 <b>{{7*7}}</b>").is_ok(),
            "text is text; escaping is for pages"
        );
        for refused in ["a\nb", "a\r", "\u{202e}evil", "\0", &"x".repeat(101)] {
            assert!(DisplayName::parse("n", refused).is_err(), "{refused:?}");
        }
        assert!(
            Locale::parse("l", "").is_ok()
                && Locale::parse("l", "de-CH").is_ok()
                && Locale::parse("l", "zh-Hant-TW").is_ok()
        );
        for refused in ["de_CH", "1a", "-", "de-", "../../etc", "verylonglanguage"] {
            assert!(Locale::parse("l", refused).is_err(), "{refused:?}");
        }
    }
}
