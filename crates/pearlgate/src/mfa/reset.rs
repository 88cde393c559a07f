//! The way back for whoever lost every factor: an operator is asked, the owner is told, and after a while it happens;
//! and the end of the time that policy gives.

use std::time::Duration;

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::jobs::{Handlers, Job, JobError, When};
use foundation::kernel::{Id, Secret, Timestamp};
use foundation::mail::Mail;
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::check::has;
use super::gate::is_required;
use super::own;
use super::store;
use crate::access::By;
use crate::accounts::UserRow;
use crate::app::App;
use crate::mailed;
use crate::sessions::{self, EndReason};

/// What the token of the mail begins with that tells the owner of a reset.
const PREFIX: &str = "pgk_";
/// How long a reset is worth doing after it was due.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Takes somebody's factors away when its time has come and nobody said no.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reset {
    user: Id<UserRow>,
}

impl Job for Reset {
    const KIND: &'static str = "mfa.reset";
}

/// Ends what somebody began without the factor that policy demands, when the time for it is over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GraceOver {
    pub(super) user: Id<UserRow>,
}

impl Job for GraceOver {
    const KIND: &'static str = "mfa.grace_over";
}

/// An operator was asked to take somebody's factors away: the owner is told, and it happens after the waiting period.
/// False when there is nothing to take away.
///
/// # Errors
/// As every statement.
pub async fn announce_reset(app: &App, user: Id<UserRow>) -> db::Result<bool> {
    let inner = app.clone();
    app.db.write(move |tx| announce_reset_in(tx, &inner, &By::console(), user)).await
}

/// The same in the transaction of whoever does it.
///
/// # Errors
/// As every statement.
pub fn announce_reset_in(tx: &mut Tx<'_>, app: &App, by: &By, user: Id<UserRow>) -> db::Result<bool> {
    mailed::lock_person(tx, user)?;
    let has = has(tx, user)?;
    if !has.factor() && !has.email_code {
        return Ok(false);
    }
    let (now, token) = (app.clock.now(), Secret::encode(PREFIX, &app.chance.bytes::<32>()));
    let due = now + app.settings.mfa.reset_after;
    tx.execute(&store::ANNOUNCE_RESET, params![user, token.digest(), due])?;
    let when = When::now(now, app.settings.mfa.reset_after + KEPT).at(due);
    app.queue.enqueue(tx, &Reset { user }, &when)?;
    let details = json!({ "due_at": due.to_string() });
    app.audit_by(tx, &Stream::of(user), "factors_reset_announced", by, details)?;
    let address: Option<(String, String)> = tx.opt(&store::ADDRESS, params![user])?;
    if let Some((to, _)) = address {
        let values = json!({
            "service_name": app.settings.service_name, "due_at": due.to_string(),
            "link": format!("{}/not-me?token={}", app.settings.public_url, token.reveal()),
        });
        let mail = Mail { kind: "factor_reset".into(), to, values };
        app.postman.send_first(tx, &mail, now, app.settings.mfa.reset_after)?;
    }
    Ok(true)
}

/// The factors stay. False when nobody was to take them away.
///
/// # Errors
/// As every statement.
pub async fn cancel_reset(app: &App, user: Id<UserRow>) -> db::Result<bool> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            mailed::lock_person(tx, user)?;
            cancelled(tx, &inner, user, ClientAddress::NOWHERE)
        })
        .await
}

/// Somebody showed a factor: it is not lost.
///
/// # Errors
/// As every statement.
pub fn cancel_in(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, from: ClientAddress) -> db::Result<()> {
    cancelled(tx, app, user, from).map(|_| ())
}

fn cancelled(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, from: ClientAddress) -> db::Result<bool> {
    let was: Option<(Timestamp,)> = tx.opt(&store::CANCEL_RESET, params![user])?;
    if was.is_some() {
        app.audit(tx, &Stream::of(user), "factors_reset_cancelled", from, json!({}))?;
    }
    Ok(was.is_some())
}

/// Whether a link keeps somebody's factors; consumes nothing.
///
/// # Errors
/// As every read.
pub async fn reset_for(app: &App, token: &Secret) -> db::Result<bool> {
    if token.decode::<32>(PREFIX).is_none() {
        return Ok(false);
    }
    let digest = token.digest();
    let open = app.db.read_one(move |tx| tx.opt::<(Id<UserRow>,)>(&store::RESET_BY_LINK, params![digest]));
    Ok(open.await?.is_some())
}

/// The owner says that nobody is to take their factors away. False when the link does not work (any more).
///
/// # Errors
/// As every statement.
pub async fn cancel_by_link(app: &App, token: &Secret, from: ClientAddress) -> db::Result<bool> {
    if token.decode::<32>(PREFIX).is_none() {
        return Ok(false);
    }
    let (inner, digest) = (app.clone(), token.digest());
    app.db
        .write(move |tx| {
            let whose: Option<(Id<UserRow>,)> = tx.opt(&store::RESET_BY_LINK, params![digest])?;
            let Some((user,)) = whose else { return Ok(false) };
            mailed::lock_person(tx, user)?;
            if tx.opt::<(Id<UserRow>,)>(&store::RESET_BY_LINK, params![digest])?.is_none() {
                return Ok(false);
            }
            cancelled(tx, &inner, user, from)
        })
        .await
}

async fn reset(app: App, user: Id<UserRow>) -> Result<(), JobError> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            mailed::lock_person(tx, user)?;
            // Cancelled meanwhile, or announced anew for later.
            if tx.opt::<(Timestamp,)>(&store::DUE_RESET, params![user, inner.clock.now()])?.is_none() {
                return Ok(());
            }
            own::forget_all(tx, user)?;
            tx.execute(&store::END_GRACE, params![user, inner.clock.now()])?;
            sessions::end_all(tx, &inner, user, EndReason::RevokedByAdmin, ClientAddress::NOWHERE)?;
            own::changed(tx, &inner, user, ("factors_reset", inner.clock.now()))?;
            inner.audit(tx, &Stream::of(user), "factors_reset", ClientAddress::NOWHERE, json!({}))
        })
        .await?;
    Ok(())
}

async fn grace_over(app: App, user: Id<UserRow>) -> Result<(), JobError> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            if !mailed::lock_person(tx, user)? {
                return Ok(());
            }
            if has(tx, user)?.factor() || !is_required(tx, &inner, user)? {
                return Ok(());
            }
            sessions::end_all(tx, &inner, user, EndReason::RevokedByAdmin, ClientAddress::NOWHERE)?;
            inner.audit(tx, &Stream::of(user), "enrolment_due", ClientAddress::NOWHERE, json!({}))
        })
        .await?;
    Ok(())
}

/// Adds this slice's jobs to a worker's handlers.
#[must_use]
pub fn handle(app: &App, handlers: Handlers) -> Handlers {
    let (app, later) = (app.clone(), app.clone());
    handlers
        .on(move |job: Reset| reset(app.clone(), job.user))
        .on(move |job: GraceOver| grace_over(later.clone(), job.user))
}
