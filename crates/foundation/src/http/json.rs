//! JSON as it must be: one object of known keys, each once, not deeper than 32, nothing behind it. A parser that
//! takes the last of two `role`s is an attack waiting to be found (CouchDB CVE-2017-12635).

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::kernel::{FieldError, Problem};

/// The largest body, in bytes.
const MOST: usize = 64 * 1024;
/// The longest a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a body that is too large is taken and thrown away, in bytes, and for how long. Whoever closes while the
/// other side still writes resets the connection, and the refusal with it: nobody would learn why.
const SWALLOWED: usize = 8 * 1024 * 1024;
const SWALLOWED_FOR: Duration = Duration::from_secs(2);
const MAX_DEPTH: u8 = 32;

/// A request's body as `T`. A body of another type, size or shape is a [`Problem`].
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

/// [`Json`] where an empty body counts as `T`'s default.
#[derive(Debug, Clone)]
pub struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        check_type(&headers)?;
        let body = read_body(request, MOST).await?;
        read_strict(&body).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let headers = request.headers().clone();
        let body = read_body(request, MOST).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        check_type(&headers)?;
        read_strict(&body).map(Self)
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (value, second) = (values.next(), values.next());
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let (kind, parameters) = text.split_once(';').unwrap_or((&text, ""));
    let parameters = parameters.trim();
    let utf8 = parameters.is_empty() || matches!(parameters, "charset=utf-8" | "charset=\"utf-8\"");
    if kind.trim() == "application/json" && utf8 && second.is_none() {
        return Ok(());
    }
    Err(Problem::new(415, "unsupported_media_type", "The body is of another type than this endpoint takes")
        .detail("Send JSON in UTF-8 with the header `Content-Type: application/json`."))
}

/// A form's body (`application/x-www-form-urlencoded`), whole, under the same cap and deadline as JSON.
///
/// # Errors
/// A [`Problem`] for another type, too much, or too slow.
pub async fn read_form(request: Request) -> Result<Vec<u8>, Problem> {
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
        return Err(Problem::new(
            415,
            "unsupported_media_type",
            "The body is of another type than this endpoint takes",
        )
        .detail("Send the form as application/x-www-form-urlencoded."));
    }
    read_body(request, MOST).await
}

/// A body of any type as it was sent, at most `most` bytes, under the same deadline as JSON.
///
/// # Errors
/// A [`Problem`] for too much, or too slow.
pub async fn read_body(request: Request, most: usize) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        Problem::new(413, "payload_too_large", "The body is too large")
            .detail(format!("Send at most {} KiB.", most / 1024))
    };
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    // Whoever asks before they send is told before they send.
    let asks_first = request.headers().contains_key(header::EXPECT);
    let mut body = request.into_body();
    if let Some(length) = announced.filter(|length| *length > most) {
        if !asks_first && length <= SWALLOWED {
            swallow(&mut body).await;
        }
        return Err(too_large());
    }
    match tokio::time::timeout(PATIENCE, Limited::new(&mut body, most).collect()).await {
        Ok(Ok(read)) => Ok(read.to_bytes().into()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => {
            swallow(&mut body).await;
            Err(too_large())
        }
        Ok(Err(_)) => Err(Problem::malformed("The body broke off before its end.")),
        Err(_) => Err(Problem::new(408, "request_timeout", "The body took too long to arrive")
            .detail(format!("Send the whole body within {} seconds.", PATIENCE.as_secs()))),
    }
}

/// Takes what is still coming of a refused body, so that the refusal can be read; gives up on whoever sends too much or too
/// slowly.
async fn swallow(body: &mut Body) {
    let all = async {
        let mut left = SWALLOWED;
        while let Some(Ok(frame)) = body.frame().await {
            let taken = frame.data_ref().map_or(0, |data| data.len());
            let Some(rest) = left.checked_sub(taken) else { break };
            left = rest;
        }
    };
    let _ = tokio::time::timeout(SWALLOWED_FOR, all).await;
}

/// Reads `T` from JSON text, strictly: 400 for what is not JSON or ambiguous, 422 for what does not fit.
///
/// # Errors
/// A [`Problem`] that names the field.
pub fn read_strict<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict(MAX_DEPTH)
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|e| Problem::malformed(format!("The body is not acceptable JSON: {e}.")))?;
    if !value.is_object() {
        return Err(Problem::malformed("The body must be a JSON object."));
    }
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        Problem::invalid(vec![explain(&path, &e.into_inner().to_string())])
    })
}

/// A field error from what the deserializer says.
fn explain(path: &str, words: &str) -> FieldError {
    let named = |start: &str| words.strip_prefix(start).and_then(|rest| rest.split('`').next()).map(short);
    let path = short(path);
    let path = path.as_str();
    let within = |name: String| match path.rsplit_once('.') {
        _ if path == "." || path.is_empty() || path == name => name,
        Some((above, last)) if last == name => format!("{above}.{name}"),
        _ => format!("{path}.{name}"),
    };
    if let Some(name) = named("unknown field `") {
        FieldError::new(within(name), "unknown_field", "this endpoint takes no such field")
    } else if let Some(name) = named("missing field `") {
        FieldError::new(within(name), "required", "this field is required")
    } else {
        // What was given is left out: it may be a password in the wrong place.
        let wanted = words.rsplit("expected ").next().unwrap_or("something else");
        FieldError::new(path, "wrong_type", format!("give {wanted}"))
    }
}

/// A name as a refusal repeats it: nobody makes us answer more than they sent.
fn short(name: &str) -> String {
    name.chars().take(100).collect()
}

/// Reads a value that is not deeper than this and has no key twice.
struct Strict(u8);

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl Strict {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("it is nested too deeply"))
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is out of range"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(self.deeper()?)? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if out.contains_key(&key) {
                return Err(A::Error::custom("a key stands twice in one object"));
            }
            let value = entries.next_value_seed(self.deeper()?)?;
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Login {
        email: String,
        #[serde(default)]
        metadata: Map<String, Value>,
    }

    fn refusal(text: &str) -> (u16, String) {
        let problem = read_strict::<Login>(text.as_bytes()).unwrap_err();
        let field = problem.fields.first().map(|f| format!("{}:{}", f.field, f.code)).unwrap_or_default();
        (problem.status, field)
    }

    #[test]
    fn cve_2017_12635_duplicate_keys_are_malformed_at_every_depth() {
        for text in [
            r#"{"email":"a","email":"b"}"#,
            r#"{"email":"a","\u0065mail":"b"}"#,
            r#"{"email":"a","metadata":{"role":"user","\u0072ole":"admin"}}"#,
        ] {
            assert_eq!(refusal(text), (400, String::new()), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_json_object_is_malformed() {
        for text in [
            "",
            "{",
            "[]",
            "\"x\"",
            "null",
            "{\"email\":\"a\"} x",
            "{\"email\":\"\\ud800\"}",
            "{\"email\":1e400}",
            "{\"email\":NaN}",
            "\u{feff}{\"email\":\"a\"}",
        ] {
            assert_eq!(refusal(text).0, 400, "{text}");
        }
        let deep =
            format!("{{\"email\":\"a\",\"metadata\":{}1{}}}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
        assert_eq!(refusal(&deep).0, 400);
        let fits = format!("{{\"email\":\"a\",\"metadata\":{}1{}}}", "{\"a\":".repeat(30), "}".repeat(30));
        let login: Login = read_strict(fits.as_bytes()).unwrap();
        assert!(login.email == "a" && login.metadata.contains_key("a"));
        assert!(read_strict::<Login>(&[b'{', 0xff, b'}']).is_err());
    }

    #[test]
    fn what_does_not_fit_names_the_field_and_not_the_value() {
        assert_eq!(refusal(r#"{"email":"a","role":"admin"}"#), (422, "role:unknown_field".into()));
        assert_eq!(refusal("{}"), (422, "email:required".into()));
        assert_eq!(refusal(r#"{"email":["a"]}"#), (422, "email:wrong_type".into()));
        let problem = read_strict::<Login>(br#"{"email":"a","metadata":"hunter2"}"#).unwrap_err();
        assert!(!format!("{problem:?}").contains("hunter2"), "{problem:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_strict::<Login>(&bytes);
        }
    }
}
