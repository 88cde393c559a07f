//! Roles as they are declared: read, planned, and changed in one piece.

use std::collections::{BTreeMap, BTreeSet};

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::{Claim, IdempotencyKey};
use foundation::kernel::{Id, Timestamp};
use foundation::params;
use serde_json::json;

use super::by::By;
use super::file::{Plan, RolesFile, plan};
use super::flow::{Denied, Standing, may, roles_of};
use super::model::{OWNER, RoleRow, RoleSpec, effects, own_within};
use super::store::{self, StoredRole};
use crate::accounts::UserRow;
use crate::app::App;

/// A role with everything about it.
#[derive(Debug, Clone)]
pub struct Described {
    /// As it is stored.
    pub row: StoredRole,
    /// As it was declared.
    pub spec: RoleSpec,
    /// What it may in the end, and through which role.
    pub effects: Vec<(String, String)>,
    /// Whether whoever registers is given it.
    pub default: bool,
}

/// The most roles that there are; what each holds itself, and inherits from.
const MOST_ROLES: usize = 1_000;
const MOST_PATTERNS: usize = 500;
const MOST_PARENTS: usize = 50;

/// All roles.
pub(super) type Specs = BTreeMap<String, RoleSpec>;

fn rows(tx: &mut Tx<'_>) -> db::Result<(Vec<StoredRole>, Specs)> {
    let rows: Vec<StoredRole> = tx.all(&store::ROLES, params![])?;
    let mut specs: Specs = rows
        .iter()
        .map(|row| {
            let spec = RoleSpec {
                name: row.name.clone(),
                description: row.description.clone(),
                level: row.level,
                inherits: BTreeSet::new(),
                permissions: BTreeSet::new(),
            };
            (row.name.clone(), spec)
        })
        .collect();
    for (role, parent) in tx.all::<(String, String)>(&store::PARENTS, params![])? {
        if let Some(spec) = specs.get_mut(&role) {
            spec.inherits.insert(parent);
        }
    }
    for (role, permission) in tx.all::<(String, String)>(&store::PERMISSIONS, params![])? {
        if let Some(spec) = specs.get_mut(&role) {
            spec.permissions.insert(permission);
        }
    }
    Ok((rows, specs))
}

fn defaults(tx: &mut Tx<'_>) -> db::Result<BTreeSet<String>> {
    let found: Vec<(String,)> = tx.all(&store::DEFAULTS, params![])?;
    Ok(found.into_iter().map(|(role,)| role).collect())
}

/// All roles, by name.
///
/// # Errors
/// As every read.
pub async fn roles(app: &App) -> db::Result<Vec<Described>> {
    app.db
        .read(|tx| {
            let (rows, mut specs) = rows(tx)?;
            let defaults = defaults(tx)?;
            let mut effects: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
            for (role, permission, via) in tx.all::<(String, String, String)>(&store::EFFECTS, params![])? {
                effects.entry(role).or_default().push((permission, via));
            }
            let described = rows.into_iter().filter_map(|row| {
                let spec = specs.remove(&row.name)?;
                let effects = effects.remove(&row.name).unwrap_or_default();
                Some(Described { default: defaults.contains(&row.name), row, spec, effects })
            });
            Ok(described.collect())
        })
        .await
}

/// What a file would change; nothing is changed.
///
/// # Errors
/// As every read.
pub async fn preview(app: &App, file: RolesFile, prune: bool) -> db::Result<Result<Plan, Denied>> {
    app.db
        .read(move |tx| {
            let (_, specs) = rows(tx)?;
            let defaults = defaults(tx)?;
            let planned =
                plan(&specs, &defaults, &file, prune).map_err(|words| Denied::Invalid("roles", words));
            let Ok(plan) = planned else { return Ok(planned) };
            for role in &plan.remove {
                if tx.opt::<(Id<UserRow>,)>(&store::HOLDER, params![role])?.is_some() {
                    return Ok(Err(still_held(role)));
                }
            }
            Ok(Ok(plan))
        })
        .await
}

fn still_held(role: &str) -> Denied {
    Denied::Conflict(format!("The role {role} is somebody's: take it away from them first."))
}

/// Does what a file says.
///
/// # Errors
/// As every statement.
pub async fn apply(app: &App, by: By, file: RolesFile, prune: bool) -> db::Result<Result<Plan, Denied>> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            let standing = match may(tx, &inner, &by, "roles:write")? {
                Ok(standing) => standing,
                Err(denied) => return Ok(Err(denied)),
            };
            let (_, specs) = rows(tx)?;
            let defaults = defaults(tx)?;
            match plan(&specs, &defaults, &file, prune) {
                Ok(plan) => change(tx, &inner, &by, &standing, &specs, plan, None),
                Err(words) => Ok(Err(Denied::Invalid("roles", words))),
            }
        })
        .await
}

/// A role as somebody wants it to be; what is not given stays.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What it is.
    pub description: Option<String>,
    /// How high it stands.
    pub level: Option<i64>,
    /// What it inherits.
    pub inherits: Option<BTreeSet<String>>,
    /// What it holds itself.
    pub permissions: Option<BTreeSet<String>>,
    /// Whether whoever registers is given it.
    pub default: Option<bool>,
}

/// Which role is meant.
#[derive(Debug, Clone)]
pub enum Which {
    /// A new one, with this name.
    New(String),
    /// One that is there.
    Known(Id<RoleRow>),
}

/// Adds a role, or changes one; under a key that was claimed before, nothing is done.
///
/// # Errors
/// As every statement.
pub async fn put(
    app: &App,
    by: By,
    which: Which,
    wanted: Wanted,
    key: IdempotencyKey,
) -> db::Result<Result<String, Denied>> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            let standing = match may(tx, &inner, &by, "roles:write")? {
                Ok(standing) => standing,
                Err(denied) => return Ok(Err(denied)),
            };
            let (stored, before) = rows(tx)?;
            let mut defaults = defaults(tx)?;
            let name = match &which {
                Which::New(name) if before.contains_key(name) => {
                    return Ok(Err(Denied::Conflict(format!("There is a role {name} already."))));
                }
                Which::New(name) => name.clone(),
                Which::Known(id) => match stored.iter().find(|row| row.id == *id) {
                    Some(row) => row.name.clone(),
                    None => return Ok(Err(Denied::NotFound)),
                },
            };
            let mut spec = before.get(&name).cloned().unwrap_or_else(|| RoleSpec {
                name: name.clone(),
                description: String::new(),
                level: 0,
                inherits: BTreeSet::new(),
                permissions: BTreeSet::new(),
            });
            let wanted = wanted.clone();
            spec.description = wanted.description.unwrap_or(spec.description);
            spec.level = wanted.level.unwrap_or(spec.level);
            spec.inherits = wanted.inherits.unwrap_or(spec.inherits);
            spec.permissions = wanted.permissions.unwrap_or(spec.permissions);
            let was_default = defaults.contains(&name);
            if wanted.default.unwrap_or(was_default) {
                defaults.insert(name.clone());
            } else {
                defaults.remove(&name);
            }
            if defaults.contains(&name) && spec.level != 0 {
                let words = "a role that everybody is given has level 0".to_owned();
                return Ok(Err(Denied::Invalid("default", words)));
            }
            let changed = before.get(&name) != Some(&spec);
            let mut plan = Plan::default();
            if before.contains_key(&name) {
                plan.change.extend(changed.then_some(spec));
            } else {
                plan.add.push(spec);
            }
            plan.default = (defaults.contains(&name) != was_default).then_some(defaults);
            let key = (&key, name.as_str());
            let done = change(tx, &inner, &by, &standing, &before, plan, Some(key))?;
            Ok(done.map(|_| name.clone()))
        })
        .await
}

/// Takes a role away that nobody has.
///
/// # Errors
/// As every statement.
pub async fn remove(app: &App, by: By, id: Id<RoleRow>) -> db::Result<Result<String, Denied>> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            let standing = match may(tx, &inner, &by, "roles:write")? {
                Ok(standing) => standing,
                Err(denied) => return Ok(Err(denied)),
            };
            let (stored, before) = rows(tx)?;
            let Some(row) = stored.into_iter().find(|row| row.id == id) else {
                return Ok(Err(Denied::NotFound));
            };
            let plan = Plan { remove: vec![row.name.clone()], ..Plan::default() };
            Ok(change(tx, &inner, &by, &standing, &before, plan, None)?.map(|_| row.name))
        })
        .await
}

/// The one way in which roles change: everything is checked against what was and what will be, then written; once under a
/// key, with what it is answered.
fn change(
    tx: &mut Tx<'_>,
    app: &App,
    by: &By,
    standing: &Standing,
    before: &Specs,
    plan: Plan,
    key: Option<(&IdempotencyKey, &str)>,
) -> db::Result<Result<Plan, Denied>> {
    let mut after = before.clone();
    plan.remove.iter().for_each(|name| drop(after.remove(name)));
    for spec in plan.add.iter().chain(&plan.change) {
        after.insert(spec.name.clone(), spec.clone());
    }
    let touched: BTreeSet<&String> =
        plan.add.iter().chain(&plan.change).map(|spec| &spec.name).chain(&plan.remove).collect();
    if touched.iter().any(|name| name.as_str() == OWNER) {
        return Ok(Err(Denied::Conflict("The role owner is the server's own: it stays as it is.".into())));
    }
    let (was, becomes) = match (effects(before), effects(&after)) {
        (Ok(was), Ok(becomes)) => (was, becomes),
        (_, Err(words)) | (Err(words), _) => return Ok(Err(Denied::Invalid("roles", words))),
    };
    let of = |all: &[super::model::Effect], name: &str| -> BTreeSet<String> {
        all.iter().filter(|effect| effect.role == name).map(|effect| effect.permission.clone()).collect()
    };
    if after.len() > MOST_ROLES
        || after
            .values()
            .any(|spec| spec.permissions.len() > MOST_PATTERNS || spec.inherits.len() > MOST_PARENTS)
    {
        let words = format!(
            "are at most {MOST_ROLES}, each with at most {MOST_PATTERNS} permissions and {MOST_PARENTS} that it inherits"
        );
        return Ok(Err(Denied::Invalid("roles", words)));
    }
    // What inherits from a role that is changed is changed with it.
    let own: BTreeSet<String> = match by.person() {
        Some(actor) if !standing.is_owner() => {
            roles_of(tx, actor)?.into_iter().map(|(role, _)| role).collect()
        }
        _ => BTreeSet::new(),
    };
    let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in all.into_iter().filter(|name| touched.contains(*name) || of(&was, name) != of(&becomes, name))
    {
        if own.contains(name) {
            return Ok(Err(Denied::Oneself));
        }
        let levels = [before.get(name), after.get(name)].into_iter().flatten().map(|spec| spec.level);
        if levels.into_iter().any(|level| !standing.is_above(level)) {
            return Ok(Err(Denied::Level("That role stands as high as you, or higher.")));
        }
        for held in [of(&was, name), of(&becomes, name)] {
            if !own_within(&held, &standing.held) {
                return Ok(Err(Denied::Beyond(format!(
                    "the role {name} may more of the server's own than you"
                ))));
            }
        }
    }
    if let Some(defaults) = &plan.default
        && defaults.iter().any(|name| after.get(name).is_none_or(|spec| spec.level != 0))
    {
        let words = "a role that everybody is given is there and has level 0".to_owned();
        return Ok(Err(Denied::Invalid("default", words)));
    }
    for name in &plan.remove {
        if tx.opt::<(Id<UserRow>,)>(&store::HOLDER, params![name])?.is_some() {
            return Ok(Err(still_held(name)));
        }
    }
    if let Some((key, answer)) = key
        && key.claim(tx, app.clock.now(), 201, answer)? == Claim::Done
    {
        return Ok(Ok(plan));
    }
    write(tx, app, &plan)?;
    rewrite_effects(tx, app, &was, &becomes)?;
    tell(tx, app, by, &plan)?;
    Ok(Ok(plan))
}

fn write(tx: &mut Tx<'_>, app: &App, plan: &Plan) -> db::Result<()> {
    let now = app.clock.now();
    plan.remove.iter().try_for_each(|name| tx.execute(&store::REMOVE_ROLE, params![name]).map(|_| ()))?;
    // All of them before what one inherits from another.
    for spec in plan.add.iter().chain(&plan.change) {
        let id = Id::<RoleRow>::new(&app.clock, &app.chance);
        tx.execute(&store::PUT_ROLE, params![id, spec.name, spec.description, spec.level, now])?;
    }
    for spec in plan.add.iter().chain(&plan.change) {
        tx.execute(&store::CLEAR_PARENTS, params![spec.name])?;
        tx.execute(&store::CLEAR_PERMISSIONS, params![spec.name])?;
        for parent in &spec.inherits {
            tx.execute(&store::ADD_PARENT, params![spec.name, parent])?;
        }
        for permission in &spec.permissions {
            tx.execute(&store::ADD_PERMISSION, params![spec.name, permission])?;
        }
    }
    if let Some(defaults) = &plan.default {
        tx.execute(&store::CLEAR_DEFAULTS, params![])?;
        for role in defaults {
            tx.execute(&store::ADD_DEFAULT, params![role])?;
        }
    }
    Ok(())
}

/// Writes what each role may in the end, where that changed, and for whom tokens are outdated.
fn rewrite_effects(
    tx: &mut Tx<'_>,
    app: &App,
    was: &[super::model::Effect],
    becomes: &[super::model::Effect],
) -> db::Result<()> {
    let by_role = |all: &[super::model::Effect]| {
        let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for effect in all {
            let of = found.entry(effect.role.clone()).or_default();
            of.insert(effect.permission.clone(), effect.via.clone());
        }
        found
    };
    let (was, becomes, now) = (by_role(was), by_role(becomes), app.clock.now());
    let names: BTreeSet<&String> = was.keys().chain(becomes.keys()).collect();
    for name in names.into_iter().filter(|name| was.get(*name) != becomes.get(*name)) {
        tx.execute(&store::CLEAR_EFFECTS, params![name])?;
        for (permission, via) in becomes.get(name).into_iter().flatten() {
            tx.execute(&store::ADD_EFFECT, params![name, permission, via])?;
        }
        note(tx, app, name, now)?;
    }
    Ok(())
}

/// Whoever believes access tokens by themselves hears that those of this person, or of everybody with this role, are
/// outdated.
pub(super) fn note(tx: &mut Tx<'_>, app: &App, subject: &str, now: Timestamp) -> db::Result<()> {
    tx.execute(&store::CHANGED, params![subject, now])?;
    tx.after_commit(app.ended.clone());
    Ok(())
}

fn tell(tx: &mut Tx<'_>, app: &App, by: &By, plan: &Plan) -> db::Result<()> {
    let server = Stream::server();
    for (kind, specs) in [("role_added", &plan.add), ("role_changed", &plan.change)] {
        for spec in specs {
            let details = json!({
                "role": spec.name, "level": spec.level, "inherits": spec.inherits, "permissions": spec.permissions,
            });
            app.audit_by(tx, &server, kind, by, details)?;
        }
    }
    for name in &plan.remove {
        app.audit_by(tx, &server, "role_removed", by, json!({ "role": name }))?;
    }
    match &plan.default {
        Some(defaults) => {
            app.audit_by(tx, &server, "default_roles_changed", by, json!({ "roles": defaults }))
        }
        None => Ok(()),
    }
}
