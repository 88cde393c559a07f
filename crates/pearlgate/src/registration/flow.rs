//! What a person can do on the way to an account, once they have registered.

use std::time::Duration;

use foundation::audit::Stream;
use foundation::db::{self, Param, Statement, Tx};
use foundation::http::{Claim, ClientAddress, IdempotencyKey};
use foundation::jobs::{Handlers, Job, JobError, When};
use foundation::kernel::{Digest, Id, Secret, Timestamp};
use foundation::mail::Mail;
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::model::{PREFIX, PURPOSE, Refusal, VerificationRow};
use super::policy::{Way, admits};
use super::register::{self, Register};
use super::store::{self, Consumed, Guess, Holder, Open};
use crate::accounts::{EmailAddress, UserRow};
use crate::app::App;
use crate::lockout;
use crate::mailed::{self, Asked, MAX_GUESSES, Proofs, code_digest, in_words};
use crate::mfa::{self, Entered};
use crate::passwords::{self, Chosen, Unfit};
use crate::sessions::http::Transport;
use crate::sessions::{self, Barred, Beginning, EndReason, Proof, Visit};

/// How long an unproven registration stays after its mail became useless: so long a new mail can be asked for.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// A mail that somebody waits for in front of a form.
const WAITED_FOR: Duration = Duration::from_secs(3600);

pub(super) fn mail_proofs(tx: &mut Tx<'_>, app: &App, to: &str, proofs: &Proofs) -> db::Result<()> {
    let lifetime = app.settings.verification_lifetime;
    let values = json!({
        "link": format!("{}/verify-email?token={}", app.settings.public_url, proofs.token.reveal()),
        "code": proofs.code.reveal(),
        "expires_in": in_words(lifetime),
        "service_name": app.settings.service_name,
    });
    app.postman.send(
        tx,
        &Mail { kind: "verify_email".into(), to: to.to_owned(), values },
        app.clock.now(),
        lifetime,
    )
}

pub(super) fn code(app: &App, id: Id<VerificationRow>, code: &Secret) -> Digest {
    code_digest(app.code_key.current(), PURPOSE, id.as_bytes(), code)
}

/// What somebody shows to prove a mailbox.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    /// The registration's id and the mail's link: the waiting password is activated.
    IdAndLink(Id<VerificationRow>, Secret),
    /// The registration's id and the mail's code: likewise.
    IdAndCode(Id<VerificationRow>, Secret),
    /// The mail's link alone, with a password of the mailbox's owner, as it came.
    LinkAndPassword(Secret, Secret),
}

/// What became of it, stored either way.
enum Outcome {
    Invalid,
    Barred(Barred),
    Proven,
    SignedIn(Box<Entered>),
}

/// Proves a mailbox and signs in.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn verify(
    app: &App,
    shown: Shown,
    visit: Visit,
    transport: Transport,
) -> Result<Entered, Refusal> {
    match prove(app, shown, visit.from, Some((visit, transport))).await? {
        Outcome::SignedIn(entered) => Ok(*entered),
        Outcome::Barred(Barred::Suspended) => Err(Refusal::Suspended),
        Outcome::Barred(Barred::Outdated) | Outcome::Proven | Outcome::Invalid => {
            Err(Refusal::VerificationInvalid)
        }
    }
}

/// Proves a mailbox by its link and sets the owner's password, without signing in: the page behind the link.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn claim_mailbox(
    app: &App,
    token: Secret,
    password: Secret,
    from: ClientAddress,
) -> Result<(), Refusal> {
    match prove(app, Shown::LinkAndPassword(token, password), from, None).await? {
        Outcome::Invalid => Err(Refusal::VerificationInvalid),
        Outcome::Proven | Outcome::SignedIn(_) | Outcome::Barred(_) => Ok(()),
    }
}

/// Proves the mailbox, and lets a visitor in when there is one.
async fn prove(
    app: &App,
    shown: Shown,
    from: ClientAddress,
    visit: Option<(Visit, Transport)>,
) -> Result<Outcome, Refusal> {
    let own = match &shown {
        Shown::LinkAndPassword(token, password) => {
            passwords::cap("password", password).map_err(Unfit::Field)?;
            // The hash is the expensive part: nobody gets it for a link that is not open.
            let Some(address) = open_for(app, token).await? else { return Ok(Outcome::Invalid) };
            Some(own_password(app, &address, password).await?)
        }
        _ => None,
    };
    let inner = app.clone();
    let outcome = app.db.write(move |tx| {
        let now = inner.clock.now();
        let own_hash = own.as_ref().map_or("", |(hash, _)| hash);
        let identity = waiting_identity(tx, &shown)?;
        let Some(proven) = consume(tx, &inner, &shown, own_hash, from)? else {
            return Ok(Outcome::Invalid);
        };
        if let Some((_, asked)) = &own {
            passwords::note_breach_check(tx, proven.user_id, *asked, now)?;
        }
        activate(tx, &inner, &proven, identity, from)?;
        let Some((visit, transport)) = visit.clone() else { return Ok(Outcome::Proven) };
        // Without a password it was the mailbox that was proven now; the identity, a while ago.
        let by_password = !proven.password_hash.is_empty();
        let with = Beginning {
            user: proven.user_id,
            password_hash: by_password.then_some(proven.password_hash),
            proof: if by_password { Proof::PASSWORD } else { Proof::MAILBOX },
            visit,
        };
        Ok(mfa::enter(tx, &inner, &with, transport)?
            .map_or_else(Outcome::Barred, |entered| Outcome::SignedIn(Box::new(entered))))
    });
    Ok(outcome.await?)
}

/// The hash of a mailbox owner's own password, and whether the breach service was asked about it.
async fn own_password(app: &App, address: &str, text: &Secret) -> Result<(String, bool), Refusal> {
    // The name that was registered may be anybody's.
    let about = passwords::about_newcomer(app, address, "");
    let Chosen { password, asked } = passwords::choose(app, "password", text, &about).await?;
    Ok((app.hashes.hash(&password).await?, asked))
}

/// The address that a link would prove, if it leads anywhere; consumes nothing.
///
/// # Errors
/// [`Refusal::Fault`].
pub(super) async fn open_for(app: &App, token: &Secret) -> Result<Option<String>, Refusal> {
    if !mailed::is_token(PREFIX, token) {
        return Ok(None);
    }
    let (digest, now) = (token.digest(), app.clock.now());
    let open = app.db.read_one(move |tx| tx.opt::<(String,)>(&store::IS_OPEN, params![digest, now])).await?;
    Ok(open.map(|(address,)| address))
}

/// Takes the verification away, if what was shown is right: the row decides, and it decides once.
fn consume(
    tx: &mut Tx<'_>,
    app: &App,
    shown: &Shown,
    own_hash: &str,
    from: ClientAddress,
) -> db::Result<Option<Consumed>> {
    let now = app.clock.now();
    match shown {
        Shown::IdAndLink(id, token) => {
            lock(tx, &store::BY_ID, params![id])?;
            tx.opt(&store::CONSUME_LINK, params![id, token.digest(), now])
        }
        Shown::LinkAndPassword(token, _) => {
            lock(tx, &store::BY_LINK, params![token.digest()])?;
            let operators: Option<(Id<UserRow>,)> = tx.opt(&store::IS_MADE, params![token.digest()])?;
            let user: Option<(Id<UserRow>,)> =
                tx.opt(&store::CONSUME_LINK_ALONE, params![token.digest(), now])?;
            if let Some((user_id,)) = user
                && operators.is_none()
            {
                // Whoever registered may have been somebody else: nothing of theirs stays.
                forget_profile(tx, user_id)?;
            }
            Ok(user.map(|(user_id,)| Consumed { user_id, password_hash: own_hash.to_owned() }))
        }
        Shown::IdAndCode(id, code) => consume_code(tx, app, *id, code, from),
    }
}

/// Whose address it is, locked, as it is then: it may have changed hands while the lock was waited for.
pub(super) fn locked_holder(tx: &mut Tx<'_>, key: &str) -> db::Result<Option<Holder>> {
    for _ in 0..3 {
        let Some(before) = tx.opt::<Holder>(&store::HOLDER, params![key])? else { return Ok(None) };
        mailed::lock_person(tx, before.user_id)?;
        let now: Option<Holder> = tx.opt(&store::HOLDER, params![key])?;
        if now.as_ref().is_some_and(|now| now.user_id == before.user_id) {
            return Ok(now);
        }
    }
    Err(db::Error::Unavailable("an address changed hands again and again".into()))
}

/// Locks the person before anything of theirs: the same order everywhere.
fn lock(tx: &mut Tx<'_>, verification: &'static Statement, of: &[Param<'_>]) -> db::Result<()> {
    // Nobody's id costs as much as somebody's.
    let user = tx.opt::<(Id<UserRow>,)>(verification, of)?.map_or(mailed::NOBODY, |(user,)| user);
    mailed::lock_person(tx, user).map(|_| ())
}

fn consume_code(
    tx: &mut Tx<'_>,
    app: &App,
    id: Id<VerificationRow>,
    shown: &Secret,
    from: ClientAddress,
) -> db::Result<Option<Consumed>> {
    let now = app.clock.now();
    lock(tx, &store::BY_ID, params![id])?;
    let guess = tx.opt::<Guess>(&store::SPEND_GUESS, params![id, MAX_GUESSES, now])?;
    let spender = guess.as_ref().map_or(mailed::NOBODY, |guess| guess.user_id);
    let allowed = mailed::spend_account_guess(tx, spender, now)?;
    let Some(guess) = guess else {
        let stream = Stream::shard(&id.to_string());
        app.audit(tx, &stream, "verification_failed", from, json!({ "verification": id }))?;
        return Ok(None);
    };
    let right = mailed::is_code(app, PURPOSE, id.as_bytes(), shown, &guess.code_digest);
    if !allowed || !right {
        app.audit(
            tx,
            &Stream::of(guess.user_id),
            "verification_failed",
            from,
            json!({ "verification": id }),
        )?;
        return Ok(None);
    }
    tx.opt(&store::CONSUME_CODE, params![id, guess.code_digest])
}

/// The identity that waits for a verification, for whoever has its id: looked at before the verification goes, and it with
/// it.
fn waiting_identity(tx: &mut Tx<'_>, shown: &Shown) -> db::Result<Option<(String, String)>> {
    match shown {
        Shown::IdAndLink(id, _) | Shown::IdAndCode(id, _) => {
            lock(tx, &store::BY_ID, params![id])?;
            tx.opt(&store::PENDING_OF, params![id])
        }
        // The mailbox's owner, who has a password of their own.
        Shown::LinkAndPassword(..) => Ok(None),
    }
}

/// The first proof of ownership: the password becomes the account's, or the identity is linked to it; everything else that
/// was planted dies.
fn activate(
    tx: &mut Tx<'_>,
    app: &App,
    proven: &Consumed,
    identity: Option<(String, String)>,
    from: ClientAddress,
) -> db::Result<()> {
    first_proof(tx, app, proven.user_id, from)?;
    if !proven.password_hash.is_empty() {
        return passwords::set(tx, proven.user_id, &proven.password_hash, app.clock.now());
    }
    let Some((provider, subject)) = identity else { return Ok(()) };
    let now = app.clock.now();
    let values = params![provider, subject, proven.user_id, now];
    if tx.opt::<(Timestamp,)>(&store::LINK_PENDING, values)?.is_some() {
        app.audit_own(tx, proven.user_id, "identity_linked", from, json!({ "provider": provider }))?;
    }
    Ok(())
}

/// Notes that a mailbox was proven, by whatever was mailed to it. When it is the first proof, everything dies that
/// somebody may have planted at the address before its owner came: password, factors, identities, sessions, mails.
/// True when it was the first.
///
/// # Errors
/// As every statement.
pub fn first_proof(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, from: ClientAddress) -> db::Result<bool> {
    let first: Option<(i64,)> = tx.opt(&store::VERIFIED, params![user, app.clock.now()])?;
    mailed::forget_failures(tx, user)?;
    if first.is_none() {
        return Ok(false);
    }
    // Whoever locked the address before it was anybody's locks nobody out.
    lockout::forget(tx, app, user)?;
    mailed::kill_all(tx, user)?;
    for planted in [&store::DROP_PASSWORD, &store::DROP_FOREIGN, &store::DROP_IDENTITIES] {
        tx.execute(planted, params![user])?;
    }
    mfa::forget_planted(tx, user)?;
    sessions::end_all(tx, app, user, EndReason::PasswordChanged, from)?;
    app.audit_own(tx, user, "email_verified", from, json!({}))?;
    Ok(true)
}

/// Forgets the profile that came with a registration: its owner is whoever proved the mailbox, and they may be
/// somebody else.
///
/// # Errors
/// As every statement.
pub fn forget_profile(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<()> {
    tx.execute(&store::REPLACE_PROFILE, params![user, "", "", "{}", ""]).map(|_| ())
}

/// Whether somebody may still begin whose account is there and not proven: who registered before the door was closed, or before
/// their domain was left out, is mailed nothing that would let them in.
///
/// # Errors
/// As every statement.
pub fn may_begin(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, address_key: &str) -> db::Result<bool> {
    let people = &app.settings.people;
    if (people.open && people.domains.is_empty()) || tx.one::<(bool,)>(&store::IS_HERE, params![user])?.0 {
        return Ok(true);
    }
    let email = EmailAddress::parse("email", address_key);
    Ok(email.is_ok_and(|email| admits(people, &email, Way::ByThemselves).is_ok()))
}

/// Sends the verification mail of an address again. The request writes the same for every address: whether there is
/// anything to send is found out by the job, where nobody can measure it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResendVerification {
    address_key: String,
}

impl Job for ResendVerification {
    const KIND: &'static str = "registration.resend_verification";
}

/// Asks for another mail.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn resend(app: &App, email: EmailAddress, key: &IdempotencyKey) -> Result<(), Refusal> {
    let now = app.clock.now();
    if key.replay(&app.db, now).await?.is_some() {
        return Ok(());
    }
    let (inner, claimed) = (app.clone(), key.clone());
    app.db
        .write(move |tx| {
            if claimed.claim(tx, now, 202, "")? == Claim::Ours {
                let job = ResendVerification { address_key: email.key().to_owned() };
                // One at a time for an address: asking a hundred times is asking once.
                let once = When::now(now, WAITED_FOR).unique(format!("resend:{}", job.address_key));
                inner.queue.enqueue(tx, &job, &once)?;
            }
            Ok(())
        })
        .await?;
    Ok(())
}

async fn send_again(app: App, job: ResendVerification) -> Result<(), JobError> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            if tx.opt::<Open>(&store::OPEN_OF, params![job.address_key])?.is_none()
                || !mailed::may_ask(tx, &inner, &job.address_key, Asked::Verification)?
            {
                return Ok(());
            }
            locked_holder(tx, &job.address_key)?;
            let Some(open) = tx.opt::<Open>(&store::OPEN_OF, params![job.address_key])? else {
                return Ok(());
            };
            if !may_begin(tx, &inner, open.user_id, &job.address_key)? {
                return Ok(());
            }
            let proofs = Proofs::new(PREFIX, &inner.chance);
            let (link, code) = (proofs.token.digest(), code(&inner, open.verification_id, &proofs.code));
            let expires_at = inner.clock.now() + inner.settings.verification_lifetime;
            tx.execute(&store::RENEW, params![open.verification_id, link, code, expires_at])?;
            mail_proofs(tx, &inner, &open.address, &proofs)?;
            let details = json!({ "verification": open.verification_id });
            inner.audit(tx, &Stream::of(open.user_id), "verification_resent", ClientAddress::NOWHERE, details)
        })
        .await?;
    Ok(())
}

/// Adds this slice's jobs to a worker's handlers.
#[must_use]
pub fn handle(app: &App, handlers: Handlers) -> Handlers {
    let app = app.clone();
    let other = app.clone();
    handlers
        .on(move |job: ResendVerification| send_again(app.clone(), job))
        .on(move |job: Register| register::store(other.clone(), job))
}

/// Forgets people who never proved their address. True when there is more to do.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, app: &App) -> db::Result<bool> {
    let useless = app.clock.now() - KEPT;
    let due: Vec<(Id<UserRow>,)> = tx.all(&store::NEVER_PROVEN, params![useless])?;
    for (user,) in &due {
        lockout::disown(tx, app, *user)?;
        tx.execute(&store::FORGET, params![user, useless])?;
    }
    Ok(due.len() >= 500)
}
