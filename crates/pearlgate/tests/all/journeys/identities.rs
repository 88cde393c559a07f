//! Linked identities when somebody else has one, when the clock goes on, when two come at once, and when a provider turns out
//! to be another.

use std::time::Duration;

use foundation::kernel::Clock;
use pearlgate::federation::{add_provider, remove_provider, set_disabled};
use reqwest::Method;
use serde_json::json;

use super::passkeys::{add, event};
use super::steps::{Tab, ended};
use crate::support::browser::{Browser, IDENTITIES, parameter};
use crate::support::idp::{Broken, CLIENT, Idp, Key, begin};
use crate::support::soft_key::{SoftKey, b64, random};
use crate::support::{Answer, Engine, PASSWORD, Person, TestApp, together};
use crate::with_idp;

const V: &str = "v@ex.test";
const NO: &str = "401 token_invalid";
const CONFLICT: &str = "409 conflict";
const NOT_FOUND: &str = "404 not_found";
const MINUTE: Duration = Duration::from_secs(60);

/// The clock goes on by itself, as outside of tests: no two looks at it see the same moment.
struct Ticking(tokio::task::JoinHandle<()>);

impl Ticking {
    fn start(clock: Clock) -> Self {
        Self(tokio::spawn(async move {
            loop {
                clock.advance(Duration::from_micros(500));
                tokio::task::yield_now().await;
            }
        }))
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn linked(app: &TestApp) -> i64 {
    app.count("SELECT COUNT(*) FROM federated_identities").await
}

with_idp! { "";
    async fn what_a_notice_tells_of_is_taken_away_by_its_link_while_time_goes_on(app: &TestApp, idp: &Idp) {
        let ada = app.person("ada@example.com").await;
        let ticking = Ticking::start(app.clock.clone());
        Browser::new(app).link(&ada.access, "idp", idp).await;
        drop(ticking);
        let told = app.mail(&ada.email, "identity_changed", 1).await;
        let (tab, page) = Tab::open(app, &told.links[0]).await;
        assert!(page.text.contains("sign-ins at other providers"), "{}", page.text);
        assert_eq!(tab.press(app).await.status, 200);
        assert_eq!(linked(app).await, 0);
        app.quiet().await;
    }
}

with_idp! { "";
    async fn a_provider_s_sign_in_that_was_not_hers_ends_with_all_that_it_opened(app: &TestApp, idp: &Idp, other: &Idp) {
        let ada = app.person("ada@example.com").await;
        let at_idp = Browser::new(app);
        at_idp.link(&ada.access, "idp", idp).await;
        app.clock.advance(2 * MINUTE);
        // A thief has her account at the provider, and makes a second way in.
        let thief = Person::of(&Browser::new(app).sign_in(idp).await);
        let told = app.mail(&ada.email, "new_device", 1).await;
        other.person(json!({ "sub": "thief's" }));
        app.clock.advance(MINUTE);
        Browser::new(app).link(&thief.access, "other", other).await;
        let second = Person::of(&Browser::new(app).enter("other", other).await);
        assert_eq!((&thief.id, &second.id), (&ada.id, &ada.id));
        let (tab, _) = Tab::open(app, &told.links[0]).await;
        assert_eq!(tab.press(app).await.status, 200);
        for person in [&thief, &second] {
            assert_eq!(ended(app, &person.access).await, "revoked_by_user");
            assert_eq!(app.refresh(&person.refresh).await.status, 401);
        }
        assert_eq!(linked(app).await, 0);
        let again = app.login(&ada.email, PASSWORD).await;
        assert!(event(app, &again.str("/access_token"), "identity_unlinked").await.is_some());
        app.quiet().await;
    }
}

with_idp! { "";
    async fn two_that_come_first_at_once_are_one_person_or_one_of_them(app: &TestApp, idp: &Idp, other: &Idp) {
        let mut ready = Vec::new();
        for _ in 0..8 {
            let browser = Browser::new(app);
            let code = browser.code("idp", idp).await;
            ready.push((browser, code));
        }
        let all = together(ready.iter().map(|(browser, code)| browser.exchange(code, json!({}))).collect()).await;
        let ids: std::collections::BTreeSet<String> =
            all.iter().filter(|answer| answer.status == 200).map(|answer| answer.str("/user/id")).collect();
        // At the very same moment one of them may be told to try again; nobody is somebody else.
        assert!(ids.len() == 1 && all.iter().all(|answer| [200, 503].contains(&answer.status)), "{all:?}");
        assert_eq!((linked(app).await, app.count("SELECT COUNT(*) FROM users").await), (1, 1));

        // Two providers say the same address of two subjects: the second has to sign in first.
        let (one, two) = (Browser::new(app), Browser::new(app));
        for (idp, sub) in [(idp, "i2"), (other, "o2")] {
            idp.person(json!({ "sub": sub, "email": "w@ex.test", "email_verified": true, "name": "Will" }));
        }
        let (first, second) = (one.code("idp", idp).await, two.code("other", other).await);
        let mut told: Vec<String> = together(vec![one.exchange(&first, json!({})), two.exchange(&second, json!({}))])
            .await
            .iter()
            .map(Answer::refusal)
            .collect();
        told.sort();
        assert_eq!(told, ["200 -", CONFLICT]);
        assert_eq!((linked(app).await, app.count("SELECT COUNT(*) FROM users").await), (2, 2));
    }
}

/// Signs in at a server that was started anew: it listens elsewhere than providers send browsers back to.
async fn enter_anew(app: &TestApp, provider: &str, idp: &Idp) -> Answer {
    let browser = Browser::new(app);
    let back = browser.ahead(provider, "", idp).await;
    let arrived = browser.callback(&back[back.find("/v1/").unwrap()..]).await;
    let body = json!({ "code": browser.code_of(&arrived) });
    let request = app.request(Method::POST, "/v1/auth/oauth/exchange").header("cookie", browser.cookie());
    app.send(request.json(&body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_provider_under_the_name_of_one_lets_nobody_in() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let (app, idp, other) = begin(engine, "").await;
        let vera = Browser::new(&app).sign_in(&idp).await.str("/user/id");
        // The same subject, of somebody else's issuer.
        let app = app.restart(&other.toml("idp", "")).await;
        other.follow(&app.clock);
        let refused = enter_anew(&app, "idp", &other).await;
        assert_eq!(refused.refusal(), NOT_FOUND, "{}", refused.text);
        assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 1);
        let app = app.restart(&idp.toml("idp", "")).await;
        assert_eq!(enter_anew(&app, "idp", &idp).await.str("/user/id"), vera);

        // One that is added meanwhile does not even get the name.
        add_provider(&app.app, "late", &idp.settings("")).await.unwrap();
        let entered = enter_anew(&app, "late", &idp).await;
        assert_eq!(entered.refusal(), CONFLICT, "the address is Vera's");
        assert!(remove_provider(&app.app, "late").await.unwrap());
        let words = add_provider(&app.app, "late", &other.settings("")).await.unwrap_err();
        assert!(words.contains("another name") && words.contains(idp.url()), "{words}");
        add_provider(&app.app, "late", &idp.settings("")).await.unwrap();
        app.finish().await;
    }
}

with_idp! { "";
    async fn what_is_on_its_way_through_a_provider_that_is_disabled_comes_to_nothing(app: &TestApp, idp: &Idp) {
        let browser = Browser::new(app);
        let back = browser.ahead("idp", "", idp).await;
        let code = Browser::new(app);
        let shown = code.code("idp", idp).await;
        idp.person(json!({ "sub": "s2" }));
        let token = Browser::new(app).sign_in(idp).await.str("/completion_token");
        let body = json!({ "completion_token": token, "email": "w@ex.test", "display_name": "Will" });
        let id = app.post("/v1/auth/oauth/complete", body).await.str("/verification_id");
        let mail = app.mail("w@ex.test", "verify_email", 1).await;

        set_disabled(&app.app, "idp", true).await.unwrap();
        set_disabled(&app.app, "idp", false).await.unwrap();
        assert_eq!(browser.callback(&back).await.refusal(), "400 malformed_request");
        assert_eq!(code.exchange(&shown, json!({})).await.refusal(), "422 verification_invalid");
        // The mailbox is theirs all the same; the identity is not linked to it.
        let verified = app.post("/v1/auth/verify-email", json!({ "verification_id": id, "code": mail.code })).await;
        assert_eq!((verified.status, linked(app).await), (200, 0), "{}", verified.text);
    }
}

with_idp! { "[other]\n[magic_link]\nenabled = false\n";
    async fn an_identity_of_a_provider_that_is_off_is_no_way_in(app: &TestApp, idp: &Idp, other: &Idp) {
        let vera = Person::of(&Browser::new(app).sign_in(idp).await);
        other.person(json!({ "sub": "o1" }));
        Browser::new(app).link(&vera.access, "other", other).await;
        set_disabled(&app.app, "other", true).await.unwrap();
        let unlink = || app.send(app.request(Method::DELETE, &format!("{IDENTITIES}/idp")).bearer_auth(&vera.access));
        assert_eq!(unlink().await.refusal(), "409 last_sign_in_method");
        set_disabled(&app.app, "other", false).await.unwrap();
        assert_eq!(unlink().await.status, 204);
        app.quiet().await;
    }
}

with_idp! { "[other]\n[magic_link]\nenabled = false\n";
    async fn nor_beside_the_last_passkey(app: &TestApp, idp: &Idp) {
        let vera = Person::of(&Browser::new(app).sign_in(idp).await);
        let mut key = SoftKey::p256();
        let (id, _) = add(app, &vera.access, &mut key).await;
        let remove = || app.send(app.request(Method::DELETE, &format!("/v1/me/passkeys/{id}")).bearer_auth(&vera.access));
        set_disabled(&app.app, "idp", true).await.unwrap();
        assert_eq!(remove().await.refusal(), "409 last_sign_in_method");
        set_disabled(&app.app, "idp", false).await.unwrap();
        assert_eq!(remove().await.status, 204);
        app.quiet().await;
    }
}

with_idp! { "";
    async fn an_address_and_whether_it_is_proven_come_from_one_place(app: &TestApp, idp: &Idp) {
        idp.thin();
        idp.claim("email_verified", json!(true));
        idp.userinfo(json!({ "sub": "s1", "email": V, "email_verified": false, "name": "Vera" }));
        let answer = Browser::new(app).sign_in(idp).await;
        assert_eq!(answer.json["missing"], json!(["email"]), "{}", answer.text);
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 0);
    }
}

with_idp! { "";
    async fn strange_names_and_answers_are_refused_and_open_no_breaker(app: &TestApp, idp: &Idp) {
        for id in ["%00", "a%00b", "IDP", "%F0%9F%92%A9", "..", &"a".repeat(5_000)] {
            for path in ["start", "callback?state=a&code=b"] {
                let answer = app.get(&format!("/v1/auth/oauth/{id}/{path}")).await;
                assert!([400, 404].contains(&answer.status), "{id}/{path}: {}", answer.text);
            }
            let body = json!({ "id_token": "a.b.c", "nonce": "n" });
            let answer = app.post(&format!("/v1/auth/oauth/{id}/id-token"), body).await;
            assert!([400, 404].contains(&answer.status), "{id}: {}", answer.text);
        }
        let browser = Browser::new(app);
        let back = browser.ahead("idp", "", idp).await;
        let state = parameter(&back, "state").unwrap();
        for code in ["a".repeat(5_000), "%00".into(), "%0a".into(), "%C3%A9".into()] {
            let path = format!("/v1/auth/oauth/idp/callback?state={state}&code={code}");
            assert_eq!(browser.callback(&path).await.refusal(), "400 malformed_request");
        }
        // Whatever somebody's browser brings as a code, it is the provider's word about the code.
        for status in [400, 403, 404, 413, 422] {
            idp.answer_token(status, json!({ "error": "invalid_request" }));
            assert_eq!(Browser::new(app).arrive("idp", idp).await.refusal(), NO, "{status}");
        }
        idp.honest();
        assert_eq!(browser.sign_in(idp).await.status, 200);
        let health = app.app.dependencies.health().into_iter().find(|one| one.name == "oauth.idp").unwrap();
        assert_eq!(health.state, "up");
        // What is wrong with the settings is another matter.
        idp.answer_token(400, json!({ "error": "invalid_client" }));
        assert_eq!(Browser::new(app).arrive("idp", idp).await.refusal(), "503 provider_unavailable");
    }
}

with_idp! { "";
    async fn whoever_asks_for_made_up_keys_and_goes_away_keeps_nobody_out(app: &TestApp, idp: &Idp) {
        let vera = Browser::new(app).sign_in(idp).await.str("/user/id");
        app.clock.advance(MINUTE);
        let nonce = b64(&random::<16>());
        idp.header("kid", json!("nobody's"));
        let body = json!({ "id_token": idp.id_token(CLIENT, &nonce), "nonce": nonce });
        idp.honest();
        // The keys change, and come a little later than the one waits who asks first.
        idp.rotate(Key::new("k2", "ES256"));
        idp.break_endpoint("jwks", Broken::Late);
        let asked = app.client.post(format!("{}/v1/auth/oauth/idp/id-token", app.url)).json(&body);
        let gone = tokio::time::timeout(Duration::from_millis(150), asked.send()).await;
        assert!(gone.is_err(), "it was answered: {gone:?}");
        assert_eq!(Browser::new(app).sign_in(idp).await.str("/user/id"), vera);
    }
}

with_idp! { "";
    async fn rubbish_makes_no_provider_answer_that_is_away(app: &TestApp, idp: &Idp) {
        let browser = Browser::new(app);
        browser.sign_in(idp).await;
        idp.go_away().await;
        assert_eq!(browser.arrive("idp", idp).await.refusal(), "503 provider_unavailable");
        let state = || async {
            let methods = app.get("/v1/auth/methods").await;
            let all = methods.json["providers"].as_array().unwrap().clone();
            all.into_iter().find(|one| one["id"] == "idp").unwrap()["state"].clone()
        };
        assert_eq!(state().await, "down");
        for token in ["a.b.c", "", "eyJhbGciOiJub25lIn0.e30."] {
            let body = json!({ "id_token": token, "nonce": "n" });
            assert_eq!(app.post("/v1/auth/oauth/idp/id-token", body).await.refusal(), NO);
            assert_eq!(state().await, "down");
        }
        // What can be decided by what is known is decided.
        let nonce = b64(&random::<16>());
        let body = json!({ "id_token": idp.id_token(CLIENT, &nonce), "nonce": nonce });
        assert_eq!(app.post("/v1/auth/oauth/idp/id-token", body).await.status, 200);
        assert_eq!(state().await, "down");
    }
}
