use std::time::Duration;

use serde_json::json;

use crate::both;
use crate::support::{Engine, PASSWORD, Person, TestApp, together};

both! {
    async fn a_repeated_refresh_gives_the_same_answer_for_thirty_seconds(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let first = app.refresh(&ada.refresh).await.str("/refresh_token");
        app.clock.advance(Duration::from_secs(30));
        assert_eq!(app.refresh(&ada.refresh).await.str("/refresh_token"), first, "a lost response, a second tab, a retry");
        app.clock.advance(Duration::from_micros(1));
        let other = app.refresh(&ada.refresh).await.str("/refresh_token");
        assert_ne!(other, first, "later, the successor that nobody presented is replaced");
        assert_eq!(app.refresh(&ada.refresh).await.str("/refresh_token"), other, "and the new one is given again");
        let reused = app.refresh(&first).await;
        assert_eq!((reused.refusal().as_str(), reused.str("/reason").as_str()), ("401 session_ended", "refresh_token_reused"));
        app.mail(&ada.email, "refresh_token_reused", 1).await;
    }
}

both! {
    async fn a_refresh_is_one_statement_and_one_round_trip(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.quiet().await;
        app.app.db.observe();
        let next = app.refresh(&ada.refresh).await.str("/refresh_token");
        let own = |work: &Vec<&str>| !work.is_empty() && work.iter().all(|name| ["NEXT_LANE", "KEYS"].contains(name));
        let work: Vec<_> = app.app.db.observed().into_iter().filter(|work| !own(work)).collect();
        assert_eq!(work, [["ROTATE"]]);
        app.get_as("/v1/me", &ada.access).await;
        let work: Vec<_> = app.app.db.observed().into_iter().filter(|work| !own(work)).collect();
        assert_eq!(work, [["LOAD"]], "and so is the check of a session");
        assert_eq!(app.refresh(&next).await.status, 200);
    }
}

both! {
    async fn every_lifetime_ends_at_its_microsecond(app: &TestApp) {
        let last = Duration::from_micros(1);
        let ada = app.person("ada@example.com").await;
        let idle = Person::of(&app.login(&ada.email, PASSWORD).await);
        app.quiet().await;
        app.clock.advance(Duration::from_secs(600) - last);
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200);
        app.clock.advance(last);
        assert_eq!(app.get_as("/v1/me", &ada.access).await.refusal(), "401 token_expired");
        app.clock.advance(Duration::from_secs(30 * 86_400 - 600) - last);
        let mut token = app.refresh(&ada.refresh).await.str("/refresh_token");
        app.clock.advance(last);
        assert_eq!(app.refresh(&idle.refresh).await.str("/reason"), "idle");
        for late in [2 * last, last] {
            app.clock.advance(Duration::from_secs(30 * 86_400) - late);
            token = app.refresh(&token).await.str("/refresh_token");
        }
        app.clock.advance(2 * last);
        let end = app.refresh(&token).await;
        assert_eq!((end.status, end.json["refresh_expires_in"].as_i64()), (200, Some(0)), "the last microsecond of ninety days");
        app.clock.advance(last);
        assert_eq!(app.refresh(&end.str("/refresh_token")).await.str("/reason"), "expired");
    }
}

both! {
    async fn an_old_token_ends_the_session_and_says_so(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let elsewhere = Person::of(&app.login(&ada.email, PASSWORD).await);
        let second = app.refresh(&ada.refresh).await.str("/refresh_token");
        let third = app.refresh(&second).await.str("/refresh_token");
        let replayed = app.refresh(&ada.refresh).await;
        assert_eq!((replayed.refusal().as_str(), replayed.str("/reason").as_str()), ("401 session_ended", "refresh_token_reused"));
        for dead in [&second, &third, &ada.refresh] {
            assert_eq!(app.refresh(dead).await.str("/reason"), "refresh_token_reused");
        }
        assert_eq!(app.get_as("/v1/me", &ada.access).await.str("/reason"), "refresh_token_reused");
        let mail = app.mail(&ada.email, "refresh_token_reused", 1).await;
        assert!(mail.links.is_empty());
        let history = app.get_as("/v1/me/activity?limit=1", &elsewhere.access).await;
        assert_eq!(history.str("/items/0/kind"), "session_ended");
        assert_eq!(history.json["items"][0]["details"], json!({ "session": ada.session, "reason": "refresh_token_reused" }));
        assert_eq!(app.refresh(&elsewhere.refresh).await.status, 200, "the other session is untouched");
        app.quiet().await;
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(None, Some("refresh_token_reused")).len(), 1, "one mail, not one per replay");
    }
}

both! {
    async fn sessions_end_when_they_are_idle_or_old(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let idle = Person::of(&app.login(&ada.email, PASSWORD).await);
        app.quiet().await;
        let mut token = ada.refresh.clone();
        for _ in 0..3 {
            app.clock.advance(Duration::from_secs(29 * 24 * 3600));
            token = app.refresh(&token).await.str("/refresh_token");
        }
        assert_eq!(app.refresh(&idle.refresh).await.str("/reason"), "idle");
        app.clock.advance(Duration::from_secs(3 * 24 * 3600));
        assert_eq!(app.refresh(&token).await.str("/reason"), "expired", "ninety days are the end of any session");
        app.quiet().await;
    }
}

both! {
    async fn a_suspended_person_is_out_at_once_and_told_only_after_the_right_password(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.sql("INSERT INTO suspensions (user_id, reason, suspended_at) SELECT id, 'test', 1 FROM users").await;
        assert_eq!(app.get_as("/v1/me", &ada.access).await.str("/reason"), "suspended");
        assert_eq!(app.refresh(&ada.refresh).await.str("/reason"), "suspended");
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "403 account_suspended");
        assert_eq!(app.login(&ada.email, "not the right password").await.refusal(), "401 invalid_credentials");
    }
}

both! {
    async fn signing_out_answers_204_whatever_is_shown(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        for body in [json!({ "refresh_token": "garbage" }), json!({ "refresh_token": ada.refresh }), json!({ "refresh_token": ada.refresh })] {
            assert_eq!(app.post("/v1/auth/logout", body).await.status, 204);
        }
        assert_eq!(app.send(app.client.post(format!("{}/v1/auth/logout", app.url))).await.status, 204);
        let again = Person::of(&app.login(&ada.email, PASSWORD).await);
        app.clock.advance(Duration::from_secs(3600));
        let late = app.client.post(format!("{}/v1/auth/logout", app.url)).bearer_auth(&again.access);
        assert_eq!(app.send(late).await.status, 204);
        assert_eq!(app.refresh(&again.refresh).await.str("/reason"), "logged_out", "an expired access token still names its session");
    }
}

both! {
    async fn a_known_device_keeps_its_identity(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let first = app.login(&ada.email, PASSWORD).await.str("/device_token");
        let again = app.post("/v1/auth/login", json!({ "email": ada.email, "password": PASSWORD, "device_token": first, "device_name": "Ada's laptop" })).await;
        assert_eq!(again.str("/device_token"), first);
        let other = app.post("/v1/auth/login", json!({ "email": ada.email, "password": PASSWORD, "device_token": "pgd_nonsense" })).await;
        assert_ne!(other.str("/device_token"), first);
        let bad = app.post("/v1/auth/login", json!({ "email": ada.email, "password": PASSWORD, "device_name": "a\nb" })).await;
        assert_eq!(bad.fields(), ["device_name:invalid"]);
    }
}

/// Rounds of a race; `PEARLGATE_RACES` says otherwise.
const ROUNDS: usize = 200;

/// One child per parent, however many requests and processes race.
async fn race(app: &TestApp, ada: Person, urls: &[String]) {
    let rounds = std::env::var("PEARLGATE_RACES")
        .map_or(ROUNDS, |rounds| rounds.parse().expect("PEARLGATE_RACES is a number"));
    let mut token = ada.refresh;
    for _ in 0..rounds {
        // So many in one minute would be too many for one session.
        app.clock.advance(Duration::from_secs(60));
        let mut racing = Vec::new();
        for n in 0..50 {
            let (client, url) = (app.client.clone(), format!("{}/v1/auth/refresh", urls[n % urls.len()]));
            let body = json!({ "refresh_token": token });
            racing.push(tokio::spawn(async move {
                let answer = client.post(url).json(&body).send().await.unwrap();
                (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
            }));
        }
        let mut children = std::collections::HashSet::new();
        for one in racing {
            let (status, body) = one.await.unwrap();
            assert_eq!(status, 200, "{body}");
            children.insert(body["refresh_token"].as_str().unwrap().to_owned());
        }
        assert_eq!(children.len(), 1, "one parent has one child");
        token = children.into_iter().next().unwrap();
    }
    assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 1);
    assert_eq!(app.count("SELECT COUNT(*) FROM ended_sessions").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_get_one_child_on_sqlite() {
    let app = TestApp::start(Engine::Sqlite).await;
    let ada = app.person("ada@example.com").await;
    race(&app, ada, std::slice::from_ref(&app.url)).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_over_two_servers_get_one_child_on_postgres() {
    let app = TestApp::start(Engine::Postgres).await;
    // Before there are two: the other server has a mailbox of its own.
    let ada = app.person("ada@example.com").await;
    app.quiet().await;
    let twin = app.twin().await;
    race(&app, ada, &[app.url.clone(), twin.url.clone()]).await;
    twin.stop().await;
    app.finish().await;
}

both! {
    async fn late_repeats_at_the_same_time_get_one_new_child_too(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        // Time goes on while they race: each would make another child.
        let clock = app.clock.clone();
        let ticking = tokio::spawn(async move {
            loop {
                clock.advance(Duration::from_micros(1));
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        });
        let mut token = ada.refresh;
        for _ in 0..8 {
            app.refresh(&token).await;
            app.clock.advance(Duration::from_secs(60));
            let answers = together((0..8).map(|_| app.refresh(&token)).collect()).await;
            let children: std::collections::HashSet<String> =
                answers.iter().map(|answer| answer.str("/refresh_token")).collect();
            assert_eq!(children.len(), 1, "one parent has one living child");
            token = children.into_iter().next().unwrap();
        }
        ticking.abort();
        assert_eq!(app.count("SELECT COUNT(*) FROM ended_sessions").await, 0);
    }
}

both! {
    async fn after_the_204_nothing_of_the_session_works_however_it_races(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        for _ in 0..10 {
            let session = Person::of(&app.login(&ada.email, PASSWORD).await);
            let calls = (0..7).map(|n| {
                let path = if n == 6 { "/v1/auth/logout" } else { "/v1/auth/refresh" };
                app.post(path, json!({ "refresh_token": session.refresh }))
            });
            let answers = together(calls.collect()).await;
            assert!(answers.iter().any(|answer| answer.status == 204));
            for answer in answers.iter().filter(|answer| answer.status == 200) {
                assert_eq!(app.refresh(&answer.str("/refresh_token")).await.str("/reason"), "logged_out");
                assert_eq!(app.get_as("/v1/me", &answer.str("/access_token")).await.str("/reason"), "logged_out");
            }
        }
    }
}

both! {
    async fn one_good_token_of_two_is_enough_to_sign_out(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let request = app.request(reqwest::Method::POST, "/v1/auth/logout").bearer_auth(&ada.access);
        assert_eq!(app.send(request.json(&json!({ "refresh_token": "mistyped" }))).await.status, 204);
        assert_eq!(app.get_as("/v1/me", &ada.access).await.str("/reason"), "logged_out");
    }
}
