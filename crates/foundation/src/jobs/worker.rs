//! Takes jobs and runs them.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::store::{self, Claimed};
use super::{Backoff, History, Job, JobError, Lane, Queue, When};
use crate::db::{self, Db, Kind};
use crate::kernel::Timestamp;
use crate::params;

/// How long a worker may hold a job without saying that it is alive.
const LEASE: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Other processes' jobs are found by looking; our own commits wake us.
const POLL_SHARED: Duration = Duration::from_secs(1);
const POLL_ALONE: Duration = Duration::from_secs(10);
/// Of each lane.
const MOST_AT_ONCE: usize = 8;
/// When a job is looked at again that was put off and put again while it ran.
const SOON: Duration = Duration::from_secs(5);
/// How long a stop waits for running jobs before it gives them back.
const DRAIN: Duration = Duration::from_secs(5);
/// A recurring job stays useful until its next turn at the latest; this only keeps it from expiring.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

type Run = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<(), JobError>> + Send>> + Send + Sync>;

#[derive(Clone)]
struct Handler {
    run: Run,
    lane: Lane,
    max_attempts: i64,
    backoff: Backoff,
    every: Option<(Duration, String)>,
}

/// Which function does which kind of job.
#[derive(Clone, Default)]
pub struct Handlers(HashMap<&'static str, Handler>);

impl Handlers {
    /// `run` does jobs of kind `J`.
    #[must_use]
    pub fn on<J, F, Fut>(mut self, run: F) -> Self
    where
        J: Job,
        F: Fn(J) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let run: Run = Arc::new(move |payload| match serde_json::from_str::<J>(&payload) {
            Ok(job) => Box::pin(run(job)),
            Err(e) => {
                Box::pin(async move { Err(JobError::Dead(format!("the payload cannot be read: {e}"))) })
            }
        });
        self.0.insert(
            J::KIND,
            Handler { run, lane: J::LANE, max_attempts: J::MAX_ATTEMPTS, backoff: J::BACKOFF, every: None },
        );
        self
    }

    /// The registered kind `J` also runs by itself, `every` so often, in one of the processes that share the
    /// database: the unique key `recurring:KIND` sees to that.
    #[must_use]
    pub fn recurring<J: Job>(mut self, job: &J, every: Duration) -> Self {
        if let (Some(handler), Ok(payload)) = (self.0.get_mut(J::KIND), serde_json::to_string(job)) {
            handler.every = Some((every, payload));
        }
        self
    }
}

/// A running worker; stops when told to.
pub struct Worker {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Worker {
    /// Starts to take jobs.
    pub fn start(db: Db, queue: Queue, handlers: Handlers) -> Self {
        let (stop, stopped) = watch::channel(false);
        let inner = Inner { db, queue, handlers: Arc::new(handlers) };
        Self { stop, task: tokio::spawn(inner.serve(stopped)) }
    }

    /// Takes no more jobs, waits a few seconds for those that run, gives the others back.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

#[derive(Clone)]
struct Inner {
    db: Db,
    queue: Queue,
    handlers: Arc<Handlers>,
}

impl Inner {
    async fn serve(self, mut stopped: watch::Receiver<bool>) {
        let mut running = JoinSet::new();
        let mut held: HashMap<tokio::task::Id, Claimed> = HashMap::new();
        let mut seeded = false;
        let mut kept_at = self.queue.clock.now();
        let mut beat = tokio::time::interval(HEARTBEAT);
        loop {
            if !seeded {
                seeded = self.seed_recurring().await.is_ok();
            }
            let clock = self.queue.clock.clone();
            let moved = clock.moved();
            // Before anything is taken at a new time, what runs here is kept: a clock that jumps is not a crash.
            let now = clock.now();
            if now >= kept_at + HEARTBEAT {
                self.heartbeat(held.values(), now).await;
                kept_at = now;
            }
            let pause = match self.take(&held, now).await {
                Ok((jobs, pause)) => {
                    for job in jobs {
                        // A lease of our own that ran out while the database was away: the job still runs here,
                        // now under the new fence, and is not begun again.
                        if let Some(ours) = held.values_mut().find(|ours| ours.id == job.id) {
                            // What was put meanwhile is not seen by the run that goes on.
                            *ours = Claimed { puts: ours.puts, ..job };
                            continue;
                        }
                        let task = running.spawn(self.clone().run(job.clone()));
                        held.insert(task.id(), job);
                    }
                    pause
                }
                Err(_) => self.poll(),
            };
            tokio::select! {
                _ = stopped.changed() => break,
                Some(done) = running.join_next_with_id() => {
                    // And whatever else has ended: each look at the lanes costs something.
                    let mut ended = Some(done);
                    while let Some(done) = ended {
                        let (task, outcome) = match done {
                            Ok((task, outcome)) => (task, outcome),
                            Err(panicked) => (panicked.id(), Err(JobError::Retry("the handler panicked".into()))),
                        };
                        if let Some(job) = held.remove(&task) {
                            self.settle(job, outcome).await;
                        }
                        ended = running.try_join_next_with_id();
                    }
                }
                () = self.queue.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = moved => {}
                _ = beat.tick() => {}
            }
        }
        self.drain(running, held).await;
    }

    fn poll(&self) -> Duration {
        if self.db.kind() == Kind::Postgres { POLL_SHARED } else { POLL_ALONE }
    }

    /// Jobs that are due, as many as there is room for in their lanes, and how long to wait before looking again.
    async fn take(
        &self,
        held: &HashMap<tokio::task::Id, Claimed>,
        now: Timestamp,
    ) -> db::Result<(Vec<Claimed>, Duration)> {
        let lanes: Vec<(String, Timestamp)> = self
            .db
            .read(|tx| {
                let mut lanes: Vec<(String, Timestamp)> = Vec::new();
                // From lane to lane by the index, however many jobs wait in them.
                loop {
                    let after = lanes.last().map_or("", |(lane, _)| lane.as_str());
                    match tx.opt(&store::NEXT_LANE, params![after])? {
                        Some(next) => lanes.push(next),
                        None => return Ok(lanes),
                    }
                }
            })
            .await?;
        let room =
            |lane: &str| MOST_AT_ONCE.saturating_sub(held.values().filter(|job| job.lane == lane).count());
        let (mut due, mut soonest) = (Vec::new(), self.poll());
        for (lane, at) in lanes {
            // A lane that is full is looked at when one of its jobs ends.
            match i64::try_from(room(&lane)).unwrap_or(1) {
                0 => {}
                room if at <= now => due.push((lane, room)),
                _ => soonest = soonest.min(now.until(at)),
            }
        }
        if due.is_empty() {
            return Ok((Vec::new(), soonest.max(Duration::from_millis(5))));
        }
        let claimed = self.db.write(move |tx| {
            let mut jobs = Vec::new();
            for (lane, room) in &due {
                jobs.extend(tx.all::<Claimed>(&store::CLAIM, params![now, now + LEASE, room, lane])?);
            }
            Ok(jobs)
        });
        let jobs = claimed.await?;
        let pause = if jobs.is_empty() { Duration::from_millis(50) } else { Duration::from_millis(1) };
        Ok((jobs, pause))
    }

    async fn run(self, job: Claimed) -> Result<(), JobError> {
        if self.queue.clock.now() > job.deadline {
            let why = if job.attempts > 1 { "it succeeded" } else { "it was tried" };
            return Err(JobError::Dead(format!("its deadline passed before {why}")));
        }
        let Some(handler) = self.handlers.0.get(job.kind.as_str()) else {
            return Err(JobError::Retry("no handler for this kind in this process".into()));
        };
        (handler.run)(job.payload).await
    }

    async fn heartbeat(&self, held: impl Iterator<Item = &Claimed>, now: Timestamp) {
        let until = now + LEASE;
        let mut held: Vec<_> = held.map(|job| (job.id, job.fence)).collect();
        // In one order, so that nobody waits for somebody who waits for us.
        held.sort_unstable_by_key(|(id, _)| *id.as_bytes());
        if held.is_empty() {
            return;
        }
        let kept = self.db.write(move |tx| {
            for (id, fence) in &held {
                tx.execute(&store::HEARTBEAT, params![id, fence, until])?;
            }
            Ok(())
        });
        if let Err(error) = kept.await {
            tracing::warn!(%error, "the leases of running jobs could not be renewed");
        }
    }

    /// Writes down how it ended. When that fails the lease runs out and the job is run again: at least once.
    async fn settle(&self, job: Claimed, outcome: Result<(), JobError>) {
        let (inner, kind) = (self.clone(), job.kind.clone());
        let ended = self.db.write(move |tx| inner.settled(tx, &job, &outcome)).await;
        match ended {
            Ok(word) => metrics::counter!("jobs_total", "kind" => kind, "outcome" => word).increment(1),
            Err(error) => {
                tracing::warn!(%error, kind, "the end of a job could not be written down; it will run again")
            }
        }
    }

    fn settled(
        &self,
        tx: &mut db::Tx<'_>,
        job: &Claimed,
        outcome: &Result<(), JobError>,
    ) -> db::Result<&'static str> {
        let now = self.queue.clock.now();
        let handler = self.handlers.0.get(job.kind.as_str());
        let error = match outcome {
            Ok(()) => {
                if tx.execute(&store::FINISH, params![job.id, job.fence, job.puts])? == 0 {
                    let again = tx.execute(&store::AGAIN, params![job.id, job.fence, now])? == 1;
                    return Ok(if again { "again" } else { "outdated" });
                }
                self.schedule_next(tx, job, handler)?;
                return Ok("done");
            }
            Err(JobError::Later(pause)) if now + *pause <= job.deadline => {
                tx.execute(
                    &store::POSTPONE,
                    params![job.id, job.fence, now + *pause, job.puts, now + (*pause).min(SOON)],
                )?;
                return Ok("later");
            }
            Err(error) => error,
        };
        let history = History::parse(&job.history).with((job.attempts, job.fence), now, &error.to_string());
        let pause = handler.map_or(LEASE, |h| h.backoff.pause(job.attempts, &self.queue.chance));
        let used_up = handler.is_some_and(|h| job.attempts >= h.max_attempts) || now + pause > job.deadline;
        if matches!(error, JobError::Retry(_)) && !used_up {
            tx.execute(&store::RETRY, params![job.id, job.fence, now + pause, history.to_text()])?;
            return Ok("retry");
        }
        let reason = error.to_string();
        if tx.execute(&store::BURY, params![job.id, job.fence, now, reason, history.to_text()])? == 1 {
            tx.execute(&store::DROP, params![job.id, job.fence])?;
            self.schedule_next(tx, job, handler)?;
            tracing::warn!(job = %job.id, kind = job.kind, reason, "a job was given up");
        }
        Ok("dead")
    }

    fn schedule_next(&self, tx: &mut db::Tx<'_>, job: &Claimed, handler: Option<&Handler>) -> db::Result<()> {
        let Some((every, payload)) = handler.and_then(|h| h.every.as_ref()) else { return Ok(()) };
        if job.unique_key == recurring_key(&job.kind) {
            let now = self.queue.clock.now();
            let when = When::now(now, FOREVER).at(now + *every).unique(job.unique_key.clone());
            self.queue.put(tx, &store::INSERT, (&job.kind, &job.lane), payload, &when)?;
        }
        Ok(())
    }

    async fn seed_recurring(&self) -> db::Result<()> {
        let inner = self.clone();
        self.db
            .write(move |tx| {
                for (kind, handler) in &inner.handlers.0 {
                    let Some((every, payload)) = &handler.every else { continue };
                    let now = inner.queue.clock.now();
                    let when = When::now(now, FOREVER).at(now + *every).unique(recurring_key(kind));
                    inner.queue.put(tx, &store::INSERT, (kind, handler.lane), payload, &when)?;
                }
                Ok(())
            })
            .await
    }

    async fn drain(
        &self,
        mut running: JoinSet<Result<(), JobError>>,
        mut held: HashMap<tokio::task::Id, Claimed>,
    ) {
        let finish = async {
            while let Some(done) = running.join_next_with_id().await {
                if let Ok((task, outcome)) = done
                    && let Some(job) = held.remove(&task)
                {
                    self.settle(job, outcome).await;
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN, finish).await;
        running.abort_all();
        let now = self.queue.clock.now();
        for job in held.into_values() {
            let _ =
                self.db.write(move |tx| tx.execute(&store::RELEASE, params![job.id, job.fence, now])).await;
        }
    }
}

pub(super) fn recurring_key(kind: &str) -> String {
    format!("recurring:{kind}")
}
