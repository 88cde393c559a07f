use reqwest::Method;
use serde_json::json;

use super::support::{OTHER, ask, clean, post, token_of};
use crate::both;
use crate::support::{Engine, PASSWORD, TestApp, filled};

/// Texts that are too long for a password and fit into a body.
fn too_long() -> Vec<String> {
    let mut out: Vec<String> = [1_025, 2_048, 16_384, 60_000].map(|length| "p".repeat(length)).into();
    // Few letters, many bytes; letters that grow when they are normalised; marks that have to be sorted.
    out.extend([
        "\u{301}".repeat(600),
        format!("a{}", "\u{301}\u{323}".repeat(10_000)),
        "\u{fdfa}".repeat(342),
        "\u{fdfa}".repeat(20_000),
        "🦀".repeat(257),
        format!("{}p", "\u{345}\u{59a}".repeat(256)),
    ]);
    out.push(format!("{PASSWORD}{}", " ".repeat(1_025 - PASSWORD.len())));
    out
}

both! {
    async fn a54_cve_2013_1443_long_password_dos(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        post(app, "/v1/auth/register", &json!({ "email": "eve@ex.test", "password": OTHER })).await;
        let token = token_of(&app.mail("eve@ex.test", "verify_email", 1).await.links[0]);
        app.quiet().await;
        let events = app.count("SELECT COUNT(*) FROM audit_events").await;
        let bodies = |password: &str| [
            ("/v1/auth/register", json!({ "email": "new@ex.test", "password": password })),
            ("/v1/auth/register", json!({ "email": ada.email, "password": password })),
            ("/v1/auth/login", json!({ "email": ada.email, "password": password })),
            ("/v1/auth/login", json!({ "email": "nobody@ex.test", "password": password })),
            ("/v1/auth/verify-email", json!({ "token": token, "password": password })),
            ("/v1/auth/verify-email", json!({ "token": "pgv_x", "password": password })),
        ];
        // Refused before anything is looked up: without the tables it makes no difference.
        app.sql("ALTER TABLE user_emails RENAME TO hidden_emails").await;
        app.sql("ALTER TABLE email_verification_tokens RENAME TO hidden_tokens").await;
        for password in too_long() {
            for (path, body) in bodies(&password) {
                let refused = post(app, path, &body).await;
                assert_eq!((refused.refusal().as_str(), refused.fields()), ("422 validation_failed", vec!["password:password_too_long".to_owned()]), "{path}");
                assert!(refused.text.len() < 1_000, "the answer repeats the password");
            }
        }
        for megabytes in [1, 8] {
            for (path, body) in bodies(&"p".repeat(megabytes << 20)) {
                let refused = huge(app, path, body.to_string()).await;
                assert!(refused.is_none_or(|status| status == 413), "{path} {megabytes} MiB: {refused:?}");
            }
        }
        let trap = app.login(&ada.email, PASSWORD).await;
        assert!(trap.status >= 500, "the tables are hidden, so whatever looks into them fails: {}", trap.status);
        app.sql("ALTER TABLE hidden_emails RENAME TO user_emails").await;
        app.sql("ALTER TABLE hidden_tokens RENAME TO email_verification_tokens").await;
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events").await, events, "nothing was tried, so nothing is written down");
        assert_eq!(app.count("SELECT COUNT(*) FROM email_verification_tokens").await, 1, "and nothing is used up");

        // The form behind the mailed link has the same door.
        let opened = ask(app, app.request(Method::GET, &format!("/verify-email?token={token}"))).await;
        let cookie = opened.header("set-cookie").split(';').next().unwrap().to_owned();
        for password in too_long().into_iter().filter(|password| password.is_ascii()) {
            let request = app.request(Method::POST, "/verify-email").header("cookie", &cookie).header("sec-fetch-site", "same-origin");
            let request = request.header("content-type", "application/x-www-form-urlencoded").body(filled(&cookie, &password));
            assert_eq!(ask(app, request).await.status, 422);
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM email_verification_tokens").await, 1);

        // The longest that fit are taken, also when they grow eighteenfold, and are told from their neighbours.
        for (n, longest) in [("p", 998), ("\u{fdfa}", 332), ("a\u{345}\u{59a}\u{301}", 142)].iter().map(|(part, times)| format!("{PASSWORD}{}", part.repeat(*times))).enumerate() {
            let email = format!("long{n}@ex.test");
            assert_eq!(post(app, "/v1/auth/register", &json!({ "email": email, "password": longest })).await.status, 202);
            assert_eq!(app.login(&email, &longest).await.refusal(), "403 email_not_verified", "it is the right one");
            let cut: String = longest.chars().take(longest.chars().count() - 1).collect();
            assert_eq!(app.login(&email, &cut).await.refusal(), "401 invalid_credentials", "nothing is cut");
            app.mail(&email, "verify_email", 1).await;
        }
        if app.engine == Engine::Sqlite {
            nothing_is_hashed().await;
        }
        // Not yet: change and reset, and the comparison with the person's own name.
    }
}

/// With the hashing pool full to the brim, whatever needs a hash is turned away, and a long password is not.
async fn nothing_is_hashed() {
    let slow = "[hashing]\nthreads = 1\nqueue = 1\nmemory_kib = 65536\niterations = 24\n[lockout]\nmode = \"off\"\n[limits.sign_in]\nmode = \"off\"";
    let app = TestApp::with(Engine::Sqlite, true, slow).await;
    let (client, url) = (app.client.clone(), format!("{}/v1/auth/login", app.url));
    let filling: Vec<_> = (0..8)
        .map(|n| {
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                loop {
                    let answer = client
                        .post(&url)
                        .json(&json!({ "email": format!("x{n}@ex.test"), "password": PASSWORD }))
                        .send()
                        .await;
                    assert!(matches!(answer.unwrap().status().as_u16(), 401 | 503));
                }
            })
        })
        .collect();
    let full = || async { app.login("x@ex.test", PASSWORD).await.refusal() == "503 overloaded" };
    for path in ["/v1/auth/login", "/v1/auth/register"] {
        // Between two that were turned away: the pool was full when the long one came.
        app.until("a long password met a full pool", || async {
            let before = full().await;
            let refused =
                app.post(path, json!({ "email": "x@ex.test", "password": "p".repeat(1_025) })).await;
            assert_eq!(
                refused.refusal(),
                "422 validation_failed",
                "{path}: a long password waits for the pool"
            );
            before && full().await
        })
        .await;
    }
    filling.iter().for_each(tokio::task::JoinHandle::abort);
    app.finish().await;
}

/// The status for a body beyond all bounds; none when the server hung up on the sender, which it may.
async fn huge(app: &TestApp, path: &str, body: String) -> Option<u16> {
    let request =
        app.client.post(format!("{}{path}", app.url)).header("content-type", "application/json").body(body);
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    clean("a huge body", status, &answer.text().await.unwrap_or_default());
    Some(status)
}
