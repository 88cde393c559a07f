//! An application that is told what happens: a real HTTP server that takes, refuses or hangs, as it is told.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::Notify;

use super::listening::{serve, wait};

/// What a receiver does with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    Take,
    Refuse(u16),
    /// Refuses what is about this address alone.
    RefuseOf(String),
    Hang,
    /// Answers well, and without end.
    Babble,
    /// Sends whoever asks to another address.
    SendTo(String),
}

/// A message as it arrived.
#[derive(Debug, Clone)]
pub struct Heard {
    pub id: String,
    pub timestamp: i64,
    pub signature: String,
    pub raw: String,
    pub body: Value,
}

impl Heard {
    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap()
    }

    pub fn user(&self) -> &str {
        self.body["data"]["user"]["id"].as_str().unwrap()
    }
}

struct Inner {
    manner: Mutex<Manner>,
    /// Everything that arrived, and what was taken.
    all: Mutex<Vec<Heard>>,
    taken: Mutex<Vec<Heard>>,
    arrived: Notify,
}

#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    inner: Arc<Inner>,
}

impl Receiver {
    pub async fn start() -> Self {
        let inner = Arc::new(Inner {
            manner: Mutex::new(Manner::Take),
            all: Mutex::default(),
            taken: Mutex::default(),
            arrived: Notify::new(),
        });
        let url = serve(Router::new().fallback(answer).with_state(inner.clone())).await + "/hook";
        Self { url, inner }
    }

    pub fn be(&self, manner: Manner) {
        *self.inner.manner.lock().unwrap() = manner;
    }

    /// What it took, in the order in which it did.
    pub fn taken(&self) -> Vec<Heard> {
        self.inner.taken.lock().unwrap().clone()
    }

    /// What arrived, taken or not.
    pub fn all(&self) -> Vec<Heard> {
        self.inner.all.lock().unwrap().clone()
    }

    pub fn kinds(&self) -> Vec<String> {
        self.taken().iter().map(|heard| heard.kind().to_owned()).collect()
    }

    /// The first `count` messages that it took.
    pub async fn take(&self, count: usize) -> Vec<Heard> {
        self.wait("taken", count, || self.taken()).await
    }

    /// The first `count` messages that arrived.
    pub async fn hear(&self, count: usize) -> Vec<Heard> {
        self.wait("heard", count, || self.all()).await
    }

    async fn wait(&self, what: &str, count: usize, of: impl Fn() -> Vec<Heard>) -> Vec<Heard> {
        let enough = || Some(of()).filter(|heard| heard.len() >= count);
        let heard = wait(&self.inner.arrived, enough).await;
        heard.unwrap_or_else(|| panic!("{count} messages are not {what}: {:#?}", of()))
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let raw = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let header = |name: &str| head.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let heard = Heard {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp").parse().unwrap_or_default(),
        signature: header("webhook-signature"),
        body: serde_json::from_slice(&raw).unwrap_or_default(),
        raw: String::from_utf8_lossy(&raw).into_owned(),
    };
    let manner = inner.manner.lock().unwrap().clone();
    inner.all.lock().unwrap().push(heard.clone());
    let refused = match &manner {
        Manner::RefuseOf(address) => heard.body["data"]["user"]["email"] == **address,
        Manner::Take | Manner::Babble => false,
        _ => true,
    };
    if !refused {
        inner.taken.lock().unwrap().push(heard);
    }
    inner.arrived.notify_waiters();
    match manner {
        Manner::Hang => std::future::pending().await,
        Manner::Refuse(status) => (axum::http::StatusCode::from_u16(status).unwrap(), "no").into_response(),
        Manner::RefuseOf(_) if refused => axum::http::StatusCode::CONFLICT.into_response(),
        Manner::SendTo(place) => {
            (axum::http::StatusCode::TEMPORARY_REDIRECT, [("location", place)]).into_response()
        }
        Manner::Babble => "x".repeat(8 << 20).into_response(),
        Manner::Take | Manner::RefuseOf(_) => axum::http::StatusCode::NO_CONTENT.into_response(),
    }
}
