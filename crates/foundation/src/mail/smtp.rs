//! SMTP: STARTTLS or implicit TLS, the server's certificate verified, with or without a login.

use std::path::PathBuf;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::PoolConfig;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::api::Said;
use super::{BUDGET, Message};
use crate::kernel::{Secret, WrongSetting, tls};
use crate::outbound::CallError;

/// How the connection to the mail server is protected. There is no "if it can": a fallback to plain text is what
/// an attacker on the way would choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// Plain at first, then TLS or nothing (port 587).
    StartTls,
    /// TLS from the first byte (port 465).
    Implicit,
    /// None: for a server on this machine.
    None,
}

/// How to reach the mail server.
#[derive(Debug, Clone)]
pub struct SmtpOptions {
    /// Its name, as its certificate says it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: SmtpTls,
    /// Who logs in, with which password; none for a server that asks for none.
    pub login: Option<(String, Secret)>,
    /// A PEM file with the authorities that may vouch for the server; none for the public ones.
    pub ca_file: Option<PathBuf>,
    /// Whom mails are from: `Name <address>`.
    pub from: String,
}

/// A mail server. Cheap to clone.
#[derive(Clone)]
pub struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Smtp")
    }
}

impl SmtpOptions {
    /// Whether they can be used at all; nobody is asked.
    ///
    /// # Errors
    /// The setting that is wrong.
    pub fn check(&self) -> Result<(), WrongSetting> {
        protection(self)?;
        self.sender().map(|_| ())
    }

    fn sender(&self) -> Result<Mailbox, WrongSetting> {
        sender(&self.from)
    }
}

/// Whom mails are from: `Name <address>`.
///
/// # Errors
/// What is wrong with it.
pub fn sender(text: &str) -> Result<Mailbox, WrongSetting> {
    text.parse().map_err(|e| WrongSetting::new("mail.from", format!("is not \"Name <address>\": {e}")))
}

impl Smtp {
    /// Prepares for the server; connects when the first mail is sent, so the server may be away now.
    ///
    /// # Errors
    /// The setting that is wrong, and why.
    #[expect(clippy::disallowed_methods, reason = "the one place that makes an SMTP client")]
    pub fn new(options: &SmtpOptions) -> Result<Self, WrongSetting> {
        let from = options.sender()?;
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&options.host)
            .port(options.port)
            .tls(protection(options)?)
            .timeout(Some(BUDGET))
            .pool_config(PoolConfig::new().max_size(4));
        if let Some((user, password)) = &options.login {
            builder = builder.credentials(Credentials::new(user.clone(), password.reveal().to_owned()));
        }
        Ok(Self { transport: builder.build(), from })
    }

    pub(super) async fn send(&self, message: &Message) -> Result<Said, CallError> {
        let mail = compose(&self.from, message).map_err(CallError::Refused)?;
        match self.transport.send(mail).await {
            Ok(_) => Ok(Said::Taken(String::new())),
            // Not about this mail: our login is wrong or missing, and somebody will mend it.
            Err(e) if e.status().is_some_and(|code| [530, 534, 535, 538].contains(&u16::from(code))) => {
                Err(CallError::Away(words(&e)))
            }
            Err(e) if e.is_permanent() && is_about_the_address(&words(&e)) => {
                Ok(Said::NoSuchAddress(words(&e)))
            }
            Err(e) if e.is_permanent() => Err(CallError::Refused(words(&e))),
            // About this one mail, for now (greylisting, a domain that cannot be found): the server is there.
            Err(e) if e.is_transient() && is_about_the_mail(&e) => Ok(Said::NotNow(words(&e))),
            Err(e) if e.is_timeout() => Err(CallError::Timeout("the mail server".into())),
            Err(e) => Err(CallError::Away(words(&e))),
        }
    }
}

fn compose(from: &Mailbox, message: &Message) -> Result<lettre::Message, String> {
    let to: lettre::Address = message.to.parse().map_err(|e| format!("the recipient's address: {e}"))?;
    let part = |kind, body: &str| SinglePart::builder().header(kind).body(body.to_owned());
    let body = MultiPart::alternative()
        .singlepart(part(ContentType::TEXT_PLAIN, &message.text))
        .singlepart(part(ContentType::TEXT_HTML, &message.html));
    let header = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into());
    lettre::Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(&message.subject)
        .message_id(Some(format!("<{}@{}>", message.id, from.email.domain())))
        .raw_header(header)
        .multipart(body)
        .map_err(|e| e.to_string())
}

/// The whole message as it would go over SMTP (RFC 5322).
///
/// # Errors
/// In words, when there is no such address.
pub(super) fn mime(from: &Mailbox, message: &Message) -> Result<Vec<u8>, String> {
    compose(from, message).map(|mail| mail.formatted())
}

/// Whether a refusal for now is about one mail: not the server's end (421), its login (454) or its own troubles (RFC 3463
/// §3.4).
fn is_about_the_mail(e: &lettre::transport::smtp::Error) -> bool {
    e.status().is_some_and(|code| !matches!(u16::from(code), 421 | 454)) && !words(e).contains(" 4.3.")
}

/// Whether a refusal says that there is nobody at the address (RFC 3463 §3.2 and §3.3). A bare 550 may mean anything.
fn is_about_the_address(words: &str) -> bool {
    ["5.1.1", "5.1.3", "5.1.6", "5.1.10"].iter().any(|status| {
        words.match_indices(status).any(|(at, _)| {
            let before = words.get(..at).and_then(|text| text.chars().next_back());
            let after = words.get(at + status.len()..).and_then(|text| text.chars().next());
            let apart = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_digit() && c != '.');
            apart(before) && apart(after)
        })
    })
}

fn protection(options: &SmtpOptions) -> Result<Tls, WrongSetting> {
    if options.tls == SmtpTls::None {
        return Ok(Tls::None);
    }
    let mut parameters = TlsParameters::builder(options.host.clone());
    if let Some(path) = &options.ca_file {
        let wrong = |e: &dyn std::fmt::Display| {
            WrongSetting::new("mail.smtp.ca_file", format!("({}) cannot be used: {e}", path.display()))
        };
        tls::certificates(path).map_err(|e| wrong(&e))?;
        let pem = std::fs::read(path).map_err(|e| wrong(&e))?;
        let authority = Certificate::from_pem(&pem).map_err(|e| wrong(&e))?;
        parameters = parameters.certificate_store(CertificateStore::None).add_root_certificate(authority);
    }
    let parameters = parameters
        .build()
        .map_err(|e| WrongSetting::new("mail.smtp.host", format!("cannot be used: {e}")))?;
    Ok(if options.tls == SmtpTls::StartTls { Tls::Required(parameters) } else { Tls::Wrapper(parameters) })
}

fn words(e: &lettre::transport::smtp::Error) -> String {
    use std::error::Error as _;
    e.source().map_or_else(|| e.to_string(), |source| format!("{e}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_of_the_address_is_held_against_it() {
        for words in ["permanent error (550): 5.1.1 no such user", "550 #5.1.10 (unknown)", "5.1.6"] {
            assert!(is_about_the_address(words), "{words}");
        }
        for words in [
            "550 5.7.1 blocked",
            "550-5.2.1 it gets mail at a rate",
            "550 no",
            "550 5.1.11 x",
            "15.1.1",
            "554 5.1.1.2",
        ] {
            assert!(!is_about_the_address(words), "{words}");
        }
    }
}
