//! Why somebody is not let in: pure.

use foundation::db;
use foundation::kernel::{FieldError, Id, Problem};

use crate::errors;
use crate::lockout;
use crate::magic_links::MagicLinkRow;
use crate::passwords::Overloaded;
use crate::sessions::Barred;

/// Why somebody is not let in.
#[derive(Debug)]
pub enum Refusal {
    /// Nobody, or not their password. One answer for both.
    InvalidCredentials,
    /// The right password of a registration whose address was not proven yet.
    EmailNotVerified,
    /// The right password of a suspended account.
    Suspended,
    /// The right password, which others know too: the owner of the mailbox has to set another one.
    PasswordKnown,
    /// There is an alarm, and nobody knows the device: it has to work first.
    WorkDue,
    /// The right password, there is an alarm, and nobody knows the device: a code was mailed.
    CodeDue(Id<MagicLinkRow>),
    /// Too many wrong passwords before this one, which nobody looked at.
    Kept(lockout::Refused),
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
            Refusal::PasswordKnown => Self::invalid(vec![FieldError::new(
                "password",
                "password_breached",
                "this password is known to others, so it lets nobody in any more; set a new one with the mail that \
                 was sent, or ask for another with \"forgot password\"",
            )]),
            Refusal::WorkDue => errors::problem("proof_of_work_required"),
            Refusal::CodeDue(id) => {
                errors::problem("email_code_required").member("magic_link_id", id.to_string())
            }
            Refusal::Kept(refused) => refused.into(),
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
impl From<Barred> for Refusal {
    fn from(barred: Barred) -> Self {
        match barred {
            Barred::Suspended => Self::Suspended,
            // The password was changed between our check and now.
            Barred::Outdated => Self::InvalidCredentials,
        }
    }
}
impl From<Overloaded> for Refusal {
    fn from(overloaded: Overloaded) -> Self {
        Self::Overloaded(overloaded)
    }
}
