//! Whether healthy jobs keep flowing: beside poison, beside handlers that panic, with two workers, and while somebody keeps a
//! transaction open on PostgreSQL, so that nothing that is deleted can be cleaned away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foundation::db::{Db, PostgresOptions};
use foundation::jobs::{Backoff, Handlers, Job, JobError, Queue, When, Worker};
use foundation::kernel::{Clock, Entropy};
use pearlgate::app::MIGRATIONS;
use serde::{Deserialize, Serialize};

use crate::Measured;
use crate::measures::temporary;
use crate::nodes::Database;
use crate::table::{Table, median};

/// Jobs of one round: more than a busy hour of mails on a small server.
pub(crate) const JOBS: usize = 20_000;
const ROUNDS: usize = 3;
/// Jobs that are enqueued in one transaction, as by one request in a hurry.
const AT_ONCE: usize = 500;
/// A round that takes longer has stopped.
const STOPPED: Duration = Duration::from_secs(600);
const USEFUL: Duration = Duration::from_secs(86_400);

/// What a job does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Fate {
    Done,
    Poison,
    Panic,
}

#[derive(Debug, Serialize, Deserialize)]
struct Task {
    fate: Fate,
}

impl Job for Task {
    const KIND: &'static str = "bench.task";
    const MAX_ATTEMPTS: i64 = 3;
    const BACKOFF: Backoff =
        Backoff { first: Duration::from_millis(200), longest: Duration::from_millis(400) };
}

#[derive(Debug, Clone, Copy)]
struct Round {
    jobs: usize,
    workers: usize,
    /// One in so many is poison, and one panics; 0: none.
    bad: usize,
}

fn handlers(done: &Arc<AtomicUsize>) -> Handlers {
    let done = done.clone();
    Handlers::default().on(move |task: Task| {
        let done = done.clone();
        async move {
            match task.fate {
                Fate::Done => {
                    done.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                }
                Fate::Poison => Err(JobError::Retry("poison".into())),
                #[expect(clippy::panic, reason = "a handler that panics is what is measured")]
                Fate::Panic => panic!("a handler panicked, as it was told to"),
            }
        }
    })
}

/// Healthy jobs a second, from the first that is enqueued to the last that is done.
async fn flow(db: &Db, round: Round) -> Measured<f64> {
    let queue = Queue::new(Clock::System, Entropy::System);
    let done = Arc::new(AtomicUsize::new(0));
    let workers: Vec<Worker> =
        (0..round.workers).map(|_| Worker::start(db.clone(), queue.clone(), handlers(&done))).collect();
    let started = Clock::stopwatch();
    let mut healthy = 0;
    for first in (0..round.jobs).step_by(AT_ONCE) {
        let fates: Vec<Fate> = (first..(first + AT_ONCE).min(round.jobs))
            .map(|n| match n.checked_rem(round.bad) {
                Some(0) => Fate::Poison,
                Some(1) => Fate::Panic,
                _ => Fate::Done,
            })
            .collect();
        healthy += fates.iter().filter(|fate| matches!(fate, Fate::Done)).count();
        let queue = queue.clone();
        let enqueued = db.write(move |tx| {
            let when = When::now(Clock::System.now(), USEFUL);
            fates.iter().try_for_each(|fate| queue.enqueue(tx, &Task { fate: *fate }, &when).map(|_| ()))
        });
        enqueued.await.map_err(|e| e.to_string())?;
    }
    while done.load(Ordering::Relaxed) < healthy {
        if started.elapsed() > STOPPED {
            return Err(format!("only {} of {healthy} jobs were done", done.load(Ordering::Relaxed)));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = healthy as f64 / started.elapsed().as_secs_f64();
    for worker in workers {
        worker.stop().await;
    }
    Ok(rate)
}

async fn rates(db: &Db, round: Round) -> Measured<f64> {
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        all.push(flow(db, round).await?);
    }
    Ok(median(all))
}

/// All of them, on both databases.
pub(crate) async fn run(table: &mut Table, jobs: usize) -> Measured<()> {
    let dir = temporary()?;
    let sqlite = Db::sqlite(&dir.path().join("queue.db"), true).map_err(|e| e.to_string())?;
    let database = Database::create("bench_queue")?;
    let options = PostgresOptions { url: database.url.clone(), ca_file: None, connections: 8 };
    let postgres = Db::postgres(&options).map_err(|e| e.to_string())?;
    for (name, db) in [("SQLite", &sqlite), ("PostgreSQL", &postgres)] {
        db.migrate(MIGRATIONS, Clock::System.now()).await.map_err(|e| e.to_string())?;
        let alone = rates(db, Round { jobs, workers: 1, bad: 0 }).await?;
        table.row(
            &format!("jobs that do nothing, {name}"),
            format!("{alone:.0}/s"),
            "–",
            &format!("{jobs} a round, {AT_ONCE} a transaction, one worker, {ROUNDS} rounds, durable"),
        );
        for (what, round) in [
            ("one in ten poison, one in ten panics", Round { jobs, workers: 1, bad: 10 }),
            ("two workers", Round { jobs, workers: 2, bad: 0 }),
        ] {
            let rate = rates(db, round).await?;
            table.row(
                &format!("healthy jobs, {what} ÷ alone, {name}"),
                format!("{:.2} ({rate:.0}/s)", rate / alone),
                "–",
                "as above; the healthy ones are counted",
            );
        }
    }
    let alone = rates(&postgres, Round { jobs, workers: 1, bad: 0 }).await?;
    let held = database.hold()?;
    let mut rounds = Vec::new();
    for _ in 0..6 {
        rounds.push(flow(&postgres, Round { jobs, workers: 1, bad: 0 }).await?);
    }
    drop(held);
    let (first, last) =
        (rounds.first().copied().unwrap_or(f64::NAN), rounds.last().copied().unwrap_or(f64::NAN));
    table.row(
        "jobs while a transaction stays open ÷ without, PostgreSQL",
        format!("{:.2} at first, {:.2} after {} jobs ({first:.0}/s, {last:.0}/s)", first / alone, last / alone, 6 * jobs),
        "–",
        "a repeatable-read transaction that has read is open all the time: no deleted job can be cleaned away",
    );
    Ok(())
}
