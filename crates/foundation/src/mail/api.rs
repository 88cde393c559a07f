//! Providers that take mails over HTTP: an account, the request that hands a mail over, what is said to it,
//! and what is told of the mail afterwards. How each of them spells that is in a file of its own; what they
//! share is here.

use std::fmt;
use std::time::Duration;

use axum::http::HeaderMap;
use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use url::Url;

use super::{Message, brevo, mailgun, postmark, resend, sendgrid, ses};
use crate::kernel::{Secret, Timestamp, sha256};

/// Which provider's HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Resend.
    Resend,
    /// Postmark.
    Postmark,
    /// Twilio SendGrid.
    Sendgrid,
    /// Mailgun.
    Mailgun,
    /// Amazon SES.
    Ses,
    /// Brevo.
    Brevo,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Resend, Self::Postmark, Self::Sendgrid, Self::Mailgun, Self::Ses, Self::Brevo];

    /// The provider with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resend => "resend",
            Self::Postmark => "postmark",
            Self::Sendgrid => "sendgrid",
            Self::Mailgun => "mailgun",
            Self::Ses => "ses",
            Self::Brevo => "brevo",
        }
    }
}

/// An account at a provider.
#[derive(Debug, Clone)]
pub struct Account {
    /// Which provider's.
    pub kind: Kind,
    /// API key or server token; the secret access key at SES.
    pub key: Secret,
    /// The access key's id at SES, the sending domain at Mailgun; else empty.
    pub id: String,
    /// SES: such as `eu-central-1`. Mailgun: `us` or `eu`. Else empty.
    pub region: String,
    /// Where its API is instead of at the provider (a gateway, tests): `http://127.0.0.1:1234`, without a
    /// slash at the end; empty for the provider's own.
    pub url: String,
    /// What its webhooks are proven with: a signing secret, a public key, `user:password` or a bearer token,
    /// at SES the topic's ARN; empty: none are taken.
    pub events_secret: Secret,
    /// Whom mails are from.
    pub from: lettre::message::Mailbox,
}

/// A request that hands a mail over: always a POST.
#[derive(Clone)]
pub struct Request {
    /// Where to.
    pub url: String,
    /// Names and values; the key is among them.
    pub headers: Vec<(&'static str, Secret)>,
    /// The mail, with the links and codes that are in it.
    pub body: Vec<u8>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What the provider said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It took the mail; its own name for it. Empty when it names none: SendGrid's events name the mail by
    /// our id, and Brevo may say only that it has it already.
    Taken(String),
    /// Nobody can send to this address: the provider suppresses it, or it is none.
    NoSuchAddress(String),
    /// It will not send this mail, or not for this account: another provider may.
    NotHere(String),
    /// Not now: over its rate or quota.
    NotNow(String),
}

/// Something a provider tells of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The same whenever this is told again.
    pub id: String,
    /// What happened.
    pub what: What,
    /// To whom.
    pub address: String,
    /// The provider's name for the mail, as in [`Said::Taken`].
    pub reference: String,
    /// One line.
    pub detail: String,
}

/// What happened to a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The recipient's server has it.
    Delivered,
    /// The mailbox does not exist, permanently.
    Bounced,
    /// It did not arrive, for the moment or for a reason that is not the mailbox's.
    Deferred,
    /// The recipient called it spam.
    Complained,
}

/// A webhook that did not come from the provider, or not as it comes from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Forged(pub &'static str);

impl Account {
    /// What was said, without what it is proven with: some repeat what they were asked.
    pub(super) fn hide(&self, words: String) -> String {
        let secrets = [self.key.reveal(), self.events_secret.reveal()];
        secrets
            .into_iter()
            .filter(|secret| secret.len() > 3)
            .fold(words, |words, secret| words.replace(secret, "(hidden)"))
    }

    /// Whether it can be used at all; nobody is asked.
    ///
    /// # Errors
    /// What is wrong with it, the field first.
    pub fn check(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(what.to_owned());
        let is_name = |text: &str, more: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        // It becomes a header.
        if self.key.reveal().is_empty() || !self.key.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong("`key` is empty, or has more in it than visible ASCII");
        }
        match self.kind {
            Kind::Mailgun if !is_name(&self.id, ".-") => return wrong("`id` is not the sending domain"),
            Kind::Mailgun if !matches!(self.region.as_str(), "us" | "eu") => {
                return wrong("`region` is neither \"us\" nor \"eu\"");
            }
            Kind::Ses if !is_name(&self.id, "") => return wrong("`id` is not an access key's id"),
            Kind::Ses if !is_name(&self.region, "-") => {
                return wrong("`region` is not one like \"eu-central-1\"");
            }
            _ => {}
        }
        if !self.url.is_empty() && !is_place(&self.url) {
            return wrong("`url` is not like \"https://host\", without a slash at the end");
        }
        let secret = &self.events_secret;
        let proves = match self.kind {
            _ if secret.reveal().is_empty() => true,
            Kind::Resend => resend::key(secret).is_some(),
            Kind::Sendgrid => sendgrid::key(secret).is_some(),
            Kind::Ses => secret.reveal().starts_with("arn:"),
            Kind::Mailgun | Kind::Postmark | Kind::Brevo => true,
        };
        if !proves {
            return wrong("`events_secret` is not what this provider's webhooks are proven with");
        }
        Ok(())
    }

    /// The request that hands `message` over. `mime` is the whole of it as RFC 5322, for who takes it so.
    pub fn request(&self, message: &Message, mime: &[u8], now: Timestamp) -> Request {
        match self.kind {
            Kind::Resend => resend::request(self, message),
            Kind::Postmark => postmark::request(self, message),
            Kind::Sendgrid => sendgrid::request(self, message),
            Kind::Mailgun => mailgun::request(self, message),
            Kind::Ses => ses::request(self, message, mime, now),
            Kind::Brevo => brevo::request(self, message),
        }
    }

    /// What an answer says; one with a status of 500 or more is no answer.
    ///
    /// # Errors
    /// In words, when there is no sense in it.
    pub fn read(&self, status: u16, body: &[u8]) -> Result<Said, String> {
        match self.kind {
            Kind::Resend => resend::read(status, body),
            Kind::Postmark => postmark::read(status, body),
            Kind::Sendgrid => sendgrid::read(status, body),
            Kind::Mailgun => mailgun::read(status, body),
            Kind::Ses => ses::read(status, body),
            Kind::Brevo => brevo::read(status, body),
        }
    }

    /// What a webhook tells, once it is proven; what nobody needs to know is left out. Not for SES, which
    /// tells by SNS.
    ///
    /// # Errors
    /// [`Forged`] with the reason.
    pub fn events(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Vec<Event>, Forged> {
        // An empty key signs as well as any other.
        if self.events_secret.reveal().is_empty() {
            return Err(Forged("no webhooks are taken from this provider"));
        }
        match self.kind {
            Kind::Resend => resend::events(self, headers, body, now),
            Kind::Postmark => postmark::events(self, headers, body),
            Kind::Sendgrid => sendgrid::events(self, headers, body, now),
            Kind::Mailgun => mailgun::events(self, body, now),
            Kind::Ses => Err(Forged("this provider tells by another service")),
            Kind::Brevo => brevo::events(self, headers, body),
        }
    }

    /// What stands before the path of a call.
    pub(super) fn base(&self, own: &str) -> String {
        let base = if self.url.is_empty() { own } else { self.url.as_str() };
        base.to_owned()
    }

    /// The same however often the mail is sent.
    pub(super) fn message_id(&self, message: &Message) -> String {
        format!("<{}@{}>", message.id, self.from.email.domain())
    }

    /// Whom mails are from, as `{name, email}`.
    pub(super) fn sender(&self) -> Value {
        let email = self.from.email.to_string();
        match &self.from.name {
            Some(name) => json!({ "email": email, "name": name }),
            None => json!({ "email": email }),
        }
    }

    /// HTTP basic with `user:password`, or a bearer token: where a provider signs nothing.
    pub(super) fn knows_password(&self, headers: &HeaderMap) -> Result<(), Forged> {
        let (scheme, rest) = header(headers, "authorization")?.split_once(' ').unwrap_or_default();
        let given = match scheme.to_ascii_lowercase().as_str() {
            "basic" => BASE64.decode(rest.trim().as_bytes()).ok(),
            "bearer" => Some(rest.trim().as_bytes().to_vec()),
            _ => None,
        };
        // By their digests, which are compared in constant time and have one length.
        let known = given.is_some_and(|given| sha256(&given) == self.events_secret.digest());
        if known { Ok(()) } else { Err(Forged("its password is wrong")) }
    }
}

fn is_place(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "https" | "http")
            && url.host_str().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && !text.ends_with('/')
    })
}

/// A request with JSON.
pub(super) fn post_json(url: String, auth: Vec<(&'static str, Secret)>, body: &Value) -> Request {
    let mut headers = auth;
    headers.push(("content-type", Secret::new(JSON.into())));
    headers.push(("accept", Secret::new(JSON.into())));
    Request { url, headers, body: body.to_string().into_bytes() }
}

pub(super) const JSON: &str = "application/json";

/// An answer's document; none when it has no sense.
pub(super) fn document(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}

/// What a proven webhook tells.
pub(super) fn told(body: &[u8]) -> Result<Value, Forged> {
    serde_json::from_slice(body).map_err(|_| Forged("its body is not JSON"))
}

/// The text at a place (RFC 6901); empty when there is none.
pub(super) fn text<'a>(of: &'a Value, place: &str) -> &'a str {
    of.pointer(place).and_then(Value::as_str).unwrap_or_default()
}

/// The text at the first of these places that has one.
pub(super) fn first<'a>(of: &'a Value, places: &[&str]) -> &'a str {
    places.iter().map(|place| text(of, place)).find(|text| !text.is_empty()).unwrap_or_default()
}

/// A name for what has none: the same for the same.
pub(super) fn digest(entry: &Value) -> String {
    HEXLOWER.encode(&sha256(entry.to_string().as_bytes()).truncated::<16>())
}

/// One line of at most 200 characters.
pub(super) fn line(text: &str) -> String {
    // What turns the direction of a text around has no business in a line for operators.
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let words =
        text.split(|c: char| c.is_whitespace() || c.is_control() || turns(c)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

/// The address in `Name <address>`.
pub(super) fn bare(mailbox: &str) -> &str {
    mailbox.rsplit_once('<').map_or(mailbox, |(_, rest)| rest).trim().trim_end_matches('>')
}

/// A mail's name without the brackets that it has in some places and not in others.
pub(super) fn reference(name: &str) -> &str {
    name.trim().trim_start_matches('<').trim_end_matches('>')
}

/// The mail was taken, if the answer names it.
pub(super) fn taken(answer: &Value, place: &str) -> Result<Said, String> {
    match reference(text(answer, place)) {
        "" => Err("its answer names no mail".into()),
        name => Ok(Said::Taken(name.to_owned())),
    }
}

/// What a refusal means that says nothing of the recipient.
pub(super) fn refusal(status: u16, why: &str) -> Result<Said, String> {
    let words = line(&format!("{status} {why}"));
    match status {
        429 => Ok(Said::NotNow(words)),
        408 => Err(words),
        400..=499 => Ok(Said::NotHere(words)),
        _ => Err(words),
    }
}

/// Whether a mail server's reply blames something else than that there is no such mailbox (RFC 3463): it takes no more for
/// now (which strangers can bring about), it is full, the mail is too large, or its content, its sender or where it comes from is not liked.
pub(super) fn spares_the_mailbox(reply: &str) -> bool {
    let spared = ["5.2.1", "5.2.2", "5.2.3", "5.3.4", "5.6.", "5.7."];
    let is_spared = |code: &str| spared.iter().any(|class| code.starts_with(*class));
    reply.split(|c: char| !(c.is_ascii_digit() || c == '.')).any(is_spared)
}

/// A header of a webhook.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Forged> {
    headers.get(name).and_then(|value| value.to_str().ok()).ok_or(Forged("what proves it is missing"))
}

/// How far a clock may go wrong, and how long a webhook may be under way.
pub(super) const FIVE_MINUTES: Duration = Duration::from_secs(5 * 60);

/// Whether `seconds`, a text that is signed, is now: at most so long ago.
pub(super) fn is_fresh(seconds: &str, now: Timestamp, past: Duration) -> Result<(), Forged> {
    let micros = seconds.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1_000_000));
    happened(Timestamp::from_micros(micros.ok_or(Forged("its time is none"))?), now, past)
}

/// Whether a moment is at most so long ago, and not to come.
pub(super) fn happened(at: Timestamp, now: Timestamp, past: Duration) -> Result<(), Forged> {
    if at.until(now) > past || now.until(at) > FIVE_MINUTES {
        return Err(Forged("it is too old, or from the future"));
    }
    Ok(())
}

/// What the tests of all providers begin with.
#[cfg(test)]
pub(super) mod testing {
    use axum::http::HeaderValue;

    use super::*;
    use crate::kernel::Id;

    pub(in crate::mail) const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
    pub(in crate::mail) const ID: &str = "mail_07070707070707070707070707070707";
    pub(in crate::mail) const MESSAGE_ID: &str = "<mail_07070707070707070707070707070707@example.com>";

    pub(in crate::mail) fn account(kind: Kind, events_secret: &str) -> Account {
        let (id, region) = match kind {
            Kind::Mailgun => ("mg.example.com", "eu"),
            Kind::Ses => ("AKIDEXAMPLE", "eu-central-1"),
            _ => ("", ""),
        };
        Account {
            kind,
            key: Secret::new("k3y".into()),
            id: id.into(),
            region: region.into(),
            url: String::new(),
            events_secret: Secret::new(events_secret.into()),
            from: "Pearlgate <no-reply@example.com>".parse().unwrap(),
        }
    }

    pub(in crate::mail) fn message() -> Message {
        Message {
            id: Id::from_bytes([7; 16]),
            kind: "verify_email".into(),
            to: "ada+a@example.org".into(),
            subject: "Prüfe & bestätige".into(),
            text: "https://example.com/v#l1nk".into(),
            html: "<a href=\"https://example.com/v#l1nk\">Ja</a>".into(),
            code: String::new(),
        }
    }

    pub(in crate::mail) fn body(request: &Request) -> Value {
        serde_json::from_slice(&request.body).unwrap()
    }

    pub(in crate::mail) fn value<'a>(request: &'a Request, name: &str) -> &'a str {
        request.headers.iter().find(|(known, _)| *known == name).unwrap().1.reveal()
    }

    pub(in crate::mail) fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    pub(in crate::mail) fn seconds(at: Timestamp) -> String {
        at.seconds().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    #[test]
    fn every_provider_has_one_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
        assert_eq!(Kind::parse("Resend"), None);
    }

    #[test]
    fn an_account_is_whole_or_says_what_is_wrong() {
        for kind in Kind::ALL {
            assert_eq!(account(kind, "").check(), Ok(()), "{kind:?}");
        }
        let wrong = |kind, field: &str, change: &dyn Fn(&mut Account)| {
            let mut account = account(kind, "");
            change(&mut account);
            let words = account.check().expect_err(field);
            assert!(words.starts_with(&format!("`{field}`")), "{field}: {words}");
        };
        wrong(Kind::Resend, "key", &|of| of.key = Secret::new(String::new()));
        wrong(Kind::Resend, "key", &|of| of.key = Secret::new("k3y\r\nx: y".into()));
        wrong(Kind::Mailgun, "id", &|of| of.id = String::new());
        wrong(Kind::Mailgun, "id", &|of| of.id = "mg.example.com/../x".into());
        wrong(Kind::Mailgun, "region", &|of| of.region = "asia".into());
        wrong(Kind::Ses, "id", &|of| of.id = String::new());
        wrong(Kind::Ses, "region", &|of| of.region = "eu.example.com/".into());
        for url in ["gateway", "ftp://a", "http://a/", "http://u:p@a", "http://a?b", "http://a#b"] {
            wrong(Kind::Postmark, "url", &|of| of.url = url.into());
        }
        for (kind, secret) in [(Kind::Resend, "b64"), (Kind::Sendgrid, "no key"), (Kind::Ses, "topic")] {
            wrong(kind, "events_secret", &|of| of.events_secret = Secret::new(secret.into()));
        }
        let mut behind = account(Kind::Postmark, "user:password");
        behind.url = "http://127.0.0.1:1234/mail".into();
        assert_eq!(behind.check(), Ok(()));
    }

    #[test]
    fn a_gateway_is_asked_instead_of_the_provider() {
        for kind in Kind::ALL {
            let own = account(kind, "").request(&message(), b"mime", NOW);
            assert!(own.url.starts_with("https://"), "{}", own.url);
            let path = Url::parse(&own.url).unwrap().path().to_owned();
            let mut behind = account(kind, "");
            behind.url = "http://127.0.0.1:1234".into();
            let request = behind.request(&message(), b"mime", NOW);
            assert_eq!(request.url, format!("http://127.0.0.1:1234{path}"));
        }
    }

    #[test]
    fn neither_key_nor_link_prints_itself() {
        for kind in Kind::ALL {
            let account = account(kind, "user:password");
            let shown = format!("{account:?} {:?}", account.request(&message(), b"l1nk", NOW));
            for secret in ["k3y", "l1nk", "password"] {
                assert!(!shown.contains(secret), "{kind:?} shows {secret}: {shown}");
            }
        }
    }

    #[test]
    fn nothing_is_believed_without_a_secret() {
        for kind in Kind::ALL {
            let heard = account(kind, "").events(&headers(&[("authorization", "Basic ")]), b"{}", NOW);
            assert_eq!(heard, Err(Forged("no webhooks are taken from this provider")), "{kind:?}");
        }
    }

    #[test]
    fn a_password_is_basic_or_bearer_and_whole() {
        let account = account(Kind::Postmark, "user:password");
        let basic = |scheme: &str, pair: &str| format!("{scheme} {}", BASE64.encode(pair.as_bytes()));
        let knows = |value: &str| account.knows_password(&headers(&[("authorization", value)]));
        for scheme in ["Basic", "basic", "BASIC"] {
            assert_eq!(knows(&basic(scheme, "user:password")), Ok(()));
        }
        assert_eq!(knows("bEARER user:password"), Ok(()));
        for wrong in ["user:passwor", "user:password1", "user", ""] {
            assert_eq!(knows(&basic("Basic", wrong)), Err(Forged("its password is wrong")), "{wrong}");
            assert!(knows(&format!("Bearer {wrong}")).is_err(), "{wrong}");
        }
        for strange in ["user:password", "Digest user:password", "Basic user:password", "Basic"] {
            assert!(knows(strange).is_err(), "{strange}");
        }
        assert_eq!(account.knows_password(&HeaderMap::new()), Err(Forged("what proves it is missing")));
    }

    #[test]
    fn a_line_is_one_and_short() {
        assert_eq!(line(" a\r\n b\u{0}c\t "), "a b c");
        assert_eq!(line(&"ä".repeat(300)).chars().count(), 200);
    }

    #[test]
    fn what_is_not_the_mailboxs_fault_is_told_apart() {
        for spared in ["smtp; 550 5.7.1 Blocked", "550-5.7.26 DMARC", "552 5.2.2 Over quota", "5.6.0"] {
            assert!(spares_the_mailbox(spared), "{spared}");
        }
        for blamed in ["550 5.1.1 No such user", "550 No such user", "smtp;550 5.0.0 unknown", ""] {
            assert!(!spares_the_mailbox(blamed), "{blamed}");
        }
    }

    #[test]
    fn a_mailbox_and_a_reference_lose_their_brackets() {
        assert_eq!(bare("Ada <ada@example.org>"), "ada@example.org");
        assert_eq!(bare("ada@example.org"), "ada@example.org");
        assert_eq!(reference(" <a@b> "), "a@b");
    }

    #[test]
    fn an_answer_that_is_none_is_not_taken_for_one() {
        for kind in Kind::ALL {
            for (status, body) in [(200, "<html>"), (302, ""), (408, "{}")] {
                let read = account(kind, "").read(status, body.as_bytes());
                assert!(read.is_err(), "{kind:?} makes {read:?} of {status} {body}");
            }
            let now = account(kind, "").read(429, b"{}");
            assert!(matches!(now, Ok(Said::NotNow(_))), "{kind:?}: {now:?}");
            let here = account(kind, "").read(403, b"Forbidden");
            assert!(matches!(here, Ok(Said::NotHere(_))), "{kind:?}: {here:?}");
        }
    }
}
