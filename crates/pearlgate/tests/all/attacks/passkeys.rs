//! Passkeys: an authenticator that lies, one part at a time, at every door that a key opens; answers that are shown twice,
//! late, elsewhere; and keys that are changed by whoever is in with less.

use std::time::Duration;

use ciborium::Value as Cbor;
use reqwest::Method;
use serde_json::{Value, json};

use super::guessing::at_once;
use super::mailed::{consume, link_token, magic};
use super::support::{OTHER, ask, post};
use crate::both;
use crate::journeys::authenticator::{NOT_FRESH, WRONG, due, grant, half};
use crate::journeys::passkeys::{
    DEAD, KEYS, NO, add, ask_again, ask_beside, begin, enter, event, finish, ids, keep, remove, show_again,
    show_beside, start, start_at,
};
use crate::support::soft_key::{
    BE, BS, Entries, Pair, Parts, SoftKey, Statement, UP, UV, b64, cbor, int, put, text,
};
use crate::support::{Answer, PASSWORD, Person, TestApp};

const INVALID: &str = "422 validation_failed";
const MOMENT: Duration = Duration::from_secs(1);
const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// What is said, what it is found out by, and how.
type Lie = (&'static str, &'static str, fn(&mut Parts));

fn lie(what: &'static str, flaw: &'static str, how: fn(&mut Parts)) -> Lie {
    (what, flaw, how)
}

/// How a flaw is answered where a key is added, and where it signs in.
fn refusal(flaw: &str) -> &'static str {
    if ["Unreadable", "Credential"].contains(&flaw) { INVALID } else { NO }
}

fn rekey(parts: &mut Parts, change: impl FnOnce(&mut Entries)) {
    let mut key = parts.signer.cose();
    change(&mut key);
    parts.credential.as_mut().unwrap().key = cbor(&Cbor::Map(key));
}

fn rename(parts: &mut Parts, id: &[u8]) {
    (parts.id, parts.raw_id) = (b64(id), b64(id));
}

fn packed(parts: &mut Parts, over: Entries) {
    (parts.fmt, parts.statement) = ("packed".to_owned(), Statement::Packed(over));
}

/// Lists in lists.
fn deep() -> Vec<u8> {
    let mut bytes = vec![0x81; 2_000];
    bytes.push(0);
    bytes
}

/// Lies that both ceremonies can be told.
fn lies() -> Vec<Lie> {
    vec![
        lie("the other ceremony", "Ceremony", |p| {
            p.r#type = if p.r#type == "webauthn.get" { "webauthn.create" } else { "webauthn.get" }.to_owned();
        }),
        lie("another challenge", "Challenge", |p| p.challenge = b64(&[0; 32])),
        lie("no challenge", "Challenge", |p| p.challenge = String::new()),
        // webauthn-rs, Kanidm 1.10.0: whatever ends as the origin does.
        lie("origin: a name that ends in ours", "Origin", |p| p.origin = p.origin.replace("://", "://bad")),
        lie("origin: a name under ours", "Origin", |p| p.origin = p.origin.replace("://", "://evil.")),
        lie("origin: a name that begins with ours", "Origin", |p| p.origin.push_str(".evil.example")),
        lie("origin: another port", "Origin", |p| p.origin.push('0')),
        lie("origin: no port", "Origin", |p| p.origin.truncate(p.origin.rfind(':').unwrap())),
        lie("origin: another scheme", "Origin", |p| p.origin = p.origin.replace("http://", "https://")),
        lie("origin: another case", "Origin", |p| p.origin = p.origin.to_uppercase()),
        lie("origin: ours as a user", "Origin", |p| p.origin.push_str("@evil.example")),
        lie("origin: a path", "Origin", |p| p.origin.push('/')),
        lie("origin: null", "Origin", |p| p.origin = "null".to_owned()),
        lie("from somebody's frame", "CrossOrigin", |p| p.cross_origin = json!(true)),
        lie("in somebody's page", "TopOrigin", |p| p.top_origin = json!("https://evil.example")),
        lie("another party", "Party", |p| p.rp_id = "evil.example".to_owned()),
        lie("a party that ends in ours", "Party", |p| p.rp_id.insert_str(0, "bad")),
        lie("nobody there", "Presence", |p| p.flags &= !UP),
        lie("copied, and cannot be", "Backup", |p| p.flags |= BS),
        lie("something behind it", "Unreadable", |p| p.extra = vec![0]),
        lie("half of it", "Unreadable", |p| {
            let data = p.auth_data();
            p.auth_data = Some(data[..data.len() / 2].to_vec());
        }),
        lie("client data that is no JSON", "Unreadable", |p| p.client_data = Some(b"{".to_vec())),
        lie("another type of credential", "Credential", |p| p.kind = "password".to_owned()),
        lie("two names", "Credential", |p| p.id = b64(&[1; 32])),
    ]
}

fn lies_about_new_keys() -> Vec<Lie> {
    let mut all = lies();
    all.extend([
        lie("ES256 of an Ed25519 key", "Key", |p| {
            p.signer = Pair::ed25519();
            rekey(p, |key| put(key, int(3), int(-7)));
        }),
        lie("an algorithm that nobody offered", "Key", |p| rekey(p, |key| put(key, int(3), int(-65_535)))),
        lie("another curve", "Key", |p| rekey(p, |key| put(key, int(-1), int(2)))),
        lie("a point off the curve", "Key", |p| rekey(p, |key| put(key, int(-3), Cbor::Bytes(vec![1; 32])))),
        lie("a part twice", "Key", |p| rekey(p, |key| key.push((int(3), int(-8))))),
        lie("attested by a maker", "Attestation", |p| {
            packed(p, vec![(text("x5c"), Cbor::Array(vec![Cbor::Bytes(vec![0x30, 0])]))]);
        }),
        lie("attested by another key", "Attestation", |p| {
            let signature = Pair::p256().sign(&p.signed());
            packed(p, vec![(text("sig"), Cbor::Bytes(signature))]);
        }),
        lie("attested in an unknown way", "Attestation", |p| p.fmt = "made-up".to_owned()),
        lie("an id of 1,024 bytes", "IdTooLong", |p| {
            p.credential.as_mut().unwrap().id = vec![1; 1_024];
            rename(p, &[1; 1_024]);
        }),
        lie("the id of another key", "Credential", |p| rename(p, &[1; 32])),
        lie("lists in lists", "Unreadable", |p| p.attestation_object = Some(deep())),
        lie("a key of lists in lists", "Unreadable", |p| p.credential.as_mut().unwrap().key = deep()),
        lie("a map of billions", "Unreadable", |p| {
            p.attestation_object = Some([vec![0xbb_u8], vec![0x7f; 8]].concat())
        }),
        lie("something behind the attestation", "Unreadable", |p| p.object_extra = vec![0]),
    ]);
    all
}

fn lies_about_uses() -> Vec<Lie> {
    let mut all = lies();
    all.extend([
        lie("could not be copied, and can be now", "BackupChanged", |p| p.flags |= BE),
        lie("somebody else's", "Owner", |p| p.user_handle = Some(vec![1; 16])),
        lie("signed by another key", "Signature", |p| p.signer = Pair::p256()),
        lie("signed by another kind of key", "Signature", |p| p.signer = Pair::ed25519()),
        lie("not signed", "Signature", |p| p.signature = Some(Vec::new())),
        lie("signed with zeros", "Signature", |p| {
            p.signature = Some(b"\x30\x06\x02\x01\x00\x02\x01\x00".to_vec())
        }),
        lie("signed something else", "Signature", |p| p.signature = Some(p.signer.sign(&p.client_data()))),
        lie("signed before it said that somebody was there", "Signature", |p| {
            let before = p.clone().with(|p| p.flags &= !(UP | UV));
            p.signature = Some(p.signer.sign(&before.signed()));
        }),
    ]);
    all
}

const FAILURES: &str = "SELECT COUNT(*) FROM audit_events WHERE kind = 'passkey_failed'";

async fn sessions(app: &TestApp) -> i64 {
    app.count("SELECT COUNT(*) FROM sessions").await
}

async fn keys(app: &TestApp) -> i64 {
    app.count("SELECT COUNT(*) FROM passkeys").await
}

/// The answer is a refusal that says nothing about the key or whose it is.
fn shut(what: &str, answer: &Answer, refusal: &str, person: &Person) {
    super::support::clean(what, answer.status, &answer.text);
    assert_eq!(answer.refusal(), refusal, "{what}: {}", answer.text);
    for word in [&person.email, &person.id] {
        assert!(!answer.text.contains(word.as_str()), "{what}: {}", answer.text);
    }
}

/// Every lie about a new key, to one challenge, which is good all the same after them.
async fn no_lie_is_kept(app: &TestApp, ada: &Person, key: &mut SoftKey) {
    let (id, options) = begin(app, &ada.access).await;
    let before = keys(app).await;
    for (what, flaw, how) in lies_about_new_keys() {
        let told = key.creating(&options, &app.url).with(how).registration();
        shut(what, &keep(app, &ada.access, &id, &told).await, refusal(flaw), ada);
    }
    let object = key.creating(&options, &app.url).attestation_object();
    for end in (0..object.len()).step_by(7) {
        let told =
            key.creating(&options, &app.url).with(|p| p.attestation_object = Some(object[..end].to_vec()));
        shut("cut off", &keep(app, &ada.access, &id, &told.registration()).await, INVALID, ada);
    }
    assert_eq!(keys(app).await, before);
    let kept = keep(app, &ada.access, &id, &key.create(&options, &app.url)).await;
    assert_eq!(kept.status, 200, "the trap: {}", kept.text);
}

/// Every lie about a use, at each of the three doors, and each is good all the same after them.
async fn no_lie_lets_in(app: &TestApp, ada: &Person, key: &mut SoftKey) {
    let (id, options) = start(app).await;
    let token = half(app, &ada.email, PASSWORD).await;
    let beside = ask_beside(app, &token).await;
    let before = sessions(app).await;
    for (what, flaw, how) in lies_about_uses() {
        let told = key.getting(&options, &app.url).with(how).assertion();
        let failures = app.count(FAILURES).await;
        shut(what, &finish(app, &id, &told).await, refusal(flaw), ada);
        if flaw == "Signature" {
            assert_eq!(
                app.count(FAILURES).await,
                failures,
                "{what}: whoever has no key writes nothing into her history"
            );
        } else if flaw != "Credential" {
            let noted = event(app, &ada.access, "passkey_failed").await.unwrap();
            assert_eq!(noted["details"]["reason"], flaw, "{what}: {noted}");
        }
        let told = key.getting(&beside, &app.url).with(how).assertion();
        shut(what, &show_beside(app, &token, &told).await, WRONG, ada);
    }
    for (what, flaw, how) in [
        lie("nobody was checked", "Verification", |p| p.flags &= !UV),
        lie("it does not say whose it is", "Owner", |p| p.user_handle = None),
    ] {
        let told = key.getting(&options, &app.url).with(how).assertion();
        shut(what, &finish(app, &id, &told).await, NO, ada);
        let noted = event(app, &ada.access, "passkey_failed").await.unwrap();
        assert_eq!(noted["details"]["reason"], flaw, "{what}: {noted}");
    }
    assert_eq!(sessions(app).await, before);
    assert_eq!(finish(app, &id, &key.get(&options, &app.url)).await.status, 200, "the trap");
    assert_eq!(show_beside(app, &token, &key.get(&beside, &app.url)).await.status, 200, "the trap");

    // A session may be wrong ten times.
    for lies in lies_about_uses().chunks(8) {
        let access = enter(app, key).await.str("/access_token");
        let (id, options) = ask_again(app, &access).await;
        for (what, _, how) in lies {
            let told = key.getting(&options, &app.url).with(*how).assertion();
            shut(what, &show_again(app, &access, &id, &told).await, WRONG, ada);
        }
        assert_eq!(show_again(app, &access, &id, &key.get(&options, &app.url)).await.status, 200, "the trap");
    }
}

/// What was answered once is answered for ever.
async fn nothing_is_answered_twice(app: &TestApp, ada: &Person) {
    for (what, mut key) in
        [("counts", SoftKey::p256()), ("does not count", SoftKey::p256().without_counter())]
    {
        // django-mfa2, CVE-2022-42731: what was seen of a registration adds a key once more.
        let (id, options) = begin(app, &ada.access).await;
        let seen = key.create(&options, &app.url);
        let kept = keep(app, &ada.access, &id, &seen).await;
        assert_eq!(kept.status, 200, "{}", kept.text);
        shut(what, &keep(app, &ada.access, &id, &seen).await, DEAD, ada);
        assert_eq!(remove(app, &ada.access, &kept.str("/passkey/id")).await.status, 204);
        shut(what, &keep(app, &ada.access, &id, &seen).await, DEAD, ada);
        shut(
            what,
            &keep(app, &ada.access, &id, &SoftKey::p256().create(&options, &app.url)).await,
            DEAD,
            ada,
        );
        add(app, &ada.access, &mut key).await;

        let (id, options) = start(app).await;
        let seen = key.get(&options, &app.url);
        let before = sessions(app).await;
        assert_eq!(finish(app, &id, &seen).await.status, 200, "the trap");
        let replayed = finish(app, &id, &seen).await;
        assert!([NO, DEAD].contains(&replayed.refusal().as_str()), "{what}: {}", replayed.text);
        shut(what, &finish(app, &id, &key.get(&options, &app.url)).await, DEAD, ada);
        // Under another challenge what was signed is not what is asked.
        let (other, _) = start(app).await;
        shut(what, &finish(app, &other, &seen).await, NO, ada);
        assert_eq!(sessions(app).await, before + 1, "{what}");

        // Twenty at once.
        for _ in 0..5 {
            let (id, options) = start(app).await;
            let answer = key.get(&options, &app.url);
            let before = sessions(app).await;
            let requests = (0..20).map(|_| {
                let body = json!({ "challenge_id": id, "credential": answer });
                app.request(Method::POST, "/v1/auth/passkey/finish").json(&body)
            });
            let answers = at_once(app, requests.collect()).await;
            let let_in = answers.iter().filter(|answer| answer.status == 200).count();
            let others = answers.iter().filter(|answer| answer.status != 200);
            for answer in others {
                let known = [NO, DEAD].contains(&answer.refusal().as_str()) || answer.status == 503;
                assert!(known, "{what}: {}", answer.text);
            }
            assert_eq!((let_in, sessions(app).await), (1, before + 1), "{what}");
        }
    }
}

/// Nobody's key is another one's, whatever it says and wherever it is shown.
async fn keys_stay_whose_they_are(app: &TestApp, ada: &Person, key: &mut SoftKey) {
    let eve = app.person("eve@ex.test").await;
    let mut hers = SoftKey::p256();
    add(app, &eve.access, &mut hers).await;
    // Her key in the name of his; his in the name of hers; at his address.
    let mut posing = SoftKey { user_handle: key.user_handle.clone(), ..hers.clone() };
    shut("her key for his account", &enter(app, &mut posing).await, NO, ada);
    let mut posing = SoftKey { id: key.id.clone(), user_handle: key.user_handle.clone(), ..hers.clone() };
    shut("her key under the name of his", &enter(app, &mut posing).await, NO, ada);
    let (id, options) = start_at(app, &ada.email).await;
    let entered = finish(app, &id, &hers.get(&options, &app.url)).await;
    assert!(
        entered.status != 200 || entered.str("/user/id") == eve.id,
        "a key opens its own account: {}",
        entered.text
    );

    let token = half(app, &ada.email, PASSWORD).await;
    let options = ask_beside(app, &token).await;
    for mut shown in [hers.clone(), posing.clone()] {
        shut(
            "beside his password",
            &show_beside(app, &token, &shown.get(&options, &app.url)).await,
            WRONG,
            ada,
        );
    }
    let access = enter(app, key).await.str("/access_token");
    let (id, options) = ask_again(app, &access).await;
    for mut shown in [hers.clone(), posing.clone()] {
        shut(
            "in his session",
            &show_again(app, &access, &id, &shown.get(&options, &app.url)).await,
            WRONG,
            ada,
        );
    }
    shut(
        "in her session",
        &show_again(app, &eve.access, &id, &hers.get(&options, &app.url)).await,
        WRONG,
        ada,
    );
    // His challenge adds no key of hers to her account, and hers none to his.
    for (of, to) in [(&access, &eve.access), (&eve.access, &access)] {
        let (id, options) = begin(app, of).await;
        shut(
            "another's challenge",
            &keep(app, to, &id, &SoftKey::p256().create(&options, &app.url)).await,
            DEAD,
            ada,
        );
    }
    // Nor is his key added to her account: who has its id has not the key.
    let (id, options) = begin(app, &eve.access).await;
    let before = keys(app).await;
    let stolen = SoftKey { id: key.id.clone(), ..SoftKey::p256() }.create(&options, &app.url);
    shut("his id", &keep(app, &eve.access, &id, &stolen).await, "409 conflict", ada);
    assert_eq!(keys(app).await, before);
    assert_eq!(enter(app, key).await.str("/user/id"), ada.id, "the trap");
}

both! {
    async fn a51_kanidm_1_10_origin_and_the_other_checks(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let mut key = SoftKey::p256();
        no_lie_is_kept(app, &ada, &mut key).await;
        no_lie_lets_in(app, &ada, &mut key).await;
        nothing_is_answered_twice(app, &ada).await;
        keys_stay_whose_they_are(app, &ada, &mut key).await;

        // A counter that does not go up: there may be two of it, and somebody is told.
        assert_eq!(enter(app, &mut key).await.status, 200);
        let before = sessions(app).await;
        for behind in [0, 1, 2, key.count] {
            let seen = app.get_as("/v1/me/activity?limit=1", &ada.access).await.str("/items/0/id");
            let (id, options) = start(app).await;
            let mut copy = SoftKey { counts: false, count: key.count - behind, ..key.clone() };
            shut("a copy", &finish(app, &id, &copy.get(&options, &app.url)).await, NO, &ada);
            let noted = app.get_as("/v1/me/activity?limit=1", &ada.access).await;
            assert_eq!(noted.str("/items/0/kind"), "passkey_counter_regressed", "{behind}");
            assert_ne!(noted.str("/items/0/id"), seen);
        }
        assert_eq!(sessions(app).await, before);
        assert_eq!(enter(app, &mut key).await.status, 200, "the trap");

        // Five minutes, and not one moment more.
        let (id, options) = start(app).await;
        let (early, asked) = start(app).await;
        app.clock.advance(FIVE_MINUTES - MOMENT);
        assert_eq!(finish(app, &early, &key.get(&asked, &app.url)).await.status, 200, "the trap");
        app.clock.advance(MOMENT);
        shut("late", &finish(app, &id, &key.get(&options, &app.url)).await, DEAD, &ada);
        // A clock that is put back makes no challenge good again that was answered.
        app.clock.set(app.clock.now() - MOMENT);
        shut("answered before", &finish(app, &early, &key.get(&asked, &app.url)).await, DEAD, &ada);
    }
}

both! {
    async fn a_stranger_leaves_nothing_behind_by_asking(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let mut key = SoftKey::p256();
        add(app, &ada.access, &mut key).await;
        let counted = "SELECT (SELECT COUNT(*) FROM used_challenges) + (SELECT COUNT(*) FROM passkeys)";
        let before = app.count(counted).await;
        for n in 0..100 {
            start_at(app, &format!("nobody{n}@ex.test")).await;
            start(app).await;
        }
        assert_eq!(app.count(counted).await, before);
        assert_eq!(enter(app, &mut key).await.status, 200);
        assert_eq!(app.count(counted).await, before + 1);
        // What nobody could answer any more is forgotten, and stays dead.
        let (id, options) = start(app).await;
        let answer = key.get(&options, &app.url);
        assert_eq!(finish(app, &id, &answer).await.status, 200);
        app.clock.advance(FIVE_MINUTES);
        app.sql("DELETE FROM used_challenges").await;
        assert_eq!(finish(app, &id, &answer).await.refusal(), DEAD);
    }
}

/// Nothing about keys is open to whoever has this access token.
async fn closed(app: &TestApp, what: &str, access: &str, passkey: &str, at_hand: (&str, &Value)) {
    let kept = json!({ "challenge_id": at_hand.0, "credential": at_hand.1 });
    for (method, path, body) in [
        (Method::POST, format!("{KEYS}/start"), json!({})),
        (Method::POST, format!("{KEYS}/finish"), kept),
        (Method::DELETE, format!("{KEYS}/{passkey}"), Value::Null),
        (Method::POST, "/v1/me/mfa/totp".to_owned(), json!({})),
        (Method::POST, "/v1/me/mfa/recovery-codes".to_owned(), json!({})),
        (
            Method::PUT,
            "/v1/me/password".to_owned(),
            json!({ "current_password": PASSWORD, "new_password": OTHER }),
        ),
        (Method::POST, "/v1/me/email".to_owned(), json!({ "email": "m@evil.test" })),
        (Method::DELETE, "/v1/me/sessions".to_owned(), Value::Null),
    ] {
        let request = app.request(method.clone(), &path).bearer_auth(access);
        let request = if body.is_null() { request } else { request.json(&body) };
        assert_eq!(ask(app, request).await.refusal(), NOT_FRESH, "{what}: {method} {path}");
    }
}

both! {
    async fn passkeys_are_changed_by_whoever_shows_everything(app: &TestApp) {
        // A-52, for passkeys: GoTrue #2565, better-auth GHSA-4vcf-q4xf-f48m.
        let ada = app.person("ada@ex.test").await;
        let stolen = Person::of(&app.login(&ada.email, PASSWORD).await);
        let (early, options) = begin(app, &stolen.access).await;
        let planted = SoftKey::p256().create(&options, &app.url);
        let mut key = SoftKey::p256();
        let (passkey, _) = add(app, &ada.access, &mut key).await;
        let counted = "SELECT (SELECT COUNT(*) FROM passkeys) * 100 + (SELECT COUNT(*) FROM recovery_codes)";

        let at_hand = (early.as_str(), &planted);
        closed(app, "from before", &stolen.access, &passkey, at_hand).await;
        app.clock.advance(MOMENT);
        let again = json!({ "password": PASSWORD });
        let proven = ask(app, app.request(Method::POST, "/v1/me/reauthenticate").bearer_auth(&stolen.access).json(&again)).await;
        closed(app, "with the password", &proven.str("/access_token"), &passkey, at_hand).await;
        let (_, mail) = magic(app, &ada.email, 1).await;
        due(&consume(app, json!({ "token": link_token(&mail) })).await);
        assert_eq!(app.count(counted).await, 110, "all as it was");

        // Somebody else's key, by its id.
        let eve = app.person("eve@ex.test").await;
        for method in [Method::DELETE, Method::PATCH] {
            let request = app.request(method.clone(), &format!("{KEYS}/{passkey}")).bearer_auth(&eve.access);
            let request = if method == Method::PATCH { request.json(&json!({ "name": "mine" })) } else { request };
            assert_eq!(ask(app, request).await.refusal(), "404 not_found", "{method}");
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM passkeys WHERE name = ''").await, 1);

        // Who has shown it takes it away, and every session loses what it had by it.
        let strong = Person::of(&enter(app, &mut key).await);
        assert_eq!(remove(app, &strong.access, &passkey).await.status, 204, "the trap");
        assert_eq!(app.count(counted).await, 0);
        assert_eq!(app.count("SELECT COUNT(*) FROM sessions WHERE aal > 1").await, 0);
        assert_eq!(app.refresh(&strong.refresh).await.json["session"]["aal"], 1);
        let step_up = json!({ "refresh_token": ada.refresh, "aal": 2 });
        assert_eq!(post(app, "/v1/auth/refresh", &step_up).await.refusal(), NOT_FRESH);

        // The last one that policy demands stays.
        let staff = app.person("staff@ex.test").await;
        grant(app, &staff, "admin").await;
        let (last, _) = add(app, &staff.access, &mut SoftKey::p256()).await;
        assert_eq!(remove(app, &staff.access, &last).await.refusal(), "409 conflict");
        assert_eq!(ids(app, &staff.access).await, [last]);
    }
}
