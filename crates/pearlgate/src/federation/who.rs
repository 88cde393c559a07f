//! Who somebody is here, by what a provider said: found, made or claimed in one transaction, and let in through the gate.

use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Id, Secret, Timestamp};
use foundation::params;
use serde_json::json;

use super::model::{COMPLETING, INCOMPLETE, Refusal, Said};
use super::own::{self, Linked};
use super::registry::Connection;
use super::store;
use crate::accounts::{EmailAddress, UserRow};
use crate::app::App;
use crate::mailed;
use crate::mfa::{self, Entered};
use crate::registration::{self, Claimed, NotAdmitted, Way};
use crate::sessions::http::Transport;
use crate::sessions::{Beginning, Proof, Visit};

/// What a said thing is sealed for.
const SEALED_FOR: &str = "identity";

/// What comes of what a provider said.
#[derive(Debug)]
pub(super) enum Came {
    /// A session, or half a login.
    In(Box<Entered>),
    /// The provider said too little.
    Incomplete(Incomplete),
}

/// A sign-in that has to be completed.
#[derive(Debug)]
pub(super) struct Incomplete {
    pub(super) token: Secret,
    pub(super) email: bool,
    pub(super) display_name: bool,
    pub(super) suggested_email: String,
    pub(super) suggested_name: String,
}

pub(super) fn seal(app: &App, said: &Said) -> Result<Vec<u8>, db::Error> {
    let plain = serde_json::to_vec(said).map_err(|e| db::Error::Bug(e.to_string()))?;
    app.sealer.seal(SEALED_FOR, &plain).map_err(|e| db::Error::Bug(e.to_string()))
}

pub(super) fn open(app: &App, sealed: &[u8]) -> Option<Said> {
    serde_json::from_slice(&app.sealer.open(SEALED_FOR, sealed).ok()?).ok()
}

/// Somebody, by what a provider said.
pub(super) struct Who<'w> {
    pub(super) app: &'w App,
    pub(super) connection: &'w Connection,
    pub(super) said: &'w Said,
}

impl Who<'_> {
    /// The address that the provider's word proves.
    pub(super) fn proven_address(&self) -> Option<EmailAddress> {
        let believed = self.said.verified && self.connection.provider.is_believed();
        believed.then(|| EmailAddress::parse("email", &self.said.email).ok()).flatten()
    }

    /// Lets them in, as whoever they are here.
    pub(super) fn enter(
        &self,
        tx: &mut Tx<'_>,
        visit: &Visit,
        transport: Transport,
    ) -> db::Result<Result<Came, Refusal>> {
        let user = match self.person(tx, visit.from)? {
            Ok(Ok(user)) => user,
            Ok(Err(incomplete)) => return Ok(Ok(Came::Incomplete(incomplete))),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let proof = if self.said.level_2 { Proof::FEDERATED_FACTOR } else { Proof::FEDERATED };
        let beginning = Beginning { user, password_hash: None, proof, visit: visit.clone() };
        let entered = mfa::enter(tx, self.app, &beginning, transport)?;
        let kind = entered.as_ref().map_or("sign_in_refused", Entered::event);
        let details = json!({ "by": "oauth", "provider": self.connection.provider.id });
        let own = entered.as_ref().map_or(user.into(), |entered| entered.own(user));
        self.app.audit_own(tx, own, kind, visit.from, details)?;
        Ok(entered.map(|entered| Came::In(Box::new(entered))).map_err(Refusal::Barred))
    }

    /// Whoever they are: by what the provider calls them, and by their address only when nobody is called so.
    fn person(
        &self,
        tx: &mut Tx<'_>,
        from: ClientAddress,
    ) -> db::Result<Result<Result<Id<UserRow>, Incomplete>, Refusal>> {
        let provider = &self.connection.provider;
        if !self.connection.is_as_before(tx)? {
            return Ok(Err(Refusal::NoProvider));
        }
        if let Some(user) = self.known(tx)? {
            return self.at_proven_address(tx, user, from);
        }
        let address = self.proven_address();
        let name = self.said.display_name();
        let (Some(address), Some(name)) = (&address, &name) else {
            // Nobody is looked for by what proves nothing, and nothing is asked of whoever could not come by it.
            if address.is_none() && !self.app.settings.people.open {
                return Ok(Err(Refusal::Problem(NotAdmitted::Closed.into())));
            }
            return Ok(Ok(Err(self.incomplete(tx, address.is_none(), name.is_none())?)));
        };
        let profile = (address, name, &self.said.locale());
        let claimed = match registration::claim(tx, self.app, profile, Way::ByThemselves, from)? {
            Ok(claimed) => claimed,
            Err(why) => return Ok(Err(Refusal::Problem(why.into()))),
        };
        if let Some(user) = self.known(tx)? {
            // Signed in as theirs a moment ago: whoever comes twice at once is one person.
            return match claimed {
                Claimed::Proven(_) => self.at_proven_address(tx, user, from),
                Claimed::Theirs(_) => Err(same_moment()),
            };
        }
        let mut link = |user: Id<UserRow>| {
            own::link(tx, self.app, user.into(), self.connection, &self.said.subject, from)
        };
        match claimed {
            Claimed::Theirs(user) => match link(user)? {
                Linked::Now(_) | Linked::Before => Ok(Ok(Ok(user))),
                Linked::Taken => Err(same_moment()),
            },
            Claimed::Proven(user) if provider.is_authoritative_for(address.key()) => match link(user)? {
                Linked::Now(at) => {
                    own::tell_linked(tx, self.app, user, &provider.name, at)?;
                    Ok(Ok(Ok(user)))
                }
                Linked::Before => Ok(Ok(Ok(user))),
                Linked::Taken => Ok(Err(Refusal::SignInFirst)),
            },
            Claimed::Proven(_) => Ok(Err(Refusal::SignInFirst)),
        }
    }

    /// Whose identity it is, locked, as it is then.
    fn known(&self, tx: &mut Tx<'_>) -> db::Result<Option<Id<UserRow>>> {
        let of = params![self.connection.provider.id, self.said.subject];
        let Some((user,)) = tx.opt::<(Id<UserRow>,)>(&store::WHOSE, of)? else { return Ok(None) };
        mailed::lock_person(tx, user)?;
        let now: Option<(Id<UserRow>,)> = tx.opt(&store::WHOSE, of)?;
        Ok(now.filter(|(now,)| *now == user).map(|(user,)| user))
    }

    /// An identity that was imported may be of somebody who never proved their address: then nothing at it is theirs yet.
    fn at_proven_address(
        &self,
        tx: &mut Tx<'_>,
        user: Id<UserRow>,
        from: ClientAddress,
    ) -> db::Result<Result<Result<Id<UserRow>, Incomplete>, Refusal>> {
        if tx.opt::<(Timestamp,)>(&store::IS_VERIFIED, params![user])?.is_some() {
            return Ok(Ok(Ok(user)));
        }
        let own = mailed::address_key(tx, user)?;
        let same = self.proven_address().zip(own).is_some_and(|(said, own)| said.key() == own);
        if !same {
            return Ok(Err(Refusal::NotVerified));
        }
        registration::first_proof(tx, self.app, user, from)?;
        own::link(tx, self.app, user.into(), self.connection, &self.said.subject, from)?;
        Ok(Ok(Ok(user)))
    }

    fn incomplete(&self, tx: &mut Tx<'_>, email: bool, display_name: bool) -> db::Result<Incomplete> {
        let token = Secret::encode(INCOMPLETE, &self.app.chance.bytes::<32>());
        let (sealed, until) = (seal(self.app, self.said)?, self.app.clock.now() + COMPLETING);
        let provider = &self.connection.provider.id;
        tx.execute(&store::KEEP_INCOMPLETE, params![token.digest(), provider, sealed, until])?;
        let suggested = EmailAddress::parse("email", &self.said.email).map(|email| email.as_str().to_owned());
        Ok(Incomplete {
            token,
            email,
            display_name,
            suggested_email: suggested.unwrap_or_default(),
            suggested_name: self.said.display_name().map(|name| name.0).unwrap_or_default(),
        })
    }
}

/// Nothing of it is stored, and trying again finds out who came first.
fn same_moment() -> db::Error {
    db::Error::Unavailable("an identity was linked at the same moment".into())
}
