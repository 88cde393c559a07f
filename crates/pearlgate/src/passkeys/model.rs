//! Challenges and refusals of passkeys: pure.

use std::time::Duration;

use foundation::db;
use foundation::kernel::{Entity, FieldError, MacKey, MacKeys, Problem, Secret, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::ceremony::Flaw;
use crate::errors;
use crate::sessions::Barred;

/// Ids of passkeys.
#[derive(Debug)]
pub struct PasskeyRow;
impl Entity for PasskeyRow {
    const PREFIX: &'static str = "psk";
}

/// What the id of a challenge begins with.
const PREFIX: &str = "pgc_";
/// How long one may take to answer (§15.1 recommends five minutes at least; the attack book five at most).
pub(super) const LIFETIME: Duration = Duration::from_secs(300);
const NONCE: usize = 16;
const TAG: usize = 16;
/// Keys of one person.
pub(super) const MOST: i64 = 50;

/// What a challenge is for: an answer to one is none to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// A sign-in, whoever it will be: the key has to know.
    SignIn,
    /// A sign-in at an address, with a key that need not know whose it is.
    Named,
    /// A new key, in this session.
    Register([u8; 16]),
    /// Proving once more who one is, in this session.
    Again([u8; 16]),
}

impl Bound {
    fn parts(&self) -> (&'static [u8], [u8; 16]) {
        match self {
            Self::SignIn => (b"sign in", [0; 16]),
            Self::Named => (b"named", [0; 16]),
            Self::Register(session) => (b"register", *session),
            Self::Again(session) => (b"again", *session),
        }
    }
}

/// A challenge, and what it is known by.
#[derive(Debug, Clone)]
pub struct Challenge {
    /// `pgc_…`, to be given back.
    pub id: Secret,
    /// What the authenticator signs.
    pub bytes: [u8; 32],
    /// When it is too late.
    pub expires_at: Timestamp,
}

fn tag(key: &MacKey, bound: Bound, nonce: &[u8], expires: &[u8]) -> [u8; TAG] {
    let (what, whose) = bound.parts();
    key.mac_parts(&[b"challenge id", what, &whose, nonce, expires]).truncated()
}

fn signed(key: &MacKey, bound: Bound, nonce: &[u8], expires: &[u8]) -> [u8; 32] {
    let (what, whose) = bound.parts();
    key.mac_parts(&[b"challenge", what, &whose, nonce, expires]).truncated()
}

/// A new challenge.
pub(super) fn challenge(key: &MacKey, bound: Bound, nonce: [u8; NONCE], now: Timestamp) -> Challenge {
    let expires_at = now + LIFETIME;
    let expires = expires_at.micros().to_be_bytes();
    let tag = tag(key, bound, &nonce, &expires);
    let id = Secret::encode(PREFIX, &[nonce.as_slice(), &expires, &tag].concat());
    Challenge { id, bytes: signed(key, bound, &nonce, &expires), expires_at }
}

/// The challenge that an id names, if it is one of ours for this, and not too late.
pub(super) fn open(keys: &MacKeys, bound: Bound, id: &Secret, now: Timestamp) -> Option<Challenge> {
    let bytes: [u8; NONCE + 8 + TAG] = id.decode(PREFIX)?;
    let (nonce, rest) = bytes.split_first_chunk::<NONCE>()?;
    let (expires, given) = rest.split_first_chunk::<8>()?;
    let expires_at = Timestamp::from_micros(i64::from_be_bytes(*expires));
    let key = keys.all().find(|key| tag(key, bound, nonce, expires).as_slice().ct_eq(given).into())?;
    let challenge = Challenge { id: id.clone(), bytes: signed(key, bound, nonce, expires), expires_at };
    (expires_at > now).then_some(challenge)
}

/// The challenge of a sign-in between its two steps: its token is used once, and so is this.
pub(super) fn of_half(key: &MacKey, token: &Secret) -> [u8; 32] {
    key.mac_parts(&[b"second step", token.digest().as_bytes()]).truncated()
}

/// The key that an address is said to have when it has none.
pub(super) fn decoy(key: &MacKey, address_key: &str) -> [u8; 32] {
    key.mac_parts(&[b"decoy", address_key.as_bytes()]).truncated()
}

/// What an application sends: an object as the browser made it.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Presented(pub Value);

/// Why a passkey does not do.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The challenge is not ours, for something else, used, or too old.
    Challenge,
    /// The answer does not hold.
    Flaw(Flaw),
    /// Nobody has this key.
    Unknown,
    /// Somebody has this key already.
    Taken,
    /// So many have been kept that there is no room for more.
    TooMany,
    /// There is none of this id.
    NotFound,
    /// Nothing else lets the person in.
    LastWayIn,
    /// Policy demands a factor, and it is the last one.
    Demanded,
    /// Not a name.
    Name,
    /// What was proven does not hold any more.
    Barred(Barred),
    /// Already a problem.
    Problem(Problem),
    /// The database failed.
    Fault(db::Error),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let field = |field, code, message| Self::invalid(vec![FieldError::new(field, code, message)]);
        match refusal {
            Refusal::Challenge => errors::problem("verification_invalid")
                .detail("The challenge is used up, too old, or of another call: start again."),
            Refusal::Flaw(Flaw::Unreadable | Flaw::Credential) => {
                field("credential", "invalid", "give what PublicKeyCredential.toJSON() gave, as it is")
            }
            Refusal::Flaw(Flaw::Verification) => errors::problem("invalid_credentials").detail(
                "The authenticator did not check who you are: unlock it with its PIN, fingerprint or face.",
            ),
            Refusal::Flaw(_) | Refusal::Unknown | Refusal::Barred(Barred::Outdated) => {
                errors::problem("invalid_credentials").detail("This passkey lets nobody in here.")
            }
            Refusal::Taken => errors::problem("conflict").detail("This passkey is registered already."),
            Refusal::TooMany => {
                errors::problem("conflict").detail("There are too many passkeys: remove one first.")
            }
            Refusal::NotFound => Self::not_found(),
            Refusal::LastWayIn => errors::problem("last_sign_in_method"),
            Refusal::Demanded => errors::problem("conflict").detail(
                "This account must have a second factor: add another passkey or an authenticator app first.",
            ),
            Refusal::Name => field("name", "invalid", "is one line of at most 100 characters"),
            Refusal::Barred(Barred::Suspended) => errors::problem("account_suspended"),
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
impl From<Flaw> for Refusal {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}
impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

#[cfg(test)]
mod tests {
    use foundation::kernel::MasterKeys;

    use super::*;

    #[test]
    fn a_challenge_is_for_one_thing_and_five_minutes() {
        let keys = MacKeys::derive(&MasterKeys::new([1; 32], &[]), "passkey");
        let (now, session) = (Timestamp::from_micros(1_000_000_000), [7; 16]);
        let made = challenge(keys.current(), Bound::Register(session), [9; NONCE], now);
        let at = |bound, moment| open(&keys, bound, &made.id, moment).map(|found| found.bytes);
        assert_eq!(at(Bound::Register(session), now), Some(made.bytes));
        for other in [Bound::SignIn, Bound::Again(session), Bound::Register([8; 16])] {
            assert_eq!(at(other, now), None, "{other:?}");
        }
        assert_eq!(at(Bound::Register(session), now + LIFETIME - Duration::from_micros(1)), Some(made.bytes));
        assert_eq!(at(Bound::Register(session), now + LIFETIME), None);
        let later = MacKeys::derive(&MasterKeys::new([2; 32], &[[1; 32]]), "passkey");
        assert_eq!(open(&later, Bound::Register(session), &made.id, now).unwrap().bytes, made.bytes);
        let others = MacKeys::derive(&MasterKeys::new([2; 32], &[]), "passkey");
        assert!(open(&others, Bound::Register(session), &made.id, now).is_none(), "another server's");
        assert!(open(&keys, Bound::SignIn, &Secret::new("pgc_nonsense".into()), now).is_none());
    }

    #[test]
    fn a_decoy_is_always_the_same_and_everybody_has_their_own() {
        let key = MacKey::new(b"k");
        assert_eq!(decoy(&key, "ada@example.com"), decoy(&key, "ada@example.com"));
        assert_ne!(decoy(&key, "ada@example.com"), decoy(&key, "eve@example.com"));
    }
}
