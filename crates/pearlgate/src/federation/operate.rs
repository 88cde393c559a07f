//! What an operator does with providers while the server runs: it holds for the next request of every server.

use foundation::audit::Stream;
use foundation::db::{self, Db, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Sealer, Timestamp};
use foundation::params;
use serde_json::json;

use super::provider::PRETEND;
use super::registry::SEALED_FOR;
use super::store::{self, Row};
use crate::app::App;
use crate::sessions::Proof;
use crate::settings::provider_of;

/// A provider, for its operator.
#[derive(Debug, Clone)]
pub struct Listed {
    /// As it stands in addresses.
    pub id: String,
    /// As people see it.
    pub name: String,
    /// Whether it stands in the settings.
    pub in_settings: bool,
    /// Whether people may sign in through it.
    pub offered: bool,
}

fn nowhere() -> ClientAddress {
    ClientAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// What is on its way through a provider comes to nothing.
fn end_flows(tx: &mut Tx<'_>, id: &str) -> db::Result<()> {
    [
        &store::END_SIGN_INS,
        &store::END_CODES,
        &store::END_INCOMPLETE,
        &store::END_TICKETS,
        &store::END_LINKS,
        &store::END_PENDING,
    ]
    .into_iter()
    .try_for_each(|statement| tx.execute(statement, params![id]).map(|_| ()))?;
    tx.execute(&store::END_HALVES, params![Proof::FEDERATED.amr]).map(|_| ())
}

/// All of them.
///
/// # Errors
/// In words.
pub async fn list_providers(app: &App) -> Result<Vec<Listed>, String> {
    let inner = app.clone();
    let found = app.db.read(move |tx| {
        let offered = inner.providers.offered(tx)?;
        let all = inner.providers.all(tx)?.into_iter().map(|one| Listed {
            id: one.provider.id.clone(),
            name: one.provider.name.clone(),
            in_settings: inner.providers.is_settled(&one.provider.id),
            offered: offered.iter().any(|other| other.provider.id == one.provider.id),
        });
        Ok(all.collect())
    });
    found.await.map_err(|e| e.to_string())
}

/// Adds a provider, or puts it in the place of the one of this name.
///
/// # Errors
/// In words, what is wrong with its settings.
pub async fn add_provider(app: &App, id: &str, text: &str) -> Result<(), String> {
    if app.providers.is_settled(id) || id == PRETEND {
        return Err(format!("{id} stands in the settings: change it there"));
    }
    let provider = provider_of(id, text).map_err(|e| e.to_string())?;
    let issuer = provider.issuer().to_owned();
    let sealed = app.sealer.seal(SEALED_FOR, text.as_bytes()).map_err(|e| e.to_string())?;
    let (inner, id) = (app.clone(), id.to_owned());
    let done = app.db.write(move |tx| {
        let first: Option<(String,)> = tx.opt(&store::ISSUER_OF, params![id])?;
        if let Some((first,)) = first.filter(|(first,)| *first != issuer) {
            return Ok(Err(format!(
                "{id} was {first} until now, and people are linked to it: give {issuer} another name"
            )));
        }
        tx.execute(&store::ADD_PROVIDER, params![id, sealed, inner.clock.now()])?;
        end_flows(tx, &id)?;
        inner.audit(tx, &Stream::shard(&id), "provider_added", nowhere(), json!({ "provider": id }))?;
        Ok(Ok(()))
    });
    done.await.map_err(|e| e.to_string())?
}

/// Takes a provider away that was added. Identities that were linked at it stay, and let nobody in. False when there is
/// none.
///
/// # Errors
/// In words.
pub async fn remove_provider(app: &App, id: &str) -> Result<bool, String> {
    if app.providers.is_settled(id) {
        return Err(format!("{id} stands in the settings: take it out there, or disable it"));
    }
    let (inner, id) = (app.clone(), id.to_owned());
    let done = app.db.write(move |tx| {
        let gone = tx.opt::<(Timestamp,)>(&store::REMOVE_PROVIDER, params![id])?.is_some();
        if gone {
            tx.execute(&store::ENABLE, params![id])?;
            end_flows(tx, &id)?;
            inner.audit(tx, &Stream::shard(&id), "provider_removed", nowhere(), json!({ "provider": id }))?;
        }
        Ok(gone)
    });
    done.await.map_err(|e| e.to_string())
}

/// Seals the providers that were added under the current master key; gives how many were under another.
///
/// # Errors
/// In words.
pub async fn reseal_providers(db: &Db, sealer: &Sealer) -> Result<usize, String> {
    let rows = db.read(|tx| tx.all::<Row>(&store::PROVIDERS, params![])).await.map_err(|e| e.to_string())?;
    let mut resealed = 0;
    for row in rows.into_iter().filter(|row| sealer.is_outdated(&row.sealed)) {
        let unread = |e| format!("the provider {} cannot be read: {e}", row.id);
        let plain = sealer.open(SEALED_FOR, &row.sealed).map_err(unread)?;
        let anew = sealer.seal(SEALED_FOR, &plain).map_err(unread)?;
        let (id, before) = (row.id.clone(), row.sealed.clone());
        let done = db.write_one(move |tx| tx.execute(&store::RESEAL_PROVIDER, params![id, anew, before]));
        resealed += usize::try_from(done.await.map_err(|e| e.to_string())?).unwrap_or(0);
    }
    Ok(resealed)
}

/// Lets nobody sign in through a provider, or everybody again. Sign-ins that are on their way come to nothing.
///
/// # Errors
/// In words; when there is no such provider.
pub async fn set_disabled(app: &App, id: &str, disabled: bool) -> Result<(), String> {
    let (inner, id) = (app.clone(), id.to_owned());
    let done = app.db.write(move |tx| {
        if !inner.providers.all(tx)?.iter().any(|one| one.provider.id == id) {
            return Ok(Err(format!("there is no provider {id}: `pearlgate provider list` shows them all")));
        }
        let kind = if disabled {
            tx.execute(&store::DISABLE, params![id, inner.clock.now()])?;
            end_flows(tx, &id)?;
            "provider_disabled"
        } else {
            tx.execute(&store::ENABLE, params![id])?;
            "provider_enabled"
        };
        inner.audit(tx, &Stream::shard(&id), kind, nowhere(), json!({ "provider": id }))?;
        Ok(Ok(()))
    });
    done.await.map_err(|e| e.to_string())?
}
