//! Passkeys: adding one, signing in with it alone, showing it beside a password, losing it.

use std::time::Duration;

use foundation::kernel::Id;
use pearlgate::accounts::UserRow;
use reqwest::Method;
use serde_json::{Value, json};

use super::authenticator::{
    NOT_FRESH, USED_UP, WRONG, due, enrol, finish as finish_by_code, half, reauthenticate, strings,
};
use super::steps::{Tab, by_link, cookies, ended, forgot, mails, reset, send_as};
use crate::support::soft_key::{SoftKey, unb64};
use crate::support::{Answer, PASSWORD, Person, TestApp, together};
use crate::{both, both_with};

pub const KEYS: &str = "/v1/me/passkeys";
const MFA: &str = "/v1/me/mfa";
const NEW: &str = "seven quiet orange rivers";
pub const NO: &str = "401 invalid_credentials";
pub const DEAD: &str = "422 verification_invalid";
const INVALID: &str = "422 validation_failed";
const CONFLICT: &str = "409 conflict";
const NOT_FOUND: &str = "404 not_found";
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// What is to be signed, and what it is known by.
fn asked(answer: &Answer) -> (String, Value) {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let id = answer.str("/challenge_id");
    assert!(id.starts_with("pgc_"), "{id}");
    (id, answer.json["options"].clone())
}

/// Begins to add a key.
pub async fn begin(app: &TestApp, access: &str) -> (String, Value) {
    asked(&send_as(app, Method::POST, "/v1/me/passkeys/start", access, json!({})).await)
}

pub async fn keep(app: &TestApp, access: &str, id: &str, credential: &Value) -> Answer {
    let body = json!({ "challenge_id": id, "credential": credential });
    send_as(app, Method::POST, "/v1/me/passkeys/finish", access, body).await
}

/// Adds a key, whatever comes of it.
pub async fn try_add(app: &TestApp, access: &str, key: &mut SoftKey) -> Answer {
    let (id, options) = begin(app, access).await;
    let credential = key.create(&options, &app.url);
    keep(app, access, &id, &credential).await
}

/// Adds a key; gives its id and what came with it.
pub async fn add(app: &TestApp, access: &str, key: &mut SoftKey) -> (String, Answer) {
    let added = try_add(app, access, key).await;
    assert_eq!(added.status, 200, "{}", added.text);
    // What comes next is later.
    app.clock.advance(Duration::from_micros(1));
    (added.str("/passkey/id"), added)
}

/// Begins a sign-in with a key that knows whose it is.
pub async fn start(app: &TestApp) -> (String, Value) {
    asked(&app.post("/v1/auth/passkey/start", json!({})).await)
}

/// The same at an address.
pub async fn start_at(app: &TestApp, email: &str) -> (String, Value) {
    asked(&app.post("/v1/auth/passkey/start", json!({ "email": email })).await)
}

pub async fn finish(app: &TestApp, id: &str, credential: &Value) -> Answer {
    app.post("/v1/auth/passkey/finish", json!({ "challenge_id": id, "credential": credential })).await
}

/// Signs in with a key, whatever comes of it.
pub async fn enter(app: &TestApp, key: &mut SoftKey) -> Answer {
    let (id, options) = start(app).await;
    finish(app, &id, &key.get(&options, &app.url)).await
}

/// What a key is asked beside a password.
pub async fn ask_beside(app: &TestApp, token: &str) -> Value {
    let asked = app.post("/v1/auth/mfa/challenge", json!({ "mfa_token": token, "type": "passkey" })).await;
    assert_eq!((asked.status, asked.json["status"].as_str()), (200, Some("challenge")), "{}", asked.text);
    asked.json["options"].clone()
}

pub async fn show_beside(app: &TestApp, token: &str, credential: &Value) -> Answer {
    app.post("/v1/auth/mfa", json!({ "mfa_token": token, "type": "passkey", "credential": credential })).await
}

/// Begins to prove once more who one is.
pub async fn ask_again(app: &TestApp, access: &str) -> (String, Value) {
    asked(&send_as(app, Method::POST, "/v1/me/reauthenticate/passkey", access, json!({})).await)
}

pub async fn show_again(app: &TestApp, access: &str, id: &str, credential: &Value) -> Answer {
    reauthenticate(app, access, json!({ "type": "passkey", "challenge_id": id, "credential": credential }))
        .await
}

/// The same, all the way.
async fn again(app: &TestApp, access: &str, key: &mut SoftKey) -> Answer {
    let (id, options) = ask_again(app, access).await;
    show_again(app, access, &id, &key.get(&options, &app.url)).await
}

pub async fn remove(app: &TestApp, access: &str, id: &str) -> Answer {
    app.send(app.request(Method::DELETE, &format!("{KEYS}/{id}")).bearer_auth(access)).await
}

async fn rename(app: &TestApp, access: &str, id: &str, name: &str) -> Answer {
    send_as(app, Method::PATCH, &format!("{KEYS}/{id}"), access, json!({ "name": name })).await
}

/// The ids of somebody's keys.
pub async fn ids(app: &TestApp, access: &str) -> Vec<String> {
    let list = app.get_as(KEYS, access).await;
    assert_eq!((list.status, &list.json["next_cursor"]), (200, &json!("")), "{}", list.text);
    list.json["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

/// The newest event of a kind.
pub async fn event(app: &TestApp, access: &str, kind: &str) -> Option<Value> {
    let history = app.get_as("/v1/me/activity?limit=200", access).await;
    let events = history.json["items"].as_array().unwrap().clone();
    events.into_iter().find(|event| event["kind"] == kind)
}

/// The credentials that options name.
fn named(list: &Value) -> Vec<Vec<u8>> {
    let all = list.as_array().unwrap().iter();
    all.inspect(|one| assert_eq!(one["type"], "public-key"))
        .map(|one| unb64(one["id"].as_str().unwrap()))
        .collect()
}

/// Somebody is in, on this level and by these methods.
fn is(answer: &Answer, aal: i64, amr: &[&str]) {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let session = &answer.json["session"];
    assert_eq!((&session["aal"], &session["amr"]), (&json!(aal), &json!(amr)), "{}", answer.text);
}

async fn user_of(app: &TestApp, person: &Person) -> Id<UserRow> {
    pearlgate::accounts::find(&app.app, &person.id).await.unwrap().unwrap()
}

both! {
    async fn a_passkey_is_added_listed_named_and_signs_in(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(app.get_as(KEYS, &ada.access).await.json, json!({ "items": [], "next_cursor": "" }));
        let (id, options) = begin(app, &ada.access).await;
        let algorithms: Vec<i64> =
            options["pubKeyCredParams"].as_array().unwrap().iter().map(|one| one["alg"].as_i64().unwrap()).collect();
        assert_eq!(algorithms, [-7, -8, -257]);
        assert_eq!((unb64(options["user"]["id"].as_str().unwrap()).len(), &options["user"]["name"]), (16, &json!(ada.email)));
        assert_eq!(unb64(options["challenge"].as_str().unwrap()).len(), 32);
        assert_eq!((&options["attestation"], &options["excludeCredentials"]), (&json!("none"), &json!([])));
        let selection = &options["authenticatorSelection"];
        assert_eq!((&selection["residentKey"], &selection["userVerification"]), (&json!("preferred"), &json!("preferred")));
        assert_eq!(app.url.split("://").nth(1).unwrap().split(':').next(), options["rp"]["id"].as_str());

        let mut key = SoftKey::p256();
        let body = json!({ "challenge_id": id, "credential": key.create(&options, &app.url), "name": "Ada's laptop" });
        let added = send_as(app, Method::POST, "/v1/me/passkeys/finish", &ada.access, body).await;
        assert_eq!(added.status, 200, "{}", added.text);
        let passkey = added.str("/passkey/id");
        let expected = json!({
            "id": passkey, "name": "Ada's laptop", "created_at": app.clock.now().to_string(),
            "backup_eligible": false, "backed_up": false, "transports": ["hybrid", "internal"],
        });
        assert!(passkey.starts_with("psk_") && added.json["passkey"] == expected, "{}", added.text);
        assert_eq!(strings(&added.json["recovery_codes"]).len(), 10);
        assert_eq!(app.get_as(KEYS, &ada.access).await.json["items"], json!([expected]));
        app.mail(&ada.email, "mfa_changed", 1).await;
        let status = app.get_as(MFA, &ada.access).await;
        let has = (&status.json["totp"], &status.json["passkeys"], &status.json["recovery_codes_left"]);
        assert_eq!(has, (&json!(false), &json!(1), &json!(10)), "{}", status.text);
        is(&app.refresh(&ada.refresh).await, 2, &["pwd", "hwk", "mfa"]);

        app.clock.advance(SECOND);
        let (id, options) = start(app).await;
        assert_eq!((&options["allowCredentials"], &options["userVerification"]), (&json!([]), &json!("required")));
        assert_eq!(options["rpId"], app.url.split("://").nth(1).unwrap().split(':').next().unwrap());
        let entered = finish(app, &id, &key.get(&options, &app.url)).await;
        is(&entered, 2, &["hwk", "mfa"]);
        assert_eq!((entered.str("/user/id"), &entered.json["user"]["mfa_enabled"]), (ada.id.clone(), &json!(true)));
        let access = entered.str("/access_token");
        let list = app.get_as(KEYS, &access).await;
        assert_eq!(list.str("/items/0/last_used_at"), app.clock.now().to_string());

        assert_eq!(rename(app, &access, &passkey, "Ada's old laptop").await.status, 204);
        assert_eq!(app.get_as(KEYS, &access).await.str("/items/0/name"), "Ada's old laptop");
        for name in ["two\nlines".to_owned(), "x".repeat(101)] {
            assert_eq!(rename(app, &access, &passkey, &name).await.fields(), ["name:invalid"]);
        }
        assert_eq!(rename(app, &access, &passkey, &"ä".repeat(100)).await.status, 204);
        for kind in ["factor_added", "sign_in"] {
            assert!(event(app, &access, kind).await.is_some(), "{kind}");
        }
    }
}

both! {
    async fn every_kind_of_key_signs_in(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut access = ada.access.clone();
        let keys = [
            ("P-256", SoftKey::p256(), "hwk"),
            ("Ed25519", SoftKey::ed25519(), "hwk"),
            ("RSA", SoftKey::rsa(), "hwk"),
            ("without a counter", SoftKey::p256().without_counter(), "hwk"),
            ("synchronized", SoftKey::synced(), "swk"),
        ];
        for (n, (what, mut key, amr)) in keys.into_iter().enumerate() {
            let (id, added) = add(app, &access, &mut key).await;
            assert_eq!(added.json.get("recovery_codes").is_some(), n == 0, "{what}: with the first one");
            assert_eq!(added.json["passkey"]["backup_eligible"], amr == "swk", "{what}");
            for _ in 0..2 {
                let entered = enter(app, &mut key).await;
                assert_eq!(entered.status, 200, "{what}: {}", entered.text);
                is(&entered, 2, &[amr, "mfa"]);
                access = entered.str("/access_token");
            }
            let list = ids(app, &access).await;
            assert_eq!((list.len(), list.last()), (n + 1, Some(&id)), "{what}");
        }
        // One that was copied to nothing any more, and is to be copied again.
        let mut key = SoftKey::synced();
        add(app, &access, &mut key).await;
        for copied in [false, true] {
            key.copied = copied;
            assert_eq!(enter(app, &mut key).await.status, 200);
            assert_eq!(app.get_as(KEYS, &access).await.json["items"][5]["backed_up"], copied);
        }
    }
}

both! {
    async fn a_sign_in_goes_as_the_application_wants(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut key = SoftKey::p256();
        add(app, &ada.access, &mut key).await;
        let (id, options) = start(app).await;
        let body = json!({
            "challenge_id": id, "credential": key.get(&options, &app.url), "transport": "cookie", "device_name": "Ada's phone",
        });
        let entered = app.post("/v1/auth/passkey/finish", body).await;
        is(&entered, 2, &["hwk", "mfa"]);
        let cookie = cookies(&entered).into_iter().find(|cookie| cookie.starts_with("__Host-pearlgate-session=pgr_")).unwrap();
        assert!(entered.json.get("refresh_token").is_none(), "{}", entered.text);
        let mine = app.request(Method::GET, "/v1/me/sessions").header("cookie", cookie.split(';').next().unwrap());
        assert_eq!(app.send(mine).await.str("/items/0/device/name"), "Ada's phone");
        for body in [
            json!({}),
            json!({ "challenge_id": id }),
            json!({ "credential": {} }),
            json!({ "challenge_id": id, "credential": {}, "remember": true }),
        ] {
            assert_eq!(app.post("/v1/auth/passkey/finish", body.clone()).await.refusal(), INVALID, "{body}");
        }
        let (id, _) = start(app).await;
        for unreadable in [json!({}), json!([]), json!("x"), json!({ "id": "x" }), key.create(&begin(app, &ada.access).await.1, &app.url)] {
            let refused = finish(app, &id, &unreadable).await;
            assert_eq!((refused.refusal().as_str(), refused.fields()), (INVALID, vec!["credential:invalid".to_owned()]));
        }
        assert_eq!(app.post("/v1/auth/passkey/start", json!({ "email": "no address" })).await.fields(), ["email:email_invalid"]);
        assert_eq!(app.send(app.request(Method::POST, "/v1/auth/passkey/start")).await.status, 200, "without a body, too");
    }
}

both! {
    async fn whoever_asks_for_an_address_learns_nothing(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let eve = app.person("eve@example.com").await;
        let mut keys = [SoftKey::p256(), SoftKey::p256().without_verification()];
        for key in &mut keys {
            add(app, &ada.access, key).await;
        }
        let hers: Vec<Vec<u8>> = keys.iter().map(|key| key.id.clone()).collect();
        assert_eq!(named(&start_at(app, "Ada@Example.COM").await.1["allowCredentials"]), hers);
        assert!(app.register("new@example.com").await.status == 202);
        let mut decoys = Vec::new();
        for email in [eve.email.as_str(), "nobody@example.com", "new@example.com"] {
            let (one, options) = start_at(app, email).await;
            let (other, again) = start_at(app, &email.to_uppercase()).await;
            let decoy = named(&options["allowCredentials"]);
            assert!(one != other && options["challenge"] != again["challenge"], "{email}");
            assert_eq!(named(&again["allowCredentials"]), decoy, "{email}: always the same");
            assert_eq!((decoy.len(), decoy[0].len()), (1, 32), "{email}");
            let rest = |options: &Value| {
                let mut rest = options.clone();
                rest["challenge"] = json!("");
                rest["allowCredentials"] = json!([]);
                rest
            };
            assert_eq!(rest(&options), rest(&start_at(app, &ada.email).await.1), "{email}");
            decoys.push(decoy[0].clone());
        }
        decoys.sort();
        decoys.dedup();
        assert_eq!(decoys.len(), 3, "each has their own");
        app.quiet().await;
        app.clock.advance(MINUTE);
        assert!(decoys.contains(&named(&start_at(app, "nobody@example.com").await.1["allowCredentials"])[0]), "for ever");

        // A key that does not know whose it is signs in at its address, and nowhere else.
        let (id, options) = start_at(app, &ada.email).await;
        let key = &mut keys[0];
        key.user_handle = None;
        is(&finish(app, &id, &key.get(&options, &app.url)).await, 2, &["hwk", "mfa"]);
        assert_eq!(enter(app, key).await.refusal(), NO, "nobody was named");
        // A made-up key under the decoy's name is as unknown as any other.
        let mut forged = SoftKey { id: decoys[0].clone(), ..SoftKey::p256() };
        forged.user_handle = Some(vec![1; 16]);
        let decoy = enter(app, &mut forged).await;
        let stranger = enter(app, &mut SoftKey { user_handle: Some(vec![1; 16]), ..SoftKey::p256() }).await;
        assert_eq!((decoy.refusal().as_str(), &decoy.json["detail"]), (NO, &stranger.json["detail"]));
    }
}

both! {
    async fn a_challenge_is_answered_once(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut key = SoftKey::p256().without_counter();
        add(app, &ada.access, &mut key).await;
        let (id, options) = start(app).await;
        let answer = key.get(&options, &app.url);
        assert_eq!(finish(app, &id, &answer).await.status, 200);
        assert_eq!(finish(app, &id, &answer).await.refusal(), DEAD, "the same once more");
        assert_eq!(finish(app, &id, &key.get(&options, &app.url)).await.refusal(), DEAD, "another answer to it");
        let mut counting = SoftKey::p256();
        add(app, &ada.access, &mut counting).await;
        assert_eq!(finish(app, &id, &counting.get(&options, &app.url)).await.refusal(), DEAD, "another key's");

        // What was refused uses nothing up.
        let (id, options) = start(app).await;
        let wrong = key.getting(&options, "https://evil.example").assertion();
        assert_eq!(finish(app, &id, &wrong).await.refusal(), NO);
        assert_eq!(finish(app, &id, &key.get(&options, &app.url)).await.status, 200);

        for _ in 0..5 {
            let (id, options) = start(app).await;
            let answer = key.get(&options, &app.url);
            let before = app.count("SELECT COUNT(*) FROM sessions").await;
            let answers = together((0..20).map(|_| finish(app, &id, &answer)).collect()).await;
            let let_in = answers.iter().filter(|answer| answer.status == 200).count();
            assert!(answers.iter().all(|answer| answer.status == 200 || answer.refusal() == DEAD), "{answers:?}");
            assert_eq!((let_in, app.count("SELECT COUNT(*) FROM sessions").await), (1, before + 1));
        }

        // Nor does one challenge add two keys.
        let (id, options) = begin(app, &ada.access).await;
        let (first, second) = (SoftKey::p256().create(&options, &app.url), SoftKey::p256().create(&options, &app.url));
        let answers = together(vec![keep(app, &ada.access, &id, &first), keep(app, &ada.access, &id, &second)]).await;
        let mut refusals: Vec<String> = answers.iter().map(Answer::refusal).collect();
        refusals.sort();
        assert_eq!(refusals, ["200 -", DEAD]);
        assert_eq!(ids(app, &ada.access).await.len(), 3);
    }
}

both! {
    async fn a_challenge_is_for_five_minutes(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut key = SoftKey::p256();
        for (life, result) in [(5 * MINUTE - SECOND, "200 -"), (5 * MINUTE, DEAD)] {
            let (id, options) = begin(app, &ada.access).await;
            app.clock.advance(life);
            let mut one = SoftKey::p256();
            assert_eq!(keep(app, &ada.access, &id, &one.create(&options, &app.url)).await.refusal(), result);
            if result != DEAD {
                key = one;
            }
        }
        for (life, result) in [(5 * MINUTE - SECOND, "200 -"), (5 * MINUTE, DEAD)] {
            let (id, options) = start(app).await;
            app.clock.advance(life);
            assert_eq!(finish(app, &id, &key.get(&options, &app.url)).await.refusal(), result);
            let token = half(app, &ada.email, PASSWORD).await;
            let options = ask_beside(app, &token).await;
            app.clock.advance(life);
            let result = if result == DEAD { USED_UP } else { result };
            assert_eq!(show_beside(app, &token, &key.get(&options, &app.url)).await.refusal(), result);
        }
        for (life, result) in [(5 * MINUTE - SECOND, "200 -"), (5 * MINUTE, WRONG)] {
            let access = enter(app, &mut key).await.str("/access_token");
            let (id, options) = ask_again(app, &access).await;
            app.clock.advance(life);
            assert_eq!(show_again(app, &access, &id, &key.get(&options, &app.url)).await.refusal(), result);
        }
    }
}

both! {
    async fn a_challenge_is_for_one_thing(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let other = Person::of(&app.login(&ada.email, PASSWORD).await);
        let (of_other, for_other) = begin(app, &other.access).await;
        let late = SoftKey::p256().create(&for_other, &app.url);
        assert_eq!(keep(app, &ada.access, &of_other, &late).await.refusal(), DEAD, "of another session");
        let mut key = SoftKey::p256();
        add(app, &ada.access, &mut key).await;

        // Each at the doors of the others, answered as it asks.
        let (to_enter, entering) = start(app).await;
        let (to_add, adding) = begin(app, &ada.access).await;
        let (to_prove, proving) = ask_again(app, &ada.access).await;
        let (of_other, for_other) = ask_again(app, &other.access).await;
        let token = half(app, &ada.email, PASSWORD).await;
        let beside = ask_beside(app, &token).await;
        let as_use = |options: &Value| {
            let mut asked = entering.clone();
            asked["challenge"] = options["challenge"].clone();
            asked
        };
        for (id, options) in [(&to_add, &adding), (&to_prove, &proving), (&of_other, &for_other)] {
            assert_eq!(finish(app, id, &key.get(&as_use(options), &app.url)).await.refusal(), DEAD, "{options}");
            assert_eq!(finish(app, &to_enter, &key.get(&as_use(options), &app.url)).await.refusal(), NO, "{options}");
        }
        assert_eq!(event(app, &ada.access, "passkey_failed").await.unwrap()["details"]["reason"], "Challenge");
        for (id, options) in [(&to_enter, &entering), (&to_prove, &proving)] {
            let mut asked = adding.clone();
            asked["challenge"] = options["challenge"].clone();
            let new = SoftKey::p256().create(&asked, &app.url);
            assert_eq!(keep(app, &ada.access, id, &new).await.refusal(), DEAD, "{options}");
            assert_eq!(keep(app, &ada.access, &to_add, &new).await.refusal(), NO, "{options}");
        }
        for (id, options) in [(&to_enter, &entering), (&to_add, &adding), (&of_other, &for_other)] {
            let answer = key.get(&as_use(options), &app.url);
            assert_eq!(show_again(app, &ada.access, id, &answer).await.refusal(), WRONG, "{options}");
            assert_eq!(show_beside(app, &token, &answer).await.refusal(), WRONG, "{options}");
        }
        for id in ["", "x", "pgc_", "pgc_x", &token, &to_enter[..to_enter.len() - 1], &format!("{to_enter}A")] {
            assert_eq!(finish(app, id, &key.get(&entering, &app.url)).await.refusal(), DEAD, "{id:?}");
        }
        let second = ask_beside(app, &half(app, &ada.email, PASSWORD).await).await;
        assert_eq!(show_beside(app, &token, &key.get(&second, &app.url)).await.refusal(), WRONG, "of another half");

        // None of that used anything up.
        assert_eq!(finish(app, &to_enter, &key.get(&entering, &app.url)).await.status, 200);
        assert_eq!(show_beside(app, &token, &key.get(&beside, &app.url)).await.status, 200);
        assert_eq!(show_again(app, &other.access, &of_other, &key.get(&for_other, &app.url)).await.status, 200);
        assert_eq!(show_again(app, &ada.access, &to_prove, &key.get(&proving, &app.url)).await.status, 200);
        assert_eq!(ids(app, &ada.access).await.len(), 1);
    }
}

both! {
    async fn a_passkey_is_the_second_factor_beside_a_password(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let eve = app.person("eve@example.com").await;
        let (mut key, mut hers) = (SoftKey::p256().without_verification(), SoftKey::p256());
        let (_, added) = add(app, &ada.access, &mut key).await;
        add(app, &eve.access, &mut hers).await;
        let asked = app.login(&ada.email, PASSWORD).await;
        assert_eq!(asked.json["factors"], json!(["passkey", "recovery_code"]));
        let token = due(&asked);
        let options = ask_beside(app, &token).await;
        assert_eq!((&options["userVerification"], named(&options["allowCredentials"])), (&json!("preferred"), vec![key.id.clone()]));
        assert_eq!(ask_beside(app, &token).await, options, "always the same");

        assert_eq!(show_beside(app, &token, &hers.get(&options, &app.url)).await.refusal(), WRONG, "somebody else's");
        let forged = SoftKey { id: key.id.clone(), ..hers.clone() }.get(&options, &app.url);
        assert_eq!(show_beside(app, &token, &forged).await.refusal(), WRONG, "under her name");
        let elsewhere = key.getting(&options, "https://evil.example").assertion();
        assert_eq!(show_beside(app, &token, &elsewhere).await.refusal(), WRONG, "on another page");
        assert_eq!(event(app, &ada.access, "passkey_failed").await.unwrap()["details"]["reason"], "Origin");
        for unreadable in [json!({}), json!("x"), json!([1])] {
            assert_eq!(show_beside(app, &token, &unreadable).await.refusal(), WRONG, "{unreadable}");
        }
        let answer = key.get(&options, &app.url);
        for body in [
            json!({ "mfa_token": token, "type": "passkey" }),
            json!({ "mfa_token": token, "type": "passkey", "code": "000000" }),
            json!({ "mfa_token": token, "type": "totp", "credential": answer }),
            json!({ "mfa_token": token, "type": "passkey", "code": "000000", "credential": answer }),
        ] {
            assert_eq!(app.post("/v1/auth/mfa", body.clone()).await.refusal(), INVALID, "{body}");
        }
        // It did not check who uses it, which the password did; and it need not say whose it is.
        let anonymous = key.getting(&options, &app.url).with(|parts| parts.user_handle = None).assertion();
        let entered = show_beside(app, &token, &anonymous).await;
        is(&entered, 2, &["pwd", "hwk", "mfa"]);
        assert_eq!((entered.str("/user/id"), &entered.json["user"]["mfa_enabled"]), (ada.id.clone(), &json!(true)));
        assert_eq!(show_beside(app, &token, &key.get(&options, &app.url)).await.refusal(), USED_UP);
        let over = app.post("/v1/auth/mfa/challenge", json!({ "mfa_token": token, "type": "passkey" })).await;
        assert_eq!(over.refusal(), USED_UP);

        // Alone it lets nobody in.
        assert_eq!(enter(app, &mut key).await.refusal(), NO);
        assert_eq!(event(app, &ada.access, "passkey_failed").await.unwrap()["details"]["reason"], "Verification");

        let code = &strings(&added.json["recovery_codes"])[0];
        let by_code = finish_by_code(app, &half(app, &ada.email, PASSWORD).await, "recovery_code", code).await;
        assert_eq!((by_code.status, &by_code.json["session"]["aal"]), (200, &json!(2)), "{}", by_code.text);
        assert_eq!(app.get_as(MFA, &ada.access).await.json["recovery_codes_left"], 9);
        let anew = send_as(app, Method::POST, "/v1/me/mfa/recovery-codes", &ada.access, json!({})).await;
        assert_eq!(strings(&anew.json["recovery_codes"]).len(), 10, "{}", anew.text);

        // Somebody without a passkey is asked for none.
        let bob = app.person("bob@example.com").await;
        enrol(app, &bob).await;
        let token = half(app, &bob.email, PASSWORD).await;
        let none = app.post("/v1/auth/mfa/challenge", json!({ "mfa_token": token, "type": "passkey" })).await;
        assert_eq!(none.refusal(), WRONG);
        assert_eq!(show_beside(app, &token, &hers.get(&options, &app.url)).await.refusal(), WRONG);
        add(app, &bob.access, &mut SoftKey::synced()).await;
        let both = app.login(&bob.email, PASSWORD).await;
        assert_eq!(both.json["factors"], json!(["totp", "passkey", "recovery_code"]));
    }
}

both! {
    async fn one_answer_beside_a_password_is_one_session(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut key = SoftKey::p256().without_counter();
        add(app, &ada.access, &mut key).await;
        for _ in 0..5 {
            let token = half(app, &ada.email, PASSWORD).await;
            let answer = key.get(&ask_beside(app, &token).await, &app.url);
            let before = app.count("SELECT COUNT(*) FROM sessions").await;
            let answers = together((0..20).map(|_| show_beside(app, &token, &answer)).collect()).await;
            assert!(answers.iter().all(|answer| answer.status == 200 || answer.refusal() == USED_UP), "{answers:?}");
            let let_in = answers.iter().filter(|answer| answer.status == 200).count();
            assert_eq!((let_in, app.count("SELECT COUNT(*) FROM sessions").await), (1, before + 1));
        }
    }
}

both! {
    async fn a_passkey_makes_a_session_fresh(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let before = Person::of(&app.login(&ada.email, PASSWORD).await);
        let mut key = SoftKey::p256();
        let (passkey, _) = add(app, &ada.access, &mut key).await;
        let refused = async |access: &str| {
            for path in ["/v1/me/passkeys/start", "/v1/me/mfa/recovery-codes"] {
                assert_eq!(send_as(app, Method::POST, path, access, json!({})).await.refusal(), NOT_FRESH, "{path}");
            }
            assert_eq!(remove(app, access, &passkey).await.refusal(), NOT_FRESH);
        };
        refused(&before.access).await;
        let (id, options) = ask_again(app, &before.access).await;
        assert_eq!((&options["userVerification"], named(&options["allowCredentials"])), (&json!("preferred"), vec![key.id.clone()]));
        let answer = key.get(&options, &app.url);
        for body in [
            json!({ "type": "passkey" }),
            json!({ "type": "passkey", "challenge_id": id }),
            json!({ "type": "passkey", "credential": answer }),
            json!({ "type": "totp", "challenge_id": id, "credential": answer }),
            json!({ "type": "passkey", "challenge_id": id, "credential": answer, "password": PASSWORD }),
        ] {
            assert_eq!(reauthenticate(app, &before.access, body.clone()).await.refusal(), INVALID, "{body}");
        }
        let shown = show_again(app, &before.access, &id, &answer).await;
        is(&shown, 2, &["pwd", "hwk", "mfa"]);
        assert_eq!(shown.str("/session/id"), before.session);
        assert_eq!(show_again(app, &shown.str("/access_token"), &id, &key.get(&options, &app.url)).await.refusal(), WRONG, "once");
        add(app, &shown.str("/access_token"), &mut SoftKey::p256()).await;

        // As any factor it is fresh for ten minutes.
        let entered = Person::of(&enter(app, &mut key).await);
        app.clock.advance(6 * MINUTE);
        let (late, options) = begin(app, &entered.access).await;
        app.clock.advance(4 * MINUTE);
        let last = Person::of(&app.refresh(&entered.refresh).await);
        add(app, &last.access, &mut SoftKey::p256()).await;
        let entered = Person::of(&enter(app, &mut key).await);
        app.clock.advance(10 * MINUTE + SECOND);
        let stale = Person::of(&app.refresh(&entered.refresh).await);
        refused(&stale.access).await;
        let kept = keep(app, &stale.access, &late, &SoftKey::p256().create(&options, &app.url)).await;
        assert_eq!(kept.refusal(), NOT_FRESH);
        assert_eq!(rename(app, &stale.access, &passkey, "a name is no secret").await.status, 204);
        let fresh = again(app, &stale.access, &mut key).await;
        is(&fresh, 2, &["hwk", "mfa"]);
        assert_eq!(remove(app, &fresh.str("/access_token"), &passkey).await.status, 204);
    }
}

both! {
    async fn several_keys_stand_side_by_side_and_each_goes_alone(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let eve = app.person("eve@example.com").await;
        let mut keys = [SoftKey::p256(), SoftKey::ed25519(), SoftKey::synced()];
        let mut passkeys = Vec::new();
        for key in &mut keys {
            passkeys.push(add(app, &ada.access, key).await.0);
            app.clock.advance(SECOND);
        }
        assert_eq!(ids(app, &ada.access).await, passkeys, "the oldest first");
        let known: Vec<Vec<u8>> = keys.iter().map(|key| key.id.clone()).collect();
        assert_eq!(named(&begin(app, &ada.access).await.1["excludeCredentials"]), known);
        assert_eq!(named(&ask_again(app, &ada.access).await.1["allowCredentials"]), known);
        assert_eq!(named(&start_at(app, &ada.email).await.1["allowCredentials"]), known);

        // Whoever has a key already is told so, and nobody else's is taken over.
        for access in [&ada.access, &eve.access] {
            let mut same = SoftKey { id: keys[0].id.clone(), ..SoftKey::p256() };
            assert_eq!(try_add(app, access, &mut same).await.refusal(), CONFLICT);
            assert_eq!(enter(app, &mut same).await.refusal(), NO);
        }
        assert_eq!(ids(app, &eve.access).await, Vec::<String>::new());
        assert_eq!(enter(app, &mut keys[0]).await.str("/user/id"), ada.id);

        let unknown = "psk_0193a1b2c3d47e5f8a9b0c1d2e3f4a5b";
        for id in [passkeys[0].as_str(), unknown, "psk_x", "x", &eve.id] {
            assert_eq!(remove(app, &eve.access, id).await.refusal(), NOT_FOUND, "{id}");
            assert_eq!(rename(app, &eve.access, id, "mine").await.refusal(), NOT_FOUND, "{id}");
        }
        assert_eq!(ids(app, &ada.access).await, passkeys);

        for (n, key) in keys.iter_mut().enumerate() {
            assert_eq!(enter(app, key).await.status, 200);
            assert_eq!(remove(app, &ada.access, &passkeys[n]).await.status, 204);
            assert_eq!(remove(app, &ada.access, &passkeys[n]).await.refusal(), NOT_FOUND);
            assert_eq!(enter(app, key).await.refusal(), NO, "it is gone");
            assert_eq!(ids(app, &ada.access).await, passkeys[n + 1..]);
            let left = if n < 2 { 10 } else { 0 };
            assert_eq!(app.get_as(MFA, &ada.access).await.json["recovery_codes_left"], left, "they go with the last one");
        }
        let entered = app.login(&ada.email, PASSWORD).await;
        is(&entered, 1, &["pwd"]);
        assert_eq!(entered.json["user"]["mfa_enabled"], false);
        assert_eq!(app.get_as("/v1/me/sessions", &ada.access).await.json["items"][0]["aal"], 1, "nobody has shown what is not there");
        app.quiet().await;
        assert_eq!(mails(app, &ada.email, "mfa_changed"), 6, "each change is told");
        assert!(event(app, &ada.access, "factor_removed").await.is_some());
        let (_, again) = add(app, &ada.access, &mut SoftKey::p256()).await;
        assert_eq!(strings(&again.json["recovery_codes"]).len(), 10, "it is the first one once more");
    }
}

both_with! { true, "[mfa]\nrequired = \"everyone\"";
    async fn the_last_factor_that_policy_demands_stays(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let (mut one, mut other) = (SoftKey::p256(), SoftKey::p256());
        let (first, _) = add(app, &ada.access, &mut one).await;
        assert_eq!(remove(app, &ada.access, &first).await.refusal(), CONFLICT);
        let (second, _) = add(app, &ada.access, &mut other).await;
        assert_eq!(remove(app, &ada.access, &first).await.status, 204, "there is another one");
        assert_eq!(remove(app, &ada.access, &second).await.refusal(), CONFLICT);
        enrol(app, &ada).await;
        assert_eq!(remove(app, &ada.access, &second).await.status, 204, "there is an app");
        let app_away = app.send(app.request(Method::DELETE, "/v1/me/mfa/totp").bearer_auth(&ada.access)).await;
        assert_eq!(app_away.refusal(), CONFLICT);
        add(app, &ada.access, &mut one).await;
        let app_away = app.send(app.request(Method::DELETE, "/v1/me/mfa/totp").bearer_auth(&ada.access)).await;
        assert_eq!(app_away.status, 204, "there is a passkey: {}", app_away.text);

        // It is the factor that policy wants, also when the time of grace is over.
        app.quiet().await;
        app.clock.advance(8 * DAY);
        assert_eq!(app.login(&ada.email, PASSWORD).await.json["factors"], json!(["passkey", "recovery_code"]));
        is(&enter(app, &mut one).await, 2, &["hwk", "mfa"]);
    }
}

both_with! { true, "[magic_link]\nenabled = false";
    async fn the_last_way_in_stays(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut key = SoftKey::p256();
        let (first, _) = add(app, &ada.access, &mut key).await;
        let (second, _) = add(app, &ada.access, &mut SoftKey::p256()).await;
        app.sql("DELETE FROM password_credentials").await;
        let entered = enter(app, &mut key).await;
        is(&entered, 2, &["hwk", "mfa"]);
        let access = entered.str("/access_token");
        assert_eq!(remove(app, &access, &second).await.status, 204);
        assert_eq!(remove(app, &access, &first).await.refusal(), "409 last_sign_in_method");
        assert_eq!(enter(app, &mut key).await.status, 200);
    }
}

both! {
    async fn without_a_password_links_by_mail_are_another_way_in(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let (id, _) = add(app, &ada.access, &mut SoftKey::p256()).await;
        app.sql("DELETE FROM password_credentials").await;
        assert_eq!(remove(app, &ada.access, &id).await.status, 204);
    }
}

both! {
    async fn two_of_one_key_are_noticed(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut key = SoftKey::p256();
        let (passkey, _) = add(app, &ada.access, &mut key).await;
        let mut copy = key.clone();
        for _ in 0..3 {
            assert_eq!(enter(app, &mut key).await.status, 200);
        }
        assert!(event(app, &ada.access, "passkey_counter_regressed").await.is_none());
        for count in 1..=3 {
            assert_eq!(enter(app, &mut copy).await.refusal(), NO, "counted to {count}");
        }
        let noticed = event(app, &ada.access, "passkey_counter_regressed").await.unwrap();
        assert_eq!(noticed["details"]["passkey"], passkey.as_str(), "{noticed}");
        copy.counts = false;
        copy.count = 0;
        let token = half(app, &ada.email, PASSWORD).await;
        let options = ask_beside(app, &token).await;
        assert_eq!(show_beside(app, &token, &copy.get(&options, &app.url)).await.refusal(), WRONG, "it does not count at all");
        let (id, again) = ask_again(app, &ada.access).await;
        assert_eq!(show_again(app, &ada.access, &id, &copy.get(&again, &app.url)).await.refusal(), WRONG);
        let all = app.get_as("/v1/me/activity?limit=200", &ada.access).await.text;
        assert_eq!(all.matches("\"passkey_counter_regressed\"").count(), 5, "{all}");
        assert!(!all.contains("\"passkey_failed\""), "{all}");
        assert_eq!(show_beside(app, &token, &key.get(&options, &app.url)).await.status, 200, "hers goes on");
    }
}

both! {
    async fn who_did_not_add_a_passkey_takes_exactly_that_away(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut mine = SoftKey::p256();
        let (kept, _) = add(app, &ada.access, &mut mine).await;
        let first = app.mail(&ada.email, "mfa_changed", 1).await;
        app.clock.advance(MINUTE);
        let thief = Person::of(&enter(app, &mut mine).await);
        let mut planted = SoftKey::p256();
        add(app, &thief.access, &mut planted).await;
        let told = app.mail(&ada.email, "mfa_changed", 2).await;
        assert!(told.links.len() == 1 && told.links[0].contains("/not-me?token="), "{}", told.text);
        let (tab, page) = Tab::open(app, &told.links[0]).await;
        assert!(page.text.contains("<form"), "{}", page.text);
        assert_eq!(enter(app, &mut planted).await.status, 200, "looking takes nothing away");
        assert_eq!(tab.press(app).await.status, 200);
        for person in [&ada, &thief] {
            assert_eq!(ended(app, &person.access).await, "revoked_by_user");
        }
        assert_eq!(enter(app, &mut planted).await.refusal(), NO);
        let entered = enter(app, &mut mine).await;
        is(&entered, 2, &["hwk", "mfa"]);
        let access = entered.str("/access_token");
        assert_eq!(ids(app, &access).await, [kept]);
        assert_eq!(app.get_as(MFA, &access).await.json["recovery_codes_left"], 10, "hers are still hers");

        // The link of the first one takes that away, and what came after it.
        app.clock.advance(MINUTE);
        let mut later = SoftKey::p256();
        add(app, &access, &mut later).await;
        assert_eq!(Tab::open(app, &first.links[0]).await.0.press(app).await.status, 200);
        for key in [&mut mine, &mut later] {
            assert_eq!(enter(app, key).await.refusal(), NO);
        }
        assert_eq!(app.count("SELECT (SELECT COUNT(*) FROM passkeys) + (SELECT COUNT(*) FROM recovery_codes)").await, 0);
        app.quiet().await;
    }
}

both! {
    async fn whoever_is_suspended_is_not_let_in_by_a_key(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut key = SoftKey::p256();
        add(app, &ada.access, &mut key).await;
        let user = user_of(app, &ada).await;
        pearlgate::accounts::suspend(&app.app, user, "spam").await.unwrap().unwrap();
        assert_eq!(enter(app, &mut key).await.refusal(), "403 account_suspended");
        let stranger = SoftKey { id: key.id.clone(), user_handle: key.user_handle.clone(), ..SoftKey::p256() };
        assert_eq!(enter(app, &mut stranger.clone()).await.refusal(), NO, "only whoever has the key is told");
        assert!(pearlgate::accounts::unsuspend(&app.app, user).await.unwrap().unwrap());
        is(&enter(app, &mut key).await, 2, &["hwk", "mfa"]);
    }
}

both! {
    async fn a_new_password_leaves_the_keys(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut key = SoftKey::p256();
        let (passkey, _) = add(app, &ada.access, &mut key).await;
        let token = half(app, &ada.email, PASSWORD).await;
        let options = ask_beside(app, &token).await;
        let mail = forgot(app, &ada.email, 1).await;
        assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200);
        assert_eq!(show_beside(app, &token, &key.get(&options, &app.url)).await.refusal(), USED_UP, "its first step does not hold");
        let asked = app.login(&ada.email, NEW).await;
        assert_eq!(asked.json["factors"], json!(["passkey", "recovery_code"]));
        let token = due(&asked);
        let options = ask_beside(app, &token).await;
        is(&show_beside(app, &token, &key.get(&options, &app.url)).await, 2, &["pwd", "hwk", "mfa"]);
        let entered = enter(app, &mut key).await;
        is(&entered, 2, &["hwk", "mfa"]);
        assert_eq!(ids(app, &entered.str("/access_token")).await, [passkey]);
    }
}

both! {
    async fn a_lock_against_strangers_is_none_to_a_passkey(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut key = SoftKey::p256();
        add(app, &ada.access, &mut key).await;
        for _ in 0..5 {
            assert_eq!(app.login(&ada.email, "not the password at all").await.status, 401);
        }
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "423 account_locked");
        is(&enter(app, &mut key).await, 2, &["hwk", "mfa"]);
    }
}
