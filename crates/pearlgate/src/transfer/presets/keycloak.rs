//! Keycloak 8 and later: `kc.sh export`, as one file for the realm or as `REALM-users-N.json`.
//!
//! An OTP `value` is the key itself as text, unless `secretEncoding` says BASE32. Service accounts are nobody.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::facts::{clean_base32, from_base64, lenient, pbkdf2, texts, to_base32};
use crate::transfer::record::{Record, Totp};
use foundation::kernel::Timestamp;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct User {
    id: String,
    username: String,
    email: String,
    email_verified: bool,
    enabled: Option<bool>,
    created_timestamp: Value,
    first_name: String,
    last_name: String,
    attributes: Map<String, Value>,
    credentials: Vec<Credential>,
    federated_identities: Vec<Federated>,
    realm_roles: Vec<String>,
    required_actions: Vec<String>,
    federation_link: String,
    service_account_client_id: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Credential {
    #[serde(rename = "type")]
    kind: String,
    secret_data: String,
    credential_data: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Federated {
    identity_provider: String,
    user_id: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Hidden {
    value: String,
    salt: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Hashing {
    algorithm: String,
    hash_iterations: u64,
    additional_parameters: Map<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Otp {
    sub_type: String,
    digits: u32,
    period: u32,
    algorithm: String,
    secret_encoding: String,
}

/// Roles that every realm gives to everybody.
fn built_in(role: &str) -> bool {
    role.starts_with("default-roles-") || matches!(role, "offline_access" | "uma_authorization")
}

pub(super) fn person(row: Value) -> Result<Record, String> {
    let user: User = lenient(row)?;
    if !user.service_account_client_id.is_empty() {
        return Err("is the service account of a client".to_owned());
    }
    let mut record = Record::with_address(&user.email)?;
    record.email_verified = user.email_verified;
    record.display_name = format!("{} {}", user.first_name, user.last_name).trim().to_owned();
    record.locale = texts(&user.attributes, "locale").pop().unwrap_or_default().replace('_', "-");
    record.created(&user.created_timestamp);
    record.roles = user.realm_roles.into_iter().filter(|role| !built_in(role)).collect();
    for identity in &user.federated_identities {
        record.identity(&identity.identity_provider, &identity.user_id);
    }
    for credential in &user.credentials {
        match credential.kind.as_str() {
            "password" => record.hash(password(credential)),
            "otp" => record.factor(totp(credential)),
            "recovery-authn-codes" => record.warn("recovery codes not imported"),
            "password-history" => {}
            other => record.warn(format!("credential not imported: {other}")),
        }
    }
    if !user.federation_link.is_empty() {
        record.warn("comes from a user federation such as LDAP, which keeps the password");
    }
    if user.required_actions.iter().any(|action| action == "UPDATE_PASSWORD") {
        record.warn("had to change the password at the next sign-in; here it simply holds");
    }
    if user.enabled == Some(false) {
        record.suspend("disabled in Keycloak", &Value::Null, Timestamp::default());
    }
    let mut attributes = user.attributes;
    attributes.remove("locale");
    record.remember(
        "keycloak",
        [("id", user.id.into()), ("username", user.username.into()), ("attributes", attributes.into())],
    );
    Ok(record)
}

fn inner<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let value =
        serde_json::from_str(text).map_err(|_| "Keycloak's record of it is not understood".to_owned())?;
    lenient(value)
}

fn password(credential: &Credential) -> Result<String, String> {
    let hashing: Hashing = inner(&credential.credential_data)?;
    let hidden: Hidden = inner(&credential.secret_data)?;
    let (salt, key) = (from_base64(&hidden.salt)?, from_base64(&hidden.value)?);
    let rounds = hashing.hash_iterations;
    match hashing.algorithm.as_str() {
        "pbkdf2" => Ok(pbkdf2("sha1", rounds, &salt, &key)),
        "pbkdf2-sha256" => Ok(pbkdf2("sha256", rounds, &salt, &key)),
        "pbkdf2-sha512" => Ok(pbkdf2("sha512", rounds, &salt, &key)),
        "argon2" => {
            let told = |name: &str| texts(&hashing.additional_parameters, name).pop().unwrap_or_default();
            let (kind, memory, lanes) = (told("type"), told("memory"), told("parallelism"));
            let version = if told("version") == "1.0" { 16 } else { 19 };
            let [salt, key] = [salt, key].map(|bytes| data_encoding::BASE64_NOPAD.encode(&bytes));
            Ok(format!("$argon2{kind}$v={version}$m={memory},t={rounds},p={lanes}${salt}${key}"))
        }
        other => Err(format!("it was hashed with {other}")),
    }
}

fn totp(credential: &Credential) -> Result<Totp, &'static str> {
    let unreadable = "Keycloak's record of it is not understood";
    let otp: Otp = inner(&credential.credential_data).map_err(|_| unreadable)?;
    let hidden: Hidden = inner(&credential.secret_data).map_err(|_| unreadable)?;
    if otp.sub_type != "totp" {
        return Err("it counts (HOTP) instead of following the time");
    }
    let secret = match otp.secret_encoding.to_ascii_uppercase().as_str() {
        "" => to_base32(hidden.value.as_bytes()),
        "BASE32" => clean_base32(&hidden.value)?,
        _ => return Err("its secret has an unknown encoding"),
    };
    let algorithm = otp.algorithm.strip_prefix("Hmac").unwrap_or("SHA1").to_owned();
    Ok(Totp { digits: otp.digits, period: otp.period, algorithm, ..Totp::usual(secret) })
}
