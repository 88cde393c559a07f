//! How people come and go.

use std::time::Duration;

use foundation::config::{ConfigError, Layers};

use super::duration;
use super::raw::Raw;

/// The shortest time in which somebody can take back that their account is to be deleted: long enough to read a mail.
const SHORTEST: Duration = Duration::from_secs(3_600);
/// The longest that an operator can be somebody else at a time.
const LONGEST_AS_ANOTHER: Duration = Duration::from_secs(3_600);

/// How people come and go.
#[derive(Debug, Clone)]
pub struct PeopleSettings {
    /// Whether they may come by themselves.
    pub open: bool,
    /// The domains whose addresses accounts may have, in ASCII and small letters; `*.` stands for everything below. None for
    /// any.
    pub domains: Vec<String>,
    /// Life of an invitation.
    pub invitation: Duration,
    /// How long an operator can be somebody else; none for never.
    pub impersonation: Option<Duration>,
    /// How long it can be taken back that an account is to be deleted.
    pub grace: Duration,
}

/// Checks them.
pub(super) fn read(layers: &Layers, raw: &Raw) -> Result<PeopleSettings, ConfigError> {
    let impersonation = match raw.impersonation.lifetime.as_str() {
        "0" | "0s" => None,
        text => Some(duration(layers, "impersonation.lifetime", text)?),
    };
    if impersonation.is_some_and(|lifetime| lifetime > LONGEST_AS_ANOTHER) {
        return Err(layers.refuse("impersonation.lifetime", "is at most an hour; \"0s\" for never"));
    }
    let grace = duration(layers, "closing.grace", &raw.closing.grace)?;
    if grace < SHORTEST {
        return Err(layers.refuse(
            "closing.grace",
            "is at least an hour: the owner has to read the mail that tells of it before it happens",
        ));
    }
    Ok(PeopleSettings {
        open: raw.registration.open,
        domains: raw
            .registration
            .domains
            .iter()
            .map(|text| domain(layers, text))
            .collect::<Result<_, _>>()?,
        invitation: duration(layers, "invitations.lifetime", &raw.invitations.lifetime)?,
        impersonation,
        grace,
    })
}

fn domain(layers: &Layers, text: &str) -> Result<String, ConfigError> {
    let (below, name) = text.strip_prefix("*.").map_or(("", text), |name| ("*.", name));
    let ascii = idna::domain_to_ascii_strict(name).ok().filter(|name| name.contains('.'));
    let ascii = ascii.ok_or_else(|| {
        layers.refuse("registration.domains", format!("{text:?} is no domain, such as \"example.com\""))
    })?;
    Ok(format!("{below}{}", ascii.to_ascii_lowercase()))
}
