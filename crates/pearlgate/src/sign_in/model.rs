//! Why somebody is not let in: pure.

use foundation::db;
use foundation::kernel::Problem;

use crate::errors;
use crate::passwords::Overloaded;

/// Why somebody is not let in.
#[derive(Debug)]
pub enum Refusal {
    /// Nobody, or not their password. One answer for both.
    InvalidCredentials,
    /// The right password of a registration whose address was not proven yet.
    EmailNotVerified,
    /// The right password of a suspended account.
    Suspended,
    /// Too many passwords are waiting.
    Overloaded(Overloaded),
    /// The database failed.
    Fault(db::Error),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InvalidCredentials => errors::problem("invalid_credentials"),
            Refusal::EmailNotVerified => errors::problem("email_not_verified"),
            Refusal::Suspended => errors::problem("account_suspended"),
            Refusal::Overloaded(overloaded) => overloaded.into(),
            Refusal::Fault(error) => error.to_problem(),
        }
    }
}

impl From<db::Error> for Refusal {
    fn from(error: db::Error) -> Self {
        Self::Fault(error)
    }
}
impl From<Overloaded> for Refusal {
    fn from(overloaded: Overloaded) -> Self {
        Self::Overloaded(overloaded)
    }
}
