//! A refresh token's successor: the four cases of the module's page, and what a re-authentication left behind.

use std::time::Duration;

use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Digest, Id, Problem, Secret, Timestamp};
use foundation::limits::Taken;
use foundation::mail::Mail;
use foundation::params;
use serde_json::json;

use super::devices::DeviceRow;
use super::flow::{NOTICE, Started, end};
use super::guard;
use super::model::{EndReason, REPEATABLE, SessionRow};
use super::store::{self, Inspected, SessionUser};
use crate::accounts::UserRow;
use crate::app::App;
use crate::errors;
use crate::limits::{self, REFRESH};
use crate::mailed;

/// What became of a token that was not the current one.
enum Decided {
    Again(Box<Started>),
    Ended(&'static str),
    Gone,
    /// It was the current one after all: somebody else's transaction was in the way.
    TryAgain,
    /// The person proved who they are a moment ago, and the new token is on its way to them.
    Replaced,
}

/// What an application wants of the session before it does something that matters (step-up).
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// At least this assurance level.
    pub aal: Option<i64>,
    /// A proof that is at most so old.
    pub max_age: Option<Duration>,
}

impl Wanted {
    /// Whether the session is like that; asked before its token is replaced.
    async fn check(self, app: &App, session: Id<SessionRow>) -> Result<(), Problem> {
        if self.aal.is_none() && self.max_age.is_none() {
            return Ok(());
        }
        let proven = app
            .db
            .read_one(move |tx| tx.opt::<(Timestamp, i64, Timestamp)>(&store::PROVEN, params![session]));
        // Of one that is over refreshing tells why.
        let Some((at, aal, factor_at)) = proven.await.map_err(|e| e.to_problem())? else { return Ok(()) };
        self.holds(app, (at, aal, factor_at))
    }

    /// The same of what the answer would tell.
    fn satisfied(self, app: &App, started: Started) -> Result<Started, Problem> {
        let (at, aal, factor_at) = started.proven();
        self.holds(app, (at, aal, factor_at))?;
        Ok(started)
    }

    fn holds(self, app: &App, (at, aal, factor_at): (Timestamp, i64, Timestamp)) -> Result<(), Problem> {
        // Level 2 is as old as the older of its two proofs.
        let at = if self.aal.is_some_and(|wanted| wanted >= 2) { at.min(factor_at) } else { at };
        let old = self.max_age.is_some_and(|age| app.clock.now() > at + age);
        if old || self.aal.is_some_and(|wanted| aal < wanted) {
            return Err(errors::problem("reauthentication_required").detail(
                "The application wants a newer or a stronger proof than this session has: prove who you are again.",
            ));
        }
        Ok(())
    }
}

/// Gives a refresh token's successor.
///
/// # Errors
/// 401 for what we never made and for a session that ended, with the reason; 403 when it is not as it is wanted; 503 when
/// it could not be stored.
pub async fn refresh(
    app: &App,
    token: &Secret,
    wanted: Wanted,
    from: ClientAddress,
) -> Result<Started, Problem> {
    let session = app.refresh_key.read(token).ok_or_else(|| errors::problem("token_invalid"))?;
    let taken = app.limits.take(REFRESH.name, session.as_bytes()).await.map_err(|e| e.to_problem())?;
    if let Some(taken) = taken.filter(Taken::refused) {
        return Err(limits::too_many(&taken));
    }
    wanted.check(app, session).await?;
    for _ in 0..3 {
        if let Some(started) = rotate(app, token, session).await? {
            app.seen.note(session, app.clock.now());
            return wanted.satisfied(app, started);
        }
        let (inner, presented) = (app.clone(), token.clone());
        let decided = app.db.write(move |tx| decide(tx, &inner, &presented, session, from)).await;
        match decided.map_err(|e| e.to_problem())? {
            Decided::Again(started) => return wanted.satisfied(app, *started),
            Decided::Ended(reason) => return Err(errors::session_ended(reason)),
            Decided::Gone => return Err(errors::session_ended(&guard::reason(app, session, from).await?)),
            Decided::TryAgain => {}
            Decided::Replaced => {
                return Err(Problem::unavailable(
                    "This token was replaced a moment ago, when its person proved who they are; use the new one.",
                ));
            }
        }
    }
    Err(Problem::unavailable("Others are changing this session at the same time; try again."))
}

/// Case 1: one conditional statement.
async fn rotate(app: &App, token: &Secret, session: Id<SessionRow>) -> Result<Option<Started>, Problem> {
    let now = app.clock.now();
    let successor = app.refresh_key.successor(token, session, now);
    let (presented, next) = (token.digest(), successor.digest());
    let rotated: Option<SessionUser> = app
        .db
        .write_one(move |tx| tx.opt(&store::ROTATE, params![session, presented, next, now]))
        .await
        .map_err(|e| e.to_problem())?;
    Ok(rotated.map(|row| Started::new(row, successor, now)))
}

/// Cases 2, 3 and 4, with the row locked.
fn decide(
    tx: &mut Tx<'_>,
    app: &App,
    token: &Secret,
    session: Id<SessionRow>,
    from: ClientAddress,
) -> db::Result<Decided> {
    let now = app.clock.now();
    tx.opt::<(Id<UserRow>,)>(&store::LOCK, params![session])?;
    let Some(row) = tx.opt::<Inspected>(&store::INSPECT, params![session])? else { return Ok(Decided::Gone) };
    if let Some(reason) = row.over(now) {
        end(tx, app, session, reason, from)?;
        return Ok(Decided::Ended(reason.as_str()));
    }
    let presented = token.digest();
    if presented == row.current {
        return Ok(Decided::TryAgain);
    }
    if presented != row.previous {
        return replaced_or_reused(tx, app, token, session, &row, from);
    }
    let given = app.refresh_key.given(token, session, row.rotated_at, &row.current);
    if let Some(successor) = given.filter(|_| now <= row.rotated_at + REPEATABLE) {
        return started(tx, session, successor, row.rotated_at, now);
    }
    let successor = app.refresh_key.successor(token, session, now);
    let (digest, idle) = (successor.digest(), now + row.idle());
    if tx.execute(&store::REPLACE, params![session, presented, digest, now, idle, row.rotated_at])? == 0 {
        return Ok(Decided::TryAgain);
    }
    started(tx, session, successor, now, now)
}

fn started(
    tx: &mut Tx<'_>,
    session: Id<SessionRow>,
    successor: Secret,
    rotated_at: Timestamp,
    now: Timestamp,
) -> db::Result<Decided> {
    let row = store::load(tx, session, now)?;
    Ok(row.map_or(Decided::Gone, |row| Decided::Again(Box::new(Started::new(row, successor, rotated_at)))))
}

/// The token is neither the current one nor its predecessor. It may be the one that a re-authentication replaced,
/// whose new token never arrived: then the session goes on as it was before, so that whoever held the old token has
/// won nothing. Anything else is case 4.
fn replaced_or_reused(
    tx: &mut Tx<'_>,
    app: &App,
    token: &Secret,
    session: Id<SessionRow>,
    row: &Inspected,
    from: ClientAddress,
) -> db::Result<Decided> {
    let (now, presented): (Timestamp, Digest) = (app.clock.now(), token.digest());
    let before: Option<(Timestamp, i64, String, Timestamp)> =
        tx.opt(&store::REPLACED, params![session, presented, row.current])?;
    // A cookie that was used since has confirmed the new token.
    let confirmed = row.previous == row.current;
    let Some((authenticated_at, aal, amr, factor_at)) = before.filter(|_| !confirmed) else {
        report_reuse(tx, app, session, from)?;
        return Ok(Decided::Ended(EndReason::RefreshTokenReused.as_str()));
    };
    if now <= row.rotated_at + REPEATABLE {
        return Ok(Decided::Replaced);
    }
    let successor = app.refresh_key.successor(token, session, now);
    tx.execute(&store::AS_BEFORE, params![session, authenticated_at, aal, amr, factor_at])?;
    tx.execute(&store::RENEW, params![session, successor.digest(), presented, now, now + row.idle()])?;
    started(tx, session, successor, now, now)
}

fn report_reuse(tx: &mut Tx<'_>, app: &App, session: Id<SessionRow>, from: ClientAddress) -> db::Result<()> {
    let device: Option<(Id<DeviceRow>,)> = tx.opt(&store::DEVICE_OF, params![session])?;
    let Some(ended) = end(tx, app, session, EndReason::RefreshTokenReused, from)? else { return Ok(()) };
    if let Some((device,)) = device {
        // Whoever had its refresh token had what tells the device, too.
        tx.execute(&store::UNTRUST, params![ended.user_id, device])?;
    }
    let Some(to) = mailed::proven_address(tx, ended.user_id)? else { return Ok(()) };
    let now = app.clock.now();
    let values = json!({
        "service_name": app.settings.service_name, "device_name": ended.device_name, "at": now.to_string(),
    });
    app.postman.send_first(tx, &Mail { kind: "refresh_token_reused".into(), to, values }, now, NOTICE)
}
