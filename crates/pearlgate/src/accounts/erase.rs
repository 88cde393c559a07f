//! The end of an account: what is stored about its person goes, in one transaction, and one event says that it did.
//!
//! * What belongs to the person goes with their row: sessions, factors, identities, roles, keys and everything else.
//! * What stands elsewhere under their id or address is removed by name here: mails and what became of them, what was
//!   tried with their password, what applications have not been told yet, their history.
//! * Their history's chain stays whole: it goes on from where it was, with the one event that tells of this.
//! * What is left is named in `docs/guide/leaving.md`.

use std::collections::BTreeSet;
use std::time::Duration;

use foundation::audit::{self, Event, Stream};
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::jobs::{Job, JobError, JobRow};
use foundation::kernel::{Id, Timestamp};
use foundation::mail::MailRow;
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::UserRow;
use super::store;
use crate::access;
use crate::app::App;
use crate::mailed;
use crate::webhooks;

/// What is removed in one transaction of what there may be much of.
const BATCH: usize = 500;
/// When it is looked again whether there is another owner by now.
const ANOTHER_OWNER: Duration = Duration::from_secs(86_400);
/// Before everything.
const EVER: Timestamp = Timestamp::from_micros(0);

/// Erases an account whose time has come.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Erase {
    pub(super) user: Id<UserRow>,
}

impl Job for Erase {
    const KIND: &'static str = "accounts.erase";
    /// It was promised.
    const MAX_ATTEMPTS: i64 = i64::MAX;
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// They are gone: since now, or before.
    Gone,
    /// Nobody else may do everything.
    LastOwner,
    /// The operator who asked for it may not any more.
    Unasked,
}

pub(super) async fn erase(app: App, user: Id<UserRow>) -> Result<(), JobError> {
    let now = app.clock.now();
    let due = app.db.read_one(move |tx| tx.opt::<(String,)>(&store::DUE, params![user, now]));
    // Kept, or erased already; or asked for anew, for a later time, which has a job of its own.
    if due.await?.is_none() {
        return Ok(());
    }
    forget_at_leisure(&app, user).await?;
    let inner = app.clone();
    match app.db.write(move |tx| erased(tx, &inner, user)).await? {
        Outcome::Gone => Ok(()),
        Outcome::LastOwner => {
            tracing::warn!(%user, "an account that is to be deleted is the last owner's by now: it waits for another one");
            Err(JobError::Later(ANOTHER_OWNER))
        }
        Outcome::Unasked => {
            tracing::warn!(%user, "whoever asked for this account to be deleted may not any more: it is not, and stays suspended until an operator has looked");
            Ok(())
        }
    }
}

/// What there may be much of, or has to be looked for: found without holding anybody up, and removed some at a time. Nothing
/// of it does anything for whoever keeps their account at this moment.
async fn forget_at_leisure(app: &App, user: Id<UserRow>) -> Result<(), JobError> {
    let subject = user.to_string();
    let found = app.db.scan(move |tx| {
        let attempts: Vec<(Vec<u8>,)> = tx.all(&store::ATTEMPTS_AT, params![EVER, subject])?;
        Ok((attempts, dead_mails(tx, user)?))
    });
    let (attempts, mails) = found.await?;
    for some in attempts.chunks(BATCH) {
        let some = some.to_vec();
        let forgotten = app.db.write(move |tx| {
            some.iter().try_for_each(|(id,)| tx.execute(&store::FORGET_ATTEMPT, params![id]).map(|_| ()))
        });
        forgotten.await?;
    }
    for some in mails.chunks(BATCH) {
        let some = some.to_vec();
        let forgotten = app.db.write(move |tx| {
            some.iter().try_for_each(|id| tx.execute(&store::FORGET_DEAD_MAIL, params![id]).map(|_| ()))
        });
        forgotten.await?;
    }
    Ok(())
}

/// Jobs of mails to the person that were given up: what the mail server said of them may name the address.
fn dead_mails(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Vec<Id<JobRow>>> {
    let mut theirs = BTreeSet::new();
    for (address,) in tx.all::<(String,)>(&store::ADDRESSES, params![user])? {
        let mails: Vec<(Id<MailRow>,)> = tx.all(&store::MAILS_TO, params![address, user])?;
        theirs.extend(mails.into_iter().map(|(mail,)| mail.to_string()));
    }
    if theirs.is_empty() {
        return Ok(Vec::new());
    }
    let dead: Vec<(Id<JobRow>, String)> = tx.all(&store::DEAD_MAILS, params![EVER])?;
    let is_theirs = |payload: &str| {
        let payload: Value = serde_json::from_str(payload).unwrap_or_default();
        payload.get("id").and_then(Value::as_str).is_some_and(|id| theirs.contains(id))
    };
    Ok(dead.into_iter().filter(|(_, payload)| is_theirs(payload)).map(|(id, _)| id).collect())
}

fn erased(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<Outcome> {
    access::lock(tx)?;
    mailed::lock_person(tx, user)?;
    // The row decides, whoever keeps the account at this moment.
    let due: Option<(String,)> = tx.opt(&store::DUE, params![user, app.clock.now()])?;
    let Some((asked_by,)) = due else { return Ok(Outcome::Gone) };
    // What cannot be taken back is done for whoever may have it done, also now: not for a session that was a thief's.
    if asked_by != user.to_string() {
        let standing = access::standing_now(tx, &asked_by, app.clock.now())?;
        if !standing.may("users:write") || !access::stands_above(tx, &standing, user)? {
            // It does not wait for them to be let in again. Somebody looks at it, and lifts the suspension or asks anew.
            tx.opt::<(i64,)>(&store::KEEP, params![user])?;
            app.audit(tx, &Stream::of(user), "closing_void", ClientAddress::NOWHERE, json!({}))?;
            return Ok(Outcome::Unasked);
        }
    }
    if access::owner_stays(tx, user)?.is_err() {
        return Ok(Outcome::LastOwner);
    }
    for (address,) in tx.all::<(String,)>(&store::ADDRESSES, params![user])? {
        tx.execute(&store::FORGET_MAILS, params![address, user])?;
        tx.execute(&store::FORGET_INVITATION, params![address, user])?;
    }
    tx.execute(&store::FORGET_GUESSES, params![user.to_string()])?;
    let stream = Stream::of(user);
    webhooks::forget(tx, user)?;
    audit::forget(tx, &stream)?;
    tx.execute(&store::ERASE, params![user])?;
    webhooks::tell_of(tx, app, user, "user_deleted", &json!({}))?;
    let event = Event { kind: "user_deleted", actor: asked_by, address: String::new(), details: json!({}) };
    app.trail.record(tx, &stream, &event)?;
    Ok(Outcome::Gone)
}
