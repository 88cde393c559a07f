//! Mailgun: <https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages>.

use data_encoding::{BASE64, HEXLOWER};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::Message;
use super::api::{
    Account, Event, FIVE_MINUTES, Forged, Request, Said, What, bare, document, first, is_fresh, line,
    reference, refusal, spares_the_mailbox, taken, text, told,
};
use crate::kernel::{MacKey, Secret, Timestamp};

pub(super) fn request(account: &Account, message: &Message) -> Request {
    let (from, id) = (account.from.to_string(), account.message_id(message));
    let form: [(&str, &str); 10] = [
        ("from", &from),
        ("to", &message.to),
        ("subject", &message.subject),
        ("text", &message.text),
        ("html", &message.html),
        ("h:Auto-Submitted", "auto-generated"),
        ("h:Message-Id", &id),
        ("o:tracking", "no"),
        ("o:tracking-clicks", "no"),
        ("o:tracking-opens", "no"),
    ];
    let own = if account.region == "eu" { "https://api.eu.mailgun.net" } else { "https://api.mailgun.net" };
    let login = Secret::new(format!("api:{}", account.key.reveal()));
    let login = format!("Basic {}", BASE64.encode(login.reveal().as_bytes()));
    Request {
        url: format!("{}/v3/{}/messages", account.base(own), account.id),
        headers: vec![
            ("authorization", Secret::new(login)),
            ("content-type", Secret::new("application/x-www-form-urlencoded".into())),
        ],
        body: encode(&form).into_bytes(),
    }
}

fn encode(form: &[(&str, &str)]) -> String {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let fields = form.iter().map(|(name, value)| format!("{}={}", encoded(*name), encoded(*value)));
    fields.collect::<Vec<_>>().join("&")
}

pub(super) fn read(status: u16, body: &[u8]) -> Result<Said, String> {
    let answer = document(body);
    if status == 200 {
        return taken(&answer, "/id");
    }
    let why = text(&answer, "/message");
    // Now with the quotes, now without.
    if status == 400 && why.replace('\'', "").starts_with("to parameter is not a valid address") {
        return Ok(Said::NoSuchAddress(line(why)));
    }
    refusal(status, why)
}

pub(super) fn events(account: &Account, body: &[u8], now: Timestamp) -> Result<Vec<Event>, Forged> {
    let told = told(body)?;
    let at = match told.pointer("/signature/timestamp") {
        Some(Value::String(at)) => at.clone(),
        Some(Value::Number(at)) => at.to_string(),
        _ => return Err(Forged("what proves it is missing")),
    };
    let (token, given) = (text(&told, "/signature/token"), text(&told, "/signature/signature"));
    if token.is_empty() || given.is_empty() {
        return Err(Forged("what proves it is missing"));
    }
    is_fresh(&at, now, FIVE_MINUTES)?;
    let key = MacKey::new(account.events_secret.reveal().as_bytes());
    let expected = key.mac(format!("{at}{token}").as_bytes());
    let wrong = Forged("its signature is wrong");
    let given = HEXLOWER.decode(given.as_bytes()).map_err(|_| wrong)?;
    if !bool::from(expected.as_bytes().as_slice().ct_eq(&given)) {
        return Err(wrong);
    }
    Ok(event(&told, token).into_iter().collect())
}

/// What is signed is a time and a token, and nothing of the event. So the event is called by its token and by
/// nothing else: whoever has seen a signature can put another event under it, but what is heard twice counts
/// once.
fn event(told: &Value, token: &str) -> Option<Event> {
    let what = match text(told, "/event-data/event") {
        "delivered" => What::Delivered,
        "failed" if is_final(told) => What::Bounced,
        "failed" | "rejected" => What::Deferred,
        "complained" => What::Complained,
        _ => return None,
    };
    let to = ["/event-data/recipient", "/event-data/message/headers/to"];
    let detail = [
        "/event-data/delivery-status/message",
        "/event-data/delivery-status/description",
        "/event-data/reject/reason",
        "/event-data/reason",
    ];
    Some(Event {
        id: token.to_owned(),
        what,
        address: bare(first(told, &to)).to_owned(),
        reference: reference(text(told, "/event-data/message/headers/message-id")).to_owned(),
        detail: line(first(told, &detail)),
    })
}

/// Whether a failure says of the mailbox that it is none.
fn is_final(told: &Value) -> bool {
    let status = |name: &str| text(told, &format!("/event-data/delivery-status/{name}"));
    let reply = format!("{} {}", status("enhanced-code"), status("message"));
    let blamed = match text(told, "/event-data/reason") {
        "suppress-bounce" => true,
        "bounce" => !spares_the_mailbox(&reply),
        // So are bounces called that come later, as a mail.
        "generic" => reply.starts_with("5.1."),
        _ => false,
    };
    blamed && text(told, "/event-data/severity") == "permanent"
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use serde_json::json;

    use super::super::api::Kind;
    use super::super::api::testing::{NOW, account, message, seconds, value};
    use super::*;

    const TOKEN: &str = "e0b5477167110d68991efc6b9f89f0a11066af27834600e123";

    #[test]
    fn a_mail_is_one_form() {
        let request = account(Kind::Mailgun, "").request(&message(), b"", NOW);
        assert_eq!(request.url, "https://api.eu.mailgun.net/v3/mg.example.com/messages");
        assert_eq!(value(&request, "authorization"), "Basic YXBpOmszeQ==");
        assert_eq!(value(&request, "content-type"), "application/x-www-form-urlencoded");
        let expected = [
            "from=Pearlgate%20%3Cno%2Dreply%40example%2Ecom%3E",
            "to=ada%2Ba%40example%2Eorg",
            "subject=Pr%C3%BCfe%20%26%20best%C3%A4tige",
            "text=https%3A%2F%2Fexample%2Ecom%2Fv%23l1nk",
            "html=%3Ca%20href%3D%22https%3A%2F%2Fexample%2Ecom%2Fv%23l1nk%22%3EJa%3C%2Fa%3E",
            "h%3AAuto%2DSubmitted=auto%2Dgenerated",
            "h%3AMessage%2DId=%3Cmail%5F07070707070707070707070707070707%40example%2Ecom%3E",
            "o%3Atracking=no",
            "o%3Atracking%2Dclicks=no",
            "o%3Atracking%2Dopens=no",
        ];
        assert_eq!(String::from_utf8(request.body).unwrap(), expected.join("&"));
        let mut elsewhere = account(Kind::Mailgun, "");
        elsewhere.region = "us".into();
        let request = elsewhere.request(&message(), b"", NOW);
        assert_eq!(request.url, "https://api.mailgun.net/v3/mg.example.com/messages");
    }

    #[test]
    fn answers() {
        let read = |status, body: &str| account(Kind::Mailgun, "").read(status, body.as_bytes()).unwrap();
        let taken = r#"{"id":"<20111114174239.25659.5817@mg.example.com>","message":"Queued. Thank you."}"#;
        assert_eq!(read(200, taken), Said::Taken("20111114174239.25659.5817@mg.example.com".into()));
        let quoted = "'to' parameter is not a valid address. please check documentation";
        for to in [quoted, "to parameter is not a valid address"] {
            let body = json!({ "message": to }).to_string();
            assert_eq!(read(400, &body), Said::NoSuchAddress(to.into()));
        }
        for (status, body) in [
            (400, r#"{"message":"from parameter is not a valid address. please check documentation"}"#),
            (401, "Forbidden"),
            (403, r#"{"message":"Domain mg.example.com is not allowed to send: Please activate it."}"#),
            (404, r#"{"message":"Domain not found: mg.example.com"}"#),
        ] {
            let said = read(status, body);
            assert!(matches!(said, Said::NotHere(_)), "{status}: {said:?}");
        }
        assert!(matches!(read(429, r#"{"message":"Too many requests"}"#), Said::NotNow(_)));
        let magnificent = account(Kind::Mailgun, "").read(200, b"Mailgun Magnificent API");
        assert_eq!(magnificent, Err("its answer names no mail".into()));
    }

    fn signature(secret: &str, at: &str, token: &str) -> Value {
        let signed = MacKey::new(secret.as_bytes()).mac(format!("{at}{token}").as_bytes());
        json!({ "timestamp": at, "token": token, "signature": HEXLOWER.encode(signed.as_bytes()) })
    }

    fn hear(signature: &Value, event: &Value) -> Result<Vec<Event>, Forged> {
        let body = json!({ "signature": signature, "event-data": event }).to_string();
        account(Kind::Mailgun, "signing-key").events(&HeaderMap::new(), body.as_bytes(), NOW)
    }

    fn event(of: &Value) -> Value {
        let mut event = json!({
            "id": "hK7mQVt1QtqRiOfQXta4sw",
            "timestamp": 1_529_692_199.626_182,
            "message": { "headers": {
                "to": "Ada <ada@example.org>",
                "message-id": "mail_07@example.com",
                "from": "no-reply@example.com",
            } },
            "recipient": "ada@example.org",
        });
        event.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
        event
    }

    #[test]
    fn what_is_told_of_a_mail() {
        let failed = |severity: &str, reason: &str, code: &str, message: &str| {
            let status = json!({ "code": 550, "enhanced-code": code, "message": message });
            event(&json!({
                "event": "failed", "severity": severity, "reason": reason, "delivery-status": status,
            }))
        };
        let rejected = json!({ "event": "rejected", "reject": { "reason": "Sandbox" }, "recipient": null });
        for (told, what) in [
            (event(&json!({ "event": "delivered" })), What::Delivered),
            (event(&json!({ "event": "complained" })), What::Complained),
            (event(&rejected), What::Deferred),
            (failed("permanent", "suppress-bounce", "", ""), What::Bounced),
            (failed("permanent", "bounce", "", "5.1.1 The account does not exist"), What::Bounced),
            (failed("permanent", "generic", "5.1.1", "smtp; 550-5.1.1 no account"), What::Bounced),
            (failed("permanent", "bounce", "5.7.1", "blocked"), What::Deferred),
            (failed("permanent", "bounce", "", "5.7.26 DMARC"), What::Deferred),
            (failed("permanent", "generic", "5.4.4", "no route"), What::Deferred),
            (failed("permanent", "suppress-complaint", "", ""), What::Deferred),
            (failed("permanent", "espblock", "", ""), What::Deferred),
            (failed("temporary", "bounce", "4.2.2", "full"), What::Deferred),
            (failed("temporary", "suppress-bounce", "", ""), What::Deferred),
        ] {
            let heard = hear(&signature("signing-key", &seconds(NOW), TOKEN), &told).unwrap();
            let [event] = heard.as_slice() else { panic!("{told}: {heard:?}") };
            assert_eq!(event.what, what, "{told}");
            assert_eq!((event.id.as_str(), event.address.as_str()), (TOKEN, "ada@example.org"));
            assert_eq!(event.reference, "mail_07@example.com");
        }
        for kind in ["accepted", "opened", "clicked", "unsubscribed", "new"] {
            let told = event(&json!({ "event": kind }));
            let heard = hear(&signature("signing-key", &seconds(NOW), TOKEN), &told);
            assert_eq!(heard, Ok(Vec::new()), "{kind}");
        }
    }

    #[test]
    fn one_signature_is_good_for_one_event() {
        let signature = signature("signing-key", &seconds(NOW), TOKEN);
        let heard = |kind: &str| hear(&signature, &event(&json!({ "event": kind, "id": kind }))).unwrap();
        let (delivered, complained) = (heard("delivered"), heard("complained"));
        assert_eq!(delivered[0].id, complained[0].id);
        assert_ne!(delivered[0].what, complained[0].what);
    }

    #[test]
    fn a_forged_one_tells_nothing() {
        let (at, told) = (seconds(NOW), event(&json!({ "event": "delivered" })));
        let right = signature("signing-key", &at, TOKEN);
        assert_eq!(hear(&right, &told).unwrap().len(), 1);
        let mut number = right.clone();
        number["timestamp"] = json!(NOW.seconds());
        assert_eq!(hear(&number, &told).unwrap().len(), 1);

        let changed = |field: &str, to: &str| {
            let mut changed = right.clone();
            changed[field] = json!(to);
            hear(&changed, &told)
        };
        let wrong = Err(Forged("its signature is wrong"));
        assert_eq!(changed("timestamp", &(NOW.seconds() - 1).to_string()), wrong);
        assert_eq!(changed("token", "f0b5477167110d68991efc6b9f89f0a11066af27834600e123"), wrong);
        assert_eq!(changed("signature", "00"), wrong);
        assert_eq!(changed("signature", "no hex"), wrong);
        assert_eq!(hear(&signature("other-key", &at, TOKEN), &told), wrong);
        for apart in [-301, 301] {
            let then = (NOW.seconds() + apart).to_string();
            let heard = hear(&signature("signing-key", &then, TOKEN), &told);
            assert_eq!(heard, Err(Forged("it is too old, or from the future")), "{apart}");
        }
        for missing in ["timestamp", "token", "signature"] {
            let mut some = right.clone();
            some.as_object_mut().unwrap().remove(missing);
            assert_eq!(hear(&some, &told), Err(Forged("what proves it is missing")), "{missing}");
        }
        let garbage = account(Kind::Mailgun, "signing-key").events(&HeaderMap::new(), b"[", NOW);
        assert_eq!(garbage, Err(Forged("its body is not JSON")));
    }
}
