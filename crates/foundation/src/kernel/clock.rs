//! Time is an argument. Everything that asks what time it is asks a [`Clock`]; in tests and in dev mode somebody
//! moves it.

use std::fmt;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// A moment in UTC, as whole microseconds since 1970-01-01T00:00:00Z: what the database stores and compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `micros` microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down (a JWT's NumericDate, RFC 7519 §2).
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The moment that an RFC 3339 text names.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|at| Self(at.as_microsecond()))
    }

    /// How long from `self` until `later`; zero when `later` is not later.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_micros(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// RFC 3339, always six decimals and `Z`, so that times sort as text.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => write!(f, "{at:.6}"),
            Err(_) => f.write_str("9999-12-31T23:59:59.999999Z"),
        }
    }
}

/// Where the time comes from. Cheap to clone; clones share one time.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// The machine's clock plus an offset that dev mode moves forward.
    Movable(Arc<Moved>),
    /// Stands still until somebody moves it: tests.
    Manual(Arc<Moved>),
}

/// The moved part of a clock that can be moved.
#[derive(Debug)]
pub struct Moved {
    micros: AtomicI64,
    changed: Notify,
}

impl Clock {
    /// A clock that goes with the machine's and can be advanced.
    pub fn movable() -> Self {
        Self::Movable(Arc::new(Moved { micros: AtomicI64::new(0), changed: Notify::new() }))
    }

    /// A clock that stands at `start` until it is advanced.
    pub fn manual(start: Timestamp) -> Self {
        Self::Manual(Arc::new(Moved { micros: AtomicI64::new(start.0), changed: Notify::new() }))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => system_now(),
            Self::Movable(moved) => {
                Timestamp(system_now().0.saturating_add(moved.micros.load(Ordering::SeqCst)))
            }
            Self::Manual(moved) => Timestamp(moved.micros.load(Ordering::SeqCst)),
        }
    }

    /// Moves the clock forward and wakes who waits for [`Clock::moved`]. The machine's clock is left alone;
    /// returns the time after the move.
    pub fn advance(&self, by: Duration) -> Timestamp {
        if let Self::Movable(moved) | Self::Manual(moved) = self {
            moved.micros.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
            moved.changed.notify_waiters();
        }
        self.now()
    }

    /// Sets a manual clock to a moment, also an earlier one: how a test makes time jump back.
    pub fn set(&self, to: Timestamp) {
        if let Self::Manual(moved) = self {
            moved.micros.store(to.0, Ordering::SeqCst);
            moved.changed.notify_waiters();
        }
    }

    /// Completes at the next [`Clock::advance`] after this call; never on the machine's clock.
    pub fn moved(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        match self {
            Self::System => Box::pin(std::future::pending()),
            // Made here and not when first polled: a move in between is not missed.
            Self::Movable(moved) | Self::Manual(moved) => Box::pin(moved.changed.notified()),
        }
    }

    /// A monotonic reading for measuring how long something took; moving the clock does not change it.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn stopwatch() -> Instant {
        Instant::now()
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
fn system_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_decimals_and_sort_as_text() {
        assert_eq!(Timestamp::from_micros(1_700_000_000_000_000).to_string(), "2023-11-14T22:13:20.000000Z");
        assert_eq!(Timestamp::from_micros(1_700_000_000_000_001).to_string(), "2023-11-14T22:13:20.000001Z");
    }

    #[test]
    fn a_manual_clock_moves_only_when_it_is_moved() {
        let clock = Clock::manual(Timestamp::from_micros(10));
        let twin = clock.clone();
        assert_eq!(clock.advance(Duration::from_micros(5)), Timestamp::from_micros(15));
        assert_eq!(twin.now(), Timestamp::from_micros(15));
    }
}
