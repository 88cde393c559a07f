use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::steps::{Tab, mails, refused, register, says};
use crate::both;
use crate::support::{Engine, PASSWORD, TestApp};

const NEW: &str = "seven quiet orange rivers";
const BREACHED: &str = "correct horse battery staple";
const PENDING: &str = "SELECT COUNT(*) FROM pending_breach_checks";
const DEMANDS: &str = "SELECT COUNT(*) FROM password_change_demands";

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Answer,
    Hang,
    Error,
    Garbage,
    Huge,
    HangUp,
    Flaky,
}

/// A range service that is as a story wants it, and what it was told.
#[derive(Clone)]
struct Ranges(Arc<Mutex<Inner>>);

struct Inner {
    mode: Mode,
    known: Vec<(&'static str, u32)>,
    heads: Vec<String>,
}

fn sha1(text: &str) -> String {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    data_encoding::HEXUPPER.encode(hash.as_ref())
}

impl Ranges {
    /// The service, and an app that asks it.
    async fn start(engine: Engine) -> (Self, TestApp) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ranges =
            Self(Arc::new(Mutex::new(Inner { mode: Mode::Answer, known: Vec::new(), heads: Vec::new() })));
        let service = ranges.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(service.clone().serve(socket));
            }
        });
        let settings =
            format!("[passwords.breach]\nurl = \"http://127.0.0.1:{port}/range/\"\ntimeout = \"2s\"");
        (ranges, TestApp::with(engine, true, &settings).await)
    }

    fn be(&self, mode: Mode) {
        self.0.lock().unwrap().mode = mode;
    }

    /// `times` is how often the password was seen; 0 is padding.
    fn know(&self, password: &'static str, times: u32) {
        self.0.lock().unwrap().known.push((password, times));
    }

    fn heads(&self) -> Vec<String> {
        self.0.lock().unwrap().heads.clone()
    }

    fn hear(&self, head: String) -> (Mode, String) {
        let mut inner = self.0.lock().unwrap();
        let prefix = head.split(' ').nth(1).unwrap().trim_start_matches("/range/").to_owned();
        inner.heads.push(head);
        let mut range = vec![format!("{}:0", "0".repeat(35))];
        range.extend(inner.known.iter().filter_map(|(password, times)| {
            Some(format!("{}:{times}", sha1(password).strip_prefix(&prefix)?))
        }));
        let mode = match inner.mode {
            Mode::Flaky if inner.heads.len().is_multiple_of(2) => Mode::Answer,
            Mode::Flaky => Mode::HangUp,
            mode => mode,
        };
        (mode, range.join("\r\n"))
    }

    async fn serve(self, mut socket: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if !socket.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                return;
            }
        }
        let (mode, range) = self.hear(String::from_utf8(head).unwrap());
        let (status, length, body) = match mode {
            Mode::HangUp | Mode::Flaky => return,
            Mode::Hang => std::future::pending().await,
            Mode::Answer => (200, range.len(), range),
            Mode::Error => (500, range.len(), range),
            Mode::Garbage => (200, 15, "<html>hi</html>".to_owned()),
            Mode::Huge => (200, 1 << 30, range),
        };
        let head =
            format!("HTTP/1.1 {status} So\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        let mut written = socket.write_all(head.as_bytes()).await;
        while mode == Mode::Huge && written.is_ok() {
            written = socket.write_all(&[b'0'; 16_384]).await;
        }
    }
}

async fn health(app: &TestApp) -> String {
    let all = app.get("/health/dependencies").await;
    let items: Vec<Value> = all.json["items"].as_array().unwrap().clone();
    let breach = items.iter().find(|item| item["name"] == "breach").unwrap();
    breach["state"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_five_digits_of_a_hash_leaves() {
    let (ranges, app) = Ranges::start(Engine::Sqlite).await;
    assert_eq!(app.register("ada@example.com").await.status, 202);
    let heads = ranges.heads();
    assert_eq!(heads.len(), 1);
    let hash = sha1(PASSWORD);
    assert_eq!(heads[0].lines().next().unwrap(), format!("GET /range/{} HTTP/1.1", &hash[..5]));
    let head = heads[0].to_lowercase();
    let names: BTreeSet<&str> =
        head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let expected = ["accept", "accept-encoding", "add-padding", "connection", "host", "user-agent"];
    assert!(names.iter().all(|name| expected.contains(name)), "{names:?}");
    assert!(head.contains("add-padding: true") && !head.contains("example.com"), "{head}");
    assert!(!head.contains(&hash[5..15].to_lowercase()), "{head}");

    ranges.know("eleven silver kites at dusk", 3);
    ranges.know("two copper bells under snow", 0);
    let listed = register(&app, "eve@example.com", "eleven silver kites at dusk", "").await;
    assert_eq!(refused(&listed), says("password:password_breached"));
    assert_eq!(
        register(&app, "eve@example.com", "two copper bells under snow", "").await.status,
        202,
        "padding"
    );
    assert_eq!((app.count(PENDING).await, health(&app).await.as_str()), (0, "up"));
    assert_eq!(register(&app, "eve@example.com", "short", "").await.status, 422);
    assert_eq!(ranges.heads().len(), 3, "what is refused anyway is not asked about");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_service_does_people_register() {
    let (ranges, app) = Ranges::start(Engine::Sqlite).await;
    for (n, mode) in (1..).zip([Mode::Hang, Mode::Error, Mode::Garbage, Mode::Huge, Mode::HangUp]) {
        ranges.be(mode);
        assert_eq!(app.register(&format!("ada{n}@example.com")).await.status, 202);
        assert_eq!((app.count(PENDING).await, health(&app).await.as_str()), (n, "down"));
    }
    ranges.be(Mode::Flaky);
    for n in 6..10 {
        assert_eq!(app.register(&format!("ada{n}@example.com")).await.status, 202);
    }
    assert_eq!(app.count(PENDING).await, 5, "a connection that broke was made once more");
    ranges.be(Mode::Answer);
    assert_eq!(app.register("ada1@example.com").await.status, 202);
    assert_eq!(
        (app.count(PENDING).await, health(&app).await.as_str()),
        (4, "up"),
        "the newer registration was asked about"
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_off_is_asked_at_the_next_sign_in() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let (ranges, app) = Ranges::start(engine).await;
        ranges.be(Mode::Error);
        let ada = app.person("ada@example.com").await;
        assert_eq!(
            app.login(&ada.email, PASSWORD).await.status,
            200,
            "somebody else's outage locks nobody out"
        );
        assert_eq!(app.count(PENDING).await, 1, "and the question stays");
        let asked = ranges.heads().len();
        assert_eq!(app.login(&ada.email, NEW).await.refusal(), "401 invalid_credentials");
        assert_eq!(ranges.heads().len(), asked, "a wrong password is nobody's to ask about");

        ranges.know(PASSWORD, 7);
        ranges.be(Mode::Answer);
        assert_eq!(refused(&app.login(&ada.email, PASSWORD).await), says("password:password_breached"));
        let mail = app.mail(&ada.email, "password_breached", 1).await;
        ranges.be(Mode::Error);
        for _ in 0..2 {
            assert_eq!(
                refused(&app.login(&ada.email, PASSWORD).await),
                says("password:password_breached"),
                "it is known by now"
            );
        }
        app.quiet().await;
        assert_eq!(mails(&app, &ada.email, "password_breached"), 1, "one mail, not one for each try");
        assert_eq!((app.count(PENDING).await, app.count(DEMANDS).await), (0, 1));

        let (tab, _) = Tab::open(&app, &mail.links[0]).await;
        assert_eq!(tab.submit(&app, NEW).await.status, 200);
        assert_eq!((app.count(PENDING).await, app.count(DEMANDS).await), (1, 0), "the service is still away");
        assert_eq!(app.login(&ada.email, NEW).await.status, 200);
        ranges.be(Mode::Answer);
        assert_eq!(app.login(&ada.email, NEW).await.status, 200);
        assert_eq!(app.count(PENDING).await, 0, "asked, and not breached");
        let asked = ranges.heads().len();
        assert_eq!(app.login(&ada.email, NEW).await.status, 200);
        assert_eq!(ranges.heads().len(), asked, "once is enough");
        app.finish().await;
    }
}

both! {
    async fn every_fault_of_dev_mode_leaves_registration_working(app: &TestApp) {
        for (n, fault) in (1..).zip(["down", "hang", "slow", "error", "garbage", "huge", "flaky"]) {
            app.put_fault("breach", fault).await;
            assert_eq!(register(app, &format!("ada{n}@example.com"), BREACHED, "").await.status, 202, "{fault}");
            assert_eq!(app.count(PENDING).await, n, "{fault}");
        }
        app.put_fault("breach", "none").await;
        let answer = register(app, "eve@example.com", BREACHED, "").await;
        assert_eq!(refused(&answer), says("password:password_breached"));
        app.quiet().await;
    }
}
