//! People whom operators make.

use std::time::Duration;

use pearlgate::webhooks;
use reqwest::Method;
use serde_json::{Value, json};

use super::access::{DENIED, NOT_FRESH, academy, call, operator, owner};
use super::steps::token_of;
use crate::both;
use crate::support::receiver::Receiver;
use crate::support::{Answer, PASSWORD, Person, TestApp};

pub const USERS: &str = "/v1/admin/users";
const ADA: &str = "ada@example.com";
const BOB: &str = "bob@example.com";
const CONFLICT: &str = "409 conflict";
const MINUTE: Duration = Duration::from_secs(60);

pub async fn make(app: &TestApp, access: &str, body: &Value) -> Answer {
    call(app, Method::POST, USERS, access, body).await
}

both! {
    async fn somebody_whose_address_is_known_chooses_a_password(app: &TestApp) {
        academy(app).await;
        let owner = owner(app).await;
        let receiver = Receiver::start().await;
        webhooks::add(&app.app, &receiver.url, "user.created", "").await.unwrap();
        let body = json!({ "email": ADA, "display_name": "Ada", "locale": "en", "metadata": { "staff": 7 }, "email_verified": true });
        let made = make(app, &owner.access, &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        assert_eq!((&made.json["email_verified"], &made.json["roles"], &made.json["metadata"]), (&json!(true), &json!(["student"]), &json!({ "staff": 7 })));
        assert_eq!(app.get_as(&format!("{USERS}/{}", made.str("/id")), &owner.access).await.json, made.json);
        assert_eq!(app.login(ADA, PASSWORD).await.refusal(), "401 invalid_credentials", "nobody knows a password of theirs");
        let heard = receiver.take(1).await;
        assert_eq!((heard[0].kind(), heard[0].user()), ("user.created", made.str("/id").as_str()));
        app.quiet().await;
        let mailbox = app.app.mailbox.as_ref().unwrap();
        assert_eq!(mailbox.list(Some(ADA), Some("verify_email")).len(), 0);
        let trail = format!("SELECT COUNT(*) FROM audit_events WHERE kind = 'user_made' AND stream = '{}' AND actor = '{}'", made.str("/id"), owner.id);
        assert_eq!(app.count(Box::leak(trail.into_boxed_str())).await, 1);

        let made = make(app, &owner.access, &json!({ "email": BOB, "email_verified": true })).await;
        assert_eq!((made.status, &made.json["email_verified"]), (201, &json!(true)), "{}", made.text);
        assert_eq!(app.login(BOB, PASSWORD).await.refusal(), "401 invalid_credentials");
        assert_eq!(app.post("/v1/auth/forgot-password", json!({ "email": BOB })).await.status, 202);
        let mail = app.mail(BOB, "password_reset", 1).await;
        let reset = json!({ "token": token_of(&mail.links[0]), "password": PASSWORD });
        assert_eq!(app.post("/v1/auth/reset-password", reset).await.status, 200);
        assert_eq!(app.login(BOB, PASSWORD).await.status, 200);
    }
}

both! {
    async fn somebody_else_is_mailed_and_chooses_a_password(app: &TestApp) {
        let owner = owner(app).await;
        let receiver = Receiver::start().await;
        webhooks::add(&app.app, &receiver.url, "user.created", "").await.unwrap();
        let body = json!({ "email": ADA, "display_name": "Ada", "metadata": { "staff": 7 } });
        let made = make(app, &owner.access, &body).await;
        assert_eq!((made.status, &made.json["email_verified"]), (201, &json!(false)), "{}", made.text);
        let mail = app.mail(ADA, "verify_email", 1).await;
        app.quiet().await;
        assert!(receiver.all().is_empty(), "nobody has proven anything yet");
        assert_eq!(app.login(ADA, PASSWORD).await.refusal(), "401 invalid_credentials", "nor is there a password");
        // They ask for the mail again, and come by the newer one.
        assert_eq!(app.post("/v1/auth/resend-verification", json!({ "email": ADA })).await.status, 202);
        let newer = app.mail(ADA, "verify_email", 2).await;
        let by = |link: &str| json!({ "token": token_of(link), "password": PASSWORD });
        assert_eq!(app.post("/v1/auth/verify-email", by(&mail.links[0])).await.refusal(), "422 verification_invalid");
        let entered = app.post("/v1/auth/verify-email", by(&newer.links[0])).await;
        assert_eq!((entered.status, entered.str("/user/id")), (200, made.str("/id")), "{}", entered.text);
        let me = app.get_as("/v1/me", &entered.str("/access_token")).await;
        assert_eq!((me.str("/display_name").as_str(), &me.json["metadata"]), ("Ada", &json!({ "staff": 7 })), "what the operator wrote stays");
        let heard = receiver.take(1).await;
        assert_eq!(heard[0].user(), made.str("/id"));
        assert_eq!(app.login(ADA, PASSWORD).await.status, 200);
    }
}

both! {
    async fn what_a_stranger_wrote_in_the_meantime_goes(app: &TestApp) {
        let owner = owner(app).await;
        let body = json!({ "email": ADA, "display_name": "Ada", "metadata": { "staff": 7 } });
        assert_eq!(make(app, &owner.access, &body).await.status, 201);
        app.mail(ADA, "verify_email", 1).await;
        let planted = json!({ "email": ADA, "password": PASSWORD, "display_name": "Mallory", "metadata": { "staff": 1 } });
        assert_eq!(app.post("/v1/auth/register", planted).await.status, 202);
        let mail = app.mail(ADA, "verify_email", 2).await;
        let body = json!({ "token": token_of(&mail.links[0]), "password": "seven quiet orange rivers" });
        let entered = app.post("/v1/auth/verify-email", body).await;
        assert_eq!(entered.status, 200, "{}", entered.text);
        let me = app.get_as("/v1/me", &entered.str("/access_token")).await;
        assert_eq!((me.str("/display_name").as_str(), &me.json["metadata"]), ("", &json!({})));
        assert_eq!(app.login(ADA, PASSWORD).await.refusal(), "401 invalid_credentials");
    }
}

both! {
    async fn making_somebody_has_its_rules(app: &TestApp) {
        academy(app).await;
        let owner = owner(app).await;
        let moderator = operator(app, "moderator@example.com", "moderator").await;
        app.register(BOB).await;
        let people = app.count("SELECT COUNT(*) FROM users").await;
        assert_eq!(make(app, &moderator.access, &json!({ "email": ADA })).await.refusal(), DENIED);
        for taken in [BOB, "moderator@example.com", "Owner@Example.com"] {
            for verified in [true, false] {
                let body = json!({ "email": taken, "email_verified": verified });
                assert_eq!(make(app, &owner.access, &body).await.refusal(), CONFLICT, "{taken}");
            }
        }
        for (body, wrong) in [
            (json!({ "email": "ada" }), "email:email_invalid"),
            (json!({ "email": ADA, "password": PASSWORD, "email_verified": true }), "password:unknown_field"),
            (json!({ "email": ADA, "locale": "_" }), "locale:invalid"),
            (json!({ "email": ADA, "roles": ["owner"] }), "roles:unknown_field"),
        ] {
            assert_eq!(make(app, &owner.access, &body).await.fields(), [wrong], "{body}");
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, people);

        let with_key = |body: Value| {
            let request = app.request(Method::POST, USERS).bearer_auth(&owner.access).header("idempotency-key", "k1");
            app.send(request.json(&body))
        };
        let (one, two) = (with_key(json!({ "email": ADA })).await, with_key(json!({ "email": ADA })).await);
        assert_eq!((one.status, two.status, &one.json), (201, 201, &two.json), "{}", one.text);
        assert_eq!(with_key(json!({ "email": "cleo@example.com" })).await.refusal(), "422 idempotency_key_reused");
        app.quiet().await;
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(Some(ADA), Some("verify_email")).len(), 1);
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, people + 1);
        app.clock.advance(11 * MINUTE);
        let stale = Person::of(&app.refresh(&owner.refresh).await);
        assert_eq!(make(app, &stale.access, &json!({ "email": "cleo@example.com" })).await.refusal(), NOT_FRESH);
    }
}
