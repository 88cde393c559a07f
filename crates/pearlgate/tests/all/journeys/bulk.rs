//! The same is done to many people: in the background, each decided alone, for as long as whoever asked may.

use reqwest::Method;
use serde_json::{Value, json};

use super::access::{DENIED, NOT_FRESH, academy, again, call, give, operator, owner, staff};
use super::steps::ended;
use crate::both;
use crate::support::{Answer, PASSWORD, Person, TestApp};

async fn begin(app: &TestApp, access: &str, body: &Value) -> Answer {
    call(app, Method::POST, "/v1/admin/bulk", access, body).await
}

fn ids(people: &[&Person]) -> Value {
    people.iter().map(|person| person.id.clone()).collect()
}

/// What came of it, once it is over.
async fn over(app: &TestApp, access: &str, id: &str) -> Answer {
    let path = format!("/v1/admin/bulk/{id}");
    app.until("it is over", || async { app.get_as(&path, access).await.str("/state") != "running" }).await;
    app.get_as(&path, access).await
}

fn went(answer: &Answer) -> (String, i64, i64, i64) {
    let number = |key: &str| answer.json[key].as_i64().unwrap();
    (answer.str("/state"), number("total"), number("done"), number("refused"))
}

both! {
    async fn many_are_shut_out_and_those_who_stand_too_high_are_not(app: &TestApp) {
        academy(app).await;
        let admin = operator(app, "admin@example.com", "admin").await;
        let owner = owner(app).await;
        let mut people = Vec::new();
        for n in 0..5 {
            people.push(app.person(&format!("p{n}@example.com")).await);
        }
        let mut who: Vec<&Person> = people.iter().collect();
        who.push(&owner);
        let mut wanted = ids(&who);
        let nobody = json!("usr_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa");
        wanted.as_array_mut().unwrap().extend([nobody.clone(), json!(people[0].id)]);
        let body = json!({ "action": "suspend", "users": wanted, "reason": "a wave of spam" });
        let begun = begin(app, &admin.access, &body).await;
        assert_eq!(begun.status, 202, "{}", begun.text);
        let after = over(app, &admin.access, &begun.str("/id")).await;
        assert_eq!(went(&after), ("done".into(), 7, 5, 2), "whoever stands twice is one: {}", after.text);
        let refused: Vec<&Value> = after.json["refusals"].as_array().unwrap().iter().map(|one| &one["user_id"]).collect();
        assert!(refused.contains(&&json!(owner.id)) && refused.contains(&&nobody), "{}", after.text);
        for person in &people {
            assert_eq!(ended(app, &person.access).await, "suspended");
        }
        assert_eq!(app.get_as("/v1/me", &owner.access).await.status, 200);
        // Each has it in their own trail, by whoever asked; the server's says that it began.
        let trail = app.get_as(&format!("/v1/admin/audit?stream={}&kind=suspended", people[3].id), &owner.access).await;
        let event = &trail.json["items"][0];
        assert_eq!((&event["actor"], &event["details"]["reason"]), (&json!(admin.id), &json!("a wave of spam")), "{}", trail.text);
        let begun = app.get_as("/v1/admin/audit?kind=bulk_begun", &owner.access).await;
        assert_eq!(begun.json["items"].as_array().unwrap().len(), 1);
        let list = app.get_as("/v1/admin/bulk", &admin.access).await;
        assert_eq!((list.json["items"].as_array().unwrap().len(), &list.json["items"][0]["done"]), (1, &json!(5)));
    }
}

both! {
    async fn each_thing_that_is_done_to_one_is_done_to_many(app: &TestApp) {
        academy(app).await;
        let (_, factor) = staff(app, "owner@example.com", "owner").await;
        let (ada, bob) = (app.person("ada@example.com").await, app.person("bob@example.com").await);
        let all = |mut body: Value| {
            let (ada, bob, factor) = (&ada, &bob, &factor);
            async move {
                body["users"] = ids(&[ada, bob]);
                let owner = again(app, "owner@example.com", factor).await;
                let begun = begin(app, &owner.access, &body).await;
                assert_eq!(begun.status, 202, "{}", begun.text);
                let after = over(app, &owner.access, &begun.str("/id")).await;
                assert_eq!(went(&after), ("done".into(), 2, 2, 0), "{}", after.text);
            }
        };
        all(json!({ "action": "grant", "role": "instructor", "resource": "course/42" })).await;
        let asked = json!({ "permission": "course:publish", "resource": "course/42" });
        let may = call(app, Method::POST, "/v1/authorize", &ada.access, &asked).await;
        assert_eq!(may.json["allowed"], true, "{}", may.text);
        all(json!({ "action": "revoke", "role": "instructor", "resource": "course/42" })).await;
        let may = call(app, Method::POST, "/v1/authorize", &bob.access, &asked).await;
        assert_eq!(may.json["allowed"], false, "{}", may.text);
        all(json!({ "action": "suspend", "reason": "x" })).await;
        assert_eq!(app.login(&bob.email, PASSWORD).await.refusal(), "403 account_suspended");
        all(json!({ "action": "unsuspend" })).await;
        let bob_again = Person::of(&app.login(&bob.email, PASSWORD).await);
        all(json!({ "action": "sign_out" })).await;
        assert_eq!(ended(app, &bob_again.access).await, "revoked_by_admin");
        all(json!({ "action": "unlock" })).await;
        all(json!({ "action": "force_reset" })).await;
        app.mail(&ada.email, "password_reset", 1).await;
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 422, "the old password lets nobody in");
    }
}

both! {
    async fn it_stops_when_whoever_asked_for_it_may_not_any_more(app: &TestApp) {
        academy(app).await;
        let owner = owner(app).await;
        let admin = operator(app, "admin@example.com", "admin").await;
        let ada = app.person("ada@example.com").await;
        let key = json!({ "name": "k", "permissions": ["users:write", "users:read"] });
        let key = call(app, Method::POST, "/v1/admin/api-keys", &admin.access, &key).await;
        let body = json!({ "action": "sign_out", "users": ids(&[&ada]) });
        for access in [admin.access.clone(), key.str("/key")] {
            // As it is while the job has not come to it yet.
            app.quiet().await;
            let begun = begin(app, &access, &body).await;
            assert_eq!(begun.status, 202, "{}", begun.text);
            let id = begun.str("/id");
            over(app, &owner.access, &id).await;
        }
        let before = app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'signed_out'").await;
        // The same again, from before the end of the session that asked: the job finds it so.
        app.sql("UPDATE bulk_targets SET outcome = ''").await;
        app.sql("UPDATE bulk_actions SET state = 'running', done = 0").await;
        let leave = app.send(app.request(Method::POST, "/v1/auth/logout").bearer_auth(&admin.access)).await;
        assert_eq!(leave.status, 204);
        let revoke = format!("/v1/admin/api-keys/{}", key.str("/api_key/id"));
        assert_eq!(call(app, Method::DELETE, &revoke, &owner.access, &json!({})).await.status, 204);
        let waiting = app.get_as("/v1/admin/bulk", &owner.access).await;
        for one in waiting.json["items"].as_array().unwrap() {
            let id = one["id"].as_str().unwrap();
            let by = one["asked_by"].as_str().unwrap();
            app.sql(&format!(
                "INSERT INTO jobs (id, kind, unique_key, payload, run_at, deadline_at, created_at, attempts, fence, history, lane, puts)
                SELECT b.id, 'admin.bulk', 'bulk:{id}', '{{\"id\":\"{id}\"}}', 0, 9000000000000000, 0, 0, 0, '[]', 'bulk', 0
                FROM bulk_actions b WHERE b.asked_by = '{by}'"
            ))
            .await;
            app.clock.advance(std::time::Duration::from_secs(1));
            let after = over(app, &owner.access, id).await;
            assert_eq!(went(&after), ("stopped".into(), 1, 0, 0), "{}", after.text);
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'signed_out'").await, before);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'bulk_stopped'").await, 2);
    }
}

both! {
    async fn it_is_begun_once_stopped_and_refused_in_words(app: &TestApp) {
        academy(app).await;
        let (owner, factor) = staff(app, "owner@example.com", "owner").await;
        let moderator = operator(app, "moderator@example.com", "moderator").await;
        let ada = app.person("ada@example.com").await;
        let body = json!({ "action": "sign_out", "users": ids(&[&ada]) });
        assert_eq!(begin(app, &moderator.access, &body).await.refusal(), DENIED);
        let once = || async {
            let request = app.request(Method::POST, "/v1/admin/bulk").bearer_auth(&owner.access);
            app.send(request.header("idempotency-key", "one").json(&body)).await
        };
        let (first, second) = tokio::join!(once(), once());
        assert_eq!((first.status, second.status), (202, 202), "{} {}", first.text, second.text);
        assert_eq!(first.str("/id"), second.str("/id"));
        over(app, &owner.access, &first.str("/id")).await;
        let path = format!("/v1/admin/bulk/{}", first.str("/id"));
        // Not by whoever stands below.
        let admin = operator(app, "admin@example.com", "admin").await;
        assert_eq!(call(app, Method::DELETE, &path, &admin.access, &json!({})).await.refusal(), DENIED);
        assert_eq!(call(app, Method::DELETE, &path, &owner.access, &json!({})).await.status, 204);
        assert_eq!(app.get_as(&path, &owner.access).await.str("/state"), "done", "what is over stays what it was");
        assert_eq!(app.count("SELECT COUNT(*) FROM bulk_actions").await, 1);
        let many: Vec<String> = (0..1_001).map(|n| format!("usr_{n:032x}")).collect();
        for (body, field) in [
            (json!({ "action": "delete_everything", "users": [ada.id] }), "action"),
            (json!({ "action": "sign_out", "users": [] }), "users"),
            (json!({ "action": "sign_out", "users": many }), "users"),
            (json!({ "action": "sign_out", "users": ["ada"] }), "users.0"),
            (json!({ "action": "sign_out", "users": [ada.id], "reason": "x" }), "reason"),
            (json!({ "action": "suspend", "users": [ada.id] }), "reason"),
            (json!({ "action": "suspend", "users": [ada.id], "reason": "x", "role": "student" }), "role"),
            (json!({ "action": "grant", "users": [ada.id] }), "role"),
            (json!({ "action": "grant", "users": [ada.id], "role": "stu\u{0}dent" }), "role"),
            (json!({ "action": "grant", "users": [ada.id], "role": "student", "resource": "course/ 42" }), "resource"),
            (json!({ "action": "grant", "users": [ada.id], "role": "student", "resource": "a\u{0}b" }), "resource"),
        ] {
            let refused = begin(app, &owner.access, &body).await;
            assert_eq!((refused.status, refused.json["fields"][0]["field"].as_str()), (422, Some(field)), "{}", refused.text);
        }
        app.clock.advance(std::time::Duration::from_secs(599));
        let stale = app.refresh(&owner.refresh).await.str("/access_token");
        app.clock.advance(std::time::Duration::from_secs(2));
        assert_eq!(begin(app, &stale, &body).await.refusal(), NOT_FRESH);
        let owner = again(app, "owner@example.com", &factor).await;
        // A role that may nothing of the server's own gives nobody the right to grant.
        give(app, &ada, "moderator", "").await;
        let grants = json!({ "action": "grant", "role": "owner", "users": ids(&[&ada]) });
        let begun = begin(app, &owner.access, &grants).await;
        assert_eq!(went(&over(app, &owner.access, &begun.str("/id")).await), ("done".into(), 1, 1, 0));
        // What is over for a month is forgotten.
        app.clock.advance(std::time::Duration::from_secs(31 * 86_400));
        app.until("it is forgotten", || async { app.count("SELECT COUNT(*) FROM bulk_targets").await == 0 }).await;
    }
}
