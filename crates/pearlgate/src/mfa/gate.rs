//! The gate: from a proof to a session, or to what is still due.

use std::time::Duration;

use axum::Json as JsonAnswer;
use axum::response::{IntoResponse, Response};
use foundation::db::{self, Tx};
use foundation::jobs::When;
use foundation::kernel::{Id, Problem, Secret, Timestamp};
use foundation::params;

use super::check;
use super::http::MfaRequired;
use super::model::PREFIX;
use super::reset::GraceOver;
use super::store;
use crate::access;
use crate::accounts::UserRow;
use crate::app::App;
use crate::mailed::{self, NOBODY};
use crate::sessions::http::{LetIn, Transport};
use crate::sessions::{self, Barred, Beginning, Begun, DeviceRow, Own, Shown, Started, Visit, let_in};

/// A factor has to be shown.
pub(super) const FACTOR: &str = "factor";
/// A factor has to be set up.
pub(super) const ENROLMENT: &str = "enrolment";
/// How long the job is worth doing that ends what began in the time of grace.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Sign-ins of one person that may wait for their second step at a time.
const AT_A_TIME: i64 = 50;

/// What comes of a proof.
#[derive(Debug)]
pub enum Entered {
    /// A session.
    In(Box<Started>),
    /// A second step is due.
    Half(HalfLogin),
}

impl Entered {
    /// What is written down about it, in the person's own history.
    pub fn event(&self) -> &'static str {
        match self {
            Self::In(_) => "sign_in",
            Self::Half(_) => "factor_asked",
        }
    }

    /// Whose it is, in the session that began.
    pub fn own(&self, user: Id<UserRow>) -> Own {
        let session = match self {
            Self::In(started) => Some(started.session()),
            Self::Half(_) => None,
        };
        Own { user, session }
    }

    /// Whether a session began on a device that had signed in before.
    pub fn on_known_device(&self) -> bool {
        matches!(self, Self::In(started) if started.on_known_device())
    }
}

/// A sign-in between its two steps: no session, and nothing that one could be made of without the second.
#[derive(Debug)]
pub struct HalfLogin {
    /// Opens `/v1/auth/mfa` alone.
    pub(super) token: Secret,
    pub(super) expires_in: Duration,
    /// What may be shown now.
    pub(super) factors: Vec<&'static str>,
    /// Whether there is nothing to show, and something has to be set up.
    pub(super) enrolment: bool,
}

impl HalfLogin {
    /// For a page, which keeps it in a cookie.
    pub fn token(&self) -> &Secret {
        &self.token
    }
}

/// Lets in whoever has proven enough, and asks everybody else for the second step. Every way in ends here.
///
/// # Errors
/// As every statement.
pub fn enter(
    tx: &mut Tx<'_>,
    app: &App,
    with: &Beginning,
    transport: Transport,
) -> db::Result<Result<Entered, Barred>> {
    if with.proof.shown < Shown::Factor && is_required(tx, app, with.user)? {
        mailed::lock_person(tx, with.user)?;
        let due = match sessions::bars(tx, with.user, with.proof, with.password_hash.as_deref())? {
            Ok(due) => due,
            Err(barred) => return Ok(Err(barred)),
        };
        let has = check::has(tx, with.user)?;
        if !has.factor() && due {
            // A device that is trusted to go without a mailed code does not satisfy a policy.
            return half(tx, app, with, transport, FACTOR).map(Ok);
        }
        if !has.factor() && is_over(tx, app, with.user)? {
            return half(tx, app, with, transport, ENROLMENT).map(Ok);
        }
    }
    Ok(match sessions::begin(tx, app, with)? {
        Ok(Begun::In(started)) => Ok(Entered::In(started)),
        Ok(Begun::FactorDue) => Ok(half(tx, app, with, transport, FACTOR)?),
        Err(barred) => Err(barred),
    })
}

/// Whether policy demands a factor of somebody.
pub(super) fn is_required(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<bool> {
    let rules = &app.settings.mfa;
    if rules.everyone || (rules.roles.is_empty() && !rules.operators) {
        return Ok(rules.everyone);
    }
    let roles = access::roles_of(tx, user)?;
    Ok(roles.iter().any(|(role, level)| rules.roles.contains(role) || (rules.operators && *level > 0)))
}

/// Whether the time of grace is over, which begins with the first question. A job ends what began in it, or before it.
fn is_over(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<bool> {
    let (now, grace) = (app.clock.now(), app.settings.mfa.grace);
    let (until,): (Timestamp,) = tx.one(&store::GRACE, params![user, now + grace])?;
    let job = GraceOver { user };
    let when = When::now(now, grace + KEPT).at(until.max(now)).unique(format!("grace:{user}"));
    app.queue.enqueue(tx, &job, &when)?;
    Ok(until <= now)
}

fn half(
    tx: &mut Tx<'_>,
    app: &App,
    with: &Beginning,
    transport: Transport,
    purpose: &'static str,
) -> db::Result<Entered> {
    let (user, now, lifetime) = (with.user, app.clock.now(), app.settings.mfa.token);
    let token = Secret::encode(PREFIX, &app.chance.bytes::<32>());
    let device = sessions::known_device(tx, app, user, with.visit.device_token.as_ref())?;
    let stranger: Id<DeviceRow> = Id::from_bytes(*NOBODY.as_bytes());
    tx.execute(
        &store::BEGIN_HALF,
        params![
            token.digest(),
            user,
            purpose,
            app.settings.client_id,
            spelled(transport),
            with.password_hash.as_deref().unwrap_or_default(),
            with.proof.amr,
            device.unwrap_or(stranger),
            with.visit.device_name,
            now + lifetime
        ],
    )?;
    tx.execute(&store::END_BEYOND, params![user, AT_A_TIME])?;
    let factors = if purpose == FACTOR { check::shows(tx, user)? } else { Vec::new() };
    Ok(Entered::Half(HalfLogin { token, expires_in: lifetime, factors, enrolment: purpose == ENROLMENT }))
}

pub(super) fn spelled(transport: Transport) -> &'static str {
    match transport {
        Transport::Token => "token",
        Transport::Cookie => "cookie",
    }
}

/// What the application gets, by the transport it asked for: tokens, or what is still due.
///
/// # Errors
/// As [`let_in`].
pub async fn answer(
    app: &App,
    entered: Entered,
    transport: Transport,
    visit: &Visit,
) -> Result<Answer, Problem> {
    Ok(match entered {
        Entered::In(started) => Answer::In(Box::new(let_in(app, *started, transport, visit).await?)),
        Entered::Half(half) => Answer::Half(MfaRequired::of(&half)),
    })
}

/// The same as a response.
#[derive(Debug)]
pub enum Answer {
    /// A token set.
    In(Box<LetIn>),
    /// What is due.
    Half(MfaRequired),
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::In(let_in) => let_in.into_response(),
            Self::Half(due) => JsonAnswer(due).into_response(),
        }
    }
}
