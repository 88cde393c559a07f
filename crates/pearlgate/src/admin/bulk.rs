//! The same for many people: written down at once, done one after the other by a job, each decided like a call of its own.
//! It goes on as long as whoever asked for it may: a session that ends takes what it began with it.

use std::time::Duration;

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::{Claim, ClientAddress, IdempotencyKey, Json};
use foundation::jobs::{Handlers, Job, JobError, Lane, When};
use foundation::kernel::{Entity, FieldError, Id, PageRequest, Problem, Timestamp};
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::acts::Act;
use super::http::suspension;
use super::shared::once;
use super::store::{self, BulkRow, NextTarget};
use crate::access::http::{named, page, settled};
use crate::access::{self, By, Change, Denied, KeyRow, Operator, Scope, Who, may};
use crate::accounts::UserRow;
use crate::app::App;
use crate::openapi::ProblemDocument;
use crate::sessions::SessionRow;

/// Ids of what is done to many.
#[derive(Debug)]
pub struct BulkActionRow;
impl Entity for BulkActionRow {
    const PREFIX: &'static str = "blk";
}

/// The most people at a time.
const MOST: usize = 1_000;
/// For so long it is tried, and for so long what came of it is kept.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// How many refusals are shown.
const SHOWN: i64 = 100;

/// What to do to whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBulk {
    /// `suspend`, `unsuspend`, `unlock`, `sign_out`, `force_reset`, `grant` or `revoke`.
    action: String,
    /// 1 to 1,000 ids: `usr_…`
    users: Vec<String>,
    /// Of `suspend`: why, for the record.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    reason: Option<String>,
    /// Of `suspend`: when it ends by itself.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    until: Option<String>,
    /// Of `grant` and `revoke`: which role.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    role: Option<String>,
    /// Of `grant` and `revoke`: where; everywhere when it is left out.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    resource: Option<String>,
}

/// Somebody to whom it was not done.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkRefusal {
    /// Whom.
    user_id: String,
    /// Why not.
    because: String,
}

/// Something that is done to many, and how far it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkAction {
    /// `blk_…`
    id: String,
    /// What is done.
    action: String,
    /// Who asked for it: an id.
    asked_by: String,
    /// `running`, `done`, or `stopped`: by an operator, or because whoever asked for it may not any more.
    state: String,
    /// How many people.
    total: i64,
    /// To how many it was done.
    done: i64,
    /// To how many it was not, because it may not be.
    refused: i64,
    /// When it was asked for.
    created_at: String,
    /// When something of it was done last.
    changed_at: String,
    /// The first hundred of those to whom it was not done. In lists: none.
    refusals: Vec<BulkRefusal>,
}

impl BulkAction {
    fn of(row: BulkRow, refusals: Vec<(Id<UserRow>, String)>) -> Self {
        let refused =
            |(user, because): (Id<UserRow>, String)| BulkRefusal { user_id: user.to_string(), because };
        Self {
            id: row.id.to_string(),
            action: row.action,
            asked_by: row.asked_by,
            state: row.state,
            total: row.total,
            done: row.done,
            refused: row.refused,
            created_at: row.created_at.to_string(),
            changed_at: row.changed_at.to_string(),
            refusals: refusals.into_iter().map(refused).collect(),
        }
    }
}

/// One page of what was done to many.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkActions {
    /// The newest first.
    items: Vec<BulkAction>,
    /// For the next page; empty on the last one.
    next_cursor: String,
}

fn invalid(field: &str, words: impl Into<String>) -> Problem {
    Problem::invalid(vec![FieldError::new(field, "invalid", words.into())])
}

/// What is to be done, from the fields that belong to it and no others.
fn act(app: &App, body: &NewBulk) -> Result<Act, Problem> {
    let (reason, until) = (body.reason.clone(), body.until.as_deref());
    let place = |role: &Option<String>| {
        let wrong = |error: FieldError| Problem::invalid(vec![error]);
        let role =
            role.clone().ok_or_else(|| wrong(FieldError::new("role", "required", "say which role")))?;
        if role.contains('\0') {
            return Err(invalid("role", "has no null character"));
        }
        let scope = Scope::parse("resource", body.resource.as_deref().unwrap_or_default()).map_err(wrong)?;
        Ok((role, scope.as_str().to_owned()))
    };
    let act = match body.action.as_str() {
        "suspend" => Act::Suspend(suspension(app, reason.unwrap_or_default(), until)?),
        "unsuspend" => Act::Unsuspend,
        "unlock" => Act::Unlock,
        "sign_out" => Act::SignOut,
        "force_reset" => Act::ForceReset,
        "grant" => Act::Roles(Change::Add(place(&body.role)?)),
        "revoke" => Act::Roles(Change::Take(place(&body.role)?)),
        _ => {
            let words = "is suspend, unsuspend, unlock, sign_out, force_reset, grant or revoke";
            return Err(invalid("action", words));
        }
    };
    let (suspends, roles) = (matches!(act, Act::Suspend(_)), matches!(act, Act::Roles(_)));
    let strange = [
        ("reason", body.reason.is_some() && !suspends),
        ("until", body.until.is_some() && !suspends),
        ("role", body.role.is_some() && !roles),
        ("resource", body.resource.is_some() && !roles),
    ];
    match strange.iter().find(|(_, strange)| *strange) {
        Some((field, _)) => Err(invalid(field, format!("does not belong to {}", body.action))),
        None => Ok(act),
    }
}

/// Do something to many people
///
/// Each is decided as if it were the only one, by what whoever asks may then; those to whom it may not be done are left as they
/// are, and named. It goes on in the background as long as the session or the key that asked for it is good. Needs a fresh
/// session.
#[utoipa::path(post, path = "/v1/admin/bulk", tag = "admin", security(("access_token" = [])), request_body = NewBulk,
    params(("Idempotency-Key" = Option<String>, Header, description = "the same key and body begin nothing again, for 24 hours")),
    responses((status = 202, body = BulkAction), (status = "4XX", body = ProblemDocument)))]
pub async fn begin_bulk(
    State(app): State<App>,
    operator: Operator,
    headers: HeaderMap,
    Json(body): Json<NewBulk>,
) -> Result<(StatusCode, JsonAnswer<BulkAction>), Problem> {
    operator.must_be_fresh(&app)?;
    let act = act(&app, &body)?;
    if !(1..=MOST).contains(&body.users.len()) {
        return Err(invalid("users", format!("are 1 to {MOST}")));
    }
    let read = |(n, text): (usize, &String)| {
        text.parse::<Id<UserRow>>().map_err(|_| invalid(&format!("users.{n}"), "is an id: usr_…"))
    };
    let mut users: Vec<Id<UserRow>> = body.users.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    users.sort_unstable();
    users.dedup();
    let said = json!([act.written(), users]).to_string();
    let key = app.idempotency.key(&headers, &operator.by.actor(), "bulk", &[said.as_bytes()])?;
    let id = once(&app, &key, begin(&app, operator.by, (act, users), &key)).await?;
    Ok((StatusCode::ACCEPTED, shown(&app, id).await?))
}

async fn begin(
    app: &App,
    by: By,
    (act, users): (Act, Vec<Id<UserRow>>),
    key: &IdempotencyKey,
) -> db::Result<Result<Option<Id<BulkActionRow>>, Denied>> {
    let (inner, key) = (app.clone(), key.clone());
    let done = app.db.write(move |tx| {
        if let Err(denied) = may(tx, &inner, &by, act.permission())? {
            return Ok(Err(denied));
        }
        let Some(asker) = by.person() else { return Ok(Err(Denied::NotFound)) };
        let (id, now) = (Id::<BulkActionRow>::new(&inner.clock, &inner.chance), inner.clock.now());
        if key.claim(tx, now, 202, &json!(id).to_string())? == Claim::Done {
            return Ok(Ok(None));
        }
        let (name, details) = act.written();
        let total = i64::try_from(users.len()).unwrap_or(i64::MAX);
        let (text, actor, session, address) =
            (details.to_string(), by.actor(), by.session(), by.from.to_string());
        tx.execute(&store::BULK_BEGIN, params![id, name, text, actor, asker, session, address, total, now])?;
        for (number, user) in (1i64..).zip(&users) {
            tx.execute(&store::BULK_TARGET, params![id, number, user])?;
        }
        let when = When::now(now, KEPT).unique(format!("bulk:{id}"));
        inner.queue.enqueue(tx, &Bulk { id }, &when)?;
        let details = json!({ "bulk": id, "action": name, "of": details, "people": total });
        inner.audit_by(tx, &Stream::server(), "bulk_begun", &by, details)?;
        Ok(Ok(Some(id)))
    });
    done.await
}

async fn shown(app: &App, id: Id<BulkActionRow>) -> Result<JsonAnswer<BulkAction>, Problem> {
    let found = app.db.read(move |tx| {
        let Some(row) = tx.opt::<BulkRow>(&store::BULK, params![id])? else { return Ok(None) };
        let refused: Vec<(Id<UserRow>, String)> = tx.all(&store::BULK_REFUSED, params![id, SHOWN])?;
        Ok(Some(BulkAction::of(row, refused)))
    });
    found.await.map_err(|e| e.to_problem())?.map(JsonAnswer).ok_or_else(Problem::not_found)
}

/// How far is it
#[utoipa::path(get, path = "/v1/admin/bulk/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`blk_…`")),
    responses((status = 200, body = BulkAction), (status = "4XX", body = ProblemDocument)))]
pub async fn one_bulk(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<JsonAnswer<BulkAction>, Problem> {
    shown(&app, named(&id)?).await
}

/// What was done to many
///
/// In the last thirty days.
#[utoipa::path(get, path = "/v1/admin/bulk", tag = "admin", security(("access_token" = [])),
    params(("limit" = Option<u16>, Query, description = "1 to 200, 50 by default"), ("cursor" = Option<String>, Query, description = "the previous page's next_cursor")),
    responses((status = 200, body = BulkActions), (status = "4XX", body = ProblemDocument)))]
pub async fn list_bulk(
    State(app): State<App>,
    _: Operator,
    query: Result<Query<PageRequest>, QueryRejection>,
) -> Result<JsonAnswer<BulkActions>, Problem> {
    let request = page(query)?;
    let (limit, after) = app.cursors.open_text("bulk", &request)?;
    let before: Id<BulkActionRow> = after.parse().unwrap_or(Id::from_bytes([0xff; 16]));
    let found =
        app.db.read_one(move |tx| tx.all::<BulkRow>(&store::BULKS, params![before, i64::from(limit) + 1]));
    let mut found = found.await.map_err(|e| e.to_problem())?;
    let more = found.len() > usize::from(limit);
    found.truncate(limit.into());
    let next = found.last().filter(|_| more).map(|row| app.cursors.issue_text("bulk", &row.id.to_string()));
    let items = found.into_iter().map(|row| BulkAction::of(row, Vec::new())).collect();
    Ok(JsonAnswer(BulkActions { items, next_cursor: next.unwrap_or_default() }))
}

/// Stop it
///
/// What was done stays done. For whoever began it, or stands above them.
#[utoipa::path(delete, path = "/v1/admin/bulk/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`blk_…`")),
    responses((status = 204, description = "Also when it was over"), (status = "4XX", body = ProblemDocument)))]
pub async fn stop_bulk(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let (inner, by, id) = (app.clone(), operator.by, named::<BulkActionRow>(&id)?);
    let done = app.db.write(move |tx| {
        let standing = match may(tx, &inner, &by, "users:write")? {
            Ok(standing) => standing,
            Err(denied) => return Ok(Err(denied)),
        };
        let Some(row) = tx.opt::<BulkRow>(&store::BULK, params![id])? else {
            return Ok(Err(Denied::NotFound));
        };
        if by.person() != Some(row.asker) && !access::stands_above(tx, &standing, row.asker)? {
            return Ok(Err(Denied::Level("Whoever began it stands as high as you, or higher.")));
        }
        if tx.opt::<(i64,)>(&store::BULK_END, params![id, "stopped", inner.clock.now()])?.is_some() {
            inner.audit_by(tx, &Stream::server(), "bulk_stopped", &by, json!({ "bulk": id }))?;
        }
        Ok(Ok(()))
    });
    settled(done.await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Does to many people what was asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Bulk {
    id: Id<BulkActionRow>,
}

impl Job for Bulk {
    const KIND: &'static str = "admin.bulk";
    // It holds up nothing else.
    const LANE: Lane = "bulk";
}

/// Adds this slice's jobs to a worker's handlers.
#[must_use]
pub fn handle(app: &App, handlers: Handlers) -> Handlers {
    let app = app.clone();
    handlers.on(move |job: Bulk| run(app.clone(), job.id))
}

/// One after the other, each in a transaction of its own: whoever waits for a lock waits for one person.
async fn run(app: App, id: Id<BulkActionRow>) -> Result<(), JobError> {
    loop {
        let inner = app.clone();
        if !app.db.write(move |tx| next(tx, &inner, id)).await? {
            return Ok(());
        }
    }
}

/// Does it to the next one. False when there is none.
fn next(tx: &mut Tx<'_>, app: &App, id: Id<BulkActionRow>) -> db::Result<bool> {
    access::lock(tx)?;
    let now = app.clock.now();
    let Some(target) = tx.opt::<NextTarget>(&store::BULK_NEXT, params![id])? else {
        tx.opt::<(i64,)>(&store::BULK_END, params![id, "done", now])?;
        return Ok(false);
    };
    let details: Value = serde_json::from_str(&target.details).unwrap_or_default();
    let (Some(act), Some(by)) = (Act::read(&target.action, &details), asker(&target)) else {
        tx.opt::<(i64,)>(&store::BULK_END, params![id, "stopped", now])?;
        return Ok(false);
    };
    // Whoever asked for it may not any more, whoever it is about: nothing of it goes on.
    if may(tx, app, &by, act.permission())?.is_err() {
        tx.opt::<(i64,)>(&store::BULK_END, params![id, "stopped", now])?;
        app.audit_by(tx, &Stream::server(), "bulk_stopped", &by, json!({ "bulk": id, "by": "itself" }))?;
        return Ok(false);
    }
    let outcome = match act.apply(tx, app, &by, target.user_id)? {
        Ok(()) => "done".to_owned(),
        Err(denied) => denied.words(),
    };
    let done = i64::from(outcome == "done");
    tx.execute(&store::BULK_OUTCOME, params![id, target.number, outcome])?;
    tx.execute(&store::BULK_PROGRESS, params![id, done, 1 - done, now])?;
    Ok(true)
}

/// Whoever asked for it, as then.
fn asker(target: &NextTarget) -> Option<By> {
    let from = ClientAddress(target.address.parse().ok()?);
    let who = match target.asked_by.parse::<Id<KeyRow>>() {
        Ok(key) => Who::Key(key, target.asker),
        Err(_) => Who::Person(target.asker, target.session.parse::<Id<SessionRow>>().ok()?),
    };
    Some(By { who, from })
}

/// Forgets what is over for long. True when there is more of it.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> db::Result<bool> {
    Ok(tx.execute(&store::SWEEP_BULK, params![now - KEPT])? >= 100)
}
