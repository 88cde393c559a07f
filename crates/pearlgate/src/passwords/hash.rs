//! The hashing pool: as many threads as cores, each with memory of its own that is used again and again, behind a
//! queue that refuses instead of growing. The permit is the thread itself: a client that goes away frees nothing
//! early and costs nothing while it waits (its work is skipped).

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use foundation::kernel::{Clock, Entropy, Problem};
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;

use super::{Attempt, Password};
use crate::settings::MAX_HASH_MEMORY;

const SALT: usize = 16;
const OUTPUT: usize = 32;
/// Passes that a stored hash may ask for: more would be somebody's attempt to keep a thread busy.
const MAX_PASSES: u32 = 64;

/// Argon2id's cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// KiB.
    pub memory: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// What checking a password found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one.
    Right,
    /// It is not, or there is none.
    Wrong,
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

type Work = Box<dyn FnOnce(&mut Vec<Block>) + Send>;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct HashPool {
    queue: SyncSender<Work>,
    cost: Cost,
    chance: Entropy,
    /// Checked when there is no hash to check, so that "nobody" takes as long as "wrong".
    dummy: Arc<str>,
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
    pub fn start(cost: Cost, threads: usize, queue: usize, chance: Entropy) -> Result<Self, String> {
        params(cost).map_err(|e| format!("hashing: {e}"))?;
        let (sender, receiver) = sync_channel::<Work>(queue.max(1));
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads.max(1) {
            let receiver = receiver.clone();
            std::thread::Builder::new()
                .name(format!("hash-{number}"))
                .spawn(move || serve(&receiver))
                .map_err(|e| format!("a hashing thread could not be started: {e}"))?;
        }
        let salt: [u8; SALT] = chance.bytes();
        let dummy = phc(cost, &salt, &chance.bytes()).ok_or("hashing: the cost cannot be written down")?;
        Ok(Self { queue: sender, cost, chance, dummy: dummy.into() })
    }

    /// Hashes a password with a fresh salt, as a PHC string.
    ///
    /// # Errors
    /// [`Overloaded`], before any memory is touched.
    pub async fn hash(&self, password: &Password) -> Result<String, Overloaded> {
        let (cost, salt, password) = (self.cost, self.chance.bytes::<SALT>(), password.clone());
        self.run(move |memory| {
            let out = derive(cost, password.reveal().as_bytes(), &salt, memory)?;
            phc(cost, &salt, &out)
        })
        .await?
        .ok_or(Overloaded)
    }

    /// Checks a password against a stored hash, or against a dummy of the same cost when there is none.
    ///
    /// # Errors
    /// [`Overloaded`], before any memory is touched.
    pub async fn verify(&self, attempt: &Attempt, stored: Option<&str>) -> Result<Verdict, Overloaded> {
        let (attempt, exists) = (attempt.clone(), stored.is_some());
        let stored = stored.map_or_else(|| self.dummy.to_string(), str::to_owned);
        let right = self.run(move |memory| verify(attempt.reveal().as_bytes(), &stored, memory)).await?;
        Ok(if exists && right { Verdict::Right } else { Verdict::Wrong })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let (answer, answered) = oneshot::channel();
        let job: Work = Box::new(move |memory| {
            if !answer.is_closed() {
                let started = Clock::stopwatch();
                let result = work(memory);
                metrics::histogram!("password_hash_seconds").record(started.elapsed().as_secs_f64());
                let _ = answer.send(result);
            }
        });
        if self.queue.try_send(job).is_err() {
            metrics::counter!("password_hash_refused_total").increment(1);
            return Err(Overloaded);
        }
        answered.await.map_err(|_| Overloaded)
    }
}

fn serve(work: &Mutex<Receiver<Work>>) {
    // Whoever only checks sessions must not wait behind hashing: the kernel prefers the other threads.
    let _ = rustix::process::setpriority_process(None, 10);
    let mut memory = Vec::new();
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        job(&mut memory);
    }
}

fn params(cost: Cost) -> Result<Params, argon2::Error> {
    Params::new(cost.memory, cost.passes, cost.lanes, Some(OUTPUT))
}

fn derive(cost: Cost, password: &[u8], salt: &[u8], memory: &mut Vec<Block>) -> Option<[u8; OUTPUT]> {
    let params = params(cost).ok()?;
    let mut out = [0; OUTPUT];
    fill(Algorithm::Argon2id, params, password, salt, &mut out, memory)?;
    Some(out)
}

fn fill(
    algorithm: Algorithm,
    params: Params,
    password: &[u8],
    salt: &[u8],
    out: &mut [u8],
    memory: &mut Vec<Block>,
) -> Option<()> {
    let blocks = params.block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::default());
    }
    let argon = Argon2::new(algorithm, Version::V0x13, params);
    argon.hash_password_into_with_memory(password, salt, out, memory.get_mut(..blocks)?).ok()
}

fn phc(cost: Cost, salt: &[u8], out: &[u8; OUTPUT]) -> Option<String> {
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params(cost).ok()?).ok()?,
        salt: Some(Salt::new(salt).ok()?),
        hash: Some(Output::new(out).ok()?),
    };
    Some(hash.to_string())
}

/// False for a wrong password and for a hash that is not one of ours or asks for too much.
fn verify(password: &[u8], stored: &str, memory: &mut Vec<Block>) -> bool {
    let mut check = || {
        let hash = PasswordHash::new(stored).ok()?;
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
        let params = Params::try_from(&hash).ok()?;
        if algorithm != Algorithm::Argon2id
            || params.m_cost() > MAX_HASH_MEMORY
            || params.t_cost() > MAX_PASSES
        {
            return None;
        }
        let (salt, expected) = (hash.salt?, hash.hash?);
        let mut out = vec![0; expected.len()];
        fill(algorithm, params, password, salt.as_ref(), &mut out, memory)?;
        Some(bool::from(out.as_slice().ct_eq(expected.as_bytes())))
    };
    check().unwrap_or(false)
}

/// Hashes for a while in a bare loop on `threads` threads, without pool or server: what the machine can do with
/// this code and cost. Hashes per second.
pub fn bare_rate(cost: Cost, threads: usize, time: Duration) -> f64 {
    let started = Clock::stopwatch();
    let count = |_| {
        let (mut memory, mut hashes) = (Vec::new(), 0u32);
        while started.elapsed() < time {
            let _ = derive(cost, b"correct horse battery staple", &[7; SALT], &mut memory);
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

    use super::*;

    const CHEAP: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

    fn password(text: &str) -> Password {
        Password::accept("password", &Secret::new(text.into()), 1).unwrap()
    }
    fn attempt(text: &str) -> Attempt {
        Attempt::accept("password", &Secret::new(text.into())).unwrap()
    }

    #[tokio::test]
    async fn only_exactly_the_password_is_right() {
        let pool = HashPool::start(CHEAP, 1, 8, Entropy::System).unwrap();
        let long = "correct horse battery staple ".repeat(8);
        let stored = pool.hash(&password(&long)).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{stored}");
        assert_eq!(pool.verify(&attempt(&long), Some(&stored)).await, Ok(Verdict::Right));
        for wrong in
            [long.trim(), &long[..72], &long.to_uppercase(), &format!("{long}x"), &format!("{long}\0"), ""]
        {
            assert_eq!(pool.verify(&attempt(wrong), Some(&stored)).await, Ok(Verdict::Wrong), "{wrong}");
        }
        assert_eq!(
            pool.verify(&attempt(&long), None).await,
            Ok(Verdict::Wrong),
            "nobody's password is never right"
        );
    }

    #[tokio::test]
    async fn a_hostile_hash_is_refused_without_being_computed() {
        let pool = HashPool::start(CHEAP, 1, 8, Entropy::System).unwrap();
        let salt_and_hash = "c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for hostile in ["m=4194304,t=1,p=1", "m=64,t=100000,p=1", "m=64", "t=1,m=64,p=16777216"] {
            let stored = format!("$argon2id$v=19${hostile}${salt_and_hash}");
            assert_eq!(pool.verify(&attempt("x"), Some(&stored)).await, Ok(Verdict::Wrong));
        }
        for nonsense in ["", "$", "plain", "$2y$10$abc"] {
            assert_eq!(pool.verify(&attempt("x"), Some(nonsense)).await, Ok(Verdict::Wrong));
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_abandoned_work_is_skipped() {
        let pool =
            HashPool::start(Cost { memory: 19_456, passes: 2, lanes: 1 }, 1, 2, Entropy::System).unwrap();
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
        let pool = HashPool::start(CHEAP, 1, 8, Entropy::System).unwrap();
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
        assert_eq!(busy.await.unwrap(), Ok(true));
        pool.run(|_| ()).await.unwrap();
        assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
    }
}
