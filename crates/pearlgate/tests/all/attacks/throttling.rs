//! Limits, and everything that people do to not be the ones they count against: other addresses in other headers, other
//! spellings of the same account, other ways to the same door, another server.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::guessing::{PROXIED, WRONG, at_once, login_from, pause, place};
use super::support::{OTHER, ask, clean, post};
use crate::support::{Answer, Engine, PASSWORD, Person, TestApp, production};
use crate::{both, both_with};

const LOGIN: &str = "/v1/auth/login";
const TOO_MANY: &str = "429 too_many_attempts";
const MINUTE: Duration = Duration::from_secs(60);
/// The limits alone: nobody is locked out.
const NO_LOCK: &str = "[lockout]\nmode = \"off\"\n";

/// With a proxy in front.
fn behind_a_proxy(more: &str) -> String {
    production("\"127.0.0.1\"", more)
}

/// A network may sign in so often.
fn sign_ins(count: u32) -> String {
    format!("[limits.sign_in_network]\ncount = {count}\n")
}

/// The `n`th of many sign-ins, each at another address that nobody has.
fn nobody(n: usize) -> Value {
    json!({ "email": format!("nobody{n}@ex.test"), "password": OTHER })
}

/// One of those with headers as they stand.
async fn saying(app: &TestApp, n: usize, headers: &[(&str, &[u8])]) -> Answer {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    ask(app, app.request(Method::POST, LOGIN).json(&nobody(n)).headers(all)).await
}

/// One of those from somewhere.
async fn nobody_from(app: &TestApp, n: usize, place: &str) -> Answer {
    ask(app, login_from(app, place, &nobody(n))).await
}

/// It was this limit, of so many in so many seconds, that turned somebody away.
fn over(answer: &Answer, limit: &str, count: u32, window: u64) {
    assert_eq!(answer.refusal(), TOO_MANY, "{}", answer.text);
    assert_eq!(answer.header("ratelimit-policy"), format!("\"{limit}\";q={count};w={window}"));
    let stands = answer.header("ratelimit");
    assert!(stands.starts_with(&format!("\"{limit}\";r=0;t=")), "{stands}");
    assert!((1..=window).contains(&pause(answer)), "{}", answer.text);
}

/// What undeclared peers say of where they come from.
const CLAIMS: [(&str, &[u8]); 36] = [
    ("x-forwarded-for", b"203.0.113.1"),
    ("x-forwarded-for", b"203.0.113.2, 203.0.113.3"),
    ("x-forwarded-for", b"127.0.0.1"),
    ("x-forwarded-for", b"::1"),
    ("x-forwarded-for", b"2001:db8::1"),
    ("x-forwarded-for", b"a"),
    ("x-forwarded-for", b""),
    ("x-forwarded-for", b","),
    ("x-forwarded-for", b"\xff"),
    ("x-forwarded-for", b"unknown"),
    ("x-forwarded", b"203.0.113.4"),
    ("forwarded-for", b"203.0.113.5"),
    ("forwarded", b"for=203.0.113.6"),
    ("forwarded", b"for=\"[2001:db8::2]:4711\";proto=https"),
    ("forwarded", b"for=_hidden"),
    ("x-real-ip", b"203.0.113.7"),
    ("x-real-ip", b"127.0.0.1"),
    ("cf-connecting-ip", b"203.0.113.8"),
    ("cf-connecting-ipv6", b"2001:db8::3"),
    ("cf-pseudo-ipv4", b"203.0.113.9"),
    ("true-client-ip", b"203.0.113.10"),
    ("x-client-ip", b"203.0.113.11"),
    ("client-ip", b"203.0.113.12"),
    ("x-cluster-client-ip", b"203.0.113.13"),
    ("fastly-client-ip", b"203.0.113.14"),
    ("fly-client-ip", b"203.0.113.15"),
    ("x-azure-clientip", b"203.0.113.16"),
    ("x-appengine-user-ip", b"203.0.113.17"),
    ("x-originating-ip", b"203.0.113.18"),
    ("x-remote-ip", b"203.0.113.19"),
    ("x-remote-addr", b"203.0.113.20"),
    ("remote-addr", b"203.0.113.21"),
    ("x-envoy-external-address", b"203.0.113.22"),
    ("x-host", b"203.0.113.23"),
    ("via", b"1.1 203.0.113.24"),
    ("from", b"203.0.113.25"),
];

both_with! { false, &production("", &sign_ins(10));
    async fn cve_2026_29794_what_an_undeclared_peer_says_of_itself_counts_for_nothing(app: &TestApp) {
        for (n, claim) in CLAIMS.into_iter().enumerate() {
            let answer = saying(app, n, &[claim]).await;
            if n < 10 {
                assert_eq!(answer.refusal(), WRONG, "{claim:?}");
                assert_eq!(answer.header("ratelimit"), format!("\"sign_in_network\";r={};t={}", 9 - n, 60 * (n + 1)));
            } else {
                over(&answer, "sign_in_network", 10, 600);
            }
        }
        let all: Vec<(&str, &[u8])> = CLAIMS.into();
        over(&saying(app, 99, &all).await, "sign_in_network", 10, 600);
        over(&saying(app, 99, &[]).await, "sign_in_network", 10, 600);
        app.clock.advance(MINUTE);
        assert_eq!(saying(app, 99, &all).await.refusal(), WRONG, "a minute has one more");
        over(&saying(app, 99, &[]).await, "sign_in_network", 10, 600);
    }
}

/// Forwarded headers in which the last word is no address: they are the proxy's own.
const UNREADABLE: [&[u8]; 21] = [
    b"a",
    b"",
    b" ",
    b",",
    b", ,",
    b"unknown",
    b"_hidden",
    b"-",
    b"198.51.100",
    b"198.51.100.7.8",
    b"198.51.100.256",
    b"198.051.100.007",
    b"0xc6336407",
    b"3325256711",
    b"198.51.100.7/32",
    b"198.51.100.7;198.51.100.8",
    b"\"198.51.100.7\"",
    b"2001:db8:1:2::1%eth0",
    b"\xff\xfe",
    b"198.51.100.7, a",
    b"198.51.100.7,",
];

both_with! { false, &behind_a_proxy(&sign_ins(21));
    async fn a46_cve_2024_47070_a_malformed_header_is_the_proxys_own(app: &TestApp) {
        for (n, value) in UNREADABLE.into_iter().enumerate() {
            assert_eq!(saying(app, n, &[("x-forwarded-for", value)]).await.refusal(), WRONG, "{value:?}");
        }
        // All of them were one client, together with whoever comes without the header and those that the proxy speaks of
        // itself.
        for value in UNREADABLE.into_iter().chain([&b"127.0.0.1"[..], b"::ffff:127.0.0.1", b"127.0.0.1, 127.0.0.1"]) {
            over(&saying(app, 99, &[("x-forwarded-for", value)]).await, "sign_in_network", 21, 600);
        }
        over(&saying(app, 99, &[]).await, "sign_in_network", 21, 600);
        over(&saying(app, 99, &[("x-real-ip", b"198.51.100.7"), ("forwarded", b"for=198.51.100.7")]).await, "sign_in_network", 21, 600);

        // The client's own words stand left of the proxy's, in the same header or in one of its own.
        for n in 0..21 {
            let left = format!("203.0.113.{n}");
            let together = format!("{left}, 198.51.100.9");
            let headers: &[(&str, &[u8])] = match n % 4 {
                0 => &[("x-forwarded-for", together.as_bytes())],
                1 => &[("x-forwarded-for", left.as_bytes()), ("x-forwarded-for", b"198.51.100.9")],
                2 => &[("x-forwarded-for", b"a, b, 198.51.100.9"), ("x-real-ip", left.as_bytes()), ("cf-connecting-ip", left.as_bytes())],
                _ => &[("x-forwarded-for", b"::ffff:198.51.100.9"), ("forwarded", b"for=203.0.113.1"), ("true-client-ip", left.as_bytes())],
            };
            assert_eq!(saying(app, n, headers).await.refusal(), WRONG, "{headers:?}");
        }
        for value in [&b"198.51.100.9"[..], b" 198.51.100.9 ", b"203.0.113.99, 198.51.100.9", b"198.51.100.9, 127.0.0.1", b"::ffff:198.51.100.9", b"::FFFF:C633:6409"] {
            over(&saying(app, 99, &[("x-forwarded-for", value)]).await, "sign_in_network", 21, 600);
        }
        // And the trap: somebody else is somebody else.
        for value in [&b"198.51.100.10"[..], b"198.51.100.9, 198.51.100.10", b"2001:db8::9"] {
            assert_eq!(saying(app, 100, &[("x-forwarded-for", value)]).await.refusal(), WRONG, "{value:?}");
        }
        // Not yet: user names beside e-mail addresses, HTTP Basic authentication, policies.
    }
}

both_with! { false, &behind_a_proxy(&sign_ins(10));
    async fn cve_2026_45364_one_ipv6_network_is_one_client(app: &TestApp) {
        for n in 0..10 {
            let answer = nobody_from(app, n, &format!("2001:db8:1:2:{n}:{n}:{n}:{n}")).await;
            assert_eq!(answer.refusal(), WRONG, "{n}");
        }
        for same in ["2001:db8:1:2::1", "2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:0db8:0001:0002:0000:0000:0000:0000", "2001:db8:1:2::192.0.2.1"] {
            over(&nobody_from(app, 99, same).await, "sign_in_network", 10, 600);
        }
        for other in ["2001:db8:1:3::1", "2001:db8:1:1:ffff:ffff:ffff:ffff", "2001:db8:2:2::1", "192.0.2.1"] {
            assert_eq!(nobody_from(app, 99, other).await.refusal(), WRONG, "{other}");
        }
    }
}

both_with! { true, &format!("{PROXIED}{NO_LOCK}");
    async fn cve_2025_24806_one_account_is_counted_under_every_spelling(app: &TestApp) {
        let vera = app.person("vera@xn--bcher-kva.example").await;
        let spellings = ["vera@xn--bcher-kva.example", "VERA@xn--bcher-kva.example", "vera@bücher.example", "Vera@XN--BCHER-KVA.example", "vErA@bücher.EXAMPLE"];
        let guess = |n: usize, email: &str, password: &str| {
            ask(app, login_from(app, &place(n), &json!({ "email": email, "password": password })))
        };
        for n in 0..10 {
            assert_eq!(guess(n, spellings[n % 5], "a guess").await.refusal(), WRONG, "{n}");
        }
        for (n, email) in spellings.into_iter().enumerate() {
            over(&guess(100 + n, email, PASSWORD).await, "sign_in", 10, 600);
        }
        // What is no spelling of hers is no way to her either, whatever the limit says.
        for email in [" vera@xn--bcher-kva.example", "vera@xn--bcher-kva.example ", "vera@bu\u{308}cher.example", "ｖera@bücher.example", "vera@bücher.example.",
            "vera@bücher。example", "vera\u{200b}@bücher.example", "vera@bücher.example\0", "\"vera\"@bücher.example", "<vera@bücher.example>", "vera@bücher.example,vera@bücher.example"] {
            assert_eq!(guess(200, email, PASSWORD).await.refusal(), "422 validation_failed", "{email:?}");
        }
        for other in ["vera+x@bücher.example", "v.era@bücher.example", "vera@bucher.example"] {
            assert_eq!(guess(200, other, PASSWORD).await.refusal(), WRONG, "{other}");
        }
        // Each minute has one more, under whatever name.
        app.clock.advance(MINUTE);
        assert_eq!(guess(300, "VERA@bücher.example", PASSWORD).await.str("/user/id"), vera.id);
    }
}

both_with! { true, &format!("{NO_LOCK}[limits.sign_in]\ncount = 3\n");
    async fn no_other_way_leads_to_the_same_door(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let right = json!({ "email": ada.email, "password": PASSWORD });
        for _ in 0..3 {
            assert_eq!(app.login(&ada.email, "a guess").await.refusal(), WRONG);
        }
        over(&post(app, LOGIN, &right).await, "sign_in", 3, 600);
        // The same route, however it is written.
        for path in ["/v1/auth/login?", "/v1/auth/login?x=1", "/v1/auth/login?email=eve@ex.test", "/v1/auth/login#x", "/v1/./auth/x/../login"] {
            over(&post(app, path, &right).await, "sign_in", 3, 600);
        }
        // Others are none.
        let others = ["/v1/auth/login/", "//v1/auth/login", "/v1//auth/login", "/v1/auth//login", "/V1/auth/login", "/v1/auth/LOGIN", "/v1/auth/login;x=1",
            "/v1/auth/%6Cogin", "/v1/auth/login%2F", "/v1/auth/login%20", "/v1/auth/login%00", "/v1%2Fauth%2Flogin", "/v1/auth/login.json", "/v1/auth/login/x",
            "/auth/login", "/v1/login", "/v2/auth/login", "/api/v1/auth/login", "/login"];
        for path in others {
            let answer = post(app, path, &right).await;
            assert!([400, 404].contains(&answer.status), "{path}: {} {}", answer.status, answer.text);
        }
        for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "LOGIN", "post", "Post"] {
            let request = app.request(method.parse().unwrap(), LOGIN).json(&right);
            for header in ["x-nothing", "x-http-method-override", "x-http-method", "x-method-override"] {
                let answer = ask(app, request.try_clone().unwrap().header(header, "POST")).await;
                assert!([400, 405].contains(&answer.status), "{method} {header}: {} {}", answer.status, answer.text);
            }
        }
        // A password is asked for at one door: in no header, on no other route.
        let basic = format!("Basic {}", data_encoding::BASE64.encode(format!("{}:{PASSWORD}", ada.email).as_bytes()));
        for (method, path) in [(Method::GET, "/v1/me"), (Method::POST, LOGIN), (Method::POST, "/v1/auth/refresh")] {
            let answer = ask(app, app.request(method, path).header("authorization", &basic).json(&json!({}))).await;
            assert!(answer.status >= 400, "{path}: {}", answer.text);
        }
        over(&post(app, LOGIN, &right).await, "sign_in", 3, 600);
        app.clock.advance(10 * MINUTE);
        assert_eq!(post(app, LOGIN, &right).await.status, 200, "the right password was right");
    }
}

both_with! { true, NO_LOCK;
    async fn ten_wrong_passwords_in_ten_minutes_and_right_ones_cost_nothing(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        for _ in 0..30 {
            assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
        }
        for n in 0..9 {
            assert_eq!(app.login(&ada.email, &format!("guess {n}")).await.refusal(), WRONG);
        }
        for _ in 0..3 {
            assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200, "a right one is given back");
        }
        assert_eq!(app.login(&ada.email, "the tenth").await.refusal(), WRONG);
        for password in ["the eleventh", PASSWORD] {
            let answer = app.login(&ada.email, password).await;
            over(&answer, "sign_in", 10, 600);
            assert_eq!((pause(&answer), answer.header("ratelimit")), (60, "\"sign_in\";r=0;t=600"));
        }
        // Nobody's account is held to the same.
        for n in 0..12 {
            let answer = app.login("nobody@ex.test", &format!("guess {n}")).await;
            assert_eq!(answer.refusal(), if n < 10 { WRONG } else { TOO_MANY }, "{n}");
        }
        app.clock.advance(MINUTE);
        assert_eq!(app.login(&ada.email, "the eleventh").await.refusal(), WRONG);
        over(&app.login(&ada.email, PASSWORD).await, "sign_in", 10, 600);
        app.clock.advance(10 * MINUTE);
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
    }
}

both! {
    async fn a_session_is_refreshed_a_hundred_and_twenty_times_a_minute(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let other = Person::of(&app.login(&ada.email, PASSWORD).await);
        let mut token = ada.refresh;
        for n in 0..120 {
            let answer = app.refresh(&token).await;
            assert_eq!(answer.status, 200, "{n}: {}", answer.text);
            token = answer.str("/refresh_token");
        }
        for _ in 0..3 {
            let answer = app.refresh(&token).await;
            over(&answer, "refresh", 120, 60);
            assert_eq!(pause(&answer), 1);
        }
        // What nobody made costs nobody anything; another session of the same person has its own.
        for _ in 0..3 {
            assert_eq!(app.refresh("pgr_nonsense").await.refusal(), "401 token_invalid");
        }
        assert_eq!(app.refresh(&other.refresh).await.status, 200);
        // The token that was turned away is as good as before.
        app.clock.advance(Duration::from_secs(1));
        let answer = app.refresh(&token).await;
        assert_eq!((answer.status, answer.str("/user/id")), (200, ada.id), "{}", answer.text);
        assert_eq!(app.count("SELECT COUNT(*) FROM ended_sessions").await, 0);
    }
}

both_with! { false, &behind_a_proxy("");
    async fn a_network_registers_sixty_times_an_hour(app: &TestApp) {
        let register = |place: String, body: Value| {
            ask(app, app.request(Method::POST, "/v1/auth/register").header("x-forwarded-for", place).json(&body))
        };
        // What is refused counts as well: it was work.
        for n in 0..60 {
            assert_eq!(register(place(1), json!({})).await.refusal(), "422 validation_failed", "{n}");
        }
        let good = json!({ "email": "ada@ex.test", "password": PASSWORD });
        let answer = register(place(1), good).await;
        over(&answer, "registration_network", 60, 3_600);
        assert_eq!(pause(&answer), 60);
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 0);
        assert_eq!(register(place(2), json!({})).await.status, 422, "others may");
        assert_eq!(nobody_from(app, 1, &place(1)).await.refusal(), WRONG, "and the same may sign in");
        app.clock.advance(MINUTE);
        assert_eq!(register(place(1), json!({})).await.status, 422, "a minute has one more");
        over(&register(place(1), json!({})).await, "registration_network", 60, 3_600);
    }
}

/// Sends something that cannot succeed, as a program or as the form of one of our pages.
fn hopeless(app: &TestApp, place: &str, path: &str) -> RequestBuilder {
    let request = app
        .request(Method::POST, path)
        .header("x-forwarded-for", place)
        .header("sec-fetch-site", "same-origin");
    if path.starts_with("/v1/") {
        return request.json(&json!({}));
    }
    request.header("content-type", "application/x-www-form-urlencoded").body("link=x")
}

both_with! { false, &behind_a_proxy("[limits.mail_network]\ncount = 8\n[limits.proof_network]\ncount = 22\n");
    async fn all_doors_of_a_kind_share_one_limit(app: &TestApp) {
        let asking = ["/v1/auth/forgot-password", "/v1/auth/magic-link", "/v1/auth/resend-verification", "/v1/me/email"];
        let showing = ["/v1/auth/verify-email", "/v1/auth/reset-password", "/v1/auth/magic-link/consume", "/v1/auth/unlock", "/v1/me/email/confirm",
            "/verify-email", "/reset-password", "/magic-link", "/email-change", "/not-me", "/unlock"];
        for (name, count, window, paths) in [("mail_network", 8, 3_600, &asking[..]), ("proof_network", 22, 600, &showing[..])] {
            for path in paths.iter().chain(paths) {
                let answer = ask(app, hopeless(app, &place(1), path)).await;
                assert_ne!(answer.status, 429, "{path}: {}", answer.text);
                assert!(answer.header("ratelimit-policy").starts_with(&format!("\"{name}\";q={count};w={window}")), "{path}");
            }
            for path in paths {
                over(&ask(app, hopeless(app, &place(1), path)).await, name, count, window);
                assert_ne!(ask(app, hopeless(app, &place(2), path)).await.status, 429, "{path}: somebody else");
            }
        }
        // Somebody who asks for what is theirs is turned away as well, before anything is done.
        let ask_for = json!({ "email": "ada@ex.test" });
        let forgot = app.request(Method::POST, "/v1/auth/forgot-password").header("x-forwarded-for", place(1));
        over(&ask(app, forgot.json(&ask_for)).await, "mail_network", 8, 3_600);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'password_reset_requested'").await, 0);
        // Opening a link costs nothing: mail scanners do it.
        for path in &showing[5..] {
            let page = app.request(Method::GET, path).header("x-forwarded-for", place(1));
            assert_eq!(ask(app, page).await.status, 200, "{path}");
        }
    }
}

both_with! { false, &behind_a_proxy("");
    async fn every_answer_says_how_its_network_stands(app: &TestApp) {
        let says = |answer: &Answer| (answer.header("ratelimit-policy").to_owned(), answer.header("ratelimit").to_owned());
        let of = |policy: &str, stands: &str| (policy.to_owned(), stands.to_owned());
        let sign_ins = "\"sign_in_network\";q=300;w=600";
        assert_eq!(says(&nobody_from(app, 1, &place(1)).await), of(sign_ins, "\"sign_in_network\";r=299;t=2"));
        assert_eq!(says(&nobody_from(app, 1, &place(1)).await), of(sign_ins, "\"sign_in_network\";r=298;t=4"));
        assert_eq!(says(&nobody_from(app, 1, &place(2)).await), of(sign_ins, "\"sign_in_network\";r=299;t=2"));
        // Whatever else it says: a refusal of fields, of a body that is none, and what went well.
        let garbage = app.request(Method::POST, LOGIN).header("x-forwarded-for", place(1)).header("content-type", "application/json").body("{");
        let garbage = ask(app, garbage).await;
        assert_eq!((garbage.status, says(&garbage)), (400, of(sign_ins, "\"sign_in_network\";r=297;t=6")));
        let asked = app.request(Method::POST, "/v1/auth/forgot-password").header("x-forwarded-for", place(1));
        let asked = ask(app, asked.json(&json!({ "email": "nobody@ex.test" }))).await;
        assert_eq!((asked.status, says(&asked)), (202, of("\"mail_network\";q=60;w=3600", "\"mail_network\";r=59;t=60")));
        app.clock.advance(Duration::from_secs(6));
        assert_eq!(says(&nobody_from(app, 1, &place(1)).await), of(sign_ins, "\"sign_in_network\";r=299;t=2"));
        // What has no limit says nothing of one.
        for path in ["/health/live", "/.well-known/jwks.json", "/v1/me", "/v1/nothing"] {
            assert_eq!(says(&app.get(path).await), of("", ""), "{path}");
        }
    }
}

both_with! { false, &behind_a_proxy("[limits.sign_in_network]\ncount = 3\nmode = \"report\"\n[limits.registration_network]\ncount = 3\nmode = \"off\"\n");
    async fn a_limit_can_report_or_be_off(app: &TestApp) {
        for n in 0..12 {
            let reported = nobody_from(app, n, &place(1)).await;
            assert_eq!(reported.refusal(), WRONG, "{n}");
            assert_eq!(reported.header("ratelimit-policy"), "\"sign_in_network\";q=3;w=600");
            let left = 3_usize.saturating_sub(n + 1);
            assert!(reported.header("ratelimit").starts_with(&format!("\"sign_in_network\";r={left};")), "{}", reported.header("ratelimit"));
            let off = ask(app, hopeless(app, &place(1), "/v1/auth/register")).await;
            assert_eq!((off.status, off.header("ratelimit-policy"), off.header("ratelimit")), (422, "", ""), "{n}");
        }
    }
}

both_with! { true, "[limits.sign_in_network]\ncount = 3\n[limits.sign_in_everybody]\ncount = 3\nmode = \"on\"\n[limits.registration_network]\ncount = 3\n[limits.mail_network]\ncount = 3\n[limits.proof_network]\ncount = 3\n[limits.sign_in]\ncount = 4\n[limits.refresh]\ncount = 5\n[lockout]\nmode = \"off\"\n";
    async fn in_dev_mode_networks_are_only_reported_and_people_are_held_to_their_limits(app: &TestApp) {
        for n in 0..10 {
            assert_eq!(ask(app, app.request(Method::POST, LOGIN).json(&nobody(n))).await.refusal(), WRONG);
            for path in ["/v1/auth/register", "/v1/auth/forgot-password", "/v1/auth/verify-email"] {
                assert_eq!(ask(app, hopeless(app, &place(1), path)).await.status, 422, "{path} {n}");
            }
        }
        let ada = app.person("ada@ex.test").await;
        for n in 0..6 {
            let answer = app.login(&ada.email, "a guess").await;
            if n < 4 { assert_eq!(answer.refusal(), WRONG) } else { over(&answer, "sign_in", 4, 600) }
            let answer = app.refresh(&ada.refresh).await;
            if n < 5 { assert_eq!(answer.status, 200, "{}", answer.text) } else { over(&answer, "refresh", 5, 60) }
        }
    }
}

both_with! { false, &behind_a_proxy("[limits.sign_in_everybody]\ncount = 5\nmode = \"on\"\n");
    async fn a_limit_for_everybody_is_one_whoever_asks(app: &TestApp) {
        for n in 0..5 {
            assert_eq!(nobody_from(app, n, &place(n)).await.refusal(), WRONG);
        }
        for n in 5..10 {
            over(&nobody_from(app, n, &place(n)).await, "sign_in_everybody", 5, 600);
        }
        app.clock.advance(2 * MINUTE);
        assert_eq!(nobody_from(app, 10, &place(10)).await.refusal(), WRONG);
    }
}

/// How many of the sign-ins were looked at; the others were too many, or came while there was too much to do.
fn looked_at(answers: &[Answer]) -> usize {
    for answer in answers.iter().filter(|answer| answer.status != 503) {
        clean("a sign-in", answer.status, &answer.text);
        assert!([WRONG, TOO_MANY].contains(&answer.refusal().as_str()), "{}", answer.text);
    }
    answers.iter().filter(|answer| answer.status == 401).count()
}

/// On PostgreSQL; one file has one server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_one_budget_for_an_account() {
    let app = TestApp::with(Engine::Postgres, true, NO_LOCK).await;
    let ada = app.person("ada@ex.test").await;
    app.quiet().await;
    let twin = app.twin_with(true, NO_LOCK).await;
    let urls = [app.url.clone(), twin.url.clone()];
    let guess = |n: usize| {
        let body = json!({ "email": ada.email, "password": format!("guess {n}") });
        app.client.post(format!("{}{LOGIN}", urls[n % 2])).json(&body)
    };
    assert_eq!(looked_at(&at_once(&app, (0..60).map(guess).collect()).await), 10);
    for n in 60..64 {
        over(&app.send(guess(n)).await, "sign_in", 10, 600);
    }
    twin.stop().await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_one_budget_for_a_network() {
    let more = behind_a_proxy(&sign_ins(20));
    let app = TestApp::with(Engine::Postgres, false, &more).await;
    let twin = app.twin_with(false, &more).await;
    let urls = [app.url.clone(), twin.url.clone()];
    let from = |n: usize, place: String| {
        app.client.post(format!("{}{LOGIN}", urls[n % 2])).header("x-forwarded-for", place).json(&nobody(n))
    };
    let all = (0..80).map(|n| from(n, place(1)));
    assert_eq!(looked_at(&at_once(&app, all.collect()).await), 20);
    for n in 80..84 {
        over(&app.send(from(n, place(1))).await, "sign_in_network", 20, 600);
        assert_eq!(app.send(from(n, place(2))).await.refusal(), WRONG);
    }
    // What flows in is shared as well: one sign-in every thirty seconds, and not one for each server.
    app.clock.advance(Duration::from_secs(30));
    let next = [app.send(from(84, place(1))).await, app.send(from(85, place(1))).await];
    assert_eq!(looked_at(&next), 1);
    twin.stop().await;
    app.finish().await;
}
