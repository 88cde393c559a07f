//! The drill: its short form passes, and it finds a server that does not keep what is promised.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::api::Api;
use super::child::{dev, pearlgate, serve};
use crate::support::environment;

/// The short form takes less than a minute of a machine that does nothing else.
const LONG: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_short_form_passes() {
    let path = environment("PATH");
    let done = pearlgate(&["drill", "--short", "--json"]).env("PATH", &path).run_within(LONG).await;
    let report: Value = serde_json::from_str(&done.out).unwrap_or_else(|_| panic!("{done:?}"));
    assert_eq!((report["passed"].as_bool(), done.status.code()), (Some(true), Some(0)), "{done:?}");

    let rows = report["faults"].as_array().unwrap();
    for dependency in ["mail.primary", "breach", "oauth.dev"] {
        assert_eq!(rows.iter().filter(|row| row["dependency"] == dependency).count(), 2, "{report}");
    }
    assert!(rows.iter().any(|row| row["fault"] == "hang"), "{report}");
    let down = |row: &&Value| row["dependency"] == "oauth.dev" && row["fault"] == "down";
    let provider = rows.iter().find(down).unwrap();
    assert!(provider["declared"].as_u64() > Some(0), "whoever needs it is told: {provider}");
    for row in rows {
        assert!(row["requests"].as_u64() > Some(20) && row["recovered_ms"].as_f64() > Some(0.0), "{row}");
    }

    let crowd = &report["crowd"];
    assert_eq!((crowd["people"].as_u64(), crowd["good"].as_u64()), (Some(200), Some(200)), "{crowd}");
    let phases = crowd["phases"].as_array().unwrap();
    assert_eq!(phases.len(), 3);
    for phase in phases {
        assert!(phase["requests"].as_u64() > Some(100) && phase["failed"] == 0, "{phase}");
    }
    let database = &report["database"]["done"];
    assert!(database["recovered_ms"].as_f64().is_some_and(|ms| ms <= 3_000.0), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).set("server.trusted_proxies", "127.0.0.1").start().await;
    let url = brittle(&server.url).await;
    let done = pearlgate(&["drill", "--short", "--skip-database", "--people", "5", "--url", &url]);
    let done = done.run_within(LONG).await;
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    for words in ["mail.primary", "log in: answered 500", "left alone", "5 of 5 sessions", "NOT AS DECLARED"]
    {
        assert!(done.out.contains(words), "{words:?} is not in {}", done.out);
    }
    server.stop().await;
}

#[tokio::test]
async fn nothing_but_a_server_in_dev_mode_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).start().await;
    let drill = |url: &str| pearlgate(&["drill", "--short", "--url", url]);
    let refused = drill(&server.url).run().await;
    refused.refused(&["no Pearlgate in dev mode", "serve --dev", "--url"]);
    assert_eq!(refused.status.code(), Some(1));
    let url = server.url.clone();
    server.stop().await;
    drill(&url).run().await.refused(&[&url, "no connection"]);
    for nonsense in ["nonsense", "ftp://localhost", "http://localhost:8080/v1"] {
        let refused = drill(nonsense).run().await;
        refused.refused(&["--url"]);
        assert_eq!(refused.status.code(), Some(2), "{nonsense}");
    }
}

/// A way to a server on which nobody can log in while something is broken.
async fn brittle(to: &str) -> String {
    let (broken, api) = (Arc::new(AtomicBool::new(false)), Api::new(to));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let pass = move |request: Request| pass_on(api.clone(), broken.clone(), request);
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(pass)).await });
    url
}

async fn pass_on(api: Api, broken: Arc<AtomicBool>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let (path, body) = (parts.uri.to_string(), to_bytes(body, 1 << 20).await.unwrap());
    if path.starts_with("/dev/v1/faults/") {
        broken.store(!String::from_utf8_lossy(&body).contains("none"), Ordering::SeqCst);
    }
    if path == "/v1/auth/login" && broken.load(Ordering::SeqCst) {
        return (axum::http::StatusCode::INTERNAL_SERVER_ERROR, "{}").into_response();
    }
    parts.headers.remove("host");
    parts.headers.remove("content-length");
    let Ok(came) = api.request(parts.method, &path).headers(parts.headers).body(body).send().await else {
        return axum::http::StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, mut headers) = (came.status(), came.headers().clone());
    headers.remove("content-length");
    headers.remove("transfer-encoding");
    (status, headers, Body::from(came.bytes().await.unwrap_or_default())).into_response()
}
