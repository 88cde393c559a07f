//! Postmark: <https://postmarkapp.com/developer/api/email-api>. Its webhooks are signed by nobody; they bring
//! a password.

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::Message;
use super::api::{
    Account, Event, Forged, Request, Said, What, digest, document, first, line, post_json, refusal,
    spares_the_mailbox, taken, text, told,
};

pub(super) fn request(account: &Account, message: &Message) -> Request {
    let body = json!({
        "From": account.from.to_string(),
        "To": message.to,
        "Subject": message.subject,
        "TextBody": message.text,
        "HtmlBody": message.html,
        "Headers": [
            { "Name": "Auto-Submitted", "Value": "auto-generated" },
            { "Name": "Message-ID", "Value": account.message_id(message) },
            { "Name": "X-PM-KeepID", "Value": "true" },
        ],
        "TrackOpens": false,
        "TrackLinks": "None",
    });
    let auth = vec![("x-postmark-server-token", account.key.clone())];
    post_json(account.base("https://api.postmarkapp.com") + "/email", auth, &body)
}

pub(super) fn read(status: u16, body: &[u8]) -> Result<Said, String> {
    let answer = document(body);
    let why = text(&answer, "/Message");
    match answer.pointer("/ErrorCode").and_then(Value::as_u64) {
        Some(0) if status == 200 => taken(&answer, "/MessageID"),
        // It bounced before, its owner complained, or somebody suppressed it there.
        Some(406) => Ok(Said::NoSuchAddress(line(why))),
        Some(300) if ["Invalid 'To'", "Error parsing 'To'"].iter().any(|start| why.starts_with(*start)) => {
            Ok(Said::NoSuchAddress(line(why)))
        }
        // Maintenance, no credits left, too fast.
        Some(100 | 405 | 429) => Ok(Said::NotNow(line(why))),
        _ => refusal(status, why),
    }
}

/// Bounces that come from something else: a full mailbox, or a mail or a sender that is not liked.
const NOT_THE_MAILBOX: [&str; 11] = [
    "HardBounce",
    "SoftBounce",
    "Transient",
    "DnsError",
    "Blocked",
    "SpamNotification",
    "DMARCPolicy",
    "VirusNotification",
    "ManuallyDeactivated",
    "SMTPApiError",
    "Unknown",
];

pub(super) fn events(account: &Account, headers: &HeaderMap, body: &[u8]) -> Result<Vec<Event>, Forged> {
    account.knows_password(headers)?;
    let told = told(body)?;
    let record = text(&told, "/RecordType");
    let what = match (record, text(&told, "/Type")) {
        ("Delivery", _) => What::Delivered,
        ("SpamComplaint", _) | ("Bounce", "SpamComplaint") => What::Complained,
        ("Bounce", "HardBounce") if !spares_the_mailbox(text(&told, "/Details")) => What::Bounced,
        ("Bounce", "BadEmailAddress") => What::Bounced,
        ("Bounce", kind) if NOT_THE_MAILBOX.contains(&kind) => What::Deferred,
        _ => return Ok(Vec::new()),
    };
    let id = match told.pointer("/ID").and_then(Value::as_u64) {
        Some(id) => format!("{record} {id}"),
        None => digest(&told),
    };
    Ok(vec![Event {
        id,
        what,
        address: first(&told, &["/Recipient", "/Email"]).to_owned(),
        reference: text(&told, "/MessageID").to_owned(),
        detail: line(first(&told, &["/Details", "/Description"])),
    }])
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::super::api::Kind;
    use super::super::api::testing::{MESSAGE_ID, NOW, account, body, headers, message, value};
    use super::*;

    #[test]
    fn a_mail_is_one_document() {
        let request = account(Kind::Postmark, "").request(&message(), b"", NOW);
        assert_eq!(request.url, "https://api.postmarkapp.com/email");
        assert_eq!(value(&request, "x-postmark-server-token"), "k3y");
        assert_eq!(value(&request, "accept"), "application/json");
        let expected = json!({
            "From": "Pearlgate <no-reply@example.com>",
            "To": "ada+a@example.org",
            "Subject": "Prüfe & bestätige",
            "TextBody": "https://example.com/v#l1nk",
            "HtmlBody": "<a href=\"https://example.com/v#l1nk\">Ja</a>",
            "Headers": [
                { "Name": "Auto-Submitted", "Value": "auto-generated" },
                { "Name": "Message-ID", "Value": MESSAGE_ID },
                { "Name": "X-PM-KeepID", "Value": "true" },
            ],
            "TrackOpens": false,
            "TrackLinks": "None",
        });
        assert_eq!(body(&request), expected);
    }

    #[test]
    fn answers() {
        let taken = json!({
            "To": "ada+a@example.org",
            "SubmittedAt": "2014-02-17T07:25:01.4178645-05:00",
            "MessageID": "0a129aee-e1cd-480d-b08d-4f48548ff48d",
            "ErrorCode": 0,
            "Message": "OK",
        });
        let read = |status, body: &Value| {
            account(Kind::Postmark, "").read(status, body.to_string().as_bytes()).unwrap()
        };
        assert_eq!(read(200, &taken), Said::Taken("0a129aee-e1cd-480d-b08d-4f48548ff48d".into()));
        let refused =
            |status, code: u16, words: &str| read(status, &json!({ "ErrorCode": code, "Message": words }));
        let inactive = "You tried to send to a recipient that has been marked as inactive.\n\
                        Found inactive addresses: ada+a@example.org.";
        assert_eq!(refused(422, 406, inactive), Said::NoSuchAddress(inactive.replace('\n', " ")));
        for to in ["Invalid 'To' address: 'a@b'.", "Error parsing 'To': Illegal email domain 'b'."] {
            assert_eq!(refused(422, 300, to), Said::NoSuchAddress(to.into()));
        }
        for (status, code, words) in [
            (401, 10, "No Account or Server API tokens were supplied in the HTTP headers."),
            (422, 300, "Invalid 'From' address: 'a@b'."),
            (422, 400, "The 'From' address you supplied is not a Sender Signature on your account."),
            (422, 412, "While your account is pending approval, …"),
            (422, 413, "Your account may not send."),
            (413, 0, "Payload too large"),
        ] {
            let said = refused(status, code, words);
            assert!(matches!(said, Said::NotHere(_)), "{code}: {said:?}");
        }
        for (status, code) in [(422, 405), (422, 100), (429, 429)] {
            assert!(matches!(refused(status, code, "no"), Said::NotNow(_)), "{code}");
        }
    }

    fn hear(body: &Value, password: &str) -> Result<Vec<Event>, Forged> {
        let authorization = format!("Basic {}", BASE64.encode(password.as_bytes()));
        let headers = headers(&[("authorization", &authorization)]);
        account(Kind::Postmark, "pm:s3cret").events(&headers, body.to_string().as_bytes(), NOW)
    }

    fn bounce(kind: &str, details: &str) -> Value {
        json!({
            "RecordType": "Bounce",
            "ID": 901_542_550,
            "Type": kind,
            "MessageID": "2706ee8a-737c-4285-b032-ccd317af53ed",
            "Description": "The server was unable to deliver your message.",
            "Details": details,
            "Email": "bounce@example.com",
            "From": "sender@example.com",
            "BouncedAt": "2016-04-27T16:28:50.3963933-04:00",
            "Inactive": true,
        })
    }

    #[test]
    fn what_is_told_of_a_mail() {
        let delivery = json!({
            "RecordType": "Delivery",
            "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483",
            "Recipient": "recipient@example.com",
            "DeliveredAt": "2014-08-01T13:28:10.2735393-04:00",
            "Details": "Test delivery\nwebhook details",
        });
        let heard = hear(&delivery, "pm:s3cret").unwrap();
        let expected = Event {
            id: digest(&delivery),
            what: What::Delivered,
            address: "recipient@example.com".into(),
            reference: "883953f4-6105-42a2-a16a-77a8eac79483".into(),
            detail: "Test delivery webhook details".into(),
        };
        assert_eq!(heard, [expected]);
        assert_ne!(heard[0].id, digest(&bounce("HardBounce", "")), "another entry has another name");

        let mut complaint = bounce("SpamComplaint", "");
        complaint["RecordType"] = json!("SpamComplaint");
        for (told, what) in [
            (bounce("HardBounce", "smtp;550 5.1.1 does not exist"), What::Bounced),
            (bounce("HardBounce", "smtp;550 5.7.1 blocked for spam"), What::Deferred),
            (bounce("BadEmailAddress", ""), What::Bounced),
            (bounce("SoftBounce", ""), What::Deferred),
            (bounce("Transient", ""), What::Deferred),
            (bounce("Blocked", ""), What::Deferred),
            (bounce("SpamNotification", ""), What::Deferred),
            (complaint, What::Complained),
        ] {
            let heard = hear(&told, "pm:s3cret").unwrap();
            let [event] = heard.as_slice() else { panic!("{told}: {heard:?}") };
            assert_eq!(event.what, what, "{told}");
            assert_eq!(event.address, "bounce@example.com");
            assert_eq!(event.id, format!("{} 901542550", told["RecordType"].as_str().unwrap()));
            assert_eq!(event.reference, "2706ee8a-737c-4285-b032-ccd317af53ed");
        }
        for kind in ["AutoResponder", "Subscribe", "Unsubscribe", "AddressChange", "New"] {
            assert_eq!(hear(&bounce(kind, ""), "pm:s3cret"), Ok(Vec::new()), "{kind}");
        }
        for record in ["Open", "Click", "SubscriptionChange", "Inbound", "New"] {
            assert_eq!(hear(&json!({ "RecordType": record }), "pm:s3cret"), Ok(Vec::new()), "{record}");
        }
    }

    #[test]
    fn a_forged_one_tells_nothing() {
        let told = bounce("HardBounce", "");
        assert!(hear(&told, "pm:s3cret").is_ok());
        for password in ["pm:s3cre", "pm:other", "other:s3cret", ""] {
            assert_eq!(hear(&told, password), Err(Forged("its password is wrong")), "{password}");
        }
        let account = account(Kind::Postmark, "pm:s3cret");
        let missing = account.events(&HeaderMap::new(), told.to_string().as_bytes(), NOW);
        assert_eq!(missing, Err(Forged("what proves it is missing")));
        let authorization = format!("Basic {}", BASE64.encode(b"pm:s3cret"));
        let garbage = account.events(&headers(&[("authorization", &authorization)]), b"[", NOW);
        assert_eq!(garbage, Err(Forged("its body is not JSON")));
    }
}
