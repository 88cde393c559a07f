//! A dependency, and the guard that every call to it goes through.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;

use super::breaker::{Breaker, Pass, Patience, Went};
use super::faults::{Fault, Switch};
use crate::kernel::{Clock, Entropy, Timestamp};

/// How late the `slow` fault answers: after ten seconds, and later than any budget.
const SLOW: Duration = Duration::from_millis(10_500);

/// What was not called for so long says nothing of how it is any more.
const HEARD_OF: Duration = Duration::from_secs(2 * 3_600);

/// What a dependency is and what it may cost.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name on `/health/dependencies`, such as `mail.primary`.
    pub name: String,
    /// The time that one call may take, connecting included.
    pub timeout: Duration,
    /// What people notice while it is away; shown to operators.
    pub degraded: &'static str,
    /// When it is left alone for a while; none where every call is worth its wait.
    pub patience: Option<Patience>,
    /// Calls at a time; one more is not made. What hangs holds no more of us than that.
    pub at_a_time: usize,
}

/// Why a call gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It did not answer within its budget.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// It could not be reached, or what it said was not an answer.
    #[error("{0}")]
    Away(String),
    /// It answered, and the answer is no: trying again changes nothing. Counts as healthy.
    #[error("{0}")]
    Refused(String),
    /// It was not asked: it is left alone for a moment, or too many wait for it.
    #[error("{0}")]
    Spared(String),
}

/// How a dependency is.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// Its name.
    pub name: String,
    /// `up`, `down`, or `unknown` before the first call.
    pub state: &'static str,
    /// Since when it is so.
    #[serde(serialize_with = "as_text")]
    pub since: Timestamp,
    /// The last failure, or nothing.
    pub last_error: String,
    /// What people notice while it is away; nothing while it is not.
    pub degraded: &'static str,
    /// Calls that were not made since the server started: it was left alone for a moment, or too many waited for it.
    pub short_circuited: u64,
}

fn as_text<S: serde::Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(at)
}

/// One dependency. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dependency(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    clock: Clock,
    chance: Entropy,
    switch: Arc<Switch>,
    seen: Mutex<Seen>,
    breaker: Mutex<Breaker>,
    places: Semaphore,
    spared: AtomicU64,
    /// Those that share this name. One that nobody holds any more is forgotten.
    branches: Mutex<Vec<Weak<Inner>>>,
    /// What this is one of several of, and which one: for the log.
    root: Option<(Dependency, String)>,
}

#[derive(Debug, Clone)]
struct Seen {
    up: Option<bool>,
    since: Timestamp,
    at: Timestamp,
    last_error: String,
}

impl Seen {
    fn nothing(now: Timestamp) -> Self {
        Self { up: None, since: now, at: now, last_error: String::new() }
    }
}

impl Dependency {
    /// One of several under this name, with a breaker and places of its own: what is done about one that is away holds
    /// for that one alone. Their name is down while one of them is.
    #[must_use]
    pub fn branch(&self, label: &str, patience: Patience, at_a_time: usize) -> Self {
        let root = &self.0;
        let branch = Self(Arc::new(Inner {
            settings: Settings { patience: Some(patience), at_a_time, ..root.settings.clone() },
            clock: root.clock.clone(),
            chance: root.chance.clone(),
            switch: root.switch.clone(),
            seen: Mutex::new(Seen::nothing(root.clock.now())),
            breaker: Mutex::default(),
            places: Semaphore::new(at_a_time),
            spared: AtomicU64::new(0),
            branches: Mutex::default(),
            root: Some((self.clone(), label.to_owned())),
        }));
        let mut branches = root.branches.lock().unwrap_or_else(PoisonError::into_inner);
        branches.retain(|one| one.strong_count() > 0);
        branches.push(Arc::downgrade(&branch.0));
        branch
    }

    /// Runs `call` within the dependency's time budget and remembers how it went.
    ///
    /// # Errors
    /// [`CallError`]; whoever calls declares what happens then.
    pub async fn call<T>(&self, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        self.call_if(call, || true).await
    }

    /// The same for a call that may find that there is nothing to ask: then its success says nothing.
    pub(super) async fn call_if<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
        was_asked: impl Fn() -> bool,
    ) -> Result<T, CallError> {
        let started = Clock::stopwatch();
        let name = &self.0.settings.name;
        let Ok(_place) = self.0.places.try_acquire() else {
            return Err(self.spared("too many calls wait for"));
        };
        let mut asked = self.admitted()?;
        let outcome = tokio::time::timeout(self.0.settings.timeout, self.faulty(call))
            .await
            .unwrap_or_else(|_| Err(CallError::Timeout(name.clone())));
        if outcome.is_ok() && !was_asked() {
            return outcome;
        }
        let word = match &outcome {
            Ok(_) | Err(CallError::Refused(_)) => "answered",
            Err(_) => "failed",
        };
        metrics::counter!("outbound_calls_total", "dependency" => name.clone(), "outcome" => word)
            .increment(1);
        metrics::histogram!("outbound_seconds", "dependency" => name.clone())
            .record(started.elapsed().as_secs_f64());
        let late = |slow: Duration| started.elapsed() > slow;
        let badly = matches!(outcome, Err(CallError::Timeout(_) | CallError::Away(_)))
            || self.0.settings.patience.is_some_and(|patience| patience.slow.is_some_and(late));
        asked.went(if badly { Went::Badly } else { Went::Well });
        self.remember(outcome.as_ref().err());
        outcome
    }

    /// Whether a call would not be made now.
    pub fn is_left_alone(&self) -> bool {
        let Some(patience) = self.0.settings.patience.as_ref() else { return false };
        let breaker = self.0.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        breaker.refuses(patience, self.0.clock.now())
    }

    /// A call was not even begun because it would not be made.
    pub fn note_spared(&self) {
        let _ = self.spared("for a moment nobody asks");
    }

    fn admitted(&self) -> Result<Asked<'_>, CallError> {
        let Some(patience) = self.0.settings.patience.as_ref() else {
            return Ok(Asked { inner: &self.0, pass: None });
        };
        let mut breaker = self.0.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        match breaker.admits(patience, self.0.clock.now()) {
            Some(pass) => Ok(Asked { inner: &self.0, pass: Some(pass) }),
            None => Err(self.spared("for a moment nobody asks")),
        }
    }

    /// A call that is not made.
    fn spared(&self, why: &str) -> CallError {
        let name = &self.0.settings.name;
        self.0.spared.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("outbound_calls_total", "dependency" => name.clone(), "outcome" => "spared")
            .increment(1);
        CallError::Spared(format!("{why} {name}"))
    }

    async fn faulty<T>(&self, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        match self.0.switch.next() {
            Fault::None | Fault::Flaky => {}
            Fault::Down => return Err(CallError::Away("connection refused (injected)".into())),
            Fault::Hang => std::future::pending().await,
            Fault::Slow => tokio::time::sleep(SLOW).await,
            Fault::Error => return Err(CallError::Away("it answered 500 (injected)".into())),
            Fault::Garbage => return Err(CallError::Away("its answer makes no sense (injected)".into())),
            Fault::Huge => {
                return Err(CallError::Away("its answer is larger than allowed (injected)".into()));
            }
        }
        call.await
    }

    fn remember(&self, error: Option<&CallError>) {
        let error = error.filter(|e| !matches!(e, CallError::Refused(_)));
        let (up, now, name) = (error.is_none(), self.0.clock.now(), &self.0.settings.name);
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let news = seen.up != Some(up);
        if news {
            (seen.up, seen.since) = (Some(up), now);
        }
        seen.at = now;
        if let Some(error) = error {
            seen.last_error = error.to_string().chars().take(300).collect();
        }
        drop(seen);
        let (root, part) = self.0.root.as_ref().map_or((self, ""), |(root, part)| (root, part.as_str()));
        if news {
            match error {
                Some(error) => tracing::warn!(dependency = name, part, %error, "a dependency went away"),
                None => tracing::info!(dependency = name, part, "a dependency answers"),
            }
        }
        let health = root.health();
        metrics::gauge!("outbound_up", "dependency" => name.clone()).set(if health.state == "up" {
            1.0
        } else {
            0.0
        });
        #[expect(clippy::cast_precision_loss, reason = "seconds of this millennium are exact in a float")]
        let since = health.since.seconds() as f64;
        metrics::gauge!("outbound_since_seconds", "dependency" => name.clone()).set(since);
    }

    /// How it is.
    pub fn health(&self) -> Health {
        let branches = self.0.branches.lock().unwrap_or_else(PoisonError::into_inner);
        let branches: Vec<Arc<Inner>> = branches.iter().filter_map(Weak::upgrade).collect();
        let now = self.0.clock.now();
        let of = |inner: &Inner| inner.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let spared = |inner: &Inner| inner.spared.load(Ordering::Relaxed);
        // The worst of them, and of those the one that has been so for longest.
        let heard_of = branches.iter().map(|one| of(one)).filter(|seen| seen.at + HEARD_OF >= now);
        let all = std::iter::once(of(&self.0)).chain(heard_of);
        let worst = |seen: &Seen| (seen.up.map_or(2, i32::from), seen.since);
        let seen = all.min_by_key(worst).unwrap_or_else(|| of(&self.0));
        let away = seen.up == Some(false);
        Health {
            name: self.0.settings.name.clone(),
            state: seen.up.map_or("unknown", |up| if up { "up" } else { "down" }),
            since: seen.since,
            last_error: seen.last_error,
            degraded: if away { self.0.settings.degraded } else { "" },
            short_circuited: spared(&self.0) + branches.iter().map(|one| spared(one)).sum::<u64>(),
        }
    }
}

/// A call that a breaker let through; one that is dropped before its answer leaves the breaker as it was.
struct Asked<'d> {
    inner: &'d Inner,
    pass: Option<Pass>,
}

impl Asked<'_> {
    fn with(&mut self, f: impl FnOnce(&mut Breaker, Pass, &Patience)) {
        if let (Some(pass), Some(patience)) = (self.pass.take(), self.inner.settings.patience.as_ref()) {
            f(&mut self.inner.breaker.lock().unwrap_or_else(PoisonError::into_inner), pass, patience);
        }
    }

    fn went(&mut self, went: Went) {
        let (now, [jitter]) = (self.inner.clock.now(), self.inner.chance.bytes::<1>());
        self.with(|breaker, pass, patience| breaker.went((pass, went), patience, now, jitter));
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.with(|breaker, pass, _| breaker.abandoned(pass));
    }
}

/// Every dependency of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dependencies {
    clock: Clock,
    chance: Entropy,
    all: Arc<Mutex<Vec<Dependency>>>,
}

impl Dependencies {
    /// None yet.
    pub fn new(clock: Clock, chance: Entropy) -> Self {
        Self { clock, chance, all: Arc::default() }
    }

    /// Adds one and gives the handle through which it is called.
    pub fn add(&self, settings: Settings) -> Dependency {
        let seen = Seen::nothing(self.clock.now());
        let inner = Inner {
            places: Semaphore::new(settings.at_a_time),
            spared: AtomicU64::new(0),
            settings,
            clock: self.clock.clone(),
            chance: self.chance.clone(),
            switch: Arc::default(),
            seen: Mutex::new(seen),
            breaker: Mutex::default(),
            branches: Mutex::default(),
            root: None,
        };
        let dependency = Dependency(Arc::new(inner));
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(dependency.clone());
        dependency
    }

    /// Takes one off the list: nobody calls it any more.
    pub fn remove(&self, dependency: &Dependency) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| !Arc::ptr_eq(&one.0, &dependency.0));
    }

    /// How they are, in the order in which they were added.
    pub fn health(&self) -> Vec<Health> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Dependency::health).collect()
    }

    /// Breaks (or mends) the dependency of this name; false when there is none.
    pub fn break_with(&self, name: &str, fault: Fault) -> bool {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().find(|d| d.0.settings.name == name);
        if let Some(dependency) = found {
            dependency.0.switch.set(fault);
        }
        found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dependency(timeout: Duration) -> (Dependencies, Dependency) {
        let all = Dependencies::new(Clock::manual(Timestamp::from_micros(7)), Entropy::System);
        let one = all.add(Settings {
            name: "mail.primary".into(),
            timeout,
            degraded: "mail is late",
            patience: None,
            at_a_time: 2,
        });
        (all, one)
    }

    async fn works() -> Result<u8, CallError> {
        Ok(1)
    }

    #[tokio::test(start_paused = true)]
    async fn every_fault_ends_within_the_budget_and_is_seen() {
        for name in ["down", "hang", "slow", "error", "garbage", "huge"] {
            let (all, one) = dependency(Duration::from_secs(5));
            assert_eq!(one.health().state, "unknown");
            assert!(all.break_with("mail.primary", name.parse().unwrap()));
            assert!(one.call(works()).await.is_err(), "{name}");
            let health = one.health();
            assert_eq!((health.state, health.degraded), ("down", "mail is late"), "{name}");
            all.break_with("mail.primary", Fault::None);
            assert_eq!(one.call(works()).await, Ok(1), "{name}");
            assert_eq!((one.health().state, one.health().degraded), ("up", ""), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn flaky_works_one_time_in_three() {
        let (all, one) = dependency(Duration::from_secs(5));
        all.break_with("mail.primary", Fault::Flaky);
        let mut worked = 0;
        for _ in 0..9 {
            worked += usize::from(one.call(works()).await.is_ok());
        }
        assert_eq!(worked, 3);
        assert!(!all.break_with("nobody", Fault::Down));
        assert_eq!("sideways".parse::<Fault>(), Err(crate::outbound::UnknownFault));
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_holds_no_more_than_its_places() {
        let (all, one) = dependency(Duration::from_secs(5));
        all.break_with("mail.primary", Fault::Hang);
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let one = one.clone();
                tokio::spawn(async move { one.call(works()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let third = one.call(works()).await.unwrap_err();
        assert!(third.to_string().contains("too many calls"), "{third}");
        assert_eq!((one.health().state, one.health().short_circuited), ("unknown", 1), "nobody was asked");
        all.break_with("mail.primary", Fault::None);
        for one in waiting {
            assert!(matches!(one.await.unwrap(), Err(CallError::Timeout(_))));
        }
        assert_eq!(one.call(works()).await, Ok(1));
    }

    #[tokio::test]
    async fn a_late_answer_is_used_and_counts_as_none() {
        let all = Dependencies::new(Clock::manual(Timestamp::from_micros(7)), Entropy::System);
        let patience = Patience {
            failures: 2,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(4),
            slow: Some(Duration::ZERO),
        };
        let settings = Settings {
            name: "slow".into(),
            timeout: Duration::from_secs(5),
            degraded: "",
            patience: Some(patience),
            at_a_time: 2,
        };
        let one = all.add(settings);
        for _ in 0..2 {
            assert_eq!(one.call(works()).await, Ok(1));
        }
        assert!(one.call(works()).await.is_err(), "left alone");
        assert_eq!(one.health().short_circuited, 1);
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer() {
        let (_, one) = dependency(Duration::from_secs(5));
        let refused = one.call(async { Err::<(), _>(CallError::Refused("no such mailbox".into())) }).await;
        assert!(matches!(refused, Err(CallError::Refused(_))));
        assert_eq!(one.health().state, "up");
    }
}
