//! What happens to sessions: they begin and end.

use std::time::Duration;

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Id, Problem, Secret, Timestamp, sha256};
use foundation::mail::Mail;
use foundation::params;
use serde_json::json;

use super::access_tokens::Actor;
use super::devices::{self, DeviceRow, named_device, plain};
use super::http::{LetIn, SessionInfo, TokenSet, Transport};
use super::model::{EndReason, Lifetimes, Proof, SessionRow, Shown, lifetimes};
use super::store::{self, Ended, SessionUser};
use super::visit::Visit;
use crate::access;
use crate::accounts::UserRow;
use crate::app::App;
use crate::mailed;
use crate::webhooks;

/// A notice of something that really happened is worth sending for this long (`outages.md`).
pub const NOTICE: Duration = Duration::from_secs(72 * 3600);
/// How long the link in the mail about a new device works (`api.md`, lifetimes).
pub(super) const NOT_ME: Duration = Duration::from_secs(24 * 3600);

/// Whoever proved their address so short a time ago knows that they sign in.
const JUST_NOW: Duration = Duration::from_secs(60);
/// More ends at once than this are one event in the trail.
const TOLD_ONE_BY_ONE: usize = 50;
/// A device that was not seen for so long is a stranger again.
const FORGOTTEN: Duration = Duration::from_secs(400 * 86_400);

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
    /// From where, and on which device.
    pub visit: Visit,
}

/// A session with its refresh token, which leaves once.
#[derive(Debug, Clone)]
pub struct Started {
    pub(super) row: SessionUser,
    refresh_token: Secret,
    refresh_expires_at: Timestamp,
    known_device: bool,
}

impl Started {
    /// With a refresh token that was made at that moment.
    pub(super) fn new(row: SessionUser, refresh_token: Secret, made_at: Timestamp) -> Self {
        let refresh_expires_at = made_at + row.idle();
        Self { row, refresh_token, refresh_expires_at, known_device: true }
    }

    /// When the person last proved who they are, the level, and when a factor was last shown.
    pub(super) fn proven(&self) -> (Timestamp, i64, Timestamp) {
        (self.row.authenticated_at, self.row.aal, self.row.factor_at)
    }

    /// The session.
    pub fn session(&self) -> Id<SessionRow> {
        self.row.session_id
    }

    /// Whether the device had signed in to this account before.
    pub fn on_known_device(&self) -> bool {
        self.known_device
    }
}

/// Why no session begins for somebody who has proven who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// The account is suspended.
    Suspended,
    /// What was proven does not hold any more: the password was changed meanwhile.
    Outdated,
}

/// What comes of a proof that holds.
#[derive(Debug)]
pub enum Begun {
    /// A session.
    In(Box<Started>),
    /// Nothing yet: the account has a second factor, which was not shown.
    FactorDue,
}

/// Begins a session, unless something bars the person. Called in one place, the gate of second factors: everybody else
/// goes through that.
///
/// # Errors
/// As every statement.
pub fn begin(tx: &mut Tx<'_>, app: &App, with: &Beginning) -> db::Result<Result<Begun, Barred>> {
    let (now, most) = (app.clock.now(), app.settings.max_sessions);
    let lock = if most > 0 { &store::LOCK_COUNTED } else { &store::LOCK_BEGINNER };
    tx.opt::<(Id<UserRow>,)>(lock, params![with.user])?;
    let id = Id::<SessionRow>::new(&app.clock, &app.chance);
    let (b, visit) = (with, &with.visit);
    let life = life(tx, app, b.user, b.proof.aal)?;
    let (device, known) = device_of(tx, app, b)?;
    let place = app.places.of(visit.from.0);
    let begun: Option<(i64,)> = tx.opt(
        &store::BEGIN,
        params![
            id,
            b.user,
            now,
            now + life.absolute,
            b.proof.aal,
            b.proof.amr,
            device,
            visit.device_name,
            visit.from.to_string(),
            b.password_hash.as_deref().unwrap_or_default(),
            i64::try_from(life.idle.as_micros()).unwrap_or(i64::MAX),
            place,
            b.proof.shown as i64,
            i64::from(app.settings.mfa.trusted_device.is_some())
        ],
    )?;
    if begun.is_none() {
        let due = bars(tx, b.user, b.proof, b.password_hash.as_deref())?;
        // It is the factor, or what was in the way a moment ago is gone.
        return Ok(due.map(|_| Begun::FactorDue));
    }
    let refresh_token = app.refresh_key.issue(id, app.chance.bytes());
    // No token has this digest: the first rotation has no predecessor.
    let nobody = sha256(&app.chance.bytes::<32>());
    let idle = now + life.idle;
    tx.execute(&store::BEGIN_REFRESH, params![id, b.user, refresh_token.digest(), nobody, now, idle])?;
    if most > 0 {
        end_oldest(tx, app, (b.user, id), most, visit.from)?;
    }
    tx.execute(&store::DEVICE, params![b.user, device, now])?;
    if !known {
        tell_of_new_device(tx, app, (with, id, device), &place)?;
    }
    let row = store::load(tx, id, now)?;
    let started = row.map(|row| Started { known_device: known, ..Started::new(row, refresh_token, now) });
    Ok(started.map(|started| Begun::In(Box::new(started))).ok_or(Barred::Outdated))
}

/// What bars somebody who has proven this much; else whether a second factor is due on a device that is not trusted.
///
/// # Errors
/// As every statement.
pub fn bars(
    tx: &mut Tx<'_>,
    user: Id<UserRow>,
    proof: Proof,
    password_hash: Option<&str>,
) -> db::Result<Result<bool, Barred>> {
    let bars: Option<(bool, bool, bool, bool)> =
        tx.opt(&store::BARS, params![user, password_hash.unwrap_or_default()])?;
    Ok(match bars {
        Some((true, ..)) => Err(Barred::Suspended),
        None | Some((.., false)) => Err(Barred::Outdated),
        Some((false, factor, code, true)) => {
            Ok((factor && proof.shown < Shown::Factor) || (code && proof.shown < Shown::Mailbox))
        }
    })
}

/// The token that a device shows at its next sign-in.
pub fn device_token(app: &App, user: Id<UserRow>, device: Id<DeviceRow>) -> Secret {
    devices::token(app.device_key.current(), user, device)
}

/// The known device that a token names: the token is one of ours for this account, and nobody disowned the device.
///
/// # Errors
/// As every read.
pub async fn device(
    app: &App,
    user: Id<UserRow>,
    token: Option<&Secret>,
) -> db::Result<Option<Id<DeviceRow>>> {
    let Some(device) = named_device(&app.device_key, user, token) else { return Ok(None) };
    app.db.read_one(move |tx| is_known(tx, user, device)).await
}

/// The same in a transaction.
///
/// # Errors
/// As every statement.
pub fn known_device(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    token: Option<&Secret>,
) -> db::Result<Option<Id<DeviceRow>>> {
    let Some(device) = named_device(&app.device_key, user, token) else { return Ok(None) };
    is_known(tx, user, device)
}

fn is_known(tx: &mut Tx<'_>, user: Id<UserRow>, device: Id<DeviceRow>) -> db::Result<Option<Id<DeviceRow>>> {
    let known = tx.opt::<(Timestamp,)>(&store::KNOWN_DEVICE, params![user, device])?;
    Ok(known.map(|_| device))
}

/// The device that the visitor's token names, if it is one of this account's and still known; otherwise a new one.
fn device_of(tx: &mut Tx<'_>, app: &App, with: &Beginning) -> db::Result<(Id<DeviceRow>, bool)> {
    let known = known_device(tx, app, with.user, with.visit.device_token.as_ref())?;
    Ok(known.map_or_else(|| (Id::from_bytes(app.chance.bytes()), false), |device| (device, true)))
}

pub(super) fn life(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, aal: i64) -> db::Result<Lifetimes> {
    let s = &app.settings;
    let everybody = Lifetimes { absolute: s.session_lifetime, idle: s.refresh_idle };
    if aal < 2 {
        return Ok(everybody);
    }
    let operators = Lifetimes { absolute: s.operator_session, idle: s.operator_idle };
    let roles = access::roles_of(tx, user)?;
    let is_operator = roles.iter().any(|(role, level)| *level > 0 || s.operator_roles.contains(role));
    Ok(lifetimes(everybody, operators, is_operator, aal))
}

/// One more session than the person may have ends the oldest.
fn end_oldest(
    tx: &mut Tx<'_>,
    app: &App,
    (user, newest): (Id<UserRow>, Id<SessionRow>),
    most: usize,
    from: ClientAddress,
) -> db::Result<()> {
    let beside = i64::try_from(most.saturating_sub(1)).unwrap_or(i64::MAX);
    let beyond: Vec<(Id<SessionRow>,)> = tx.all(&store::BEYOND, params![user, beside, newest])?;
    for (session,) in beyond {
        end(tx, app, session, EndReason::SessionLimit, from)?;
    }
    Ok(())
}

/// Somebody signed in on a device that nobody knew.
fn tell_of_new_device(
    tx: &mut Tx<'_>,
    app: &App,
    (with, session, device): (&Beginning, Id<SessionRow>, Id<DeviceRow>),
    place: &str,
) -> db::Result<()> {
    let (user, device_name) = (with.user, &with.visit.device_name);
    let (now, token) = (app.clock.now(), devices::notice(&app.chance));
    if tx.opt::<(Timestamp,)>(&store::IS_NEWS, params![user, device, now - JUST_NOW])?.is_none() {
        return Ok(());
    }
    let Some(to) = mailed::proven_address(tx, user)? else { return Ok(()) };
    let shown = plain(device_name);
    tx.execute(
        &store::NOTICE,
        params![token.digest(), user, session, device, shown, with.proof.amr, now + NOT_ME],
    )?;
    let values = json!({
        "service_name": app.settings.service_name, "device_name": shown, "place": plain(place), "at": now.to_string(),
        "link": format!("{}/not-me?token={}", app.settings.public_url, token.reveal()),
    });
    app.postman.send_first(tx, &Mail { kind: "new_device".into(), to, values }, now, NOTICE)
}

/// The answer that a session's client gets, by the transport it asked for. Whose session a browser had before, when it
/// keeps them in its cookie, is over: nobody who uses the same browser later finds it (Zitadel CVE-2024-28197).
///
/// # Errors
/// 503 before the signing keys are loaded, and when the end of the former session could not be stored.
pub async fn let_in(
    app: &App,
    started: Started,
    transport: Transport,
    visit: &Visit,
) -> Result<LetIn, Problem> {
    let session = started.row.session_id;
    let answer = LetIn::new(token_set(app, started).await?, transport);
    if transport == Transport::Cookie
        && let Some(former) = visit.former_session(app).filter(|former| *former != session)
    {
        log_out(app, former, visit.from).await?;
    }
    Ok(answer)
}

/// An access token for a session, in which somebody may be somebody else.
pub(super) async fn signed(app: &App, row: &SessionUser, act: Option<Actor>) -> Result<Secret, Problem> {
    let permissions = if app.settings.permissions_in_tokens {
        Some(access::permissions_of(app, row.user_id).await.map_err(|e| e.to_problem())?)
    } else {
        None
    };
    app.access_tokens
        .sign((row, act), permissions, app.clock.now(), &app.chance)
        .ok_or_else(|| Problem::unavailable("The signing keys have not been loaded yet; try again."))
}

pub(super) async fn token_set(app: &App, started: Started) -> Result<TokenSet, Problem> {
    let now = app.clock.now();
    let Started { row, refresh_token, refresh_expires_at, .. } = started;
    let access_token = signed(app, &row, None).await?;
    let expires_at = refresh_expires_at.min(row.expires_at);
    Ok(TokenSet {
        status: "authenticated",
        access_token: access_token.reveal().to_owned(),
        token_type: "Bearer",
        expires_in: nearest_second(now.until(row.expires_at).min(app.access_tokens.lifetime())),
        refresh_token: Some(refresh_token.reveal().to_owned()),
        refresh_expires_in: nearest_second(now.until(expires_at)),
        device_token: device_token(app, row.user_id, row.device_id).reveal().to_owned(),
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
pub(super) fn nearest_second(duration: Duration) -> u64 {
    (duration + Duration::from_millis(500)).as_secs()
}

/// Ends a session and remembers why; none when it had ended before.
pub(super) fn end(
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
    // No session has this id.
    end_others(tx, app, user, Id::from_bytes([0; 16]), reason, from)
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
    // Two statements, however many there are; the person first, so that none begins between them.
    tx.opt::<(Id<UserRow>,)>(&store::LOCK_COUNTED, params![user])?;
    let now = app.clock.now();
    tx.execute(&store::REMEMBER_ENDS, params![user, kept, reason.as_str(), now])?;
    let ended: Vec<(Id<SessionRow>,)> = tx.all(&store::END_OTHERS, params![user, kept])?;
    tx.after_commit(app.ended.clone());
    if !ended.is_empty() {
        tell_ended(tx, app, user, ended.iter().map(|(session,)| *session), reason)?;
    }
    if ended.len() > TOLD_ONE_BY_ONE {
        let details = json!({ "count": ended.len(), "reason": reason.as_str() });
        return app.audit(tx, &Stream::of(user), "sessions_ended", from, details);
    }
    ended.iter().try_for_each(|(session,)| {
        let details = json!({ "session": session, "reason": reason.as_str() });
        app.audit(tx, &Stream::of(user), "session_ended", from, details)
    })
}

pub(super) fn remember(
    tx: &mut Tx<'_>,
    app: &App,
    ended: &Ended,
    reason: EndReason,
    from: ClientAddress,
) -> db::Result<()> {
    let now = app.clock.now();
    let kept_until = ended.expires_at.min(now + app.settings.refresh_idle);
    tx.execute(&store::REMEMBER_END, params![ended.id, ended.user_id, reason.as_str(), now, kept_until])?;
    tx.after_commit(app.ended.clone());
    tell_ended(tx, app, ended.user_id, [ended.id], reason)?;
    let details = json!({ "session": ended.id, "reason": reason.as_str() });
    // Whoever ends a session in which an operator is this person is the operator.
    let own = ended.amr != Proof::IMPERSONATION.amr;
    if own && matches!(reason, EndReason::LoggedOut | EndReason::SessionLimit) {
        return app.audit_own(tx, ended.user_id, "session_ended", from, details);
    }
    app.audit(tx, &Stream::of(ended.user_id), "session_ended", from, details)
}

/// Applications are told of it once, however many there are.
fn tell_ended(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    sessions: impl IntoIterator<Item = Id<SessionRow>>,
    reason: EndReason,
) -> db::Result<()> {
    let sessions: Vec<_> = sessions.into_iter().collect();
    webhooks::tell(
        tx,
        app,
        user,
        "session.ended",
        &json!({ "session_ids": sessions, "reason": reason.as_str() }),
    )
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
    let mut swept = 0;
    for (statement, reason) in
        [(&store::SWEEP_EXPIRED, EndReason::Expired), (&store::SWEEP_IDLE, EndReason::Idle)]
    {
        let due: Vec<(Id<SessionRow>,)> = tx.all(statement, params![now])?;
        swept += due.len();
        for (session,) in due {
            end(tx, app, session, reason, ClientAddress::NOWHERE)?;
        }
    }
    tx.execute(&store::SWEEP_ENDED, params![now])?;
    tx.execute(&store::SWEEP_NOTICES, params![now])?;
    tx.execute(&store::SWEEP_TRUST, params![now])?;
    tx.execute(&store::SWEEP_DEVICES, params![now - FORGOTTEN.max(app.settings.session_lifetime)])?;
    Ok(swept >= 100)
}
