//! Migrations: embedded, applied at start in one transaction under a lock, refused when what was applied is not
//! what this program contains.

use super::query::{Statement, Tx};
use super::{Error, Kind, Result};
use crate::kernel::{Digest, Timestamp, sha256};
use crate::{params, record};

/// One step of the schema, once for each database under the same name.
#[derive(Debug)]
pub struct Migration {
    /// `0001_people`: the number orders, the name tells.
    pub name: &'static str,
    /// The text for SQLite.
    pub sqlite: &'static str,
    /// The text for PostgreSQL.
    pub postgres: &'static str,
}

impl Migration {
    fn text(&self, kind: Kind) -> &'static str {
        match kind {
            Kind::Sqlite => self.sqlite,
            Kind::Postgres => self.postgres,
        }
    }
}

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// An applied migration's text differs from ours.
    #[error(
        "migration {0} in the database is not the one in this program: somebody changed one of them after it was \
         applied. Run the program version that made this database, or restore the database from a backup."
    )]
    Drift(String),
    /// The database has a migration that this program does not know.
    #[error(
        "the database has migration {0}, which this program does not know: it was made by a newer version. Run that \
         version, or restore a backup from before the upgrade."
    )]
    Newer(String),
    /// The database did not do it.
    #[error(transparent)]
    Database(#[from] Error),
}

/// What a migration is in this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MigrationState {
    /// Applied, and the same text.
    Applied,
    /// Known here and not applied yet.
    Pending,
    /// Applied with another text.
    Drifted,
    /// Applied, and unknown to this program.
    Unknown,
}

/// Every migration that the program or the database knows, in order.
pub type Status = Vec<(String, MigrationState)>;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    name TEXT NOT NULL PRIMARY KEY, checksum BYTEA NOT NULL, applied_at BIGINT NOT NULL)";
const CREATE_SQLITE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    name TEXT NOT NULL PRIMARY KEY, checksum BLOB NOT NULL, applied_at INTEGER NOT NULL) STRICT";
/// Any number will do as long as it is ours.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7306086865420301)";
const TABLES: Statement = Statement {
    name: "TABLES",
    text: "SELECT CAST(COUNT(*) AS BIGINT) FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'",
};
const TABLES_PG: Statement = Statement {
    name: "TABLES_PG",
    text: "SELECT COUNT(*) FROM pg_catalog.pg_tables WHERE schemaname = current_schema() AND tablename = 'schema_migrations'",
};
const APPLIED: Statement =
    Statement { name: "APPLIED", text: "SELECT name, checksum FROM schema_migrations ORDER BY name" };
const RECORD: Statement = Statement {
    name: "RECORD",
    text: "INSERT INTO schema_migrations (name, checksum, applied_at) VALUES ($1, $2, $3)",
};

record! {
    struct Applied { name: String, checksum: Digest }
}

pub(super) fn status(tx: &mut Tx<'_>, kind: Kind, migrations: &[Migration]) -> Result<Status> {
    let count = if kind == Kind::Sqlite { &TABLES } else { &TABLES_PG };
    let (exists,): (i64,) = tx.one(count, &[])?;
    let applied: Vec<Applied> = if exists == 0 { Vec::new() } else { tx.all(&APPLIED, &[])? };
    let mut status: Status = Vec::new();
    for migration in migrations {
        let state = match applied.iter().find(|a| a.name == migration.name) {
            None => MigrationState::Pending,
            Some(found) if found.checksum == sha256(migration.text(kind).as_bytes()) => {
                MigrationState::Applied
            }
            Some(_) => MigrationState::Drifted,
        };
        status.push((migration.name.to_owned(), state));
    }
    let unknown = applied.into_iter().filter(|a| !migrations.iter().any(|m| m.name == a.name));
    status.extend(unknown.map(|a| (a.name, MigrationState::Unknown)));
    Ok(status)
}

/// The names of what was applied now, or the refusal.
pub(super) fn apply(
    tx: &mut Tx<'_>,
    kind: Kind,
    migrations: &'static [Migration],
    now: Timestamp,
) -> Result<std::result::Result<Vec<&'static str>, MigrationError>> {
    if kind == Kind::Postgres {
        tx.batch(LOCK)?;
    }
    let mut done = Vec::new();
    let status = status(tx, kind, migrations)?;
    for (name, state) in &status {
        match state {
            MigrationState::Drifted => return Ok(Err(MigrationError::Drift(name.clone()))),
            MigrationState::Unknown => return Ok(Err(MigrationError::Newer(name.clone()))),
            MigrationState::Applied | MigrationState::Pending => {}
        }
    }
    tx.batch(if kind == Kind::Sqlite { CREATE_SQLITE } else { CREATE })?;
    for migration in migrations {
        if !status.contains(&(migration.name.to_owned(), MigrationState::Pending)) {
            continue;
        }
        let text = migration.text(kind);
        tx.batch(text)?;
        tx.execute(&RECORD, params![migration.name, sha256(text.as_bytes()), now])?;
        done.push(migration.name);
    }
    Ok(Ok(done))
}
