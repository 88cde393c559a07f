//! `pearlgate keys`

use std::process::ExitCode;

use data_encoding::BASE64;
use foundation::kernel::{Clock, Entropy, MasterKeys, Sealer};

use super::{Common, Failure, block_on, lenient, say};
use crate::app::MIGRATIONS;
use crate::federation;
use crate::server::{master_keys, open_database};
use crate::sessions::{KeyKeeper, Rotated};
use crate::transfer;
use crate::webhooks;

pub(super) fn generate() -> Result<ExitCode, Failure> {
    say(&BASE64.encode(&Entropy::System.bytes::<32>()));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn list(common: &Common) -> Result<ExitCode, Failure> {
    let open = open(common, Need::NoKey)?;
    block_on(async move {
        open.migrate().await?;
        for key in open.keeper.list().await.map_err(|e| other(&e))? {
            say(&format!(
                "{}  {}  {}  made {}, signs from {}",
                key.kid, key.algorithm, key.state, key.created_at, key.signs_from
            ));
        }
        Ok(ExitCode::SUCCESS)
    })?
}

pub(super) fn rotate(common: &Common) -> Result<ExitCode, Failure> {
    let open = open(common, Need::MasterKey)?;
    block_on(async move {
        open.migrate().await?;
        let words = match open.keeper.rotate(false).await.map_err(|e| other(&e))? {
            Rotated::Published(kid, from) => format!(
                "{kid} is published now and signs from {from}, when everybody who keeps the public keys has it."
            ),
            Rotated::Pending(kid, from) => {
                format!("{kid} is on its way already and signs from {from}. Nothing was changed.")
            }
            Rotated::NotDue => "Nothing was changed.".to_owned(),
        };
        say(&words);
        Ok(ExitCode::SUCCESS)
    })?
}

pub(super) fn revoke(common: &Common, kid: &str) -> Result<ExitCode, Failure> {
    let open = open(common, Need::MasterKey)?;
    block_on(async move {
        open.migrate().await?;
        if !open.keeper.revoke(kid).await.map_err(|e| other(&e))? {
            return Err(Failure::Other(format!(
                "there is no signing key {kid}; `pearlgate keys list` shows them"
            )));
        }
        say(&format!(
            "{kid} is gone. Running servers refuse what it signed within seconds; others as soon as they fetch the public keys again, which they may keep for five minutes. People stay signed in: their clients get a new access token by refreshing."
        ));
        Ok(ExitCode::SUCCESS)
    })?
}

pub(super) fn reseal(common: &Common) -> Result<ExitCode, Failure> {
    let open = open(common, Need::MasterKey)?;
    block_on(async move {
        open.migrate().await?;
        let keys = open.keeper.reseal().await.map_err(|e| other(&e))?;
        let factors = transfer::reseal_factors(&open.db, &open.sealer).await.map_err(Failure::Other)?;
        let reseal_providers = federation::reseal_providers(&open.db, &open.sealer);
        let providers = reseal_providers.await.map_err(Failure::Other)?;
        let reseal_webhooks = webhooks::reseal_webhooks(&open.db, &open.sealer);
        let webhooks = reseal_webhooks.await.map_err(Failure::Other)?;
        say(&format!(
            "{keys} signing keys, {factors} second factors, {providers} providers and {webhooks} webhook secrets are sealed under the current master key now."
        ));
        say(
            "What else was made under an old one is short-lived: codes in mails and mails that wait (3 days), refresh tokens (tokens.refresh_idle), and what makes a device a known one (until it signs in again).",
        );
        say(
            "Take a key out of secrets.old_master_keys when those times have passed; earlier, some people have to sign in again.",
        );
        Ok(ExitCode::SUCCESS)
    })?
}

struct Open {
    db: foundation::db::Db,
    sealer: Sealer,
    keeper: KeyKeeper,
}

impl Open {
    async fn migrate(&self) -> Result<(), Failure> {
        self.db.migrate(MIGRATIONS, Clock::System.now()).await.map(|_| ()).map_err(|e| other(&e))
    }
}

/// What a command needs to know.
#[derive(PartialEq, Eq)]
enum Need {
    /// Only what is public about keys.
    NoKey,
    /// The key that private ones are sealed under.
    MasterKey,
}

fn open(common: &Common, need: Need) -> Result<Open, Failure> {
    let settings = lenient(common)?;
    if settings.database_url.is_none() && !settings.data_dir.join("pearlgate.db").exists() {
        return Err(Failure::Other(format!(
            "there is no database in {} yet: start the server once",
            settings.data_dir.display()
        )));
    }
    // Nothing is opened or sealed by whoever only looks.
    let any = || (need == Need::NoKey).then(|| MasterKeys::new(Entropy::System.bytes(), &[]));
    let master = master_keys(&settings).or_else(any).ok_or_else(|| {
        Failure::Other(
            "secrets.master_key is not set, and signing keys are sealed under it: set it as for the server"
                .into(),
        )
    })?;
    let db = open_database(&settings)?;
    let sealer = Sealer::new(&master, Entropy::System);
    let keeper = KeyKeeper::new(&settings, db.clone(), sealer.clone(), Clock::System, Entropy::System);
    Ok(Open { db, sealer, keeper })
}

fn other(e: &dyn std::fmt::Display) -> Failure {
    Failure::Other(e.to_string())
}
