//! The drill's HTTP client: everybody's application. It asks the one server, and follows nothing.

use std::sync::Arc;
use std::time::Duration;

use foundation::kernel::{Clock, tls};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::tally::{Step, Tally};
use crate::cli::Failure;

/// Longer than any answer may take: who waits so long waits in vain.
const PATIENCE: Duration = Duration::from_secs(8);
/// Shorter than the server keeps a connection on which nothing is asked: nobody asks on one that it closes.
const IDLE: Duration = Duration::from_secs(5);
const TOO_MANY: &str = "a limit. Start the server with PEARLGATE__SERVER__TRUSTED_PROXIES=127.0.0.1,::1, so \
    that everybody comes from an address of their own";

/// A server as applications reach it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    url: Arc<str>,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Seconds, when it says when to come back.
    pub(super) retry_after: Option<u64>,
    pub(super) location: String,
    /// The first cookie that it sets, as it is sent back.
    pub(super) cookie: String,
    pub(super) text: String,
    json: Value,
}

impl Answer {
    /// The text at a place in the JSON body; not an empty one.
    pub(super) fn at(&self, pointer: &str) -> Option<&str> {
        self.json.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A number there.
    pub(super) fn number_at(&self, pointer: &str) -> Option<u64> {
        self.json.pointer(pointer).and_then(Value::as_u64)
    }

    /// The list at a place in the JSON body.
    pub(super) fn list_at(&self, pointer: &str) -> Option<&[Value]> {
        self.json.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice)
    }

    /// Status and code, and what to do about a limit.
    pub(super) fn refusal(&self) -> String {
        let short = format!("{} {}", self.status, self.at("/code").unwrap_or("without a code"));
        if self.status == 429 { format!("{short}: {TOO_MANY}") } else { short }
    }
}

impl Client {
    #[expect(
        clippy::disallowed_methods,
        reason = "the drill is an application of the server's: it calls the server, and nobody else"
    )]
    pub(super) fn new(url: &str) -> Result<Self, Failure> {
        let tls = tls::client_config(None).map_err(Failure::Other)?;
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .pool_idle_timeout(IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .build();
        Ok(Self { http: http.map_err(|e| Failure::Other(e.to_string()))?, url: url.into() })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// The answer, or in words why there is none.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Answer, String> {
        let response = request.send().await.map_err(in_words)?;
        let head = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (status, location, retry_after) =
            (response.status().as_u16(), head("location"), head("retry-after").parse().ok());
        let cookie = head("set-cookie").split(';').next().unwrap_or_default().to_owned();
        let text = response.text().await.map_err(in_words)?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, retry_after, location, cookie, text, json })
    }
}

fn in_words(error: reqwest::Error) -> String {
    match (error.is_timeout(), error.is_connect()) {
        (true, _) => format!("no answer within {} s", PATIENCE.as_secs()),
        (false, true) => "no connection".into(),
        (false, false) => "the connection broke before there was an answer".into(),
    }
}

/// Somebody with an address of their own, whose answers are noted.
pub(super) struct Visitor {
    pub(super) client: Client,
    pub(super) tally: Arc<Tally>,
    /// Where they come from, as a proxy says it.
    pub(super) from: String,
    /// By how much what they ask next is late already.
    pub(super) late: Duration,
}

impl Visitor {
    pub(super) fn get(&self, path: &str) -> RequestBuilder {
        self.client.request(Method::GET, path)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.request(Method::POST, path).json(body)
    }

    /// Sends it from their address, without noting anything.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Answer, String> {
        self.client.send(request.header("x-forwarded-for", &self.from)).await
    }

    /// Sends it and notes the answer; gives it when it has the right status.
    pub(super) async fn ask(&self, what: &str, request: RequestBuilder, right: u16) -> Step<Answer> {
        let started = Clock::stopwatch();
        let answer = self.send(request).await;
        self.tally.note(what, self.late + started.elapsed(), answer, right)
    }
}
