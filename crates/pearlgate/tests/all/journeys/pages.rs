use reqwest::Method;
use serde_json::json;

use super::access::owner;
use super::authenticator::{WRONG, enrol, finish, half};
use super::invitations::invited;
use super::steps::send_as;
use crate::both;
use crate::support::browser::Browser;
use crate::support::{Answer, PASSWORD, TestApp, filled};

const OWN: &str = "an owner's own quiet words";

/// A browser as far as these pages need one: it keeps the one cookie and says where its forms come from.
async fn open(app: &TestApp, link: &str) -> (Answer, String) {
    let page = link.trim_start_matches(&app.url).split('?').next().unwrap();
    let moved = app.send(app.client.get(link)).await;
    assert_eq!((moved.status, moved.header("location")), (303, page));
    let cookie = moved.header("set-cookie").to_owned();
    for part in ["__Host-", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let page = app.send(app.request(Method::GET, page).header("cookie", &cookie)).await;
    (page, cookie)
}

async fn submit(app: &TestApp, cookie: &str, password: &str) -> Answer {
    let form = app.request(Method::POST, "/verify-email").header("cookie", cookie).header("origin", &app.url);
    app.send(form.header("content-type", "application/x-www-form-urlencoded").body(filled(cookie, password)))
        .await
}

both! {
    async fn the_link_of_a_mail_opens_a_page_where_the_owner_chooses_a_password(app: &TestApp) {
        app.register("ada@example.com").await;
        let link = app.mail("ada@example.com", "verify_email", 1).await.links[0].clone();
        for _ in 0..3 {
            app.send(app.client.head(&link)).await;
            let (page, _) = open(app, &link).await;
            assert!(page.status == 200 && page.text.contains("<form") && page.text.contains("name=\"password\""), "{}", page.text);
            assert!(!page.text.contains("pgv_"), "the token is not in the page");
            assert!(page.header("content-security-policy").contains("default-src 'none'"));
        }
        let (_, cookie) = open(app, &link).await;
        let short = submit(app, &cookie, "short").await;
        assert!(short.status == 422 && short.text.contains("at least 15"), "{}", short.text);
        let done = submit(app, &cookie, OWN).await;
        assert!(done.status == 200 && done.text.contains("verified") && done.header("set-cookie").contains("Max-Age=0"), "{}", done.text);
        let login = app.login("ada@example.com", OWN).await;
        assert_eq!((login.status, login.str("/user/display_name").as_str()), (200, ""), "nor does the name that somebody gave stay");
        assert_eq!(app.login("ada@example.com", PASSWORD).await.refusal(), "401 invalid_credentials", "the registration's password died");
        assert_eq!(submit(app, &cookie, OWN).await.status, 422, "a link works once");
        let (page, _) = open(app, &link).await;
        assert!(page.status == 200 && !page.text.contains("<form"), "{}", page.text);
    }
}

both! {
    async fn the_form_is_taken_from_our_own_page_alone(app: &TestApp) {
        app.register("ada@example.com").await;
        let link = app.mail("ada@example.com", "verify_email", 1).await.links[0].clone();
        let (_, cookie) = open(app, &link).await;
        for (name, value) in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("x-nothing", "")] {
            let form = app.request(Method::POST, "/verify-email").header("cookie", &cookie).header(name, value);
            let refused = app.send(form.header("content-type", "application/x-www-form-urlencoded").body(filled(&cookie, OWN))).await;
            assert_eq!(refused.refusal(), "403 permission_denied", "{name}: {value}");
        }
        let twice = format!("{cookie}; {cookie}x");
        let ambiguous = submit(app, &twice, OWN).await;
        assert!(!ambiguous.text.contains("You can go back"), "two cookies of one name are none");
        let nothing = app.send(app.request(Method::POST, "/verify-email").header("origin", &app.url).header("content-type", "application/x-www-form-urlencoded").body(filled(&cookie, OWN))).await;
        assert!(nothing.text.contains("link"), "{}", nothing.text);
        assert_eq!(submit(app, &cookie, OWN).await.status, 200);
    }
}

both! {
    async fn a_link_opened_meanwhile_does_not_take_over_an_open_form(app: &TestApp) {
        app.register("vic@example.com").await;
        app.register("mal@example.com").await;
        let link = app.mail("vic@example.com", "verify_email", 1).await.links[0].clone();
        let (page, victims) = open(app, &link).await;
        assert!(page.text.contains("vic@example.com"), "the page says whose password it is");
        let link = app.mail("mal@example.com", "verify_email", 1).await.links[0].clone();
        let (_, other) = open(app, &link).await;
        let form = app.request(Method::POST, "/verify-email").header("cookie", &other).header("origin", &app.url);
        let form = form.header("content-type", "application/x-www-form-urlencoded").body(filled(&victims, OWN));
        assert!(app.send(form).await.text.contains("open the link again"));
        assert_eq!(app.login("mal@example.com", OWN).await.refusal(), "401 invalid_credentials");
    }
}

both! {
    async fn no_mail_links_to_nowhere(app: &TestApp) {
        // Every kind of mail there is.
        app.register("ada@example.com").await;
        app.mail("ada@example.com", "verify_email", 1).await;
        let eve = app.person("eve@example.com").await;
        app.register(&eve.email).await;
        let second = app.refresh(&eve.refresh).await.str("/refresh_token");
        app.refresh(&second).await;
        app.refresh(&eve.refresh).await;
        app.mail(&eve.email, "refresh_token_reused", 1).await;
        app.mail(&eve.email, "already_registered", 1).await;
        app.post("/v1/auth/forgot-password", json!({ "email": eve.email })).await;
        let reset = app.mail(&eve.email, "password_reset", 1).await;
        let body = json!({ "email": eve.email, "code": reset.code, "password": OWN });
        assert_eq!(app.post("/v1/auth/reset-password", body).await.status, 200);
        app.mail(&eve.email, "password_changed", 1).await;
        let fay = app.person("fay@example.com").await;
        for (to, kind) in [(&eve.email, "email_change_taken"), (&"fay@example.org".to_owned(), "email_change")] {
            let change = app.request(Method::POST, "/v1/me/email").bearer_auth(&fay.access).json(&json!({ "email": to }));
            assert_eq!(app.send(change).await.status, 202);
            app.mail(to, kind, 1).await;
        }
        let code = app.mail("fay@example.org", "email_change", 1).await.code;
        let confirm = app.request(Method::POST, "/v1/me/email/confirm").bearer_auth(&fay.access).json(&json!({ "code": code }));
        assert_eq!(app.send(confirm).await.status, 200);
        app.mail(&fay.email, "email_changed", 1).await;
        app.post("/v1/auth/magic-link", json!({ "email": eve.email })).await;
        app.mail(&eve.email, "magic_link", 1).await;
        app.put_fault("breach", "down").await;
        let gil = json!({ "email": "gil@example.com", "password": "correct horse battery staple" });
        let id = app.post("/v1/auth/register", gil).await.str("/verification_id");
        let code = app.mail("gil@example.com", "verify_email", 1).await.code;
        assert_eq!(app.post("/v1/auth/verify-email", json!({ "verification_id": id, "code": code })).await.status, 200);
        app.put_fault("breach", "none").await;
        assert_eq!(app.login("gil@example.com", "correct horse battery staple").await.status, 422);
        app.mail("gil@example.com", "password_breached", 1).await;
        app.login("fay@example.org", PASSWORD).await;
        app.mail("fay@example.org", "new_device", 1).await;
        for _ in 0..5 {
            app.login("fay@example.org", "not the password at all").await;
        }
        app.mail("fay@example.org", "account_locked", 1).await;
        let hal = app.person("hal@example.com").await;
        let factor = enrol(app, &hal).await;
        app.mail(&hal.email, "mfa_changed", 1).await;
        for _ in 0..10 {
            let token = half(app, &hal.email, PASSWORD).await;
            assert_eq!(finish(app, &token, "totp", &factor.wrong(app)).await.refusal(), WRONG);
        }
        app.mail(&hal.email, "mfa_failures", 1).await;
        app.clock.advance(std::time::Duration::from_secs(60));
        let token = half(app, &hal.email, PASSWORD).await;
        assert_eq!(finish(app, &token, "recovery_code", &factor.recovery[0]).await.status, 200);
        app.mail(&hal.email, "recovery_code_used", 1).await;
        assert!(pearlgate::mfa::announce_reset(&app.app, hal.id.parse().unwrap()).await.unwrap());
        app.mail(&hal.email, "factor_reset", 1).await;
        let ida = app.person("ida@example.com").await;
        app.sql("INSERT INTO email_code_factors (user_id, since) SELECT user_id, 1 FROM user_emails WHERE address_key = 'ida@example.com'").await;
        let token = half(app, &ida.email, PASSWORD).await;
        let asked = app.post("/v1/auth/mfa/challenge", json!({ "mfa_token": token, "type": "email_code" })).await;
        assert_eq!(asked.status, 200, "{}", asked.text);
        app.mail(&ida.email, "mfa_code", 1).await;
        let jon = app.person("jon@example.com").await;
        Browser::new(app).link_pretend(&jon.access).await;
        app.mail(&jon.email, "identity_changed", 1).await;
        let owner = owner(app).await;
        invited(app, &owner.access, "kim@example.com", json!([]), 1).await;
        let key = json!({ "name": "k", "permissions": ["users:read"] });
        assert_eq!(send_as(app, Method::POST, "/v1/admin/api-keys", &owner.access, key).await.status, 201);
        app.mail(&owner.email, "api_key_made", 1).await;
        let lea = app.person("lea@example.com").await;
        let path = format!("/v1/admin/users/{}/impersonate", lea.id);
        assert_eq!(send_as(app, Method::POST, &path, &owner.access, json!({ "reason": "x" })).await.status, 200);
        app.mail(&lea.email, "impersonated", 1).await;
        let leave = app.request(Method::DELETE, "/v1/me").bearer_auth(&lea.access);
        assert_eq!(app.send(leave).await.status, 202);
        let mail = app.mail(&lea.email, "account_closing", 1).await;
        let body = json!({ "token": mail.links[0].split_once("token=").unwrap().1 });
        assert_eq!(app.post("/v1/auth/keep-account", body).await.status, 204);
        app.mail(&lea.email, "account_kept", 1).await;
        let max = app.person("max@example.com").await;
        pearlgate::accounts::close(&app.app, max.id.parse().unwrap()).await.unwrap().unwrap();
        app.mail(&max.email, "account_closing", 1).await;
        let mails = app.app.mailbox.as_ref().unwrap().list(None, None);
        let sent: std::collections::BTreeSet<&str> = mails.iter().map(|mail| mail.kind.as_str()).collect();
        assert_eq!(sent, pearlgate::templates::mails().collect(), "a kind of mail that this test does not know");
        for mail in &mails {
            assert!(!mail.subject.is_empty() && !mail.text.contains("{{") && !mail.html.contains("{{"));
            let in_html = mail.html.matches("href=").count();
            assert_eq!(in_html, mail.links.len(), "{}: the two parts have the same links", mail.kind);
            for link in &mail.links {
                assert!(link.starts_with(&app.url), "{link}");
                let page = if link.contains("?token=") { open(app, link).await.0 } else { app.send(app.client.get(link)).await };
                assert_eq!(page.status, 200, "{link}");
            }
        }
    }
}

both! {
    async fn refusals_are_pages_for_browsers_and_documents_for_programs(app: &TestApp) {
        let page = app.send(app.request(Method::GET, "/nowhere").header("accept", "text/html,application/xhtml+xml")).await;
        assert!(page.status == 404 && page.header("content-type").starts_with("text/html") && page.text.contains("not_found"), "{}", page.text);
        let document = app.get("/nowhere").await;
        assert_eq!((document.refusal().as_str(), document.header("content-type")), ("404 not_found", "application/problem+json"));
        assert_eq!(document.json["type"], json!(format!("{}/errors/not_found", app.url)));
        assert_eq!(document.str("/request_id"), document.header("x-request-id"));
        let path = document.str("/type").replace(&app.url, "");
        assert!(app.get(&path).await.text.contains("not_found"));
        for path in ["/errors", "/docs", "/dev/mailbox", "/dev/mailbox?to=ada@example.com"] {
            let page = app.get(path).await;
            assert!(page.status == 200 && page.text.starts_with("<!doctype html>"), "{path}: {}", page.text);
            assert!(!page.text.contains("<script") && !page.text.contains(" style=\""), "{path}");
        }
        assert_eq!(app.get("/errors/no_such_code").await.status, 404);
        assert!(app.get("/docs").await.text.contains("Send the mail again"));
    }
}
