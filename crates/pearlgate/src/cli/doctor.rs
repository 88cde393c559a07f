//! `pearlgate doctor`

use std::process::ExitCode;
use std::time::Duration;

use foundation::db::MigrationState;

use super::{Common, Failure, block_on, layers, lenient, say};
use crate::app::MIGRATIONS;
use crate::server::open_database;
use crate::settings::{MailHop, MailWay, Purpose, Settings};

pub(super) fn run(common: &Common) -> Result<ExitCode, Failure> {
    let checked = layers(common).and_then(|layers| Settings::check(&layers, Purpose::Production));
    let mut well = report(
        "settings",
        checked.as_ref().map(|_| "fit for production".to_owned()).map_err(ToString::to_string),
    );
    let settings = lenient(common)?;
    well &= report("data directory", directory(&settings));
    let found = block_on(async {
        let mut found = vec![("database".to_owned(), database(&settings).await)];
        for hop in &settings.mail.hops {
            found.push((mail_name(&hop.name), mail(hop).await));
        }
        found
    })?;
    for (what, found) in found {
        well &= report(&what, found);
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn mail_name(name: &str) -> String {
    if name == "primary" { "mail server".to_owned() } else { format!("mail provider {name}") }
}

fn report(what: &str, found: Result<String, String>) -> bool {
    match &found {
        Ok(words) => say(&format!("ok     {what}: {words}")),
        Err(words) => say(&format!("wrong  {what}: {words}")),
    }
    found.is_ok()
}

fn directory(settings: &Settings) -> Result<String, String> {
    let dir = &settings.data_dir;
    if !dir.exists() {
        return Ok(format!("{} will be made at the first start", dir.display()));
    }
    let probe = dir.join(".doctor");
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(format!("{} can be written to", dir.display()))
}

async fn database(settings: &Settings) -> Result<String, String> {
    if settings.database_url.is_none() && !settings.data_dir.join("pearlgate.db").exists() {
        return Ok("will be made at the first start".into());
    }
    let db = open_database(settings).map_err(|e| e.to_string())?;
    let status = db.migration_status(MIGRATIONS).await.map_err(|e| e.to_string())?;
    let wrong =
        status.iter().find(|(_, state)| matches!(state, MigrationState::Drifted | MigrationState::Unknown));
    if let Some((name, _)) = wrong {
        return Err(format!("migration {name} is not this program's; see `pearlgate migrate --check`"));
    }
    let pending = status.iter().filter(|(_, state)| *state == MigrationState::Pending).count();
    Ok(format!("{:?} answers, {} migrations applied, {pending} pending", db.kind(), status.len() - pending))
}

async fn mail(hop: &MailHop) -> Result<String, String> {
    let MailWay::Smtp(smtp) = &hop.way else {
        return Ok("has what it needs; nobody is asked before there is a mail".into());
    };
    let place = format!("{}:{}", smtp.host, smtp.port);
    let away = "Mail goes to the next in mail.chain, or waits until it answers";
    let connecting = tokio::net::TcpStream::connect(place.clone());
    match tokio::time::timeout(Duration::from_secs(5), connecting).await {
        Ok(Ok(_)) => Ok(format!("{place} accepts connections")),
        Ok(Err(e)) => Err(format!(
            "{place}: {e}. {away}; set its host and port (mail.smtp, or its section in mailers)."
        )),
        Err(_) => Err(format!(
            "{place} does not answer. {away}; set its host and port (mail.smtp, or its section in mailers)."
        )),
    }
}
