//! A secret has two types: [`Secret`] is what leaves once (in a mail, in an answer), [`Digest`] is what stays.
//! Neither prints itself; a `Secret` is wiped when it is dropped.

use std::fmt;

use aws_lc_rs::{digest, hkdf, hmac};
use data_encoding::BASE64URL_NOPAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Text that must not be kept, logged or printed: a password, a token, a code.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Bytes as base64url without padding, after a prefix that tells the kind of token.
    pub fn encode(prefix: &str, bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(prefix.len() + BASE64URL_NOPAD.encode_len(bytes.len()));
        text.push_str(prefix);
        BASE64URL_NOPAD.encode_append(bytes, &mut text);
        Self::new(text)
    }

    /// The `N` bytes of a token that [`Secret::encode`] made with the same prefix; `None` for anything else.
    pub fn decode<const N: usize>(&self, prefix: &str) -> Option<[u8; N]> {
        let body = self.0.strip_prefix(prefix)?;
        BASE64URL_NOPAD.decode(body.as_bytes()).ok()?.try_into().ok()
    }

    /// The text itself: call it only where the secret is put to its use.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What may be stored instead of it when it has 128 bits or more.
    pub fn digest(&self) -> Digest {
        sha256(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::new)
    }
}

/// 32 bytes that stand for a secret in the database. Compared in constant time.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first `N` bytes, where fewer than 32 are enough.
    pub fn truncated<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(self.0) {
            *to = from;
        }
        out
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for Digest {}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    Digest(out)
}

/// A key for HMAC-SHA-256, made from the master key for one purpose.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// The key with these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The key for `purpose` under a master key (HKDF-SHA-256, RFC 5869): one purpose's key tells nothing
    /// about another's.
    pub fn derive(master: &[u8; 32], purpose: &str) -> Self {
        Self::new(&derive_bytes(master, purpose))
    }

    /// HMAC over the parts, each preceded by its length so that no two lists of parts give the same input.
    pub fn mac_parts(&self, parts: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        into_digest(context.sign().as_ref())
    }

    /// HMAC over one run of bytes.
    pub fn mac(&self, bytes: &[u8]) -> Digest {
        into_digest(hmac::sign(&self.0, bytes).as_ref())
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(…)")
    }
}

/// The master key and those before it. Everything is made under the first; what was made under another is still
/// read, until nothing rests under it any more.
#[derive(Clone)]
pub struct MasterKeys {
    current: Zeroizing<[u8; 32]>,
    older: Vec<Zeroizing<[u8; 32]>>,
}

impl MasterKeys {
    /// The configured key and its predecessors, newest first.
    pub fn new(current: [u8; 32], older: &[[u8; 32]]) -> Self {
        Self { current: Zeroizing::new(current), older: older.iter().copied().map(Zeroizing::new).collect() }
    }

    /// The key that everything is made under.
    pub fn current(&self) -> &[u8; 32] {
        &self.current
    }

    /// All of them, the current one first.
    pub fn all(&self) -> impl Iterator<Item = &[u8; 32]> {
        std::iter::once(&*self.current).chain(self.older.iter().map(|key| &**key))
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKeys(…)")
    }
}

/// One purpose's key under each master key.
#[derive(Debug, Clone)]
pub struct MacKeys {
    current: MacKey,
    older: Vec<MacKey>,
}

impl MacKeys {
    /// The keys for `purpose`.
    pub fn derive(master: &MasterKeys, purpose: &str) -> Self {
        let older = master.all().skip(1).map(|key| MacKey::derive(key, purpose)).collect();
        Self { current: MacKey::derive(master.current(), purpose), older }
    }

    /// The key that everything is made with.
    pub fn current(&self) -> &MacKey {
        &self.current
    }

    /// All of them, the current one first: what is checked may be any's.
    pub fn all(&self) -> impl Iterator<Item = &MacKey> {
        std::iter::once(&self.current).chain(&self.older)
    }
}

pub(super) fn derive_bytes(master: &[u8; 32], purpose: &str) -> [u8; 32] {
    let mut out = [0; 32];
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"pearlgate");
    let info = [purpose.as_bytes()];
    #[expect(clippy::expect_used, reason = "32 bytes are a length that HKDF-SHA-256 always gives")]
    salt.extract(master)
        .expand(&info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .expect("HKDF gives 32 bytes");
    out
}

fn into_digest(tag: &[u8]) -> Digest {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(tag) {
        *to = *from;
    }
    Digest(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_itself() {
        assert_eq!(format!("{:?} {:?}", Secret::new("hunter2".into()), sha256(b"x")), "Secret(…) Digest(…)");
    }

    #[test]
    fn parts_are_kept_apart() {
        let key = MacKey::derive(&[7; 32], "test");
        assert_ne!(key.mac_parts(&[b"ab", b"c"]), key.mac_parts(&[b"a", b"bc"]));
        assert_ne!(MacKey::derive(&[7; 32], "other").mac(b"x"), key.mac(b"x"));
    }

    #[test]
    fn a_token_decodes_only_under_its_own_prefix() {
        let token = Secret::encode("pgv_", &[9; 32]);
        assert_eq!(token.decode::<32>("pgv_"), Some([9; 32]));
        assert_eq!(token.decode::<32>("pgr_"), None);
        assert_eq!(token.decode::<16>("pgv_"), None);
        assert_eq!(Secret::new(format!("{}=", token.reveal())).decode::<32>("pgv_"), None);
    }
}
