//! `pearlgate keys`

use std::process::ExitCode;

use data_encoding::BASE64;
use foundation::kernel::{Clock, Entropy};

use super::{Common, Failure, block_on, lenient, say};
use crate::app::MIGRATIONS;
use crate::server::open_database;
use crate::sessions;

pub(super) fn generate() -> Result<ExitCode, Failure> {
    say(&BASE64.encode(&Entropy::System.bytes::<32>()));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn list(common: &Common) -> Result<ExitCode, Failure> {
    let settings = lenient(common)?;
    if settings.database_url.is_none() && !settings.data_dir.join("pearlgate.db").exists() {
        return Err(Failure::Other(format!(
            "there is no database in {} yet: start the server once",
            settings.data_dir.display()
        )));
    }
    let db = open_database(&settings)?;
    block_on(async move {
        let other = |e: &dyn std::fmt::Display| Failure::Other(e.to_string());
        db.migrate(MIGRATIONS, Clock::System.now()).await.map_err(|e| other(&e))?;
        for key in sessions::list_signing_keys(&db).await.map_err(|e| other(&e))? {
            say(&format!("{}  {}  {}", key.kid, key.algorithm, key.created_at));
        }
        Ok(ExitCode::SUCCESS)
    })?
}
