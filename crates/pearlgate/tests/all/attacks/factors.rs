//! Second factors: guessed at, shown twice, gone around, and changed by whoever is in with less.

use std::time::Duration;

use pearlgate::router::{Guard, doors};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::guessing::{PROXIED, at_once, pause, place};
use super::mailed::{NEW, consume, forgot, link_token, magic, mailed, open, press, reset, stored};
use super::support::{OTHER, ask, post};
use crate::journeys::authenticator::{
    NOT_FRESH, OFF, PAUSED, STEP, USED_UP, WRONG, by_totp, code_at, due, enrol, grant, half, sign_in, strings,
};
use crate::support::{Answer, PASSWORD, Person, TestApp};
use crate::{both, both_with};

const SHOW: &str = "/v1/auth/mfa";
const AGAIN: &str = "/v1/me/reauthenticate";
const CODES: &str = "/v1/me/mfa/recovery-codes";
const TOTP: &str = "/v1/me/mfa/totp";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const FRESH: Duration = Duration::from_secs(600);
const MOMENT: Duration = Duration::from_secs(1);

/// A code beside the token of a half sign-in, on its way.
fn showing(app: &TestApp, token: &str, kind: &str, code: &str) -> RequestBuilder {
    app.request(Method::POST, SHOW).json(&json!({ "mfa_token": token, "type": kind, "code": code }))
}

async fn show(app: &TestApp, token: &str, kind: &str, code: &str) -> Answer {
    ask(app, showing(app, token, kind, code)).await
}

/// The same after a new sign-in by password.
async fn show_anew(app: &TestApp, email: &str, kind: &str, code: &str) -> Answer {
    show(app, &half(app, email, PASSWORD).await, kind, code).await
}

async fn call(app: &TestApp, method: Method, path: &str, access: &str, body: &Value) -> Answer {
    ask(app, app.request(method, path).bearer_auth(access).json(body)).await
}

async fn halves(app: &TestApp, email: &str, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(half(app, email, PASSWORD).await);
    }
    all
}

/// How many of them let somebody in. All others were wrong or had to wait; or the server had too much to do.
fn let_in(answers: &[Answer]) -> usize {
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        let refusal = answer.refusal();
        let known = [WRONG, PAUSED, USED_UP].contains(&refusal.as_str()) || answer.status == 503;
        assert!(known, "{refusal}: {}", answer.text);
        assert!(!answer.text.contains("\"pgr_") && !answer.text.contains("\"eyJ"), "{}", answer.text);
    }
    answers.iter().filter(|answer| answer.status == 200).count()
}

async fn sessions(app: &TestApp) -> i64 {
    app.count("SELECT COUNT(*) FROM sessions").await
}

both! {
    async fn a39_cve_2026_33473_totp_replay(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let factor = enrol(app, &ada).await;
        let refused = async |what: &str, code: &str| {
            let shown = show_anew(app, &ada.email, "totp", code).await;
            assert_eq!(shown.refusal(), WRONG, "{what}");
            let again = call(app, Method::POST, AGAIN, &ada.access, &by_totp(code)).await;
            assert_eq!(again.refusal(), WRONG, "{what}, by somebody who is in");
        };
        refused("the one that confirmed", &factor.code(app)).await;
        let used = factor.next(app);
        assert_eq!(show_anew(app, &ada.email, "totp", &used).await.status, 200, "the trap");
        refused("in the same step", &used).await;
        app.clock.advance(STEP);
        refused("in the next step, which takes the one before", &used).await;
        let now = app.clock.now();
        assert_eq!(show_anew(app, &ada.email, "totp", &code_at(&factor.secret, now + STEP)).await.status, 200, "early");
        refused("older than one that was used", &code_at(&factor.secret, now)).await;
        refused("the early one, when its time has come", &factor.next(app)).await;

        // A clock that is put back makes no code of then good again, used or not.
        let noon = app.clock.now();
        app.clock.set(noon - MINUTE);
        refused("of a step of before", &factor.code(app)).await;
        app.clock.set(noon);
        sign_in(app, &ada.email, PASSWORD, &factor).await;

        // One code, many at once: at one door, and at two.
        for _ in 0..5 {
            let tokens = halves(app, &ada.email, 20).await;
            let code = factor.next(app);
            let before = sessions(app).await;
            let answers = at_once(app, tokens.iter().map(|token| showing(app, token, "totp", &code)).collect()).await;
            assert_eq!((let_in(&answers), sessions(app).await), (1, before + 1));
            app.sql("DELETE FROM factor_failures").await;
        }
        for _ in 0..5 {
            let fresh = Person::of(&sign_in(app, &ada.email, PASSWORD, &factor).await);
            let tokens = halves(app, &ada.email, 10).await;
            let code = factor.next(app);
            let mut requests: Vec<RequestBuilder> = tokens.iter().map(|token| showing(app, token, "totp", &code)).collect();
            requests.extend((0..10).map(|_| app.request(Method::POST, AGAIN).bearer_auth(&fresh.access).json(&by_totp(&code))));
            assert_eq!(let_in(&at_once(app, requests).await), 1);
            app.sql("DELETE FROM factor_failures").await;
        }
        // Passkeys have no codes: their answers are told apart in a51.
    }
}

both! {
    async fn one_half_sign_in_becomes_one_session(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let factor = enrol(app, &ada).await;
        for n in 0..5 {
            let token = half(app, &ada.email, PASSWORD).await;
            app.clock.advance(STEP * 2);
            let codes = [factor.code(app), code_at(&factor.secret, app.clock.now() + STEP)];
            let mut requests: Vec<RequestBuilder> = codes.iter().map(|code| showing(app, &token, "totp", code)).collect();
            requests.push(showing(app, &token, "recovery_code", &factor.recovery[n]));
            let before = sessions(app).await;
            let answers = at_once(app, requests).await;
            assert_eq!((let_in(&answers), sessions(app).await), (1, before + 1), "{answers:?}");
        }
    }
}

both_with! { true, PROXIED;
    async fn a40_authquake_totp_brute_force(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let factor = enrol(app, &ada).await;
        // Fifty at once, each from another address, after a sign-in of its own.
        let tokens = halves(app, &ada.email, 50).await;
        let wrong = factor.wrong(app);
        let guesses = tokens.iter().enumerate();
        let guesses = guesses.map(|(n, token)| showing(app, token, "totp", &wrong).header("x-forwarded-for", place(n)));
        let answers = at_once(app, guesses.collect()).await;
        assert_eq!(let_in(&answers), 0);
        let mut looked = answers.iter().filter(|answer| answer.refusal() == WRONG).count();
        assert!((1..=10).contains(&looked), "{looked} were looked at");
        let row = "SELECT failures FROM factor_failures";
        assert_eq!(usize::try_from(app.count(row).await), Ok(looked), "as many are counted as were looked at");

        // With the patience of hours, and a new sign-in from a new address each time, until there were two hundred.
        for n in 50..200 {
            app.quiet().await;
            app.clock.advance(HOUR);
            let token = half(app, &ada.email, PASSWORD).await;
            let guess = showing(app, &token, "totp", &factor.wrong(app)).header("x-forwarded-for", place(n));
            let answer = ask(app, guess).await;
            assert_eq!(answer.refusal(), if looked < 100 { WRONG } else { OFF }, "guess {n}");
            looked += usize::from(answer.refusal() == WRONG);
            if (10..100).contains(&looked) {
                let soon = show(app, &token, "totp", &factor.code(app)).await;
                assert!(soon.refusal() == PAUSED && pause(&soon) <= 3_600, "guess {n}: {}", soon.text);
            }
        }
        assert_eq!((looked, app.count(row).await), (100, 100), "chances of 3 in a million each");
        mailed(app, &ada.email, "mfa_failures", 2).await;

        // The right one is too late, by whatever way, and a new password gives no new guesses.
        for (kind, code) in [("totp", factor.next(app)), ("recovery_code", factor.recovery[0].clone())] {
            assert_eq!(show_anew(app, &ada.email, kind, &code).await.refusal(), OFF);
            let (_, mail) = magic(app, &ada.email, if kind == "totp" { 1 } else { 2 }).await;
            let token = due(&consume(app, json!({ "token": link_token(&mail) })).await);
            assert_eq!(show(app, &token, kind, &code).await.refusal(), OFF);
        }
        let mail = forgot(app, &ada.email, 1).await;
        assert_eq!(reset(app, &link_token(&mail), NEW).await.status, 200);
        let token = half(app, &ada.email, NEW).await;
        assert_eq!(show(app, &token, "totp", &factor.next(app)).await.refusal(), OFF);
        assert_eq!(app.count(row).await, 100);
        app.quiet().await;
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(Some(&ada.email), Some("mfa_failures")).len(), 2);
    }
}

both! {
    async fn a42_ghsa_xg6x_h9c9_2m83_skip_the_second_step(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let eve = app.person("eve@ex.test").await;
        let factor = enrol(app, &ada).await;
        let hers = enrol(app, &eve).await;
        let body = json!({ "email": ada.email, "password": PASSWORD, "transport": "cookie" });
        let in_browser = post(app, "/v1/auth/login", &body).await;
        let asked = app.login(&ada.email, PASSWORD).await;
        for answer in [&in_browser, &asked] {
            due(answer);
            assert!(answer.headers.get("set-cookie").is_none(), "{:?}", answer.headers);
            let members: Vec<&String> = answer.json.as_object().unwrap().keys().collect();
            assert_eq!(members.len(), 4, "status, mfa_token, expires_in, factors and nothing else: {members:?}");
        }
        let token = due(&asked);
        let before = sessions(app).await;

        // It is nobody's sign-in, at any door that belongs to somebody, however it is carried there.
        let routes = doors(&app.app).routes.into_iter().filter(|route| route.guard == Guard::SignedIn);
        let routes: Vec<(Method, String)> = routes
            .map(|route| {
                let parts = route.path.split('/').map(|part| if part.starts_with('{') { ada.session.as_str() } else { part });
                (route.method, parts.collect::<Vec<_>>().join("/"))
            })
            .collect();
        assert!(routes.iter().any(|(_, path)| path == TOTP), "{routes:?}");
        for (method, path) in &routes {
            let request = || {
                let request = app.request(method.clone(), path).header("origin", &app.url);
                if *method == Method::GET { request } else { request.json(&json!({})) }
            };
            let bearer = ask(app, request().bearer_auth(&token)).await;
            assert_eq!(bearer.refusal(), "401 token_invalid", "{method} {path}");
            for name in ["__Host-pearlgate-session", "__Host-pearlgate-mfa", "__Host-pearlgate-device"] {
                let carried = ask(app, request().header("cookie", format!("{name}={token}"))).await;
                assert_eq!(carried.refusal(), "401 not_authenticated", "{method} {path} {name}");
            }
        }
        assert_eq!(post(app, "/v1/auth/refresh", &json!({ "refresh_token": token })).await.refusal(), "401 token_invalid");
        assert_eq!(post(app, "/v1/auth/logout", &json!({ "refresh_token": token })).await.status, 204);
        for (path, body) in [
            ("/v1/auth/mfa/totp", json!({ "mfa_token": token })),
            ("/v1/auth/mfa/totp/confirm", json!({ "mfa_token": token, "code": factor.next(app) })),
        ] {
            assert_eq!(post(app, path, &body).await.refusal(), "403 permission_denied", "no second one beside the first");
        }
        let challenge = json!({ "mfa_token": token, "type": "email_code" });
        assert_eq!(post(app, "/v1/auth/mfa/challenge", &challenge).await.refusal(), WRONG);

        // Nothing, something else, and somebody else's.
        for body in [
            json!({}),
            json!({ "mfa_token": token }),
            json!({ "mfa_token": token, "type": "totp" }),
            json!({ "mfa_token": token, "type": "totp", "code": null }),
            json!({ "mfa_token": token, "type": "totp", "code": "" }),
            json!({ "mfa_token": token, "type": "none", "code": "000000" }),
            json!({ "mfa_token": token, "type": "password", "code": PASSWORD }),
            json!({ "mfa_token": token, "type": "email_code", "code": "" }),
            json!({ "mfa_token": token, "type": "email_code", "code": "000000" }),
            json!({ "mfa_token": token, "type": "recovery_code", "code": hers.recovery[0] }),
            json!({ "mfa_token": token, "type": "totp", "code": hers.code(app) }),
            json!({ "mfa_token": eve.access, "type": "totp", "code": factor.code(app) }),
            json!({ "mfa_token": ada.refresh, "type": "totp", "code": factor.code(app) }),
            json!({ "mfa_token": half(app, &eve.email, PASSWORD).await, "type": "totp", "code": factor.code(app) }),
        ] {
            let answer = post(app, SHOW, &body).await;
            assert!((400..=422).contains(&answer.status), "{body}: {}", answer.text);
        }
        let empty = ask(app, app.request(Method::POST, SHOW)).await;
        assert!((400..=422).contains(&empty.status), "{}", empty.text);

        // The last page of the way, without the ones before it.
        let form = "application/x-www-form-urlencoded";
        for cookie in ["a=b".to_owned(), "__Host-pearlgate-mfa=".into(), format!("__Host-pearlgate-mfa=pgm_{}", "A".repeat(43))] {
            let request = app.request(Method::POST, "/mfa").header("origin", &app.url).header("cookie", cookie);
            let body = format!("link=x&code={}&type=totp", factor.code(app));
            let page = ask(app, request.header("content-type", form).body(body)).await;
            assert!(page.headers.get_all("set-cookie").iter().all(|set| !set.to_str().unwrap().contains("pgr_")), "{:?}", page.headers);
        }
        assert_eq!(sessions(app).await, before, "nothing opened");
        assert_eq!(show(app, &token, "totp", &factor.code(app)).await.status, 200, "the trap");
        // Not yet: routes of operators.
    }
}

both! {
    async fn a43_cve_2026_9091_recovery_codes(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let eve = app.person("eve@ex.test").await;
        let factor = enrol(app, &ada).await;
        let hers = enrol(app, &eve).await;
        let mut all: Vec<&String> = factor.recovery.iter().chain(&hers.recovery).collect();
        assert!(all.iter().all(|code| code.replace('-', "").len() == 16), "31^16 is 79 bits: {all:?}");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 20);

        // Who reads the database reads none of them.
        app.quiet().await;
        assert!(stored(app, ada.email.as_bytes()).await, "the trap");
        for code in &factor.recovery {
            for written in [code.clone(), code.replace('-', ""), code.to_uppercase(), code.to_uppercase().replace('-', "")] {
                assert!(!stored(app, written.as_bytes()).await, "{written} is stored");
            }
        }
        assert!(!stored(app, factor.secret.as_bytes()).await, "nor what the app's codes come from");

        // Used once, in whatever spelling; not by somebody else; and its owner is told.
        let [first, second] = [&factor.recovery[0], &factor.recovery[1]];
        assert_eq!(show_anew(app, &eve.email, "recovery_code", first).await.refusal(), WRONG, "another one's");
        assert_eq!(show_anew(app, &ada.email, "recovery_code", first).await.status, 200);
        mailed(app, &ada.email, "recovery_code_used", 1).await;
        for again in [first.clone(), first.to_uppercase(), first.replace('-', ""), first.replace('-', " "), format!(" {first} ")] {
            assert_eq!(show_anew(app, &ada.email, "recovery_code", &again).await.refusal(), WRONG, "{again:?}");
        }
        let body = json!({ "type": "recovery_code", "code": first });
        assert_eq!(call(app, Method::POST, AGAIN, &ada.access, &body).await.refusal(), WRONG);
        assert_eq!(show_anew(app, &ada.email, "totp", first).await.refusal(), WRONG);

        // Twenty at once.
        let tokens = halves(app, &ada.email, 20).await;
        let before = sessions(app).await;
        let answers = at_once(app, tokens.iter().map(|token| showing(app, token, "recovery_code", second)).collect()).await;
        assert_eq!((let_in(&answers), sessions(app).await), (1, before + 1));
        mailed(app, &ada.email, "recovery_code_used", 2).await;
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(Some(&ada.email), Some("recovery_code_used")).len(), 2);
        app.sql("DELETE FROM factor_failures").await;

        // A new set is all there is.
        let made = call(app, Method::POST, CODES, &ada.access, &json!({})).await;
        let anew = strings(&made.json["recovery_codes"]);
        for old in &factor.recovery[2..6] {
            assert_eq!(show_anew(app, &ada.email, "recovery_code", old).await.refusal(), WRONG);
        }
        assert_eq!(show_anew(app, &ada.email, "recovery_code", &anew[0]).await.status, 200);

        // A hundred guesses are ten, and wrong codes of the app count with them.
        let token = half(app, &ada.email, PASSWORD).await;
        let mut looked = 0;
        for n in 0..100 {
            let (kind, code) = if n % 2 == 0 { ("recovery_code", "k7mq-2vxa-9hrt-c4pw".into()) } else { ("totp", factor.wrong(app)) };
            let answer = show(app, &token, kind, &code).await;
            assert_eq!(answer.refusal(), if looked < 10 { WRONG } else { PAUSED }, "guess {n}");
            looked += usize::from(answer.refusal() == WRONG);
        }
        assert_eq!(show(app, &token, "recovery_code", &anew[1]).await.refusal(), PAUSED);
        app.clock.advance(MINUTE);
        assert_eq!(show(app, &token, "recovery_code", &anew[1]).await.status, 200);
    }
}

both_with! { true, "[mfa]\nemail_code = true";
    async fn a49_cve_2026_33315_weaker_path_around_mfa(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let factor = enrol(app, &ada).await;
        let before = sessions(app).await;
        // Whoever has the password, or the mailbox, or both of them, is asked for the factor.
        let (_, mail) = magic(app, &ada.email, 1).await;
        let by_link = consume(app, json!({ "token": link_token(&mail) })).await;
        let (id, mail) = magic(app, &ada.email, 2).await;
        let by_code = consume(app, json!({ "magic_link_id": id, "code": mail.code })).await;
        let by_password = app.login(&ada.email, PASSWORD).await;
        for asked in [&by_link, &by_code, &by_password] {
            let token = due(asked);
            assert_eq!(asked.json["factors"], json!(["totp", "recovery_code"]));
            let challenge = post(app, "/v1/auth/mfa/challenge", &json!({ "mfa_token": token, "type": "email_code" })).await;
            assert_eq!(challenge.refusal(), WRONG, "a mailbox is no second factor to an app");
            assert_eq!(show(app, &token, "email_code", &mail.code).await.refusal(), WRONG);
        }
        app.forgive().await;
        let (_, mail) = magic(app, &ada.email, 3).await;
        let page = press(app, &open(app, &mail.links[0]).await, "").await;
        assert_eq!((page.status, page.header("location")), (303, "/mfa"), "{}", page.text);
        let set: Vec<&str> = page.headers.get_all("set-cookie").iter().map(|set| set.to_str().unwrap()).collect();
        assert!(set.iter().all(|set| !set.contains("pgr_") && !set.contains("pgd_")), "{set:?}");
        for request in [
            app.request(Method::GET, "/v1/me").basic_auth(&ada.email, Some(PASSWORD)),
            app.request(Method::GET, "/v1/me").header("x-api-key", PASSWORD),
        ] {
            assert_eq!(ask(app, request).await.status, 401);
        }
        app.forgive().await;
        let mail = forgot(app, &ada.email, 1).await;
        let done = reset(app, &link_token(&mail), NEW).await;
        assert_eq!((done.status, done.json.clone()), (200, json!({ "status": "password_changed" })), "and nothing else");
        assert!(done.headers.get("set-cookie").is_none());
        let token = half(app, &ada.email, NEW).await;
        assert_eq!((sessions(app).await, app.count("SELECT COUNT(*) FROM totp_factors").await), (before - 1, 1), "the factor stays");
        assert_eq!(show(app, &token, "totp", &factor.next(app)).await.status, 200, "the trap");

        // A session by mail that was there before does not grow by what comes from the same mailbox.
        let bob = app.person("bob@ex.test").await;
        let chosen = ask(app, app.request(Method::PUT, "/v1/me/mfa/email-code").bearer_auth(&bob.access)).await;
        assert_eq!(chosen.status, 204, "{}", chosen.text);
        let (_, mail) = magic(app, &bob.email, 1).await;
        let entered = consume(app, json!({ "token": link_token(&mail) })).await;
        assert_eq!((&entered.json["session"]["aal"], &entered.json["session"]["amr"]), (&json!(1), &json!(["otp"])));
        let token = half(app, &bob.email, PASSWORD).await;
        assert_eq!(post(app, "/v1/auth/mfa/challenge", &json!({ "mfa_token": token, "type": "email_code" })).await.status, 200);
        let mail = mailed(app, &bob.email, "mfa_code", 1).await;
        let stolen = json!({ "type": "email_code", "code": mail.code });
        assert_eq!(call(app, Method::POST, AGAIN, &entered.str("/access_token"), &stolen).await.status, 422);
        let entered = show(app, &token, "email_code", &mail.code).await;
        assert_eq!((entered.status, &entered.json["session"]["aal"]), (200, &json!(1)), "{}", entered.text);
        let step_up = json!({ "refresh_token": entered.str("/refresh_token"), "aal": 2 });
        assert_eq!(post(app, "/v1/auth/refresh", &step_up).await.refusal(), NOT_FRESH);
        // Not yet: social sign-in, invitations, API keys, device flow.
    }
}

/// Everything that needs who it is to be shown, with everything the account can show.
fn guarded(other: &str) -> Vec<(Method, String, Value)> {
    let change = json!({ "current_password": PASSWORD, "new_password": NEW });
    let all = [
        (Method::POST, TOTP, json!({})),
        (Method::POST, "/v1/me/mfa/totp/confirm", json!({ "code": "000000" })),
        (Method::DELETE, TOTP, json!({})),
        (Method::POST, CODES, json!({})),
        (Method::PUT, "/v1/me/mfa/email-code", json!({})),
        (Method::DELETE, "/v1/me/mfa/email-code", json!({})),
        (Method::PUT, "/v1/me/password", change),
        (Method::POST, "/v1/me/email", json!({ "email": "m@evil.test" })),
        (Method::DELETE, "/v1/me/sessions", json!({})),
        (Method::GET, "/v1/me/export", json!({})),
        (Method::DELETE, "/v1/me", json!({})),
    ];
    let mut all: Vec<_> =
        all.into_iter().map(|(method, path, body)| (method, path.to_owned(), body)).collect();
    all.push((Method::DELETE, format!("/v1/me/sessions/{other}"), json!({})));
    all
}

/// None of it is open to whoever has this access token; `other` is another session of the same person.
async fn shut(app: &TestApp, what: &str, access: &str, other: &str) {
    for (method, path, body) in guarded(other) {
        let request = app.request(method.clone(), &path).bearer_auth(access);
        let request = if body == json!({}) && method != Method::POST { request } else { request.json(&body) };
        assert_eq!(ask(app, request).await.refusal(), NOT_FRESH, "{what}: {method} {path}");
    }
}

/// Somebody proves themselves again; a moment later than before, so that older tokens can be told from newer ones.
async fn again(app: &TestApp, access: &str, body: Value) -> Person {
    app.clock.advance(MOMENT);
    let answer = call(app, Method::POST, AGAIN, access, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    Person::of(&answer)
}

both_with! { true, "[mfa]\nrequired_roles = [\"staff\"]";
    async fn a52_gotrue_2565_factors_without_step_up(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let stolen = Person::of(&app.login(&ada.email, PASSWORD).await);
        let factor = enrol(app, &ada).await;
        let counted = "SELECT (SELECT COUNT(*) FROM totp_factors) * 100 + (SELECT COUNT(*) FROM recovery_codes)";

        // A session from before the factor, which may prove the password again and again; one by mail; and one that has
        // shown the factor and no password.
        shut(app, "from before", &stolen.access, &ada.session).await;
        let proven = again(app, &stolen.access, json!({ "password": PASSWORD })).await;
        shut(app, "with the password", &proven.access, &ada.session).await;
        let (_, mail) = magic(app, &ada.email, 1).await;
        let token = due(&consume(app, json!({ "token": link_token(&mail) })).await);
        let by_mail = Person::of(&show(app, &token, "totp", &factor.next(app)).await);
        shut(app, "without the password", &by_mail.access, &ada.session).await;
        assert_eq!(app.count(counted).await, 110, "all as it was");
        assert_eq!(app.login(&ada.email, NEW).await.refusal(), "401 invalid_credentials");

        // Somebody else's factors are nothing that another one's token could name.
        let eve = app.person("eve@ex.test").await;
        let none = call(app, Method::DELETE, TOTP, &eve.access, &json!({})).await;
        assert_eq!((none.refusal().as_str(), app.count(counted).await), ("404 not_found", 110));

        // Who has shown everything takes it away, and every session loses what it had by it.
        let strong = Person::of(&sign_in(app, &ada.email, PASSWORD, &factor).await);
        let removed = ask(app, app.request(Method::DELETE, TOTP).bearer_auth(&ada.access)).await;
        assert_eq!((removed.status, app.count(counted).await), (204, 0), "{}", removed.text);
        assert_eq!(app.count("SELECT COUNT(*) FROM sessions WHERE aal > 1").await, 0);
        assert_eq!(app.refresh(&strong.refresh).await.json["session"]["aal"], 1);
        let step_up = json!({ "refresh_token": ada.refresh, "aal": 2 });
        assert_eq!(post(app, "/v1/auth/refresh", &step_up).await.refusal(), NOT_FRESH);

        // The last one that policy demands stays.
        let staff = app.person("staff@ex.test").await;
        grant(app, &staff, "staff").await;
        enrol(app, &staff).await;
        let refused = ask(app, app.request(Method::DELETE, TOTP).bearer_auth(&staff.access)).await;
        assert_eq!((refused.refusal().as_str(), app.count(counted).await), ("409 conflict", 110));
        due(&app.login(&staff.email, PASSWORD).await);
        // Passkeys, which have ids, are in `passkeys`.
    }
}

both! {
    async fn a77_ghsa_hp74_gm6m_2qm5_sudo_mode(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let factor = enrol(app, &ada).await;
        let strong = Person::of(&sign_in(app, &ada.email, PASSWORD, &factor).await);
        let codes = async |access: &str| call(app, Method::POST, CODES, access, &json!({})).await.refusal();
        app.clock.advance(FRESH);
        let last = app.refresh(&strong.refresh).await;
        assert_eq!(codes(&last.str("/access_token")).await, "200 -", "the trap: the last moment");
        app.clock.advance(MOMENT);
        let stale = Person::of(&app.refresh(&last.str("/refresh_token")).await);
        shut(app, "ten minutes old", &stale.access, &ada.session).await;

        // The password alone is less than the account can show; a wrong or a used code is nothing.
        let by_password = again(app, &stale.access, json!({ "password": PASSWORD })).await;
        shut(app, "the password alone", &by_password.access, &ada.session).await;
        let used = code_at(&factor.secret, app.clock.now() - FRESH);
        for body in [by_totp(&factor.wrong(app)), by_totp(&used), json!({ "type": "recovery_code", "code": "k7mq-2vxa-9hrt-c4pw" })] {
            assert_eq!(call(app, Method::POST, AGAIN, &by_password.access, &body).await.refusal(), WRONG);
        }
        shut(app, "what was refused", &by_password.access, &ada.session).await;
        let wrong = json!({ "password": OTHER, "type": "totp", "code": factor.code(app) });
        assert_eq!(call(app, Method::POST, AGAIN, &by_password.access, &wrong).await.status, 422, "one proof at a time");

        // With the factor it opens, for this session and the tokens since; not for older ones, nor for another session.
        let other = app.refresh(&ada.refresh).await.str("/access_token");
        let shown = again(app, &by_password.access, by_totp(&factor.next(app))).await;
        shut(app, "a copy of the token from before", &by_password.access, &ada.session).await;
        shut(app, "another session of the same person", &other, &strong.session).await;
        assert_eq!(codes(&shown.access).await, "200 -");
        let body = by_totp(&factor.code(app));
        assert_eq!(call(app, Method::POST, AGAIN, &other, &body).await.refusal(), WRONG, "what opened one opens no other");

        // "Current password" is checked all the same.
        let change = json!({ "current_password": OTHER, "new_password": NEW });
        let refused = call(app, Method::PUT, "/v1/me/password", &shown.access, &change).await;
        assert_eq!(refused.refusal(), "401 invalid_credentials");
        app.clock.advance(FRESH + MOMENT);
        let later = app.refresh(&shown.refresh).await.str("/access_token");
        shut(app, "ten minutes later", &later, &ada.session).await;

        // By cookie it is the same.
        let body = json!({ "email": ada.email, "password": PASSWORD, "transport": "cookie" });
        let token = due(&post(app, "/v1/auth/login", &body).await);
        let entered = show(app, &token, "totp", &factor.next(app)).await;
        let set = entered.headers.get_all("set-cookie").iter().map(|set| set.to_str().unwrap());
        let cookie = set.filter_map(|set| set.split(';').next()).find(|set| set.contains("=pgr_")).unwrap();
        let by_cookie = || app.request(Method::POST, CODES).header("cookie", cookie).header("origin", &app.url).json(&json!({}));
        assert_eq!(ask(app, by_cookie()).await.status, 200, "the trap");
        app.clock.advance(FRESH + MOMENT);
        assert_eq!(ask(app, by_cookie()).await.refusal(), NOT_FRESH);
    }
}

both_with! { true, "[mfa]\ntrusted_device = \"30d\"";
    async fn a_trusted_device_is_no_factor_and_no_other_ones(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let eve = app.person("eve@ex.test").await;
        let factor = enrol(app, &ada).await;
        let hers = enrol(app, &eve).await;
        let mut devices = Vec::new();
        for (person, factor) in [(&ada, &factor), (&eve, &hers)] {
            let token = half(app, &person.email, PASSWORD).await;
            let body = json!({ "mfa_token": token, "type": "totp", "code": factor.next(app), "trust_device": true });
            devices.push(post(app, SHOW, &body).await.str("/device_token"));
        }
        let login = async |email: &str, device: &str| {
            let body = json!({ "email": email, "password": PASSWORD, "device_token": device });
            post(app, "/v1/auth/login", &body).await
        };
        let entered = Person::of(&login(&ada.email, &devices[0]).await);
        due(&login(&ada.email, &devices[1]).await);
        shut(app, "on a trusted device", &entered.access, &ada.session).await;
        let step_up = json!({ "refresh_token": entered.refresh, "aal": 2 });
        assert_eq!(post(app, "/v1/auth/refresh", &step_up).await.refusal(), NOT_FRESH);
        let (_, mail) = magic(app, &ada.email, 1).await;
        let there = app.request(Method::POST, "/v1/auth/magic-link/consume").header("origin", &app.url);
        let there = there.header("cookie", format!("__Host-pearlgate-device={}", devices[0]));
        let by_mail = ask(app, there.json(&json!({ "token": link_token(&mail) }))).await;
        assert_eq!(by_mail.json["status"], "mfa_required", "a device and a mailbox are no password: {}", by_mail.text);
    }
}
