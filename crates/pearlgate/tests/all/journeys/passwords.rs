use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::steps::{
    Tab, by_code, by_link, ended, forgot, mails, refused, register, reset, says, second_factor, send_as,
    token_of,
};
use crate::both;
use crate::support::{Answer, Engine, PASSWORD, Person, TestApp, together};

const NEW: &str = "seven quiet orange rivers";
const BREACHED: &str = "correct horse battery staple";

async fn change(app: &TestApp, access: &str, current: &str, new: &str) -> Answer {
    let body = json!({ "current_password": current, "new_password": new });
    send_as(app, Method::PUT, "/v1/me/password", access, body).await
}

both! {
    async fn a_new_password_keeps_this_session_and_ends_the_others(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let phone = Person::of(&app.login(&ada.email, PASSWORD).await);
        let done = change(app, &ada.access, PASSWORD, NEW).await;
        assert_eq!((done.status, done.text.as_str()), (200, r#"{"status":"password_changed"}"#));
        assert_eq!(ended(app, &phone.access).await, "password_changed");
        assert_eq!(app.refresh(&phone.refresh).await.str("/reason"), "password_changed");
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200);
        assert_eq!(app.refresh(&ada.refresh).await.status, 200);
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "401 invalid_credentials");
        assert_eq!(app.login(&ada.email, NEW).await.status, 200);
        let notice = app.mail(&ada.email, "password_changed", 1).await;
        assert!(notice.links.len() == 1 && notice.links[0].contains("/not-me?token=pgn_") && notice.code.is_empty(), "{}", notice.text);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'password_changed' AND actor = stream").await, 1);
    }
}

both! {
    async fn a_change_that_is_refused_says_why_and_changes_nothing(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let phone = Person::of(&app.login(&ada.email, PASSWORD).await);
        for wrong in ["not the password at all", "", "nine purple lanterns"] {
            assert_eq!(change(app, &ada.access, wrong, NEW).await.refusal(), "401 invalid_credentials");
        }
        for (bad, code) in [
            ("short", "password_too_short"),
            ("x".repeat(1_025).as_str(), "password_too_long"),
            ("ada@example.com ada", "password_matches_identity"),
            ("pearlgate pearlgate", "password_matches_identity"),
            (BREACHED, "password_breached"),
            ("Summer2026Summer2026", "password_guessable"),
            ("               ", "password_guessable"),
            (PASSWORD, "password_reused"),
        ] {
            assert_eq!(refused(&change(app, &ada.access, PASSWORD, bad).await), says(&format!("new_password:{code}")), "{bad}");
        }
        assert_eq!(refused(&change(app, &ada.access, &"x".repeat(1_025), NEW).await), says("current_password:password_too_long"));
        let nobody = app.send(app.request(Method::PUT, "/v1/me/password").json(&json!({}))).await;
        assert_eq!(nobody.refusal(), "401 not_authenticated");
        for person in [&ada, &phone] {
            assert_eq!(app.get_as("/v1/me", &person.access).await.status, 200);
        }
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
        app.quiet().await;
        assert_eq!(mails(app, &ada.email, "password_changed"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_needs_somebody_who_proved_who_they_are_just_now() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let app = TestApp::with(engine, true, "[tokens]\naccess = \"30m\"").await;
        let ada = app.person("ada@example.com").await;
        app.clock.advance(Duration::from_secs(600));
        assert_eq!(
            change(&app, &ada.access, "not the password at all", NEW).await.refusal(),
            "401 invalid_credentials",
            "still fresh"
        );
        app.clock.advance(Duration::from_micros(1));
        for current in [PASSWORD, "not the password at all"] {
            assert_eq!(
                change(&app, &ada.access, current, NEW).await.refusal(),
                "403 reauthentication_required"
            );
        }
        let fresh = app.login(&ada.email, PASSWORD).await.str("/access_token");
        assert_eq!(change(&app, &fresh, PASSWORD, NEW).await.status, 200);
        app.finish().await;
    }
}

both! {
    async fn a_new_password_kills_what_was_mailed(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mail = forgot(app, &ada.email, 1).await;
        app.post("/v1/auth/magic-link", json!({ "email": ada.email })).await;
        let magic = app.mail(&ada.email, "magic_link", 1).await;
        assert_eq!(change(app, &ada.access, PASSWORD, NEW).await.status, 200);
        for dead in [by_link(&mail, PASSWORD), by_code(&mail, PASSWORD)] {
            assert_eq!(reset(app, dead).await.refusal(), "422 reset_token_invalid");
        }
        let dead = app.post("/v1/auth/magic-link/consume", json!({ "token": token_of(&magic.links[0]) })).await;
        assert_eq!(dead.refusal(), "422 verification_invalid");
    }
}

both! {
    async fn of_many_changes_at_the_same_time_one_wins_and_its_session_lives(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut current = PASSWORD.to_owned();
        for round in 0..5 {
            let new: Vec<String> = (0..10).map(|n| format!("quiet orange rivers {round} drift {n}")).collect();
            let (access, known) = (&ada.access, &current);
            let changes = new.iter().map(|new| async move { (new, change(app, access, known, new).await) });
            let answers = together(changes.collect()).await;
            let winners: Vec<&String> = answers.iter().filter(|(_, answer)| answer.status == 200).map(|(new, _)| *new).collect();
            let refusals: Vec<String> = answers.iter().map(|(_, answer)| answer.refusal()).collect();
            assert_eq!(winners.len(), 1, "{refusals:?}");
            let honest = |refusal: &String| ["200 -", "401 invalid_credentials", "409 conflict"].contains(&refusal.as_str());
            assert!(refusals.iter().all(honest), "nobody is told that a session that lives has ended: {refusals:?}");
            assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200);
            current = winners[0].clone();
            assert_eq!(app.login(&ada.email, &current).await.status, 200);
            // Those that were wrong after the winner was right still count against the session.
            app.forgive().await;
        }
        app.quiet().await;
        assert_eq!(mails(app, &ada.email, "password_changed"), 5);
    }
}

both! {
    async fn a_registration_with_a_bad_password_says_why_and_stores_nothing(app: &TestApp) {
        for (bad, code) in [
            ("🦀🐚🌊🐙🦑🐠🐟🐬🐳🐋🦈🐊🐢🐍", "password_too_short"),
            ("x".repeat(1_025).as_str(), "password_too_long"),
            ("ada@example.com 1", "password_matches_identity"),
            ("ADA LOVELACE 2026", "password_matches_identity"),
            ("pearlgate pearlgate", "password_matches_identity"),
            (BREACHED, "password_breached"),
            ("Summer2026Summer2026", "password_guessable"),
            ("Summer2026Summer2026", "password_guessable"),
        ] {
            let answer = register(app, "ada@example.com", bad, "Ada Lovelace").await;
            assert_eq!(refused(&answer), says(&format!("password:{code}")), "{bad}");
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 0);
        for (n, fine) in ["🦀🐚🌊🐙🦑🐠🐟🐬🐳🐋🦈🐊🐢🐍🦎", " nine purple lanterns drift ", format!("{PASSWORD}{}", "x".repeat(900)).as_str()].into_iter().enumerate() {
            let email = format!("ada{n}@example.com");
            assert_eq!(register(app, &email, fine, "").await.status, 202, "{fine}");
            assert_eq!(app.login(&email, fine).await.refusal(), "403 email_not_verified", "taken as it is");
        }
        assert_eq!(app.login("ada1@example.com", PASSWORD).await.refusal(), "401 invalid_credentials", "nothing is trimmed");
        assert_eq!(app.login("ada2@example.com", PASSWORD).await.refusal(), "401 invalid_credentials", "or cut");
        app.quiet().await;
    }
}

both! {
    async fn beside_a_second_factor_eight_characters_are_enough(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mail = forgot(app, &ada.email, 1).await;
        assert_eq!(refused(&reset(app, by_link(&mail, "Zq7#kd!mw2Pb")).await), says("password:password_too_short"));
        second_factor(app).await;
        let (_, page) = Tab::open(app, &mail.links[0]).await;
        assert!(page.text.contains("At least 8 characters"), "{}", page.text);
        for (bad, code) in [("Zq7#kd!", "password_too_short"), ("trustno1", "password_breached"), ("iloveyou1", "password_breached")] {
            assert_eq!(refused(&reset(app, by_link(&mail, bad)).await), says(&format!("password:{code}")), "{bad}");
        }
        assert_eq!(reset(app, by_link(&mail, "Zq7#kd!mw2Pb")).await.status, 200);
        assert_eq!(app.login(&ada.email, "Zq7#kd!mw2Pb").await.refusal(), "200 mfa_required", "the password is right and the factor stays");
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "401 invalid_credentials");
    }
}

both! {
    async fn the_same_letters_are_the_same_password_on_every_machine(app: &TestApp) {
        let (decomposed, composed) = ("Ame\u{301}lie watches nine grey herons", "Am\u{e9}lie watches nine grey herons");
        let id = register(app, "ada@example.com", decomposed, "").await.str("/verification_id");
        let code = app.mail("ada@example.com", "verify_email", 1).await.code;
        assert_eq!(app.post("/v1/auth/verify-email", json!({ "verification_id": id, "code": code })).await.status, 200);
        let login = app.login("ada@example.com", composed).await;
        assert_eq!(login.status, 200);
        assert_eq!(app.login("ada@example.com", decomposed).await.status, 200);
        let access = login.str("/access_token");
        assert_eq!(refused(&change(app, &access, composed, decomposed).await), says("new_password:password_reused"));
        assert_eq!(app.login("ada@example.com", "Amelie watches nine grey herons").await.refusal(), "401 invalid_credentials");
    }
}

const OF_ANOTHER: &str =
    "$argon2i$v=19$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$/4fArS8A8OkRBH8OKddl81VlFwZkmSTUT2zdWrkF6MU";

both! {
    async fn an_outdated_hash_is_made_anew_at_the_next_sign_in(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let set_at = app.count("SELECT set_at FROM password_credentials").await;
        app.sql(&format!("UPDATE password_credentials SET password_hash = '{OF_ANOTHER}'")).await;
        app.clock.advance(Duration::from_secs(60));
        let old = "SELECT COUNT(*) FROM password_credentials WHERE password_hash LIKE '$argon2i$%'";
        let ours = "SELECT COUNT(*) FROM password_credentials WHERE password_hash LIKE '$argon2id$v=19$m=64,t=1,p=1$%'";
        assert_eq!(app.login(&ada.email, NEW).await.refusal(), "401 invalid_credentials");
        assert_eq!((app.count(old).await, app.count(ours).await), (1, 0), "a wrong password makes nothing anew");
        let logins = together((0..8).map(|_| app.login(&ada.email, PASSWORD)).collect()).await;
        assert!(logins.iter().all(|login| login.status == 200), "{:?}", logins.iter().map(Answer::refusal).collect::<Vec<_>>());
        assert_eq!((app.count(old).await, app.count(ours).await), (0, 1));
        assert_eq!(app.count("SELECT set_at FROM password_credentials").await, set_at, "the password is as old as before");
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200);
    }
}

both! {
    async fn a_hostile_hash_is_refused_and_never_computed(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        for hostile in [
            "$argon2id$v=19$m=4194304,t=100,p=64$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            "$argon2id$v=19$m=64,t=4294967295,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            format!("$2b$31${}", ".".repeat(53)),
            "$pbkdf2-sha256$i=4000000000,l=32$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            "nonsense".to_owned(),
        ] {
            app.sql(&format!("UPDATE password_credentials SET password_hash = '{hostile}'")).await;
            let started = Instant::now();
            assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "401 invalid_credentials", "{hostile}");
            assert_eq!(change(app, &ada.access, PASSWORD, NEW).await.refusal(), "401 invalid_credentials", "{hostile}");
            assert!(started.elapsed() < Duration::from_secs(5), "{hostile} took {:?}", started.elapsed());
        }
        let mail = forgot(app, &ada.email, 1).await;
        assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200, "a reset is the way out");
        assert_eq!(app.login(&ada.email, NEW).await.status, 200);
    }
}

/// On PostgreSQL a statement that waits for a lock still sees what was there before it waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_begins_from_a_password_that_is_being_replaced() {
    let app = TestApp::start(Engine::Postgres).await;
    let ada = app.person("ada@example.com").await;
    let url = app.database_url().unwrap().to_owned();
    let (replaced, wait) = std::sync::mpsc::channel::<()>();
    let (locked, has_locked) = tokio::sync::oneshot::channel();
    let change = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        let mut change = client.transaction().unwrap();
        change.batch_execute("SELECT id FROM users FOR UPDATE; UPDATE password_credentials SET password_hash = 'another'; DELETE FROM sessions").unwrap();
        locked.send(()).unwrap();
        wait.recv().unwrap();
        change.commit().unwrap();
    });
    has_locked.await.unwrap();
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let login = app.login(&ada.email, PASSWORD);
    let commit = async {
        app.until("the sign-in waits for the change", || async { app.count(waiting).await > 0 }).await;
        replaced.send(()).unwrap();
    };
    let (answer, ()) = tokio::join!(login, commit);
    change.join().unwrap();
    assert_eq!(answer.refusal(), "401 invalid_credentials");
    assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 0);
    app.finish().await;
}
