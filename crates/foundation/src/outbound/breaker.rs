//! When a dependency is not asked at all: after some failures in a row it is left alone for a while, which grows; then
//! one call may try. Pure, driven by the injected clock; chance is an argument.

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
    /// Answers that take longer are used, and count as failures; none where only the budget counts.
    pub slow: Option<Duration>,
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// It answered.
    Well,
    /// It did not, or too late.
    Badly,
}

/// A part of a pause, in 256ths of its last quarter: servers that saw the same outage do not come back in the same moment.
pub(super) type Jitter = u8;

/// That a call may be made, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// As one of many.
    Ordinary,
    /// As the one that finds out whether the dependency is back.
    Try(u64),
}

/// Closed while calls go through; open while they do not.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    pauses: u32,
    /// Whether it is open, and from when on one call may try.
    open_until: Option<Timestamp>,
    /// The try that goes on.
    trying: Option<u64>,
    tries: u64,
}

impl Breaker {
    /// Whether a call may be made now; while open, one at a time once the pause is over.
    pub(super) fn admits(&mut self, patience: &Patience, now: Timestamp) -> Option<Pass> {
        if self.refuses(patience, now) {
            return None;
        }
        if !self.is_open() {
            return Some(Pass::Ordinary);
        }
        self.tries += 1;
        self.trying = Some(self.tries);
        Some(Pass::Try(self.tries))
    }

    /// Whether a call would not be let through.
    pub(super) fn refuses(&self, patience: &Patience, now: Timestamp) -> bool {
        self.open_until.is_some_and(|until| {
            // A clock that was put back does not make a pause longer than it may be.
            let over = now >= until || until > now + patience.longest;
            !over || self.trying.is_some()
        })
    }

    /// How a call went. A pause is between three quarters of what it may be and all of it.
    pub(super) fn went(
        &mut self,
        (pass, went): (Pass, Went),
        patience: &Patience,
        now: Timestamp,
        jitter: Jitter,
    ) {
        if went == Went::Well {
            *self = Self { tries: self.tries, ..Self::default() };
            return;
        }
        let tried = matches!(pass, Pass::Try(number) if self.trying == Some(number));
        if self.is_open() && !tried {
            // A call of before says nothing that is not known.
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if tried || self.failures >= patience.failures {
            let most = patience.first.saturating_mul(1 << self.pauses.min(16)).min(patience.longest);
            self.pauses = self.pauses.saturating_add(1);
            self.open_until = Some(now + (most - most / 4 * u32::from(jitter) / 256));
            self.trying = None;
        }
    }

    /// The caller went away before there was an answer.
    pub(super) fn abandoned(&mut self, pass: Pass) {
        if matches!(pass, Pass::Try(number) if self.trying == Some(number)) {
            self.trying = None;
        }
    }

    /// Whether calls do not go through.
    pub(super) fn is_open(&self) -> bool {
        self.open_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Went::{Badly, Well};
    use super::*;

    const PATIENCE: Patience =
        Patience { failures: 3, first: Duration::from_secs(1), longest: Duration::from_secs(4), slow: None };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000 + millis * 1_000)
    }

    /// One call from beginning to end.
    fn call(breaker: &mut Breaker, went: Went, millis: i64, jitter: Jitter) {
        let pass = breaker.admits(&PATIENCE, at(millis)).unwrap();
        breaker.went((pass, went), &PATIENCE, at(millis), jitter);
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_pauses_grow_until_something_works() {
        let mut breaker = Breaker::default();
        for went in [Badly, Badly, Well, Badly, Badly] {
            call(&mut breaker, went, 0, 0);
        }
        assert!(!breaker.is_open(), "a success in between starts the count anew");
        call(&mut breaker, Badly, 0, 0);
        let mut now = 0;
        for pause in [1_000, 2_000, 4_000, 4_000] {
            assert_eq!(breaker.admits(&PATIENCE, at(now + pause - 1)), None);
            now += pause;
            let pass = breaker.admits(&PATIENCE, at(now)).unwrap();
            assert_eq!(breaker.admits(&PATIENCE, at(now)), None, "one try at a time");
            breaker.went((pass, Badly), &PATIENCE, at(now), 0);
        }
        call(&mut breaker, Well, now + 4_000, 0);
        for _ in 0..2 {
            assert_eq!(breaker.admits(&PATIENCE, at(now + 4_000)), Some(Pass::Ordinary));
        }
    }

    #[test]
    fn an_abandoned_try_is_no_answer_and_a_clock_put_back_makes_no_longer_pause() {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| call(&mut breaker, Badly, 0, 0));
        let pass = breaker.admits(&PATIENCE, at(1_000)).unwrap();
        breaker.abandoned(pass);
        call(&mut breaker, Badly, 1_000, 0);
        assert!(breaker.admits(&PATIENCE, at(-3_600_000)).is_some());
    }

    #[test]
    fn calls_of_before_it_opened_end_no_try() {
        let mut breaker = Breaker::default();
        let early = breaker.admits(&PATIENCE, at(0)).unwrap();
        (0..3).for_each(|_| call(&mut breaker, Badly, 0, 0));
        let tried = breaker.admits(&PATIENCE, at(1_000)).unwrap();
        breaker.went((early, Badly), &PATIENCE, at(1_500), 0);
        breaker.abandoned(early);
        assert_eq!(breaker.admits(&PATIENCE, at(60_000)), None, "the try goes on");
        breaker.went((tried, Well), &PATIENCE, at(60_000), 0);
        assert!(!breaker.is_open());
    }

    #[test]
    fn servers_that_saw_the_same_outage_come_back_at_different_moments() {
        let opens = |jitter| {
            let mut breaker = Breaker::default();
            (0..3).for_each(|_| call(&mut breaker, Badly, 0, jitter));
            (0..).find(|millis| breaker.admits(&PATIENCE, at(*millis)).is_some()).unwrap()
        };
        assert_eq!(opens(0), 1_000);
        assert!((750..760).contains(&opens(255)), "{}", opens(255));
        assert!(opens(128) > opens(255) && opens(128) < opens(0));
    }

    /// What happens to a breaker: time passes, somebody wants to call, and a call that goes on ends somehow.
    #[derive(Debug, Clone)]
    enum Event {
        Pass(i64),
        Ask,
        End(usize, Option<Went>),
    }

    fn events() -> impl Strategy<Value = Vec<(Event, u8)>> {
        let went = prop_oneof![Just(None), Just(Some(Well)), Just(Some(Badly))];
        let event = prop_oneof![
            (0i64..6_000).prop_map(Event::Pass),
            Just(Event::Ask),
            (0usize..6, went).prop_map(|(which, went)| Event::End(which, went)),
        ];
        proptest::collection::vec((event, any::<u8>()), 0..120)
    }

    proptest! {
        /// Whatever happens: closed, everybody is let through; open, one try goes on at a time, and nobody waits longer than
        /// the longest pause for the next; it opens after three failures in a row and not before; a success closes it.
        #[test]
        fn it_keeps_its_promises_whatever_happens(events in events()) {
            let (mut breaker, mut now) = (Breaker::default(), 0);
            let mut going: Vec<Pass> = Vec::new();
            // The model: failures in a row while closed, and the try that goes on while open.
            let (mut in_a_row, mut open, mut trying) = (0, false, None);
            for (event, jitter) in events {
                match event {
                    Event::Pass(millis) => now += millis,
                    Event::Ask => match breaker.admits(&PATIENCE, at(now)) {
                        Some(pass) => {
                            prop_assert_eq!(pass == Pass::Ordinary, !open);
                            if open {
                                prop_assert_eq!(trying, None, "two tries at a time");
                                trying = Some(pass);
                            }
                            going.push(pass);
                        }
                        None => prop_assert!(open, "closed, and somebody was turned away"),
                    },
                    Event::End(which, went) if which < going.len() => {
                        let pass = going.remove(which);
                        let was_try = trying == Some(pass);
                        match went {
                            None => breaker.abandoned(pass),
                            Some(went) => breaker.went((pass, went), &PATIENCE, at(now), jitter),
                        }
                        match went {
                            Some(Well) => (in_a_row, open, trying) = (0, false, None),
                            Some(Badly) if !open => {
                                in_a_row += 1;
                                open = in_a_row >= 3;
                            }
                            Some(Badly) | None if was_try => trying = None,
                            _ => {}
                        }
                        prop_assert_eq!(breaker.is_open(), open);
                    }
                    Event::End(..) => {}
                }
            }
            if trying.is_none() {
                prop_assert!(breaker.admits(&PATIENCE, at(now + 4_000)).is_some(), "the longest pause is over");
            }
        }
    }
}
