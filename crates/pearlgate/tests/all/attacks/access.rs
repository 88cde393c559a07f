use std::collections::{BTreeMap, BTreeSet};

use pearlgate::access::{self, By, OWNER, setup};
use pearlgate::accounts;
use pearlgate::router::{Guard, Route, doors};
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{ask, post};
use crate::both;
use crate::journeys::access::{DENIED, academy, again, call, give, operator, owner, staff};
use crate::journeys::authenticator::{enrol, half};
use crate::journeys::passkeys;
use crate::support::soft_key::SoftKey;
use crate::support::{Answer, PASSWORD, Person, TestApp, together};

/// Nobody has this id.
const NOBODY: &str = "usr_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa";

/// A request to a route with ids that name nothing.
async fn knock(app: &TestApp, route: &Route, token: &str, id: &str) -> Answer {
    let parts = route.path.split('/').map(|part| if part.starts_with('{') { id } else { part });
    let request = app.request(route.method.clone(), &parts.collect::<Vec<_>>().join("/"));
    let request = if token.is_empty() { request } else { request.bearer_auth(token) };
    let bare = route.method == Method::GET || route.method == Method::DELETE;
    ask(app, if bare { request } else { request.json(&json!({ "no such field": 1 })) }).await
}

/// What each role may do everywhere, as the server itself says.
async fn held(app: &TestApp) -> BTreeMap<String, BTreeSet<String>> {
    let roles = access::roles(&app.app).await.unwrap();
    let of =
        |role: access::Described| (role.row.name, role.effects.into_iter().map(|(one, _)| one).collect());
    roles.into_iter().map(of).collect()
}

fn covers(held: &BTreeSet<String>, permission: &str) -> bool {
    let area = permission.split(':').next().unwrap();
    held.contains(permission) || held.contains(&format!("{area}:*")) || held.contains("*")
}

both! {
    async fn every_route_answers_every_actor_as_its_guard_says(app: &TestApp) {
        academy(app).await;
        let held = held(app).await;
        // Who comes, what they show, and what they hold.
        let nothing = BTreeSet::new();
        let mut actors: Vec<(String, String, &BTreeSet<String>, Option<&str>)> = vec![
            ("anonymous".into(), String::new(), &nothing, Some("401 not_authenticated")),
            ("garbage".into(), "eyJhbGciOiJub25lIn0.e30.".into(), &nothing, Some("401 token_invalid")),
        ];
        let two = app.person("two@example.com").await;
        enrol(app, &two).await;
        let waiting = half(app, "two@example.com", PASSWORD).await;
        actors.push(("half login".into(), waiting, &nothing, Some("401 token_invalid")));
        let (gone, _) = staff(app, "gone@example.com", "admin").await;
        accounts::suspend(&app.app, gone.id.parse().unwrap(), "x").await.unwrap().unwrap();
        actors.push(("suspended".into(), gone.access, &nothing, Some("401 session_ended")));
        actors.push(("user".into(), app.person("user@example.com").await.access, &nothing, None));
        for role in ["student", "instructor", "moderator", "admin", OWNER] {
            let (person, _) = staff(app, &format!("{role}@example.com"), role).await;
            actors.push((role.to_owned(), person.access, &held[role], None));
        }
        // The same rights, without a second factor, and for one thing alone.
        let weak = app.person("weak@example.com").await;
        give(app, &weak, "admin", "").await;
        actors.push(("admin without a factor".into(), weak.access, &held["admin"], Some("403 mfa_required")));
        let (scoped, _) = staff(app, "scoped@example.com", "student").await;
        give(app, &scoped, "admin", "course/*").await;
        actors.push(("admin of courses".into(), scoped.access, &held["student"], None));
        let maker = operator(app, "maker@example.com", "admin").await;
        let key = json!({ "name": "k", "permissions": ["users:read", "audit:read"] });
        let key = call(app, Method::POST, "/v1/admin/api-keys", &maker.access, &key).await.str("/key");
        let of_key = BTreeSet::from(["users:read".to_owned(), "audit:read".to_owned()]);
        actors.push(("key".into(), key, &of_key, None));
        // Whoever is somebody else for a while is no operator, whatever either of them may.
        let helped = app.person("helped@example.com").await;
        give(app, &helped, "moderator", "").await;
        let boss = actors.iter().find(|actor| actor.0 == OWNER).unwrap().1.clone();
        let path = format!("/v1/admin/users/{}/impersonate", helped.id);
        let as_another = call(app, Method::POST, &path, &boss, &json!({ "reason": "x" })).await.str("/access_token");
        actors.push(("an owner as a moderator".into(), as_another, &held["moderator"], Some("403 mfa_required")));

        let routes = doors(&app.app).routes;
        let operators: Vec<&Route> = routes.iter().filter(|route| matches!(route.guard, Guard::Operator(_))).collect();
        assert!(operators.len() >= 20, "{operators:?}");
        for (actor, token, held, refusal) in &actors {
            for route in &operators {
                let Guard::Operator(permission) = route.guard else { continue };
                let answer = knock(app, route, token, NOBODY).await;
                let said = answer.refusal();
                let what = format!("{actor}: {} {} said {said}: {}", route.method, route.path, answer.text);
                match refusal {
                    Some("403 mfa_required") if !covers(held, permission) => assert_eq!(said, DENIED, "{what}"),
                    Some(refusal) => assert_eq!(said, *refusal, "{what}"),
                    None if covers(held, permission) => {
                        assert!(![401, 403].contains(&answer.status) && answer.status < 500, "{what}");
                    }
                    // Before ids and body are looked at.
                    None => assert_eq!(said, DENIED, "{what}"),
                }
            }
            // Doors that belong to whoever is signed in are nobody else's, and no machine's.
            for route in routes.iter().filter(|route| route.guard == Guard::SignedIn) {
                let expected = match (actor.as_str(), refusal) {
                    ("key", _) => "401 token_invalid",
                    (_, Some(refusal)) if refusal.starts_with("401") => refusal,
                    _ => continue,
                };
                let answer = knock(app, route, token, NOBODY).await;
                assert_eq!(answer.refusal(), expected, "{actor}: {} {}", route.method, route.path);
            }
            for route in routes.iter().filter(|route| route.guard == Guard::Caller) {
                let said = knock(app, route, token, NOBODY).await.refusal();
                let expected = refusal.filter(|refusal| refusal.starts_with("401")).unwrap_or("422 validation_failed");
                assert_eq!(said, expected, "{actor}: {} {}", route.method, route.path);
            }
        }
        // The guards are as many as there are, so that a new one gets a line here.
        for route in &routes {
            match route.guard {
                Guard::Open | Guard::SignedIn | Guard::Operator(_) | Guard::Caller | Guard::InternalOr(_) | Guard::Internal | Guard::Dev => {}
            }
            let operators = route.path.starts_with("/v1/admin");
            assert_eq!(operators, matches!(route.guard, Guard::Operator(_)), "{} {}", route.method, route.path);
        }
    }
}

both! {
    async fn a02_cve_2026_27946_nobody_verifies_themselves(app: &TestApp) {
        let id = app.register("new@ex.test").await.str("/verification_id");
        let ada = app.person("ada@ex.test").await;
        let before = app.get_as("/v1/me", &ada.access).await;
        let wanted = [
            ("email", json!("boss@ex.test")), ("email_verified", json!(true)), ("phone_verified", json!(true)), ("status", json!("active")),
            ("aal", json!(2)), ("password_hash", json!("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo")), ("roles", json!(["owner"])),
            ("role", json!("owner")), ("mfa_enabled", json!(false)), ("id", json!(NOBODY)), ("created_at", json!("2020-01-01T00:00:00Z")),
            ("user_id", json!(NOBODY)), ("suspension", json!(null)), ("level", json!(100)), ("$set", json!({ "email_verified": true })),
        ];
        for (field, value) in &wanted {
            let body = json!({ "display_name": "Ada", *field: value });
            let refused = call(app, Method::PATCH, "/v1/me", &ada.access, &body).await;
            assert_eq!(refused.fields(), [format!("{field}:unknown_field")], "{}", refused.text);
        }
        // Other ways to say it.
        for (kind, body) in [
            ("application/merge-patch+json", r#"{"email_verified":true}"#),
            ("application/json-patch+json", r#"[{"op":"replace","path":"/email_verified","value":true}]"#),
            ("application/x-www-form-urlencoded", "email_verified=true"),
        ] {
            let request = app.request(Method::PATCH, "/v1/me").bearer_auth(&ada.access).header("content-type", kind).body(body);
            assert_eq!(ask(app, request).await.status, 415, "{kind}");
        }
        let list = app.request(Method::PATCH, "/v1/me").bearer_auth(&ada.access).json(&json!([{ "email_verified": true }]));
        assert!([400, 422].contains(&ask(app, list).await.status));
        for method in [Method::PUT, Method::POST] {
            let request = app.request(method, "/v1/me").bearer_auth(&ada.access).json(&json!({ "email_verified": true }));
            assert_eq!(ask(app, request).await.status, 405);
        }
        assert_eq!(app.get_as("/v1/me?email_verified=true&roles=owner", &ada.access).await.json, before.json);
        // What is the application's own says nothing about the account.
        let metadata = json!({ "metadata": { "email_verified": true, "roles": ["owner"], "aal": 2 } });
        assert_eq!(call(app, Method::PATCH, "/v1/me", &ada.access, &metadata).await.status, 200);
        let me = app.get_as("/v1/me", &ada.access).await;
        assert_eq!((&me.json["roles"], &me.json["email"]), (&before.json["roles"], &before.json["email"]));
        assert_eq!(app.get_as("/v1/admin/users", &ada.access).await.refusal(), DENIED);
        // Whoever has not proven their address does not by saying so.
        let verify = json!({ "verification_id": id, "code": "000000", "email_verified": true });
        assert_eq!(post(app, "/v1/auth/verify-email", &verify).await.status, 422);
        assert_eq!(app.count("SELECT COUNT(*) FROM verified_emails").await, 1);
        // Nor does an operator give somebody what is theirs to prove.
        let owner = owner(app).await;
        for (field, value) in &wanted {
            let body = json!({ *field: value });
            let refused = call(app, Method::PATCH, &format!("/v1/admin/users/{}", ada.id), &owner.access, &body).await;
            assert_eq!(refused.fields(), [format!("{field}:unknown_field")], "{}", refused.text);
        }
    }
}

both! {
    async fn a04_cve_2023_46249_the_first_operator_is_set_up_once_for_ever(app: &TestApp) {
        let body = |token: &str, n: usize| json!({ "token": token, "email": format!("boss{n}@ex.test"), "password": PASSWORD });
        // Without a link, with guessed ones, with one whose time is over, with one that a newer one replaced.
        let old = setup::link(&app.app).await.unwrap().unwrap();
        let token = |link: &str| link.split_once("token=").unwrap().1.to_owned();
        let new = setup::link(&app.app).await.unwrap().unwrap();
        for guess in ["", "admin", "pgf_", &format!("pgf_{}", "A".repeat(43)), &token(&old)] {
            assert_eq!(post(app, "/v1/setup", &body(guess, 0)).await.refusal(), "401 token_invalid", "{guess:?}");
        }
        for more in [json!({ "role": "owner" }), json!({ "user_id": NOBODY })] {
            let mut wrong = body(&token(&new), 0);
            wrong.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(post(app, "/v1/setup", &wrong).await.status, 422);
        }
        app.clock.advance(setup::LIFETIME);
        assert_eq!(post(app, "/v1/setup", &body(&token(&new), 0)).await.refusal(), "401 token_invalid");
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 0, "no default account, whatever its password");
        // A password of the usual rules.
        let link = setup::link(&app.app).await.unwrap().unwrap();
        let weak = json!({ "token": token(&link), "email": "boss@ex.test", "password": "password" });
        assert_eq!(post(app, "/v1/setup", &weak).await.status, 422);
        // Twenty at a time: one wins.
        let link = token(&link);
        let bodies: Vec<Value> = (0..20).map(|n| body(&link, n)).collect();
        let answers = together(bodies.iter().map(|body| post(app, "/v1/setup", body)).collect()).await;
        let won: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 201).collect();
        assert_eq!(won.len(), 1, "{:?}", answers.iter().map(Answer::refusal).collect::<Vec<_>>());
        assert!(answers.iter().all(|answer| [201, 401, 409].contains(&answer.status)));
        assert_eq!(app.count("SELECT COUNT(*) FROM user_roles WHERE role = 'owner'").await, 1);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'first_operator'").await, 1);
        // Done is done: whatever becomes of them, and whatever is asked.
        assert!(setup::link(&app.app).await.unwrap().is_none());
        assert_eq!(post(app, "/v1/setup", &body(&link, 0)).await.refusal(), "409 conflict");
        app.sql("INSERT INTO suspensions (user_id, reason, suspended_at) SELECT id, 'x', 1 FROM users").await;
        assert!(setup::link(&app.app).await.unwrap().is_none());
        app.sql("DELETE FROM users").await;
        assert!(setup::link(&app.app).await.unwrap().is_none());
        let page = ask(app, app.request(Method::GET, &format!("/setup?token={link}"))).await;
        assert_eq!(page.status, 303);
        assert_eq!(post(app, "/v1/setup", &body(&link, 0)).await.refusal(), "409 conflict");
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 0);
    }
}

both! {
    async fn a78_cve_2017_18878_somebody_elses_sessions_and_keys(app: &TestApp) {
        let victim = app.person("victim@ex.test").await;
        let mut key = SoftKey::p256();
        let (passkey, _) = passkeys::add(app, &victim.access, &mut key).await;
        let thief = app.person("thief@ex.test").await;
        let hers = [victim.session.as_str(), &passkey, &victim.id];
        let others = ["ses_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa", "psk_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa", NOBODY, "1", "%2e%2e", "ses_"];
        let state = "SELECT (SELECT COUNT(*) FROM sessions) * 10000 + (SELECT COUNT(*) FROM passkeys) * 100 + (SELECT COUNT(*) FROM audit_events)";
        let before = app.count(state).await;
        // Every route that names something, with every id that is about.
        let routes: Vec<Route> = doors(&app.app).routes.into_iter()
            .filter(|route| route.guard == Guard::SignedIn && route.path.contains("{id}")).collect();
        assert!(routes.len() >= 3, "{routes:?}");
        for route in &routes {
            let mut said = BTreeSet::new();
            for id in hers.iter().chain(&others) {
                let path = route.path.replace("{id}", id);
                let request = app.request(route.method.clone(), &path).bearer_auth(&thief.access);
                let body = json!({ "name": "mine" });
                let answer = ask(app, if route.method == Method::DELETE { request } else { request.json(&body) }).await;
                assert_eq!(answer.status, 404, "{} {path}: {}", route.method, answer.text);
                said.insert(without_request(&answer));
            }
            assert_eq!(said.len(), 1, "hers and nobody's are told apart: {said:?}");
        }
        // Named elsewhere: in the query, in a header, in the body.
        for (method, path, body) in [
            (Method::GET, format!("/v1/me/sessions?user_id={}", victim.id), json!({})),
            (Method::GET, format!("/v1/me/passkeys?user={}", victim.id), json!({})),
            (Method::GET, format!("/v1/me/activity?stream={}", victim.id), json!({})),
            (Method::PATCH, "/v1/me".into(), json!({ "id": victim.id })),
            (Method::DELETE, format!("/v1/me/sessions?id={}", victim.session), json!({})),
        ] {
            let answer = call(app, method.clone(), &path, &thief.access, &body).await;
            assert!(!answer.text.contains(&victim.id) && !answer.text.contains(&passkey), "{method} {path}: {}", answer.text);
        }
        let request = app.request(Method::GET, "/v1/me").bearer_auth(&thief.access).header("x-user-id", &victim.id).header("x-forwarded-user", &victim.id);
        assert_eq!(ask(app, request).await.str("/id"), thief.id);
        assert_eq!(call(app, Method::POST, "/v1/authorize", &thief.access, &json!({ "subject": victim.id, "permission": "a:b" })).await.refusal(), DENIED);
        assert_eq!(app.count(state).await, before, "nothing was changed");
        assert_eq!(app.get_as("/v1/me", &victim.access).await.status, 200, "the trap");
        // Not yet: invitations, exports.
    }
}

fn without_request(answer: &Answer) -> String {
    let mut json = answer.json.clone();
    if let Some(document) = json.as_object_mut() {
        document.remove("request_id");
    }
    format!("{} {json}", answer.status)
}

async fn roles(app: &TestApp, by: &Person, of: &str, roles: Value) -> Answer {
    call(app, Method::PUT, &format!("/v1/admin/users/{of}/roles"), &by.access, &json!({ "roles": roles }))
        .await
}

both! {
    async fn a80_cve_2026_55077_nobody_reaches_above_their_own_level(app: &TestApp) {
        academy(app).await;
        let owner = owner(app).await;
        let manager = json!({ "name": "manager", "level": 30, "permissions": ["users:read", "users:write", "roles:read", "roles:write", "api_keys:write"] });
        let made = call(app, Method::POST, "/v1/admin/roles", &owner.access, &manager).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let (manager_role, roles_of) = (made.str("/id"), app.get_as("/v1/admin/roles", &owner.access).await);
        let role = |name: &str| roles_of.json["items"].as_array().unwrap().iter().find(|role| role["name"] == name).unwrap()["id"].as_str().unwrap().to_owned();
        let (boss, factor) = staff(app, "manager@ex.test", "manager").await;
        let peer = operator(app, "peer@ex.test", "manager").await;
        let admin = operator(app, "admin@ex.test", "admin").await;
        let ada = app.person("ada@ex.test").await;
        let grants = "SELECT COUNT(*) FROM user_roles";
        let before = app.count(grants).await;

        // Roles that are too high, to anybody; any role, to oneself; any, to whoever stands as high.
        for (whom, given) in [
            (&ada.id, "owner"), (&ada.id, "admin"), (&ada.id, "manager"), (&boss.id, "student"), (&boss.id, "owner"), (&boss.id, "instructor"),
            (&peer.id, "student"), (&admin.id, "student"), (&owner.id, "student"),
        ] {
            for place in [json!({ "role": given }), json!({ "role": given, "resource": "course/*" })] {
                let all = json!([{ "role": "student" }, place]);
                let refused = roles(app, &boss, whom, all).await;
                assert!(refused.refusal() == DENIED || refused.status == 422 || (refused.status == 200 && whom == &ada.id && given == "student"), "{given} to {whom}: {}", refused.text);
            }
        }
        for (whom, name) in [(&admin, "admin"), (&owner, "owner"), (&peer, "manager")] {
            assert_eq!(roles(app, &boss, &whom.id, json!([])).await.refusal(), DENIED, "{name}");
        }
        assert_eq!(roles(app, &boss, &ada.id, json!([{ "role": "owner", "resource": "course/1" }])).await.refusal(), DENIED);

        // Everything else that is done to people.
        for whom in [&peer, &admin, &owner, &boss] {
            for (method, rest, body) in [
                (Method::PATCH, "", json!({ "display_name": "x" })), (Method::POST, "/suspend", json!({ "reason": "x" })), (Method::POST, "/unsuspend", json!({})),
                (Method::DELETE, "", json!({})), (Method::POST, "/restore", json!({})), (Method::POST, "/impersonate", json!({ "reason": "x" })),
                (Method::POST, "/unlock", json!({})), (Method::POST, "/force-reset", json!({})), (Method::POST, "/reset-factors", json!({})),
                (Method::DELETE, "/sessions", json!({})),
            ] {
                let refused = call(app, method, &format!("/v1/admin/users/{}{rest}", whom.id), &boss.access, &body).await;
                assert_eq!(refused.refusal(), DENIED, "{rest} {}", whom.email);
            }
            let one = format!("/v1/admin/users/{}/sessions/{}", whom.id, whom.session);
            assert_eq!(call(app, Method::DELETE, &one, &boss.access, &json!({})).await.refusal(), DENIED);
        }

        // What roles are: higher ones, one's own, new ones that may more than oneself, lower ones that come to.
        for (method, path, body) in [
            (Method::PATCH, format!("/v1/admin/roles/{}", role("admin")), json!({ "permissions": [] })),
            (Method::DELETE, format!("/v1/admin/roles/{}", role("admin")), json!({})),
            (Method::PATCH, format!("/v1/admin/roles/{manager_role}"), json!({ "permissions": ["users:read", "audit:read"] })),
            (Method::PATCH, format!("/v1/admin/roles/{manager_role}"), json!({ "level": 99 })),
            (Method::POST, "/v1/admin/roles".into(), json!({ "name": "high", "level": 30 })),
            (Method::POST, "/v1/admin/roles".into(), json!({ "name": "wide", "level": 1, "permissions": ["audit:read"] })),
            (Method::POST, "/v1/admin/roles".into(), json!({ "name": "all", "level": 1, "permissions": ["*"] })),
            (Method::POST, "/v1/admin/roles".into(), json!({ "name": "more", "level": 1, "permissions": ["users:*"] })),
            (Method::PATCH, format!("/v1/admin/roles/{}", role("instructor")), json!({ "permissions": ["jobs:write"] })),
            (Method::PATCH, format!("/v1/admin/roles/{}", role("moderator")), json!({ "level": 30 })),
        ] {
            let refused = call(app, method.clone(), &path, &boss.access, &body).await;
            assert_eq!(refused.refusal(), DENIED, "{method} {path} {body}: {}", refused.text);
        }
        let through = json!({ "name": "through", "level": 20, "inherits": ["admin"] });
        assert_eq!(call(app, Method::POST, "/v1/admin/roles", &boss.access, &through).await.status, 422, "lower than what it inherits from");
        for untouchable in [json!({ "permissions": [] }), json!({ "level": 0 }), json!({ "description": "x" })] {
            let path = format!("/v1/admin/roles/{}", role("owner"));
            assert_eq!(call(app, Method::PATCH, &path, &owner.access, &untouchable).await.refusal(), "409 conflict", "not even by owners");
        }
        assert_eq!(call(app, Method::DELETE, &format!("/v1/admin/roles/{}", role("owner")), &owner.access, &json!({})).await.refusal(), "409 conflict");
        assert_eq!(app.count(grants).await, before, "nothing came of any of it");

        // The trap: what is below is theirs.
        assert_eq!(roles(app, &boss, &ada.id, json!([{ "role": "student" }, { "role": "instructor" }])).await.status, 200);

        // The last owner stays, whoever asks, however many ask.
        assert_eq!(roles(app, &owner, &owner.id, json!([])).await.refusal(), "409 conflict");
        let suspend = format!("/v1/admin/users/{}/suspend", owner.id);
        assert_eq!(call(app, Method::POST, &suspend, &owner.access, &json!({ "reason": "x" })).await.refusal(), "409 conflict");
        let other = operator(app, "other@ex.test", "owner").await;
        let fresh = again(app, "manager@ex.test", &factor).await;
        for _ in 0..3 {
            // Each takes the other's role away, and a third gives meanwhile what they are about to lose.
            let (one, two, three) = tokio::join!(
                roles(app, &owner, &other.id, json!([])),
                roles(app, &other, &owner.id, json!([])),
                roles(app, &fresh, &ada.id, json!([{ "role": "student" }]))
            );
            assert!(three.status == 200, "{}", three.text);
            let won = [&one, &two].into_iter().filter(|answer| answer.status == 200).count();
            assert_eq!((won, app.count("SELECT COUNT(*) FROM user_roles WHERE role = 'owner'").await), (1, 1), "{} {}", one.text, two.text);
            for person in [&owner, &other] {
                give(app, person, "owner", "").await;
            }
        }
        // Whoever loses their rights has lost them for what is under way: decided where it is written.
        access::change(&app.app, By::console(), boss.id.parse().unwrap(), access::Change::Take(("manager".into(), String::new()))).await.unwrap().unwrap();
        assert_eq!(roles(app, &boss, &ada.id, json!([])).await.refusal(), DENIED);
        // Not yet: impersonation, invitations.
    }
}
