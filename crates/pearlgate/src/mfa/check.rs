//! Is it the factor? The one place that says so, whichever door it is shown at.

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Digest, Id, Problem, Secret, Timestamp};
use foundation::params;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::model::{
    FIRST_PAUSE, LONGEST_PAUSE, OFF_AFTER, PAUSE_AFTER, Refusal, SEALED_FOR, Totp, recovery_digest,
};
use super::own;
use super::reset;
use super::store::{self, Has};
use crate::accounts::UserRow;
use crate::app::App;
use crate::lockout;
use crate::mailed::{self, MAX_GUESSES};
use crate::passkeys::{self, Use};
use crate::sessions::Proof;

/// What codes that are mailed as a second step are bound to.
pub(super) const EMAIL_CODE: &str = "mfa";

/// A kind of factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    /// A code of an authenticator app (RFC 6238).
    Totp,
    /// One of the codes that were written down.
    RecoveryCode,
    /// A passkey (WebAuthn).
    Passkey,
    /// A code from the mailbox: a second step, and no second factor (NIST SP 800-63B-4 §3.1.3.1).
    EmailCode,
}

impl Factor {
    /// As `api.md` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Passkey => "passkey",
            Self::RecoveryCode => "recovery_code",
            Self::EmailCode => "email_code",
        }
    }

    /// What its failures are counted under: recovery codes stand in for the app.
    pub(super) fn counter(self) -> &'static str {
        match self {
            Self::Totp | Self::Passkey | Self::RecoveryCode => Self::Totp.as_str(),
            Self::EmailCode => Self::EmailCode.as_str(),
        }
    }

    /// What is proven by it.
    pub(super) fn proof(self) -> Proof {
        match self {
            Self::Totp | Self::Passkey | Self::RecoveryCode => Proof::FACTOR,
            Self::EmailCode => Proof::MAILBOX,
        }
    }

    /// Whether somebody has it.
    fn is_one_of(self, has: &Has) -> bool {
        match self {
            Self::Totp => has.totp,
            Self::Passkey => has.passkeys > 0,
            Self::RecoveryCode => has.factor() && has.recovery_codes > 0,
            Self::EmailCode => has.email_code && !has.factor(),
        }
    }
}

/// What somebody has; locks nothing.
pub(super) fn has(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Has> {
    tx.one(&store::HAS, params![user])
}

/// The factors that somebody may show now.
pub(super) fn shows(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Vec<&'static str>> {
    let has = has(tx, user)?;
    let off: Vec<(String,)> = tx.all(&store::SWITCHED_OFF, params![user, OFF_AFTER])?;
    let is_off =
        |factor: &Factor| *factor != Factor::Passkey && off.iter().any(|(name,)| *name == factor.counter());
    let all = [Factor::Totp, Factor::Passkey, Factor::RecoveryCode, Factor::EmailCode].into_iter();
    let shown = all.filter(|factor| factor.is_one_of(&has) && !is_off(factor));
    Ok(shown.map(Factor::as_str).collect())
}

/// What somebody shows.
#[derive(Debug, Clone)]
pub enum Shown {
    /// A code.
    Code(Factor, Secret),
    /// A passkey's answer; none when it is one to no question of ours.
    Key(Option<Use>),
}

impl Shown {
    fn factor(&self) -> Factor {
        match self {
            Self::Code(factor, _) => *factor,
            Self::Key(_) => Factor::Passkey,
        }
    }

    /// As `api.md` spells it.
    pub(super) fn name(&self) -> &'static str {
        self.factor().as_str()
    }
}

/// Checks a factor of somebody who is locked, and uses it up. A try is spent before it is looked at; a right one gives
/// all of them back. A refusal is to be committed.
pub(super) fn check(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    shown: &Shown,
    from: ClientAddress,
) -> db::Result<Result<Proof, Refusal>> {
    let (has, factor) = (has(tx, user)?, shown.factor());
    if !factor.is_one_of(&has) {
        failed(tx, app, user, factor, from)?;
        return Ok(Err(Refusal::CodeInvalid));
    }
    match shown {
        Shown::Code(_, code) => by_code(tx, app, user, (factor, code, &has), from),
        // Nobody guesses a signature: there is nothing to count.
        Shown::Key(used) => {
            let proof = match used {
                Some(used) => passkeys::use_as_factor(tx, app, user, used, from)?,
                None => None,
            };
            if let Some(proof) = proof {
                reset::cancel_in(tx, app, user, from)?;
                return Ok(Ok(proof));
            }
            failed(tx, app, user, factor, from)?;
            Ok(Err(Refusal::CodeInvalid))
        }
    }
}

fn by_code(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    (factor, code, has): (Factor, &Secret, &Has),
    from: ClientAddress,
) -> db::Result<Result<Proof, Refusal>> {
    let now = app.clock.now();
    let totp = match factor {
        Factor::Totp => {
            let (sealed,): (Vec<u8>,) = tx.one(&store::SEALED, params![user])?;
            let Some(totp) = opened(app, user, &sealed) else {
                // Nobody's code is wrong because a key is missing here.
                let detail = "The authenticator app's secret cannot be read; whoever operates the service has to look.";
                return Ok(Err(Refusal::Problem(Problem::unavailable(detail))));
            };
            Some(totp)
        }
        _ => None,
    };
    let counter = factor.counter();
    let spent: Option<(i64,)> = tx.opt(&store::SPEND, params![user, counter, now, OFF_AFTER])?;
    let Some((nth,)) = spent else {
        let (failures, until): (i64, Timestamp) = tx.one(&store::FAILED, params![user, counter])?;
        return Ok(Err(match failures >= OFF_AFTER {
            true => Refusal::SwitchedOff,
            false => Refusal::Paused(now.until(until)),
        }));
    };
    let right = match factor {
        Factor::Totp => match totp.and_then(|totp| totp.step_of(code, now)) {
            // A step that was taken before, or an older one, is not right any more.
            Some(step) => tx.opt::<(i64,)>(&store::USE_STEP, params![user, step])?.is_some(),
            None => false,
        },
        Factor::RecoveryCode => uses_recovery_code(tx, user, code)?,
        Factor::EmailCode => is_mailed_code(tx, app, user, code, now)?,
        Factor::Passkey => false,
    };
    if !right {
        failed(tx, app, user, factor, from)?;
        wrong(tx, app, user, (factor, nth), from)?;
        return Ok(Err(Refusal::CodeInvalid));
    }
    tx.execute(&store::FORGIVE, params![user, counter])?;
    if factor != Factor::EmailCode {
        // Who shows a factor has not lost it.
        reset::cancel_in(tx, app, user, from)?;
    }
    if factor == Factor::RecoveryCode {
        own::tell_of_recovery_code(tx, app, user, has.recovery_codes - 1, from)?;
    }
    Ok(Ok(factor.proof()))
}

fn failed(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    factor: Factor,
    from: ClientAddress,
) -> db::Result<()> {
    app.audit(tx, &Stream::of(user), "factor_failed", from, json!({ "factor": factor.as_str() }))
}

/// It was the `nth` wrong one in a row.
fn wrong(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    (factor, nth): (Factor, i64),
    from: ClientAddress,
) -> db::Result<()> {
    let Some(pause) = lockout::pause(nth, PAUSE_AFTER, FIRST_PAUSE, LONGEST_PAUSE) else { return Ok(()) };
    tx.execute(&store::BLOCK, params![user, factor.counter(), app.clock.now() + pause])?;
    let state = match nth {
        OFF_AFTER => "switched_off",
        nth if nth == i64::from(PAUSE_AFTER) => "paused",
        _ => return Ok(()),
    };
    metrics::counter!("mfa_failures_total", "state" => state).increment(1);
    if nth == OFF_AFTER {
        let details = json!({ "factor": factor.counter() });
        app.audit(tx, &Stream::of(user), "factor_switched_off", from, details)?;
    }
    own::tell_of_failures(tx, app, user, state, factor.counter())
}

/// The secret that rests sealed; none, and a word in the log, when it does not open.
pub(super) fn opened(app: &App, user: Id<UserRow>, sealed: &[u8]) -> Option<Totp> {
    let plain = app.sealer.open(SEALED_FOR, sealed);
    let plain =
        plain.inspect_err(|error| tracing::error!(%user, %error, "a second factor cannot be read")).ok()?;
    serde_json::from_slice(&plain).ok()
}

fn uses_recovery_code(tx: &mut Tx<'_>, user: Id<UserRow>, code: &Secret) -> db::Result<bool> {
    let digest = recovery_digest(user, code);
    Ok(tx.opt::<(Digest,)>(&store::USE_RECOVERY_CODE, params![user, digest])?.is_some())
}

fn is_mailed_code(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    code: &Secret,
    now: Timestamp,
) -> db::Result<bool> {
    let open: Option<(Digest,)> = tx.opt(&store::SPEND_EMAIL_CODE, params![user, MAX_GUESSES, now])?;
    let right =
        open.is_some_and(|(expected,)| mailed::is_code(app, EMAIL_CODE, user.as_bytes(), code, &expected));
    if right {
        tx.execute(&store::DROP_EMAIL_CODE, params![user])?;
    }
    Ok(right)
}
