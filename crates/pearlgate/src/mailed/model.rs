//! Links and codes on paper: pure.

use std::time::Duration;

use foundation::db::Statement;
use foundation::kernel::{Digest, Entropy, MacKey, Secret};

/// Wrong guesses that a code survives.
pub const MAX_GUESSES: i64 = 5;
/// Wrong codes of one account, over all its mails: in a day, and in a row. Beyond them only links work, so that
/// nobody guesses a way in by asking for mail after mail.
pub(super) const MAX_WRONG_A_DAY: i64 = 10;
pub(super) const MAX_WRONG_IN_A_ROW: i64 = 100;

/// What the token of a "that was not me" begins with.
pub const NOT_ME: &str = "pgn_";

/// What a mail carries: it leaves once, only digests stay.
#[derive(Debug, Clone)]
pub struct Proofs {
    /// For the link.
    pub token: Secret,
    /// Six digits.
    pub code: Secret,
}

impl Proofs {
    /// Fresh ones; `prefix` tells the kind of token.
    pub fn new(prefix: &str, chance: &Entropy) -> Self {
        let code = format!("{:06}", chance.below(1_000_000));
        Self { token: Secret::encode(prefix, &chance.bytes::<32>()), code: Secret::new(code) }
    }
}

/// A purpose that mailed secrets have, and the statements of its table.
#[derive(Debug)]
pub struct Kind {
    /// What its tokens begin with: a token of one purpose is nothing to another (authentik CVE-2023-26481).
    pub prefix: &'static str,
    /// Binds its codes, and names its failures in the audit.
    pub purpose: &'static str,
    pub(super) by_link: &'static Statement,
    pub(super) spend: &'static Statement,
    pub(super) give_back: &'static Statement,
    pub(super) consume: &'static Statement,
}

/// Whether a text has the form of a token with this prefix; other texts are not looked up.
pub fn is_token(prefix: &str, text: &Secret) -> bool {
    text.decode::<32>(prefix).is_some()
}

/// A code under the server's key, bound to its purpose and to what it was made for: a bare digest of a million
/// possibilities is no secret.
pub fn code_digest(key: &MacKey, purpose: &str, bound_to: &[u8; 16], code: &Secret) -> Digest {
    let digits: String = code.reveal().chars().filter(|c| !c.is_whitespace()).collect();
    key.mac_parts(&[purpose.as_bytes(), bound_to, digits.as_bytes()])
}

/// What strangers can have sent. Each has only a share of what a mailbox gets, so that asking for one again and again
/// leaves something for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A verification.
    Verification,
    /// A reset.
    Reset,
    /// A magic link.
    MagicLink,
    /// Notice of a lock.
    Unlock,
    /// The code of a second step.
    SecondStep,
    /// An invitation: an operator asks for it, and strangers cannot use up their share of it.
    Invitation,
    /// What an operator does to somebody, who is told.
    Operator,
    /// What carries no way in: that an address has an account, or that somebody wants to move to it.
    Notice,
}

impl Asked {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Verification => "verification",
            Self::Reset => "reset",
            Self::MagicLink => "magic_link",
            Self::Unlock => "unlock",
            Self::SecondStep => "second_step",
            Self::Invitation => "invitation",
            Self::Operator => "operator",
            Self::Notice => "notice",
        }
    }
}

/// How many of one kind: three of five an hour, a third of a day's.
pub(super) fn share(per_hour: u32, per_day: u32) -> (i64, i64) {
    (i64::from((per_hour * 3).div_ceil(5)), i64::from(per_day.div_ceil(3)))
}

/// The mailbox of an address: what stands behind a `+` is the owner's own way to sort their mail, and no other mailbox.
pub(super) fn mailbox(address_key: &str) -> String {
    let Some((local, domain)) = address_key.rsplit_once('@') else { return address_key.to_owned() };
    let plain = local.split('+').next().filter(|plain| !plain.is_empty()).unwrap_or(local);
    format!("{plain}@{domain}")
}

/// `24 hours`, `15 minutes`, `90 seconds`, `7 days`: the largest unit that is exact; days from two on.
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (number, unit) = match seconds {
        s if s % 86_400 == 0 && s > 86_400 => (s / 86_400, "day"),
        s if s % 3600 == 0 => (s / 3600, "hour"),
        s if s % 60 == 0 => (s / 60, "minute"),
        s => (s, "second"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_bound_to_its_purpose_and_its_row() {
        let key = MacKey::new(b"k");
        let (one, other) = ([1; 16], [2; 16]);
        let code = Secret::new("123456".into());
        let digest = code_digest(&key, "verify", &one, &code);
        assert_eq!(digest, code_digest(&key, "verify", &one, &Secret::new("123 456".into())));
        assert_ne!(digest, code_digest(&key, "verify", &other, &code));
        assert_ne!(digest, code_digest(&key, "reset", &one, &code));
    }

    #[test]
    fn proofs_have_six_digits_and_256_bits() {
        let proofs = Proofs::new("pgv_", &Entropy::System);
        assert!(is_token("pgv_", &proofs.token) && !is_token("pgp_", &proofs.token));
        assert!(proofs.code.reveal().len() == 6 && proofs.code.reveal().bytes().all(|b| b.is_ascii_digit()));
    }

    #[test]
    fn a_tag_is_no_other_mailbox() {
        for (address, of) in [
            ("ada@example.com", "ada@example.com"),
            ("ada+news@example.com", "ada@example.com"),
            ("ada+a+b@example.com", "ada@example.com"),
            ("+@example.com", "+@example.com"),
        ] {
            assert_eq!(mailbox(address), of);
        }
    }

    #[test]
    fn durations_are_said_in_words() {
        for (seconds, words) in [
            (86_400, "24 hours"),
            (604_800, "7 days"),
            (3_600, "1 hour"),
            (900, "15 minutes"),
            (90, "90 seconds"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
