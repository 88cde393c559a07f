//! The settings of sign-ins at others.

use std::collections::BTreeMap;
use std::sync::Arc;

use foundation::config::{ConfigError, Layers};
use foundation::outbound::Private;

use super::{DEFAULTS, RawFederation, RawProvider, origins};
use crate::federation::Provider;

/// Sign-ins at others.
#[derive(Debug, Clone)]
pub struct FederationSettings {
    /// Where people may be sent back to, beside our own paths.
    pub return_origins: Vec<String>,
    /// Hosts of one's own that providers may be at.
    pub private: Private,
    /// The providers that stand in the settings.
    pub providers: Vec<Arc<Provider>>,
}

/// Checks them.
pub(super) fn read(
    layers: &Layers,
    raw: &RawFederation,
    providers: &BTreeMap<String, RawProvider>,
    dev: bool,
) -> Result<FederationSettings, ConfigError> {
    let checked = providers.iter().map(|(id, raw)| {
        Provider::check(id, raw)
            .map(Arc::new)
            .map_err(|(key, what)| layers.refuse(&format!("providers.{id}.{key}"), what))
    });
    let pretend = dev.then(|| Ok(Arc::new(Provider::pretend())));
    Ok(FederationSettings {
        return_origins: origins(layers, "federation.return_origins", &raw.return_origins)?,
        private: private(&raw.private_hosts, dev),
        providers: pretend.into_iter().chain(checked).collect::<Result<_, _>>()?,
    })
}

/// Hosts of one's own; in dev mode this machine is one.
pub(super) fn private(hosts: &[String], dev: bool) -> Private {
    Private { hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(), loopback: dev }
}

/// A provider that is added while the server runs: the same keys as in its section of the settings.
///
/// # Errors
/// The first key that cannot stand, and why.
pub fn provider_of(id: &str, text: &str) -> Result<Provider, ConfigError> {
    let place = format!("the provider {id}");
    let refuse = |what: &str| ConfigError { place: place.clone(), what: what.to_owned() };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if id.is_empty() || !id.bytes().all(plain) {
        return Err(refuse(
            "has a name that cannot stand in an address: give small letters, digits and hyphens",
        ));
    }
    let table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| refuse(&format!("is not TOML: {}", e.message())))?;
    let mut layers = Layers::new(DEFAULTS)?;
    let section = toml::Table::from_iter([(id.to_owned(), toml::Value::Table(table))]);
    let all = toml::Table::from_iter([("providers".to_owned(), toml::Value::Table(section))]);
    layers.text(&place, &all.to_string())?;
    let raw: super::Raw = layers.build()?;
    let raw = raw.providers.get(id).ok_or_else(|| refuse("has no settings"))?;
    Provider::check(id, raw).map_err(|(key, what)| layers.refuse(&format!("providers.{id}.{key}"), what))
}
