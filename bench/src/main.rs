//! `cargo xtask bench`: ratios, each taken in one run, A and B in turn, medians of the rounds.
//!
//! The program is measured from outside, in release, with its default settings; what it is compared with (bare
//! hashes, bare transactions) runs in this process with the same code. Client and server share the machine.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod client;
mod measures;
mod program;
mod table;

use std::process::ExitCode;

/// The program's allocator, so that what runs here is comparable: huge pages under Argon2's memory matter.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds of A and B; the medians count.
const ROUNDS: usize = 5;

/// What a measure gives: or words about why not.
type Measured<T> = Result<T, String>;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.iter().any(|word| word == "--help") {
        println!("cargo xtask bench [NAME…]   all measures, or those whose name contains one of the words");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    match runtime.block_on(run(&wanted)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(wanted: &[String]) -> Measured<()> {
    let want = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
    let mut table = table::Table::new();
    if want("start") {
        measures::start(&mut table).await?;
    }
    if want("writes") {
        measures::writes(&mut table).await?;
    }
    if want("login") {
        measures::hashing(&mut table).await?;
    }
    if want("refresh") {
        measures::refresh(&mut table).await?;
    }
    if want("session") {
        measures::session(&mut table).await?;
    }
    if want("kills") {
        measures::kills(&mut table)?;
    }
    table.print();
    table.keep("docs/guide/performance.md")
}
