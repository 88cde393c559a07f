//! What a person does with their own account.

use std::time::Duration;

use foundation::audit::{self, Stream};
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::jobs::{Handlers, Job, JobError, When};
use foundation::kernel::{Id, Page, PageRequest, Problem, Timestamp};
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::closing::is_closing;
use super::erase::{Erase, erase};
use super::http::{Activity, Me};
use super::model::{DisplayName, EmailAddress, Locale, Metadata, UserRow, name_key};
use super::store;
use crate::access::{self, By, Denied};
use crate::app::App;
use crate::mailed;
use crate::sessions::{self, Current, EndReason};

/// What to change; what is not given stays.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    pub(super) display_name: Option<DisplayName>,
    pub(super) locale: Option<Locale>,
    pub(super) metadata: Option<Metadata>,
}

/// Changes the profile and gives it as it is then.
pub(super) async fn change_profile(
    app: &App,
    mut current: Current,
    from: ClientAddress,
    change: Change,
) -> Result<Me, Problem> {
    let given = [
        ("display_name", change.display_name.map(|name| name.0)),
        ("locale", change.locale.map(|locale| locale.0)),
        ("metadata", change.metadata.map(|metadata| metadata.0)),
    ];
    let changed: Vec<&str> =
        given.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
    if changed.is_empty() {
        return Ok(Me::of(&current));
    }
    let (inner, user, session) = (app.clone(), current.row.user_id, current.row.session_id);
    let values = given.map(|(_, value)| (i64::from(value.is_some()), value.unwrap_or_default()));
    let stored = app.db.write(move |tx| {
        let [(has_name, name), (has_locale, locale), (has_metadata, metadata)] = &values;
        let row: Option<(String, String, String)> = tx.opt(
            &store::UPDATE_PROFILE,
            params![
                user,
                has_name,
                name,
                has_locale,
                locale,
                has_metadata,
                metadata,
                session,
                name_key(name)
            ],
        )?;
        if row.is_some() {
            inner.audit_own(
                tx,
                (user, Some(session)),
                "profile_changed",
                from,
                json!({ "fields": changed }),
            )?;
        }
        Ok(row)
    });
    let Some((display_name, locale, metadata)) = stored.await.map_err(|e| e.to_problem())? else {
        return Err(crate::errors::session_ended(&sessions::end_reason(app, session, from).await?));
    };
    (current.row.display_name, current.row.locale, current.row.metadata) = (display_name, locale, metadata);
    Ok(Me::of(&current))
}

/// The person's own events, newest first.
pub(super) async fn activity(
    app: &App,
    current: &Current,
    request: &PageRequest,
) -> Result<Page<Activity>, Problem> {
    let stream = Stream::of(current.row.user_id);
    let list = format!("activity:{}", stream.name());
    let (limit, before) = app.cursors.open(&list, request, i64::MAX)?;
    let events = audit::list(&app.db, &stream, before, limit + 1).await.map_err(|e| e.to_problem())?;
    let more = events.len() > usize::from(limit);
    let last = events.get(usize::from(limit).saturating_sub(1)).map_or(0, |event| event.seq);
    let own = stream.name();
    let items = events.into_iter().take(limit.into()).map(|event| Activity::of(event, own)).collect();
    Ok(Page { items, next_cursor: if more { app.cursors.issue(&list, last) } else { String::new() } })
}

/// Somebody named by an address or by an id.
///
/// # Errors
/// As every read.
pub async fn find(app: &App, who: &str) -> db::Result<Option<Id<UserRow>>> {
    let (id, email) = (who.parse::<Id<UserRow>>().ok(), EmailAddress::parse("email", who).ok());
    app.db
        .read(move |tx| {
            let found: Option<(Id<UserRow>,)> = match (id, &email) {
                (Some(id), _) => tx.opt(&store::EXISTS, params![id])?,
                (None, Some(email)) => tx.opt(&store::BY_ADDRESS, params![email.key()])?,
                (None, None) => None,
            };
            Ok(found.map(|(id,)| id))
        })
        .await
}

/// For how long a lifted suspension's job is worth doing: it is done as soon as somebody can.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Lifts a suspension whose time is over.
#[derive(Debug, Serialize, Deserialize)]
struct Lift {
    user: Id<UserRow>,
}

impl Job for Lift {
    const KIND: &'static str = "accounts.lift_suspension";
}

/// Adds this slice's jobs to a worker's handlers.
#[must_use]
pub fn handle(app: &App, handlers: Handlers) -> Handlers {
    let (app, later) = (app.clone(), app.clone());
    handlers.on(move |job: Lift| lift(app.clone(), job)).on(move |job: Erase| erase(later.clone(), job.user))
}

async fn lift(app: App, job: Lift) -> Result<(), JobError> {
    let inner = app.clone();
    let lifted = app.db.write(move |tx| {
        mailed::lock_person(tx, job.user)?;
        if tx.opt::<(i64,)>(&store::LIFT, params![job.user, inner.clock.now()])?.is_some() {
            inner.audit(
                tx,
                &Stream::of(job.user),
                "unsuspended",
                ClientAddress::NOWHERE,
                json!({ "by": "its end" }),
            )?;
        }
        Ok(())
    });
    Ok(lifted.await?)
}

/// Why and until when somebody is shut out.
#[derive(Debug, Clone)]
pub struct Suspension {
    /// For the record.
    pub reason: String,
    /// When it ends by itself; none when it does not.
    pub until: Option<Timestamp>,
}

/// Somebody is shut out: every session ends, and nothing that was mailed before opens the account after. Whose account is to
/// be deleted stays out when it is kept.
///
/// # Errors
/// As every statement.
pub fn suspend_in(
    tx: &mut Tx<'_>,
    app: &App,
    by: &By,
    user: Id<UserRow>,
    suspension: &Suspension,
) -> db::Result<()> {
    mailed::lock_person(tx, user)?;
    let (now, until) = (app.clock.now(), suspension.until.unwrap_or(Timestamp::from_micros(0)));
    tx.one::<(i64,)>(&store::SUSPEND, params![user, suspension.reason, now, until])?;
    super::closing::stays_out(tx, user)?;
    if let Some(until) = suspension.until {
        let when = When::now(now, now.until(until) + KEPT).at(until);
        app.queue.enqueue(tx, &Lift { user }, &when)?;
    }
    mailed::kill_all(tx, user)?;
    sessions::end_all(tx, app, user, EndReason::Suspended, ClientAddress::NOWHERE)?;
    let mut details = json!({ "reason": suspension.reason });
    if let Some(until) = suspension.until {
        details = json!({ "reason": suspension.reason, "until": until.to_string() });
    }
    app.audit_by(tx, &Stream::of(user), "suspended", by, details)
}

/// Somebody may sign in again. False when they were not shut out. Refused while their account is to be deleted: whoever lets
/// them in has to keep it.
///
/// # Errors
/// As every statement.
pub fn unsuspend_in(
    tx: &mut Tx<'_>,
    app: &App,
    by: &By,
    user: Id<UserRow>,
) -> db::Result<Result<bool, Denied>> {
    mailed::lock_person(tx, user)?;
    if is_closing(tx, user)? {
        return Ok(Err(Denied::Conflict("The account is to be deleted: restore it first.".into())));
    }
    let lifted = tx.opt::<(i64,)>(&store::UNSUSPEND, params![user])?.is_some();
    if lifted {
        app.audit_by(tx, &Stream::of(user), "unsuspended", by, json!({}))?;
    }
    Ok(Ok(lifted))
}

/// Every session of somebody ends, and what is between its two steps.
///
/// # Errors
/// As every statement.
pub fn sign_out_in(tx: &mut Tx<'_>, app: &App, by: &By, user: Id<UserRow>) -> db::Result<()> {
    mailed::lock_person(tx, user)?;
    mailed::kill_halves(tx, user)?;
    sessions::end_all(tx, app, user, EndReason::RevokedByAdmin, ClientAddress::NOWHERE)?;
    app.audit_by(tx, &Stream::of(user), "signed_out", by, json!({}))
}

/// Whoever sits at the server shuts somebody out; the last owner stays.
///
/// # Errors
/// As every statement.
pub async fn suspend(app: &App, user: Id<UserRow>, reason: &str) -> db::Result<Result<(), Denied>> {
    let (inner, suspension) = (app.clone(), Suspension { reason: reason.to_owned(), until: None });
    app.db
        .write(move |tx| {
            access::lock(tx)?;
            if let Err(denied) = access::owner_stays(tx, user)? {
                return Ok(Err(denied));
            }
            suspend_in(tx, &inner, &By::console(), user, &suspension).map(Ok)
        })
        .await
}

/// Whoever sits at the server lets somebody in again, as [`unsuspend_in`].
///
/// # Errors
/// As every statement.
pub async fn unsuspend(app: &App, user: Id<UserRow>) -> db::Result<Result<bool, Denied>> {
    let inner = app.clone();
    app.db.write(move |tx| unsuspend_in(tx, &inner, &By::console(), user)).await
}

/// Whoever sits at the server ends every session of somebody.
///
/// # Errors
/// As every statement.
pub async fn sign_out(app: &App, user: Id<UserRow>) -> db::Result<()> {
    let inner = app.clone();
    app.db.write(move |tx| sign_out_in(tx, &inner, &By::console(), user)).await
}
