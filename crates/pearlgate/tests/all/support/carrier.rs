//! A mail provider's HTTP API that takes, refuses or breaks, as it is told: Resend's or Postmark's, by the path that is
//! asked.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::listening::{serve, wait};

/// What a provider does with a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Take,
    /// It has an error of its own.
    Break,
    /// Too many, for now.
    Enough,
    /// Nobody can be reached at this address.
    NoSuchAddress,
    /// Our key is wrong.
    WrongKey,
    /// It does not like this one mail.
    NotThisOne,
}

/// A mail as it was handed over.
#[derive(Debug, Clone)]
pub struct Handed {
    pub headers: HeaderMap,
    pub body: Value,
}

impl Handed {
    fn text(&self, resend: &str, postmark: &str) -> String {
        let of = |place: &str| self.body.pointer(place).and_then(Value::as_str).map(str::to_owned);
        of(resend).or_else(|| of(postmark)).unwrap_or_default()
    }

    pub fn to(&self) -> String {
        self.text("/to/0", "/To")
    }

    pub fn words(&self) -> String {
        self.text("/text", "/TextBody")
    }

    /// The code in it.
    pub fn code(&self) -> String {
        let words = self.words();
        let code =
            words.split_whitespace().find(|word| word.len() == 6 && word.bytes().all(|b| b.is_ascii_digit()));
        code.unwrap_or_else(|| panic!("no code in {words}")).to_owned()
    }
}

struct Inner {
    manner: Mutex<Manner>,
    /// What came, and what of it was taken.
    asked: Mutex<usize>,
    taken: Mutex<Vec<Handed>>,
    arrived: Notify,
}

#[derive(Clone)]
pub struct Carrier {
    pub url: String,
    inner: Arc<Inner>,
}

impl Carrier {
    pub async fn start() -> Self {
        let inner = Arc::new(Inner {
            manner: Mutex::new(Manner::Take),
            asked: Mutex::default(),
            taken: Mutex::default(),
            arrived: Notify::new(),
        });
        let url = serve(Router::new().fallback(answer).with_state(inner.clone())).await;
        Self { url, inner }
    }

    pub fn be(&self, manner: Manner) {
        *self.inner.manner.lock().unwrap() = manner;
    }

    /// How often it was asked, whatever came of it.
    pub fn asked(&self) -> usize {
        *self.inner.asked.lock().unwrap()
    }

    pub fn taken(&self) -> Vec<Handed> {
        self.inner.taken.lock().unwrap().clone()
    }

    /// Waits for the `count`th mail to somebody.
    pub async fn mail(&self, to: &str, count: usize) -> Handed {
        let found = || self.taken().into_iter().filter(|mail| mail.to() == to).nth(count - 1);
        let come = wait(&self.inner.arrived, found).await;
        come.unwrap_or_else(|| panic!("no mail {count} to {to}: {:?}", self.taken()))
    }

    /// Waits until it has been asked so often.
    pub async fn was_asked(&self, count: usize) {
        let enough = wait(&self.inner.arrived, || (self.asked() >= count).then_some(())).await;
        assert!(enough.is_some(), "it was asked {} times, not {count}", self.asked());
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let handed = Handed { headers: head.headers, body: serde_json::from_slice(&body).unwrap_or_default() };
    let resend = head.uri.path() == "/emails";
    let manner = *inner.manner.lock().unwrap();
    let number = {
        let mut asked = inner.asked.lock().unwrap();
        *asked += 1;
        *asked
    };
    if manner == Manner::Take {
        inner.taken.lock().unwrap().push(handed);
    }
    inner.arrived.notify_waiters();
    let (status, said) = match (manner, resend) {
        (Manner::Take, true) => (200, json!({ "id": format!("re-{number}") })),
        (Manner::Take, false) => {
            (200, json!({ "ErrorCode": 0, "Message": "OK", "MessageID": format!("pm-{number}") }))
        }
        (Manner::Break, _) => (500, json!({})),
        (Manner::Enough, true) => (
            429,
            json!({ "statusCode": 429, "name": "rate_limit_exceeded", "message": "Too many requests." }),
        ),
        (Manner::Enough, false) => (429, json!({ "ErrorCode": 429, "Message": "Rate limit exceeded." })),
        (Manner::NoSuchAddress, true) => {
            (422, json!({ "statusCode": 422, "name": "validation_error", "message": "Invalid `to` field." }))
        }
        (Manner::NoSuchAddress, false) => (
            422,
            json!({ "ErrorCode": 406, "Message": "You tried to send to a recipient that is inactive." }),
        ),
        (Manner::NotThisOne, true) => {
            (422, json!({ "statusCode": 422, "name": "invalid_attachment", "message": "No." }))
        }
        (Manner::NotThisOne, false) => (422, json!({ "ErrorCode": 402, "Message": "Invalid." })),
        (Manner::WrongKey, true) => {
            (401, json!({ "statusCode": 401, "name": "restricted_api_key", "message": "API key is invalid" }))
        }
        (Manner::WrongKey, false) => (401, json!({ "ErrorCode": 10, "Message": "Bad or missing token." })),
    };
    (StatusCode::from_u16(status).unwrap(), axum::Json(said)).into_response()
}
