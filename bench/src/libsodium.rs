//! The raw Argon2id rate against libsodium's, which is C with vectors as wide as the processor has.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use foundation::kernel::{Entropy, Secret};
use pearlgate::passwords::{Attempt, HashPool, Peppers, Verdict, bare_rate};

use crate::measures::{COST, DEFAULT, temporary};
use crate::table::{Table, median};
use crate::{Measured, ROUNDS};

const TIME: Duration = Duration::from_secs(3);
/// What both sides hash.
const PASSWORD: &str = "correct horse battery staple";

/// The row; words in the place of the figure where there is no libsodium.
pub(crate) async fn raw(table: &mut Table) -> Measured<()> {
    let (what, goal) = ("raw Argon2id ÷ libsodium's", "≥ 1.0");
    let dir = temporary()?;
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let (mut ours, mut theirs, mut ratios, mut version) = (vec![], vec![], vec![], String::new());
    if let Err(why) = compile(dir.path()) {
        table.row(what, format!("not measured: {why}"), goal, COST);
        return Ok(());
    }
    for _ in 0..ROUNDS {
        let our = bare_rate(DEFAULT, cores, TIME);
        let (their, of, hash) = rate(dir.path(), cores)?;
        same_work(&hash).await?;
        ours.push(our);
        theirs.push(their);
        ratios.push(our / their);
        version = of;
    }
    let (ours, theirs, ratio) = (median(ours), median(theirs), median(ratios));
    table.judged(
        what,
        format!("{ratio:.3} ({ours:.1}/s ÷ {theirs:.1}/s)"),
        goal,
        ratio >= 1.0,
        &format!("{COST}, {cores} threads; `crypto_pwhash` of Debian's libsodium {version} in a process of its own, which takes its memory anew for each hash, as its interface has it; ours uses it again"),
    );
    Ok(())
}

fn compile(dir: &Path) -> Measured<()> {
    let source = dir.join("sodium.c");
    std::fs::write(&source, include_str!("sodium.c")).map_err(|e| e.to_string())?;
    let out = Command::new("cc")
        .args(["-O2", "-pthread", "-o"])
        .arg(dir.join("sodium"))
        .arg(source)
        .arg("-lsodium")
        .output()
        .map_err(|e| format!("there is no C compiler: {e}"))?;
    let words = String::from_utf8_lossy(&out.stderr);
    if out.status.success() {
        return Ok(());
    }
    Err(format!("install libsodium-dev ({})", words.lines().next().unwrap_or_default().replace('|', "/")))
}

/// Hashes per second, the library's version, and a hash.
fn rate(dir: &Path, threads: usize) -> Measured<(f64, String, String)> {
    let numbers = [u128::from(DEFAULT.memory), u128::from(DEFAULT.passes), threads as u128, TIME.as_millis()];
    let out = Command::new(dir.join("sodium"))
        .args(numbers.map(|number| number.to_string()))
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut words = text.split_whitespace().map(str::to_owned);
    match (words.next().and_then(|rate| rate.parse().ok()), words.next(), words.next()) {
        (Some(rate), Some(version), Some(hash)) => Ok((rate, version, hash)),
        _ => Err(format!("libsodium could not hash: {text:?}")),
    }
}

/// A hash that they made is of our parameters and our code finds it right: both do the same work.
async fn same_work(hash: &str) -> Measured<()> {
    let cost = format!("$m={},t={},p={}$", DEFAULT.memory, DEFAULT.passes, DEFAULT.lanes);
    let pool = HashPool::start(DEFAULT, Peppers::default(), 1, 1, Entropy::System)?;
    let attempt = Attempt::accept("password", &Secret::new(PASSWORD.into())).map_err(|e| e.message)?;
    let checked = pool.verify(&attempt, Some(hash)).await.map_err(|e| e.to_string())?;
    if hash.contains(&cost) && checked.verdict == Verdict::Right {
        return Ok(());
    }
    Err(format!("libsodium does other work than we: {hash}"))
}
