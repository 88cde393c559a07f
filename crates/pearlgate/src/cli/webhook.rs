//! `pearlgate webhook`

use std::process::ExitCode;

use foundation::kernel::{Id, Timestamp};
use serde_json::{Value, json};

use super::user::with_app;
use super::{Failure, Webhook, items, plain};
use crate::app::App;
use crate::webhooks::{self, Cursor, Delivery, EndpointRow, Listed};

pub(super) fn run(command: &Webhook) -> Result<ExitCode, Failure> {
    let (Webhook::List { common, .. }
    | Webhook::Add { common, .. }
    | Webhook::Remove { common, .. }
    | Webhook::Rotate { common, .. }
    | Webhook::Pause { common, .. }
    | Webhook::Resume { common, .. }
    | Webhook::Deliveries { common, .. }
    | Webhook::Replay { common, .. }) = command;
    with_app(common, |app| async move { act(&app, command).await })
}

async fn act(app: &App, command: &Webhook) -> Result<String, String> {
    let words = |e: foundation::db::Error| e.to_string();
    match command {
        Webhook::List { json, .. } => {
            let all = webhooks::list(app).await.map_err(words)?;
            if *json {
                return Ok(items(all.iter().map(listed).collect()));
            }
            if all.is_empty() {
                return Ok("No application is told anything.".into());
            }
            let lines = all.iter().map(|one| {
                let state =
                    if one.paused.is_empty() { String::new() } else { format!("  (paused: {})", one.paused) };
                let about =
                    if one.description.is_empty() { String::new() } else { format!("  {}", one.description) };
                format!("{}  {}{about}{state}\n    {}", one.id, one.url, one.types.join(" "))
            });
            Ok(lines.collect::<Vec<_>>().join("\n"))
        }
        Webhook::Add { url, events, description, .. } => {
            let (id, secret) = webhooks::add(app, url, events, description).await?;
            Ok(format!(
                "{id} is told what happens from now on. Its messages are signed with this secret, which is not shown again:\n\
                 {}",
                secret.reveal()
            ))
        }
        Webhook::Remove { id, .. } => {
            let id = parse(id)?;
            let gone = webhooks::remove(app, id).await.map_err(words)?;
            known(gone, id, format!("{id} is told nothing any more."))
        }
        Webhook::Rotate { id, .. } => {
            let id = parse(id)?;
            let secret = webhooks::rotate(app, id).await?;
            let shown = secret.as_ref().map_or("", |secret| secret.reveal());
            known(
                secret.is_some(),
                id,
                format!(
                    "Its messages are signed with this one, too, and in a day with this one alone:\n{shown}"
                ),
            )
        }
        Webhook::Pause { id, reason, .. } => {
            let id = parse(id)?;
            let paused = webhooks::pause(app, id, reason).await.map_err(words)?;
            known(
                paused,
                id,
                format!("{id} is told nothing until `pearlgate webhook resume {id}`; what happens waits."),
            )
        }
        Webhook::Resume { id, .. } => {
            let id = parse(id)?;
            Ok(if webhooks::resume(app, id).await.map_err(words)? {
                format!("{id} is told again, and what happened meanwhile.")
            } else {
                format!("{id} was not paused. Nothing was changed.")
            })
        }
        Webhook::Deliveries { id, limit, json, .. } => {
            let id = parse(id)?;
            let all = webhooks::deliveries(app, id, *limit).await.map_err(words)?;
            if *json {
                let shown = items(all.iter().flatten().map(told).collect());
                return known(all.is_some(), id, shown);
            }
            let lines = all.iter().flatten().map(|one| {
                plain(&format!(
                    "{}  {:<9}  {:>3}x  {:<18} {}  {}  {}",
                    one.last_at, one.state, one.attempts, one.kind, one.user, one.event, one.answer
                ))
            });
            let lines = lines.collect::<Vec<_>>().join("\n");
            let shown = if lines.is_empty() { "It was told nothing yet.".to_owned() } else { lines };
            known(all.is_some(), id, shown)
        }
        Webhook::Replay { id, since, .. } => {
            let id = parse(id)?;
            let there = webhooks::replay(app, id, cursor(app, since)?).await?;
            known(
                there,
                id,
                format!(
                    "{id} is told again what happened since then, each person's events in their order (not before it is resumed, if it is paused)."
                ),
            )
        }
    }
}

/// As operators get it over HTTP.
fn listed(one: &Listed) -> Value {
    json!({
        "id": one.id, "url": one.url, "description": one.description, "events": one.types,
        "paused": !one.paused.is_empty(), "pause_reason": one.paused, "created_at": one.created_at.to_string(),
    })
}

fn told(one: &Delivery) -> Value {
    json!({
        "event": one.event, "type": one.kind, "user_id": one.user, "state": one.state,
        "attempts": one.attempts, "last_at": one.last_at.to_string(), "answer": one.answer,
    })
}

fn parse(id: &str) -> Result<Id<EndpointRow>, String> {
    id.parse().map_err(|_| format!("{id:?} is no endpoint's id (whk_…): `pearlgate webhook list` shows them"))
}

fn known(there: bool, id: Id<EndpointRow>, words: String) -> Result<String, String> {
    if there {
        Ok(words)
    } else {
        Err(format!("there is no endpoint {id}: `pearlgate webhook list` shows them"))
    }
}

fn cursor(app: &App, text: &str) -> Result<Cursor, String> {
    if let Ok(event) = text.parse() {
        return Ok(Cursor::Event(event));
    }
    if let Some(at) = Timestamp::parse(text) {
        return Ok(Cursor::Since(at));
    }
    let ago = humantime::parse_duration(text).map_err(|_| {
        format!(
            "{text:?} is neither a time (2026-11-26T09:00:00Z) nor how long ago (2h) nor an event (msg_…)"
        )
    })?;
    Ok(Cursor::Since(app.clock.now() - ago))
}
