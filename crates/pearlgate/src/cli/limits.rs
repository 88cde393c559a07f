//! `pearlgate limits`

use std::collections::HashMap;
use std::process::ExitCode;

use foundation::kernel::Clock;

use super::{Failure, Limits, Simulate, block_on, layers, say};
use crate::app::MIGRATIONS;
use crate::server::open_database;
use crate::settings::{Purpose, Settings};
use crate::sign_in::{Replay, Stopped, replay};

/// How many are named.
const NAMED: usize = 5;

pub(super) fn run(command: &Limits) -> Result<ExitCode, Failure> {
    let Limits::Simulate(options) = command;
    simulate(options)
}

fn simulate(options: &Simulate) -> Result<ExitCode, Failure> {
    let since = humantime::parse_duration(&options.since).map_err(|e| {
        Failure::Other(format!("--since: {:?} is no time: {e}; give one such as 7d", options.since))
    })?;
    if let Err(e) = std::fs::File::open(&options.policy) {
        return Err(Failure::Other(format!("--policy: {}: {e}", options.policy.display())));
    }
    let mut layers = layers(&options.common)?;
    layers.file(&options.policy)?;
    let policy = Settings::check(&layers, Purpose::Tool)?;
    if policy.database_url.is_none() && !policy.data_dir.join("pearlgate.db").exists() {
        return Err(Failure::Other(format!("there is no database in {} yet", policy.data_dir.display())));
    }
    let now = Clock::System.now();
    let other = |e: &dyn std::fmt::Display| Failure::Other(e.to_string());
    let replay = block_on(async {
        let db = open_database(&policy)?;
        db.migrate(MIGRATIONS, now).await.map_err(|e| other(&e))?;
        replay(&db, now - since, &policy).await.map_err(|e| other(&e))
    })??;
    for line in report(&replay, &options.since) {
        say(&line);
    }
    Ok(ExitCode::SUCCESS)
}

fn report(replay: &Replay, since: &str) -> Vec<String> {
    let (right, wrong, away) = replay.came;
    let all = right + wrong + away;
    let mut lines = vec![format!(
        "{all} sign-ins by password in the last {since}: {right} with the right password, {wrong} with a wrong one, \
         {away} that were turned away"
    )];
    if all == 0 {
        lines.push(
            "There is nothing to replay: sign-ins are written down from the first start of this version on, unless limits.history.per_day is 0."
                .into(),
        );
        return lines;
    }
    lines.push(format!(
        "{:<20} {:>9} {:>10} {:>10} {:>9} {:>9}",
        "this policy stops by", "attempts", "right ones", "not known", "accounts", "networks"
    ));
    for (name, stopped) in &replay.stopped {
        let Stopped { attempts, right, unknown, accounts, networks } = stopped;
        lines.push(format!(
            "{name:<20} {attempts:>9} {right:>10} {unknown:>10} {:>9} {:>9}",
            accounts.len(),
            networks.len()
        ));
    }
    for (name, stopped) in replay.stopped.iter().filter(|(_, stopped)| stopped.attempts > 0) {
        lines.push(format!("{name}, accounts: {}", most(&stopped.accounts)));
        lines.push(format!("{name}, networks: {}", most(&stopped.networks)));
    }
    let hurt: u64 = replay.stopped.iter().map(|(_, stopped)| stopped.right).sum();
    lines.push(match hurt {
        0 => "Nobody who had the right password would have been stopped.".into(),
        1 => "1 sign-in with the right password would have been stopped.".into(),
        hurt => format!("{hurt} sign-ins with the right password would have been stopped."),
    });
    lines
}

/// Those that were stopped most often.
fn most(of: &HashMap<String, u64>) -> String {
    let mut all: Vec<(&String, &u64)> = of.iter().collect();
    all.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
    let more = all.len().saturating_sub(NAMED);
    let named: Vec<String> =
        all.iter().take(NAMED).map(|(name, times)| format!("{name} ({times})")).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}
