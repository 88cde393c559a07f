use std::time::Duration;

use foundation::mail::Kept;
use reqwest::Method;
use serde_json::{Value, json};

use super::steps::{
    Servers, Tab, by_code, by_link, ended, forgot, mails, reset, send_as, suspend, token_of, wrong,
};
use crate::both;
use crate::support::{Answer, PASSWORD, Person, TestApp, together};

const NEW: &str = "seven quiet orange rivers";
const INVALID: &str = "422 reset_token_invalid";
const DAY: Duration = Duration::from_secs(24 * 3600);

both! {
    async fn asking_answers_the_same_for_everybody_and_mails_only_who_is_there(app: &TestApp) {
        app.person("sue@example.com").await;
        suspend(app).await;
        app.person("ada@example.com").await;
        app.register("eve@example.com").await;
        let there = ["ada@example.com", "sue@example.com", "eve@example.com"];
        let mut answers = Vec::new();
        for email in there.into_iter().chain(["nobody@example.com"]) {
            let answer = app.post("/v1/auth/forgot-password", json!({ "email": email })).await;
            let names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
            answers.push((answer.status, answer.text, names));
        }
        assert_eq!((answers[0].0, answers[0].1.as_str()), (202, r#"{"status":"reset_requested"}"#));
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        app.quiet().await;
        assert_eq!(there.map(|email| mails(app, email, "password_reset")), [1, 1, 1]);
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(Some("nobody@example.com"), None).len(), 0);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'password_reset_requested'").await, 4);
        assert_eq!(app.count("SELECT COUNT(*) FROM password_reset_tokens").await, 3);
        let nonsense = app.post("/v1/auth/forgot-password", json!({ "email": "nonsense" })).await;
        assert_eq!((nonsense.refusal().as_str(), nonsense.fields()), ("422 validation_failed", vec!["email:email_invalid".to_owned()]));
    }
}

both! {
    async fn an_idempotency_key_asks_once(app: &TestApp) {
        app.person("ada@example.com").await;
        let ask = |email: &'static str| {
            let request = app.request(Method::POST, "/v1/auth/forgot-password").header("idempotency-key", "one");
            app.send(request.json(&json!({ "email": email })))
        };
        for _ in 0..3 {
            assert_eq!(ask("ada@example.com").await.status, 202);
            app.quiet().await;
        }
        assert_eq!(mails(app, "ada@example.com", "password_reset"), 1);
        assert_eq!(ask("eve@example.com").await.refusal(), "422 idempotency_key_reused");
        forgot(app, "ada@example.com", 2).await;
    }
}

both! {
    async fn a_reset_by_link_ends_every_session_and_is_told(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let phone = Person::of(&app.login(&ada.email, PASSWORD).await);
        let in_browser = app.post("/v1/auth/login", json!({ "email": ada.email, "password": PASSWORD, "transport": "cookie" })).await;
        let mail = forgot(app, &ada.email, 1).await;
        assert!(mail.links.len() == 1 && mail.code.len() == 6 && mail.text.contains("15 minutes"), "{}", mail.text);
        let done = reset(app, by_link(&mail, NEW)).await;
        assert_eq!((done.status, done.text.as_str()), (200, r#"{"status":"password_changed"}"#));
        for access in [&ada.access, &phone.access, &in_browser.str("/access_token")] {
            assert_eq!(ended(app, access).await, "password_changed");
        }
        for refresh in [&ada.refresh, &phone.refresh] {
            assert_eq!(app.refresh(refresh).await.str("/reason"), "password_changed");
        }
        let cookie = in_browser.header("set-cookie").split(';').next().unwrap();
        let request = app.request(Method::POST, "/v1/auth/refresh").header("cookie", cookie).header("origin", &app.url);
        assert_eq!(app.send(request).await.str("/reason"), "password_changed");

        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "401 invalid_credentials");
        assert_eq!(app.login(&ada.email, NEW).await.status, 200);
        for used in [by_link(&mail, PASSWORD), by_code(&mail, PASSWORD)] {
            assert_eq!(reset(app, used).await.refusal(), INVALID, "link and code end together");
        }
        assert_eq!(app.login(&ada.email, NEW).await.status, 200);
        let notice = app.mail(&ada.email, "password_changed", 1).await;
        assert!(notice.links.len() == 1 && notice.links[0].contains("/not-me?token=pgn_") && notice.code.is_empty(), "{}", notice.text);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'password_reset' AND actor = stream").await, 1);
        app.quiet().await;
        assert_eq!(mails(app, &ada.email, "password_changed"), 1);
    }
}

both! {
    async fn a_code_works_with_its_own_address_alone(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let eve = app.person("eve@example.com").await;
        let (mail, eves) = (forgot(app, &ada.email, 1).await, forgot(app, &eve.email, 1).await);
        for (email, code) in [(&eve.email, &mail.code), (&ada.email, &eves.code), (&"nobody@example.com".to_owned(), &mail.code)] {
            let refused = reset(app, json!({ "email": email, "code": code, "password": NEW })).await;
            assert_eq!(refused.refusal(), INVALID);
        }
        for (body, field) in [
            (json!({}), "password:required"),
            (json!({ "password": NEW }), "token:required"),
            (json!({ "password": NEW, "email": ada.email }), "token:required"),
            (json!({ "password": NEW, "code": mail.code }), "token:required"),
            (json!({ "password": NEW, "token": token_of(&mail.links[0]), "code": mail.code }), "token:required"),
        ] {
            assert_eq!(reset(app, body).await.fields(), [field]);
        }
        assert_eq!(reset(app, by_code(&mail, NEW)).await.status, 200);
        assert_eq!(reset(app, by_link(&mail, PASSWORD)).await.refusal(), INVALID, "link and code end together");
        assert_eq!(app.login(&ada.email, NEW).await.status, 200);
        assert_eq!(app.login(&eve.email, PASSWORD).await.status, 200);
    }
}

both! {
    async fn a_newer_mail_replaces_an_older_one(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let (first, second) = (forgot(app, &ada.email, 1).await, forgot(app, &ada.email, 2).await);
        assert_eq!(reset(app, by_link(&first, NEW)).await.refusal(), INVALID);
        assert_eq!(reset(app, by_code(&first, NEW)).await.refusal(), INVALID);
        assert_eq!(reset(app, by_link(&second, NEW)).await.status, 200);
    }
}

both! {
    async fn a_reset_lives_fifteen_minutes(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mail = forgot(app, &ada.email, 1).await;
        app.clock.advance(Duration::from_secs(15 * 60 - 1));
        assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200);
        let mail = forgot(app, &ada.email, 2).await;
        app.clock.advance(Duration::from_secs(15 * 60));
        for late in [by_link(&mail, PASSWORD), by_code(&mail, PASSWORD)] {
            assert_eq!(reset(app, late).await.refusal(), INVALID);
        }
        let (_, page) = Tab::open(app, &mail.links[0]).await;
        assert!(page.text.contains("does not work any more") && !page.text.contains("<form"), "{}", page.text);
    }
}

async fn guess(app: &TestApp, mail: &Kept) {
    let body = json!({ "email": mail.to, "code": wrong(&mail.code), "password": NEW });
    assert_eq!(reset(app, body).await.refusal(), INVALID);
}

both! {
    async fn five_wrong_guesses_kill_a_code_and_its_link_lives_on(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mail = forgot(app, &ada.email, 1).await;
        for _ in 0..5 {
            guess(app, &mail).await;
        }
        assert_eq!(reset(app, by_code(&mail, NEW)).await.refusal(), INVALID, "the code is dead");
        assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200);
    }
}

both! {
    async fn parallel_guesses_do_not_overshoot(app: &TestApp) {
        let mail = forgot(app, &app.person("ada@example.com").await.email, 1).await;
        let codes = (0..40).map(|n| format!("{n:06}")).filter(|code| *code != mail.code);
        let bodies: Vec<Value> = codes.map(|code| json!({ "email": mail.to, "code": code, "password": NEW })).collect();
        for guess in together(bodies.into_iter().map(|body| reset(app, body)).collect()).await {
            assert_eq!(guess.refusal(), INVALID);
        }
        assert_eq!(app.count("SELECT failures FROM password_reset_tokens").await, 5);
        assert_eq!(app.count("SELECT in_a_row FROM code_failures").await, 5);
    }
}

/// Twelve wrong codes over three mails, and a fourth mail.
async fn guess_for_a_day(app: &TestApp, email: &str) -> Kept {
    for count in 1..=3 {
        let mail = forgot(app, email, count).await;
        app.forgive().await;
        for _ in 0..4 {
            guess(app, &mail).await;
        }
    }
    forgot(app, email, 4).await
}

both! {
    async fn asking_for_mail_after_mail_gives_no_more_than_ten_guesses_a_day(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let eve = app.person("eve@example.com").await;
        let mail = guess_for_a_day(app, &ada.email).await;
        assert_eq!(reset(app, by_code(&mail, NEW)).await.refusal(), INVALID, "twelve wrong ones came before");
        assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200, "the link goes on working");
        assert_eq!(app.count("SELECT COUNT(*) FROM code_failures").await, 0, "and its use forgets the failures");

        guess_for_a_day(app, &eve.email).await;
        app.clock.advance(DAY);
        let mail = forgot(app, &eve.email, 5).await;
        assert_eq!(reset(app, by_code(&mail, NEW)).await.status, 200, "tomorrow guessing is possible again");
    }
}

both! {
    async fn a_password_that_is_refused_costs_neither_link_nor_code(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        for (count, pick) in (1..).zip([by_link as fn(&Kept, &str) -> Value, by_code]) {
            let mail = forgot(app, &ada.email, count).await;
            for (bad, code) in [
                ("short", "password_too_short"),
                ("ada@example.com ada", "password_matches_identity"),
                ("Summer2026Summer2026", "password_guessable"),
                ("correct horse battery staple", "password_breached"),
                ("this password was in a breach", "password_breached"),
                ("x".repeat(1_025).as_str(), "password_too_long"),
            ] {
                let refused = reset(app, pick(&mail, bad)).await;
                assert_eq!((refused.refusal().as_str(), refused.fields()), ("422 validation_failed", vec![format!("password:{code}")]), "{bad}");
            }
            assert_eq!(reset(app, pick(&mail, NEW)).await.status, 200);
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'password_reset'").await, 2, "once for each mail");
    }
}

both! {
    async fn an_unproven_registration_becomes_the_mailbox_owners(app: &TestApp) {
        let planted = json!({ "email": "ada@example.com", "password": PASSWORD, "display_name": "Mallory", "locale": "de", "metadata": { "plan": "x" } });
        let id = app.post("/v1/auth/register", planted).await.str("/verification_id");
        let verification = app.mail("ada@example.com", "verify_email", 1).await;
        let mail = forgot(app, "ada@example.com", 1).await;
        assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200);
        let login = app.login("ada@example.com", NEW).await;
        assert_eq!((login.status, &login.json["user"]["email_verified"]), (200, &json!(true)));
        let me = app.get_as("/v1/me", &login.str("/access_token")).await;
        assert_eq!((me.str("/display_name"), me.str("/locale"), &me.json["metadata"]), (String::new(), String::new(), &json!({})), "nothing of the stranger's stays");
        assert_eq!(app.login("ada@example.com", PASSWORD).await.refusal(), "401 invalid_credentials", "the planted password died");
        for dead in [json!({ "verification_id": id, "code": verification.code }), json!({ "token": token_of(&verification.links[0]), "password": PASSWORD })] {
            assert_eq!(app.post("/v1/auth/verify-email", dead).await.refusal(), "422 verification_invalid");
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 1);
    }
}

both! {
    async fn a_suspended_person_is_told_only_once_the_mailbox_is_proven(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        suspend(app).await;
        let mail = forgot(app, &ada.email, 1).await;
        guess(app, &mail).await;
        assert_eq!(reset(app, json!({ "token": format!("pgp_{}", "A".repeat(43)), "password": NEW })).await.refusal(), INVALID);
        assert_eq!(reset(app, by_link(&mail, NEW)).await.refusal(), "403 account_suspended");
        assert_eq!(reset(app, by_link(&mail, NEW)).await.refusal(), INVALID, "once");
        let (tab, _) = Tab::open(app, &forgot(app, &ada.email, 2).await.links[0]).await;
        let page = tab.submit(app, NEW).await;
        assert!(page.status == 403 && page.text.contains("Your account is suspended"), "{}", page.text);

        app.sql("DELETE FROM suspensions").await;
        app.quiet().await;
        assert_eq!(mails(app, &ada.email, "password_changed"), 0);
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200, "no session ended");
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200, "nor did the password change");
    }
}

both! {
    async fn everything_else_that_was_mailed_dies_with_a_reset(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let asked = send_as(app, Method::POST, "/v1/me/email", &ada.access, json!({ "email": "new@example.com" })).await;
        assert_eq!(asked.status, 202, "{}", asked.text);
        let change = app.mail("new@example.com", "email_change", 1).await;
        app.post("/v1/auth/magic-link", json!({ "email": ada.email })).await;
        let magic = app.mail(&ada.email, "magic_link", 1).await;
        let mail = forgot(app, &ada.email, 1).await;
        assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200);

        let access = app.login(&ada.email, NEW).await.str("/access_token");
        for body in [json!({ "token": token_of(&change.links[0]) }), json!({ "code": change.code })] {
            let refused = send_as(app, Method::POST, "/v1/me/email/confirm", &access, body).await;
            assert_eq!(refused.refusal(), "422 verification_invalid");
        }
        let refused = app.post("/v1/auth/magic-link/consume", json!({ "token": token_of(&magic.links[0]) })).await;
        assert_eq!(refused.refusal(), "422 verification_invalid");
        assert_eq!(app.get_as("/v1/me", &access).await.str("/email"), ada.email);
    }
}

both! {
    async fn the_link_opens_a_page_where_the_new_password_is_chosen(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let link = forgot(app, &ada.email, 1).await.links[0].clone();
        for _ in 0..3 {
            assert_eq!(app.send(app.client.head(&link)).await.status, 303);
            let (_, page) = Tab::open(app, &link).await;
            assert!(page.text.contains("<form") && page.text.contains("At least 15") && page.text.contains(&ada.email), "{}", page.text);
            assert!(page.header("content-security-policy").contains("default-src 'none'"));
        }
        let (tab, _) = Tab::open(app, &link).await;
        assert_eq!(tab.submit_from(app, "https://evil.example", NEW).await.refusal(), "403 permission_denied");
        for (bad, why) in [("short", "at least 15"), ("correct horse battery staple", "in a breach")] {
            let again = tab.submit(app, bad).await;
            assert!(again.status == 422 && again.text.contains(why) && again.text.contains("<form"), "{}", again.text);
        }
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200, "nothing happened so far");
        let done = tab.submit(app, NEW).await;
        assert!(done.status == 200 && done.text.contains("Your password is changed") && done.header("set-cookie").contains("Max-Age=0"), "{}", done.text);
        assert_eq!(ended(app, &ada.access).await, "password_changed");
        assert_eq!(app.login(&ada.email, NEW).await.status, 200);
        assert_eq!(tab.submit(app, PASSWORD).await.status, 422, "a link works once");
        assert!(!Tab::open(app, &link).await.1.text.contains("<form"));
        assert!(app.get("/reset-password").await.text.contains("open the link again"));
    }
}

/// Somebody who knows the password changes it; the notice that the owner gets, and the thief.
async fn theft(app: &TestApp) -> (Kept, Person) {
    let ada = app.person("ada@example.com").await;
    let body = json!({ "current_password": PASSWORD, "new_password": NEW });
    assert_eq!(send_as(app, Method::PUT, "/v1/me/password", &ada.access, body).await.status, 200);
    let notice = app.mail(&ada.email, "password_changed", 1).await;
    app.quiet().await;
    (notice, ada)
}

both! {
    async fn that_was_not_me_ends_every_session_and_brings_a_way_to_a_new_password(app: &TestApp) {
        let (notice, thief) = theft(app).await;
        let again = Person::of(&app.login(&thief.email, NEW).await);
        let thiefs = forgot(app, &thief.email, 1).await;
        for _ in 0..2 {
            app.send(app.client.head(&notice.links[0])).await;
            let (_, page) = Tab::open(app, &notice.links[0]).await;
            assert!(page.text.contains("<form") && page.text.contains(&thief.email), "{}", page.text);
        }
        assert_eq!(app.get_as("/v1/me", &thief.access).await.status, 200, "looking does nothing");
        let (tab, _) = Tab::open(app, &notice.links[0]).await;
        assert_eq!(tab.submit_from(app, "https://evil.example", "").await.refusal(), "403 permission_denied");
        let done = tab.press(app).await;
        assert!(done.status == 200 && done.text.contains("Every session has ended"), "{}", done.text);
        for access in [&thief.access, &again.access] {
            assert_eq!(ended(app, access).await, "revoked_by_user");
        }
        assert_eq!(app.refresh(&again.refresh).await.str("/reason"), "revoked_by_user");
        let refused = app.login(&thief.email, NEW).await;
        assert_eq!((refused.refusal().as_str(), refused.fields()), ("422 validation_failed", vec!["password:password_breached".to_owned()]));
        assert_eq!(app.login(&thief.email, PASSWORD).await.refusal(), "401 invalid_credentials");
        assert_eq!(tab.press(app).await.status, 422, "once");

        let way_back = app.mail(&thief.email, "password_reset", 2).await;
        assert_eq!(reset(app, by_link(&thiefs, PASSWORD)).await.refusal(), INVALID, "an older mail died");
        assert_eq!(reset(app, by_link(&way_back, "five slow green lanterns")).await.status, 200);
        assert_eq!(app.login(&thief.email, "five slow green lanterns").await.status, 200);
        app.quiet().await;
        assert_eq!(mails(app, &thief.email, "password_reset"), 2);
    }
}

both! {
    async fn that_was_not_me_can_be_said_for_a_day(app: &TestApp) {
        let (notice, ada) = theft(app).await;
        app.clock.advance(DAY - Duration::from_secs(1));
        let (tab, page) = Tab::open(app, &notice.links[0]).await;
        assert!(page.text.contains("<form"), "{}", page.text);
        app.clock.advance(Duration::from_secs(1));
        let late = tab.press(app).await;
        assert!(late.status == 422 && late.text.contains("does not work any more"), "{}", late.text);
        assert!(!tab.look(app).await.text.contains("<form"));
        assert_eq!(app.login(&ada.email, NEW).await.status, 200, "nothing happened");
    }
}

both! {
    async fn a_reset_has_one_winner(app: &TestApp) {
        let mut people = Vec::new();
        for round in 0..20 {
            people.push(app.person(&format!("ada{round}@example.com")).await.email);
        }
        let all = Servers::start(app).await;
        let servers = &all;
        let password = |n: usize| format!("quiet orange rivers drift {n}");
        for email in &people {
            servers.post(0, "/v1/auth/forgot-password", "", json!({ "email": email })).await;
            let mail = servers.mail(email, "password_reset").await;
            let bodies = (0..30).map(|n| if n % 4 < 2 { by_link(&mail, &password(n)) } else { by_code(&mail, &password(n)) });
            let racing = bodies.enumerate().map(|(n, body)| async move {
                (n, servers.post(n, "/v1/auth/reset-password", "", body).await)
            });
            let answers: Vec<(usize, Answer)> = together(racing.collect()).await;
            let (winners, losers): (Vec<_>, Vec<_>) = answers.iter().partition(|(_, answer)| answer.status == 200);
            assert_eq!(winners.len(), 1, "{:?}", answers.iter().map(|(_, answer)| answer.refusal()).collect::<Vec<_>>());
            assert!(losers.iter().all(|(_, answer)| answer.refusal() == INVALID), "{losers:?}");
            assert_eq!(app.login(email, &password(winners[0].0)).await.status, 200);
        }
        app.quiet().await;
        for email in &people {
            assert_eq!(servers.mails(email, "password_changed").len(), 1, "{email}");
        }
        all.stop().await;
    }
}
