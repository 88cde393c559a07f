//! The check, and who may do what to whom. Both are answered by rows, in the transaction of what they are asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use foundation::db::{self, Tx};
use foundation::kernel::{Id, Problem, Timestamp};
use foundation::params;

use super::by::{By, Who};
use super::model::{Decision, OWNER_LEVEL, Permission, Resource, decide as weigh, holds};
use super::store::{self, KeyLine, granted};
use crate::accounts::UserRow;
use crate::app::App;
use crate::errors;

/// What an operator may do, and how high they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The highest of their roles.
    pub level: i64,
    /// Patterns of permissions.
    pub held: BTreeSet<String>,
}

impl Standing {
    /// Of whoever sits at the server.
    pub(super) fn console() -> Self {
        Self { level: i64::MAX, held: BTreeSet::from(["*".to_owned()]) }
    }

    fn of(rows: Vec<(i64, String)>) -> Self {
        let level = rows.iter().map(|(level, _)| *level).max().unwrap_or_default();
        Self { level, held: rows.into_iter().map(|(_, held)| held).filter(|held| !held.is_empty()).collect() }
    }

    /// Whether they may do this.
    pub fn may(&self, permission: &str) -> bool {
        holds(&self.held, permission)
    }

    /// Whether they stand above everybody.
    pub fn is_owner(&self) -> bool {
        self.level >= OWNER_LEVEL
    }

    /// Whether they stand above this level. Owners stand above owners as well: somebody has to.
    pub fn is_above(&self, level: i64) -> bool {
        self.level > level || self.is_owner()
    }
}

/// Why somebody may not do something to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// They lack the permission, or have lost it.
    Permission(String),
    /// It is about somebody or something at their own level or above it.
    Level(&'static str),
    /// It would give away what they do not hold.
    Beyond(String),
    /// It is about themselves.
    Oneself,
    /// Nobody would be left who may do everything.
    LastOwner,
    /// There is no such person, role or key.
    NotFound,
    /// It contradicts what is there.
    Conflict(String),
    /// It is nonsense: a field, and why.
    Invalid(&'static str, String),
}

impl Denied {
    /// In words for a person.
    pub fn words(&self) -> String {
        match self {
            Self::Permission(permission) => {
                format!("This needs the permission {permission}, and the account or key does not hold it.")
            }
            Self::Level(what) => format!("{what} Nobody acts on their own level or above it."),
            Self::Beyond(what) => format!("Nobody hands out what they do not hold themselves: {what}."),
            Self::Oneself => "Nobody changes what they may do themselves. Ask another operator.".into(),
            Self::LastOwner => {
                "They are the last owner who can sign in. Make somebody else an owner first.".into()
            }
            Self::NotFound => "There is none with this id.".into(),
            Self::Conflict(words) | Self::Invalid(_, words) => words.clone(),
        }
    }

    /// As an answer: one table.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Permission(_) | Self::Level(_) | Self::Beyond(_) | Self::Oneself => {
                errors::problem("permission_denied").detail(self.words())
            }
            Self::LastOwner | Self::Conflict(_) => errors::problem("conflict").detail(self.words()),
            Self::NotFound => Problem::not_found(),
            Self::Invalid(field, words) => {
                Problem::invalid(vec![foundation::kernel::FieldError::new(*field, "invalid", words.clone())])
            }
        }
    }
}

/// May `subject` do this (there)? One look, and a second one to say why not.
///
/// # Errors
/// As every read.
pub async fn decide(
    app: &App,
    subject: Id<UserRow>,
    permission: &Permission,
    resource: Option<&Resource>,
) -> db::Result<Decision> {
    let [exact, area, all] = permission.patterns();
    let grants: Vec<(String, String, String, String)> =
        app.db.read_one(move |tx| tx.all(&store::DECIDE, params![subject, exact, area, all])).await?;
    let grants: Vec<_> = grants.into_iter().map(granted).collect();
    let decision = weigh(&grants, permission, resource);
    if decision.allowed || !grants.is_empty() {
        return Ok(decision);
    }
    let who: Option<(bool,)> = app.db.read_one(move |tx| tx.opt(&store::WHO, params![subject])).await?;
    Ok(match who {
        Some((false,)) => decision,
        Some((true,)) => Decision { allowed: false, because: "the account is suspended".into() },
        None => Decision { allowed: false, because: "there is no such person".into() },
    })
}

/// Everything that somebody may do everywhere, for an access token.
///
/// # Errors
/// As every read.
pub async fn permissions_of(app: &App, user: Id<UserRow>) -> db::Result<Vec<String>> {
    let found: Vec<(String,)> =
        app.db.read_one(move |tx| tx.all(&store::PERMISSIONS_OF, params![user])).await?;
    Ok(found.into_iter().map(|(permission,)| permission).collect())
}

/// The roles of somebody with their levels: who is an operator.
///
/// # Errors
/// As every statement.
pub fn roles_of(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Vec<(String, i64)>> {
    tx.all(&store::OPERATES, params![user])
}

/// What whoever acts may do now.
///
/// # Errors
/// As every statement.
fn standing(tx: &mut Tx<'_>, who: Who, now: Timestamp) -> db::Result<Standing> {
    match who {
        Who::Console => Ok(Standing::console()),
        // A session that ended while its request was on the way does nothing any more.
        Who::Person(user, session) => {
            match tx.opt::<(i64,)>(&store::IN_SESSION, params![session, user, now])? {
                Some(_) => standing_of(tx, user),
                None => Ok(Standing::default()),
            }
        }
        Who::Key(key, owner) => {
            let lines: Vec<KeyLine> = tx.all(&store::KEY_NOW, params![key, now])?;
            let maker = standing_of(tx, owner)?;
            Ok(of_key(lines.into_iter().map(|(.., permission)| permission), &maker))
        }
    }
}

pub(super) fn standing_of(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Standing> {
    Ok(Standing::of(tx.all(&store::HELD, params![user])?))
}

/// A key may do what it was given, as long as whoever made it may; and it is never an owner.
pub(super) fn of_key(given: impl Iterator<Item = String>, maker: &Standing) -> Standing {
    let held = given.filter(|permission| maker.may(permission)).collect();
    Standing { level: maker.level.min(OWNER_LEVEL - 1), held }
}

/// Nobody else changes meanwhile who may do what. Before any other lock.
///
/// # Errors
/// As every statement.
pub fn lock(tx: &mut Tx<'_>) -> db::Result<()> {
    tx.one::<(i64,)>(&store::LOCK, params![]).map(|_| ())
}

/// The first thing in the transaction of whatever an operator does: nobody else changes meanwhile who may do what, and
/// they may do it now.
///
/// # Errors
/// As every statement.
pub fn may(
    tx: &mut Tx<'_>,
    app: &App,
    by: &By,
    permission: &'static str,
) -> db::Result<Result<Standing, Denied>> {
    lock(tx)?;
    let standing = standing(tx, by.who, app.clock.now())?;
    Ok(if standing.may(permission) { Ok(standing) } else { Err(Denied::Permission(permission.to_owned())) })
}

/// The same for what is done to somebody: they are there, and stand lower.
///
/// # Errors
/// As every statement.
pub fn may_act_on(
    tx: &mut Tx<'_>,
    app: &App,
    by: &By,
    permission: &'static str,
    user: Id<UserRow>,
) -> db::Result<Result<Standing, Denied>> {
    let standing = match may(tx, app, by, permission)? {
        Ok(standing) => standing,
        Err(denied) => return Ok(Err(denied)),
    };
    if tx.opt::<(bool,)>(&store::WHO, params![user])?.is_none() {
        return Ok(Err(Denied::NotFound));
    }
    let (level,): (i64,) = tx.one(&store::LEVEL, params![user])?;
    if !standing.is_above(level) {
        return Ok(Err(Denied::Level("They stand as high as you, or higher.")));
    }
    Ok(Ok(standing))
}

/// Whether an owner would be left without this one, who is about to be shut out or to lose the role.
///
/// # Errors
/// As every statement.
pub fn owner_stays(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Result<(), Denied>> {
    if tx.opt::<(Timestamp,)>(&store::IS_OWNER, params![user])?.is_none() {
        return Ok(Ok(()));
    }
    let other = tx.opt::<(Id<UserRow>,)>(&store::OTHER_OWNER, params![user])?;
    Ok(if other.is_some() { Ok(()) } else { Err(Denied::LastOwner) })
}

/// Gives a new person what everybody is given.
///
/// # Errors
/// As every statement.
pub fn give_defaults(tx: &mut Tx<'_>, user: Id<UserRow>, now: Timestamp) -> db::Result<()> {
    tx.execute(&store::GRANT_DEFAULTS, params![user, now]).map(|_| ())
}

/// Forgets changes that no access token is older than.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, app: &App) -> db::Result<()> {
    let now = app.clock.now();
    tx.execute(&store::SWEEP_CHANGES, params![now - app.access_tokens.lifetime() * 2])?;
    // A while after its end a key is still in the list.
    tx.execute(&store::SWEEP_KEYS, params![now - Duration::from_secs(30 * 86_400)]).map(|_| ())
}
