//! When a dependency is not asked at all: after some failures in a row it is left alone for a while, which grows; then
//! one call may try. Pure, driven by the injected clock.

use std::time::Duration;

use crate::kernel::Timestamp;

/// How patient a breaker is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Failures in a row before the dependency is left alone.
    pub failures: u32,
    /// For how long at first; twice as long after every try that failed.
    pub first: Duration,
    /// And at most.
    pub longest: Duration,
}

/// Closed while calls go through; open while they do not.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    pauses: u32,
    /// Whether it is open, and from when on one call may try.
    open_until: Option<Timestamp>,
    trying: bool,
}

impl Breaker {
    /// Whether a call may be made now; while open, one at a time once the pause is over.
    pub(super) fn admits(&mut self, patience: &Patience, now: Timestamp) -> bool {
        let Some(until) = self.open_until else { return true };
        // A clock that was put back does not make a pause longer than it may be.
        let over = now >= until || until > now + patience.longest;
        if !over || self.trying {
            return false;
        }
        self.trying = true;
        true
    }

    /// How a call went.
    pub(super) fn went(&mut self, well: bool, patience: &Patience, now: Timestamp) {
        if well {
            *self = Self::default();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= patience.failures && (self.open_until.is_none() || self.trying) {
            let pause = patience.first.saturating_mul(1 << self.pauses.min(16)).min(patience.longest);
            self.pauses = self.pauses.saturating_add(1);
            self.open_until = Some(now + pause);
            self.trying = false;
        }
    }

    /// The caller went away before there was an answer.
    pub(super) fn abandoned(&mut self) {
        self.trying = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { failures: 3, first: Duration::from_secs(1), longest: Duration::from_secs(4) };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000 + millis * 1_000)
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_pauses_grow_until_something_works() {
        let mut breaker = Breaker::default();
        for well in [false, false, true, false, false] {
            assert!(breaker.admits(&PATIENCE, at(0)));
            breaker.went(well, &PATIENCE, at(0));
        }
        assert!(breaker.admits(&PATIENCE, at(0)), "a success in between starts the count anew");
        breaker.went(false, &PATIENCE, at(0));
        let mut now = 0;
        for pause in [1_000, 2_000, 4_000, 4_000] {
            assert!(!breaker.admits(&PATIENCE, at(now + pause - 1)));
            now += pause;
            assert!(breaker.admits(&PATIENCE, at(now)));
            assert!(!breaker.admits(&PATIENCE, at(now)), "one try at a time");
            breaker.went(false, &PATIENCE, at(now));
        }
        now += 4_000;
        assert!(breaker.admits(&PATIENCE, at(now)));
        breaker.went(true, &PATIENCE, at(now));
        assert!(breaker.admits(&PATIENCE, at(now)) && breaker.admits(&PATIENCE, at(now)));
    }

    #[test]
    fn an_abandoned_try_is_no_answer_and_a_clock_put_back_makes_no_longer_pause() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            breaker.went(false, &PATIENCE, at(0));
        }
        assert!(breaker.admits(&PATIENCE, at(1_000)));
        breaker.abandoned();
        assert!(breaker.admits(&PATIENCE, at(1_000)));
        breaker.went(false, &PATIENCE, at(1_000));
        assert!(breaker.admits(&PATIENCE, at(-3_600_000)));
    }
}
