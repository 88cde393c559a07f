//! Applications are told what happens to people: signed, in order, until they have heard it.

use std::time::Duration;

use foundation::kernel::{Id, Secret};
use pearlgate::access::{self, By, Change};
use pearlgate::webhooks::{self, Cursor, EndpointRow};
use reqwest::Method;
use serde_json::{Value, json};

use super::access::{academy, call, give, owner};
use super::authenticator::enrol;
use crate::support::browser::Browser;
use crate::support::receiver::{Heard, Manner, Receiver};
use crate::support::{Answer, PASSWORD, Person, TestApp};
use crate::{both, both_with};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const NEXT: &str = "seven quiet harbours wait";

async fn tell(app: &TestApp, receiver: &Receiver, types: &str) -> (Id<EndpointRow>, Secret) {
    webhooks::add(&app.app, &receiver.url, types, "").await.unwrap()
}

/// Whether a message is signed with a secret, by code of the tests' own.
pub fn is_signed(heard: &Heard, secret: &Secret) -> bool {
    use data_encoding::BASE64;
    let key = BASE64.decode(secret.reveal().trim_start_matches("whsec_").as_bytes()).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let signed = format!("{}.{}.{}", heard.id, heard.timestamp, heard.raw);
    let ours = format!("v1,{}", BASE64.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()).as_ref()));
    heard.signature.split(' ').any(|one| one == ours)
}

async fn rename(app: &TestApp, person: &Person, name: &str) {
    let request = app.request(Method::PATCH, "/v1/me").bearer_auth(&person.access);
    let answer = app.send(request.json(&json!({ "display_name": name }))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

async fn log_out(app: &TestApp, person: &Person) -> Answer {
    app.post("/v1/auth/logout", json!({ "refresh_token": person.refresh })).await
}

/// Waits until nothing is on its way: what was refused waits for another try.
pub async fn settled(app: &TestApp) {
    app.until("what came of it is written down", || async {
        let now = app.clock.now().micros();
        let busy = format!(
            "SELECT COUNT(*) FROM jobs WHERE kind LIKE 'webhooks.%' AND (attempts > 0 OR run_at <= {now})"
        );
        app.count(Box::leak(busy.into_boxed_str())).await == 0
    })
    .await;
}

async fn delivery(app: &TestApp, id: Id<EndpointRow>, event: &str) -> (String, i64, String) {
    let all = webhooks::deliveries(&app.app, id, 200).await.unwrap().unwrap();
    let one = all.iter().find(|one| one.event.to_string() == event).unwrap();
    (one.state.clone(), one.attempts, one.answer.clone())
}

both! {
    async fn an_application_is_told_what_happens_signed_and_in_order(app: &TestApp) {
        let receiver = Receiver::start().await;
        let (id, secret) = tell(app, &receiver, "*").await;
        let ada = app.person("ada@example.com").await;
        rename(app, &ada, "Ada").await;
        let change = app.request(Method::PUT, "/v1/me/password").bearer_auth(&ada.access);
        let body = json!({ "current_password": PASSWORD, "new_password": NEXT });
        assert_eq!(app.send(change.json(&body)).await.status, 200);
        let again = Person::of(&app.login(&ada.email, NEXT).await);
        assert_eq!(log_out(app, &again).await.status, 204);
        let heard = receiver.take(4).await;
        assert_eq!(receiver.kinds(), ["user.created", "user.updated", "password.changed", "session.ended"]);
        for one in &heard {
            assert!(is_signed(one, &secret), "{one:?}");
            assert_eq!((one.user(), one.timestamp), (ada.id.as_str(), app.clock.now().seconds()));
            assert!(one.id.starts_with("msg_") && one.id.len() == 36, "{}", one.id);
        }
        let user = &heard[1].body["data"]["user"];
        assert_eq!((user["email"].as_str(), user["display_name"].as_str()), (Some("ada@example.com"), Some("Ada")));
        assert_eq!(heard[1].body["data"]["fields"], json!(["display_name"]));
        assert_eq!(heard[3].body["data"]["session_ids"], json!([again.session]));
        assert_eq!(heard[3].body["data"]["reason"], "logged_out");
        app.quiet().await;
        assert_eq!(delivery(app, id, &heard[0].id).await, ("delivered".into(), 1, "it took it".into()));
        let health = app.get("/health/dependencies").await;
        let items = health.json["items"].as_array().unwrap();
        assert!(items.iter().any(|one| one["name"] == "webhooks" && one["state"] == "up"), "{}", health.text);
        assert!(webhooks::remove(&app.app, id).await.unwrap());
        assert_eq!(log_out(app, &ada).await.status, 204);
        app.quiet().await;
        assert_eq!(receiver.all().len(), 4, "whoever is taken away is told nothing more");
    }
}

both! {
    async fn an_application_is_told_of_identities_roles_locks_suspensions_and_factors(app: &TestApp) {
        let (owner, ada) = (owner(app).await, app.person("ada@example.com").await);
        academy(app).await;
        let receiver = Receiver::start().await;
        let types = "identity.linked,identity.unlinked,role.changed,account.locked,account.unlocked,user.suspended,user.unsuspended,mfa.changed";
        tell(app, &receiver, types).await;
        let step = async |nth: usize, kind: &str, what: Value| {
            let one = receiver.take(nth).await.remove(nth - 1);
            assert_eq!((one.kind(), one.user()), (kind, ada.id.as_str()), "{}", one.raw);
            for (name, value) in what.as_object().unwrap() {
                assert_eq!(&one.body["data"][name], value, "{}", one.raw);
            }
        };
        Browser::new(app).link_pretend(&ada.access).await;
        step(1, "identity.linked", json!({ "provider": "dev" })).await;
        assert_eq!(call(app, Method::DELETE, "/v1/me/identities/dev", &ada.access, &Value::Null).await.status, 204);
        step(2, "identity.unlinked", json!({ "provider": "dev" })).await;

        give(app, &ada, "student", "course/42").await;
        step(3, "role.changed", json!({ "change": "role_granted", "role": "student", "resource": "course/42" })).await;
        let away = Change::Take(("student".into(), "course/42".into()));
        access::change(&app.app, By::console(), ada.id.parse().unwrap(), away).await.unwrap().unwrap();
        step(4, "role.changed", json!({ "change": "role_revoked", "role": "student", "resource": "course/42" })).await;

        for n in 0..5 {
            assert_eq!(app.login(&ada.email, &format!("guess number {n}")).await.status, 401);
        }
        step(5, "account.locked", json!({})).await;
        let operate = async |rest: &str, body: Value| {
            let path = format!("/v1/admin/users/{}/{rest}", ada.id);
            assert_eq!(call(app, Method::POST, &path, &owner.access, &body).await.status, 204, "{rest}");
        };
        operate("unlock", json!({})).await;
        step(6, "account.unlocked", json!({})).await;
        operate("suspend", json!({ "reason": "spam" })).await;
        step(7, "user.suspended", json!({})).await;
        operate("unsuspend", json!({})).await;
        step(8, "user.unsuspended", json!({})).await;

        let again = Person::of(&app.login(&ada.email, PASSWORD).await);
        enrol(app, &again).await;
        step(9, "mfa.changed", json!({ "change": "factor_added", "factor": "totp" })).await;
        app.quiet().await;
        for one in receiver.taken() {
            assert!(!one.raw.contains("spam"), "why somebody is shut out is nobody else's concern: {}", one.raw);
        }
    }
}

both! {
    async fn nothing_is_written_while_nobody_wants_to_be_told(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        rename(app, &ada, "Ada").await;
        let written = "SELECT (SELECT COUNT(*) FROM webhook_events) + (SELECT COUNT(*) FROM webhook_streams)";
        assert_eq!(app.count(written).await, 0);
        let receiver = Receiver::start().await;
        tell(app, &receiver, "session.ended").await;
        rename(app, &ada, "Ada L.").await;
        assert_eq!(log_out(app, &ada).await.status, 204);
        receiver.take(1).await;
        app.quiet().await;
        assert_eq!(receiver.kinds(), ["session.ended"], "what it did not ask for it is not told");
    }
}

both! {
    async fn what_is_rolled_back_is_not_told(app: &TestApp) {
        let receiver = Receiver::start().await;
        tell(app, &receiver, "*").await;
        let ada = app.person("ada@example.com").await;
        receiver.take(1).await;
        // The trail refuses: nothing of the change is stored, and nobody hears of it.
        let broken = match app.engine {
            crate::support::Engine::Sqlite => "CREATE TRIGGER no BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'no'); END",
            crate::support::Engine::Postgres => "CREATE FUNCTION no() RETURNS trigger AS 'BEGIN RAISE EXCEPTION ''no''; END' LANGUAGE plpgsql;
                CREATE TRIGGER no BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION no()",
        };
        app.sql(broken).await;
        let request = app.request(Method::PATCH, "/v1/me").bearer_auth(&ada.access);
        assert_eq!(app.send(request.json(&json!({ "display_name": "x" }))).await.status, 500);
        assert_eq!(app.count("SELECT COUNT(*) FROM webhook_events").await, 1);
        app.sql(match app.engine {
            crate::support::Engine::Sqlite => "DROP TRIGGER no",
            crate::support::Engine::Postgres => "DROP TRIGGER no ON audit_events; DROP FUNCTION no",
        }).await;
        rename(app, &ada, "Ada").await;
        assert_eq!(receiver.take(2).await[1].kind(), "user.updated");
    }
}

both! {
    async fn what_a_receiver_refuses_waits_with_what_comes_after_it_and_with_nothing_else(app: &TestApp) {
        let receiver = Receiver::start().await;
        let (id, _) = tell(app, &receiver, "*").await;
        receiver.be(Manner::RefuseOf("ada@example.com".into()));
        let ada = app.person("ada@example.com").await;
        receiver.hear(1).await;
        rename(app, &ada, "one").await;
        rename(app, &ada, "two").await;
        let bob = app.person("bob@example.com").await;
        rename(app, &bob, "Bob").await;
        let taken = receiver.take(2).await;
        settled(app).await;
        assert!(taken.iter().all(|one| one.user() == bob.id), "Bob's events wait for nobody");
        assert_eq!(receiver.kinds(), ["user.created", "user.updated"]);
        let first = receiver.all()[0].id.clone();
        let (state, attempts, answer) = delivery(app, id, &first).await;
        // Once, or once more when something was put while it was being told.
        assert!((1..=3).contains(&attempts), "{attempts}");
        assert_eq!((state.as_str(), answer.as_str()), ("waiting", "it answered 409"));
        // It is there, and says no to one thing: nobody else waits for that, however often it does.
        for _ in 0..4 {
            app.clock.advance(2 * MINUTE);
            settled(app).await;
        }
        assert!(delivery(app, id, &first).await.1 >= 4);
        rename(app, &bob, "Bob B.").await;
        assert_eq!(receiver.take(3).await[2].user(), bob.id);
        settled(app).await;
        receiver.be(Manner::Take);
        app.clock.advance(HOUR);
        let taken = receiver.take(6).await;
        let of_ada: Vec<_> = taken.iter().filter(|one| one.user() == ada.id).collect();
        let names: Vec<_> = of_ada.iter().map(|one| one.kind()).collect();
        assert_eq!(names, ["user.created", "user.updated", "user.updated"]);
        assert_eq!(of_ada[0].id, first, "told again under the same id");
        app.quiet().await;
        assert_eq!(delivery(app, id, &first).await.0, "delivered");
    }
}

both! {
    async fn after_three_days_it_is_given_up_and_can_be_told_again(app: &TestApp) {
        let receiver = Receiver::start().await;
        let (id, _) = tell(app, &receiver, "user.created,session.ended").await;
        receiver.be(Manner::Refuse(500));
        let ada = app.person("ada@example.com").await;
        let first = receiver.hear(1).await[0].id.clone();
        settled(app).await;
        let dead = || async { delivery(app, id, &first).await.0 == "dead" };
        for _ in 0..80 {
            if dead().await {
                break;
            }
            let before = receiver.all().len();
            app.clock.advance(HOUR + Duration::from_secs(1));
            receiver.hear(before + 1).await;
            settled(app).await;
        }
        assert!(dead().await);
        let attempts = delivery(app, id, &first).await.1;
        assert!((70..=76).contains(&attempts), "an hour apart at most, for three days: {attempts}");
        app.quiet().await;
        receiver.be(Manner::Take);
        assert!(webhooks::replay(&app.app, id, Cursor::Event(first.parse().unwrap())).await.unwrap());
        settled(app).await;
        app.clock.advance(2 * MINUTE);
        assert_eq!(receiver.take(1).await[0].id, first, "what was given up is told again when somebody says so");
        let again = Person::of(&app.login(&ada.email, PASSWORD).await);
        assert_eq!(log_out(app, &again).await.status, 204);
        assert_eq!(receiver.take(2).await[1].kind(), "session.ended", "and what comes after it");
        app.quiet().await;
        assert_eq!(delivery(app, id, &first).await.0, "delivered");
        let nobody = Cursor::Event(Id::from_bytes([7; 16]));
        assert!(webhooks::replay(&app.app, id, nobody).await.unwrap_err().contains("no event"));
    }
}

both! {
    async fn a_replay_tells_each_persons_events_again_in_their_order(app: &TestApp) {
        let receiver = Receiver::start().await;
        let (id, _) = tell(app, &receiver, "*").await;
        let (ada, bob) = (app.person("ada@example.com").await, app.person("bob@example.com").await);
        let since = app.clock.advance(HOUR / 12);
        for n in 0..3 {
            rename(app, &ada, &format!("Ada {n}")).await;
            rename(app, &bob, &format!("Bob {n}")).await;
        }
        let heard = receiver.take(8).await;
        app.quiet().await;
        app.clock.advance(Duration::from_secs(60));
        assert!(webhooks::replay(&app.app, id, Cursor::Since(since)).await.unwrap());
        let all = receiver.take(14).await;
        app.quiet().await;
        assert_eq!(receiver.all().len(), 14, "each of them once more, and nothing of before");
        for person in [&ada, &bob] {
            let of = |all: &[Heard]| -> Vec<String> {
                all.iter().filter(|one| one.user() == person.id).map(|one| one.id.clone()).collect()
            };
            assert_eq!(of(&all[8..]), of(&heard)[1..]);
        }
    }
}

both! {
    async fn a_pause_keeps_what_happens_meanwhile(app: &TestApp) {
        let receiver = Receiver::start().await;
        let (id, _) = tell(app, &receiver, "*").await;
        let ada = app.person("ada@example.com").await;
        receiver.take(1).await;
        assert!(webhooks::pause(&app.app, id, "moving").await.unwrap());
        rename(app, &ada, "one").await;
        settled(app).await;
        assert_eq!(receiver.all().len(), 1);
        assert_eq!(webhooks::list(&app.app).await.unwrap()[0].paused, "moving");
        app.clock.advance(HOUR);
        // Not while it is being looked at: that look would be repeated a second later, and this clock stands.
        settled(app).await;
        assert!(webhooks::resume(&app.app, id).await.unwrap());
        assert_eq!(receiver.take(2).await[1].body["data"]["fields"], json!(["display_name"]));
        assert!(!webhooks::resume(&app.app, id).await.unwrap());
        let nobody = Id::from_bytes([7; 16]);
        assert!(!webhooks::pause(&app.app, nobody, "x").await.unwrap());
        assert!(!webhooks::remove(&app.app, nobody).await.unwrap());
        assert!(webhooks::rotate(&app.app, nobody).await.unwrap().is_none());
    }
}

both! {
    async fn a_new_secret_signs_beside_the_old_one_for_a_day(app: &TestApp) {
        let receiver = Receiver::start().await;
        let (id, old) = tell(app, &receiver, "*").await;
        let ada = app.person("ada@example.com").await;
        receiver.take(1).await;
        let new = webhooks::rotate(&app.app, id).await.unwrap().unwrap();
        rename(app, &ada, "one").await;
        let both = receiver.take(2).await[1].clone();
        assert!(is_signed(&both, &old) && is_signed(&both, &new));
        app.quiet().await;
        app.clock.advance(24 * HOUR + Duration::from_secs(1));
        let again = Person::of(&app.login(&ada.email, PASSWORD).await);
        rename(app, &again, "two").await;
        let after = receiver.take(3).await[2].clone();
        assert!(!is_signed(&after, &old) && is_signed(&after, &new));
    }
}

both! {
    async fn many_sessions_that_end_at_once_are_told_at_once(app: &TestApp) {
        let receiver = Receiver::start().await;
        tell(app, &receiver, "session.ended").await;
        let ada = app.person("ada@example.com").await;
        for _ in 0..4 {
            app.login(&ada.email, PASSWORD).await;
        }
        let request = app.request(Method::DELETE, "/v1/me/sessions").bearer_auth(&ada.access);
        assert_eq!(app.send(request).await.status, 204);
        let heard = receiver.take(1).await;
        assert_eq!(heard[0].body["data"]["session_ids"].as_array().unwrap().len(), 4);
        assert_eq!(heard[0].body["data"]["reason"], "revoked_by_user");
    }
}

both_with! { true, "webhooks.keep = \"4d\"";
    async fn what_is_older_than_it_is_kept_is_forgotten_and_numbers_go_on(app: &TestApp) {
        let receiver = Receiver::start().await;
        tell(app, &receiver, "*").await;
        let ada = app.person("ada@example.com").await;
        receiver.take(1).await;
        app.quiet().await;
        app.clock.advance(6 * 24 * HOUR);
        app.until("it is swept", || async {
            app.count("SELECT (SELECT COUNT(*) FROM webhook_events) + (SELECT COUNT(*) FROM webhook_positions)
                + (SELECT COUNT(*) FROM webhook_deliveries)").await == 0
        }).await;
        let again = Person::of(&app.login(&ada.email, PASSWORD).await);
        rename(app, &again, "Ada").await;
        assert_eq!(receiver.take(2).await[1].kind(), "user.updated");
        assert_eq!(app.count("SELECT number FROM webhook_streams").await, 2);
    }
}
