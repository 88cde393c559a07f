//! Dev mode opens doors for whoever develops; nowhere else do they exist.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::api::Api;
use super::child::{PATIENCE, dev, serve, until};

/// Every door of dev mode.
fn doors(api: &Api) -> Vec<(&'static str, reqwest::RequestBuilder)> {
    let get = |path: &'static str| (path, api.request(Method::GET, path));
    vec![
        get("/"),
        get("/dev/mailbox"),
        get("/dev/v1/messages"),
        ("/dev/v1/clock", api.request(Method::POST, "/dev/v1/clock").json(&json!({ "advance": "1s" }))),
        (
            "/dev/v1/faults/mail.primary",
            api.request(Method::PUT, "/dev/v1/faults/mail.primary").json(&json!({ "fault": "none" })),
        ),
    ]
}

#[tokio::test]
async fn production_knows_none_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).set("server.internal_listen", "127.0.0.1:0").start().await;
    let internal = server.internal().await;
    let insiders = ["/metrics", "/health/dependencies"];
    let mut closed = doors(&server.api);
    closed.extend(doors(&internal));
    for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
        for path in [
            "/dev",
            "/dev/",
            "/dev/v1",
            "/dev/v1/clock",
            "/dev/v1/faults/mail.primary",
            "/dev/v1/faults/",
            "//dev/mailbox",
            "/dev/mailbox/",
        ] {
            closed.push((path, server.api.request(method.clone(), path)));
        }
    }
    for (path, request) in closed {
        let answer = server.api.send(request).await;
        assert_eq!(answer.refusal(), "404 not_found", "{path}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
    }
    for path in insiders {
        assert_eq!(
            server.api.get(path).await.refusal(),
            "401 not_authenticated",
            "for keys that may: {path}"
        );
    }
    let metrics = internal.get("/metrics").await;
    assert_eq!(
        (metrics.status, metrics.text.contains("http_requests_total")),
        (200, true),
        "{}",
        metrics.text
    );
    let dependencies = internal.get("/health/dependencies").await;
    assert_eq!((dependencies.status, dependencies.str("/items/0/name").as_str()), (200, "mail.primary"));
    for outside in ["/v1/auth/login", "/docs", "/verify-email"] {
        assert_eq!(
            internal.get(outside).await.status,
            404,
            "the internal listener is no second way in: {outside}"
        );
    }
    for health in ["/health/live", "/health/ready"] {
        assert_eq!((server.api.get(health).await.status, internal.get(health).await.status), (200, 200));
    }
    server.stop().await;
}

#[tokio::test]
async fn without_an_internal_listener_nobody_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        serve(dir.path()).set("server.internal_listen", "").set("docs.enabled", "false").start().await;
    for path in ["/metrics", "/health/dependencies"] {
        assert_eq!(
            server.api.get(path).await.refusal(),
            "401 not_authenticated",
            "for keys that may: {path}"
        );
    }
    assert_eq!(server.api.get("/docs").await.refusal(), "404 not_found");
    assert!(!server.err.all().iter().any(|line| line.contains("internal listener")));
    server.stop().await;
}

#[tokio::test]
async fn dev_mode_opens_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).start().await;
    for (path, request) in doors(&server.api) {
        let status = server.api.send(request).await.status;
        assert!(matches!(status, 200 | 204 | 303), "{path} answered {status}");
    }
    for path in ["/metrics", "/health/dependencies", "/docs", "/openapi.json"] {
        assert_eq!(server.api.get(path).await.status, 200, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_moved_clock_makes_tokens_expire() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).start().await;
    let ada = server.api.dev_person("ada@example.com").await;
    let access = ada.str("/access_token");
    let before = server.api.post("/dev/v1/clock", json!({ "advance": "9m" })).await;
    assert_eq!(server.api.get_as("/v1/me", &access).await.status, 200);
    let after = server.api.post("/dev/v1/clock", json!({ "advance": "2m" })).await;
    assert!(after.str("/now") > before.str("/now"));
    assert_eq!(server.api.get_as("/v1/me", &access).await.refusal(), "401 token_expired");
    let refreshed = server.api.refresh(&ada.str("/refresh_token")).await;
    assert_eq!(server.api.get_as("/v1/me", &refreshed.str("/access_token")).await.status, 200);
    server.api.post("/dev/v1/clock", json!({ "advance": "31d" })).await;
    assert_eq!(server.api.refresh(&refreshed.str("/refresh_token")).await.str("/reason"), "idle");
    for nonsense in
        [json!({ "advance": "soon" }), json!({ "advance": "-1h" }), json!({}), json!({ "advance": 5 })]
    {
        assert_eq!(server.api.post("/dev/v1/clock", nonsense).await.refusal(), "422 validation_failed");
    }
    server.stop().await;
}

/// Mail is broken in one way; somebody registers, and the mail arrives when it is mended.
async fn breaks(fault: &'static str) {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).start().await;
    let switch =
        |fault: &'static str| server.api.put("/dev/v1/faults/mail.primary", json!({ "fault": fault }));
    assert_eq!(switch(fault).await.status, 204);
    let asked = Instant::now();
    let registered = server.api.register("ada@example.com").await;
    assert_eq!(registered.status, 202, "{fault} is nothing to the person");
    assert!(asked.elapsed() < Duration::from_secs(5), "{fault} is nothing to wait for");
    let state = || async { server.api.get("/health/dependencies").await.str("/items/0/state") };
    // A delivery that takes ten seconds has taken its whole budget; whether it made it is a matter of luck.
    let shows =
        || async { (state().await == "down" || (fault == "slow" && state().await == "up")).then_some(()) };
    until(&format!("{fault} shows"), PATIENCE, shows).await;
    let inbox = || async {
        server.api.get("/dev/v1/messages?to=ada@example.com").await.json["items"].as_array().unwrap().clone()
    };
    assert!(fault == "slow" || fault == "flaky" || inbox().await.is_empty(), "{fault}");

    assert_eq!(switch("none").await.status, 204);
    let mail = until("the mail arrives", PATIENCE, || async {
        server.api.post("/dev/v1/clock", json!({ "advance": "1m" })).await;
        inbox().await.first().cloned()
    });
    let mail = mail.await;
    let verified =
        server.api.verify(&registered.str("/verification_id"), mail["code"].as_str().unwrap()).await;
    assert_eq!(verified.status, 200, "{}", verified.text);
    assert_eq!((state().await.as_str(), inbox().await.len()), ("up", 1), "{fault}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_is_broken_in_any_of_seven_ways_fails_no_registration() {
    let faults = ["down", "hang", "slow", "error", "garbage", "huge", "flaky"];
    let all: Vec<_> = faults.map(|fault| tokio::spawn(breaks(fault))).into();
    for one in all {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn what_does_not_exist_cannot_be_broken() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).start().await;
    for unknown in ["mail.secondary", "database", "mail", "MAIL.PRIMARY"] {
        let answer = server.api.put(&format!("/dev/v1/faults/{unknown}"), json!({ "fault": "down" })).await;
        assert_eq!(answer.refusal(), "404 not_found", "{unknown}");
    }
    for unknown in [
        json!({ "fault": "broken" }),
        json!({ "fault": "" }),
        json!({}),
        json!({ "fault": "down", "for": "1m" }),
    ] {
        let answer = server.api.put("/dev/v1/faults/mail.primary", unknown).await;
        assert_eq!(answer.refusal(), "422 validation_failed");
    }
    assert_eq!(
        server.api.get("/health/dependencies").await.str("/items/0/state"),
        "unknown",
        "nothing was asked of it"
    );
    server.stop().await;
}
