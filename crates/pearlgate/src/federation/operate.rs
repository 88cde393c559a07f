//! What an operator does with providers while the server runs: it holds for the next request of every server. Over HTTP it is
//! done by somebody, from the console by whoever sits there.

use foundation::audit::Stream;
use foundation::config::ConfigError;
use foundation::db::{self, Db, Tx};
use foundation::http::{Claim, IdempotencyKey};
use foundation::kernel::{Sealer, Timestamp};
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::json;
use toml::{Table, Value};

use super::provider::{PRETEND, Provider, RESERVED};
use super::registry::{SEALED_FOR, is_name};
use super::store::{self, Row};
use crate::access::{By, Denied, may};
use crate::app::App;
use crate::sessions::Proof;
use crate::settings::provider_of;

/// Whoever wants a provider to be different needs this.
const PERMISSION: &str = "providers:write";
/// The settings that a provider has, as they stand in a request.
const FIELDS: [&str; 17] = [
    "settings.preset",
    "settings.name",
    "settings.issuer",
    "settings.tenant",
    "settings.client_id",
    "settings.client_secret",
    "settings.client_auth",
    "settings.native_client_ids",
    "settings.scopes",
    "settings.authoritative_for",
    "settings.believe_email",
    "settings.trusted_amr",
    "settings.trusted_acr",
    "settings.max_age",
    "settings.team_id",
    "settings.key_id",
    "settings.private_key",
];

/// A provider, for its operator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed {
    /// As it stands in addresses.
    pub id: String,
    /// As people see it.
    pub name: String,
    /// As it calls itself.
    pub issuer: String,
    /// As it knows this server.
    pub client_id: String,
    /// Whether it stands in the settings.
    pub in_settings: bool,
    /// Whether people may sign in through it.
    pub offered: bool,
    /// `up`, `down`, or `unknown` when nobody has asked it lately.
    pub state: String,
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
    providers(app).await.map_err(|e| e.to_string())
}

/// The same for an operator.
///
/// # Errors
/// As every read.
pub async fn providers(app: &App) -> db::Result<Vec<Listed>> {
    let inner = app.clone();
    let found = app.db.read(move |tx| {
        let offered = inner.providers.offered(tx)?;
        let all = inner.providers.all(tx)?.into_iter().map(|one| Listed {
            id: one.provider.id.clone(),
            name: one.provider.name.clone(),
            issuer: one.provider.issuer().to_owned(),
            client_id: one.provider.client_id.clone(),
            in_settings: inner.providers.is_settled(&one.provider.id),
            offered: offered.iter().any(|other| other.provider.id == one.provider.id),
            state: one.dependency().health().state.to_owned(),
        });
        Ok(all.collect())
    });
    found.await
}

/// A provider whose settings were checked.
struct Checked {
    provider: Provider,
    sealed: Vec<u8>,
}

impl Checked {
    fn new(app: &App, id: &str, text: &str) -> Result<Self, ConfigError> {
        let provider = provider_of(id, text)?;
        let unsealed = |e: foundation::kernel::SealError| ConfigError {
            place: format!("the provider {id}"),
            what: format!("cannot be sealed: {e}"),
        };
        Ok(Self { provider, sealed: app.sealer.seal(SEALED_FOR, text.as_bytes()).map_err(unsealed)? })
    }
}

/// Refuses settings as a field of a request.
fn refused(id: &str, error: &ConfigError) -> Denied {
    let after = |field: &'static str| {
        let key = field.trim_start_matches("settings.");
        let words = error.what.strip_prefix(&format!("`providers.{id}.{key}` "))?;
        Some(Denied::Invalid(field, words.to_owned()))
    };
    let named = FIELDS.into_iter().find_map(after);
    named.unwrap_or_else(|| Denied::Invalid("settings", error.what.clone()))
}

fn in_settings(id: &str) -> Denied {
    Denied::Conflict(format!("{id} stands in the settings: change it there, or disable it here"))
}

/// Adds a provider, or puts it in the place of the one of this name.
///
/// # Errors
/// In words, what is wrong with its settings.
pub async fn add_provider(app: &App, id: &str, text: &str) -> Result<(), String> {
    if app.providers.is_settled(id) || id == PRETEND {
        return Err(in_settings(id).words());
    }
    let checked = Checked::new(app, id, text).map_err(|e| e.to_string())?;
    let done = put(app, By::console(), checked, Instead::OfAny, &IdempotencyKey::default()).await;
    done.map_err(|e| e.to_string())?.map(|_| ()).map_err(|denied| denied.words())
}

/// Adds a provider that is not there yet, once under a key; none when it was done before.
///
/// # Errors
/// As every statement.
pub async fn add_provider_by(
    app: &App,
    by: By,
    id: &str,
    settings: &Table,
    key: &IdempotencyKey,
) -> db::Result<Result<Option<Listed>, Denied>> {
    if app.providers.is_settled(id) {
        return Ok(Err(in_settings(id)));
    }
    if !is_name(id) || RESERVED.contains(&id) {
        let words =
            format!("is 1 to 32 small letters, digits and hyphens, and none of {}", RESERVED.join(", "));
        return Ok(Err(Denied::Invalid("id", words)));
    }
    match Checked::new(app, id, &settings.to_string()) {
        Ok(checked) => put(app, by, checked, Instead::OfNone, key).await,
        Err(error) => Ok(Err(refused(id, &error))),
    }
}

/// What may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instead {
    OfAny,
    OfNone,
}

async fn put(
    app: &App,
    by: By,
    Checked { provider, sealed }: Checked,
    instead: Instead,
    key: &IdempotencyKey,
) -> db::Result<Result<Option<Listed>, Denied>> {
    let listed = Listed {
        issuer: provider.issuer().to_owned(),
        id: provider.id,
        name: provider.name,
        client_id: provider.client_id,
        in_settings: false,
        offered: provider.enabled,
        state: "unknown".into(),
    };
    let answer = serde_json::to_string(&listed).map_err(|e| db::Error::Bug(e.to_string()))?;
    let (inner, key) = (app.clone(), key.clone());
    let done = app.db.write(move |tx| {
        if let Err(denied) = may(tx, &inner, &by, PERMISSION)? {
            return Ok(Err(denied));
        }
        let (id, now) = (&listed.id, inner.clock.now());
        if instead == Instead::OfNone && tx.opt::<Row>(&store::PROVIDER, params![id])?.is_some() {
            return Ok(Err(Denied::Conflict(format!("There is a provider {id} already: change that one."))));
        }
        if let Err(denied) = is_as_before(tx, id, &listed.issuer)? {
            return Ok(Err(denied));
        }
        if key.claim(tx, now, 201, &answer)? == Claim::Done {
            return Ok(Ok(None));
        }
        tx.execute(&store::ADD_PROVIDER, params![id, sealed, now])?;
        end_flows(tx, id)?;
        inner.audit_by(tx, &Stream::server(), "provider_added", &by, json!({ "provider": id }))?;
        Ok(Ok(Some(listed.clone())))
    });
    done.await
}

/// Whether people who are linked under this name are linked to this provider.
fn is_as_before(tx: &mut Tx<'_>, id: &str, issuer: &str) -> db::Result<Result<(), Denied>> {
    let first: Option<(String,)> = tx.opt(&store::ISSUER_OF, params![id])?;
    Ok(match first.filter(|(first,)| first != issuer) {
        None => Ok(()),
        Some((first,)) => Err(Denied::Conflict(format!(
            "{id} was {first} until now, and people are linked to it: give {issuer} another name"
        ))),
    })
}

/// Takes a provider away that was added. Identities that were linked at it stay, and let nobody in. False when there is
/// none.
///
/// # Errors
/// In words.
pub async fn remove_provider(app: &App, id: &str) -> Result<bool, String> {
    match remove_provider_by(app, By::console(), id).await.map_err(|e| e.to_string())? {
        Ok(()) => Ok(true),
        Err(Denied::NotFound) => Ok(false),
        Err(denied) => Err(denied.words()),
    }
}

/// The same for an operator.
///
/// # Errors
/// As every statement.
pub async fn remove_provider_by(app: &App, by: By, id: &str) -> db::Result<Result<(), Denied>> {
    if app.providers.is_settled(id) {
        return Ok(Err(in_settings(id)));
    }
    let (inner, id) = (app.clone(), id.to_owned());
    let done = app.db.write(move |tx| {
        if let Err(denied) = may(tx, &inner, &by, PERMISSION)? {
            return Ok(Err(denied));
        }
        if tx.opt::<(Timestamp,)>(&store::REMOVE_PROVIDER, params![id])?.is_none() {
            return Ok(Err(Denied::NotFound));
        }
        tx.execute(&store::ENABLE, params![id])?;
        end_flows(tx, &id)?;
        let details = json!({ "provider": id });
        inner.audit_by(tx, &Stream::server(), "provider_removed", &by, details).map(Ok)
    });
    done.await
}

/// What is to be different about a provider; what is not given stays.
#[derive(Debug, Clone, Default)]
pub struct ProviderChange {
    /// Of one that was added: these of its settings.
    pub settings: Table,
    /// Whether people may sign in through it.
    pub enabled: Option<bool>,
}

/// Changes a provider. Sign-ins that are on their way through it come to nothing.
///
/// # Errors
/// As every statement.
pub async fn change_provider_by(
    app: &App,
    by: By,
    id: &str,
    change: ProviderChange,
) -> db::Result<Result<(), Denied>> {
    let settings = match anew(app, id, &change).await? {
        Ok(settings) => settings,
        Err(denied) => return Ok(Err(denied)),
    };
    let (inner, id) = (app.clone(), id.to_owned());
    let fields: Vec<String> = change.settings.keys().cloned().collect();
    let done = app.db.write(move |tx| {
        if let Err(denied) = may(tx, &inner, &by, PERMISSION)? {
            return Ok(Err(denied));
        }
        let now = inner.clock.now();
        let row: Option<Row> = tx.opt(&store::PROVIDER, params![id])?;
        if row.is_none() && !inner.providers.is_settled(&id) {
            return Ok(Err(Denied::NotFound));
        }
        if let Some((before, checked)) = &settings {
            if row.is_none_or(|row| row.sealed != before.sealed) {
                return Ok(Err(Denied::Conflict("It was changed meanwhile: look at it again.".into())));
            }
            if let Err(denied) = is_as_before(tx, &id, checked.provider.issuer())? {
                return Ok(Err(denied));
            }
            tx.execute(&store::ADD_PROVIDER, params![id, checked.sealed, now])?;
            end_flows(tx, &id)?;
            let details = json!({ "provider": id, "fields": fields });
            inner.audit_by(tx, &Stream::server(), "provider_changed", &by, details)?;
        }
        let kind = match change.enabled {
            Some(true) => {
                tx.execute(&store::ENABLE, params![id])?;
                "provider_enabled"
            }
            Some(false) => {
                tx.execute(&store::DISABLE, params![id, now])?;
                end_flows(tx, &id)?;
                "provider_disabled"
            }
            None => return Ok(Ok(())),
        };
        inner.audit_by(tx, &Stream::server(), kind, &by, json!({ "provider": id })).map(Ok)
    });
    done.await
}

/// The settings of one that was added, with what is to be different, and as they were; none when nothing is.
async fn anew(
    app: &App,
    id: &str,
    change: &ProviderChange,
) -> db::Result<Result<Option<(Row, Checked)>, Denied>> {
    if app.providers.is_settled(id) {
        if !change.settings.is_empty() {
            return Ok(Err(in_settings(id)));
        }
        if change.enabled == Some(true) && !app.providers.is_on_in_settings(id) {
            let words = format!("{id} is off in the settings: switch it on there");
            return Ok(Err(Denied::Conflict(words)));
        }
        return Ok(Ok(None));
    }
    let name = id.to_owned();
    let Some(row) = app.db.read_one(move |tx| tx.opt::<Row>(&store::PROVIDER, params![name])).await? else {
        return Ok(Err(Denied::NotFound));
    };
    let unread = |why: String| db::Error::Bug(format!("the provider {id} cannot be read: {why}"));
    let plain = app.sealer.open(SEALED_FOR, &row.sealed).map_err(|e| unread(e.to_string()))?;
    let text = std::str::from_utf8(&plain).map_err(|e| unread(e.to_string()))?;
    let mut table: Table = text.parse().map_err(|e: toml::de::Error| unread(e.message().to_owned()))?;
    table.extend(change.settings.clone());
    // Whoever switches it on means it, also when it was added as one that is off.
    if change.enabled == Some(true) && table.get("enabled") == Some(&Value::Boolean(false)) {
        table.insert("enabled".into(), Value::Boolean(true));
    } else if change.settings.is_empty() {
        return Ok(Ok(None));
    }
    Ok(match Checked::new(app, id, &table.to_string()) {
        Ok(checked) => Ok(Some((row, checked))),
        Err(error) => Err(refused(id, &error)),
    })
}

/// Lets nobody sign in through a provider, or everybody again. Sign-ins that are on their way come to nothing.
///
/// # Errors
/// In words; when there is no such provider.
pub async fn set_disabled(app: &App, id: &str, disabled: bool) -> Result<(), String> {
    let change = ProviderChange { enabled: Some(!disabled), ..ProviderChange::default() };
    match change_provider_by(app, By::console(), id, change).await.map_err(|e| e.to_string())? {
        Ok(()) => Ok(()),
        Err(Denied::NotFound) => {
            Err(format!("there is no provider {id}: `pearlgate provider list` shows them all"))
        }
        Err(denied) => Err(denied.words()),
    }
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
