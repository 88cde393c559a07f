//! Second factors on paper: pure.

use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE32_NOPAD;
use foundation::db;
use foundation::kernel::{Digest, Entropy, FieldError, Id, Problem, Secret, Timestamp, sha256};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::accounts::UserRow;
use crate::errors;
use crate::sessions::Barred;

/// What seeds of authenticator apps are sealed for.
pub const SEALED_FOR: &str = "totp";
/// What the token of a sign-in between its two steps begins with.
pub(super) const PREFIX: &str = "pgm_";
/// Wrong codes in a row after which the next one has to wait, and after which none is looked at any more
/// (NIST SP 800-63B-4 §3.2.2).
pub(super) const PAUSE_AFTER: u32 = 10;
pub(super) const OFF_AFTER: i64 = 100;
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(60);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// Codes of a set.
pub(super) const RECOVERY_CODES: usize = 10;
/// Without letters and digits that look like others; 16 of them are 79 bits.
const ALPHABET: &[u8; 31] = b"23456789abcdefghjkmnpqrstuvwxyz";
const SYMBOLS: usize = 16;
/// RFC 4226 §4 recommends 20 bytes.
const SEED: usize = 20;
/// RFC 3986 §2.3: everything else is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An authenticator app's secret and how it makes codes of it (RFC 6238), as it rests sealed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Totp {
    /// Base32 without padding.
    #[serde(serialize_with = "reveal")]
    pub secret: Secret,
    /// Digits of a code.
    pub digits: u32,
    /// How long a code holds, in seconds.
    pub period: u32,
    /// `SHA1`, `SHA256` or `SHA512`.
    pub algorithm: String,
}

fn reveal<S: serde::Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.reveal())
}

impl Totp {
    /// A new one, as every authenticator app takes it.
    pub fn new(chance: &Entropy) -> Self {
        let secret = Secret::new(BASE32_NOPAD.encode(&chance.bytes::<SEED>()));
        Self { secret, digits: 6, period: 30, algorithm: "SHA1".into() }
    }

    /// What an app is told, mostly by a picture.
    pub(super) fn uri(&self, issuer: &str, account: &str) -> String {
        let (issuer, account) = (utf8_percent_encode(issuer, ESCAPED), utf8_percent_encode(account, ESCAPED));
        format!(
            "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm={}&digits={}&period={}",
            self.secret.reveal(),
            self.algorithm,
            self.digits,
            self.period
        )
    }

    /// The code of a step (RFC 4226 §5.3); none for a secret that is none.
    fn code(&self, step: i64) -> Option<String> {
        let algorithm = match self.algorithm.as_str() {
            "SHA1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            "SHA256" => hmac::HMAC_SHA256,
            "SHA512" => hmac::HMAC_SHA512,
            _ => return None,
        };
        let seed = BASE32_NOPAD.decode(self.secret.reveal().as_bytes()).ok()?;
        let tag = hmac::sign(&hmac::Key::new(algorithm, &seed), &step.to_be_bytes());
        let offset = usize::from(tag.as_ref().last()? & 0x0f);
        let (four, _) = tag.as_ref().get(offset..)?.split_first_chunk::<4>()?;
        let number = u64::from(u32::from_be_bytes(*four) & 0x7fff_ffff);
        let digits = usize::try_from(self.digits).ok()?;
        Some(format!("{:0digits$}", number % 10_u64.checked_pow(self.digits)?))
    }

    /// The newest step that a code is of: the present one, or one before or after it, for clocks that differ.
    pub(super) fn step_of(&self, code: &Secret, now: Timestamp) -> Option<i64> {
        let typed: String = code.reveal().chars().filter(|c| !c.is_whitespace()).collect();
        let present = now.seconds().checked_div(i64::from(self.period))?;
        let mut found = None;
        for step in [present - 1, present, present + 1] {
            if self.code(step).is_some_and(|code| code.as_bytes().ct_eq(typed.as_bytes()).into()) {
                found = Some(step);
            }
        }
        found
    }
}

/// A new set of recovery codes, as a person writes them down.
pub(super) fn recovery_codes(chance: &Entropy) -> Vec<Secret> {
    let symbol = || {
        let at = chance.below(u32::try_from(ALPHABET.len()).unwrap_or(1));
        ALPHABET.get(usize::try_from(at).unwrap_or(0)).map_or('2', |byte| char::from(*byte))
    };
    let code = || {
        let symbols: Vec<char> = (0..SYMBOLS).map(|_| symbol()).collect();
        let groups: Vec<String> = symbols.chunks(4).map(|group| group.iter().collect()).collect();
        Secret::new(groups.join("-"))
    };
    (0..RECOVERY_CODES).map(|_| code()).collect()
}

/// What stays of a recovery code, however it is typed; it is long enough to need no key.
pub(super) fn recovery_digest(user: Id<UserRow>, code: &Secret) -> Digest {
    let plain = code.reveal().chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase());
    let plain = Secret::new(plain.collect());
    sha256(&[b"recovery code", user.as_bytes().as_slice(), plain.reveal().as_bytes()].concat())
}

/// Why something about factors is refused.
#[derive(Debug)]
pub enum Refusal {
    /// Not a token of this kind.
    TokenInvalid,
    /// The sign-in took too long, or was finished.
    TokenExpired,
    /// Wrong, used, or of a kind that the account does not have. One answer for all of them.
    CodeInvalid,
    /// So many were wrong that the next one waits for so long.
    Paused(Duration),
    /// So many were wrong that none is looked at any more.
    SwitchedOff,
    /// This sign-in is not for that.
    NotAllowed,
    /// What is there does not go with it.
    Conflict(&'static str),
    /// There is none.
    NotFound,
    /// The first step was made with the other transport.
    OtherTransport,
    /// Devices are not trusted here.
    NoTrust,
    /// The mailbox has had as many mails as it gets.
    TooManyMails,
    /// The first step does not hold any more.
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
            Refusal::TokenInvalid => errors::problem("token_invalid"),
            Refusal::TokenExpired | Refusal::Barred(Barred::Outdated) => errors::problem("mfa_token_expired"),
            Refusal::CodeInvalid => errors::problem("mfa_code_invalid"),
            Refusal::Paused(left) => {
                let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                errors::problem("too_many_attempts")
                    .detail("Too many codes were wrong, so the next one is not looked at before a while has passed.")
                    .retry_after(seconds.max(1))
            }
            Refusal::SwitchedOff => errors::problem("account_locked")
                .detail(
                    "So many codes were wrong that this factor was switched off: set it up anew in a session that has shown it a moment ago, \
                     or ask whoever operates the service.",
                )
                .retry_after(LONGEST_PAUSE.as_secs()),
            Refusal::NotAllowed => errors::problem("permission_denied")
                .detail("This sign-in is not for setting up a factor: the account has one, or none is demanded."),
            Refusal::Conflict(detail) => errors::problem("conflict").detail(detail),
            Refusal::NotFound => Self::not_found(),
            Refusal::OtherTransport => field("transport", "invalid", "is the one that the first step was made with"),
            Refusal::NoTrust => field("trust_device", "invalid", "this service asks for the factor at every sign-in"),
            Refusal::TooManyMails => errors::problem("too_many_attempts")
                .detail("This mailbox has had as many codes as it gets in an hour.")
                .retry_after(LONGEST_PAUSE.as_secs()),
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
impl From<Barred> for Refusal {
    fn from(barred: Barred) -> Self {
        Self::Barred(barred)
    }
}
impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(seed: &[u8], digits: u32, algorithm: &str) -> Totp {
        let secret = Secret::new(BASE32_NOPAD.encode(seed));
        Totp { secret, digits, period: 30, algorithm: algorithm.into() }
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238, appendix B.
        let twenty = b"12345678901234567890";
        let thirty_two = b"12345678901234567890123456789012";
        let sixty_four = b"1234567890123456789012345678901234567890123456789012345678901234";
        for (seconds, sha1, sha256, sha512) in [
            (59, "94287082", "46119246", "90693936"),
            (1_111_111_109, "07081804", "68084774", "25091201"),
            (1_234_567_890, "89005924", "91819424", "93441116"),
            (20_000_000_000, "65353130", "77737706", "47863826"),
        ] {
            assert_eq!(of(twenty, 8, "SHA1").code(seconds / 30).unwrap(), sha1);
            assert_eq!(of(thirty_two, 8, "SHA256").code(seconds / 30).unwrap(), sha256);
            assert_eq!(of(sixty_four, 8, "SHA512").code(seconds / 30).unwrap(), sha512);
        }
        // RFC 4226, appendix D.
        assert_eq!(of(twenty, 6, "SHA1").code(1).unwrap(), "287082");
    }

    proptest! {
        #[test]
        fn a_code_is_accepted_one_step_early_or_late_and_no_more(step in 100i64..100_000_000, off in -5i64..=5) {
            let totp = of(b"12345678901234567890", 6, "SHA1");
            let code = totp.code(step).unwrap();
            let now = Timestamp::from_micros((step + off) * 30_000_000 + 12_345_678);
            let found = totp.step_of(&Secret::new(format!("{} {}", &code[..3], &code[3..])), now);
            prop_assert_eq!(found == Some(step), off.abs() <= 1);
        }

        #[test]
        fn nothing_else_is_a_code(text in "\\PC{0,12}") {
            let totp = of(b"12345678901234567890", 6, "SHA1");
            let now = Timestamp::from_micros(59_000_000);
            let known = [0, 1, 2].map(|step| totp.code(step).unwrap());
            let typed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            prop_assert_eq!(totp.step_of(&Secret::new(text), now).is_some(), known.contains(&typed));
        }
    }

    #[test]
    fn an_app_is_told_in_its_own_words() {
        let uri = of(b"12345678901234567890", 6, "SHA1").uri("Ada & Söhne", "ada+x@example.com");
        assert_eq!(
            uri,
            "otpauth://totp/Ada%20%26%20S%C3%B6hne:ada%2Bx%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=Ada%20%26%20S%C3%B6hne&algorithm=SHA1&digits=6&period=30"
        );
    }

    #[test]
    fn a_recovery_code_is_one_however_it_is_typed() {
        let codes = recovery_codes(&Entropy::System);
        assert_eq!(codes.len(), RECOVERY_CODES);
        let (one, other) = (Id::from_bytes([1; 16]), Id::from_bytes([2; 16]));
        for code in &codes {
            let text = code.reveal();
            assert!(text.len() == 19 && text.split('-').all(|group| group.len() == 4), "four groups of four");
            let typed = Secret::new(text.to_uppercase().replace('-', " "));
            assert_eq!(recovery_digest(one, code), recovery_digest(one, &typed));
            assert_ne!(recovery_digest(one, code), recovery_digest(other, code));
        }
        let bits = (ALPHABET.len() as f64).log2() * SYMBOLS as f64;
        assert!(bits >= 64.0, "{bits} bits");
    }
}
