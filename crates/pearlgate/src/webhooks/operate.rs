//! What an operator does with endpoints.

use foundation::audit::Stream;
use foundation::db::{self, Db};
use foundation::http::ClientAddress;
use foundation::jobs::{Job, JobError, When};
use foundation::kernel::{Id, Sealer, Secret, Timestamp};
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::deliver::lane;
use super::flow::{FOREVER, wake};
use super::model::{EndpointRow, MessageRow, OVERLAP, SEALED_FOR, SecretRow, secret, types};
use super::store::{self, Row, Sealed};
use crate::accounts::UserRow;
use crate::app::App;

pub use super::store::Delivery;

/// Where an operator's command comes from.
const NOWHERE: ClientAddress = ClientAddress(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));

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
    let parsed = Url::parse(url).map_err(|e| format!("{url:?} is no address: {e}"))?;
    let own = "; a host of your own is named in webhooks.private_hosts";
    app.webhooks.admits(&parsed).map_err(|why| format!("{why}{own}"))?;
    let types = types(list)?;
    let (inner, id, secret) =
        (app.clone(), Id::<EndpointRow>::new(&app.clock, &app.chance), secret(&app.chance));
    let (description, sealed) = (description.to_owned(), seal(&app.sealer, &secret)?);
    let done = app.db.write(move |tx| {
        let now = inner.clock.now();
        tx.execute(&store::ADD, params![id, parsed.as_str(), description, now])?;
        for kind in &types {
            tx.execute(&store::WANT, params![kind, id])?;
        }
        let first = Id::<SecretRow>::new(&inner.clock, &inner.chance);
        tx.opt::<(Timestamp,)>(&store::ADD_SECRET, params![id, first, sealed, now + FOREVER])?;
        // Some have a secret in their path.
        let details = json!({ "endpoint": id, "host": parsed.host_str(), "types": types });
        inner.audit(tx, &Stream::server(), "webhook_added", NOWHERE, details)
    });
    done.await.map_err(|e| e.to_string())?;
    Ok((id, secret))
}

fn seal(sealer: &Sealer, secret: &Secret) -> Result<Vec<u8>, String> {
    sealer.seal(SEALED_FOR, secret.reveal().as_bytes()).map_err(|e| e.to_string())
}

/// All of them.
///
/// # Errors
/// As every read.
pub async fn list(app: &App) -> db::Result<Vec<Listed>> {
    let found = app.db.read(|tx| {
        let rows: Vec<Row> = tx.all(&store::ENDPOINTS, params![])?;
        rows.into_iter()
            .map(|row| {
                let types: Vec<(String,)> = tx.all(&store::TYPES_OF, params![row.id])?;
                let types = types.into_iter().map(|(kind,)| kind).collect();
                let Row { id, url, description, created_at, paused } = row;
                Ok(Listed { id, url, description, types, paused, created_at })
            })
            .collect()
    });
    found.await
}

/// Takes an endpoint away. False when there is none.
///
/// # Errors
/// As every statement.
pub async fn remove(app: &App, id: Id<EndpointRow>) -> db::Result<bool> {
    let inner = app.clone();
    let done = app.db.write(move |tx| {
        let gone = tx.opt::<(Timestamp,)>(&store::REMOVE, params![id])?.is_some();
        if gone {
            inner.audit(tx, &Stream::server(), "webhook_removed", NOWHERE, json!({ "endpoint": id }))?;
        }
        Ok(gone)
    });
    app.webhooks.forget(id);
    done.await
}

/// Gives an endpoint another secret; the one before signs beside it for a day. None when there is no such endpoint.
///
/// # Errors
/// In words.
pub async fn rotate(app: &App, id: Id<EndpointRow>) -> Result<Option<Secret>, String> {
    let (inner, secret) = (app.clone(), secret(&app.chance));
    let sealed = seal(&app.sealer, &secret)?;
    let done = app.db.write(move |tx| {
        let now = inner.clock.now();
        tx.execute(&store::RETIRE_SECRETS, params![id, now + OVERLAP])?;
        let next = Id::<SecretRow>::new(&inner.clock, &inner.chance);
        let there =
            tx.opt::<(Timestamp,)>(&store::ADD_SECRET, params![id, next, sealed, now + FOREVER])?.is_some();
        if there {
            inner.audit(
                tx,
                &Stream::server(),
                "webhook_secret_rotated",
                NOWHERE,
                json!({ "endpoint": id }),
            )?;
        }
        Ok(there)
    });
    Ok(done.await.map_err(|e| e.to_string())?.then_some(secret))
}

/// Tells an endpoint nothing for now; what happens waits. False when there is no such endpoint.
///
/// # Errors
/// As every statement.
pub async fn pause(app: &App, id: Id<EndpointRow>, reason: &str) -> db::Result<bool> {
    let (inner, reason) = (app.clone(), reason.to_owned());
    let done = app.db.write(move |tx| {
        let paused = tx.opt::<(Timestamp,)>(&store::PAUSE, params![id, reason, inner.clock.now()])?.is_some();
        if paused {
            let details = json!({ "endpoint": id, "reason": reason });
            inner.audit(tx, &Stream::server(), "webhook_paused", NOWHERE, details)?;
        }
        Ok(paused)
    });
    done.await
}

/// Tells it again, and what happened meanwhile. False when it was not paused.
///
/// # Errors
/// As every statement.
pub async fn resume(app: &App, id: Id<EndpointRow>) -> db::Result<bool> {
    let inner = app.clone();
    let done = app.db.write(move |tx| {
        if tx.opt::<(Timestamp,)>(&store::RESUME, params![id])?.is_none() {
            return Ok(false);
        }
        tx.execute(&store::GO_ON, params![id, inner.clock.now()])?;
        inner.audit(tx, &Stream::server(), "webhook_resumed", NOWHERE, json!({ "endpoint": id }))?;
        Ok(true)
    });
    let resumed = done.await?;
    // After the pause is over for everybody who looks, and in steps: those to whom something happens meanwhile do not wait.
    if resumed {
        wake_all(app, id).await?;
    }
    Ok(resumed)
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
    let inner = app.clone();
    let done = app.db.write(move |tx| {
        let since = match from {
            Cursor::Since(since) => since,
            Cursor::Event(event) => match tx.opt::<(Timestamp,)>(&store::CREATED_AT, params![event])? {
                Some((at,)) => at,
                None => return Ok(Err(format!("there is no event {event} any more"))),
            },
        };
        if since > inner.clock.now() {
            return Ok(Err("that is yet to come: give a time that has passed".into()));
        }
        if tx.opt::<(Timestamp,)>(&store::TELL_AGAIN, params![id, inner.clock.now(), since])?.is_none() {
            return Ok(Ok(false));
        }
        CatchUp::begin(tx, &inner, CatchUp { endpoint: id, since, after: None })?;
        let details = json!({ "endpoint": id, "since": since.to_string() });
        inner.audit(tx, &Stream::server(), "webhook_replayed", NOWHERE, details)?;
        Ok(Ok(true))
    });
    done.await.map_err(|e| e.to_string())?
}

/// What came of the newest messages to an endpoint; none when there is no such endpoint.
///
/// # Errors
/// As every read.
pub async fn deliveries(app: &App, id: Id<EndpointRow>, most: u16) -> db::Result<Option<Vec<Delivery>>> {
    let found = app.db.read(move |tx| {
        if tx.opt::<(Id<EndpointRow>,)>(&store::KNOWN, params![id])?.is_none() {
            return Ok(None);
        }
        tx.all(&store::DELIVERIES, params![id, i64::from(most)]).map(Some)
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
