//! An endpoint is told of a person, one event after the other.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foundation::db::{self, Tx};
use foundation::jobs::{Backoff, Handlers, Job, JobError};
use foundation::kernel::{Clock, Id, Secret, Timestamp};
use foundation::outbound::{CallError, Dependencies, Dependency, HttpClient, Patience, Settings as Limits};
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::{EndpointRow, SEALED_FOR, TRIED_FOR, signature};
use super::operate::CatchUp;
use super::store::{self, Event};
use crate::accounts::UserRow;
use crate::app::App;
use crate::settings::WebhookSettings;

/// What one message may take (`outages.md`).
const BUDGET: Duration = Duration::from_secs(10);
/// What of an answer is read: nothing in it is of use.
const ANSWER: usize = 64 * 1024;
/// Messages to one receiver at a time: as many as its lane has places.
const AT_A_TIME: usize = 8;
/// After three failures in a row nothing is told at that address for a while.
const PATIENCE: Patience =
    Patience { failures: 3, first: Duration::from_secs(10), longest: Duration::from_secs(60), slow: None };
/// Events in one turn; after that others have theirs.
const A_TURN: usize = 50;
/// How the pauses between tries grow.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(3600) };
/// Another look when the receiver was left alone: half a minute to a minute later, about as long as it is left alone.
const LEFT_ALONE: Backoff = Backoff { first: Duration::from_secs(60), longest: Duration::from_secs(60) };
/// The same while it is paused; the end of a pause wakes what waits.
const PAUSED: Backoff = Backoff { first: Duration::from_secs(3600), longest: Duration::from_secs(3600) };
/// A turn ends after so long, too.
const A_TURN_TAKES: Duration = Duration::from_secs(10);

/// Tells an endpoint what it has not been told of a person.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Deliver {
    pub(super) endpoint: Id<EndpointRow>,
    pub(super) user: Id<UserRow>,
}

impl Job for Deliver {
    const KIND: &'static str = "webhooks.deliver";
    /// Each event has its own end; this goes on.
    const MAX_ATTEMPTS: i64 = i64::MAX;
    /// Its receiver's own: whoever hangs there holds up nobody else.
    fn lane(&self) -> Cow<'static, str> {
        lane(self.endpoint).into()
    }
}

/// Where what is to be told to an endpoint waits.
pub(super) fn lane(endpoint: Id<EndpointRow>) -> String {
    format!("webhooks {endpoint}")
}

/// Who was told something, at which address.
type Known = HashMap<Id<EndpointRow>, (String, HttpClient)>;

/// The receivers, behind the guard: each with a breaker and places of its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhooks {
    all: Dependency,
    client: HttpClient,
    known: Arc<Mutex<Known>>,
}

impl Webhooks {
    /// Nobody is asked yet. They appear as `webhooks` among the dependencies.
    ///
    /// # Errors
    /// In words.
    pub fn new(settings: &WebhookSettings, dependencies: &Dependencies) -> Result<Self, String> {
        let all = dependencies.add(Limits {
            name: "webhooks".into(),
            timeout: BUDGET,
            degraded: "applications are told later what happened, in order",
            patience: None,
            // Each receiver is a branch with places of its own.
            at_a_time: AT_A_TIME,
        });
        let client = HttpClient::guarded(all.clone(), ANSWER, settings.private.clone())?.untraced();
        Ok(Self { all, client, known: Arc::default() })
    }

    /// Whether an address may be told anything.
    ///
    /// # Errors
    /// In words, why not.
    pub fn admits(&self, url: &url::Url) -> Result<(), String> {
        self.client.admits(url).map_err(|e| e.to_string())
    }

    fn to(&self, endpoint: Id<EndpointRow>, url: &str) -> HttpClient {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = known.get(&endpoint).filter(|(known, _)| known == url) {
            return client.clone();
        }
        let client = self.client.behind(self.all.branch(&endpoint.to_string(), PATIENCE, AT_A_TIME));
        known.insert(endpoint, (url.to_owned(), client.clone()));
        client
    }

    /// Nobody is told anything at this endpoint any more.
    pub(super) fn forget(&self, endpoint: Id<EndpointRow>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&endpoint);
    }
}

/// Something to tell, and to whom.
struct Due {
    url: String,
    secrets: Vec<Secret>,
    event: Event,
    /// Where the endpoint was before it.
    position: i64,
    attempts: i64,
    /// After a failure that comes later than this it is given up.
    until: Timestamp,
    user: Value,
}

/// Adds the jobs of this slice.
pub fn handle(app: &App, handlers: Handlers) -> Handlers {
    let (teller, catcher) = (app.clone(), app.clone());
    handlers
        .on(move |job: Deliver| {
            let app = teller.clone();
            async move { deliver(&app, &job).await }
        })
        .on(move |job: CatchUp| {
            let app = catcher.clone();
            async move { job.run(&app).await }
        })
}

async fn deliver(app: &App, job: &Deliver) -> Result<(), JobError> {
    let turn = Clock::stopwatch();
    for _ in 0..A_TURN {
        if turn.elapsed() > A_TURN_TAKES {
            break;
        }
        let (inner, endpoint, user) = (app.clone(), job.endpoint, job.user);
        let due = match app.db.read(move |tx| find(tx, &inner, endpoint, user)).await? {
            Found::Due(due) => due,
            Found::Nothing => return Ok(()),
            Found::Paused => return Err(JobError::Later(PAUSED.pause(1, &app.chance))),
            Found::Gone => {
                app.webhooks.forget(job.endpoint);
                return Ok(());
            }
        };
        let client = app.webhooks.to(job.endpoint, &due.url);
        let said = send(app, &client, &due).await;
        // What is of no use any more is given up without another try.
        if matches!(said, Err(CallError::Spared(_))) && app.clock.now() < due.until {
            return Err(JobError::Later(LEFT_ALONE.pause(1, &app.chance)));
        }
        if let Some(pause) = told(app, job, *due, said).await? {
            return Err(JobError::Later(pause));
        }
    }
    Err(JobError::Later(Duration::ZERO))
}

/// What there is to tell an endpoint of a person.
enum Found {
    Due(Box<Due>),
    Nothing,
    Paused,
    Gone,
}

fn find(tx: &mut Tx<'_>, app: &App, endpoint: Id<EndpointRow>, user: Id<UserRow>) -> db::Result<Found> {
    let Some((url, from_at, told_again_at, paused)) =
        tx.opt::<(String, Timestamp, Timestamp, bool)>(&store::ENDPOINT, params![endpoint])?
    else {
        return Ok(Found::Gone);
    };
    let position = tx.opt::<(i64,)>(&store::POSITION, params![endpoint, user])?.map_or(0, |(number,)| number);
    let event: Option<Event> = tx.opt(&store::NEXT_EVENT, params![endpoint, user, position, from_at])?;
    let Some(event) = event else { return Ok(Found::Nothing) };
    if paused {
        return Ok(Found::Paused);
    }
    let sealed: Vec<(Vec<u8>,)> = tx.all(&store::SECRETS, params![endpoint, app.clock.now()])?;
    let open = |(sealed,): (Vec<u8>,)| {
        let plain = app.sealer.open(SEALED_FOR, &sealed).map_err(|e| db::Error::Bug(e.to_string()))?;
        Ok(Secret::new(String::from_utf8_lossy(&plain).into_owned()))
    };
    let secrets = sealed.into_iter().map(open).collect::<db::Result<_>>()?;
    let attempts = tx.opt::<(i64,)>(&store::ATTEMPTS, params![endpoint, event.id])?;
    let until = event.created_at.max(told_again_at) + TRIED_FOR;
    let user = person(tx, user)?;
    let attempts = attempts.map_or(0, |(n,)| n);
    Ok(Found::Due(Box::new(Due { url, secrets, position, attempts, until, user, event })))
}

/// Somebody as they are now; of whoever is gone, the id alone.
fn person(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Value> {
    let row: Option<(String, String, Timestamp, bool)> = tx.opt(&store::PERSON, params![user])?;
    Ok(match row {
        Some((email, display_name, created_at, verified)) => json!({
            "id": user, "email": email, "email_verified": verified, "display_name": display_name,
            "created_at": created_at.to_string(),
        }),
        None => json!({ "id": user }),
    })
}

async fn send(app: &App, client: &HttpClient, due: &Due) -> Result<(), CallError> {
    let Event { id, kind, data, created_at, .. } = &due.event;
    let mut data: Value = serde_json::from_str(data).unwrap_or_default();
    if let Value::Object(data) = &mut data {
        data.insert("user".into(), due.user.clone());
    }
    let body = json!({ "type": kind, "timestamp": created_at.to_string(), "data": data }).to_string();
    let (id, now) = (id.to_string(), app.clock.now());
    let signed = signature(&due.secrets, &id, now, body.as_bytes());
    let seconds = now.seconds().to_string();
    let headers = [
        ("content-type", "application/json"),
        ("webhook-id", id.as_str()),
        ("webhook-timestamp", seconds.as_str()),
        ("webhook-signature", signed.as_str()),
    ];
    let told = client.converse(|asking| async move {
        let answer = asking.post(&due.url, &headers, body.into()).await?;
        match answer.status {
            200..=299 => Ok(()),
            status @ (408 | 429) => Err(CallError::Away(format!("it answered {status}"))),
            // It is there, and does not want this one: that says nothing of the others.
            status => Err(CallError::Refused(format!("it answered {status}"))),
        }
    });
    told.await
}

/// Writes down what came of it; after how long to try again, if it is to be tried again.
async fn told(
    app: &App,
    job: &Deliver,
    due: Due,
    said: Result<(), CallError>,
) -> Result<Option<Duration>, JobError> {
    let now = app.clock.now();
    let (state, words) = match said {
        Ok(()) => ("delivered", "it took it".to_owned()),
        Err(error) if now >= due.until => ("dead", error.to_string()),
        Err(error) => ("waiting", error.to_string()),
    };
    let words: String = words.chars().take(200).collect();
    metrics::counter!("webhooks_total", "outcome" => state).increment(1);
    if state == "dead" {
        tracing::warn!(endpoint = %job.endpoint, event = %due.event.id, words, "an event was given up");
    }
    let (endpoint, user, event, position) = (job.endpoint, job.user, due.event, due.position);
    let stored = app.db.write(move |tx| {
        if state != "waiting" {
            let moved = tx.execute(&store::MOVE, params![endpoint, user, event.number, now, position])?;
            if moved == 0 {
                // Somebody else goes on from here, or it is told again: whoever looks next knows.
                return Ok(false);
            }
        }
        tx.execute(&store::TRIED, params![endpoint, event.id, state, now, words])?;
        Ok(true)
    });
    if !stored.await? {
        return Ok(Some(Duration::ZERO));
    }
    Ok((state == "waiting").then(|| BACKOFF.pause(due.attempts + 1, &app.chance)))
}
