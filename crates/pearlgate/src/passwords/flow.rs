//! Choosing, setting and changing a password.

use std::time::Duration;

use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{FieldError, Id, Problem, Secret, Timestamp};
use foundation::mail::Mail;
use foundation::params;
use serde_json::json;

use super::breach::Finding;
use super::hash::{Checked, Overloaded, Verdict};
use super::model::{About, Attempt, Password, cap};
use super::store::{self, Owner, User};
use crate::app::App;
use crate::errors;
use crate::lockout;
use crate::mailed;
use crate::sessions::{self, Current, EndReason};

/// A notice of something that really happened is worth sending for this long (`outages.md`).
const NOTICE: Duration = Duration::from_secs(72 * 3600);
/// How long the "that was not me" of a notice works (`api.md`, lifetimes).
const NOT_ME: Duration = Duration::from_secs(24 * 3600);

/// A password that may be set, and whether the breach service was asked about it.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The password.
    pub password: Password,
    /// False: ask at the next sign-in.
    pub asked: bool,
}

/// Why a password may not be set.
#[derive(Debug)]
pub enum Unfit {
    /// The policy says no.
    Field(FieldError),
    /// Too many passwords are waiting.
    Overloaded(Overloaded),
}

impl From<Overloaded> for Unfit {
    fn from(overloaded: Overloaded) -> Self {
        Self::Overloaded(overloaded)
    }
}

impl From<Unfit> for Problem {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Field(error) => Self::invalid(vec![error]),
            Unfit::Overloaded(overloaded) => overloaded.into(),
        }
    }
}

/// The whole policy, for a password as it came.
///
/// # Errors
/// [`Unfit`].
pub async fn choose(app: &App, field: &str, text: &Secret, about: &About) -> Result<Chosen, Unfit> {
    let password = Password::accept(field, text, about).map_err(Unfit::Field)?;
    examine(app, field, password, about).await
}

/// The part of the policy that takes a while: patterns, and whether the password was in a breach.
///
/// # Errors
/// [`Unfit`].
pub async fn examine(app: &App, field: &str, password: Password, about: &About) -> Result<Chosen, Unfit> {
    let (looked_at, told) = (password.clone(), about.clone());
    let (guessable, _) = app.hashes.run(move |_| looked_at.is_guessable(&told)).await?;
    if guessable {
        let message = "this follows a pattern that is tried early; choose a few words that have nothing to do with each other";
        return Err(Unfit::Field(FieldError::new(field, "password_guessable", message)));
    }
    match app.breaches.find(password.reveal()).await {
        Finding::Breached => {
            let message = "this password became known in a breach of some service; do not use it anywhere";
            Err(Unfit::Field(FieldError::new(field, "password_breached", message)))
        }
        Finding::Unknown => Ok(Chosen { password, asked: true }),
        Finding::NotAsked => Ok(Chosen { password, asked: false }),
    }
}

/// Whom a new password of a registration is for.
pub fn about_newcomer(app: &App, email: &str, display_name: &str) -> About {
    About::new(&app.settings.service_name, email, display_name, app.settings.min_password_length)
}

/// Whom a new password of somebody known is for. An account that must show a second factor may have a shorter one
/// (NIST SP 800-63B-4 §3.1.1.2).
///
/// # Errors
/// As every statement.
pub fn about_person(tx: &mut Tx<'_>, app: &App, user: User) -> db::Result<About> {
    let Owner { address, display_name, second_factor, .. } = tx.one(&store::PERSON, params![user])?;
    let s = &app.settings;
    let min_length = if second_factor { s.min_password_length_with_mfa } else { s.min_password_length };
    Ok(About::new(&s.service_name, &address, &display_name, min_length))
}

/// Makes this hash the person's password; whatever was said about the one before goes.
///
/// # Errors
/// As every statement.
pub fn set(tx: &mut Tx<'_>, user: User, hash: &str, now: Timestamp) -> db::Result<()> {
    tx.execute(&store::SET, params![user, hash, now])?;
    forget_the_old(tx, user)
}

fn forget_the_old(tx: &mut Tx<'_>, user: User) -> db::Result<()> {
    tx.execute(&store::CLEAR_DEMAND, params![user])?;
    tx.execute(&store::CLEAR_FOREIGN, params![user])?;
    Ok(())
}

/// Notes whether the breach service still has to be asked about the person's (waiting or set) password.
///
/// # Errors
/// As every statement.
pub fn note_breach_check(tx: &mut Tx<'_>, user: User, asked: bool, now: Timestamp) -> db::Result<()> {
    if asked {
        tx.execute(&store::CLEAR_PENDING, params![user])?;
    } else {
        tx.execute(&store::PENDING, params![user, now])?;
    }
    Ok(())
}

/// Nobody is let in with the password any more that has this hash (or, without one, with the present one); why:
/// `breached` or `not_me`. False when another password was set meanwhile.
///
/// # Errors
/// As every statement.
pub fn demand_change(
    tx: &mut Tx<'_>,
    user: User,
    hash: Option<&str>,
    reason: &str,
    now: Timestamp,
) -> db::Result<bool> {
    mailed::lock_person(tx, user)?;
    let demanded: Option<(i64,)> =
        tx.opt(&store::DEMAND, params![user, reason, now, hash.unwrap_or_default()])?;
    if demanded.is_some() {
        tx.execute(&store::CLEAR_PENDING, params![user])?;
    }
    Ok(demanded.is_some())
}

/// Puts a better hash of the same password in the place of `old`; false when it was changed meanwhile.
///
/// # Errors
/// As every statement.
pub fn renew(tx: &mut Tx<'_>, user: User, old: &str, new: &str) -> db::Result<bool> {
    let renewed: Option<(i64,)> = tx.opt(&store::RENEW, params![user, old, new])?;
    tx.execute(&store::CLEAR_FOREIGN, params![user])?;
    Ok(renewed.is_some())
}

/// Tells the owner of the account's address that the password was changed, with a way to say that it was somebody else.
///
/// # Errors
/// As every statement.
pub fn tell_changed(tx: &mut Tx<'_>, app: &App, user: User) -> db::Result<()> {
    let now = app.clock.now();
    let Owner { address, address_key, .. } = tx.one(&store::PERSON, params![user])?;
    let values = json!({
        "service_name": app.settings.service_name, "at": now.to_string(),
        "link": mailed::not_me_link(tx, app, user, (&address, &address_key), ("/not-me", NOT_ME), now)?,
        "link_expires_in": mailed::in_words(NOT_ME),
    });
    app.postman.send_first(tx, &Mail { kind: "password_changed".into(), to: address, values }, now, NOTICE)
}

/// Whether somebody who is signed in gave their own password: one of the attempts that the session and the account have,
/// spent before it is looked at and given back when it was right.
///
/// # Errors
/// 423 and 429 when there is none left, 503.
pub async fn verify_own(
    app: &App,
    current: &Current,
    attempt: &Attempt,
    stored: Option<&str>,
) -> Result<Checked, Problem> {
    let (user, session, fault) = (current.row.user_id, current.row.session_id, |e: db::Error| e.to_problem());
    let inner = app.clone();
    let reserved = app.db.write(move |tx| lockout::reserve_signed_in(tx, &inner, user, session)).await;
    let reserved = reserved.map_err(fault)??;
    let checked = app.hashes.verify(attempt, stored).await;
    if !matches!(checked, Ok(Checked { verdict: Verdict::Wrong, .. })) {
        let (inner, looked) = (app.clone(), checked.is_ok());
        let settle = move |tx: &mut Tx<'_>| match looked {
            true => lockout::right(tx, &inner, &reserved),
            false => lockout::unused(tx, &inner, &reserved),
        };
        app.db.write(settle).await.map_err(fault)?;
    }
    Ok(checked?)
}

/// Changes one's own password.
///
/// # Errors
/// 401 for a wrong current password or a session that ended meanwhile; 403 for one that is not fresh; 422 for a new
/// password that the policy refuses; 503.
pub(super) async fn change(
    app: &App,
    current: &Current,
    old: Attempt,
    new: &Secret,
    from: ClientAddress,
) -> Result<(), Problem> {
    current.must_be_fresh(app)?;
    cap("new_password", new).map_err(Unfit::Field)?;
    let (user, session) = (current.row.user_id, current.row.session_id);
    let (inner, fault) = (app.clone(), |e: db::Error| e.to_problem());
    let stored: Option<(String,)> =
        app.db.read_one(move |tx| tx.opt(&store::OF_SESSION, params![session])).await.map_err(fault)?;
    let stored = stored.map(|(hash,)| hash);
    let checked = verify_own(app, current, &old, stored.as_deref()).await?;
    let Some(stored) = stored.filter(|_| checked.verdict == Verdict::Right) else {
        app.hashes.level(&checked).await;
        let noted = app.db.write(move |tx| {
            inner.audit_own(
                tx,
                (user, Some(session)),
                "password_change_refused",
                from,
                json!({ "reason": "invalid_credentials" }),
            )
        });
        noted.await.map_err(fault)?;
        return Err(wrong_password());
    };
    let about = app.db.read_one(move |tx| about_person(tx, &inner, user)).await.map_err(fault)?;
    let chosen = choose(app, "new_password", new, &about).await?;
    if chosen.password.reveal() == old.reveal() {
        let message = "this is the password that you have; choose another one, or keep it";
        return Err(Problem::invalid(vec![FieldError::new("new_password", "password_reused", message)]));
    }
    let hash = app.hashes.hash(&chosen.password).await?;
    let inner = app.clone();
    let replaced = app.db.write(move |tx| {
        let now = inner.clock.now();
        mailed::lock_person(tx, user)?;
        // A session that was ended while the hash was made changes nothing any more.
        let alive: Option<(Id<crate::accounts::UserRow>,)> =
            tx.opt(&store::STILL_THERE, params![session, now])?;
        if alive.is_none() {
            return Ok(Changed::SessionEnded);
        }
        if tx.opt::<(i64,)>(&store::REPLACE, params![user, stored, hash, now])?.is_none() {
            return Ok(Changed::ByAnother);
        }
        forget_the_old(tx, user)?;
        note_breach_check(tx, user, chosen.asked, now)?;
        mailed::kill_all(tx, user)?;
        sessions::end_others(tx, &inner, user, session, EndReason::PasswordChanged, from)?;
        tell_changed(tx, &inner, user)?;
        inner.audit_own(tx, (user, Some(session)), "password_changed", from, json!({}))?;
        Ok(Changed::Done)
    });
    match replaced.await.map_err(fault)? {
        Changed::Done => Ok(()),
        Changed::ByAnother => Err(wrong_password()),
        Changed::SessionEnded => Err(errors::session_ended(&sessions::end_reason(app, session, from).await?)),
    }
}

/// What became of a change.
enum Changed {
    Done,
    /// Another change was faster: what was shown is not the password any more.
    ByAnother,
    SessionEnded,
}

fn wrong_password() -> Problem {
    errors::problem("invalid_credentials").detail("The current password is not this one.")
}

/// Measures how long other systems' hashes take here, as long as anybody has one: [`super::HashPool::level`].
///
/// # Errors
/// As every read.
pub async fn learn_foreign(app: &App) -> db::Result<()> {
    let samples = app.db.scan(|tx| {
        let schemes: Vec<(String,)> = tx.all(&store::SCHEMES, &[])?;
        let sample = |(scheme,): &(String,)| tx.opt::<(String,)>(&store::SAMPLE, params![scheme]);
        schemes.iter().map(sample).collect::<db::Result<Vec<_>>>()
    });
    let samples = samples.await?;
    let nobody = Attempt::accept("password", &Secret::new("measured".into()));
    let mut took = Vec::new();
    if let Ok(nobody) = &nobody
        && !samples.is_empty()
    {
        // What ours take is part of the comparison.
        let _ = app.hashes.verify(nobody, None).await;
    }
    for (stored,) in samples.into_iter().flatten() {
        if let Ok(nobody) = &nobody
            && let Ok(checked) = app.hashes.verify(nobody, Some(&stored)).await
        {
            took.push(checked.took());
        }
    }
    app.hashes.relearn(&took);
    Ok(())
}
