//! One's own identities: seeing, linking and unlinking them, and what is told about it.

use std::time::Duration;

use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Id, Problem, Secret, Timestamp};
use foundation::mail::Mail;
use foundation::params;
use serde_json::json;

use super::flow;
use super::model::{AT_PROVIDER, Refusal, Said, TICKET};
use super::registry::Connection;
use super::store::{self, Identity, Linking};
use crate::accounts::UserRow;
use crate::app::App;
use crate::mailed;
use crate::mfa;
use crate::sessions::{Current, Own};

/// A notice of something that really happened is worth sending for this long (`outages.md`).
const NOTICE: Duration = Duration::from_secs(72 * 3600);
/// How long the "that was not me" of a notice works (`api.md`, lifetimes).
const NOT_ME: Duration = Duration::from_secs(24 * 3600);

/// What came of linking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linked {
    /// It is linked, since this moment.
    Now(Timestamp),
    /// It was theirs already.
    Before,
    /// It is somebody else's, or they have another one there.
    Taken,
}

/// Links an identity to somebody who is locked.
pub(super) fn link(
    tx: &mut Tx<'_>,
    app: &App,
    own: Own,
    connection: &Connection,
    subject: &str,
    from: ClientAddress,
) -> db::Result<Linked> {
    let (user, provider, now) = (own.user, &connection.provider.id, app.clock.now());
    if tx.opt::<(Timestamp,)>(&store::LINK, params![provider, subject, user, now])?.is_none() {
        let whose: Option<(Id<UserRow>,)> = tx.opt(&store::WHOSE, params![provider, subject])?;
        let theirs = whose.is_some_and(|(whose,)| whose == user);
        return Ok(if theirs { Linked::Before } else { Linked::Taken });
    }
    app.audit_own(tx, own, "identity_linked", from, json!({ "provider": provider }))?;
    Ok(Linked::Now(now))
}

/// Tells the owner that an identity was linked: what the notice's link takes away was linked at the very moment that it
/// knows.
pub(super) fn tell_linked(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    provider: &str,
    at: Timestamp,
) -> db::Result<()> {
    let Some((to, key)) = tx.opt::<(String, String)>(&store::ADDRESS, params![user])? else { return Ok(()) };
    let link = mailed::not_me_link(tx, app, user, (&to, &key), ("/not-me", NOT_ME), at)?;
    tell(tx, app, to, ("linked", provider), (&link, at))
}

fn tell(
    tx: &mut Tx<'_>,
    app: &App,
    to: String,
    (what, provider): (&str, &str),
    (link, at): (&str, Timestamp),
) -> db::Result<()> {
    let values = json!({
        "what": what, "provider": provider, "link": link, "link_expires_in": mailed::in_words(NOT_ME),
        "service_name": app.settings.service_name, "at": at.to_string(),
    });
    app.postman.send_first(tx, &Mail { kind: "identity_changed".into(), to, values }, at, NOTICE)
}

/// What somebody has linked, with the names of the providers that there are.
pub(super) async fn list(app: &App, current: &Current) -> Result<Vec<(Identity, String)>, Refusal> {
    let (inner, user) = (app.clone(), current.row.user_id);
    let found = app.db.read(move |tx| {
        let rows: Vec<Identity> = tx.all(&store::LIST, params![user])?;
        let all = inner.providers.all(tx)?;
        let name = |id: &str| {
            let known = all.iter().find(|one| one.provider.id == id);
            known.map_or_else(|| id.to_owned(), |one| one.provider.name.clone())
        };
        Ok(rows.into_iter().map(|row| (row.clone(), name(&row.provider))).collect())
    });
    Ok(found.await?)
}

/// Somebody wants to link an identity: gives the ticket that their browser shows.
///
/// # Errors
/// [`Refusal`]; 403 in a session that is not fresh.
pub(super) async fn ticket(
    app: &App,
    current: &Current,
    provider: &str,
    return_to: Option<&str>,
    from: ClientAddress,
) -> Result<Secret, Refusal> {
    current.must_be_fresh(app)?;
    let connection = flow::provider(app, provider).await?;
    let back = flow::way_back(app, return_to)?;
    let ticket = Secret::encode(TICKET, &app.chance.bytes::<32>());
    let (digest, until) = (ticket.digest(), app.clock.now() + AT_PROVIDER);
    let (user, session) = (current.row.user_id, current.row.session_id);
    mfa::change_in(app, current, from, move |tx, _| {
        let values = params![digest, user, session, connection.provider.id, back, until];
        tx.execute(&store::TICKET, values).map(|_| Ok::<(), Refusal>(()))
    })
    .await?;
    Ok(ticket)
}

/// Links what somebody's browser has come back with. Gives the word for what was in the way.
pub(super) async fn link_arrived(
    app: &App,
    connection: &std::sync::Arc<Connection>,
    linking: &Linking,
    said: &Said,
    from: ClientAddress,
) -> Result<Option<&'static str>, Refusal> {
    let (inner, connection, linking) = (app.clone(), connection.clone(), linking.clone());
    let subject = said.subject.clone();
    let done = app.db.write(move |tx| {
        let user = linking.user;
        mailed::lock_person(tx, user)?;
        let now = inner.clock.now();
        let lives = params![linking.session, user, now];
        if tx.opt::<(Timestamp,)>(&store::LIVES, lives)?.is_none() {
            return Ok(Some("session_ended"));
        }
        let own = (user, Some(linking.session)).into();
        link_and_tell(tx, &inner, own, &connection, &subject, from)
    });
    Ok(done.await?)
}

fn link_and_tell(
    tx: &mut Tx<'_>,
    app: &App,
    own: Own,
    connection: &Connection,
    subject: &str,
    from: ClientAddress,
) -> db::Result<Option<&'static str>> {
    let user = own.user;
    if !connection.is_as_before(tx)? {
        return Ok(Some("conflict"));
    }
    match link(tx, app, own, connection, subject, from)? {
        Linked::Taken => return Ok(Some("conflict")),
        Linked::Before => {}
        Linked::Now(at) => {
            mailed::kill_halves(tx, user)?;
            tell_linked(tx, app, user, &connection.provider.name, at)?;
        }
    }
    Ok(None)
}

/// Links by an ID token that an application brings.
///
/// # Errors
/// [`Refusal`]; 403 in a session that is not fresh.
pub(super) async fn link_by_token(
    app: &App,
    current: &Current,
    provider: &str,
    (token, nonce): (Secret, Secret),
    from: ClientAddress,
) -> Result<(), Refusal> {
    current.must_be_fresh(app)?;
    let (connection, said) = flow::read(app, provider, &token, &nonce, from).await?;
    let inner = app.clone();
    mfa::change_in(app, current, from, move |tx, current| {
        if !flow::is_first(tx, &inner, &connection, (&said, &nonce))? {
            return Ok(Err(Refusal::Unproven(connection.provider.name.clone())));
        }
        let in_the_way = link_and_tell(tx, &inner, current.into(), &connection, &said.subject, from)?;
        Ok(in_the_way.map_or(Ok(()), |_| Err(Refusal::Taken)))
    })
    .await
}

/// Unlinks what somebody has at a provider, unless it is their last way in.
///
/// # Errors
/// [`Refusal`]; 403 in a session that is not fresh.
pub(super) async fn unlink(
    app: &App,
    current: &Current,
    provider: &str,
    from: ClientAddress,
) -> Result<(), Refusal> {
    let (inner, user, id) = (app.clone(), current.row.user_id, provider.to_owned());
    mfa::change_in(app, current, from, move |tx, current| {
        let rows: Vec<Identity> = tx.all(&store::LIST, params![user])?;
        if !rows.iter().any(|row| row.provider == id) {
            return Ok(Err(Refusal::Problem(Problem::not_found())));
        }
        let (password, passkey): (bool, bool) = tx.one(&store::OTHER_WAYS, params![user])?;
        let other = signs_in_by(tx, &inner, user)?.iter().any(|provider| *provider != id);
        if !password && !passkey && !other && !inner.settings.magic_links {
            return Ok(Err(Refusal::LastWayIn));
        }
        tx.all::<(String,)>(&store::UNLINK, params![user, id])?;
        // What it began is over, too.
        mailed::kill_halves(tx, user)?;
        inner.audit_own(tx, current, "identity_unlinked", from, json!({ "provider": id }))?;
        let name = inner.providers.all(tx)?.into_iter().find(|one| one.provider.id == id);
        let name = name.map_or_else(|| id.clone(), |one| one.provider.name.clone());
        if let Some((to, _)) = tx.opt::<(String, String)>(&store::ADDRESS, params![user])? {
            tell(tx, &inner, to, ("unlinked", &name), ("", inner.clock.now()))?;
        }
        Ok(Ok(()))
    })
    .await
}

/// The providers that somebody signs in by: where an identity of theirs is linked, and people sign in now.
///
/// # Errors
/// As every read.
pub fn signs_in_by(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<Vec<String>> {
    let rows: Vec<Identity> = tx.all(&store::LIST, params![user])?;
    let offered = app.providers.offered(tx)?;
    let is_offered = |id: &String| offered.iter().any(|one| one.provider.id == *id);
    Ok(rows.into_iter().map(|row| row.provider).filter(is_offered).collect())
}

/// The owner of the mailbox says that what was done since a moment was not their doing: identities that were linked since
/// then go. True when something went.
///
/// # Errors
/// As every statement.
pub fn disavow(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    (since, from): (Timestamp, ClientAddress),
) -> db::Result<bool> {
    let gone: Vec<(String,)> = tx.all(&store::UNLINK_SINCE, params![user, since])?;
    for (provider,) in &gone {
        app.audit_own(tx, user, "identity_unlinked", from, json!({ "provider": provider }))?;
    }
    Ok(!gone.is_empty())
}

/// Whether an identity was linked since a moment.
///
/// # Errors
/// As every read.
pub fn linked_since(tx: &mut Tx<'_>, user: Id<UserRow>, since: Timestamp) -> db::Result<bool> {
    Ok(!tx.all::<(String,)>(&store::LINKED_SINCE, params![user, since])?.is_empty())
}

/// Forgets what is too old to be used. True when there is more to do.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> db::Result<bool> {
    for statement in [
        &store::SWEEP_CODES,
        &store::SWEEP_INCOMPLETE,
        &store::SWEEP_TICKETS,
        &store::SWEEP_LINKS,
        &store::SWEEP_NONCES,
    ] {
        tx.execute(statement, params![now])?;
    }
    Ok(tx.execute(&store::SWEEP_SIGN_INS, params![now])? >= 500)
}
