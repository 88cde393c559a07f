//! Work that survives a crash. A job is a row that is written in the transaction of what it follows from, so
//! either both happened or neither did; a worker takes it later.
//!
//! * A row has one time, `run_at`: the moment from which a worker may take it. Taking it moves `run_at` to the
//!   end of the lease and raises `fence`; a worker that was too slow finds its fence outdated and changes nothing.
//! * A failed attempt is written into the row's history and tried again after a growing, jittered pause, until
//!   the attempts or the deadline are used up; then the row moves to `dead_jobs` with its history.
//! * `unique_key` is unique in the database: at most one such job waits or runs. A job that is put [again](Queue::enqueue_again)
//!   while it runs runs once more after that.
//! * A lane has places of its own: what waits for somebody else's machine holds up nothing in another lane.
//! * Whoever looks after it all sees what waits, runs and was given up ([`inspect()`]), has it tried again, or drops it.

mod inspect;
mod schedule;
mod store;
mod worker;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::db::{self, Tx};
use crate::kernel::{Clock, Entity, Entropy, Id, Timestamp};
use crate::params;

pub use inspect::{
    Batch, Filter, Inspected, Removed, Retriable, State, inspect, one, remove, retriable, retry_dead,
};
pub use schedule::{Attempt, Backoff, History};
pub use store::STATEMENTS;
pub use worker::{Handlers, Worker};

/// Ids of jobs.
#[derive(Debug)]
pub struct JobRow;
impl Entity for JobRow {
    const PREFIX: &'static str = "job";
}

/// A lane's name.
pub type Lane = &'static str;

/// The lane of whatever needs nobody else.
pub const MAIN: Lane = "main";

/// A kind of work, with the data that one piece of it needs.
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// Its stable name in the database.
    const KIND: &'static str;
    /// Attempts before it is given up.
    const MAX_ATTEMPTS: i64 = 25;
    /// Where it waits: jobs of one lane hold up none of another.
    const LANE: Lane = MAIN;
    /// The same for one job, where each of many has a lane of its own.
    fn lane(&self) -> Cow<'static, str> {
        Cow::Borrowed(Self::LANE)
    }
    /// How the pauses between attempts grow.
    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(600) };
}

/// Why an attempt did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// It may work later.
    #[error("{0}")]
    Retry(String),
    /// It will never work.
    #[error("{0}")]
    Dead(String),
    /// It was not tried: not before this time has passed. Counts as no attempt.
    #[error("waits")]
    Later(Duration),
}

impl From<db::Error> for JobError {
    fn from(error: db::Error) -> Self {
        Self::Retry(error.to_string())
    }
}

/// How far ahead of others an urgent job is.
const HEAD_START: Duration = Duration::from_secs(3600);

/// When a job may run and until when it is worth anything.
#[derive(Debug, Clone)]
pub struct When {
    /// Not before this.
    pub run_at: Timestamp,
    /// Not after this: what is still waiting then goes to the dead jobs.
    pub deadline: Timestamp,
    /// At most one job with this key; without one, the job's own id.
    pub unique_key: Option<String>,
}

impl When {
    /// At once, useful for `useful`.
    pub fn now(now: Timestamp, useful: Duration) -> Self {
        Self { run_at: now, deadline: now + useful, unique_key: None }
    }

    /// At most one of them at a time.
    #[must_use]
    pub fn unique(mut self, key: impl Into<String>) -> Self {
        self.unique_key = Some(key.into());
        self
    }

    /// Before others that wait: whoever floods what is ordinary does not delay what somebody in front of a form needs to
    /// get in. It counts as having waited for an hour already.
    #[must_use]
    pub fn urgent(mut self) -> Self {
        self.run_at = self.run_at - HEAD_START;
        self
    }

    /// Later than now.
    #[must_use]
    pub fn at(mut self, run_at: Timestamp) -> Self {
        self.run_at = run_at;
        self
    }
}

/// Where jobs are put. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    clock: Clock,
    chance: Entropy,
    wake: Arc<Notify>,
}

impl Queue {
    /// A queue; give the same one to the [`Worker`], so that it wakes on every commit.
    pub fn new(clock: Clock, chance: Entropy) -> Self {
        Self { clock, chance, wake: Arc::new(Notify::new()) }
    }

    /// Writes a job in this transaction. False when one with its unique key is there already.
    ///
    /// # Errors
    /// [`db::Error`] as every statement.
    pub fn enqueue<J: Job>(&self, tx: &mut Tx<'_>, job: &J, when: &When) -> db::Result<bool> {
        self.put_job(tx, &store::INSERT, job, when)
    }

    /// Writes a job in this transaction, or sees to it that the one with its unique key runs once more when it runs
    /// already: whatever this transaction stores is seen by a run that begins after it.
    ///
    /// # Errors
    /// [`db::Error`] as every statement.
    pub fn enqueue_again<J: Job>(&self, tx: &mut Tx<'_>, job: &J, when: &When) -> db::Result<()> {
        self.put_job(tx, &store::INSERT_AGAIN, job, when).map(|_| ())
    }

    /// The same, and the one with its unique key does not wait any longer: for what waits for another try.
    ///
    /// # Errors
    /// [`db::Error`] as every statement.
    pub fn enqueue_now<J: Job>(&self, tx: &mut Tx<'_>, job: &J, when: &When) -> db::Result<()> {
        self.put_job(tx, &store::INSERT_NOW, job, when).map(|_| ())
    }

    /// Some of what waits in a lane for another time does not wait any longer, and what runs there runs once more. Gives how
    /// many waited: whoever wants to wake all of it asks again, in other transactions, until none did.
    ///
    /// # Errors
    /// [`db::Error`] as every statement.
    pub fn wake(&self, tx: &mut Tx<'_>, lane: &str) -> db::Result<u64> {
        let now = self.clock.now();
        tx.execute(&store::ONCE_MORE, params![lane, now])?;
        let woken = tx.execute(&store::WAKE_LANE, params![lane, now])?;
        tx.after_commit(self.wake.clone());
        Ok(woken)
    }

    fn put_job<J: Job>(
        &self,
        tx: &mut Tx<'_>,
        statement: &'static db::Statement,
        job: &J,
        when: &When,
    ) -> db::Result<bool> {
        let payload = serde_json::to_string(job).map_err(|e| db::Error::Bug(format!("{}: {e}", J::KIND)))?;
        self.put(tx, statement, (J::KIND, &job.lane()), &payload, when)
    }

    fn put(
        &self,
        tx: &mut Tx<'_>,
        statement: &'static db::Statement,
        (kind, lane): (&str, &str),
        payload: &str,
        when: &When,
    ) -> db::Result<bool> {
        let id = Id::<JobRow>::new(&self.clock, &self.chance);
        let key = when.unique_key.clone().unwrap_or_else(|| id.to_string());
        let row: Option<(i64,)> = tx.opt(
            statement,
            params![id, kind, key, payload, when.run_at, when.deadline, self.clock.now(), lane],
        )?;
        tx.after_commit(self.wake.clone());
        Ok(row.is_some())
    }
}

/// How many jobs wait or run, by kind: what a test app must explain before it ends.
///
/// # Errors
/// As every read.
pub async fn waiting(db: &db::Db) -> db::Result<Vec<(String, i64)>> {
    db.read_one(|tx| tx.all(&store::COUNT, &[])).await
}

/// How many jobs wait or run in a lane, at most ten thousand.
///
/// # Errors
/// As every statement.
pub fn waiting_in(tx: &mut Tx<'_>, lane: &str) -> db::Result<i64> {
    tx.one::<(i64,)>(&store::WAITING_IN, params![lane]).map(|(count,)| count)
}

/// How many jobs were given up, by kind, each with the last reason.
///
/// # Errors
/// As every read.
pub async fn dead(db: &db::Db) -> db::Result<Vec<(String, String)>> {
    db.read_one(|tx| tx.all(&store::DEAD, &[])).await
}
