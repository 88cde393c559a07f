//! `pearlgate hash calibrate`: what Argon2id costs on this machine, and which parameters take a given time.

use std::time::{Duration, Instant};

use foundation::kernel::Clock;

use super::argon::{self, Cost, SALT};

/// KiB: OWASP's least, and more than anybody's server should spend on one sign-in.
const LEAST: u32 = 19_456;
const MOST: u32 = 1 << 18;
const TRIES: u32 = 5;

/// Parameters and how long one hash takes with them.
#[derive(Debug, Clone, Copy)]
pub struct Proposal {
    /// The parameters.
    pub cost: Cost,
    /// The median of some hashes on one thread.
    pub took: Duration,
}

/// Looks for parameters that come closest to `target` without being weaker than OWASP's least (m = 19 MiB, t = 2):
/// memory first, which is what an attacker's hardware lacks, passes when memory is at its most. `each` hears of
/// everything that was measured.
pub fn calibrate(target: Duration, most_memory: u32, each: &mut dyn FnMut(Proposal)) -> Option<Proposal> {
    let most = most_memory.clamp(LEAST, MOST);
    let mut measure = |memory: u32, passes: u32| {
        let proposal = timed(Cost { memory, passes, lanes: 1 })?;
        each(proposal);
        Some(proposal)
    };
    let first = measure(LEAST, 2)?;
    if first.took >= target {
        return Some(first);
    }
    // Time grows with memory times passes, a little faster once the memory is larger than the caches.
    let scale = |from: Proposal, by: u32| {
        let factor = target.as_secs_f64() / from.took.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped right after")]
        let scaled = (f64::from(by) * factor) as u32;
        scaled
    };
    let memory = (scale(first, LEAST) / 1_024 * 1_024).clamp(LEAST, most);
    let second = measure(memory, 2)?;
    let memory = (scale(second, memory) / 1_024 * 1_024).clamp(LEAST, most);
    let third = if memory == second.cost.memory { second } else { measure(memory, 2)? };
    if memory < most {
        return Some(third);
    }
    let passes = scale(third, 2).clamp(2, 64);
    if passes == 2 { Some(third) } else { measure(memory, passes) }
}

fn timed(cost: Cost) -> Option<Proposal> {
    let mut memory = Vec::new();
    let mut hash = || argon::hash(cost, None, b"nine purple lanterns drift", &[7; SALT], &mut memory);
    hash()?;
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..TRIES {
        let started: Instant = Clock::stopwatch();
        hash()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Some(Proposal { cost, took: *times.get(times.len() / 2)? })
}
