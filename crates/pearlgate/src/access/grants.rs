//! Who has which role, and who may say so.

use std::collections::BTreeSet;

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::kernel::{Id, Timestamp};
use foundation::params;
use serde_json::json;

use super::by::{By, Who};
use super::flow::{Denied, Standing, may_act_on, owner_stays};
use super::model::{OWNER, own_within};
use super::roles::note;
use super::store::{self, Grant, StoredRole};
use crate::accounts::UserRow;
use crate::app::App;
use crate::mailed;
use crate::sessions;

/// A role somewhere: its name and the resource, empty for everywhere.
pub type Place = (String, String);

/// The most roles that somebody has.
const MOST: usize = 100;

/// What to change.
#[derive(Debug, Clone)]
pub enum Change {
    /// Exactly these.
    To(BTreeSet<Place>),
    /// This one more.
    Add(Place),
    /// This one less.
    Take(Place),
}

/// The roles of somebody; none when there is no such person.
///
/// # Errors
/// As every read.
pub async fn grants(app: &App, user: Id<UserRow>) -> db::Result<Option<Vec<Grant>>> {
    app.db
        .read(move |tx| match tx.opt::<(bool,)>(&store::WHO, params![user])? {
            Some(_) => tx.all(&store::GRANTS_OF, params![user]).map(Some),
            None => Ok(None),
        })
        .await
}

/// Changes the roles of somebody. Whoever does it stands above them and above what they give or take, and gives nothing
/// of the server's own that they do not hold.
///
/// # Errors
/// As every statement.
pub async fn change(
    app: &App,
    by: By,
    user: Id<UserRow>,
    change: Change,
) -> db::Result<Result<Vec<Grant>, Denied>> {
    let inner = app.clone();
    app.db.write(move |tx| change_in(tx, &inner, &by, (user, &change))).await
}

/// The same in a transaction.
///
/// # Errors
/// As every statement.
pub fn change_in(
    tx: &mut Tx<'_>,
    app: &App,
    by: &By,
    (user, change): (Id<UserRow>, &Change),
) -> db::Result<Result<Vec<Grant>, Denied>> {
    match may_act_on(tx, app, by, "roles:write", user)? {
        Ok(standing) => changed(tx, app, by, &standing, (user, change)),
        Err(denied) => Ok(Err(denied)),
    }
}

pub(super) fn changed(
    tx: &mut Tx<'_>,
    app: &App,
    by: &By,
    standing: &Standing,
    (user, change): (Id<UserRow>, &Change),
) -> db::Result<Result<Vec<Grant>, Denied>> {
    mailed::lock_person(tx, user)?;
    let before: Vec<Grant> = tx.all(&store::GRANTS_OF, params![user])?;
    let had: BTreeSet<Place> = before.into_iter().map(|grant| (grant.role, grant.resource)).collect();
    let mut will = had.clone();
    match change {
        Change::To(all) => will.clone_from(all),
        Change::Add(one) => drop(will.insert(one.clone())),
        Change::Take(one) => drop(will.remove(one)),
    }
    if will.len() > MOST {
        return Ok(Err(Denied::Invalid("roles", format!("are at most {MOST}"))));
    }
    let (given, taken): (Vec<&Place>, Vec<&Place>) =
        (will.difference(&had).collect(), had.difference(&will).collect());
    if let Who::Person(actor, _) | Who::Key(_, actor) = by.who
        && actor == user
        && !standing.is_owner()
        && !(given.is_empty() && taken.is_empty())
    {
        return Ok(Err(Denied::Oneself));
    }
    if let Err(denied) = allowed(tx, standing, given.iter().chain(&taken).copied())? {
        return Ok(Err(denied));
    }
    if taken.iter().any(|(role, resource)| role == OWNER && resource.is_empty())
        && let Err(denied) = owner_stays(tx, user)?
    {
        return Ok(Err(denied));
    }
    write(tx, app, by, user, &given, &taken)?;
    tx.all(&store::GRANTS_OF, params![user]).map(Ok)
}

/// Whether whoever stands so may give these, or take them away.
///
/// # Errors
/// As every statement.
pub(super) fn allowed<'p>(
    tx: &mut Tx<'_>,
    standing: &Standing,
    places: impl Iterator<Item = &'p Place>,
) -> db::Result<Result<(), Denied>> {
    for (role, resource) in places {
        if role.contains('\0') {
            return Ok(Err(Denied::Invalid("roles", "there is no such role".into())));
        }
        let Some(row) = tx.opt::<StoredRole>(&store::ROLE_NAMED, params![role])? else {
            return Ok(Err(Denied::Invalid("roles", format!("there is no role {role:?}"))));
        };
        if !standing.is_above(row.level) {
            return Ok(Err(Denied::Level("That role stands as high as you, or higher.")));
        }
        let effects: Vec<(String,)> = tx.all(&store::EFFECTS_OF, params![role])?;
        let effects = effects.into_iter().map(|(permission,)| permission).collect();
        if !own_within(&effects, &standing.held) {
            return Ok(Err(Denied::Beyond(format!("the role {role} may more of the server's own than you"))));
        }
        if role == OWNER && !resource.is_empty() {
            let words = "an owner is one everywhere: leave the resource out".to_owned();
            return Ok(Err(Denied::Invalid("roles", words)));
        }
    }
    Ok(Ok(()))
}

fn write(
    tx: &mut Tx<'_>,
    app: &App,
    by: &By,
    user: Id<UserRow>,
    given: &[&Place],
    taken: &[&Place],
) -> db::Result<()> {
    let (now, stream) = (app.clock.now(), Stream::of(user));
    for (role, resource) in taken {
        tx.opt::<(Timestamp,)>(&store::REVOKE, params![user, role, resource])?;
        app.audit_by(tx, &stream, "role_revoked", by, json!({ "role": role, "resource": resource }))?;
    }
    for (role, resource) in given {
        tx.opt::<(Timestamp,)>(&store::GRANT, params![user, role, now, resource, by.actor()])?;
        app.audit_by(tx, &stream, "role_granted", by, json!({ "role": role, "resource": resource }))?;
    }
    if given.is_empty() && taken.is_empty() {
        return Ok(());
    }
    // Whoever comes to be an operator has an operator's sessions from now on.
    sessions::shorten_all(tx, app, user)?;
    sessions::end_as(tx, app, user)?;
    note(tx, app, &user.to_string(), now)
}
