//! A stranger learns nothing from how much is done for them.

use serde_json::{Value, json};

use crate::both;
use crate::support::{PASSWORD, TestApp};

/// bcrypt, cost 4, of the tests' password; made with crypt(3).
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuufP0QE2gFf2dxRq0RzbuhyFmV4rE/Izy";

/// What a request made the database do, and what it answered.
async fn seen(app: &TestApp, path: &str, body: Value) -> (String, String, Vec<Vec<&'static str>>) {
    app.quiet().await;
    app.app.db.observed();
    let answer = app.post(path, body).await;
    let text = if answer.json["request_id"].is_string() {
        answer.json["code"].to_string()
    } else {
        answer.text.clone()
    };
    // What the server does by itself meanwhile is not the request's.
    let own = ["NEXT_LANE", "KEYS", "NOTE", "COUNT"];
    let by_itself = |work: &Vec<&str>| !work.is_empty() && work.iter().all(|name| own.contains(name));
    let work = app.app.db.observed().into_iter().filter(|statements| !by_itself(statements));
    (answer.refusal(), text, work.collect())
}

both! {
    async fn a_wrong_password_costs_the_same_whosever_it_is(app: &TestApp) {
        for name in ["known", "passwordless", "suspended", "demanded", "pending"] {
            app.person(&format!("{name}@example.com")).await;
        }
        app.register("unproven@example.com").await;
        app.mail("unproven@example.com", "verify_email", 1).await;
        let of = |name: &str| format!("(SELECT user_id FROM user_emails WHERE address_key = '{name}@example.com')");
        app.sql(&format!("DELETE FROM password_credentials WHERE user_id = {}", of("passwordless"))).await;
        app.sql(&format!("INSERT INTO suspensions (user_id, reason, suspended_at) SELECT user_id, 'x', 1 FROM user_emails WHERE user_id = {}", of("suspended"))).await;
        app.sql(&format!("INSERT INTO password_change_demands (user_id, reason, demanded_at) SELECT user_id, 'x', 1 FROM user_emails WHERE user_id = {}", of("demanded"))).await;
        app.sql(&format!("INSERT INTO pending_breach_checks (user_id, since) SELECT user_id, 1 FROM user_emails WHERE user_id = {}", of("pending"))).await;
        app.app.db.observe();
        let login = |name: &str| json!({ "email": format!("{name}@example.com"), "password": "not the right one" });
        let (refusal, _, work) = seen(app, "/v1/auth/login", login("unknown")).await;
        assert_eq!(refusal, "401 invalid_credentials");
        assert!(work.iter().flatten().any(|name| *name == "DETAILS"), "nothing was observed: {work:?}");
        for name in ["known", "passwordless", "suspended", "demanded", "pending", "unproven"] {
            let (same, _, as_much) = seen(app, "/v1/auth/login", login(name)).await;
            assert_eq!((same, as_much), (refusal.clone(), work.clone()), "{name}");
        }
        // And the hash: nobody's is checked against a dummy of the same cost.
        let known = app.login("known@example.com", PASSWORD).await;
        assert_eq!(known.status, 200, "{}", known.text);
        let dummy = app.app.hashes.work(None);
        assert!(dummy.starts_with("argon2id m=64 t=1 p=1"), "{dummy}");
        let stored: &str = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(app.app.hashes.work(Some(stored)), dummy);
    }
}

both! {
    async fn while_somebody_has_another_systems_hash_every_refusal_waits_for_the_slowest(app: &TestApp) {
        app.person("ada@example.com").await;
        assert!(app.app.hashes.held_back().is_zero());
        let ada = "user_id = (SELECT user_id FROM user_emails WHERE address_key = 'ada@example.com')";
        app.sql(&format!("UPDATE password_credentials SET password_hash = '{BCRYPT}' WHERE {ada}")).await;
        app.sql(&format!("INSERT INTO foreign_hashes (user_id, scheme) SELECT user_id, 'bcrypt:4' FROM user_emails WHERE {ada}")).await;
        assert_eq!(app.app.hashes.work(Some(BCRYPT)), "bcrypt:4");
        pearlgate::passwords::learn_foreign(&app.app).await.unwrap();
        assert!(!app.app.hashes.held_back().is_zero(), "measured before anybody is refused");
        assert_eq!(app.login("ada@example.com", "not the right one").await.refusal(), "401 invalid_credentials");
        assert_eq!(app.login("nobody@example.com", "not the right one").await.refusal(), "401 invalid_credentials");
        assert_eq!(app.login("ada@example.com", PASSWORD).await.status, 200);
        assert_eq!(app.count("SELECT COUNT(*) FROM foreign_hashes").await, 0, "replaced");
        pearlgate::passwords::learn_foreign(&app.app).await.unwrap();
        assert!(app.app.hashes.held_back().is_zero(), "nobody has one any more");
    }
}

both! {
    async fn asking_for_mail_costs_the_same_whether_or_not_there_is_anybody(app: &TestApp) {
        app.person("known@example.com").await;
        app.register("unproven@example.com").await;
        app.mail("unproven@example.com", "verify_email", 1).await;
        app.app.db.observe();
        for path in ["/v1/auth/forgot-password", "/v1/auth/magic-link", "/v1/auth/resend-verification"] {
            let ask = |name: &str| json!({ "email": format!("{name}@example.com") });
            // The request writes one job, whoever it is about; what the job finds is nobody's to measure.
            let request = |work: &[Vec<&'static str>]| work.iter().find(|one| **one != ["TAKE"]).cloned().unwrap_or_default();
            let (refusal, text, work) = seen(app, path, ask("unknown")).await;
            assert_eq!(refusal, "202 -", "{path}");
            assert!(request(&work).contains(&"INSERT"), "{path}: {work:?}");
            for name in ["known", "unproven"] {
                let (same, words, as_much) = seen(app, path, ask(name)).await;
                assert_eq!((same, words.len(), request(&as_much)), (refusal.clone(), text.len(), request(&work)), "{path}: {name}");
            }
        }
        app.quiet().await;
    }
}
