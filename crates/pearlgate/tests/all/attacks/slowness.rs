use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::support::{Wire, address, hear, host};
use crate::support::{Engine, TestApp};

/// Beyond the deadline of ten seconds by more than any machine is late; only what fails waits so long.
const LATEST: Duration = Duration::from_secs(20);
const IDLE: usize = 500;

/// Sends `start`, then `drip` twice a second, and listens until the server has had enough.
async fn drip(url: String, start: String, drip: &'static str) -> Wire {
    let (mut reader, mut writer) = TcpStream::connect(address(&url)).await.unwrap().into_split();
    writer.write_all(start.as_bytes()).await.unwrap();
    let dripping = tokio::spawn(async move {
        while writer.write_all(drip.as_bytes()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let heard = hear(&mut reader, LATEST).await;
    dripping.abort();
    heard
}

/// Sends `start`, then `more` as fast as it goes, and tells how many bytes were taken.
async fn flood(url: String, start: String, more: String) -> (Wire, usize) {
    let (mut reader, mut writer) = TcpStream::connect(address(&url)).await.unwrap().into_split();
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    let flooding = tokio::spawn(async move {
        let _ = writer.write_all(start.as_bytes()).await;
        while let Ok(n) = writer.write(more.as_bytes()).await {
            if counted.fetch_add(n, Ordering::Relaxed) > 64 << 20 {
                break;
            }
        }
    });
    let heard = hear(&mut reader, LATEST).await;
    flooding.abort();
    (heard, taken.load(Ordering::Relaxed))
}

/// Sends request after request and never reads: the server must stop taking them.
async fn never_reads(url: String) -> usize {
    let mut socket = TcpStream::connect(address(&url)).await.unwrap();
    let request = format!("GET /openapi.json HTTP/1.1\r\nHost: {}\r\n\r\n", host(&url)).repeat(100);
    let mut taken = 0;
    while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_secs(3), socket.write(request.as_bytes())).await
    {
        taken += n;
        if taken > 64 << 20 {
            break;
        }
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a91_rustsec_2022_0055_slow_and_oversized() {
    let app = TestApp::start(Engine::Sqlite).await;
    let (url, host) = (app.url.clone(), host(&app.url));

    // Somebody healthy is served all the while, on a fresh connection each time.
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, healthy_url) = (stop.clone(), format!("{url}/health/ready"));
    let healthy = tokio::spawn(async move {
        let mut served = 0;
        while !stopped.load(Ordering::Relaxed) {
            let client =
                reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
            let answer = client.get(&healthy_url).send().await;
            assert!(answer.as_ref().is_ok_and(|answer| answer.status() == 200), "after {served}: {answer:?}");
            served += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        served
    });

    // Slow ones, all at once.
    let head = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nHost: {host}\r\n{more}");
    let json = "Content-Type: application/json\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: same-origin\r\n";
    let mut headers: JoinSet<(&str, Wire)> = JoinSet::new();
    for (name, start, more) in [
        ("a slow request line", String::new(), "G"),
        ("slow headers", head("GET /health/live", ""), "X: y\r\n"),
        ("a slow value", head("GET /health/live", "X: "), "y"),
        ("silence behind a request", head("GET /health/live", "\r\n"), ""),
        ("slow empty lines", String::new(), "\r\n"),
    ] {
        let url = url.clone();
        headers.spawn(async move { (name, drip(url, start, more).await) });
    }
    let mut bodies: JoinSet<(&str, Wire)> = JoinSet::new();
    for (name, start, more) in [
        (
            "a slow body",
            head("POST /v1/auth/register", &format!("{json}Content-Length: 1000\r\n\r\n{{")),
            " ",
        ),
        (
            "a body that never comes",
            head("POST /v1/auth/login", &format!("{json}Content-Length: 1000\r\n\r\n")),
            "",
        ),
        (
            "slow chunks without end",
            head("POST /v1/auth/login", &format!("{json}Transfer-Encoding: chunked\r\n\r\n")),
            "1\r\n \r\n",
        ),
        (
            "a slow chunk size",
            head("POST /v1/auth/login", &format!("{json}Transfer-Encoding: chunked\r\n\r\n1;")),
            "x",
        ),
        (
            "a slow body for whom it is optional",
            head("POST /v1/auth/logout", &format!("{json}Content-Length: 1000\r\n\r\n{{")),
            " ",
        ),
        (
            "a slow form",
            head("POST /verify-email", &format!("{form}Content-Length: 1000\r\n\r\npassword=")),
            "p",
        ),
        (
            "a slow form in chunks",
            head("POST /verify-email", &format!("{form}Transfer-Encoding: chunked\r\n\r\n")),
            "1\r\np\r\n",
        ),
    ] {
        let url = url.clone();
        bodies.spawn(async move { (name, drip(url, start, more).await) });
    }
    let mut idle = JoinSet::new();
    for n in 0..IDLE {
        let mut socket = TcpStream::connect(address(&url)).await.unwrap();
        idle.spawn(async move { tokio::time::timeout(LATEST, socket.read(&mut [0; 100])).await });
        if n % 50 == 0 {
            // The kernel's queue is short; this is about those who are in, not about the door.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let reader = tokio::spawn(never_reads(url.clone()));

    // Too much of everything.
    let mut floods = JoinSet::new();
    for (name, start, more, statuses) in [
        ("a header of a mebibyte", head("GET /health/live", "X: "), "y".repeat(1 << 20), &[431][..]),
        ("ten thousand headers", head("GET /health/live", ""), "X: y\r\n".repeat(10_000), &[431]),
        (
            "a hundred headers",
            head("GET /health/live", &format!("{}\r\n", "X: y\r\n".repeat(100))),
            String::new(),
            &[431],
        ),
        ("a target of a mebibyte", "GET /".into(), "y".repeat(1 << 20), &[414, 431]),
        ("a method of a mebibyte", String::new(), "Y".repeat(1 << 20), &[400, 431]),
        (
            "a body of a gibibyte, announced",
            head("POST /v1/auth/login", &format!("{json}Content-Length: 1073741824\r\n\r\n")),
            "y".repeat(1 << 16),
            &[413],
        ),
        (
            "chunks without end",
            head("POST /v1/auth/login", &format!("{json}Transfer-Encoding: chunked\r\n\r\n")),
            format!("400\r\n{}\r\n", " ".repeat(1_024)),
            &[413],
        ),
        (
            "one endless chunk",
            head("POST /v1/auth/login", &format!("{json}Transfer-Encoding: chunked\r\n\r\nfffffffffff\r\n")),
            " ".repeat(1 << 16),
            &[413],
        ),
        (
            "an endless chunk extension",
            head("POST /v1/auth/login", &format!("{json}Transfer-Encoding: chunked\r\n\r\n1;")),
            "x".repeat(1 << 16),
            &[400],
        ),
        (
            "endless trailers",
            head("POST /v1/auth/login", &format!("{json}Transfer-Encoding: chunked\r\n\r\n0\r\n")),
            "X: y\r\n".repeat(1_000),
            &[400],
        ),
        (
            "endless chunks for a call without a body",
            head("GET /health/live", "Transfer-Encoding: chunked\r\n\r\n"),
            format!("400\r\n{}\r\n", " ".repeat(1_024)),
            &[200],
        ),
        (
            "a form without end",
            head("POST /verify-email", &format!("{form}Transfer-Encoding: chunked\r\n\r\n")),
            format!("400\r\n{}\r\n", "p".repeat(1_024)),
            &[413],
        ),
        (
            "a form above the limit",
            head("POST /verify-email", &format!("{form}Content-Length: 65537\r\n\r\npassword=")),
            "p".repeat(65_537 - 9),
            &[413],
        ),
    ] {
        let url = url.clone();
        floods.spawn(async move { (name, flood(url, start, more).await, statuses) });
    }

    let mut wrong = Vec::new();
    for (name, (wire, taken), statuses) in floods.join_all().await {
        let right = matches!(wire.statuses()[..], [status] if statuses.contains(&status));
        if !right || !wire.closed || taken > 32 << 20 {
            wrong.push(format!(
                "{name}: {:?}, closed: {}, {taken} bytes taken",
                wire.statuses(),
                wire.closed
            ));
        }
    }
    for (name, wire) in headers.join_all().await {
        // Half a request has no answer; only the one that was whole has.
        let right = if name == "silence behind a request" {
            wire.statuses() == [200]
        } else {
            matches!(wire.statuses()[..], [] | [408])
        };
        if !right || !wire.closed {
            wrong.push(format!("{name}: {:?}, closed: {}", wire.statuses(), wire.closed));
        }
    }
    for (name, wire) in bodies.join_all().await {
        let problem = wire.answers.first().is_some_and(|only| {
            only.head.contains("content-type: application/problem+json")
                && only.body.contains("\"request_timeout\"")
        });
        if wire.statuses() != [408] || !wire.closed || !problem {
            wrong.push(format!("{name}: {:?}, closed: {}", wire.statuses(), wire.closed));
        }
    }
    let closed = idle.join_all().await.iter().filter(|end| matches!(end, Ok(Ok(0) | Err(_)))).count();
    let taken = reader.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let served = healthy.await.unwrap();
    app.finish().await;
    assert_eq!(closed, IDLE, "idle connections are closed by the server");
    assert!(taken < 64 << 20, "requests were taken though nobody read the answers: {taken} bytes");
    assert!(served > 10, "the healthy client was served {served} times");
    assert!(wrong.is_empty(), "{} were not ended as they should be:\n{}", wrong.len(), wrong.join("\n"));
    // Not here: the 30 seconds of silence after which the one that never reads is dropped; the limit by address,
    // which does not count this machine; floods of HTTP/2 frames, which is not spoken.
}
