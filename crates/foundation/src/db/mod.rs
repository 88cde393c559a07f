//! One SQL text for two databases.
//!
//! * [`Db::write`] and [`Db::read`] take a **synchronous** closure that is the whole transaction. It runs in one
//!   piece on a database thread: on SQLite the one writer thread, where every waiting transaction joins one
//!   durable commit in a savepoint of its own; on PostgreSQL a thread that owns a connection. Nothing can be
//!   awaited in it, so no hash, mail or web call can stand inside a transaction.
//! * The caller is answered after the commit is on disk. A closure that returns an error, panics, or ran a
//!   statement that failed is rolled back, alone. On PostgreSQL a serialization failure or deadlock runs the
//!   closure again: it must not have effects outside the transaction.
//! * [`Db::write_one`] and [`Db::read_one`] are the single-statement form: one round trip on PostgreSQL.
//! * SQL stands in `statements!` blocks; parameters are `$1…$n`; columns are TEXT, BIGINT or bytes, never null.
//!   Text between `/*pg` and `*/` is read by PostgreSQL alone.
//!
//! A refusal is a value and is committed; only an [`Error`] rolls back.

mod migrate;
mod postgres;
mod query;
mod sqlite;
mod types;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use migrate::{Migration, MigrationError, MigrationState, Status};
pub use postgres::PostgresOptions;
pub use query::{Statement, Tx};
pub use types::{Column, FromColumn, FromRow, Param, Row, ToParam};

/// Which of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The embedded one.
    Sqlite,
    /// The one that several servers share.
    Postgres,
}

/// Why a transaction did not happen. A refusal is not an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database is away, full, locked, read-only or too slow: try again later (503).
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The statement, its parameters or the data broke a rule: our fault (500).
    #[error("the database refused a statement: {0}")]
    Bug(String),
}

impl Error {
    /// What a client is told: nothing of the database but whether trying again makes sense. The log has the rest.
    pub fn to_problem(&self) -> crate::kernel::Problem {
        tracing::error!(error = %self, "the database failed a request");
        match self {
            Self::Unavailable(_) => crate::kernel::Problem::unavailable(
                "The database does not answer for the moment. Nothing was changed; try again.",
            ),
            Self::Bug(_) => crate::kernel::Problem::internal(),
        }
    }
}

/// What every closure and statement gives.
pub type Result<T> = std::result::Result<T, Error>;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    engine: Engine,
    open: Arc<AtomicBool>,
    observed: Arc<Observed>,
}

/// What transactions did, when somebody wants to know.
#[derive(Default)]
struct Observed {
    on: AtomicBool,
    transactions: Mutex<Vec<Vec<&'static str>>>,
}

#[derive(Clone)]
enum Engine {
    Sqlite(Arc<sqlite::Sqlite>),
    Postgres(Arc<postgres::Postgres>),
}

/// How a closure is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Write,
    Read,
    WriteOne,
    ReadOne,
    Scan,
}

impl Db {
    /// Starts the threads of a SQLite file, which is opened (or created) when first used. `group_commit` false gives every transaction a
    /// commit of its own: only a benchmark wants that.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when a thread cannot be started.
    pub fn sqlite(path: &Path, group_commit: bool) -> Result<Self> {
        Ok(Self::new(Engine::Sqlite(Arc::new(sqlite::Sqlite::open(path, group_commit)?))))
    }

    /// Prepares a pool for PostgreSQL; connects when first used, so the server may be away now.
    ///
    /// # Errors
    /// [`Error::Bug`] when the options contradict themselves.
    pub fn postgres(options: &PostgresOptions) -> Result<Self> {
        Ok(Self::new(Engine::Postgres(Arc::new(postgres::Postgres::start(options)?))))
    }

    fn new(engine: Engine) -> Self {
        Self { engine, open: Arc::new(AtomicBool::new(false)), observed: Arc::default() }
    }

    /// Which database this is.
    pub fn kind(&self) -> Kind {
        match self.engine {
            Engine::Sqlite(_) => Kind::Sqlite,
            Engine::Postgres(_) => Kind::Postgres,
        }
    }

    /// Runs `f` as one durable transaction.
    ///
    /// # Errors
    /// Whatever `f` gives, or [`Error::Unavailable`] when the commit could not be stored.
    pub async fn write<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.gate()?;
        self.run(Mode::Write, f).await
    }

    /// Runs `f` as one read-only transaction: one snapshot. For short, indexed reads.
    ///
    /// # Errors
    /// As [`Db::write`]; writing is an error.
    pub async fn read<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.gate()?;
        self.run(Mode::Read, f).await
    }

    /// Runs `f`, which makes exactly one statement, without a transaction around it: one round trip on
    /// PostgreSQL. The statement must be safe to repeat: when a connection turns out to be dead it is sent again.
    ///
    /// # Errors
    /// As [`Db::write`]; a second statement is [`Error::Bug`].
    pub async fn write_one<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.gate()?;
        self.run(Mode::WriteOne, f).await
    }

    /// [`Db::read`] for exactly one statement: one round trip on PostgreSQL, two microseconds on SQLite.
    ///
    /// # Errors
    /// As [`Db::write_one`].
    pub async fn read_one<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.gate()?;
        self.run(Mode::ReadOne, f).await
    }

    /// [`Db::read`] for what may take long: on SQLite it runs on a reader thread, not on the caller's.
    ///
    /// # Errors
    /// As [`Db::read`].
    pub async fn scan<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.gate()?;
        self.run(Mode::Scan, f).await
    }

    /// Whether the database answers and its schema is the one this program needs.
    pub async fn ready(&self) -> bool {
        self.read_one(|tx| tx.one::<(i64,)>(&query::PING, &[])).await.is_ok()
    }

    /// Brings the schema up to date in one transaction under a lock, and opens the database for use.
    ///
    /// # Errors
    /// [`MigrationError`] when the schema drifted, is newer than this program, or the database is away.
    pub async fn migrate(
        &self,
        migrations: &'static [Migration],
        now: crate::kernel::Timestamp,
    ) -> std::result::Result<Vec<&'static str>, MigrationError> {
        let kind = self.kind();
        let applied = self.run(Mode::Write, move |tx| migrate::apply(tx, kind, migrations, now)).await;
        let done = applied.map_err(MigrationError::Database)??;
        self.open.store(true, Ordering::SeqCst);
        Ok(done)
    }

    /// What [`Db::migrate`] would do, without doing it.
    ///
    /// # Errors
    /// As [`Db::migrate`], except that drift and newer schemas are part of the answer.
    pub async fn migration_status(
        &self,
        migrations: &'static [Migration],
    ) -> std::result::Result<Status, MigrationError> {
        let kind = self.kind();
        self.run(Mode::Read, move |tx| migrate::status(tx, kind, migrations))
            .await
            .map_err(MigrationError::Database)
    }

    /// Prepares every statement and checks that its parameters are of our three types: half of what a compiler
    /// would check. The other half is [`FromRow`], which counts columns.
    ///
    /// # Errors
    /// [`Error::Bug`] with the first statement that the database refuses.
    pub async fn prepare_all(&self, statements: Vec<&'static Statement>) -> Result<usize> {
        self.read(move |tx| {
            for statement in &statements {
                tx.prepare(statement)?;
            }
            Ok(statements.len())
        })
        .await
    }

    /// Runs SQL text of a test or a tool as one transaction; several statements, no parameters.
    ///
    /// # Errors
    /// As [`Db::write`].
    pub async fn batch(&self, sql: String) -> Result<()> {
        self.write(move |tx| tx.batch(&sql)).await
    }

    /// Starts noting what every transaction does: for a test that asks whether two requests cost the same.
    pub fn observe(&self) {
        self.observed.on.store(true, Ordering::SeqCst);
    }

    /// The statements of each transaction since the last call, by name.
    pub fn observed(&self) -> Vec<Vec<&'static str>> {
        std::mem::take(&mut *self.observed.transactions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn run<T, F>(&self, mode: Mode, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let seen = self.observed.clone();
        // One closure for both cases: another one would be another copy of every transaction in the program.
        let f = move |tx: &mut Tx<'_>| {
            let on = seen.on.load(Ordering::Relaxed);
            if on {
                tx.observe();
            }
            let result = f(tx);
            if on {
                seen.transactions.lock().unwrap_or_else(PoisonError::into_inner).push(tx.observed());
            }
            result
        };
        match (&self.engine, mode) {
            (Engine::Sqlite(db), Mode::Write | Mode::WriteOne) => db.write(f).await,
            (Engine::Sqlite(db), Mode::Read | Mode::ReadOne) => db.read(mode == Mode::Read, f),
            (Engine::Sqlite(db), Mode::Scan) => db.scan(f).await,
            (Engine::Postgres(db), mode) => db.run(mode, f).await,
        }
    }

    fn gate(&self) -> Result<()> {
        if self.open.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(Error::Unavailable("its schema has not been checked yet".into()))
        }
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Db({:?})", self.kind())
    }
}
