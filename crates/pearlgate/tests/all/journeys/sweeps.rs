//! Sweeping takes what is over, and nothing that somebody is renewing at that moment.

use std::time::Duration;

use serde_json::json;

use super::steps::{by_code, forgot, reset, send_as};
use crate::support::{Engine, PASSWORD, TestApp};

const DAY: Duration = Duration::from_secs(24 * 3600);
const SWEPT: &str = "SELECT created_at FROM jobs WHERE kind = 'maintenance.sweep'";

/// The sweep that is due now has come and gone: the next one was made.
async fn swept(app: &TestApp) {
    let now = app.clock.now().micros();
    app.until("the sweep is done", || async { app.count(SWEPT).await >= now }).await;
}

async fn left(app: &TestApp) -> [i64; 5] {
    [
        app.count("SELECT COUNT(*) FROM password_reset_tokens").await,
        app.count("SELECT COUNT(*) FROM magic_link_tokens").await,
        app.count("SELECT COUNT(*) FROM email_change_tokens").await,
        app.count("SELECT COUNT(*) FROM sessions").await,
        app.count("SELECT COUNT(*) FROM users").await,
    ]
}

/// Ada has one open secret of each kind and a session; Eve registered and never came back.
async fn stale(app: &TestApp) {
    let ada = app.person("ada@example.com").await;
    let body = json!({ "email": "ada@example.net" });
    assert_eq!(send_as(app, reqwest::Method::POST, "/v1/me/email", &ada.access, body).await.status, 202);
    app.mail("ada@example.net", "email_change", 1).await;
    assert_eq!(app.post("/v1/auth/magic-link", json!({ "email": ada.email })).await.status, 202);
    app.mail(&ada.email, "magic_link", 1).await;
    forgot(app, &ada.email, 1).await;
    app.register("eve@example.com").await;
    app.mail("eve@example.com", "verify_email", 1).await;
    app.quiet().await;
    assert_eq!(left(app).await, [1, 1, 1, 1, 2]);
}

crate::both! {
    async fn what_is_over_is_swept_away(app: &TestApp) {
        stale(app).await;
        app.clock.advance(DAY * 40);
        swept(app).await;
        assert_eq!(left(app).await, [0, 0, 0, 0, 1]);
    }
}

/// On PostgreSQL a statement that waited for a lock goes on with what it saw before it waited: a sweep that did so
/// took away a reset that was asked for a moment before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_renewed_while_it_is_swept_is_spared() {
    let app = TestApp::start(Engine::Postgres).await;
    stale(&app).await;
    let url = app.database_url().unwrap().to_owned();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (locked, has_locked) = tokio::sync::oneshot::channel();
    let renewal = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        let mut renewal = client.transaction().unwrap();
        let tables = ["password_reset_tokens", "magic_link_tokens", "email_change_tokens", "refresh_tokens"];
        let renew =
            tables.map(|table| format!("UPDATE {table} SET expires_at = expires_at + 5000000000000;"));
        renewal.batch_execute(&renew.concat()).unwrap();
        let prove = "SELECT id FROM users FOR UPDATE; INSERT INTO verified_emails (user_id, verified_at) SELECT id, 1 FROM users ON CONFLICT DO NOTHING";
        renewal.batch_execute(prove).unwrap();
        locked.send(()).unwrap();
        wait.recv().unwrap();
        renewal.commit().unwrap();
    });
    has_locked.await.unwrap();
    app.clock.advance(DAY * 40);
    swept(&app).await;
    go.send(()).unwrap();
    renewal.join().unwrap();
    assert_eq!(left(&app).await, [1, 1, 1, 1, 2]);
    // And what was spared works.
    let mail = app.mail("ada@example.com", "password_reset", 1).await;
    assert_eq!(reset(&app, by_code(&mail, &format!("{PASSWORD} anew"))).await.status, 200);
    app.finish().await;
}
