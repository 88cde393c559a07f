use data_encoding::BASE64URL_NOPAD;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{OTHER, ask, mails, post, token_of};
use crate::both;
use crate::support::{PASSWORD, START, filled};

const INVALID: &str = "422 verification_invalid";
const REFUSED: &str = "401 invalid_credentials";

both! {
    async fn a01_cve_2013_2506_role_at_registration(app: &TestApp) {
        let planted = [
            ("role", json!("admin")), ("roles", json!(["admin"])), ("Roles", json!(["admin"])), ("is_admin", json!(true)),
            ("isAdmin", json!(true)), ("permissions", json!(["users:write"])), ("tenant_id", json!("other")),
            ("tenantId", json!("other")), ("email_verified", json!(true)), ("emailVerified", json!(true)),
            ("verified_at", json!(1)), ("mfa_enrolled", json!(true)), ("mfa_enabled", json!(true)), ("aal", json!(3)),
            ("id", json!("usr_00000000000000000000000000000001")), ("user_id", json!(1)), ("created_at", json!("2001-01-01T00:00:00.000000Z")),
            ("createdAt", json!(0)), ("status", json!("active")), ("password_hash", json!("$argon2id$x")),
            ("user", json!({ "role": "admin" })), ("user.role", json!("admin")), ("roles[]", json!("admin")), ("__proto__", json!({ "role": "admin" })),
        ];
        let good = json!({ "email": "ada@ex.test", "password": PASSWORD, "display_name": "Ada" });
        for (field, value) in &planted {
            let mut body = good.clone();
            body[*field] = value.clone();
            let refused = post(app, "/v1/auth/register", &body).await;
            assert_eq!(refused.refusal(), "422 validation_failed", "{field}");
            assert!(refused.fields()[0].ends_with(":unknown_field"), "{field}: {:?}", refused.fields());
        }
        for (kind, body) in [
            ("application/x-www-form-urlencoded", format!("email=ada@ex.test&password={PASSWORD}&roles[]=admin")),
            ("multipart/form-data; boundary=x", "--x\r\ncontent-disposition: form-data; name=\"roles[]\"\r\n\r\nadmin\r\n--x--\r\n".into()),
            ("text/plain", good.to_string()),
            ("application/json; charset=utf-16", good.to_string()),
        ] {
            let form = ask(app, app.request(Method::POST, "/v1/auth/register").header("content-type", kind).body(body)).await;
            assert_eq!(form.refusal(), "415 unsupported_media_type", "{kind}");
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 0);

        // The query counts for nothing, and metadata is data, whatever stands in it.
        let mut body = good;
        body["metadata"] = json!({ "role": "admin", "roles": ["admin"], "email_verified": true, "user": { "role": "admin" } });
        let registered = post(app, "/v1/auth/register?role=admin&roles[]=admin&email_verified=true", &body).await;
        assert_eq!(registered.status, 202, "{}", registered.text);
        assert_eq!(app.login("ada@ex.test", PASSWORD).await.refusal(), "403 email_not_verified");
        let mail = app.mail("ada@ex.test", "verify_email", 1).await;
        let right = json!({ "verification_id": registered.str("/verification_id"), "code": mail.code });
        let entrance = json!({ "email": "ada@ex.test", "password": PASSWORD });
        for (field, value) in &planted {
            let (mut verify, mut login) = (right.clone(), entrance.clone());
            verify[*field] = value.clone();
            login[*field] = value.clone();
            assert_eq!(post(app, "/v1/auth/verify-email", &verify).await.refusal(), "422 validation_failed", "{field}");
            assert_eq!(post(app, "/v1/auth/login", &login).await.refusal(), "422 validation_failed", "{field}");
        }
        assert_eq!(post(app, "/v1/auth/verify-email", &right).await.status, 200);
        let login = post(app, "/v1/auth/login", &entrance).await;
        let me = ask(app, app.request(Method::GET, "/v1/me").bearer_auth(login.str("/access_token"))).await;
        for user in [&me.json, &login.json["user"]] {
            assert_eq!((&user["roles"], &user["mfa_enabled"]), (&json!([]), &json!(false)));
            assert!(user["id"].as_str().unwrap().starts_with("usr_") && user["id"] != planted[14].1, "{user}");
            assert_eq!(user["created_at"], START.to_string());
        }
        let token = login.str("/access_token");
        let claims: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(token.split('.').nth(1).unwrap().as_bytes()).unwrap()).unwrap();
        assert_eq!((&claims["roles"], &claims["aal"]), (&json!([]), &json!(1)));
        assert_eq!(claims.get("permissions"), None);
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 1);
        // Not yet: 403 on an admin route, which comes with the administration.
    }
}

both! {
    async fn a16_better_auth_11023_victim_verifies_the_attackers_password(app: &TestApp) {
        let register = |email: String, password: &'static str| async move {
            let answer = post(app, "/v1/auth/register", &json!({ "email": email, "password": password })).await;
            assert_eq!(answer.status, 202);
            answer.str("/verification_id")
        };
        let verify = |body: Value| async move { post(app, "/v1/auth/verify-email", &body).await };

        // M first, then V, who proves with what V has: V's password counts, M's is dead, and so is M's half of the proof.
        let v = "one@ex.test".to_owned();
        let ms = register(v.clone(), OTHER).await;
        app.mail(&v, "verify_email", 1).await;
        let vs = register(v.clone(), PASSWORD).await;
        let mail = app.mail(&v, "verify_email", 2).await;
        for dead in [json!({ "verification_id": ms, "code": mail.code }), json!({ "verification_id": ms, "token": token_of(&mail.links[0]) })] {
            assert_eq!(verify(dead).await.refusal(), INVALID);
        }
        assert_eq!(verify(json!({ "verification_id": vs, "code": mail.code })).await.status, 200);
        assert_eq!(app.login(&v, OTHER).await.refusal(), REFUSED);
        assert_eq!(app.login(&v, PASSWORD).await.status, 200);

        // V first, then M: the newest mail is M's attempt. In V's browser its code opens nothing; its link asks for a password.
        let v = "two@ex.test".to_owned();
        let vs = register(v.clone(), PASSWORD).await;
        app.mail(&v, "verify_email", 1).await;
        let ms = register(v.clone(), OTHER).await;
        let mail = app.mail(&v, "verify_email", 2).await;
        let token = token_of(&mail.links[0]);
        assert_eq!(verify(json!({ "verification_id": vs, "code": mail.code })).await.refusal(), INVALID);
        assert_eq!(verify(json!({ "verification_id": vs, "token": token })).await.refusal(), INVALID);
        for half in [json!({ "token": token }), json!({ "code": mail.code }), json!({ "code": mail.code, "password": PASSWORD }),
            json!({ "verification_id": ms, "code": mail.code, "password": PASSWORD }), json!({ "verification_id": ms })] {
            assert_eq!(verify(half).await.refusal(), "422 validation_failed");
        }
        assert_eq!(app.login(&v, OTHER).await.refusal(), "403 email_not_verified", "M has what M typed and nothing else");
        assert_eq!(verify(json!({ "token": token, "password": PASSWORD })).await.status, 200);
        assert_eq!(app.login(&v, OTHER).await.refusal(), REFUSED);
        assert_eq!(app.login(&v, PASSWORD).await.status, 200);
        assert_eq!(verify(json!({ "verification_id": ms, "code": mail.code })).await.refusal(), INVALID);

        // M alone: V knows nothing of it and follows the link of the mail to the page.
        let v = "three@ex.test".to_owned();
        let ms = register(v.clone(), OTHER).await;
        let mail = app.mail(&v, "verify_email", 1).await;
        let opened = ask(app, app.request(Method::GET, mail.links[0].strip_prefix(&app.url).unwrap())).await;
        assert_eq!((opened.status, opened.header("location")), (303, "/verify-email"));
        assert_eq!(app.login(&v, OTHER).await.refusal(), "403 email_not_verified", "opening a link proves nothing");
        let cookie = opened.header("set-cookie").split(';').next().unwrap().to_owned();
        let form = |fields: String| {
            let request = app.request(Method::POST, "/verify-email").header("cookie", cookie.clone()).header("sec-fetch-site", "same-origin");
            ask(app, request.header("content-type", "application/x-www-form-urlencoded").body(fields))
        };
        for nothing in [String::new(), "password=".to_owned(), filled(&cookie, ""), filled(&cookie, "short")] {
            let refused = form(nothing).await;
            assert!((400..500).contains(&refused.status), "{}", refused.status);
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM email_verification_tokens").await, 1, "still waiting");
        assert_eq!(form(filled(&cookie, PASSWORD)).await.status, 200);
        assert_eq!(app.login(&v, OTHER).await.refusal(), REFUSED);
        assert_eq!(app.login(&v, PASSWORD).await.status, 200);
        assert_eq!(verify(json!({ "verification_id": ms, "code": mail.code })).await.refusal(), INVALID);

        // M after V has proven: the answer is synthetic, nothing is stored, a mail tells V.
        let synthetic = register(v.clone(), OTHER).await;
        let told = app.mail(&v, "already_registered", 1).await;
        assert!(told.links.is_empty() && told.code.is_empty());
        for code in ["000000", mail.code.as_str()] {
            assert_eq!(verify(json!({ "verification_id": synthetic, "code": code })).await.refusal(), INVALID);
        }
        assert_eq!(app.login(&v, OTHER).await.refusal(), REFUSED);

        // M asks for the mail again, to have V enter a code in M's browser: it is still only half of M's proof.
        let v = "four@ex.test".to_owned();
        let (vs, before) = (register(v.clone(), PASSWORD).await, mails(app).await);
        post(app, "/v1/auth/resend-verification", &json!({ "email": v })).await;
        let mail = app.mail(&v, "verify_email", 2).await;
        assert_eq!(mails(app).await, before + 1);
        assert_eq!(verify(json!({ "verification_id": synthetic, "code": mail.code })).await.refusal(), INVALID);
        assert_eq!(verify(json!({ "verification_id": vs, "code": mail.code })).await.status, 200);
        assert_eq!(app.count("SELECT COUNT(*) FROM password_credentials").await, 4);
        // Not yet: magic links and one-time codes (GHSA-qq9h-g4jm-xgf3), social sign-in into an unproven account.
    }
}
