//! An account that is to be deleted.
//!
//! 1. Somebody asks for it: the person themselves, or an operator. Nobody signs in any more, every session ends, and a mail
//!    with a link tells the owner when it will happen.
//! 2. Whoever follows the link keeps the account; so does whoever says in answer to an earlier mail that it was not them, when
//!    it was asked for in their name; and so may an operator.
//! 3. When its time has come and nobody did, it is erased (`erase.rs`).
//!
//! What shuts them out meanwhile is a suspension like any other. The row of the closing says whether it was this that did, so
//! that whoever was suspended before, or since, stays so.

use std::time::Duration;

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::jobs::When;
use foundation::kernel::{Id, Problem, Secret, Timestamp};
use foundation::mail::Mail;
use foundation::params;
use serde_json::json;

use super::erase::Erase;
use super::model::UserRow;
use super::store;
use crate::access::{self, By, Denied, Who};
use crate::app::App;
use crate::errors;
use crate::mailed;
use crate::sessions::{self, Current, EndReason, NOTICE};
use crate::webhooks;

/// What the token of the mail begins with that tells of it.
const PREFIX: &str = "pgz_";
/// Why somebody is shut out.
const REASON: &str = "to be deleted";
/// The job waits for its time, and for as long as it takes until it can be done.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The person has their account deleted; the moment at which that happens.
///
/// # Errors
/// 401 for a session that ended, 409 for the last owner, 503.
pub(super) async fn close_own(
    app: &App,
    current: &Current,
    from: ClientAddress,
) -> Result<Timestamp, Problem> {
    let (inner, user, session) = (app.clone(), current.row.user_id, current.row.session_id);
    let closed = app.db.write(move |tx| {
        access::lock(tx)?;
        mailed::lock_person(tx, user)?;
        let now = inner.clock.now();
        if tx.opt::<(Timestamp,)>(&store::LIVES, params![session, user, now])?.is_none() {
            return Ok(None);
        }
        if let Err(denied) = access::owner_stays(tx, user)? {
            return Ok(Some(Err(denied)));
        }
        // Whoever had the account's address until lately can have it back for as long as they were told: it is not gone before.
        let (way_back,): (Timestamp,) = tx.one(&store::WAY_BACK, params![user, now])?;
        let due = (now + inner.settings.people.grace.max(shortest(&inner))).max(way_back);
        let by = By { who: Who::Person(user, session), from };
        Ok(Some(Ok(announce(tx, &inner, &by, user, due)?)))
    });
    match closed.await.map_err(|e| e.to_problem())? {
        Some(Ok(due)) => Ok(due),
        Some(Err(denied)) => Err(denied.problem()),
        None => Err(errors::session_ended(&sessions::end_reason(app, session, from).await?)),
    }
}

/// An operator, who may, has somebody's account deleted: as soon as no access token of it is good any more, and the feed of
/// revocations has told of every session. Gives when that is; the last owner stays.
///
/// # Errors
/// As every statement.
pub fn close_in(
    tx: &mut Tx<'_>,
    app: &App,
    by: &By,
    user: Id<UserRow>,
) -> db::Result<Result<Timestamp, Denied>> {
    if by.person() == Some(user) {
        let words =
            "This is your own account: delete it with DELETE /v1/me, which leaves the time to take it back.";
        return Ok(Err(Denied::Conflict(words.into())));
    }
    if let Err(denied) = access::owner_stays(tx, user)? {
        return Ok(Err(denied));
    }
    if !is_closing(tx, user)? && !mailed::may_tell(tx, app, user)? {
        return Ok(Err(Denied::Conflict(mailed::TOLD_ENOUGH.into())));
    }
    if !mailed::lock_person(tx, user)? {
        return Ok(Err(Denied::NotFound));
    }
    announce(tx, app, by, user, app.clock.now() + shortest(app)).map(Ok)
}

/// Longer than any access token of before is good.
fn shortest(app: &App) -> Duration {
    app.access_tokens.lifetime() * 2
}

/// Writes it down, unless that was done before: whoever asks again is told the same moment.
fn announce(tx: &mut Tx<'_>, app: &App, by: &By, user: Id<UserRow>, due: Timestamp) -> db::Result<Timestamp> {
    let (now, token) = (app.clock.now(), Secret::encode(PREFIX, &app.chance.bytes::<32>()));
    let asked: Option<(i64,)> = tx.opt(&store::CLOSE, params![user, token.digest(), by.actor(), now, due])?;
    let Some((shut_out,)) = asked else {
        let (due,): (Timestamp,) = tx.one(&store::CLOSING, params![user])?;
        // Its job may have been taken away by hand.
        plan(tx, app, user, due)?;
        return Ok(due);
    };
    if shut_out == 1 {
        tx.execute(&store::SHUT_OUT, params![user, REASON, now])?;
        webhooks::tell(tx, app, user, "user.suspended", &json!({}))?;
    }
    mailed::kill_all(tx, user)?;
    let own = matches!(by.who, Who::Person(who, _) if who == user);
    // Where an operator sits is nothing that the person's own history tells.
    let from = if own { by.from } else { ClientAddress::NOWHERE };
    sessions::end_all(tx, app, user, EndReason::Closed, from)?;
    access::end_keys(tx, app, user, (Timestamp::from_micros(0), from))?;
    plan(tx, app, user, due)?;
    app.audit_by(tx, &Stream::of(user), "closing_asked", by, json!({ "due_at": due.to_string() }))?;
    let Some(to) = mailed::proven_address(tx, user)? else { return Ok(due) };
    let values = json!({
        "service_name": app.settings.service_name, "due_at": due.to_string(), "by_operator": !own,
        "link": format!("{}/keep-account?token={}", app.settings.public_url, token.reveal()),
    });
    app.postman.send_first(tx, &Mail { kind: "account_closing".into(), to, values }, now, now.until(due))?;
    Ok(due)
}

/// A job for each time it is asked for: the row decides which of them has something to do.
fn plan(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, due: Timestamp) -> db::Result<()> {
    let now = app.clock.now();
    let key = format!("erase:{user}:{}", due.micros());
    let when = When::now(now, now.until(due) + FOREVER).at(due).unique(key);
    app.queue.enqueue(tx, &Erase { user }, &when).map(|_| ())
}

/// The owner keeps their account, with the link of the mail. It signs nobody in. False when the link does not work (any more).
///
/// # Errors
/// As every statement.
pub(super) async fn keep(app: &App, token: &Secret, from: ClientAddress) -> db::Result<bool> {
    if !mailed::is_token(PREFIX, token) {
        return Ok(false);
    }
    let (inner, digest) = (app.clone(), token.digest());
    app.db
        .write(move |tx| {
            let now = inner.clock.now();
            let whose: Option<(Id<UserRow>, String)> =
                tx.opt(&store::CLOSING_BY_LINK, params![digest, now])?;
            let Some((user, _)) = whose else { return Ok(false) };
            mailed::lock_person(tx, user)?;
            let kept: Option<(i64,)> = tx.opt(&store::KEEP_BY_LINK, params![digest, now])?;
            let Some((shut_out,)) = kept else { return Ok(false) };
            let_in(tx, &inner, user, shut_out)?;
            inner.audit_own(tx, user, "closing_taken_back", from, json!({ "by": "mail" }))?;
            tell_kept(tx, &inner, user)?;
            Ok(true)
        })
        .await
}

/// The address whose account a link would keep; consumes nothing.
///
/// # Errors
/// As every read.
pub(super) async fn open_for(app: &App, token: &Secret) -> db::Result<Option<String>> {
    if !mailed::is_token(PREFIX, token) {
        return Ok(None);
    }
    let (digest, now) = (token.digest(), app.clock.now());
    let open = app
        .db
        .read_one(move |tx| tx.opt::<(Id<UserRow>, String)>(&store::CLOSING_BY_LINK, params![digest, now]));
    Ok(open.await?.map(|(_, address)| address))
}

/// The owner of a mailbox says that what was done since a moment was not their doing: that the account is to be deleted is
/// taken back, when it was asked for in its person's own name. Whoever calls this has locked the person.
///
/// # Errors
/// As every statement.
pub fn keep_in(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    (since, from): (Timestamp, ClientAddress),
) -> db::Result<bool> {
    let kept: Option<(i64,)> = tx.opt(&store::KEEP_OWN, params![user, user.to_string(), since])?;
    let Some((shut_out,)) = kept else { return Ok(false) };
    let_in(tx, app, user, shut_out)?;
    app.audit_own(tx, user, "closing_taken_back", from, json!({ "by": "not_me" }))?;
    Ok(true)
}

/// Somebody who is locked was shut out for another reason meanwhile: keeping their account does not let them in.
///
/// # Errors
/// As every statement.
pub fn stays_out(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<()> {
    tx.execute(&store::STAYS_OUT, params![user]).map(|_| ())
}

/// An operator, who may, keeps somebody's account.
///
/// # Errors
/// As every statement.
pub fn restore_in(tx: &mut Tx<'_>, app: &App, by: &By, user: Id<UserRow>) -> db::Result<Result<(), Denied>> {
    mailed::lock_person(tx, user)?;
    let Some((shut_out,)) = tx.opt::<(i64,)>(&store::KEEP, params![user])? else {
        return Ok(Err(Denied::Conflict("Nobody asked for this account to be deleted.".into())));
    };
    let_in(tx, app, user, shut_out)?;
    app.audit_by(tx, &Stream::of(user), "closing_taken_back", by, json!({}))?;
    tell_kept(tx, app, user).map(Ok)
}

/// Whoever was shut out by the closing alone is not any more; nor is whoever's time was over meanwhile.
fn let_in(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, shut_out: i64) -> db::Result<()> {
    let now = app.clock.now();
    if tx.opt::<(Timestamp,)>(&store::LET_IN, params![user, shut_out, now])?.is_none() {
        return Ok(());
    }
    webhooks::tell(tx, app, user, "user.unsuspended", &json!({}))
}

fn tell_kept(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<()> {
    let Some(to) = mailed::proven_address(tx, user)? else { return Ok(()) };
    let now = app.clock.now();
    let values = json!({ "service_name": app.settings.service_name, "at": now.to_string() });
    app.postman.send(tx, &Mail { kind: "account_kept".into(), to, values }, now, NOTICE)
}

/// Whether somebody's account is to be deleted.
///
/// # Errors
/// As every statement.
pub(super) fn is_closing(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<bool> {
    Ok(tx.opt::<(Timestamp,)>(&store::CLOSING, params![user])?.is_some())
}

/// Whoever sits at the server has somebody's account deleted.
///
/// # Errors
/// As every statement.
pub async fn close(app: &App, user: Id<UserRow>) -> db::Result<Result<Timestamp, Denied>> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            access::lock(tx)?;
            close_in(tx, &inner, &By::console(), user)
        })
        .await
}

/// Whoever sits at the server keeps somebody's account.
///
/// # Errors
/// As every statement.
pub async fn restore(app: &App, user: Id<UserRow>) -> db::Result<Result<(), Denied>> {
    let inner = app.clone();
    app.db.write(move |tx| restore_in(tx, &inner, &By::console(), user)).await
}
