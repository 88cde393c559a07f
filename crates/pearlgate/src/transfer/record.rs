//! One person on one line: what `pearlgate export users` writes and `pearlgate import users` reads.
//!
//! NDJSON: one JSON object for each line, in UTF-8. Nothing is nullable: what is not there is left out, and what is
//! left out is read as empty. A member that is not listed here is refused, because a misspelt one would be a fact
//! that silently does not come along.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use foundation::kernel::Secret;

/// A person.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The address: the only member that has to be there.
    pub email: String,
    /// Whether the address was proven.
    #[serde(default, skip_serializing_if = "is_false")]
    pub email_verified: bool,
    /// What they want to be called.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// A language tag such as `de-CH` (BCP 47).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub locale: String,
    /// What an application keeps about them.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// RFC 3339; empty means now.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_at: String,
    /// Any form that `passwords::foreign::canonical` takes or Argon2's; empty for none.
    #[serde(default = "nothing", serialize_with = "reveal", skip_serializing_if = "is_nothing")]
    pub password_hash: Secret,
    /// The authenticator app that asks for a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<Totp>,
    /// Who they are elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<Identity>,
    /// Names of roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// That they may not sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
    /// What could not be brought along, in words for the one who imports. Not part of the line.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// What an authenticator app shares with the server (RFC 6238).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totp {
    /// The key as base32 without padding (RFC 4648 §6).
    #[serde(serialize_with = "reveal")]
    pub secret: Secret,
    /// How many digits a code has.
    #[serde(default = "six")]
    pub digits: u32,
    /// How long a code holds, in seconds.
    #[serde(default = "half_a_minute")]
    pub period: u32,
    /// `SHA1`, `SHA256` or `SHA512`.
    #[serde(default = "sha1")]
    pub algorithm: String,
}

impl Totp {
    /// What nearly every authenticator app does: six digits, half a minute, SHA-1.
    pub fn usual(secret: String) -> Self {
        Self { secret: Secret::new(secret), digits: six(), period: half_a_minute(), algorithm: sha1() }
    }
}

/// A person at somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The provider's name, such as `google`.
    pub provider: String,
    /// What the provider calls the person: never an address.
    pub subject: String,
}

/// A person who may not sign in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspension {
    /// Why, for the one who looks after accounts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Record {
    /// Somebody of whom no more is known than an unproven address.
    pub fn new(email: &str) -> Self {
        Self {
            email: email.trim().to_owned(),
            email_verified: false,
            display_name: String::new(),
            locale: String::new(),
            metadata: Map::new(),
            created_at: String::new(),
            password_hash: nothing(),
            totp: None,
            identities: Vec::new(),
            roles: Vec::new(),
            suspended: None,
            warnings: Vec::new(),
        }
    }
}

fn nothing() -> Secret {
    Secret::new(String::new())
}
fn is_nothing(secret: &Secret) -> bool {
    secret.reveal().is_empty()
}
fn reveal<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.reveal())
}
fn is_false(flag: &bool) -> bool {
    !flag
}
fn six() -> u32 {
    6
}
fn half_a_minute() -> u32 {
    30
}
fn sha1() -> String {
    "SHA1".to_owned()
}
