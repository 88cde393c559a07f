//! From a password to a session.

use foundation::audit::Stream;
use foundation::http::ClientAddress;
use foundation::kernel::{Id, Problem};
use foundation::params;
use serde_json::json;

use super::alarms::Raised;
use super::history::{Noted, Went};
use super::model::Refusal;
use super::store::{self, Details};
use super::work;
use crate::accounts::{EmailAddress, UserRow};
use crate::app::App;
use crate::limits::PROOF_OF_WORK;
use crate::lockout::{self, Refused as Kept, Reserved, Whose};
use crate::magic_links::{self, MagicLinkRow};
use crate::mailed;
use crate::mfa::{self, Entered};
use crate::passwords::{self, Attempt, Finding, Overloaded, Verdict};
use crate::recovery;
use crate::sessions::http::Transport;
use crate::sessions::{self, Barred, Beginning, Current, Proof, Started, Visit};
use crate::settings::AlarmAnswer;

/// Somebody who wants in.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) email: EmailAddress,
    pub(super) password: Attempt,
    pub(super) visit: Visit,
    pub(super) transport: Transport,
    pub(super) proof_of_work: Option<String>,
}

/// Checks a password and begins a session.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn login(app: &App, login: Login) -> Result<Entered, Refusal> {
    let address = login.email.key().to_owned();
    let account: Option<(Id<UserRow>,)> =
        app.db.read_one(move |tx| tx.opt(&store::WHO, params![address])).await?;
    let account = account.map(|(user,)| user);
    let whose = Whose::at(app.code_key.current(), account, login.email.key());
    let device = match account {
        Some(user) => sessions::device(app, user, login.visit.device_token.as_ref()).await?,
        None => None,
    };
    let subject = whose.subject();
    let network = login.visit.from.network().to_string();
    let raised = app.alarms.tried(&network, &login.password, &subject, app.clock.now());
    raise(app, raised).await;
    if device.is_none() {
        worked(app, login.proof_of_work.as_deref()).await?;
    }
    if device.is_none()
        && let Some(refused) = lockout::locked(app, whose).await?
    {
        app.history.note(Noted { at: app.clock.now(), subject, network, device: false, went: Went::Locked });
        return Err(Refusal::Kept(refused));
    }
    let _turn = lockout::turn(app, whose, device).await.ok_or(Overloaded)?;
    let inner = app.clone();
    let key = login.email.key().to_owned();
    let reserved = app.db.write(move |tx| lockout::reserve(tx, &inner, (whose, &key), device)).await?;
    let note = |device, went| {
        app.history.note(Noted { at: app.clock.now(), subject, network, device, went });
    };
    let reserved = match reserved {
        Ok(reserved) => reserved,
        Err(refused) => {
            note(false, if matches!(refused, Kept::Locked(_)) { Went::Locked } else { Went::Limited });
            return Err(Refusal::Kept(refused));
        }
    };
    let known = reserved.on_known_device();
    // Also when nobody waits for the end: then it was a wrong one for all we know.
    let mut left = Left { note: Some(note), app, known };
    let ended = attempt(app, Tried { login, account, reserved }).await;
    let Some(note) = left.note.take() else { return ended };
    if let Some(right) = was_right(&ended) {
        note(known, if right { Went::Right } else { Went::Wrong });
        if !matches!(ended, Err(Refusal::EmailNotVerified)) {
            raise(app, app.alarms.went(right, app.clock.now())).await;
        }
    }
    ended
}

/// An attempt whose client may go away before it is answered.
struct Left<'a, N: FnOnce(bool, Went)> {
    note: Option<N>,
    app: &'a App,
    known: bool,
}

impl<N: FnOnce(bool, Went)> Drop for Left<'_, N> {
    fn drop(&mut self) {
        if let Some(note) = self.note.take() {
            note(self.known, Went::Wrong);
            self.app.alarms.went_unheard(false, self.app.clock.now());
        }
    }
}

async fn attempt(app: &App, tried: Tried) -> Result<Entered, Refusal> {
    // Another sign-in of the same person may have put a better hash in the place of the one that was checked.
    for _ in 0..3 {
        match check(app, &tried).await? {
            Err(Barred::Outdated) => {}
            begun => return Ok(begun?),
        }
    }
    Err(Refusal::InvalidCredentials)
}

/// Whether the password was right; none when nobody looked.
fn was_right(ended: &Result<Entered, Refusal>) -> Option<bool> {
    match ended {
        Err(Refusal::InvalidCredentials) => Some(false),
        Err(Refusal::Overloaded(_) | Refusal::Fault(_) | Refusal::Kept(_)) => None,
        _ => Some(true),
    }
}

/// Tells of an alarm, in the log, in numbers and in the trail.
async fn raise(app: &App, raised: impl IntoIterator<Item = Raised>) {
    for Raised { reason, details } in raised {
        metrics::counter!("sign_in_alarms_total", "reason" => reason).increment(1);
        tracing::warn!(reason, %details, "sign-ins go wrong in a way that is no accident");
        let inner = app.clone();
        let told = app.db.write(move |tx| {
            inner.audit(tx, &Stream::server(), "sign_in_alarm", ClientAddress::NOWHERE, details.clone())
        });
        if let Err(error) = told.await {
            tracing::warn!(%error, "an alarm could not be recorded");
        }
    }
}

/// Whether there is an alarm that is answered like this.
fn alarmed(app: &App, answer: AlarmAnswer) -> bool {
    app.settings.alarms.answer == answer && app.alarms.are_on(app.clock.now())
}

/// While there is an alarm, strangers may have to work; each piece of work is good for one attempt.
async fn worked(app: &App, proof: Option<&str>) -> Result<(), Refusal> {
    if !alarmed(app, AlarmAnswer::ProofOfWork) {
        return Ok(());
    }
    let solved = proof.and_then(|proof| work::solved(&app.work_key, proof, app.clock.now()));
    let challenge = solved.ok_or(Refusal::WorkDue)?;
    match app.limits.take(PROOF_OF_WORK.name, challenge.as_bytes()).await? {
        Some(taken) if taken.refused() => Err(Refusal::WorkDue),
        _ => Ok(()),
    }
}

/// An attempt that was spent.
#[derive(Debug, Clone)]
struct Tried {
    login: Login,
    account: Option<Id<UserRow>>,
    reserved: Reserved,
}

/// Somebody whose right password was given.
#[derive(Debug, Clone)]
struct Candidate {
    user_id: Id<UserRow>,
    details: Details,
}

async fn check(app: &App, tried: &Tried) -> Result<Result<Entered, Barred>, Refusal> {
    let user = tried.account.unwrap_or(mailed::NOBODY);
    let details: Details = app.db.read_one(move |tx| tx.one(&store::DETAILS, params![user])).await?;
    let stored = Some(details.password_hash.as_str()).filter(|hash| !hash.is_empty());
    let checked = match app.hashes.verify(&tried.login.password, stored).await {
        Ok(checked) => checked,
        Err(overloaded) => {
            let (inner, reserved) = (app.clone(), tried.reserved.clone());
            app.db.write(move |tx| lockout::unused(tx, &inner, &reserved)).await?;
            return Err(overloaded.into());
        }
    };
    match tried.account {
        Some(user_id) if checked.verdict == Verdict::Right && details.has_credential => {
            proven(app, Candidate { user_id, details }, tried, checked.outdated).await
        }
        _ => {
            let unproven = checked.verdict == Verdict::Right;
            refused(app, tried, unproven).await?;
            app.hashes.level(&checked).await;
            Err(if unproven { Refusal::EmailNotVerified } else { Refusal::InvalidCredentials })
        }
    }
}

/// The password was right: is it still fit, and does anything bar the person?
async fn proven(
    app: &App,
    candidate: Candidate,
    tried: &Tried,
    outdated: bool,
) -> Result<Result<Entered, Barred>, Refusal> {
    let login = &tried.login;
    if candidate.details.change_demanded {
        let (inner, user, tried) = (app.clone(), candidate.user_id, tried.clone());
        let noted = app.db.write(move |tx| {
            let from = tried.login.visit.from;
            lockout::right(tx, &inner, &tried.reserved)?;
            inner.audit_own(
                tx,
                user,
                "sign_in_refused",
                from,
                json!({ "reason": "password_change_demanded" }),
            )
        });
        noted.await?;
        return Err(Refusal::PasswordKnown);
    }
    let mut asked = false;
    if candidate.details.breach_check_pending {
        // The question that was put off when the password was set, now that it is at hand again.
        match app.breaches.find(login.password.reveal()).await {
            Finding::Breached => return known_to_others(app, &candidate, tried).await,
            Finding::Unknown => asked = true,
            Finding::NotAsked => {}
        }
    }
    // A better hash is worth a wait, not a refusal.
    let renewed = if outdated { app.hashes.renew(&login.password).await.ok() } else { None };
    begin(app, candidate, tried, renewed, asked).await
}

async fn known_to_others(
    app: &App,
    candidate: &Candidate,
    tried: &Tried,
) -> Result<Result<Entered, Barred>, Refusal> {
    let (inner, user, tried, hash) =
        (app.clone(), candidate.user_id, tried.clone(), candidate.details.password_hash.clone());
    let demanded = app.db.write(move |tx| {
        let from = tried.login.visit.from;
        if !passwords::demand_change(tx, user, Some(&hash), "breached", inner.clock.now())? {
            return Ok(false);
        }
        lockout::right(tx, &inner, &tried.reserved)?;
        recovery::mail_reset(tx, &inner, user, "password_breached")?;
        inner.audit_own(tx, user, "sign_in_refused", from, json!({ "reason": "password_breached" }))?;
        Ok(true)
    });
    if demanded.await? { Err(Refusal::PasswordKnown) } else { Ok(Err(Barred::Outdated)) }
}

async fn begin(
    app: &App,
    candidate: Candidate,
    tried: &Tried,
    renewed: Option<String>,
    asked: bool,
) -> Result<Result<Entered, Barred>, Refusal> {
    let (inner, tried) = (app.clone(), tried.clone());
    if alarmed(app, AlarmAnswer::MailedCode) && !tried.reserved.on_known_device() {
        match prove_mailbox(app, &candidate, &tried).await? {
            Mailbox::Asked(id) => return Err(Refusal::CodeDue(id)),
            Mailbox::Barred(barred) => return Ok(Err(barred)),
            Mailbox::NotNeeded => {}
        }
    }
    let begun = app.db.write(move |tx| {
        let (user, login) = (candidate.user_id, &tried.login);
        let mut hash = &candidate.details.password_hash;
        if renewed.is_some() {
            mailed::lock_person(tx, user)?;
        }
        if let Some(new) = &renewed
            && passwords::renew(tx, user, hash, new)?
        {
            hash = new;
        }
        let with = Beginning {
            user,
            password_hash: Some(hash.clone()),
            proof: Proof::PASSWORD,
            visit: login.visit.clone(),
        };
        let begun = mfa::enter(tx, &inner, &with, login.transport)?;
        if asked && begun.is_ok() {
            passwords::note_breach_check(tx, user, true, inner.clock.now())?;
        }
        if matches!(begun, Err(Barred::Outdated)) {
            return Ok(begun);
        }
        lockout::right(tx, &inner, &tried.reserved)?;
        let kind = begun.as_ref().map_or("sign_in_refused", Entered::event);
        let known = begun.as_ref().is_ok_and(Entered::on_known_device);
        let own = begun.as_ref().map_or(user.into(), |entered| entered.own(user));
        inner.audit_own(tx, own, kind, login.visit.from, json!({ "known_device": known }))?;
        Ok(begun)
    });
    Ok(begun.await?)
}

/// Whether somebody has to show that they read the mailbox.
enum Mailbox {
    Asked(Id<MagicLinkRow>),
    Barred(Barred),
    /// They are asked for more than that.
    NotNeeded,
}

/// The password is right, and it may be known from elsewhere: a code goes to the mailbox of whoever has no second factor.
async fn prove_mailbox(app: &App, candidate: &Candidate, tried: &Tried) -> Result<Mailbox, Refusal> {
    let (inner, id) = (app.clone(), Id::<MagicLinkRow>::new(&app.clock, &app.chance));
    let (user, hash, tried) = (candidate.user_id, candidate.details.password_hash.clone(), tried.clone());
    let asked = app.db.write(move |tx| {
        let Tried { login, reserved, .. } = &tried;
        let barred = match sessions::bars(tx, user, Proof::PASSWORD, Some(&hash))? {
            Ok(true) => return Ok(Mailbox::NotNeeded),
            Ok(false) => None,
            Err(barred) => Some(barred),
        };
        lockout::right(tx, &inner, reserved)?;
        let id = match barred {
            None => magic_links::mail_link(tx, &inner, user, login.email.key(), id)?,
            Some(_) => id,
        };
        let reason = if barred.is_some() { "barred" } else { "email_code_required" };
        inner.audit_own(tx, user, "sign_in_refused", login.visit.from, json!({ "reason": reason }))?;
        Ok(barred.map_or(Mailbox::Asked(id), Mailbox::Barred))
    });
    Ok(asked.await?)
}

/// Writes a failure down, in the person's own history or, when there is nobody, in the shard of the address.
async fn refused(app: &App, tried: &Tried, unproven: bool) -> Result<(), Refusal> {
    let (inner, tried) = (app.clone(), tried.clone());
    let stream = tried.account.map_or_else(|| Stream::shard(tried.login.email.key()), Stream::of);
    let reason = if unproven { "email_not_verified" } else { "invalid_credentials" };
    app.db
        .write(move |tx| {
            let Tried { login, reserved, .. } = &tried;
            match unproven {
                true => lockout::right(tx, &inner, reserved)?,
                false => lockout::wrong(tx, &inner, reserved)?,
            }
            inner.audit(tx, &stream, "sign_in_failed", login.visit.from, json!({ "reason": reason }))
        })
        .await?;
    Ok(())
}

/// Proves once more who somebody is, with their password; the session stays the same and is fresh.
///
/// # Errors
/// [`Refusal`] when the password is not the account's; a problem when the session ended meanwhile.
pub(super) async fn reauthenticate(
    app: &App,
    current: &Current,
    password: &Attempt,
    device_name: String,
    from: ClientAddress,
) -> Result<Started, Problem> {
    let user = current.row.user_id;
    let stored: Option<(String,)> = app
        .db
        .read_one(move |tx| tx.opt(&store::PASSWORD_OF, params![user]))
        .await
        .map_err(|e| e.to_problem())?;
    let stored = stored.map(|(hash,)| hash);
    let checked = passwords::verify_own(app, current, password, stored.as_deref()).await?;
    if checked.verdict != Verdict::Right {
        let inner = app.clone();
        let noted = app.db.write(move |tx| {
            inner.audit(
                tx,
                &Stream::of(user),
                "reauthentication_failed",
                from,
                json!({ "by": Proof::PASSWORD.amr }),
            )
        });
        noted.await.map_err(Refusal::Fault)?;
        return Err(Refusal::InvalidCredentials.into());
    }
    sessions::renew(app, current, Proof::PASSWORD, device_name, from).await
}
