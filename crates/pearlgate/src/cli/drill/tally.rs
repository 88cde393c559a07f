//! What is noted of answers, and which of them are right.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::client::Answer;

/// The longest that the outage contract declares for any answer, 5 s for a provider, and a little.
pub(super) const BOUND: Duration = Duration::from_secs(6);
/// So many different reasons are told.
const REASONS: usize = 5;

/// Why somebody could not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It went wrong, and is noted.
    Failed,
    /// It needs what is away, and was told so as the contract says.
    Declared,
    /// A mail has not come yet.
    Waiting,
}

pub(super) type Step<T> = Result<T, Stop>;

/// Counts the answers of one part of the drill.
pub(super) struct Tally {
    bound: Duration,
    /// The code of a 503 that is the declared answer while something is away.
    declared: Option<&'static str>,
    counts: Mutex<Counts>,
}

/// The counts.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) took: Vec<Duration>,
    pub(super) declared: u64,
    pub(super) failed: u64,
    reasons: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn new(bound: Duration, declared: Option<&'static str>) -> Self {
        Self { bound, declared, counts: Mutex::default() }
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something that went wrong.
    pub(super) fn fail(&self, why: &str) -> Stop {
        self.counts().fail(why.to_owned())
    }

    /// Notes an answer: right with this status, within the bound.
    pub(super) fn note(
        &self,
        what: &str,
        took: Duration,
        answer: Result<Answer, String>,
        right: u16,
    ) -> Step<Answer> {
        let mut counts = self.counts();
        counts.took.push(took);
        let answer = answer.map_err(|why| counts.fail(format!("{what}: {why}")))?;
        if took > self.bound {
            return Err(counts.fail(format!("{what}: slower than {} s", self.bound.as_secs())));
        }
        if answer.status == 503 && answer.retry_after.is_none() {
            return Err(counts.fail(format!("{what}: 503 without Retry-After")));
        }
        if answer.status == right {
            return Ok(answer);
        }
        if answer.status == 503 && self.declared.is_some_and(|code| answer.at("/code") == Some(code)) {
            counts.declared += 1;
            return Err(Stop::Declared);
        }
        Err(counts.fail(format!("{what}: answered {}", answer.refusal())))
    }
}

impl Counts {
    fn fail(&mut self, why: String) -> Stop {
        self.failed += 1;
        if self.reasons.len() < REASONS || self.reasons.contains_key(&why) {
            *self.reasons.entry(why).or_default() += 1;
        }
        Stop::Failed
    }

    /// What went wrong, and how often.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.reasons.iter().map(|(why, times)| format!("{times} x {why}")).collect()
    }

    /// So many of a hundred took no longer than this.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.took.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(at).copied().unwrap_or_default()
    }
}
