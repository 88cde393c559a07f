//! Requests that other sites make in the name of whoever is signed in, and answers that they would like to read.

use pearlgate::router::doors;
use pearlgate::settings::{self, Purpose, Settings};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::mailed::{NEW, forgot, open, press};
use super::support::{OTHER, ask};
use crate::both;
use crate::support::{Answer, Engine, PASSWORD, TestApp, filled};

const FORM: &str = "application/x-www-form-urlencoded";
const DENIED: &str = "403 permission_denied";

/// The session cookie of somebody who signs in with a browser.
async fn signed_in(app: &TestApp, email: &str, password: &str) -> String {
    let body = json!({ "email": email, "password": password, "transport": "cookie" });
    let request = app.request(Method::POST, "/v1/auth/login").header("origin", app.url.as_str());
    let entered = ask(app, request.json(&body)).await;
    assert_eq!(entered.status, 200, "{}", entered.text);
    let all = entered.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let mut ours = all.filter(|cookie| cookie.starts_with("__Host-pearlgate-session=pgr_"));
    ours.next().unwrap().split(';').next().unwrap().to_owned()
}

/// Whatever a request could have changed.
async fn state(app: &TestApp) -> Vec<i64> {
    let mut counts = Vec::new();
    for sql in [
        "SELECT COUNT(*) FROM users",
        "SELECT COUNT(*) FROM users WHERE display_name = 'Ada'",
        "SELECT COUNT(*) FROM verified_emails",
        "SELECT COUNT(*) FROM sessions",
        "SELECT COUNT(*) FROM ended_sessions",
        "SELECT COUNT(*) FROM email_verification_tokens",
        "SELECT COUNT(*) FROM password_reset_tokens",
        "SELECT COUNT(*) FROM magic_link_tokens",
        "SELECT COUNT(*) FROM email_change_tokens",
        "SELECT COUNT(*) FROM not_me_tokens",
        "SELECT COUNT(*) FROM idempotency_keys",
        "SELECT COUNT(*) FROM audit_events",
        "SELECT CAST(COALESCE(SUM(rotated_at), 0) AS BIGINT) FROM refresh_tokens",
        "SELECT CAST(COALESCE(SUM(set_at), 0) AS BIGINT) FROM password_credentials",
    ] {
        counts.push(app.count(sql).await);
    }
    app.quiet().await;
    counts.push(i64::try_from(app.app.mailbox.as_ref().unwrap().list(None, None).len()).unwrap());
    counts
}

/// What a call would do if it were let through.
fn body(path: &str) -> Value {
    match path {
        "/v1/auth/login" => json!({ "email": "eve@evil.test", "password": PASSWORD, "transport": "cookie" }),
        "/v1/auth/register" => json!({ "email": "new@evil.test", "password": OTHER }),
        "/v1/auth/forgot-password" | "/v1/auth/magic-link" | "/v1/auth/resend-verification" => {
            json!({ "email": "ada@ex.test" })
        }
        "/v1/me" => json!({ "display_name": "Eve" }),
        "/v1/me/password" => json!({ "current_password": PASSWORD, "new_password": NEW }),
        "/v1/me/email" => json!({ "email": "eve@evil.test" }),
        "/v1/me/reauthenticate" => json!({ "password": PASSWORD, "transport": "cookie" }),
        "/dev/v1/clock" => json!({ "advance": "1s" }),
        _ => json!({}),
    }
}

/// How a page can send a body without asking first, and how a script would.
fn shapes(body: &Value) -> [(&'static str, String); 4] {
    let fields = body.as_object().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().replace(' ', "+");
    let form: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
    let parts: Vec<String> = fields
        .iter()
        .map(|(name, value)| {
            format!(
                "--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{}\r\n",
                value.as_str().unwrap_or_default()
            )
        })
        .collect();
    [
        ("application/json", body.to_string()),
        (FORM, form.join("&")),
        ("text/plain", body.to_string()),
        ("multipart/form-data; boundary=x", format!("{}--x--\r\n", parts.concat())),
    ]
}

/// Every route that changes something, as addresses that exist.
fn unsafe_routes(app: &TestApp) -> Vec<(Method, String)> {
    let unsafe_ones = doors(&app.app).routes.into_iter().filter(|route| route.method != Method::GET);
    let concrete = |path: &str| {
        let parts: Vec<&str> = path
            .split('/')
            .map(|part| match part {
                "{dependency}" => "breach",
                part if part.starts_with('{') => "ses_00000000000000000000000000",
                part => part,
            })
            .collect();
        parts.join("/")
    };
    unsafe_ones.map(|route| (route.method, concrete(route.path))).collect()
}

fn with(request: RequestBuilder, headers: &[(&str, &str)]) -> RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

both! {
    async fn a67_cve_2021_41275_csrf(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        app.person("eve@evil.test").await;
        let session = signed_in(app, &ada.email, PASSWORD).await;
        let mail = forgot(app, &ada.email, 1).await;
        let tab = open(app, &mail.links[0]).await;
        let cookies = format!("{session}; {}", tab.cookie);
        let (https, sibling) = (app.url.replace("http://", "https://"), app.url.replace("http://", "http://shop."));
        let (other_port, longer) = (format!("{}0", app.url), format!("{}.evil.example", app.url));
        // Providers have browsers post to the callback: from another site that is sent on, and does nothing else.
        let (posted, routes): (Vec<_>, Vec<_>) =
            unsafe_routes(app).into_iter().partition(|(_, path)| path.ends_with("/callback"));
        assert!(routes.len() > 20 && posted.len() == 1, "{routes:?}");
        let before = state(app).await;

        // From another site, whatever it says of itself, and with whatever the browser adds on its own.
        let senders: [&[(&str, &str)]; 11] = [
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("origin", https.as_str())],
            &[("origin", sibling.as_str())],
            &[("origin", other_port.as_str())],
            &[("origin", longer.as_str())],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example"), ("sec-fetch-mode", "no-cors")],
            &[("sec-fetch-site", "same-site"), ("origin", sibling.as_str())],
            &[("sec-fetch-site", "cross-site"), ("origin", "null")],
        ];
        for sender in senders {
            let request = with(app.request(Method::POST, "/v1/auth/oauth/dev/callback"), sender).header("content-type", FORM);
            let sent_on = ask(app, request.header("cookie", &cookies).body("state=x&code=verified&user=y")).await;
            assert_eq!((sent_on.status, sent_on.header("set-cookie")), (303, ""), "{sender:?}");
            assert_eq!(sent_on.header("location"), "/v1/auth/oauth/dev/callback?state=x&code=verified");
        }
        for (method, path) in &routes {
            let shapes = if path == "/reset-password" { vec![(FORM, filled(&tab.cookie, NEW))] } else { shapes(&body(path)).to_vec() };
            for sender in senders {
                for (kind, text) in &shapes {
                    let request = with(app.request(method.clone(), path), sender).header("content-type", *kind).body(text.clone());
                    let refused = ask(app, request.header("cookie", &cookies)).await;
                    assert_eq!(refused.refusal(), DENIED, "{method} {path} {sender:?} {kind}");
                    assert_eq!(refused.header("set-cookie"), "", "{method} {path}");
                }
                // Not even in nobody's name, or with a token that only a script could have added.
                let bare = with(app.request(method.clone(), path), sender).json(&body(path));
                assert_eq!(ask(app, bare).await.refusal(), DENIED, "{method} {path} {sender:?}");
                let token = with(app.request(method.clone(), path), sender).json(&body(path)).bearer_auth(&ada.access);
                assert_eq!(ask(app, token).await.refusal(), DENIED, "{method} {path} {sender:?}");
            }
        }
        assert_eq!(state(app).await, before);

        // The cookie opens nothing for who does not say where they come from.
        for (method, path) in &routes {
            if !(path.starts_with("/v1/me") || path == "/v1/auth/refresh" || path == "/v1/auth/logout" || path == "/reset-password") {
                continue;
            }
            let silent: [&[(&str, &str)]; 6] = [&[], &[("sec-fetch-site", "none")], &[("sec-fetch-site", "")], &[("referer", "https://evil.example/")], &[("referer", app.url.as_str())], &[("x-requested-with", "XMLHttpRequest")]];
            for sender in silent {
                let shapes = if path == "/reset-password" { vec![(FORM, filled(&tab.cookie, NEW))] } else { vec![("application/json", "{}".to_owned()), ("application/json", body(path).to_string())] };
                for (kind, text) in shapes {
                    let text = if path.starts_with("/v1/auth/") { String::new() } else { text };
                    let request = with(app.request(method.clone(), path), sender).header("content-type", kind).body(text);
                    let refused = ask(app, request.header("cookie", &cookies)).await;
                    assert_eq!(refused.refusal(), DENIED, "{method} {path} {sender:?}");
                }
            }
        }
        assert_eq!(state(app).await, before);

        // What a form can send is no JSON, wherever it comes from: a login, a logout, a change by a form does nothing.
        for (method, path) in [(Method::POST, "/v1/auth/login"), (Method::POST, "/v1/auth/register"), (Method::POST, "/v1/auth/forgot-password"), (Method::POST, "/v1/auth/magic-link"), (Method::PATCH, "/v1/me"),
            (Method::PUT, "/v1/me/password"), (Method::POST, "/v1/me/email"), (Method::POST, "/v1/me/reauthenticate")] {
            for (kind, text) in shapes(&body(path)) {
                if kind == "application/json" {
                    continue;
                }
                let own = [("origin", app.url.as_str())];
                let senders = if path.starts_with("/v1/me") { vec![&own[..]] } else { vec![&own[..0], &own[..]] };
                for sender in senders {
                    let request = with(app.request(method.clone(), path), sender).header("content-type", kind).body(text.clone());
                    let request = if path.starts_with("/v1/me") { request.header("cookie", &session) } else { request };
                    let refused = ask(app, request).await;
                    assert_eq!(refused.refusal(), "415 unsupported_media_type", "{method} {path} {kind}");
                    assert_eq!(refused.header("set-cookie"), "", "{method} {path}");
                }
            }
        }
        assert_eq!(state(app).await, before);

        // Looking changes nothing, whatever the look pretends to be.
        let mut seen = 0;
        for route in doors(&app.app).routes {
            let path = route.path.replace("{id}", "ses_00000000000000000000000000").replace("{code}", "internal").replace("{dependency}", "breach");
            for method in [Method::GET, Method::HEAD] {
                for query in ["", "?_method=DELETE", "?_method=POST&display_name=Eve&email=eve@evil.test"] {
                    let request = app.request(method.clone(), &format!("{path}{query}")).header("cookie", &cookies);
                    let request = with(request, &[("x-http-method-override", "DELETE"), ("x-http-method", "POST"), ("x-method-override", "PATCH"), ("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]);
                    let looked = app.send(request).await;
                    assert!(looked.status < 500, "{method} {path}{query}: {}", looked.text);
                    if route.method == Method::GET && query.is_empty() && looked.status == 200 {
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen > 10, "the trap: pages were looked at");
        for (path, mimicked) in [("/v1/me", "PATCH"), ("/v1/me/sessions", "DELETE"), ("/v1/me/password", "PUT"), ("/v1/me/sessions/x", "DELETE")] {
            for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
                let request = app.request(Method::POST, &format!("{path}?_method={mimicked}")).header("cookie", &session).header("origin", app.url.as_str());
                let refused = ask(app, request.header(name, mimicked).json(&body(path))).await;
                assert_eq!(refused.status, 405, "{path} {name}");
            }
        }
        for path in ["/v1/auth/logout", "/v1/auth/login", "/v1/auth/refresh"] {
            assert_eq!(ask(app, app.request(Method::GET, path).header("cookie", &session)).await.status, 405, "{path}");
        }
        assert_eq!(state(app).await, before);

        // The trap: our own pages do all of this. Those that send no referrer have `null` for an origin, of which the browser
        // says where it is from.
        let own: [&[(&str, &str)]; 4] = [&[("origin", app.url.as_str())], &[("sec-fetch-site", "same-origin")], &[("sec-fetch-site", "same-origin"), ("origin", app.url.as_str())],
            &[("sec-fetch-site", "same-origin"), ("origin", "null")]];
        for (n, sender) in own.into_iter().enumerate() {
            let name = format!("Ada {n}");
            let change = with(app.request(Method::PATCH, "/v1/me"), sender).header("cookie", &session).json(&json!({ "display_name": name }));
            let changed = ask(app, change).await;
            assert_eq!((changed.status, changed.str("/display_name")), (200, name), "{sender:?}");
        }
        // To take everything along is written down, so that a look from elsewhere does not do it; from our own page it does.
        let export = |sender: &[(&str, &str)]| ask(app, with(app.request(Method::GET, "/v1/me/export"), sender).header("cookie", &session));
        for elsewhere in [&[("sec-fetch-site", "cross-site")][..], &[("origin", "https://evil.example")], &[]] {
            assert_eq!(export(elsewhere).await.refusal(), DENIED, "{elsewhere:?}");
        }
        assert_eq!(export(&[("sec-fetch-site", "same-origin")]).await.status, 200);
        // So does an application without a browser, which says nothing of itself and has a token.
        let change = app.request(Method::PATCH, "/v1/me").bearer_auth(&ada.access).json(&json!({ "display_name": "Ada" }));
        assert_eq!(ask(app, change).await.status, 200);
        assert_eq!(press(app, &tab, NEW).await.status, 200, "the form of the reset");
        let cookie = signed_in(app, &ada.email, NEW).await;
        let out = app.request(Method::POST, "/v1/auth/logout").header("cookie", &cookie).header("sec-fetch-site", "same-origin");
        assert_eq!(ask(app, out).await.status, 204);
        assert_eq!(ask(app, app.request(Method::GET, "/v1/me").header("cookie", &cookie)).await.status, 401);
        // Not yet: linking of other identities.
    }
}

/// The one origin that is configured.
const OURS: &str = "https://app.example.com";

/// Nearly the same, and others.
const OTHERS: [&str; 24] = [
    "https://evil.example",
    "null",
    "*",
    "https://app.example.com.evil.example",
    "https://app.example.com-evil.example",
    "https://evilapp.example.com",
    "https://evil.app.example.com",
    "https://app.example.com.",
    "https://app.example.comx",
    "https://app.example.co",
    "https://appxexample.com",
    "https://app.example_com",
    "https://example.com",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com:443",
    "https://APP.example.com",
    "HTTPS://app.example.com",
    "https://app.example.com/",
    "https://app.example.com@evil.example",
    "https://evil.example#https://app.example.com",
    "https://evil.example, https://app.example.com",
    "https://app.example.com https://evil.example",
    "app.example.com",
];

/// The headers with which an answer lets scripts of another origin read it. Without them a browser takes no notice of
/// the others, which say what could be asked for.
fn lets(answer: &Answer) -> Vec<String> {
    let names = answer.headers.keys().map(ToString::to_string);
    let deciding = [
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-allow-private-network",
    ];
    names.filter(|name| deciding.contains(&name.as_str())).collect()
}

/// Every header of the kind.
fn all_of_cors(answer: &Answer) -> usize {
    answer.headers.keys().filter(|name| name.as_str().starts_with("access-control-")).count()
}

fn varies(answer: &Answer) -> bool {
    let mut all = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap().to_lowercase());
    all.any(|value| value.split(',').any(|name| name.trim() == "origin"))
}

fn preflight(app: &TestApp, path: &str, origin: &str, method: &str) -> RequestBuilder {
    app.request(Method::OPTIONS, path)
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "authorization,content-type")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a68_cve_2024_41657_cors() {
    let app = TestApp::with(Engine::Sqlite, true, &format!("[cors]\norigins = [\"{OURS}\"]")).await;
    let ada = app.person("ada@ex.test").await;
    let session = signed_in(&app, &ada.email, PASSWORD).await;
    let calls = [
        (Method::GET, "/v1/me"),
        (Method::PATCH, "/v1/me"),
        (Method::PUT, "/v1/me/password"),
        (Method::DELETE, "/v1/me/sessions"),
        (Method::POST, "/v1/auth/refresh"),
        (Method::POST, "/v1/auth/login"),
    ];

    // The application's own origin, and no other, reads answers and asks with the cookie.
    for who in ["token", "cookie", "nobody"] {
        let look = |origin: &str| {
            let request = app.request(Method::GET, "/v1/me").header("origin", origin);
            match who {
                "token" => request.bearer_auth(&ada.access),
                "cookie" => request.header("cookie", &session).header("sec-fetch-site", "cross-site"),
                _ => request,
            }
        };
        let status = if who == "nobody" { 401 } else { 200 };
        let ours = ask(&app, look(OURS)).await;
        assert_eq!((ours.status, ours.header("access-control-allow-origin")), (status, OURS), "{who}");
        assert_eq!(ours.header("access-control-allow-credentials"), "true", "{who}");
        assert!(varies(&ours), "{who}: {:?}", ours.headers);
        for origin in OTHERS {
            let theirs = ask(&app, look(origin)).await;
            assert_eq!((theirs.status, lets(&theirs)), (status, vec![]), "{who}: {origin}");
        }
        let same = ask(&app, look(&app.url)).await;
        assert_eq!((same.status, lets(&same).len()), (status, 0), "{who}: one's own origin needs no leave");
    }
    for (method, path) in &calls {
        let ours = ask(&app, preflight(&app, path, OURS, method.as_str())).await;
        assert!(matches!(ours.status, 200 | 204), "{method} {path}: {}", ours.status);
        assert_eq!(ours.header("access-control-allow-origin"), OURS, "{method} {path}");
        assert_eq!(ours.header("access-control-allow-credentials"), "true", "{method} {path}");
        let methods = ours.header("access-control-allow-methods");
        assert!(methods.split(',').any(|one| one.trim() == method.as_str()), "{method} {path}: {methods}");
        let headers = ours.header("access-control-allow-headers").to_lowercase();
        for needed in ["authorization", "content-type"] {
            assert!(headers.split(',').any(|one| one.trim() == needed), "{method} {path}: {headers}");
        }
        assert!(!methods.contains('*') && !headers.contains('*') && varies(&ours), "{method} {path}");
        for never in ["TRACE", "CONNECT", "TRACK"] {
            assert!(!methods.contains(never), "{method} {path}: {methods}");
        }
        for origin in OTHERS {
            let theirs = ask(&app, preflight(&app, path, origin, method.as_str())).await;
            assert_eq!(lets(&theirs), Vec::<String>::new(), "{method} {path} {origin}");
            // And who does not ask first gets no answer to read, and nothing done.
            if *method != Method::GET {
                let request =
                    app.request(method.clone(), path).header("origin", origin).header("cookie", &session);
                let theirs = ask(&app, request.json(&body(path))).await;
                assert_eq!(
                    (theirs.refusal().as_str(), lets(&theirs)),
                    (DENIED, vec![]),
                    "{method} {path} {origin}"
                );
            }
        }
    }
    assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 2);

    // From the application's origin the cookie opens what it opens at home.
    let name = json!({ "display_name": "Ada of the app" });
    for site in ["cross-site", "same-site"] {
        let request = app.request(Method::PATCH, "/v1/me").header("cookie", &session);
        let request = request.header("origin", OURS).header("sec-fetch-site", site);
        let changed = ask(&app, request.json(&name)).await;
        assert_eq!((changed.status, changed.header("access-control-allow-origin")), (200, OURS), "{site}");
    }
    let elsewhere = app.request(Method::PATCH, "/v1/me").header("cookie", &session);
    let elsewhere = ask(&app, elsewhere.header("sec-fetch-site", "same-site").json(&name)).await;
    assert_eq!(elsewhere.refusal(), DENIED, "a neighbour that does not say who it is");

    // What is no API is read by nobody else; what is public, by everybody and without credentials.
    for path in
        ["/verify-email", "/reset-password", "/not-me", "/health/live", "/errors", "/dev/mailbox", "/nothing"]
    {
        for origin in [OURS, "https://evil.example"] {
            let page = app.send(app.request(Method::GET, path).header("origin", origin)).await;
            assert_eq!(lets(&page), Vec::<String>::new(), "{path} {origin}");
        }
    }
    for origin in [OURS, "https://evil.example", "null"] {
        let keys =
            ask(&app, app.request(Method::GET, "/.well-known/jwks.json").header("origin", origin)).await;
        assert_eq!(keys.header("access-control-allow-origin"), "*");
        assert_eq!(lets(&keys), ["access-control-allow-origin"], "{origin}");
    }
    app.finish().await;

    // Unless something is configured, nobody.
    let app = TestApp::start(Engine::Sqlite).await;
    let ada = app.person("ada@ex.test").await;
    for origin in OTHERS.into_iter().chain([OURS, app.url.as_str()]) {
        let request = app.request(Method::GET, "/v1/me").header("origin", origin);
        let read = ask(&app, request.bearer_auth(&ada.access)).await;
        assert_eq!((read.status, all_of_cors(&read)), (200, 0), "{origin}");
        for (method, path) in &calls {
            let asked = ask(&app, preflight(&app, path, origin, method.as_str())).await;
            assert_eq!(all_of_cors(&asked), 0, "{method} {path} {origin}");
        }
    }
    app.finish().await;

    // And everybody cannot be configured.
    let dir = tempfile::tempdir().unwrap();
    for wrong in ["*", "null", "https://*.example.com", "https://app.example.com/path", "app.example.com", ""]
    {
        let mut layers = settings::layers(None, []).unwrap();
        layers.option("data", "data.dir", dir.path().to_str().unwrap()).unwrap();
        let checked = |more: &str| {
            let mut layers = layers.clone();
            layers.text("the test", more).unwrap();
            Settings::check(&layers, Purpose::Dev)
        };
        assert!(checked(&format!("[cors]\norigins = [\"{OURS}\"]")).is_ok(), "the trap");
        assert!(checked(&format!("[cors]\norigins = [\"{wrong}\"]")).is_err(), "{wrong:?}");
    }
}
