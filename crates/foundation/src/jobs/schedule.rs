//! When to try again: pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::{Entropy, Timestamp};

/// Attempts that a history remembers; the first and the newest tell the story.
const REMEMBERED: usize = 20;
/// Characters of an error that a history keeps.
const ERROR_LENGTH: usize = 300;

/// Exponential pauses with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after `attempts` failed ones: doubles each time, and a random half of it is taken off, so that
    /// what failed together does not come back together.
    pub fn pause(&self, attempts: i64, chance: &Entropy) -> Duration {
        let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(20);
        let full = self.first.saturating_mul(1 << doublings).min(self.longest);
        let half = full / 2;
        let jitter = u32::try_from(half.as_millis()).unwrap_or(u32::MAX).max(1);
        half + Duration::from_millis(u64::from(chance.below(jitter)))
    }
}

/// What went wrong so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(Vec<Attempt>);

/// A try that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The how manieth it was.
    pub attempt: i64,
    /// The fence that it was taken with.
    #[serde(default)]
    fence: i64,
    /// When it had failed.
    pub at: Timestamp,
    /// Why, in words.
    pub error: String,
}

impl History {
    /// The history in a row; an unreadable one counts as empty.
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// With one more failure, of the how manieth try, taken with which fence; the oldest but the first are forgotten.
    #[must_use]
    pub fn with(mut self, (attempt, fence): (i64, i64), at: Timestamp, error: &str) -> Self {
        if self.0.len() >= REMEMBERED {
            self.0.remove(1);
        }
        self.0.push(Attempt { attempt, fence, at, error: error.chars().take(ERROR_LENGTH).collect() });
        self
    }

    /// Whether the try that was taken with this fence has failed.
    pub(super) fn has_ended(&self, fence: i64) -> bool {
        self.0.last().is_some_and(|newest| newest.fence == fence)
    }

    /// The failures, the oldest first.
    pub fn into_attempts(self) -> Vec<Attempt> {
        self.0
    }

    /// As the row keeps it.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "[]".into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_grow_to_a_limit_and_never_vanish(attempts in 1i64..200, seed in any::<u64>()) {
            let backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(600) };
            let pause = backoff.pause(attempts, &Entropy::seeded(&seed.to_le_bytes()));
            prop_assert!(pause >= Duration::from_secs(1) && pause <= Duration::from_secs(600));
            if attempts > 10 {
                prop_assert!(pause >= Duration::from_secs(300));
            }
        }
    }

    #[test]
    fn a_history_keeps_the_first_and_the_newest() {
        let long = (1..=50)
            .fold(History::default(), |h, n| h.with((n, n), Timestamp::default(), &"x".repeat(1_000)));
        let attempts: Vec<i64> = long.0.iter().map(|a| a.attempt).collect();
        assert_eq!((attempts.len(), attempts[0], attempts[19]), (REMEMBERED, 1, 50));
        assert_eq!(History::parse(&long.to_text()), long);
        assert_eq!(History::parse("nonsense"), History::default());
        assert!(long.has_ended(50) && !long.has_ended(49) && !long.has_ended(51));
        let before = History::parse("[{\"attempt\":1,\"at\":1,\"error\":\"no\"}]");
        assert_eq!(
            (before.has_ended(1), before.into_attempts().len()),
            (false, 1),
            "as it was written before"
        );
    }
}
