//! What happens to sessions: begin, refresh, end.

use std::time::Duration;

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Id, Problem, Secret, Timestamp, sha256};
use foundation::mail::Mail;
use foundation::params;
use serde_json::json;

use super::devices::{self, DeviceRow};
use super::guard;
use super::http::{COOKIE, LetIn, SessionInfo, TokenSet, Transport};
use super::model::{EndReason, Proof, REPEATABLE, SessionRow};
use super::store::{self, Ended, Inspected, SessionUser};
use crate::accounts::UserRow;
use crate::app::App;
use crate::errors;
use crate::pages::set_cookie;

/// A notice of something that really happened is worth sending for this long (`outages.md`).
const NOTICE: Duration = Duration::from_secs(72 * 3600);

/// What a session begins with.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Whose.
    pub user: Id<UserRow>,
    /// The stored hash that the password was right for: no session begins from a password that was changed since.
    /// None when the proof was something else.
    pub password_hash: Option<String>,
    /// What was proven.
    pub proof: Proof,
    /// On which device.
    pub device: Id<DeviceRow>,
    /// What the device is called.
    pub device_name: String,
    /// From where.
    pub from: ClientAddress,
}

/// A session with its refresh token, which leaves once.
#[derive(Debug, Clone)]
pub struct Started {
    row: SessionUser,
    refresh_token: Secret,
    refresh_expires_at: Timestamp,
}

/// Why no session begins for somebody who has proven who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// The account is suspended.
    Suspended,
    /// The account has a second factor, which was not shown.
    FactorDue,
    /// What was proven does not hold any more: the password was changed meanwhile.
    Outdated,
}

/// Begins a session, unless something bars the person.
///
/// # Errors
/// As every statement.
pub fn begin(tx: &mut Tx<'_>, app: &App, with: &Beginning) -> db::Result<Result<Started, Barred>> {
    let now = app.clock.now();
    tx.opt::<(Id<UserRow>,)>(&store::LOCK_BEGINNER, params![with.user])?;
    let id = Id::<SessionRow>::new(&app.clock, &app.chance);
    let expires_at = now + app.settings.session_lifetime;
    let (b, from) = (with, with.from.to_string());
    let begun: Option<(i64,)> = tx.opt(
        &store::BEGIN,
        params![
            id,
            b.user,
            now,
            expires_at,
            b.proof.aal,
            b.proof.amr,
            b.device,
            b.device_name,
            from,
            b.password_hash.as_deref().unwrap_or_default()
        ],
    )?;
    if begun.is_none() {
        let bars: Option<(bool, bool)> = tx.opt(&store::BARS, params![b.user])?;
        return Ok(Err(match bars {
            Some((true, _)) => Barred::Suspended,
            Some((false, true)) if b.proof.aal < 2 => Barred::FactorDue,
            _ => Barred::Outdated,
        }));
    }
    let refresh_token = app.refresh_key.issue(id, app.chance.bytes());
    // No token has this digest: the first rotation has no predecessor.
    let nobody = sha256(&app.chance.bytes::<32>());
    let idle = now + app.settings.refresh_idle;
    tx.execute(&store::BEGIN_REFRESH, params![id, b.user, refresh_token.digest(), nobody, now, idle])?;
    let row = store::load(tx, id, now)?;
    Ok(row.map(|row| Started { row, refresh_token, refresh_expires_at: idle }).ok_or(Barred::Outdated))
}

/// The answer that a session's client gets, by the transport it asked for.
///
/// # Errors
/// 503 before the signing keys are loaded.
pub fn let_in(app: &App, started: Started, transport: Transport) -> Result<LetIn, Problem> {
    let mut body = token_set(app, started)?;
    let cookie = match transport {
        Transport::Token => None,
        Transport::Cookie => {
            let seconds = u32::try_from(body.refresh_expires_in).unwrap_or(u32::MAX);
            body.refresh_token.take().map(|token| set_cookie(COOKIE, &token, seconds))
        }
    };
    Ok(LetIn { body, cookie })
}

fn token_set(app: &App, started: Started) -> Result<TokenSet, Problem> {
    let now = app.clock.now();
    let Started { row, refresh_token, refresh_expires_at } = started;
    let access_token = app
        .access_tokens
        .sign(&row, now, &app.chance)
        .ok_or_else(|| Problem::unavailable("The signing keys have not been loaded yet; try again."))?;
    let expires_at = refresh_expires_at.min(row.expires_at);
    Ok(TokenSet {
        status: "authenticated",
        access_token: access_token.reveal().to_owned(),
        token_type: "Bearer",
        expires_in: nearest_second(now.until(row.expires_at).min(app.access_tokens.lifetime())),
        refresh_token: Some(refresh_token.reveal().to_owned()),
        refresh_expires_in: nearest_second(now.until(expires_at)),
        device_token: devices::token(&app.device_key, row.user_id, row.device_id).reveal().to_owned(),
        session: SessionInfo {
            id: row.session_id.to_string(),
            created_at: row.created_at.to_string(),
            expires_at: expires_at.to_string(),
            aal: row.aal,
            amr: row.amr.split(' ').map(str::to_owned).collect(),
        },
        user: row.user(),
    })
}

/// The moment is read again while the answer is made; a fraction of a second does not make a day shorter.
fn nearest_second(duration: Duration) -> u64 {
    (duration + Duration::from_millis(500)).as_secs()
}

/// What became of a token that was not the current one.
enum Decided {
    Again(Box<Started>),
    Ended(&'static str),
    Gone,
    /// It was the current one after all: somebody else's transaction was in the way.
    TryAgain,
}

/// Gives a refresh token's successor: the four cases of the module's page.
///
/// # Errors
/// 401 for what we never made and for a session that ended, with the reason; 503 when it could not be stored.
pub async fn refresh(app: &App, token: &Secret, from: ClientAddress) -> Result<Started, Problem> {
    let session = app.refresh_key.read(token).ok_or_else(|| errors::problem("token_invalid"))?;
    for _ in 0..3 {
        if let Some(started) = rotate(app, token, session).await? {
            return Ok(started);
        }
        let (inner, presented) = (app.clone(), token.clone());
        let decided = app.db.write(move |tx| decide(tx, &inner, &presented, session, from)).await;
        match decided.map_err(|e| e.to_problem())? {
            Decided::Again(started) => return Ok(*started),
            Decided::Ended(reason) => return Err(errors::session_ended(reason)),
            Decided::Gone => return Err(errors::session_ended(&guard::reason(app, session).await?)),
            Decided::TryAgain => {}
        }
    }
    Err(Problem::unavailable("Others are changing this session at the same time; try again."))
}

/// Case 1: one conditional statement.
async fn rotate(app: &App, token: &Secret, session: Id<SessionRow>) -> Result<Option<Started>, Problem> {
    let now = app.clock.now();
    let successor = app.refresh_key.successor(token, session, now);
    let (presented, next, idle) = (token.digest(), successor.digest(), now + app.settings.refresh_idle);
    let rotated: Option<SessionUser> = app
        .db
        .write_one(move |tx| tx.opt(&store::ROTATE, params![session, presented, next, now, idle]))
        .await
        .map_err(|e| e.to_problem())?;
    Ok(rotated.map(|row| Started { row, refresh_token: successor, refresh_expires_at: idle }))
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
    let over = [
        (row.suspended, EndReason::Suspended),
        (row.session_expires_at <= now, EndReason::Expired),
        (row.expires_at <= now, EndReason::Idle),
    ];
    if let Some((_, reason)) = over.into_iter().find(|(applies, _)| *applies) {
        end(tx, app, session, reason, from)?;
        return Ok(Decided::Ended(reason.as_str()));
    }
    let presented = token.digest();
    if presented == row.current {
        return Ok(Decided::TryAgain);
    }
    if presented != row.previous {
        report_reuse(tx, app, session, from)?;
        return Ok(Decided::Ended(EndReason::RefreshTokenReused.as_str()));
    }
    let (successor, idle) = if now <= row.rotated_at + REPEATABLE {
        (app.refresh_key.successor(token, session, row.rotated_at), row.expires_at)
    } else {
        let (successor, idle) =
            (app.refresh_key.successor(token, session, now), now + app.settings.refresh_idle);
        if tx.execute(
            &store::REPLACE,
            params![session, presented, successor.digest(), now, idle, row.rotated_at],
        )? == 0
        {
            return Ok(Decided::TryAgain);
        }
        (successor, idle)
    };
    Ok(match store::load(tx, session, now)? {
        Some(row) => {
            Decided::Again(Box::new(Started { row, refresh_token: successor, refresh_expires_at: idle }))
        }
        None => Decided::Gone,
    })
}

fn report_reuse(tx: &mut Tx<'_>, app: &App, session: Id<SessionRow>, from: ClientAddress) -> db::Result<()> {
    let Some(ended) = end(tx, app, session, EndReason::RefreshTokenReused, from)? else { return Ok(()) };
    let Some((to,)) = tx.opt::<(String,)>(&store::ADDRESS, params![ended.user_id])? else { return Ok(()) };
    let now = app.clock.now();
    let values = json!({
        "service_name": app.settings.service_name, "device_name": ended.device_name, "at": now.to_string(),
    });
    app.postman.send(tx, &Mail { kind: "refresh_token_reused".into(), to, values }, now, NOTICE)
}

/// Ends a session and remembers why; none when it had ended before.
fn end(
    tx: &mut Tx<'_>,
    app: &App,
    session: Id<SessionRow>,
    reason: EndReason,
    from: ClientAddress,
) -> db::Result<Option<Ended>> {
    let ended: Option<Ended> = tx.opt(&store::END, params![session])?;
    if let Some(ended) = &ended {
        remember(tx, app, ended, reason, from)?;
    }
    Ok(ended)
}

/// Ends every session of a person.
///
/// # Errors
/// As every statement.
pub fn end_all(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    reason: EndReason,
    from: ClientAddress,
) -> db::Result<()> {
    let ended: Vec<Ended> = tx.all(&store::END_ALL, params![user])?;
    ended.iter().try_for_each(|ended| remember(tx, app, ended, reason, from))
}

/// Ends every session of a person but one.
///
/// # Errors
/// As every statement.
pub fn end_others(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    kept: Id<SessionRow>,
    reason: EndReason,
    from: ClientAddress,
) -> db::Result<()> {
    let ended: Vec<Ended> = tx.all(&store::END_OTHERS, params![user, kept])?;
    ended.iter().try_for_each(|ended| remember(tx, app, ended, reason, from))
}

fn remember(
    tx: &mut Tx<'_>,
    app: &App,
    ended: &Ended,
    reason: EndReason,
    from: ClientAddress,
) -> db::Result<()> {
    let now = app.clock.now();
    let kept_until = ended.expires_at.min(now + app.settings.refresh_idle);
    tx.execute(&store::REMEMBER_END, params![ended.id, ended.user_id, reason.as_str(), now, kept_until])?;
    let details = json!({ "session": ended.id, "reason": reason.as_str() });
    if reason == EndReason::LoggedOut {
        return app.audit_own(tx, ended.user_id, "session_ended", from, details);
    }
    app.audit(tx, &Stream::of(ended.user_id), "session_ended", from, details)
}

/// Ends a session; nothing happens when it is over already.
///
/// # Errors
/// 503 when the end could not be stored: nobody is told that they are out when they are not.
pub(super) async fn log_out(app: &App, session: Id<SessionRow>, from: ClientAddress) -> Result<(), Problem> {
    let inner = app.clone();
    let ended = app.db.write(move |tx| end(tx, &inner, session, EndReason::LoggedOut, from));
    ended.await.map(|_| ()).map_err(|e| e.to_problem())
}

/// Moves a batch of sessions whose time is over to the ended ones and forgets old ends. Hygiene: expiry is checked
/// whenever a session is read. True when there is more to do.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, app: &App) -> db::Result<bool> {
    let now = app.clock.now();
    let nowhere = ClientAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    let mut swept = 0;
    for (statement, reason) in
        [(&store::SWEEP_EXPIRED, EndReason::Expired), (&store::SWEEP_IDLE, EndReason::Idle)]
    {
        let due: Vec<(Id<SessionRow>,)> = tx.all(statement, params![now])?;
        swept += due.len();
        for (session,) in due {
            end(tx, app, session, reason, nowhere)?;
        }
    }
    tx.execute(&store::SWEEP_ENDED, params![now])?;
    Ok(swept >= 500)
}
