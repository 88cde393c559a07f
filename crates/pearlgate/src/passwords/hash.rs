//! The hashing pool: as many threads as cores, each with memory of its own that is used again and again, behind a
//! queue that refuses instead of growing. The permit is the thread itself: a client that goes away frees nothing
//! early and costs nothing while it waits (its work is skipped).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::Block;
use foundation::kernel::{Clock, Entropy, Problem};
use tokio::sync::oneshot;

use super::argon::{self, Cost, Peppers, SALT, Stored};
use super::{Attempt, Password, foreign};

/// Another system's hash may take longer than ours, or less time. Whoever is refused waits at least this many times as
/// long as the slowest kind here takes, ours among them, so that the wait does not tell whose hash it was.
const LEVEL: u32 = 2;
/// Nobody waits longer than this for a refusal; a busy minute must not make one.
const LONGEST: Duration = Duration::from_secs(1);

/// What checking a password found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one.
    Right,
    /// It is not, or there is none.
    Wrong,
}

/// What checking a password found, and more.
#[derive(Debug, Clone, Copy)]
pub struct Checked {
    /// Right or wrong.
    pub verdict: Verdict,
    /// It is right, and its hash should be made anew: weaker than today's, another system's, or of another pepper.
    pub outdated: bool,
    since: Instant,
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are waiting to be checked")]
pub struct Overloaded;

impl From<Overloaded> for Problem {
    fn from(_: Overloaded) -> Self {
        crate::errors::problem("overloaded").retry_after(2)
    }
}

impl Checked {
    /// How long ago the check began: right after it, how long it took.
    pub(super) fn took(&self) -> Duration {
        self.since.elapsed()
    }
}

type Work = Box<dyn FnOnce(&mut Vec<Block>) + Send>;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct HashPool {
    queue: SyncSender<Work>,
    cost: Cost,
    peppers: Arc<Peppers>,
    chance: Entropy,
    /// Checked when there is no hash to check, so that "nobody" takes as long as "wrong".
    dummy: Arc<str>,
    /// Microseconds before a refusal may be answered; 0 while nobody has another system's hash.
    level: Arc<AtomicU64>,
    /// Microseconds that a hash of today's cost takes on this machine when nothing disturbs it.
    own: Arc<AtomicU64>,
}

impl std::fmt::Debug for HashPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HashPool({:?})", self.cost)
    }
}

impl HashPool {
    /// Starts `threads` threads with room for `queue` waiting hashes.
    ///
    /// # Errors
    /// In words, when the cost is not one that Argon2 takes or no thread can be started.
    pub fn start(
        cost: Cost,
        peppers: Peppers,
        threads: usize,
        queue: usize,
        chance: Entropy,
    ) -> Result<Self, String> {
        let (sender, receiver) = sync_channel::<Work>(queue.max(1));
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads.max(1) {
            let (receiver, usual) = (receiver.clone(), argon::blocks(cost));
            std::thread::Builder::new()
                .name(format!("hash-{number}"))
                .spawn(move || serve(&receiver, usual))
                .map_err(|e| format!("a hashing thread could not be started: {e}"))?;
        }
        let dummy = argon::dummy(cost, peppers.current.as_ref(), &chance)
            .ok_or("hashing: Argon2 does not take these parameters")?;
        let level = Arc::new(AtomicU64::new(0));
        let own = Arc::new(AtomicU64::new(u64::MAX));
        Ok(Self { queue: sender, cost, peppers: Arc::new(peppers), chance, dummy: dummy.into(), level, own })
    }

    /// Hashes a password with a fresh salt, as a PHC string.
    ///
    /// # Errors
    /// [`Overloaded`], before any memory is touched.
    pub async fn hash(&self, password: &Password) -> Result<String, Overloaded> {
        self.make(password.reveal().to_owned().into()).await
    }

    /// Hashes a password that was right just now, with today's parameters.
    ///
    /// # Errors
    /// [`Overloaded`], before any memory is touched.
    pub async fn renew(&self, attempt: &Attempt) -> Result<String, Overloaded> {
        self.make(attempt.reveal().to_owned().into()).await
    }

    async fn make(&self, password: zeroize::Zeroizing<String>) -> Result<String, Overloaded> {
        let (cost, peppers, salt) = (self.cost, self.peppers.clone(), self.chance.bytes::<SALT>());
        let work = move |memory: &mut Vec<Block>| {
            argon::hash(cost, peppers.current.as_ref(), password.as_bytes(), &salt, memory)
        };
        self.run(work).await?.0.ok_or(Overloaded)
    }

    /// Checks a password against a stored hash, or against a dummy of the same cost when there is none.
    ///
    /// # Errors
    /// [`Overloaded`], before any memory is touched.
    pub async fn verify(&self, attempt: &Attempt, stored: Option<&str>) -> Result<Checked, Overloaded> {
        let (attempt, exists) = (attempt.clone(), stored.is_some());
        let stored = stored.map_or_else(|| self.dummy.to_string(), str::to_owned);
        let (cost, peppers) = (self.cost, self.peppers.clone());
        let dummy = self.dummy.clone();
        let work = move |memory: &mut Vec<Block>| check(&attempt, (&stored, &dummy), cost, &peppers, memory);
        let (found, since) = self.run(work).await?;
        if found.foreign {
            self.learn(since.elapsed());
        } else {
            self.own.fetch_min(micros(since.elapsed()), Ordering::Relaxed);
        }
        let right = exists && found.right;
        let verdict = if right { Verdict::Right } else { Verdict::Wrong };
        Ok(Checked { verdict, outdated: right && found.outdated, since })
    }

    /// Remembers how long another system's hash took.
    fn learn(&self, took: Duration) {
        self.level.fetch_max(level(took), Ordering::Relaxed);
    }

    /// What checking a password against this costs, such as `argon2id m=19456 t=2 p=1` or `bcrypt:12`.
    pub fn work(&self, stored: Option<&str>) -> String {
        let stored = stored.unwrap_or(&self.dummy);
        Stored::read(stored, self.cost).map(|ours| ours.work()).or_else(|| scheme(stored)).unwrap_or_default()
    }

    /// Sets anew how long refusals are held back: by the slowest of these.
    pub(super) fn relearn(&self, took: &[Duration]) {
        let slowest = took.iter().max().copied().unwrap_or_default();
        self.level.store(level(slowest), Ordering::Relaxed);
    }

    /// How long after its check began a refusal is held back at present; nothing while nobody has another system's
    /// hash.
    pub fn held_back(&self) -> Duration {
        let other = self.level.load(Ordering::Relaxed);
        // One that is weaker than ours is as different as one that is stronger.
        let own = self.own.load(Ordering::Relaxed).saturating_mul(LEVEL.into());
        let own = if own >= micros(LONGEST) { 0 } else { own };
        Duration::from_micros(if other == 0 { 0 } else { other.max(own) })
    }

    /// Waits until a refusal may be answered: as long after the check began as the slowest kind of hash here takes,
    /// so that an unknown address, an account of ours and an imported one are refused after the same time.
    pub async fn level(&self, checked: &Checked) {
        if let Some(rest) = self.rest(checked) {
            tokio::time::sleep(rest).await;
        }
    }

    fn rest(&self, checked: &Checked) -> Option<Duration> {
        self.held_back().checked_sub(checked.since.elapsed()).filter(|rest| !rest.is_zero())
    }

    /// Runs other work that takes a while on one of these threads, and says when it began.
    ///
    /// # Errors
    /// [`Overloaded`], before it begins.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
    ) -> Result<(T, Instant), Overloaded> {
        let (answer, answered) = oneshot::channel();
        let job: Work = Box::new(move |memory| {
            if !answer.is_closed() {
                let started = Clock::stopwatch();
                let result = work(memory);
                metrics::histogram!("password_hash_seconds").record(started.elapsed().as_secs_f64());
                let _ = answer.send((result, started));
            }
        });
        if self.queue.try_send(job).is_err() {
            metrics::counter!("password_hash_refused_total").increment(1);
            return Err(Overloaded);
        }
        answered.await.map_err(|_| Overloaded)
    }
}

/// Microseconds that refusals are held back for when the slowest hash takes so long.
fn level(took: Duration) -> u64 {
    micros((took * LEVEL).min(LONGEST))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn serve(work: &Mutex<Receiver<Work>>, usual: usize) {
    // Whoever only checks sessions must not wait behind hashing: the kernel prefers the other threads.
    let _ = rustix::process::setpriority_process(None, 10);
    let mut memory = Vec::new();
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        job(&mut memory);
        // An imported hash may have needed more; it is not kept for the next.
        if memory.len() > usual {
            memory.truncate(usual);
            memory.shrink_to_fit();
        }
    }
}

struct Found {
    right: bool,
    outdated: bool,
    foreign: bool,
}

/// Wrong for a wrong password and for a hash that is damaged or asks for too much; those cost what nobody's costs.
fn check(
    attempt: &Attempt,
    (stored, dummy): (&str, &str),
    cost: Cost,
    peppers: &Peppers,
    memory: &mut Vec<Block>,
) -> Found {
    let (typed, normalised) = (attempt.typed().as_bytes(), attempt.reveal().as_bytes());
    let as_for_nobody = |memory: &mut Vec<Block>| {
        let nobody = Stored::read(dummy, cost).map(|dummy| dummy.verify(normalised, peppers, memory));
        tracing::trace!(nobody = nobody.is_some(), "a password was checked against a dummy");
        Found { right: false, outdated: false, foreign: false }
    };
    let Some(ours) = Stored::read(stored, cost) else {
        // Some systems hash what is typed, some its normal form; for most passwords it is the same.
        return match foreign::verify(typed, stored) {
            None => as_for_nobody(memory),
            Some(right) => {
                let right =
                    right || (typed != normalised && foreign::verify(normalised, stored).unwrap_or(false));
                Found { right, outdated: true, foreign: true }
            }
        };
    };
    match ours.verify(normalised, peppers, memory) {
        Ok(right) => Found {
            right,
            outdated: ours.outdated(cost, peppers),
            // Of another cost than nobody's, so it takes another time.
            foreign: !ours.costs(cost),
        },
        Err(missing) => {
            // Nobody with this pepper can sign in: an operator must hear of it, a stranger must not.
            metrics::counter!("password_pepper_missing_total").increment(1);
            tracing::error!(
                pepper = missing.0,
                "a stored password needs a pepper that is not configured: put it into hashing.old_peppers"
            );
            as_for_nobody(memory)
        }
    }
}

/// What is written beside an imported hash: its scheme and cost.
pub fn scheme(stored: &str) -> Option<String> {
    let any = Cost { memory: 0, passes: 0, lanes: 0 };
    Stored::read(stored, any).map(|ours| ours.work()).or_else(|| foreign::scheme(stored))
}

/// Hashes for a while in a bare loop on `threads` threads, without pool or server: what the machine can do with
/// this code and cost. Hashes per second.
pub fn bare_rate(cost: Cost, threads: usize, time: Duration) -> f64 {
    let started = Clock::stopwatch();
    let count = |_| {
        let (mut memory, mut hashes) = (Vec::new(), 0u32);
        while started.elapsed() < time {
            let _ = argon::hash(cost, None, b"correct horse battery staple", &[7; SALT], &mut memory);
            hashes += 1;
        }
        hashes
    };
    let done: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|n| scope.spawn(move || count(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    f64::from(done) / started.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use foundation::kernel::Secret;

    use super::super::About;
    use super::super::argon::Pepper;
    use super::*;

    const ARGONS: [&str; 4] = [
        "$argon2i$v=19$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$/4fArS8A8OkRBH8OKddl81VlFwZkmSTUT2zdWrkF6MU",
        "$argon2d$v=19$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$jTrnrxuSJNCmQt1YqGmwd48BgJ2KkEQtdEq3Gd7ay1c",
        "$argon2i$v=16$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$KZdQdIB9+BN6vcIHzKn8UNWFIRsMt8f4BPbat73wOuM",
        "$argon2id$v=16$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$zBrcpVyEqo4fWRUJJDLaxPDGMsOBTfoPTNTloMv3+60",
    ];
    const CHEAP: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

    fn password(text: &str) -> Password {
        Password::accept("password", &Secret::new(text.into()), &About::default()).unwrap()
    }
    fn attempt(text: &str) -> Attempt {
        Attempt::accept("password", &Secret::new(text.into())).unwrap()
    }

    async fn verdict(pool: &HashPool, text: &str, stored: Option<&str>) -> Verdict {
        pool.verify(&attempt(text), stored).await.unwrap().verdict
    }

    #[tokio::test]
    async fn only_exactly_the_password_is_right() {
        let pool = HashPool::start(CHEAP, Peppers::default(), 1, 8, Entropy::System).unwrap();
        let long = "correct horse battery staple ".repeat(8);
        let stored = pool.hash(&password(&long)).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{stored}");
        assert_eq!(verdict(&pool, &long, Some(&stored)).await, Verdict::Right);
        for wrong in
            [long.trim(), &long[..72], &long.to_uppercase(), &format!("{long}x"), &format!("{long}\0"), ""]
        {
            assert_eq!(verdict(&pool, wrong, Some(&stored)).await, Verdict::Wrong, "{wrong}");
        }
        assert_eq!(verdict(&pool, &long, None).await, Verdict::Wrong, "nobody's password is never right");
    }

    #[tokio::test]
    async fn a_hostile_hash_is_refused_without_being_computed() {
        let pool = HashPool::start(CHEAP, Peppers::default(), 1, 8, Entropy::System).unwrap();
        let salt_and_hash = "c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for hostile in ["m=4194304,t=1,p=1", "m=64,t=100000,p=1", "m=64", "t=1,m=64,p=16777216"] {
            let stored = format!("$argon2id$v=19${hostile}${salt_and_hash}");
            assert_eq!(verdict(&pool, "x", Some(&stored)).await, Verdict::Wrong);
        }
        for nonsense in ["", "$", "plain", "$2y$10$abc"] {
            assert_eq!(verdict(&pool, "x", Some(nonsense)).await, Verdict::Wrong);
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_abandoned_work_is_skipped() {
        let pool = HashPool::start(
            Cost { memory: 19_456, passes: 2, lanes: 1 },
            Peppers::default(),
            1,
            2,
            Entropy::System,
        )
        .unwrap();
        let tasks: Vec<_> = (0..40)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.hash(&password("correct horse battery")).await.is_ok() })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += usize::from(task.await.unwrap());
        }
        assert!((1..40).contains(&done), "{done} of 40 were done, the others refused at once");
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_skipped() {
        let pool = HashPool::start(CHEAP, Peppers::default(), 1, 8, Entropy::System).unwrap();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let busy = pool.clone();
        let busy = tokio::spawn(async move { busy.run(move |_| wait.recv().is_ok()).await });
        let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mark = ran.clone();
        {
            let abandoned = pool.run(move |_| mark.store(true, std::sync::atomic::Ordering::SeqCst));
            tokio::pin!(abandoned);
            // Asked once, so that it stands in the queue; then its client goes away.
            assert!(
                std::future::poll_fn(|context| std::task::Poll::Ready(
                    abandoned.as_mut().poll(context).is_pending()
                ))
                .await
            );
        }
        go_on.send(()).unwrap();
        assert!(busy.await.unwrap().is_ok_and(|(received, _)| received));
        pool.run(|_| ()).await.unwrap();
        assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_hash_is_outdated_when_it_is_weaker_or_of_another_pepper() {
        let pepper = |id: &str| Pepper {
            id: id.into(),
            key: Secret::new(format!("{id} thirty-two bytes, more or less")),
        };
        let start = |cost, peppers| HashPool::start(cost, peppers, 1, 8, Entropy::System).unwrap();
        let dearer = Cost { memory: 64, passes: 2, lanes: 1 };
        let (plain, strong) = (start(CHEAP, Peppers::default()), start(dearer, Peppers::default()));
        let first = start(CHEAP, Peppers { current: Some(pepper("one")), older: vec![] });
        let second = start(CHEAP, Peppers { current: Some(pepper("two")), older: vec![pepper("one")] });
        let stored = plain.hash(&password("correct horse")).await.unwrap();
        for (pool, outdated) in [(&plain, false), (&strong, true), (&first, true)] {
            let checked = pool.verify(&attempt("correct horse"), Some(&stored)).await.unwrap();
            assert_eq!((checked.verdict, checked.outdated), (Verdict::Right, outdated));
        }
        let checked = plain.verify(&attempt("wrong horse"), Some(&stored)).await.unwrap();
        assert_eq!(
            (checked.verdict, checked.outdated),
            (Verdict::Wrong, false),
            "nothing is made anew from a wrong one"
        );

        let stored = first.hash(&password("correct horse")).await.unwrap();
        assert!(stored.contains("keyid="), "{stored}");
        for (pool, outdated) in [(&first, false), (&second, true)] {
            let checked = pool.verify(&attempt("correct horse"), Some(&stored)).await.unwrap();
            assert_eq!((checked.verdict, checked.outdated), (Verdict::Right, outdated));
        }
        assert_eq!(
            verdict(&plain, "correct horse", Some(&stored)).await,
            Verdict::Wrong,
            "without the pepper it is nothing"
        );
        let renewed = second.renew(&attempt("correct horse")).await.unwrap();
        assert!(!second.verify(&attempt("correct horse"), Some(&renewed)).await.unwrap().outdated);
    }

    #[tokio::test]
    async fn a_weaker_hash_is_held_back_as_long_as_ours_take() {
        let cost = |memory| Cost { memory, passes: 2, lanes: 1 };
        let start = |cost| HashPool::start(cost, Peppers::default(), 1, 8, Entropy::System).unwrap();
        let (ours, weaker) = (start(cost(4_096)), start(cost(64)));
        let stored = weaker.hash(&password("correct horse")).await.unwrap();
        let own = ours.verify(&attempt("nobody"), None).await.unwrap().took();
        assert!(ours.held_back().is_zero(), "as long as every hash costs the same");
        ours.verify(&attempt("wrong horse"), Some(&stored)).await.unwrap();
        assert!(ours.held_back() > own / 2, "{:?} beside {own:?}", ours.held_back());
    }

    #[tokio::test]
    async fn the_other_argons_and_versions_are_checked_and_replaced() {
        // Made by argon2-cffi 25.1.0 (the reference implementation): argon2i and argon2d, and version 0x10.
        let pool = HashPool::start(CHEAP, Peppers::default(), 1, 8, Entropy::System).unwrap();
        for stored in ARGONS {
            let checked = pool.verify(&attempt("nine purple lanterns drift"), Some(stored)).await.unwrap();
            assert_eq!((checked.verdict, checked.outdated), (Verdict::Right, true), "{stored}");
            assert_eq!(verdict(&pool, "nine purple lanterns", Some(stored)).await, Verdict::Wrong);
        }
    }

    #[tokio::test]
    async fn a_refusal_waits_until_the_slowest_kind_of_hash_would_be_done() {
        let pool = HashPool::start(CHEAP, Peppers::default(), 1, 8, Entropy::System).unwrap();
        let checked = pool.verify(&attempt("x"), None).await.unwrap();
        assert_eq!(pool.rest(&checked), None, "nobody has another system's hash");
        pool.learn(Duration::from_millis(400));
        assert!(pool.rest(&checked).unwrap() > Duration::from_millis(500), "twice the slowest");
        pool.learn(Duration::from_secs(20));
        assert!(pool.held_back() <= Duration::from_secs(1), "nobody waits for ever");
        pool.relearn(&[]);
        assert_eq!(pool.rest(&checked), None);
    }
}
