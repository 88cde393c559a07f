//! PostgreSQL: a pool of threads, each owning one connection. A transaction is sent to a thread as one closure
//! and runs there in one piece, like on SQLite; a serialization failure or deadlock runs it again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use postgres::config::{Host, SslMode};
use postgres::error::SqlState;
use postgres::types::{ToSql, Type};
use tokio::sync::oneshot;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::query::{Connection, PgConnection, Statement, Tx};
use super::sqlite::closed;
use super::types::Param;
use super::{Error, Mode, Result};
use crate::kernel::{Clock, WrongSetting, tls};

/// How long a transaction may wait for a connection (`outages.md`).
const POOL_WAIT: Duration = Duration::from_secs(1);
/// How long a caller waits for a transaction that has started: a little more than the server's own 5 s a statement.
const PATIENCE: Duration = Duration::from_millis(5_300);
const CONNECT: Duration = Duration::from_millis(800);
/// After a failed connect, others are refused at once for this long instead of each finding out by itself.
const COOL_DOWN: Duration = Duration::from_millis(200);
const MAX_QUEUE: usize = 16_384;
const MAX_TRIES: u32 = 8;
/// Sent with every connection. `synchronous_commit` is not left to a server's defaults: an answer means "stored".
const SESSION: &str = "-c statement_timeout=5000 -c lock_timeout=4000 -c idle_in_transaction_session_timeout=10000 \
                       -c synchronous_commit=on -c client_min_messages=warning";

/// How to reach PostgreSQL.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`, with `?sslmode=` if the default does not fit.
    pub url: String,
    /// A PEM file with the authorities that may vouch for the server; empty for the public ones.
    pub ca_file: Option<PathBuf>,
    /// Connections, and threads, at the most.
    pub connections: usize,
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

pub(super) struct Postgres {
    queue: SyncSender<Job>,
}

struct Worker {
    config: Arc<(postgres::Config, Option<MakeRustlsConnect>)>,
    connection: Option<PgConnection>,
    refused: Arc<Mutex<Option<(Instant, String)>>>,
}

impl PostgresOptions {
    /// Whether they can be used at all; nobody is asked.
    ///
    /// # Errors
    /// The setting that is wrong.
    pub fn check(&self) -> std::result::Result<(), WrongSetting> {
        configure(self).map(|_| ())
    }
}

impl Postgres {
    pub(super) fn start(options: &PostgresOptions) -> Result<Self> {
        let config = Arc::new(configure(options).map_err(|e| Error::Bug(e.to_string()))?);
        let (queue, jobs) = sync_channel::<Job>(MAX_QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        let refused = Arc::new(Mutex::new(None));
        for number in 0..options.connections.max(1) {
            let mut worker = Worker { config: config.clone(), connection: None, refused: refused.clone() };
            let jobs = jobs.clone();
            std::thread::Builder::new()
                .name(format!("db-{number}"))
                .spawn(move || worker.serve(&jobs))
                .map_err(|e| Error::Unavailable(format!("a thread could not be started: {e}")))?;
        }
        Ok(Self { queue })
    }

    pub(super) async fn run<T, F>(&self, mode: Mode, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, mut answered) = oneshot::channel();
        // Whoever swaps it first decides: the thread that starts, or the caller that gives up waiting.
        let taken = Arc::new(AtomicBool::new(false));
        let started = taken.clone();
        // A database that freezes and thaws does not do what its caller was told was not done.
        let gave_up = Arc::new(AtomicBool::new(false));
        let in_vain = gave_up.clone();
        let job: Job = Box::new(move |worker| {
            if !started.swap(true, Ordering::SeqCst) {
                let _ = answer.send(worker.transact(mode, &f, &in_vain));
            }
        });
        self.queue
            .try_send(job)
            .map_err(|_| Error::Unavailable("too many transactions are waiting".into()))?;
        if let Ok(result) = tokio::time::timeout(POOL_WAIT, &mut answered).await {
            return result.unwrap_or_else(|_| Err(Error::Bug("a database thread died".into())));
        }
        if !taken.swap(true, Ordering::SeqCst) {
            return Err(Error::Unavailable("no connection was free in time".into()));
        }
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(result) => result.unwrap_or_else(|_| Err(Error::Bug("a database thread died".into()))),
            Err(_) => {
                gave_up.store(true, Ordering::SeqCst);
                Err(Error::Unavailable("it did not answer in time".into()))
            }
        }
    }
}

impl Worker {
    fn serve(&mut self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = next else { return };
            job(self);
        }
    }

    fn transact<T, F>(&mut self, mode: Mode, f: &F, in_vain: &AtomicBool) -> Result<T>
    where
        F: Fn(&mut Tx<'_>) -> Result<T>,
    {
        let mut reconnected = false;
        for attempt in 0..MAX_TRIES {
            let fresh = self.connect()?;
            let Some(connection) = self.connection.as_mut() else { continue };
            connection.last_error = None;
            let (outcome, committing) = connection.transact(mode, f, in_vain);
            let Err(error) = outcome else { return outcome };
            let cause = connection.last_error.take();
            if connection.client.is_closed() || cause.as_ref().is_some_and(postgres::Error::is_closed) {
                self.connection = None;
                // A connection that died while it was idle is found out by its next user: once, try a new one.
                // What failed while committing may have been stored and is not repeated.
                if !fresh && !reconnected && (!committing || matches!(mode, Mode::ReadOne | Mode::WriteOne)) {
                    reconnected = true;
                    continue;
                }
                return Err(Error::Unavailable("the connection was lost".into()));
            }
            if !cause.as_ref().is_some_and(worth_repeating) {
                return Err(error);
            }
            metrics::counter!("db_retries_total").increment(1);
            pause(attempt);
        }
        Err(Error::Unavailable("other transactions were in the way".into()))
    }

    /// Makes sure of a connection; true when it is a new one.
    fn connect(&mut self) -> Result<bool> {
        if self.connection.as_ref().is_some_and(|c| !c.client.is_closed()) {
            return Ok(false);
        }
        self.connection = None;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, why)) = refused.as_ref()
            && at.elapsed() < COOL_DOWN
        {
            return Err(Error::Unavailable(why.clone()));
        }
        let (config, tls) = &*self.config;
        let connected = match tls {
            Some(tls) => config.connect(tls.clone()),
            None => config.connect(postgres::NoTls),
        };
        match connected {
            Ok(client) => {
                *refused = None;
                self.connection = Some(PgConnection { client, prepared: HashMap::new(), last_error: None });
                Ok(true)
            }
            Err(e) => {
                let why = format!("no connection to PostgreSQL: {}", words(&e));
                *refused = Some((Clock::stopwatch(), why.clone()));
                Err(Error::Unavailable(why))
            }
        }
    }
}

impl PgConnection {
    /// The outcome, and whether the failure came while committing.
    fn transact<T, F>(&mut self, mode: Mode, f: &F, in_vain: &AtomicBool) -> (Result<T>, bool)
    where
        F: Fn(&mut Tx<'_>) -> Result<T>,
    {
        let begin = match mode {
            Mode::ReadOne | Mode::WriteOne => {
                let (outcome, wake) = closed(Connection::Postgres(self), 1, f);
                if outcome.is_ok() {
                    wake.iter().for_each(|whom| whom.notify_one());
                }
                return (outcome, true);
            }
            Mode::Write => "BEGIN",
            Mode::Read | Mode::Scan => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        if let Err(error) = self.batch(begin) {
            return (Err(error), false);
        }
        let (outcome, wake) = closed(Connection::Postgres(self), usize::MAX, f);
        if outcome.is_err() {
            let cause = self.last_error.take();
            let _ = self.batch("ROLLBACK");
            self.last_error = cause.or(self.last_error.take());
            return (outcome, false);
        }
        if in_vain.load(Ordering::SeqCst) {
            let _ = self.batch("ROLLBACK");
            return (Err(Error::Unavailable("nobody waited for it any more".into())), false);
        }
        match self.batch("COMMIT") {
            Ok(()) => {
                metrics::counter!("db_transactions_total").increment(1);
                wake.iter().for_each(|whom| whom.notify_one());
                (outcome, false)
            }
            Err(error) => (Err(error), true),
        }
    }

    pub(super) fn execute(&mut self, statement: &'static Statement, params: &[Param<'_>]) -> Result<u64> {
        let prepared = self.prepared(statement)?;
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
        self.client.execute(&prepared, &params).map_err(|e| failed(&mut self.last_error, statement.name, e))
    }

    pub(super) fn query(
        &mut self,
        statement: &'static Statement,
        params: &[Param<'_>],
    ) -> Result<Vec<postgres::Row>> {
        let prepared = self.prepared(statement)?;
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
        self.client.query(&prepared, &params).map_err(|e| failed(&mut self.last_error, statement.name, e))
    }

    pub(super) fn batch(&mut self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).map_err(|e| failed(&mut self.last_error, "BATCH", e))
    }

    pub(super) fn check(&mut self, statement: &'static Statement) -> Result<()> {
        let prepared = self.prepared(statement)?;
        for (at, ty) in prepared.params().iter().enumerate() {
            if ![Type::TEXT, Type::INT8, Type::BYTEA].contains(ty) {
                return Err(Error::Bug(format!(
                    "{}: ${} is {ty}; say CAST(… AS BIGINT)",
                    statement.name,
                    at + 1
                )));
            }
        }
        Ok(())
    }

    fn prepared(&mut self, statement: &'static Statement) -> Result<postgres::Statement> {
        // One text stands at one address; its address is a cheaper key than its bytes.
        let key = statement.text.as_ptr() as usize;
        if let Some(known) = self.prepared.get(&key) {
            return Ok(known.clone());
        }
        let text = statement.text.replace("/*pg", " ").replace("*/", " ");
        let prepared =
            self.client.prepare(&text).map_err(|e| failed(&mut self.last_error, statement.name, e))?;
        self.prepared.insert(key, prepared.clone());
        Ok(prepared)
    }
}

fn failed(last_error: &mut Option<postgres::Error>, name: &str, e: postgres::Error) -> Error {
    let away = e.is_closed()
        || e.as_db_error().is_none()
        || e.code().is_some_and(|code| {
            *code == SqlState::QUERY_CANCELED
                || *code == SqlState::LOCK_NOT_AVAILABLE
                || *code == SqlState::READ_ONLY_SQL_TRANSACTION
                || ["53", "57", "58", "08"].iter().any(|class| code.code().starts_with(class))
        })
        || worth_repeating(&e);
    let text = format!("{name}: {}", words(&e));
    let is_parameter = e.as_db_error().is_none() && !e.is_closed() && text.contains("parameter");
    *last_error = Some(e);
    if away && !is_parameter { Error::Unavailable(text) } else { Error::Bug(text) }
}

fn worth_repeating(e: &postgres::Error) -> bool {
    e.code().is_some_and(|code| {
        *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED
    })
}

fn words(e: &postgres::Error) -> String {
    use std::error::Error as _;
    match (e.as_db_error(), e.source()) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(source)) => format!("{e}: {source}"),
        (None, None) => e.to_string(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a database thread of our own waits out a conflict; no task is held up"
)]
fn pause(attempt: u32) {
    let jitter = u64::from(crate::kernel::Entropy::System.below(4_000));
    std::thread::sleep(Duration::from_micros((500 << attempt.min(6)) + jitter));
}

type Configured = (postgres::Config, Option<MakeRustlsConnect>);

fn configure(options: &PostgresOptions) -> std::result::Result<Configured, WrongSetting> {
    let (url, sslmode) = split_sslmode(&options.url);
    let mut config: postgres::Config = url.parse().map_err(|e: postgres::Error| {
        WrongSetting::new("database.url", format!("is not a PostgreSQL address: {}", words(&e)))
    })?;
    config.connect_timeout(CONNECT).application_name("pearlgate").options(SESSION);
    config.tcp_user_timeout(Duration::from_secs(5));
    let local = config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
        #[cfg(unix)]
        Host::Unix(_) => true,
    });
    let verified = match sslmode.as_deref() {
        Some("disable") => false,
        None => !local,
        Some("require" | "verify-ca" | "verify-full") => true,
        Some(other) => {
            return Err(WrongSetting::new(
                "database.url",
                format!(
                    "has sslmode={other}; give disable, require, verify-ca or verify-full. `prefer` and `allow` fall back to \
                 plain text in silence and are not offered."
                ),
            ));
        }
    };
    config.ssl_mode(if verified { SslMode::Require } else { SslMode::Disable });
    let tls = if verified { Some(MakeRustlsConnect::new(tls_config(options)?)) } else { None };
    Ok((config, tls))
}

fn tls_config(options: &PostgresOptions) -> std::result::Result<rustls::ClientConfig, WrongSetting> {
    tls::client_config(options.ca_file.as_deref())
        .map_err(|why| WrongSetting::new("database.ca_file", format!("cannot be used: {why}")))
}

/// Takes `sslmode` out of the address: the driver knows fewer modes than we offer.
fn split_sslmode(url: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let (modes, rest): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|pair| pair.starts_with("sslmode="));
    let mode = modes.last().and_then(|pair| pair.strip_prefix("sslmode=")).map(str::to_owned);
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    (url, mode)
}
