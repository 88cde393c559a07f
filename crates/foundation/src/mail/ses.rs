//! Amazon SES: <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>, signed by hand.
//! It takes the whole mail, but gives it a Message-ID of its own; tracking is set for a configuration set.
//! What becomes of a mail it tells by a topic at SNS:
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>.

use std::fmt;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use url::Url;
use webpki::EndEntityCert;
use webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA256;

use super::Message;
use super::api::{
    Account, Event, Forged, JSON, Request, Said, What, document, first, happened, line, refusal,
    spares_the_mailbox, taken, text, told,
};
use crate::kernel::{Digest, MacKey, Secret, Timestamp, sha256};

pub(super) fn request(account: &Account, message: &Message, mime: &[u8], now: Timestamp) -> Request {
    let own = format!("https://email.{}.amazonaws.com", account.region);
    let url = account.base(&own) + "/v2/email/outbound-emails";
    let body = json!({
        "Content": { "Raw": { "Data": BASE64.encode(mime) } },
        "Destination": { "ToAddresses": [message.to] },
    });
    let body = body.to_string().into_bytes();
    let (host, path) = place(&url);
    let at = stamp(now);
    let signer =
        Signer { id: &account.id, key: &account.key, region: &account.region, service: "ses", at: &at };
    let headers: [(&str, &str); 3] = [("content-type", JSON), ("host", &host), ("x-amz-date", &at)];
    let authorization = signer.authorization("POST", &path, &headers, &body);
    Request {
        url,
        headers: vec![
            ("authorization", Secret::new(authorization)),
            ("content-type", Secret::new(JSON.into())),
            ("x-amz-date", Secret::new(at)),
        ],
        body,
    }
}

/// Host and path, as the client will say them.
fn place(url: &str) -> (String, String) {
    let Ok(url) = Url::parse(url) else { return <(String, String)>::default() };
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    (host, url.path().to_owned())
}

/// `20150830T123600Z`.
fn stamp(at: Timestamp) -> String {
    at.to_string().chars().take(19).filter(|c| !matches!(c, '-' | ':')).chain(['Z']).collect()
}

/// Signs a request that has no query, by AWS's Signature Version 4.
struct Signer<'a> {
    id: &'a str,
    key: &'a Secret,
    region: &'a str,
    service: &'a str,
    at: &'a str,
}

impl Signer<'_> {
    /// What the `authorization` header says; `headers` are in the order of their names, which are lower case.
    fn authorization(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("{method}\n{path}\n\n{lines}\n{names}\n{}", hex(&sha256(body)));
        let day = self.at.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let signed = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", self.at, hex(&sha256(request.as_bytes())));
        let secret = Secret::new(format!("AWS4{}", self.key.reveal()));
        let parts = [day, self.region, self.service, "aws4_request"];
        let key = parts.iter().fold(MacKey::new(secret.reveal().as_bytes()), |key, part| {
            MacKey::new(key.mac(part.as_bytes()).as_bytes())
        });
        let proof = hex(&key.mac(signed.as_bytes()));
        format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={proof}", self.id)
    }
}

fn hex(digest: &Digest) -> String {
    HEXLOWER.encode(digest.as_bytes())
}

pub(super) fn read(status: u16, body: &[u8]) -> Result<Said, String> {
    let answer = document(body);
    if status == 200 {
        return taken(&answer, "/MessageId");
    }
    // Which error it is stands in a header; the words are all that tells a quota, which comes with 400.
    let why = first(&answer, &["/message", "/Message"]);
    let passes = ["rate exceeded", "quota exceeded"].iter().any(|end| why.to_lowercase().contains(*end));
    if passes { Ok(Said::NotNow(line(why))) } else { refusal(status, why) }
}

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
    let mut parts = region.split('-');
    let letters = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let (first, last) = (parts.next().unwrap_or_default(), parts.next_back().unwrap_or_default());
    let (words, mut between) = (parts.clone().count(), parts);
    let is_region = first.len() == 2
        && letters(first)
        && (1..=2).contains(&words)
        && between.all(letters)
        && !last.is_empty()
        && last.bytes().all(|byte| byte.is_ascii_digit());
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

    use super::super::api::Kind;
    use super::super::api::testing::{NOW, account, message, value};
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
    fn a_request_is_signed_as_aws_publishes() {
        let key = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into());
        let signer = Signer {
            id: "AKIDEXAMPLE",
            key: &key,
            region: "us-east-1",
            service: "service",
            at: "20150830T123600Z",
        };
        let start = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                     SignedHeaders=";
        // post-vanilla
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        let proof = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
        assert_eq!(
            signer.authorization("POST", "/", &headers, b""),
            format!("{start}host;x-amz-date, Signature={proof}")
        );
        // post-x-www-form-urlencoded
        let form = ("content-type", "application/x-www-form-urlencoded");
        let proof = "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a";
        assert_eq!(
            signer.authorization("POST", "/", &[form, headers[0], headers[1]], b"Param1=value1"),
            format!("{start}content-type;host;x-amz-date, Signature={proof}")
        );
    }

    #[test]
    fn a_mail_is_handed_over_whole() {
        let account = account(Kind::Ses, "");
        let request = account.request(&message(), b"From: x\r\n\r\nmime", NOW);
        assert_eq!(request.url, "https://email.eu-central-1.amazonaws.com/v2/email/outbound-emails");
        let expected = json!({
            "Content": { "Raw": { "Data": "RnJvbTogeA0KDQptaW1l" } },
            "Destination": { "ToAddresses": ["ada+a@example.org"] },
        });
        assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), expected);
        assert_eq!(value(&request, "x-amz-date"), "20231114T221320Z");
        assert_eq!(value(&request, "content-type"), "application/json");
        let signer = Signer {
            id: "AKIDEXAMPLE",
            key: &account.key,
            region: "eu-central-1",
            service: "ses",
            at: "20231114T221320Z",
        };
        let headers = [
            ("content-type", "application/json"),
            ("host", "email.eu-central-1.amazonaws.com"),
            ("x-amz-date", "20231114T221320Z"),
        ];
        let path = "/v2/email/outbound-emails";
        assert_eq!(
            value(&request, "authorization"),
            signer.authorization("POST", path, &headers, &request.body)
        );

        let mut behind = account.clone();
        behind.url = "http://127.0.0.1:1234/aws".into();
        let request = behind.request(&message(), b"", NOW);
        let headers = [headers[0], ("host", "127.0.0.1:1234"), headers[2]];
        let path = "/aws/v2/email/outbound-emails";
        assert_eq!(
            value(&request, "authorization"),
            signer.authorization("POST", path, &headers, &request.body)
        );
    }

    #[test]
    fn answers() {
        let read = |status, body: &str| account(Kind::Ses, "").read(status, body.as_bytes()).unwrap();
        let taken = r#"{"MessageId":"0107018b-7c191be45-000000"}"#;
        assert_eq!(read(200, taken), Said::Taken("0107018b-7c191be45-000000".into()));
        for (status, words) in [
            (400, "Email address is not verified. The following identities failed the check: x"),
            (400, "Sending paused for this account."),
            (403, "The security token included in the request is invalid."),
            (403, "Signature expired: 20231114T221320Z is now earlier than 20231114T222320Z"),
            (404, "Configuration set <x> does not exist."),
        ] {
            let said = read(status, &json!({ "message": words }).to_string());
            assert!(matches!(said, Said::NotHere(_)), "{words}: {said:?}");
        }
        for (status, words) in [
            (400, "Daily message quota exceeded."),
            (400, "Maximum sending rate exceeded."),
            (429, "Too many requests"),
        ] {
            let said = read(status, &json!({ "Message": words }).to_string());
            assert!(matches!(said, Said::NotNow(_)), "{words}: {said:?}");
        }
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
