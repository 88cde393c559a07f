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
