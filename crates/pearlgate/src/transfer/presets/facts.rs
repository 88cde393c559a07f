//! What the exporters' files have in common: dates, encodings, and how a hash is written down.

use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, HEXLOWER_PERMISSIVE};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::{Map, Value};

use crate::transfer::record::{Identity, Record, Suspension, Totp};
use foundation::kernel::{Secret, Timestamp};

/// A row as a type, or words that name the member and hold nothing of its content.
pub(super) fn typed<T: DeserializeOwned>(row: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(row).map_err(|error| {
        let (path, words) = (error.path().to_string(), error.inner().to_string());
        if words.starts_with("missing field") || words.starts_with("unknown field") {
            return words;
        }
        if path == "." { "not an object".to_owned() } else { format!("`{path}` is not of the right type") }
    })
}

/// A row of somebody else's as a type: null is as good as absent.
pub(super) fn lenient<T: DeserializeOwned>(mut row: Value) -> Result<T, String> {
    drop_nulls(&mut row);
    typed(row)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

impl Record {
    /// Somebody with an address: without one there is no account here.
    pub(super) fn with_address(email: &str) -> Result<Self, String> {
        if email.trim().is_empty() { Err("has no e-mail address".to_owned()) } else { Ok(Self::new(email)) }
    }

    /// Keeps what the exporter knew and we have no place for; empty facts are left out.
    pub(super) fn remember<const N: usize>(&mut self, from: &str, facts: [(&str, Value); N]) {
        let mut kept = Map::from_iter([("from".to_owned(), from.into())]);
        kept.extend(
            facts.into_iter().filter(|(_, fact)| !blank(fact)).map(|(name, fact)| (name.to_owned(), fact)),
        );
        self.metadata.insert("imported".to_owned(), Value::Object(kept));
    }

    pub(super) fn warn(&mut self, words: impl Into<String>) {
        self.warnings.push(words.into());
    }

    /// When the account was made, if that can be understood.
    pub(super) fn created(&mut self, at: &Value) {
        match moment(at) {
            Some(at) => self.created_at = at.to_string(),
            None if blank(at) => {}
            None => self.warn("the date of creation is not understood"),
        }
    }

    pub(super) fn hash(&mut self, hash: Result<String, String>) {
        match hash {
            Ok(hash) => self.password_hash = Secret::new(hash),
            Err(why) => self.warn(format!("password not imported: {why}")),
        }
    }

    /// The first factor counts; one that cannot be brought along is said.
    pub(super) fn factor(&mut self, totp: Result<Totp, &str>) {
        match totp {
            Ok(_) if self.totp.is_some() => self.warn("second factor not imported: one per person"),
            Ok(Totp { digits, period, algorithm, .. })
                if !(6..=8).contains(&digits)
                    || !(1..=300).contains(&period)
                    || !["SHA1", "SHA256", "SHA512"].contains(&algorithm.as_str()) =>
            {
                self.warn("second factor not imported: its digits, period or algorithm are unusual");
            }
            Ok(totp) => self.totp = Some(totp),
            Err(why) => self.warn(format!("second factor not imported: {why}")),
        }
    }

    /// Adds an identity.
    pub(super) fn identity(&mut self, provider: &str, subject: &str) {
        let identity = Identity { provider: provider.to_owned(), subject: subject.to_owned() };
        if provider.is_empty() || subject.is_empty() {
            self.warn("identity not imported: provider or subject is empty");
        } else if !self.identities.contains(&identity) {
            self.identities.push(identity);
        }
    }

    /// Suspends, unless the end lies in the past. Here a suspension has no end.
    pub(super) fn suspend(&mut self, reason: &str, until: &Value, now: Timestamp) {
        let end = moment(until);
        if end.is_some_and(|end| end <= now) {
            return;
        }
        if let Some(end) = end {
            self.warn(format!("was suspended until {end}; is suspended without an end"));
        }
        self.suspended = Some(Suspension { reason: reason.to_owned() });
    }
}

fn blank(fact: &Value) -> bool {
    match fact {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// A date as exporters write it: RFC 3339, what PostgreSQL prints, without an offset (then UTC), or milliseconds or
/// seconds since 1970 as a number or its text.
pub(super) fn moment(at: &Value) -> Option<Timestamp> {
    let text = text(at);
    if let Ok(number) = text.parse::<i64>() {
        // As milliseconds, what is smaller would be before 1973.
        let unit = if number.unsigned_abs() < 100_000_000_000 { 1_000_000 } else { 1_000 };
        return number.checked_mul(unit).map(Timestamp::from_micros);
    }
    let at: jiff::Timestamp = text.parse().or_else(|_| format!("{text}Z").parse()).ok()?;
    Some(Timestamp::from_micros(at.as_microsecond()))
}

/// An id that is text here and a number there.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// An object, or the text of one.
pub(super) fn object(value: &Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map.clone(),
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        _ => Map::new(),
    }
}

/// The first of these members that is text and says something.
pub(super) fn first_text(map: &Map<String, Value>, names: &[&str]) -> String {
    names
        .iter()
        .filter_map(|name| map.get(*name)?.as_str())
        .find(|text| !text.is_empty())
        .unwrap_or_default()
        .to_owned()
}

/// The texts of a member that is a list.
pub(super) fn texts(map: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = map.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// A boolean, also as databases without one write it.
pub(super) fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    match Value::deserialize(from)? {
        Value::Bool(flag) => Ok(flag),
        Value::Number(number) => Ok(number.as_i64() != Some(0)),
        _ => Err(serde::de::Error::custom("a boolean was expected")),
    }
}

/// Base64 of either alphabet, with or without padding.
pub(super) fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    let plain = text.trim().trim_end_matches('=').replace('-', "+").replace('_', "/");
    BASE64_NOPAD.decode(plain.as_bytes()).map_err(|_| "it is not base64".to_owned())
}

pub(super) fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| "it is not hexadecimal".to_owned())
}

/// Bytes as TOTP secrets are written.
pub(super) fn to_base32(key: &[u8]) -> String {
    BASE32_NOPAD.encode(key)
}

/// A TOTP secret in base32 as people write it, in the one spelling.
pub(super) fn clean_base32(text: &str) -> Result<String, &'static str> {
    let text: String =
        text.chars().filter(|c| !matches!(c, ' ' | '-' | '=')).collect::<String>().to_ascii_uppercase();
    let fine = !text.is_empty() && text.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'));
    if fine { Ok(text) } else { Err("its secret is not base32") }
}

/// PBKDF2 as a PHC string. `digest` is `sha1`, `sha256` or `sha512`.
pub(super) fn pbkdf2(digest: &str, rounds: u64, salt: &[u8], key: &[u8]) -> String {
    let digest = if digest == "sha1" { String::new() } else { format!("-{digest}") };
    let (length, salt, key) = (key.len(), BASE64_NOPAD.encode(salt), BASE64_NOPAD.encode(key));
    format!("$pbkdf2{digest}$i={rounds},l={length}${salt}${key}")
}

/// scrypt as a PHC string.
pub(super) fn scrypt(n: u64, r: u64, p: u64, salt: &[u8], key: &[u8]) -> Result<String, String> {
    if !n.is_power_of_two() {
        return Err("scrypt's N is not a power of two".to_owned());
    }
    let (ln, salt, key) = (n.trailing_zeros(), BASE64_NOPAD.encode(salt), BASE64_NOPAD.encode(key));
    Ok(format!("$scrypt$ln={ln},r={r},p={p}${salt}${key}"))
}
