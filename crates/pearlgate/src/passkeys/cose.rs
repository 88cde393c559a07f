//! Keys as authenticators write them (CBOR, COSE_Key): read strictly, and used to look at signatures. Pure.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use ciborium::Value;

use super::ceremony::Flaw;

/// COSE's numbers of what we take: ECDSA with P-256, Ed25519, RSA PKCS#1 v1.5, each with SHA-256 where it has a hash.
pub(super) const ALGORITHMS: [i64; 3] = [ES256, EDDSA, RS256];
const ES256: i64 = -7;
const EDDSA: i64 = -8;
const RS256: i64 = -257;
/// Of nested CBOR: what is deeper is no key and no attestation.
const DEPTH: usize = 8;

/// The next item, and the bytes behind it.
pub(super) fn take(rest: &mut &[u8]) -> Result<Value, Flaw> {
    ciborium::de::from_reader_with_recursion_limit(rest, DEPTH).map_err(|_| Flaw::Unreadable)
}

/// The one item that these bytes are.
pub(super) fn cbor(all: &[u8]) -> Result<Value, Flaw> {
    let mut rest = all;
    let value = take(&mut rest)?;
    if rest.is_empty() { Ok(value) } else { Err(Flaw::Unreadable) }
}

/// A public key (RFC 9053 §7, RFC 8230 §4): exactly what its algorithm needs, and nothing twice.
pub(super) enum CoseKey {
    P256 { point: Vec<u8> },
    Ed25519 { point: Vec<u8> },
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl CoseKey {
    pub(super) fn read(raw: &[u8]) -> Result<Self, Flaw> {
        let map = cbor(raw)?.into_map().map_err(|_| Flaw::Key)?;
        let mut labels = Vec::new();
        for (label, _) in &map {
            let label = number(label).ok_or(Flaw::Key)?;
            if labels.contains(&label) {
                return Err(Flaw::Key);
            }
            labels.push(label);
        }
        let part = |wanted: i64| map.iter().find(|(label, _)| number(label) == Some(wanted)).map(|(_, v)| v);
        let int = |label| part(label).and_then(number);
        let blob = |label| part(label).and_then(Value::as_bytes).cloned().ok_or(Flaw::Key);
        let key = match (int(1), int(3), int(-1)) {
            (Some(2), Some(ES256), Some(1)) => {
                let (x, y) = (blob(-2)?, blob(-3)?);
                if x.len() != 32 || y.len() != 32 {
                    return Err(Flaw::Key);
                }
                Self::P256 { point: [vec![4], x, y].concat() }
            }
            (Some(1), Some(EDDSA), Some(6)) => Self::Ed25519 { point: blob(-2)? },
            (Some(3), Some(RS256), _) => Self::Rsa { n: blob(-1)?, e: blob(-2)? },
            _ => return Err(Flaw::Key),
        };
        // Whether the point lies on its curve is found out here, and not at the first use.
        key.parse()?;
        Ok(key)
    }

    fn parse(&self) -> Result<(), Flaw> {
        let parsed = match self {
            Self::P256 { point } => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).is_ok(),
            // The library takes a key in an X.509 wrapping, too; COSE has none.
            Self::Ed25519 { point } => point.len() == 32 && ParsedPublicKey::new(&ED25519, point).is_ok(),
            Self::Rsa { n, e } => {
                let whole = |number: &[u8]| number.first().is_some_and(|byte| *byte != 0);
                (256..=1_024).contains(&n.len()) && (1..=8).contains(&e.len()) && whole(n) && whole(e)
            }
        };
        if parsed { Ok(()) } else { Err(Flaw::Key) }
    }

    pub(super) fn algorithm(&self) -> i64 {
        match self {
            Self::P256 { .. } => ES256,
            Self::Ed25519 { .. } => EDDSA,
            Self::Rsa { .. } => RS256,
        }
    }

    pub(super) fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), Flaw> {
        let verified = match self {
            Self::P256 { point } => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(signed, signature)
            }
            Self::Ed25519 { point } => UnparsedPublicKey::new(&ED25519, point).verify(signed, signature),
            Self::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
            }
        };
        verified.map_err(|_| Flaw::Signature)
    }
}

pub(super) fn number(value: &Value) -> Option<i64> {
    value.as_integer().and_then(|integer| integer.try_into().ok())
}
