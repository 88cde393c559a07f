//! Invitations in the wrong hands, at the wrong time, and from people who may not invite any more.

use pearlgate::access::{self, By, Change};
use reqwest::Method;
use serde_json::{Value, json};

use super::mailed::{DEAD, NEW, RESET_DEAD, forgot, link_token};
use super::support::{OTHER, ask, post, token_of};
use crate::both;
use crate::journeys::access::{academy, call, give, staff};
use crate::journeys::invitations::{ACCEPT, INVITATIONS, invited};
use crate::support::{Answer, PASSWORD, Person, TestApp, together};

const HELD: &str =
    "SELECT COUNT(*) FROM user_roles WHERE role IN ('instructor', 'moderator') AND granted_by <> 'console'";

async fn accept(app: &TestApp, token: &str) -> Answer {
    post(app, ACCEPT, &json!({ "token": token, "password": PASSWORD })).await
}

async fn people_at(app: &TestApp, email: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM user_emails WHERE address_key = '{email}'");
    app.count(Box::leak(sql.into_boxed_str())).await
}

/// Takes a role away from somebody, as whoever sits at the server does.
async fn take(app: &TestApp, person: &Person, role: &str) {
    let change = Change::Take((role.to_owned(), String::new()));
    access::change(&app.app, By::console(), person.id.parse().unwrap(), change).await.unwrap().unwrap();
}

async fn suspend(app: &TestApp, person: &Person) {
    let whom = format!("SELECT user_id, 'x', 1 FROM user_emails WHERE address_key = '{}'", person.email);
    app.sql(&format!("INSERT INTO suspensions (user_id, reason, suspended_at) {whom}")).await;
}

both! {
    async fn a76_cve_2026_34389_an_invitation_is_one_addresss_and_its_inviters(app: &TestApp) {
        academy(app).await;
        let (owner, _) = staff(app, "owner@ex.test", "owner").await;
        let (boss, _) = staff(app, "boss@ex.test", "admin").await;
        let mallory = app.person("mallory@ex.test").await;

        // For another address, with other roles, as somebody else: the body names none of it.
        let (_, link) = invited(app, &boss.access, "v@ex.test", json!([{ "role": "instructor" }]), 1).await;
        let token = token_of(&link);
        for (field, value) in [
            ("email", json!("mallory@ex.test")), ("address", json!("mallory@ex.test")), ("user_id", json!(mallory.id)), ("roles", json!([{ "role": "owner" }])),
            ("role", json!("owner")), ("Roles", json!(["owner"])), ("invited_by", json!(owner.id)), ("email_verified", json!(true)), ("level", json!(100)), ("metadata", json!({})),
        ] {
            let body = json!({ "token": token, "password": PASSWORD, field: value });
            assert_eq!(post(app, ACCEPT, &body).await.fields(), [format!("{field}:unknown_field")]);
        }
        assert_eq!((people_at(app, "v@ex.test").await, app.count("SELECT COUNT(*) FROM invitations").await), (0, 1), "it waits");

        // As a token of another kind, and the other way round.
        for (path, body, refusal) in [
            ("/v1/auth/reset-password", json!({ "token": token, "password": OTHER }), RESET_DEAD),
            ("/v1/auth/verify-email", json!({ "token": token, "password": OTHER }), DEAD),
            ("/v1/auth/magic-link/consume", json!({ "token": token }), DEAD),
            ("/v1/auth/oauth/exchange", json!({ "code": token }), DEAD),
            ("/v1/setup", json!({ "token": token, "email": "v@ex.test", "password": OTHER }), "401 token_invalid"),
        ] {
            assert_eq!(post(app, path, &body).await.refusal(), refusal, "{path}");
        }
        let reset = link_token(&forgot(app, &mallory.email, 1).await);
        app.register("late@ex.test").await;
        let verify = link_token(&app.mail("late@ex.test", "verify_email", 1).await);
        for other in [reset, verify, mallory.access.clone(), mallory.refresh.clone(), "pgw_".to_owned(), format!("pgw_{}", "A".repeat(43)), String::new()] {
            assert_eq!(accept(app, &other).await.refusal(), DEAD, "{other}");
        }

        // Somebody prepared an account at the address, and somebody else is signed in while the owner accepts.
        let planted = json!({ "email": "v@ex.test", "password": OTHER, "display_name": "Mallory" });
        assert_eq!(post(app, "/v1/auth/register", &planted).await.status, 202);
        let waiting = link_token(&app.mail("v@ex.test", "verify_email", 1).await);
        let request = app.request(Method::POST, ACCEPT).bearer_auth(&mallory.access);
        let entered = ask(app, request.json(&json!({ "token": token, "password": PASSWORD }))).await;
        assert_eq!((entered.status, entered.str("/user/email").as_str(), &entered.json["user"]["roles"]), (200, "v@ex.test", &json!(["instructor", "student"])), "{}", entered.text);
        assert_eq!(app.login("v@ex.test", OTHER).await.refusal(), "401 invalid_credentials");
        assert_eq!(post(app, "/v1/auth/verify-email", &json!({ "token": waiting, "password": NEW })).await.refusal(), DEAD);
        assert_eq!(entered.str("/user/display_name"), "", "nor does a stranger's name stay");
        let hers = ask(app, app.request(Method::GET, "/v1/me").bearer_auth(&mallory.access)).await;
        assert_eq!((hers.str("/id"), &hers.json["roles"]), (mallory.id.clone(), &json!(["student"])));

        // Twice, and many at a time.
        assert_eq!(accept(app, &token).await.refusal(), DEAD);
        let (_, link) = invited(app, &boss.access, "w@ex.test", json!([]), 1).await;
        let token = token_of(&link);
        let answers = together((0..6).map(|_| accept(app, &token)).collect()).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "{answers:?}");

        // Its time is over, though nobody has swept; and taken back.
        let (_, link) = invited(app, &boss.access, "x@ex.test", json!([]), 1).await;
        app.sql(&format!("UPDATE invitations SET expires_at = {}", app.clock.now().micros())).await;
        assert_eq!(accept(app, &token_of(&link)).await.refusal(), DEAD);
        assert_eq!((app.count("SELECT COUNT(*) FROM invitations").await, people_at(app, "x@ex.test").await), (1, 0), "it is still there");
        let (id, link) = invited(app, &boss.access, "y@ex.test", json!([]), 1).await;
        let request = app.request(Method::DELETE, &format!("{INVITATIONS}/{id}")).bearer_auth(&boss.access);
        assert_eq!(ask(app, request).await.status, 204);
        assert_eq!(accept(app, &token_of(&link)).await.refusal(), DEAD);
        assert_eq!(people_at(app, "y@ex.test").await, 0);
    }
}

/// What becomes of whoever invited.
#[derive(Debug, Clone, Copy)]
enum Lost {
    Nothing,
    Suspended,
    Role,
    MayInviteNoMore,
    CannotGiveIt,
    Gone,
    Key,
    MakerOfKey,
}

both! {
    async fn an_invitation_is_worth_what_its_inviter_may_when_it_is_accepted(app: &TestApp) {
        academy(app).await;
        let host = json!({ "name": "host", "level": 15, "permissions": ["invitations:read", "invitations:write", "roles:write", "users:read", "api_keys:write"] });
        let (owner, _) = staff(app, "owner@ex.test", "owner").await;
        let made = call(app, Method::POST, "/v1/admin/roles", &owner.access, &host).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let ways = [Lost::Suspended, Lost::Role, Lost::MayInviteNoMore, Lost::CannotGiveIt, Lost::Gone, Lost::Key, Lost::MakerOfKey, Lost::Nothing];
        for (n, lost) in ways.into_iter().enumerate() {
            let (inviter, _) = staff(app, &format!("host{n}@ex.test"), "host").await;
            let by = match lost {
                Lost::Key | Lost::MakerOfKey => {
                    let key = json!({ "name": "k", "permissions": ["invitations:write", "roles:write"] });
                    let made = call(app, Method::POST, "/v1/admin/api-keys", &inviter.access, &key).await;
                    assert_eq!(made.status, 201, "{}", made.text);
                    made.str("/key")
                }
                _ => inviter.access.clone(),
            };
            let email = format!("v{n}@ex.test");
            let (_, link) = invited(app, &by, &email, json!([{ "role": "instructor" }]), 1).await;
            match lost {
                Lost::Nothing => {}
                Lost::Suspended | Lost::MakerOfKey => suspend(app, &inviter).await,
                Lost::Role => take(app, &inviter, "host").await,
                Lost::MayInviteNoMore => {
                    take(app, &inviter, "host").await;
                    give(app, &inviter, "moderator", "").await;
                }
                Lost::CannotGiveIt => app.sql("UPDATE roles SET level = 15 WHERE name = 'instructor'").await,
                Lost::Gone => app.sql(&format!("DELETE FROM users WHERE id IN (SELECT user_id FROM user_emails WHERE address_key = '{}')", inviter.email)).await,
                Lost::Key => app.sql("DELETE FROM api_keys").await,
            }
            let said = accept(app, &token_of(&link)).await;
            if matches!(lost, Lost::Nothing) {
                assert_eq!(said.status, 200, "the trap: {}", said.text);
                continue;
            }
            assert_eq!(said.refusal(), DEAD, "{lost:?}");
            let left: Value = json!([people_at(app, &email).await, app.count("SELECT COUNT(*) FROM invitations").await, app.count(HELD).await]);
            assert_eq!(left, json!([0, 0, 0]), "{lost:?}: nobody came, and it is gone");
            app.sql("UPDATE roles SET level = 10 WHERE name = 'instructor'").await;
            app.sql("DELETE FROM suspensions").await;
            assert_eq!(accept(app, &token_of(&link)).await.refusal(), DEAD, "{lost:?}: what it lost does not come back");
        }
        assert_eq!(app.count(HELD).await, 1);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'invitation_void' AND stream = 'server'").await, 7);
    }
}

both! {
    async fn what_a_thief_invited_ends_with_what_they_had(app: &TestApp) {
        academy(app).await;
        let (boss, _) = staff(app, "boss@ex.test", "owner").await;
        let (admin, _) = staff(app, "admin@ex.test", "admin").await;
        // In the stolen session: by hand, and by a key.
        let key = json!({ "name": "k", "permissions": ["invitations:write"] });
        let key = call(app, Method::POST, "/v1/admin/api-keys", &admin.access, &key).await.str("/key");
        let moderator = json!([{ "role": "moderator" }]);
        let (_, by_hand) = invited(app, &admin.access, "m1@evil.test", moderator, 1).await;
        let (_, by_key) = invited(app, &key, "m2@evil.test", json!([]), 1).await;
        let (_, of_another) = invited(app, &boss.access, "kim@ex.test", json!([]), 1).await;
        let path = format!("/v1/admin/users/{}/force-reset", admin.id);
        assert_eq!(call(app, Method::POST, &path, &boss.access, &json!({})).await.status, 204);
        for link in [&by_hand, &by_key] {
            assert_eq!(accept(app, &token_of(link)).await.refusal(), DEAD);
        }
        assert_eq!(people_at(app, "m1@evil.test").await + people_at(app, "m2@evil.test").await, 0);
        assert_eq!(accept(app, &token_of(&of_another)).await.status, 200, "what others asked for stays");
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'invitation_revoked'").await, 1);
    }
}
