//! Magic links on paper: pure.

use foundation::db;
use foundation::kernel::{Entity, Problem};

use crate::errors;
use crate::sessions::Barred;

/// Ids of magic links: whoever asked holds the id, whoever reads the mail the code.
#[derive(Debug)]
pub struct MagicLinkRow;
impl Entity for MagicLinkRow {
    const PREFIX: &'static str = "mgl";
}

/// Why somebody is not let in.
#[derive(Debug)]
pub enum Refusal {
    /// The link, code or id is wrong, used, replaced or too old. One answer for all of them.
    Invalid,
    /// The mailbox is proven; the person may not sign in by that alone.
    Barred(Barred),
    /// Magic links are switched off here.
    Off,
    /// Already a problem.
    Problem(Problem),
    /// The database failed.
    Fault(db::Error),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid | Refusal::Barred(Barred::Outdated) => errors::problem("verification_invalid"),
            Refusal::Barred(Barred::Suspended) => errors::problem("account_suspended"),
            Refusal::Off => Self::not_found(),
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
impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}
