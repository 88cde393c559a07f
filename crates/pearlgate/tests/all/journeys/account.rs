use std::time::Duration;

use foundation::audit::{self, Stream};
use foundation::kernel::Id;
use pearlgate::accounts::UserRow;
use reqwest::Method;
use serde_json::{Value, json};

use super::authenticator::enrol;
use super::steps::{send_as, wrong};
use crate::support::{PASSWORD, together};
use crate::{both, both_with};

both! {
    async fn one_person_all_the_way_through(app: &TestApp) {
        let registered = app.register("Ada@Example.com").await;
        assert_eq!((registered.status, registered.str("/status").as_str()), (202, "verification_required"));
        let early = app.login("ada@example.com", PASSWORD).await;
        assert_eq!(early.refusal(), "403 email_not_verified");

        let mail = app.mail("ada@example.com", "verify_email", 1).await;
        let verification = registered.str("/verification_id");
        let verified = app.post("/v1/auth/verify-email", json!({ "verification_id": verification, "code": mail.code })).await;
        assert_eq!((verified.status, verified.str("/status").as_str()), (200, "authenticated"));
        assert_eq!(verified.json["user"]["email_verified"], true);

        let login = app.login("ADA@example.com", PASSWORD).await;
        assert_eq!(login.status, 200, "{}", login.text);
        assert_eq!((&login.json["expires_in"], &login.json["refresh_expires_in"]), (&json!(600), &json!(2_592_000)));
        assert_eq!(login.json["session"]["amr"], json!(["pwd"]));

        let me = app.get_as("/v1/me", &login.str("/access_token")).await;
        assert_eq!((me.status, me.str("/email").as_str(), me.str("/display_name").as_str()), (200, "Ada@example.com", "Ada"));

        let refreshed = app.refresh(&login.str("/refresh_token")).await;
        assert_eq!(refreshed.status, 200, "{}", refreshed.text);
        assert_eq!(refreshed.str("/session/id"), login.str("/session/id"));
        assert_ne!(refreshed.str("/refresh_token"), login.str("/refresh_token"));

        let out = app.post("/v1/auth/logout", json!({ "refresh_token": refreshed.str("/refresh_token") })).await;
        assert_eq!(out.status, 204);
        for access in [login.str("/access_token"), refreshed.str("/access_token")] {
            let me = app.get_as("/v1/me", &access).await;
            assert_eq!((me.refusal().as_str(), me.str("/reason").as_str()), ("401 session_ended", "logged_out"));
        }
        let refreshed = app.refresh(&refreshed.str("/refresh_token")).await;
        assert_eq!((refreshed.refusal().as_str(), refreshed.str("/reason").as_str()), ("401 session_ended", "logged_out"));
        assert_eq!(app.get_as("/v1/me", &verified.str("/access_token")).await.status, 200, "the other session lives on");
    }
}

both! {
    async fn a_profile_can_be_changed_and_nothing_else_through_it(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let patch = |body| app.send(app.request(Method::PATCH, "/v1/me").bearer_auth(&ada.access).json(&body));
        let changed = patch(json!({ "display_name": "Ada L. 🦀", "locale": "en-GB", "metadata": { "plan": { "seats": 3 } } })).await;
        assert_eq!((changed.status, changed.str("/display_name").as_str()), (200, "Ada L. 🦀"));
        let kept = patch(json!({ "locale": "" })).await;
        assert_eq!((kept.str("/display_name").as_str(), kept.str("/locale").as_str()), ("Ada L. 🦀", ""), "what is not given stays");
        assert_eq!(kept.json["metadata"], json!({ "plan": { "seats": 3 } }));
        assert_eq!(app.get_as("/v1/me", &ada.access).await.json, kept.json);

        for (body, field) in [
            (json!({ "display_name": "x".repeat(101) }), "display_name:too_long"),
            (json!({ "display_name": null }), "display_name:wrong_type"),
            (json!({ "locale": "no such/tag" }), "locale:invalid"),
            (json!({ "metadata": { "big": "x".repeat(5_000) } }), "metadata:too_long"),
            (json!({ "metadata": [1] }), "metadata:wrong_type"),
            (json!({ "email": "other@example.com" }), "email:unknown_field"),
            (json!({ "email_verified": true }), "email_verified:unknown_field"),
            (json!({ "roles": ["admin"] }), "roles:unknown_field"),
        ] {
            let refused = patch(body).await;
            assert_eq!((refused.refusal().as_str(), refused.fields()), ("422 validation_failed", vec![field.to_owned()]));
        }
        assert_eq!(app.get_as("/v1/me", &ada.access).await.json, kept.json, "a refusal changes nothing");
    }
}

both! {
    async fn ones_own_history_comes_in_pages_newest_first(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let eve = app.person("eve@example.com").await;
        for _ in 0..3 {
            app.clock.advance(Duration::from_secs(1));
            app.login("ada@example.com", "not the password at all").await;
        }
        let first = app.get_as("/v1/me/activity?limit=3", &ada.access).await;
        assert_eq!(first.status, 200, "{}", first.text);
        let kinds = |answer: &crate::support::Answer| -> Vec<String> {
            answer.json["items"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(kinds(&first), ["sign_in_failed"; 3]);
        let times: Vec<&str> = first.json["items"].as_array().unwrap().iter().map(|e| e["created_at"].as_str().unwrap()).collect();
        assert!(times.is_sorted_by(|a, b| a > b), "{times:?}");

        let stranger = "SELECT COUNT(*) FROM audit_events WHERE kind = 'sign_in_failed' AND actor = ''";
        assert_eq!(app.count(stranger).await, 3, "a wrong password is nobody's deed");
        let own = "SELECT COUNT(*) FROM audit_events WHERE kind = 'email_verified' AND actor = stream";
        assert_eq!(app.count(own).await, 2);

        let cursor = first.str("/next_cursor");
        let second = app.get_as(&format!("/v1/me/activity?limit=3&cursor={cursor}"), &ada.access).await;
        assert_eq!(kinds(&second), ["email_verified", "registration"]);
        assert_eq!(second.str("/next_cursor"), "", "the last page says so");

        let foreign = app.get_as(&format!("/v1/me/activity?cursor={cursor}"), &eve.access).await;
        assert_eq!(foreign.refusal(), "422 validation_failed", "a cursor belongs to one list");
        for query in ["limit=0", "limit=201", "limit=-1", "limit=x", "sort=kind", "cursor=%27%20OR%201=1"] {
            assert_eq!(app.get_as(&format!("/v1/me/activity?{query}"), &ada.access).await.refusal(), "422 validation_failed", "{query}");
        }
    }
}

both! {
    async fn nobody_gets_in_without_a_good_token(app: &TestApp) {
        for path in ["/v1/me", "/v1/me/activity"] {
            let nobody = app.get(path).await;
            assert_eq!((nobody.refusal().as_str(), nobody.header("www-authenticate")), ("401 not_authenticated", "Bearer"));
            assert_eq!(app.get_as(path, "garbage").await.refusal(), "401 token_invalid");
        }
        let ada = app.person("ada@example.com").await;
        app.clock.advance(Duration::from_secs(599));
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200);
        app.clock.advance(Duration::from_secs(1));
        assert_eq!(app.get_as("/v1/me", &ada.access).await.refusal(), "401 token_expired");
        let fresh = app.refresh(&ada.refresh).await;
        assert_eq!(app.get_as("/v1/me", &fresh.str("/access_token")).await.status, 200);
    }
}

both! {
    async fn changes_at_the_same_time_are_all_kept(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        for round in 0..10 {
            let bodies = vec![json!({ "display_name": format!("Ada {round}") }), json!({ "locale": format!("en-{round}") }), json!({ "metadata": { "round": round } })];
            let answers = together(bodies.into_iter().map(|body| app.send(app.request(Method::PATCH, "/v1/me").bearer_auth(&ada.access).json(&body))).collect()).await;
            assert!(answers.iter().all(|answer| answer.status == 200));
            let me = app.get_as("/v1/me", &ada.access).await;
            assert_eq!((me.str("/display_name"), me.str("/locale"), me.json["metadata"]["round"].as_i64()), (format!("Ada {round}"), format!("en-{round}"), Some(round)));
        }
    }
}

both_with! { true, "[mfa]\nemail_code = true\n";
    async fn what_somebody_does_is_written_down_with_their_session(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let here = |method: Method, path: &'static str, body: Value| {
            let ada = &ada;
            async move {
                let answer = send_as(app, method, path, &ada.access, body).await;
                assert!(answer.status < 300, "{path}: {}", answer.text);
            }
        };
        here(Method::PATCH, "/v1/me", json!({ "display_name": "Ada L." })).await;
        here(Method::PUT, "/v1/me/mfa/email-code", json!({})).await;
        app.send(app.request(Method::DELETE, "/v1/me/mfa/email-code").bearer_auth(&ada.access)).await;
        enrol(app, &ada).await;
        here(Method::POST, "/v1/me/mfa/recovery-codes", json!({})).await;
        here(Method::POST, "/v1/me/email", json!({ "email": "new@example.com" })).await;
        let mail = app.mail("new@example.com", "email_change", 1).await;
        let wrong = send_as(app, Method::POST, "/v1/me/email/confirm", &ada.access, json!({ "code": wrong(&mail.code) })).await;
        assert_eq!(wrong.status, 422, "{}", wrong.text);
        here(Method::POST, "/v1/me/email/confirm", json!({ "code": mail.code })).await;
        here(Method::PUT, "/v1/me/password", json!({ "current_password": PASSWORD, "new_password": "seven amber kettles sing" })).await;
        let events = audit::list(&app.app.db, &Stream::of(ada.id.parse::<Id<UserRow>>().unwrap()), i64::MAX, 100).await.unwrap();
        let mut named = Vec::new();
        for event in &events {
            let details: Value = serde_json::from_str(&event.details).unwrap();
            if details["session"] == json!(ada.session) {
                assert_eq!(event.actor, ada.id, "{event:?}");
                named.push(event.kind.as_str());
            }
        }
        for kind in ["profile_changed", "email_code_on", "email_code_off", "factor_added", "recovery_codes_made", "email_change_requested", "email_change_failed", "email_changed", "password_changed"] {
            assert!(named.contains(&kind), "{kind}: {named:?}");
        }
        // A sign-in names the session that it began.
        let bob = app.person("bob@example.com").await;
        let login = app.login(&bob.email, PASSWORD).await;
        let events = audit::list(&app.app.db, &Stream::of(bob.id.parse::<Id<UserRow>>().unwrap()), i64::MAX, 100).await.unwrap();
        let began = events.iter().find(|event| event.kind == "sign_in").unwrap();
        assert_eq!(serde_json::from_str::<Value>(&began.details).unwrap()["session"], login.json["session"]["id"]);
    }
}
