//! `pearlgate job`: what waits, runs, and was given up. What a job needs for its work is not shown: it may be somebody's
//! secret.

use std::process::ExitCode;

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::jobs::{self, Filter, Inspected, JobRow, Removed, Retriable, State};
use foundation::kernel::{Id, Timestamp};
use serde_json::{Value, json};

use super::user::with_app;
use super::{Failure, Job, items, or_none, plain};
use crate::access::By;
use crate::app::App;

pub(super) fn run(command: &Job) -> Result<ExitCode, Failure> {
    let (Job::List { common, .. }
    | Job::Show { common, .. }
    | Job::Retry { common, .. }
    | Job::Remove { common, .. }) = command;
    with_app(common, |app| async move { act(&app, command).await })
}

async fn act(app: &App, command: &Job) -> Result<String, String> {
    let words = |e: db::Error| e.to_string();
    match command {
        Job::List { state, limit, json, .. } => {
            let known = |word: &str| State::ALL.into_iter().find(|state| state.word() == word);
            let filter = Filter { state: state.as_deref().and_then(known), kind: None };
            let found = newest(app, &filter, *limit).await.map_err(words)?;
            Ok(if *json {
                items(found.iter().map(described).collect())
            } else if found.is_empty() {
                "There are no such jobs.".into()
            } else {
                found.iter().map(line).collect::<Vec<_>>().join("\n")
            })
        }
        Job::Show { id, json, .. } => {
            let (id, now) = (parse(id)?, app.clock.now());
            let found = app.db.read(move |tx| jobs::one(tx, id, now)).await.map_err(words)?;
            let job = found.ok_or_else(|| unknown(id))?;
            Ok(if *json { described(&job).to_string() } else { shown(&job) })
        }
        Job::Retry { id, .. } => {
            let (id, inner) = (parse(id)?, app.clone());
            app.db.write(move |tx| retry(tx, &inner, id)).await.map_err(words)??;
            Ok(format!("{id} is done at once, as if it had never been tried."))
        }
        Job::Remove { id, .. } => {
            let (id, inner) = (parse(id)?, app.clone());
            app.db.write(move |tx| remove(tx, &inner, id)).await.map_err(words)??;
            Ok(format!("{id} is gone: it is not done."))
        }
    }
}

async fn newest(app: &App, filter: &Filter, limit: u16) -> db::Result<Vec<Inspected>> {
    let (mut found, mut before) = (Vec::new(), Id::from_bytes([0xff; 16]));
    loop {
        let (filter, now) = (filter.clone(), app.clock.now());
        let wanted = limit.saturating_sub(u16::try_from(found.len()).unwrap_or(u16::MAX));
        let batch = app.db.scan(move |tx| jobs::inspect(tx, &filter, before, wanted, now)).await?;
        found.extend(batch.items);
        match batch.next {
            Some(next) if found.len() < usize::from(limit) => before = next,
            _ => return Ok(found),
        }
    }
}

fn retry(tx: &mut Tx<'_>, app: &App, id: Id<JobRow>) -> db::Result<Result<(), String>> {
    let in_the_way = || {
        Ok(Err("another one for the same waits, or runs: it is done without this one. Nothing was changed."
            .to_owned()))
    };
    let kind = match jobs::retriable(tx, id)? {
        Retriable::Yes(kind) => kind,
        Retriable::Unknown => return Ok(Err(unknown(id))),
        Retriable::Alive => {
            return Ok(Err(format!("{id} was not given up: it waits, or runs. Nothing was changed.")));
        }
        Retriable::InTheWay => return in_the_way(),
    };
    if !jobs::retry_dead(tx, &app.queue, id)? {
        return in_the_way();
    }
    let details = json!({ "job": id, "kind": kind });
    app.audit_by(tx, &Stream::server(), "job_retried", &By::console(), details).map(Ok)
}

fn remove(tx: &mut Tx<'_>, app: &App, id: Id<JobRow>) -> db::Result<Result<(), String>> {
    match jobs::remove(tx, id, app.clock.now(), &[])? {
        Removed::Gone(kind) => {
            let details = json!({ "job": id, "kind": kind });
            app.audit_by(tx, &Stream::server(), "job_removed", &By::console(), details).map(Ok)
        }
        Removed::Running => Ok(Err(format!("{id} runs just now: wait until its try is over."))),
        Removed::Recurring => Ok(Err(format!(
            "{id} is one of the server's own turns. Without it there would be no other: it stays."
        ))),
        // Whoever sits at the server spares none.
        Removed::Unknown | Removed::Spared => Ok(Err(unknown(id))),
    }
}

fn parse(id: &str) -> Result<Id<JobRow>, String> {
    id.parse().map_err(|_| format!("{id:?} is no job's id (job_…): `pearlgate job list` shows them"))
}

fn unknown(id: Id<JobRow>) -> String {
    format!("there is no job {id} (any more): `pearlgate job list` shows them")
}

fn line(job: &Inspected) -> String {
    let last = job.history.last().map(|one| one.error.as_str()).unwrap_or_default();
    let why = if job.reason.is_empty() { last } else { &job.reason };
    plain(&format!(
        "{}  {:<8} {:>3}x  {:<28} {}  {}",
        job.created_at,
        job.state.word(),
        job.attempts,
        job.kind,
        job.id,
        or_none(why)
    ))
}

fn shown(job: &Inspected) -> String {
    let (run_at, deadline, died_at) = (text(job.run_at), text(job.deadline), text(job.died_at));
    let mut lines = vec![
        format!("id              {}", job.id),
        format!("kind            {}", job.kind),
        format!("lane            {}", job.lane),
        format!("state           {}", job.state.word()),
        format!("put             {}", job.created_at),
        format!("done from       {}", or_none(&run_at)),
        format!("worth it until  {}", or_none(&deadline)),
        format!("tries           {}", job.attempts),
    ];
    if !died_at.is_empty() {
        lines.push(plain(&format!("given up        at {died_at}: {}", job.reason)));
    }
    lines.extend(
        job.history
            .iter()
            .map(|one| plain(&format!("failed          {} at {}: {}", one.attempt, one.at, one.error))),
    );
    lines.join("\n")
}

/// As operators get it over HTTP; what is not known is an empty text.
fn described(job: &Inspected) -> Value {
    let history: Vec<_> = job
        .history
        .iter()
        .map(|one| json!({ "attempt": one.attempt, "at": one.at.to_string(), "error": one.error }))
        .collect();
    json!({
        "id": job.id, "kind": job.kind, "lane": job.lane, "state": job.state.word(), "run_at": text(job.run_at),
        "deadline": text(job.deadline), "created_at": job.created_at.to_string(), "attempts": job.attempts,
        "history": history, "died_at": text(job.died_at), "reason": job.reason,
    })
}

fn text(at: Option<Timestamp>) -> String {
    at.map(|at| at.to_string()).unwrap_or_default()
}
