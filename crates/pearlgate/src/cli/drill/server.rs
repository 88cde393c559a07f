//! A throwaway server: this program once more, in dev mode, on a directory that goes with it.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use foundation::kernel::{Entropy, Secret};
use rustix::process::Signal;
use serde_json::json;

use super::flows::PASSWORD;
use super::process::{Process, Throwaway};
use super::receiver::Receiver;
use super::stage::Cast;
use crate::cli::{Common, Failure, lenient};
use crate::passwords::{About, Cost, HashPool, Password, Peppers};
use crate::settings::Settings;

/// Lines of its log that are shown when something went wrong.
const LAST: usize = 10;

/// A running server.
pub(super) struct Server {
    // The fields are dropped in their order: first it ends, then its directory goes.
    _process: Process,
    pub(super) url: String,
    dir: Throwaway,
}

impl Server {
    /// Starts one in which these people have accounts, on SQLite or on the PostgreSQL at this address.
    pub(super) async fn start(cast: Option<&Cast>, database: Option<&str>) -> Result<Self, Failure> {
        let (settings, dir) = (lenient(&Common { data: None, config: None })?, Throwaway::make()?);
        if let Some(cast) = cast {
            import(&settings, dir.path(), cast).await?;
        }
        let mut command = program(&settings, dir.path())?;
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        if let Some(url) = database {
            command.env("PEARLGATE__DATABASE__URL", url);
        }
        let mut process = Process::start(&mut command, Signal::KILL)?;
        let line = process.first_line().await;
        match line.trim().strip_prefix("listening on ") {
            Some(url) => Ok(Self { _process: process, url: url.to_owned(), dir }),
            None => Err(failed("the drill's own server did not start", dir.path())),
        }
    }

    /// Has somebody told what happens there.
    pub(super) async fn tell(&self, receiver: Receiver) -> Result<Receiver, Failure> {
        let settings = lenient(&Common { data: None, config: None })?;
        let mut command = program(&settings, self.dir.path())?;
        command
            .args(["webhook", "add", &receiver.url])
            .env("PEARLGATE__WEBHOOKS__PRIVATE_HOSTS", "127.0.0.1");
        let status = Process::start(&mut command, Signal::KILL)?.ended().await?;
        let why = "nobody could be told what happens";
        if status.success() { Ok(receiver) } else { Err(failed(why, self.dir.path())) }
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        last_words(self.dir.path())
    }
}

/// This program, with nothing of what surrounds us: that may be the environment of a server in production.
/// Hashes cost what they cost there, and the drill may say where everybody comes from.
fn program(settings: &Settings, dir: &Path) -> Result<Command, Failure> {
    let failed = |e: std::io::Error| Failure::Other(format!("this program cannot be started again: {e}"));
    let log = File::options().create(true).append(true).open(dir.join("log")).map_err(failed)?;
    let (memory, passes, lanes) = settings.hash_cost;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command
        .env_clear()
        .env("PEARLGATE__DATA__DIR", dir)
        .env("PEARLGATE__HASHING__MEMORY_KIB", memory.to_string())
        .env("PEARLGATE__HASHING__ITERATIONS", passes.to_string())
        .env("PEARLGATE__HASHING__PARALLELISM", lanes.to_string())
        .env("PEARLGATE__SERVER__TRUSTED_PROXIES", "127.0.0.1, ::1")
        .env("PEARLGATE__LOG__LEVEL", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Ok(command)
}

/// Brings the people there, all with the one hash of the one password: each sign-in costs a whole one.
async fn import(settings: &Settings, dir: &Path, cast: &Cast) -> Result<(), Failure> {
    let hash = hashed(settings).await?;
    let line = |number| {
        let email = cast.person(number);
        format!("{}\n", json!({ "email": email, "email_verified": true, "password_hash": hash.as_str() }))
    };
    let file = dir.join("people.ndjson");
    std::fs::write(&file, (0..cast.everybody()).map(line).collect::<String>())
        .map_err(|e| Failure::Other(format!("{}: {e}", file.display())))?;
    let mut command = program(settings, dir)?;
    command.args(["import", "users"]).arg(&file);
    let status = Process::start(&mut command, Signal::KILL)?.ended().await?;
    if status.success() { Ok(()) } else { Err(failed("the drill's people could not be imported", dir)) }
}

async fn hashed(settings: &Settings) -> Result<String, Failure> {
    let (memory, passes, lanes) = settings.hash_cost;
    let cost = Cost { memory, passes, lanes };
    let pool = HashPool::start(cost, Peppers::default(), 1, 1, Entropy::System).map_err(Failure::Other)?;
    let password = Password::accept("password", &Secret::new(PASSWORD.into()), &About::default())
        .map_err(|e| Failure::Other(e.message))?;
    pool.hash(&password).await.map_err(|e| Failure::Other(e.to_string()))
}

fn failed(what: &str, dir: &Path) -> Failure {
    Failure::Other(format!("{what}; its log ends with: {}", last_words(dir)))
}

fn last_words(dir: &Path) -> String {
    let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(LAST).collect();
    if lines.is_empty() {
        return "(nothing)".into();
    }
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
