//! Roles, who has them, and what they open.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use foundation::kernel::Secret;
use pearlgate::access::setup::{self, SetUp};
use pearlgate::access::{self, By, Change, NewKey, RolesFile, Who};
use pearlgate::accounts::{self, DisplayName, EmailAddress};
use reqwest::Method;
use serde_json::{Value, json};

use super::authenticator::{Factor, enrol, sign_in};
use super::steps::send_as;
use crate::support::{Answer, PASSWORD, PATIENCE, Person, TestApp, production};
use crate::{both, both_with};

const ACADEMY: &str = include_str!("../../../../../examples/academy/roles.toml");
pub const DENIED: &str = "403 permission_denied";
pub const NOT_FRESH: &str = "403 reauthentication_required";

/// Calls as somebody.
pub async fn call(app: &TestApp, method: Method, path: &str, access: &str, body: &Value) -> Answer {
    if method == Method::GET || method == Method::DELETE {
        return app.send(app.request(method, path).bearer_auth(access)).await;
    }
    send_as(app, method, path, access, body.clone()).await
}

/// The academy's roles, as an application ships them.
pub async fn academy(app: &TestApp) {
    let file = RolesFile::parse(ACADEMY).unwrap();
    access::apply(&app.app, By::console(), file, false).await.unwrap().unwrap();
}

/// Gives somebody a role, as whoever sits at the server does.
pub async fn give(app: &TestApp, person: &Person, role: &str, on: &str) {
    let change = Change::Add((role.to_owned(), on.to_owned()));
    access::change(&app.app, By::console(), person.id.parse().unwrap(), change).await.unwrap().unwrap();
}

/// Somebody with this role who has just signed in with a second factor, and the factor.
pub async fn staff(app: &TestApp, email: &str, role: &str) -> (Person, Factor) {
    let person = app.person(email).await;
    let factor = enrol(app, &person).await;
    give(app, &person, role, "").await;
    (again(app, email, &factor).await, factor)
}

/// The same once more: fresh.
pub async fn again(app: &TestApp, email: &str, factor: &Factor) -> Person {
    Person::of(&sign_in(app, email, PASSWORD, factor).await)
}

/// Somebody with this role who has just signed in with a second factor.
pub async fn operator(app: &TestApp, email: &str, role: &str) -> Person {
    staff(app, email, role).await.0
}

/// The owner, who has just signed in with a second factor.
pub async fn owner(app: &TestApp) -> Person {
    operator(app, "owner@example.com", "owner").await
}

/// What an access token says.
fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
}

/// Asks whether somebody may do something, as they would themselves.
async fn may(app: &TestApp, person: &Person, permission: &str, resource: &str) -> (bool, String) {
    let mut body = json!({ "permission": permission });
    if !resource.is_empty() {
        body["resource"] = resource.into();
    }
    let answer = send_as(app, Method::POST, "/v1/authorize", &person.access, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    (answer.json["allowed"].as_bool().unwrap(), answer.str("/because"))
}

async fn set_roles(app: &TestApp, by: &Person, person: &Person, roles: Value) -> Answer {
    let path = format!("/v1/admin/users/{}/roles", person.id);
    call(app, Method::PUT, &path, &by.access, &json!({ "roles": roles })).await
}

both! {
    async fn the_academys_roles_do_what_its_people_do(app: &TestApp) {
        academy(app).await;
        let everybody = ["student", "instructor", "moderator", "admin"];
        // Each line: what, to what, and who of them may.
        let table: [(&str, &str, [bool; 4]); 7] = [
            ("course:view", "course/42", [true, true, true, true]),
            ("exercise:submit", "", [true, true, true, true]),
            ("course:publish", "course/42", [false, true, false, true]),
            ("grade:write", "course/42", [false, true, false, true]),
            ("forum:moderate", "", [false, false, true, true]),
            ("users:write", "", [false, false, false, true]),
            ("payments:refund", "", [false, false, false, false]),
        ];
        for (n, role) in everybody.into_iter().enumerate() {
            let person = app.person(&format!("{role}@example.com")).await;
            give(app, &person, role, "").await;
            for (permission, resource, who) in table {
                let (allowed, because) = may(app, &person, permission, resource).await;
                assert_eq!(allowed, who[n], "{role}, {permission}: {because}");
                assert!(because.starts_with(if allowed { "role " } else { "no role grants " }), "{because}");
            }
        }
    }
}

both! {
    async fn whoever_registers_is_given_the_roles_of_everybody(app: &TestApp) {
        let before = app.person("before@example.com").await;
        assert_eq!(app.get_as("/v1/me", &before.access).await.json["roles"], json!([]));
        academy(app).await;
        let ada = app.person("ada@example.com").await;
        let me = app.get_as("/v1/me", &ada.access).await;
        assert_eq!(me.json["roles"], json!(["student"]));
        assert_eq!(app.login("ada@example.com", PASSWORD).await.json["user"]["roles"], json!(["student"]));
        assert_eq!(app.get_as("/v1/me", &before.access).await.json["roles"], json!([]), "others are as they were");
    }
}

both! {
    async fn a_role_for_one_thing_counts_there_alone(app: &TestApp) {
        academy(app).await;
        let ada = app.person("ada@example.com").await;
        give(app, &ada, "instructor", "course/42").await;
        assert!(may(app, &ada, "course:publish", "course/42").await.0);
        for elsewhere in ["course/43", "course/42/lesson/1", "course/421", ""] {
            assert!(!may(app, &ada, "course:publish", elsewhere).await.0, "{elsewhere}");
        }
        give(app, &ada, "instructor", "workshop/*").await;
        assert!(may(app, &ada, "course:publish", "workshop/7/bench").await.0);
        assert!(!may(app, &ada, "course:publish", "workshop").await.0);
        // Nothing of it is a role everywhere.
        assert_eq!(app.get_as("/v1/me", &ada.access).await.json["roles"], json!(["student"]));
    }
}

both! {
    async fn what_changes_counts_at_once(app: &TestApp) {
        academy(app).await;
        let owner = owner(app).await;
        let ada = app.person("ada@example.com").await;
        assert!(!may(app, &ada, "course:publish", "").await.0);
        let set = set_roles(app, &owner, &ada, json!([{ "role": "student" }, { "role": "instructor" }])).await;
        assert_eq!(set.status, 200, "{}", set.text);
        assert!(may(app, &ada, "course:publish", "").await.0, "with the same access token");
        assert_eq!(app.get_as("/v1/me", &ada.access).await.json["roles"], json!(["instructor", "student"]));
        let refreshed = Person::of(&app.refresh(&ada.refresh).await);
        let claims = claims(&refreshed.access);
        assert_eq!((&claims["roles"], claims.get("permissions")), (&json!(["instructor", "student"]), None));
        // What the role may changes for whoever has it.
        let roles = app.get_as("/v1/admin/roles", &owner.access).await;
        let instructor = roles.json["items"].as_array().unwrap().iter().find(|role| role["name"] == "instructor").unwrap();
        let path = format!("/v1/admin/roles/{}", instructor["id"].as_str().unwrap());
        let less = json!({ "permissions": ["grade:write"] });
        assert_eq!(call(app, Method::PATCH, &path, &owner.access, &less).await.status, 200);
        assert!(!may(app, &ada, "course:publish", "").await.0);
        assert!(may(app, &ada, "grade:write", "").await.0);
        // And whoever believes tokens by themselves hears of both.
        let feed = app.get("/v1/revocations").await;
        let heard: Vec<&str> =
            feed.json["roles_changed"].as_array().unwrap().iter().map(|one| one["subject"].as_str().unwrap()).collect();
        assert!(heard.contains(&ada.id.as_str()) && heard.contains(&"instructor"), "{heard:?}");
        // Taken away, and told in the history of both sides.
        assert_eq!(set_roles(app, &owner, &ada, json!([])).await.status, 200);
        assert!(!may(app, &ada, "course:view", "").await.0);
        let mine = app.get_as("/v1/me/activity", &ada.access).await;
        for kind in ["role_granted", "role_revoked"] {
            assert!(mine.text.contains(kind), "{}", mine.text);
        }
        let by = "SELECT COUNT(*) FROM audit_events WHERE kind = 'role_revoked' AND actor <> '' AND details LIKE '%ses_%'";
        assert_eq!(app.count(by).await, 2, "who did it, and in which session");
    }
}

both_with! { true, "[tokens]\npermissions = true";
    async fn tokens_say_what_their_person_may_when_they_are_to(app: &TestApp) {
        academy(app).await;
        let ada = app.person("ada@example.com").await;
        give(app, &ada, "instructor", "course/42").await;
        let claims = claims(&Person::of(&app.refresh(&ada.refresh).await).access);
        let permissions: Vec<&str> =
            claims["permissions"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        assert!(permissions.contains(&"course:view") && !permissions.contains(&"course:publish"), "{permissions:?}");
    }
}

both! {
    async fn suspended_people_may_nothing_until_the_suspension_ends(app: &TestApp) {
        academy(app).await;
        let (owner, factor) = staff(app, "owner@example.com", "owner").await;
        let ada = app.person("ada@example.com").await;
        let ask = json!({ "subject": ada.id, "permission": "course:view" });
        assert_eq!(call(app, Method::POST, "/v1/authorize", &owner.access, &ask).await.json["allowed"], true);
        let until = (app.clock.now() + Duration::from_secs(3_600)).to_string();
        let suspend = json!({ "reason": "a complaint", "until": until });
        let path = format!("/v1/admin/users/{}/suspend", ada.id);
        let owner = again(app, "owner@example.com", &factor).await.access;
        assert_eq!(call(app, Method::POST, &path, &owner, &suspend).await.status, 204);
        assert_eq!(app.get_as("/v1/me", &ada.access).await.refusal(), "401 session_ended");
        let one = app.get_as(&format!("/v1/admin/users/{}", ada.id), &owner).await;
        assert_eq!(one.json["suspension"]["reason"], "a complaint");
        assert_eq!(one.json["suspension"]["until"], json!(until));
        let denied = call(app, Method::POST, "/v1/authorize", &owner, &ask).await;
        assert_eq!((&denied.json["allowed"], denied.str("/because").as_str()), (&json!(false), "the account is suspended"));
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "403 account_suspended");
        app.clock.advance(Duration::from_secs(3_601));
        app.until("it has ended", || async {
            accounts::find(&app.app, &ada.email).await.unwrap();
            app.count("SELECT COUNT(*) FROM suspensions").await == 0
        })
        .await;
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
    }
}

both! {
    async fn questions_come_in_numbers_and_about_others_from_those_who_may_ask(app: &TestApp) {
        academy(app).await;
        let (ada, bob) = (app.person("ada@example.com").await, app.person("bob@example.com").await);
        let of_bob = json!({ "subject": bob.id, "permission": "course:view" });
        let answer = call(app, Method::POST, "/v1/authorize", &ada.access, &of_bob).await;
        assert_eq!(answer.refusal(), DENIED);
        let own = json!({ "checks": [
            { "permission": "course:view" }, { "permission": "course:publish", "resource": "course/42" },
            { "subject": ada.id, "permission": "lesson:view" },
        ] });
        let answers = call(app, Method::POST, "/v1/authorize/batch", &ada.access, &own).await;
        let allowed: Vec<_> = answers.json["results"].as_array().unwrap().iter().map(|one| one["allowed"].clone()).collect();
        assert_eq!(allowed, [true, false, true]);
        let mixed = json!({ "checks": [{ "permission": "course:view" }, of_bob] });
        assert_eq!(call(app, Method::POST, "/v1/authorize/batch", &ada.access, &mixed).await.refusal(), DENIED);
        for (wrong, field) in [
            (json!({ "checks": [] }), "checks"),
            (json!({ "checks": vec![json!({ "permission": "a:b" }); 101] }), "checks"),
            (json!({ "checks": [{ "permission": "a:b" }, { "permission": "course:*" }] }), "checks.1.permission"),
            (json!({ "checks": [{ "permission": "a:b", "resource": "a/*" }] }), "checks.0.resource"),
            (json!({ "checks": [{ "permission": "a:b", "subject": "bob" }] }), "checks.0.subject"),
        ] {
            let refused = call(app, Method::POST, "/v1/authorize/batch", &ada.access, &wrong).await;
            assert_eq!((refused.status, refused.json["fields"][0]["field"].as_str()), (422, Some(field)), "{}", refused.text);
        }
        // A machine asks with its key.
        let owner = owner(app).await;
        let made = json!({ "name": "shop", "permissions": ["access:check"] });
        let made = call(app, Method::POST, "/v1/admin/api-keys", &owner.access, &made).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let key = made.str("/key");
        let answer = call(app, Method::POST, "/v1/authorize", &key, &json!({ "subject": bob.id, "permission": "course:view" })).await;
        assert_eq!(answer.json, json!({ "allowed": true, "because": "role student" }));
        let nobody = json!({ "subject": "usr_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa", "permission": "course:view" });
        assert_eq!(call(app, Method::POST, "/v1/authorize", &key, &nobody).await.json["because"], "there is no such person");
        assert_eq!(call(app, Method::POST, "/v1/authorize", &key, &json!({ "permission": "course:view" })).await.status, 422);
        assert_eq!(app.get_as("/v1/admin/users", &key).await.refusal(), DENIED, "it may nothing else");
        assert_eq!(app.get_as("/v1/me", &key).await.refusal(), "401 token_invalid", "and is nobody");
    }
}

both! {
    async fn a_key_may_what_its_maker_may_and_ends_when_it_is_to(app: &TestApp) {
        academy(app).await;
        let (owner, factor) = staff(app, "owner@example.com", "owner").await;
        let admin = operator(app, "admin@example.com", "admin").await;
        // Nobody gives a key what they do not hold, and nobody without a fresh session makes one.
        let beyond = json!({ "name": "x", "permissions": ["users:read", "signing_keys:write"] });
        assert_eq!(call(app, Method::POST, "/v1/admin/api-keys", &admin.access, &beyond).await.refusal(), DENIED);
        for (wrong, field) in [
            (json!({ "name": "x", "permissions": [] }), "permissions"),
            (json!({ "name": "x", "permissions": ["users:*"] }), "permissions"),
            (json!({ "name": "x", "permissions": ["users:read"], "expires_in": 1 }), "expires_in"),
        ] {
            let refused = call(app, Method::POST, "/v1/admin/api-keys", &admin.access, &wrong).await;
            assert_eq!((refused.status, refused.json["fields"][0]["field"].as_str()), (422, Some(field)), "{}", refused.text);
        }
        let new = json!({ "name": "reports", "permissions": ["users:read", "roles:read"], "expires_in": 7_200 });
        let made = call(app, Method::POST, "/v1/admin/api-keys", &admin.access, &new).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let (key, id) = (made.str("/key"), made.str("/api_key/id"));
        let listed = app.get_as("/v1/admin/api-keys", &owner.access).await;
        assert!(!listed.text.contains(&key) && listed.text.contains(&made.str("/api_key/prefix")), "{}", listed.text);
        assert!(key.starts_with(&made.str("/api_key/prefix")));
        assert_eq!(app.count("SELECT COUNT(*) FROM api_keys WHERE last_used_at = 0").await, 1);
        assert_eq!(app.get_as("/v1/admin/users", &key).await.status, 200);
        assert_eq!(app.count("SELECT COUNT(*) FROM api_keys WHERE last_used_at = 0").await, 0, "it is known when it was used");
        assert_eq!(call(app, Method::PATCH, &format!("/v1/admin/users/{}", admin.id), &key, &json!({})).await.refusal(), DENIED);
        assert_eq!(call(app, Method::POST, "/v1/admin/api-keys", &key, &new).await.refusal(), DENIED);
        // Its maker loses a role: so does it, at once.
        assert_eq!(set_roles(app, &owner, &admin, json!([{ "role": "moderator" }])).await.status, 200);
        assert_eq!(app.get_as("/v1/admin/roles", &key).await.refusal(), DENIED);
        assert_eq!(app.get_as("/v1/admin/users", &key).await.status, 200, "moderators may look people up");
        accounts::suspend(&app.app, admin.id.parse().unwrap(), "away").await.unwrap().unwrap();
        assert_eq!(app.get_as("/v1/admin/users", &key).await.refusal(), "401 token_invalid");
        accounts::unsuspend(&app.app, admin.id.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(app.get_as("/v1/admin/users", &key).await.status, 200);
        app.clock.advance(Duration::from_secs(7_201));
        assert_eq!(app.get_as("/v1/admin/users", &key).await.refusal(), "401 token_invalid", "its time is over");
        let owner = again(app, "owner@example.com", &factor).await.access;
        let path = format!("/v1/admin/api-keys/{id}");
        assert_eq!(call(app, Method::DELETE, &path, &owner, &json!({})).await.status, 204);
        assert_eq!(call(app, Method::DELETE, &path, &owner, &json!({})).await.status, 404);
        let written = "SELECT COUNT(*) FROM audit_events WHERE kind IN ('api_key_made', 'api_key_revoked')";
        assert_eq!(app.count(written).await, 2);
    }
}

both! {
    async fn roles_are_changed_over_the_api_and_by_file_alike(app: &TestApp) {
        academy(app).await;
        let owner = owner(app).await;
        let new = json!({ "name": "tutor", "description": "Helps", "level": 5, "inherits": ["student"], "permissions": ["forum:answer"] });
        let made = call(app, Method::POST, "/v1/admin/roles", &owner.access, &new).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let through: Vec<_> = made.json["effects"].as_array().unwrap().iter()
            .filter(|effect| effect["permission"] == "course:view").map(|effect| effect["through"].clone()).collect();
        assert_eq!(through, ["student"]);
        assert_eq!(call(app, Method::POST, "/v1/admin/roles", &owner.access, &new).await.refusal(), "409 conflict");
        // Asked again because nobody heard the answer.
        let under_key = |level: i64| {
            let body = json!({ "name": "keyed", "level": level });
            app.send(app.request(Method::POST, "/v1/admin/roles").bearer_auth(&owner.access).header("idempotency-key", "k1").json(&body))
        };
        let (first, second, other) = (under_key(3).await, under_key(3).await, under_key(4).await);
        assert_eq!((first.status, second.status, first.str("/id")), (201, 201, second.str("/id")));
        assert_eq!(other.refusal(), "422 idempotency_key_reused");
        let path = format!("/v1/admin/roles/{}", made.str("/id"));
        for (wrong, field) in [
            (json!({ "inherits": ["nobody"] }), "roles"),
            (json!({ "level": 100 }), "roles"),
            (json!({ "level": -1 }), "roles"),
            (json!({ "permissions": ["users:reed"] }), "permissions"),
            (json!({ "permissions": ["everything"] }), "permissions"),
            (json!({ "default": true }), "default"),
            (json!({ "level": 0, "permissions": ["users:read"] }), "roles"),
        ] {
            let refused = call(app, Method::PATCH, &path, &owner.access, &wrong).await;
            assert_eq!((refused.status, refused.json["fields"][0]["field"].as_str()), (422, Some(field)), "{wrong}: {}", refused.text);
        }
        // No circles.
        let roles = app.get_as("/v1/admin/roles", &owner.access).await;
        let student = roles.json["items"].as_array().unwrap().iter().find(|role| role["name"] == "student").unwrap();
        let circle = call(app, Method::PATCH, &format!("/v1/admin/roles/{}", student["id"].as_str().unwrap()), &owner.access, &json!({ "inherits": ["tutor"] })).await;
        assert_eq!(circle.status, 422, "{}", circle.text);
        // Held by somebody it stays.
        let ada = app.person("ada@example.com").await;
        give(app, &ada, "tutor", "").await;
        assert_eq!(call(app, Method::DELETE, &path, &owner.access, &json!({})).await.refusal(), "409 conflict");
        assert_eq!(set_roles(app, &owner, &ada, json!([])).await.status, 200);
        assert_eq!(call(app, Method::DELETE, &path, &owner.access, &json!({})).await.status, 204);
        assert_eq!(call(app, Method::GET, &path, &owner.access, &json!({})).await.status, 404);
        assert_eq!(set_roles(app, &owner, &ada, json!([{ "role": "tutor" }])).await.status, 422);
        // A file says the same: nothing is left to change.
        let again = access::preview(&app.app, RolesFile::parse(ACADEMY).unwrap(), false).await.unwrap().unwrap();
        assert!(again.is_empty(), "{:?}", again.lines);
    }
}

both! {
    async fn people_are_found_by_how_their_address_or_name_begins(app: &TestApp) {
        let owner = owner(app).await;
        for (email, name) in [("ada@example.com", "Ada Lovelace"), ("adam@example.com", "Ärmel"), ("a_b@example.com", "ada%"), ("bob@example.com", "Bob")] {
            app.clock.advance(Duration::from_millis(1));
            let person = app.person(email).await;
            let renamed = send_as(app, Method::PATCH, "/v1/me", &person.access, json!({ "display_name": name })).await;
            assert_eq!(renamed.status, 200);
        }
        let found = |query: &'static str| {
            let access = owner.access.clone();
            async move {
                let answer = app.get_as(&format!("/v1/admin/users?{query}"), &access).await;
                assert_eq!(answer.status, 200, "{}", answer.text);
                let emails: Vec<String> =
                    answer.json["items"].as_array().unwrap().iter().map(|one| one["email"].as_str().unwrap().to_owned()).collect();
                (emails, answer.str("/next_cursor"))
            }
        };
        assert_eq!(found("email=ada").await.0, ["ada@example.com", "adam@example.com"]);
        assert_eq!(found("email=ADA@").await.0, ["ada@example.com"]);
        assert_eq!(found("email=a_").await.0, ["a_b@example.com"], "it is no pattern");
        assert_eq!(found("email=%25").await.0, [""; 0]);
        assert_eq!(found("name=ada").await.0, ["owner@example.com", "ada@example.com", "a_b@example.com"]);
        assert_eq!(found("name=%C3%84R").await.0, ["adam@example.com"]);
        assert_eq!(found("name=zz").await.0, [""; 0]);
        let (mut all, mut cursor) = found("limit=2").await;
        while !cursor.is_empty() {
            let query: &'static str = Box::leak(format!("limit=2&cursor={cursor}").into_boxed_str());
            let (more, next) = found(query).await;
            all.extend(more);
            cursor = next;
        }
        assert_eq!(all, ["bob@example.com", "a_b@example.com", "adam@example.com", "ada@example.com", "owner@example.com"]);
        let (first, cursor) = found("name=ada&limit=2").await;
        let query: &'static str = Box::leak(format!("name=ada&limit=2&cursor={cursor}").into_boxed_str());
        let (second, end) = found(query).await;
        assert_eq!((first.len(), second, end.as_str()), (2, vec!["a_b@example.com".to_owned()], ""));
        let query = format!("/v1/admin/users?email=ada&cursor={cursor}");
        assert_eq!(app.get_as(&query, &owner.access).await.status, 422, "a cursor belongs to its list");
        for wrong in ["email=a&name=b", "id=ada", "limit=0", "order=x"] {
            assert_eq!(app.get_as(&format!("/v1/admin/users?{wrong}"), &owner.access).await.status, 422, "{wrong}");
        }
        let id = app.get_as(&format!("/v1/admin/users?id={}", owner.id), &owner.access).await;
        assert_eq!(id.json["items"][0]["roles"], json!(["owner"]));
    }
}

both! {
    async fn operators_do_what_people_need(app: &TestApp) {
        let (owner, factor) = staff(app, "owner@example.com", "owner").await;
        let ada = app.person("ada@example.com").await;
        let second = Person::of(&app.login(&ada.email, PASSWORD).await);
        let path = |rest: &str| format!("/v1/admin/users/{}{rest}", ada.id);
        let changed = call(app, Method::PATCH, &path(""), &owner.access, &json!({ "display_name": "Ada L.", "metadata": { "plan": "pro" } })).await;
        assert_eq!((changed.str("/display_name").as_str(), &changed.json["metadata"]), ("Ada L.", &json!({ "plan": "pro" })), "{}", changed.text);
        let sessions = call(app, Method::GET, &path("/sessions"), &owner.access, &json!({})).await;
        assert_eq!(sessions.json["items"].as_array().unwrap().len(), 2);
        let one = path(&format!("/sessions/{}", second.session));
        assert_eq!(call(app, Method::DELETE, &one, &owner.access, &json!({})).await.status, 204);
        assert_eq!(call(app, Method::DELETE, &one, &owner.access, &json!({})).await.status, 404);
        assert_eq!(app.get_as("/v1/me", &second.access).await.str("/reason"), "revoked_by_admin");
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200);
        assert_eq!(call(app, Method::DELETE, &path("/sessions"), &owner.access, &json!({})).await.status, 204);
        assert_eq!(app.get_as("/v1/me", &ada.access).await.str("/reason"), "revoked_by_admin");
        // A new password, by mail alone.
        assert_eq!(call(app, Method::POST, &path("/force-reset"), &owner.access, &json!({})).await.status, 204);
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 422);
        app.mail(&ada.email, "password_reset", 1).await;
        // Factors go after the owner was asked.
        assert_eq!(call(app, Method::POST, &path("/reset-factors"), &owner.access, &json!({})).await.refusal(), "409 conflict");
        let bob = app.person("bob@example.com").await;
        enrol(app, &bob).await;
        let reset = format!("/v1/admin/users/{}/reset-factors", bob.id);
        let owner_again = again(app, "owner@example.com", &factor).await.access;
        assert_eq!(call(app, Method::POST, &reset, &owner_again, &json!({})).await.status, 202);
        app.mail(&bob.email, "factor_reset", 1).await;
        assert_eq!(call(app, Method::POST, &path("/unlock"), &owner_again, &json!({})).await.status, 204);
        assert_eq!(call(app, Method::POST, &path("/unsuspend"), &owner_again, &json!({})).await.status, 204);
        for (body, field) in [
            (json!({ "reason": "" }), "reason"),
            (json!({ "reason": "a\nb" }), "reason"),
            (json!({ "reason": "x", "until": "2020-01-01T00:00:00Z" }), "until"),
            (json!({ "reason": "x", "until": "soon" }), "until"),
        ] {
            let refused = call(app, Method::POST, &path("/suspend"), &owner_again, &body).await;
            assert_eq!((refused.status, refused.json["fields"][0]["field"].as_str()), (422, Some(field)), "{}", refused.text);
        }
        let nobody = "/v1/admin/users/usr_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa";
        for (method, rest) in [(Method::GET, ""), (Method::PATCH, ""), (Method::POST, "/unlock"), (Method::GET, "/sessions"), (Method::GET, "/roles"), (Method::DELETE, "/sessions")] {
            assert_eq!(call(app, method.clone(), &format!("{nobody}{rest}"), &owner_again, &json!({})).await.status, 404, "{method} {rest}");
        }
    }
}

both! {
    async fn operators_see_what_happened_and_whether_all_of_it_is_there(app: &TestApp) {
        let owner = owner(app).await;
        let ada = app.person("ada@example.com").await;
        let path = format!("/v1/admin/users/{}/suspend", ada.id);
        assert_eq!(call(app, Method::POST, &path, &owner.access, &json!({ "reason": "spam" })).await.status, 204);
        let list = |query: String| {
            let access = owner.access.clone();
            async move {
                let answer = app.get_as(&format!("/v1/admin/audit?{query}"), &access).await;
                assert_eq!(answer.status, 200, "{}", answer.text);
                answer
            }
        };
        let did = list(format!("actor={}&kind=suspended", owner.id)).await;
        let event = &did.json["items"][0];
        assert_eq!((&event["stream"], &event["details"]["reason"], &event["details"]["session"]), (&json!(ada.id), &json!("spam"), &json!(owner.session)));
        let (mut all, mut query) = (Vec::new(), format!("stream={}&limit=2", ada.id));
        loop {
            let page = list(query.clone()).await;
            all.extend(page.json["items"].as_array().unwrap().iter().map(|event| event["seq"].as_i64().unwrap()));
            match page.str("/next_cursor").as_str() {
                "" => break,
                next => query = format!("stream={}&limit=2&cursor={next}", ada.id),
            }
        }
        let count = i64::try_from(all.len()).unwrap();
        assert_eq!(all, (1..=count).rev().collect::<Vec<_>>());
        let of_another = app.get_as(&query.replace("stream=usr", "stream=ses").replacen("stream", "/v1/admin/audit?stream", 1), &owner.access).await;
        assert_eq!(of_another.status, 422, "{}", of_another.text);
        for wrong in ["since=soon", "limit=0", "order=x"] {
            assert_eq!(app.get_as(&format!("/v1/admin/audit?{wrong}"), &owner.access).await.status, 422, "{wrong}");
        }
        let checked = app.send(app.request(Method::POST, "/v1/admin/audit/verify").bearer_auth(&owner.access)).await;
        assert_eq!((&checked.json["whole"], &checked.json["broken"]), (&json!(true), &json!([])), "{}", checked.text);
        app.sql("UPDATE audit_events SET details = '{}' WHERE kind = 'suspended'").await;
        let checked = call(app, Method::POST, "/v1/admin/audit/verify", &owner.access, &json!({})).await;
        assert_eq!((&checked.json["whole"], &checked.json["broken"][0]["stream"]), (&json!(false), &json!(ada.id)), "{}", checked.text);
    }
}

both_with! { false, &production("", "");
    async fn what_is_internal_is_open_outside_for_keys_that_may(app: &TestApp) {
        let email = EmailAddress::parse("email", "boss@example.com").unwrap();
        let name = DisplayName::parse("display_name", "").unwrap();
        let password = Secret::new(PASSWORD.into());
        let founding = setup::prepare(&app.app, email, name, &password).await.unwrap();
        let SetUp::Done(boss) = setup::set_up(&app.app, None, founding, By::console().from).await.unwrap() else {
            panic!("nobody was set up");
        };
        let session = app.login("boss@example.com", PASSWORD).await.str("/session/id").parse().unwrap();
        let by = By { who: Who::Person(boss, session), ..By::console() };
        let early = NewKey { name: "x".into(), permissions: ["audit:read".into()].into(), lifetime: Duration::from_secs(60) };
        assert!(access::make_key(&app.app, by, early).await.unwrap().is_err(), "not without a second factor");
        app.sql("UPDATE sessions SET aal = 2").await;
        let key = |permission: &'static str| async move {
            let new = NewKey { name: permission.into(), permissions: [permission.into()].into(), lifetime: Duration::from_secs(86_400) };
            access::make_key(&app.app, by, new).await.unwrap().unwrap()
        };
        let ((_, feeds), (_, looks)) = (key("revocations:read").await, key("settings:read").await);
        for (path, opens, other) in [
            ("/v1/revocations", feeds.reveal(), looks.reveal()),
            ("/metrics", looks.reveal(), feeds.reveal()),
            ("/health/dependencies", looks.reveal(), feeds.reveal()),
        ] {
            let asked = |token: &str| app.client.get(format!("{}{path}", app.url)).bearer_auth(token.to_owned()).send();
            assert_eq!(app.client.get(format!("{}{path}", app.url)).send().await.unwrap().status(), 401, "{path}");
            assert_eq!(asked(other).await.unwrap().status(), 403, "{path}");
            assert_eq!(asked(opens).await.unwrap().status(), 200, "{path}");
        }
        // Whoever follows comes again after a while, with a key that is still good.
        let follow = app.client.get(format!("{}/v1/revocations", app.url)).bearer_auth(feeds.reveal());
        let followed = follow.header("accept", "text/event-stream").send().await.unwrap();
        assert_eq!(followed.status(), 200);
        app.clock.advance(Duration::from_secs(601));
        let end = tokio::time::timeout(PATIENCE, followed.text()).await;
        assert!(end.is_ok(), "it hangs up");
        // Nobody takes the mails that tell of the keys here.
        app.sql("DELETE FROM jobs WHERE kind = 'mail.deliver'").await;
    }
}
