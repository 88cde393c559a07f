//! `pearlgate roles`, and who has them: `pearlgate user grant`, `revoke`, `show`.

use std::process::ExitCode;

use serde_json::json;

use super::user::with_app;
use super::{Failure, Roles};
use crate::access::{self, By, Change, Described, Plan, RolesFile, Scope};
use crate::accounts::UserRow;
use crate::app::App;
use foundation::kernel::Id;

pub(super) fn run(command: &Roles) -> Result<ExitCode, Failure> {
    let (Roles::List { common, .. } | Roles::Apply { common, .. } | Roles::Check { common, .. }) = command;
    with_app(common, |app| async move { act(&app, command).await })
}

async fn act(app: &App, command: &Roles) -> Result<String, String> {
    let words = |e: foundation::db::Error| e.to_string();
    match command {
        Roles::List { json, .. } => {
            let roles = access::roles(app).await.map_err(words)?;
            Ok(if *json { listed_json(&roles) } else { listed(&roles) })
        }
        Roles::Apply { file, dry_run, prune, json, .. } => {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
            let parsed = RolesFile::parse(&text).map_err(|e| format!("{}: {e}", file.display()))?;
            let planned = if *dry_run {
                access::preview(app, parsed, *prune).await
            } else {
                access::apply(app, By::console(), parsed, *prune).await
            };
            let plan = planned
                .map_err(words)?
                .map_err(|denied| format!("Nothing was changed: {}", denied.words()))?;
            Ok(told(&plan, *dry_run, *json))
        }
        Roles::Check { who, permission, on, json, .. } => {
            let user = person(app, who).await?;
            let permission = access::Permission::parse("permission", permission).map_err(|e| e.message)?;
            let resource = on.as_deref().map(|text| access::Resource::parse("--on", text)).transpose();
            let resource = resource.map_err(|e| e.message)?;
            let decision = access::decide(app, user, &permission, resource.as_ref()).await.map_err(words)?;
            Ok(if *json {
                json!({ "allowed": decision.allowed, "because": decision.because }).to_string()
            } else {
                format!("{}: {}", if decision.allowed { "yes" } else { "no" }, decision.because)
            })
        }
    }
}

fn told(plan: &Plan, dry_run: bool, json: bool) -> String {
    if json {
        return json!({ "changed": !dry_run && !plan.is_empty(), "lines": plan.lines }).to_string();
    }
    if plan.is_empty() {
        return "The roles are as the file says. Nothing was changed.".into();
    }
    let end = if dry_run { "Nothing was changed: this was a dry run." } else { "Done." };
    format!("{}\n{end}", plan.lines.join("\n"))
}

fn listed(roles: &[Described]) -> String {
    let lines = roles.iter().map(|role| {
        let default = if role.default { " (given to everybody new)" } else { "" };
        let effects: Vec<String> = role
            .effects
            .iter()
            .map(|(permission, via)| {
                if *via == role.row.name {
                    permission.clone()
                } else {
                    format!("{permission} (through {via})")
                }
            })
            .collect();
        let may = if effects.is_empty() { "nothing".to_owned() } else { effects.join(", ") };
        format!("{:<24} level {:>3}{default}: {may}", role.row.name, role.row.level)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn listed_json(roles: &[Described]) -> String {
    let items: Vec<_> = roles
        .iter()
        .map(|role| {
            json!({
                "id": role.row.id, "name": role.row.name, "description": role.row.description, "level": role.row.level,
                "inherits": role.spec.inherits, "permissions": role.spec.permissions, "default": role.default,
                "effects": role.effects.iter().map(|(permission, through)| json!({ "permission": permission, "through": through })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "items": items }).to_string()
}

/// Gives somebody a role.
pub(super) async fn grant(
    app: &App,
    user: Id<UserRow>,
    role: &str,
    on: Option<&str>,
) -> Result<String, String> {
    change(app, user, Change::Add(place(role, on)?)).await?;
    Ok(format!("{user} has the role {role}{}.", at(on)))
}

/// Takes a role away from somebody.
pub(super) async fn revoke(
    app: &App,
    user: Id<UserRow>,
    role: &str,
    on: Option<&str>,
) -> Result<String, String> {
    change(app, user, Change::Take(place(role, on)?)).await?;
    Ok(format!("{user} does not have the role {role}{}.", at(on)))
}

async fn change(app: &App, user: Id<UserRow>, change: Change) -> Result<(), String> {
    let done = access::change(app, By::console(), user, change).await.map_err(|e| e.to_string())?;
    done.map(|_| ()).map_err(|denied| format!("Nothing was changed: {}", denied.words()))
}

fn place(role: &str, on: Option<&str>) -> Result<(String, String), String> {
    let scope = Scope::parse("--on", on.unwrap_or_default()).map_err(|e| format!("--on {}", e.message))?;
    Ok((role.to_owned(), scope.as_str().to_owned()))
}

fn at(on: Option<&str>) -> String {
    on.map(|on| format!(" on {on}")).unwrap_or_default()
}

/// Somebody named by an address or by an id.
pub(super) async fn person(app: &App, who: &str) -> Result<Id<UserRow>, String> {
    let found = crate::accounts::find(app, who).await.map_err(|e| e.to_string())?;
    found.ok_or_else(|| {
        format!("there is nobody called {who:?}; give the address of an account, or its id (usr_…)")
    })
}

/// Everything that operators see of somebody.
pub(super) async fn show(app: &App, user: Id<UserRow>, json: bool) -> Result<String, String> {
    let words = |e: foundation::db::Error| e.to_string();
    let found = crate::admin::one(app, user).await.map_err(words)?.ok_or("they are gone")?;
    let grants = access::grants(app, user).await.map_err(words)?.unwrap_or_default();
    if json {
        let roles: Vec<_> =
            grants.iter().map(|grant| json!({ "role": grant.role, "resource": grant.resource })).collect();
        return Ok(json!({
            "id": found.id, "email": found.address, "email_verified": found.verified, "display_name": found.display_name,
            "mfa_enabled": found.mfa, "created_at": found.created_at.to_string(), "roles": roles,
            "suspended": found.suspended_at.micros() > 0, "suspended_for": found.suspended_for,
        })
        .to_string());
    }
    let roles: Vec<String> = grants
        .iter()
        .map(|grant| {
            if grant.resource.is_empty() {
                grant.role.clone()
            } else {
                format!("{} on {}", grant.role, grant.resource)
            }
        })
        .collect();
    let yes = |so: bool| if so { "yes" } else { "no" };
    let mut lines = vec![
        format!("id              {}", found.id),
        format!("address         {}{}", found.address, if found.verified { "" } else { " (not proven)" }),
        format!("name            {}", found.display_name),
        format!("since           {}", found.created_at),
        format!("second factor   {}", yes(found.mfa)),
        format!("roles           {}", if roles.is_empty() { "none".into() } else { roles.join(", ") }),
    ];
    if found.suspended_at.micros() > 0 {
        lines.push(format!("suspended       since {}: {}", found.suspended_at, found.suspended_for));
    }
    Ok(lines.join("\n"))
}
