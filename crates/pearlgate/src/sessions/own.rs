//! What a person does with sessions they have: look at them, end them, prove once more who they are.

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Digest, Id, Page, PageRequest, Problem, Secret, Timestamp, sha256};
use foundation::params;
use serde_json::json;

use super::devices::{DeviceRow, is_notice};
use super::flow::{NOT_ME, Started, end, remember};
use super::guard::{Current, reason};
use super::http::OwnSession;
use super::model::{EndReason, Proof, REPEATABLE, SessionRow, Shown};
use super::store::{self, Ended, Inspected, Listed};
use crate::accounts::UserRow;
use crate::app::App;
use crate::errors;

/// A person who does something, and in which session where there is one.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// The person.
    pub user: Id<UserRow>,
    /// Their session.
    pub session: Option<Id<SessionRow>>,
}

impl From<Id<UserRow>> for Own {
    fn from(user: Id<UserRow>) -> Self {
        Self { user, session: None }
    }
}

impl From<(Id<UserRow>, Option<Id<SessionRow>>)> for Own {
    fn from((user, session): (Id<UserRow>, Option<Id<SessionRow>>)) -> Self {
        Self { user, session }
    }
}

impl From<&Current> for Own {
    fn from(current: &Current) -> Self {
        Self { user: current.row.user_id, session: Some(current.row.session_id) }
    }
}

/// The living sessions of a person, newest first.
pub(super) async fn list(
    app: &App,
    current: &Current,
    request: &PageRequest,
) -> Result<Page<OwnSession>, Problem> {
    list_of(app, current.row.user_id, Some(current.row.session_id), request).await
}

/// The same for an operator.
///
/// # Errors
/// 422 for a cursor that is none of ours, 503.
pub async fn list_of(
    app: &App,
    user: Id<UserRow>,
    own: Option<Id<SessionRow>>,
    request: &PageRequest,
) -> Result<Page<OwnSession>, Problem> {
    let now = app.clock.now();
    let list = format!("sessions:{user}");
    let (limit, before) = app.cursors.open(&list, request, i64::MAX)?;
    let wanted = i64::from(limit) + 1;
    let rows = app.db.read_one(move |tx| tx.all::<Listed>(&store::LIST, params![user, now, before, wanted]));
    let rows = rows.await.map_err(|e| e.to_problem())?;
    let more = rows.len() > usize::from(limit);
    let last = rows.get(usize::from(limit).saturating_sub(1)).map_or(0, |row| row.created_at.micros());
    let items = rows.into_iter().take(limit.into()).map(|row| OwnSession::of(row, own, now)).collect();
    Ok(Page { items, next_cursor: if more { app.cursors.issue(&list, last) } else { String::new() } })
}

/// Ends one session of the person. Whoever ends another one than their own must have proven who they are just now: a
/// thief does not put the owner out (ASVS 7.5.2).
pub(super) async fn end_one(
    app: &App,
    current: &Current,
    session: Id<SessionRow>,
    from: ClientAddress,
) -> Result<(), Problem> {
    if session != current.row.session_id {
        current.must_be_fresh(app)?;
    }
    let (inner, user) = (app.clone(), current.row.user_id);
    // Whoever was somebody else leaves; the person did nothing.
    let (reason, from) = match current.actor() {
        Some(_) => (EndReason::LoggedOut, ClientAddress::NOWHERE),
        None => (EndReason::RevokedByUser, from),
    };
    let ended = app.db.write(move |tx| {
        tx.opt::<(Id<UserRow>,)>(&store::LOCK_COUNTED, params![user])?;
        tx.execute(&store::UNTRUST_OF_SESSION, params![session, user])?;
        let ended: Option<Ended> = tx.opt(&store::END_OWN, params![session, user])?;
        if let Some(ended) = &ended {
            remember(tx, &inner, ended, reason, from)?;
        }
        Ok(ended.is_some())
    });
    if ended.await.map_err(|e| e.to_problem())? { Ok(()) } else { Err(Problem::not_found()) }
}

/// An operator ends one session of somebody. False when they have none with this id.
///
/// # Errors
/// As every statement.
pub fn end_in(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    session: Id<SessionRow>,
    from: ClientAddress,
) -> db::Result<bool> {
    tx.opt::<(Id<UserRow>,)>(&store::LOCK_COUNTED, params![user])?;
    tx.execute(&store::UNTRUST_OF_SESSION, params![session, user])?;
    let ended: Option<Ended> = tx.opt(&store::END_OWN, params![session, user])?;
    if let Some(ended) = &ended {
        remember(tx, app, ended, EndReason::RevokedByAdmin, from)?;
    }
    Ok(ended.is_some())
}

/// Ends every other session of the person.
pub(super) async fn end_others(app: &App, current: &Current, from: ClientAddress) -> Result<(), Problem> {
    current.must_be_fresh(app)?;
    let (inner, user, own) = (app.clone(), current.row.user_id, current.row.session_id);
    let device = current.row.device_id;
    let ended = app.db.write(move |tx| {
        tx.opt::<(Id<UserRow>,)>(&store::LOCK_COUNTED, params![user])?;
        tx.execute(&store::UNTRUST_OTHERS, params![user, device])?;
        super::flow::end_others(tx, &inner, user, own, EndReason::RevokedByUser, from)
    });
    ended.await.map_err(|e| e.to_problem())
}

/// A session whose person has proven once more who they are: it is fresh, and its refresh token is another one, so that
/// whoever had the old one does not have a fresh session (ASVS 7.2.4).
///
/// # Errors
/// 401 when it ended meanwhile.
pub async fn renew(
    app: &App,
    current: &Current,
    proof: Proof,
    device_name: String,
    from: ClientAddress,
) -> Result<Started, Problem> {
    let (inner, by) = (app.clone(), current.clone());
    let renewed = app.db.write(move |tx| renew_in(tx, &inner, &by, proof, &device_name, from));
    match renewed.await.map_err(|e| e.to_problem())? {
        Some(started) => Ok(started),
        None => Err(errors::session_ended(&reason(app, current.row.session_id, from).await?)),
    }
}

/// The same in a transaction; none when the session ended meanwhile.
///
/// # Errors
/// As every statement.
pub fn renew_in(
    tx: &mut Tx<'_>,
    app: &App,
    current: &Current,
    proof: Proof,
    device_name: &str,
    from: ClientAddress,
) -> db::Result<Option<Started>> {
    let (session, user, now) = (current.row.session_id, current.row.user_id, app.clock.now());
    let name = if device_name.is_empty() { &current.row.device_name } else { device_name };
    let methods = &current.row.amr;
    let factor = proof.shown == Shown::Factor;
    // What is two factors in one counts as both.
    let knows = proof.knows(methods) || proof.aal >= 2;
    let level_2 = knows && (factor || current.row.factor_at.micros() > 0);
    tx.opt::<(Id<UserRow>,)>(&store::LOCK, params![session])?;
    if level_2 && current.row.aal < 2 {
        super::factors::shorten(tx, app, session, user)?;
    }
    let Some(row) = tx.opt::<Inspected>(&store::INSPECT, params![session])? else { return Ok(None) };
    if row.over(now).is_some() {
        return Ok(None);
    }
    let (token, made_at) = another_token(tx, app, session, &row, now)?;
    let amr = proof.added_to(methods, level_2);
    tx.execute(&store::PROVEN_AGAIN, params![session, now, i64::from(knows), amr, name, i64::from(factor)])?;
    tx.execute(&store::NOTICE_PROVEN, params![user, session, amr])?;
    app.audit_own(tx, user, "reauthenticated", from, json!({ "session": session, "by": proof.amr }))?;
    Ok(store::load(tx, session, now)?.map(|row| Started::new(row, token, made_at)))
}

/// A token to which nothing leads from the one before it. Who proves themselves twice at the same time gets the same
/// one twice.
fn another_token(
    tx: &mut Tx<'_>,
    app: &App,
    session: Id<SessionRow>,
    row: &Inspected,
    now: Timestamp,
) -> db::Result<(Secret, Timestamp)> {
    let taken_over: Option<(Digest,)> = tx.opt(&store::TAKEN_OVER, params![session, row.current])?;
    // One that was used is a token like any other.
    let unused = taken_over.map(|(digest,)| digest).filter(|_| row.previous != row.current);
    let known =
        unused.and_then(|digest| app.refresh_key.renewed(&digest, session, row.rotated_at, &row.current));
    if let Some(token) = known.filter(|_| now <= row.rotated_at + REPEATABLE) {
        return Ok((token, row.rotated_at));
    }
    let replaced = unused.unwrap_or(row.current);
    let token = app.refresh_key.renewal(&replaced, session, now);
    if unused.is_none()
        || tx.opt::<(Digest,)>(&store::KEEP_BEFORE, params![session, row.current, token.digest()])?.is_none()
    {
        tx.execute(&store::KEEP_REPLACED, params![session, token.digest()])?;
    }
    let nobody = sha256(&app.chance.bytes::<32>());
    tx.execute(&store::RENEW, params![session, token.digest(), nobody, now, now + row.idle()])?;
    Ok((token, now))
}

/// What a mail about a new device would end; consumes nothing.
///
/// # Errors
/// 503 when the database is away.
pub async fn disownable(app: &App, token: &Secret) -> Result<Option<String>, Problem> {
    if !is_notice(token) {
        return Ok(None);
    }
    let (digest, now) = (token.digest(), app.clock.now());
    let open = app.db.read_one(move |tx| tx.opt::<(String,)>(&store::NOTICE_OPEN, params![digest, now]));
    Ok(open.await.map_err(|e| e.to_problem())?.map(|(device,)| device))
}

/// A session that its person says is not theirs.
#[derive(Debug, Clone, Copy)]
pub struct Disowned {
    /// The person; locked.
    pub user: Id<UserRow>,
    /// Whether somebody knew the password.
    pub by_password: bool,
    /// A provider's word was their proof.
    pub by_identity: bool,
    /// When it began.
    pub since: Timestamp,
}

/// Ends what was begun on the device that a mail told of; none when the link does not work.
///
/// # Errors
/// As every statement.
pub fn disown(
    tx: &mut Tx<'_>,
    app: &App,
    token: &Secret,
    from: ClientAddress,
) -> db::Result<Option<Disowned>> {
    if !is_notice(token) {
        return Ok(None);
    }
    let (digest, now): (_, Timestamp) = (token.digest(), app.clock.now());
    let told: Option<(Id<UserRow>, Id<DeviceRow>, String, Timestamp)> =
        tx.opt(&store::NOTICE_OF, params![digest, now])?;
    let Some((user, device, amr, expires_at)) = told else { return Ok(None) };
    tx.opt::<(Id<UserRow>,)>(&store::LOCK_COUNTED, params![user])?;
    if tx.opt::<(Id<UserRow>,)>(&store::NOTICE_CONSUME, params![digest, now])?.is_none() {
        return Ok(None);
    }
    let by = |proof: Proof| amr.split(' ').any(|method| method == proof.amr);
    let (by_password, by_identity) = (by(Proof::PASSWORD), by(Proof::FEDERATED));
    // Whatever else was begun on that device since is as little theirs, and the device is a stranger again.
    let sessions: Vec<(Id<SessionRow>,)> = tx.all(&store::OF_DEVICE, params![user, device])?;
    for (session,) in &sessions {
        end(tx, app, *session, EndReason::RevokedByUser, from)?;
    }
    tx.execute(&store::FORGET_DEVICE, params![user, device])?;
    app.audit(tx, &Stream::of(user), "device_disowned", from, json!({ "device": device }))?;
    Ok(Some(Disowned { user, by_password, by_identity, since: expires_at - NOT_ME }))
}
