//! Roles that are given later: whoever invites somebody may give them now, and has to be able to when they come.

use std::collections::BTreeSet;

use foundation::audit::{Event, Stream};
use foundation::db::{self, Tx};
use foundation::kernel::{Id, Timestamp};
use foundation::params;
use serde_json::json;

use super::flow::{Denied, Standing, of_key, standing_of};
use super::grants::{self, Place};
use super::keys::KeyRow;
use super::roles::note;
use super::store::{self, KeyLine};
use crate::accounts::UserRow;
use crate::app::App;
use crate::mailed;
use crate::sessions;
use crate::webhooks;

/// What whoever gives roles needs.
const GIVE: &str = "roles:write";

/// What somebody may now, by how they stand in the trail: a person's id, a key's, or `console`. Nothing for whoever is not
/// there any more, is suspended, or was made by somebody who is.
///
/// # Errors
/// As every statement.
pub fn standing_now(tx: &mut Tx<'_>, actor: &str, now: Timestamp) -> db::Result<Standing> {
    if actor == "console" {
        return Ok(Standing::console());
    }
    if let Ok(user) = actor.parse::<Id<UserRow>>() {
        return standing_of(tx, user);
    }
    let Ok(key) = actor.parse::<Id<KeyRow>>() else { return Ok(Standing::default()) };
    let lines: Vec<KeyLine> = tx.all(&store::KEY_NOW, params![key, now])?;
    let Some((_, owner, ..)) = lines.first().cloned() else { return Ok(Standing::default()) };
    let maker = standing_of(tx, owner)?;
    Ok(of_key(lines.into_iter().map(|(.., permission)| permission), &maker))
}

/// Whether whoever stands so may give these roles to somebody: as giving them at once. None need nothing.
///
/// # Errors
/// As every statement.
pub fn may_give(
    tx: &mut Tx<'_>,
    standing: &Standing,
    places: &BTreeSet<Place>,
) -> db::Result<Result<(), Denied>> {
    if places.is_empty() {
        return Ok(Ok(()));
    }
    if !standing.may(GIVE) {
        return Ok(Err(Denied::Permission(GIVE.to_owned())));
    }
    grants::allowed(tx, standing, places.iter())
}

/// Whether whoever stands so stands above somebody.
///
/// # Errors
/// As every statement.
pub fn stands_above(tx: &mut Tx<'_>, standing: &Standing, user: Id<UserRow>) -> db::Result<bool> {
    let (level,): (i64,) = tx.one(&store::LEVEL, params![user])?;
    Ok(standing.is_above(level))
}

/// Gives roles in the name of whoever is written down as `actor`, who may: ask [`may_give`] and [`stands_above`] before, in
/// the same transaction. What they have already they keep.
///
/// # Errors
/// As every statement.
pub fn give(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    (actor, places): (&str, &BTreeSet<Place>),
) -> db::Result<()> {
    mailed::lock_person(tx, user)?;
    let (now, stream) = (app.clock.now(), Stream::of(user));
    let mut given = false;
    for (role, resource) in places {
        let new: Option<(Timestamp,)> = tx.opt(&store::GRANT, params![user, role, now, resource, actor])?;
        if new.is_none() {
            continue;
        }
        given = true;
        let details = json!({ "role": role, "resource": resource });
        webhooks::tell_of(tx, app, user, "role_granted", &details)?;
        // Whoever invited is not here: there is neither a session of theirs nor an address.
        let event = Event { kind: "role_granted", actor: actor.to_owned(), address: String::new(), details };
        app.trail.record(tx, &stream, &event)?;
        let details = json!({ "on": user, "did": "role_granted" });
        let event = Event { kind: "acted", actor: actor.to_owned(), address: String::new(), details };
        app.trail.record(tx, &Stream::server(), &event)?;
    }
    if !given {
        return Ok(());
    }
    // Whoever comes to be an operator has an operator's sessions from now on.
    sessions::shorten_all(tx, app, user)?;
    sessions::end_as(tx, app, user)?;
    note(tx, app, &user.to_string(), now)
}
