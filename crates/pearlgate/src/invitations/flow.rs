//! Inviting, taking an invitation back, and accepting one.

use std::collections::BTreeSet;

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::{Claim, ClientAddress, IdempotencyKey};
use foundation::kernel::{Id, Secret, Timestamp};
use foundation::mail::Mail;
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::{InvitationRow, PREFIX};
use super::store::{self, Holder, Stored, Waiting};
use crate::access::{self, By, Denied, Place, Standing, may};
use crate::accounts::{DisplayName, EmailAddress, Locale, UserRow};
use crate::app::App;
use crate::mailed::{self, Asked, in_words};
use crate::mfa::{self, Entered};
use crate::passwords::{self, Chosen, Unfit};
use crate::registration::{self, Claimed, Refusal, Way};
use crate::sessions::http::Transport;
use crate::sessions::{Barred, Beginning, Proof, Visit};

/// Whoever invites needs this, when they invite and when it is accepted.
const PERMISSION: &str = "invitations:write";

/// An invitation, as operators see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Invited {
    pub(super) id: Id<InvitationRow>,
    pub(super) email: String,
    pub(super) roles: BTreeSet<Place>,
    pub(super) invited_by: String,
    pub(super) created_at: String,
    pub(super) expires_at: String,
}

impl Invited {
    fn of(row: Stored, roles: BTreeSet<Place>) -> Self {
        Self {
            id: row.id,
            email: row.address,
            roles,
            invited_by: row.invited_by,
            created_at: row.created_at.to_string(),
            expires_at: row.expires_at.to_string(),
        }
    }
}

fn roles_of(tx: &mut Tx<'_>, id: Id<InvitationRow>) -> db::Result<BTreeSet<Place>> {
    let roles: Vec<Place> = tx.all(&store::ROLES_OF, params![id])?;
    Ok(roles.into_iter().collect())
}

fn told(id: Id<InvitationRow>, roles: &BTreeSet<Place>) -> Value {
    let roles: Vec<Value> =
        roles.iter().map(|(role, resource)| json!({ "role": role, "resource": resource })).collect();
    json!({ "invitation": id, "roles": roles })
}

/// Invitations that can be accepted, newest first, before an id.
///
/// # Errors
/// As every read.
pub(super) async fn list(app: &App, before: Id<InvitationRow>, limit: u16) -> db::Result<Vec<Invited>> {
    let now = app.clock.now();
    app.db
        .read(move |tx| {
            let rows: Vec<Stored> = tx.all(&store::PAGE, params![before, now, i64::from(limit)])?;
            rows.into_iter()
                .map(|row| {
                    let roles = roles_of(tx, row.id)?;
                    Ok(Invited::of(row, roles))
                })
                .collect()
        })
        .await
}

/// Invites somebody, once under a key; none when it was done before.
///
/// # Errors
/// As every statement.
pub(super) async fn invite(
    app: &App,
    by: By,
    email: EmailAddress,
    roles: BTreeSet<Place>,
    key: &IdempotencyKey,
) -> db::Result<Result<Option<Invited>, Denied>> {
    let (inner, key) = (app.clone(), key.clone());
    app.db
        .write(move |tx| {
            let standing = match may(tx, &inner, &by, PERMISSION)? {
                Ok(standing) => standing,
                Err(denied) => return Ok(Err(denied)),
            };
            if let Err(denied) = welcome(tx, &inner, &standing, (&email, &roles))? {
                return Ok(Err(denied));
            }
            let (now, token) = (inner.clock.now(), Secret::encode(PREFIX, &inner.chance.bytes::<32>()));
            let invited = Invited {
                id: Id::new(&inner.clock, &inner.chance),
                email: email.as_str().to_owned(),
                roles: roles.clone(),
                invited_by: by.actor(),
                created_at: now.to_string(),
                expires_at: (now + inner.settings.people.invitation).to_string(),
            };
            let answer = serde_json::to_string(&invited).map_err(|e| db::Error::Bug(e.to_string()))?;
            if key.claim(tx, now, 201, &answer)? == Claim::Done {
                return Ok(Ok(None));
            }
            write(tx, &inner, (&invited, email.key()), &token, now)?;
            inner.audit_by(tx, &Stream::server(), "invitation_made", &by, told(invited.id, &roles))?;
            Ok(Ok(Some(invited)))
        })
        .await
}

/// Whether somebody may be asked to this address with these roles, by whoever stands so.
fn welcome(
    tx: &mut Tx<'_>,
    app: &App,
    standing: &Standing,
    (email, roles): (&EmailAddress, &BTreeSet<Place>),
) -> db::Result<Result<(), Denied>> {
    if let Err(denied) = access::may_give(tx, standing, roles)? {
        return Ok(Err(denied));
    }
    match tx.opt::<Holder>(&store::HOLDER, params![email.key()])? {
        Some(Holder { proven: true, .. }) => {
            let words = "Somebody with this address has an account: give them the role instead.";
            return Ok(Err(Denied::Conflict(words.into())));
        }
        Some(Holder { user, .. }) if !access::stands_above(tx, standing, user)? => {
            return Ok(Err(Denied::Level("Somebody with this address stands as high as you, or higher.")));
        }
        _ => {}
    }
    if tx.opt::<(Id<InvitationRow>,)>(&store::OPEN_TO, params![email.key(), app.clock.now()])?.is_some() {
        let words = "There is an open invitation to this address: take it back first, or wait until its time is over.";
        return Ok(Err(Denied::Conflict(words.into())));
    }
    if !mailed::may_ask(tx, app, email.key(), Asked::Invitation)? {
        let words = "This mailbox has had as many mails as may be asked for. Try again in an hour.";
        return Ok(Err(Denied::Conflict(words.into())));
    }
    Ok(Ok(()))
}

/// Writes an invitation down, in the place of one whose time is over, and mails its link.
fn write(
    tx: &mut Tx<'_>,
    app: &App,
    (invited, address_key): (&Invited, &str),
    token: &Secret,
    now: Timestamp,
) -> db::Result<()> {
    let lifetime = app.settings.people.invitation;
    tx.execute(&store::FORGET_EXPIRED, params![address_key, now])?;
    let (digest, until) = (token.digest(), now + lifetime);
    let row = params![invited.id, invited.email, address_key, digest, invited.invited_by, now, until];
    // Whoever else invites waits for the lock of who may do what.
    tx.one::<(Timestamp,)>(&store::INVITE, row)?;
    for (role, resource) in &invited.roles {
        tx.execute(&store::ADD_ROLE, params![invited.id, role, resource])?;
    }
    let values = json!({
        "link": format!("{}/accept-invitation?token={}", app.settings.public_url, token.reveal()),
        "expires_in": in_words(lifetime),
        "service_name": app.settings.service_name,
    });
    let mail = Mail { kind: "invitation".into(), to: invited.email.clone(), values };
    app.postman.send(tx, &mail, now, lifetime)
}

/// Takes an invitation back. Whoever does it could have given its roles.
///
/// # Errors
/// As every statement.
pub(super) async fn revoke(app: &App, by: By, id: Id<InvitationRow>) -> db::Result<Result<(), Denied>> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            let standing = match may(tx, &inner, &by, PERMISSION)? {
                Ok(standing) => standing,
                Err(denied) => return Ok(Err(denied)),
            };
            if tx.opt::<Stored>(&store::ONE, params![id])?.is_none() {
                return Ok(Err(Denied::NotFound));
            }
            let roles = roles_of(tx, id)?;
            if let Err(denied) = access::may_give(tx, &standing, &roles)? {
                return Ok(Err(denied));
            }
            if tx.opt::<(Timestamp,)>(&store::REVOKE, params![id])?.is_none() {
                return Ok(Err(Denied::NotFound));
            }
            inner.audit_by(tx, &Stream::server(), "invitation_revoked", &by, told(id, &roles))?;
            Ok(Ok(()))
        })
        .await
}

/// Where a link leads, if it leads anywhere; consumes nothing.
///
/// # Errors
/// [`Refusal::Fault`].
pub(super) async fn open_for(app: &App, token: &Secret) -> Result<Option<Waiting>, Refusal> {
    if !mailed::is_token(PREFIX, token) {
        return Ok(None);
    }
    let (digest, now) = (token.digest(), app.clock.now());
    Ok(app.db.read_one(move |tx| tx.opt::<Waiting>(&store::IS_OPEN, params![digest, now])).await?)
}

/// What somebody shows who accepts. Neither an address nor a role: those are the invitation's.
#[derive(Debug, Clone)]
pub(super) struct Acceptance {
    /// From the mail's link.
    pub(super) token: Secret,
    /// For an account that begins; of one that is there it is not looked at.
    pub(super) password: Secret,
    pub(super) display_name: DisplayName,
    pub(super) locale: Locale,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Accepted {
    /// An account began.
    Begun,
    /// It began, and they are in it.
    In(Box<Entered>),
    /// Their account has the roles; they sign in to it as ever.
    Joined,
}

/// What became of it, stored either way.
enum Outcome {
    Invalid,
    Barred(Barred),
    Done(Accepted),
}

/// Accepts an invitation, and lets a visitor in when there is one.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn accept(
    app: &App,
    acceptance: Acceptance,
    from: ClientAddress,
    visit: Option<(Visit, Transport)>,
) -> Result<Accepted, Refusal> {
    passwords::cap("password", &acceptance.password).map_err(Unfit::Field)?;
    // The hash is the expensive part: nobody gets it for a link that is not open.
    let Some(waiting) = open_for(app, &acceptance.token).await? else {
        return Err(Refusal::VerificationInvalid);
    };
    let chosen = if waiting.proven { None } else { Some(hashed(app, &waiting, &acceptance).await?) };
    let inner = app.clone();
    let outcome = app.db.write(move |tx| {
        let arrival = Arrival {
            app: &inner,
            shown: &acceptance,
            chosen: chosen.as_ref().map(|(hash, asked)| (hash.as_str(), *asked)),
            from,
            visit: visit.as_ref(),
        };
        arrival.accept(tx)
    });
    match outcome.await? {
        Outcome::Done(accepted) => Ok(accepted),
        Outcome::Barred(Barred::Suspended) => Err(Refusal::Suspended),
        Outcome::Barred(Barred::Outdated) | Outcome::Invalid => Err(Refusal::VerificationInvalid),
    }
}

/// The hash of a password that may be set, and whether the breach service was asked about it.
async fn hashed(app: &App, waiting: &Waiting, shown: &Acceptance) -> Result<(String, bool), Refusal> {
    let about = passwords::about_newcomer(app, &waiting.address, &shown.display_name.0);
    let Chosen { password, asked } = passwords::choose(app, "password", &shown.password, &about).await?;
    Ok((app.hashes.hash(&password).await?, asked))
}

/// Somebody who shows an invitation.
struct Arrival<'a> {
    app: &'a App,
    shown: &'a Acceptance,
    /// The hash of their password; none when their address had an account a moment ago.
    chosen: Option<(&'a str, bool)>,
    from: ClientAddress,
    visit: Option<&'a (Visit, Transport)>,
}

impl Arrival<'_> {
    fn accept(&self, tx: &mut Tx<'_>) -> db::Result<Outcome> {
        let (digest, now) = (self.shown.token.digest(), self.app.clock.now());
        // Who may do what first, as everywhere, so that what the inviter may stays so until this is stored.
        access::lock(tx)?;
        let Some(row) = tx.opt::<Stored>(&store::BY_LINK, params![digest, now])? else {
            return Ok(Outcome::Invalid);
        };
        let roles = roles_of(tx, row.id)?;
        if tx.opt::<(Timestamp,)>(&store::TAKE, params![row.id, now])?.is_none() {
            return Ok(Outcome::Invalid);
        }
        let Ok(email) = EmailAddress::parse("email", &row.address) else { return self.void(tx, &row) };
        let standing = access::standing_now(tx, &row.invited_by, now)?;
        if !standing.may(PERMISSION) || access::may_give(tx, &standing, &roles)?.is_err() {
            return self.void(tx, &row);
        }
        if let Some(holder) = tx.opt::<Holder>(&store::HOLDER, params![email.key()])?
            && !access::stands_above(tx, &standing, holder.user)?
        {
            return self.void(tx, &row);
        }
        let profile = (&email, &self.shown.display_name, &self.shown.locale);
        let Ok(claimed) = registration::claim(tx, self.app, profile, Way::Asked, self.from)? else {
            // The policy has changed since.
            return self.void(tx, &row);
        };
        let (Claimed::Theirs(user) | Claimed::Proven(user)) = claimed;
        if !access::stands_above(tx, &standing, user)? {
            return Err(same_moment());
        }
        let begins = matches!(claimed, Claimed::Theirs(_));
        if begins {
            self.begin(tx, user)?;
        }
        access::give(tx, self.app, user, (&row.invited_by, &roles))?;
        let details = json!({ "invitation": row.id });
        // Of somebody who had an account nobody but the link was shown.
        match begins {
            true => self.app.audit_own(tx, user, "invitation_accepted", self.from, details)?,
            false => self.app.audit(tx, &Stream::of(user), "invitation_accepted", self.from, details)?,
        }
        if begins { self.enter(tx, user) } else { Ok(Outcome::Done(Accepted::Joined)) }
    }

    /// The account is theirs: with their password, and nothing of whoever was there before.
    fn begin(&self, tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<()> {
        let now = self.app.clock.now();
        let Some((hash, asked)) = self.chosen else { return Err(same_moment()) };
        passwords::set(tx, user, hash, now)?;
        passwords::note_breach_check(tx, user, asked, now)
    }

    /// Lets them in, with the roles that they have by now.
    fn enter(&self, tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Outcome> {
        let (Some((visit, transport)), Some((hash, _))) = (self.visit, self.chosen) else {
            return Ok(Outcome::Done(Accepted::Begun));
        };
        let with = Beginning {
            user,
            password_hash: Some(hash.to_owned()),
            proof: Proof::PASSWORD,
            visit: visit.clone(),
        };
        let entered = mfa::enter(tx, self.app, &with, *transport)?;
        let kind = entered.as_ref().map_or("sign_in_refused", Entered::event);
        let own = entered.as_ref().map_or(user.into(), |entered| entered.own(user));
        self.app.audit_own(tx, own, kind, self.from, json!({ "by": "invitation" }))?;
        Ok(entered.map_or_else(Outcome::Barred, |entered| Outcome::Done(Accepted::In(Box::new(entered)))))
    }

    /// It is worth nothing any more, and gone.
    fn void(&self, tx: &mut Tx<'_>, row: &Stored) -> db::Result<Outcome> {
        let details = json!({ "invitation": row.id });
        self.app.audit(tx, &Stream::server(), "invitation_void", self.from, details)?;
        Ok(Outcome::Invalid)
    }
}

/// Nothing of it is stored, and trying again finds out how it is.
fn same_moment() -> db::Error {
    db::Error::Unavailable("an address changed hands at the same moment".into())
}

/// Forgets invitations whose time is over. True when there is more to do.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> db::Result<bool> {
    Ok(tx.execute(&store::SWEEP, params![now])? >= 500)
}
