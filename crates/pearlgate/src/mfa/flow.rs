//! The second step.

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Id, Problem, Secret, Timestamp};
use foundation::limits::Taken;
use foundation::mail::Mail;
use foundation::params;
use serde_json::json;

use super::check::{self, EMAIL_CODE, Factor, Shown};
use super::gate::{self, ENROLMENT, Entered, FACTOR};
use super::model::{PREFIX, Refusal};
use super::own::{self, Begun};
use super::store::{self, Half};
use crate::accounts::UserRow;
use crate::app::App;
use crate::errors;
use crate::limits::{self, REAUTHENTICATION};
use crate::mailed::{self, Asked, NOBODY, Proofs, code_digest, in_words};
use crate::passkeys;
use crate::sessions::http::Transport;
use crate::sessions::{self, Beginning, Current, Proof, Started, Visit};

/// How the second step is to end.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// None: as the first step was made.
    pub(super) transport: Option<Transport>,
    /// Whether this device need not show the factor for a while.
    pub(super) trust: bool,
    /// Whether the device is named by this step, and not as at the first one.
    pub(super) named: bool,
    pub(super) visit: Visit,
}

/// The open sign-in that a token names, with its person locked: whoever finishes it is alone with it.
fn find(tx: &mut Tx<'_>, app: &App, token: &Secret) -> db::Result<Result<Half, Refusal>> {
    if token.decode::<32>(PREFIX).is_none() {
        return Ok(Err(Refusal::TokenInvalid));
    }
    let (digest, now) = (token.digest(), app.clock.now());
    let whose: Option<(Id<UserRow>,)> = tx.opt(&store::WHOSE_HALF, params![digest, now])?;
    let Some((user,)) = whose else { return Ok(Err(Refusal::TokenExpired)) };
    mailed::lock_person(tx, user)?;
    let half: Option<Half> = tx.opt(&store::HALF, params![digest, now])?;
    Ok(half.filter(|half| half.client_id == app.settings.client_id).ok_or(Refusal::TokenExpired))
}

/// The first step once more, with what was shown beside it.
fn again(tx: &mut Tx<'_>, app: &App, half: &Half, shown: Proof, wish: &Wish) -> db::Result<Beginning> {
    let first = first_of(half);
    let mut visit = wish.visit.clone();
    if !wish.named && !half.device_name.is_empty() {
        visit.device_name.clone_from(&half.device_name);
    }
    // The device that the first step came from; disowned meanwhile it is a stranger's.
    if half.device.as_bytes() != NOBODY.as_bytes() {
        let token = sessions::device_token(app, half.user, half.device);
        if sessions::known_device(tx, app, half.user, Some(&token))?.is_some() {
            visit.device_token = Some(token);
        }
    }
    let password_hash = Some(half.password_hash.clone()).filter(|hash| !hash.is_empty());
    Ok(Beginning { user: half.user, password_hash, proof: first.and(shown), visit })
}

/// What the first step was.
fn first_of(half: &Half) -> Proof {
    match half.password_hash.is_empty() {
        false => Proof::PASSWORD,
        true if half.amr == Proof::FEDERATED.amr => Proof::FEDERATED,
        true => Proof::MAILBOX,
    }
}

fn transport_of(half: &Half, wish: &Wish) -> Result<Transport, Refusal> {
    let first =
        if half.transport == gate::spelled(Transport::Cookie) { Transport::Cookie } else { Transport::Token };
    match wish.transport {
        Some(other) if other != first => Err(Refusal::OtherTransport),
        _ => Ok(first),
    }
}

/// Finishes a sign-in with a second factor.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn complete(
    app: &App,
    token: &Secret,
    shown: Shown,
    wish: Wish,
) -> Result<(Entered, Transport), Refusal> {
    let trusted = app.settings.mfa.trusted_device;
    if wish.trust && trusted.is_none() {
        return Err(Refusal::NoTrust);
    }
    let (inner, token) = (app.clone(), token.clone());
    let done = app.db.write(move |tx| {
        let half = match find(tx, &inner, &token)? {
            Ok(half) => half,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let transport = match transport_of(&half, &wish) {
            Ok(transport) => transport,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (user, from) = (half.user, wish.visit.from);
        if half.purpose != FACTOR {
            return Ok(Err(Refusal::CodeInvalid));
        }
        let proof = match check::check(tx, &inner, user, &shown, from)? {
            Ok(proof) => proof,
            Err(refusal) => return Ok(Err(refusal)),
        };
        tx.execute(&store::END_HALF, params![token.digest()])?;
        let mut with = again(tx, &inner, &half, proof, &wish)?;
        if wish.trust {
            // Whoever has a token of the device from before is not trusted with it.
            with.visit.device_token = None;
        }
        let entered = match gate::enter(tx, &inner, &with, transport)? {
            Ok(entered) => entered,
            Err(barred) => {
                inner.audit_own(tx, user, "sign_in_refused", from, json!({ "by": half.amr }))?;
                return Ok(Err(barred.into()));
            }
        };
        let details = json!({ "by": half.amr, "factor": shown.name() });
        inner.audit_own(tx, entered.own(user), entered.event(), from, details)?;
        if let (Entered::In(started), Some(lifetime), true) = (&entered, trusted, wish.trust) {
            sessions::trust(tx, started, inner.clock.now() + lifetime)?;
            inner.audit_own(tx, entered.own(user), "device_trusted", from, json!({}))?;
        }
        Ok(Ok((entered, transport)))
    });
    done.await?
}

/// Mails the code of a second step.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn mail_code(app: &App, token: &Secret, from: ClientAddress) -> Result<(), Refusal> {
    if token.decode::<32>(PREFIX).is_none() {
        return Err(Refusal::TokenInvalid);
    }
    let (inner, token) = (app.clone(), token.clone());
    let done = app.db.write(move |tx| {
        let now = inner.clock.now();
        let whose: Option<(Id<UserRow>,)> = tx.opt(&store::WHOSE_HALF, params![token.digest(), now])?;
        let Some((user,)) = whose else { return Ok(Err(Refusal::TokenExpired)) };
        let to: Option<(String, String)> = tx.opt(&store::ADDRESS, params![user])?;
        let Some((to, address_key)) = to else { return Ok(Err(Refusal::CodeInvalid)) };
        // Nobody's share of mails is spent on what they do not have.
        if !check::shows(tx, user)?.contains(&Factor::EmailCode.as_str()) {
            return Ok(Err(Refusal::CodeInvalid));
        }
        // The mailbox before the person, as everywhere.
        let may = mailed::may_ask(tx, &inner, &address_key, Asked::SecondStep)?;
        let half = match find(tx, &inner, &token)? {
            Ok(half) => half,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if half.purpose != FACTOR || !check::shows(tx, user)?.contains(&Factor::EmailCode.as_str()) {
            return Ok(Err(Refusal::CodeInvalid));
        }
        if !may {
            return Ok(Err(Refusal::TooManyMails));
        }
        let code = Proofs::new(PREFIX, &inner.chance).code;
        let digest = code_digest(inner.code_key.current(), EMAIL_CODE, user.as_bytes(), &code);
        let lifetime = inner.settings.mfa.email_code_lifetime;
        tx.execute(&store::OPEN_EMAIL_CODE, params![user, digest, now + lifetime])?;
        let values = json!({
            "service_name": inner.settings.service_name, "code": code.reveal(), "expires_in": in_words(lifetime),
        });
        inner.postman.send_first(tx, &Mail { kind: "mfa_code".into(), to, values }, now, lifetime)?;
        inner.audit(tx, &Stream::of(user), "email_code_sent", from, json!({}))?;
        Ok(Ok(()))
    });
    done.await?
}

/// What a passkey is asked for in a sign-in between its two steps.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn ask_key(app: &App, token: &Secret) -> Result<serde_json::Value, Refusal> {
    if token.decode::<32>(PREFIX).is_none() {
        return Err(Refusal::TokenInvalid);
    }
    let (inner, digest, now) = (app.clone(), token.digest(), app.clock.now());
    let found = app.db.read(move |tx| {
        let half: Option<Half> = tx.opt(&store::HALF, params![digest, now])?;
        let half = half.filter(|half| half.client_id == inner.settings.client_id);
        let Some(half) = half else { return Ok(Err(Refusal::TokenExpired)) };
        let has = half.purpose == FACTOR && check::has(tx, half.user)?.passkeys > 0;
        Ok(if has { Ok(half.user) } else { Err(Refusal::CodeInvalid) })
    });
    let user = found.await??;
    Ok(passkeys::of_half(app, user, token).await?)
}

/// Begins to set up an authenticator app in a sign-in that is held up by it.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn enrol(app: &App, token: &Secret) -> Result<Begun, Refusal> {
    let (inner, token) = (app.clone(), token.clone());
    let begun = app.db.write(move |tx| {
        let half = match find(tx, &inner, &token)? {
            Ok(half) if half.purpose == ENROLMENT && !check::has(tx, half.user)?.factor() => half,
            Ok(_) => return Ok(Err(Refusal::NotAllowed)),
            Err(refusal) => return Ok(Err(refusal)),
        };
        own::begin_totp(tx, &inner, half.user).map(Ok)
    });
    begun.await?
}

/// Sets it up, and lets in.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn confirm_enrolment(
    app: &App,
    token: &Secret,
    code: Secret,
    wish: Wish,
) -> Result<(Box<Started>, Transport, Vec<Secret>), Refusal> {
    let (inner, token) = (app.clone(), token.clone());
    let done = app.db.write(move |tx| {
        let half = match find(tx, &inner, &token)? {
            Ok(half) if half.purpose == ENROLMENT && !check::has(tx, half.user)?.factor() => half,
            Ok(_) => return Ok(Err(Refusal::NotAllowed)),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let transport = match transport_of(&half, &wish) {
            Ok(transport) => transport,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Nobody sets something up who does not get in by it.
        let hash = Some(half.password_hash.as_str()).filter(|hash| !hash.is_empty());
        if let Err(barred) = sessions::bars(tx, half.user, first_of(&half), hash)? {
            return Ok(Err(barred.into()));
        }
        let from = wish.visit.from;
        let codes = match own::confirm_totp(tx, &inner, half.user.into(), &code, from)? {
            Ok(codes) => codes,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let with = again(tx, &inner, &half, Proof::FACTOR, &wish)?;
        match gate::enter(tx, &inner, &with, transport)? {
            Ok(Entered::In(started)) => {
                let details = json!({ "by": half.amr, "factor": Factor::Totp.as_str() });
                let own = (half.user, Some(started.session()));
                inner.audit_own(tx, own, "sign_in", from, details)?;
                Ok(Ok((started, transport, codes)))
            }
            // Not after a factor was shown, and with the person locked.
            Ok(Entered::Half(_)) => Ok(Err(Refusal::TokenExpired)),
            Err(barred) => Ok(Err(barred.into())),
        }
    });
    done.await?
}

/// Proves once more who somebody is, with a factor; the session stays the same and is fresh.
///
/// # Errors
/// A problem: a wrong code, too many of them, or a session that ended meanwhile.
pub async fn reauthenticate(
    app: &App,
    current: &Current,
    shown: Shown,
    device_name: String,
    from: ClientAddress,
) -> Result<Started, Problem> {
    let (inner, by, user) = (app.clone(), current.clone(), current.row.user_id);
    let session = current.row.session_id;
    let done = app.db.write(move |tx| {
        // One of the attempts that a session has; a right one gives it back.
        let taken = inner.limits.take_in(tx, REAUTHENTICATION.name, session.as_bytes())?;
        if let Some(taken) = taken.filter(Taken::refused) {
            return Ok(Err(Refusal::Problem(limits::too_many(&taken))));
        }
        mailed::lock_person(tx, user)?;
        Ok(match check::check(tx, &inner, user, &shown, from)? {
            Ok(proof) => {
                inner.limits.give_back_in(tx, REAUTHENTICATION.name, session.as_bytes())?;
                Ok(sessions::renew_in(tx, &inner, &by, proof, &device_name, from)?)
            }
            Err(refusal) => Err(refusal),
        })
    });
    match done.await.map_err(|e| e.to_problem())?? {
        Some(started) => Ok(started),
        None => Err(errors::session_ended(&sessions::end_reason(app, current.row.session_id, from).await?)),
    }
}

/// What a sign-in between its steps may show, for a page; consumes nothing.
///
/// # Errors
/// [`Refusal::Fault`].
pub(super) async fn open_for(
    app: &App,
    token: &Secret,
) -> Result<Option<(Vec<&'static str>, bool)>, Refusal> {
    if token.decode::<32>(PREFIX).is_none() {
        return Ok(None);
    }
    let (digest, now): (_, Timestamp) = (token.digest(), app.clock.now());
    let open = app.db.read(move |tx| -> db::Result<Option<(Vec<&'static str>, bool)>> {
        let Some(half) = tx.opt::<Half>(&store::HALF, params![digest, now])? else { return Ok(None) };
        let enrolment = half.purpose == ENROLMENT;
        let factors = if enrolment { Vec::new() } else { check::shows(tx, half.user)? };
        Ok(Some((factors, enrolment)))
    });
    Ok(open.await?)
}
