//! Why there is no way back in: pure.

use foundation::db;
use foundation::kernel::Problem;

use crate::errors;
use crate::passwords::{Overloaded, Unfit};

/// Why a password is not set anew.
#[derive(Debug)]
pub enum Refusal {
    /// The link or code is wrong, used, replaced or too old. One answer for all of them.
    Invalid,
    /// The mailbox is proven; the account is suspended.
    Suspended,
    /// The new password may not be set.
    Unfit(Unfit),
    /// Already a problem.
    Problem(Problem),
    /// The database failed.
    Fault(db::Error),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid => errors::problem("reset_token_invalid"),
            Refusal::Suspended => errors::problem("account_suspended"),
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
        Self::Unfit(overloaded.into())
    }
}
impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}
