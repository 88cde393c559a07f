use std::time::Duration;

use foundation::mail::Kept;
use reqwest::Method;
use serde_json::{Value, json};

use super::steps::{Servers, Tab, by_link, ended, forgot, mails, reset, send_as, token_of, wrong};
use crate::both;
use crate::support::{Answer, Engine, PASSWORD, Person, TestApp, together};

const OTHER: &str = "seven quiet orange rivers";
const INVALID: &str = "422 verification_invalid";
const NEW: &str = "new@example.com";
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

async fn ask(app: &TestApp, access: &str, to: &str) -> Answer {
    send_as(app, Method::POST, "/v1/me/email", access, json!({ "email": to })).await
}

/// Asks for another address; the mail that came there, with nothing on its way any more.
async fn asked(app: &TestApp, access: &str, to: &str) -> Kept {
    let answer = ask(app, access, to).await;
    assert_eq!((answer.status, answer.text.as_str()), (202, r#"{"status":"confirmation_required"}"#));
    let mail = app.mail(to, "email_change", 1).await;
    app.quiet().await;
    mail
}

async fn confirm(app: &TestApp, access: &str, body: Value) -> Answer {
    send_as(app, Method::POST, "/v1/me/email/confirm", access, body).await
}

fn link(mail: &Kept) -> Value {
    json!({ "token": token_of(&mail.links[0]) })
}

fn code(mail: &Kept) -> Value {
    json!({ "code": mail.code })
}

/// The whole change; the notice to the old address.
async fn change(app: &TestApp, access: &str, from: &str, to: &str) -> Kept {
    let mail = asked(app, access, to).await;
    let done = confirm(app, access, code(&mail)).await;
    assert_eq!((done.status, done.text.as_str()), (200, r#"{"status":"email_changed"}"#));
    let notice = app.mail(from, "email_changed", 1).await;
    app.quiet().await;
    notice
}

async fn address(app: &TestApp, access: &str) -> String {
    app.get_as("/v1/me", access).await.str("/email")
}

both! {
    async fn a_new_address_counts_once_it_is_proven(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mail = asked(app, &ada.access, NEW).await;
        assert!(mail.links.len() == 1 && mail.code.len() == 6 && mail.text.contains("24 hours"), "{}", mail.text);
        assert_eq!(app.login(NEW, PASSWORD).await.refusal(), "401 invalid_credentials", "not yet");
        assert_eq!(address(app, &ada.access).await, ada.email);
        assert_eq!(mails(app, &ada.email, "email_changed"), 0);

        let done = confirm(app, &ada.access, code(&mail)).await;
        assert_eq!((done.status, done.text.as_str()), (200, r#"{"status":"email_changed"}"#));
        assert_eq!(address(app, &ada.access).await, NEW, "the session goes on");
        assert_eq!(app.get_as("/v1/me", &ada.access).await.json["email_verified"], true);
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "401 invalid_credentials");
        assert_eq!(app.login(NEW, PASSWORD).await.str("/user/id"), ada.id);
        for used in [code(&mail), link(&mail)] {
            assert_eq!(confirm(app, &ada.access, used).await.refusal(), INVALID, "link and code end together");
        }
        let notice = app.mail(&ada.email, "email_changed", 1).await;
        assert!(notice.links.len() == 1 && notice.links[0].contains("/email-change?token=pgn_") && notice.text.contains("7 days"), "{}", notice.text);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'email_changed' AND actor = stream").await, 1);
        for (body, field) in [(json!({}), "token:required"), (json!({ "token": "x", "code": "000000" }), "token:required")] {
            assert_eq!(confirm(app, &ada.access, body).await.fields(), [field]);
        }
    }
}

both! {
    async fn the_link_works_with_the_call_and_on_its_page(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mail = asked(app, &ada.access, NEW).await;
        assert_eq!(confirm(app, &ada.access, link(&mail)).await.status, 200);

        let mail = asked(app, &ada.access, "page@example.com").await;
        for _ in 0..3 {
            assert_eq!(app.send(app.client.head(&mail.links[0])).await.status, 303);
            let (_, page) = Tab::open(app, &mail.links[0]).await;
            assert!(page.text.contains("<form") && page.text.contains("page@example.com"), "{}", page.text);
        }
        let (tab, _) = Tab::open(app, &mail.links[0]).await;
        assert_eq!(tab.submit_from(app, "https://evil.example", "").await.refusal(), "403 permission_denied");
        assert_eq!(address(app, &ada.access).await, NEW, "looking changes nothing");
        let done = tab.press(app).await;
        assert!(done.status == 200 && done.text.contains("Your address is changed") && done.header("set-cookie").contains("Max-Age=0"), "{}", done.text);
        assert_eq!(address(app, &ada.access).await, "page@example.com");
        assert_eq!(tab.press(app).await.status, 422, "once");
        assert!(!tab.look(app).await.text.contains("<form"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_needs_somebody_who_proved_who_they_are_just_now() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let app = TestApp::with(engine, true, "[tokens]\naccess = \"30m\"").await;
        let ada = app.person("ada@example.com").await;
        app.clock.advance(10 * MINUTE);
        let mail = asked(&app, &ada.access, NEW).await;
        app.clock.advance(MINUTE);
        assert_eq!(
            ask(&app, &ada.access, "other@example.com").await.refusal(),
            "403 reauthentication_required"
        );
        assert_eq!(
            confirm(&app, &ada.access, code(&mail)).await.status,
            200,
            "the proof of the mailbox is enough"
        );
        let fresh = app.login(NEW, PASSWORD).await.str("/access_token");
        for (bad, field) in [("nonsense", "email:email_invalid"), (NEW, "email:invalid")] {
            assert_eq!(ask(&app, &fresh, bad).await.fields(), [field]);
        }
        let nobody = app.post("/v1/me/email", json!({ "email": NEW })).await;
        assert_eq!(nobody.refusal(), "401 not_authenticated");
        app.finish().await;
    }
}

both! {
    async fn a_taken_address_is_told_to_its_owner_and_to_nobody_else(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let eve = app.person("eve@example.com").await;
        let free = ask(app, &ada.access, NEW).await;
        let taken = ask(app, &ada.access, "EVE@example.com").await;
        let shape = |answer: &Answer| (answer.status, answer.text.clone(), answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(shape(&taken), shape(&free));
        let notice = app.mail(&eve.email, "email_change_taken", 1).await;
        assert!(notice.links.is_empty() && notice.code.is_empty(), "nobody learns the secrets: {notice:?}");
        app.quiet().await;
        assert_eq!(mails(app, &eve.email, "email_change"), 0);
        assert_eq!(confirm(app, &ada.access, json!({ "code": "000000" })).await.refusal(), INVALID);
        assert_eq!(address(app, &ada.access).await, ada.email);
        assert_eq!(app.login(&eve.email, PASSWORD).await.str("/user/id"), eve.id);
    }
}

both! {
    async fn who_never_proved_an_address_loses_it_to_who_does(app: &TestApp) {
        let planted = json!({ "email": NEW, "password": OTHER, "display_name": "Mallory" });
        let id = app.post("/v1/auth/register", planted).await.str("/verification_id");
        let proof = app.mail(NEW, "verify_email", 1).await;
        let ada = app.person("ada@example.com").await;
        change(app, &ada.access, &ada.email, NEW).await;
        assert_eq!(app.login(NEW, PASSWORD).await.str("/user/id"), ada.id);
        assert_eq!(app.login(NEW, OTHER).await.refusal(), "401 invalid_credentials");
        let late = app.post("/v1/auth/verify-email", json!({ "verification_id": id, "code": proof.code })).await;
        assert_eq!(late.refusal(), INVALID);
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 1);
    }
}

both! {
    async fn who_is_proven_first_keeps_the_address(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let bob = app.person("bob@example.com").await;
        let (adas, bobs) = (asked(app, &ada.access, NEW).await, {
            ask(app, &bob.access, NEW).await;
            app.mail(NEW, "email_change", 2).await
        });
        let eve = app.person(NEW).await;
        assert_eq!(confirm(app, &ada.access, code(&adas)).await.refusal(), "409 conflict");
        let (tab, _) = Tab::open(app, &bobs.links[0]).await;
        let page = tab.press(app).await;
        assert!(page.status == 409 && page.text.contains("Another account has this address"), "{}", page.text);
        for person in [&ada, &bob, &eve] {
            assert_eq!(address(app, &person.access).await, person.email);
            assert_eq!(app.login(&person.email, PASSWORD).await.str("/user/id"), person.id);
        }
        app.quiet().await;
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(None, Some("email_changed")).len(), 0);
        assert_eq!(app.count("SELECT COUNT(*) FROM not_me_tokens").await, 0, "what did not happen cannot be undone");
    }
}

both! {
    async fn somebody_elses_link_and_code_are_refused(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let eve = app.person("eve@example.com").await;
        let mail = asked(app, &ada.access, NEW).await;
        asked(app, &eve.access, "eve2@example.com").await;
        for stolen in [link(&mail), code(&mail)] {
            assert_eq!(confirm(app, &eve.access, stolen).await.refusal(), INVALID);
        }
        assert_eq!(address(app, &eve.access).await, eve.email);
        assert_eq!(confirm(app, &ada.access, link(&mail)).await.status, 200, "nothing of it was used up");
    }
}

both! {
    async fn five_wrong_guesses_kill_a_code_and_a_newer_mail_replaces_an_older_one(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let first = asked(app, &ada.access, NEW).await;
        let second = asked(app, &ada.access, "newer@example.com").await;
        for old in [link(&first), code(&first)] {
            assert_eq!(confirm(app, &ada.access, old).await.refusal(), INVALID);
        }
        for _ in 0..4 {
            assert_eq!(confirm(app, &ada.access, json!({ "code": wrong(&second.code) })).await.refusal(), INVALID);
        }
        assert_eq!(confirm(app, &ada.access, code(&second)).await.refusal(), INVALID, "the code is dead");
        assert_eq!(confirm(app, &ada.access, link(&second)).await.status, 200);
        assert_eq!(address(app, &ada.access).await, "newer@example.com");
    }
}

both! {
    async fn a_new_address_can_be_proven_for_a_day(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mail = asked(app, &ada.access, NEW).await;
        app.clock.advance(DAY - Duration::from_secs(1));
        let access = app.refresh(&ada.refresh).await.str("/access_token");
        assert_eq!(confirm(app, &access, code(&mail)).await.status, 200);
        let again = Person::of(&app.login(NEW, PASSWORD).await);
        let mail = asked(app, &again.access, "later@example.com").await;
        app.clock.advance(DAY);
        let access = app.refresh(&again.refresh).await.str("/access_token");
        for late in [code(&mail), link(&mail)] {
            assert_eq!(confirm(app, &access, late).await.refusal(), INVALID);
        }
        assert!(!Tab::open(app, &mail.links[0]).await.1.text.contains("<form"));
        assert_eq!(address(app, &access).await, NEW);
    }
}

both! {
    async fn a_change_of_address_kills_what_else_was_mailed(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let old_way = forgot(app, &ada.email, 1).await;
        app.post("/v1/auth/magic-link", json!({ "email": ada.email })).await;
        let magic = app.mail(&ada.email, "magic_link", 1).await;
        change(app, &ada.access, &ada.email, NEW).await;
        assert_eq!(reset(app, by_link(&old_way, OTHER)).await.refusal(), "422 reset_token_invalid");
        assert_eq!(app.post("/v1/auth/magic-link/consume", link(&magic)).await.refusal(), INVALID);
        assert_eq!(app.login(NEW, PASSWORD).await.status, 200);
    }
}

both! {
    async fn the_old_address_takes_the_account_back(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let thief = Person::of(&app.login(&ada.email, PASSWORD).await);
        let notice = change(app, &thief.access, &ada.email, NEW).await;
        let thiefs_way = forgot(app, NEW, 1).await;
        app.clock.advance(MINUTE);
        for _ in 0..2 {
            app.send(app.client.head(&notice.links[0])).await;
            let (_, page) = Tab::open(app, &notice.links[0]).await;
            assert!(page.text.contains("Undo the change") && page.text.contains(&ada.email) && page.text.contains("<form"), "{}", page.text);
        }
        assert_eq!(address(app, &ada.access).await, NEW, "looking undoes nothing");
        let (tab, _) = Tab::open(app, &notice.links[0]).await;
        let done = tab.press(app).await;
        assert!(done.status == 200 && done.text.contains("The change is undone"), "{}", done.text);
        for access in [&ada.access, &thief.access] {
            assert_eq!(ended(app, access).await, "revoked_by_user");
        }
        let refused = app.login(&ada.email, PASSWORD).await;
        assert_eq!((refused.refusal().as_str(), refused.fields()), ("422 validation_failed", vec!["password:password_breached".to_owned()]));
        assert_eq!(app.login(NEW, PASSWORD).await.refusal(), "401 invalid_credentials");
        assert_eq!(reset(app, by_link(&thiefs_way, OTHER)).await.refusal(), "422 reset_token_invalid");
        assert_eq!(tab.press(app).await.status, 422, "once");

        let way_back = app.mail(&ada.email, "password_reset", 1).await;
        assert_eq!(reset(app, by_link(&way_back, OTHER)).await.status, 200);
        assert_eq!(app.login(&ada.email, OTHER).await.str("/user/id"), ada.id);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'disavowed'").await, 1);
    }
}

both! {
    async fn a_thief_who_changes_twice_takes_nobodys_way_back_and_has_none(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let first = change(app, &ada.access, &ada.email, "thief1@example.com").await;
        app.clock.advance(MINUTE);
        let second = change(app, &ada.access, "thief1@example.com", "thief2@example.com").await;
        app.clock.advance(MINUTE);
        let body = json!({ "current_password": PASSWORD, "new_password": OTHER });
        assert_eq!(send_as(app, Method::PUT, "/v1/me/password", &ada.access, body).await.status, 200);
        let third = app.mail("thief2@example.com", "password_changed", 1).await;
        app.quiet().await;
        app.clock.advance(MINUTE);

        let (thiefs, page) = Tab::open(app, &second.links[0]).await;
        assert!(page.text.contains("<form") && page.text.contains("thief1@example.com"), "until the owner speaks: {}", page.text);
        let (owners, _) = Tab::open(app, &first.links[0]).await;
        assert_eq!(owners.press(app).await.status, 200);
        app.mail(&ada.email, "password_reset", 1).await;
        assert_eq!(thiefs.press(app).await.status, 422, "the thief's undo is dead");
        for dead in [&second, &third] {
            let (tab, page) = Tab::open(app, &dead.links[0]).await;
            assert!(!page.text.contains("<form"), "{}", page.text);
            assert_eq!(tab.press(app).await.status, 422);
        }
        let refused = app.login(&ada.email, OTHER).await;
        assert_eq!(refused.fields(), ["password:password_breached"], "the account is the owner's, and the thief's password is worth nothing");
    }
}

both! {
    async fn a_change_can_be_undone_for_a_week(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let notice = change(app, &ada.access, &ada.email, NEW).await;
        app.clock.advance(7 * DAY - Duration::from_secs(1));
        let (tab, page) = Tab::open(app, &notice.links[0]).await;
        assert!(page.text.contains("<form"), "{}", page.text);
        app.clock.advance(Duration::from_secs(1));
        let late = tab.press(app).await;
        assert!(late.status == 422 && late.text.contains("does not work any more"), "{}", late.text);
        assert!(!tab.look(app).await.text.contains("<form"));
        assert_eq!(app.login(NEW, PASSWORD).await.status, 200, "nothing happened");
    }
}

both! {
    async fn a_change_has_one_winner(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let all = Servers::start(app).await;
        let servers = &all;
        let mut old = ada.email.clone();
        for round in 0..10 {
            let new = format!("ada{round}@example.com");
            servers.post(round, "/v1/me/email", &ada.access, json!({ "email": new })).await;
            let mail = servers.mail(&new, "email_change").await;
            let bodies = (0..20).map(|n| if n % 4 < 2 { link(&mail) } else { code(&mail) });
            let racing = bodies.enumerate().map(|(n, body)| servers.post(n, "/v1/me/email/confirm", &ada.access, body));
            let answers = together(racing.collect()).await;
            let refusals: Vec<String> = answers.iter().map(Answer::refusal).collect();
            assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "{refusals:?}");
            assert!(answers.iter().all(|answer| answer.status == 200 || answer.refusal() == INVALID), "{refusals:?}");
            assert_eq!(address(app, &ada.access).await, new);
            servers.mail(&old, "email_changed").await;
            old = new;
        }
        app.quiet().await;
        assert_eq!(servers.mails(&ada.email, "email_changed").len(), 1);
        assert_eq!(app.count("SELECT COUNT(*) FROM not_me_tokens").await, 10);
        all.stop().await;
    }
}

both! {
    async fn of_two_who_prove_one_address_one_gets_it(app: &TestApp) {
        for round in 0..10 {
            let new = format!("new{round}@example.com");
            let mut racers = Vec::new();
            for (count, name) in (1..).zip(["ada", "bob"]) {
                let person = app.person(&format!("{name}{round}@example.com")).await;
                assert_eq!(ask(app, &person.access, &new).await.status, 202);
                racers.push((app.mail(&new, "email_change", count).await, person));
            }
            let racing = racers.iter().map(|(mail, person)| async move {
                (confirm(app, &person.access, link(mail)).await.refusal(), &person.id)
            });
            let mut done = together(racing.collect()).await;
            done.sort();
            assert_eq!((done[0].0.as_str(), done[1].0.as_str()), ("200 -", "409 conflict"));
            assert_eq!(app.login(&new, PASSWORD).await.str("/user/id"), *done[0].1);
            let losers = if done[1].1 == &racers[0].1.id { &racers[0].1 } else { &racers[1].1 };
            assert_eq!(address(app, &losers.access).await, losers.email, "nothing of the loser's changed");
        }
        app.quiet().await;
    }
}
