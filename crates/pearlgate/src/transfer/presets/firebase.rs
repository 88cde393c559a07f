//! Firebase: `firebase auth:export users.json`, which writes `{"users":[…]}`.
//!
//! The hash is Firebase's own scrypt: what makes it checkable, the project's signer key above all, is not in the
//! export and has to be given.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Extras;
use super::facts::{from_base64, lenient, object};
use crate::transfer::record::Record;
use foundation::kernel::Timestamp;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct User {
    local_id: String,
    email: String,
    email_verified: bool,
    password_hash: String,
    salt: String,
    display_name: String,
    created_at: Value,
    disabled: bool,
    phone_number: String,
    /// The claims that an administrator set, as the text of an object.
    custom_attributes: Value,
    provider_user_info: Vec<Provider>,
    mfa_info: Vec<Map<String, Value>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Provider {
    provider_id: String,
    raw_id: String,
}

pub(super) fn person(row: Value, extras: &Extras) -> Result<Record, String> {
    let user: User = lenient(row)?;
    let mut record = Record::with_address(&user.email)?;
    record.email_verified = user.email_verified;
    record.display_name.clone_from(&user.display_name);
    record.created(&user.created_at);
    if !user.password_hash.is_empty() {
        record.hash(password(&user, extras));
    }
    let own = |provider: &&Provider| !matches!(provider.provider_id.as_str(), "password" | "phone");
    for provider in user.provider_user_info.iter().filter(own) {
        let name = &provider.provider_id;
        record.identity(name.strip_suffix(".com").unwrap_or(name), &provider.raw_id);
    }
    for factor in &user.mfa_info {
        record.factor(Err(if factor.contains_key("phoneInfo") {
            "codes by text message are not supported"
        } else {
            "the export does not hold its secret"
        }));
    }
    if user.disabled {
        record.suspend("disabled in Firebase", &Value::Null, Timestamp::default());
    }
    record.remember(
        "firebase",
        [
            ("id", user.local_id.into()),
            ("phone_number", user.phone_number.into()),
            ("custom_attributes", object(&user.custom_attributes).into()),
        ],
    );
    Ok(record)
}

fn password(user: &User, extras: &Extras) -> Result<String, String> {
    let how = extras.firebase.as_ref().ok_or(
        "give --firebase-signer-key-file, --firebase-salt-separator, --firebase-rounds and --firebase-mem-cost",
    )?;
    if user.salt.is_empty() {
        return Err("the export does not hold its salt".to_owned());
    }
    let plain = |text: &str| Ok::<_, String>(data_encoding::BASE64.encode(&from_base64(text)?));
    Ok(format!(
        "$fbscrypt$v=1,n={},r={},p=1,ss={},sk={}${}${}",
        how.mem_cost,
        how.rounds,
        plain(&how.salt_separator)?,
        plain(how.signer_key.reveal())?,
        plain(&user.salt)?,
        plain(&user.password_hash)?
    ))
}
