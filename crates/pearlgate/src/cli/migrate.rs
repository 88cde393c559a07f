//! `pearlgate migrate`

use std::process::ExitCode;

use foundation::db::MigrationState;
use foundation::kernel::Clock;

use super::{Common, Failure, block_on, lenient, say};
use crate::app::MIGRATIONS;
use crate::server::{lock_directory, open_database};

pub(super) fn run(common: &Common, check: bool) -> Result<ExitCode, Failure> {
    let settings = lenient(common)?;
    let file = settings.data_dir.join("pearlgate.db");
    if check && settings.database_url.is_none() && !file.exists() {
        say(&format!("{}: there is no database yet; every migration is to be applied", file.display()));
        return Ok(ExitCode::FAILURE);
    }
    let _lock = match (&settings.database_url, check) {
        (None, false) => Some(lock_directory(&settings.data_dir)?),
        _ => None,
    };
    let db = open_database(&settings)?;
    block_on(async move {
        let other = |e: foundation::db::MigrationError| Failure::Other(e.to_string());
        if !check {
            let applied = db.migrate(MIGRATIONS, Clock::System.now()).await.map_err(other)?;
            say(&if applied.is_empty() {
                "up to date".to_owned()
            } else {
                format!("applied {}", applied.join(", "))
            });
            return Ok(ExitCode::SUCCESS);
        }
        let status = db.migration_status(MIGRATIONS).await.map_err(other)?;
        for (name, state) in &status {
            say(&format!("{name}  {}", word(state)));
        }
        let done = status.iter().all(|(_, state)| *state == MigrationState::Applied);
        Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })?
}

fn word(state: &MigrationState) -> &'static str {
    match state {
        MigrationState::Applied => "applied",
        MigrationState::Pending => "pending: `pearlgate migrate` or the next start applies it",
        MigrationState::Drifted => {
            "DRIFTED: the text applied is not the text in this program; it will not start"
        }
        MigrationState::Unknown => "UNKNOWN: made by a newer version; this one will not start",
    }
}
