//! Any bytes at all, for A-92.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};

use super::credentials::{exchange, status};

/// Bytes that can stand in a header value, seldom ones that cannot.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let alphabet = prop_oneof![8 => 0x20u8..0x7f, 3 => 0x80u8..=0xff, 1 => any::<u8>().prop_filter("ends the line", |b| !matches!(b, b'\r' | b'\n'))];
    prop_oneof![
        proptest::collection::vec(alphabet, 0..120),
        "(Bearer|Basic|bearer) [A-Za-z0-9_.=%/+-]{0,90}".prop_map(String::into_bytes)
    ]
}

const NAMES: [&str; 18] = [
    "Authorization",
    "Cookie",
    "Content-Type",
    "Idempotency-Key",
    "Origin",
    "Sec-Fetch-Site",
    "X-Forwarded-For",
    "Forwarded",
    "Accept",
    "Accept-Encoding",
    "User-Agent",
    "If-None-Match",
    "Range",
    "Expect",
    "Upgrade",
    "Te",
    "Traceparent",
    "X-Request-Id",
];
const LINES: [&str; 9] = [
    "GET /v1/me",
    "GET /v1/me/activity",
    "PATCH /v1/me",
    "POST /v1/auth/register",
    "POST /v1/auth/login",
    "POST /v1/auth/logout",
    "GET /verify-email",
    "POST /verify-email",
    "GET /nowhere",
];

pub fn everything(url: &str, person: &Value) {
    let token = person["access_token"].as_str().unwrap();
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let requests = (
        proptest::collection::vec((proptest::sample::select(&NAMES[..]), bytes()), 1..4),
        proptest::sample::select(&LINES[..]),
    );
    runner
        .run(&requests, |(headers, line)| {
            let headers: Vec<(&str, &[u8])> =
                headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
            let wire = exchange(url, line.as_bytes(), &headers, "{}");
            let last = wire.answers.last().map_or(0, |answer| answer.status);
            let fine =
                if line.contains("/v1/me") { (400..500).contains(&last) } else { (200..500).contains(&last) };
            if fine { Ok(()) } else { Err(TestCaseError::fail(format!("{line}: {wire:?}"))) }
        })
        .unwrap();
    // A token with anything of it changed, and secrets of every kind in the wrong shape.
    runner
        .run(&(0..token.len(), 0x21u8..0x7f), |(at, byte)| {
            let mut changed = token.as_bytes().to_vec();
            let same = changed[at] == byte;
            changed[at] = byte;
            let got = status(&exchange(
                url,
                b"GET /v1/me",
                &[("Authorization", &[b"Bearer ", changed.as_slice()].concat())],
                "",
            ));
            if got == 401 || same {
                Ok(())
            } else {
                Err(TestCaseError::fail(format!("{got} at {at} with {byte}")))
            }
        })
        .unwrap();
    let refresh = person["refresh_token"].as_str().unwrap().to_owned();
    let secrets = prop_oneof![
        "(pgr_|pgv_|pgd_|ver_)?[A-Za-z0-9_=/+-]{0,90}",
        "\\PC{0,60}",
        (0..refresh.len(), "[A-Za-z0-9_=-]").prop_map(move |(at, letter)| format!(
            "{}{letter}{}",
            &refresh[..at],
            &refresh[at..]
        ))
    ];
    runner
        .run(&secrets, |text| {
            for (path, body) in [
                ("refresh", json!({ "refresh_token": text })),
                ("verify-email", json!({ "verification_id": text, "code": text })),
                ("verify-email", json!({ "verification_id": text, "token": text })),
            ] {
                let got = status(&exchange(
                    url,
                    format!("POST /v1/auth/{path}").as_bytes(),
                    &[("Content-Type", b"application/json")],
                    &body.to_string(),
                ));
                prop_assert!(matches!(got, 401 | 422), "{path} {body}: {got}");
            }
            Ok(())
        })
        .unwrap();
}
