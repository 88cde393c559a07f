use std::time::Duration;

use foundation::mail::Kept;
use reqwest::Method;
use serde_json::{Value, json};

use super::steps::{Servers, Tab, cookies, ended, mails, second_factor, suspend, token_of, wrong};
use crate::both;
use crate::support::{Answer, Engine, PASSWORD, TestApp, together};

const INVALID: &str = "422 verification_invalid";

/// Asks for a link; its id and the `count`th mail of that kind, with nothing on its way any more.
async fn ask(app: &TestApp, email: &str, count: usize) -> (String, Kept) {
    let asked = app.post("/v1/auth/magic-link", json!({ "email": email })).await;
    assert_eq!((asked.status, asked.str("/status").as_str()), (202, "magic_link_requested"));
    let mail = app.mail(email, "magic_link", count).await;
    app.quiet().await;
    (asked.str("/magic_link_id"), mail)
}

async fn consume(app: &TestApp, body: Value) -> Answer {
    app.post("/v1/auth/magic-link/consume", body).await
}

fn by_link(mail: &Kept) -> Value {
    json!({ "token": token_of(&mail.links[0]) })
}

fn by_code(id: &str, mail: &Kept) -> Value {
    json!({ "magic_link_id": id, "code": mail.code })
}

both! {
    async fn a_link_or_a_code_signs_in_once(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let (id, mail) = ask(app, &ada.email, 1).await;
        assert!(id.starts_with("mgl_") && mail.links.len() == 1 && mail.code.len() == 6 && mail.text.contains("10 minutes"), "{}", mail.text);
        assert!(!mail.text.contains(&id) && !mail.html.contains(&id), "the id is the half that is not in the mail");
        let body = json!({ "token": token_of(&mail.links[0]), "device_name": "Ada's laptop" });
        let signed_in = consume(app, body).await;
        assert_eq!((signed_in.status, signed_in.str("/user/id")), (200, ada.id.clone()));
        assert_eq!((&signed_in.json["session"]["amr"], &signed_in.json["session"]["aal"]), (&json!(["otp"]), &json!(1)));
        assert_eq!(app.get_as("/v1/me", &signed_in.str("/access_token")).await.status, 200);
        assert_eq!(app.refresh(&signed_in.str("/refresh_token")).await.status, 200);
        for used in [by_link(&mail), by_code(&id, &mail)] {
            assert_eq!(consume(app, used).await.refusal(), INVALID, "link and code end together");
        }

        let (id, mail) = ask(app, &ada.email, 2).await;
        let spaced = format!("{} {}", &mail.code[..3], &mail.code[3..]);
        let in_browser = consume(app, json!({ "magic_link_id": id, "code": spaced, "transport": "cookie" })).await;
        assert_eq!((in_browser.status, in_browser.json.get("refresh_token")), (200, None));
        assert!(in_browser.header("set-cookie").starts_with("__Host-pearlgate-session="), "{}", in_browser.header("set-cookie"));
        assert_eq!(consume(app, by_link(&mail)).await.refusal(), INVALID, "link and code end together");
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200, "the password stays");
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200, "and so do the other sessions");
        for body in [json!({}), json!({ "code": mail.code }), json!({ "magic_link_id": id }), json!({ "token": "pgl_x", "magic_link_id": id, "code": "000000" })] {
            assert_eq!(consume(app, body).await.fields(), ["token:required"]);
        }
        for body in [json!({ "magic_link_id": "nonsense", "code": "000000" }), json!({ "token": "nonsense" })] {
            assert_eq!(consume(app, body).await.refusal(), INVALID);
        }
    }
}

both! {
    async fn asking_answers_the_same_for_everybody_and_mails_only_who_is_there(app: &TestApp) {
        app.person("sue@example.com").await;
        suspend(app).await;
        app.person("ada@example.com").await;
        app.register("eve@example.com").await;
        let there = ["ada@example.com", "sue@example.com", "eve@example.com"];
        let mut answers = Vec::new();
        for email in there.into_iter().chain(["nobody@example.com"]) {
            answers.push(app.post("/v1/auth/magic-link", json!({ "email": email })).await);
        }
        let shape = |answer: &Answer| {
            let names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
            (answer.status, answer.str("/status"), answer.text.len(), names)
        };
        assert!(answers.iter().all(|answer| shape(answer) == shape(&answers[0])), "{answers:?}");
        app.quiet().await;
        assert_eq!(there.map(|email| mails(app, email, "magic_link")), [1, 1, 1]);
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(Some("nobody@example.com"), None).len(), 0);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'magic_link_requested'").await, 4);
        let nobodys = consume(app, json!({ "magic_link_id": answers[3].str("/magic_link_id"), "code": "000000" })).await;
        assert_eq!(nobodys.refusal(), INVALID);
        assert_eq!(app.post("/v1/auth/magic-link", json!({ "email": "nonsense" })).await.fields(), ["email:email_invalid"]);
    }
}

both! {
    async fn an_idempotency_key_gives_the_first_answer_again(app: &TestApp) {
        app.person("ada@example.com").await;
        let ask = || {
            let request = app.request(Method::POST, "/v1/auth/magic-link").header("idempotency-key", "one");
            app.send(request.json(&json!({ "email": "ada@example.com" })))
        };
        let first = ask().await;
        let again = together((0..8).map(|_| ask()).collect()).await;
        assert!(again.iter().all(|answer| answer.status == 202 && answer.text == first.text), "{again:?}");
        app.quiet().await;
        assert_eq!(mails(app, "ada@example.com", "magic_link"), 1);
    }
}

both! {
    async fn a_newer_mail_replaces_an_older_one_and_a_code_has_one_id(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let eve = app.person("eve@example.com").await;
        let (first, old) = ask(app, &ada.email, 1).await;
        let (eves, _) = ask(app, &eve.email, 1).await;
        let (second, new) = ask(app, &ada.email, 2).await;
        for dead in [by_link(&old), by_code(&first, &old), by_code(&first, &new), by_code(&eves, &new)] {
            assert_eq!(consume(app, dead).await.refusal(), INVALID);
        }
        let signed_in = consume(app, by_code(&second, &new)).await;
        assert_eq!((signed_in.status, signed_in.str("/user/id")), (200, ada.id));
    }
}

both! {
    async fn a_magic_link_lives_ten_minutes(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let (_, mail) = ask(app, &ada.email, 1).await;
        app.clock.advance(Duration::from_secs(599));
        assert_eq!(consume(app, by_link(&mail)).await.status, 200);
        let (id, mail) = ask(app, &ada.email, 2).await;
        app.clock.advance(Duration::from_secs(600));
        for late in [by_link(&mail), by_code(&id, &mail)] {
            assert_eq!(consume(app, late).await.refusal(), INVALID);
        }
        let (_, page) = Tab::open(app, &mail.links[0]).await;
        assert!(page.text.contains("does not work any more") && !page.text.contains("<form"), "{}", page.text);
    }
}

both! {
    async fn five_wrong_guesses_kill_a_code_and_its_link_lives_on(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let (id, mail) = ask(app, &ada.email, 1).await;
        for _ in 0..5 {
            let guess = json!({ "magic_link_id": id, "code": wrong(&mail.code) });
            assert_eq!(consume(app, guess).await.refusal(), INVALID);
        }
        assert_eq!(consume(app, by_code(&id, &mail)).await.refusal(), INVALID, "the code is dead");
        assert_eq!(consume(app, by_link(&mail)).await.status, 200);
        assert_eq!(app.count("SELECT COUNT(*) FROM code_failures").await, 0, "the mailbox is proven");
    }
}

both! {
    async fn the_first_proof_of_a_mailbox_takes_what_a_stranger_planted(app: &TestApp) {
        let planted = json!({ "email": "ada@example.com", "password": PASSWORD, "display_name": "Mallory", "metadata": { "plan": "x" } });
        let verification = app.post("/v1/auth/register", planted).await.str("/verification_id");
        let proof = app.mail("ada@example.com", "verify_email", 1).await;
        second_factor(app).await;
        let (_, mail) = ask(app, "ada@example.com", 1).await;
        let signed_in = consume(app, by_link(&mail)).await;
        assert_eq!((signed_in.status, &signed_in.json["user"]["email_verified"]), (200, &json!(true)), "{}", signed_in.text);
        let me = app.get_as("/v1/me", &signed_in.str("/access_token")).await;
        assert_eq!((me.str("/display_name").as_str(), &me.json["metadata"]), ("", &json!({})));
        assert_eq!(app.login("ada@example.com", PASSWORD).await.refusal(), "401 invalid_credentials");
        let verified = app.post("/v1/auth/verify-email", json!({ "verification_id": verification, "code": proof.code })).await;
        assert_eq!(verified.refusal(), INVALID, "and it does not come back");
        assert_eq!(app.count("SELECT COUNT(*) FROM password_credentials").await, 0);
    }
}

both! {
    async fn a_second_factor_is_asked_for_all_the_same(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        second_factor(app).await;
        let (_, mail) = ask(app, &ada.email, 1).await;
        assert_eq!(consume(app, by_link(&mail)).await.refusal(), "200 mfa_required");
        assert_eq!(consume(app, by_link(&mail)).await.refusal(), INVALID, "once");
        let (tab, _) = Tab::open(app, &ask(app, &ada.email, 2).await.1.links[0]).await;
        let page = tab.press(app).await;
        assert_eq!((page.status, page.header("location")), (303, "/mfa"), "{}", page.text);
        assert!(cookies(&page).iter().all(|cookie| !cookie.contains("pearlgate-session")));
        assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 1);
    }
}

both! {
    async fn a_suspended_person_is_told_only_once_the_mailbox_is_proven(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        suspend(app).await;
        let (id, mail) = ask(app, &ada.email, 1).await;
        let guess = json!({ "magic_link_id": id, "code": wrong(&mail.code) });
        assert_eq!(consume(app, guess).await.refusal(), INVALID);
        assert_eq!(consume(app, by_code(&id, &mail)).await.refusal(), "403 account_suspended");
        let (tab, _) = Tab::open(app, &ask(app, &ada.email, 2).await.1.links[0]).await;
        let page = tab.press(app).await;
        assert!(page.status == 403 && page.text.contains("Your account is suspended"), "{}", page.text);
        assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 1);
    }
}

both! {
    async fn the_link_opens_a_page_that_signs_the_browser_in(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let link = ask(app, &ada.email, 1).await.1.links[0].clone();
        for _ in 0..3 {
            assert_eq!(app.send(app.client.head(&link)).await.status, 303);
            let (_, page) = Tab::open(app, &link).await;
            assert!(page.text.contains("<form") && page.text.contains(&format!("Sign in as {}", ada.email)), "{}", page.text);
            assert_eq!(cookies(&page), Vec::<String>::new(), "looking signs nobody in");
        }
        let (tab, _) = Tab::open(app, &link).await;
        assert_eq!(tab.submit_from(app, "https://evil.example", "").await.refusal(), "403 permission_denied");
        assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 1);
        let done = tab.press(app).await;
        assert!(done.status == 200 && done.text.contains("You are signed in"), "{}", done.text);
        let set = cookies(&done);
        let session = set.iter().find(|cookie| cookie.starts_with("__Host-pearlgate-session=pgr_")).unwrap();
        for part in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
            assert!(session.contains(part), "{session}");
        }
        let gone = set.iter().any(|cookie| cookie.starts_with("__Host-pearlgate-magic-link=;") && cookie.contains("Max-Age=0"));
        assert!(gone, "the link's own cookie goes: {set:?}");
        assert_eq!(tab.press(app).await.status, 422, "once");

        let send = |path: &str, cookie: &str, origin: &str| {
            app.send(app.request(Method::POST, path).header("cookie", cookie).header("origin", origin))
        };
        let (refresh, logout) = ("/v1/auth/refresh", "/v1/auth/logout");
        let cookie = session.split(';').next().unwrap();
        for foreign in ["https://evil.example", "null"] {
            assert_eq!(send(refresh, cookie, foreign).await.refusal(), "403 permission_denied");
            assert_eq!(send(logout, cookie, foreign).await.refusal(), "403 permission_denied");
        }
        let nobodys = app.send(app.request(Method::POST, refresh).header("cookie", cookie)).await;
        assert_eq!(nobodys.refusal(), "403 permission_denied", "who does not say where it comes from");
        let planted = cookie.replace("__Host-", "__host-");
        assert_eq!(send(refresh, &planted, &app.url).await.fields(), ["refresh_token:required"], "another name is another cookie");
        let twice = send(refresh, &format!("{cookie}; {cookie}"), &app.url).await;
        assert_eq!(twice.fields(), ["refresh_token:required"], "two cookies of one name are none");

        let refreshed = send(refresh, cookie, &app.url).await;
        assert_eq!((refreshed.status, refreshed.json.get("refresh_token")), (200, None), "{}", refreshed.text);
        assert_eq!((refreshed.str("/user/email"), &refreshed.json["session"]["amr"]), (ada.email, &json!(["otp"])));
        let next = refreshed.header("set-cookie").split(';').next().unwrap();
        assert!(next.starts_with("__Host-pearlgate-session=pgr_") && next != cookie, "{next}");
        let access = refreshed.str("/access_token");
        assert_eq!(app.get_as("/v1/me", &access).await.status, 200);

        let out = send(logout, next, &app.url).await;
        assert!(out.status == 204 && out.header("set-cookie").contains("Max-Age=0"), "{:?}", out.headers);
        assert_eq!(ended(app, &access).await, "logged_out");
        assert_eq!(send(refresh, next, &app.url).await.str("/reason"), "logged_out");
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200, "the other session lives on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switched_off_there_are_none() {
    let app = TestApp::with(Engine::Sqlite, true, "[magic_link]\nenabled = false").await;
    let ada = app.person("ada@example.com").await;
    let asked = app.post("/v1/auth/magic-link", json!({ "email": ada.email })).await;
    assert_eq!(asked.refusal(), "404 not_found");
    let token = json!({ "token": format!("pgl_{}", "A".repeat(43)) });
    assert_eq!(consume(&app, token).await.refusal(), "404 not_found");
    app.quiet().await;
    assert_eq!(mails(&app, &ada.email, "magic_link"), 0);
    app.finish().await;
}

both! {
    async fn a_magic_link_has_one_winner(app: &TestApp) {
        let mut people = Vec::new();
        for round in 0..20 {
            people.push(app.person(&format!("ada{round}@example.com")).await.email);
        }
        let all = Servers::start(app).await;
        let servers = &all;
        for email in &people {
            let id = servers.post(0, "/v1/auth/magic-link", "", json!({ "email": email })).await.str("/magic_link_id");
            let mail = servers.mail(email, "magic_link").await;
            let bodies = (0..30).map(|n| if n % 4 < 2 { by_link(&mail) } else { by_code(&id, &mail) });
            let racing = bodies.enumerate().map(|(n, body)| servers.post(n, "/v1/auth/magic-link/consume", "", body));
            let answers = together(racing.collect()).await;
            let winners = answers.iter().filter(|answer| answer.status == 200).count();
            assert_eq!(winners, 1, "{:?}", answers.iter().map(Answer::refusal).collect::<Vec<_>>());
            assert!(answers.iter().all(|answer| answer.status == 200 || answer.refusal() == INVALID), "{:?}", answers.iter().map(Answer::refusal).collect::<Vec<_>>());
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 40, "one each from registering, and one from the link");
        all.stop().await;
    }
}
