//! What a person does who cannot get in.

use std::time::Duration;

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::{Claim, ClientAddress, IdempotencyKey};
use foundation::jobs::{Handlers, Job, JobError, When};
use foundation::kernel::{Digest, Id, Secret, Timestamp};
use foundation::mail::Mail;
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::model::Refusal;
use super::store::{self, NotMe};
use crate::access;
use crate::accounts::{self, EmailAddress, UserRow};
use crate::app::App;
use crate::email_change;
use crate::federation;
use crate::lockout;
use crate::mailed::{self, Asked, NOT_ME, Proofs, RESET, code_digest, in_words};
use crate::mfa;
use crate::passwords::{self, About, Unfit};
use crate::registration;
use crate::sessions::{self, EndReason};
use crate::webhooks;

/// A mail that somebody waits for in front of a form.
const WAITED_FOR: Duration = Duration::from_secs(900);

/// Sends the reset mail of an address, if somebody has it. The request writes the same for every address: whether
/// there is anything to send is found out by the job, where nobody can measure it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForgotPassword {
    address_key: String,
}

impl Job for ForgotPassword {
    const KIND: &'static str = "recovery.forgot_password";
}

/// Asks for a way to a new password.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn forgot(
    app: &App,
    email: EmailAddress,
    key: &IdempotencyKey,
    from: ClientAddress,
) -> Result<(), Refusal> {
    let now = app.clock.now();
    if key.replay(&app.db, now).await?.is_some() {
        return Ok(());
    }
    let (inner, claimed) = (app.clone(), key.clone());
    app.db
        .write(move |tx| {
            if claimed.claim(tx, now, 202, "")? == Claim::Ours {
                let job = ForgotPassword { address_key: email.key().to_owned() };
                // One at a time for an address: asking a hundred times is asking once.
                let once = When::now(now, WAITED_FOR).urgent().unique(format!("forgot:{}", job.address_key));
                inner.queue.enqueue(tx, &job, &once)?;
                inner.audit(tx, &Stream::shard(email.key()), "password_reset_requested", from, json!({}))?;
            }
            Ok(())
        })
        .await?;
    Ok(())
}

async fn send(app: App, job: ForgotPassword) -> Result<(), JobError> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            let who: Option<(Id<UserRow>,)> = tx.opt(&store::WHO, params![job.address_key])?;
            let Some((user,)) = who else { return Ok(()) };
            let may = mailed::may_ask(tx, &inner, &job.address_key, Asked::Reset)?;
            mailed::lock_person(tx, user)?;
            if !registration::may_begin(tx, &inner, user, &job.address_key)? {
                return Ok(());
            }
            if !may {
                return mailed::keep_last(tx, &inner, user);
            }
            mail_reset(tx, &inner, user, "password_reset")?;
            inner.audit(tx, &Stream::of(user), "password_reset_sent", ClientAddress::NOWHERE, json!({}))
        })
        .await?;
    Ok(())
}

/// Opens a reset for a person and mails it to their address, as `password_reset` or as another mail that leads
/// there.
///
/// # Errors
/// As every statement.
pub fn mail_reset(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, kind: &str) -> db::Result<()> {
    mailed::lock_person(tx, user)?;
    let (to,): (String,) = tx.one(&store::ADDRESS, params![user])?;
    let proofs = Proofs::new(RESET.prefix, &app.chance);
    let code = code_digest(app.code_key.current(), RESET.purpose, user.as_bytes(), &proofs.code);
    let (now, lifetime) = (app.clock.now(), app.settings.reset_lifetime);
    tx.execute(&store::OPEN, params![user, proofs.token.digest(), code, now + lifetime])?;
    let values = json!({
        "link": format!("{}/reset-password?token={}", app.settings.public_url, proofs.token.reveal()),
        "code": proofs.code.reveal(),
        "expires_in": in_words(lifetime),
        "service_name": app.settings.service_name,
    });
    app.postman.send_first(tx, &Mail { kind: kind.into(), to, values }, now, lifetime)
}

/// Mails a way to a new password because an operator says so; not again within a minute.
///
/// # Errors
/// As every statement.
pub fn mail_reset_once(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<()> {
    mailed::lock_person(tx, user)?;
    let just_now = app.clock.now() + app.settings.reset_lifetime - Duration::from_secs(60);
    if tx.opt::<(Timestamp,)>(&store::OPENED, params![user, just_now])?.is_some() {
        return Ok(());
    }
    mail_reset(tx, app, user, "password_reset")
}

/// What somebody shows to set a password anew.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    /// The mail's link.
    Link(Secret),
    /// The mail's code, and whose it is.
    Code(EmailAddress, Secret),
}

/// An open reset that was shown, with what the new password must not be about.
struct Open {
    user: Id<UserRow>,
    digest: Digest,
    about: About,
    suspended: bool,
}

/// Sets a password anew: every session ends, and everything else that was mailed dies.
///
/// # Errors
/// [`Refusal`]; a password that may not be set costs neither link nor code.
pub(super) async fn reset(
    app: &App,
    shown: Shown,
    password: &Secret,
    from: ClientAddress,
) -> Result<(), Refusal> {
    passwords::cap("password", password).map_err(Unfit::Field)?;
    let inner = app.clone();
    let open = app.db.write(move |tx| open(tx, &inner, &shown, from)).await?;
    let Some(Open { user, digest, about, suspended }) = open else { return Err(Refusal::Invalid) };
    let inner = app.clone();
    if suspended {
        // Told only now that the mailbox is proven. The secret is used up by it.
        let told = app.db.write(move |tx| {
            mailed::consume(tx, &RESET, user, digest, inner.clock.now())?;
            inner.audit_own(tx, user, "password_reset_refused", from, json!({ "reason": "suspended" }))
        });
        told.await?;
        return Err(Refusal::Suspended);
    }
    let chosen = passwords::choose(app, "password", password, &about).await?;
    let hash = app.hashes.hash(&chosen.password).await?;
    let done = app.db.write(move |tx| {
        let now = inner.clock.now();
        mailed::lock_person(tx, user)?;
        if !mailed::consume(tx, &RESET, user, digest, now)? {
            return Ok(Err(Refusal::Invalid));
        }
        if tx.opt::<(i64,)>(&store::SUSPENDED, params![user])?.is_some() {
            return Ok(Err(Refusal::Suspended));
        }
        if registration::first_proof(tx, &inner, user, from)? {
            registration::forget_profile(tx, user)?;
        }
        passwords::set(tx, user, &hash, now)?;
        lockout::forget(tx, &inner, user)?;
        passwords::note_breach_check(tx, user, chosen.asked, now)?;
        mailed::kill_all(tx, user)?;
        sessions::end_all(tx, &inner, user, EndReason::PasswordChanged, from)?;
        passwords::tell_changed(tx, &inner, user)?;
        access::end_keys(tx, &inner, user, (Timestamp::from_micros(0), from))?;
        inner.audit_own(tx, user, "password_reset", from, json!({}))?;
        Ok(Ok(()))
    });
    done.await?
}

fn open(tx: &mut Tx<'_>, app: &App, shown: &Shown, from: ClientAddress) -> db::Result<Option<Open>> {
    let (shown, stream) = match shown {
        Shown::Link(token) => (mailed::Shown::Link(token.clone()), None),
        Shown::Code(email, code) => {
            let who: Option<(Id<UserRow>,)> = tx.opt(&store::WHO, params![email.key()])?;
            let user = who.map(|(user,)| user);
            let stream = user.map_or_else(|| Stream::shard(email.key()), Stream::of);
            (mailed::Shown::Code(user, code.clone()), Some(stream))
        }
    };
    let Some((user, digest)) = mailed::find(tx, app, &RESET, &shown)? else {
        // A wrong link is nobody's; a wrong code is a guess at somebody.
        if let Some(stream) = stream {
            app.audit(tx, &stream, "password_reset_failed", from, json!({}))?;
        }
        return Ok(None);
    };
    let suspended = tx.opt::<(i64,)>(&store::SUSPENDED, params![user])?.is_some();
    Ok(Some(Open { user, digest, about: passwords::about_person(tx, app, user)?, suspended }))
}

/// The address whose password a link would set, and the fewest characters it needs; consumes nothing.
///
/// # Errors
/// [`Refusal::Fault`].
pub(super) async fn open_for(app: &App, token: &Secret) -> Result<Option<(String, usize)>, Refusal> {
    let (inner, token) = (app.clone(), token.clone());
    let open = app.db.read(move |tx| {
        let user = mailed::open_person(tx, &RESET, &token, inner.clock.now())?;
        let Some(user) = user else { return Ok(None) };
        let (address,): (String,) = tx.one(&store::ADDRESS, params![user])?;
        Ok(Some((address, passwords::about_person(tx, &inner, user)?.min_length())))
    });
    Ok(open.await?)
}

/// The address that a "that was not me" would give the account back to, and whether a factor goes that was added then;
/// consumes nothing.
///
/// # Errors
/// [`Refusal::Fault`].
pub(crate) async fn not_me_for(app: &App, token: &Secret) -> Result<Option<(String, Added)>, Refusal> {
    if !mailed::is_token(NOT_ME, token) {
        return Ok(None);
    }
    let (digest, now) = (token.digest(), app.clock.now());
    let open = app.db.read(move |tx| {
        let Some(row) = tx.opt::<NotMe>(&store::NOT_ME, params![digest, now])? else { return Ok(None) };
        let added = Added {
            factor: mfa::added_since(tx, row.user_id, row.created_at)?,
            identity: federation::linked_since(tx, row.user_id, row.created_at)?,
        };
        Ok(Some((row.address, added)))
    });
    Ok(open.await?)
}

/// What goes that was added since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added {
    /// A second factor.
    pub(crate) factor: bool,
    /// An identity at a provider.
    pub(crate) identity: bool,
}

/// What became of a "that was not me".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disavowed {
    /// The link does not work.
    Invalid,
    /// The account has its address again, and nobody is in.
    Restored,
    /// Nobody is in; the address belongs to another account by now, so an operator has to look.
    Suspended,
}

/// The owner of a mailbox says that something was not their doing.
///
/// # Errors
/// [`Refusal::Fault`].
pub(crate) async fn not_me(app: &App, token: &Secret, from: ClientAddress) -> Result<Disavowed, Refusal> {
    if !mailed::is_token(NOT_ME, token) {
        return Ok(Disavowed::Invalid);
    }
    let (inner, digest) = (app.clone(), token.digest());
    let done = app.db.write(move |tx| {
        let now = inner.clock.now();
        let Some(row) = tx.opt::<NotMe>(&store::NOT_ME, params![digest, now])? else {
            return Ok(Disavowed::Invalid);
        };
        let user = row.user_id;
        mailed::lock_person(tx, user)?;
        if tx.opt::<(Id<UserRow>,)>(&store::CONSUME_NOT_ME, params![digest, now])?.is_none() {
            return Ok(Disavowed::Invalid);
        }
        tx.execute(&store::DROP_LATER_NOT_ME, params![user, row.created_at])?;
        mfa::disavow(tx, &inner, user, (row.created_at, from))?;
        federation::disavow(tx, &inner, user, (row.created_at, from))?;
        access::end_keys(tx, &inner, user, (row.created_at, from))?;
        let back = email_change::give_back(tx, user, &row.address, &row.address_key)?;
        // Nor was it their wish that the account be deleted.
        accounts::keep_in(tx, &inner, user, (row.created_at, from))?;
        mailed::kill_all(tx, user)?;
        sessions::end_all(tx, &inner, user, EndReason::RevokedByUser, from)?;
        passwords::demand_change(tx, user, None, "not_me", now)?;
        if back {
            webhooks::tell(tx, &inner, user, "user.updated", &json!({ "fields": ["email"] }))?;
            mail_reset(tx, &inner, user, "password_reset")?;
        } else {
            // Somebody else has proven the address by now, so the account stays at the one that was disavowed: nobody
            // gets in by that mailbox until an operator has looked.
            tx.execute(&store::SUSPEND, params![user, "disavowed by its former address", now])?;
            accounts::stays_out(tx, user)?;
            webhooks::tell(tx, &inner, user, "user.suspended", &json!({}))?;
        }
        inner.audit_own(tx, user, "disavowed", from, json!({ "address_restored": back }))?;
        Ok(if back { Disavowed::Restored } else { Disavowed::Suspended })
    });
    Ok(done.await?)
}

/// The owner of a mailbox says that a sign-in was not theirs: its session ends. When the password was its proof,
/// somebody knows it, so it stops working and a way to a new one is mailed.
///
/// # Errors
/// [`Refusal::Fault`].
pub(super) async fn disown(app: &App, token: &Secret, from: ClientAddress) -> Result<Disowned, Refusal> {
    let (inner, token) = (app.clone(), token.clone());
    let done = app.db.write(move |tx| {
        let Some(disowned) = sessions::disown(tx, &inner, &token, from)? else {
            return Ok(Disowned::Invalid);
        };
        // Nor is what was added since, nor what waits for its second step. What was added may have opened other doors.
        let factor = mfa::disavow(tx, &inner, disowned.user, (disowned.since, from))?;
        // A provider's word let them in: whoever has that identity, it is not (only) the owner of this mailbox.
        let since = if disowned.by_identity { Timestamp::from_micros(0) } else { disowned.since };
        let identity = federation::disavow(tx, &inner, disowned.user, (since, from))?;
        let keys = access::end_keys(tx, &inner, disowned.user, (disowned.since, from))?;
        if factor || identity || keys {
            sessions::end_all(tx, &inner, disowned.user, EndReason::RevokedByUser, from)?;
        }
        if !disowned.by_password {
            return Ok(Disowned::Ended);
        }
        passwords::demand_change(tx, disowned.user, None, "not_me", inner.clock.now())?;
        mail_reset(tx, &inner, disowned.user, "password_reset")?;
        Ok(Disowned::EndedAndLocked)
    });
    Ok(done.await?)
}

/// What became of a sign-in that was said not to be one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disowned {
    /// The link does not work.
    Invalid,
    /// The session is over.
    Ended,
    /// The same, and the password lets nobody in any more.
    EndedAndLocked,
}

/// Adds this slice's jobs to a worker's handlers.
#[must_use]
pub fn handle(app: &App, handlers: Handlers) -> Handlers {
    let app = app.clone();
    handlers.on(move |job: ForgotPassword| send(app.clone(), job))
}
