//! Resend: <https://resend.com/docs/api-reference>. Its webhooks are Svix's. Tracking is a setting of the
//! domain there, and the Message-ID its own; that a mail is sent again it tells by the idempotency key.

use axum::http::HeaderMap;
use data_encoding::BASE64;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::Message;
use super::api::{
    Account, Event, FIVE_MINUTES, Forged, Request, Said, What, bare, document, first, header, is_fresh, line,
    post_json, refusal, spares_the_mailbox, taken, text, told,
};
use crate::kernel::{MacKey, Secret, Timestamp};

pub(super) fn request(account: &Account, message: &Message) -> Request {
    let auth = vec![
        ("authorization", Secret::new(format!("Bearer {}", account.key.reveal()))),
        ("idempotency-key", Secret::new(message.id.to_string())),
    ];
    let body = json!({
        "from": account.from.to_string(),
        "to": [message.to],
        "subject": message.subject,
        "text": message.text,
        "html": message.html,
        "headers": { "Auto-Submitted": "auto-generated" },
    });
    post_json(account.base("https://api.resend.com") + "/emails", auth, &body)
}

pub(super) fn read(status: u16, body: &[u8]) -> Result<Said, String> {
    let answer = document(body);
    if (200..300).contains(&status) {
        return taken(&answer, "/id");
    }
    let why = text(&answer, "/message");
    match text(&answer, "/name") {
        // The same mail is being handed over by somebody else of ours.
        "concurrent_idempotent_requests" | "resource_locked" => Ok(Said::NotNow(line(why))),
        "validation_error" if why.starts_with("Invalid `to` field") => Ok(Said::NoSuchAddress(line(why))),
        _ => refusal(status, why),
    }
}

/// The key in `whsec_…`.
pub(super) fn key(secret: &Secret) -> Option<MacKey> {
    let bytes = BASE64.decode(secret.reveal().strip_prefix("whsec_")?.as_bytes()).ok()?;
    (!bytes.is_empty()).then(|| MacKey::new(&bytes))
}

pub(super) fn events(
    account: &Account,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Vec<Event>, Forged> {
    let (id, at) = (header(headers, "svix-id")?, header(headers, "svix-timestamp")?);
    is_fresh(at, now, FIVE_MINUTES)?;
    let key = key(&account.events_secret).ok_or(Forged("our signing secret is none"))?;
    let signed: [&[u8]; 5] = [id.as_bytes(), b".", at.as_bytes(), b".", body];
    let expected = key.mac(&signed.concat());
    // More than one while the secret is being changed.
    let mut given = header(headers, "svix-signature")?.split(' ').filter_map(|one| one.strip_prefix("v1,"));
    let right = given.any(|one| {
        BASE64.decode(one.as_bytes()).is_ok_and(|one| expected.as_bytes().as_slice().ct_eq(&one).into())
    });
    if !right {
        return Err(Forged("its signature is wrong"));
    }
    let told = told(body)?;
    let what = match text(&told, "/type") {
        "email.delivered" => What::Delivered,
        "email.bounced" if is_final(&told) => What::Bounced,
        "email.suppressed" => What::Bounced,
        "email.bounced" | "email.delivery_delayed" | "email.failed" => What::Deferred,
        "email.complained" => What::Complained,
        _ => return Ok(Vec::new()),
    };
    let detail = first(&told, &["/data/bounce/message", "/data/suppressed/message", "/data/failed/reason"]);
    Ok(vec![Event {
        // Svix's own, which stays the same when it tries again.
        id: id.to_owned(),
        what,
        address: bare(text(&told, "/data/to/0")).to_owned(),
        reference: text(&told, "/data/email_id").to_owned(),
        detail: line(detail),
    }])
}

/// Whether a bounce says of the mailbox that it is none.
fn is_final(told: &Value) -> bool {
    let kinds = ["General", "NoEmail", "Suppressed", "OnAccountSuppressionList"];
    let replies = told.pointer("/data/bounce/diagnosticCode").map(Value::to_string).unwrap_or_default();
    text(told, "/data/bounce/type") == "Permanent"
        && kinds.contains(&text(told, "/data/bounce/subType"))
        && !spares_the_mailbox(&replies)
}

#[cfg(test)]
mod tests {
    use super::super::api::Kind;
    use super::super::api::testing::{ID, NOW, account, body, headers, message, seconds, value};
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn told(kind: &str, more: &Value) -> Vec<u8> {
        let mut data = json!({
            "created_at": "2026-11-22T23:41:11.894Z",
            "email_id": "56761188-7520-42d8-8898-ff6fc54ce618",
            "message_id": "<111-222-333@email.example.com>",
            "from": "Acme <onboarding@resend.dev>",
            "to": ["Ada <ada@example.org>"],
            "subject": "Sending this example",
        });
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let told = json!({ "type": kind, "created_at": "2026-11-22T23:41:12.126Z", "data": data });
        told.to_string().into_bytes()
    }

    fn signed(secret: &str, id: &str, at: &str, body: &[u8]) -> String {
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
        let signed = [format!("{id}.{at}.").as_bytes(), body].concat();
        format!("v1,{}", BASE64.encode(MacKey::new(&key).mac(&signed).as_bytes()))
    }

    fn hear(id: &str, at: &str, signature: &str, body: &[u8]) -> Result<Vec<Event>, Forged> {
        let headers = headers(&[("svix-id", id), ("svix-timestamp", at), ("svix-signature", signature)]);
        account(Kind::Resend, SECRET).events(&headers, body, NOW)
    }

    fn heard(kind: &str, more: &Value) -> Vec<Event> {
        let (at, body) = (seconds(NOW), told(kind, more));
        hear("msg_1", &at, &signed(SECRET, "msg_1", &at, &body), &body).unwrap()
    }

    #[test]
    fn a_mail_is_one_document() {
        let request = account(Kind::Resend, "").request(&message(), b"", NOW);
        assert_eq!(request.url, "https://api.resend.com/emails");
        assert_eq!(value(&request, "authorization"), "Bearer k3y");
        assert_eq!(value(&request, "idempotency-key"), ID);
        assert_eq!(value(&request, "content-type"), "application/json");
        let expected = json!({
            "from": "Pearlgate <no-reply@example.com>",
            "to": ["ada+a@example.org"],
            "subject": "Prüfe & bestätige",
            "text": "https://example.com/v#l1nk",
            "html": "<a href=\"https://example.com/v#l1nk\">Ja</a>",
            "headers": { "Auto-Submitted": "auto-generated" },
        });
        assert_eq!(body(&request), expected);
    }

    #[test]
    fn answers() {
        let read = |status, name: &str, message: &str| {
            let body = json!({ "statusCode": status, "name": name, "message": message }).to_string();
            account(Kind::Resend, "").read(status, body.as_bytes()).unwrap()
        };
        let taken = account(Kind::Resend, "").read(200, br#"{"id":"49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"}"#);
        assert_eq!(taken, Ok(Said::Taken("49a3999c-0ce1-4ea6-ab68-afcd6dc2e794".into())));
        let to = "Invalid `to` field. The email address needs to follow the `email@example.com` format.";
        assert_eq!(read(422, "validation_error", to), Said::NoSuchAddress(to.into()));
        for (status, name) in [
            (400, "validation_error"),
            (401, "missing_api_key"),
            (403, "invalid_api_key"),
            (403, "suspended_api_key"),
            (409, "invalid_idempotent_request"),
            (422, "missing_required_field"),
        ] {
            let said = read(status, name, "Invalid `from` field");
            assert!(matches!(said, Said::NotHere(_)), "{name}: {said:?}");
        }
        for (status, name) in [
            (409, "concurrent_idempotent_requests"),
            (429, "rate_limit_exceeded"),
            (429, "daily_quota_exceeded"),
            (429, "monthly_quota_exceeded"),
        ] {
            assert!(matches!(read(status, name, "no"), Said::NotNow(_)), "{name}");
        }
    }

    #[test]
    fn svix_signs_as_it_publishes() {
        let headers = headers(&[
            ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("svix-timestamp", "1614265330"),
            ("svix-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ]);
        let then = Timestamp::from_micros(1_614_265_330_000_000);
        let heard = account(Kind::Resend, SECRET).events(&headers, br#"{"test": 2432232314}"#, then);
        assert_eq!(heard, Ok(Vec::new()));
    }

    #[test]
    fn what_is_told_of_a_mail() {
        let bounce = |kind: &str, sub: &str, reply: &str| {
            let bounce = json!({
                "message": "It\nbounced",
                "type": kind,
                "subType": sub,
                "diagnosticCode": [reply],
            });
            json!({ "bounce": bounce })
        };
        let nothing = json!({});
        for (kind, more, what) in [
            ("email.delivered", nothing.clone(), What::Delivered),
            ("email.complained", nothing.clone(), What::Complained),
            ("email.delivery_delayed", nothing.clone(), What::Deferred),
            ("email.failed", json!({ "failed": { "reason": "reached_daily_quota" } }), What::Deferred),
            ("email.suppressed", json!({ "suppressed": { "message": "on the list" } }), What::Bounced),
            ("email.bounced", bounce("Permanent", "General", "smtp; 550 5.1.1 unknown"), What::Bounced),
            ("email.bounced", bounce("Permanent", "Suppressed", ""), What::Bounced),
            ("email.bounced", bounce("Permanent", "General", "smtp; 550 5.7.1 blocked"), What::Deferred),
            ("email.bounced", bounce("Permanent", "MessageRejected", ""), What::Deferred),
            ("email.bounced", bounce("Transient", "MailboxFull", ""), What::Deferred),
            ("email.bounced", nothing.clone(), What::Deferred),
        ] {
            let heard = heard(kind, &more);
            let [event] = heard.as_slice() else { panic!("{kind}: {heard:?}") };
            assert_eq!((event.what, event.id.as_str()), (what, "msg_1"), "{kind} {more}");
            assert_eq!(event.address, "ada@example.org");
            assert_eq!(event.reference, "56761188-7520-42d8-8898-ff6fc54ce618");
        }
        let heard_once = heard("email.bounced", &bounce("Permanent", "General", ""));
        assert_eq!(heard_once[0].detail, "It bounced");
        for kind in ["email.sent", "email.opened", "email.clicked", "contact.created", "new"] {
            assert!(heard(kind, &nothing).is_empty(), "{kind}");
        }
    }

    #[test]
    fn a_forged_one_tells_nothing() {
        let (at, body) = (seconds(NOW), told("email.delivered", &json!({})));
        let right = signed(SECRET, "msg_1", &at, &body);
        assert!(hear("msg_1", &at, &format!("v1,AAAA v2,x {right}"), &body).is_ok());

        let wrong = Err(Forged("its signature is wrong"));
        let mut other = body.clone();
        *other.last_mut().unwrap() = b' ';
        assert_eq!(hear("msg_1", &at, &right, &other), wrong);
        assert_eq!(hear("msg_2", &at, &right, &body), wrong);
        assert_eq!(hear("msg_1", &(NOW.seconds() - 1).to_string(), &right, &body), wrong);
        assert_eq!(hear("msg_1", &at, "", &body), wrong);
        assert_eq!(hear("msg_1", &at, &right.replace("v1,", "v1a,"), &body), wrong);
        assert_eq!(hear("msg_1", &at, &signed("whsec_b3RoZXI=", "msg_1", &at, &body), &body), wrong);
        for apart in [-301, 301] {
            let then = (NOW.seconds() + apart).to_string();
            let heard = hear("msg_1", &then, &signed(SECRET, "msg_1", &then, &body), &body);
            assert_eq!(heard, Err(Forged("it is too old, or from the future")), "{apart}");
        }
        assert_eq!(hear("msg_1", "now", &right, &body), Err(Forged("its time is none")));
        let all = [("svix-id", "msg_1"), ("svix-timestamp", at.as_str()), ("svix-signature", right.as_str())];
        for missing in 0..all.len() {
            let mut some = all.to_vec();
            some.remove(missing);
            let heard = account(Kind::Resend, SECRET).events(&headers(&some), &body, NOW);
            assert_eq!(heard, Err(Forged("what proves it is missing")), "{:?}", all[missing]);
        }
        let garbage = b"{\"type\":";
        assert_eq!(
            hear("msg_1", &at, &signed(SECRET, "msg_1", &at, garbage), garbage),
            Err(Forged("its body is not JSON"))
        );
    }
}
