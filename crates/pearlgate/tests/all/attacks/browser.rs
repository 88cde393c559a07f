use reqwest::Method;
use serde_json::json;

use super::support::{OTHER, ask, host, post, token_of, wire};
use crate::both;
use crate::support::{Answer, PASSWORD, Person};

/// What no cache keeps, not even to ask again.
fn private(what: &str, answer: &Answer) {
    assert_eq!(answer.header("cache-control"), "no-store", "{what}");
    for name in ["etag", "last-modified", "expires", "age"] {
        assert_eq!(answer.header(name), "", "{what} has {name}");
    }
}

both! {
    async fn a72_cve_2026_30246_caching_of_secrets(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let elsewhere = Person::of(&app.login(&ada.email, PASSWORD).await);
        let registered = post(app, "/v1/auth/register", &json!({ "email": "eve@ex.test", "password": OTHER })).await;
        private("register", &registered);
        let mail = app.mail("eve@ex.test", "verify_email", 1).await;

        // The page behind the link, before and after its token is in the cookie, right and wrong.
        let opened = ask(app, app.request(Method::GET, mail.links[0].strip_prefix(&app.url).unwrap())).await;
        private("the mailed link", &opened);
        assert_eq!(opened.header("location"), "/verify-email", "the token is out of the address");
        let cookie = opened.header("set-cookie").split(';').next().unwrap().to_owned();
        assert!(cookie.contains(&token_of(&mail.links[0])));
        for with in ["", "__Host-pearlgate-verify=pgv_x", cookie.as_str()] {
            private("the page", &ask(app, app.request(Method::GET, "/verify-email").header("cookie", with)).await);
            private("the page's head", &ask(app, app.request(Method::HEAD, "/verify-email").header("cookie", with)).await);
            let form = app.request(Method::POST, "/verify-email").header("cookie", with).header("sec-fetch-site", "same-origin");
            private("the form", &ask(app, form.header("content-type", "application/x-www-form-urlencoded").body("password=short")).await);
        }

        // Every call that answers tokens or what is personal, and every refusal of one.
        for (path, body) in [
            ("/v1/auth/login", json!({ "email": ada.email, "password": PASSWORD })),
            ("/v1/auth/login", json!({ "email": ada.email, "password": OTHER })),
            ("/v1/auth/login", json!({ "email": ada.email })),
            ("/v1/auth/verify-email", json!({ "verification_id": registered.str("/verification_id"), "code": mail.code })),
            ("/v1/auth/verify-email", json!({ "verification_id": registered.str("/verification_id"), "code": mail.code })),
            ("/v1/auth/resend-verification", json!({ "email": ada.email })),
            ("/v1/auth/refresh", json!({ "refresh_token": ada.refresh })),
            ("/v1/auth/refresh", json!({ "refresh_token": "pgr_x" })),
            ("/v1/auth/logout", json!({ "refresh_token": elsewhere.refresh })),
        ] {
            private(path, &post(app, path, &body).await);
        }
        for (method, path) in [(Method::GET, "/v1/me"), (Method::HEAD, "/v1/me"), (Method::PATCH, "/v1/me"), (Method::GET, "/v1/me/activity"), (Method::GET, "/v1/me?x.css"),
            (Method::PUT, "/v1/me"), (Method::OPTIONS, "/v1/me"), (Method::GET, "/v1/auth/login"), (Method::GET, "/dev/v1/messages"), (Method::GET, "/dev/mailbox")] {
            for (token, validator) in [(ada.access.as_str(), "*"), (elsewhere.access.as_str(), "\"x\""), ("garbage", "*")] {
                let request = app.request(method.clone(), path).bearer_auth(token).header("if-none-match", validator);
                let request = request.header("if-modified-since", "Mon, 23 Nov 2026 10:00:00 GMT").json(&json!({}));
                let answer = ask_any(app, request).await;
                private(path, &answer);
                assert_ne!(answer.status, 304, "{path}");
            }
            private(path, &ask_any(app, app.request(method, path)).await);
        }
        let me = app.get_as("/v1/me", &ada.access).await;
        assert_eq!((me.status, me.str("/email").as_str()), (200, "ada@ex.test"), "so the paths below would give something away");

        // A cache in front that goes by suffixes finds nothing behind them, whatever it and we take for a separator.
        for path in ["/v1/me;x.css", "/v1/me/x.js", "/v1/me%2f..", "/v1/me%2fx.css", "/v1/me%3bx.css", "/v1/me%3fx.css", "/v1/me%23x.css", "/v1/me%00.css", "/v1/me%0a.css",
            "/v1/me%09.css", "/v1/me%20.css", "/v1/me.css", "/v1/me.json", "/v1/me/.css", "/v1/me/", "/v1/me//", "//v1/me", "/v1//me", "/v1/./me", "/v1/x/../me", "/static/../v1/me", "/static/..%2fv1/me",
            "/static/%2e%2e/v1/me", "/v1/me/..%2fx.css", "/v1/me/%2e%2e/me", "/V1/ME", "/v1/m%65", "/v1%2fme", "/v1/me\\x.css", "/v1/me%5cx.css", "/v1/me!x.css", "/v1/me,x.css", "/v1/me~x.css", "/v1/me$x.css",
            "/v1/me@x.css", "/v1/me:x.css", "/v1/me%c0%afx.css", "/v1/me%ff.css", "/v1/me/activity/x.css", "/v1/me/activity;x.css", "/v1/me/activity.css", "/v1/me/activity%2f..%2f..%2fme",
            "/v1/me/activity/..;/x.css", "/verify-email/x.css", "/verify-email;x.css", "/assets/../v1/me?x.css", "/robots.txt/../v1/me"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n", host(&app.url), ada.access);
            let answer = wire(&app.url, request.as_bytes()).await;
            let only = &answer.answers[0];
            assert!(answer.answers.len() == 1 && (only.status == 404 || only.status == 400), "{path}: {only:?}");
            // What hyper refuses before it is a request (400 without a body) has nothing that could be kept.
            assert!(only.head.contains("cache-control: no-store") || (only.status == 400 && only.body.is_empty()), "{path}: {}", only.head);
            assert!(!only.body.contains("ada@ex.test") && !only.head.contains("set-cookie"), "{path}: {only:?}");
        }

        // What is public may be kept, and holds nothing of anybody.
        for path in ["/.well-known/jwks.json", "/.well-known/openid-configuration", "/openapi.json"] {
            let public = ask_any(app, app.request(Method::GET, path).bearer_auth(&ada.access).header("cookie", &cookie)).await;
            assert!(public.status == 200 && !public.text.contains("@ex.test") && public.header("set-cookie").is_empty(), "{path}");
            assert!(!public.text.contains("\"d\""), "a private key: {}", public.text);
        }
        // Not yet: cookies for the API with `Vary`, and Clear-Site-Data when those are signed out.
    }
}

/// Dev mode's own mailbox shows mailed tokens, and the description has our password as its example.
async fn ask_any(app: &crate::support::TestApp, request: reqwest::RequestBuilder) -> Answer {
    let answer = app.send(request).await;
    assert!(answer.status < 500, "{}", answer.text);
    answer
}
