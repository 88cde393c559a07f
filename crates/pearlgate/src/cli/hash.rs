//! `pearlgate hash calibrate`

use std::process::ExitCode;
use std::time::Duration;

use super::{Failure, complain, say};
use crate::passwords::{Proposal, calibrate};

/// As long as a person does not notice, and two sign-ins a second for each core.
const KIB_PER_MIB: u32 = 1_024;

pub(super) fn run(target: &str, most_memory_mib: u32) -> Result<ExitCode, Failure> {
    let target = humantime::parse_duration(target)
        .ok()
        .filter(|target| (Duration::from_millis(1)..=Duration::from_secs(10)).contains(target))
        .ok_or_else(|| Failure::Other("--target: give a time from 1ms to 10s, such as 250ms".into()))?;
    complain("measuring Argon2id on this machine, one thread; keep it idle meanwhile");
    let proposal = calibrate(target, most_memory_mib.saturating_mul(KIB_PER_MIB), &mut |measured| {
        complain(&line(measured));
    });
    let proposal = proposal.ok_or_else(|| Failure::Other("Argon2 could not be run".into()))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    say(&format!(
        "# {} a hash; {:.0} sign-ins a second on {cores} cores; {} MiB while all of them hash",
        in_ms(proposal.took),
        cores as f64 / proposal.took.as_secs_f64(),
        u64::from(proposal.cost.memory / KIB_PER_MIB) * cores as u64,
    ));
    if proposal.took > target * 11 / 10 {
        say(
            "# This is OWASP's least, and it takes longer than you wanted. Weaker parameters are not proposed.",
        );
    }
    say("[hashing]");
    say(&format!("memory_kib = {}", proposal.cost.memory));
    say(&format!("iterations = {}", proposal.cost.passes));
    say(&format!("parallelism = {}", proposal.cost.lanes));
    Ok(ExitCode::SUCCESS)
}

fn line(measured: Proposal) -> String {
    let cost = measured.cost;
    format!("m={} KiB, t={}, p={}: {}", cost.memory, cost.passes, cost.lanes, in_ms(measured.took))
}

fn in_ms(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}
