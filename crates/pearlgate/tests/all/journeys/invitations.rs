//! People who are asked to come: by whom, with what, and what becomes of it when they do.

use std::time::Duration;

use pearlgate::access::setup;
use reqwest::Method;
use serde_json::{Value, json};

use super::access::{DENIED, NOT_FRESH, academy, again, call, operator, owner, staff};
use super::authenticator::enrol;
use super::steps::{Tab, token_of};
use crate::both;
use crate::support::{Answer, PASSWORD, Person, TestApp, together};

pub const INVITATIONS: &str = "/v1/admin/invitations";
pub const ACCEPT: &str = "/v1/auth/accept-invitation";
const ADA: &str = "ada@example.com";
const BOB: &str = "bob@example.com";
const OTHER: &str = "seven quiet orange rivers";
const DEAD: &str = "422 verification_invalid";
const CONFLICT: &str = "409 conflict";
const MINUTE: Duration = Duration::from_secs(60);

/// The owner of a server on which nobody registers, who has just signed in with a second factor.
pub async fn founder(app: &TestApp, email: &str) -> Person {
    let link = setup::link(&app.app).await.unwrap().unwrap();
    let body = json!({ "token": token_of(&link), "email": email, "password": PASSWORD });
    let made = app.post("/v1/setup", body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let person = Person::of(&app.login(email, PASSWORD).await);
    let factor = enrol(app, &person).await;
    again(app, email, &factor).await
}

pub async fn invite(app: &TestApp, access: &str, email: &str, roles: Value) -> Answer {
    call(app, Method::POST, INVITATIONS, access, &json!({ "email": email, "roles": roles })).await
}

/// Invites somebody for the `count`th time: the invitation's id, and its link.
pub async fn invited(
    app: &TestApp,
    access: &str,
    email: &str,
    roles: Value,
    count: usize,
) -> (String, String) {
    let made = invite(app, access, email, roles).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let mail = app.mail(email, "invitation", count).await;
    assert_eq!(mail.links.len(), 1, "{:?}", mail.links);
    (made.str("/id"), mail.links[0].clone())
}

pub async fn accept(app: &TestApp, link: &str) -> Answer {
    app.post(ACCEPT, json!({ "token": token_of(link), "password": PASSWORD })).await
}

async fn listed(app: &TestApp, access: &str) -> Vec<Value> {
    let found = app.get_as(INVITATIONS, access).await;
    assert_eq!(found.status, 200, "{}", found.text);
    found.json["items"].as_array().unwrap().clone()
}

async fn sessions_at(app: &TestApp, email: &str) -> i64 {
    let sql = format!(
        "SELECT COUNT(*) FROM sessions s JOIN user_emails e ON e.user_id = s.user_id WHERE e.address_key = '{email}'"
    );
    app.count(Box::leak(sql.into_boxed_str())).await
}

both! {
    async fn somebody_is_asked_and_comes_with_their_roles(app: &TestApp) {
        academy(app).await;
        let owner = owner(app).await;
        let roles = json!([{ "role": "instructor", "resource": "course/42" }, { "role": "moderator" }]);
        let made = invite(app, &owner.access, ADA, roles).await;
        assert_eq!((made.status, made.str("/email").as_str(), made.str("/invited_by")), (201, ADA, owner.id.clone()), "{}", made.text);
        let expected = json!([{ "role": "instructor", "resource": "course/42" }, { "role": "moderator", "resource": "" }]);
        assert_eq!(made.json["roles"], expected);
        assert!(made.str("/id").starts_with("inv_"));
        let week = app.clock.now() + Duration::from_secs(7 * 86_400);
        assert_eq!((made.str("/created_at"), made.str("/expires_at")), (app.clock.now().to_string(), week.to_string()));
        assert_eq!(listed(app, &owner.access).await, std::slice::from_ref(&made.json));
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 1, "nobody is here before they come");

        let mail = app.mail(ADA, "invitation", 1).await;
        let page = format!("{}/accept-invitation?token=pgw_", app.url);
        assert!(mail.code.is_empty() && mail.links.len() == 1 && mail.links[0].starts_with(&page), "{:?}", mail.links);
        assert!(mail.text.contains("7 days") && !made.text.contains("pgw_"));

        let body = json!({ "token": token_of(&mail.links[0]), "password": PASSWORD, "display_name": "Ada", "locale": "en", "device_name": "a laptop" });
        let accepted = app.post(ACCEPT, body).await;
        assert_eq!(accepted.status, 200, "{}", accepted.text);
        let ada = Person::of(&accepted);
        assert_eq!((ada.email.as_str(), &accepted.json["user"]["email_verified"]), (ADA, &json!(true)));
        let me = app.get_as("/v1/me", &ada.access).await;
        assert_eq!((&me.json["roles"], me.str("/display_name"), me.str("/locale")), (&json!(["moderator", "student"]), "Ada".to_owned(), "en".to_owned()));
        let held = app.get_as(&format!("/v1/admin/users/{}/roles", ada.id), &owner.access).await;
        let given: Vec<_> = held.json["items"].as_array().unwrap().iter()
            .map(|one| (one["role"].as_str().unwrap(), one["resource"].as_str().unwrap(), one["granted_by"].as_str().unwrap())).collect();
        assert_eq!(given, [("instructor", "course/42", owner.id.as_str()), ("moderator", "", owner.id.as_str()), ("student", "", "default")]);
        assert_eq!(app.login(ADA, PASSWORD).await.status, 200);

        assert_eq!(accept(app, &mail.links[0]).await.refusal(), DEAD, "once");
        assert!(listed(app, &owner.access).await.is_empty());
        let trail = "SELECT COUNT(*) FROM audit_events WHERE stream = 'server' AND kind = 'invitation_made'";
        assert_eq!(app.count(trail).await, 1);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind LIKE 'invitation%' AND details LIKE '%ada@%'").await, 0);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'role_granted' AND actor LIKE 'usr%'").await, 2);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'invitation_accepted' AND actor = stream").await, 1);
    }
}

both! {
    async fn the_link_opens_a_page_where_a_password_is_chosen(app: &TestApp) {
        academy(app).await;
        let owner = owner(app).await;
        let (_, link) = invited(app, &owner.access, ADA, json!([{ "role": "moderator" }]), 1).await;
        let (tab, page) = Tab::open(app, &link).await;
        assert!(page.text.contains(ADA) && page.text.contains("name=\"password\""), "{}", page.text);
        let short = tab.submit(app, "short").await;
        assert!(short.status == 422 && short.text.contains("at least 15"), "{}", short.text);
        let odd = tab.fill(app, &[("display_name", "a\nb"), ("password", PASSWORD)]).await;
        assert!(odd.status == 422 && odd.text.contains("one line"), "{}", odd.text);
        let done = tab.fill(app, &[("display_name", "Ada"), ("password", PASSWORD)]).await;
        assert!(done.status == 200 && done.text.contains("Your account is ready"), "{}", done.text);
        assert!(done.header("set-cookie").contains("Max-Age=0"));
        assert_eq!(sessions_at(app, ADA).await, 0, "it signs nobody in");
        let login = app.login(ADA, PASSWORD).await;
        assert_eq!((login.str("/user/display_name").as_str(), &login.json["user"]["roles"]), ("Ada", &json!(["moderator", "student"])));
        assert_eq!(tab.submit(app, OTHER).await.status, 422);
        assert!(!tab.look(app).await.text.contains("<form"));
    }
}

both! {
    async fn who_has_an_account_by_then_is_given_the_roles_and_nothing_else_changes(app: &TestApp) {
        academy(app).await;
        let owner = owner(app).await;
        let (_, for_ada) = invited(app, &owner.access, ADA, json!([{ "role": "moderator" }]), 1).await;
        let (_, for_bob) = invited(app, &owner.access, BOB, json!([{ "role": "instructor" }, { "role": "student" }]), 1).await;
        let (ada, bob) = (app.person(ADA).await, app.person(BOB).await);
        let before = [sessions_at(app, ADA).await, sessions_at(app, BOB).await];

        // Whatever stands in the place of a password: theirs is not looked at, and stays.
        let body = json!({ "token": token_of(&for_ada), "password": "x", "display_name": "Somebody" });
        let joined = app.post(ACCEPT, body).await;
        assert_eq!((joined.status, &joined.json), (200, &json!({ "status": "joined" })), "{}", joined.text);
        let me = app.get_as("/v1/me", &ada.access).await;
        assert_eq!((&me.json["roles"], me.str("/display_name")), (&json!(["moderator", "student"]), "Ada".to_owned()));
        assert_eq!(app.login(ADA, OTHER).await.refusal(), "401 invalid_credentials");

        let (tab, page) = Tab::open(app, &for_bob).await;
        assert!(page.text.contains("<form") && !page.text.contains("name=\"password\""), "{}", page.text);
        let pressed = tab.press(app).await;
        assert!(pressed.status == 200 && pressed.text.contains("You have accepted"), "{}", pressed.text);
        assert_eq!(app.get_as("/v1/me", &bob.access).await.json["roles"], json!(["instructor", "student"]));
        assert_eq!([sessions_at(app, ADA).await, sessions_at(app, BOB).await], before, "nobody was signed in");
        assert_eq!(app.login(BOB, PASSWORD).await.status, 200);
    }
}

both! {
    async fn nobody_asks_with_more_than_they_could_give(app: &TestApp) {
        academy(app).await;
        let owner = owner(app).await;
        let desk = json!({ "name": "desk", "level": 5, "permissions": ["invitations:read", "invitations:write"] });
        assert_eq!(call(app, Method::POST, "/v1/admin/roles", &owner.access, &desk).await.status, 201);
        let admin = operator(app, "admin@example.com", "admin").await;
        let desk = operator(app, "desk@example.com", "desk").await;
        for beyond in ["owner", "admin"] {
            assert_eq!(invite(app, &admin.access, ADA, json!([{ "role": beyond }])).await.refusal(), DENIED, "{beyond}");
        }
        assert_eq!(invite(app, &desk.access, ADA, json!([{ "role": "student" }])).await.refusal(), DENIED);
        for (roles, wrong) in [
            (json!([{ "role": "nobody" }]), "roles:invalid"),
            (json!([{ "role": "student", "resource": "../x" }]), "roles:invalid"),
            (json!(vec![json!({ "role": "student" }); 21]), "roles:invalid"),
        ] {
            assert_eq!(invite(app, &admin.access, ADA, roles.clone()).await.fields(), [wrong], "{roles}");
        }
        assert_eq!(invite(app, &admin.access, "ada", json!([])).await.fields(), ["email:email_invalid"]);
        assert_eq!(app.count("SELECT COUNT(*) FROM invitations").await, 0);

        let (id, link) = invited(app, &admin.access, ADA, json!([{ "role": "instructor" }]), 1).await;
        assert_eq!(invite(app, &admin.access, ADA, json!([])).await.refusal(), CONFLICT, "one is open");
        assert_eq!(invite(app, &admin.access, "desk@example.com", json!([])).await.refusal(), CONFLICT, "who is here is given the role");
        app.clock.advance(Duration::from_secs(1));
        let (_, plain) = invited(app, &desk.access, BOB, json!([]), 1).await;
        let newest: Vec<Value> = listed(app, &desk.access).await.iter().map(|one| one["email"].clone()).collect();
        assert_eq!(newest, [BOB, ADA]);
        let first = app.get_as(&format!("{INVITATIONS}?limit=1"), &desk.access).await;
        let next = app.get_as(&format!("{INVITATIONS}?limit=1&cursor={}", first.str("/next_cursor")), &desk.access).await;
        assert_eq!((next.str("/items/0/email").as_str(), next.str("/next_cursor").as_str()), (ADA, ""));

        // Taken back by whoever could have given it.
        let path = format!("{INVITATIONS}/{id}");
        assert_eq!(call(app, Method::DELETE, &path, &desk.access, &json!({})).await.refusal(), DENIED);
        assert_eq!(call(app, Method::DELETE, &path, &admin.access, &json!({})).await.status, 204);
        assert_eq!(call(app, Method::DELETE, &path, &admin.access, &json!({})).await.status, 404);
        assert_eq!(accept(app, &link).await.refusal(), DEAD);
        assert_eq!(accept(app, &plain).await.status, 200);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'invitation_revoked' AND stream = 'server'").await, 1);
        // As many as a mailbox may have of them, and no more.
        for count in 2..=3 {
            let (id, _) = invited(app, &admin.access, ADA, json!([]), count).await;
            let path = format!("{INVITATIONS}/{id}");
            assert_eq!(call(app, Method::DELETE, &path, &admin.access, &json!({})).await.status, 204);
        }
        let over = invite(app, &admin.access, ADA, json!([])).await;
        assert!(over.refusal() == CONFLICT && over.text.contains("as many mails"), "{}", over.text);
    }
}

both! {
    async fn asking_needs_somebody_who_is_there_and_happens_once(app: &TestApp) {
        let (owner, factor) = staff(app, "owner@example.com", "owner").await;
        let with_key = |access: String, email: &'static str| {
            let request = app.request(Method::POST, INVITATIONS).bearer_auth(access).header("idempotency-key", "k1");
            app.send(request.json(&json!({ "email": email })))
        };
        let (one, two) = (with_key(owner.access.clone(), ADA).await, with_key(owner.access.clone(), ADA).await);
        assert_eq!((one.status, two.status, &one.json), (201, 201, &two.json), "{}", one.text);
        assert_eq!(with_key(owner.access.clone(), BOB).await.refusal(), "422 idempotency_key_reused");
        app.quiet().await;
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(Some(ADA), Some("invitation")).len(), 1);
        app.clock.advance(11 * MINUTE);
        let stale = Person::of(&app.refresh(&owner.refresh).await);
        assert_eq!(invite(app, &stale.access, BOB, json!([])).await.refusal(), NOT_FRESH);
        let fresh = again(app, "owner@example.com", &factor).await;
        assert_eq!(invite(app, &fresh.access, BOB, json!([])).await.status, 201);
        // A machine asks, too, and stands in for whoever made its key.
        let key = json!({ "name": "shop", "permissions": ["invitations:read", "invitations:write"] });
        let key = call(app, Method::POST, "/v1/admin/api-keys", &fresh.access, &key).await.str("/key");
        let (_, link) = invited(app, &key, "cleo@example.com", json!([]), 1).await;
        let made = listed(app, &key).await;
        let cleos = made.iter().find(|one| one["email"] == "cleo@example.com").unwrap();
        assert!(cleos["invited_by"].as_str().unwrap().starts_with("key_"), "{made:?}");
        assert_eq!(accept(app, &link).await.status, 200);
    }
}

both! {
    async fn one_whose_time_is_over_is_replaced_and_swept(app: &TestApp) {
        let (owner, factor) = staff(app, "owner@example.com", "owner").await;
        let (_, old) = invited(app, &owner.access, ADA, json!([]), 1).await;
        let over = format!("UPDATE invitations SET expires_at = {}", app.clock.now().micros());
        app.sql(&over).await;
        assert!(listed(app, &owner.access).await.is_empty());
        let (_, new) = invited(app, &owner.access, ADA, json!([]), 2).await;
        assert_eq!(app.count("SELECT COUNT(*) FROM invitations").await, 1);
        assert_eq!(accept(app, &old).await.refusal(), DEAD);
        assert_eq!(accept(app, &new).await.status, 200);
        let owner = again(app, "owner@example.com", &factor).await;
        invited(app, &owner.access, BOB, json!([]), 1).await;
        app.sql(&over).await;
        app.clock.advance(11 * MINUTE);
        app.until("it is swept", || async { app.count("SELECT COUNT(*) FROM invitations").await == 0 }).await;
    }
}

both! {
    async fn of_many_who_accept_one_does(app: &TestApp) {
        let owner = owner(app).await;
        let (_, link) = invited(app, &owner.access, ADA, json!([]), 1).await;
        let answers = together((0..8).map(|_| accept(app, &link)).collect()).await;
        let said: Vec<String> = answers.iter().map(Answer::refusal).collect();
        assert_eq!(said.iter().filter(|one| *one == "200 -").count(), 1, "{said:?}");
        assert!(said.iter().all(|one| one == "200 -" || one == DEAD), "{said:?}");
        assert_eq!((app.count("SELECT COUNT(*) FROM users").await, sessions_at(app, ADA).await), (2, 1));
    }
}
