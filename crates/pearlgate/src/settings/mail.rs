//! The settings of mail: who is given one, one after the other.

use std::path::PathBuf;

use foundation::config::{ConfigError, Layers};
use foundation::mail::{Account, Kind, Pace, SmtpOptions, SmtpTls, sender};

use super::raw::{Raw, RawMailer};
use super::{is_local_host, some};

/// The name of the server in `[mail.smtp]`.
const PRIMARY: &str = "primary";

/// Who is given a mail.
#[derive(Debug, Clone)]
pub struct MailSettings {
    /// One after the other.
    pub hops: Vec<MailHop>,
    /// What one domain gets at most.
    pub per_domain: Option<Pace>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct MailHop {
    /// Its name.
    pub name: String,
    /// How a mail gets there.
    pub way: MailWay,
    /// What it takes at most.
    pub paces: Vec<Pace>,
}

/// How a mail gets to a provider.
#[derive(Debug, Clone)]
pub enum MailWay {
    /// To a mail server.
    Smtp(SmtpOptions),
    /// To an HTTP API.
    Api(Account),
}

/// Checks them.
pub(super) fn read(layers: &Layers, raw: &Raw) -> Result<MailSettings, ConfigError> {
    let host = raw.server.public_url.to_ascii_lowercase();
    let host = host.trim_end_matches('/').rsplit("//").next().unwrap_or_default();
    let domain = host.split(':').next().filter(|d| !d.is_empty()).unwrap_or("localhost");
    let from = some(&raw.mail.from)
        .unwrap_or_else(|| format!("\"{}\" <no-reply@{domain}>", raw.service.name.replace(['"', '\\'], "")));
    sender(&from).map_err(|e| layers.refuse(e.key, e.what))?;
    let mut hops: Vec<MailHop> = Vec::new();
    for name in &raw.mail.chain {
        if hops.iter().any(|hop| hop.name == *name) {
            return Err(layers.refuse("mail.chain", format!("names {name} twice")));
        }
        let hop = match raw.mailers.get(name) {
            Some(mailer) => other(layers, name, mailer, &from)?,
            None if name == PRIMARY => primary(layers, raw, &from)?,
            None => {
                return Err(layers
                    .refuse("mail.chain", format!("names {name}: there is no section [mailers.{name}]")));
            }
        };
        hops.push(hop);
    }
    if hops.is_empty() {
        return Err(layers.refuse("mail.chain", "names nobody: give \"primary\", which is [mail.smtp]"));
    }
    Ok(MailSettings { hops, per_domain: pace(layers, "mail.per_domain", &raw.mail.per_domain)? })
}

fn primary(layers: &Layers, raw: &Raw, from: &str) -> Result<MailHop, ConfigError> {
    let smtp = &raw.mail.smtp;
    let options = SmtpOptions {
        host: smtp.host.clone(),
        port: smtp.port,
        tls: SmtpTls::None,
        login: None,
        ca_file: some(&smtp.ca_file).map(PathBuf::from),
        from: from.to_owned(),
    };
    let login = (smtp.username.as_str(), &smtp.password);
    let way = MailWay::Smtp(server(layers, "mail.smtp", options, &smtp.tls, login)?);
    Ok(MailHop { name: PRIMARY.into(), way, paces: paces(layers, "mail.smtp", [&smtp.rate, &smtp.quota])? })
}

fn other(layers: &Layers, name: &str, raw: &RawMailer, from: &str) -> Result<MailHop, ConfigError> {
    let section = format!("mailers.{name}");
    let way = if raw.kind == "smtp" {
        if raw.host.is_empty() {
            return Err(layers.refuse(&format!("{section}.host"), "is empty: name the mail server"));
        }
        let options = SmtpOptions {
            host: raw.host.clone(),
            port: raw.port,
            tls: SmtpTls::None,
            login: None,
            ca_file: some(&raw.ca_file).map(PathBuf::from),
            from: from.to_owned(),
        };
        MailWay::Smtp(server(layers, &section, options, &raw.tls, (&raw.username, &raw.password))?)
    } else {
        let kind = Kind::parse(&raw.kind).ok_or_else(|| {
            layers.refuse(
                &format!("{section}.kind"),
                "is \"smtp\", \"resend\", \"postmark\", \"sendgrid\", \"mailgun\", \"ses\" or \"brevo\"",
            )
        })?;
        let account = Account {
            kind,
            key: raw.key.clone(),
            id: raw.id.clone(),
            region: raw.region.clone(),
            url: raw.url.trim_end_matches('/').to_owned(),
            events_secret: raw.events_secret.clone(),
            from: sender(from).map_err(|e| layers.refuse(e.key, e.what))?,
        };
        if account.key.reveal().is_empty() {
            return Err(layers.refuse(&format!("{section}.key"), "is empty: give the key of the account"));
        }
        account.check().map_err(|why| {
            // It names the key first.
            let (key, words) = why.trim_start_matches('`').split_once("` ").unwrap_or(("kind", why.as_str()));
            layers.refuse(&format!("{section}.{key}"), words)
        })?;
        if account.url.starts_with("http://") && !is_local(&account.url) {
            let why =
                "is another machine without TLS: mails and the key would cross the network in plain text";
            return Err(layers.refuse(&format!("{section}.url"), why));
        }
        MailWay::Api(account)
    };
    Ok(MailHop { name: name.to_owned(), way, paces: paces(layers, &section, [&raw.rate, &raw.quota])? })
}

fn is_local(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(is_local_host))
}

fn server(
    layers: &Layers,
    section: &str,
    options: SmtpOptions,
    tls: &str,
    (user, password): (&str, &foundation::kernel::Secret),
) -> Result<SmtpOptions, ConfigError> {
    let key = |name: &str| format!("{section}.{name}");
    let tls = match tls {
        "starttls" => SmtpTls::StartTls,
        "implicit" => SmtpTls::Implicit,
        "none" if is_local_host(&options.host) => SmtpTls::None,
        "none" => {
            let why = format!(
                "is another machine, and {section}.tls is \"none\": set it to \"starttls\" or \"implicit\""
            );
            return Err(layers.refuse(&key("host"), why));
        }
        _ => return Err(layers.refuse(&key("tls"), "is \"starttls\", \"implicit\" or \"none\"")),
    };
    let login = match (user, password.reveal()) {
        ("", "") => None,
        ("", _) | (_, "") => {
            let why = format!("and {section}.password go together: set both or neither");
            return Err(layers.refuse(&key("username"), why));
        }
        (user, _) => Some((user.to_owned(), password.clone())),
    };
    Ok(SmtpOptions { tls, login, ..options })
}

fn paces(layers: &Layers, section: &str, [rate, quota]: [&str; 2]) -> Result<Vec<Pace>, ConfigError> {
    let both = [("rate", rate), ("quota", quota)];
    let paces = both.map(|(name, text)| pace(layers, &format!("{section}.{name}"), text));
    Ok(paces.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn pace(layers: &Layers, key: &str, text: &str) -> Result<Option<Pace>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || layers.refuse(key, format!("is {text:?}: give how many in how long, such as \"100/24h\""));
    Pace::parse(text).map(Some).ok_or_else(wrong)
}
