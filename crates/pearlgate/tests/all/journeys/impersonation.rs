//! An operator is somebody else for a while: in the open, below themselves, and to look alone.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use pearlgate::access::{self, By, Change, RolesFile};
use pearlgate::router::{Guard, doors};
use reqwest::Method;
use serde_json::{Value, json};

use super::access::{DENIED, NOT_FRESH, again, call, give, operator, owner, staff};
use super::steps::ended;
use crate::support::{Answer, PASSWORD, Person, TestApp};
use crate::{both, both_with};

const ROLES: &str = r#"
[roles.support]
description = "Helps people."
level = 20
permissions = ["users:read", "users:impersonate"]

[roles.helper]
description = "Helps the support."
level = 10
permissions = ["users:read"]
"#;
const REFUSED: &str = "403 impersonated";

async fn roles(app: &TestApp) {
    let file = RolesFile::parse(ROLES).unwrap();
    access::apply(&app.app, By::console(), file, false).await.unwrap().unwrap();
}

async fn be(app: &TestApp, by: &str, whom: &Person) -> Answer {
    let path = format!("/v1/admin/users/{}/impersonate", whom.id);
    call(app, Method::POST, &path, by, &json!({ "reason": "ticket 4711" })).await
}

/// Somebody of the support who is Ada: the operator, Ada, and the token.
async fn as_ada(app: &TestApp) -> (Person, Person, String) {
    roles(app).await;
    let ada = app.person("ada@example.com").await;
    let sam = operator(app, "sam@example.com", "support").await;
    let answer = be(app, &sam.access, &ada).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let token = answer.str("/access_token");
    (sam, ada, token)
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
}

both! {
    async fn the_token_says_who_is_behind_it_and_its_person_is_told(app: &TestApp) {
        let (sam, ada, token) = as_ada(app).await;
        let said = claims(&token);
        assert_eq!((&said["sub"], &said["act"]), (&json!(ada.id), &json!({ "sub": sam.id })));
        assert_eq!((&said["aal"], &said["amr"]), (&json!(1), &json!(["impersonation"])));
        let lives = said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap();
        assert!((1..=600).contains(&lives), "{lives} s");
        assert_eq!(app.get_as("/v1/me", &token).await.json["email"], "ada@example.com");
        assert!(claims(&ada.access).get("act").is_none(), "one's own token says nothing of the kind");
        // By mail, with the reason; in the history, without the operator's own; in the list of sessions.
        let mail = app.mail(&ada.email, "impersonated", 1).await;
        assert!(mail.text.contains("ticket 4711"), "{}", mail.text);
        let history = app.get_as("/v1/me/activity", &ada.access).await;
        let event = &history.json["items"].as_array().unwrap().iter().find(|e| e["kind"] == "impersonated").unwrap();
        assert_eq!((&event["address"], &event["details"]["session"]), (&json!(""), &Value::Null), "{event}");
        let sessions = app.get_as("/v1/me/sessions", &ada.access).await;
        let theirs: Vec<_> = sessions.json["items"].as_array().unwrap().iter().filter(|s| s["amr"] == json!(["impersonation"])).collect();
        assert_eq!(theirs.len(), 1, "{}", sessions.text);
        assert_eq!(theirs[0]["id"], said["sid"]);
        // For operators: who, whom, why, in which session.
        let query = format!("/v1/admin/audit?stream={}&kind=impersonated", ada.id);
        let owner = owner(app).await;
        let trail = app.get_as(&query, &owner.access).await;
        let event = &trail.json["items"][0];
        assert_eq!((&event["actor"], &event["details"]["reason"]), (&json!(sam.id), &json!("ticket 4711")), "{}", trail.text);
        assert_eq!((&event["details"]["session"], &event["details"]["as"]), (&json!(sam.session), &said["sid"]));
    }
}

both! {
    async fn whoever_is_somebody_else_looks_and_changes_nothing(app: &TestApp) {
        let (_, ada, token) = as_ada(app).await;
        let routes = doors(&app.app).routes;
        let own = routes.iter().filter(|route| route.guard == Guard::SignedIn && !route.method.is_safe());
        let mut asked = 0;
        for route in own {
            let path = route.path.replace("{id}", &ada.session).replace("{provider}", "google");
            let answer = call(app, route.method.clone(), &path, &token, &json!({})).await;
            assert_eq!(answer.refusal(), REFUSED, "{} {}", route.method, route.path);
            asked += 1;
        }
        assert!(asked >= 20, "{asked} doors were tried");
        // What an application asks for the person it serves is answered.
        let may = call(app, Method::POST, "/v1/authorize", &token, &json!({ "permission": "course:view" })).await;
        assert_eq!(may.status, 200, "{}", may.text);
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200);
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200, "everything is as it was");
    }
}

both! {
    async fn it_ends_with_whatever_it_rests_on(app: &TestApp) {
        roles(app).await;
        let ada = app.person("ada@example.com").await;
        let (sam, factor) = staff(app, "sam@example.com", "support").await;
        let fresh = || async { again(app, "sam@example.com", &factor).await };
        let token = |answer: Answer| {
            assert_eq!(answer.status, 200, "{}", answer.text);
            answer.str("/access_token")
        };
        // The operator leaves.
        let one = token(be(app, &sam.access, &ada).await);
        let leave = app.send(app.request(Method::POST, "/v1/auth/logout").bearer_auth(&sam.access)).await;
        assert_eq!(leave.status, 204);
        assert_eq!(app.get_as("/v1/me", &one).await.refusal(), "401 session_ended");
        // They may not any more.
        let sam = fresh().await;
        let two = token(be(app, &sam.access, &ada).await);
        let take = Change::Take(("support".to_owned(), String::new()));
        access::change(&app.app, By::console(), sam.id.parse().unwrap(), take).await.unwrap().unwrap();
        assert_eq!(app.get_as("/v1/me", &two).await.refusal(), "401 session_ended");
        give(app, &sam, "support", "").await;
        // Whoever is behind it ends it, and its person does.
        let sam = fresh().await;
        let answer = be(app, &sam.access, &ada).await;
        let (three, session) = (token(be(app, &sam.access, &ada).await), answer.str("/session_id"));
        let own = format!("/v1/me/sessions/{session}");
        assert_eq!(call(app, Method::DELETE, &own, &token(answer), &json!({})).await.status, 204);
        assert_eq!(app.get_as("/v1/me", &three).await.status, 200, "the other one goes on");
        let ada = Person::of(&app.login(&ada.email, PASSWORD).await);
        assert_eq!(call(app, Method::DELETE, "/v1/me/sessions", &ada.access, &json!({})).await.status, 204);
        assert_eq!(ended(app, &three).await, "revoked_by_user");
        // As often as their mailbox is told of it.
        app.quiet().await;
        app.forgive().await;
        // The person comes to stand as high, and the operator's role comes back: neither revives it.
        let risen = token(be(app, &fresh().await.access, &ada).await);
        give(app, &ada, "support", "").await;
        assert_eq!(app.get_as("/v1/me", &risen).await.refusal(), "401 session_ended");
        let take = Change::Take(("support".to_owned(), String::new()));
        access::change(&app.app, By::console(), ada.id.parse().unwrap(), take).await.unwrap().unwrap();
        for gone in [&two, &risen] {
            assert_eq!(app.get_as("/v1/me", gone).await.refusal(), "401 session_ended");
        }
        // The person is shut out.
        let four = token(be(app, &fresh().await.access, &ada).await);
        pearlgate::accounts::suspend(&app.app, ada.id.parse().unwrap(), "x").await.unwrap().unwrap();
        assert_eq!(ended(app, &four).await, "suspended");
        assert_eq!(be(app, &fresh().await.access, &ada).await.refusal(), "409 conflict", "there is nothing to be");
        pearlgate::accounts::unsuspend(&app.app, ada.id.parse().unwrap()).await.unwrap().unwrap();
        // Its time is over.
        let five = token(be(app, &fresh().await.access, &ada).await);
        app.clock.advance(Duration::from_secs(601));
        assert_eq!(app.get_as("/v1/me", &five).await.status, 401);
        let history = app.get_as("/v1/me/activity", &Person::of(&app.login(&ada.email, PASSWORD).await).access).await;
        let own: Vec<_> = history.json["items"].as_array().unwrap().iter().filter(|e| e["kind"] == "session_ended").collect();
        assert!(!own.is_empty(), "{}", history.text);
    }
}

both! {
    async fn nobody_is_whoever_stands_as_high(app: &TestApp) {
        roles(app).await;
        let owner = owner(app).await;
        let (sam, factor) = staff(app, "sam@example.com", "support").await;
        let other = operator(app, "other@example.com", "support").await;
        let helper = operator(app, "helper@example.com", "helper").await;
        let ada = app.person("ada@example.com").await;
        for (by, whom, refusal) in [
            (&sam, &owner, DENIED),
            (&sam, &other, DENIED),
            (&sam, &sam, "409 conflict"),
            (&helper, &ada, DENIED),
            (&ada, &helper, DENIED),
        ] {
            assert_eq!(be(app, &by.access, whom).await.refusal(), refusal, "{} as {}", by.email, whom.email);
        }
        // Below them it works, and opens nothing that an operator may.
        let token = be(app, &sam.access, &helper).await.str("/access_token");
        assert_eq!(app.get_as("/v1/me", &token).await.status, 200);
        assert_eq!(app.get_as("/v1/admin/users", &token).await.refusal(), "403 mfa_required");
        let further = be(app, &token, &ada).await;
        assert_eq!(further.refusal(), DENIED, "nobody goes on from there");
        // A key is nobody.
        let wanted = json!({ "name": "k", "permissions": ["users:impersonate"] });
        let key = call(app, Method::POST, "/v1/admin/api-keys", &owner.access, &wanted).await.str("/key");
        assert_eq!(be(app, &key, &ada).await.refusal(), DENIED);
        assert_eq!(app.count("SELECT COUNT(*) FROM impersonations").await, 1);
        // Not long after, and not without a reason.
        let path = format!("/v1/admin/users/{}/impersonate", ada.id);
        for reason in ["", " ", "\u{200b}", "a\nb", "a\u{2028}b"] {
            assert_eq!(call(app, Method::POST, &path, &sam.access, &json!({ "reason": reason })).await.status, 422);
        }
        app.clock.advance(Duration::from_secs(599));
        let stale = app.refresh(&sam.refresh).await.str("/access_token");
        app.clock.advance(Duration::from_secs(2));
        assert_eq!(be(app, &stale, &ada).await.refusal(), NOT_FRESH);
        assert_eq!(be(app, &again(app, "sam@example.com", &factor).await.access, &ada).await.status, 200);
    }
}

both_with! { true, "[impersonation]\nlifetime = \"0s\"\n";
    async fn where_nobody_is_to_be_somebody_else_nobody_is(app: &TestApp) {
        let owner = owner(app).await;
        let ada = app.person("ada@example.com").await;
        assert_eq!(be(app, &owner.access, &ada).await.refusal(), DENIED);
    }
}

both! {
    async fn nobody_is_mailed_without_end_by_somebody_who_helps(app: &TestApp) {
        let (sam, ada, _) = as_ada(app).await;
        for _ in 0..4 {
            assert_eq!(be(app, &sam.access, &ada).await.status, 200);
        }
        // Mails that strangers ask for are no reason not to help, and the other way round.
        for _ in 0..3 {
            app.post("/v1/auth/forgot-password", json!({ "email": ada.email })).await;
            app.quiet().await;
        }
        let refused = be(app, &sam.access, &ada).await;
        assert!(refused.refusal() == "409 conflict" && refused.text.contains("as many mails"), "{}", refused.text);
        assert_eq!(app.count("SELECT COUNT(*) FROM impersonations").await, 5);
        app.mail(&ada.email, "impersonated", 5).await;
    }
}
