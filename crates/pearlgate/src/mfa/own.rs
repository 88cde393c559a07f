//! One's own factors: setting them up, taking them away, and what is told about it.

use std::time::Duration;

use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Id, Problem, Secret, Timestamp};
use foundation::limits::Taken;
use foundation::mail::Mail;
use foundation::params;
use serde_json::{Value, json};

use super::check::{self, Factor, has};
use super::gate::is_required;
use super::http::Mfa;
use super::model::{OFF_AFTER, Refusal, SEALED_FOR, Totp, recovery_codes, recovery_digest};
use super::reset;
use super::store;
use crate::accounts::UserRow;
use crate::app::App;
use crate::errors;
use crate::limits::{self, FACTOR_CHANGES};
use crate::mailed;
use crate::sessions::{self, Current, Own, Proof};
use crate::webhooks;

/// How long an app may be set up after it was begun.
const SETTING_UP: Duration = Duration::from_secs(600);
/// A notice of something that really happened is worth sending for this long (`outages.md`).
const NOTICE: Duration = Duration::from_secs(72 * 3600);
/// How long the "that was not me" of a notice works (`api.md`, lifetimes).
const NOT_ME: Duration = Duration::from_secs(24 * 3600);

/// An app that is being set up: shown once.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) secret: Secret,
    pub(super) uri: Secret,
}

/// What somebody has, and what policy wants of them.
pub(super) async fn status(app: &App, current: &Current) -> Result<Mfa, Problem> {
    let (inner, user) = (app.clone(), current.row.user_id);
    let found = app.db.read(move |tx| {
        let has = has(tx, user)?;
        let off: Vec<(String,)> = tx.all(&store::SWITCHED_OFF, params![user, OFF_AFTER])?;
        let reset: Option<(Timestamp,)> = tx.opt(&store::RESET_OF, params![user])?;
        let grace: Option<(Timestamp,)> = tx.opt(&store::GRACE_OF, params![user])?;
        let required = is_required(tx, &inner, user)?;
        Ok(Mfa {
            totp: has.totp,
            confirmed_at: has.totp.then(|| has.confirmed_at.to_string()),
            recovery_codes_left: has.recovery_codes,
            passkeys: has.passkeys,
            email_code: has.email_code && !has.factor(),
            required,
            required_from: grace.filter(|_| required && !has.factor()).map(|(until,)| until.to_string()),
            switched_off: off.into_iter().map(|(factor,)| factor).collect(),
            reset_due_at: reset.map(|(due,)| due.to_string()),
        })
    });
    found.await.map_err(|e| e.to_problem())
}

/// Begins to set up an authenticator app. Nothing counts before it is confirmed.
pub(super) fn begin_totp(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<Begun> {
    let totp = Totp::new(&app.chance);
    let address: Option<(String, String)> = tx.opt(&store::ADDRESS, params![user])?;
    let account = address.map(|(address, _)| address).unwrap_or_default();
    let plain = serde_json::to_vec(&totp).map_err(|e| db::Error::Bug(e.to_string()))?;
    let sealed = app.sealer.seal(SEALED_FOR, &plain).map_err(|e| db::Error::Bug(e.to_string()))?;
    tx.execute(&store::ENROL, params![user, sealed, app.clock.now() + SETTING_UP])?;
    let uri = Secret::new(totp.uri(&app.settings.service_name, &account));
    Ok(Begun { secret: totp.secret, uri })
}

/// An app shows that it has the secret: it is the factor from now on, in the place of the one before. The person is
/// locked. Gives the recovery codes.
pub(super) fn confirm_totp(
    tx: &mut Tx<'_>,
    app: &App,
    own: Own,
    code: &Secret,
    from: ClientAddress,
) -> db::Result<Result<Vec<Secret>, Refusal>> {
    let (user, now) = (own.user, app.clock.now());
    let Some((sealed,)) = tx.opt::<(Vec<u8>,)>(&store::ENROLMENT, params![user, now])? else {
        return Ok(Err(Refusal::Conflict(
            "No app is being set up, or it took longer than ten minutes: begin again.",
        )));
    };
    let Some(step) = check::opened(app, user, &sealed).and_then(|totp| totp.step_of(code, now)) else {
        return Ok(Err(Refusal::CodeInvalid));
    };
    let (since,): (Timestamp,) = tx.one(&store::CONFIRM, params![user, sealed, step, now])?;
    let first = since == now;
    tx.execute(&store::DROP_ENROLMENT, params![user])?;
    replaces_what_was_weaker(tx, app, user, from)?;
    if !first {
        // What showed the app of before has not shown this one.
        sessions::factor_gone(tx, user)?;
    }
    let codes = new_recovery_codes(tx, app, user)?;
    let (kind, what) = match first {
        true => ("factor_added", "totp_added"),
        false => ("factor_replaced", "totp_replaced"),
    };
    app.audit_own(tx, own, kind, from, json!({ "factor": Factor::Totp.as_str() }))?;
    changed(tx, app, user, (what, now))?;
    Ok(Ok(codes))
}

/// A second factor was added: codes by mail are not asked for any more, wrong ones of before count no more, and nobody
/// takes factors away who was asked to.
fn replaces_what_was_weaker(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    from: ClientAddress,
) -> db::Result<()> {
    tx.opt::<(Timestamp,)>(&store::DROP_EMAIL_FACTOR, params![user])?;
    tx.execute(&store::FORGIVE_ALL, params![user])?;
    reset::cancel_in(tx, app, user, from)
}

/// A passkey was added for somebody who is locked. Gives recovery codes when there were none.
///
/// # Errors
/// As every statement.
pub fn passkey_added(
    tx: &mut Tx<'_>,
    app: &App,
    own: Own,
    (from, now): (ClientAddress, Timestamp),
) -> db::Result<Vec<Secret>> {
    let user = own.user;
    tx.opt::<(Timestamp,)>(&store::DROP_EMAIL_FACTOR, params![user])?;
    reset::cancel_in(tx, app, user, from)?;
    let codes =
        if has(tx, user)?.recovery_codes == 0 { new_recovery_codes(tx, app, user)? } else { Vec::new() };
    app.audit_own(tx, own, "factor_added", from, json!({ "factor": Factor::Passkey.as_str() }))?;
    changed(tx, app, user, ("passkey_added", now))?;
    Ok(codes)
}

/// Whether somebody who is locked may be without a passkey: policy demands nothing, or there is an app.
///
/// # Errors
/// As every statement.
pub fn may_lose_passkeys(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<bool> {
    // An app that was switched off lets nobody in.
    let has = has(tx, user)?;
    let app_lets_in = check::shows(tx, user)?.contains(&Factor::Totp.as_str());
    Ok(app_lets_in || (!has.totp && !is_required(tx, app, user)?))
}

/// A passkey of somebody who is locked was removed.
///
/// # Errors
/// As every statement.
pub fn passkey_removed(tx: &mut Tx<'_>, app: &App, own: Own, from: ClientAddress) -> db::Result<()> {
    let user = own.user;
    app.audit_own(tx, own, "factor_removed", from, json!({ "factor": Factor::Passkey.as_str() }))?;
    changed(tx, app, user, ("passkey_removed", app.clock.now()))?;
    without_factor(tx, app, user, from)
}

fn new_recovery_codes(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<Vec<Secret>> {
    let codes = recovery_codes(&app.chance);
    tx.execute(&store::DROP_RECOVERY_CODES, params![user])?;
    // Wrong ones of the set before count for nothing against this one.
    tx.execute(&store::FORGIVE, params![user, Factor::RecoveryCode.counter()])?;
    for code in &codes {
        tx.execute(&store::ADD_RECOVERY_CODE, params![user, recovery_digest(user, code), app.clock.now()])?;
    }
    Ok(codes)
}

/// What somebody changes about their factors, each only in a session that is fresh.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// An app shows that it has the secret.
    Confirm(Secret),
    /// The app goes.
    RemoveTotp,
    /// A new set of recovery codes.
    RecoveryCodes,
    /// A code from the mailbox, after the password.
    ChooseEmailCode,
    /// No more of that.
    RemoveEmailCode,
}

/// Changes them, and gives the recovery codes if there are new ones.
///
/// # Errors
/// 403 in a session that is not fresh; as the change refuses; 401 when the session ended meanwhile.
pub(super) async fn change(
    app: &App,
    current: &Current,
    change: Change,
    from: ClientAddress,
) -> Result<Vec<Secret>, Problem> {
    let inner = app.clone();
    let done: Result<Vec<Secret>, Refusal> =
        change_in(app, current, from, move |tx, current| apply(tx, &inner, current, &change, from)).await;
    Ok(done?)
}

/// Changes what somebody signs in with: in a fresh session of theirs, with them locked, and as one of the few changes that they
/// have; each is told by mail. Whether it is fresh is looked at again under the lock: there may be a factor by now that was
/// not shown.
///
/// # Errors
/// 403 in a session that is not fresh; 429; as `work` refuses; 401 when the session ended meanwhile.
pub async fn change_in<T, R>(
    app: &App,
    current: &Current,
    from: ClientAddress,
    work: impl Fn(&mut Tx<'_>, &Current) -> db::Result<Result<T, R>> + Send + 'static,
) -> Result<T, R>
where
    T: Send + 'static,
    R: From<Problem> + From<db::Error> + Send + 'static,
{
    current.must_be_fresh(app)?;
    let (inner, by, user) = (app.clone(), current.clone(), current.row.user_id);
    let done = app.db.write(move |tx| {
        let taken = inner.limits.take_in(tx, FACTOR_CHANGES.name, user.as_bytes())?;
        if let Some(taken) = taken.filter(Taken::refused) {
            return Ok(Some(Err(limits::too_many(&taken).into())));
        }
        mailed::lock_person(tx, user)?;
        let Some(current) = sessions::again(tx, &inner, &by)? else { return Ok(None) };
        match current.must_be_fresh(&inner) {
            Ok(()) => work(tx, &current).map(Some),
            Err(problem) => Ok(Some(Err(problem.into()))),
        }
    });
    match done.await? {
        Some(done) => done,
        None => {
            Err(errors::session_ended(&sessions::end_reason(app, current.row.session_id, from).await?).into())
        }
    }
}

fn apply(
    tx: &mut Tx<'_>,
    app: &App,
    current: &Current,
    change: &Change,
    from: ClientAddress,
) -> db::Result<Result<Vec<Secret>, Refusal>> {
    let user = current.row.user_id;
    let has = has(tx, user)?;
    match change {
        Change::Confirm(code) => {
            let codes = confirm_totp(tx, app, current.into(), code, from)?;
            if codes.is_ok() {
                sessions::factor_shown(tx, app, current, Proof::FACTOR)?;
            }
            return Ok(codes);
        }
        Change::RemoveTotp => {
            if !has.totp {
                return Ok(Err(Refusal::NotFound));
            }
            if has.passkeys == 0 && is_required(tx, app, user)? {
                let detail = "This account must have a second factor: set up another app in the place of this one instead.";
                return Ok(Err(Refusal::Conflict(detail)));
            }
            tx.opt::<(Timestamp,)>(&store::REMOVE, params![user])?;
            tx.execute(&store::FORGIVE, params![user, Factor::Totp.counter()])?;
            app.audit_own(tx, current, "factor_removed", from, json!({ "factor": Factor::Totp.as_str() }))?;
            self::changed(tx, app, user, ("totp_removed", app.clock.now()))?;
            without_factor(tx, app, user, from)?;
        }
        Change::RecoveryCodes => {
            if !has.factor() {
                let detail =
                    "Recovery codes stand in for a second factor, and there is none: set one up first.";
                return Ok(Err(Refusal::Conflict(detail)));
            }
            let codes = new_recovery_codes(tx, app, user)?;
            app.audit_own(tx, current, "recovery_codes_made", from, json!({}))?;
            self::changed(tx, app, user, ("recovery_codes", app.clock.now()))?;
            return Ok(Ok(codes));
        }
        Change::ChooseEmailCode => {
            if !app.settings.mfa.email_code {
                return Ok(Err(Refusal::Conflict("This service does not offer codes from the mailbox.")));
            }
            if has.factor() {
                let detail = "There is a second factor, which is better than a code from the mailbox.";
                return Ok(Err(Refusal::Conflict(detail)));
            }
            if !has.email_code {
                tx.execute(&store::CHOOSE_EMAIL_CODE, params![user, app.clock.now()])?;
                app.audit_own(tx, current, "email_code_on", from, json!({}))?;
                self::changed(tx, app, user, ("email_code_added", app.clock.now()))?;
            }
        }
        Change::RemoveEmailCode => {
            if tx.opt::<(Timestamp,)>(&store::DROP_EMAIL_FACTOR, params![user])?.is_none() {
                return Ok(Err(Refusal::NotFound));
            }
            tx.execute(&store::FORGIVE, params![user, Factor::EmailCode.counter()])?;
            app.audit_own(tx, current, "email_code_off", from, json!({}))?;
            self::changed(tx, app, user, ("email_code_removed", app.clock.now()))?;
        }
    }
    Ok(Ok(Vec::new()))
}

/// Something went: when no factor is left, what stood in for it goes, and no session has shown it any more.
fn without_factor(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, from: ClientAddress) -> db::Result<()> {
    if has(tx, user)?.factor() {
        return Ok(());
    }
    tx.execute(&store::DROP_RECOVERY_CODES, params![user])?;
    reset::cancel_in(tx, app, user, from)?;
    sessions::factor_gone(tx, user)
}

/// Everything of this person's that is, or was to become, a second factor goes. The person is locked.
///
/// # Errors
/// As every statement.
pub(super) fn forget_all(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<()> {
    mailed::kill_halves(tx, user)?;
    tx.opt::<(Timestamp,)>(&store::REMOVE, params![user])?;
    tx.opt::<(Timestamp,)>(&store::DROP_EMAIL_FACTOR, params![user])?;
    tx.opt::<(Timestamp,)>(&store::CANCEL_RESET, params![user])?;
    for drop in
        [&store::REMOVE_PASSKEYS, &store::DROP_RECOVERY_CODES, &store::DROP_ENROLMENT, &store::FORGIVE_ALL]
    {
        tx.execute(drop, params![user])?;
    }
    sessions::factor_gone(tx, user)
}

/// The same for somebody who has proven their address for the first time, and has none that they know of.
///
/// # Errors
/// As every statement.
pub fn forget_planted(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<()> {
    let has = has(tx, user)?;
    if has.factor() || has.email_code { forget_all(tx, user) } else { Ok(()) }
}

/// The owner of the mailbox says that what was done since a moment was not their doing: factors that were added since then
/// go, and recovery codes that were made; those they had before stay. True when something went.
///
/// # Errors
/// As every statement.
pub fn disavow(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    (since, from): (Timestamp, ClientAddress),
) -> db::Result<bool> {
    let mut gone = tx.opt::<(Timestamp,)>(&store::REMOVE_NEW, params![user, since])?.is_some();
    for remove in [&store::REMOVE_NEW_PASSKEYS, &store::REMOVE_NEW_CODES] {
        gone |= tx.execute(remove, params![user, since])? > 0;
    }
    if gone {
        webhooks::tell(tx, app, user, "mfa.changed", &json!({ "change": "factors_disowned" }))?;
    }
    mailed::kill_halves(tx, user)?;
    without_factor(tx, app, user, from)?;
    Ok(gone)
}

/// Whether a factor was added since a moment.
///
/// # Errors
/// As every read.
pub fn added_since(tx: &mut Tx<'_>, user: Id<UserRow>, since: Timestamp) -> db::Result<bool> {
    Ok(!tx.all::<(Id<UserRow>,)>(&store::ADDED_SINCE, params![user, since])?.is_empty())
}

/// Something about the factors changed: what was half done is over, and the owner is told.
pub(super) fn changed(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    (what, at): (&str, Timestamp),
) -> db::Result<()> {
    tx.execute(&store::DROP_ENROLMENT, params![user])?;
    mailed::kill_halves(tx, user)?;
    let address: Option<(String, String)> = tx.opt(&store::ADDRESS, params![user])?;
    let Some((to, key)) = address else { return Ok(()) };
    let link = match what {
        // What it takes away was added at the very moment that the link knows.
        "totp_added" | "passkey_added" => {
            mailed::not_me_link(tx, app, user, (&to, &key), ("/not-me", NOT_ME), at)?
        }
        _ => String::new(),
    };
    let values = json!({ "what": what, "link": link, "link_expires_in": mailed::in_words(NOT_ME) });
    mail(tx, app, to, "mfa_changed", values)
}

fn mail(tx: &mut Tx<'_>, app: &App, to: String, kind: &str, mut values: Value) -> db::Result<()> {
    let now = app.clock.now();
    if let Some(values) = values.as_object_mut() {
        values.insert("service_name".into(), app.settings.service_name.clone().into());
        values.insert("at".into(), now.to_string().into());
    }
    app.postman.send_first(tx, &Mail { kind: kind.into(), to, values }, now, NOTICE)
}

/// A recovery code was used.
pub(super) fn tell_of_recovery_code(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    left: i64,
    from: ClientAddress,
) -> db::Result<()> {
    app.audit_own(tx, user, "recovery_code_used", from, json!({ "left": left }))?;
    let address: Option<(String, String)> = tx.opt(&store::ADDRESS, params![user])?;
    let Some((to, _)) = address else { return Ok(()) };
    mail(tx, app, to, "recovery_code_used", json!({ "left": left }))
}

/// So many codes were wrong that something follows.
pub(super) fn tell_of_failures(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    state: &str,
    factor: &str,
) -> db::Result<()> {
    let address: Option<(String, String)> = tx.opt(&store::ADDRESS, params![user])?;
    let Some((to, _)) = address else { return Ok(()) };
    mail(tx, app, to, "mfa_failures", json!({ "state": state, "factor": factor }))
}

/// Begins to set up an app in a session that is fresh.
pub(super) async fn begin(app: &App, current: &Current) -> Result<Begun, Problem> {
    current.must_be_fresh(app)?;
    let (inner, user) = (app.clone(), current.row.user_id);
    let begun = app.db.write(move |tx| {
        mailed::lock_person(tx, user)?;
        begin_totp(tx, &inner, user)
    });
    begun.await.map_err(|e| e.to_problem())
}

/// Forgets what is too old to be used.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> db::Result<()> {
    [&store::SWEEP_HALVES, &store::SWEEP_ENROLMENTS, &store::SWEEP_EMAIL_CODES]
        .into_iter()
        .try_for_each(|statement| tx.execute(statement, params![now]).map(|_| ()))
}
