//! The providers that there are: those of the settings, and those that were added while the server ran. Each has one
//! client, one line among the dependencies, and what is known of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foundation::db::{self, Tx};
use foundation::kernel::{Clock, Sealer, Timestamp};
use foundation::outbound::{Dependencies, Dependency, HttpClient, Patience, Private, Settings as Guard};
use foundation::params;

use super::metadata::Metadata;
use super::provider::{Kind, Provider};
use super::store::{self, Row};
use crate::settings::{Settings, provider_of};

/// `outages.md`: for one whole conversation.
const BUDGET: Duration = Duration::from_secs(5);
const DEGRADED: &str = "nobody signs in through this provider; every other way in works";
const PATIENCE: Patience = Patience {
    failures: 3,
    first: Duration::from_secs(5),
    longest: Duration::from_secs(60),
    slow: Some(Duration::from_secs(4)),
};
/// Conversations with one provider.
const AT_A_TIME: usize = 128;
/// More than any provider's description or keys have been seen to be.
const LARGEST: usize = 256 * 1024;
/// What a provider's settings are sealed for.
pub(super) const SEALED_FOR: &str = "identity provider";

/// A provider, and how it is reached.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) provider: Arc<Provider>,
    pub(super) reach: Reach,
    pub(super) metadata: Metadata,
}

/// How a provider is reached.
#[derive(Debug)]
pub(super) enum Reach {
    /// Over the network.
    Http(HttpClient),
    /// It is here.
    Here(Dependency),
}

impl Connection {
    pub(super) fn dependency(&self) -> &Dependency {
        match &self.reach {
            Reach::Http(client) => client.dependency(),
            Reach::Here(dependency) => dependency,
        }
    }

    /// Whether the subjects under this name are this provider's: another one under the name of the one before would let people
    /// into the accounts of others.
    ///
    /// # Errors
    /// As every statement.
    pub(super) fn is_as_before(&self, tx: &mut Tx<'_>) -> db::Result<bool> {
        let (id, issuer) = (&self.provider.id, self.provider.issuer());
        let (first,): (String,) = tx.one(&store::ISSUER, params![id, issuer])?;
        let same = first == issuer;
        if !same {
            tracing::error!(
                provider = id,
                first,
                now = issuer,
                "a provider has the name of another one: give it another"
            );
        }
        Ok(same)
    }

    /// Whether it answered the last time.
    pub(super) fn is_down(&self) -> bool {
        self.dependency().health().state == "down"
    }
}

/// Whether a text can be a provider's name.
pub(super) fn is_name(id: &str) -> bool {
    (1..=32).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Every provider.
pub struct Providers {
    settled: Vec<Arc<Connection>>,
    /// By id, with the moment of the settings that it was made of.
    added: Mutex<HashMap<String, (Timestamp, Arc<Connection>)>>,
    dependencies: Dependencies,
    private: Private,
    clock: Clock,
    sealer: Sealer,
}

impl Providers {
    /// Those of the settings; nobody is asked yet.
    ///
    /// # Errors
    /// In words, when a client cannot be made.
    pub fn new(
        settings: &Settings,
        dependencies: &Dependencies,
        clock: Clock,
        sealer: Sealer,
    ) -> Result<Self, String> {
        let mut all = Self {
            settled: Vec::new(),
            added: Mutex::default(),
            dependencies: dependencies.clone(),
            private: settings.federation.private.clone(),
            clock,
            sealer,
        };
        for provider in &settings.federation.providers {
            let connection = all.connect(provider.clone())?;
            all.settled.push(connection);
        }
        Ok(all)
    }

    fn connect(&self, provider: Arc<Provider>) -> Result<Arc<Connection>, String> {
        let dependency = self.dependencies.add(Guard {
            name: format!("oauth.{}", provider.id),
            timeout: BUDGET,
            degraded: DEGRADED,
            patience: Some(PATIENCE),
            at_a_time: AT_A_TIME,
        });
        let reach = match provider.kind {
            Kind::Pretend => Reach::Here(dependency),
            _ => Reach::Http(HttpClient::guarded(dependency, LARGEST, self.private.clone())?),
        };
        Ok(Arc::new(Connection { provider, reach, metadata: Metadata::new(self.clock.clone()) }))
    }

    /// The provider of this name that one may sign in at now; looked at in the database every time, so that what an operator
    /// does holds at once.
    ///
    /// # Errors
    /// As every read.
    pub(super) fn find(&self, tx: &mut Tx<'_>, id: &str) -> db::Result<Option<Arc<Connection>>> {
        if !is_name(id) {
            return Ok(None);
        }
        if tx.opt::<(Timestamp,)>(&store::IS_DISABLED, params![id])?.is_some() {
            return Ok(None);
        }
        if let Some(settled) = self.settled.iter().find(|one| one.provider.id == id) {
            return Ok(Some(settled.clone()).filter(|one| one.provider.enabled));
        }
        let row: Option<Row> = tx.opt(&store::PROVIDER, params![id])?;
        if row.is_none() {
            self.forget(id);
        }
        Ok(row.and_then(|row| self.of(&row)).filter(|one| one.provider.enabled))
    }

    /// All that one may sign in at now.
    ///
    /// # Errors
    /// As every read.
    pub(super) fn offered(&self, tx: &mut Tx<'_>) -> db::Result<Vec<Arc<Connection>>> {
        let disabled: Vec<(String,)> = tx.all(&store::ALL_DISABLED, params![])?;
        let all = self.all(tx)?;
        let is_on = |one: &Arc<Connection>| {
            one.provider.enabled && !disabled.iter().any(|(id,)| *id == one.provider.id)
        };
        Ok(all.into_iter().filter(is_on).collect())
    }

    /// All that there are.
    ///
    /// # Errors
    /// As every read.
    pub(super) fn all(&self, tx: &mut Tx<'_>) -> db::Result<Vec<Arc<Connection>>> {
        let rows: Vec<Row> = tx.all(&store::PROVIDERS, params![])?;
        let settled = |id: &str| self.settled.iter().any(|one| one.provider.id == id);
        let added = rows.iter().filter(|row| !settled(&row.id)).filter_map(|row| self.of(row));
        Ok(self.settled.iter().cloned().chain(added).collect())
    }

    /// Whether it stands in the settings.
    pub(super) fn is_settled(&self, id: &str) -> bool {
        self.settled.iter().any(|one| one.provider.id == id)
    }

    /// Whether one that stands in the settings is on there.
    pub(super) fn is_on_in_settings(&self, id: &str) -> bool {
        self.settled.iter().any(|one| one.provider.id == id && one.provider.enabled)
    }

    /// The connection of a row: the one there is, or another when its settings are others by now.
    fn of(&self, row: &Row) -> Option<Arc<Connection>> {
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, connection)) = added.get(&row.id).filter(|(at, _)| *at >= row.changed_at) {
            return Some(connection.clone());
        }
        let made = self.read(row).and_then(|provider| self.connect(Arc::new(provider)));
        match made {
            Ok(connection) => {
                let before = added.insert(row.id.clone(), (row.changed_at, connection.clone()));
                if let Some((_, before)) = before {
                    self.dependencies.remove(before.dependency());
                }
                Some(connection)
            }
            Err(error) => {
                tracing::error!(provider = row.id, error, "an identity provider's settings cannot be used");
                None
            }
        }
    }

    fn read(&self, row: &Row) -> Result<Provider, String> {
        let plain = self.sealer.open(SEALED_FOR, &row.sealed).map_err(|e| e.to_string())?;
        let text = std::str::from_utf8(&plain).map_err(|e| e.to_string())?;
        provider_of(&row.id, text).map_err(|e| e.to_string())
    }

    fn forget(&self, id: &str) {
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, connection)) = added.remove(id) {
            self.dependencies.remove(connection.dependency());
        }
    }
}
