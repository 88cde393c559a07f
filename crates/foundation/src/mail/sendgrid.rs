//! Twilio SendGrid: <https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send>. Its answer to a
//! mail is empty, so each mail brings our id along, and events bring it back.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use axum::http::HeaderMap;
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::Message;
use super::api::{
    Account, Event, Forged, Request, Said, What, digest, document, first, header, is_fresh, line, post_json,
    refusal, spares_the_mailbox, text, told,
};
use crate::kernel::{Secret, Timestamp};

/// It tries for a day, and nowhere says that it signs anew each time. What is told twice has the same id, so
/// nothing is gained by telling it again.
const PAST: Duration = Duration::from_secs(25 * 60 * 60);

pub(super) fn request(account: &Account, message: &Message) -> Request {
    let off = json!({ "enable": false });
    let body = json!({
        "personalizations": [{ "to": [{ "email": message.to }] }],
        "from": account.sender(),
        "subject": message.subject,
        "content": [
            { "type": "text/plain", "value": message.text },
            { "type": "text/html", "value": message.html },
        ],
        "headers": { "Auto-Submitted": "auto-generated", "Message-ID": account.message_id(message) },
        "custom_args": { "mail_id": message.id.to_string() },
        "tracking_settings": {
            "click_tracking": { "enable": false, "enable_text": false },
            "open_tracking": off,
            "subscription_tracking": off,
            "ganalytics": off,
        },
    });
    let auth = vec![("authorization", Secret::new(format!("Bearer {}", account.key.reveal())))];
    post_json(account.base("https://api.sendgrid.com") + "/v3/mail/send", auth, &body)
}

pub(super) fn read(status: u16, body: &[u8]) -> Result<Said, String> {
    // 200 is its word for a mail that it would have taken.
    if status == 202 {
        return Ok(Said::Taken(String::new()));
    }
    let answer = document(body);
    let why = text(&answer, "/errors/0/message");
    match status {
        400 if text(&answer, "/errors/0/field").starts_with("personalizations.0.to.0.email") => {
            Ok(Said::NoSuchAddress(line(why)))
        }
        401 if why == "Maximum credits exceeded" => Ok(Said::NotNow(line(why))),
        _ => refusal(status, why),
    }
}

/// The public key as its settings page shows it: SubjectPublicKeyInfo, in base64.
pub(super) fn key(secret: &Secret) -> Option<Vec<u8>> {
    BASE64.decode(secret.reveal().as_bytes()).ok().filter(|der| !der.is_empty())
}

pub(super) fn events(
    account: &Account,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Vec<Event>, Forged> {
    let at = header(headers, "x-twilio-email-event-webhook-timestamp")?;
    let given = header(headers, "x-twilio-email-event-webhook-signature")?;
    is_fresh(at, now, PAST)?;
    let key = key(&account.events_secret).ok_or(Forged("our public key is none"))?;
    let wrong = Forged("its signature is wrong");
    let given = BASE64.decode(given.as_bytes()).map_err(|_| wrong)?;
    let signed = [at.as_bytes(), body].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(&signed, &given).map_err(|_| wrong)?;
    Ok(told(body)?.as_array().into_iter().flatten().filter_map(event).collect())
}

fn event(entry: &Value) -> Option<Event> {
    let what = match text(entry, "/event") {
        "delivered" => What::Delivered,
        "deferred" => What::Deferred,
        "bounce" if is_final(entry) => What::Bounced,
        // Not even tried; of its reasons these two are about the mailbox.
        "dropped" if matches!(text(entry, "/reason"), "Bounced Address" | "Invalid") => What::Bounced,
        "bounce" | "dropped" => What::Deferred,
        "spamreport" => What::Complained,
        _ => return None,
    };
    let id = text(entry, "/sg_event_id");
    Some(Event {
        id: if id.is_empty() { digest(entry) } else { id.to_owned() },
        what,
        address: text(entry, "/email").to_owned(),
        reference: text(entry, "/mail_id").to_owned(),
        detail: line(first(entry, &["/reason", "/response"])),
    })
}

/// Whether a bounce says of the mailbox that it is none. A block is one of the mail, whatever its number.
fn is_final(entry: &Value) -> bool {
    let class = text(entry, "/bounce_classification");
    let reply = format!("{} {}", text(entry, "/status"), text(entry, "/reason"));
    text(entry, "/type") != "blocked"
        && matches!(class, "" | "Invalid Address" | "Unclassified")
        && !spares_the_mailbox(&reply)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::super::api::Kind;
    use super::super::api::testing::{ID, MESSAGE_ID, NOW, account, body, headers, message, seconds, value};
    use super::*;

    const SIGNATURE: &str = "x-twilio-email-event-webhook-signature";
    const TIMESTAMP: &str = "x-twilio-email-event-webhook-timestamp";

    struct Signer(EcdsaKeyPair);

    impl Signer {
        fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
        }

        fn account(&self) -> Account {
            let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
            account(Kind::Sendgrid, &BASE64.encode(der.as_ref()))
        }

        fn sign(&self, at: &str, body: &[u8]) -> String {
            let signed = [at.as_bytes(), body].concat();
            BASE64.encode(self.0.sign(&SystemRandom::new(), &signed).unwrap().as_ref())
        }

        fn hear(&self, at: &str, signature: &str, body: &[u8]) -> Result<Vec<Event>, Forged> {
            self.account().events(&headers(&[(SIGNATURE, signature), (TIMESTAMP, at)]), body, NOW)
        }
    }

    #[test]
    fn a_mail_is_one_document() {
        let request = account(Kind::Sendgrid, "").request(&message(), b"", NOW);
        assert_eq!(request.url, "https://api.sendgrid.com/v3/mail/send");
        assert_eq!(value(&request, "authorization"), "Bearer k3y");
        let expected = json!({
            "personalizations": [{ "to": [{ "email": "ada+a@example.org" }] }],
            "from": { "email": "no-reply@example.com", "name": "Pearlgate" },
            "subject": "Prüfe & bestätige",
            "content": [
                { "type": "text/plain", "value": "https://example.com/v#l1nk" },
                { "type": "text/html", "value": "<a href=\"https://example.com/v#l1nk\">Ja</a>" },
            ],
            "headers": { "Auto-Submitted": "auto-generated", "Message-ID": MESSAGE_ID },
            "custom_args": { "mail_id": ID },
            "tracking_settings": {
                "click_tracking": { "enable": false, "enable_text": false },
                "open_tracking": { "enable": false },
                "subscription_tracking": { "enable": false },
                "ganalytics": { "enable": false },
            },
        });
        assert_eq!(body(&request), expected);
        let mut nameless = account(Kind::Sendgrid, "");
        nameless.from = "no-reply@example.com".parse().unwrap();
        let request = nameless.request(&message(), b"", NOW);
        assert_eq!(body(&request)["from"], json!({ "email": "no-reply@example.com" }));
    }

    #[test]
    fn answers() {
        let read = |status, message: &str, field: Option<&str>| {
            let body = json!({ "errors": [{ "message": message, "field": field, "help": null }] });
            account(Kind::Sendgrid, "").read(status, body.to_string().as_bytes()).unwrap()
        };
        assert_eq!(account(Kind::Sendgrid, "").read(202, b""), Ok(Said::Taken(String::new())));
        assert!(account(Kind::Sendgrid, "").read(200, b"").is_err(), "the sandbox takes nothing");
        assert_eq!(
            read(400, "Does not contain a valid address.", Some("personalizations.0.to.0.email")),
            Said::NoSuchAddress("Does not contain a valid address.".into())
        );
        for (status, message, field) in [
            (400, "Does not contain a valid address.", Some("from.email")),
            (400, "Bad Request", None),
            (401, "The provided authorization grant is invalid, expired, or revoked", None),
            (403, "The from address does not match a verified Sender Identity.", Some("from")),
            (413, "too large", None),
        ] {
            let said = read(status, message, field);
            assert!(matches!(said, Said::NotHere(_)), "{message}: {said:?}");
        }
        assert_eq!(
            read(401, "Maximum credits exceeded", None),
            Said::NotNow("Maximum credits exceeded".into())
        );
        assert!(matches!(read(429, "too many requests", None), Said::NotNow(_)));
    }

    #[test]
    fn it_signs_as_it_publishes() {
        let known = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GR\
                     qe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";
        let signature = "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh\
                         89M15TluLtEZtM=";
        let body = concat!(
            r#"[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address","sg_event_id":"#,
            r#""ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA","sg_message_id":"#,
            r#""LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0","smtp-id":"#,
            r#""<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]"#,
            "\r\n",
        );
        let headers = headers(&[(SIGNATURE, signature), (TIMESTAMP, "1600112502")]);
        let then = Timestamp::from_micros(1_600_112_502_000_000);
        let heard = account(Kind::Sendgrid, known).events(&headers, body.as_bytes(), then).unwrap();
        let expected = Event {
            id: "ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA".into(),
            what: What::Bounced,
            address: "hello@world.com".into(),
            reference: String::new(),
            detail: "Bounced Address".into(),
        };
        assert_eq!(heard, [expected]);
    }

    #[test]
    fn what_is_told_of_a_mail() {
        let entry = |of: Value| {
            let mut entry = json!({
                "email": "ada@example.org",
                "timestamp": 1_513_299_569,
                "sg_event_id": "6g4ZI7SA-xmRDv57GoPIPw==",
                "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0",
                "mail_id": ID,
            });
            entry.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
            entry
        };
        let bounce = |kind: &str, class: &str, status: &str, reason: &str| {
            entry(json!({
                "event": "bounce",
                "type": kind,
                "bounce_classification": class,
                "status": status,
                "reason": reason,
            }))
        };
        let cases = [
            (entry(json!({ "event": "delivered", "response": "250 OK" })), What::Delivered),
            (entry(json!({ "event": "deferred", "response": "400 later", "attempt": "5" })), What::Deferred),
            (entry(json!({ "event": "spamreport" })), What::Complained),
            (entry(json!({ "event": "dropped", "reason": "Bounced Address" })), What::Bounced),
            (entry(json!({ "event": "dropped", "reason": "Invalid" })), What::Bounced),
            (entry(json!({ "event": "dropped", "reason": "Spam Reporting Address" })), What::Deferred),
            (entry(json!({ "event": "dropped", "reason": "Spam Content" })), What::Deferred),
            (bounce("bounce", "Invalid Address", "5.1.1", "550 unknown"), What::Bounced),
            (entry(json!({ "event": "bounce", "type": "bounce", "reason": "500 unknown" })), What::Bounced),
            (bounce("bounce", "Reputation", "5.0.0", "550 no"), What::Deferred),
            (bounce("bounce", "Content", "5.0.0", "550 no"), What::Deferred),
            (bounce("bounce", "Unclassified", "5.7.1", "550 no"), What::Deferred),
            (bounce("blocked", "Invalid Address", "5.2.2", "552 over quota"), What::Deferred),
        ];
        let skipped = ["processed", "open", "click", "unsubscribe", "new"];
        let skipped = skipped.map(|event| entry(json!({ "event": event })));
        let all: Vec<&Value> = cases.iter().map(|(entry, _)| entry).chain(&skipped).collect();
        let (signer, at, body) = (Signer::new(), seconds(NOW), json!(all).to_string());
        let heard = signer.hear(&at, &signer.sign(&at, body.as_bytes()), body.as_bytes()).unwrap();
        assert_eq!(heard.len(), cases.len());
        for (event, (entry, what)) in heard.iter().zip(&cases) {
            assert_eq!(event.what, *what, "{entry}");
            assert_eq!(event.id, "6g4ZI7SA-xmRDv57GoPIPw==");
            assert_eq!((event.address.as_str(), event.reference.as_str()), ("ada@example.org", ID));
        }
        assert_eq!(heard[0].detail, "250 OK");
    }

    #[test]
    fn a_forged_one_tells_nothing() {
        let (signer, at) = (Signer::new(), seconds(NOW));
        let body = br#"[{"event":"delivered","email":"ada@example.org"}]"#.as_slice();
        let right = signer.sign(&at, body);
        assert_eq!(signer.hear(&at, &right, body).unwrap().len(), 1);

        let wrong = Err(Forged("its signature is wrong"));
        assert_eq!(signer.hear(&at, &right, br#"[{"event":"delivered","email":"eve@example.org"}]"#), wrong);
        assert_eq!(signer.hear(&(NOW.seconds() - 1).to_string(), &right, body), wrong);
        assert_eq!(signer.hear(&at, &Signer::new().sign(&at, body), body), wrong);
        assert_eq!(signer.hear(&at, "no base64", body), wrong);
        for (apart, fresh) in [(-25 * 3600, true), (-25 * 3600 - 1, false), (300, true), (301, false)] {
            let then = (NOW.seconds() + apart).to_string();
            assert_eq!(signer.hear(&then, &signer.sign(&then, body), body).is_ok(), fresh, "{apart}");
        }
        for some in [vec![(SIGNATURE, right.as_str())], vec![(TIMESTAMP, at.as_str())], Vec::new()] {
            let heard = signer.account().events(&headers(&some), body, NOW);
            assert_eq!(heard, Err(Forged("what proves it is missing")), "{some:?}");
        }
        let garbage = b"[".as_slice();
        let heard = signer.hear(&at, &signer.sign(&at, garbage), garbage);
        assert_eq!(heard, Err(Forged("its body is not JSON")));
    }
}
