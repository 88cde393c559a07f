//! `/v1/admin/jobs`: what the server still has to do, and what it gave up. What a job needs for that is not shown: it may be
//! somebody's secret.

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use foundation::audit::Stream;
use foundation::db;
use foundation::http::{Claim, IdempotencyKey, OptionalJson};
use foundation::jobs::{self, Filter, Inspected, JobRow, Removed, Retriable};
use foundation::kernel::{FieldError, Id, PageRequest, Problem};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::shared::once;
use crate::access::http::{named, settled};
use crate::access::{By, Denied, Operator, may};
use crate::app::App;
use crate::mfa::http::Nothing;
use crate::openapi::ProblemDocument;

/// Whoever has a job done again, or not at all, needs this.
/// Kinds of jobs that are about people.
const SPARED: [&str; 7] =
    ["accounts.", "lockout.", "mail.", "mfa.", "recovery.", "registration.", "webhooks."];
const PERMISSION: &str = "jobs:write";

/// A try that failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobAttempt {
    /// The how manieth it was.
    attempt: i64,
    /// When it had failed.
    at: String,
    /// Why, in words.
    error: String,
}

/// Something that is to be done.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminJob {
    /// `job_…`
    id: String,
    /// What is to be done.
    #[schema(example = "mail.deliver")]
    kind: String,
    /// Where it waits: jobs of one lane hold up none of another.
    #[schema(example = "mail")]
    lane: String,
    /// `waiting` for its time or for another try, `running`, or `dead`: given up.
    #[schema(example = "waiting")]
    state: &'static str,
    /// From when on it is done; while it runs, when somebody else may take it. Left out when it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    run_at: Option<String>,
    /// After that it is given up; left out when that is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    deadline: Option<String>,
    /// When it was put.
    created_at: String,
    /// Tries so far.
    attempts: i64,
    /// What went wrong: the first time and the last ones, the oldest first.
    history: Vec<JobAttempt>,
    /// When it was given up; left out when it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    died_at: Option<String>,
    /// Why it was given up; empty when it was not.
    reason: String,
}

impl AdminJob {
    fn of(job: Inspected) -> Self {
        let history = job.history.into_iter().map(|one| JobAttempt {
            attempt: one.attempt,
            at: one.at.to_string(),
            error: one.error,
        });
        Self {
            id: job.id.to_string(),
            kind: job.kind,
            lane: job.lane,
            state: job.state.word(),
            run_at: job.run_at.map(|at| at.to_string()),
            deadline: job.deadline.map(|at| at.to_string()),
            created_at: job.created_at.to_string(),
            attempts: job.attempts,
            history: history.collect(),
            died_at: job.died_at.map(|at| at.to_string()),
            reason: job.reason,
        }
    }
}

/// One page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminJobs {
    /// The newest first. With `state` or `kind` a page may be short, or empty, and not the last one.
    items: Vec<AdminJob>,
    /// For the next page; empty on the last one.
    next_cursor: String,
}

/// Which jobs to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListJobs {
    state: Option<String>,
    kind: Option<String>,
    limit: Option<u16>,
    cursor: Option<String>,
}

fn invalid(field: &str, words: &str) -> Problem {
    Problem::invalid(vec![FieldError::new(field, "invalid", words)])
}

/// Jobs
///
/// What waits, what runs, and what was given up. One that was done is not there any more.
#[utoipa::path(get, path = "/v1/admin/jobs", tag = "admin", security(("access_token" = [])),
    params(("state" = Option<String>, Query, description = "`waiting`, `running` or `dead`"), ("kind" = Option<String>, Query, description = "such as mail.deliver"),
        ("limit" = Option<u16>, Query, description = "1 to 200, 50 by default"), ("cursor" = Option<String>, Query, description = "the previous page's next_cursor")),
    responses((status = 200, body = AdminJobs), (status = "4XX", body = ProblemDocument)))]
pub async fn list_jobs(
    State(app): State<App>,
    _: Operator,
    query: Result<Query<ListJobs>, QueryRejection>,
) -> Result<JsonAnswer<AdminJobs>, Problem> {
    let Query(wanted) = query.map_err(|_| {
        invalid("limit", "give state, kind, limit as a number from 1 to 200, cursor, and nothing else")
    })?;
    let state = wanted.state.map(|word| {
        let known = jobs::State::ALL.into_iter().find(|state| state.word() == word);
        known.ok_or_else(|| invalid("state", "is waiting, running or dead"))
    });
    let filter = Filter { state: state.transpose()?, kind: wanted.kind };
    let list = format!("jobs:{filter:?}");
    let request = PageRequest { limit: wanted.limit, cursor: wanted.cursor };
    let (limit, after) = app.cursors.open_text(&list, &request)?;
    let before: Id<JobRow> = after.parse().unwrap_or(Id::from_bytes([0xff; 16]));
    let now = app.clock.now();
    let found = app.db.scan(move |tx| jobs::inspect(tx, &filter, before, limit, now)).await;
    let found = found.map_err(|e| e.to_problem())?;
    let next = found.next.map(|id| app.cursors.issue_text(&list, &id.to_string()));
    Ok(JsonAnswer(AdminJobs {
        items: found.items.into_iter().map(AdminJob::of).collect(),
        next_cursor: next.unwrap_or_default(),
    }))
}

/// One job
#[utoipa::path(get, path = "/v1/admin/jobs/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`job_…`")),
    responses((status = 200, body = AdminJob), (status = "4XX", body = ProblemDocument)))]
pub async fn one_job(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<JsonAnswer<AdminJob>, Problem> {
    let (id, now): (Id<JobRow>, _) = (named(&id)?, app.clock.now());
    let found = app.db.read(move |tx| jobs::one(tx, id, now)).await.map_err(|e| e.to_problem())?;
    found.map(|job| JsonAnswer(AdminJob::of(job))).ok_or_else(Problem::not_found)
}

/// Have a job done that was given up
///
/// At once, as if it had never been tried; it is worth as much time as when it was put, or a day. What it did not do because
/// it was too late, such as a mail whose link is not good any more, is given up again.
#[utoipa::path(post, path = "/v1/admin/jobs/{id}/retry", tag = "admin", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    params(("id" = String, Path, description = "`job_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "the same key does nothing again, for 24 hours")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn retry_job(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    headers: HeaderMap,
    OptionalJson(Nothing {}): OptionalJson<Nothing>,
) -> Result<StatusCode, Problem> {
    let job: Id<JobRow> = named(&id)?;
    let key = app.idempotency.key(&headers, &operator.by.actor(), "jobs/retry", &[id.as_bytes()])?;
    once(&app, &key, retry(&app, operator.by, job, &key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn retry(
    app: &App,
    by: By,
    id: Id<JobRow>,
    key: &IdempotencyKey,
) -> db::Result<Result<Option<()>, Denied>> {
    let (inner, key) = (app.clone(), key.clone());
    let done = app.db.write(move |tx| {
        if let Err(denied) = may(tx, &inner, &by, PERMISSION)? {
            return Ok(Err(denied));
        }
        let kind = match jobs::retriable(tx, id)? {
            Retriable::Yes(kind) => kind,
            Retriable::Unknown => return Ok(Err(Denied::NotFound)),
            Retriable::Alive => {
                return Ok(Err(Denied::Conflict("It was not given up: it waits, or runs.".into())));
            }
            Retriable::InTheWay => {
                let words = "Another one for the same waits, or runs: it is done without this one.";
                return Ok(Err(Denied::Conflict(words.into())));
            }
        };
        if key.claim(tx, inner.clock.now(), 204, "null")? == Claim::Done {
            return Ok(Ok(None));
        }
        if !jobs::retry_dead(tx, &inner.queue, id)? {
            return Err(db::Error::Unavailable("another job like it was put at the same moment".into()));
        }
        let details = json!({ "job": id, "kind": kind });
        inner.audit_by(tx, &Stream::server(), "job_retried", &by, details)?;
        Ok(Ok(Some(())))
    });
    done.await
}

/// Drop a job
///
/// One that waits, or was given up: it is not done. One that runs stays, and so does one that comes back by itself. What waits
/// and is about people (their mails, the end of a suspension, a reset of factors) is dropped by owners alone. Needs a fresh
/// session.
#[utoipa::path(delete, path = "/v1/admin/jobs/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`job_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn remove_job(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    operator.must_be_fresh(&app)?;
    let (id, by): (Id<JobRow>, _) = (named(&id)?, operator.by);
    let inner = app.clone();
    let done = app.db.write(move |tx| {
        let standing = match may(tx, &inner, &by, PERMISSION)? {
            Ok(standing) => standing,
            Err(denied) => return Ok(Err(denied)),
        };
        let spared = if standing.is_owner() { &[][..] } else { &SPARED[..] };
        match jobs::remove(tx, id, inner.clock.now(), spared)? {
            Removed::Spared => {
                Ok(Err(Denied::Level("It is about somebody, who may stand higher: an owner drops it.")))
            }
            Removed::Gone(kind) => {
                let details = json!({ "job": id, "kind": kind });
                inner.audit_by(tx, &Stream::server(), "job_removed", &by, details).map(Ok)
            }
            Removed::Running => {
                Ok(Err(Denied::Conflict("It runs just now: wait until its try is over.".into())))
            }
            Removed::Recurring => {
                let words =
                    "It is one of the server's own turns. Without it there would be no other: it stays.";
                Ok(Err(Denied::Conflict(words.into())))
            }
            Removed::Unknown => Ok(Err(Denied::NotFound)),
        }
    });
    settled(done.await)?;
    Ok(StatusCode::NO_CONTENT)
}
