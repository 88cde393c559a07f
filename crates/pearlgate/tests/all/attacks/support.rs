//! What attackers need: a socket without manners, and a look at every answer.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Answer, PASSWORD, TestApp};

/// A password that is nobody's but the attacker's.
pub const OTHER: &str = "seven quiet orange rivers";

/// What no answer may hold: passwords, hashes, mailed tokens, statements, places in the source.
const NEVER: [&str; 20] = [
    "pgz_",
    "pgk_",
    "pgw_",
    "pgu_",
    PASSWORD,
    OTHER,
    "$argon2",
    "pgv_",
    "pgp_",
    "pgl_",
    "pge_",
    "pgn_",
    "pgs_",
    "FROM user_",
    "INTO users (",
    "syntax error",
    "relation \"",
    "panicked",
    ".rs:",
    "backtrace",
];

/// What holds of every answer to an attack.
pub fn clean(what: &str, status: u16, text: &str) {
    assert!(status < 500, "{what}: {status} {text}");
    for word in NEVER {
        assert!(!holds(text, word), "{what}: the answer holds {word:?}: {text}");
    }
}

/// Whether a text holds a word; what a token begins with counts only where one could begin, because chance writes four
/// letters in the midst of another.
pub fn holds(text: &str, word: &str) -> bool {
    let begins =
        |at: usize| text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"_-".contains(c));
    text.match_indices(word).any(|(at, _)| !word.starts_with("pg") || begins(at))
}

/// Sends a request and looks at its answer.
pub async fn ask(app: &TestApp, request: RequestBuilder) -> Answer {
    let answer = app.send(request).await;
    clean("an answer", answer.status, &answer.text);
    answer
}

pub async fn post(app: &TestApp, path: &str, body: &Value) -> Answer {
    ask(app, app.request(Method::POST, path).json(body)).await
}

/// A body as it stands.
pub async fn post_text(app: &TestApp, path: &str, body: impl Into<reqwest::Body>) -> Answer {
    ask(app, app.request(Method::POST, path).header("content-type", "application/json").body(body)).await
}

/// How many mails have arrived so far, once nothing is on its way.
pub async fn mails(app: &TestApp) -> usize {
    app.quiet().await;
    app.app.mailbox.as_ref().unwrap().list(None, None).len()
}

pub fn token_of(link: &str) -> String {
    link.split_once("token=").unwrap().1.to_owned()
}

/// What came back over a bare socket.
#[derive(Debug)]
pub struct Wire {
    pub answers: Vec<WireAnswer>,
    /// Whether the server closed the connection.
    pub closed: bool,
}

#[derive(Debug)]
pub struct WireAnswer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Wire {
    pub fn statuses(&self) -> Vec<u16> {
        self.answers.iter().map(|answer| answer.status).collect()
    }
}

/// `127.0.0.1:1234` of `http://localhost:1234`.
pub fn address(url: &str) -> String {
    format!("127.0.0.1:{}", url.rsplit_once(':').unwrap().1)
}

pub fn host(url: &str) -> String {
    url.trim_start_matches("http://").to_owned()
}

/// Sends bytes as they are and reads until the server closes, or says nothing more for a while.
pub async fn wire(url: &str, bytes: &[u8]) -> Wire {
    let (mut reader, mut writer) = TcpStream::connect(address(url)).await.unwrap().into_split();
    let bytes = bytes.to_vec();
    // A server that refuses stops reading; that is no reason not to hear its answer.
    let writing = tokio::spawn(async move {
        let _ = writer.write_all(&bytes).await;
        writer
    });
    let heard = hear(&mut reader, Duration::from_secs(2)).await;
    writing.abort();
    heard
}

pub async fn hear(reader: &mut (impl AsyncReadExt + Unpin), patience: Duration) -> Wire {
    let (mut bytes, mut closed) = (Vec::new(), false);
    while let Ok(read) = tokio::time::timeout(patience, reader.read_buf(&mut bytes)).await {
        if !matches!(read, Ok(1..)) {
            closed = true;
            break;
        }
    }
    let answers = answers(&bytes);
    for answer in &answers {
        clean("an answer on the wire", answer.status, &answer.body);
    }
    Wire { answers, closed }
}

/// The answers in a stream. None of ours is chunked.
pub fn answers(mut bytes: &[u8]) -> Vec<WireAnswer> {
    let mut out = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 ") && !head.contains("transfer-encoding"), "what is this? {head}");
        let status = head[9..12].parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |n| n.parse().unwrap());
        let rest = &bytes[end + 4..];
        let body = String::from_utf8_lossy(&rest[..rest.len().min(length)]).into_owned();
        bytes = &rest[rest.len().min(length)..];
        out.push(WireAnswer { status, head, body });
    }
    out
}

/// The program itself in dev mode, for what only a process of its own shows: its metrics, and whether it lives.
pub struct Program {
    pub url: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Program {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pearlgate"));
        command
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(dir.path())
            .current_dir(dir.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        let url = first
            .trim()
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("it says {first:?}"))
            .to_owned();
        Self { url, child, _dir: dir }
    }

    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
