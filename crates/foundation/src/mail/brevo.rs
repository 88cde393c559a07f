//! Brevo: <https://developers.brevo.com/reference/send-transac-email>. The Message-ID is its own there, and
//! tracking a setting of the account. Its webhooks are signed by nobody; they bring a password.

use axum::http::HeaderMap;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Message;
use super::api::{
    Account, Event, Forged, Request, Said, What, digest, document, line, post_json, reference, refusal,
    spares_the_mailbox, taken, text, told,
};

pub(super) fn request(account: &Account, message: &Message) -> Request {
    let body = json!({
        "sender": account.sender(),
        "to": [{ "email": message.to }],
        "subject": message.subject,
        "textContent": message.text,
        "htmlContent": message.html,
        "headers": {
            "Auto-Submitted": "auto-generated",
            // A header by name alone, and a UUID: it is kept for half an hour.
            "idempotencyKey": Uuid::from_bytes(*message.id.as_bytes()).to_string(),
        },
    });
    let auth = vec![("api-key", account.key.clone())];
    post_json(account.base("https://api.brevo.com") + "/v3/smtp/email", auth, &body)
}

pub(super) fn read(status: u16, body: &[u8]) -> Result<Said, String> {
    let answer = document(body);
    if (200..300).contains(&status) {
        return taken(&answer, "/messageId");
    }
    let why = text(&answer, "/message");
    match text(&answer, "/code") {
        // The idempotency key: the mail was taken when we did not hear the answer.
        "duplicate_parameter" | "duplicate_request" => Ok(Said::Taken(String::new())),
        "invalid_parameter" if why == "email is not valid in to" => Ok(Said::NoSuchAddress(line(why))),
        // With 402, and with 400.
        "not_enough_credits" => Ok(Said::NotNow(line(why))),
        code => refusal(status, &format!("{code} {why}")),
    }
}

pub(super) fn events(account: &Account, headers: &HeaderMap, body: &[u8]) -> Result<Vec<Event>, Forged> {
    account.knows_password(headers)?;
    Ok(match told(body)? {
        // When they are set to come together.
        Value::Array(entries) => entries.iter().filter_map(event).collect(),
        entry => event(&entry).into_iter().collect(),
    })
}

fn event(entry: &Value) -> Option<Event> {
    let reason = text(entry, "/reason");
    let what = match text(entry, "/event") {
        "delivered" => What::Delivered,
        "hard_bounce" if !spares_the_mailbox(reason) => What::Bounced,
        "invalid_email" => What::Bounced,
        // `blocked` is said of mailboxes that bounced, of people who complained, of senders who are not
        // liked.
        "hard_bounce" | "soft_bounce" | "deferred" | "blocked" | "error" => What::Deferred,
        "spam" | "complaint" => What::Complained,
        _ => return None,
    };
    Some(Event {
        // `id` names the webhook.
        id: digest(entry),
        what,
        address: text(entry, "/email").to_owned(),
        reference: reference(text(entry, "/message-id")).to_owned(),
        detail: line(reason),
    })
}

#[cfg(test)]
mod tests {
    use super::super::api::Kind;
    use super::super::api::testing::{NOW, account, body, headers, message, value};
    use super::*;

    #[test]
    fn a_mail_is_one_document() {
        let request = account(Kind::Brevo, "").request(&message(), b"", NOW);
        assert_eq!(request.url, "https://api.brevo.com/v3/smtp/email");
        assert_eq!(value(&request, "api-key"), "k3y");
        let expected = json!({
            "sender": { "email": "no-reply@example.com", "name": "Pearlgate" },
            "to": [{ "email": "ada+a@example.org" }],
            "subject": "Prüfe & bestätige",
            "textContent": "https://example.com/v#l1nk",
            "htmlContent": "<a href=\"https://example.com/v#l1nk\">Ja</a>",
            "headers": {
                "Auto-Submitted": "auto-generated",
                "idempotencyKey": "07070707-0707-0707-0707-070707070707",
            },
        });
        assert_eq!(body(&request), expected);
    }

    #[test]
    fn answers() {
        let read = |status, code: &str, words: &str| {
            let body = json!({ "code": code, "message": words }).to_string();
            account(Kind::Brevo, "").read(status, body.as_bytes()).unwrap()
        };
        let taken = br#"{"messageId":"<201798300811.5787683@smtp-relay.mailin.fr>"}"#;
        assert_eq!(
            account(Kind::Brevo, "").read(201, taken),
            Ok(Said::Taken("201798300811.5787683@smtp-relay.mailin.fr".into()))
        );
        assert_eq!(read(400, "duplicate_parameter", "known"), Said::Taken(String::new()));
        let to = "email is not valid in to";
        assert_eq!(read(400, "invalid_parameter", to), Said::NoSuchAddress(to.into()));
        for (status, code, words) in [
            (400, "invalid_parameter", "Sender not valid"),
            (400, "missing_parameter", "sender is missing"),
            (401, "unauthorized", "Key not found"),
            (403, "permission_denied", "Unable to send email. Your SMTP account is not yet activated."),
            (403, "account_under_validation", "wait"),
        ] {
            let said = read(status, code, words);
            assert!(matches!(said, Said::NotHere(_)), "{code}: {said:?}");
        }
        for (status, code) in
            [(402, "not_enough_credits"), (400, "not_enough_credits"), (429, "too_many_requests")]
        {
            assert!(matches!(read(status, code, "no"), Said::NotNow(_)), "{status} {code}");
        }
    }

    fn hear(body: &Value, authorization: &str) -> Result<Vec<Event>, Forged> {
        let headers = headers(&[("authorization", authorization)]);
        account(Kind::Brevo, "t0ken").events(&headers, body.to_string().as_bytes(), NOW)
    }

    fn entry(kind: &str, reason: &str) -> Value {
        json!({
            "event": kind,
            "email": "ada@example.org",
            "id": 26_224,
            "date": "2020-10-09 00:00:00",
            "ts": 1_604_933_619,
            "message-id": "<201798300811.5787683@relay.domain.com>",
            "ts_event": 1_604_933_654,
            "ts_epoch": 1_604_933_654_000_i64,
            "subject": "My first Transactional",
            "reason": reason,
        })
    }

    #[test]
    fn what_is_told_of_a_mail() {
        let cases = [
            (entry("delivered", ""), What::Delivered),
            (entry("hard_bounce", " RecipientError: 550 5.5.0 mailbox\nunavailable."), What::Bounced),
            (entry("hard_bounce", "550 5.7.1 rejected as spam"), What::Deferred),
            (entry("invalid_email", ""), What::Bounced),
            (entry("soft_bounce", "deferred due to quota"), What::Deferred),
            (entry("deferred", ""), What::Deferred),
            (entry("blocked", "blocked : due to blacklist user"), What::Deferred),
            (entry("error", ""), What::Deferred),
            (entry("spam", ""), What::Complained),
        ];
        for (told, what) in &cases {
            let heard = hear(told, "Bearer t0ken").unwrap();
            let [event] = heard.as_slice() else { panic!("{told}: {heard:?}") };
            assert_eq!(event.what, *what, "{told}");
            assert_eq!(event.id, digest(told));
            assert_eq!(event.address, "ada@example.org");
            assert_eq!(event.reference, "201798300811.5787683@relay.domain.com");
        }
        let skipped = ["request", "opened", "unique_opened", "click", "unsubscribed", "new"];
        let skipped = skipped.map(|kind| entry(kind, ""));
        for told in &skipped {
            assert_eq!(hear(told, "Bearer t0ken"), Ok(Vec::new()), "{told}");
        }
        let all: Vec<&Value> = cases.iter().map(|(told, _)| told).chain(&skipped).collect();
        let heard = hear(&json!(all), "Bearer t0ken").unwrap();
        assert_eq!(heard.len(), cases.len());
        assert_eq!(heard[1].detail, "RecipientError: 550 5.5.0 mailbox unavailable.");
        assert_ne!(heard[0].id, heard[1].id);
    }

    #[test]
    fn a_forged_one_tells_nothing() {
        let told = entry("delivered", "");
        for wrong in ["Bearer t0ke", "Bearer T0KEN", "Bearer ", "Basic t0ken", "t0ken"] {
            assert_eq!(hear(&told, wrong), Err(Forged("its password is wrong")), "{wrong}");
        }
        let account = account(Kind::Brevo, "t0ken");
        let missing = account.events(&HeaderMap::new(), told.to_string().as_bytes(), NOW);
        assert_eq!(missing, Err(Forged("what proves it is missing")));
        let garbage = account.events(&headers(&[("authorization", "Bearer t0ken")]), b"", NOW);
        assert_eq!(garbage, Err(Forged("its body is not JSON")));
    }
}
