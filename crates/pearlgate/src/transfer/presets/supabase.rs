//! Supabase, or GoTrue by itself: rows of `auth.users` as a list or a row on each line.
//!
//! The tables beside it may be joined as lists: `identities` (`auth.identities`), without which nobody is known
//! elsewhere, and `mfa_factors` (`auth.mfa_factors`), without which second factors are lost.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Extras;
use super::facts::{clean_base32, first_text, lenient, object, text, texts};
use crate::transfer::record::{Record, Totp};

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    id: String,
    email: String,
    encrypted_password: String,
    email_confirmed_at: Value,
    raw_user_meta_data: Value,
    raw_app_meta_data: Value,
    created_at: Value,
    banned_until: Value,
    deleted_at: Value,
    phone: String,
    identities: Vec<Elsewhere>,
    mfa_factors: Option<Vec<Factor>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Elsewhere {
    provider: String,
    provider_id: Value,
    identity_data: Map<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Factor {
    factor_type: String,
    status: String,
    secret: String,
}

pub(super) fn person(row: Value, extras: &Extras) -> Result<Record, String> {
    let user: User = lenient(row)?;
    if !user.deleted_at.is_null() {
        return Err(format!("was deleted at {}", text(&user.deleted_at)));
    }
    let (told, kept) = (object(&user.raw_user_meta_data), object(&user.raw_app_meta_data));
    let mut record = Record::with_address(&user.email)?;
    record.email_verified = !user.email_confirmed_at.is_null();
    record.display_name = first_text(&told, &["full_name", "name", "display_name"]);
    record.created(&user.created_at);
    record.roles = texts(&kept, "roles");
    if !user.encrypted_password.is_empty() {
        record.hash(Ok(user.encrypted_password));
    }
    let own = |provider: &str| matches!(provider, "email" | "phone");
    for identity in user.identities.iter().filter(|identity| !own(&identity.provider)) {
        let subject = text(&identity.provider_id);
        let subject =
            if subject.is_empty() { first_text(&identity.identity_data, &["sub"]) } else { subject };
        record.identity(&identity.provider, &subject);
    }
    let elsewhere =
        texts(&kept, "providers").into_iter().filter(|provider| !own(provider)).collect::<Vec<_>>();
    if user.identities.is_empty() && !elsewhere.is_empty() {
        record.warn(format!("identities not imported ({}): join auth.identities", elsewhere.join(", ")));
    }
    for factor in user.mfa_factors.iter().flatten().filter(|factor| factor.status == "verified") {
        match factor.factor_type.as_str() {
            "totp" => record.factor(clean_base32(&factor.secret).map(Totp::usual)),
            other => record.factor(Err(&format!("it is of the kind {other}"))),
        }
    }
    if !user.banned_until.is_null() {
        record.suspend("banned in Supabase", &user.banned_until, extras.now);
    }
    record.remember(
        "supabase",
        [
            ("id", user.id.into()),
            ("phone", user.phone.into()),
            ("user_metadata", told.into()),
            ("app_metadata", kept.into()),
        ],
    );
    Ok(record)
}
