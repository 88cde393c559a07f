//! Auth0: the export with password hashes that its support makes (NDJSON), the export of users (NDJSON), or a list in
//! the form that its bulk import takes. They differ in which members are there.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::facts::{clean_base32, first_text, from_base64, from_hex, lenient, scrypt, text, texts};
use crate::transfer::record::{Record, Totp};
use foundation::kernel::Timestamp;

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    #[serde(rename = "_id")]
    row: Map<String, Value>,
    alt_id: String,
    user_id: String,
    email: String,
    email_verified: bool,
    /// Where address and proof are when they are not above.
    identifiers: Vec<Identifier>,
    username: String,
    name: String,
    given_name: String,
    family_name: String,
    nickname: String,
    blocked: bool,
    created_at: Value,
    #[serde(alias = "passwordHash")]
    password_hash: String,
    custom_password_hash: Option<Custom>,
    mfa_factors: Vec<Map<String, Value>>,
    multifactor: Vec<Value>,
    identities: Vec<Elsewhere>,
    app_metadata: Map<String, Value>,
    user_metadata: Map<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Identifier {
    #[serde(rename = "type")]
    kind: String,
    value: String,
    verified: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Elsewhere {
    provider: String,
    connection: String,
    user_id: Value,
    #[serde(rename = "isSocial")]
    social: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Custom {
    algorithm: String,
    hash: Encoded,
    salt: Encoded,
    cost: Option<u64>,
    #[serde(rename = "blockSize")]
    block_size: Option<u64>,
    parallelization: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Encoded {
    value: String,
    encoding: String,
}

impl Encoded {
    fn bytes(&self) -> Result<Vec<u8>, String> {
        match self.encoding.as_str() {
            "hex" => from_hex(&self.value),
            "base64" => from_base64(&self.value),
            _ => Ok(self.value.as_bytes().to_vec()),
        }
    }
}

impl Custom {
    fn hash(&self) -> Result<String, String> {
        match self.algorithm.as_str() {
            "argon2" | "bcrypt" | "ldap" | "pbkdf2" => Ok(self.hash.value.clone()),
            "scrypt" => {
                let (n, r, p) = (self.cost, self.block_size, self.parallelization);
                let (n, r, p) = (n.unwrap_or(16_384), r.unwrap_or(8), p.unwrap_or(1));
                scrypt(n, r, p, &self.salt.bytes()?, &self.hash.bytes()?)
            }
            other => Err(format!("it was hashed with {other}")),
        }
    }
}

/// Auth0's own ways in, which make nobody known elsewhere.
fn own(provider: &str) -> bool {
    matches!(provider, "auth0" | "email" | "sms")
}

fn name(provider: &str) -> &str {
    if provider == "google-oauth2" { "google" } else { provider }
}

pub(super) fn person(row: Value) -> Result<Record, String> {
    let mut user: User = lenient(row)?;
    if let Some(address) = user.identifiers.iter().find(|i| user.email.is_empty() && i.kind == "email") {
        (user.email, user.email_verified) = (address.value.clone(), address.verified);
    }
    let mut record = Record::with_address(&user.email)?;
    record.email_verified = user.email_verified;
    let names = format!("{} {}", user.given_name, user.family_name);
    // Without a name of its own Auth0 puts the address there.
    let names = [user.name.as_str(), names.trim(), user.nickname.as_str()];
    record.display_name =
        names.into_iter().find(|name| !name.is_empty() && *name != user.email).unwrap_or_default().to_owned();
    record.created(&user.created_at);
    if !user.password_hash.is_empty() {
        record.hash(Ok(user.password_hash));
    } else if let Some(custom) = &user.custom_password_hash {
        record.hash(custom.hash());
    }
    for factor in &user.mfa_factors {
        for (kind, factor) in factor {
            match factor.get("secret").and_then(Value::as_str) {
                Some(secret) if kind == "totp" => record.factor(clean_base32(secret).map(Totp::usual)),
                _ => record.factor(Err(&format!("it is of the kind {kind}"))),
            }
        }
    }
    if !user.multifactor.is_empty() && user.mfa_factors.is_empty() {
        record.factor(Err("the export does not hold its secret"));
    }
    for identity in user.identities.iter().filter(|identity| !own(&identity.provider)) {
        // The kinds of enterprise connections have many providers each, the connection has one.
        let enterprise = identity.social == Some(false) && !identity.connection.is_empty();
        let provider = if enterprise { &identity.connection } else { &identity.provider };
        record.identity(name(provider), &text(&identity.user_id));
    }
    if user.identities.is_empty() {
        match *user.user_id.split('|').collect::<Vec<_>>() {
            [provider, subject] if !own(provider) => record.identity(name(provider), subject),
            [provider, _, _] => record.warn(format!("identity not imported: {provider} without identities")),
            _ => {}
        }
    }
    record.roles = texts(&user.app_metadata, "roles");
    if user.blocked {
        record.suspend("blocked in Auth0", &Value::Null, Timestamp::default());
    }
    let own = [user.user_id, user.alt_id, first_text(&user.row, &["$oid"])];
    let id = own.into_iter().find(|id| !id.is_empty()).unwrap_or_default();
    let id = if id.is_empty() || id.contains('|') { id } else { format!("auth0|{id}") };
    record.remember(
        "auth0",
        [
            ("id", id.into()),
            ("username", user.username.into()),
            ("user_metadata", user.user_metadata.into()),
            ("app_metadata", user.app_metadata.into()),
        ],
    );
    Ok(record)
}
