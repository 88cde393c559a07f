//! `pearlgate provider`

use std::process::ExitCode;

use serde_json::{Value, json};

use super::user::with_app;
use super::{Failure, Provider, items};
use crate::app::App;
use crate::federation::{self, Listed};

pub(super) fn run(command: &Provider) -> Result<ExitCode, Failure> {
    let (Provider::List { common, .. }
    | Provider::Add { common, .. }
    | Provider::Disable { common, .. }
    | Provider::Enable { common, .. }
    | Provider::Remove { common, .. }) = command;
    with_app(common, |app| async move { act(&app, command).await })
}

async fn act(app: &App, command: &Provider) -> Result<String, String> {
    match command {
        Provider::List { json, .. } => {
            let all = federation::list_providers(app).await?;
            if *json {
                return Ok(items(all.iter().map(listed).collect()));
            }
            let lines = all.iter().map(|one| {
                let place = if one.in_settings { "settings" } else { "database" };
                let state = if one.offered { "on" } else { "off" };
                format!("{:<32} {:<9} {:<4} {}", one.id, place, state, one.name)
            });
            Ok(if all.is_empty() {
                "There are no providers.".into()
            } else {
                lines.collect::<Vec<_>>().join("\n")
            })
        }
        Provider::Add { name, file, .. } => {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
            federation::add_provider(app, name, &text).await?;
            let url = match app.settings.public_url.as_str() {
                "" => "{public_url}",
                url => url,
            };
            Ok(format!(
                "People may sign in through {name}. It has to know this address: {url}/v1/auth/oauth/{name}/callback"
            ))
        }
        Provider::Disable { name, .. } => {
            federation::set_disabled(app, name, true).await?;
            Ok(format!("Nobody signs in through {name}. `pearlgate provider enable {name}` lifts it."))
        }
        Provider::Enable { name, .. } => {
            federation::set_disabled(app, name, false).await?;
            Ok(format!("People may sign in through {name} again."))
        }
        Provider::Remove { name, .. } => Ok(if federation::remove_provider(app, name).await? {
            format!("{name} is gone. Identities that were linked at it stay, and let nobody in.")
        } else {
            format!("No provider {name} was added. Nothing was changed.")
        }),
    }
}

/// As operators get it over HTTP.
fn listed(one: &Listed) -> Value {
    json!({
        "id": one.id, "name": one.name, "issuer": one.issuer, "client_id": one.client_id,
        "in_settings": one.in_settings, "enabled": one.offered, "state": one.state,
    })
}
