//! `/v1/admin/audit` over HTTP: what happened, and whether all of it is still there.

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use foundation::audit::{self, Filter, Stream};
use foundation::http::OptionalJson;
use foundation::kernel::{FieldError, PageRequest, Problem, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::access::{Denied, Operator};
use crate::app::App;
use crate::mfa::http::Nothing;
use crate::openapi::ProblemDocument;

/// Whoever checks the trail.
static VERIFYING: Semaphore = Semaphore::const_new(1);

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEvent {
    /// `evt_…`
    id: String,
    /// Whose history it stands in: `usr_…`, `server`, or `shard_…` for what is about nobody known.
    stream: String,
    /// Its number there.
    seq: i64,
    /// What, such as `sign_in`.
    kind: String,
    /// When.
    created_at: String,
    /// Who did it: an id, `console`, or empty for nobody known.
    actor: String,
    /// The network address it came from; empty when it came from inside.
    address: String,
    /// What else is known.
    #[schema(value_type = Object)]
    details: Value,
}

impl AuditEvent {
    fn of(found: audit::Found) -> Self {
        let event = found.recorded;
        Self {
            id: event.id.to_string(),
            stream: found.stream,
            seq: event.seq,
            kind: event.kind,
            created_at: event.at.to_string(),
            actor: event.actor,
            address: event.address,
            details: serde_json::from_str(&event.details).unwrap_or_default(),
        }
    }
}

/// One page of what happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEvents {
    /// Newest first. Events of one moment stay together, so there may be some more than were asked for; and there may be
    /// fewer, or none, on a page that is not the last.
    items: Vec<AuditEvent>,
    /// For the next page; empty on the last one.
    next_cursor: String,
}

/// What to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListEvents {
    stream: Option<String>,
    actor: Option<String>,
    kind: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<u16>,
    cursor: Option<String>,
}

/// What happened
#[utoipa::path(get, path = "/v1/admin/audit", tag = "admin", security(("access_token" = [])),
    params(("stream" = Option<String>, Query, description = "whose history: `usr_…`, or `server`"), ("actor" = Option<String>, Query, description = "who did it"),
        ("kind" = Option<String>, Query, description = "such as `sign_in_failed`"),
        ("since" = Option<String>, Query, description = "not before this: RFC 3339"), ("until" = Option<String>, Query, description = "before this"),
        ("limit" = Option<u16>, Query, description = "1 to 200, 50 by default"), ("cursor" = Option<String>, Query, description = "the previous page's next_cursor")),
    responses((status = 200, body = AuditEvents), (status = "4XX", body = ProblemDocument)))]
pub async fn list_events(
    State(app): State<App>,
    _: Operator,
    query: Result<Query<ListEvents>, QueryRejection>,
) -> Result<JsonAnswer<AuditEvents>, Problem> {
    let invalid = |field: &str, words: &str| Problem::invalid(vec![FieldError::new(field, "invalid", words)]);
    let Query(wanted) = query.map_err(|_| {
        let words = "give stream, actor, kind, since, until, limit as a number from 1 to 200, cursor, and nothing else";
        invalid("limit", words)
    })?;
    let time = |field: &str, text: &Option<String>| match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => match Timestamp::parse(text) {
            Some(at) => Ok(Some(at)),
            None => Err(invalid(field, "is a time such as 2026-11-25T12:00:00Z")),
        },
    };
    let filter = Filter {
        stream: wanted.stream.as_deref().map(Stream::named),
        actor: wanted.actor.clone(),
        kind: wanted.kind.clone(),
        since: time("since", &wanted.since)?,
        until: time("until", &wanted.until)?,
    };
    if [&wanted.stream, &wanted.actor, &wanted.kind].into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(invalid("stream", "has no null character"));
    }
    // A cursor is good for the same question only.
    let list = format!("audit:{filter:?}");
    let page = PageRequest { limit: wanted.limit, cursor: wanted.cursor };
    let (limit, before) = app.cursors.open(&list, &page, i64::MAX)?;
    let found = audit::search(&app.db, &filter, before, limit).await.map_err(|e| e.to_problem())?;
    let next_cursor = found.next.map(|next| app.cursors.issue(&list, next)).unwrap_or_default();
    Ok(JsonAnswer(AuditEvents { items: found.items.into_iter().map(AuditEvent::of).collect(), next_cursor }))
}

/// A history that does not hold.
#[derive(Debug, Serialize, ToSchema)]
pub struct BrokenStream {
    /// Whose.
    stream: String,
    /// The first number at which it does not.
    at: i64,
    /// What is wrong there.
    what: String,
}

/// What came of checking.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditChecked {
    /// Whether every event is there and unchanged.
    whole: bool,
    /// Histories.
    streams: u64,
    /// Events that are there.
    events: u64,
    /// Events that were removed because they were older than they are kept.
    removed: u64,
    /// What does not hold; at most 1,000.
    broken: Vec<BrokenStream>,
}

/// Is all of it still there
///
/// Reads the whole trail: seconds for a million events. Whoever can write to the database can make a history anew; what finds
/// that is a checkpoint that is kept elsewhere (`pearlgate audit checkpoint`, `pearlgate audit verify --against`).
#[utoipa::path(post, path = "/v1/admin/audit/verify", tag = "admin", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    responses((status = 200, body = AuditChecked), (status = "4XX", body = ProblemDocument)))]
pub async fn verify(
    State(app): State<App>,
    _: Operator,
    OptionalJson(Nothing {}): OptionalJson<Nothing>,
) -> Result<JsonAnswer<AuditChecked>, Problem> {
    // It reads everything: one at a time is enough, and leaves the database to others.
    let Ok(_turn) = VERIFYING.try_acquire() else {
        return Err(Denied::Conflict("The trail is being checked just now: wait for that.".into()).problem());
    };
    let checked = audit::verify_all(&app.db, None, |_| ()).await.map_err(|e| e.to_problem())?;
    let broken = checked.broken.iter().map(|one| BrokenStream {
        stream: one.stream.clone(),
        at: one.at,
        what: one.what.clone(),
    });
    Ok(JsonAnswer(AuditChecked {
        whole: checked.is_whole(),
        streams: checked.streams,
        events: checked.events,
        removed: checked.removed,
        broken: broken.collect(),
    }))
}
