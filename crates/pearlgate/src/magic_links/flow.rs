//! What a person does who signs in by mail.

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::{Claim, ClientAddress, IdempotencyKey};
use foundation::jobs::{Handlers, Job, JobError, When};
use foundation::kernel::{Id, Problem, Secret};
use foundation::mail::Mail;
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::model::{MagicLinkRow, Refusal};
use super::store;
use crate::accounts::{EmailAddress, UserRow};
use crate::app::App;
use crate::mailed::{self, Asked, MAGIC_LINK, Proofs, code_digest, in_words};
use crate::mfa::{self, Entered};
use crate::registration;
use crate::sessions::http::Transport;
use crate::sessions::{Beginning, Proof, Visit};

/// Sends the link of an address, if somebody has it: [`crate::recovery::ForgotPassword`] says why a job does it.
#[derive(Debug, Serialize, Deserialize)]
pub struct SendMagicLink {
    address_key: String,
    id: Id<MagicLinkRow>,
}

impl Job for SendMagicLink {
    const KIND: &'static str = "magic_links.send";
}

/// Asks for a link; the id is the half of the code's proof that is not in the mail.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn ask(
    app: &App,
    email: EmailAddress,
    key: &IdempotencyKey,
    from: ClientAddress,
) -> Result<Id<MagicLinkRow>, Refusal> {
    if !app.settings.magic_links {
        return Err(Refusal::Off);
    }
    let now = app.clock.now();
    let before = |body: &str| body.parse().map_err(|_| Refusal::Problem(Problem::internal()));
    if let Some(first) = key.replay(&app.db, now).await? {
        return before(&first.body);
    }
    let id = Id::<MagicLinkRow>::new(&app.clock, &app.chance);
    let (inner, claimed) = (app.clone(), key.clone());
    let ours = app.db.write(move |tx| {
        if claimed.claim(tx, now, 202, &id.to_string())? == Claim::Done {
            return Ok(false);
        }
        let job = SendMagicLink { address_key: email.key().to_owned(), id };
        inner.queue.enqueue(tx, &job, &When::now(now, inner.settings.magic_link_lifetime).urgent())?;
        inner.audit(tx, &Stream::shard(email.key()), "magic_link_requested", from, json!({}))?;
        Ok(true)
    });
    if ours.await? {
        return Ok(id);
    }
    let first = key.replay(&app.db, app.clock.now()).await?;
    first.map_or_else(|| Err(Refusal::Problem(Problem::internal())), |first| before(&first.body))
}

async fn send(app: App, job: SendMagicLink) -> Result<(), JobError> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            let who: Option<(Id<UserRow>,)> = tx.opt(&store::WHO, params![job.address_key])?;
            let Some((user,)) = who else { return Ok(()) };
            mail_link(tx, &inner, user, &job.address_key, job.id).map(|_| ())
        })
        .await?;
    Ok(())
}

/// Opens a link for a person and mails it to their address. Gives the id that its code goes with: when no more may be
/// mailed, that of the last one.
///
/// # Errors
/// As every statement.
pub fn mail_link(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    address_key: &str,
    id: Id<MagicLinkRow>,
) -> db::Result<Id<MagicLinkRow>> {
    let may = mailed::may_ask(tx, app, address_key, Asked::MagicLink)?;
    mailed::lock_person(tx, user)?;
    if !registration::may_begin(tx, app, user, address_key)? {
        return Ok(id);
    }
    if !may {
        mailed::keep_last(tx, app, user)?;
        let last: Option<(Id<MagicLinkRow>,)> = tx.opt(&store::ID_OF, params![user])?;
        return Ok(last.map_or(id, |(last,)| last));
    }
    let (to,): (String,) = tx.one(&store::ADDRESS, params![user])?;
    let proofs = Proofs::new(MAGIC_LINK.prefix, &app.chance);
    let code = code_digest(app.code_key.current(), MAGIC_LINK.purpose, user.as_bytes(), &proofs.code);
    let (now, lifetime) = (app.clock.now(), app.settings.magic_link_lifetime);
    tx.execute(&store::OPEN, params![user, id, proofs.token.digest(), code, now + lifetime])?;
    let values = json!({
        "link": format!("{}/magic-link?token={}", app.settings.public_url, proofs.token.reveal()),
        "code": proofs.code.reveal(),
        "expires_in": in_words(lifetime),
        "service_name": app.settings.service_name,
    });
    app.postman.send_first(tx, &Mail { kind: "magic_link".into(), to, values }, now, lifetime)?;
    app.audit(tx, &Stream::of(user), "magic_link_sent", ClientAddress::NOWHERE, json!({}))?;
    Ok(id)
}

/// What somebody shows.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    /// The mail's link.
    Link(Secret),
    /// The mail's code, with the id that was given when it was asked for.
    Code(Id<MagicLinkRow>, Secret),
}

/// Signs in.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn consume(
    app: &App,
    shown: Shown,
    visit: Visit,
    transport: Transport,
) -> Result<Entered, Refusal> {
    if !app.settings.magic_links {
        return Err(Refusal::Off);
    }
    let (inner, from) = (app.clone(), visit.from);
    let begun = app.db.write(move |tx| {
        let now = inner.clock.now();
        let (shown, stream) = match &shown {
            Shown::Link(token) => (mailed::Shown::Link(token.clone()), None),
            Shown::Code(id, code) => {
                let user = tx.opt::<(Id<UserRow>,)>(&store::BY_ID, params![id])?.map(|(user,)| user);
                let stream = user.map_or_else(|| Stream::shard(&id.to_string()), Stream::of);
                (mailed::Shown::Code(user, code.clone()), Some(stream))
            }
        };
        let Some((user, digest)) = mailed::find(tx, &inner, &MAGIC_LINK, &shown)? else {
            if let Some(stream) = stream {
                inner.audit(tx, &stream, "sign_in_failed", from, json!({ "reason": "magic_link" }))?;
            }
            return Ok(Err(Refusal::Invalid));
        };
        if !mailed::consume(tx, &MAGIC_LINK, user, digest, now)? {
            return Ok(Err(Refusal::Invalid));
        }
        if registration::first_proof(tx, &inner, user, from)? {
            registration::forget_profile(tx, user)?;
        }
        let with = Beginning { user, password_hash: None, proof: Proof::MAILBOX, visit: visit.clone() };
        let entered = mfa::enter(tx, &inner, &with, transport)?;
        let kind = entered.as_ref().map_or("sign_in_refused", Entered::event);
        let own = entered.as_ref().map_or(user.into(), |entered| entered.own(user));
        inner.audit_own(tx, own, kind, from, json!({ "by": "magic_link" }))?;
        Ok(entered.map_err(Refusal::Barred))
    });
    begun.await?
}

/// The address that a link would sign in; consumes nothing.
///
/// # Errors
/// [`Refusal::Fault`].
pub(super) async fn open_for(app: &App, token: &Secret) -> Result<Option<String>, Refusal> {
    let (inner, token) = (app.clone(), token.clone());
    let open = app.db.read(move |tx| -> db::Result<Option<String>> {
        let Some(user) = mailed::open_person(tx, &MAGIC_LINK, &token, inner.clock.now())? else {
            return Ok(None);
        };
        Ok(tx.opt::<(String,)>(&store::ADDRESS, params![user])?.map(|(address,)| address))
    });
    Ok(open.await?)
}

/// Adds this slice's jobs to a worker's handlers.
#[must_use]
pub fn handle(app: &App, handlers: Handlers) -> Handlers {
    let app = app.clone();
    handlers.on(move |job: SendMagicLink| send(app.clone(), job))
}
