//! `pearlgate mail`

use std::process::ExitCode;

use foundation::mail::{self, Delivery, Suppression};
use serde_json::{Value, json};

use super::user::with_app;
use super::{Failure, Mail, items, or_none, plain};
use crate::accounts;
use crate::app::App;
use crate::mailing;

pub(super) fn run(command: &Mail) -> Result<ExitCode, Failure> {
    let (Mail::List { common, .. }
    | Mail::Show { common, .. }
    | Mail::Suppressions { common, .. }
    | Mail::Lift { common, .. }) = command;
    with_app(common, |app| async move { act(&app, command).await })
}

async fn act(app: &App, command: &Mail) -> Result<String, String> {
    let words = |e: foundation::db::Error| e.to_string();
    let now = app.clock.now();
    match command {
        Mail::List { to, limit, json, .. } => {
            let to = to.as_deref().map(accounts::address_key);
            let all = mail::list(&app.db, to, now, *limit).await.map_err(words)?;
            if *json {
                return Ok(items(all.iter().map(described).collect()));
            }
            let lines: Vec<_> = all.iter().map(line).collect();
            Ok(if lines.is_empty() { "There are no mails.".into() } else { lines.join("\n") })
        }
        Mail::Show { id, json, .. } => {
            let id = id.parse().map_err(|_| format!("{id:?} is no mail's id (mail_…)"))?;
            let found = mail::find(&app.db, id).await.map_err(words)?;
            let one = found.ok_or_else(|| {
                format!("there is no mail {id} (any more): they are remembered for 30 days")
            })?;
            Ok(if *json {
                described(&one).to_string()
            } else {
                format!(
                    "{}\n  put {}\n  provider: {}\n  its name there: {}\n  said last: {}",
                    line(&one),
                    one.created_at,
                    or_none(&one.provider),
                    or_none(&plain(&one.reference)),
                    or_none(&plain(&one.detail))
                )
            })
        }
        Mail::Suppressions { limit, json, .. } => {
            let all = mail::suppressions(&app.db, now, *limit).await.map_err(words)?;
            if *json {
                return Ok(items(all.iter().map(left_alone).collect()));
            }
            let lines = all.iter().map(|one| {
                plain(&format!(
                    "{}  {} since {}, until {}  {}: {}",
                    one.recipient, one.reason, one.since, one.until, one.provider, one.detail
                ))
            });
            Ok(if all.is_empty() {
                "No address is left alone.".into()
            } else {
                lines.collect::<Vec<_>>().join("\n")
            })
        }
        Mail::Lift { address, .. } => Ok(if mailing::lift(app, address).await.map_err(words)? {
            format!("{address} is written to again.")
        } else {
            format!("{address} was not left alone. Nothing was changed.")
        }),
    }
}

fn line(one: &Delivery) -> String {
    plain(&format!("{}  {:<10}  {:<20} {}  {}", one.changed_at, one.state, one.kind, one.recipient, one.id))
}

/// As operators get it over HTTP.
fn described(one: &Delivery) -> Value {
    json!({
        "id": one.id, "kind": one.kind, "to": one.recipient, "state": one.state, "provider": one.provider,
        "reference": one.reference, "detail": one.detail, "created_at": one.created_at.to_string(),
        "changed_at": one.changed_at.to_string(),
    })
}

fn left_alone(one: &Suppression) -> Value {
    json!({
        "address": one.recipient, "reason": one.reason, "detail": one.detail, "provider": one.provider,
        "since": one.since.to_string(), "until": one.until.to_string(),
    })
}
