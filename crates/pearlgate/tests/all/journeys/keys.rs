//! Keys change while people are signed in, and nobody notices.

use std::collections::HashMap;
use std::time::Duration;

use data_encoding::BASE64;
use foundation::kernel::{MasterKeys, Sealer};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use pearlgate::sessions::Rotated;
use serde_json::{Value, json};

use super::steps::{Servers, by_code, ended, forgot, reset, second_factor};
use crate::both;
use crate::support::{Engine, PASSWORD, Person, TestApp};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Somebody who verifies our tokens by the book: keeps the public keys as long as they may be kept.
struct Verifier {
    keys: HashMap<String, DecodingKey>,
    fetched: i64,
}

impl Verifier {
    fn new() -> Self {
        Self { keys: HashMap::new(), fetched: i64::MIN / 2 }
    }

    /// What the token says; the keys are fetched again when they are too old, and for no other reason.
    async fn verify(&mut self, app: &TestApp, url: &str, token: &str) -> Value {
        let now = app.clock.now().seconds();
        if now - self.fetched >= 300 {
            let answer = app.client.get(format!("{url}/.well-known/jwks.json")).send().await.unwrap();
            let set: JwkSet = answer.json().await.unwrap();
            self.keys = set
                .keys
                .iter()
                .map(|jwk| (jwk.common.key_id.clone().unwrap(), DecodingKey::from_jwk(jwk).unwrap()))
                .collect();
            self.fetched = now;
        }
        let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
        let key = self
            .keys
            .get(&kid)
            .unwrap_or_else(|| panic!("a token is signed with {kid}, which was not published in time"));
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_issuer(&[&app.url]);
        rules.set_audience(&[&app.url]);
        rules.validate_exp = false;
        jsonwebtoken::decode::<Value>(token, key, &rules).unwrap().claims
    }
}

async fn kids(app: &TestApp, url: &str) -> Vec<String> {
    let set: JwkSet =
        app.client.get(format!("{url}/.well-known/jwks.json")).send().await.unwrap().json().await.unwrap();
    set.keys.iter().map(|jwk| jwk.common.key_id.clone().unwrap()).collect()
}

/// Every server publishes the key.
async fn published(app: &TestApp, urls: &[&str], kid: &str) {
    for url in urls {
        app.until("the key is published", || async { kids(app, url).await.iter().any(|known| known == kid) })
            .await;
    }
}

both! {
    async fn a_hundred_rotations_under_traffic_give_no_verification_error(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let servers = Servers::start(app).await;
        let urls = [app.url.as_str(), servers.other()];
        // One who keeps the keys of each server, and looks at the other's tokens, too.
        let mut verifiers = [Verifier::new(), Verifier::new()];
        let (mut token, mut signers, mut outstanding) = (ada.refresh, std::collections::BTreeSet::new(), Vec::new());
        for round in 0..100 {
            let Rotated::Published(kid, signs_from) = app.app.keys.rotate(false).await.unwrap() else { panic!("round {round}") };
            assert!(matches!(app.app.keys.rotate(false).await.unwrap(), Rotated::Pending(..)), "one at a time");
            // A moved clock makes every server look at the keys at once.
            app.clock.advance(SECOND);
            published(app, &urls, &kid).await;
            // Traffic on both servers, before, at and after the moment at which the new key begins to sign.
            let wait = app.clock.now().until(signs_from);
            for step in [wait / 2, wait / 2 - SECOND, SECOND - Duration::from_micros(1), Duration::from_micros(1), SECOND] {
                app.clock.advance(step);
                for (n, url) in urls.iter().enumerate() {
                    let answer = app.client.post(format!("{url}/v1/auth/refresh")).json(&json!({ "refresh_token": token })).send().await.unwrap();
                    let body: Value = answer.json().await.unwrap();
                    token = body["refresh_token"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned();
                    let access = body["access_token"].as_str().unwrap().to_owned();
                    let signer = jsonwebtoken::decode_header(&access).unwrap().kid.unwrap();
                    assert_eq!(signer == kid, app.clock.now() >= signs_from, "all switch at the same moment");
                    signers.insert(signer);
                    verifiers[n].verify(app, url, &access).await;
                    verifiers[1 - n].verify(app, urls[1 - n], &access).await;
                    let me = app.client.get(format!("{}/v1/me", urls[1 - n])).bearer_auth(&access).send().await.unwrap();
                    assert_eq!(me.status().as_u16(), 200, "the other server");
                    outstanding.push((app.clock.now().seconds() + 600, access));
                }
            }
            // What is out and not expired is good on both, whatever key signed it.
            outstanding.retain(|(until, _)| *until > app.clock.now().seconds());
            for (_, access) in outstanding.iter().step_by(3) {
                assert_eq!(app.get_as("/v1/me", access).await.status, 200);
            }
        }
        assert_eq!(signers.len(), 101, "the first key and a hundred others");
        app.clock.advance(11 * 60 * SECOND);
        app.until("the old ones are retired", || async { kids(app, &app.url).await.len() == 1 }).await;
        servers.stop().await;
    }
}

both! {
    async fn a_key_is_replaced_by_its_age(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let first = kids(app, &app.url).await.remove(0);
        app.clock.advance(DAY * 89);
        app.quiet().await;
        assert_eq!(kids(app, &app.url).await, std::slice::from_ref(&first));
        app.clock.advance(DAY + 61 * SECOND);
        // A turn that still went on when the clock moved plans the next from then on.
        app.until("a second key is published", || async {
            app.clock.advance(20 * SECOND);
            kids(app, &app.url).await.len() == 2
        })
        .await;
        let again = app.login(&ada.email, PASSWORD).await;
        assert_eq!(jsonwebtoken::decode_header(again.str("/access_token")).unwrap().kid.unwrap(), first, "published, and not yet used");
        app.quiet().await;
        app.clock.advance(7 * 60 * SECOND);
        let later = app.refresh(&again.str("/refresh_token")).await;
        assert_ne!(jsonwebtoken::decode_header(later.str("/access_token")).unwrap().kid.unwrap(), first);
        assert_eq!(app.get_as("/v1/me", &again.str("/access_token")).await.status, 200);
    }
}

both! {
    async fn a_key_that_somebody_has_is_taken_away_at_once(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let stolen = kids(app, &app.url).await.remove(0);
        assert!(!app.app.keys.revoke("no such key").await.unwrap());
        assert!(app.app.keys.revoke(&stolen).await.unwrap());
        pearlgate::sessions::load_signing_keys(&app.app).await.unwrap();
        assert_eq!(app.get_as("/v1/me", &ada.access).await.refusal(), "401 token_invalid", "whoever signed it");
        assert!(!kids(app, &app.url).await.contains(&stolen));
        let next = app.refresh(&ada.refresh).await;
        assert_eq!((next.status, app.get_as("/v1/me", &next.str("/access_token")).await.status), (200, 200), "nobody is signed out");

        // One that only waits for its turn, or for its end, is taken away without another in its place.
        let Rotated::Published(waiting, _) = app.app.keys.rotate(false).await.unwrap() else { panic!() };
        assert!(app.app.keys.revoke(&waiting).await.unwrap());
        assert_eq!(app.app.keys.list().await.unwrap().iter().map(|key| key.state).collect::<Vec<_>>(), ["signing"]);
        let events = "SELECT COUNT(*) FROM audit_events WHERE stream = 'server' AND kind = 'signing_key_revoked'";
        assert_eq!(app.count(events).await, 2);
    }
}

fn master(current: u8, older: &[u8]) -> String {
    let key = |byte: u8| format!("\"{}\"", BASE64.encode(&[byte; 32]));
    let older: Vec<String> = older.iter().map(|byte| key(*byte)).collect();
    format!("[secrets]\nmaster_key = {}\nold_master_keys = [{}]", key(current), older.join(", "))
}

/// What one master key made is good under the next, and nothing of it under the one after.
async fn master_keys(engine: Engine) {
    let mut app = TestApp::with(engine, true, &master(1, &[])).await;
    let ada = app.person("ada@example.com").await;
    let device = app.login(&ada.email, PASSWORD).await.str("/device_token");
    second_factor(&app).await;
    let seed = Sealer::new(&MasterKeys::new([1; 32], &[]), foundation::kernel::Entropy::System);
    let sealed = seed.seal("totp", b"a seed").unwrap();
    app.app.db.batch(format!("UPDATE totp_factors SET sealed = {}", bytes(engine, &sealed))).await.unwrap();
    let rotated = app.refresh(&ada.refresh).await;
    let mail = forgot(&app, &ada.email, 1).await;
    let pages = app.get_as("/v1/me/activity?limit=1", &ada.access).await.str("/next_cursor");
    let signer = kids(&app, &app.url).await;

    app = app.restart(&master(2, &[1])).await;
    assert_eq!(kids(&app, &app.url).await, signer, "the signing key is read");
    assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200);
    let repeated = app.refresh(&ada.refresh).await;
    assert_eq!(
        repeated.str("/refresh_token"),
        rotated.str("/refresh_token"),
        "a repeated refresh across the change gives the same"
    );
    let next = app.refresh(&rotated.str("/refresh_token")).await;
    assert_eq!(next.status, 200, "{}", next.text);
    assert_eq!(
        app.get_as(&format!("/v1/me/activity?limit=1&cursor={pages}"), &next.str("/access_token"))
            .await
            .status,
        200
    );
    let factors = pearlgate::transfer::reseal_factors(&app.app.db, &app.app.sealer).await.unwrap();
    assert_eq!((factors, app.app.keys.reseal().await.unwrap()), (1, 1));
    assert_eq!(
        pearlgate::transfer::reseal_factors(&app.app.db, &app.app.sealer).await.unwrap(),
        0,
        "once is enough"
    );
    app.sql("DELETE FROM totp_factors").await;
    let known = json!({ "email": ada.email, "password": PASSWORD, "device_token": device });
    let known = app.post("/v1/auth/login", known).await;
    assert_eq!(
        (known.status, known.str("/device_token") != device),
        (200, true),
        "a known device has its token made anew"
    );
    let history = app.get_as("/v1/me/activity?limit=1", &known.str("/access_token")).await;
    assert_eq!(history.json["items"][0]["details"]["known_device"], true);
    assert_eq!(
        reset(&app, by_code(&mail, "another purple lantern drifts")).await.status,
        200,
        "a code in a mail"
    );

    let stays = Person::of(&app.login(&ada.email, "another purple lantern drifts").await);
    app = app.restart(&master(2, &[])).await;
    assert_eq!(
        app.get_as("/v1/me", &stays.access).await.status,
        200,
        "nothing rests under the old one any more"
    );
    assert_eq!(app.refresh(&stays.refresh).await.status, 200);
    assert_eq!(app.refresh(&ada.refresh).await.refusal(), "401 token_invalid", "what it made is garbage now");
    assert_eq!(ended(&app, &next.str("/access_token")).await, "password_changed");
    app.finish().await;
}

fn bytes(engine: Engine, bytes: &[u8]) -> String {
    let hex = data_encoding::HEXLOWER.encode(bytes);
    if engine == Engine::Sqlite { format!("x'{hex}'") } else { format!("CAST('\\x{hex}' AS BYTEA)") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_key_is_changed_and_nobody_notices_on_sqlite() {
    master_keys(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_key_is_changed_and_nobody_notices_on_postgres() {
    master_keys(Engine::Postgres).await;
}
