//! Second factors: setting one up, being asked for it, losing it, having it taken away.

use std::time::Duration;

use foundation::kernel::Id;
use foundation::mail::Kept;
use pearlgate::accounts::UserRow;
use reqwest::Method;
use serde_json::{Value, json};

use super::authenticator::{
    Factor, NOT_FRESH, OFF, PAUSED, STEP, USED_UP, WRONG, by_totp, code_at, due, enrol, finish, grant, half,
    reauthenticate, sign_in, strings,
};
use super::passkeys::{add, enter};
use super::steps::{Tab, by_link, cookies, ended, forgot, mails, reset, send_as, token_of, wrong};
use crate::support::soft_key::SoftKey;
use crate::support::{Answer, Engine, PASSWORD, Person, START, TestApp};
use crate::{both, both_with};

const MFA: &str = "/v1/me/mfa";
const TOTP: &str = "/v1/me/mfa/totp";
const CONFIRM: &str = "/v1/me/mfa/totp/confirm";
const CODES: &str = "/v1/me/mfa/recovery-codes";
const EMAIL_CODE: &str = "/v1/me/mfa/email-code";
const SESSIONS: &str = "/v1/me/sessions";
const NEW: &str = "seven quiet orange rivers";
const CONFLICT: &str = "409 conflict";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const SECOND: Duration = Duration::from_secs(1);

/// Somebody is in, on this level and by these methods.
fn is(answer: &Answer, aal: i64, amr: &[&str]) {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let session = &answer.json["session"];
    assert_eq!((&session["aal"], &session["amr"]), (&json!(aal), &json!(amr)), "{}", answer.text);
}

/// A call without a body.
async fn call(app: &TestApp, method: Method, path: &str, access: &str) -> Answer {
    app.send(app.request(method, path).bearer_auth(access)).await
}

async fn post(app: &TestApp, path: &str, access: &str, body: Value) -> Answer {
    send_as(app, Method::POST, path, access, body).await
}

async fn change_password(app: &TestApp, access: &str) -> Answer {
    let body = json!({ "current_password": PASSWORD, "new_password": NEW });
    send_as(app, Method::PUT, "/v1/me/password", access, body).await
}

async fn magic_link(app: &TestApp, email: &str, count: usize) -> Kept {
    assert_eq!(app.post("/v1/auth/magic-link", json!({ "email": email })).await.status, 202);
    let mail = app.mail(email, "magic_link", count).await;
    app.quiet().await;
    mail
}

async fn consume(app: &TestApp, mail: &Kept) -> Answer {
    app.post("/v1/auth/magic-link/consume", json!({ "token": token_of(&mail.links[0]) })).await
}

async fn challenge(app: &TestApp, token: &str) -> Answer {
    app.post("/v1/auth/mfa/challenge", json!({ "mfa_token": token, "type": "email_code" })).await
}

async fn user_of(app: &TestApp, person: &Person) -> Id<UserRow> {
    pearlgate::accounts::find(&app.app, &person.id).await.unwrap().unwrap()
}

both! {
    async fn a_factor_is_set_up_and_asked_for_from_then_on(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let none = json!({ "totp": false, "passkeys": 0, "recovery_codes_left": 0, "email_code": false, "required": false, "switched_off": [] });
        assert_eq!(app.get_as(MFA, &ada.access).await.json, none);
        let begun = post(app, TOTP, &ada.access, json!({})).await;
        let (secret, uri, svg) = (begun.str("/secret"), begun.str("/otpauth_uri"), begun.str("/qr_svg"));
        assert_eq!(data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap().len(), 20);
        assert!(uri.starts_with("otpauth://totp/") && uri.contains("issuer=Pearlgate"), "{uri}");
        assert!(uri.contains(&format!("secret={secret}")) && uri.contains("ada"), "{uri}");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && !svg.contains("<script"), "{svg}");

        assert_eq!(app.get_as(MFA, &ada.access).await.json, none, "what was begun counts for nothing");
        let login = app.login(&ada.email, PASSWORD).await;
        assert_eq!((login.str("/status").as_str(), &login.json["user"]["mfa_enabled"]), ("authenticated", &json!(false)));
        let code = code_at(&secret, app.clock.now());
        assert_eq!(post(app, CONFIRM, &ada.access, json!({ "code": wrong(&code) })).await.refusal(), WRONG);
        let confirmed = post(app, CONFIRM, &ada.access, json!({ "code": format!("{} {}", &code[..3], &code[3..]) })).await;
        let recovery = strings(&confirmed.json["recovery_codes"]);
        assert_eq!(recovery.len(), 10, "{}", confirmed.text);
        for code in &recovery {
            let groups: Vec<&str> = code.split('-').collect();
            let ours = |c: char| "23456789abcdefghjkmnpqrstuvwxyz".contains(c);
            assert!(groups.len() == 4 && groups.iter().all(|group| group.len() == 4 && group.chars().all(ours)), "{code}");
        }
        let has = app.get_as(MFA, &ada.access).await;
        assert_eq!((&has.json["totp"], &has.json["recovery_codes_left"]), (&json!(true), &json!(10)));
        assert_eq!(has.str("/confirmed_at"), app.clock.now().to_string());
        is(&app.refresh(&ada.refresh).await, 2, &["pwd", "otp", "mfa"]);

        let asked = app.login(&ada.email, PASSWORD).await;
        let token = due(&asked);
        let expected = json!({ "status": "mfa_required", "mfa_token": token, "expires_in": 300, "factors": ["totp", "recovery_code"] });
        assert_eq!((asked.json, token.starts_with("pgm_")), (expected, true));
        let factor = Factor { secret, recovery };
        let entered = finish(app, &token, "totp", &factor.next(app)).await;
        is(&entered, 2, &["pwd", "otp", "mfa"]);
        assert_eq!((entered.str("/user/id"), &entered.json["user"]["mfa_enabled"]), (ada.id, &json!(true)));
        is(&app.refresh(&entered.str("/refresh_token")).await, 2, &["pwd", "otp", "mfa"]);
        let history = app.get_as("/v1/me/activity", &entered.str("/access_token")).await.text;
        for kind in ["factor_added", "factor_asked", "sign_in"] {
            assert!(history.contains(&format!("\"{kind}\"")), "{kind}: {history}");
        }
    }
}

both! {
    async fn setting_one_up_is_open_for_ten_minutes_and_the_newest_counts(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(post(app, CONFIRM, &ada.access, json!({ "code": "000000" })).await.refusal(), CONFLICT, "nothing was begun");
        let first = post(app, TOTP, &ada.access, json!({})).await.str("/secret");
        app.clock.advance(5 * MINUTE);
        let fresh = Person::of(&reauthenticate(app, &ada.access, json!({ "password": PASSWORD })).await);
        app.clock.advance(5 * MINUTE);
        let code = json!({ "code": code_at(&first, app.clock.now()) });
        assert_eq!(post(app, CONFIRM, &fresh.access, code).await.refusal(), CONFLICT, "too late");
        let older = post(app, TOTP, &fresh.access, json!({})).await.str("/secret");
        let newer = post(app, TOTP, &fresh.access, json!({})).await.str("/secret");
        let code = |secret: &str| json!({ "code": code_at(secret, app.clock.now()) });
        assert_eq!(post(app, CONFIRM, &fresh.access, code(&older)).await.refusal(), WRONG);
        assert_eq!(post(app, CONFIRM, &fresh.access, code(&newer)).await.status, 200);
        assert_eq!(post(app, CONFIRM, &fresh.access, code(&newer)).await.refusal(), CONFLICT, "once");
    }
}

both! {
    async fn a_phone_may_be_one_step_early_or_late_and_not_two(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        app.clock.advance(STEP * 3);
        let now = app.clock.now();
        for (what, at, status) in [
            ("two steps late", now - STEP * 2, 401),
            ("two steps early", now + STEP * 2, 401),
            ("one step late", now - STEP, 200),
            ("one step early", now + STEP, 200),
            ("older than one that was used", now, 401),
        ] {
            let token = half(app, &ada.email, PASSWORD).await;
            let answer = finish(app, &token, "totp", &code_at(&factor.secret, at)).await;
            assert_eq!(answer.status, status, "{what}: {}", answer.text);
        }
    }
}

both! {
    async fn a_code_is_good_once_wherever_it_is_shown(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        let refused = async |access: &str, code: &str| {
            let token = half(app, &ada.email, PASSWORD).await;
            assert_eq!(finish(app, &token, "totp", code).await.refusal(), WRONG);
            assert_eq!(reauthenticate(app, access, by_totp(code)).await.refusal(), WRONG);
        };
        refused(&ada.access, &factor.code(app)).await;
        sign_in(app, &ada.email, PASSWORD, &factor).await;
        refused(&ada.access, &factor.code(app)).await;
        let fresh = reauthenticate(app, &ada.access, by_totp(&factor.next(app))).await;
        assert_eq!(fresh.status, 200, "{}", fresh.text);
        refused(&ada.access, &factor.code(app)).await;
        app.clock.advance(STEP);
        let anew = enrol(app, &Person::of(&fresh)).await;
        refused(&ada.access, &anew.code(app)).await;
        app.clock.advance(STEP);
        refused(&ada.access, &factor.code(app)).await;
        sign_in(app, &ada.email, PASSWORD, &anew).await;
    }
}

both! {
    async fn a_recovery_code_lets_in_once_however_it_is_written(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        let spellings: [fn(&str) -> String; 4] =
            [str::to_owned, str::to_uppercase, |code| code.replace('-', ""), |code| code.to_uppercase().replace('-', " ")];
        for (n, code) in factor.recovery.iter().take(7).enumerate() {
            let written = spellings[n % 4](code);
            let entered = finish(app, &half(app, &ada.email, PASSWORD).await, "recovery_code", &written).await;
            is(&entered, 2, &["pwd", "otp", "mfa"]);
            for again in spellings {
                let token = half(app, &ada.email, PASSWORD).await;
                assert_eq!(finish(app, &token, "recovery_code", &again(code)).await.refusal(), WRONG, "once");
            }
            let left = 9 - n;
            assert_eq!(app.get_as(MFA, &ada.access).await.json["recovery_codes_left"], left);
            let mail = app.mail(&ada.email, "recovery_code_used", n + 1).await;
            assert!(mail.text.contains(&format!("There are {left} left")), "{}", mail.text);
            assert_eq!(mail.text.contains("make new ones"), left <= 3, "{}", mail.text);
        }
        let fresh = reauthenticate(app, &ada.access, json!({ "type": "recovery_code", "code": factor.recovery[7] })).await;
        assert_eq!(fresh.status, 200, "{}", fresh.text);
        app.sql("DELETE FROM recovery_codes").await;
        assert_eq!(app.login(&ada.email, PASSWORD).await.json["factors"], json!(["totp"]));
    }
}

both! {
    async fn a_new_set_of_recovery_codes_ends_the_old_one(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(post(app, CODES, &ada.access, json!({})).await.refusal(), CONFLICT, "without an app there are none");
        let factor = enrol(app, &ada).await;
        let anew = strings(&post(app, CODES, &ada.access, json!({})).await.json["recovery_codes"]);
        assert!(anew.len() == 10 && anew.iter().all(|code| !factor.recovery.contains(code)), "{anew:?}");
        let token = half(app, &ada.email, PASSWORD).await;
        assert_eq!(finish(app, &token, "recovery_code", &factor.recovery[0]).await.refusal(), WRONG);
        assert_eq!(finish(app, &token, "recovery_code", &anew[0]).await.status, 200);
        assert_eq!(app.count("SELECT COUNT(*) FROM recovery_codes WHERE LENGTH(digest) = 32").await, 9, "digests, one less");
        app.mail(&ada.email, "mfa_changed", 2).await;
    }
}

both! {
    async fn ten_wrong_codes_make_even_the_right_one_wait(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        let first = half(app, &ada.email, PASSWORD).await;
        let made_up = "k7mq-2vxa-9hrt-c4pw";
        for n in 0..10 {
            let code = factor.wrong(app);
            let answer = match n % 3 {
                0 => finish(app, &first, "totp", &code).await,
                1 => finish(app, &half(app, &ada.email, PASSWORD).await, "recovery_code", made_up).await,
                _ => reauthenticate(app, &ada.access, by_totp(&code)).await,
            };
            assert_eq!(answer.refusal(), WRONG, "try {n}");
        }
        let code = factor.next(app);
        for answer in [
            finish(app, &first, "totp", &code).await,
            finish(app, &half(app, &ada.email, PASSWORD).await, "recovery_code", &factor.recovery[0]).await,
            reauthenticate(app, &ada.access, by_totp(&code)).await,
        ] {
            assert_eq!((answer.refusal().as_str(), answer.header("retry-after")), (PAUSED, "30"));
        }
        app.clock.advance(STEP);
        assert_eq!(finish(app, &first, "totp", &factor.wrong(app)).await.refusal(), WRONG, "the eleventh");
        let longer = finish(app, &first, "totp", &factor.code(app)).await;
        assert_eq!((longer.refusal().as_str(), longer.header("retry-after")), (PAUSED, "120"));
        app.clock.advance(2 * MINUTE);
        assert_eq!(finish(app, &first, "totp", &factor.code(app)).await.status, 200, "nobody looked at it before");
        assert_eq!(app.get_as(MFA, &ada.access).await.json["recovery_codes_left"], 10);
        let token = half(app, &ada.email, PASSWORD).await;
        for _ in 0..10 {
            assert_eq!(finish(app, &token, "totp", &factor.wrong(app)).await.refusal(), WRONG, "it began anew");
        }
        app.mail(&ada.email, "mfa_failures", 2).await;
    }
}

both! {
    async fn a_hundred_wrong_codes_switch_the_factor_off(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        let token = half(app, &ada.email, PASSWORD).await;
        assert_eq!(finish(app, &token, "totp", &factor.wrong(app)).await.refusal(), WRONG);
        app.sql("UPDATE factor_failures SET failures = 99, blocked_until = 0").await;
        assert_eq!(finish(app, &token, "totp", &factor.wrong(app)).await.refusal(), WRONG, "the hundredth");
        let mail = app.mail(&ada.email, "mfa_failures", 1).await;
        assert!(mail.text.contains("switched off"), "{}", mail.text);
        assert_eq!(finish(app, &token, "totp", &factor.next(app)).await.refusal(), OFF);
        assert_eq!(finish(app, &token, "recovery_code", &factor.recovery[0]).await.refusal(), OFF);
        assert_eq!(reauthenticate(app, &ada.access, by_totp(&factor.code(app))).await.refusal(), OFF);
        assert_eq!(app.get_as(MFA, &ada.access).await.json["switched_off"], json!(["totp"]));
        let history = app.get_as("/v1/me/activity", &ada.access).await.text;
        assert!(history.contains("\"factor_switched_off\"") && history.contains("\"factor_failed\""), "{history}");
        // Whoever is still in, and showed it a moment ago, sets up another one.
        let anew = enrol(app, &ada).await;
        assert_eq!(app.get_as(MFA, &ada.access).await.json["switched_off"], json!([]));
        sign_in(app, &ada.email, PASSWORD, &anew).await;
    }
}

both_with! { true, "[mfa]\nemail_code = true\nemail_code_lifetime = \"1m\"";
    async fn a_code_by_mail_is_asked_of_whoever_chose_it(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(call(app, Method::DELETE, EMAIL_CODE, &ada.access).await.refusal(), "404 not_found");
        assert_eq!(call(app, Method::PUT, EMAIL_CODE, &ada.access).await.status, 204);
        app.mail(&ada.email, "mfa_changed", 1).await;
        assert_eq!(app.get_as(MFA, &ada.access).await.json["email_code"], true);
        let asked = app.login(&ada.email, PASSWORD).await;
        let token = due(&asked);
        assert_eq!(asked.json["factors"], json!(["email_code"]));
        let sent = challenge(app, &token).await;
        assert_eq!((sent.status, sent.json), (200, json!({ "status": "code_sent" })));
        let mail = app.mail(&ada.email, "mfa_code", 1).await;
        assert!(mail.code.len() == 6 && mail.links.is_empty(), "{}", mail.text);
        for kind in ["totp", "recovery_code"] {
            assert_eq!(finish(app, &token, kind, &mail.code).await.refusal(), WRONG, "{kind}");
        }
        assert_eq!(finish(app, &token, "email_code", wrong(&mail.code)).await.refusal(), WRONG);
        app.clock.advance(MINUTE - SECOND);
        let entered = finish(app, &token, "email_code", &mail.code).await;
        is(&entered, 1, &["pwd", "otp"]);
        assert_eq!(entered.json["user"]["mfa_enabled"], false);

        let token = half(app, &ada.email, PASSWORD).await;
        assert_eq!(finish(app, &token, "email_code", &mail.code).await.refusal(), WRONG, "once");
        assert_eq!(challenge(app, &token).await.status, 200);
        let mail = app.mail(&ada.email, "mfa_code", 2).await;
        app.clock.advance(MINUTE);
        assert_eq!(finish(app, &token, "email_code", &mail.code).await.refusal(), WRONG, "too old");

        // The link comes to the mailbox that the code would come to.
        is(&consume(app, &magic_link(app, &ada.email, 1).await).await, 1, &["otp"]);
        assert_eq!(call(app, Method::DELETE, EMAIL_CODE, &ada.access).await.status, 204);
        assert_eq!(app.login(&ada.email, PASSWORD).await.str("/status"), "authenticated");
        app.mail(&ada.email, "mfa_changed", 2).await;
        let history = app.get_as("/v1/me/activity", &ada.access).await.text;
        assert!(history.contains("\"email_code_on\"") && history.contains("\"email_code_off\""), "{history}");
    }
}

both_with! { true, "[mfa]\nemail_code = true";
    async fn an_app_takes_the_place_of_the_code_by_mail(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(call(app, Method::PUT, EMAIL_CODE, &ada.access).await.status, 204);
        let before = half(app, &ada.email, PASSWORD).await;
        enrol(app, &ada).await;
        assert_eq!(challenge(app, &before).await.refusal(), USED_UP);
        let asked = app.login(&ada.email, PASSWORD).await;
        assert_eq!(asked.json["factors"], json!(["totp", "recovery_code"]));
        assert_eq!(challenge(app, &due(&asked)).await.refusal(), WRONG);
        assert_eq!(app.get_as(MFA, &ada.access).await.json["email_code"], false);
        assert_eq!(call(app, Method::PUT, EMAIL_CODE, &ada.access).await.refusal(), CONFLICT);
        due(&consume(app, &magic_link(app, &ada.email, 1).await).await);
        app.quiet().await;
        assert_eq!(mails(app, &ada.email, "mfa_code"), 0);
    }
}

both_with! { true, "[mfa]\nemail_code = true";
    async fn another_mail_gives_no_more_guesses(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(call(app, Method::PUT, EMAIL_CODE, &ada.access).await.status, 204);
        let token = half(app, &ada.email, PASSWORD).await;
        let mut code = String::new();
        for n in 0..10 {
            if n % 4 == 0 {
                assert_eq!(challenge(app, &token).await.status, 200);
                code = app.mail(&ada.email, "mfa_code", n / 4 + 1).await.code;
            }
            assert_eq!(finish(app, &token, "email_code", wrong(&code)).await.refusal(), WRONG, "try {n}");
        }
        let waits = finish(app, &token, "email_code", &code).await;
        assert_eq!((waits.refusal().as_str(), waits.header("retry-after")), (PAUSED, "60"));
        app.mail(&ada.email, "mfa_failures", 1).await;
        app.clock.advance(MINUTE);
        assert_eq!(finish(app, &token, "email_code", &code).await.status, 200);
        // A mailbox takes only so many.
        let token = half(app, &ada.email, PASSWORD).await;
        let mut answers = Vec::new();
        for _ in 0..6 {
            answers.push(challenge(app, &token).await.refusal());
        }
        assert_eq!(answers.last().unwrap(), PAUSED);
    }
}

both! {
    async fn where_it_is_off_nobody_chooses_a_code_by_mail(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(call(app, Method::PUT, EMAIL_CODE, &ada.access).await.refusal(), CONFLICT);
        assert_eq!(app.login(&ada.email, PASSWORD).await.str("/status"), "authenticated");
    }
}

both! {
    async fn half_sign_ins_stand_side_by_side_and_each_is_finished_once(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        let mut halves = Vec::new();
        for _ in 0..3 {
            halves.push(half(app, &ada.email, PASSWORD).await);
        }
        for token in &halves {
            assert_eq!(finish(app, token, "totp", &factor.wrong(app)).await.refusal(), WRONG, "it lives on");
            assert_eq!(finish(app, token, "totp", &factor.next(app)).await.status, 200);
            assert_eq!(finish(app, token, "totp", &factor.next(app)).await.refusal(), USED_UP);
        }
        let unknown = format!("pgm_{}", "A".repeat(43));
        assert_eq!(finish(app, &unknown, "totp", "000000").await.refusal(), USED_UP);
        for garbage in ["x", "pgm_x", &ada.access, &ada.refresh, &ada.session] {
            assert_eq!(finish(app, garbage, "totp", "000000").await.refusal(), "401 token_invalid", "{garbage}");
        }
        let token = half(app, &ada.email, PASSWORD).await;
        let code = factor.next(app);
        for body in [
            json!({}),
            json!({ "mfa_token": token }),
            json!({ "mfa_token": token, "code": code }),
            json!({ "mfa_token": token, "type": "totp" }),
            json!({ "mfa_token": token, "type": "sms", "code": code }),
            json!({ "mfa_token": token, "type": "totp", "code": code, "remember": true }),
            json!({ "mfa_token": token, "type": "totp", "code": code, "trust_device": true }),
        ] {
            assert_eq!(app.post("/v1/auth/mfa", body.clone()).await.refusal(), "422 validation_failed", "{body}");
        }
        assert_eq!(finish(app, &token, "totp", &code).await.status, 200, "none of that used anything up");
    }
}

both! {
    async fn a_half_sign_in_lives_five_minutes(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        for (life, result) in [(5 * MINUTE - SECOND, "200 -"), (5 * MINUTE, USED_UP)] {
            let token = half(app, &ada.email, PASSWORD).await;
            app.clock.advance(life);
            assert_eq!(finish(app, &token, "totp", &factor.code(app)).await.refusal(), result);
        }
    }
}

both! {
    async fn a_half_sign_in_dies_with_what_it_stood_on(app: &TestApp) {
        for (n, event) in ["password", "reset", "suspended", "codes", "anew", "removed", "not me"].into_iter().enumerate() {
            let ada = app.person(&format!("ada{n}@example.com")).await;
            let factor = enrol(app, &ada).await;
            let token = half(app, &ada.email, PASSWORD).await;
            match event {
                "password" => assert_eq!(change_password(app, &ada.access).await.status, 200),
                "reset" => {
                    let mail = forgot(app, &ada.email, 1).await;
                    assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200);
                }
                "suspended" => {
                    let user = user_of(app, &ada).await;
                    pearlgate::accounts::suspend(&app.app, user, "spam").await.unwrap().unwrap();
                }
                "codes" => assert_eq!(post(app, CODES, &ada.access, json!({})).await.status, 200),
                "anew" => {
                    app.clock.advance(STEP);
                    enrol(app, &ada).await;
                }
                "removed" => assert_eq!(call(app, Method::DELETE, TOTP, &ada.access).await.status, 204),
                _ => {
                    let mail = app.mail(&ada.email, "mfa_changed", 1).await;
                    assert_eq!(Tab::open(app, &mail.links[0]).await.0.press(app).await.status, 200);
                }
            }
            let refusal = finish(app, &token, "totp", &factor.next(app)).await.refusal();
            let told = event == "suspended" && refusal == "403 account_suspended";
            assert!(refusal == USED_UP || told, "{event}: {refusal}");
        }
    }
}

both! {
    async fn both_steps_go_the_same_way(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        for (first, other) in [("cookie", "token"), ("token", "cookie")] {
            let body = json!({ "email": ada.email, "password": PASSWORD, "transport": first, "device_name": "Ada's laptop" });
            let asked = app.post("/v1/auth/login", body).await;
            let token = due(&asked);
            assert_eq!(cookies(&asked), Vec::<String>::new(), "nobody is in yet");
            let code = factor.next(app);
            let with = |transport: &str| json!({ "mfa_token": token, "type": "totp", "code": code, "transport": transport });
            let refused = app.post("/v1/auth/mfa", with(other)).await;
            assert!(refused.status == 422 && refused.fields()[0].starts_with("transport:"), "{}", refused.text);
            assert_eq!(cookies(&refused), Vec::<String>::new());
            let entered = if first == "cookie" { finish(app, &token, "totp", &code).await } else { app.post("/v1/auth/mfa", with(first)).await };
            is(&entered, 2, &["pwd", "otp", "mfa"]);
            let set = cookies(&entered);
            let session = set.iter().find(|cookie| cookie.starts_with("__Host-pearlgate-session=pgr_"));
            assert_eq!((session.is_some(), entered.json.get("refresh_token").is_none()), (first == "cookie", first == "cookie"));
            if let Some(session) = session {
                let mine = app.request(Method::GET, SESSIONS).header("cookie", session.split(';').next().unwrap());
                assert_eq!(app.send(mine).await.str("/items/0/device/name"), "Ada's laptop");
            }
        }
    }
}

both! {
    async fn a_magic_link_leads_to_the_second_factor(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        let asked = consume(app, &magic_link(app, &ada.email, 1).await).await;
        assert_eq!(asked.json["factors"], json!(["totp", "recovery_code"]));
        let entered = finish(app, &due(&asked), "totp", &factor.next(app)).await;
        is(&entered, 1, &["otp", "mfa"]);
        let entered = Person::of(&entered);
        assert_eq!(post(app, CODES, &entered.access, json!({})).await.refusal(), NOT_FRESH, "the password was not shown");
        let both = reauthenticate(app, &entered.access, json!({ "password": PASSWORD })).await;
        assert_eq!(both.json["session"]["aal"], 2, "{}", both.text);
        assert_eq!(post(app, CODES, &both.str("/access_token"), json!({})).await.status, 200);
    }
}

both! {
    async fn the_page_behind_a_magic_link_asks_for_the_factor(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        let in_session = |answer: &Answer| cookies(answer).iter().any(|cookie| cookie.starts_with("__Host-pearlgate-session=pgr_"));
        for (n, kind) in ["totp", "recovery_code"].into_iter().enumerate() {
            let link = magic_link(app, &ada.email, n + 1).await.links[0].clone();
            let moved = Tab::open(app, &link).await.0.press(app).await;
            assert_eq!((moved.status, moved.header("location"), in_session(&moved)), (303, "/mfa", false), "{}", moved.text);
            let set = cookies(&moved);
            let cookie = set.iter().find(|cookie| cookie.starts_with("__Host-pearlgate-mfa=")).unwrap();
            for part in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
                assert!(cookie.contains(part), "{cookie}");
            }
            let cookie = cookie.split(';').next().unwrap();
            let page = app.send(app.request(Method::GET, "/mfa").header("cookie", cookie)).await;
            assert!(page.status == 200 && page.text.contains("<form"), "{}", page.text);
            let shown_for = page.text.split("name=\"link\" value=\"").nth(1).unwrap().split('"').next().unwrap();
            let submit = |origin: &str, code: &str| {
                let form = app.request(Method::POST, "/mfa").header("cookie", cookie).header("origin", origin);
                let form = form.header("content-type", "application/x-www-form-urlencoded");
                app.send(form.body(format!("link={shown_for}&code={code}&type={kind}")))
            };
            let right = if kind == "totp" { factor.next(app) } else { factor.recovery[0].clone() };
            assert_eq!(submit("https://evil.example", &right).await.refusal(), "403 permission_denied");
            let again = submit(&app.url, &factor.wrong(app)).await;
            assert!(again.text.contains("<form") && !in_session(&again), "{}", again.text);
            let done = submit(&app.url, &right).await;
            assert!(done.status == 200 && in_session(&done) && !done.text.contains("<form"), "{}", done.text);
            let twice = submit(&app.url, &right).await;
            assert!(!in_session(&twice) && !twice.text.contains("<form"), "{}", twice.text);
        }
        let nothing = app.get("/mfa").await;
        assert!(!nothing.text.contains("<form"), "{}", nothing.text);
    }
}

both_with! { true, "[mfa]\nrequired = \"everyone\"\ngrace = \"0s\"";
    async fn whoever_has_no_grace_sets_one_up_before_they_are_in(app: &TestApp) {
        let verification = app.register("ada@example.com").await.str("/verification_id");
        let code = app.mail("ada@example.com", "verify_email", 1).await.code;
        let asked = app.post("/v1/auth/verify-email", json!({ "verification_id": verification, "code": code })).await;
        assert_eq!((&asked.json["factors"], &asked.json["enrolment"]), (&json!([]), &json!(["totp"])), "{}", asked.text);
        let token = due(&asked);
        let begun = app.post("/v1/auth/mfa/totp", json!({ "mfa_token": token })).await;
        let factor = Factor { secret: begun.str("/secret"), recovery: Vec::new() };
        assert!(begun.str("/otpauth_uri").contains(&factor.secret) && begun.str("/qr_svg").starts_with("<svg"));
        assert_eq!(finish(app, &token, "totp", &factor.code(app)).await.refusal(), WRONG, "it is not confirmed");
        let confirm = |token: &str, code: &str| json!({ "mfa_token": token, "code": code });
        let path = "/v1/auth/mfa/totp/confirm";
        assert_eq!(app.post(path, confirm(&token, &factor.wrong(app))).await.refusal(), WRONG);
        assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 0);
        let entered = app.post(path, confirm(&token, &factor.code(app))).await;
        is(&entered, 2, &["pwd", "otp", "mfa"]);
        assert_eq!(strings(&entered.json["recovery_codes"]).len(), 10);
        assert_eq!(app.post(path, confirm(&token, &factor.next(app))).await.refusal(), USED_UP);

        // The same door sets up nothing beside a factor that is there.
        let token = half(app, "ada@example.com", PASSWORD).await;
        let begin = app.post("/v1/auth/mfa/totp", json!({ "mfa_token": token })).await;
        assert_eq!(begin.refusal(), "403 permission_denied");
        assert_eq!(app.post(path, confirm(&token, "000000")).await.refusal(), "403 permission_denied");
        sign_in(app, "ada@example.com", PASSWORD, &factor).await;
        let access = entered.str("/access_token");
        assert_eq!(call(app, Method::DELETE, TOTP, &access).await.refusal(), CONFLICT, "policy keeps it");
    }
}

both_with! { true, "[mfa]\nrequired = \"everyone\"";
    async fn who_sets_none_up_in_time_is_out_until_they_do(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let eve = app.person("eve@example.com").await;
        let factor = enrol(app, &eve).await;
        let told = app.get_as(MFA, &ada.access).await;
        assert_eq!((&told.json["required"], told.str("/required_from")), (&json!(true), (START + 7 * DAY).to_string()));
        assert_eq!(call(app, Method::DELETE, TOTP, &eve.access).await.refusal(), CONFLICT);
        app.quiet().await;
        app.clock.advance(7 * DAY - SECOND);
        assert_eq!(app.login(&ada.email, PASSWORD).await.str("/status"), "authenticated");
        app.quiet().await;
        app.clock.advance(SECOND);
        let asked = app.login(&ada.email, PASSWORD).await;
        assert_eq!((&asked.json["factors"], &asked.json["enrolment"]), (&json!([]), &json!(["totp"])), "{}", asked.text);
        let out = "SELECT COUNT(*) FROM ended_sessions WHERE reason = 'revoked_by_admin'";
        app.until("her sessions have ended", || async { app.count(out).await == 2 }).await;
        assert_eq!(app.refresh(&ada.refresh).await.str("/reason"), "revoked_by_admin");
        is(&app.refresh(&eve.refresh).await, 2, &["pwd", "otp", "mfa"]);
        sign_in(app, &eve.email, PASSWORD, &factor).await;
        let by_mail = consume(app, &magic_link(app, &ada.email, 1).await).await;
        assert_eq!(by_mail.json["enrolment"], json!(["totp"]), "a link is no way around it: {}", by_mail.text);

        let token = due(&asked);
        let secret = app.post("/v1/auth/mfa/totp", json!({ "mfa_token": token })).await.str("/secret");
        let body = json!({ "mfa_token": token, "code": code_at(&secret, app.clock.now()), "device_name": "Ada's laptop" });
        let entered = app.post("/v1/auth/mfa/totp/confirm", body).await;
        is(&entered, 2, &["pwd", "otp", "mfa"]);
        let list = app.get_as(SESSIONS, &entered.str("/access_token")).await;
        assert_eq!(list.str("/items/0/device/name"), "Ada's laptop");
    }
}

both_with! { true, "[mfa]\nrequired_roles = [\"staff\"]\ngrace = \"1h\"";
    async fn a_role_can_demand_a_factor(app: &TestApp) {
        let mut people = Vec::new();
        for name in ["staff", "admin", "student"] {
            let person = app.person(&format!("{name}@example.com")).await;
            grant(app, &person, name).await;
            people.push(Person::of(&app.login(&person.email, PASSWORD).await));
        }
        let until = (app.clock.now() + HOUR).to_string();
        for (person, required) in people.iter().zip([true, true, false]) {
            let told = app.get_as(MFA, &person.access).await;
            assert_eq!(told.json["required"], required, "{}", person.email);
            assert_eq!(told.json.get("required_from"), required.then(|| json!(until)).as_ref(), "{}", person.email);
        }
        app.quiet().await;
        app.clock.advance(HOUR);
        for (person, status) in people.iter().zip(["mfa_required", "mfa_required", "authenticated"]) {
            assert_eq!(app.login(&person.email, PASSWORD).await.str("/status"), status, "{}", person.email);
        }
    }
}

both_with! { true, "[mfa]\noperators = false";
    async fn operators_can_be_left_without_a_factor(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        grant(app, &ada, "admin").await;
        assert_eq!(app.login(&ada.email, PASSWORD).await.str("/status"), "authenticated");
        assert_eq!(app.get_as(MFA, &ada.access).await.json["required"], false);
    }
}

both! {
    async fn an_application_can_ask_for_more_before_it_goes_on(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let refresh = |token: &str, more: Value| {
            let mut body = json!({ "refresh_token": token });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            app.post("/v1/auth/refresh", body)
        };
        let rotated = "SELECT rotated_at FROM refresh_tokens";
        let before = app.count(rotated).await;
        app.clock.advance(STEP);
        for wanted in [json!({ "aal": 2 }), json!({ "max_age": 29 }), json!({ "aal": 1, "max_age": 29 })] {
            assert_eq!(refresh(&ada.refresh, wanted).await.refusal(), NOT_FRESH);
        }
        for nonsense in [json!({ "aal": 0 }), json!({ "aal": 3 })] {
            assert_eq!(refresh(&ada.refresh, nonsense).await.refusal(), "422 validation_failed");
        }
        assert_eq!(app.count(rotated).await, before, "a refusal uses nothing up");
        let next = Person::of(&refresh(&ada.refresh, json!({ "aal": 1, "max_age": 30 })).await);
        let old = Person::of(&app.login(&ada.email, PASSWORD).await);
        let factor = enrol(app, &next).await;
        is(&refresh(&next.refresh, json!({ "aal": 2 })).await, 2, &["pwd", "otp", "mfa"]);

        assert_eq!(refresh(&old.refresh, json!({ "aal": 2 })).await.refusal(), NOT_FRESH, "it has not shown the factor");
        let shown = reauthenticate(app, &old.access, by_totp(&factor.next(app))).await;
        is(&shown, 2, &["pwd", "otp", "mfa"]);
        assert_eq!(shown.str("/session/id"), old.session);
        is(&refresh(&shown.str("/refresh_token"), json!({ "aal": 2, "max_age": 1 })).await, 2, &["pwd", "otp", "mfa"]);
    }
}

both! {
    async fn with_a_factor_the_password_alone_proves_too_little(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        app.clock.advance(10 * MINUTE + SECOND);
        let stale = Person::of(&app.refresh(&ada.refresh).await);
        let code = factor.code(app);
        for body in [
            json!({}),
            json!({ "type": "totp" }),
            json!({ "code": code }),
            json!({ "type": "email_code", "code": code }),
            json!({ "password": PASSWORD, "type": "totp", "code": code }),
        ] {
            let refused = reauthenticate(app, &stale.access, body.clone()).await;
            assert_eq!(refused.refusal(), "422 validation_failed", "{body}");
        }
        let end_others = async |access: &str| call(app, Method::DELETE, SESSIONS, access).await.refusal();
        let again = Person::of(&reauthenticate(app, &stale.access, json!({ "password": PASSWORD })).await);
        assert_eq!(end_others(&again.access).await, NOT_FRESH);
        app.clock.advance(SECOND);
        let shown = Person::of(&reauthenticate(app, &again.access, by_totp(&code)).await);
        assert_eq!(end_others(&again.access).await, NOT_FRESH, "who copied a token from before has shown nothing");
        assert_eq!(end_others(&shown.access).await, "204 -");
        app.clock.advance(10 * MINUTE + SECOND);
        let stale = Person::of(&app.refresh(&shown.refresh).await);
        let shown = Person::of(&reauthenticate(app, &stale.access, by_totp(&factor.code(app))).await);
        assert_eq!(end_others(&shown.access).await, "204 -", "the code alone is a proof and a factor");
    }
}

/// Signs in with the next code and has the device trusted.
async fn trust(app: &TestApp, email: &str, factor: &Factor) -> Answer {
    let token = half(app, email, PASSWORD).await;
    let body = json!({ "mfa_token": token, "type": "totp", "code": factor.next(app), "trust_device": true });
    let trusted = app.post("/v1/auth/mfa", body).await;
    is(&trusted, 2, &["pwd", "otp", "mfa"]);
    trusted
}

async fn login_on(app: &TestApp, email: &str, password: &str, device: &str) -> Answer {
    app.post("/v1/auth/login", json!({ "email": email, "password": password, "device_token": device })).await
}

both_with! { true, "[mfa]\ntrusted_device = \"30d\"";
    async fn a_trusted_device_needs_the_password_alone(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        let known = sign_in(app, &ada.email, PASSWORD, &factor).await.str("/device_token");
        due(&login_on(app, &ada.email, PASSWORD, &known).await);
        let trusted = trust(app, &ada.email, &factor).await;
        let until = app.clock.now() + 30 * DAY;
        let list = app.get_as(SESSIONS, &trusted.str("/access_token")).await;
        assert_eq!(list.str("/items/0/trusted_until"), until.to_string());
        assert!(list.json["items"][1].get("trusted_until").is_none(), "{}", list.text);
        let device = trusted.str("/device_token");
        let entered = login_on(app, &ada.email, PASSWORD, &device).await;
        is(&entered, 1, &["pwd"]);
        let entered = Person::of(&entered);
        assert_eq!(post(app, CODES, &entered.access, json!({})).await.refusal(), NOT_FRESH);
        let shown = reauthenticate(app, &entered.access, by_totp(&factor.next(app))).await;
        is(&shown, 2, &["pwd", "otp", "mfa"]);
        assert_eq!(login_on(app, &ada.email, "not the password", &device).await.refusal(), "401 invalid_credentials");
        due(&app.login(&ada.email, PASSWORD).await);
        let history = app.get_as("/v1/me/activity", &shown.str("/access_token")).await.text;
        assert!(history.contains("\"device_trusted\""), "{history}");
        app.quiet().await;
        app.clock.set(until - SECOND);
        is(&login_on(app, &ada.email, PASSWORD, &device).await, 1, &["pwd"]);
        app.quiet().await;
        app.clock.advance(SECOND);
        due(&login_on(app, &ada.email, PASSWORD, &device).await);
    }
}

both_with! { true, "[mfa]\ntrusted_device = \"30d\"";
    async fn trust_ends_with_whatever_casts_doubt(app: &TestApp) {
        let ways = ["session", "others", "password", "reset", "codes", "anew", "removed", "not me", "disowned"];
        for (n, way) in ways.into_iter().enumerate() {
            let ada = app.person(&format!("ada{n}@example.com")).await;
            let factor = enrol(app, &ada).await;
            let trusted = trust(app, &ada.email, &factor).await;
            let device = trusted.str("/device_token");
            is(&login_on(app, &ada.email, PASSWORD, &device).await, 1, &["pwd"]);
            let session = format!("{SESSIONS}/{}", trusted.str("/session/id"));
            let mut password = Some(PASSWORD);
            match way {
                "session" => assert_eq!(call(app, Method::DELETE, &session, &ada.access).await.status, 204),
                "others" => assert_eq!(call(app, Method::DELETE, SESSIONS, &ada.access).await.status, 204),
                "password" => {
                    assert_eq!(change_password(app, &ada.access).await.status, 200);
                    password = Some(NEW);
                }
                "reset" => {
                    let mail = forgot(app, &ada.email, 1).await;
                    assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200);
                    password = Some(NEW);
                }
                "codes" => assert_eq!(post(app, CODES, &ada.access, json!({})).await.status, 200),
                "anew" => {
                    app.clock.advance(STEP);
                    enrol(app, &ada).await;
                }
                "removed" => {
                    assert_eq!(call(app, Method::DELETE, TOTP, &ada.access).await.status, 204);
                    password = None;
                }
                _ => {
                    let kind = if way == "disowned" { "new_device" } else { "mfa_changed" };
                    let mail = app.mail(&ada.email, kind, 1).await;
                    assert_eq!(Tab::open(app, &mail.links[0]).await.0.press(app).await.status, 200);
                    password = None;
                }
            }
            assert_eq!(app.count("SELECT COUNT(*) FROM trusted_devices").await, 0, "{way}");
            if let Some(password) = password {
                due(&login_on(app, &ada.email, password, &device).await);
            }
        }
    }
}

both! {
    async fn each_change_is_told_and_what_stood_on_the_factor_goes_with_it(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(call(app, Method::DELETE, TOTP, &ada.access).await.refusal(), "404 not_found");
        let factor = enrol(app, &ada).await;
        let other = Person::of(&sign_in(app, &ada.email, PASSWORD, &factor).await);
        assert_eq!(post(app, CODES, &ada.access, json!({})).await.status, 200);
        app.clock.advance(STEP);
        let begun = post(app, TOTP, &ada.access, json!({})).await.str("/secret");
        let anew = enrol(app, &ada).await;
        assert_eq!(post(app, CONFIRM, &ada.access, json!({ "code": code_at(&begun, app.clock.now()) })).await.refusal(), CONFLICT);
        let token = half(app, &ada.email, PASSWORD).await;
        assert_eq!(finish(app, &token, "totp", &factor.next(app)).await.refusal(), WRONG, "of the app before");
        assert_eq!(finish(app, &token, "totp", &anew.code(app)).await.status, 200);

        assert_eq!(call(app, Method::DELETE, TOTP, &ada.access).await.status, 204);
        assert_eq!(call(app, Method::DELETE, TOTP, &ada.access).await.refusal(), "404 not_found");
        assert_eq!(app.count("SELECT COUNT(*) FROM recovery_codes").await, 0);
        let list = app.get_as(SESSIONS, &ada.access).await;
        let levels: Vec<&Value> = list.json["items"].as_array().unwrap().iter().map(|item| &item["aal"]).collect();
        assert_eq!(levels, [1, 1, 1], "nobody has shown a factor that is there");
        assert_eq!(app.refresh(&other.refresh).await.json["session"]["aal"], 1);
        let entered = app.login(&ada.email, PASSWORD).await;
        is(&entered, 1, &["pwd"]);
        assert_eq!(entered.json["user"]["mfa_enabled"], false);
        app.mail(&ada.email, "mfa_changed", 4).await;
        app.quiet().await;
        assert_eq!(mails(app, &ada.email, "mfa_changed"), 4);
        let history = app.get_as("/v1/me/activity", &ada.access).await.text;
        for kind in ["factor_added", "recovery_codes_made", "factor_replaced", "factor_removed"] {
            assert!(history.contains(&format!("\"{kind}\"")), "{kind}: {history}");
        }
    }
}

both! {
    async fn who_did_not_add_a_factor_takes_it_away_by_the_mail(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let thief = Person::of(&app.login(&ada.email, PASSWORD).await);
        enrol(app, &thief).await;
        let mail = app.mail(&ada.email, "mfa_changed", 1).await;
        assert!(mail.links.len() == 1 && mail.links[0].contains("/not-me?token="), "{}", mail.text);
        let (tab, page) = Tab::open(app, &mail.links[0]).await;
        assert!(page.text.contains("<form"), "{}", page.text);
        assert_eq!(tab.press(app).await.status, 200);
        for person in [&ada, &thief] {
            assert_eq!(ended(app, &person.access).await, "revoked_by_user");
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM totp_factors").await, 0);
        assert_eq!(app.count("SELECT COUNT(*) FROM recovery_codes").await, 0);
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "422 validation_failed", "the password was known");
        let way_back = app.mail(&ada.email, "password_reset", 1).await;
        assert_eq!(reset(app, by_link(&way_back, NEW)).await.status, 200);
        is(&app.login(&ada.email, NEW).await, 1, &["pwd"]);

        let eve = app.person("eve@example.com").await;
        enrol(app, &eve).await;
        let mail = app.mail(&eve.email, "mfa_changed", 1).await;
        app.quiet().await;
        app.clock.advance(DAY);
        let (tab, page) = Tab::open(app, &mail.links[0]).await;
        assert!(page.text.contains("does not work any more"), "{}", page.text);
        assert_eq!(tab.press(app).await.status, 422);
        due(&app.login(&eve.email, PASSWORD).await);
    }
}

/// An operator was asked to take somebody's factors away; the `count`th mail that tells of it.
async fn announce(app: &TestApp, person: &Person, count: usize) -> Kept {
    let user = user_of(app, person).await;
    assert!(pearlgate::mfa::announce_reset(&app.app, user).await.unwrap());
    let mail = app.mail(&person.email, "factor_reset", count).await;
    assert!(mail.links.len() == 1 && mail.links[0].contains("/not-me?token=pgk_"), "{}", mail.text);
    mail
}

both! {
    async fn an_operator_takes_lost_factors_away_after_three_days(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        enrol(app, &ada).await;
        announce(app, &ada, 1).await;
        let due_at = app.clock.now() + 3 * DAY;
        assert_eq!(app.get_as(MFA, &ada.access).await.str("/reset_due_at"), due_at.to_string());
        let history = app.get_as("/v1/me/activity", &ada.access).await.text;
        assert!(history.contains("\"factors_reset_announced\""), "{history}");
        due(&app.login(&ada.email, PASSWORD).await);
        app.quiet().await;
        app.clock.advance(3 * DAY - SECOND);
        app.quiet().await;
        due(&app.login(&ada.email, PASSWORD).await);
        app.clock.advance(SECOND);
        app.until("the factor is gone", || async { app.count("SELECT COUNT(*) FROM totp_factors").await == 0 }).await;
        app.quiet().await;
        assert_eq!(app.count("SELECT COUNT(*) FROM recovery_codes").await, 0);
        assert_eq!(app.refresh(&ada.refresh).await.refusal(), "401 session_ended");
        let entered = app.login(&ada.email, PASSWORD).await;
        is(&entered, 1, &["pwd"]);
        app.mail(&ada.email, "mfa_changed", 2).await;
        let history = app.get_as("/v1/me/activity", &entered.str("/access_token")).await.text;
        assert!(history.contains("\"factors_reset\""), "{history}");
    }
}

both! {
    async fn the_owner_or_the_operator_takes_a_reset_back(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        for (n, way) in ["link", "sign-in", "reauthentication", "operator"].into_iter().enumerate() {
            let mail = announce(app, &ada, n + 1).await;
            match way {
                "link" => {
                    let (tab, page) = Tab::open(app, &mail.links[0]).await;
                    assert!(page.text.contains("<form"), "{}", page.text);
                    assert_eq!(app.count("SELECT COUNT(*) FROM factor_resets").await, 1, "looking takes nothing back");
                    assert_eq!(tab.press(app).await.status, 200);
                }
                "sign-in" => {
                    sign_in(app, &ada.email, PASSWORD, &factor).await;
                }
                "reauthentication" => {
                    assert_eq!(reauthenticate(app, &ada.access, by_totp(&factor.next(app))).await.status, 200);
                }
                _ => {
                    let user = user_of(app, &ada).await;
                    assert!(pearlgate::mfa::cancel_reset(&app.app, user).await.unwrap());
                    assert!(!pearlgate::mfa::cancel_reset(&app.app, user).await.unwrap());
                }
            }
            assert_eq!(app.count("SELECT COUNT(*) FROM factor_resets").await, 0, "{way}");
            assert!(app.get_as(MFA, &ada.access).await.json.get("reset_due_at").is_none(), "{way}");
        }
        let history = app.get_as("/v1/me/activity", &ada.access).await.text;
        assert!(history.contains("\"factors_reset_cancelled\""), "{history}");
        app.quiet().await;
        app.clock.advance(4 * DAY);
        app.quiet().await;
        sign_in(app, &ada.email, PASSWORD, &factor).await;
    }
}

both_with! { true, "[mfa]\nrequired = \"everyone\"";
    async fn after_a_reset_policy_asks_for_a_new_factor_at_once(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        enrol(app, &ada).await;
        announce(app, &ada, 1).await;
        app.quiet().await;
        app.clock.advance(3 * DAY);
        app.until("the factor is gone", || async { app.count("SELECT COUNT(*) FROM totp_factors").await == 0 }).await;
        let asked = app.login(&ada.email, PASSWORD).await;
        assert_eq!(asked.json["enrolment"], json!(["totp"]), "{}", asked.text);
    }
}

both! {
    async fn an_operator_who_shows_a_factor_late_has_the_short_life_all_the_same(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        grant(app, &ada, "admin").await;
        assert_eq!(app.refresh(&ada.refresh).await.json["refresh_expires_in"], 30 * 86_400, "without a factor she is as anybody");
        let again = app.login(&ada.email, PASSWORD).await;
        let factor = enrol(app, &Person::of(&again)).await;
        let strong = app.refresh(&again.str("/refresh_token")).await;
        assert_eq!((&strong.json["session"]["aal"], &strong.json["refresh_expires_in"]), (&json!(2), &json!(3_600)));
        app.forgive().await;
        // By a mailed link and the app first, and the password later.
        let asked = due(&consume(app, &magic_link(app, &ada.email, 1).await).await);
        let weak = finish(app, &asked, "totp", &factor.next(app)).await;
        assert_eq!((&weak.json["session"]["aal"], &weak.json["refresh_expires_in"]), (&json!(1), &json!(30 * 86_400)));
        let strong = reauthenticate(app, &weak.str("/access_token"), json!({ "password": PASSWORD })).await;
        assert_eq!((&strong.json["session"]["aal"], &strong.json["refresh_expires_in"]), (&json!(2), &json!(3_600)));
        assert!(strong.str("/session/expires_at") <= (app.clock.now() + DAY).to_string());
    }
}

both! {
    async fn replacing_a_planted_app_at_once_keeps_it_no_longer(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        enrol(app, &ada).await;
        let told = app.mail(&ada.email, "mfa_changed", 1).await;
        app.clock.advance(MINUTE);
        enrol(app, &ada).await;
        assert!(app.mail(&ada.email, "mfa_changed", 2).await.links.is_empty(), "one app in the place of another has no way back");
        let (tab, page) = Tab::open(app, &told.links[0]).await;
        assert!(page.text.contains("<form"), "{}", page.text);
        assert_eq!(tab.press(app).await.status, 200);
        let left = "SELECT (SELECT COUNT(*) FROM totp_factors) + (SELECT COUNT(*) FROM recovery_codes) + (SELECT COUNT(*) FROM sessions)";
        assert_eq!(app.count(left).await, 0);
    }
}

both! {
    async fn what_waits_for_a_second_step_is_bounded(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        let mut tokens = Vec::new();
        for _ in 0..53 {
            tokens.push(half(app, &ada.email, PASSWORD).await);
            app.clock.advance(Duration::from_micros(1));
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM half_logins").await, 50);
        let code = factor.next(app);
        assert_eq!(finish(app, &tokens[2], "totp", &code).await.refusal(), USED_UP, "the oldest went");
        assert_eq!(finish(app, &tokens[3], "totp", &code).await.status, 200);
    }
}

both_with! { true, "[mfa]\nemail_code = true";
    async fn a_mailed_code_dies_with_the_password_and_nobody_else_is_mailed_one(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(call(app, Method::PUT, EMAIL_CODE, &ada.access).await.status, 204);
        let token = half(app, &ada.email, PASSWORD).await;
        assert_eq!(challenge(app, &token).await.status, 200);
        let mail = app.mail(&ada.email, "mfa_code", 1).await;
        assert_eq!(change_password(app, &ada.access).await.status, 200);
        let token = half(app, &ada.email, NEW).await;
        assert_eq!(finish(app, &token, "email_code", &mail.code).await.refusal(), WRONG);

        let eve = app.person("eve@example.com").await;
        enrol(app, &eve).await;
        let token = half(app, &eve.email, PASSWORD).await;
        for _ in 0..7 {
            assert_eq!(challenge(app, &token).await.refusal(), WRONG);
        }
        app.quiet().await;
        assert_eq!(mails(app, &eve.email, "mfa_code"), 0);
        assert_eq!(app.count("SELECT COUNT(*) FROM mails_asked WHERE kind = 'second_step'").await, 1, "hers alone");
    }
}

both! {
    async fn who_did_not_sign_in_takes_back_what_was_added_there(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.clock.advance(2 * MINUTE);
        let thief = app.login(&ada.email, PASSWORD).await;
        let told = app.mail(&ada.email, "new_device", 1).await;
        app.clock.advance(MINUTE);
        enrol(app, &Person::of(&thief)).await;
        let (tab, _) = Tab::open(app, &told.links[0]).await;
        assert_eq!(tab.press(app).await.status, 200);
        let left = "SELECT (SELECT COUNT(*) FROM totp_factors) + (SELECT COUNT(*) FROM recovery_codes)";
        assert_eq!(app.count(left).await, 0);
        let mail = app.mail(&ada.email, "password_reset", 1).await;
        assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200);
        is(&app.login(&ada.email, NEW).await, 1, &["pwd"]);
    }
}

both! {
    async fn recovery_codes_that_a_thief_made_die_with_what_they_added(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mut key = SoftKey::p256();
        add(app, &ada.access, &mut key).await;
        app.clock.advance(MINUTE);
        let thiefs = enrol(app, &ada).await;
        let told = app.mail(&ada.email, "mfa_changed", 2).await;
        let (tab, page) = Tab::open(app, &told.links[0]).await;
        assert!(page.text.contains("<form"), "{}", page.text);
        assert_eq!(tab.press(app).await.status, 200);
        let mail = app.mail(&ada.email, "password_reset", 1).await;
        assert_eq!(reset(app, by_link(&mail, NEW)).await.status, 200);
        let asked = app.login(&ada.email, NEW).await;
        assert_eq!(asked.json["factors"], json!(["passkey"]), "{}", asked.text);
        assert_eq!(finish(app, &due(&asked), "recovery_code", &thiefs.recovery[0]).await.refusal(), WRONG);
    }
}

both! {
    async fn a_replayed_code_is_one_failure_and_no_wrong_password(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let factor = enrol(app, &ada).await;
        let failures = "SELECT CAST(COALESCE(SUM(failures), 0) AS BIGINT) FROM factor_failures";
        let guesses = "SELECT CAST(COALESCE(SUM(strangers + devices + in_a_row), 0) AS BIGINT) FROM password_guesses";
        let (first, second) = (half(app, &ada.email, PASSWORD).await, half(app, &ada.email, PASSWORD).await);
        let code = factor.next(app);
        assert_eq!(finish(app, &first, "totp", &code).await.status, 200);
        assert_eq!(finish(app, &second, "totp", &code).await.refusal(), WRONG);
        assert_eq!((app.count(failures).await, app.count(guesses).await), (1, 0));
        // Nor does a wrong password count as a wrong code, or a lock against it keep a half sign-in from its end.
        for _ in 0..5 {
            assert_eq!(app.login(&ada.email, NEW).await.status, 401);
        }
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), OFF);
        assert_eq!(app.count(failures).await, 1);
        assert_eq!(finish(app, &second, "totp", &factor.next(app)).await.status, 200);
    }
}

both_with! { true, "[mfa]\nemail_code = true";
    async fn strangers_use_up_nobodys_codes_by_mail(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(call(app, Method::PUT, EMAIL_CODE, &ada.access).await.status, 204);
        // With the first mail of all, five in this hour.
        for n in 1..3 {
            forgot(app, &ada.email, n).await;
            magic_link(app, &ada.email, n).await;
        }
        let token = half(app, &ada.email, PASSWORD).await;
        for n in 1..4 {
            assert_eq!(challenge(app, &token).await.status, 200);
            app.mail(&ada.email, "mfa_code", n).await;
        }
        let beyond = challenge(app, &token).await;
        assert_eq!((beyond.refusal().as_str(), beyond.header("retry-after")), (PAUSED, "3600"));
        app.quiet().await;
        assert_eq!(mails(app, &ada.email, "mfa_code"), 3);
        app.clock.advance(HOUR);
        let token = half(app, &ada.email, PASSWORD).await;
        assert_eq!(challenge(app, &token).await.status, 200);
    }
}

async fn a_half_sign_in_is_its_clients_alone(engine: Engine) {
    let app = TestApp::start(engine).await;
    let ada = app.person("ada@example.com").await;
    let factor = enrol(&app, &ada).await;
    let token = half(&app, &ada.email, PASSWORD).await;
    let app = app.restart("[tokens]\nclient_id = \"another\"").await;
    assert_eq!(finish(&app, &token, "totp", &factor.next(&app)).await.refusal(), USED_UP);
    let app = app.restart("").await;
    assert_eq!(finish(&app, &token, "totp", &factor.next(&app)).await.status, 200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_sign_in_is_its_clients_alone_on_sqlite() {
    a_half_sign_in_is_its_clients_alone(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_sign_in_is_its_clients_alone_on_postgres() {
    a_half_sign_in_is_its_clients_alone(Engine::Postgres).await;
}

both! {
    async fn a_door_that_a_planted_passkey_opened_elsewhere_is_shut_with_it(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.clock.advance(2 * MINUTE);
        let thief = Person::of(&app.login(&ada.email, PASSWORD).await);
        let told = app.mail(&ada.email, "new_device", 1).await;
        app.clock.advance(MINUTE);
        let mut key = SoftKey::p256();
        add(app, &thief.access, &mut key).await;
        let elsewhere = enter(app, &mut key).await;
        assert_eq!(elsewhere.status, 200, "{}", elsewhere.text);
        let (tab, _) = Tab::open(app, &told.links[0]).await;
        assert_eq!(tab.press(app).await.status, 200);
        assert_eq!(ended(app, &elsewhere.str("/access_token")).await, "revoked_by_user");
        assert_eq!(app.count("SELECT COUNT(*) FROM passkeys").await, 0);
    }
}
