//! SQLite: one writer thread that puts every waiting transaction into one durable commit, a few read-only
//! connections for short reads on the caller's thread, and reader threads for long ones.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection as Sql, ErrorCode, OpenFlags};
use tokio::sync::oneshot;

use super::query::{Connection, Statement, Tx};
use super::types::{FromRow, Param, Row};
use super::{Error, Result};

/// Transactions that join one commit at the most: bounds how long the first of them waits for the last.
const MAX_GROUP: usize = 256;
/// Transactions that may wait; more are turned away with 503 instead of piling up.
const MAX_QUEUE: usize = 16_384;
/// How long another process may hold the file before a statement gives up.
const BUSY: Duration = Duration::from_millis(900);
const READERS: usize = 4;
const SCANNERS: usize = 2;

/// Runs in the group's transaction, if there is one; what it gives back is told whether the group was stored.
type Unit = Box<dyn FnOnce(Option<&Sql>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(&Result<()>)>;
type Scan = Box<dyn FnOnce(Result<&Sql>) + Send>;

pub(super) struct Sqlite {
    writer: SyncSender<Unit>,
    readers: Vec<Mutex<Lazy>>,
    scanner: SyncSender<Scan>,
}

/// A connection that is opened when it is first needed, and again after the file turned out to be read-only or
/// broken: what is away at the start or later may come back.
struct Lazy {
    path: PathBuf,
    reads_only: bool,
    open: Option<Sql>,
}

thread_local! {
    /// Set when a statement failed in a way that a new connection may mend.
    static SUSPECT: Cell<bool> = const { Cell::new(false) };
}

impl Lazy {
    fn new(path: &Path, reads_only: bool) -> Self {
        Self { path: path.to_owned(), reads_only, open: None }
    }

    fn get(&mut self) -> Result<&Sql> {
        if SUSPECT.replace(false) {
            self.open = None;
        }
        if self.open.is_none() {
            self.open = Some(connect(&self.path, self.reads_only)?);
        }
        self.open.as_ref().ok_or_else(gone)
    }
}

impl Sqlite {
    pub(super) fn open(path: &Path, group_commit: bool) -> Result<Self> {
        let mut write = Lazy::new(path, false);
        let (writer, units) = sync_channel(MAX_QUEUE);
        spawn("db-writer", move || write_loop(&mut write, &units, if group_commit { MAX_GROUP } else { 1 }))?;
        let readers = (0..READERS).map(|_| Mutex::new(Lazy::new(path, true))).collect();
        let (scanner, scans) = sync_channel::<Scan>(MAX_QUEUE);
        let scans = std::sync::Arc::new(Mutex::new(scans));
        for _ in 0..SCANNERS {
            let (mut connection, scans) = (Lazy::new(path, true), scans.clone());
            spawn("db-scan", move || {
                loop {
                    let next = scans.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(scan) = next else { return };
                    scan(connection.get());
                }
            })?;
        }
        Ok(Self { writer, readers, scanner })
    }

    pub(super) async fn write<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        send(&self.writer, Box::new(move |connection| in_savepoint(connection, f, answer)))?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    pub(super) fn read<T, F>(&self, snapshot: bool, f: F) -> Result<T>
    where
        F: Fn(&mut Tx<'_>) -> Result<T>,
    {
        // More connections than worker threads: one is always free, and no short read waits long for one.
        for reader in &self.readers {
            match reader.try_lock() {
                Ok(mut connection) => return on_reader(connection.get()?, snapshot, f),
                Err(TryLockError::Poisoned(poisoned)) => {
                    return on_reader(poisoned.into_inner().get()?, snapshot, f);
                }
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let first = self.readers.first().ok_or_else(gone)?;
        on_reader(first.lock().unwrap_or_else(PoisonError::into_inner).get()?, snapshot, f)
    }

    pub(super) async fn scan<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        send(
            &self.scanner,
            Box::new(move |connection: Result<&Sql>| {
                let _ = answer.send(connection.and_then(|connection| on_reader(connection, true, f)));
            }),
        )?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn send<W>(to: &SyncSender<W>, work: W) -> Result<()> {
    to.try_send(work).map_err(|refused| match refused {
        TrySendError::Full(_) => Error::Unavailable("too many transactions are waiting".into()),
        TrySendError::Disconnected(_) => gone(),
    })
}

fn gone() -> Error {
    Error::Unavailable("its thread has stopped".into())
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map(|_| ())
        .map_err(|e| Error::Unavailable(format!("a thread could not be started: {e}")))
}

fn connect(path: &Path, reads_only: bool) -> Result<Sql> {
    let name = path.display().to_string();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if !reads_only {
        make_private(path).map_err(|e| Error::Unavailable(format!("{name}: {e}")))?;
    }
    let connection = Sql::open_with_flags(path, flags).map_err(|e| error(&name, &e))?;
    connection.set_prepared_statement_cache_capacity(256);
    connection
        .busy_timeout(BUSY)
        // A plan is made once: otherwise SQLite plans anew whenever a parameter in a comparison has a new value,
        // which costs twenty times the query.
        .and_then(|()| connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true))
        .and_then(|_| {
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
                 PRAGMA secure_delete = FAST;
                 PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 268435456;",
            )
        })
        .map_err(|e| error(&name, &e))?;
    if reads_only {
        connection.execute_batch("PRAGMA query_only = ON").map_err(|e| error(&name, &e))?;
    }
    Ok(connection)
}

/// Makes the file for its owner alone; SQLite gives its companions the same rights.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

fn write_loop(connection: &mut Lazy, units: &Receiver<Unit>, most: usize) {
    while let Ok(first) = units.recv() {
        let mut group = Vec::with_capacity(1);
        group.push(first);
        while group.len() < most {
            let Ok(next) = units.try_recv() else { break };
            group.push(next);
        }
        metrics::counter!("db_commits_total").increment(1);
        metrics::counter!("db_transactions_total").increment(group.len() as u64);
        match connection.get() {
            Ok(connection) => run_group(connection, group),
            Err(error) => refuse_group(&error, group),
        }
    }
}

fn refuse_group(error: &Error, group: Vec<Unit>) {
    for unit in group {
        unit(None)(&Err(error.clone()));
    }
}

/// One `BEGIN IMMEDIATE … COMMIT` for the whole group; everybody is answered after it, not before.
fn run_group(connection: &Sql, group: Vec<Unit>) {
    let begun = run(connection, "BEGIN IMMEDIATE");
    let mut answers = Vec::with_capacity(group.len());
    for unit in group {
        // Units check themselves that the transaction is still open: a failed BEGIN or a full disk ends it.
        answers.push(unit(Some(connection)));
    }
    let stored = begun.and_then(|()| {
        if connection.is_autocommit() {
            return Err(Error::Unavailable("the transaction was ended by the database".into()));
        }
        run(connection, "COMMIT")
    });
    if !connection.is_autocommit() {
        let _ = run(connection, "ROLLBACK");
    }
    for answer in answers {
        answer(&stored);
    }
}

fn in_savepoint<T, F>(connection: Option<&Sql>, f: F, answer: oneshot::Sender<Result<T>>) -> Answer
where
    T: Send + 'static,
    F: Fn(&mut Tx<'_>) -> Result<T>,
{
    let (outcome, wake) =
        connection.map_or_else(|| (Err(gone()), Vec::new()), |connection| attempt(connection, f));
    Box::new(move |stored| {
        let result = match stored {
            Ok(()) => outcome,
            Err(error) => Err(error.clone()),
        };
        if result.is_ok() {
            wake.iter().for_each(|whom| whom.notify_one());
        }
        let _ = answer.send(result);
    })
}

fn attempt<T, F>(connection: &Sql, f: F) -> (Result<T>, Vec<std::sync::Arc<tokio::sync::Notify>>)
where
    F: Fn(&mut Tx<'_>) -> Result<T>,
{
    if connection.is_autocommit() {
        return (Err(Error::Unavailable("no transaction could be started".into())), Vec::new());
    }
    if let Err(error) = run(connection, "SAVEPOINT unit") {
        return (Err(error), Vec::new());
    }
    let (outcome, wake) = closed(Connection::Sqlite(connection), usize::MAX, f);
    let ended = match &outcome {
        Ok(_) => run(connection, "RELEASE unit"),
        Err(_) => run(connection, "ROLLBACK TO unit").and_then(|()| run(connection, "RELEASE unit")),
    };
    match (outcome, ended) {
        (Ok(_), Err(error)) => (Err(error), Vec::new()),
        (outcome, _) => (outcome, wake),
    }
}

/// Runs the closure; a panic in it is an error of its own, not the end of the thread.
pub(super) fn closed<T, F>(
    connection: Connection<'_>,
    statements: usize,
    f: F,
) -> (Result<T>, Vec<std::sync::Arc<tokio::sync::Notify>>)
where
    F: Fn(&mut Tx<'_>) -> Result<T>,
{
    let mut tx = Tx::new(connection, statements);
    let result = catch_unwind(AssertUnwindSafe(|| f(&mut tx)))
        .unwrap_or_else(|_| Err(Error::Bug("a transaction's closure panicked".into())));
    tx.finish(result)
}

fn on_reader<T, F>(connection: &Sql, snapshot: bool, f: F) -> Result<T>
where
    F: Fn(&mut Tx<'_>) -> Result<T>,
{
    if !snapshot {
        return closed(Connection::Sqlite(connection), 1, f).0;
    }
    run(connection, "BEGIN")?;
    let (outcome, _) = closed(Connection::Sqlite(connection), usize::MAX, f);
    run(connection, "ROLLBACK")?;
    outcome
}

fn run(connection: &Sql, sql: &'static str) -> Result<()> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute([]))
        .map(|_| ())
        .map_err(|e| error(sql, &e))
}

pub(super) fn execute(connection: &Sql, statement: &'static Statement, params: &[Param<'_>]) -> Result<u64> {
    let fail = |e| error(statement.name, &e);
    let mut prepared = connection.prepare_cached(statement.text).map_err(fail)?;
    bind(&mut prepared, statement, params)?;
    let changed = prepared.raw_execute().map_err(fail)?;
    Ok(changed as u64)
}

pub(super) fn query<R: FromRow>(
    connection: &Sql,
    statement: &'static Statement,
    params: &[Param<'_>],
) -> Result<Vec<R>> {
    let fail = |e| error(statement.name, &e);
    let mut prepared = connection.prepare_cached(statement.text).map_err(fail)?;
    bind(&mut prepared, statement, params)?;
    let mut rows = prepared.raw_query();
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(fail)? {
        out.push(R::from_row(&Row::sqlite(row))?);
    }
    Ok(out)
}

pub(super) fn prepare(connection: &Sql, statement: &'static Statement) -> Result<()> {
    connection.prepare_cached(statement.text).map(|_| ()).map_err(|e| error(statement.name, &e))
}

/// SQLite numbers `$N` by first appearance, not by N: bind each place by the number in its name.
fn bind(
    prepared: &mut rusqlite::CachedStatement<'_>,
    statement: &Statement,
    params: &[Param<'_>],
) -> Result<()> {
    let places = prepared.parameter_count();
    if places != params.len() {
        return Err(Error::Bug(format!(
            "{}: {} parameters for {places} places",
            statement.name,
            params.len()
        )));
    }
    for place in 1..=places {
        let number =
            prepared.parameter_name(place).and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok());
        let param = number
            .and_then(|n| params.get(n.wrapping_sub(1)))
            .ok_or_else(|| Error::Bug(format!("{}: parameters are $1 to $n", statement.name)))?;
        let value = ToSqlOutput::Borrowed(match param {
            Param::Text(text) => ValueRef::Text(text.as_bytes()),
            Param::Int(number) => ValueRef::Integer(*number),
            Param::Bytes(bytes) => ValueRef::Blob(bytes),
        });
        prepared.raw_bind_parameter(place, value).map_err(|e| error(statement.name, &e))?;
    }
    Ok(())
}

pub(super) fn error(name: &str, e: &rusqlite::Error) -> Error {
    let away = matches!(
        e.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::FileLockingProtocolFailed
        )
    );
    if matches!(
        e.sqlite_error_code(),
        Some(ErrorCode::ReadOnly | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen)
    ) {
        SUSPECT.set(true);
    }
    if away { Error::Unavailable(format!("{name}: {e}")) } else { Error::Bug(format!("{name}: {e}")) }
}
