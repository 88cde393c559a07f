//! The settings of second factors.

use std::time::Duration;

use foundation::config::{ConfigError, Layers};

use super::{RawMfa, RawPasskeys, duration};
use crate::passkeys::Party;

/// Second factors.
#[derive(Debug, Clone)]
pub struct MfaSettings {
    /// Whether everybody must have one.
    pub everyone: bool,
    /// Whoever has one of these roles must.
    pub roles: Vec<String>,
    /// Whoever has a role above level 0 must.
    pub operators: bool,
    /// How long one may go on without it.
    pub grace: Duration,
    /// Life of a sign-in between its two steps.
    pub token: Duration,
    /// Whether people may choose a code from their mailbox.
    pub email_code: bool,
    /// Life of such a code.
    pub email_code_lifetime: Duration,
    /// How long a device need not show the factor again; none when every sign-in must.
    pub trusted_device: Option<Duration>,
    /// How long an operator's reset waits.
    pub reset_after: Duration,
}

/// Checks them.
pub(super) fn read(layers: &Layers, raw: &RawMfa, operators: &[String]) -> Result<MfaSettings, ConfigError> {
    let everyone = match raw.required.as_str() {
        "everyone" => true,
        "nobody" => false,
        _ => return Err(layers.refuse("mfa.required", "is \"nobody\" or \"everyone\"")),
    };
    let or_never = |key, text: &str| match text {
        "0" | "0s" => Ok(None),
        text => duration(layers, key, text).map(Some),
    };
    let token = duration(layers, "mfa.token", &raw.token)?;
    if token > Duration::from_secs(3_600) {
        return Err(
            layers.refuse("mfa.token", "is at most an hour: it is the time between two steps of one sign-in")
        );
    }
    let reset_after = duration(layers, "mfa.reset_after", &raw.reset_after)?;
    if reset_after < Duration::from_secs(3_600) {
        return Err(layers.refuse(
            "mfa.reset_after",
            "is at least an hour: the owner has to read the mail that tells of it before it happens",
        ));
    }
    let named = if raw.operators { operators } else { &[] };
    Ok(MfaSettings {
        everyone,
        roles: raw.required_roles.iter().chain(named).cloned().collect(),
        operators: raw.operators,
        grace: or_never("mfa.grace", &raw.grace)?.unwrap_or_default(),
        token,
        email_code: raw.email_code,
        email_code_lifetime: duration(layers, "mfa.email_code_lifetime", &raw.email_code_lifetime)?,
        trusted_device: or_never("mfa.trusted_device", &raw.trusted_device)?,
        reset_after,
    })
}

/// The domain that keys are made for and the pages that may use them, both to the letter.
pub(super) fn party(layers: &Layers, raw: &RawPasskeys, public_url: &str) -> Result<Party, ConfigError> {
    let named = Party { id: raw.rp_id.clone(), origins: raw.origins.clone() };
    let party = named.at(public_url.trim_end_matches('/'));
    let id = &party.id;
    // In dev mode the address is known later.
    for origin in party.origins.iter().filter(|_| !id.is_empty()) {
        let stands = origin.starts_with("android:apk-key-hash:")
            || origin.strip_prefix("https://").is_some_and(|host| within(host, id))
            || origin
                .strip_prefix("http://")
                .is_some_and(|host| host.starts_with("localhost:") || host == "localhost");
        if !stands {
            return Err(layers.refuse(
                "passkeys.origins",
                format!("has {origin:?}, whose host is neither passkeys.rp_id ({id:?}) nor under it; give \"https://host\" as browsers do, or an Android app's \"android:apk-key-hash:…\""),
            ));
        }
    }
    Ok(party)
}

/// Whether a host (and port) is a domain or under it.
fn within(host: &str, domain: &str) -> bool {
    let host = host.split(':').next().unwrap_or_default();
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}
