//! `pearlgate session`

use std::process::ExitCode;

use foundation::audit::Stream;
use foundation::kernel::{Id, PageRequest};
use serde::Serialize;
use serde_json::{Value, json};

use super::user::with_app;
use super::{Failure, Session, items, or_none, plain, roles};
use crate::access::{By, Denied};
use crate::accounts::{self, UserRow};
use crate::admin;
use crate::app::App;
use crate::sessions::{self, SessionRow};

/// Sessions that are looked at at once.
const SOME: u16 = 200;

pub(super) fn run(command: &Session) -> Result<ExitCode, Failure> {
    let (Session::List { common, .. } | Session::End { common, .. }) = command;
    with_app(common, |app| async move { act(&app, command).await })
}

async fn act(app: &App, command: &Session) -> Result<String, String> {
    let words = |e: foundation::db::Error| e.to_string();
    match command {
        Session::List { who, json, .. } => {
            let user = roles::person(app, who).await?;
            let all = living(app, user).await?;
            Ok(if *json {
                items(all)
            } else if all.is_empty() {
                format!("{user} is signed in nowhere.")
            } else {
                all.iter().map(line).collect::<Vec<_>>().join("\n")
            })
        }
        Session::End { who, session: Some(id), .. } => {
            let session = parse(id)?;
            let user = roles::person(app, who).await?;
            let done = admin::on_person(app, By::console(), "users:write", user, move |tx, app, by| {
                if !sessions::end_in(tx, app, user, session, by.from)? {
                    return Ok(Err(Denied::NotFound));
                }
                app.audit_by(tx, &Stream::of(user), "signed_out", by, json!({ "of": session })).map(Ok)
            });
            match done.await.map_err(words)? {
                Ok(()) => Ok(format!("{session} has ended. They may sign in again.")),
                Err(Denied::NotFound) => Err(format!(
                    "{user} has no session {session}: `pearlgate session list {user}` shows those they have"
                )),
                Err(denied) => Err(denied.words()),
            }
        }
        Session::End { who, session: None, .. } => {
            let user = roles::person(app, who).await?;
            accounts::sign_out(app, user).await.map_err(words)?;
            Ok(format!("Every session of {user} has ended. They may sign in again."))
        }
    }
}

fn parse(id: &str) -> Result<Id<SessionRow>, String> {
    id.parse()
        .map_err(|_| format!("{id:?} is no session's id (ses_…): `pearlgate session list WHO` shows them"))
}

/// The newest first.
async fn living(app: &App, user: Id<UserRow>) -> Result<Vec<Value>, String> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let request = PageRequest { limit: Some(SOME), cursor };
        let page = sessions::list_of(app, user, None, &request).await.map_err(|problem| problem.detail)?;
        for session in &page.items {
            found.push(described(session)?);
        }
        if page.next_cursor.is_empty() {
            return Ok(found);
        }
        cursor = Some(page.next_cursor);
    }
}

/// As operators get it over HTTP. None of them is the one that asks; what is not known is an empty text.
fn described(session: &impl Serialize) -> Result<Value, String> {
    let mut value = serde_json::to_value(session).map_err(|e| e.to_string())?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("current");
        fields.entry("trusted_until").or_insert_with(|| Value::from(""));
    }
    Ok(value)
}

fn line(session: &Value) -> String {
    let text = |pointer: &str| session.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let level = session.pointer("/aal").and_then(Value::as_i64).unwrap_or_default();
    plain(&format!(
        "{}  since {}  last seen {}  level {level}  {}  {}  {}",
        text("/id"),
        text("/created_at"),
        text("/last_seen_at"),
        or_none(text("/address")),
        or_none(text("/place")),
        or_none(text("/device/name"))
    ))
}
