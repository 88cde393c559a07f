//! A stop finishes what began: whoever was let in before it gets a whole answer, and the process ends well, in time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::api::registration;
use super::child::{Server, dev, serve, until};
use super::smtp::SmtpServer;

/// How long a stop may take.
const PROMISED: Duration = Duration::from_secs(10);

/// How one request on a connection of its own ended.
#[derive(Debug)]
enum End {
    /// A status line and the whole body.
    Answered(u16),
    /// Not one byte came back.
    Nothing,
    /// A part of an answer: never right.
    Torn(String),
}

fn post(path: &str, body: &str, more: &str) -> (String, String) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{more}\r\n",
        body.len()
    );
    (head, body.to_owned())
}

/// Reads until the other side closes, and looks whether what came is one answer.
async fn read(mut socket: TcpStream) -> End {
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    if text.is_empty() {
        return End::Nothing;
    }
    let whole = || {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned))?;
        (body.len() == length.parse::<usize>().ok()?).then_some(())?;
        head.split(' ').nth(1)?.parse().ok()
    };
    whole().map_or_else(|| End::Torn(text.clone()), End::Answered)
}

/// When a request was let in (connected, and written), and how it ended.
struct Asked {
    let_in: Instant,
    end: End,
}

/// New connections, one request each, until nobody listens any more.
async fn hammer(port: u16, name: usize, asked: Arc<Mutex<Vec<Asked>>>) {
    for number in 0.. {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)).await else { return };
        let body = registration(&format!("h{name}-{number}@example.com")).to_string();
        let (head, body) = post("/v1/auth/register", &body, "Connection: close\r\n");
        let written = socket.write_all((head + &body).as_bytes()).await;
        let let_in = Instant::now();
        let end = if written.is_ok() { read(socket).await } else { End::Nothing };
        asked.lock().unwrap().push(Asked { let_in, end });
    }
}

async fn under_load(signal: Signal) {
    let dir = tempfile::tempdir().unwrap();
    let mut server = dev(dir.path()).start().await;
    let asked = Arc::<Mutex<Vec<Asked>>>::default();
    let mut clients: JoinSet<()> = (0..16).map(|name| hammer(server.port, name, asked.clone())).collect();
    until("there is load", PROMISED, || async { (asked.lock().unwrap().len() > 200).then_some(()) }).await;
    let told = Instant::now();
    server.child.signal(signal);
    let status = server.child.ended(PROMISED).await;
    assert_eq!(status.code(), Some(0), "{:?}", server.err.all());
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let asked = asked.lock().unwrap();
    let mut before = 0;
    for Asked { let_in, end } in asked.iter() {
        match end {
            End::Answered(202) if *let_in < told => before += 1,
            End::Answered(202) => {}
            // Who comes when the door is closing may find it closed.
            End::Nothing if *let_in > told => {}
            End::Nothing => {
                panic!("let in {:?} before the stop, and dropped", told.saturating_duration_since(*let_in))
            }
            End::Answered(status) => panic!("answered {status}"),
            End::Torn(part) => panic!("only a part of an answer came: {part:?}"),
        }
    }
    assert!(before > 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_drops_nobody_who_was_let_in() {
    under_load(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigint_is_the_same() {
    under_load(Signal::INT).await;
}

/// A request whose handler runs and waits for its body: the server says so itself (`100 Continue`).
async fn half_a_request(server: &Server, email: &str) -> (TcpStream, String) {
    let (head, body) =
        post("/v1/auth/register", &registration(email).to_string(), "Expect: 100-continue\r\n");
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    socket.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    (socket, body)
}

#[tokio::test]
async fn a_request_that_has_begun_is_finished_and_its_mail_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let smtp = SmtpServer::start(&[]).await;
    let mut server = SmtpServer::tell(smtp.port, serve(dir.path())).start().await;
    let (mut socket, body) = half_a_request(&server, "ada@example.com").await;
    server.child.signal(Signal::TERM);
    server.err.with("stopping").await;
    assert!(server.child.0.try_wait().unwrap().is_none(), "it waits for the request");
    socket.write_all(body.as_bytes()).await.unwrap();
    let end = read(socket).await;
    assert!(matches!(end, End::Answered(202)), "{end:?}");
    assert_eq!(server.child.ended(PROMISED).await.code(), Some(0));
    let server = SmtpServer::tell(smtp.port, serve(dir.path())).start().await;
    assert_eq!(server.api.login("ada@example.com").await.refusal(), "403 email_not_verified");
    smtp.message_to("ada@example.com", 1).await;
    server.stop().await;
}

#[tokio::test]
async fn neither_a_dawdler_nor_a_silent_mail_server_holds_up_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let smtp = SmtpServer::start(&["--hang-after-data"]).await;
    let mut server = SmtpServer::tell(smtp.port, serve(dir.path())).start().await;
    let _dawdler = half_a_request(&server, "ada@example.com").await;
    let idle = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    assert_eq!(server.api.register("eve@example.com").await.status, 202);
    let file = rusqlite::Connection::open(dir.path().join("pearlgate.db")).unwrap();
    let taken = || {
        file.query_row("SELECT COUNT(*) FROM jobs WHERE kind = 'mail.deliver' AND fence > 0", [], |row| {
            row.get::<_, i64>(0)
        })
        .unwrap()
    };
    until("the mail is being delivered", PROMISED, || async { (taken() == 1).then_some(()) }).await;
    server.child.signal(Signal::TERM);
    assert_eq!(server.child.ended(PROMISED).await.code(), Some(0), "{:?}", server.err.all());
    let due: i64 =
        file.query_row("SELECT run_at FROM jobs WHERE kind = 'mail.deliver'", [], |row| row.get(0)).unwrap();
    let now: i64 =
        file.query_row("SELECT CAST(unixepoch('subsec') * 1e6 AS INTEGER)", [], |row| row.get(0)).unwrap();
    assert!(due <= now, "the next process can take the job at once");
    drop(idle);
}

#[tokio::test]
async fn who_keeps_knocking_does_not_keep_the_door_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = dev(dir.path()).start().await;
    server.child.signal(Signal::TERM);
    let knock = || async { TcpStream::connect(("127.0.0.1", server.port)).await.is_err().then_some(()) };
    until("nobody is let in any more", PROMISED, knock).await;
    assert_eq!(server.child.ended(PROMISED).await.code(), Some(0));
}

#[tokio::test]
async fn a_stop_that_comes_early_is_a_stop_too() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let mut server = dev(dir.path()).listening().await;
        server.child.signal(Signal::TERM);
        assert_eq!(server.child.ended(PROMISED).await.code(), Some(0));
    }
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = dev(dir.path()).start().await;
    let fresh = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    assert_eq!(server.api.get("/health/live").await.status, 200, "whose connection stays open");
    server.child.signal(Signal::TERM);
    assert_eq!(server.child.ended(Duration::from_secs(5)).await.code(), Some(0), "{:?}", server.err.all());
    drop(fresh);
}
