//! What waits, runs, and was given up, for whoever looks after it, and what they do about it. Of payloads nothing is told.

use std::cmp::Reverse;
use std::time::Duration;

use super::schedule::{Attempt, History};
use super::store::{self, Grave, Line};
use super::worker::recurring_key;
use super::{JobRow, Queue};
use crate::db::{self, Tx};
use crate::kernel::{Id, Timestamp};
use crate::params;

/// Jobs that are looked at at once.
const SOME: u16 = 200;
/// How often that is done for one batch: what is rare does not keep the database busy for long.
const TIMES: usize = 20;
/// What is tried again is worth something for so long at least.
const AT_LEAST: Duration = Duration::from_secs(24 * 3600);

/// How a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for its time, or for another try.
    Waiting,
    /// Somebody does it: there is a lease, and its try has not ended.
    Running,
    /// It was given up.
    Dead,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Running, Self::Dead];

    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Dead => "dead",
        }
    }
}

/// A job, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Its id; it keeps it when it is given up, and when it is tried again after that.
    pub id: Id<JobRow>,
    /// Its kind.
    pub kind: String,
    /// Where it waits.
    pub lane: String,
    /// How it is.
    pub state: State,
    /// From when on it may be taken; while it runs, when its lease ends. None when it was given up.
    pub run_at: Option<Timestamp>,
    /// Until when it is worth anything; none when that is not known any more.
    pub deadline: Option<Timestamp>,
    /// When it was put.
    pub created_at: Timestamp,
    /// Tries so far.
    pub attempts: i64,
    /// What went wrong.
    pub history: Vec<Attempt>,
    /// When it was given up.
    pub died_at: Option<Timestamp>,
    /// Why; empty when it was not.
    pub reason: String,
}

impl Inspected {
    fn alive(line: Line, now: Timestamp) -> Self {
        let state = line.state(now);
        Self {
            id: line.id,
            kind: line.kind,
            lane: line.lane,
            state,
            run_at: Some(line.run_at),
            deadline: Some(line.deadline),
            created_at: line.created_at,
            attempts: line.attempts,
            history: History::parse(&line.history).into_attempts(),
            died_at: None,
            reason: String::new(),
        }
    }

    fn dead(grave: Grave) -> Self {
        Self {
            id: grave.id,
            kind: grave.kind,
            lane: grave.lane,
            state: State::Dead,
            run_at: None,
            deadline: Some(grave.deadline).filter(|at| at.micros() > 0),
            created_at: grave.created_at,
            attempts: grave.attempts,
            history: History::parse(&grave.history).into_attempts(),
            died_at: Some(grave.died_at),
            reason: grave.reason,
        }
    }
}

impl Line {
    fn state(&self, now: Timestamp) -> State {
        // Whoever took it raised its fence: a try that has ended stands in the history under that fence, also when the
        // count began anew meanwhile.
        let taken = self.attempts > 0 && self.run_at > now;
        if taken && !History::parse(&self.history).has_ended(self.fence) {
            State::Running
        } else {
            State::Waiting
        }
    }
}

/// Which jobs.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those that are so.
    pub state: Option<State>,
    /// Those of this kind.
    pub kind: Option<String>,
}

impl Filter {
    fn fits(&self, job: &Inspected) -> bool {
        self.state.is_none_or(|state| state == job.state)
            && self.kind.as_ref().is_none_or(|kind| *kind == job.kind)
    }
}

/// Some jobs.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The newest first.
    pub items: Vec<Inspected>,
    /// Before which one to go on; none when there are no more. A batch may be short, or empty, and not the last one.
    pub next: Option<Id<JobRow>>,
}

/// The newest jobs before an id. At most 4,000 are looked at for one batch.
///
/// # Errors
/// As every statement.
pub fn inspect(
    tx: &mut Tx<'_>,
    filter: &Filter,
    before: Id<JobRow>,
    limit: u16,
    now: Timestamp,
) -> db::Result<Batch> {
    let (mut items, mut from) = (Vec::new(), before);
    for _ in 0..TIMES {
        let jobs = some(tx, filter, from, now)?;
        let last = jobs.len() < usize::from(SOME);
        for job in jobs {
            if items.len() >= usize::from(limit) {
                return Ok(Batch { items, next: Some(from) });
            }
            from = job.id;
            if filter.fits(&job) {
                items.push(job);
            }
        }
        if last {
            return Ok(Batch { items, next: None });
        }
    }
    Ok(Batch { items, next: Some(from) })
}

/// What comes next before an id, of the tables in which it may be.
fn some(tx: &mut Tx<'_>, filter: &Filter, before: Id<JobRow>, now: Timestamp) -> db::Result<Vec<Inspected>> {
    let (most, mut jobs) = (i64::from(SOME), Vec::new());
    if filter.state != Some(State::Dead) {
        let lines: Vec<Line> = tx.all(&store::NEWEST, params![before, most])?;
        jobs.extend(lines.into_iter().map(|line| Inspected::alive(line, now)));
    }
    if filter.state.is_none_or(|state| state == State::Dead) {
        let graves: Vec<Grave> = tx.all(&store::NEWEST_DEAD, params![before, most])?;
        jobs.extend(graves.into_iter().map(Inspected::dead));
    }
    jobs.sort_unstable_by_key(|job| Reverse(job.id));
    // Beyond that there may be more of one table than was read.
    jobs.truncate(SOME.into());
    Ok(jobs)
}

/// One job; none when there is none with this id (any more).
///
/// # Errors
/// As every statement.
pub fn one(tx: &mut Tx<'_>, id: Id<JobRow>, now: Timestamp) -> db::Result<Option<Inspected>> {
    if let Some(line) = tx.opt::<Line>(&store::ONE, params![id])? {
        return Ok(Some(Inspected::alive(line, now)));
    }
    Ok(tx.opt::<Grave>(&store::ONE_DEAD, params![id])?.map(Inspected::dead))
}

/// Whether a job can be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retriable {
    /// It was given up; its kind.
    Yes(String),
    /// It was not given up.
    Alive,
    /// One with its unique key waits or runs.
    InTheWay,
    /// There is none with this id.
    Unknown,
}

/// Whether a job can be tried again, without doing it.
///
/// # Errors
/// As every statement.
pub fn retriable(tx: &mut Tx<'_>, id: Id<JobRow>) -> db::Result<Retriable> {
    let Some(grave) = tx.opt::<Grave>(&store::ONE_DEAD, params![id])? else {
        let alive = tx.opt::<Line>(&store::ONE, params![id])?.is_some();
        return Ok(if alive { Retriable::Alive } else { Retriable::Unknown });
    };
    let in_the_way = tx.opt::<(Id<JobRow>,)>(&store::IN_THE_WAY, params![id])?.is_some();
    Ok(if in_the_way { Retriable::InTheWay } else { Retriable::Yes(grave.kind) })
}

/// Puts a job that was given up back into its lane, as if it had never been tried: at once, and worth as much time as when it
/// was put, or a day. False, and nothing is changed, when it is not [retriable].
///
/// # Errors
/// As every statement.
pub fn retry_dead(tx: &mut Tx<'_>, queue: &Queue, id: Id<JobRow>) -> db::Result<bool> {
    let Some(grave) = tx.opt::<Grave>(&store::ONE_DEAD, params![id])? else { return Ok(false) };
    let now = queue.clock.now();
    let useful = grave.created_at.until(grave.deadline).max(AT_LEAST);
    if tx.opt::<(i64,)>(&store::REVIVE, params![id, now, now + useful])?.is_none() {
        return Ok(false);
    }
    tx.opt::<(Timestamp,)>(&store::DROP_DEAD, params![id])?;
    tx.after_commit(queue.wake.clone());
    Ok(true)
}

/// What came of taking a job away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// It is gone; its kind.
    Gone(String),
    /// It runs just now, and stays.
    Running,
    /// It is one that comes back by itself, and stays: without it there would be no other.
    Recurring,
    /// It waits, and is of a kind that is spared.
    Spared,
    /// There is none with this id.
    Unknown,
}

/// Takes a job away that waits or was given up: it is not done. Kinds that begin like one of `spared` are taken away only when
/// they were given up.
///
/// # Errors
/// As every statement.
pub fn remove(tx: &mut Tx<'_>, id: Id<JobRow>, now: Timestamp, spared: &[&str]) -> db::Result<Removed> {
    if let Some(line) = tx.opt::<Line>(&store::ONE, params![id])? {
        if spared.iter().any(|begin| line.kind.starts_with(begin)) {
            return Ok(Removed::Spared);
        }
        if line.unique_key == recurring_key(&line.kind) {
            return Ok(Removed::Recurring);
        }
        // Whoever takes it meanwhile raises its fence.
        let gone =
            line.state(now) == State::Waiting && tx.execute(&store::DROP, params![id, line.fence])? == 1;
        return Ok(if gone { Removed::Gone(line.kind) } else { Removed::Running });
    }
    let Some(grave) = tx.opt::<Grave>(&store::ONE_DEAD, params![id])? else { return Ok(Removed::Unknown) };
    tx.opt::<(Timestamp,)>(&store::DROP_DEAD, params![id])?;
    Ok(Removed::Gone(grave.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(attempts: i64, fence: i64, run_at: i64, history: History) -> Line {
        Line {
            id: Id::from_bytes([1; 16]),
            kind: "polish".into(),
            lane: "main".into(),
            unique_key: "one".into(),
            run_at: Timestamp::from_micros(run_at),
            deadline: Timestamp::from_micros(1_000),
            created_at: Timestamp::from_micros(1),
            attempts,
            fence,
            history: history.to_text(),
        }
    }

    #[test]
    fn a_try_that_has_ended_is_known_by_its_fence() {
        let now = Timestamp::from_micros(100);
        let failed = || History::default().with((1, 1), now, "no");
        for (line, state) in [
            (line(0, 0, 100, History::default()), State::Waiting),
            (line(0, 3, 900, failed()), State::Waiting),
            (line(1, 1, 900, History::default()), State::Running),
            (line(1, 1, 900, failed()), State::Waiting),
            // Its lease has run out.
            (line(1, 1, 100, History::default()), State::Waiting),
            // It was put off after the first try, so that the next one counts as the first again.
            (line(1, 3, 900, failed()), State::Running),
        ] {
            assert_eq!(line.state(now), state, "{line:?}");
        }
    }
}
