//! `cargo xtask bench`: ratios, each taken in one run, A and B in turn, medians of the rounds.
//!
//! The program is measured from outside, in release, with its default settings; what it is compared with (bare
//! hashes, bare transactions) runs in this process with the same code. Client and server share the machine.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod access;
mod bulk;
mod client;
mod libsodium;
mod measures;
mod nodes;
mod program;
mod queue;
mod size;
mod storm;
mod table;
mod timing;

use std::process::ExitCode;

/// The program's allocator, so that what runs here is comparable: huge pages under Argon2's memory matter.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds of A and B; the medians count.
const ROUNDS: usize = 5;

/// What a measure gives: or words about why not.
type Measured<T> = Result<T, String>;

const HELP: &str = "\
cargo xtask bench [NAME…]                the ordinary measures, or those whose name contains one of the words:
                                         start, writes, login, libsodium, refresh, session, postgres, nodes,
                                         size, memory, storm, kills
cargo xtask bench --timing [SAMPLES] [STAGE…]
                                         does the time of an answer tell what account there is? 10,000 of each kind:
                                         50 min; stages are usual, load, kinds, locked, mails
cargo xtask bench --races [ROUNDS]       the suite's races: mailed secrets 10,000 rounds, refreshes a tenth
cargo xtask bench --queue [JOBS]         do healthy jobs keep flowing, beside poison and an open transaction? 20,000 a round
cargo xtask bench --access               a decision, and finding people, among a million with roles
cargo xtask bench --import [--people N]  `pearlgate import users` of 1,000,000 people
cargo xtask bench --breach [--lines N]   `pearlgate breach build` of 20,000,000 lines
All but the kills are on an idle machine or mean little. Only a run of all ordinary measures changes the guide's page.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words.contains(&"--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    match runtime.block_on(run(&words)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A thousand clients need more files than a process usually may have open.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

async fn run(words: &[&str]) -> Measured<()> {
    let number =
        |text: &str| text.replace(['_', ','], "").parse().map_err(|_| format!("{text:?} is no number"));
    let mut table = table::Table::new();
    match words {
        ["--timing"] => timing::run(&mut table, timing::SAMPLES, &[]).await?,
        ["--timing", samples, stages @ ..] => timing::run(&mut table, number(samples)?, stages).await?,
        ["--races"] => measures::races(&mut table, measures::RACES)?,
        ["--races", rounds] => measures::races(&mut table, number(rounds)?)?,
        ["--access"] => access::access(&mut table).await?,
        ["--queue"] => queue::run(&mut table, queue::JOBS).await?,
        ["--queue", jobs] => queue::run(&mut table, number(jobs)?).await?,
        ["--import"] => bulk::import(&mut table, bulk::PEOPLE).await?,
        ["--import", "--people", people] => bulk::import(&mut table, number(people)?).await?,
        ["--breach"] => bulk::breach(&mut table, bulk::LINES).await?,
        ["--breach", "--lines", lines] => bulk::breach(&mut table, number(lines)?).await?,
        [option, ..] if option.starts_with('-') => {
            return Err(format!("cannot understand {words:?}\n{HELP}"));
        }
        names => return ordinary(&mut table, names).await,
    }
    table.print();
    Ok(())
}

async fn ordinary(table: &mut table::Table, wanted: &[&str]) -> Measured<()> {
    let want = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    if want("start") {
        measures::start(table).await?;
    }
    if want("writes") {
        measures::writes(table).await?;
    }
    if want("login") {
        measures::hashing(table).await?;
    }
    if want("libsodium") {
        libsodium::raw(table).await?;
    }
    if want("refresh") {
        measures::refresh(table).await?;
    }
    if want("session") {
        measures::session(table).await?;
    }
    if want("postgres") {
        nodes::refresh(table).await?;
    }
    if want("nodes") {
        nodes::sign_out(table).await?;
    }
    if want("size") {
        size::size(table).await?;
    }
    if want("memory") {
        storm::memory(table).await?;
    }
    if want("storm") {
        storm::storms(table).await?;
    }
    if want("kills") {
        measures::kills(table)?;
    }
    table.print();
    if wanted.is_empty() { table.keep("docs/guide/performance.md") } else { Ok(()) }
}
