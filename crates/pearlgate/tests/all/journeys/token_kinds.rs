//! Kinds of secrets and the doors that take one: each opens its own door and no other.
//!
//! A new route stands in `DOORS` or in `NONE`, and a new prefix is one of the kinds; tests say so.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use pearlgate::access::{self, By, Change, NewKey, OWNER, Who};
use pearlgate::router::{Guard, doors};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::steps::{Tab, cookies, forgot, send_as, token_of};
use crate::both;
use crate::support::browser::{Browser, forms, parameter};
use crate::support::{Answer, Engine, PASSWORD, Person, TestApp};

const COOKIE: &str = "__Host-pearlgate-session";
/// What the account's password is by then, and what a reset makes it.
const SECOND: &str = "seven quiet orange rivers";
const THIRD: &str = "eleven brass kettles hum";

/// A way to present a secret.
struct Door {
    name: &'static str,
    /// The routes that it goes through, as `POST /v1/auth/login`.
    routes: &'static [&'static str],
    /// What opens it.
    opens: &'static [&'static str],
    /// What is the same kind of secret, kept in another place.
    same: &'static [&'static str],
}

const fn door(
    name: &'static str,
    routes: &'static [&'static str],
    opens: &'static [&'static str],
    same: &'static [&'static str],
) -> Door {
    Door { name, routes, opens, same }
}

const DOORS: [Door; 40] = [
    door("bearer", &["GET /v1/me"], &["access token"], &[]),
    door("cookie", &["GET /v1/me"], &["cookie"], &["refresh token"]),
    door("refresh, body", &["POST /v1/auth/refresh"], &["refresh token"], &["cookie"]),
    door("refresh, cookie", &["POST /v1/auth/refresh"], &["cookie"], &["refresh token"]),
    door("logout, body", &["POST /v1/auth/logout"], &["refresh token"], &["cookie"]),
    door("logout, bearer", &["POST /v1/auth/logout"], &["access token"], &[]),
    door("logout, cookie", &["POST /v1/auth/logout"], &["cookie"], &["refresh token"]),
    door("login, device", &["POST /v1/auth/login"], &["device token"], &[]),
    door("introspection", &["POST /v1/introspect"], &["access token"], &[]),
    door("verify, token", &["POST /v1/auth/verify-email"], &["verification link"], &[]),
    door("verify, token and password", &["POST /v1/auth/verify-email"], &["verification link"], &[]),
    door("verify, code", &["POST /v1/auth/verify-email"], &["verification code"], &[]),
    door("reset, token", &["POST /v1/auth/reset-password"], &["reset link"], &[]),
    door("reset, code", &["POST /v1/auth/reset-password"], &["reset code"], &[]),
    door("magic link, token", &["POST /v1/auth/magic-link/consume"], &["magic link"], &[]),
    door("magic link, code", &["POST /v1/auth/magic-link/consume"], &["magic code"], &[]),
    door("unlock", &["POST /v1/auth/unlock"], &["unlock link"], &[]),
    door("second step", &["POST /v1/auth/mfa"], &["half login"], &[]),
    door("second step, mail", &["POST /v1/auth/mfa/challenge"], &["half login"], &[]),
    door(
        "second step, enrolment",
        &["POST /v1/auth/mfa/totp", "POST /v1/auth/mfa/totp/confirm"],
        &["enrolment login"],
        &[],
    ),
    // An enrolment's page tells that there is something to set up elsewhere.
    door("/mfa", &["GET /mfa", "POST /mfa"], &["half login"], &[]),
    door("new address, token", &["POST /v1/me/email/confirm"], &["change link"], &[]),
    door("new address, code", &["POST /v1/me/email/confirm"], &["change code"], &[]),
    door("/verify-email", &["GET /verify-email", "POST /verify-email"], &["verification link"], &[]),
    door("/reset-password", &["GET /reset-password", "POST /reset-password"], &["reset link"], &[]),
    door("/magic-link", &["GET /magic-link", "POST /magic-link"], &["magic link"], &[]),
    // The page of a change is also the page that undoes one.
    door("/email-change", &["GET /email-change", "POST /email-change"], &["change link", "not-me link"], &[]),
    door("/unlock", &["GET /unlock", "POST /unlock"], &["unlock link"], &[]),
    door(
        "callback",
        &["GET /v1/auth/oauth/{provider}/callback", "POST /v1/auth/oauth/{provider}/callback"],
        &["state"],
        &[],
    ),
    door("exchange", &["POST /v1/auth/oauth/exchange"], &["one-time code"], &[]),
    door("completion", &["POST /v1/auth/oauth/complete"], &["completion token"], &[]),
    door("link", &["GET /v1/auth/oauth/{provider}/start"], &["link ticket"], &[]),
    // Every route of operators has the same guard; a person's access token opens it when they are one.
    door("operator", &["GET /v1/admin/users"], &["api key"], &[]),
    door("set-up", &["POST /v1/setup"], &["set-up link"], &[]),
    door("/setup", &["GET /setup", "POST /setup"], &["set-up link"], &[]),
    door("invitation", &["POST /v1/auth/accept-invitation"], &["invitation link"], &[]),
    door(
        "/accept-invitation",
        &["GET /accept-invitation", "POST /accept-invitation"],
        &["invitation link"],
        &[],
    ),
    door("keep account", &["POST /v1/auth/keep-account"], &["account link"], &[]),
    door("/keep-account", &["GET /keep-account", "POST /keep-account"], &["account link"], &[]),
    door("/not-me", &["GET /not-me", "POST /not-me"], &["not-me link", "new-device link", "keep link"], &[]),
];

/// Routes that take no secret but what says who is calling, which is one guard's work for all of them; and passwords.
const NONE: [&str; 58] = [
    // Providers prove themselves, each in its own way.
    "POST /v1/hooks/mail/{provider}",
    "GET /v1/auth/verifications/{id}",
    "GET /v1/auth/methods",
    // Whoever calls says so as everywhere.
    "POST /v1/authorize",
    "POST /v1/authorize/batch",
    // An ID token is somebody else's.
    "POST /v1/auth/oauth/{provider}/id-token",
    "GET /v1/me/identities",
    "POST /v1/me/identities/{provider}/start",
    "POST /v1/me/identities/{provider}",
    "DELETE /v1/me/identities/{provider}",
    "POST /v1/auth/passkey/start",
    "POST /v1/auth/passkey/finish",
    "GET /v1/me/passkeys",
    "POST /v1/me/passkeys/start",
    "POST /v1/me/passkeys/finish",
    "PATCH /v1/me/passkeys/{id}",
    "DELETE /v1/me/passkeys/{id}",
    "POST /v1/me/reauthenticate/passkey",
    "GET /dev/passkeys",
    "GET /v1/auth/challenge",
    "POST /v1/auth/register",
    "POST /v1/auth/resend-verification",
    "POST /v1/auth/magic-link",
    "POST /v1/auth/forgot-password",
    "PATCH /v1/me",
    "POST /v1/admin/users",
    "DELETE /v1/me",
    "GET /v1/me/export",
    "PUT /v1/me/password",
    "POST /v1/me/email",
    "POST /v1/me/reauthenticate",
    "GET /v1/me/activity",
    "GET /v1/me/mfa",
    "POST /v1/me/mfa/totp",
    "POST /v1/me/mfa/totp/confirm",
    "DELETE /v1/me/mfa/totp",
    "POST /v1/me/mfa/recovery-codes",
    "PUT /v1/me/mfa/email-code",
    "DELETE /v1/me/mfa/email-code",
    "GET /v1/me/sessions",
    "DELETE /v1/me/sessions",
    "DELETE /v1/me/sessions/{id}",
    "GET /v1/revocations",
    "GET /.well-known/jwks.json",
    "GET /.well-known/openid-configuration",
    "GET /health/live",
    "GET /health/ready",
    "GET /health/dependencies",
    "GET /metrics",
    "GET /errors",
    "GET /errors/{code}",
    "GET /openapi.json",
    "GET /docs",
    "GET /",
    "GET /dev/mailbox",
    "GET /dev/v1/messages",
    "POST /dev/v1/clock",
    "PUT /dev/v1/faults/{dependency}",
];

/// Somebody of whom every kind of secret is about, all of them good.
struct Mint {
    owner: Person,
    verification: String,
    magic: String,
    /// Good for the half login.
    second: String,
    /// The cookie of the browser that is on its way through a provider.
    browser: String,
    kinds: Vec<(&'static str, String)>,
}

impl Mint {
    /// `n` makes it somebody of their own.
    async fn new(app: &TestApp, n: usize) -> Self {
        let (email, newcomer, next) =
            (format!("ada{n}@ex.test"), format!("new{n}@ex.test"), format!("next{n}@ex.test"));
        let owner = app.person(&email).await;
        // Tells of a new password, with a way to take it back; before anything else, because it ends what is mailed.
        let change = json!({ "current_password": PASSWORD, "new_password": SECOND });
        let changed = send_as(app, Method::PUT, "/v1/me/password", &owner.access, change).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        let not_me = app.mail(&email, "password_changed", 1).await;
        // A device of its own, of which a mail tells; then a browser on the same device.
        let on_device = app.login(&email, SECOND).await;
        let device = on_device.str("/device_token");
        let login =
            json!({ "email": email, "password": SECOND, "device_token": device, "transport": "cookie" });
        let in_browser = app.post("/v1/auth/login", login).await;
        let set = cookies(&in_browser);
        let cookie = set.iter().find_map(|cookie| cookie.strip_prefix(COOKIE)?.strip_prefix('=')).unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        app.mail(&email, "new_device", 1).await;
        // Everything that can be open at a time.
        let verification = app.register(&newcomer).await.str("/verification_id");
        let verify = app.mail(&newcomer, "verify_email", 1).await;
        let reset = forgot(app, &email, 1).await;
        let asked = app.post("/v1/auth/magic-link", json!({ "email": email })).await;
        let magic = app.mail(&email, "magic_link", 1).await;
        let moved = send_as(app, Method::POST, "/v1/me/email", &owner.access, json!({ "email": next })).await;
        assert_eq!(moved.status, 202, "{}", moved.text);
        let change = app.mail(&next, "email_change", 1).await;
        for _ in 0..5 {
            assert_eq!(app.login(&email, THIRD).await.status, 401);
        }
        let locked = app.mail(&email, "account_locked", 1).await;
        app.sql("UPDATE password_guesses SET in_a_row = 0, locked_until = 0").await;
        let (half, second, enrolment, keep) = second_steps(app, n).await;
        let elsewhere = Elsewhere::new(app, &owner).await;
        let key = api_key(app, n).await;
        let invited = format!("invited{n}@ex.test");
        let body = json!({ "email": invited });
        let asked_for = send_as(app, Method::POST, "/v1/admin/invitations", &key, body).await;
        assert_eq!(asked_for.status, 201, "{}", asked_for.text);
        let invitation = token_of(&app.mail(&invited, "invitation", 1).await.links[0]);
        let leaving = app.person(&format!("leaving{n}@ex.test")).await;
        pearlgate::accounts::close(&app.app, leaving.id.parse().unwrap()).await.unwrap().unwrap();
        let stays = token_of(&app.mail(&leaving.email, "account_closing", 1).await.links[0]);
        app.sql("DELETE FROM setup_done").await;
        let set_up = token_of(&pearlgate::access::setup::link(&app.app).await.unwrap().unwrap());
        app.quiet().await;
        let new_device = app.app.mailbox.as_ref().unwrap().list(Some(&email), Some("new_device")).remove(0);
        let kinds = vec![
            ("access token", owner.access.clone()),
            ("invitation link", invitation),
            ("account link", stays),
            ("refresh token", owner.refresh.clone()),
            ("cookie", cookie),
            ("device token", device),
            ("verification link", token_of(&verify.links[0])),
            ("verification code", verify.code),
            ("reset link", token_of(&reset.links[0])),
            ("reset code", reset.code),
            ("magic link", token_of(&magic.links[0])),
            ("magic code", magic.code),
            ("change link", token_of(&change.links[0])),
            ("change code", change.code),
            ("unlock link", token_of(&locked.links[0])),
            ("not-me link", token_of(&not_me.links[0])),
            ("new-device link", token_of(&new_device.links[0])),
            ("half login", half),
            ("enrolment login", enrolment),
            ("keep link", keep),
            ("state", elsewhere.state),
            ("one-time code", elsewhere.code),
            ("completion token", elsewhere.completion),
            ("link ticket", elsewhere.ticket),
            ("api key", key),
            ("set-up link", set_up),
            ("session id", owner.session.clone()),
            ("verification id", verification.clone()),
            ("magic link id", asked.str("/magic_link_id")),
            ("challenge id", app.post("/v1/auth/passkey/start", json!({})).await.str("/challenge_id")),
        ];
        Self {
            owner,
            verification,
            magic: asked.str("/magic_link_id"),
            second,
            browser: elsewhere.browser,
            kinds,
        }
    }

    fn secret(&self, kind: &str) -> &str {
        &self.kinds.iter().find(|(name, _)| *name == kind).unwrap().1
    }
}

/// Somebody who is asked for a second step: their half login with the code for it, one that is held up by a policy, and the
/// link that keeps their factor.
async fn second_steps(app: &TestApp, n: usize) -> (String, String, String, String) {
    let email = format!("two{n}@ex.test");
    let two = app.person(&email).await;
    let user = format!("FROM user_emails WHERE address_key = '{email}'");
    app.sql(&format!("INSERT INTO email_code_factors (user_id, since) SELECT user_id, 1 {user}")).await;
    let login = json!({ "email": email, "password": PASSWORD, "transport": "cookie" });
    let half = || async { app.post("/v1/auth/login", login.clone()).await.str("/mfa_token") };
    let enrolment = half().await;
    app.sql(&format!(
        "UPDATE half_logins SET purpose = 'enrolment' WHERE user_id IN (SELECT user_id {user})"
    ))
    .await;
    let half = half().await;
    let asked = app.post("/v1/auth/mfa/challenge", json!({ "mfa_token": half, "type": "email_code" })).await;
    assert_eq!(asked.status, 200, "{}", asked.text);
    let code = app.mail(&email, "mfa_code", 1).await.code;
    assert!(pearlgate::mfa::announce_reset(&app.app, two.id.parse().unwrap()).await.unwrap());
    let keep = token_of(&app.mail(&email, "factor_reset", 1).await.links[0]);
    (half, code, enrolment, keep)
}

/// A key that may look people up, of somebody who may.
async fn api_key(app: &TestApp, n: usize) -> String {
    let maker = app.person(&format!("maker{n}@ex.test")).await;
    let (user, session) = (maker.id.parse().unwrap(), maker.session.parse().unwrap());
    let owner = Change::Add((OWNER.into(), String::new()));
    access::change(&app.app, By::console(), user, owner).await.unwrap().unwrap();
    app.sql(&format!("UPDATE sessions SET aal = 2 WHERE user_id IN (SELECT user_id FROM user_emails WHERE address_key = 'maker{n}@ex.test')")).await;
    let new = NewKey {
        name: "reports".into(),
        permissions: ["users:read".into(), "invitations:write".into()].into(),
        lifetime: Duration::from_secs(86_400),
    };
    let by = By { who: Who::Person(user, session), ..By::console() };
    access::make_key(&app.app, by, new).await.unwrap().unwrap().1.reveal().to_owned()
}

/// What is about while a browser is on its way through the pretend provider.
struct Elsewhere {
    browser: String,
    state: String,
    code: String,
    completion: String,
    ticket: String,
}

impl Elsewhere {
    async fn new(app: &TestApp, owner: &Person) -> Self {
        let browser = Browser::new(app);
        let page = browser.start("dev", "").await;
        let url = browser.begin_link(&owner.access, "dev", json!({})).await.str("/url");
        Self {
            state: forms(&page.text)[0]["state"].clone(),
            code: browser.code_as("verified").await,
            completion: browser.completion().await,
            ticket: parameter(&url, "link").unwrap(),
            browser: browser.cookie(),
        }
    }
}

/// Presents a secret at the page for the second step; whether it let in.
async fn on_second_page(app: &TestApp, mint: &Mint, secret: &str) -> bool {
    let (tab, page) = Tab::open(app, &format!("{}/mfa?token={secret}", app.url)).await;
    let offered = page.text.contains("<form");
    let done = tab.fill(app, &[("type", "email_code"), ("code", &mint.second)]).await;
    assert_eq!(offered, done.status == 200 && done.text.contains("You are signed in"), "{}", done.text);
    offered
}

/// A page's request with a cookie of this value.
fn carrying(app: &TestApp, method: Method, path: &str, value: &str) -> RequestBuilder {
    app.request(method, path).header("cookie", format!("{COOKIE}={value}")).header("origin", &app.url)
}

async fn form(app: &TestApp, path: &str, name: &str, value: &str) -> Answer {
    let body = serde_urlencoded::to_string([(name, value)]).unwrap();
    let request = app.request(Method::POST, path).header("content-type", "application/x-www-form-urlencoded");
    app.send(request.body(body)).await
}

/// Presents a secret at the page of a mailed link, as far as there is a button; whether it did its work.
async fn on_page(app: &TestApp, path: &str, secret: &str) -> bool {
    let (tab, page) = Tab::open(app, &format!("{}{path}?token={secret}", app.url)).await;
    let offered = page.text.contains("<form");
    let done = tab.submit(app, THIRD).await;
    assert!(done.status < 500, "{path}: {}", done.text);
    let did = done.status == 200 && cookies(&done).iter().any(|cookie| cookie.contains("Max-Age=0"));
    assert_eq!(offered, did, "{path}: a form that does nothing, or something without a form: {}", done.text);
    did
}

/// Presents a secret at a door; whether it opened.
async fn opens(app: &TestApp, door: &str, mint: &Mint, secret: &str) -> bool {
    let email = mint.owner.email.as_str();
    let access = mint.owner.access.as_str();
    let post = |path: &'static str, body: Value| async move { app.post(path, body).await };
    let confirm = |body: Value| send_as(app, Method::POST, "/v1/me/email/confirm", access, body);
    let ended = || app.count("SELECT COUNT(*) FROM ended_sessions");
    let before = ended().await;
    let answer = match door {
        "bearer" => app.get_as("/v1/me", secret).await,
        "cookie" => app.send(carrying(app, Method::GET, "/v1/me", secret)).await,
        "refresh, body" => app.refresh(secret).await,
        "refresh, cookie" => app.send(carrying(app, Method::POST, "/v1/auth/refresh", secret)).await,
        "logout, body" => post("/v1/auth/logout", json!({ "refresh_token": secret })).await,
        "logout, bearer" => app.send(app.request(Method::POST, "/v1/auth/logout").bearer_auth(secret)).await,
        "logout, cookie" => app.send(carrying(app, Method::POST, "/v1/auth/logout", secret)).await,
        "login, device" => {
            post("/v1/auth/login", json!({ "email": email, "password": SECOND, "device_token": secret }))
                .await
        }
        "introspection" => form(app, "/v1/introspect", "token", secret).await,
        "verify, token" => {
            let body = json!({ "verification_id": mint.verification, "token": secret });
            post("/v1/auth/verify-email", body).await
        }
        "verify, token and password" => {
            post("/v1/auth/verify-email", json!({ "token": secret, "password": THIRD })).await
        }
        "verify, code" => {
            let body = json!({ "verification_id": mint.verification, "code": secret });
            post("/v1/auth/verify-email", body).await
        }
        "reset, token" => {
            post("/v1/auth/reset-password", json!({ "token": secret, "password": THIRD })).await
        }
        "reset, code" => {
            let body = json!({ "email": email, "code": secret, "password": THIRD });
            post("/v1/auth/reset-password", body).await
        }
        "magic link, token" => post("/v1/auth/magic-link/consume", json!({ "token": secret })).await,
        "magic link, code" => {
            post("/v1/auth/magic-link/consume", json!({ "magic_link_id": mint.magic, "code": secret })).await
        }
        "unlock" => post("/v1/auth/unlock", json!({ "token": secret })).await,
        "new address, token" => confirm(json!({ "token": secret })).await,
        "new address, code" => confirm(json!({ "code": secret })).await,
        "second step" => {
            let body = json!({ "mfa_token": secret, "type": "email_code", "code": mint.second });
            post("/v1/auth/mfa", body).await
        }
        "second step, mail" => {
            post("/v1/auth/mfa/challenge", json!({ "mfa_token": secret, "type": "email_code" })).await
        }
        "second step, enrolment" => {
            let body = json!({ "mfa_token": secret, "code": "000000" });
            let confirmed = post("/v1/auth/mfa/totp/confirm", body).await;
            let begun = post("/v1/auth/mfa/totp", json!({ "mfa_token": secret })).await;
            assert_eq!(confirmed.refusal() == "409 conflict", begun.status == 200, "{}", confirmed.text);
            begun
        }
        "callback" => {
            let back = Browser::with_cookie(app, &mint.browser).post_back(secret, "verified").await;
            assert!(back.status == 303 || back.status == 400, "{}", back.text);
            return back.status == 303;
        }
        "exchange" => Browser::with_cookie(app, &mint.browser).exchange(secret, json!({})).await,
        "completion" => {
            let body = json!({ "completion_token": secret, "email": "noel@ex.test", "display_name": "Noel" });
            let answer = post("/v1/auth/oauth/complete", body).await;
            return answer.status == 202;
        }
        "link" => {
            let path = format!("/v1/auth/oauth/dev/start?link={secret}");
            app.send(app.request(Method::GET, &path)).await
        }
        "operator" => app.get_as("/v1/admin/users", secret).await,
        "invitation" => {
            post("/v1/auth/accept-invitation", json!({ "token": secret, "password": THIRD })).await
        }
        "keep account" => {
            let answer = post("/v1/auth/keep-account", json!({ "token": secret })).await;
            assert!(answer.status == 204 || (400..500).contains(&answer.status), "{}", answer.text);
            return answer.status == 204;
        }
        "set-up" => {
            let email = format!("boss{}", mint.owner.email);
            let answer =
                post("/v1/setup", json!({ "token": secret, "email": email, "password": THIRD })).await;
            return answer.status == 201;
        }
        "/setup" => {
            let (tab, page) = Tab::open(app, &format!("{}/setup?token={secret}", app.url)).await;
            let email = format!("boss{}", mint.owner.email);
            let done = tab.fill(app, &[("email", &email), ("password", THIRD), ("display_name", "")]).await;
            let offered = page.text.contains("<form");
            assert_eq!(offered, done.status == 200 && done.text.contains("is set up"), "{}", done.text);
            return offered;
        }
        "/mfa" => return on_second_page(app, mint, secret).await,
        page => return on_page(app, page, secret).await,
    };
    match door {
        // It answers the same to everybody, and ends the session of whose token it was, and no other.
        "logout, body" | "logout, bearer" | "logout, cookie" => {
            assert_eq!(answer.status, 204, "{door}: {}", answer.text);
            let now = ended().await;
            assert!(now - before <= 1, "{door}: {} sessions ended", now - before);
            now > before
        }
        // It lets in whoever knows the password; what is a token of this account's gives the same device again.
        "login, device" => {
            assert_eq!(answer.status, 200, "{}", answer.text);
            answer.str("/device_token") == mint.secret("device token")
        }
        "introspection" => {
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert!(answer.json["active"] == true || answer.text == r#"{"active":false}"#, "{}", answer.text);
            answer.json["active"] == true
        }
        _ => {
            assert!(answer.status == 200 || (400..500).contains(&answer.status), "{door}: {}", answer.text);
            assert!(
                answer.status == 200 || cookies(&answer).iter().all(|cookie| !cookie.contains("pgr_")),
                "{door}"
            );
            answer.status == 200
        }
    }
}

/// Four wrong codes are one too few to end a code, so that many are tried on one account.
const TRIES: usize = 4;

both! {
    async fn every_secret_opens_its_own_door_and_no_other(app: &TestApp) {
        let mut people = 0..;
        for door in &DOORS {
            for genuine in door.opens {
                let first = Mint::new(app, people.next().unwrap()).await;
                let belongs = |kind: &str| door.opens.contains(&kind) || door.same.contains(&kind);
                let foreign: Vec<&str> = first.kinds.iter().map(|(kind, _)| *kind).filter(|kind| !belongs(kind)).collect();
                assert!(foreign.len() >= first.kinds.len() - 3, "{}: {foreign:?}", door.name);
                let tries = if genuine.ends_with("code") { TRIES } else { foreign.len() };
                let mut first = Some(first);
                for some in foreign.chunks(tries) {
                    let mint = match first.take() {
                        Some(mint) => mint,
                        None => Mint::new(app, people.next().unwrap()).await,
                    };
                    for kind in some {
                        assert!(!opens(app, door.name, &mint, mint.secret(kind)).await, "{}: a {kind} opens it", door.name);
                    }
                    // The genuine one is as good as before.
                    let secret = mint.secret(genuine);
                    assert!(opens(app, door.name, &mint, secret).await, "{}: its own {genuine} does not open it", door.name);
                }
            }
        }
        app.quiet().await;
    }
}

both! {
    async fn a_sign_out_ends_the_session_of_the_token_alone(app: &TestApp) {
        for (n, door) in ["logout, body", "logout, bearer", "logout, cookie"].into_iter().enumerate() {
            let mint = Mint::new(app, n).await;
            let row = DOORS.iter().find(|row| row.name == door).unwrap();
            assert!(opens(app, door, &mint, mint.secret(row.opens[0])).await, "{door}");
            let of_the_owner = app.get_as("/v1/me", mint.secret("access token")).await;
            let of_the_browser = app.send(carrying(app, Method::GET, "/v1/me", mint.secret("cookie"))).await;
            let expected = if door == "logout, cookie" { (200, 401) } else { (401, 200) };
            assert_eq!((of_the_owner.status, of_the_browser.status), expected, "{door}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_a_door_or_takes_no_secret_and_every_prefix_is_a_kind() {
    let app = TestApp::start(Engine::Sqlite).await;
    let taking: BTreeSet<&str> = DOORS.iter().flat_map(|door| door.routes).copied().collect();
    let none = BTreeSet::from(NONE);
    assert!(taking.is_disjoint(&none), "{:?}", taking.intersection(&none));
    let mounted: BTreeSet<String> = doors(&app.app)
        .routes
        .into_iter()
        // One guard's work: the door "operator".
        .filter(|route| !matches!(route.guard, Guard::Operator(_)) || route.path == "/v1/admin/users")
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    let known: BTreeSet<String> = taking.union(&none).map(ToString::to_string).collect();
    let unknown: Vec<&String> = mounted.difference(&known).collect();
    assert!(unknown.is_empty(), "do these take a token or a mailed secret? {unknown:?}");
    let gone: Vec<&String> = known.difference(&mounted).collect();
    assert!(gone.is_empty(), "these are not there any more: {gone:?}");

    // Prefixes stand in the source as `"pgx_"`.
    let mut prefixes = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read(&path).unwrap();
                let quoted = text.windows(6).filter(|six| six.starts_with(b"\"pg") && six.ends_with(b"_\""));
                prefixes.extend(quoted.map(|six| String::from_utf8_lossy(&six[1..5]).into_owned()));
            }
        }
    }
    let mint = Mint::new(&app, 0).await;
    let kinds: BTreeSet<String> = mint
        .kinds
        .iter()
        .filter(|(_, secret)| secret.starts_with("pg"))
        .map(|(_, secret)| secret[..4].to_owned())
        .collect();
    assert_eq!(prefixes, kinds, "a prefix without a kind, or the other way round");
    // And every kind but the ids opens something.
    for (kind, _) in &mint.kinds {
        let opening = DOORS.iter().any(|door| door.opens.contains(kind));
        assert_eq!(opening, !kind.ends_with(" id"), "{kind}");
    }
    app.finish().await;
}
