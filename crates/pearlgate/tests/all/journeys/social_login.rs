//! Signing in at others: who comes back as whom, what is asked when a provider says too little, linking and unlinking, and
//! what people notice when a provider is away.

use std::collections::BTreeSet;
use std::time::Duration;

use pearlgate::federation::{add_provider, remove_provider, set_disabled};
use reqwest::Method;
use serde_json::{Value, json};

use super::authenticator::{NOT_FRESH, due, enrol, finish};
use super::passkeys::event;
use super::steps::{Servers, Tab, by_link, cookies, ended, forgot, mails, reset, suspend, wrong};
use crate::support::browser::{Browser, COMPLETE, IDENTITIES, forms, parameter, with_parameter};
use crate::support::idp::{Broken, CLIENT, Idp, Key, Seal};
use crate::support::soft_key::{b64, random};
use crate::support::{Answer, Engine, PASSWORD, Person, TestApp, together};
use crate::{both, with_idp};

const V: &str = "v@ex.test";
const NEW: &str = "seven quiet orange rivers";
const WRONG: &str = "401 invalid_credentials";
const NO: &str = "401 token_invalid";
const DEAD: &str = "422 verification_invalid";
const AWAY: &str = "503 provider_unavailable";
const NOT_FOUND: &str = "404 not_found";
const CONFLICT: &str = "409 conflict";
const LAST: &str = "409 last_sign_in_method";
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// The budget of five seconds, and what a busy machine adds to it; less than a slow provider takes.
const BUDGET: Duration = Duration::from_secs(9);

/// Somebody is in, on this level and by these methods.
fn is(answer: &Answer, aal: i64, amr: &[&str]) {
    assert_eq!(answer.json["status"], "authenticated", "{}", answer.text);
    let session = &answer.json["session"];
    assert_eq!((&session["aal"], &session["amr"]), (&json!(aal), &json!(amr)), "{}", answer.text);
}

/// The provider said too little; what goes on.
fn asks(answer: &Answer, missing: &[&str], email: &str, name: &str) -> String {
    let mut said = answer.json.clone();
    said["completion_token"] = json!("");
    let suggested = json!({ "email": email, "display_name": name });
    let expected = json!({ "status": "profile_required", "completion_token": "", "expires_in": 600, "missing": missing, "suggested": suggested });
    assert_eq!((answer.status, said), (200, expected));
    answer.str("/completion_token")
}

async fn identities(app: &TestApp, access: &str) -> Value {
    let list = app.get_as(IDENTITIES, access).await;
    assert_eq!(list.status, 200, "{}", list.text);
    list.json["items"].clone()
}

async fn unlink(app: &TestApp, access: &str, provider: &str) -> Answer {
    app.send(app.request(Method::DELETE, &format!("{IDENTITIES}/{provider}")).bearer_auth(access)).await
}

/// An application that was handed an ID token by the platform shows it.
async fn show(app: &TestApp, provider: &str, token: &str, nonce: &str) -> Answer {
    let path = format!("/v1/auth/oauth/{provider}/id-token");
    app.post(&path, json!({ "id_token": token, "nonce": nonce })).await
}

async fn verify(app: &TestApp, id: &str, code: &str) -> Answer {
    app.post("/v1/auth/verify-email", json!({ "verification_id": id, "code": code })).await
}

async fn linked(app: &TestApp) -> i64 {
    app.count("SELECT COUNT(*) FROM federated_identities").await
}

/// Whether the other server, too, offers the provider that was added late.
async fn knows_late(app: &TestApp, servers: &Servers<'_>) -> bool {
    let methods = app.client.get(format!("{}/v1/auth/methods", servers.other()));
    app.send(methods).await.text.contains("\"late\"")
}

/// How a login page shows a provider now.
async fn button(app: &TestApp, provider: &str) -> Value {
    let methods = app.get("/v1/auth/methods").await;
    let all = methods.json["providers"].as_array().unwrap().clone();
    all.into_iter().find(|one| one["id"] == provider).unwrap_or_default()
}

with_idp! { "name = \"Acme\"";
    async fn a_newcomer_comes_back_as_the_same_person_whatever_the_address_is_by_then(app: &TestApp, idp: &Idp) {
        let browser = Browser::new(app);
        let entered = browser.sign_in(idp).await;
        is(&entered, 1, &["fed"]);
        let user = &entered.json["user"];
        assert_eq!((&user["email"], &user["email_verified"], &user["display_name"]), (&json!(V), &json!(true), &json!("Vera")));
        let vera = Person::of(&entered);
        let expected = json!([{ "provider": "idp", "name": "Acme", "subject": "s1", "linked_at": app.clock.now().to_string() }]);
        assert!(vera.id.starts_with("usr_") && identities(app, &vera.access).await == expected);
        let noted = event(app, &vera.access, "sign_in").await.unwrap();
        assert_eq!((&noted["details"]["by"], &noted["details"]["provider"]), (&json!("oauth"), &json!("idp")), "{noted}");
        assert!(event(app, &vera.access, "identity_linked").await.is_some());
        app.quiet().await;
        assert_eq!((mails(app, V, "verify_email"), app.count("SELECT COUNT(*) FROM password_credentials").await), (0, 0));
        assert_eq!(app.login(V, PASSWORD).await.refusal(), WRONG);

        for person in [
            json!({ "sub": "s1", "email": "new@ex.test", "email_verified": true, "name": "Vera New" }),
            json!({ "sub": "s1", "email": "new@ex.test", "email_verified": false }),
            json!({ "sub": "s1" }),
        ] {
            app.clock.advance(SECOND);
            idp.person(person);
            let again = browser.sign_in(idp).await;
            assert_eq!((again.str("/user/id"), again.str("/user/email").as_str(), again.str("/user/display_name").as_str()), (vera.id.clone(), V, "Vera"));
        }
        // The address that she moved to is not hers here: whoever has it there may come.
        idp.person(json!({ "sub": "s2", "email": "new@ex.test", "email_verified": true, "name": "Nora" }));
        let nora = Person::of(&Browser::new(app).sign_in(idp).await);
        assert!(nora.id != vera.id && nora.email == "new@ex.test");

        idp.person(json!({ "sub": "s1" }));
        let code = browser.code("idp", idp).await;
        let kept = browser.exchange(&code, json!({ "transport": "cookie", "device_name": "Vera's laptop" })).await;
        assert_eq!((kept.status, kept.json.get("refresh_token")), (200, None), "{}", kept.text);
        assert!(cookies(&kept).iter().any(|cookie| cookie.starts_with("__Host-pearlgate-session=pgr_")), "{:?}", kept.headers);
        let sessions = app.get_as("/v1/me/sessions", &kept.str("/access_token")).await;
        assert!(sessions.text.contains("Vera's laptop"), "{}", sessions.text);
    }
}

both! {
    async fn dev_mode_has_four_people(app: &TestApp) {
        let browser = Browser::new(app);
        let page = browser.start("dev", "return_to=%2Fhome").await;
        assert_eq!(page.status, 200);
        let who: BTreeSet<String> = forms(&page.text).iter().map(|form| form["code"].clone()).collect();
        assert_eq!(who.iter().map(String::as_str).collect::<Vec<_>>(), ["changed_email", "no_email", "unverified", "verified"]);
        let arrived = browser.choose(&page, "verified").await;
        assert!(arrived.header("location").contains("/home?code=pgo_"), "{}", arrived.header("location"));
        let ada = browser.exchange(&browser.code_of(&arrived), json!({})).await;
        is(&ada, 1, &["fed"]);
        let user = &ada.json["user"];
        assert_eq!((&user["email"], &user["display_name"]), (&json!("ada@dev.example"), &json!("Ada Dev")));
        assert_eq!(browser.choose(&page, "verified").await.refusal(), "400 malformed_request", "a page is good once");

        for (who, missing, email, name) in [
            ("unverified", &["email"][..], "uma@dev.example", "Uma Dev"),
            ("no_email", &["email", "display_name"][..], "", ""),
        ] {
            let page = browser.start("dev", "").await;
            let arrived = browser.choose(&page, who).await;
            asks(&browser.exchange(&browser.code_of(&arrived), json!({})).await, missing, email, name);
        }
        let page = browser.start("dev", "").await;
        let arrived = browser.choose(&page, "changed_email").await;
        let again = browser.exchange(&browser.code_of(&arrived), json!({})).await;
        assert_eq!((again.str("/user/id"), again.str("/user/email").as_str()), (ada.str("/user/id"), "ada@dev.example"));
        assert_eq!(show(app, "dev", "verified", "n").await.refusal(), NOT_FOUND, "it has no ID tokens");
        let page = browser.start("dev", "").await;
        let elsewhere = Browser::new(app).choose(&page, "verified").await;
        let elsewhere = if elsewhere.status == 303 { Browser::new(app).get(elsewhere.header("location")).await } else { elsewhere };
        assert_eq!(elsewhere.refusal(), "400 malformed_request", "another browser");
        assert_eq!((linked(app).await, app.count("SELECT COUNT(*) FROM users").await), (1, 1));
    }
}

with_idp! { "";
    async fn an_address_that_nobody_proved_is_proven_by_a_mail(app: &TestApp, idp: &Idp) {
        idp.person(json!({ "sub": "s1", "name": "Vera" }));
        let browser = Browser::new(app);
        let token = asks(&browser.sign_in(idp).await, &["email"], "", "Vera");
        let bad = app.post(COMPLETE, json!({ "completion_token": token, "email": "nonsense" })).await;
        assert_eq!(bad.fields(), ["email:email_invalid"]);
        let asked = app.post(COMPLETE, json!({ "completion_token": token, "email": V })).await;
        assert_eq!((asked.status, &asked.json["status"]), (202, &json!("verification_required")), "{}", asked.text);
        let id = asked.str("/verification_id");
        let mail = app.mail(V, "verify_email", 1).await;
        assert_eq!(linked(app).await, 0, "not before the mailbox is proven");
        assert_eq!(verify(app, &id, wrong(&mail.code)).await.refusal(), DEAD);
        let entered = verify(app, &id, &mail.code).await;
        let vera = Person::of(&entered);
        assert_eq!((vera.email.as_str(), entered.str("/user/display_name").as_str()), (V, "Vera"));
        assert_eq!((linked(app).await, app.count("SELECT COUNT(*) FROM password_credentials").await), (1, 0));
        assert_eq!(app.login(V, PASSWORD).await.refusal(), WRONG);
        let again = browser.sign_in(idp).await;
        is(&again, 1, &["fed"]);
        assert_eq!(again.str("/user/id"), vera.id);
        app.quiet().await;
    }
}

with_idp! { "";
    async fn a_name_that_nobody_said_is_asked_for(app: &TestApp, idp: &Idp) {
        idp.person(json!({ "sub": "s1", "email": V, "email_verified": true }));
        let browser = Browser::new(app);
        let token = asks(&browser.sign_in(idp).await, &["display_name"], V, "");
        assert_eq!(linked(app).await, 0);
        assert_eq!(app.post(COMPLETE, json!({ "completion_token": token })).await.fields(), ["display_name:required"]);
        let body = json!({ "completion_token": token, "display_name": "Vera", "locale": "de-CH", "device_name": "phone" });
        let entered = app.post(COMPLETE, body.clone()).await;
        is(&entered, 1, &["fed"]);
        let user = &entered.json["user"];
        assert_eq!((&user["email"], &user["email_verified"], &user["display_name"]), (&json!(V), &json!(true), &json!("Vera")));
        assert_eq!(app.post(COMPLETE, body).await.refusal(), DEAD, "once");
        assert_eq!(browser.sign_in(idp).await.str("/user/id"), entered.str("/user/id"));
        app.quiet().await;
        assert_eq!(mails(app, V, "verify_email"), 0);
    }
}

with_idp! { "";
    async fn a_mailbox_whose_owner_knows_nothing_of_it_links_nothing(app: &TestApp, idp: &Idp) {
        idp.person(json!({ "sub": "m1", "name": "Mallory" }));
        let browser = Browser::new(app);
        let token = asks(&browser.sign_in(idp).await, &["email"], "", "Mallory");
        let asked = app.post(COMPLETE, json!({ "completion_token": token, "email": V })).await;
        let mail = app.mail(V, "verify_email", 1).await;
        let (tab, page) = Tab::open(app, &mail.links[0]).await;
        assert!(page.text.contains("type=\"password\""), "{}", page.text);
        assert_eq!(tab.submit(app, NEW).await.status, 200);
        let own = app.login(V, NEW).await;
        assert_eq!(own.status, 200, "{}", own.text);
        assert_eq!((linked(app).await, identities(app, &own.str("/access_token")).await), (0, json!([])));
        assert_eq!(verify(app, &asked.str("/verification_id"), &mail.code).await.refusal(), DEAD);
        asks(&browser.sign_in(idp).await, &["email"], "", "Mallory");
        app.quiet().await;
    }
}

with_idp! { "name = \"Acme\"";
    async fn an_identity_is_linked_in_a_session_and_taken_away_again(app: &TestApp, idp: &Idp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(identities(app, &ada.access).await, json!([]));
        let browser = Browser::new(app);
        assert_eq!(browser.begin_link(&ada.access, "nobody", json!({})).await.refusal(), NOT_FOUND);
        let begun = browser.begin_link(&ada.access, "idp", json!({ "return_to": "/account?tab=2" })).await;
        let url = begun.str("/url");
        assert!(url.starts_with(&format!("{}/v1/auth/oauth/idp/start?link=pgt_", app.url)), "{url}");
        let (page, on) = browser.look(&url).await;
        assert!(page.text.contains("Link Acme to ada@example.com?"), "{}", page.text);
        let back = idp.authorize(browser.get(&on).await.header("location"));
        let arrived = browser.callback(&back).await;
        assert!(arrived.header("location").ends_with("/account?tab=2&linked=idp"), "{}", arrived.header("location"));
        let items = identities(app, &ada.access).await;
        assert_eq!((&items[0]["subject"], &items[0]["name"]), (&json!("s1"), &json!("Acme")));
        let told = app.mail(&ada.email, "identity_changed", 1).await;
        assert!(told.text.contains("Acme") && told.links.len() == 1 && told.links[0].contains("/not-me?token="), "{}", told.text);
        assert!(event(app, &ada.access, "identity_linked").await.is_some());
        // Another address at the provider; the same person here.
        assert_eq!(browser.sign_in(idp).await.str("/user/id"), ada.id);
        assert_eq!(app.get_as("/v1/me", &ada.access).await.str("/email"), ada.email);

        app.clock.advance(11 * MINUTE);
        let stale = app.refresh(&ada.refresh).await.str("/access_token");
        assert_eq!(unlink(app, &stale, "idp").await.refusal(), NOT_FRESH);
        assert_eq!(browser.begin_link(&stale, "idp", json!({})).await.refusal(), NOT_FRESH);
        let fresh = app.login(&ada.email, PASSWORD).await.str("/access_token");
        assert_eq!(unlink(app, &fresh, "other").await.refusal(), NOT_FOUND);
        assert_eq!(unlink(app, &fresh, "idp").await.status, 204);
        assert_eq!(unlink(app, &fresh, "idp").await.refusal(), NOT_FOUND);
        let told = app.mail(&ada.email, "identity_changed", 2).await;
        assert!(told.text.contains("Acme") && told.links.is_empty(), "{}", told.text);
        assert!(event(app, &fresh, "identity_unlinked").await.is_some());
        assert_ne!(browser.sign_in(idp).await.str("/user/id"), ada.id);

        // An application on a phone links what the platform gave it.
        idp.person(json!({ "sub": "phone" }));
        let nonce = b64(&random::<16>());
        let body = json!({ "id_token": idp.id_token(CLIENT, &nonce), "nonce": nonce });
        let link = || app.request(Method::POST, &format!("{IDENTITIES}/idp")).bearer_auth(&fresh).json(&body);
        assert_eq!(app.send(link()).await.status, 204);
        assert_eq!(app.send(link()).await.refusal(), NO, "a nonce is good once");
        assert_eq!(browser.sign_in(idp).await.str("/user/id"), ada.id);
        app.quiet().await;
    }
}

with_idp! { "";
    async fn who_did_not_link_an_identity_takes_exactly_that_away(app: &TestApp, idp: &Idp, other: &Idp) {
        let ada = app.person("ada@example.com").await;
        idp.person(json!({ "sub": "hers" }));
        other.person(json!({ "sub": "thief's" }));
        Browser::new(app).link(&ada.access, "idp", idp).await;
        app.mail(&ada.email, "identity_changed", 1).await;
        app.clock.advance(MINUTE);
        Browser::new(app).link(&ada.access, "other", other).await;
        let told = app.mail(&ada.email, "identity_changed", 2).await;
        let thief = Person::of(&Browser::new(app).enter("other", other).await);
        assert_eq!(thief.id, ada.id);
        let (tab, page) = Tab::open(app, &told.links[0]).await;
        assert!(page.text.contains("<form"), "{}", page.text);
        assert_eq!(linked(app).await, 2, "looking takes nothing away");
        assert_eq!(tab.press(app).await.status, 200);
        for person in [&ada, &thief] {
            assert_eq!(ended(app, &person.access).await, "revoked_by_user");
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM federated_identities WHERE subject = 'hers'").await, linked(app).await);
        assert_eq!(Browser::new(app).sign_in(idp).await.str("/user/id"), ada.id);
        asks(&Browser::new(app).enter("other", other).await, &["email", "display_name"], "", "");
        app.quiet().await;
    }
}

with_idp! { "[other]\n[magic_link]\nenabled = false\n";
    async fn the_last_way_in_stays(app: &TestApp, idp: &Idp, other: &Idp) {
        let methods = app.get("/v1/auth/methods").await;
        assert_eq!((&methods.json["password"], &methods.json["magic_link"]), (&json!(true), &json!(false)));
        let vera = Person::of(&Browser::new(app).sign_in(idp).await);
        assert_eq!(unlink(app, &vera.access, "idp").await.refusal(), LAST);
        other.person(json!({ "sub": "o1" }));
        let arrived = Browser::new(app).link(&vera.access, "other", other).await;
        assert_eq!(parameter(arrived.header("location"), "linked").as_deref(), Some("other"));
        assert_eq!(unlink(app, &vera.access, "idp").await.status, 204, "there is another one");
        assert_eq!(unlink(app, &vera.access, "other").await.refusal(), LAST);
        assert_eq!(Browser::new(app).sign_in(idp).await.refusal(), CONFLICT, "the address alone opens nothing");
        assert_eq!(Browser::new(app).enter("other", other).await.str("/user/id"), vera.id);

        let mail = forgot(app, V, 1).await;
        assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200);
        let access = app.login(V, NEW).await.str("/access_token");
        assert_eq!(unlink(app, &access, "other").await.status, 204, "there is a password by now");
        assert_eq!(identities(app, &access).await, json!([]));
        app.quiet().await;
    }
}

with_idp! { "";
    async fn a_link_by_mail_is_a_way_in(app: &TestApp, idp: &Idp) {
        let vera = Person::of(&Browser::new(app).sign_in(idp).await);
        assert_eq!(unlink(app, &vera.access, "idp").await.status, 204);
        app.quiet().await;
    }
}

with_idp! { "trusted_amr = [\"mfa\"]\nmax_age = \"12h\"\n[other]\ntrusted_acr = [\"urn:two\"]\nmax_age = \"12h\"\n";
    async fn a_factor_is_asked_for_unless_a_trusted_provider_has_seen_one(app: &TestApp, idp: &Idp, other: &Idp) {
        for one in [idp, other] {
            one.claim("auth_time", json!(app.clock.now().seconds()));
        }
        let browser = Browser::new(app);
        let vera = Person::of(&browser.sign_in(idp).await);
        other.person(json!({ "sub": "o1", "amr": ["mfa"] }));
        browser.link(&vera.access, "other", other).await;
        let factor = enrol(app, &vera).await;
        let token = due(&browser.sign_in(idp).await);
        is(&finish(app, &token, "totp", &factor.next(app)).await, 1, &["fed", "otp", "mfa"]);
        for amr in [json!(["pwd", "otp"]), json!("mfa"), json!(["MFA"]), json!([["mfa"]]), json!([])] {
            idp.claim("amr", amr);
            due(&browser.sign_in(idp).await);
        }
        idp.claim("amr", json!(["pwd", "mfa"]));
        let trusted = browser.sign_in(idp).await;
        is(&trusted, 2, &["fed", "mfa"]);
        assert_eq!(trusted.str("/user/id"), vera.id);
        due(&browser.enter("other", other).await);
        for acr in [json!("urn:one"), json!(["urn:two"]), json!("URN:TWO")] {
            other.claim("acr", acr);
            due(&browser.enter("other", other).await);
        }
        other.claim("acr", json!("urn:two"));
        is(&browser.enter("other", other).await, 2, &["fed", "mfa"]);
        app.quiet().await;
    }
}

with_idp! { "native_client_ids = [\"phone\"]";
    async fn an_application_on_a_phone_shows_an_id_token_once(app: &TestApp, idp: &Idp) {
        let nonce = b64(&random::<16>());
        let token = idp.id_token("phone", &nonce);
        let entered = show(app, "idp", &token, &nonce).await;
        is(&entered, 1, &["fed"]);
        assert_eq!(show(app, "idp", &token, &nonce).await.refusal(), NO, "once");
        assert_eq!(show(app, "other", &idp.id_token("phone", "n2"), "n2").await.refusal(), NO, "at its own provider");
        assert_eq!(show(app, "idp", &idp.id_token("somebody", "n3"), "n3").await.refusal(), NO);
        assert_eq!(show(app, "nobody", &idp.id_token("phone", "n4"), "n4").await.refusal(), NOT_FOUND);
        assert_eq!(show(app, "idp", &idp.id_token(CLIENT, "n5"), "n5").await.str("/user/id"), entered.str("/user/id"));
        assert_eq!(Browser::new(app).sign_in(idp).await.str("/user/id"), entered.str("/user/id"));
        // In a browser it is no audience.
        idp.claim("aud", json!("phone"));
        assert_eq!(Browser::new(app).arrive("idp", idp).await.refusal(), NO);
        idp.honest();
        idp.person(json!({ "sub": "s2", "name": "Nora" }));
        asks(&show(app, "idp", &idp.id_token("phone", "n6"), "n6").await, &["email"], "", "Nora");
    }
}

with_idp! { "";
    async fn whoever_is_suspended_stays_so(app: &TestApp, idp: &Idp) {
        let vera = Person::of(&Browser::new(app).sign_in(idp).await);
        suspend(app).await;
        assert_eq!(Browser::new(app).sign_in(idp).await.refusal(), "403 account_suspended");
        assert_eq!(show(app, "idp", &idp.id_token(CLIENT, "n1"), "n1").await.refusal(), "403 account_suspended");
        assert_ne!(app.get_as("/v1/me", &vera.access).await.status, 200);
    }
}

with_idp! { "name = \"Acme\"";
    async fn providers_come_and_go_without_a_restart(app: &TestApp, idp: &Idp) {
        let servers = Servers::start(app).await;
        assert_eq!(button(app, "idp").await, json!({ "id": "idp", "name": "Acme", "state": "up" }));
        let late = Idp::start().await;
        late.follow(&app.clock);
        let browser = Browser::new(app);
        assert_eq!(browser.start("late", "").await.refusal(), NOT_FOUND);
        for (name, text) in [("late", "issuer = "), ("late", "nonsense = 1"), ("late", "client_id = \"x\""), ("dev", ""), ("Late", ""), ("idp", "")] {
            let text = if text.is_empty() { late.settings("") } else { text.to_owned() };
            assert!(add_provider(&app.app, name, &text).await.is_err(), "{name}: {text}");
        }
        add_provider(&app.app, "late", &late.settings("name = \"Late\"")).await.unwrap();
        assert_eq!(button(app, "late").await["name"], "Late");
        late.person(json!({ "sub": "l1", "email": "l@ex.test", "email_verified": true, "name": "Lea" }));
        let lea = browser.enter("late", &late).await;
        is(&lea, 1, &["fed"]);
        // The server beside this one knows it, too, and what becomes of it.
        assert!(knows_late(app, &servers).await);
        set_disabled(&app.app, "late", true).await.unwrap();
        assert_eq!((browser.start("late", "").await.refusal().as_str(), knows_late(app, &servers).await), (NOT_FOUND, false));
        set_disabled(&app.app, "late", false).await.unwrap();
        assert_eq!(browser.enter("late", &late).await.str("/user/id"), lea.str("/user/id"));
        assert!(knows_late(app, &servers).await);
        assert_eq!(remove_provider(&app.app, "late").await, Ok(true));
        assert_eq!(remove_provider(&app.app, "late").await, Ok(false));
        assert_eq!((browser.start("late", "").await.refusal().as_str(), knows_late(app, &servers).await), (NOT_FOUND, false));

        // What stands in the settings is disabled, and not removed.
        assert_ne!(remove_provider(&app.app, "idp").await, Ok(true));
        set_disabled(&app.app, "idp", true).await.unwrap();
        assert_eq!((browser.start("idp", "").await.refusal().as_str(), button(app, "idp").await), (NOT_FOUND, Value::Null));
        set_disabled(&app.app, "idp", false).await.unwrap();
        is(&browser.sign_in(idp).await, 1, &["fed"]);
        assert!(set_disabled(&app.app, "nobody", true).await.is_err());
        servers.stop().await;
    }
}

with_idp! { "preset = \"github\"";
    async fn github_says_who_somebody_is_by_its_api(app: &TestApp, idp: &Idp) {
        idp.person(json!({ "id": 583_231, "login": "vera", "name": "Vera" }));
        let one = |email: &str, primary: bool, verified: bool| json!({ "email": email, "primary": primary, "verified": verified, "visibility": null });
        idp.emails(json!([one("old@ex.test", false, true), one(V, true, true), one("new@ex.test", false, false)]));
        let browser = Browser::new(app);
        let location = browser.start("idp", "").await.header("location").to_owned();
        assert!(location.starts_with(&format!("{}/login/oauth/authorize?", idp.url())), "{location}");
        assert_eq!((parameter(&location, "scope").as_deref(), parameter(&location, "nonce")), (Some("read:user user:email"), None));
        let entered = browser.sign_in(idp).await;
        is(&entered, 1, &["fed"]);
        assert_eq!((entered.str("/user/email").as_str(), entered.str("/user/display_name").as_str()), (V, "Vera"));
        assert_eq!(identities(app, &entered.str("/access_token")).await[0]["subject"], "583231");
        assert_eq!((idp.asked("discovery"), idp.asked("jwks"), idp.asked("emails")), (0, 0, 1));
        // Another name and another address: the same number.
        idp.person(json!({ "id": 583_231, "login": "renamed", "name": "Renamed" }));
        idp.emails(json!([one("new@ex.test", true, true)]));
        assert_eq!(browser.sign_in(idp).await.str("/user/id"), entered.str("/user/id"));
        // Whoever took the name over is somebody else; an address that is not proven is nobody's.
        idp.person(json!({ "id": 2, "login": "vera", "name": "Mallory" }));
        for emails in [json!([one(V, true, false)]), json!([one(V, false, false)]), json!([])] {
            idp.emails(emails);
            let answer = browser.sign_in(idp).await;
            assert_eq!((&answer.json["status"], &answer.json["missing"]), (&json!("profile_required"), &json!(["email"])), "{}", answer.text);
        }
        idp.emails(json!([one(V, true, true)]));
        assert_eq!(browser.sign_in(idp).await.refusal(), CONFLICT);
        // GitHub says 200 to a code that it does not know.
        let back = browser.ahead("idp", "", idp).await;
        assert_eq!(browser.callback(&with_parameter(&back, "code", Some("made-up"))).await.refusal(), NO);
        assert_eq!(show(app, "idp", &idp.id_token(CLIENT, "n"), "n").await.refusal(), NOT_FOUND);
    }
}

with_idp! { "";
    async fn an_answer_that_a_provider_posts_is_taken_with_the_browsers_cookie(app: &TestApp, idp: &Idp) {
        let browser = Browser::new(app);
        let back = browser.ahead("idp", "return_to=%2Fhome", idp).await;
        let (path, query) = back.split_once('?').unwrap();
        let posted = app.client.post(path).header("origin", idp.url()).header("sec-fetch-site", "cross-site");
        let posted = posted.header("content-type", "application/x-www-form-urlencoded").body(format!("{query}&user=%7B%7D"));
        let moved = app.send(posted).await;
        assert_eq!((moved.status, idp.asked("token")), (303, 0), "{}", moved.text);
        let to = moved.header("location");
        assert_eq!((parameter(to, "code"), parameter(to, "state")), (parameter(&back, "code"), parameter(&back, "state")));
        let arrived = browser.get(to).await;
        assert!(arrived.header("location").contains("/home?code=pgo_"), "{}", arrived.header("location"));
        is(&browser.exchange(&browser.code_of(&arrived), json!({})).await, 1, &["fed"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apple_is_told_who_we_are_by_a_key_and_posts_its_answer() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let idp = Idp::start().await;
        let key = idp.like_apple();
        let settings = format!(
            "[providers.apple]\nissuer = {:?}\nclient_id = \"{CLIENT}\"\nteam_id = \"TEAM\"\nkey_id = \"KEY\"\nprivate_key = {key:?}\n",
            idp.url()
        );
        let app = TestApp::with(engine, true, &settings).await;
        idp.follow(&app.clock);
        // It says no name in the token, and posts one that nobody signed.
        idp.person(json!({ "sub": "a1", "email": V, "email_verified": true }));
        let browser = Browser::new(&app);
        let started = browser.start("apple", "").await;
        assert_eq!(parameter(started.header("location"), "response_mode").as_deref(), Some("form_post"));
        let back = idp.authorize(started.header("location"));
        let (path, query) = back.split_once('?').unwrap();
        let posted = app.client.post(path).header("origin", idp.url()).header("sec-fetch-site", "cross-site");
        let form = "application/x-www-form-urlencoded";
        let moved = app.send(posted.header("content-type", form).body(format!("{query}&user=%7B%7D"))).await;
        let arrived = browser.get(moved.header("location")).await;
        let entered = browser.exchange(&browser.code_of(&arrived), json!({})).await;
        assert_eq!(idp.complaints(), [""; 0]);
        let token = asks(&entered, &["display_name"], V, "");
        let body = json!({ "completion_token": token, "display_name": "Vera" });
        is(&app.post(COMPLETE, body).await, 1, &["fed"]);
        // Another key's word is nobody's.
        idp.like_apple();
        assert_eq!(browser.arrive("apple", &idp).await.refusal(), AWAY);
        app.finish().await;
    }
}

with_idp! { "name = \"Acme\"";
    async fn two_tabs_sign_in_and_who_does_not_want_to_goes_back(app: &TestApp, idp: &Idp) {
        let browser = Browser::new(app);
        let first = browser.ahead("idp", "", idp).await;
        let cookie = browser.cookie();
        let second = browser.ahead("idp", "", idp).await;
        assert_eq!(browser.cookie(), cookie, "one cookie for both");
        for back in [first, second] {
            let arrived = browser.callback(&back).await;
            is(&browser.exchange(&browser.code_of(&arrived), json!({})).await, 1, &["fed"]);
        }
        for (error, expected) in [("access_denied", "303 -"), ("server_error", AWAY), ("temporarily_unavailable", AWAY)] {
            let back = browser.ahead("idp", "", idp).await;
            let failed = with_parameter(&with_parameter(&back, "code", None), "error", Some(error));
            let arrived = browser.callback(&failed).await;
            assert_eq!(arrived.refusal(), expected, "{error}: {}", arrived.text);
            assert_ne!(browser.callback(&back).await.status, 303, "the state is used");
        }
        // What it says once went wrong is no outage.
        assert_eq!(button(app, "idp").await["state"], "up");
    }
}

/// A server that knows so many providers: `p0`, `p1`, …
async fn many(engine: Engine, count: usize) -> (TestApp, Vec<Idp>) {
    let (mut idps, mut settings) = (Vec::new(), String::new());
    for n in 0..count {
        let idp = Idp::start().await;
        settings.push_str(&idp.toml(&format!("p{n}"), ""));
        idp.person(json!({ "sub": format!("s{n}"), "email": format!("v{n}@ex.test"), "email_verified": true, "name": "Vera" }));
        idps.push(idp);
    }
    let app = TestApp::with(engine, true, &settings).await;
    idps.iter().for_each(|idp| idp.follow(&app.clock));
    (app, idps)
}

/// Signs in as far as a provider lets.
async fn attempt(app: &TestApp, n: usize, idp: &Idp) -> (usize, Answer) {
    let (browser, name) = (Browser::new(app), format!("p{n}"));
    let started = browser.start(&name, "").await;
    if started.status != 302 {
        return (n, started);
    }
    (n, browser.callback(&idp.authorize(started.header("location"))).await)
}

/// All of them at once, while somebody signs in by password as if nothing were.
async fn all_at_once(app: &TestApp, idps: &[Idp], email: &str) -> Vec<(usize, Answer)> {
    let tries: Vec<_> = idps.iter().enumerate().map(|(n, idp)| attempt(app, n, idp)).collect();
    let login = tokio::time::timeout(3 * SECOND, app.login(email, PASSWORD));
    let (answers, login) = tokio::join!(tokio::time::timeout(BUDGET, together(tries)), login);
    assert_eq!(login.expect("a password does not wait for a provider").status, 200);
    answers.expect("nobody waits longer than the budget")
}

fn is_away(what: &str, answer: &Answer) {
    assert_eq!(answer.refusal(), AWAY, "{what}: {} {}", answer.header("location"), answer.text);
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_away_takes_its_own_button_along_and_nothing_else() {
    const FAULTS: [&str; 6] = ["down", "hang", "slow", "error", "garbage", "huge"];
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let (app, idps) = many(engine, FAULTS.len() + 1).await;
        let ada = app.person("ada@example.com").await;
        for (n, fault) in FAULTS.iter().enumerate() {
            app.put_fault(&format!("oauth.p{n}"), fault).await;
        }
        for (n, answer) in all_at_once(&app, &idps[..6], &ada.email).await {
            is_away(FAULTS[n], &answer);
            let shown = button(&app, &format!("p{n}")).await;
            assert_eq!(shown["state"], "down", "{}", FAULTS[n]);
        }
        let health = app.get("/health/dependencies").await;
        assert!(
            health.text.contains("\"oauth.p0\"") && health.text.contains("\"oauth.p6\""),
            "{}",
            health.text
        );
        let page =
            app.client.get(format!("{}/v1/auth/oauth/p0/start", app.url)).header("accept", "text/html");
        let page = page.send().await.unwrap();
        assert_eq!(page.status().as_u16(), 503);
        assert!(page.text().await.unwrap().contains("is not answering"));

        // One that works one time in three lets in sooner or later.
        app.put_fault("oauth.p6", "flaky").await;
        let mut seen = Vec::new();
        for n in 0..9 {
            let nonce = format!("n{n}");
            let answer = show(&app, "p6", &idps[6].id_token(CLIENT, &nonce), &nonce).await;
            assert!(answer.status == 200 || answer.refusal() == AWAY, "{}", answer.text);
            seen.push(answer.status);
        }
        assert!(seen.contains(&200) && seen.contains(&503), "{seen:?}");
        for n in 0..7 {
            app.put_fault(&format!("oauth.p{n}"), "none").await;
        }
        app.clock.advance(MINUTE + SECOND);
        for (n, answer) in all_at_once(&app, &idps, &ada.email).await {
            assert_eq!(answer.status, 303, "it heals: {}", answer.text);
            assert_eq!(button(&app, &format!("p{n}")).await["state"], "up", "{n}");
        }
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_provider_does_is_over_in_five_seconds_and_heals() {
    use Broken::{Error, Garbage, Hang, Huge, Slow};
    const BREAKS: [(&str, Broken); 15] = [
        ("discovery", Error),
        ("discovery", Garbage),
        ("discovery", Huge),
        ("discovery", Hang),
        ("token", Error),
        ("token", Garbage),
        ("token", Huge),
        ("token", Hang),
        ("jwks", Error),
        ("jwks", Garbage),
        ("jwks", Huge),
        ("userinfo", Error),
        ("userinfo", Garbage),
        ("userinfo", Huge),
        ("userinfo", Slow),
    ];
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let (app, idps) = many(engine, BREAKS.len() + 1).await;
        let ada = app.person("ada@example.com").await;
        for (idp, (endpoint, broken)) in idps.iter().zip(BREAKS) {
            idp.break_endpoint(endpoint, broken);
            if endpoint == "userinfo" {
                idp.thin();
            }
        }
        idps[15].go_away().await;
        for (n, answer) in all_at_once(&app, &idps, &ada.email).await {
            let what = BREAKS.get(n).map_or_else(|| "gone".to_owned(), |broken| format!("{broken:?}"));
            is_away(&what, &answer);
            assert_eq!(button(&app, &format!("p{n}")).await["state"], "down", "{what}");
        }
        let made = "SELECT (SELECT COUNT(*) FROM federated_identities) * 100 + (SELECT COUNT(*) FROM users)";
        assert_eq!(app.count(made).await, 1);
        idps[15].come_back().await;
        idps.iter().for_each(Idp::honest);
        app.clock.advance(MINUTE + SECOND);
        for (n, idp) in idps.iter().enumerate() {
            is(&Browser::new(&app).enter(&format!("p{n}"), idp).await, 1, &["fed"]);
        }
        app.finish().await;
    }
}

with_idp! { "";
    async fn a_provider_that_fails_is_left_alone_for_a_while(app: &TestApp, idp: &Idp) {
        idp.break_endpoint("discovery", Broken::Error);
        for _ in 0..6 {
            is_away("broken", &Browser::new(app).start("idp", "").await);
        }
        assert_eq!(idp.asked("discovery"), 3, "three failures in a row");
        let health = app.app.dependencies.health().into_iter().find(|one| one.name == "oauth.idp").unwrap();
        assert_eq!((health.state, health.short_circuited), ("down", 3));
        idp.honest();
        is_away("still left alone", &Browser::new(app).start("idp", "").await);
        app.clock.advance(MINUTE);
        is(&Browser::new(app).sign_in(idp).await, 1, &["fed"]);
    }
}

with_idp! { "";
    async fn new_keys_at_a_provider_lose_no_sign_in(app: &TestApp, idp: &Idp) {
        let vera = Browser::new(app).sign_in(idp).await.str("/user/id");
        let fetched = idp.asked("jwks");
        for (n, key) in [Key::new("k2", "ES256"), Key::other_rsa("k3", "RS256"), Key::new("k4", "EdDSA")].into_iter().enumerate() {
            let underway = Browser::new(app);
            let back = underway.ahead("idp", "", idp).await;
            idp.rotate(key);
            app.clock.advance(31 * SECOND);
            let arrived = underway.callback(&back).await;
            assert_eq!(underway.exchange(&underway.code_of(&arrived), json!({})).await.str("/user/id"), vera);
            assert_eq!(Browser::new(app).sign_in(idp).await.str("/user/id"), vera);
            assert_eq!(idp.asked("jwks"), fetched + n + 1, "asked once for each");
        }
        // A key that is no longer shown is no longer good, once somebody has looked.
        idp.seal(Seal::By(Key::rsa("k1", "RS256")));
        assert_eq!(Browser::new(app).arrive("idp", idp).await.refusal(), NO);
    }
}

with_idp! { "";
    async fn made_up_keys_make_nobody_ask_again_and_again(app: &TestApp, idp: &Idp) {
        let vera = show(app, "idp", &idp.id_token(CLIENT, "n"), "n").await.str("/user/id");
        let fetched = idp.asked("jwks");
        app.clock.advance(31 * SECOND);
        let tokens: Vec<(String, String)> = (0..200)
            .map(|n| {
                idp.seal(Seal::By(Key::other_rsa(&format!("x{n}"), "RS256")));
                let nonce = format!("n{n}");
                (idp.id_token(CLIENT, &nonce), nonce)
            })
            .collect();
        idp.honest();
        let answers = together(tokens.iter().map(|(token, nonce)| show(app, "idp", token, nonce)).collect()).await;
        let refused = answers.iter().filter(|answer| answer.refusal() == NO).count();
        assert!(answers.iter().all(|answer| answer.refusal() == NO || answer.status == 503), "{answers:?}");
        let asked = idp.asked("jwks") - fetched;
        assert!(refused > 100 && (1..=2).contains(&asked), "{refused} were refused, {asked} times the keys were asked for");
        assert_eq!(linked(app).await, 1);
        assert_eq!(show(app, "idp", &idp.id_token(CLIENT, "last"), "last").await.str("/user/id"), vera, "a good one is good meanwhile");
        assert_eq!(idp.asked("jwks"), fetched + asked);
    }
}

with_idp! { "";
    async fn what_a_provider_said_an_hour_ago_is_good_for_a_day_while_it_is_away(app: &TestApp, idp: &Idp) {
        let vera = Browser::new(app).sign_in(idp).await.str("/user/id");
        assert_eq!((idp.asked("discovery"), idp.asked("jwks")), (1, 1));
        app.clock.advance(HOUR - SECOND);
        assert_eq!(Browser::new(app).sign_in(idp).await.str("/user/id"), vera);
        assert_eq!((idp.asked("discovery"), idp.asked("jwks")), (1, 1), "fresh for an hour");
        idp.break_endpoint("jwks", Broken::Error);
        idp.break_endpoint("discovery", Broken::Garbage);
        app.clock.advance(2 * HOUR);
        assert_eq!(Browser::new(app).sign_in(idp).await.str("/user/id"), vera, "stale, and good enough");
        assert!(idp.asked("discovery") > 1 && idp.asked("jwks") > 1, "the trap: it was asked");
        app.clock.advance(22 * HOUR);
        is_away("after a day", &Browser::new(app).start("idp", "").await);
        idp.honest();
        app.clock.advance(MINUTE + SECOND);
        assert_eq!(Browser::new(app).sign_in(idp).await.str("/user/id"), vera);
    }
}
