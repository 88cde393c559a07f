//! Limits as an operator meets them: a locked person, a policy that is tried on yesterday, a proxy that nobody declared.

use serde_json::json;

use super::child::{PATIENCE, dev, pearlgate, serve, until};
use crate::support::{Engine, PASSWORD, TestApp};

const WRONG: &str = "not the password at all";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_unlocks_somebody() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let server = dev(dir.path()).start().await;
    server.api.dev_person("ada@example.com").await;
    let unlock = || pearlgate(&["user", "unlock", "ada@example.com", "--data", data]).run();
    assert!(unlock().await.went_well().contains("was not locked"), "nothing is counted against her");
    for n in 0..6 {
        let body = json!({ "email": "ada@example.com", "password": WRONG });
        let expected = if n < 5 { "401 invalid_credentials" } else { "423 account_locked" };
        assert_eq!(server.api.post("/v1/auth/login", body).await.refusal(), expected);
    }
    let told = unlock().await;
    assert!(told.went_well().starts_with("usr_") && told.out.contains("is unlocked"), "{told:?}");
    let login = server.api.login("ada@example.com").await;
    assert_eq!(login.status, 200, "{}", login.text);
    let history = server.api.get_as("/v1/me/activity", &login.str("/access_token")).await.text;
    assert!(history.contains("account_unlocked"), "{history}");
    pearlgate(&["user", "unlock", "nobody@example.com", "--data", data]).run().await.refused(&[
        "nobody called",
        "nobody@example.com",
        "usr_",
    ]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_tried_on_the_sign_ins_that_came() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let policy = dir.path().join("new.toml");
    let simulate = |since: &'static str| {
        pearlgate(&[
            "limits",
            "simulate",
            "--since",
            since,
            "--data",
            data,
            "--policy",
            policy.to_str().unwrap(),
        ])
    };
    std::fs::write(&policy, "[limits.sign_in_network]\ncount = 4\n[lockout]\nafter = 3\n").unwrap();
    simulate("7d").run().await.refused(&["there is no database"]);

    let server = dev(dir.path()).start().await;
    let ada = server.api.dev_person("ada@example.com").await;
    assert!(simulate("7d").run().await.went_well().contains("nothing to replay"));
    let login = |email: &str, password: &str, device: Option<String>| {
        let mut body = json!({ "email": email, "password": password });
        if let Some(device) = device {
            body["device_token"] = device.into();
        }
        server.api.post("/v1/auth/login", body)
    };
    // Four wrong ones at an address that nobody has, then Ada: on her device, and on another.
    for _ in 0..4 {
        assert_eq!(login("nobody@example.com", WRONG, None).await.status, 401);
    }
    assert_eq!(login("ada@example.com", PASSWORD, Some(ada.str("/device_token"))).await.status, 200);
    assert_eq!(login("ada@example.com", PASSWORD, None).await.status, 200);
    let all = "6 sign-ins by password in the last 7d: 2 with the right password, 4 with a wrong one, 0 that were turned away";
    let report = until("they are written down", PATIENCE, || async {
        let out = simulate("7d").run().await.went_well().to_owned();
        out.contains(all).then_some(out)
    })
    .await;
    let row = |name: &str| {
        let line = report.lines().find(|line| line.starts_with(name) && !line.contains(',')).unwrap();
        line.split_whitespace().skip(1).map(|n| n.parse::<u64>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(row("sign_in_network"), [2, 2, 0, 1, 1], "{report}");
    assert_eq!(row("sign_in "), [0, 0, 0, 0, 0], "{report}");
    assert_eq!(row("lockout"), [1, 0, 0, 1, 1], "the fourth wrong one: {report}");
    assert!(report.contains("2 sign-ins with the right password would have been stopped."), "{report}");
    assert!(report.contains(&ada.str("/user/id")) && report.contains("127.0.0.1/32"), "{report}");
    assert!(!report.contains("example.com"), "nobody's address is in it: {report}");

    std::fs::write(&policy, "[limits.sign_in_network]\ncount = 0\n").unwrap();
    simulate("7d").run().await.refused(&["new.toml", "limits.sign_in_network.count"]);
    simulate("yesterday").run().await.refused(&["--since", "7d"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_nobody_declared_is_cried_out() {
    let dir = tempfile::tempdir().unwrap();
    for cried in [true, false] {
        let server = match cried {
            true => serve(dir.path()).start().await,
            false => serve(dir.path()).set("server.trusted_proxies", "127.0.0.1").start().await,
        };
        for n in 0..450 {
            let from = format!("192.0.2.{}", n % 100);
            let request = server
                .api
                .request(reqwest::Method::GET, "/.well-known/jwks.json")
                .header("x-forwarded-for", from);
            assert_eq!(server.api.send(request).await.status, 200);
        }
        if cried {
            let line = server.err.with("server.trusted_proxies").await;
            assert!(
                line.contains("ERROR") && line.contains("127.0.0.1") && line.contains("ONE ADDRESS"),
                "{line}"
            );
        }
        let times = server.err.all().iter().filter(|line| line.contains("ONE ADDRESS")).count();
        assert_eq!(times, usize::from(cried), "once an hour is enough");
        server.stop().await;
    }
}

/// What a stranger's refused request leaves behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_leave_behind_is_bounded() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let more = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[limits.history]\nper_day = 50\n[limits.sign_in_network]\ncount = 1000000\nper = \"1s\"";
        let app = TestApp::with(engine, true, more).await;
        let ada = app.person("ada@example.com").await;
        for _ in 0..5 {
            app.login(&ada.email, WRONG).await;
        }
        app.quiet().await;
        let sizes = || async {
            let mut all = Vec::new();
            for table in
                ["audit_events", "password_guesses", "mails_asked", "jobs", "unlock_tokens", "devices"]
            {
                let sql: &'static str = Box::leak(format!("SELECT COUNT(*) FROM {table}").into_boxed_str());
                all.push((table, app.count(sql).await));
            }
            all
        };
        let before = sizes().await;
        // Locked: three hundred more, from three hundred places, with a token of nobody's.
        for n in 0..300 {
            let body = json!({ "email": ada.email, "password": WRONG, "device_token": format!("pgd_{n}") });
            let place = format!("10.0.{}.{}", n / 200, n % 200);
            let request =
                app.request(reqwest::Method::POST, "/v1/auth/login").header("x-forwarded-for", place);
            assert_eq!(app.send(request.json(&body)).await.refusal(), "423 account_locked");
        }
        app.quiet().await;
        assert_eq!(sizes().await, before, "a refused guess leaves no row behind");
        // A network is a row for as long as something counts against it, where several servers share them.
        let counters = || async { app.count("SELECT COUNT(*) FROM limits").await };
        assert!(counters().await <= if engine == Engine::Sqlite { 5 } else { 310 });
        let written = || async { app.count("SELECT COUNT(*) FROM sign_in_attempts").await };
        app.until("fifty are written down", || async { written().await >= 50 }).await;
        assert_eq!(written().await, 50, "and no more than the settings say");
        app.clock.advance(std::time::Duration::from_secs(8 * 86_400));
        app.until("they are swept", || async { written().await == 0 && counters().await == 0 }).await;
        app.finish().await;
    }
}
