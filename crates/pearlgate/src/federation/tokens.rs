//! Is it an ID token of this provider's, for us, of now? (OpenID Connect Core §3.1.3.7.) Pure.

use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use foundation::kernel::{Secret, Timestamp, sha256};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use super::provider::{Issuer, Provider};

/// Larger is no token.
const LARGEST: usize = 16 * 1024;
/// How far clocks may be apart.
const SKEW: Duration = Duration::from_secs(60);
/// How old a token may be when it is shown.
const OLDEST: Duration = Duration::from_secs(600);
/// Characters of a subject (OpenID Connect Core §2).
const LONGEST_SUBJECT: usize = 255;
/// Bits of an RSA key.
const SMALLEST_RSA: usize = 2_048;

/// What may have signed: keys of two halves alone.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It is no token, or one with something that has to be understood.
    Unreadable,
    /// It is signed by nothing, or by an algorithm that is not allowed.
    Algorithm,
    /// No key of the issuer's has this id, or it is not said which of several it is.
    Key,
    /// The signature is not the key's.
    Signature,
    /// It is another issuer's.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It is not of now.
    Time,
    /// It is of another sign-in.
    Nonce,
    /// It says of nobody.
    Subject,
    /// It belongs to another access token.
    AccessToken,
    /// The sign-in was too long ago.
    Age,
    /// What the provider says elsewhere is about somebody else, or makes no sense.
    UserInfo,
    /// The provider does not take the code.
    Code,
}

/// What a token has to fit.
#[derive(Debug)]
pub(super) struct Expected<'e> {
    pub(super) provider: &'e Provider,
    pub(super) issuer: &'e Issuer,
    /// Whom it may be for.
    pub(super) audiences: Vec<&'e str>,
    pub(super) nonce: &'e str,
    /// Whether the nonce may be in it as a digest: of an application that does not give it away.
    pub(super) hashed_nonce: bool,
    /// The access token that came with it.
    pub(super) access_token: Option<&'e Secret>,
    pub(super) now: Timestamp,
}

/// A key, and whose tokens it is for when it says so (Microsoft's do).
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) jwk: Jwk,
    pub(super) issuer: Option<String>,
}

/// What the token says.
pub(super) type Claims = Map<String, Value>;

/// Checks a token.
pub(super) fn check(expected: &Expected<'_>, keys: &[Key], token: &Secret) -> Result<Claims, Flaw> {
    let text = token.reveal();
    if text.len() > LARGEST {
        return Err(Flaw::Unreadable);
    }
    let header = header(text)?;
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(|name| name.parse().ok());
    let algorithm: Algorithm = algorithm.filter(|one| ALGORITHMS.contains(one)).ok_or(Flaw::Algorithm)?;
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.as_str()),
        Some(_) => return Err(Flaw::Unreadable),
    };
    let key = key_for(keys, algorithm, kid).ok_or(Flaw::Key)?;
    let key_issuer = key.issuer.as_deref();
    let key = DecodingKey::from_jwk(&key.jwk).map_err(|_| Flaw::Key)?;
    let mut rules = Validation::new(algorithm);
    // The signature is checked there; what the token says below, by our clock.
    rules.required_spec_claims.clear();
    (rules.validate_exp, rules.validate_aud, rules.validate_nbf) = (false, false, false);
    let claims = jsonwebtoken::decode::<Claims>(text, &key, &rules).map_err(|_| Flaw::Signature)?.claims;
    says(expected, &claims)?;
    if !expected.issuer.has_key_of(key_issuer, claims.get("tid").and_then(Value::as_str)) {
        return Err(Flaw::Key);
    }
    if let (Some(access), Some(hash)) = (expected.access_token, claims.get("at_hash")) {
        let right = hash.as_str().is_some_and(|hash| is_hash(algorithm, access, hash));
        if !right {
            return Err(Flaw::AccessToken);
        }
    }
    Ok(claims)
}

fn header(text: &str) -> Result<Map<String, Value>, Flaw> {
    let first = text.split('.').next().unwrap_or_default();
    let bytes = BASE64URL_NOPAD.decode(first.as_bytes()).map_err(|_| Flaw::Unreadable)?;
    let header: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|_| Flaw::Unreadable)?;
    // RFC 7515 §4.1.11: what has to be understood, and is not.
    if header.contains_key("crit") { Err(Flaw::Unreadable) } else { Ok(header) }
}

/// The one key that a token names; without a name, the only one that fits.
fn key_for<'k>(keys: &'k [Key], algorithm: Algorithm, kid: Option<&str>) -> Option<&'k Key> {
    let mut fitting = keys.iter().filter(|key| {
        let named = kid.is_none() || key.jwk.common.key_id.as_deref() == kid;
        named && fits(&key.jwk, algorithm)
    });
    fitting.next().filter(|_| fitting.next().is_none())
}

fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA};
    let signs = key.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let said = key.common.key_algorithm.is_none_or(|name| name.to_string().parse() == Ok(algorithm));
    let family = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(rsa), one) => {
            let bits = BASE64URL_NOPAD.decode(rsa.n.as_bytes()).map_or(0, |n| n.len() * 8);
            bits >= SMALLEST_RSA && ![ES256, ES384, EdDSA].contains(&one)
        }
        (AlgorithmParameters::EllipticCurve(curve), ES256) => curve.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(curve), ES384) => curve.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(pair), EdDSA) => pair.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    signs && said && family
}

fn says(expected: &Expected<'_>, claims: &Claims) -> Result<(), Flaw> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let issuer = expected.issuer.of(text("tid")).ok_or(Flaw::Issuer)?;
    if text("iss") != Some(issuer.as_str()) {
        return Err(Flaw::Issuer);
    }
    audience(expected, claims)?;
    let seconds = |name: &str| claims.get(name).and_then(Value::as_f64).filter(|seconds| *seconds > 0.0);
    let (now, skew) = (as_seconds(expected.now), SKEW.as_secs_f64());
    let (expires, issued) = (seconds("exp").ok_or(Flaw::Time)?, seconds("iat").ok_or(Flaw::Time)?);
    if expires + skew <= now || issued - skew > now || issued + OLDEST.as_secs_f64() + skew < now {
        return Err(Flaw::Time);
    }
    if claims.contains_key("nbf") && seconds("nbf").is_none_or(|from| from - skew > now) {
        return Err(Flaw::Time);
    }
    let nonce = text("nonce").ok_or(Flaw::Nonce)?;
    let hashed = HEXLOWER.encode(sha256(expected.nonce.as_bytes()).as_bytes());
    let same = |other: &str| bool::from(nonce.as_bytes().ct_eq(other.as_bytes()));
    if expected.nonce.is_empty() || !(same(expected.nonce) || (expected.hashed_nonce && same(&hashed))) {
        return Err(Flaw::Nonce);
    }
    subject(claims)?;
    if let Some(max_age) = expected.provider.max_age {
        let at = seconds("auth_time").ok_or(Flaw::Age)?;
        if at + max_age.as_secs_f64() + skew < now || at - skew > now {
            return Err(Flaw::Age);
        }
    }
    Ok(())
}

fn as_seconds(at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "seconds of this millennium are exact in a float")]
    let seconds = at.seconds() as f64;
    seconds
}

fn audience(expected: &Expected<'_>, claims: &Claims) -> Result<(), Flaw> {
    let all: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => {
            all.iter().map(Value::as_str).collect::<Option<_>>().ok_or(Flaw::Audience)?
        }
        _ => return Err(Flaw::Audience),
    };
    let ours = |name: &&str| expected.audiences.contains(name);
    let party = match claims.get("azp") {
        None => None,
        Some(party) => Some(party.as_str().ok_or(Flaw::Audience)?),
    };
    let right = match (all.as_slice(), party) {
        // Google's applications name themselves as the party, and the server as the audience.
        ([_], None) => all.iter().all(ours),
        ([one], Some(party)) => ours(one) && ours(&party),
        (_, Some(party)) => all.iter().any(ours) && ours(&party),
        (_, None) => false,
    };
    if right { Ok(()) } else { Err(Flaw::Audience) }
}

/// Who it is about.
pub(super) fn subject(claims: &Claims) -> Result<&str, Flaw> {
    let subject = claims.get("sub").and_then(Value::as_str).ok_or(Flaw::Subject)?;
    let fine =
        !subject.is_empty() && subject.len() <= LONGEST_SUBJECT && !subject.chars().any(char::is_control);
    if fine { Ok(subject) } else { Err(Flaw::Subject) }
}

/// `at_hash`: the left half of the access token's digest (§3.1.3.6).
fn is_hash(algorithm: Algorithm, access: &Secret, hash: &str) -> bool {
    use Algorithm::{ES384, EdDSA, PS384, PS512, RS384, RS512};
    let with = match algorithm {
        RS384 | PS384 | ES384 => &digest::SHA384,
        RS512 | PS512 | EdDSA => &digest::SHA512,
        _ => &digest::SHA256,
    };
    let whole = digest::digest(with, access.reveal().as_bytes());
    let half = whole.as_ref().get(..whole.as_ref().len() / 2).unwrap_or_default();
    BASE64URL_NOPAD.encode(half).as_bytes().ct_eq(hash.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenID Connect Core, A.3, for the first; the others by another implementation of SHA-2.
    #[test]
    fn an_access_tokens_hash_is_as_long_as_the_algorithm_says() {
        let access = Secret::new("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y".to_owned());
        let hashes = [
            "77QmUPtjPfzWtF2AnpK9RQ",
            "jtAeDp945y1dDqU3nkIVGNZP1HjH_MFs",
            "q7nS86GgvvFaZkzALLWqJYaJIKw2wCDAVfCAsm5CrBM",
        ];
        for (algorithm, right) in [
            (Algorithm::RS256, 0),
            (Algorithm::PS256, 0),
            (Algorithm::ES256, 0),
            (Algorithm::RS384, 1),
            (Algorithm::PS384, 1),
            (Algorithm::ES384, 1),
            (Algorithm::RS512, 2),
            (Algorithm::PS512, 2),
            (Algorithm::EdDSA, 2),
        ] {
            for (n, hash) in hashes.iter().enumerate() {
                assert_eq!(is_hash(algorithm, &access, hash), n == right, "{algorithm:?}, {hash}");
            }
            assert!(!is_hash(algorithm, &Secret::new("another".to_owned()), hashes[right]));
        }
    }
}
