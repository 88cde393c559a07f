//! Proof of work in the form of Altcha (version 1): a hash to be found costs a browser a moment and a flood of guesses a
//! machine. No third party is asked.
//!
//! The salt ends in `&`, so that no digit can be moved from it into the number (Altcha CVE-2025-68113).

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use foundation::kernel::{Entropy, MacKey, MacKeys, Timestamp, sha256};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

const ALGORITHM: &str = "SHA-256";
/// The largest number to be found: a tenth of a second of a browser's hashing, on average half of it.
const MOST: u32 = 50_000;
/// How long a challenge can be solved.
const LIFE: Duration = Duration::from_secs(300);
/// Longer than any that is ours.
const LONGEST: usize = 1_024;

/// What has to be solved.
#[derive(Debug, Serialize, ToSchema)]
pub struct Challenge {
    /// Always `SHA-256`.
    #[schema(example = "SHA-256")]
    algorithm: &'static str,
    /// The hash of the salt followed by the number, in hexadecimal digits.
    challenge: String,
    /// The largest number that it can be.
    maxnumber: u32,
    /// What stands before the number; says when the challenge expires.
    salt: String,
    /// Ours.
    signature: String,
}

/// A solution, as it stands in base64 in `proof_of_work`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Solution {
    algorithm: String,
    challenge: String,
    number: u32,
    salt: String,
    signature: String,
    /// How long it took, says the widget.
    #[serde(default, rename = "took")]
    _took: Option<f64>,
}

/// A new challenge.
pub(super) fn challenge(keys: &MacKeys, chance: &Entropy, now: Timestamp) -> Challenge {
    let expires = (now + LIFE).micros() / 1_000_000;
    let salt = format!("{}?expires={expires}&", HEXLOWER.encode(&chance.bytes::<12>()));
    let challenge = hash(&salt, chance.below(MOST + 1));
    let signature = sign(keys.current(), &challenge);
    Challenge { algorithm: ALGORITHM, challenge, maxnumber: MOST, salt, signature }
}

/// The challenge that a solution solves, when it is one of ours, solved, and not expired. Whether it was used before is
/// for a counter to say.
pub(super) fn solved(keys: &MacKeys, text: &str, now: Timestamp) -> Option<String> {
    let text = Some(text).filter(|text| text.len() <= LONGEST)?;
    let solution: Solution = serde_json::from_slice(&BASE64.decode(text.as_bytes()).ok()?).ok()?;
    let (_, parameters) = solution.salt.split_once('?')?;
    let expires: i64 = parameters.strip_prefix("expires=")?.strip_suffix('&')?.parse().ok()?;
    let signature: [u8; 32] = HEXLOWER.decode(solution.signature.as_bytes()).ok()?.try_into().ok()?;
    let ours = keys.all().any(|key| {
        let expected = key.mac(solution.challenge.as_bytes());
        expected.as_bytes().as_slice().ct_eq(signature.as_slice()).into()
    });
    (solution.algorithm == ALGORITHM
        && solution.number <= MOST
        && ours
        && hash(&solution.salt, solution.number) == solution.challenge
        && expires.saturating_mul(1_000_000) > now.micros())
    .then_some(solution.challenge)
}

fn hash(salt: &str, number: u32) -> String {
    HEXLOWER.encode(sha256(format!("{salt}{number}").as_bytes()).as_bytes())
}

fn sign(key: &MacKey, challenge: &str) -> String {
    HEXLOWER.encode(key.mac(challenge.as_bytes()).as_bytes())
}

#[cfg(test)]
mod tests {
    use foundation::kernel::MasterKeys;

    use super::*;

    #[test]
    fn whoever_finds_the_number_has_solved_it_until_it_expires() {
        let keys = MacKeys::derive(&MasterKeys::new([1; 32], &[]), "work");
        let now = Timestamp::from_micros(1_795_430_000_000_000);
        let c = challenge(&keys, &Entropy::System, now);
        let number = (0..=MOST).find(|n| hash(&c.salt, *n) == c.challenge).unwrap();
        let payload = |number: u32, signature: &str| {
            let (salt, challenge) = (&c.salt, &c.challenge);
            let json = serde_json::json!({ "algorithm": "SHA-256", "challenge": challenge, "number": number,
                "salt": salt, "signature": signature, "took": 12 });
            BASE64.encode(json.to_string().as_bytes())
        };
        let good = payload(number, &c.signature);
        assert_eq!(solved(&keys, &good, now).as_deref(), Some(c.challenge.as_str()));
        assert_eq!(solved(&keys, &good, now + LIFE), None, "too late");
        assert_eq!(solved(&keys, &payload(number ^ 1, &c.signature), now), None, "another number");
        assert_eq!(solved(&keys, &payload(number, &c.challenge), now), None, "not ours");
        let later = MacKeys::derive(&MasterKeys::new([2; 32], &[[1; 32]]), "work");
        assert!(solved(&later, &good, now).is_some(), "the master key changed");
        for nonsense in ["", "e30=", "!", &"A".repeat(5_000)] {
            assert_eq!(solved(&keys, nonsense, now), None);
        }
    }
}
