//! A statement, and the transaction that runs it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::types::{FromRow, Param, Row};
use super::{Error, Result};

/// One SQL text with numbered parameters, the same for both databases. Made by `statements!`.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its name in the code, for messages.
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
}

/// Declares the statements of one `store.rs` and lists them in `STATEMENTS`, so that a test can prepare each of
/// them on both databases.
#[macro_export]
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)+) => {
        $($(#[$doc])* pub(crate) const $name: $crate::db::Statement =
            $crate::db::Statement { name: stringify!($name), text: $text };)+
        /// Every statement of this file.
        pub const STATEMENTS: &[&$crate::db::Statement] = &[$(&$name),+];
    };
}

/// Borrows values as the parameters `$1…$n` of a statement.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::db::ToParam::to_param(&$value)),*] };
}

pub(super) const PING: Statement = Statement { name: "PING", text: "SELECT CAST(1 AS BIGINT)" };

/// A running transaction.
pub struct Tx<'c> {
    connection: Connection<'c>,
    /// A statement failed: PostgreSQL would turn the COMMIT into a ROLLBACK, so SQLite must not commit either.
    failed: Option<Error>,
    statements_left: usize,
    wake: Vec<Arc<Notify>>,
    observed: Option<Vec<&'static str>>,
}

pub(super) enum Connection<'c> {
    Sqlite(&'c rusqlite::Connection),
    Postgres(&'c mut PgConnection),
}

/// A connection to PostgreSQL and the statements it knows.
pub(super) struct PgConnection {
    pub(super) client: postgres::Client,
    pub(super) prepared: HashMap<usize, postgres::Statement>,
    /// What the server said when a statement failed, for the decision whether to run the closure again.
    pub(super) last_error: Option<postgres::Error>,
}

impl<'c> Tx<'c> {
    pub(super) fn new(connection: Connection<'c>, statements_left: usize) -> Self {
        Self { connection, failed: None, statements_left, wake: Vec::new(), observed: None }
    }

    /// Runs a statement and gives the number of rows it changed.
    ///
    /// # Errors
    /// [`Error`] when the database refuses it; the transaction cannot commit any more.
    pub fn execute(&mut self, statement: &'static Statement, params: &[Param<'_>]) -> Result<u64> {
        self.guarded(statement, |connection| match connection {
            Connection::Sqlite(connection) => super::sqlite::execute(connection, statement, params),
            Connection::Postgres(connection) => connection.execute(statement, params),
        })
    }

    /// Runs a statement and gives its first row, if it has one.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub fn opt<R: FromRow>(
        &mut self,
        statement: &'static Statement,
        params: &[Param<'_>],
    ) -> Result<Option<R>> {
        Ok(self.all(statement, params)?.into_iter().next())
    }

    /// Runs a statement that always gives a row.
    ///
    /// # Errors
    /// As [`Tx::execute`]; no row is [`Error::Bug`].
    pub fn one<R: FromRow>(&mut self, statement: &'static Statement, params: &[Param<'_>]) -> Result<R> {
        self.opt(statement, params)?
            .ok_or_else(|| self.doom(Error::Bug(format!("{}: no row", statement.name))))
    }

    /// Runs a statement and gives all its rows.
    ///
    /// # Errors
    /// As [`Tx::execute`].
    pub fn all<R: FromRow>(&mut self, statement: &'static Statement, params: &[Param<'_>]) -> Result<Vec<R>> {
        self.guarded(statement, |connection| match connection {
            Connection::Sqlite(connection) => super::sqlite::query(connection, statement, params),
            Connection::Postgres(connection) => {
                let rows = connection.query(statement, params)?;
                rows.iter().map(|row| R::from_row(&Row::postgres(row))).collect()
            }
        })
    }

    /// Notifies `whom` after the commit, and only then.
    pub fn after_commit(&mut self, whom: Arc<Notify>) {
        self.wake.push(whom);
    }

    pub(super) fn prepare(&mut self, statement: &'static Statement) -> Result<()> {
        self.guarded(statement, |connection| match connection {
            Connection::Sqlite(connection) => super::sqlite::prepare(connection, statement),
            Connection::Postgres(connection) => connection.check(statement),
        })
    }

    pub(super) fn batch(&mut self, sql: &str) -> Result<()> {
        const BATCH: Statement = Statement { name: "BATCH", text: "" };
        self.guarded(&BATCH, |connection| match connection {
            Connection::Sqlite(connection) => {
                connection.execute_batch(sql).map_err(|e| super::sqlite::error("BATCH", &e))
            }
            Connection::Postgres(connection) => connection.batch(sql),
        })
    }

    /// What the closure's result is worth: an error when it failed or when any statement did.
    pub(super) fn finish<T>(self, result: Result<T>) -> (Result<T>, Vec<Arc<Notify>>) {
        match (result, self.failed) {
            (Ok(_), Some(error)) => (Err(error), Vec::new()),
            (result, _) => (result, self.wake),
        }
    }

    /// Starts noting the names of the statements that this transaction runs.
    pub(super) fn observe(&mut self) {
        self.observed = Some(Vec::new());
    }

    pub(super) fn observed(&mut self) -> Vec<&'static str> {
        self.observed.take().unwrap_or_default()
    }

    fn guarded<T>(
        &mut self,
        statement: &Statement,
        run: impl FnOnce(&mut Connection<'c>) -> Result<T>,
    ) -> Result<T> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let Some(left) = self.statements_left.checked_sub(1) else {
            let more = format!("{}: a second statement in a single-statement call", statement.name);
            return Err(self.doom(Error::Bug(more)));
        };
        self.statements_left = left;
        if let Some(observed) = &mut self.observed {
            observed.push(statement.name);
        }
        run(&mut self.connection).map_err(|error| self.doom(error))
    }

    fn doom(&mut self, error: Error) -> Error {
        self.failed.get_or_insert(error).clone()
    }
}
