//! Verifications on paper: pure.

use foundation::db;
use foundation::kernel::{Digest, Entity, Entropy, FieldError, Id, MacKey, Problem, Secret};

use crate::errors;
use crate::passwords::Overloaded;

/// Ids of verifications: half of what a registration's password waits for; the mail is the other half.
#[derive(Debug)]
pub struct VerificationRow;
impl Entity for VerificationRow {
    const PREFIX: &'static str = "ver";
}

/// Wrong guesses that a code survives.
pub(super) const MAX_GUESSES: i64 = 5;
/// Wrong codes of one account, over all its mails: in a day, and in a row. Beyond them only links work, so that
/// nobody guesses a way in by asking for mail after mail.
pub(super) const MAX_WRONG_A_DAY: i64 = 10;
pub(super) const MAX_WRONG_IN_A_ROW: i64 = 100;

const PREFIX: &str = "pgv_";

/// What a verification mail carries: it leaves once, only digests stay.
#[derive(Debug, Clone)]
pub(super) struct Proofs {
    pub(super) token: Secret,
    pub(super) code: Secret,
}

impl Proofs {
    pub(super) fn new(chance: &Entropy) -> Self {
        let code = format!("{:06}", chance.below(1_000_000));
        Self { token: Secret::encode(PREFIX, &chance.bytes::<32>()), code: Secret::new(code) }
    }
}

/// Whether a text has the form of a token of ours; other texts are not looked up.
pub(super) fn is_token(text: &Secret) -> bool {
    text.decode::<32>(PREFIX).is_some()
}

/// A code under the server's key, bound to its verification: a bare digest of a million possibilities is no secret.
pub(super) fn code_digest(key: &MacKey, verification: Id<VerificationRow>, code: &Secret) -> Digest {
    let digits: String = code.reveal().chars().filter(|c| !c.is_whitespace()).collect();
    key.mac_parts(&[b"verify", verification.as_bytes(), digits.as_bytes()])
}

/// Why somebody is not let through.
#[derive(Debug)]
pub enum Refusal {
    /// The link, code or id is wrong, used, replaced or too old. One answer for all of them.
    VerificationInvalid,
    /// The mailbox is proven; the account is suspended.
    Suspended,
    /// Too many passwords are waiting.
    Overloaded(Overloaded),
    /// Fields that are not acceptable.
    Fields(Vec<FieldError>),
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
            Refusal::Fields(fields) => Self::invalid(fields),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_bound_to_its_verification() {
        let key = MacKey::new(b"k");
        let (one, other) = (Id::from_bytes([1; 16]), Id::from_bytes([2; 16]));
        let code = Secret::new("123456".into());
        assert_eq!(code_digest(&key, one, &code), code_digest(&key, one, &Secret::new("123 456".into())));
        assert_ne!(code_digest(&key, one, &code), code_digest(&key, other, &code));
    }

    #[test]
    fn proofs_have_six_digits_and_256_bits() {
        let proofs = Proofs::new(&Entropy::System);
        assert!(is_token(&proofs.token));
        assert!(proofs.code.reveal().len() == 6 && proofs.code.reveal().bytes().all(|b| b.is_ascii_digit()));
    }
}
