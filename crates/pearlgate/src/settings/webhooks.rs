//! The settings of what applications are told.

use std::time::Duration;

use foundation::config::{ConfigError, Layers};
use foundation::outbound::Private;

use super::raw::RawWebhooks;
use super::{duration, federation};

/// Longer than an event is tried, with a day to look at what was given up.
const SHORTEST: Duration = Duration::from_secs(4 * 86_400);

/// What applications are told.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Hosts of one's own that may be told.
    pub private: Private,
    /// For how long events are kept.
    pub keep: Duration,
}

/// Checks them.
pub(super) fn read(layers: &Layers, raw: &RawWebhooks, dev: bool) -> Result<WebhookSettings, ConfigError> {
    let keep = duration(layers, "webhooks.keep", &raw.keep)?;
    if keep < SHORTEST {
        return Err(layers.refuse("webhooks.keep", "is less than four days: an event is tried for three"));
    }
    Ok(WebhookSettings { private: federation::private(&raw.private_hosts, dev), keep })
}
