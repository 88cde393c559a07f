//! Registering: the request looks at the password and leaves a job; the job finds out whether the address was taken,
//! where nobody can measure it.

use std::net::IpAddr;
use std::time::Duration;

use data_encoding::BASE64;
use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::{Claim, ClientAddress, IdempotencyKey};
use foundation::jobs::{Job, JobError, When};
use foundation::kernel::{Id, Problem, Timestamp};
use foundation::mail::Mail;
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::flow::{code, first_proof, locked_holder, mail_proofs};
use super::model::{PREFIX, Refusal, VerificationRow};
use super::policy::{NotAdmitted, Way, admits};
use super::store::{self, Holder};
use crate::access::{self, By};
use crate::accounts::{self, DisplayName, EmailAddress, Locale, Metadata, UserRow, name_key};
use crate::app::App;
use crate::lockout;
use crate::mailed::{self, Asked, Proofs};
use crate::mfa;
use crate::passwords::{self, Password};
use crate::sessions::{self, EndReason};
use crate::webhooks;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A registration, its fields accepted.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) email: EmailAddress,
    pub(super) password: Password,
    pub(super) display_name: DisplayName,
    pub(super) locale: Locale,
    pub(super) metadata: Metadata,
}

/// Registers. The answer is the same whether or not the address has an account; the mail tells.
///
/// # Errors
/// [`Refusal`]: nobody registers by themselves, overload, or the database.
pub(super) async fn register(
    app: &App,
    form: Form,
    key: &IdempotencyKey,
    from: ClientAddress,
) -> Result<Id<VerificationRow>, Refusal> {
    if let Some(first) = key.replay(&app.db, app.clock.now()).await? {
        return first.body.parse().map_err(|_| Refusal::Problem(Problem::internal()));
    }
    // Before anything is hashed, and whoever has the address.
    admits(&app.settings.people, &form.email, Way::ByThemselves)
        .map_err(|why| Refusal::Problem(why.into()))?;
    let about = passwords::about_newcomer(app, form.email.as_str(), &form.display_name.0);
    let chosen = passwords::examine(app, "password", form.password.clone(), &about).await?;
    let password_hash = app.hashes.hash(&chosen.password).await?;
    let id = Id::<VerificationRow>::new(&app.clock, &app.chance);
    let wanted = Wanted {
        email: form.email.as_str().to_owned(),
        password_hash,
        asked: chosen.asked,
        display_name: form.display_name.0,
        locale: form.locale.0,
        metadata: form.metadata.0,
        id,
        from: from.0,
        identity: None,
    };
    let job = Register { sealed: seal(app, &wanted)? };
    let (inner, claimed) = (app.clone(), key.clone());
    let done = app.db.write(move |tx| {
        if claimed.claim(tx, inner.clock.now(), 202, &id.to_string())? == Claim::Done {
            return Ok(false);
        }
        let when = When::now(inner.clock.now(), inner.settings.verification_lifetime);
        inner.queue.enqueue(tx, &job, &when).map(|_| true)
    });
    if done.await? {
        return Ok(id);
    }
    let first = key.replay(&app.db, app.clock.now()).await?;
    first.and_then(|first| first.body.parse().ok()).ok_or_else(|| Refusal::Problem(Problem::internal()))
}

/// Somebody who has signed in at a provider that said too little.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// The address to prove.
    pub email: EmailAddress,
    /// What they are called.
    pub display_name: DisplayName,
    /// Their language.
    pub locale: Locale,
    /// The provider, and what it calls them: linked when the address is proven.
    pub identity: (String, String),
}

/// Registers with an identity in the place of a password, as registering does with one: whoever has the address.
///
/// # Errors
/// As every statement.
pub fn begin_by_identity(
    tx: &mut Tx<'_>,
    app: &App,
    id: Id<VerificationRow>,
    newcomer: Newcomer,
    from: ClientAddress,
) -> db::Result<()> {
    let wanted = Wanted {
        email: newcomer.email.as_str().to_owned(),
        password_hash: String::new(),
        asked: true,
        display_name: newcomer.display_name.0,
        locale: newcomer.locale.0,
        metadata: "{}".to_owned(),
        id,
        from: from.0,
        identity: Some(newcomer.identity),
    };
    let sealed = seal(app, &wanted).map_err(|_| db::Error::Bug("a registration cannot be sealed".into()))?;
    let when = When::now(app.clock.now(), app.settings.verification_lifetime);
    app.queue.enqueue(tx, &Register { sealed }, &when).map(|_| ())
}

/// Whose an address is, that somebody has proven in another way than by a mail.
#[derive(Debug, Clone, Copy)]
pub enum Claimed {
    /// Theirs, now: nobody had it, or nobody had proven it. What was planted at it is dead.
    Theirs(Id<UserRow>),
    /// Somebody's who had proven it before; that one is locked, and nothing was changed.
    Proven(Id<UserRow>),
}

/// Makes an address the account of whoever has proven it, unless it is one already, and if they may come in this way:
/// whoever is here may, whatever the policy is by now.
///
/// # Errors
/// As every statement.
pub fn claim(
    tx: &mut Tx<'_>,
    app: &App,
    profile: (&EmailAddress, &DisplayName, &Locale),
    how: Way,
    from: ClientAddress,
) -> db::Result<Result<Claimed, NotAdmitted>> {
    let (email, ..) = profile;
    if let Err(why) = admits(&app.settings.people, email, how) {
        // Nobody new: only somebody who has proven the address before.
        let holder = locked_holder(tx, email.key())?.map(|holder| holder.user_id);
        let proven = match holder {
            Some(user) => tx.opt::<(i64,)>(&store::IS_VERIFIED, params![user])?.is_some(),
            None => false,
        };
        return Ok(holder.filter(|_| proven).map(Claimed::Proven).ok_or(why));
    }
    take(tx, app, profile, from).map(Ok)
}

/// The same, whatever the policy is.
fn take(
    tx: &mut Tx<'_>,
    app: &App,
    (email, display_name, locale): (&EmailAddress, &DisplayName, &Locale),
    from: ClientAddress,
) -> db::Result<Claimed> {
    let profile = Profile {
        email: email.clone(),
        display_name: display_name.clone(),
        locale: locale.clone(),
        metadata: Metadata("{}".to_owned()),
    };
    let before = locked_holder(tx, email.key())?;
    let (holder, verified) = holder(tx, app, &profile, before)?;
    if verified {
        return Ok(Claimed::Proven(holder.user_id));
    }
    first_proof(tx, app, holder.user_id, from)?;
    Ok(Claimed::Theirs(holder.user_id))
}

/// Somebody for whom whoever runs the server vouches.
#[derive(Debug, Clone)]
pub struct Founder {
    /// Their address.
    pub email: EmailAddress,
    /// What they are called.
    pub display_name: DisplayName,
    /// The hash of their password.
    pub password_hash: String,
}

/// Makes an address the account of somebody, with this password, whatever was there: what was proven before stays, every
/// session ends, and nothing that was mailed before opens it.
///
/// # Errors
/// As every statement.
pub fn found(tx: &mut Tx<'_>, app: &App, founder: &Founder, from: ClientAddress) -> db::Result<Id<UserRow>> {
    let none = Locale(String::new());
    // The policy was asked when their form was looked at.
    let user = match take(tx, app, (&founder.email, &founder.display_name, &none), from)? {
        Claimed::Theirs(user) => user,
        Claimed::Proven(user) => {
            // Whoever else may have a way into it does not become the owner.
            for way in [&store::DROP_FOREIGN, &store::DROP_IDENTITIES] {
                tx.execute(way, params![user])?;
            }
            mfa::forget_planted(tx, user)?;
            access::end_keys(tx, app, user, (Timestamp::from_micros(0), from))?;
            // It is kept, and they are let in, whether or not it was to be deleted or they were shut out.
            let _ = accounts::restore_in(tx, app, &By::console(), user)?;
            let _ = accounts::unsuspend_in(tx, app, &By::console(), user)?;
            mailed::kill_all(tx, user)?;
            sessions::end_all(tx, app, user, EndReason::PasswordChanged, from)?;
            user
        }
    };
    passwords::set(tx, user, &founder.password_hash, app.clock.now())?;
    Ok(user)
}

/// Somebody whom an operator makes.
#[derive(Debug, Clone)]
pub struct NewPerson {
    /// Who they will be.
    pub id: Id<UserRow>,
    /// Their address.
    pub email: EmailAddress,
    /// What they are called.
    pub display_name: DisplayName,
    /// Their language.
    pub locale: Locale,
    /// What the application keeps.
    pub metadata: Metadata,
    /// Whether the operator says that the address is theirs; otherwise a mail asks them.
    pub proven: bool,
}

/// Why somebody is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmade {
    /// Somebody has the address, proven or not.
    Taken,
    /// They would have to be mailed, and the mailbox has had as many mails as it may for now.
    TooManyMails,
}

/// Whether somebody can be made; counts the mail that they get.
///
/// # Errors
/// As every statement.
pub fn may_make(tx: &mut Tx<'_>, app: &App, person: &NewPerson) -> db::Result<Result<(), Unmade>> {
    let key = person.email.key();
    if tx.opt::<Holder>(&store::HOLDER, params![key])?.is_some() {
        return Ok(Err(Unmade::Taken));
    }
    // The mailbox is locked before the person, here as everywhere.
    if !person.proven && !mailed::may_ask(tx, app, key, Asked::Verification)? {
        return Ok(Err(Unmade::TooManyMails));
    }
    Ok(Ok(()))
}

/// Makes somebody in the name of an operator: ask [`may_make`] before, in the same transaction.
///
/// # Errors
/// As every statement; and nothing is stored when somebody takes the address at this moment.
pub fn make(tx: &mut Tx<'_>, app: &App, by: &By, person: &NewPerson) -> db::Result<()> {
    let (user, now) = (person.id, app.clock.now());
    let profile = Profile {
        email: person.email.clone(),
        display_name: person.display_name.clone(),
        locale: person.locale.clone(),
        metadata: person.metadata.clone(),
    };
    if !add(tx, app, user, &profile)? {
        return Err(db::Error::Unavailable("an address was taken at the same moment".into()));
    }
    tx.execute(&store::BROUGHT, params![user, "operator", now])?;
    app.audit_by(tx, &Stream::of(user), "user_made", by, json!({ "verified": person.proven }))?;
    if !person.proven {
        // Nobody is told the id: the link alone, whose page asks the owner for a password.
        let (id, proofs) = (Id::new(&app.clock, &app.chance), Proofs::new(PREFIX, &app.chance));
        let (link, code) = (proofs.token.digest(), code(app, id, &proofs.code));
        let expires_at = now + app.settings.verification_lifetime;
        tx.execute(&store::OPEN, params![user, id, link, code, "", expires_at])?;
        return mail_proofs(tx, app, person.email.as_str(), &proofs);
    }
    tx.one::<(i64,)>(&store::VERIFIED, params![user, now])?;
    lockout::forget(tx, app, user)?;
    webhooks::tell(tx, app, user, "user.created", &json!({}))
}

/// Stores a registration and sends its mail. The request writes the same for every address: whether it was taken is found
/// out by the job, where nobody can measure it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Register {
    sealed: String,
}

/// What is registered. It is sealed while it waits: a list of jobs is no place for hashes.
#[derive(Serialize, Deserialize)]
struct Wanted {
    email: String,
    password_hash: String,
    asked: bool,
    display_name: String,
    locale: String,
    metadata: String,
    id: Id<VerificationRow>,
    from: IpAddr,
    /// What is linked when the address is proven, in the place of the password.
    #[serde(default)]
    identity: Option<(String, String)>,
}

impl Job for Register {
    const KIND: &'static str = "registration.register";
}

const SEALED: &str = "registration";

fn seal(app: &App, wanted: &Wanted) -> Result<String, Refusal> {
    let plain = serde_json::to_vec(wanted).map_err(|_| Refusal::Problem(Problem::internal()))?;
    let sealed = app.sealer.seal(SEALED, &plain).map_err(|_| Refusal::Problem(Problem::internal()))?;
    Ok(BASE64.encode(&sealed))
}

pub(super) async fn store(app: App, job: Register) -> Result<(), JobError> {
    let dead = |why: &dyn std::fmt::Display| JobError::Dead(format!("it cannot be read any more: {why}"));
    let sealed = BASE64.decode(job.sealed.as_bytes()).map_err(|e| dead(&e))?;
    let plain = app.sealer.open(SEALED, &sealed).map_err(|e| dead(&e))?;
    let job: Wanted = serde_json::from_slice(&plain).map_err(|e| dead(&e))?;
    let email = EmailAddress::parse("email", &job.email).map_err(|e| dead(&e.message))?;
    let form = Profile {
        email,
        display_name: DisplayName(job.display_name),
        locale: Locale(job.locale),
        metadata: Metadata(job.metadata),
    };
    let (inner, from) = (app.clone(), ClientAddress(job.from));
    let proofs = Proofs::new(PREFIX, &app.chance);
    app.db
        .write(move |tx| {
            let registration = Registration {
                app: &inner,
                form: &form,
                password_hash: &job.password_hash,
                asked: job.asked,
                id: job.id,
                proofs: &proofs,
                identity: job.identity.as_ref(),
            };
            registration.store(tx, from)
        })
        .await?;
    Ok(())
}

/// What is stored of a registration beside its password.
#[derive(Debug)]
struct Profile {
    email: EmailAddress,
    display_name: DisplayName,
    locale: Locale,
    metadata: Metadata,
}

struct Registration<'r> {
    app: &'r App,
    form: &'r Profile,
    password_hash: &'r str,
    asked: bool,
    id: Id<VerificationRow>,
    proofs: &'r Proofs,
    identity: Option<&'r (String, String)>,
}

impl Registration<'_> {
    fn store(&self, tx: &mut Tx<'_>, from: ClientAddress) -> db::Result<()> {
        if tx.opt::<(Id<UserRow>,)>(&store::BY_ID, params![self.id])?.is_some() {
            // Stored by a run of this job that did not live to say so.
            return Ok(());
        }
        // The mailbox is locked before the person, here as everywhere.
        let proven = match tx.opt::<Holder>(&store::HOLDER, params![self.form.email.key()])? {
            Some(holder) => tx.opt::<(i64,)>(&store::IS_VERIFIED, params![holder.user_id])?.is_some(),
            None => false,
        };
        let what = if proven { Asked::Notice } else { Asked::Verification };
        if !mailed::may_ask(tx, self.app, self.form.email.key(), what)? {
            return Ok(());
        }
        let before = locked_holder(tx, self.form.email.key())?;
        let (holder, verified) = holder(tx, self.app, self.form, before)?;
        let stream = Stream::of(holder.user_id);
        let service_name = &self.app.settings.service_name;
        let now = self.app.clock.now();
        if verified {
            let mail = Mail {
                kind: "already_registered".into(),
                // The address that was proven, not what somebody typed now.
                to: holder.address,
                values: json!({ "service_name": service_name }),
            };
            self.app.postman.send(tx, &mail, now, DAY)?;
            return self.app.audit(tx, &stream, "registration_repeated", from, json!({}));
        }
        let expires_at = now + self.app.settings.verification_lifetime;
        let (link, code) = (self.proofs.token.digest(), code(self.app, self.id, &self.proofs.code));
        tx.execute(
            &store::OPEN,
            params![holder.user_id, self.id, link, code, self.password_hash, expires_at],
        )?;
        // The newest wins, as with the password.
        tx.execute(&store::DROP_PENDING, params![holder.user_id])?;
        if let Some((provider, subject)) = self.identity {
            tx.execute(&store::PENDING, params![holder.user_id, self.id, provider, subject])?;
        }
        passwords::note_breach_check(tx, holder.user_id, self.asked, now)?;
        mail_proofs(tx, self.app, self.form.email.as_str(), self.proofs)?;
        self.app.audit(tx, &stream, "registration", from, json!({ "verification": self.id }))
    }
}

/// The person whose address it is, made now when there is nobody, and whether the address was proven; an unproven one
/// takes over the newest profile.
fn holder(tx: &mut Tx<'_>, app: &App, form: &Profile, before: Option<Holder>) -> db::Result<(Holder, bool)> {
    let key = form.email.key();
    if let Some(holder) = before {
        let verified = tx.opt::<(i64,)>(&store::IS_VERIFIED, params![holder.user_id])?.is_some();
        if !verified {
            let (name, locale, metadata) = (&form.display_name.0, &form.locale.0, &form.metadata.0);
            tx.execute(
                &store::REPLACE_PROFILE,
                params![holder.user_id, name, locale, metadata, name_key(name)],
            )?;
            tx.execute(&store::REPLACE_ADDRESS, params![holder.user_id, form.email.as_str()])?;
        }
        return Ok((holder, verified));
    }
    let user_id = Id::<UserRow>::new(&app.clock, &app.chance);
    if add(tx, app, user_id, form)? {
        return Ok((Holder { user_id, address: form.email.as_str().to_owned() }, false));
    }
    let before = locked_holder(tx, key)?;
    holder(tx, app, form, before)
}

/// Somebody new, with what everybody is given; false when somebody registered the same address between our look and our
/// insert.
fn add(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, form: &Profile) -> db::Result<bool> {
    let (key, now) = (form.email.key(), app.clock.now());
    let (name, locale, metadata) = (&form.display_name.0, &form.locale.0, &form.metadata.0);
    tx.execute(&store::INSERT_USER, params![user, name, locale, metadata, now, name_key(name)])?;
    let ours: Option<(Id<UserRow>,)> =
        tx.opt(&store::INSERT_EMAIL, params![user, form.email.as_str(), key])?;
    if ours.is_none() {
        tx.execute(&store::DELETE_USER, params![user])?;
        return Ok(false);
    }
    lockout::adopt(tx, app, user, key)?;
    access::give_defaults(tx, user, now)?;
    Ok(true)
}
