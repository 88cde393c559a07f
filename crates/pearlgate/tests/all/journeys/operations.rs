//! What operators do about the server over its API: jobs, mail, webhooks, providers, keys, settings.

use std::time::Duration;

use foundation::db::Statement;
use foundation::jobs::{Job, When};
use foundation::kernel::Secret;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access::{DENIED, NOT_FRESH, call, owner};
use super::steps::{forgot, send_as, token_of};
use super::webhooks::{is_signed, settled};
use crate::support::idp::{CLIENT, Idp};
use crate::support::receiver::Receiver;
use crate::support::{Answer, PASSWORD, Person, START, TestApp};
use crate::{both, both_with};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const JOBS: &str = "/v1/admin/jobs";
const MAIL: &str = "/v1/admin/mail";
const WEBHOOKS: &str = "/v1/admin/webhooks";
const PROVIDERS: &str = "/v1/admin/providers";
const ROTATE: &str = "/v1/admin/signing-keys/rotate";
const CONFLICT: &str = "409 conflict";
const REUSED: &str = "422 idempotency_key_reused";

fn items(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["items"].as_array().unwrap().clone()
}

/// What is at this place in each item.
fn each(answer: &Answer, name: &str) -> Vec<String> {
    items(answer).iter().map(|one| one[name].as_str().unwrap().to_owned()).collect()
}

/// All items of a list, read one by one.
async fn one_by_one(app: &TestApp, path: &str, access: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.get_as(&format!("{path}?limit=1&cursor={cursor}"), access).await;
        all.extend(items(&page));
        cursor = page.str("/next_cursor");
        if cursor.is_empty() {
            return all;
        }
    }
}

async fn with_key(app: &TestApp, path: &str, access: &str, key: &str, body: &Value) -> Answer {
    let request = app.request(Method::POST, path).bearer_auth(access).header("idempotency-key", key);
    app.send(request.json(body)).await
}

/// The first field that was refused.
fn field(answer: &Answer) -> String {
    assert_eq!(answer.status, 422, "{}", answer.text);
    answer.str("/fields/0/field")
}

/// How often it stands in the server's own trail that somebody did this, in this session.
async fn done_by(app: &TestApp, person: &Person, kind: &str) -> i64 {
    let sql = format!(
        "SELECT COUNT(*) FROM audit_events WHERE stream = 'server' AND kind = '{kind}' AND actor = '{}' AND details LIKE '%{}%'",
        person.id, person.session
    );
    app.count(Box::leak(sql.into_boxed_str())).await
}

async fn rename(app: &TestApp, person: &Person, name: &str) {
    let answer = send_as(app, Method::PATCH, "/v1/me", &person.access, json!({ "display_name": name })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Asks for a mail that nobody takes.
async fn forgot_in_vain(app: &TestApp, email: &str) {
    app.put_fault("mail.primary", "down").await;
    assert_eq!(app.post("/v1/auth/forgot-password", json!({ "email": email })).await.status, 202);
    app.mails_wait(1).await;
}

both! {
    async fn a_job_is_looked_at_dropped_and_tried_again(app: &TestApp) {
        let owner = owner(app).await;
        let ada = app.person("ada@example.com").await;
        app.quiet().await;
        forgot_in_vain(app, &ada.email).await;
        let mails = format!("{JOBS}?kind=mail.deliver");
        let waiting = items(&app.get_as(&mails, &owner.access).await).remove(0);
        assert_eq!((&waiting["state"], &waiting["lane"]), (&json!("waiting"), &json!("mail")), "{waiting}");
        assert_eq!(waiting["history"].as_array().unwrap().len(), 1, "{waiting}");
        assert!(!waiting["history"][0]["error"].as_str().unwrap().is_empty() && waiting.get("died_at").is_none());
        let path = format!("{JOBS}/{}", waiting["id"].as_str().unwrap());
        assert_eq!(app.get_as(&path, &owner.access).await.json, waiting);
        assert_eq!(call(app, Method::POST, &format!("{path}/retry"), &owner.access, &json!({})).await.refusal(), CONFLICT);

        // Somebody has taken it and is alive.
        let lease = (app.clock.now() + 20 * SECOND).micros();
        app.sql(&format!("UPDATE jobs SET attempts = attempts + 1, fence = fence + 1, run_at = {lease} WHERE kind = 'mail.deliver'")).await;
        for (state, count) in [("running", 1), ("waiting", 0), ("dead", 0)] {
            let found = app.get_as(&format!("{mails}&state={state}"), &owner.access).await;
            assert_eq!(items(&found).len(), count, "{state}: {}", found.text);
        }
        assert_eq!(call(app, Method::DELETE, &path, &owner.access, &json!({})).await.refusal(), CONFLICT);
        assert_eq!(app.get_as(&path, &owner.access).await.str("/state"), "running", "it stays");
        // Its lease runs out, the next one tries in vain, and it waits again: now it can be dropped.
        app.clock.advance(25 * SECOND);
        app.mails_wait(1).await;
        assert_eq!(call(app, Method::DELETE, &path, &owner.access, &json!({})).await.status, 204);
        for method in [Method::DELETE, Method::GET] {
            assert_eq!(call(app, method, &path, &owner.access, &json!({})).await.status, 404);
        }

        // Another one is given up, and tried again when the mail goes.
        forgot_in_vain(app, &ada.email).await;
        let now = app.clock.now().micros();
        app.sql(&format!(
            "INSERT INTO dead_jobs (id, kind, unique_key, payload, attempts, created_at, died_at, reason, history, lane, deadline_at)
                SELECT id, kind, unique_key, payload, attempts, created_at, {now}, 'nobody took it', history, lane, deadline_at
                FROM jobs WHERE kind = 'mail.deliver';
             DELETE FROM jobs WHERE kind = 'mail.deliver';
             UPDATE mail_deliveries SET state = 'given_up' WHERE state = 'waiting'"
        )).await;
        let dead = items(&app.get_as(&format!("{JOBS}?state=dead"), &owner.access).await).remove(0);
        assert_eq!((&dead["state"], &dead["reason"]), (&json!("dead"), &json!("nobody took it")), "{dead}");
        assert!(dead.get("run_at").is_none() && dead["died_at"] == json!(app.clock.now().to_string()), "{dead}");
        app.put_fault("mail.primary", "none").await;
        let retry = format!("{JOBS}/{}/retry", dead["id"].as_str().unwrap());
        assert_eq!(with_key(app, &retry, &owner.access, "again", &json!({})).await.status, 204);
        app.mails_go().await;
        app.mail(&ada.email, "password_reset", 1).await;
        app.quiet().await;
        assert_eq!(with_key(app, &retry, &owner.access, "again", &json!({})).await.status, 204, "as the first time");
        assert_eq!(with_key(app, &retry, &owner.access, "once more", &json!({})).await.status, 404, "it is done");
        let other = format!("{path}/retry");
        assert_eq!(with_key(app, &other, &owner.access, "again", &json!({})).await.refusal(), REUSED);

        // What became of both.
        let to_ada = app.get_as(&format!("{MAIL}?to=ADA@example.com"), &owner.access).await;
        let seen: Vec<_> = items(&to_ada).iter().map(|one| (one["kind"].clone(), one["state"].clone())).collect();
        let resets: Vec<_> = seen.iter().filter(|(kind, _)| kind == "password_reset").map(|(_, state)| state).collect();
        assert_eq!(resets, ["sent", "given_up"], "{}", to_ada.text);
        assert_eq!((done_by(app, &owner, "job_removed").await, done_by(app, &owner, "job_retried").await), (1, 1));
    }
}

/// A job that its handler cannot read.
#[derive(Debug, Serialize, Deserialize)]
struct Nonsense {
    canary: String,
}
impl Job for Nonsense {
    const KIND: &'static str = "magic_links.send";
    const LANE: &'static str = "mail";
}

async fn put_nonsense(app: &TestApp, when: When) {
    let (queue, job) = (app.app.queue.clone(), Nonsense { canary: "canary-payload".into() });
    assert!(app.app.db.write(move |tx| queue.enqueue(tx, &job, &when)).await.unwrap());
}

both! {
    async fn a_job_that_dies_again_stays_until_it_is_dropped(app: &TestApp) {
        let owner = owner(app).await;
        app.quiet().await;
        let now = app.clock.now();
        put_nonsense(app, When::now(now, HOUR).unique("only one")).await;
        app.until("it is given up", || async { app.count("SELECT COUNT(*) FROM dead_jobs").await == 1 }).await;
        let listed = app.get_as(&format!("{JOBS}?state=dead"), &owner.access).await;
        let dead = items(&listed).remove(0);
        assert_eq!((&dead["kind"], &dead["lane"]), (&json!("magic_links.send"), &json!("mail")), "{dead}");
        assert_eq!((&dead["attempts"], &dead["deadline"]), (&json!(1), &json!((now + HOUR).to_string())), "{dead}");
        assert!(dead["reason"].as_str().unwrap().contains("cannot be read") && !listed.text.contains("canary-payload"));
        assert_eq!(dead["history"][0]["error"], dead["reason"]);
        let path = format!("{JOBS}/{}", dead["id"].as_str().unwrap());
        let retry = format!("{path}/retry");
        assert_eq!(call(app, Method::POST, &retry, &owner.access, &json!({})).await.status, 204);
        // In its lane, with a day's time, and in vain.
        let again = json!((now + 24 * HOUR).to_string());
        app.until("it is given up again", || async {
            let job = app.get_as(&path, &owner.access).await.json;
            job["state"] == "dead" && job["deadline"] == again && job["lane"] == "mail"
        }).await;

        // One for the same waits: this one is not needed.
        put_nonsense(app, When::now(now, 2 * HOUR).at(now + HOUR).unique("only one")).await;
        assert_eq!(call(app, Method::POST, &retry, &owner.access, &json!({})).await.refusal(), CONFLICT);
        let other = app.get_as(&format!("{JOBS}?state=waiting&kind=magic_links.send"), &owner.access).await;
        for id in [each(&other, "id").remove(0), dead["id"].as_str().unwrap().to_owned()] {
            assert_eq!(call(app, Method::DELETE, &format!("{JOBS}/{id}"), &owner.access, &json!({})).await.status, 204, "{id}");
        }
        assert_eq!(call(app, Method::POST, &retry, &owner.access, &json!({})).await.status, 404);
        assert_eq!((done_by(app, &owner, "job_removed").await, done_by(app, &owner, "job_retried").await), (2, 1));

        // Those that come back by themselves stay.
        let turns = app.get_as(&format!("{JOBS}?kind=maintenance.sweep"), &owner.access).await;
        let turn = format!("{JOBS}/{}", each(&turns, "id").remove(0));
        assert_eq!(call(app, Method::DELETE, &turn, &owner.access, &json!({})).await.refusal(), CONFLICT);
        let all = app.get_as(JOBS, &owner.access).await;
        let listed = each(&all, "id");
        let found: Vec<_> = one_by_one(app, JOBS, &owner.access).await;
        assert_eq!(found.iter().map(|one| one["id"].as_str().unwrap()).collect::<Vec<_>>(), listed);
        assert!(listed.len() >= 2 && listed.is_sorted_by(|one, other| one > other), "the newest first: {listed:?}");
        let cursor = app.get_as(&format!("{JOBS}?limit=1"), &owner.access).await.str("/next_cursor");
        for (query, wrong) in [
            (format!("state=dead&cursor={cursor}"), "cursor"), ("state=lost".into(), "state"), ("limit=0".into(), "limit"), ("order=x".into(), "limit"),
        ] {
            assert_eq!(field(&app.get_as(&format!("{JOBS}?{query}"), &owner.access).await), wrong, "{query}");
        }
        for id in ["x", "job_0", "usr_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa", "job_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa"] {
            assert_eq!(app.get_as(&format!("{JOBS}/{id}"), &owner.access).await.status, 404, "{id}");
        }
    }
}

both! {
    async fn mails_are_listed_without_what_stood_in_them(app: &TestApp) {
        let owner = owner(app).await;
        let ada = app.person("ada@example.com").await;
        app.quiet().await;
        let all = app.get_as(&format!("{MAIL}?limit=200"), &owner.access).await;
        let listed = items(&all);
        assert!(listed.len() >= 2, "{}", all.text);
        // Most of them were put at the same moment, and each comes once.
        assert_eq!(one_by_one(app, MAIL, &owner.access).await, listed);
        let of_ada = app.get_as(&format!("{MAIL}?to=ada@example.com&limit=1"), &owner.access).await;
        let one = items(&of_ada).remove(0);
        assert_eq!((&one["to"], &one["provider"], &one["state"]), (&json!(ada.email), &json!("primary"), &json!("sent")), "{one}");
        let path = format!("{MAIL}/{}", one["id"].as_str().unwrap());
        assert_eq!(app.get_as(&path, &owner.access).await.json, one);
        assert_eq!(items(&app.get_as(&format!("{MAIL}?to=nobody@example.com"), &owner.access).await).len(), 0);
        for id in ["x", "mail_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa"] {
            assert_eq!(app.get_as(&format!("{MAIL}/{id}"), &owner.access).await.status, 404, "{id}");
        }
        let cursor = app.get_as(&format!("{MAIL}?limit=1"), &owner.access).await.str("/next_cursor");
        let wrong = app.get_as(&format!("{MAIL}?to=ada@example.com&cursor={cursor}"), &owner.access).await;
        assert_eq!(field(&wrong), "cursor");
        assert_eq!(field(&app.get_as(&format!("{MAIL}?from=x"), &owner.access).await), "limit");
    }
}

both! {
    async fn applications_are_told_changed_paused_told_again_and_taken_away(app: &TestApp) {
        let owner = owner(app).await;
        let ada = app.person("ada@example.com").await;
        app.quiet().await;
        let (first, second) = (Receiver::start().await, Receiver::start().await);
        let new = json!({ "url": first.url, "events": ["session.ended"], "description": "books" });
        let made = call(app, Method::POST, WEBHOOKS, &owner.access, &new).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let (id, secret) = (made.str("/id"), Secret::new(made.str("/secret")));
        let path = format!("{WEBHOOKS}/{id}");
        let patch = |body: Value| {
            let (path, access) = (path.clone(), owner.access.clone());
            async move {
                let changed = call(app, Method::PATCH, &path, &access, &body).await;
                assert_eq!(changed.status, 200, "{}", changed.text);
                changed
            }
        };
        // That is no concern of its, and will be none.
        rename(app, &ada, "one").await;
        app.clock.advance(SECOND);
        let changed = patch(json!({ "url": second.url, "events": ["user.updated", "session.ended"], "description": "" })).await;
        assert_eq!((&changed.json["events"], &changed.json["description"]), (&json!(["session.ended", "user.updated"]), &json!("")));
        assert!(changed.json.get("secret").is_none() && changed.str("/url") == second.url, "{}", changed.text);
        rename(app, &ada, "two").await;
        assert!(is_signed(&second.take(1).await[0], &secret));
        app.quiet().await;
        assert_eq!((first.all().len(), second.all().len()), (0, 1), "what happened before it asked is not told");

        let paused = patch(json!({ "paused": true, "pause_reason": "moving" })).await;
        assert_eq!((&paused.json["paused"], &paused.json["pause_reason"]), (&json!(true), &json!("moving")));
        app.clock.advance(SECOND);
        rename(app, &ada, "three").await;
        settled(app).await;
        assert_eq!(second.all().len(), 1);
        let resumed = patch(json!({ "paused": false, "rotate_secret": true })).await;
        assert_eq!((&resumed.json["paused"], &resumed.json["pause_reason"]), (&json!(false), &json!("")));
        let next = Secret::new(resumed.str("/secret"));
        let heard = second.take(2).await;
        assert!(is_signed(&heard[1], &secret) && is_signed(&heard[1], &next), "{heard:?}");
        app.quiet().await;

        // Everything once more, also what it was not told; and that once.
        let replay = format!("{path}/replay");
        let since = json!({ "since": START.to_string() });
        for _ in 0..2 {
            let begun = with_key(app, &replay, &owner.access, "replay", &since).await;
            assert_eq!((begun.status, &begun.json), (202, &json!({ "status": "replaying" })), "{}", begun.text);
        }
        let heard = second.take(5).await;
        app.quiet().await;
        assert_eq!(second.all().len(), 5);
        assert_eq!((&heard[3].id, &heard[4].id), (&heard[0].id, &heard[1].id));
        let event = json!({ "event": heard[4].id });
        assert_eq!(with_key(app, &replay, &owner.access, "replay", &event).await.refusal(), REUSED);
        assert_eq!(call(app, Method::POST, &replay, &owner.access, &event).await.status, 202);
        assert_eq!(second.take(6).await[5].id, heard[4].id);
        app.quiet().await;
        let told = app.get_as(&format!("{path}/deliveries"), &owner.access).await;
        let delivered = items(&told);
        assert_eq!(delivered.len(), 3, "{}", told.text);
        assert!(delivered.iter().all(|one| one["state"] == "delivered" && one["type"] == "user.updated" && one["user_id"] == json!(ada.id)));
        assert_eq!(one_by_one(app, &format!("{path}/deliveries"), &owner.access).await, delivered);

        for list in [WEBHOOKS, path.as_str()] {
            let shown = app.get_as(list, &owner.access).await;
            assert!(shown.text.contains(&id) && !shown.text.contains(secret.reveal()) && !shown.text.contains(next.reveal()));
        }
        assert_eq!(call(app, Method::DELETE, &path, &owner.access, &json!({})).await.status, 204);
        for (method, rest) in [
            (Method::GET, ""), (Method::PATCH, ""), (Method::DELETE, ""), (Method::GET, "/deliveries"),
        ] {
            let gone = call(app, method.clone(), &format!("{path}{rest}"), &owner.access, &json!({})).await;
            assert_eq!(gone.status, 404, "{method} {rest}: {}", gone.text);
        }
        assert_eq!(call(app, Method::POST, &replay, &owner.access, &event).await.status, 404);
        for (kind, times) in [
            ("webhook_added", 1), ("webhook_changed", 1), ("webhook_paused", 1), ("webhook_resumed", 1),
            ("webhook_secret_rotated", 1), ("webhook_replayed", 2), ("webhook_removed", 1),
        ] {
            assert_eq!(done_by(app, &owner, kind).await, times, "{kind}");
        }
    }
}

both! {
    async fn what_is_wrong_with_an_endpoint_is_said_by_its_field(app: &TestApp) {
        let owner = owner(app).await;
        let receiver = Receiver::start().await;
        let url = &receiver.url;
        for (body, wrong) in [
            (json!({}), "url"),
            (json!({ "url": "nonsense" }), "url"),
            (json!({ "url": "ftp://books.example.com/" }), "url"),
            (json!({ "url": "https://10.0.0.1/" }), "url"),
            (json!({ "url": format!("{url}?{}", "x".repeat(2_048)) }), "url"),
            (json!({ "url": url, "events": [] }), "events"),
            (json!({ "url": url, "events": ["user.created,session.ended"] }), "events"),
            (json!({ "url": url, "events": ["user.gone"] }), "events"),
            (json!({ "url": url, "description": "a\nb" }), "description"),
            (json!({ "url": url, "secret": "mine" }), "secret"),
        ] {
            assert_eq!(field(&call(app, Method::POST, WEBHOOKS, &owner.access, &body).await), wrong, "{body}");
        }
        let made = call(app, Method::POST, WEBHOOKS, &owner.access, &json!({ "url": url })).await;
        assert_eq!((made.status, made.json["events"].as_array().unwrap().len() > 5), (201, true), "{}", made.text);
        let path = format!("{WEBHOOKS}/{}", made.str("/id"));
        for (body, wrong) in [
            (json!({ "url": "https://localhost.:1/" , "events": ["*", "x"], "description": "a\nb" }), "description"),
            (json!({ "pause_reason": "moving" }), "pause_reason"),
            (json!({ "paused": false, "pause_reason": "moving" }), "pause_reason"),
            (json!({ "paused": true, "pause_reason": "" }), "pause_reason"),
            (json!({ "paused": null }), "paused"),
        ] {
            let refused = call(app, Method::PATCH, &path, &owner.access, &body).await;
            let fields = refused.fields();
            assert!(refused.status == 422 && fields.iter().any(|one| one.starts_with(wrong)), "{body}: {}", refused.text);
        }
        let later = (app.clock.now() + HOUR).to_string();
        for (body, wrong) in [
            (json!({}), "since"),
            (json!({ "since": START.to_string(), "event": "msg_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa" }), "since"),
            (json!({ "since": "yesterday" }), "since"),
            (json!({ "since": later }), "since"),
            (json!({ "event": "whk_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa" }), "event"),
            (json!({ "event": "msg_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa" }), "event"),
        ] {
            let refused = call(app, Method::POST, &format!("{path}/replay"), &owner.access, &body).await;
            assert_eq!(field(&refused), wrong, "{body}");
        }
        assert_eq!(app.get_as(&path, &owner.access).await.json["paused"], false, "nothing of it was done");
        let paused = call(app, Method::PATCH, &path, &owner.access, &json!({ "paused": true })).await;
        assert_eq!(paused.str("/pause_reason"), "paused");
    }
}

async fn offered(app: &TestApp, id: &str) -> bool {
    let methods = app.get("/v1/auth/methods").await;
    methods.json["providers"].as_array().unwrap().iter().any(|one| one["id"] == id)
}

both! {
    async fn providers_are_added_changed_switched_off_and_removed(app: &TestApp) {
        let owner = owner(app).await;
        let idp = Idp::start().await;
        idp.follow(&app.clock);
        let settings = json!({ "issuer": idp.url(), "client_id": CLIENT, "client_secret": "canary-client-secret", "name": "Late" });
        let new = json!({ "id": "late", "settings": settings });
        let made = with_key(app, PROVIDERS, &owner.access, "late", &new).await;
        assert_eq!(made.status, 201, "{}", made.text);
        assert_eq!((&made.json["name"], &made.json["enabled"], &made.json["in_settings"]), (&json!("Late"), &json!(true), &json!(false)));
        assert_eq!(made.str("/callback_url"), format!("{}/v1/auth/oauth/late/callback", app.url));
        let again = with_key(app, PROVIDERS, &owner.access, "late", &new).await;
        assert_eq!((again.status, &again.json), (201, &made.json), "as the first time");
        let mut other = new.clone();
        other["settings"]["client_secret"] = "another".into();
        assert_eq!(with_key(app, PROVIDERS, &owner.access, "late", &other).await.refusal(), REUSED);
        assert_eq!(call(app, Method::POST, PROVIDERS, &owner.access, &new).await.refusal(), CONFLICT);
        assert!(offered(app, "late").await);

        let path = format!("{PROVIDERS}/late");
        for on in [false, true] {
            let changed = call(app, Method::PATCH, &path, &owner.access, &json!({ "enabled": on })).await;
            assert_eq!((&changed.json["enabled"], offered(app, "late").await), (&json!(on), on), "{}", changed.text);
        }
        app.clock.advance(SECOND);
        let change = json!({ "settings": { "name": "Later", "client_secret": "canary-next-secret" } });
        let changed = call(app, Method::PATCH, &path, &owner.access, &change).await;
        assert_eq!((changed.str("/name").as_str(), changed.str("/issuer").as_str()), ("Later", idp.url()), "{}", changed.text);
        let listed = app.get_as(PROVIDERS, &owner.access).await;
        assert!(each(&listed, "id") == ["dev", "late"] && !listed.text.contains("canary"), "{}", listed.text);

        for (body, wrong) in [
            (json!({ "id": "Late", "settings": settings }), "id"),
            (json!({ "id": "exchange", "settings": settings }), "id"),
            (json!({ "id": "x" }), "settings"),
            (json!({ "id": "x", "settings": {} }), "settings"),
            (json!({ "id": "x", "settings": { "issuer": "nonsense", "client_id": "x" } }), "settings.issuer"),
            (json!({ "id": "x", "settings": { "issuer": idp.url() } }), "settings.client_id"),
            (json!({ "id": "x", "settings": { "preset": "nobody" } }), "settings.preset"),
            (json!({ "id": "x", "settings": { "nonsense": 1 } }), "settings.nonsense"),
        ] {
            assert_eq!(field(&call(app, Method::POST, PROVIDERS, &owner.access, &body).await), wrong, "{body}");
        }
        let broken = json!({ "settings": { "max_age": "soon" } });
        assert_eq!(field(&call(app, Method::PATCH, &path, &owner.access, &broken).await), "settings.max_age");

        // What stands in the settings is changed there, and can be switched off here.
        let settled = format!("{PROVIDERS}/dev");
        for (method, body) in [(Method::PATCH, &change), (Method::DELETE, &change)] {
            assert_eq!(call(app, method, &settled, &owner.access, body).await.refusal(), CONFLICT);
        }
        let taken = json!({ "id": "dev", "settings": settings });
        assert_eq!(call(app, Method::POST, PROVIDERS, &owner.access, &taken).await.refusal(), CONFLICT);
        for on in [false, true] {
            let changed = call(app, Method::PATCH, &settled, &owner.access, &json!({ "enabled": on })).await;
            assert_eq!((&changed.json["enabled"], offered(app, "dev").await), (&json!(on), on), "{}", changed.text);
        }
        assert_eq!(call(app, Method::DELETE, &path, &owner.access, &json!({})).await.status, 204);
        assert!(!offered(app, "late").await);
        for (method, body) in [(Method::DELETE, json!({})), (Method::PATCH, json!({ "enabled": true })), (Method::PATCH, change)] {
            assert_eq!(call(app, method, &path, &owner.access, &body).await.status, 404);
        }
        for (kind, times) in [
            ("provider_added", 1), ("provider_changed", 1), ("provider_disabled", 2), ("provider_enabled", 2), ("provider_removed", 1),
        ] {
            assert_eq!(done_by(app, &owner, kind).await, times, "{kind}");
        }
    }
}

both! {
    async fn the_signing_key_is_replaced_once(app: &TestApp) {
        let owner = owner(app).await;
        let keys = "/v1/admin/signing-keys";
        assert_eq!(each(&app.get_as(keys, &owner.access).await, "state"), ["signing"]);
        let rotated = with_key(app, ROTATE, &owner.access, "rotate", &json!({})).await;
        assert_eq!((rotated.status, rotated.str("/status").as_str()), (200, "published"), "{}", rotated.text);
        let listed = app.get_as(keys, &owner.access).await;
        assert_eq!(each(&listed, "state"), ["signing", "published"]);
        assert_eq!(each(&listed, "kid")[1], rotated.str("/kid"));
        assert_eq!(each(&listed, "signs_from")[1], rotated.str("/signs_from"));
        assert_eq!(with_key(app, ROTATE, &owner.access, "rotate", &json!({})).await.json, rotated.json);
        let pending = call(app, Method::POST, ROTATE, &owner.access, &json!({})).await;
        assert_eq!((pending.str("/status").as_str(), pending.str("/kid")), ("pending", rotated.str("/kid")));
        assert_eq!(done_by(app, &owner, "signing_key_published").await, 1);
        assert_eq!(app.get_as("/v1/me", &owner.access).await.status, 200, "what is out stays good");
    }
}

const SETTINGS: &str = "[service]\nname = \"Pearls\"\n[providers.acme]\nissuer = \"https://id.example.com\"\nclient_id = \"x\"\n\
                        client_secret = \"canary-in-the-settings\"\n";

both_with! { true, SETTINGS;
    async fn settings_and_dependencies_are_shown_without_secrets(app: &TestApp) {
        let owner = owner(app).await;
        let shown = app.get_as("/v1/admin/settings", &owner.access).await;
        let all = items(&shown);
        let one = |key: &str| all.iter().find(|one| one["key"] == key).unwrap_or_else(|| panic!("no {key}")).clone();
        assert_eq!(one("service.name"), json!({ "key": "service.name", "value": "Pearls", "source": "the test, line 2" }));
        assert_eq!(one("tokens.access"), json!({ "key": "tokens.access", "value": "10m", "source": "the defaults" }));
        assert_eq!(one("providers.acme.client_secret")["value"], "(hidden)");
        assert_eq!(one("secrets.master_key")["value"], "", "it is not set");
        assert_eq!((&one("server.max_connections")["value"], &one("mail.chain")["value"]), (&json!(8192), &json!(["primary"])));
        assert!(all.iter().all(|one| !one["key"].as_str().unwrap().contains('*')), "templates are no settings");
        assert!(!shown.text.contains("canary"), "{}", shown.text);
        if let Some(url) = app.database_url() {
            assert!(!shown.text.contains(url) && one("database.url")["value"] == "(hidden)");
        }
        let dependencies = each(&app.get_as("/v1/admin/dependencies", &owner.access).await, "name");
        for name in ["mail.primary", "breach", "webhooks", "oauth.acme"] {
            assert!(dependencies.iter().any(|one| one == name), "{name}: {dependencies:?}");
        }
    }
}

static PAYLOAD: Statement =
    Statement { name: "PAYLOAD", text: "SELECT payload FROM jobs WHERE kind = 'mail.deliver'" };

both_with! { true, SETTINGS;
    async fn no_list_shows_a_secret(app: &TestApp) {
        let owner = owner(app).await;
        let ada = app.person("ada@example.com").await;
        let receiver = Receiver::start().await;
        let made = call(app, Method::POST, WEBHOOKS, &owner.access, &json!({ "url": receiver.url })).await;
        let idp = Idp::start().await;
        let settings = json!({ "issuer": idp.url(), "client_id": CLIENT, "client_secret": "canary-client-secret" });
        let added = call(app, Method::POST, PROVIDERS, &owner.access, &json!({ "id": "late", "settings": settings })).await;
        assert_eq!((made.status, added.status), (201, 201), "{} {}", made.text, added.text);
        rename(app, &ada, "Ada").await;
        let mail = forgot(app, &ada.email, 1).await;
        app.clock.advance(SECOND);
        forgot_in_vain(app, &ada.email).await;
        put_nonsense(app, When::now(app.clock.now(), HOUR)).await;
        app.until("it is given up", || async { app.count("SELECT COUNT(*) FROM dead_jobs").await == 1 }).await;
        let (payload,): (String,) = app.app.db.read_one(|tx| tx.one(&PAYLOAD, &[])).await.unwrap();
        let payload: Value = serde_json::from_str(&payload).unwrap();
        let canaries = [
            made.str("/secret"),
            "canary".into(),
            mail.code.clone(),
            token_of(&mail.links[0]),
            payload["sealed"].as_str().unwrap().to_owned(),
            PASSWORD.into(),
            "argon2id".into(),
            owner.refresh.clone(),
        ];
        let hook = format!("{WEBHOOKS}/{}", made.str("/id"));
        let mut paths = vec![hook.clone(), format!("{hook}/deliveries"), format!("/v1/admin/users/{}", ada.id)];
        let lists = [JOBS, MAIL, WEBHOOKS, PROVIDERS, "/v1/admin/dependencies", "/v1/admin/signing-keys", "/v1/admin/settings", "/v1/admin/users", "/v1/admin/api-keys"];
        paths.extend(lists.map(str::to_owned));
        for list in [JOBS, MAIL] {
            let listed = app.get_as(&format!("{list}?limit=200"), &owner.access).await;
            paths.extend(each(&listed, "id").into_iter().map(|id| format!("{list}/{id}")));
        }
        assert!(paths.len() > 15, "{paths:?}");
        for path in paths {
            let shown = app.get_as(&path, &owner.access).await;
            assert_eq!(shown.status, 200, "{path}: {}", shown.text);
            for canary in &canaries {
                assert!(!shown.text.contains(canary.as_str()), "{path} tells {canary}: {}", shown.text);
            }
        }
        app.put_fault("mail.primary", "none").await;
        app.mails_go().await;
        app.sql("DELETE FROM dead_jobs").await;
        receiver.take(1).await;
    }
}

/// Calls that change something, each with a permission of its own.
fn changes() -> [(Method, String); 10] {
    let nobody = "0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa";
    [
        (Method::POST, format!("{JOBS}/job_{nobody}/retry")),
        (Method::DELETE, format!("{JOBS}/job_{nobody}")),
        (Method::POST, WEBHOOKS.to_owned()),
        (Method::PATCH, format!("{WEBHOOKS}/whk_{nobody}")),
        (Method::DELETE, format!("{WEBHOOKS}/whk_{nobody}")),
        (Method::POST, format!("{WEBHOOKS}/whk_{nobody}/replay")),
        (Method::POST, PROVIDERS.to_owned()),
        (Method::PATCH, format!("{PROVIDERS}/late")),
        (Method::DELETE, format!("{PROVIDERS}/late")),
        (Method::POST, ROTATE.to_owned()),
    ]
}

both! {
    async fn whoever_may_look_may_not_change(app: &TestApp) {
        let owner = owner(app).await;
        let ada = app.person("ada@example.com").await;
        let reading = ["jobs:read", "mail:read", "webhooks:read", "providers:read", "settings:read", "signing_keys:read"];
        let made = json!({ "name": "watch", "permissions": reading });
        let key = call(app, Method::POST, "/v1/admin/api-keys", &owner.access, &made).await.str("/key");
        let lists = [JOBS, MAIL, WEBHOOKS, PROVIDERS, "/v1/admin/dependencies", "/v1/admin/signing-keys", "/v1/admin/settings"];
        for list in lists {
            assert_eq!(app.get_as(list, &key).await.status, 200, "{list}");
            assert_eq!(app.get_as(list, &ada.access).await.refusal(), DENIED, "{list}");
            assert_eq!(app.get(list).await.refusal(), "401 not_authenticated", "{list}");
        }
        for (method, path) in changes() {
            for access in [&key, &ada.access] {
                let refused = call(app, method.clone(), &path, access, &json!({})).await;
                assert_eq!(refused.refusal(), DENIED, "{method} {path}");
            }
        }
    }
}

both! {
    async fn what_leads_elsewhere_needs_somebody_who_is_there(app: &TestApp) {
        let owner = owner(app).await;
        let receiver = Receiver::start().await;
        let made = call(app, Method::POST, WEBHOOKS, &owner.access, &json!({ "url": receiver.url })).await;
        let path = format!("{WEBHOOKS}/{}", made.str("/id"));
        app.clock.advance(11 * 60 * SECOND);
        let owner = Person::of(&app.refresh(&owner.refresh).await);
        let provider = json!({ "id": "late", "settings": { "issuer": "https://id.example.com", "client_id": "x" } });
        for (method, path, body) in [
            (Method::POST, WEBHOOKS, json!({ "url": receiver.url })),
            (Method::PATCH, path.as_str(), json!({ "url": receiver.url })),
            (Method::PATCH, path.as_str(), json!({ "rotate_secret": true })),
            (Method::POST, PROVIDERS, provider.clone()),
            (Method::PATCH, "/v1/admin/providers/late", json!({ "settings": provider["settings"] })),
            (Method::POST, ROTATE, json!({})),
        ] {
            let refused = call(app, method.clone(), path, &owner.access, &body).await;
            assert_eq!(refused.refusal(), NOT_FRESH, "{method} {path}");
        }
        for body in [json!({ "description": "books" }), json!({ "paused": true }), json!({ "paused": false }), json!({})] {
            assert_eq!(call(app, Method::PATCH, &path, &owner.access, &body).await.status, 200, "{body}");
        }
        assert_eq!(call(app, Method::PATCH, "/v1/admin/providers/dev", &owner.access, &json!({ "enabled": true })).await.status, 200);
        assert_eq!(call(app, Method::DELETE, &path, &owner.access, &json!({})).await.status, 204);
    }
}
