//! Why an address does not change: pure.

use foundation::db;
use foundation::kernel::Problem;

use crate::errors;

/// Why an address does not change.
#[derive(Debug)]
pub enum Refusal {
    /// The link or code is wrong, used, replaced or too old. One answer for all of them.
    Invalid,
    /// Somebody else proved the address in the meantime.
    Taken,
    /// The database failed.
    Fault(db::Error),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid => errors::problem("verification_invalid"),
            Refusal::Taken => errors::problem("conflict")
                .detail("Another account has proven this address in the meantime. Nothing was changed."),
            Refusal::Fault(error) => error.to_problem(),
        }
    }
}

impl From<db::Error> for Refusal {
    fn from(error: db::Error) -> Self {
        Self::Fault(error)
    }
}
