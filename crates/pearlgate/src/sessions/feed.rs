//! The revocation feed: which sessions ended, for services that verify access tokens by themselves.
//!
//! The moment of an end is taken before its transaction commits, so an end can become visible after a later one. Every
//! look therefore reaches back a little further than it was asked to, and whoever follows is told of an end once or
//! twice, never not at all.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use foundation::db;
use foundation::kernel::{Id, PageRequest, Problem, Timestamp};
use foundation::params;
use http_body_util::channel::{Channel, Sender};
use tokio::sync::watch;

use super::http::{Revocation, Revocations, RolesChanged};
use super::model::SessionRow;
use super::store::{self, Changed, Over};
use crate::app::App;

/// Longer than a transaction may take (a statement has 5 seconds).
const REACH_BACK: Duration = Duration::from_secs(10);
/// Ends in one answer.
const MOST: i64 = 5_000;
/// Changes of roles in one answer: everybody whose roles changed within the last lifetime of an access token.
const MOST_CHANGES: i64 = 50_000;
/// How often a follower's server looks for ends that another process stored.
const LOOK: Duration = Duration::from_millis(250);
/// How long one is followed with a key; then it is shown again.
pub(super) const BY_KEY: Duration = Duration::from_secs(600);
/// Silence after which a follower hears that we are still there: shorter than any proxy's patience.
const BEAT: Duration = Duration::from_secs(10);
const LIST: &str = "revocations";

/// The ends since a moment, or within the last lifetime of an access token: what ended before that matters to nobody.
///
/// # Errors
/// 422 for a cursor that is none of ours, 503 when the database is away.
pub(super) async fn list(
    app: &App,
    since: Option<Timestamp>,
    cursor: Option<String>,
) -> Result<Revocations, Problem> {
    let now = app.clock.now();
    let start = reach_back(app, since, now);
    let (_, after) = app.cursors.open(LIST, &PageRequest { limit: None, cursor }, start.micros())?;
    let Found { rows, changed, full } =
        page(app, Timestamp::from_micros(after)).await.map_err(|e| e.to_problem())?;
    let last = rows.last().map(|row| row.ended_at);
    let next_cursor = match last.filter(|_| full) {
        Some(last) => app.cursors.issue(LIST, last.micros()),
        None => String::new(),
    };
    Ok(Revocations {
        items: rows.iter().map(Revocation::of).collect(),
        roles_changed: changed.iter().map(RolesChanged::of).collect(),
        until: last.filter(|_| full).unwrap_or(now).to_string(),
        next_cursor,
    })
}

fn reach_back(app: &App, since: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let earliest = now - app.access_tokens.lifetime();
    since.unwrap_or(earliest).max(earliest) - REACH_BACK
}

/// What happened in a while.
struct Found {
    rows: Vec<Over>,
    /// Whose roles changed in the same while: few, or they are told of again.
    changed: Vec<Changed>,
    /// Whether there may be more.
    full: bool,
}

/// One page after a moment, and whether there may be more. Ends of one moment stay together, so that the moment is
/// enough to go on from.
async fn page(app: &App, after: Timestamp) -> db::Result<Found> {
    app.db
        .read(move |tx| {
            let mut rows: Vec<Over> = tx.all(&store::ENDED_SINCE, params![after, MOST])?;
            let full = i64::try_from(rows.len()).is_ok_and(|count| count >= MOST);
            if let Some(last) = rows.last().map(|row| row.ended_at).filter(|_| full) {
                rows.retain(|row| row.ended_at < last);
                rows.extend(tx.all::<Over>(&store::ENDED_AT, params![last])?);
            }
            let until = rows.last().filter(|_| full).map_or(i64::MAX, |row| row.ended_at.micros());
            let changed = tx.all(&store::CHANGED_SINCE, params![after, until, MOST_CHANGES])?;
            Ok(Found { rows, changed, full })
        })
        .await
}

/// Server-sent events: what ended since, then each end as it happens.
pub(super) fn stream(app: &App, since: Option<Timestamp>, until: Option<Timestamp>) -> Response {
    let (sender, body) = Channel::<Bytes>::new(4);
    tokio::spawn(follow(app.clone(), since, until, sender));
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::new(body)).into_response()
}

/// Until the follower goes away, its time is over, or the server stops.
async fn follow(app: App, since: Option<Timestamp>, until: Option<Timestamp>, mut to: Sender<Bytes>) {
    let mut stopped = app.stopping.subscribe();
    let mut told: HashMap<Id<SessionRow>, Timestamp> = HashMap::new();
    let mut told_changes: HashMap<String, Timestamp> = HashMap::new();
    let mut from = reach_back(&app, since, app.clock.now());
    // Where to go on when there was more than one page.
    let mut after = from;
    let mut silence = Duration::ZERO;
    loop {
        let ended = app.ended.notified();
        let now = app.clock.now();
        if until.is_some_and(|until| now > until) {
            return;
        }
        let mut text = String::new();
        // A database that is away is no reason to hang up: the follower keeps what it knows, and hears the rest later.
        if let Ok(Found { rows, changed, full }) = page(&app, after).await {
            for row in changed {
                if told_changes.insert(row.subject.clone(), row.changed_at) != Some(row.changed_at) {
                    text.push_str(&change_event(&row));
                }
            }
            for row in rows.iter().filter(|row| told.insert(row.id, row.ended_at).is_none()) {
                text.push_str(&event(row));
            }
            if let Some(last) = rows.last().filter(|_| full) {
                after = last.ended_at;
                if !send(&mut to, &mut text, &mut stopped).await {
                    return;
                }
                continue;
            }
            // The next look reaches back from here; what it may find again is remembered.
            from = from.max(now - REACH_BACK);
            after = from;
            told.retain(|_, at| *at > from);
            told_changes.retain(|_, at| *at > from);
        }
        if text.is_empty() && silence >= BEAT {
            text.push_str(": still here\n\n");
        }
        silence = if text.is_empty() { silence + LOOK } else { Duration::ZERO };
        if !send(&mut to, &mut text, &mut stopped).await {
            return;
        }
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(LOOK) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

/// False when nobody listens any more, or the server stops: who does not read holds nothing up.
async fn send(to: &mut Sender<Bytes>, text: &mut String, stopped: &mut watch::Receiver<bool>) -> bool {
    if text.is_empty() {
        return true;
    }
    tokio::select! {
        sent = to.send_data(Bytes::from(std::mem::take(text))) => sent.is_ok(),
        _ = stopped.wait_for(|stop| *stop) => false,
    }
}

fn event(row: &Over) -> String {
    let data = serde_json::to_string(&Revocation::of(row)).unwrap_or_default();
    format!("event: session_ended\nid: {}\ndata: {data}\n\n", row.ended_at)
}

fn change_event(row: &Changed) -> String {
    let data = serde_json::to_string(&RolesChanged::of(row)).unwrap_or_default();
    format!("event: roles_changed\nid: {}\ndata: {data}\n\n", row.changed_at)
}
