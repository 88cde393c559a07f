//! What an operator does with endpoints: over HTTP as somebody, from the console as whoever sits there.

use foundation::audit::Stream;
use foundation::db::{self, Db, Tx};
use foundation::http::{Claim, IdempotencyKey};
use foundation::jobs::{Job, JobError, When};
use foundation::kernel::{FieldError, Id, Sealer, Secret, Timestamp};
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use super::deliver::lane;
use super::flow::{FOREVER, wake};
use super::model::{EndpointRow, MessageRow, OVERLAP, SEALED_FOR, SecretRow, named, secret, types};
use super::store::{self, Row, Sealed};
use crate::access::{By, Denied, may};
use crate::accounts::UserRow;
use crate::app::App;

pub use super::store::Delivery;

/// The longest an address is.
const LONGEST: usize = 2_048;
/// Whoever wants an endpoint to be different needs this.
const PERMISSION: &str = "webhooks:write";

/// An endpoint, for its operator.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its id.
    pub id: Id<EndpointRow>,
    /// Where it is told.
    pub url: String,
    /// What it is.
    pub description: String,
    /// What it wants to be told of.
    pub types: Vec<String>,
    /// Why it is told nothing for now; empty when it is told.
    pub paused: String,
    /// Since when there is one.
    pub created_at: Timestamp,
}

/// An endpoint to be added.
#[derive(Debug, Clone)]
pub struct New {
    /// Where it is told: an [`address`].
    pub url: Url,
    /// What it wants to be told of: [`events`].
    pub types: Vec<&'static str>,
    /// What it is.
    pub description: String,
}

/// An address that may be told something.
///
/// # Errors
/// Why it may not: it is none, or nobody is asked there.
pub fn address(app: &App, text: &str) -> Result<Url, FieldError> {
    let invalid = |words: String| FieldError::new("url", "invalid", words);
    if text.len() > LONGEST {
        return Err(invalid(format!("is longer than {LONGEST} bytes")));
    }
    let url = Url::parse(text).map_err(|e| invalid(format!("{text:?} is no address: {e}")))?;
    let own = "; a host of your own is named in webhooks.private_hosts";
    app.webhooks.admits(&url).map_err(|why| invalid(format!("{why}{own}")))?;
    Ok(url)
}

/// What an endpoint may want to be told of, by name; `*` is everything.
///
/// # Errors
/// Which of them there is not, or that there is none.
pub fn events(names: &[String]) -> Result<Vec<&'static str>, FieldError> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let types = named(&names).map_err(|words| FieldError::new("events", "invalid", words))?;
    if types.is_empty() {
        return Err(FieldError::new("events", "invalid", "give at least one, or \"*\" for all"));
    }
    Ok(types)
}

/// Adds an endpoint: it is told of what happens from now on. Gives its secret, once.
///
/// # Errors
/// In words: an address that is not asked, a type that there is not, a database that is away.
pub async fn add(
    app: &App,
    url: &str,
    list: &str,
    description: &str,
) -> Result<(Id<EndpointRow>, Secret), String> {
    let url = address(app, url).map_err(|refused| refused.message)?;
    let new = New { url, types: types(list)?, description: description.to_owned() };
    let done = add_by(app, By::console(), new).await.map_err(|e| e.to_string())?;
    done.map(|(added, secret)| (added.id, secret)).map_err(|denied| denied.words())
}

/// The same for an operator.
///
/// # Errors
/// As every statement.
pub async fn add_by(app: &App, by: By, new: New) -> db::Result<Result<(Listed, Secret), Denied>> {
    let secret = secret(&app.chance);
    let (sealed, inner) = (seal(&app.sealer, &secret)?, app.clone());
    let id = Id::<EndpointRow>::new(&app.clock, &app.chance);
    let done = app.db.write(move |tx| {
        if let Err(denied) = may(tx, &inner, &by, PERMISSION)? {
            return Ok(Err(denied));
        }
        let New { url, types, description } = &new;
        let now = inner.clock.now();
        tx.execute(&store::ADD, params![id, url.as_str(), description, now])?;
        for kind in types {
            tx.execute(&store::WANT, params![kind, id, Timestamp::from_micros(0)])?;
        }
        let first = Id::<SecretRow>::new(&inner.clock, &inner.chance);
        tx.opt::<(Timestamp,)>(&store::ADD_SECRET, params![id, first, sealed, now + FOREVER])?;
        // Some have a secret in their path.
        let details = json!({ "endpoint": id, "host": url.host_str(), "types": types });
        inner.audit_by(tx, &Stream::server(), "webhook_added", &by, details)?;
        let row = Row {
            id,
            url: url.to_string(),
            description: description.clone(),
            created_at: now,
            paused: String::new(),
        };
        listed(tx, row).map(Ok)
    });
    Ok(done.await?.map(|added| (added, secret)))
}

fn seal(sealer: &Sealer, secret: &Secret) -> db::Result<Vec<u8>> {
    sealer.seal(SEALED_FOR, secret.reveal().as_bytes()).map_err(|e| db::Error::Bug(e.to_string()))
}

/// All of them.
///
/// # Errors
/// As every read.
pub async fn list(app: &App) -> db::Result<Vec<Listed>> {
    let found = app.db.read(|tx| {
        let rows: Vec<Row> = tx.all(&store::ENDPOINTS, params![])?;
        rows.into_iter().map(|row| listed(tx, row)).collect()
    });
    found.await
}

/// One of them; none when there is none with this id.
///
/// # Errors
/// As every read.
pub async fn find(app: &App, id: Id<EndpointRow>) -> db::Result<Option<Listed>> {
    let found = app.db.read(move |tx| {
        let row: Option<Row> = tx.opt(&store::LISTED, params![id])?;
        row.map(|row| listed(tx, row)).transpose()
    });
    found.await
}

fn listed(tx: &mut Tx<'_>, row: Row) -> db::Result<Listed> {
    let types: Vec<(String,)> = tx.all(&store::TYPES_OF, params![row.id])?;
    let types = types.into_iter().map(|(kind,)| kind).collect();
    let Row { id, url, description, created_at, paused } = row;
    Ok(Listed { id, url, description, types, paused, created_at })
}

/// Takes an endpoint away. False when there is none.
///
/// # Errors
/// As every statement.
pub async fn remove(app: &App, id: Id<EndpointRow>) -> db::Result<bool> {
    remove_by(app, By::console(), id).await.map(|done| done.is_ok())
}

/// The same for an operator.
///
/// # Errors
/// As every statement.
pub async fn remove_by(app: &App, by: By, id: Id<EndpointRow>) -> db::Result<Result<(), Denied>> {
    let inner = app.clone();
    let done = app.db.write(move |tx| {
        if let Err(denied) = may(tx, &inner, &by, PERMISSION)? {
            return Ok(Err(denied));
        }
        if tx.opt::<(Timestamp,)>(&store::REMOVE, params![id])?.is_none() {
            return Ok(Err(Denied::NotFound));
        }
        inner.audit_by(tx, &Stream::server(), "webhook_removed", &by, json!({ "endpoint": id })).map(Ok)
    });
    let removed = done.await?;
    if removed.is_ok() {
        app.webhooks.forget(id);
    }
    Ok(removed)
}

/// What is to be different about an endpoint; what is not given stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Where it is told: an [`address`].
    pub url: Option<Url>,
    /// What it is.
    pub description: Option<String>,
    /// What it wants to be told of: [`events`]. What is new to it, it is told of from now on.
    pub types: Option<Vec<&'static str>>,
    /// Whether it is told anything for now.
    pub pause: Option<Pause>,
    /// Whether it gets another secret; the one before signs beside it for a day.
    pub rotate: bool,
}

/// Whether an endpoint is told anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pause {
    /// Nothing, because of this: what happens waits.
    Begin(String),
    /// It is, and what happened meanwhile.
    End,
}

/// What came of a change.
#[derive(Debug, Clone)]
pub struct Changed {
    /// Its new secret, once.
    pub secret: Option<Secret>,
    /// Whether a pause has ended.
    pub resumed: bool,
}

/// Changes an endpoint.
///
/// # Errors
/// As every statement.
pub async fn change_by(
    app: &App,
    by: By,
    id: Id<EndpointRow>,
    change: Change,
) -> db::Result<Result<Changed, Denied>> {
    let secret = change.rotate.then(|| secret(&app.chance));
    let sealed = secret.as_ref().map(|secret| seal(&app.sealer, secret)).transpose()?;
    let inner = app.clone();
    let done = app.db.write(move |tx| {
        if let Err(denied) = may(tx, &inner, &by, PERMISSION)? {
            return Ok(Err(denied));
        }
        if tx.opt::<(Id<EndpointRow>,)>(&store::KNOWN, params![id])?.is_none() {
            return Ok(Err(Denied::NotFound));
        }
        alter(tx, &inner, &by, id, &change)?;
        if let Some(sealed) = &sealed {
            rotate_in(tx, &inner, &by, id, sealed)?;
        }
        match &change.pause {
            Some(Pause::Begin(reason)) => pause_in(tx, &inner, &by, id, reason).map(|()| Ok(false)),
            Some(Pause::End) => resume_in(tx, &inner, &by, id).map(Ok),
            None => Ok(Ok(false)),
        }
    });
    let resumed = match done.await? {
        Ok(resumed) => resumed,
        Err(denied) => return Ok(Err(denied)),
    };
    // After the pause is over for everybody who looks, and in steps: those to whom something happens meanwhile do not wait.
    if resumed {
        wake_all(app, id).await?;
    }
    Ok(Ok(Changed { secret, resumed }))
}

fn alter(tx: &mut Tx<'_>, app: &App, by: &By, id: Id<EndpointRow>, change: &Change) -> db::Result<()> {
    let given = [
        ("url", change.url.is_some()),
        ("description", change.description.is_some()),
        ("events", change.types.is_some()),
    ];
    let fields: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
    if fields.is_empty() {
        return Ok(());
    }
    let url = change.url.as_ref().map_or("", Url::as_str);
    let description = change.description.as_deref().unwrap_or_default();
    let (has_url, has_description) =
        (i64::from(change.url.is_some()), i64::from(change.description.is_some()));
    tx.execute(&store::CHANGE, params![id, has_url, url, has_description, description])?;
    let mut details =
        Map::from_iter([("endpoint".to_owned(), json!(id)), ("fields".to_owned(), json!(fields))]);
    if let Some(url) = &change.url {
        details.insert("host".into(), url.host_str().into());
    }
    if let Some(types) = &change.types {
        want(tx, id, types, app.clock.now())?;
        details.insert("types".into(), json!(types));
    }
    app.audit_by(tx, &Stream::server(), "webhook_changed", by, Value::Object(details))
}

/// It is told of these: of those that are new to it, what happens from now on.
fn want(tx: &mut Tx<'_>, id: Id<EndpointRow>, types: &[&'static str], now: Timestamp) -> db::Result<()> {
    let before: Vec<(String,)> = tx.all(&store::TYPES_OF, params![id])?;
    for (kind,) in before.iter().filter(|(kind,)| !types.contains(&kind.as_str())) {
        tx.execute(&store::WANT_NO_MORE, params![kind, id])?;
    }
    for kind in types.iter().filter(|wanted| !before.iter().any(|(kind,)| **wanted == kind.as_str())) {
        tx.execute(&store::WANT, params![kind, id, now])?;
    }
    Ok(())
}

fn rotate_in(tx: &mut Tx<'_>, app: &App, by: &By, id: Id<EndpointRow>, sealed: &[u8]) -> db::Result<()> {
    let now = app.clock.now();
    tx.execute(&store::RETIRE_SECRETS, params![id, now + OVERLAP])?;
    let next = Id::<SecretRow>::new(&app.clock, &app.chance);
    tx.opt::<(Timestamp,)>(&store::ADD_SECRET, params![id, next, sealed, now + FOREVER])?;
    app.audit_by(tx, &Stream::server(), "webhook_secret_rotated", by, json!({ "endpoint": id }))
}

fn pause_in(tx: &mut Tx<'_>, app: &App, by: &By, id: Id<EndpointRow>, reason: &str) -> db::Result<()> {
    tx.opt::<(Timestamp,)>(&store::PAUSE, params![id, reason, app.clock.now()])?;
    let details = json!({ "endpoint": id, "reason": reason });
    app.audit_by(tx, &Stream::server(), "webhook_paused", by, details)
}

/// False when it was not paused.
fn resume_in(tx: &mut Tx<'_>, app: &App, by: &By, id: Id<EndpointRow>) -> db::Result<bool> {
    if tx.opt::<(Timestamp,)>(&store::RESUME, params![id])?.is_none() {
        return Ok(false);
    }
    tx.execute(&store::GO_ON, params![id, app.clock.now()])?;
    app.audit_by(tx, &Stream::server(), "webhook_resumed", by, json!({ "endpoint": id }))?;
    Ok(true)
}

/// Gives an endpoint another secret; the one before signs beside it for a day. None when there is no such endpoint.
///
/// # Errors
/// In words.
pub async fn rotate(app: &App, id: Id<EndpointRow>) -> Result<Option<Secret>, String> {
    let change = Change { rotate: true, ..Change::default() };
    let done = change_by(app, By::console(), id, change).await.map_err(|e| e.to_string())?;
    Ok(done.ok().and_then(|changed| changed.secret))
}

/// Tells an endpoint nothing for now; what happens waits. False when there is no such endpoint.
///
/// # Errors
/// As every statement.
pub async fn pause(app: &App, id: Id<EndpointRow>, reason: &str) -> db::Result<bool> {
    let change = Change { pause: Some(Pause::Begin(reason.to_owned())), ..Change::default() };
    change_by(app, By::console(), id, change).await.map(|done| done.is_ok())
}

/// Tells it again, and what happened meanwhile. False when it was not paused.
///
/// # Errors
/// As every statement.
pub async fn resume(app: &App, id: Id<EndpointRow>) -> db::Result<bool> {
    let change = Change { pause: Some(Pause::End), ..Change::default() };
    change_by(app, By::console(), id, change).await.map(|done| done.is_ok_and(|changed| changed.resumed))
}

async fn wake_all(app: &App, id: Id<EndpointRow>) -> db::Result<()> {
    loop {
        let inner = app.clone();
        if app.db.write(move |tx| inner.queue.wake(tx, &lane(id))).await? == 0 {
            return Ok(());
        }
    }
}

/// From where on an endpoint is told again.
#[derive(Debug, Clone)]
pub enum Cursor {
    /// A moment.
    Since(Timestamp),
    /// An event: it and what came after it.
    Event(Id<MessageRow>),
}

/// Tells an endpoint again what it wants to be told of and happened from a cursor on, each person's events in their order,
/// also what was given up. False when there is no such endpoint.
///
/// # Errors
/// In words: no such event (any more), a database that is away.
pub async fn replay(app: &App, id: Id<EndpointRow>, from: Cursor) -> Result<bool, String> {
    let done = replay_by(app, By::console(), id, from, &IdempotencyKey::default()).await;
    match done.map_err(|e| e.to_string())? {
        Ok(_) => Ok(true),
        Err(Denied::NotFound) => Ok(false),
        Err(denied) => Err(denied.words()),
    }
}

/// The same for an operator, once under a key; none when it was done before.
///
/// # Errors
/// As every statement.
pub async fn replay_by(
    app: &App,
    by: By,
    id: Id<EndpointRow>,
    from: Cursor,
    key: &IdempotencyKey,
) -> db::Result<Result<Option<()>, Denied>> {
    let (inner, key) = (app.clone(), key.clone());
    let done = app.db.write(move |tx| {
        if let Err(denied) = may(tx, &inner, &by, PERMISSION)? {
            return Ok(Err(denied));
        }
        if tx.opt::<(Id<EndpointRow>,)>(&store::KNOWN, params![id])?.is_none() {
            return Ok(Err(Denied::NotFound));
        }
        let now = inner.clock.now();
        let since = match from {
            Cursor::Since(since) => since,
            Cursor::Event(event) => match tx.opt::<(Timestamp,)>(&store::CREATED_AT, params![event])? {
                Some((at,)) => at,
                None => {
                    let words = format!("there is no event {event} any more");
                    return Ok(Err(Denied::Invalid("event", words)));
                }
            },
        };
        if since > now {
            let words = "that is yet to come: give a time that has passed";
            return Ok(Err(Denied::Invalid("since", words.into())));
        }
        if key.claim(tx, now, 202, "null")? == Claim::Done {
            return Ok(Ok(None));
        }
        tx.opt::<(Timestamp,)>(&store::TELL_AGAIN, params![id, now, since])?;
        tx.execute(&store::WANT_SINCE, params![id, since])?;
        CatchUp::begin(tx, &inner, CatchUp { endpoint: id, since, after: None })?;
        let details = json!({ "endpoint": id, "since": since.to_string() });
        inner.audit_by(tx, &Stream::server(), "webhook_replayed", &by, details)?;
        Ok(Ok(Some(())))
    });
    done.await
}

/// What came of the newest messages to an endpoint; none when there is no such endpoint.
///
/// # Errors
/// As every read.
pub async fn deliveries(app: &App, id: Id<EndpointRow>, most: u16) -> db::Result<Option<Vec<Delivery>>> {
    let newest = (Timestamp::from_micros(i64::MAX), Id::from_bytes([0xff; 16]));
    deliveries_before(app, id, newest, most).await
}

/// The same before one of them: of those of one moment, the one with the greatest id comes first.
///
/// # Errors
/// As every read.
pub async fn deliveries_before(
    app: &App,
    id: Id<EndpointRow>,
    (before, event): (Timestamp, Id<MessageRow>),
    most: u16,
) -> db::Result<Option<Vec<Delivery>>> {
    let found = app.db.read(move |tx| {
        if tx.opt::<(Id<EndpointRow>,)>(&store::KNOWN, params![id])?.is_none() {
            return Ok(None);
        }
        tx.all(&store::DELIVERIES, params![id, before, event, i64::from(most)]).map(Some)
    });
    found.await
}

/// Sees to it that an endpoint is told of everybody to whom something happened since then.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CatchUp {
    endpoint: Id<EndpointRow>,
    since: Timestamp,
    /// The person it has come to.
    after: Option<Id<UserRow>>,
}

impl Job for CatchUp {
    const KIND: &'static str = "webhooks.catch_up";
    const MAX_ATTEMPTS: i64 = i64::MAX;
}

impl CatchUp {
    fn begin(tx: &mut db::Tx<'_>, app: &App, job: Self) -> db::Result<()> {
        app.queue.enqueue(tx, &job, &When::now(app.clock.now(), FOREVER)).map(|_| ())
    }

    /// A batch of people; another job goes on with the next.
    pub(super) async fn run(self, app: &App) -> Result<(), JobError> {
        let (since, after) = (self.since, self.after.unwrap_or(Id::from_bytes([0; 16])));
        // A long look, at what may be all of it: no transaction that writes waits for it.
        let found = app.db.scan(move |tx| tx.all(&store::PEOPLE_SINCE, params![since, after])).await;
        let people: Vec<(Id<UserRow>, i64)> = found?;
        let inner = app.clone();
        let done = app.db.write(move |tx| {
            let now = inner.clock.now();
            for (user, first) in &people {
                tx.execute(&store::PUT_BACK, params![self.endpoint, user, first - 1, now])?;
                tx.execute(&store::FORGET_TRIES, params![self.endpoint, user, first - 1])?;
                wake(tx, &inner, self.endpoint, *user, now)?;
            }
            match people.last() {
                Some((last, _)) => Self::begin(tx, &inner, Self { after: Some(*last), ..self }),
                None => Ok(()),
            }
        });
        Ok(done.await?)
    }
}

/// Seals signing secrets under the current master key; gives how many were under another.
///
/// # Errors
/// In words.
pub async fn reseal_webhooks(db: &Db, sealer: &Sealer) -> Result<usize, String> {
    let rows =
        db.read(|tx| tx.all::<Sealed>(&store::ALL_SECRETS, params![])).await.map_err(|e| e.to_string())?;
    let mut resealed = 0;
    for Sealed { endpoint, id, sealed } in rows.into_iter().filter(|row| sealer.is_outdated(&row.sealed)) {
        let unread = |e| format!("a webhook's secret cannot be read: {e}");
        let plain = sealer.open(SEALED_FOR, &sealed).map_err(unread)?;
        let anew = sealer.seal(SEALED_FOR, &plain).map_err(unread)?;
        let done = db.write_one(move |tx| tx.execute(&store::RESEAL, params![endpoint, id, anew, sealed]));
        resealed += usize::try_from(done.await.map_err(|e| e.to_string())?).unwrap_or(0);
    }
    Ok(resealed)
}
