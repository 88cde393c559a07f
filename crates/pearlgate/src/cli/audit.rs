//! `pearlgate audit`

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use foundation::audit::{self, Checked, Checkpoint, Filter, Found, Stream};
use foundation::db::Db;
use foundation::kernel::{Clock, Id, Timestamp};
use serde_json::json;

use super::people::private;
use super::user::{open, other};
use super::{Audit, Common, Failure, WhichEvents, block_on, complain, lenient, progress, say};
use crate::accounts::{self, UserRow};
use crate::app::MIGRATIONS;
use crate::server::open_database;

/// How much is written at once.
const BUFFER: usize = 1 << 18;

pub(super) fn run(command: &Audit) -> Result<ExitCode, Failure> {
    match command {
        Audit::Verify { against, json, common } => verify(against.as_deref(), *json, common),
        Audit::Checkpoint { file, common } => checkpoint(file.as_deref(), common),
        Audit::Export { file, which, common } => export(file.as_deref(), which, common),
        Audit::List { limit, json, which, common } => list(*limit, *json, which, common),
    }
}

fn verify(against: Option<&Path>, json: bool, common: &Common) -> Result<ExitCode, Failure> {
    let against = against.map(read_checkpoint).transpose()?;
    let at = against.as_ref().map(|checkpoint| checkpoint.at);
    let bar = progress::count("chains");
    let checked = block_on(async {
        let db = database(common).await?;
        let checked = audit::verify_all(&db, against, |streams| bar.set_position(streams)).await;
        checked.map_err(|e| other(&e))
    })??;
    bar.finish_and_clear();
    if json {
        let Checked { streams, events, removed, broken } = &checked;
        let whole = checked.is_whole();
        let said = json!({
            "whole": whole, "streams": streams, "events": events, "removed": removed, "broken": broken,
        });
        say(&said.to_string());
    } else {
        report(&checked, at).iter().for_each(|line| say(line));
    }
    Ok(if checked.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn report(checked: &Checked, since: Option<Timestamp>) -> Vec<String> {
    let Checked { streams, events, removed, broken } = checked;
    let mut lines: Vec<String> =
        broken.iter().map(|one| plain(&format!("{} at {}: {}", one.stream, one.at, one.what))).collect();
    lines.push(match broken.len() {
        0 => format!("{events} events in {streams} chains: nothing was changed and nothing is missing."),
        count => format!("{count} chains do not hold; there are {streams}, with {events} events."),
    });
    if *removed > 0 {
        lines.push(format!(
            "{removed} events were removed, because they were older than audit.keep or their person was erased; nobody can say what they were."
        ));
    }
    if let Some(since) = since {
        lines.push(format!("All of it was held against the checkpoint of {since}."));
    }
    lines
}

fn read_checkpoint(path: &Path) -> Result<Checkpoint, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::Other(format!("--against: {}: {e}", path.display()));
    let file = File::open(path).map_err(|e| failed(&e))?;
    Checkpoint::read(BufReader::with_capacity(BUFFER, file)).map_err(|e| failed(&e))
}

fn checkpoint(file: Option<&Path>, common: &Common) -> Result<ExitCode, Failure> {
    let streams = block_on(async {
        let db = database(common).await?;
        let mut to = target(file)?;
        let now = Clock::System.now();
        let written = audit::checkpoint(&db, now, |line| writeln!(to, "{line}")).await;
        let streams = written.map_err(|e| other(&e))?;
        to.flush().map_err(|e| other(&e))?;
        Ok::<u64, Failure>(streams)
    })??;
    complain(&format!(
        "{streams} chains written: keep them where nobody can write who can write to the database"
    ));
    Ok(ExitCode::SUCCESS)
}

fn export(file: Option<&Path>, which: &WhichEvents, common: &Common) -> Result<ExitCode, Failure> {
    let bar = progress::count("events");
    let events = block_on(async {
        let db = database(common).await?;
        let filter = filter(which, common).await?;
        let mut to = target(file)?;
        let written = audit::export(&db, &filter, |line| {
            bar.inc(1);
            writeln!(to, "{line}")
        });
        let events = written.await.map_err(|e| other(&e))?;
        to.flush().map_err(|e| other(&e))?;
        Ok::<u64, Failure>(events)
    })??;
    bar.finish_and_clear();
    complain(&format!("{events} events written"));
    Ok(ExitCode::SUCCESS)
}

fn list(limit: u16, json: bool, which: &WhichEvents, common: &Common) -> Result<ExitCode, Failure> {
    let found = block_on(async {
        let db = database(common).await?;
        newest(&db, &filter(which, common).await?, limit).await
    })??;
    if found.is_empty() && !json {
        say("There are no such events.");
    }
    for one in &found {
        say(&if json { one.to_json() } else { plain(&line(one)) });
    }
    Ok(ExitCode::SUCCESS)
}

async fn newest(db: &Db, filter: &Filter, limit: u16) -> Result<Vec<Found>, Failure> {
    let (mut found, mut before) = (Vec::new(), i64::MAX);
    loop {
        let page = audit::search(db, filter, before, limit).await.map_err(|e| other(&e))?;
        found.extend(page.items);
        found.truncate(limit.into());
        match page.next {
            Some(next) if found.len() < usize::from(limit) => before = next,
            _ => return Ok(found),
        }
    }
}

fn line(one: &Found) -> String {
    let event = &one.recorded;
    format!(
        "{}  {:<24} {}  by {}  from {}  {}",
        event.at,
        event.kind,
        one.stream,
        or_none(&event.actor),
        or_none(&event.address),
        event.details
    )
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// What somebody put into a row does not write on the operator's terminal.
fn plain(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The database alone: whoever looks into the trail needs no master key.
async fn database(common: &Common) -> Result<Db, Failure> {
    let settings = lenient(common)?;
    if settings.database_url.is_none() && !settings.data_dir.join("pearlgate.db").exists() {
        return Err(Failure::Other(format!("there is no database in {} yet", settings.data_dir.display())));
    }
    let db = open_database(&settings)?;
    db.migrate(MIGRATIONS, Clock::System.now()).await.map_err(|e| other(&e))?;
    Ok(db)
}

/// A new file that nobody else can read, or standard output.
fn target(file: Option<&Path>) -> Result<Box<dyn Write + Send>, Failure> {
    let to: Box<dyn Write + Send> = match file {
        Some(path) => Box::new(BufWriter::with_capacity(BUFFER, private(path)?)),
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    Ok(to)
}

async fn filter(which: &WhichEvents, common: &Common) -> Result<Filter, Failure> {
    let WhichEvents { since, until, of, by, kind } = which;
    let stream = match of {
        Some(of) => Some(stream(of, common).await?),
        None => None,
    };
    let actor = match by {
        Some(by) if by.contains('@') => {
            let nobody = || Failure::Other(format!("--by: nobody has the address {by}"));
            Some(account(by, common).await?.ok_or_else(nobody)?.to_string())
        }
        by => by.clone(),
    };
    Ok(Filter {
        stream,
        actor,
        kind: kind.clone(),
        since: since.as_deref().map(|text| moment("--since", text)).transpose()?,
        until: until.as_deref().map(|text| moment("--until", text)).transpose()?,
    })
}

/// The chain of whoever has this address, or the chain of this name.
async fn stream(of: &str, common: &Common) -> Result<Stream, Failure> {
    if !of.contains('@') {
        return Ok(Stream::named(of));
    }
    if let Some(user) = account(of, common).await? {
        return Ok(Stream::of(user));
    }
    let shard = Stream::shard(&accounts::address_key(of));
    complain(&format!(
        "nobody has the address {of}: this is {}, where attempts at such addresses stand, with those at others",
        shard.name()
    ));
    Ok(shard)
}

async fn account(address: &str, common: &Common) -> Result<Option<Id<UserRow>>, Failure> {
    let app = open(common)?;
    app.db.migrate(MIGRATIONS, Clock::System.now()).await.map_err(|e| other(&e))?;
    accounts::find(&app, address).await.map_err(|e| other(&e))
}

fn moment(option: &str, text: &str) -> Result<Timestamp, Failure> {
    if let Some(at) = Timestamp::parse(text) {
        return Ok(at);
    }
    let ago = humantime::parse_duration(text).map_err(|_| {
        Failure::Other(format!(
            "{option}: {text:?} is neither a time (2026-11-26T09:00:00Z) nor how long ago (7d)"
        ))
    })?;
    Ok(Clock::System.now() - ago)
}
