use reqwest::Method;
use serde_json::{Value, json};

use super::support::{OTHER, ask, mails, post};
use crate::both;
use crate::support::{PASSWORD, TestApp};

const PAYLOADS: [&str; 28] = [
    "'",
    "\"",
    "`",
    "\\",
    "\\'",
    "' OR '1'='1",
    "' OR 1=1 --",
    "\" OR \"\"=\"",
    "') OR ('1'='1' /*",
    "'; DROP TABLE users; --",
    "'; DELETE FROM users; SELECT '",
    "' UNION SELECT password_hash FROM password_credentials --",
    "'||(SELECT password_hash FROM password_credentials LIMIT 1)||'",
    "1; ATTACH DATABASE '/tmp/x' AS y",
    "'; SELECT pg_sleep(30) --",
    "'; COPY users TO PROGRAM 'id' --",
    "$1",
    "?1",
    ":name",
    "@p",
    "/*pg FOR UPDATE */",
    "/*",
    "--",
    "%",
    "_",
    "%' ESCAPE '\\",
    "\u{2019} OR 1=1",
    "x'\u{0}' --",
];

/// Puts a payload into each field of a body in turn.
fn poisoned(body: &Value, payload: &str) -> Vec<(String, Value)> {
    let names: Vec<String> = body.as_object().unwrap().keys().cloned().collect();
    let mut out = Vec::new();
    for name in names {
        let mut whole = body.clone();
        whole[&name] = payload.into();
        out.push((name.clone(), whole));
        // And behind what was there, where a parser might stop looking.
        if let Some(text) = body[&name].as_str() {
            let mut behind = body.clone();
            behind[&name] = format!("{text}{payload}").into();
            out.push((name.clone(), behind));
        }
    }
    let mut key = body.clone();
    key[payload] = "x".into();
    out.push(("a key".into(), key));
    out
}

async fn rows(app: &TestApp) -> [i64; 4] {
    [
        app.count("SELECT COUNT(*) FROM users").await,
        app.count("SELECT COUNT(*) FROM verified_emails").await,
        app.count("SELECT COUNT(*) FROM sessions").await,
        app.count("SELECT COUNT(*) FROM email_verification_tokens").await,
    ]
}

both! {
    async fn a83_cve_2026_33503_sql_injection(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let eve = app.person("eve@ex.test").await;
        for n in 0..4 {
            app.clock.advance(std::time::Duration::from_secs(1));
            assert_eq!(app.login("ada@ex.test", OTHER).await.status, 401, "{n}");
        }
        app.quiet().await;
        let before = rows(app).await;

        // Every field of every call without a session: nobody is let in, nothing appears, nothing goes.
        let calls = [
            ("/v1/auth/login", json!({ "email": "ada@ex.test", "password": OTHER, "transport": "token", "device_name": "d", "device_token": "pgd_x" })),
            ("/v1/auth/verify-email", json!({ "verification_id": "ver_00000000000000000000000000000001", "code": "123456", "device_name": "d" })),
            ("/v1/auth/verify-email", json!({ "token": "pgv_x", "password": OTHER })),
            ("/v1/auth/refresh", json!({ "refresh_token": "pgr_x" })),
            ("/v1/auth/logout", json!({ "refresh_token": "pgr_x" })),
            ("/dev/v1/clock", json!({ "advance": "0s" })),
        ];
        for payload in PAYLOADS {
            for (path, body) in &calls {
                for (field, body) in poisoned(body, payload) {
                    let answer = post(app, path, &body).await;
                    let fine = (400..500).contains(&answer.status) || (answer.status == 204 && *path == "/v1/auth/logout");
                    assert!(fine, "{path} {field} {payload:?}: {} {}", answer.status, answer.text);
                }
            }
        }
        assert_eq!(rows(app).await, before);

        // Signed in: what is taken is stored as it is written and comes back as it was.
        let template = json!({ "display_name": "Ada", "locale": "en", "metadata": {} });
        for payload in PAYLOADS {
            for (field, body) in poisoned(&template, payload) {
                let request = app.request(Method::PATCH, "/v1/me").bearer_auth(&ada.access).json(&body);
                let answer = app.send(request).await;
                match answer.status {
                    200 => assert!(field == "display_name" && answer.json["display_name"] == body["display_name"], "{}", answer.text),
                    status => assert_eq!(status, 422, "{field} {payload:?}: {}", answer.text),
                }
            }
            let inside = json!({ "metadata": { payload: payload, "deep": [{ payload: [payload] }] } });
            let answer = app.send(app.request(Method::PATCH, "/v1/me").bearer_auth(&ada.access).json(&inside)).await;
            assert_eq!((answer.status, &answer.json["metadata"]), (200, &inside["metadata"]), "{payload:?}");
            let read = app.get_as("/v1/me", &ada.access).await;
            assert_eq!(read.json["metadata"], inside["metadata"], "{payload:?}");
            assert_eq!(app.get_as("/v1/me", &eve.access).await.str("/display_name"), "Ada", "one row was meant");
        }
        assert_eq!(rows(app).await, before);

        // Addresses may hold some of these signs: each is one address and no pattern.
        for email in ["%@ex.test", "_da@ex.test", "a%@ex.test", "a'--@ex.test", "'or'1'='1@ex.test", "x'/**/or/**/1=1--@ex.test", "ada'@ex.test"] {
            let resent = post(app, "/v1/auth/resend-verification", &json!({ "email": email })).await;
            assert_eq!(resent.status, 202);
            app.quiet().await;
            assert_eq!(post(app, "/v1/auth/login", &json!({ "email": email, "password": PASSWORD })).await.refusal(), "401 invalid_credentials", "{email}");
            assert_eq!(post(app, "/v1/auth/register", &json!({ "email": email, "password": OTHER })).await.status, 202);
            assert_eq!(app.mail(email, "verify_email", 1).await.to, email);
        }
        let told = app.app.mailbox.as_ref().unwrap().list(None, Some("account_locked"));
        assert!(told.iter().all(|mail| mail.to == ada.email), "nobody else was locked");
        assert_eq!(mails(app).await - told.len(), 2 + 7, "nobody else was written to");
        assert_eq!(rows(app).await[0], before[0] + 7);
        for payload in PAYLOADS.iter().filter(|payload| payload.is_ascii() && !payload.contains('\0')) {
            let body = json!({ "email": "%@ex.test", "password": OTHER, "metadata": {} });
            let keyed = app.request(Method::POST, "/v1/auth/register").header("idempotency-key", *payload).json(&body);
            assert_eq!(ask(app, keyed).await.status, 202, "{payload:?}");
        }
        app.quiet().await;

        // Queries and paths, and cursors that nobody gave out.
        let first = app.get_as("/v1/me/activity?limit=2", &ada.access).await.str("/next_cursor");
        let other = app.get_as("/v1/me/activity?limit=1", &eve.access).await.str("/next_cursor");
        let ask_list = async |query: &[(&str, &str)]| {
            ask(app, app.request(Method::GET, &format!("/v1/me/activity?{}", encode(query))).bearer_auth(&ada.access)).await
        };
        for payload in PAYLOADS {
            for name in ["cursor", "limit", "sort", "order", "filter", "q", "tenant", payload] {
                assert_eq!(ask_list(&[(name, payload)]).await.refusal(), "422 validation_failed", "{name}={payload}");
            }
            for path in ["/errors/", "/dev/v1/faults/", "/v1/", "/v1/me/"] {
                let method = if path.contains("faults") { Method::PUT } else { Method::GET };
                let request = app.request(method, &format!("{path}{}", encode(&[(payload, "")]))).json(&json!({ "fault": "down" }));
                assert_eq!(ask(app, request).await.status, 404, "{path}{payload}");
            }
            for name in ["to", "kind"] {
                let answer = ask(app, app.request(Method::GET, &format!("/dev/v1/messages?{}", encode(&[(name, payload)])))).await;
                assert_eq!(answer.json["items"], json!([]), "{name}={payload}");
            }
        }
        let mut forged = vec![other, first.to_lowercase(), first[1..].to_owned(), format!("{first}A"), format!("{first}="), format!("{first}{first}"), "A".repeat(first.len()), "x".repeat(8_000)];
        forged.extend((0..first.len()).map(|at| {
            let letter = if first.as_bytes()[at] == b'A' { "B" } else { "A" };
            format!("{}{letter}{}", &first[..at], &first[at + 1..])
        }));
        for cursor in &forged {
            assert_eq!(ask_list(&[("limit", "2"), ("cursor", cursor)]).await.refusal(), "422 validation_failed", "{cursor}");
        }
        assert_eq!(ask_list(&[("cursor", &first), ("cursor", &first)]).await.refusal(), "422 validation_failed");
        assert_eq!(ask_list(&[("limit", "2"), ("cursor", &first)]).await.status, 200, "the one that was given out is good");
        for fine in ["users", "audit_events", "password_credentials"] {
            assert!(app.count(Box::leak(format!("SELECT COUNT(*) FROM {fine}").into_boxed_str())).await > 0, "{fine}");
        }
        // Not yet: search, sort and filter of the administration, tenants.
    }
}

/// A query with every byte that means something escaped.
fn encode(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        text.bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect::<String>()
    };
    pairs
        .iter()
        .map(
            |(name, value)| {
                if value.is_empty() { escape(name) } else { format!("{}={}", escape(name), escape(value)) }
            },
        )
        .collect::<Vec<_>>()
        .join("&")
}
