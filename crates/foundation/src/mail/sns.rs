//! What Amazon SES tells of a mail, by a topic at SNS:
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>.

use std::fmt;
use std::time::Duration;

use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use url::Url;
use webpki::EndEntityCert;
use webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA256;

use super::api::{Event, Forged, What, document, first, happened, line, spares_the_mailbox, text, told};
use crate::kernel::Timestamp;

/// What SNS says to an address that is subscribed to a topic, or is to be.
#[derive(Clone)]
pub(super) struct Notice(Value);

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notice").field(&self.field("Type")).field(&self.field("MessageId")).finish()
    }
}

/// For so long SNS tries at most.
const HOUR: Duration = Duration::from_secs(60 * 60);
const OF_ALL: [&str; 8] = [
    "Type",
    "MessageId",
    "TopicArn",
    "Message",
    "Timestamp",
    "SignatureVersion",
    "Signature",
    "SigningCertURL",
];
const TO_CONFIRM: [&str; 2] = ["SubscribeURL", "Token"];

impl Notice {
    /// What a request brings. Nothing of it is proven before [`Notice::verify`].
    ///
    /// # Errors
    /// [`Forged`] when it is not what SNS sends.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Forged> {
        let notice = Self(told(body)?);
        let more: &[&str] = match notice.field("Type") {
            "Notification" => &[],
            "SubscriptionConfirmation" | "UnsubscribeConfirmation" => &TO_CONFIRM,
            _ => return Err(Forged("it is not what SNS sends")),
        };
        let whole = OF_ALL.iter().chain(more).all(|name| !notice.field(name).is_empty());
        if whole { Ok(notice) } else { Err(Forged("it is not whole")) }
    }

    /// The topic that it says it is of: a stranger's needs no look at its certificate.
    pub(super) fn topic(&self) -> &str {
        self.field("TopicArn")
    }

    /// Where the certificate is that it is signed with.
    ///
    /// # Errors
    /// [`Forged`] when that is not at SNS, where anybody's key could be.
    pub(super) fn cert_url(&self) -> Result<String, Forged> {
        at_sns(self.field("SigningCertURL"))
            .filter(|url| url.path().ends_with(".pem") && url.query().is_none())
            .map(String::from)
            .ok_or(Forged("its certificate is not at SNS"))
    }

    /// Whether it is of this topic: everybody's are signed with the same key. Its name is no secret.
    pub(super) fn is_of(&self, topic_arn: &str) -> bool {
        !topic_arn.is_empty() && self.topic() == topic_arn
    }

    /// Whether it is of this topic, of this hour, and signed with the certificate from [`Notice::cert_url`].
    ///
    /// # Errors
    /// [`Forged`] with the reason.
    pub(super) fn verify(&self, topic_arn: &str, pem: &[u8], now: Timestamp) -> Result<(), Forged> {
        if !self.is_of(topic_arn) {
            return Err(Forged("it is of another topic"));
        }
        // 1 is SHA-1.
        if self.field("SignatureVersion") != "2" {
            return Err(Forged("the topic's SignatureVersion is not 2"));
        }
        let at = Timestamp::parse(self.field("Timestamp")).ok_or(Forged("its time is none"))?;
        happened(at, now, HOUR)?;
        let wrong = Forged("its signature is wrong");
        let given = BASE64.decode(self.field("Signature").as_bytes()).map_err(|_| wrong)?;
        let unreadable = Forged("its certificate cannot be read");
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| unreadable)?;
        EndEntityCert::try_from(&certificate)
            .map_err(|_| unreadable)?
            .verify_signature(RSA_PKCS1_2048_8192_SHA256, self.signed().as_bytes(), &given)
            .map_err(|_| wrong)
    }

    /// What is signed of it.
    fn signed(&self) -> String {
        let names: &[&str] = match self.field("Type") {
            "Notification" => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
            _ => &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
        };
        let said = |name: &&str| Some(format!("{name}\n{}\n", self.0.get(*name)?.as_str()?));
        names.iter().filter_map(said).collect()
    }

    /// What has to be fetched so that the topic tells us: when it asks for that.
    pub(super) fn confirm_url(&self) -> Option<String> {
        let asks = self.field("Type") == "SubscriptionConfirmation";
        at_sns(self.field("SubscribeURL")).filter(|_| asks).map(String::from)
    }

    /// What SES tells: as events of a configuration set, or as notifications of an identity, which came
    /// before.
    pub(super) fn events(&self) -> Vec<Event> {
        if self.field("Type") != "Notification" {
            return Vec::new();
        }
        // SNS also says, in plain words, that a topic was set up.
        let told = document(self.field("Message").as_bytes());
        let people = match first(&told, &["/eventType", "/notificationType"]) {
            "Delivery" => "/delivery/recipients",
            "Bounce" => "/bounce/bouncedRecipients",
            "DeliveryDelay" => "/deliveryDelay/delayedRecipients",
            "Complaint" => "/complaint/complainedRecipients",
            "Reject" => "/mail/destination",
            _ => return Vec::new(),
        };
        let people = told.pointer(people).and_then(Value::as_array).into_iter().flatten().enumerate();
        people
            .map(|(at, person)| {
                let (what, detail) = happened_to(&told, person);
                Event {
                    id: format!("{}-{at}", self.field("MessageId")),
                    what,
                    address: person.as_str().unwrap_or_else(|| text(person, "/emailAddress")).to_owned(),
                    reference: text(&told, "/mail/messageId").to_owned(),
                    detail: line(detail),
                }
            })
            .collect()
    }

    fn field(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// What one of a mail's recipients has to do with what is told.
fn happened_to<'a>(told: &'a Value, person: &'a Value) -> (What, &'a str) {
    let reply = text(person, "/diagnosticCode");
    let reply = |or: &[&str]| if reply.is_empty() { first(told, or) } else { reply };
    match first(told, &["/eventType", "/notificationType"]) {
        "Delivery" => (What::Delivered, text(told, "/delivery/smtpResponse")),
        "Complaint" => {
            let kinds = ["/complaint/complaintFeedbackType", "/complaint/complaintSubType"];
            (What::Complained, first(told, &kinds))
        }
        "Bounce" => {
            let class = text(told, "/bounce/bounceSubType");
            let blamed = matches!(class, "General" | "NoEmail" | "Suppressed" | "OnAccountSuppressionList")
                && text(told, "/bounce/bounceType") == "Permanent"
                && !spares_the_mailbox(text(person, "/status"))
                && !spares_the_mailbox(text(person, "/diagnosticCode"));
            let what = if blamed { What::Bounced } else { What::Deferred };
            (what, reply(&["/bounce/bounceSubType", "/bounce/bounceType"]))
        }
        "Reject" => (What::Deferred, text(told, "/reject/reason")),
        _ => (What::Deferred, reply(&["/deliveryDelay/delayType"])),
    }
}

/// An address at SNS, in one of its regions, and nowhere else.
fn at_sns(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    let rest = url.host_str()?.strip_prefix("sns.")?;
    let region = rest.strip_suffix(".amazonaws.com").or_else(|| rest.strip_suffix(".amazonaws.com.cn"))?;
    // Two letters, words, a number: what else ends so may be a bucket of anybody's.
    let letters = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_region = match region.split('-').collect::<Vec<_>>().as_slice() {
        [first, words @ .., last] => {
            first.len() == 2
                && letters(first)
                && (1..=2).contains(&words.len())
                && words.iter().all(letters)
                && is_number(last)
        }
        _ => false,
    };
    let is_plain = url.scheme() == "https"
        && url.port().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none();
    (is_region && is_plain).then_some(url)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
    use serde_json::json;

    use super::super::api::testing::NOW;
    use super::*;

    const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:mails";
    const CONFIRM: &str = "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336";

    /// Making one takes a while.
    static KEY: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    static OTHER: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let inside = parts.concat();
        let length = u16::try_from(inside.len()).unwrap().to_be_bytes();
        // In the shortest form, which DER wants.
        let length = match inside.len() {
            0..=127 => vec![length[1]],
            128..=255 => vec![0x81, length[1]],
            _ => vec![0x82, length[0], length[1]],
        };
        let whole: [&[u8]; 3] = [&[tag], &length, &inside];
        whole.concat()
    }

    /// A certificate for a key, which vouches for itself with nothing: only its key is looked at.
    fn certificate(key: &RsaKeyPair) -> String {
        let public: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        let sha256_with_rsa = der(0x30, &[&[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b], &[5, 0]]);
        let time = der(0x17, &[b"200101000000Z"]);
        let body = der(
            0x30,
            &[
                &der(0xa0, &[&[2, 1, 2]]),
                &[2, 1, 1],
                &sha256_with_rsa,
                &der(0x30, &[]),
                &der(0x30, &[&time, &time]),
                &der(0x30, &[]),
                public.as_ref(),
            ],
        );
        let whole = der(0x30, &[&body, &sha256_with_rsa, &der(3, &[&[0, 0]])]);
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(&whole))
    }

    fn sign(key: &RsaKeyPair, notice: &Notice) -> String {
        let mut signature = vec![0; key.public_modulus_len()];
        let signed = notice.signed();
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        BASE64.encode(&signature)
    }

    fn unsigned(message: &Value, more: &Value) -> Value {
        let mut notice = json!({
            "Type": "Notification",
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": TOPIC,
            "Subject": "Amazon SES Email Event Notification",
            "Message": message.to_string(),
            "Timestamp": "2023-11-14T22:13:10.123Z",
            "SignatureVersion": "2",
            "Signature": "AA==",
            "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-f3ecfb72.pem",
            "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe",
        });
        notice.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        notice
    }

    fn parse(notice: &Value) -> Result<Notice, Forged> {
        Notice::parse(notice.to_string().as_bytes())
    }

    /// Signed by `key`, whatever is in it.
    fn signed(key: &RsaKeyPair, mut notice: Value) -> Value {
        notice["Signature"] = json!(sign(key, &parse(&notice).unwrap()));
        notice
    }

    fn confirmation() -> Value {
        unsigned(
            &json!("You have chosen to subscribe"),
            &json!({
                "Type": "SubscriptionConfirmation",
                "Subject": null,
                "Token": "2336412f37fb687f5d51e6e2425c464de257eb",
                "SubscribeURL": CONFIRM,
            }),
        )
    }

    fn verify(notice: &Value, now: Timestamp) -> Result<(), Forged> {
        parse(notice)?.verify(TOPIC, certificate(&KEY).as_bytes(), now)
    }

    #[test]
    fn a_certificate_is_fetched_from_sns_and_from_nowhere_else() {
        let at = |url: &str| {
            let found = parse(&unsigned(&json!({}), &json!({ "SigningCertURL": url }))).unwrap().cert_url();
            let mut asks = confirmation();
            asks["SubscribeURL"] = json!(url);
            (found.is_ok(), parse(&asks).unwrap().confirm_url().is_some())
        };
        for right in [
            "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-f3ecfb72.pem",
            "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-f3ecfb72.pem",
            "https://sns.us-gov-west-1.amazonaws.com:443/a.pem",
        ] {
            assert_eq!(at(right), (true, true), "{right}");
        }
        for wrong in [
            "https://sns.s3-eu-west-1.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.eu.amazonaws.com/SimpleNotificationService-1.pem",
            "http://sns.eu-central-1.amazonaws.com/a.pem",
            "https://sns.eu-central-1.amazonaws.com.example.com/a.pem",
            "https://sns.eu-central-1.amazonaws.com@example.com/a.pem",
            "https://example.com/sns.eu-central-1.amazonaws.com/a.pem",
            "https://user@sns.eu-central-1.amazonaws.com/a.pem",
            "https://:word@sns.eu-central-1.amazonaws.com/a.pem",
            "https://sns.eu-central-1.amazonaws.com:8443/a.pem",
            "https://sns.eu-central-1.amazonaws.com/a.pem#b",
            "https://sns.bucket.s3.amazonaws.com/a.pem",
            "https://sns.amazonaws.com/a.pem",
            "https://sns..amazonaws.com/a.pem",
            "https://bucket.sns.eu-central-1.amazonaws.com/a.pem",
            "https://sns.eu-central-1.amazonaws.com./a.pem",
            "https://sns.eu-central-1.amazonaws.co/a.pem",
            "https://127.0.0.1/a.pem",
            "a.pem",
        ] {
            assert_eq!(at(wrong), (false, false), "{wrong}");
        }
        for no_certificate in [
            "https://sns.eu-central-1.amazonaws.com/",
            "https://sns.eu-central-1.amazonaws.com/?a.pem",
            "https://sns.eu-central-1.amazonaws.com/a.pem?b",
            "https://sns.eu-central-1.amazonaws.com/a.pem/b",
        ] {
            assert_eq!(at(no_certificate), (false, true), "{no_certificate}");
        }
    }

    #[test]
    fn a_subscription_is_confirmed_when_that_is_asked() {
        let asks = signed(&KEY, confirmation());
        assert_eq!(verify(&asks, NOW), Ok(()));
        let asks = parse(&asks).unwrap();
        assert_eq!(asks.topic(), TOPIC);
        assert_eq!(asks.confirm_url().as_deref(), Some(CONFIRM));
        assert!(asks.events().is_empty());
        let mut ends = confirmation();
        ends["Type"] = json!("UnsubscribeConfirmation");
        let ends = signed(&KEY, ends);
        assert_eq!(verify(&ends, NOW), Ok(()));
        assert_eq!(parse(&ends).unwrap().confirm_url(), None);
        assert_eq!(parse(&unsigned(&json!({}), &json!({}))).unwrap().confirm_url(), None);
    }

    #[test]
    fn what_is_signed_is_what_sns_publishes() {
        let told = unsigned(&json!("My Test Message"), &json!({ "Subject": "My subject" }));
        let expected = "Message\n\"My Test Message\"\nMessageId\n22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324\n\
                        Subject\nMy subject\nTimestamp\n2023-11-14T22:13:10.123Z\nTopicArn\n\
                        arn:aws:sns:eu-central-1:123456789012:mails\nType\nNotification\n";
        assert_eq!(parse(&told).unwrap().signed(), expected);
        let mut plain = told.clone();
        plain.as_object_mut().unwrap().remove("Subject");
        assert_eq!(parse(&plain).unwrap().signed(), expected.replace("Subject\nMy subject\n", ""));
        let expected = "Message\n\"You have chosen to subscribe\"\nMessageId\n\
                        22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324\n\
                        SubscribeURL\n\
                        https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336\n\
                        Timestamp\n2023-11-14T22:13:10.123Z\nToken\n2336412f37fb687f5d51e6e2425c464de257eb\n\
                        TopicArn\narn:aws:sns:eu-central-1:123456789012:mails\n\
                        Type\nSubscriptionConfirmation\n";
        assert_eq!(parse(&confirmation()).unwrap().signed(), expected);
    }

    #[test]
    fn a_forged_one_tells_nothing() {
        let told = signed(&KEY, unsigned(&json!({ "eventType": "Delivery" }), &json!({})));
        assert_eq!(verify(&told, NOW), Ok(()));
        let changed = |name: &str, to: &str| {
            let mut changed = told.clone();
            changed[name] = json!(to);
            changed
        };
        let wrong = Err(Forged("its signature is wrong"));
        for name in ["Message", "MessageId", "Subject", "Type"] {
            let to = if name == "Type" { "SubscriptionConfirmation" } else { "other" };
            let mut changed = changed(name, to);
            (changed["Token"], changed["SubscribeURL"]) = (json!("t"), json!("u"));
            assert_eq!(verify(&changed, NOW), wrong, "{name}");
        }
        assert_eq!(verify(&changed("Timestamp", "2023-11-14T22:13:11.123Z"), NOW), wrong);
        assert_eq!(verify(&changed("Signature", "AAAA"), NOW), wrong);
        assert_eq!(verify(&changed("Signature", "no base64"), NOW), wrong);
        assert_eq!(verify(&changed("Timestamp", "yesterday"), NOW), Err(Forged("its time is none")));
        let mut other = unsigned(&json!({}), &json!({}));
        other["TopicArn"] = json!("arn:aws:sns:eu-central-1:123456789012:eve");
        assert_eq!(verify(&signed(&KEY, other), NOW), Err(Forged("it is of another topic")));
        let older = signed(&KEY, unsigned(&json!({}), &json!({ "SignatureVersion": "1" })));
        assert_eq!(verify(&older, NOW), Err(Forged("the topic's SignatureVersion is not 2")));
        assert_eq!(verify(&signed(&OTHER, told.clone()), NOW), wrong);

        let notice = parse(&told).unwrap();
        let (pem, other_pem) = (certificate(&KEY), certificate(&OTHER));
        assert_eq!(notice.verify("", pem.as_bytes(), NOW), Err(Forged("it is of another topic")));
        assert_eq!(notice.verify(TOPIC, other_pem.as_bytes(), NOW), wrong);
        for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let read = notice.verify(TOPIC, pem.as_bytes(), NOW);
            assert_eq!(read, Err(Forged("its certificate cannot be read")));
        }
        let late = Timestamp::parse("2023-11-14T23:13:10.123Z").unwrap();
        assert_eq!(verify(&told, late), Ok(()));
        let old = Err(Forged("it is too old, or from the future"));
        assert_eq!(verify(&told, late + Duration::from_millis(1)), old);
        assert_eq!(verify(&told, late - Duration::from_secs(3_600 + 301)), old);
    }

    #[test]
    fn what_is_not_whole_is_not_read() {
        for name in OF_ALL {
            let mut some = unsigned(&json!({}), &json!({}));
            some.as_object_mut().unwrap().remove(name);
            assert!(parse(&some).is_err(), "{name}");
        }
        for name in TO_CONFIRM {
            let mut some = confirmation();
            some[name] = json!(7);
            assert_eq!(parse(&some).unwrap_err(), Forged("it is not whole"), "{name}");
        }
        let strange = unsigned(&json!({}), &json!({ "Type": "Other" }));
        assert_eq!(parse(&strange).unwrap_err(), Forged("it is not what SNS sends"));
        for body in ["", "[]", "null", "{}", "\"Notification\""] {
            assert!(Notice::parse(body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(
            format!("{:?}", parse(&confirmation()).unwrap()),
            "Notice(\"SubscriptionConfirmation\", \"22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324\")"
        );
    }

    #[test]
    fn what_is_told_of_a_mail() {
        let bounce = |kind: &str, class: &str, status: &str, reply: &str| {
            let person = json!({
                "emailAddress": "ada@example.org",
                "status": status,
                "action": "failed",
                "diagnosticCode": reply,
            });
            json!({ "bounceType": kind, "bounceSubType": class, "bouncedRecipients": [person] })
        };
        let person = json!([{ "emailAddress": "ada@example.org" }]);
        let delivery = json!({ "recipients": ["ada@example.org"], "smtpResponse": "250 ok:  accepted" });
        let cases = [
            ("Delivery", "delivery", delivery, What::Delivered, "250 ok: accepted"),
            (
                "Bounce",
                "bounce",
                bounce("Permanent", "General", "5.1.1", "smtp; 550 5.1.1 unknown"),
                What::Bounced,
                "smtp; 550 5.1.1 unknown",
            ),
            ("Bounce", "bounce", bounce("Permanent", "Suppressed", "", ""), What::Bounced, "Suppressed"),
            ("Bounce", "bounce", bounce("Permanent", "General", "5.7.1", ""), What::Deferred, "General"),
            (
                "Bounce",
                "bounce",
                bounce("Permanent", "General", "5.0.0", "smtp; 554 5.7.1 spam"),
                What::Deferred,
                "smtp; 554 5.7.1 spam",
            ),
            ("Bounce", "bounce", bounce("Transient", "MailboxFull", "", ""), What::Deferred, "MailboxFull"),
            ("Bounce", "bounce", bounce("Transient", "General", "", ""), What::Deferred, "General"),
            ("Bounce", "bounce", bounce("Undetermined", "Other", "", ""), What::Deferred, "Other"),
            (
                "Complaint",
                "complaint",
                json!({ "complainedRecipients": person.clone(), "complaintFeedbackType": "abuse" }),
                What::Complained,
                "abuse",
            ),
            (
                "DeliveryDelay",
                "deliveryDelay",
                json!({ "delayedRecipients": person.clone(), "delayType": "SpamDetected" }),
                What::Deferred,
                "SpamDetected",
            ),
            ("Reject", "reject", json!({ "reason": "Bad content" }), What::Deferred, "Bad content"),
        ];
        for (kind, place, of, what, detail) in &cases {
            for name in ["eventType", "notificationType"] {
                let mail = json!({ "messageId": "00000138-603-000000", "destination": ["ada@example.org"] });
                let told = json!({ (name): kind, (*place): of, "mail": mail });
                let heard = parse(&unsigned(&told, &json!({}))).unwrap().events();
                let expected = Event {
                    id: "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324-0".into(),
                    what: *what,
                    address: "ada@example.org".into(),
                    reference: "00000138-603-000000".into(),
                    detail: (*detail).into(),
                };
                assert_eq!(heard, [expected], "{told}");
            }
        }
        let two = json!({
            "eventType": "Delivery",
            "mail": { "messageId": "1" },
            "delivery": { "recipients": ["ada@example.org", "bob@example.org"] },
        });
        let heard = parse(&unsigned(&two, &json!({}))).unwrap().events();
        assert_eq!(heard.len(), 2);
        assert_ne!(heard[0].id, heard[1].id);
        for kind in ["Send", "Open", "Click", "Rendering Failure", "Subscription", "Received", "new"] {
            let told = json!({ "eventType": kind, "mail": { "destination": ["ada@example.org"] } });
            assert!(parse(&unsigned(&told, &json!({}))).unwrap().events().is_empty(), "{kind}");
        }
        let words = "Successfully validated SNS topic for Amazon SES event publishing.";
        let plain = unsigned(&json!({}), &json!({ "Message": words }));
        assert!(parse(&plain).unwrap().events().is_empty());
    }
}
