use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::fuzz;
use super::support::{Program, Wire, address, answers, clean, host};
use crate::support::{Engine, PASSWORD, TestApp};

/// One request of any bytes, and what came back before the server closed.
pub fn exchange(url: &str, line: &[u8], headers: &[(&str, &[u8])], body: &str) -> Wire {
    let mut bytes =
        [line, b" HTTP/1.1\r\nHost: ", host(url).as_bytes(), b"\r\nConnection: close\r\n"].concat();
    for (name, value) in headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend(format!("Content-Length: {}\r\n\r\n{body}", body.len()).bytes());
    let mut socket = TcpStream::connect(address(url)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = socket.write_all(&bytes);
    let mut heard = Vec::new();
    let closed = socket
        .read_to_end(&mut heard)
        .map_or_else(|e| e.kind() == std::io::ErrorKind::ConnectionReset, |_| true);
    let answers = answers(&heard);
    for answer in &answers {
        clean(&format!("{} {headers:?}", String::from_utf8_lossy(line)), answer.status, &answer.body);
    }
    Wire { answers, closed }
}

pub fn status(wire: &Wire) -> u16 {
    assert!(wire.closed && wire.answers.len() == 1, "no answer, or several: {wire:?}");
    wire.answers[0].status
}

fn call(url: &str, path: &str, body: &Value) -> Value {
    let wire = exchange(
        url,
        format!("POST {path}").as_bytes(),
        &[("Content-Type", b"application/json")],
        &body.to_string(),
    );
    assert!(status(&wire) < 300, "{wire:?}");
    serde_json::from_str(&wire.answers[0].body).unwrap()
}

/// Registers and signs in on a server of its own.
fn person(url: &str) -> Value {
    let registered = call(url, "/v1/auth/register", &json!({ "email": "ada@ex.test", "password": PASSWORD }));
    let code = loop {
        let mails = TcpStream::connect(address(url)).map(|mut socket| {
            let get = format!(
                "GET /dev/v1/messages?to=ada@ex.test HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                host(url)
            );
            let mut heard = Vec::new();
            socket.write_all(get.as_bytes()).and_then(|()| socket.read_to_end(&mut heard)).unwrap();
            let start = heard.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            serde_json::from_slice::<Value>(&heard[start..]).unwrap()
        });
        if let Some(code) = mails.unwrap()["items"][0]["code"].as_str() {
            break code.to_owned();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    call(
        url,
        "/v1/auth/verify-email",
        &json!({ "verification_id": registered["verification_id"], "code": code }),
    )
}

/// Values of an Authorization header, split at the broken bar.
const AUTHORIZATIONS: &[&str] = &[
    "¦ ¦Bearer¦Bearer ¦Bearer  ¦bearer x¦Basic¦Basic %%%¦Basic dTpw¦Basic Og==¦Digest x¦Negotiate¦",
    "Bearer null¦Bearer undefined¦Bearer [object Object]¦Bearer .¦Bearer ..¦Bearer ...¦Bearer a.b.c¦",
    "Bearer ====¦Bearer %00¦Bearer e30.e30.¦Bearer e30.e30.e30¦Bearer bnVsbA.bnVsbA.¦",
    "Bearer W10.W10.W10¦Bearer\tx¦\"Bearer\" x¦Bearer x, Bearer y¦Bearer x y¦Bearer pgr_x¦=¦,¦;",
];

fn malformed_authorization(url: &str, token: &str) {
    let (head, rest) = token.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    let mut values: Vec<Vec<u8>> =
        AUTHORIZATIONS.concat().split('¦').map(|text| text.as_bytes().to_vec()).collect();
    values.extend(
        [
            format!("Bearer {token}x"),
            format!("Bearer x{token}"),
            format!("Bearer {token}."),
            format!("Bearer .{token}"),
            format!("Bearer {token}={token}"),
            format!("Bearer {head}.{claims}"),
            format!("Bearer {head}.{claims}."),
            format!("Bearer {claims}.{head}.{signature}"),
            format!("Bearer {none}.{claims}."),
            format!("Bearer {none}.{claims}.{signature}"),
            format!("Bearer {head}..{signature}"),
            format!("Bearer {}", token.to_lowercase()),
            format!("Bearer {token} {token}"),
            format!("Bearer {token}\u{a0}"),
            format!("Basic {token}"),
            format!("Bearer: {token}"),
            format!("Bearer={token}"),
            token.to_owned(),
            format!("Bearer {}", "x".repeat(9_000)),
            format!("Bearer {}", ".".repeat(12_000)),
            format!("Bearer {}", "e30.".repeat(2_000)),
            format!("Bearer {}", "x".repeat(64 << 10)),
            format!("{} x", "B".repeat(10_000)),
        ]
        .map(String::into_bytes),
    );
    values.extend(
        [
            &b"Bearer \xff\xfe"[..],
            b"\xff",
            b"Bearer \x80.\x80.\x80",
            b"Bearer \xe2\x82\xac",
            b"B\xc3\xa9arer x",
            b"Bearer \x00",
            b"Bearer \x7f",
            b"Bearer \x0b",
        ]
        .map(<[u8]>::to_vec),
    );
    for value in values {
        for path in [&b"GET /v1/me"[..], b"GET /v1/me/activity", b"PATCH /v1/me"] {
            let wire = exchange(url, path, &[("Authorization", &value)], "");
            assert!(
                matches!(status(&wire), 400 | 401 | 431),
                "{:?}: {wire:?}",
                String::from_utf8_lossy(&value)
            );
        }
        let out = status(&exchange(url, b"POST /v1/auth/logout", &[("Authorization", &value)], ""));
        assert!(matches!(out, 204 | 400 | 431), "{out}");
    }
    let good = format!("Bearer {token}");
    let twice = exchange(
        url,
        b"GET /v1/me",
        &[("Authorization", good.as_bytes()), ("Authorization", good.as_bytes())],
        "",
    );
    assert_eq!(status(&twice), 400);
    assert_eq!(
        status(&exchange(url, b"GET /v1/me", &[("Authorization", good.as_bytes())], "")),
        200,
        "the good one is good after all this"
    );
}

fn malformed_cookies_and_escapes(url: &str) {
    let name = "__Host-pearlgate-verify";
    let long = format!("{name}={}", "x".repeat(12_000));
    for cookie in [
        &b""[..],
        b"=",
        b";",
        b";;;=;",
        name.as_bytes(),
        b"__Host-pearlgate-verify=",
        b"__Host-pearlgate-verify=pgv_",
        b"__Host-pearlgate-verify=pgv_%ff",
        b"__Host-pearlgate-verify==;=",
        b"__host-pearlgate-verify=a; __HOST-PEARLGATE-VERIFY=b",
        b"__Host-pearlgate-verify=\xff",
        b"\xff=\xfe",
        b"__Host-pearlgate-verify=\"pgv_x",
        b"$Version=1; x",
        b"a\tb=c",
        long.as_bytes(),
    ] {
        assert_eq!(
            status(&exchange(url, b"GET /verify-email", &[("Cookie", cookie)], "")),
            200,
            "the page that says how to go on"
        );
        let form: [(&str, &[u8]); 3] = [
            ("Cookie", cookie),
            ("Sec-Fetch-Site", b"same-origin"),
            ("Content-Type", b"application/x-www-form-urlencoded"),
        ];
        for body in [
            "password=nine+purple+lanterns",
            "password=%",
            "password=%ff%fe",
            "password=%00",
            "%=%",
            "&&&",
            "password=a&password=b",
            "\u{0}",
        ] {
            assert!(status(&exchange(url, b"POST /verify-email", &form, body)) < 500);
        }
    }
    for target in [
        &b"/errors/%"[..],
        b"/errors/%zz",
        b"/errors/%ff",
        b"/errors/%00",
        b"/errors/%f",
        b"/errors/%25%32%65",
        b"/%",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"/..%c0%af../etc/passwd",
        b"/%u0041",
        b"/v1/%6de",
        b"/v1/me%",
        b"/\x80\xff",
        b"*",
        b"/%00%0d%0a",
        b"/v1/me/%f0%28%8c%28",
    ] {
        let wire = exchange(url, &[b"GET ", target].concat(), &[], "");
        assert!((400..500).contains(&status(&wire)), "{:?}: {wire:?}", String::from_utf8_lossy(target));
    }
    for target in [
        &b"/verify-email?token=%"[..],
        b"/verify-email?token=%ff%00",
        b"/verify-email?token",
        b"/verify-email?token=a&token=b",
        b"/verify-email?%ff=%fe",
        b"/verify-email?token=%0d%0aset-cookie:x",
        b"/dev/v1/messages?to=%ff",
        b"/dev/mailbox?to=%",
        b"/health/live?%",
        b"/verify-email?token=\xff",
    ] {
        let wire = exchange(url, &[b"GET ", target].concat(), &[], "");
        assert!(status(&wire) < 500, "{:?}: {wire:?}", String::from_utf8_lossy(target));
        assert!(!wire.answers[0].head.contains("set-cookie:x"), "{wire:?}");
    }
}

/// Stored hashes that are none, likewise.
const HASHES: &[&str] = &[
    "x¦$¦$argon2id¦$argon2id$v=19$m=64,t=1,p=1¦$argon2id$v=19$m=64,t=1,p=1$$¦",
    "$argon2id$v=19$m=64,t=1,p=1$c2FsdA¦$argon2id$v=19$m=64,t=1,p=1${salt}$¦",
    "$argon2id$v=19$m=64,t=1,p=1$!$!¦$argon2id$v=19$m=0,t=0,p=0${salt}${hash}¦",
    "$argon2id$v=19$m=4294967295,t=1,p=1${salt}${hash}¦",
    "$argon2id$v=19$m=99999999999,t=1,p=1$c2FsdA$aGFzaA¦",
    "$argon2id$v=19$m=64,t=4294967295,p=1${salt}${hash}¦",
    "$argon2id$v=19$m=64,t=1,p=16777215${salt}${hash}¦$argon2id$v=1$m=64,t=1,p=1${salt}${hash}¦",
    "$argon2i$v=19$m=64,t=1,p=1${salt}${hash}¦",
    "$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234¦",
    "$argon2id$v=19$m=64,t=1,p=1,keyid=x,data=y${salt}${hash}¦",
    "$argon2id$v=19$m=64,t=1,p=1${salt}${hash}$extra",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a92_ghsa_xmf8_cvqr_rfgj_crash_by_malformed_credential() {
    tokio::task::spawn_blocking(|| {
        let mut program = Program::start();
        let url = program.url.clone();
        let person = person(&url);
        malformed_authorization(&url, person["access_token"].as_str().unwrap());
        malformed_cookies_and_escapes(&url);
        fuzz::everything(&url, &person);
        let metrics = exchange(&url, b"GET /metrics", &[], "").answers.remove(0).body;
        assert!(metrics.contains("http_requests_total"), "the metrics count: {metrics}");
        assert!(!metrics.contains("http_panics_total"), "something panicked: {metrics}");
        assert!(!metrics.contains("status=\"5"), "something failed: {metrics}");
        assert!(program.lives());
    })
    .await
    .unwrap();

    // A stored hash that is garbage lets nobody in and breaks nothing.
    let app = TestApp::start(Engine::Sqlite).await;
    let ada = app.person("ada@ex.test").await;
    let hashes = HASHES
        .concat()
        .replace("{salt}", "c2FsdHNhbHRzYWx0c2FsdA")
        .replace("{hash}", "aGFzaGhhc2hoYXNoaGFzaA");
    for hash in hashes.split('¦') {
        app.sql(&format!("UPDATE password_credentials SET password_hash = '{hash}'")).await;
        app.forgive().await;
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "401 invalid_credentials", "{hash}");
    }
    assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200);
    app.finish().await;
    // CBOR of passkeys: `passkeys::ceremony`. The 24 hours of cargo-fuzz run by hand.
}
