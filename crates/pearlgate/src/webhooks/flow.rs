//! Something happened to a person: it is written down for those who want to be told, in the transaction of the change.

use std::time::Duration;

use foundation::db::{self, Tx};
use foundation::jobs::When;
use foundation::kernel::{Id, Timestamp};
use foundation::params;
use serde_json::Value;

use super::deliver::Deliver;
use super::model::{EndpointRow, MessageRow, of_trail};
use super::store;
use crate::accounts::UserRow;
use crate::app::App;

/// A job that goes on for as long as there is something to tell.
pub(super) const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Tells of what was just written into somebody's trail, if it is anybody's concern.
///
/// # Errors
/// As every statement.
pub fn tell_of(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, kind: &str, details: &Value) -> db::Result<()> {
    match of_trail(kind, details) {
        Some((kind, data)) => tell(tx, app, user, kind, &data),
        None => Ok(()),
    }
}

/// Tells of something that happened to somebody.
///
/// # Errors
/// As every statement.
pub fn tell(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    kind: &'static str,
    data: &Value,
) -> db::Result<()> {
    let Some((number,)) = tx.opt::<(i64,)>(&store::NEXT_NUMBER, params![user])? else { return Ok(()) };
    let (id, now) = (Id::<MessageRow>::new(&app.clock, &app.chance), app.clock.now());
    tx.execute(&store::ADD_EVENT, params![user, number, id, kind, data.to_string(), now])?;
    let wanted: Vec<(Id<EndpointRow>,)> = tx.all(&store::WHO_WANTS, params![kind])?;
    wanted.into_iter().try_for_each(|(endpoint,)| go_on(tx, app, endpoint, user, now))
}

/// Forgets what happened to somebody, also what was not told yet: it says things about them. Their numbers go on, so that
/// what is told after this comes after what was told before.
///
/// # Errors
/// As every statement.
pub fn forget(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<()> {
    tx.execute(&store::FORGET_EVENTS, params![user]).map(|_| ())
}

/// Sees to it that an endpoint is told what it has not been told of a person.
pub(super) fn go_on(
    tx: &mut Tx<'_>,
    app: &App,
    endpoint: Id<EndpointRow>,
    user: Id<UserRow>,
    now: Timestamp,
) -> db::Result<()> {
    let (job, when) = stream(endpoint, user, now);
    app.queue.enqueue_again(tx, &job, &when)
}

/// The same at once, also when it waits for another try.
pub(super) fn wake(
    tx: &mut Tx<'_>,
    app: &App,
    endpoint: Id<EndpointRow>,
    user: Id<UserRow>,
    now: Timestamp,
) -> db::Result<()> {
    let (job, when) = stream(endpoint, user, now);
    app.queue.enqueue_now(tx, &job, &when)
}

fn stream(endpoint: Id<EndpointRow>, user: Id<UserRow>, now: Timestamp) -> (Deliver, When) {
    let one = When::now(now, FOREVER).unique(format!("webhook:{endpoint}:{user}"));
    (Deliver { endpoint, user }, one)
}

/// Forgets what is older than it is kept. True when there is more of it.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, app: &App) -> db::Result<bool> {
    let (now, keep) = (app.clock.now(), app.settings.webhooks.keep);
    tx.execute(&store::SWEEP_SECRETS, params![now])?;
    if tx.execute(&store::SWEEP_EVENTS, params![now - keep])? >= 500 {
        return Ok(true);
    }
    // Later than the last event that it could still be about, of which none is left now.
    let positions = tx.execute(&store::SWEEP_POSITIONS, params![now - keep - Duration::from_secs(86_400)])?;
    Ok(positions >= 500)
}
