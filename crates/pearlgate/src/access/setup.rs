//! The first operator: set up once, for ever. A row says that it is done, not that there is one: whoever deletes the first
//! operator does not open the door again (authentik CVE-2023-46249).

use std::time::Duration;

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Id, Problem, Secret, Timestamp};
use foundation::params;
use serde_json::json;

use super::by::By;
use super::model::OWNER;
use super::store;
use crate::accounts::{DisplayName, EmailAddress, UserRow};
use crate::app::App;
use crate::passwords;
use crate::registration::{self, Founder, Way};

/// How the link's token begins.
pub const PREFIX: &str = "pgf_";
/// How long a link is good.
pub const LIFETIME: Duration = Duration::from_secs(3_600);

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetUp {
    /// Somebody is an owner now.
    Done(Id<UserRow>),
    /// Somebody was before.
    Before,
    /// The link is not good (any more).
    Link,
}

/// Whether there has been a first operator.
///
/// # Errors
/// As every read.
pub async fn is_done(app: &App) -> db::Result<bool> {
    let done = app.db.read_one(|tx| tx.opt::<(Timestamp, String)>(&store::SETUP_DONE, params![]));
    Ok(done.await?.is_some())
}

/// A new link, in place of the one before; none when there has been a first operator.
///
/// # Errors
/// As every statement.
pub async fn link(app: &App) -> db::Result<Option<String>> {
    let (token, now) = (Secret::encode(PREFIX, &app.chance.bytes::<32>()), app.clock.now());
    let digest = token.digest();
    let made = app.db.write(move |tx| {
        if tx.opt::<(Timestamp, String)>(&store::SETUP_DONE, params![])?.is_some() {
            return Ok(false);
        }
        tx.execute(&store::SETUP_LINK, params![digest, now + LIFETIME]).map(|_| true)
    });
    let link = format!("{}/setup?token={}", app.settings.public_url, token.reveal());
    Ok(made.await?.then_some(link))
}

/// Whether a link is good now.
///
/// # Errors
/// As every read.
pub async fn is_open(app: &App, token: &Secret) -> db::Result<bool> {
    if token.decode::<32>(PREFIX).is_none() {
        return Ok(false);
    }
    let (digest, now) = (token.digest(), app.clock.now());
    let found =
        app.db.read_one(move |tx| tx.opt::<(Timestamp,)>(&store::IS_SETUP_LINK, params![digest, now]));
    Ok(found.await?.is_some())
}

/// Who is to be the first operator.
#[derive(Debug, Clone)]
pub struct Founding {
    /// Their address; whoever runs the server says that it is theirs.
    pub email: EmailAddress,
    /// What they are called.
    pub display_name: DisplayName,
    /// The hash of their password, which was checked as every new one.
    pub password_hash: String,
}

/// Looks at the password as at every new one, and hashes it.
///
/// # Errors
/// 422, 503.
pub async fn prepare(
    app: &App,
    email: EmailAddress,
    display_name: DisplayName,
    password: &Secret,
) -> Result<Founding, Problem> {
    registration::admits(&app.settings.people, &email, Way::Asked)?;
    let about = passwords::about_newcomer(app, email.as_str(), &display_name.0);
    let chosen = passwords::choose(app, "password", password, &about).await?;
    let password_hash = app.hashes.hash(&chosen.password).await?;
    Ok(Founding { email, display_name, password_hash })
}

/// Makes somebody an owner, once, for ever: with the link, or at the server itself. Whoever has an account at the address
/// already keeps it with the new password, and every session of it ends.
///
/// # Errors
/// As every statement.
pub async fn set_up(
    app: &App,
    token: Option<Secret>,
    founding: Founding,
    from: ClientAddress,
) -> db::Result<SetUp> {
    let inner = app.clone();
    app.db.write(move |tx| found(tx, &inner, token.as_ref(), &founding, from)).await
}

fn found(
    tx: &mut Tx<'_>,
    app: &App,
    token: Option<&Secret>,
    founding: &Founding,
    from: ClientAddress,
) -> db::Result<SetUp> {
    let now = app.clock.now();
    tx.one::<(i64,)>(&store::LOCK, params![])?;
    if tx.opt::<(Timestamp, String)>(&store::SETUP_DONE, params![])?.is_some() {
        return Ok(SetUp::Before);
    }
    if let Some(token) = token
        && tx.opt::<(Timestamp,)>(&store::USE_SETUP_LINK, params![token.digest(), now])?.is_none()
    {
        return Ok(SetUp::Link);
    }
    let founder = Founder {
        email: founding.email.clone(),
        display_name: founding.display_name.clone(),
        password_hash: founding.password_hash.clone(),
    };
    let user = registration::found(tx, app, &founder, from)?;
    // The row decides, whoever else is here.
    if tx.opt::<(Timestamp,)>(&store::SET_UP, params![now, user.to_string()])?.is_none() {
        return Err(db::Error::Bug("SET_UP: somebody passed the lock".into()));
    }
    tx.execute(&store::NO_SETUP_LINK, params![])?;
    tx.opt::<(Timestamp,)>(&store::GRANT, params![user, OWNER, now, "", "console"])?;
    let details = |by: &str| json!({ "role": OWNER, "by": by });
    match token {
        Some(_) => app.audit_own(tx, user, "first_operator", from, details("link"))?,
        None => app.audit_by(tx, &Stream::of(user), "first_operator", &By::console(), details("console"))?,
    }
    Ok(SetUp::Done(user))
}
