//! On PostgreSQL: away at the start, away in the middle, two servers on one, and TLS on the way to it.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::api::{Api, registration};
use super::child::{Call, PATIENCE, Server, pearlgate, serve, until};
use super::cluster::{Cluster, ask};
use super::smtp::SmtpServer;
use crate::support::{Answer, PostgresDatabase, environment};

/// "In under a second": how long it takes is measured by `pearlgate drill`. Here a machine does other things too, and
/// whoever waits for a database that is away waits longer than this.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);
/// "First success within 2 s", measured by the drill too.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// "Pool wait 1 s, statement 5 s", and a little.
const FROZEN_WITHIN: Duration = Duration::from_secs(9);

fn on(url: &str, data: &Path) -> Call {
    // Stories about the database, told by one address in a hurry.
    serve(data).set("database.url", url).set("limits.registration_network.mode", "off")
}

fn unavailable(answer: &Answer, asked: Instant) {
    assert_eq!(answer.refusal(), "503 dependency_unavailable", "{}", answer.text);
    let wait: u64 = answer.header("retry-after").parse().expect("a 503 says when to come back");
    assert!((1..=10).contains(&wait));
    assert_eq!(answer.json["retry_after"], wait);
    assert!(
        !answer.text.contains("postgres") && !answer.text.contains("127.0.0.1"),
        "no word of what is behind: {}",
        answer.text
    );
    assert!(asked.elapsed() < REFUSED_WITHIN, "refused only after {:?}", asked.elapsed());
}

/// Without its database the server refuses quickly what needs it, and goes on with the rest.
async fn away(server: &Server) {
    for _ in 0..3 {
        let asked = Instant::now();
        unavailable(&server.api.register("somebody@example.com").await, asked);
        let asked = Instant::now();
        unavailable(&server.api.login("somebody@example.com").await, asked);
        let asked = Instant::now();
        unavailable(&server.api.get("/health/ready").await, asked);
        assert_eq!(server.api.get("/health/live").await.status, 200);
    }
}

async fn back(server: &Server) {
    let working = || async { (server.api.get("/health/ready").await.status == 200).then_some(()) };
    until("it works again", BACK_WITHIN, working).await;
    let someone = format!("back-{}@example.com", server.port);
    let working = || async { (server.api.register(&someone).await.status == 202).then_some(()) };
    until("it writes again", BACK_WITHIN, working).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_waits_for_its_database_and_begins_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::away();
    let server = on(&cluster.url(), dir.path()).listening().await;
    away(&server).await;
    assert_eq!(server.api.get("/.well-known/jwks.json").await.status, 503, "there is no key yet");
    let all = server.out.all();
    assert!(!all.iter().any(|line| line.contains("first operator")), "{all:?}");
    cluster.start().await;
    back(&server).await;
    assert_eq!(server.api.get("/.well-known/jwks.json").await.status, 200);
    // Whoever started it before its database waits for that line too.
    server.out.with("first operator").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_accepts_and_never_answers_at_the_start_is_away_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::away();
    let hole = TcpListener::bind(("127.0.0.1", cluster.port)).unwrap();
    let started = Instant::now();
    let server = on(&cluster.url(), dir.path()).listening().await;
    assert!(started.elapsed() < BACK_WITHIN, "it listened only after {:?}", started.elapsed());
    away(&server).await;
    drop(hole);
    cluster.start().await;
    back(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_freezes_in_the_middle_is_away_until_it_thaws() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::away();
    cluster.start().await;
    // More requests than connections: some find theirs frozen, some find none.
    let server = on(&cluster.url(), dir.path()).set("database.connections", "4").start().await;
    back(&server).await;
    cluster.freeze();
    let asking: JoinSet<(Answer, Duration)> = (0..12).map(|n| ask_once(server.api.clone(), n)).collect();
    assert_eq!(server.api.get("/health/live").await.status, 200);
    for (answer, took) in asking.join_all().await {
        assert_eq!(answer.refusal(), "503 dependency_unavailable", "{}", answer.text);
        assert!(took < FROZEN_WITHIN, "refused only after {took:?}");
    }
    cluster.thaw();
    back(&server).await;
    server.stop().await;
}

async fn ask_once(api: Api, number: usize) -> (Answer, Duration) {
    let asked = Instant::now();
    (api.register(&format!("frozen-{number}@example.com")).await, asked.elapsed())
}

#[tokio::test]
async fn a_server_that_waits_for_its_database_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::away();
    let server = on(&cluster.url(), dir.path()).listening().await;
    server.stop().await;
}

/// Registers until told to stop; gives those who were acknowledged.
async fn register(api: Api, name: usize, over: Arc<Mutex<bool>>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if *over.lock().unwrap() {
            break;
        }
        let email = format!("c{name}-{number}@example.com");
        let answer = api
            .try_post("/v1/auth/register", &registration(&email))
            .await
            .expect("every request is answered");
        match answer.status {
            202 => acknowledged.push(email),
            _ => assert_eq!(answer.refusal(), "503 dependency_unavailable", "{}", answer.text),
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashes_and_returns_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::away();
    cluster.start().await;
    let server = on(&cluster.url(), dir.path()).start().await;
    back(&server).await;
    let keys = server.api.get("/.well-known/jwks.json").await.text;
    let over = Arc::new(Mutex::new(false));
    let mut clients: JoinSet<Vec<String>> =
        (0..4).map(|name| register(server.api.clone(), name, over.clone())).collect();
    let people = |least: i64| {
        let url = cluster.url();
        async move { ask(&url, "SELECT COUNT(*) FROM users").ok().filter(|count| *count >= least) }
    };
    let before = until("people register", PATIENCE, || people(50)).await;
    cluster.crash().await;
    away(&server).await;
    assert_eq!(
        server.api.get("/.well-known/jwks.json").await.text,
        keys,
        "tokens can be verified all the time"
    );
    cluster.start().await;
    back(&server).await;
    let url = cluster.url();
    let more =
        || async { ask(&url, "SELECT COUNT(*) FROM users").ok().filter(|count| *count >= before + 50) };
    until("people register again", PATIENCE, more).await;
    *over.lock().unwrap() = true;
    // What was being stored when the database went away is tried again when its lease is over.
    let stored = || async {
        let waiting = "SELECT COUNT(*) FROM jobs WHERE kind = 'registration.register'";
        ask(&url, waiting).ok().filter(|waiting| *waiting == 0)
    };
    until("all that was acknowledged is stored", 3 * PATIENCE, stored).await;
    while let Some(acknowledged) = clients.join_next().await {
        for email in acknowledged.unwrap() {
            assert_eq!(
                server.api.login(&email).await.refusal(),
                "403 email_not_verified",
                "{email} was acknowledged"
            );
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_database_are_one_service() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = PostgresDatabase::create().await;
    let smtp = SmtpServer::start(&[]).await;
    // Both bring the schema and the keys, at the same time.
    let call = |data: &Path| SmtpServer::tell(smtp.port, on(&database.url, data)).start();
    let (one, other) = tokio::join!(call(one.path()), call(other.path()));
    for path in ["/.well-known/jwks.json", "/.well-known/openid-configuration"] {
        assert_eq!(one.api.get(path).await.text, other.api.get(path).await.text);
    }
    for number in 0..20 {
        let api = if number % 2 == 0 { &one.api } else { &other.api };
        assert_eq!(api.register(&format!("p{number}@example.com")).await.status, 202);
    }
    let verification = one.api.register("ada@example.com").await.str("/verification_id");
    let code = smtp.message_to("ada@example.com", 1).await.code();
    let ada = other.api.verify(&verification, &code).await;
    assert_eq!(one.api.get_as("/v1/me", &ada.str("/access_token")).await.status, 200);
    let refreshed = one.api.refresh(&ada.str("/refresh_token")).await;
    assert_eq!(
        other.api.refresh(&ada.str("/refresh_token")).await.str("/refresh_token"),
        refreshed.str("/refresh_token")
    );
    assert_eq!(
        one.api
            .post("/v1/auth/logout", json!({ "refresh_token": refreshed.str("/refresh_token") }))
            .await
            .status,
        204
    );
    assert_eq!(
        other.api.get_as("/v1/me", &refreshed.str("/access_token")).await.str("/reason"),
        "logged_out"
    );
    for number in 0..20 {
        smtp.message_to(&format!("p{number}@example.com"), 1).await;
    }
    one.stop().await;
    assert_eq!(other.api.login("ada@example.com").await.status, 200, "one goes, the other stays");
    other.stop().await;
    let again = smtp.messages().iter().filter(|mail| mail.link().contains("/verify-email")).count();
    assert_eq!(again, 21, "no mail twice");
    database.drop().await;
}

#[tokio::test]
async fn the_way_to_the_database_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let database = PostgresDatabase::create().await;
    let url = format!("{}?sslmode=verify-full", database.url.replace("127.0.0.1", "localhost"));
    let server =
        on(&url, dir.path()).set("database.ca_file", &environment("PEARLGATE_TEST_CA")).start().await;
    back(&server).await;
    let connections = "FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE a.datname = current_database() AND a.application_name = 'pearlgate'";
    assert!(ask(&database.url, &format!("SELECT COUNT(*) {connections} AND s.ssl")).unwrap() > 0);
    assert_eq!(ask(&database.url, &format!("SELECT COUNT(*) {connections} AND NOT s.ssl")).unwrap(), 0);
    server.stop().await;

    let stranger = on(&url, dir.path()).listening().await;
    stranger.err.with("certificate").await;
    assert_eq!(stranger.api.get("/health/ready").await.status, 503);
    assert_eq!(
        ask(&database.url, &format!("SELECT COUNT(*) {connections}")).unwrap(),
        0,
        "neither protected nor plain"
    );
    stranger.stop().await;
    pearlgate(&["migrate"]).set("database.url", &url).run().await.refused(&["certificate"]);
    database.drop().await;
}

#[tokio::test]
async fn an_address_that_would_fall_back_to_plain_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for mode in ["prefer", "allow", "perhaps"] {
        let refused =
            on(&format!("postgres://ada:lovelace@db.example.com/x?sslmode={mode}"), dir.path()).run().await;
        refused.refused(&[&format!("sslmode={mode}"), "database.url", "verify-full", "plain text"]);
        assert!(!refused.err.contains("lovelace"), "{}", refused.err);
        assert!(
            !refused.err.contains("the database refused a statement"),
            "nobody asked it: {}",
            refused.err
        );
    }
    for nonsense in
        ["mysql://ada:lovelace@db.example.com/x", "postgres://ada:lovelace@db.example.com:port/x", "nonsense"]
    {
        let refused = on(nonsense, dir.path()).run().await;
        refused.refused(&["database.url", "PostgreSQL address"]);
        assert!(!refused.err.contains("lovelace"), "{}", refused.err);
    }
    let nowhere = on("postgres://ada@db.example.com/x", dir.path())
        .set("database.ca_file", "/nowhere/ca.pem")
        .run()
        .await;
    nowhere.refused(&["database.ca_file", "/nowhere/ca.pem"]);
}
