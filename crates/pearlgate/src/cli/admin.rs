//! `pearlgate admin`: the first operator.

use std::process::ExitCode;

use super::breach::password;
use super::user::with_app;
use super::{Admin, Failure};
use crate::access::By;
use crate::access::setup::{self, SetUp};
use crate::accounts::{DisplayName, EmailAddress};
use crate::app::App;

pub(super) fn run(command: &Admin) -> Result<ExitCode, Failure> {
    let (Admin::Create { common, .. } | Admin::Link { common }) = command;
    with_app(common, |app| async move { act(&app, command).await })
}

async fn act(app: &App, command: &Admin) -> Result<String, String> {
    let before = "The first operator was set up before: this is done once. `pearlgate user grant WHO owner` makes somebody \
                  else an owner. Nothing was changed.";
    let words = |e: foundation::db::Error| e.to_string();
    match command {
        Admin::Link { .. } if app.settings.public_url.is_empty() => Err(
            "the link needs the server's address: set server.public_url as for the server (in --dev: the address that it shows)".into(),
        ),
        Admin::Link { .. } => {
            let link = setup::link(app).await.map_err(words)?.ok_or(before)?;
            Ok(format!("{link}\nIt is good for an hour, once. Whoever opens it becomes the owner: give it to nobody."))
        }
        Admin::Create { email, name, .. } => {
            if setup::is_done(app).await.map_err(words)? {
                return Err(before.into());
            }
            let email = EmailAddress::parse("the address", email).map_err(|e| format!("the address {}", e.message))?;
            let name = DisplayName::parse("--name", name).map_err(|e| format!("--name {}", e.message))?;
            let password = password().map_err(|e| e.to_string())?;
            let founding = setup::prepare(app, email, name, &password).await.map_err(|problem| {
                let fields: Vec<_> = problem.fields.iter().map(|e| format!("{} {}", e.field, e.message)).collect();
                if fields.is_empty() { problem.detail } else { fields.join("; ") }
            })?;
            match setup::set_up(app, None, founding, By::console().from).await.map_err(words)? {
                SetUp::Done(user) => Ok(format!(
                    "{user} is the owner. They sign in as everybody does, and set up a second factor before they do anything as \
                     an operator."
                )),
                SetUp::Before | SetUp::Link => Err(before.into()),
            }
        }
    }
}
