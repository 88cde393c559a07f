//! The generic cell rate algorithm: one number per key says everything. Pure; the three stores compute the same.
//!
//! The number is the moment at which nothing counts against the key any more, in microseconds. Every attempt moves it
//! on by one interval (`per / count`), from now at the earliest; an attempt that would move it further than `per` ahead
//! of now is refused and moves nothing.

use std::time::Duration;

use crate::kernel::Timestamp;

/// How often something may be done: `count` times at once, and then once in every `per / count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    count: u32,
    per: Duration,
}

impl Quota {
    /// `count` in `per`; none when one of them is nothing, or the interval is shorter than a microsecond.
    pub fn new(count: u32, per: Duration) -> Option<Self> {
        let quota = Self { count, per };
        (count > 0 && per <= Duration::from_secs(400 * 86_400) && quota.interval() > 0).then_some(quota)
    }

    /// How many at once.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// In which time.
    pub fn per(&self) -> Duration {
        self.per
    }

    /// What one attempt costs, in microseconds.
    pub fn interval(&self) -> i64 {
        self.window() / i64::from(self.count.max(1))
    }

    /// The whole time, a multiple of the interval, in microseconds.
    pub(super) fn window(&self) -> i64 {
        i64::try_from(self.per.as_micros()).unwrap_or(i64::MAX / 4)
    }

    /// The latest number that can be: one beyond it was written before the clock was put back, and counts for nothing.
    /// Servers whose clocks differ by less than the window agree.
    pub(super) fn latest(&self, now: Timestamp) -> i64 {
        now.micros().saturating_add(self.window()).saturating_add(self.window())
    }

    /// Tries once: the key's number as it is, and whether the attempt is allowed. `free_at` is the number after it.
    pub fn try_at(&self, free_at: i64, now: Timestamp) -> (bool, i64) {
        let from = self.from(free_at, now);
        let next = from.saturating_add(self.interval());
        if next - now.micros() > self.window() { (false, from) } else { (true, next) }
    }

    /// Where the next attempt counts from.
    pub(super) fn from(&self, free_at: i64, now: Timestamp) -> i64 {
        if free_at > self.latest(now) { now.micros() } else { free_at.max(now.micros()) }
    }

    /// Whether less than a quarter is used.
    pub(super) fn is_little(&self, free_at: i64, now: Timestamp) -> bool {
        free_at - now.micros() < self.window() / 4
    }

    /// What an answer says about a key whose number is `free_at`.
    pub(super) fn standing(&self, allowed: bool, free_at: i64, now: Timestamp) -> Standing {
        let ahead = (free_at - now.micros()).max(0);
        let left = (self.window() - ahead).max(0) / self.interval();
        let wait = ahead + self.interval() - self.window();
        Standing {
            allowed,
            remaining: u32::try_from(left).unwrap_or(u32::MAX).min(self.count),
            free_in: micros(ahead),
            retry_after: if allowed { Duration::ZERO } else { micros(wait.max(1)) },
        }
    }
}

/// How a key stands after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether the attempt may go on.
    pub allowed: bool,
    /// How many more may be made at once.
    pub remaining: u32,
    /// When nothing counts any more.
    pub free_in: Duration,
    /// When the next attempt may be made, if this one may not.
    pub retry_after: Duration,
}

fn micros(of: i64) -> Duration {
    Duration::from_micros(u64::try_from(of).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_795_430_000_000_000 + seconds * 1_000_000)
    }

    #[test]
    fn ten_in_ten_minutes_are_ten_at_once_and_then_one_a_minute() {
        let quota = Quota::new(10, Duration::from_secs(600)).unwrap();
        let mut free_at = 0;
        for left in (0..10).rev() {
            let (allowed, next) = quota.try_at(free_at, at(0));
            assert!(allowed);
            free_at = next;
            assert_eq!(quota.standing(true, free_at, at(0)).remaining, left);
        }
        let (allowed, same) = quota.try_at(free_at, at(0));
        assert!(!allowed && same == free_at, "a refusal moves nothing");
        let standing = quota.standing(false, free_at, at(0));
        assert_eq!(standing.retry_after, Duration::from_secs(60));
        assert_eq!(standing.free_in, Duration::from_secs(600));
        assert!(!quota.try_at(free_at, at(59)).0);
        assert!(quota.try_at(free_at, at(60)).0);
        assert_eq!(quota.standing(true, free_at, at(10_000)).remaining, 10);
    }

    #[test]
    fn a_clock_that_is_put_back_locks_nobody_out_for_longer_than_the_window() {
        let quota = Quota::new(1, Duration::from_secs(60)).unwrap();
        let (_, free_at) = quota.try_at(0, at(100_000));
        assert!(quota.try_at(free_at, at(0)).0, "a number from the future counts for nothing");
        assert!(
            !quota.try_at(free_at, at(100_000 - 59)).0,
            "that of a server whose clock is a little ahead does"
        );
    }

    #[test]
    fn a_quota_is_at_least_one_in_a_time_that_can_be_counted() {
        assert_eq!(Quota::new(0, Duration::from_secs(1)), None);
        assert_eq!(Quota::new(1, Duration::ZERO), None);
        assert_eq!(Quota::new(2_000_000, Duration::from_secs(1)), None);
        assert!(Quota::new(1_000_000, Duration::from_secs(1)).is_some());
    }

    proptest! {
        /// However attempts are spread, no window of `per` sees more than the burst and what flowed in meanwhile.
        #[test]
        fn no_window_sees_more_than_twice_the_count(count in 1_u32..20, gaps in prop::collection::vec(0_i64..40, 1..200)) {
            let quota = Quota::new(count, Duration::from_secs(60)).unwrap();
            let (mut now, mut free_at, mut allowed) = (0, 0, Vec::new());
            for gap in gaps {
                now += gap;
                let (yes, next) = quota.try_at(free_at, at(now));
                free_at = next;
                if yes { allowed.push(now); }
            }
            for first in &allowed {
                let seen = allowed.iter().filter(|t| (*first..first + 60).contains(t)).count();
                prop_assert!(seen <= 2 * count as usize, "{} in one window", seen);
            }
        }
    }
}
