use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::both;
use crate::support::{Answer, PASSWORD, TestApp, together};

const OTHER: &str = "seven quiet orange rivers";
const INVALID: &str = "422 verification_invalid";

async fn verify(app: &TestApp, body: serde_json::Value) -> Answer {
    app.post("/v1/auth/verify-email", body).await
}

fn token_of(link: &str) -> String {
    link.split_once("token=").unwrap().1.to_owned()
}

both! {
    async fn the_link_with_the_id_activates_the_registrations_password(app: &TestApp) {
        let id = app.register("ada@example.com").await.str("/verification_id");
        let token = token_of(&app.mail("ada@example.com", "verify_email", 1).await.links[0]);
        assert_eq!(verify(app, json!({ "verification_id": id, "token": token })).await.status, 200);
        assert_eq!(app.login("ada@example.com", PASSWORD).await.status, 200);
        assert_eq!(verify(app, json!({ "verification_id": id, "token": token })).await.refusal(), INVALID, "once");
    }
}

both! {
    async fn the_newest_registration_of_an_unproven_address_wins(app: &TestApp) {
        let first = app.register("ada@example.com").await.str("/verification_id");
        let old = app.mail("ada@example.com", "verify_email", 1).await;
        let again = json!({ "email": "ADA@example.com", "password": OTHER, "display_name": "Ada 2" });
        let second = app.post("/v1/auth/register", again).await.str("/verification_id");
        let new = app.mail("ada@example.com", "verify_email", 2).await;
        for dead in [json!({ "verification_id": first, "code": old.code }), json!({ "verification_id": first, "code": new.code }),
            json!({ "verification_id": second, "token": token_of(&old.links[0]) })] {
            assert_eq!(verify(app, dead).await.refusal(), INVALID);
        }
        let answer = verify(app, json!({ "verification_id": second, "code": new.code })).await;
        assert_eq!((answer.status, answer.str("/user/display_name").as_str()), (200, "Ada 2"));
        assert_eq!(app.login("ada@example.com", PASSWORD).await.refusal(), "401 invalid_credentials");
        assert_eq!(app.login("ada@example.com", OTHER).await.status, 200);
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 1);
    }
}

both! {
    async fn a_proven_address_is_answered_like_any_other_and_told_by_mail(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let unknown = app.register("nobody@example.com").await;
        let known = app.post("/v1/auth/register", json!({ "email": ada.email, "password": OTHER, "display_name": "Ada" })).await;
        assert_eq!(known.status, unknown.status);
        let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&known), names(&unknown));
        assert_eq!(known.text.len(), unknown.text.len());
        let mail = app.mail(&ada.email, "already_registered", 1).await;
        assert!(mail.links.is_empty() && mail.code.is_empty());
        let random = known.str("/verification_id");
        assert_eq!(verify(app, json!({ "verification_id": random, "code": "123456" })).await.refusal(), INVALID);
        assert_eq!(app.login(&ada.email, OTHER).await.refusal(), "401 invalid_credentials", "nothing was stored");
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
        app.mail("nobody@example.com", "verify_email", 1).await;
        app.quiet().await;
    }
}

both! {
    async fn five_wrong_guesses_kill_a_code_and_its_link_lives_on(app: &TestApp) {
        let id = app.register("ada@example.com").await.str("/verification_id");
        let mail = app.mail("ada@example.com", "verify_email", 1).await;
        let wrong = if mail.code == "000000" { "000001" } else { "000000" };
        for _ in 0..5 {
            assert_eq!(verify(app, json!({ "verification_id": id, "code": wrong })).await.refusal(), INVALID);
        }
        assert_eq!(verify(app, json!({ "verification_id": id, "code": mail.code })).await.refusal(), INVALID, "the code is dead");
        let by_link = verify(app, json!({ "verification_id": id, "token": token_of(&mail.links[0]) })).await;
        assert_eq!(by_link.status, 200, "{}", by_link.text);
    }
}

both! {
    async fn asking_for_mail_after_mail_gives_no_more_than_ten_guesses_a_day(app: &TestApp) {
        let id = app.register("ada@example.com").await.str("/verification_id");
        let mut mail = app.mail("ada@example.com", "verify_email", 1).await;
        for round in 2..=4 {
            app.forgive().await;
            for _ in 0..4 {
                let wrong = if mail.code == "000000" { "000001" } else { "000000" };
                assert_eq!(verify(app, json!({ "verification_id": id, "code": wrong })).await.refusal(), INVALID);
            }
            let again = app.post("/v1/auth/resend-verification", json!({ "email": "ada@example.com" })).await;
            assert_eq!(again.status, 202);
            mail = app.mail("ada@example.com", "verify_email", round).await;
        }
        let right = json!({ "verification_id": id, "code": mail.code });
        assert_eq!(verify(app, right.clone()).await.refusal(), INVALID, "twelve wrong ones came before");
        app.clock.advance(Duration::from_secs(24 * 3600));
        let expired = verify(app, right).await;
        assert_eq!(expired.refusal(), INVALID, "tomorrow guessing is possible again, but this code is too old");
        app.post("/v1/auth/resend-verification", json!({ "email": "ada@example.com" })).await;
        let mail = app.mail("ada@example.com", "verify_email", 5).await;
        assert_eq!(verify(app, json!({ "verification_id": id, "code": mail.code })).await.status, 200);
        assert_eq!(app.count("SELECT COUNT(*) FROM code_failures").await, 0, "success forgets the failures");
    }
}

both! {
    async fn parallel_guesses_do_not_overshoot(app: &TestApp) {
        let id = app.register("ada@example.com").await.str("/verification_id");
        let mail = app.mail("ada@example.com", "verify_email", 1).await;
        let wrong: Vec<String> = (0..40).map(|n| format!("{n:06}")).filter(|code| *code != mail.code).collect();
        let guesses: Vec<_> = wrong.iter().map(|code| verify(app, json!({ "verification_id": id, "code": code }))).collect();
        for guess in together(guesses).await {
            assert_eq!(guess.refusal(), INVALID);
        }
        assert_eq!(app.count("SELECT failures FROM email_verification_tokens").await, 5);
        assert_eq!(app.count("SELECT in_a_row FROM code_failures").await, 5);
    }
}

both! {
    async fn a_verification_lives_a_day_and_a_new_mail_can_be_asked_for_a_week(app: &TestApp) {
        let id = app.register("ada@example.com").await.str("/verification_id");
        let mail = app.mail("ada@example.com", "verify_email", 1).await;
        app.clock.advance(Duration::from_secs(24 * 3600));
        for late in [json!({ "verification_id": id, "code": mail.code }), json!({ "verification_id": id, "token": token_of(&mail.links[0]) }),
            json!({ "token": token_of(&mail.links[0]), "password": OTHER })] {
            assert_eq!(verify(app, late).await.refusal(), INVALID);
        }
        app.post("/v1/auth/resend-verification", json!({ "email": "ada@example.com" })).await;
        let mail = app.mail("ada@example.com", "verify_email", 2).await;
        assert_eq!(verify(app, json!({ "verification_id": id, "code": mail.code })).await.status, 200);
    }
}

both! {
    async fn who_never_proves_an_address_is_forgotten(app: &TestApp) {
        app.register("ada@example.com").await;
        let eve = app.person("eve@example.com").await;
        app.quiet().await;
        app.clock.advance(Duration::from_secs(9 * 24 * 3600));
        app.until("the sweep has come by", || async { app.count("SELECT COUNT(*) FROM users").await == 1 }).await;
        assert_eq!(app.login(&eve.email, PASSWORD).await.status, 200, "who did is not");
    }
}

both! {
    async fn resending_answers_the_same_for_everybody_and_mails_only_who_waits(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.register("eve@example.com").await;
        app.mail("eve@example.com", "verify_email", 1).await;
        let mut answers = Vec::new();
        for email in [ada.email.as_str(), "eve@example.com", "nobody@example.com"] {
            let answer = app.post("/v1/auth/resend-verification", json!({ "email": email })).await;
            answers.push((answer.status, answer.text));
        }
        assert!(answers.iter().all(|answer| *answer == (202, "{\"status\":\"verification_required\"}".to_owned())), "{answers:?}");
        app.mail("eve@example.com", "verify_email", 2).await;
        app.quiet().await;
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(None, None).len(), 3, "ada's first, eve's two, and no other");
    }
}

both! {
    async fn an_idempotency_key_gives_the_first_answer_again(app: &TestApp) {
        let body = json!({ "email": "ada@example.com", "password": PASSWORD });
        let register = |key: &'static str, body: serde_json::Value| {
            app.send(app.request(Method::POST, "/v1/auth/register").header("idempotency-key", key).json(&body))
        };
        let first = register("one", body.clone()).await;
        assert_eq!(first.status, 202);
        let again = together((0..8).map(|_| register("one", body.clone())).collect()).await;
        assert!(again.iter().all(|answer| answer.status == 202 && answer.text == first.text));
        let racing = together((0..8).map(|_| register("race", body.clone())).collect()).await;
        assert!(racing.iter().all(|answer| answer.text == racing[0].text), "{racing:?}");
        assert_ne!(racing[0].text, first.text);
        let other = register("one", json!({ "email": "eve@example.com", "password": PASSWORD })).await;
        assert_eq!(other.refusal(), "422 idempotency_key_reused");
        for bad in ["", "x".repeat(256).as_str()] {
            let refused = app.request(Method::POST, "/v1/auth/register").header("idempotency-key", bad).json(&body);
            assert_eq!(app.send(refused).await.refusal(), "400 malformed_request");
        }
        app.mail("ada@example.com", "verify_email", 2).await;
        app.quiet().await;
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(None, None).len(), 2, "one mail for each key");
        let resend = || app.send(app.request(Method::POST, "/v1/auth/resend-verification").header("idempotency-key", "two").json(&json!({ "email": "ada@example.com" })));
        assert_eq!((resend().await.status, resend().await.status), (202, 202));
        app.mail("ada@example.com", "verify_email", 3).await;
        app.quiet().await;
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(None, None).len(), 3);
        app.clock.advance(Duration::from_secs(24 * 3600));
        assert_ne!(register("one", body.clone()).await.text, first.text, "a day later it is a new request");
        app.mail("ada@example.com", "verify_email", 4).await;
    }
}

both! {
    async fn what_is_refused_says_which_field_and_stores_nothing(app: &TestApp) {
        for (body, fields) in [
            (json!({}), vec!["email:required"]),
            (json!({ "email": "ada@example.com" }), vec!["password:required"]),
            (json!({ "email": "nonsense", "password": "short" }), vec!["email:email_invalid", "password:password_too_short"]),
            (json!({ "email": "ada@example.com", "password": "x".repeat(1_025) }), vec!["password:password_too_long"]),
            (json!({ "email": "ada@example.com", "password": PASSWORD, "display_name": "a\nb" }), vec!["display_name:invalid"]),
            (json!({ "email": "ada@example.com", "password": PASSWORD, "metadata": 1 }), vec!["metadata:wrong_type"]),
        ] {
            let refused = app.post("/v1/auth/register", body).await;
            assert_eq!((refused.refusal().as_str(), refused.fields()), ("422 validation_failed", fields.iter().map(ToString::to_string).collect()));
        }
        for body in [json!({}), json!({ "code": "123456" }), json!({ "token": "pgv_x" }), json!({ "verification_id": "ver_x" }),
            json!({ "verification_id": "ver_x", "token": "a", "code": "b" })] {
            assert_eq!(verify(app, body).await.refusal(), "422 validation_failed");
        }
        assert_eq!(verify(app, json!({ "verification_id": "nonsense", "code": "123456" })).await.refusal(), INVALID);
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 0);
    }
}

both! {
    async fn a_verification_has_one_winner(app: &TestApp) {
        for round in 0..5 {
            let email = format!("ada{round}@example.com");
            let id = app.register(&email).await.str("/verification_id");
            let mail = app.mail(&email, "verify_email", 1).await;
            let token = token_of(&mail.links[0]);
            let bodies: Vec<_> = (0..30).map(|n| match n % 3 {
                0 => json!({ "verification_id": id, "code": mail.code }),
                1 => json!({ "verification_id": id, "token": token }),
                _ => json!({ "token": token, "password": OTHER }),
            }).collect();
            let answers = together(bodies.into_iter().map(|body| verify(app, body)).collect()).await;
            let winners = answers.iter().filter(|answer| answer.status == 200).count();
            assert_eq!(winners, 1, "{:?}", answers.iter().map(Answer::refusal).collect::<Vec<_>>());
            assert!(answers.iter().all(|answer| answer.status == 200 || answer.refusal() == INVALID));
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 5);
    }
}

both! {
    async fn an_address_registered_by_many_at_once_is_one_account(app: &TestApp) {
        let forms = ["ada@example.com", "ADA@example.com", "Ada@EXAMPLE.com"];
        let answers = together((0..30).map(|n| app.register(forms[n % 3])).collect()).await;
        assert!(answers.iter().all(|answer| answer.status == 202 && answer.text.len() == answers[0].text.len()));
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 1);
        assert_eq!(app.count("SELECT COUNT(*) FROM email_verification_tokens").await, 1);
        app.quiet().await;
        let sent = app.app.mailbox.as_ref().unwrap().list(Some("ada@example.com"), Some("verify_email"));
        assert_eq!(sent.len(), 3, "strangers have few mails sent to a mailbox");
        assert!(sent.iter().all(|mail| mail.code.len() == 6));
    }
}

both! {
    async fn registering_an_address_while_it_is_proven_plants_nothing(app: &TestApp) {
        let mut proven = 0;
        for round in 0..15 {
            let email = format!("ada{round}@example.com");
            let id = app.register(&email).await.str("/verification_id");
            let mail = app.mail(&email, "verify_email", 1).await;
            let planted = json!({ "email": email, "password": OTHER, "display_name": "Mallory" });
            let requests: Vec<(&str, serde_json::Value)> = vec![
                ("/v1/auth/register", planted.clone()),
                ("/v1/auth/verify-email", json!({ "verification_id": id, "code": mail.code })),
                ("/v1/auth/register", planted.clone()),
                ("/v1/auth/resend-verification", json!({ "email": email })),
                ("/v1/auth/register", planted),
            ];
            let answers = together(requests.into_iter().map(|(path, body)| app.post(path, body)).collect()).await;
            if let Some(verified) = answers.iter().find(|answer| answer.status == 200) {
                proven += 1;
                let me = app.get_as("/v1/me", &verified.str("/access_token")).await;
                assert_eq!(me.json["display_name"], verified.json["user"]["display_name"], "nobody renames a proven account");
                assert_eq!(app.login(&email, OTHER).await.refusal(), "401 invalid_credentials");
            }
        }
        app.quiet().await;
        let open = "SELECT COUNT(*) FROM email_verification_tokens t JOIN verified_emails v ON v.user_id = t.user_id";
        assert_eq!(app.count(open).await, 0, "of {proven} proven addresses");
    }
}
