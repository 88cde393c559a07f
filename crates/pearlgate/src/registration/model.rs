//! Verifications on paper: pure.

use foundation::db;
use foundation::kernel::{Entity, Problem};

use crate::errors;
use crate::passwords::{Overloaded, Unfit};

/// Ids of verifications: half of what a registration's password waits for; the mail is the other half.
#[derive(Debug)]
pub struct VerificationRow;
impl Entity for VerificationRow {
    const PREFIX: &'static str = "ver";
}

/// What the tokens of verification mails begin with.
pub(super) const PREFIX: &str = "pgv_";
/// Binds their codes.
pub(super) const PURPOSE: &str = "verify";

/// Why somebody is not let through.
#[derive(Debug)]
pub enum Refusal {
    /// The link, code or id is wrong, used, replaced or too old. One answer for all of them.
    VerificationInvalid,
    /// The mailbox is proven; the account is suspended.
    Suspended,
    /// Too many passwords are waiting.
    Overloaded(Overloaded),
    /// The password may not be set.
    Unfit(Unfit),
    /// Already a problem.
    Problem(Problem),
    /// The database failed.
    Fault(db::Error),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::VerificationInvalid => errors::problem("verification_invalid"),
            Refusal::Suspended => errors::problem("account_suspended"),
            Refusal::Overloaded(overloaded) => overloaded.into(),
            Refusal::Unfit(unfit) => unfit.into(),
            Refusal::Problem(problem) => problem,
            Refusal::Fault(error) => error.to_problem(),
        }
    }
}

impl From<db::Error> for Refusal {
    fn from(error: db::Error) -> Self {
        Self::Fault(error)
    }
}
impl From<Unfit> for Refusal {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}
impl From<Overloaded> for Refusal {
    fn from(overloaded: Overloaded) -> Self {
        Self::Overloaded(overloaded)
    }
}
impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}
