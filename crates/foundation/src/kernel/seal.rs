//! What must be read again (a signing key, a mail that waits) rests sealed: AES-256-GCM under a key made from the
//! master key, with the key's id in front so that a later master key can tell its own from its predecessor's.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::Entropy;
use super::secret::{MasterKeys, derive_bytes, sha256};

const KEY_ID: usize = 4;
const NONCE: usize = 12;

/// Seals and opens bytes under the master key, each bound to a purpose.
#[derive(Clone)]
pub struct Sealer {
    /// The first one seals.
    keys: std::sync::Arc<[SealingKey]>,
    chance: Entropy,
}

struct SealingKey {
    id: [u8; KEY_ID],
    key: LessSafeKey,
}

/// The sealed bytes are not ours: another master key, another purpose, or changed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Sealed under a master key that is not configured here.
    #[error("sealed under another master key than the configured one")]
    OtherKey,
    /// Changed, cut short, or sealed for another purpose.
    #[error("the sealed bytes do not open: they were changed or belong elsewhere")]
    Damaged,
}

impl Sealer {
    /// Seals under the current master key and opens what is sealed under any.
    pub fn new(master: &MasterKeys, chance: Entropy) -> Self {
        Self { keys: master.all().map(SealingKey::derive).collect(), chance }
    }

    /// Whether it is sealed under a master key of before: worth sealing anew.
    pub fn is_outdated(&self, sealed: &[u8]) -> bool {
        self.keys.first().is_some_and(|key| !sealed.starts_with(&key.id))
    }

    /// Seals `plain` for `purpose`: key id, nonce, ciphertext with tag.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE] = self.chance.bytes();
        let mut body = plain.to_vec();
        let SealingKey { id, key } = self.keys.first().ok_or(SealError::OtherKey)?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), &mut body)
            .map_err(|_| SealError::Damaged)?;
        Ok([id.as_slice(), &nonce, &body].concat())
    }

    /// Opens what [`Sealer::seal`] made for the same purpose.
    ///
    /// # Errors
    /// [`SealError`] says whether the key or the bytes are wrong.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (key_id, rest) = sealed.split_first_chunk::<KEY_ID>().ok_or(SealError::Damaged)?;
        let SealingKey { key, .. } =
            self.keys.iter().find(|key| key.id == *key_id).ok_or(SealError::OtherKey)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE>().ok_or(SealError::Damaged)?;
        let mut body = Zeroizing::new(body.to_vec());
        let plain = key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(purpose), &mut body)
            .map_err(|_| SealError::Damaged)?
            .len();
        body.truncate(plain);
        Ok(body)
    }
}

impl SealingKey {
    #[expect(clippy::expect_used, reason = "AES-256 takes every 32-byte key")]
    fn derive(master: &[u8; 32]) -> Self {
        let bytes = Zeroizing::new(derive_bytes(master, "seal"));
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice()).expect("a 32-byte key");
        Self { id: sha256(bytes.as_slice()).truncated(), key: LessSafeKey::new(key) }
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_unchanged_under_its_key_for_its_purpose() {
        let sealer = Sealer::new(&MasterKeys::new([1; 32], &[]), Entropy::System);
        let sealed = sealer.seal("mail", b"the code is 123456").unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"123456"));
        assert_eq!(sealer.open("mail", &sealed).unwrap().as_slice(), b"the code is 123456");
        assert_eq!(sealer.open("key", &sealed).unwrap_err(), SealError::Damaged);
        assert_eq!(
            Sealer::new(&MasterKeys::new([2; 32], &[]), Entropy::System).open("mail", &sealed).unwrap_err(),
            SealError::OtherKey
        );
        let later = Sealer::new(&MasterKeys::new([2; 32], &[[1; 32]]), Entropy::System);
        assert_eq!(later.open("mail", &sealed).unwrap().as_slice(), b"the code is 123456");
        assert!(later.is_outdated(&sealed) && !later.is_outdated(&later.seal("mail", b"x").unwrap()));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.open("mail", &changed).is_err());
            assert!(sealer.open("mail", &sealed[..at]).is_err());
        }
    }
}
