//! What each scheme computes, and how much of it we are ready to do. The caps keep one check under about three
//! seconds of one 2020s server core and 256 MiB; what people really use lies far below them.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, pbkdf2};
use blowfish::Blowfish;
use data_encoding::HEXLOWER;
use md5::{Digest, Md5};

/// Of bcrypt; 12 is usual, one more is twice the time.
const MAX_BCRYPT_COST: u64 = 15;
/// Of PBKDF2: iterations, times the blocks of output (one, for every system that we know). OWASP asks for 1.3
/// million with SHA-1, 600,000 with SHA-256.
const MAX_PBKDF2_ITERATIONS: u64 = 4_000_000;
/// Of scrypt: bytes; 128·N·r, and 128·r for each lane and for itself.
const MAX_SCRYPT_MEMORY: u64 = 257 << 20;
/// Of scrypt: N·r·p, to which its time is proportional. OWASP's N=2^17, r=8, p=1 is 2^20.
const MAX_SCRYPT_BLOCKS: u64 = 1 << 22;
/// Of SHA-crypt; Passlib writes up to 656,000.
const MAX_CRYPT_ROUNDS: u64 = 1_000_000;
/// Of phpass: 2 to this power rounds of MD5. WordPress wrote 13.
const MAX_PHPASS_LOG: usize = 20;
/// Of SHA-crypt and phpass, which hash the whole password in each round: rounds times (its bytes and a block's), so
/// that a very long one cannot multiply what the rounds' cap allows.
const MAX_ROUND_BYTES: u64 = 1 << 28;

/// bcrypt sees no more than this many bytes of a password.
const BCRYPT_BYTES: usize = 72;

/// A hash function, alone or inside PBKDF2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Prf {
    Sha1,
    Sha256,
    Sha512,
}

/// What is done to a password before bcrypt sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Prehash {
    None,
    /// Django's way around the 72 bytes.
    HexSha256,
}

/// scrypt's numbers (RFC 7914).
pub(super) struct Scrypt {
    pub(super) log_n: u64,
    pub(super) r: u64,
    pub(super) p: u64,
    pub(super) salt: Vec<u8>,
}

/// What a stored hash asks for.
pub(super) enum Work {
    /// `signed`: `$2x$`, made by crypt_blowfish before 1.1, which took bytes for signed numbers.
    Bcrypt {
        cost: u64,
        salt: Vec<u8>,
        signed: bool,
        prehash: Prehash,
    },
    Scrypt(Scrypt),
    /// scrypt makes a key, with which the project's signer key is encrypted; that is the hash.
    Firebase {
        scrypt: Scrypt,
        signer: Vec<u8>,
    },
    Pbkdf2 {
        prf: Prf,
        iterations: u64,
        salt: Vec<u8>,
    },
    Phpass {
        log_rounds: usize,
        salt: Vec<u8>,
    },
    ShaCrypt {
        prf: Prf,
        rounds: u64,
        salt: Vec<u8>,
    },
    Salted {
        prf: Prf,
        salt: Vec<u8>,
    },
}

impl Work {
    /// Scheme and cost.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Bcrypt { cost, prehash: Prehash::None, .. } => format!("bcrypt:{cost}"),
            Self::Bcrypt { cost, prehash: Prehash::HexSha256, .. } => format!("bcrypt-sha256:{cost}"),
            Self::Scrypt(Scrypt { log_n, r, p, .. }) => format!("scrypt:ln={log_n},r={r},p={p}"),
            Self::Firebase { scrypt: Scrypt { log_n, r, p, .. }, .. } => {
                format!("firebase-scrypt:ln={log_n},r={r},p={p}")
            }
            Self::Pbkdf2 { prf, iterations, .. } => format!("pbkdf2-{}:{iterations}", prf.name()),
            Self::Phpass { log_rounds, .. } => format!("phpass:{log_rounds}"),
            Self::ShaCrypt { prf, rounds, .. } => format!("{}-crypt:{rounds}", prf.name()),
            Self::Salted { prf, .. } => format!("salted-{}", prf.name()),
        }
    }

    /// Holds the cost against the caps.
    ///
    /// # Errors
    /// The cap that it exceeds, in words.
    pub(super) fn affordable(&self, output: usize) -> Result<(), String> {
        let (fits, cap) = match self {
            Self::Bcrypt { cost, .. } => (*cost <= MAX_BCRYPT_COST, format!("cost {MAX_BCRYPT_COST}")),
            Self::Scrypt(scrypt) | Self::Firebase { scrypt, .. } => {
                (scrypt.affordable(), format!("{} MiB, N·r·p {MAX_SCRYPT_BLOCKS}", MAX_SCRYPT_MEMORY >> 20))
            }
            Self::Pbkdf2 { prf, iterations, .. } => {
                let all = iterations.saturating_mul(output.div_ceil(prf.length()) as u64);
                (all <= MAX_PBKDF2_ITERATIONS, format!("{MAX_PBKDF2_ITERATIONS} iterations"))
            }
            Self::Phpass { log_rounds, .. } => {
                (*log_rounds <= MAX_PHPASS_LOG, format!("2^{MAX_PHPASS_LOG} rounds"))
            }
            Self::ShaCrypt { rounds, .. } => {
                (*rounds <= MAX_CRYPT_ROUNDS, format!("{MAX_CRYPT_ROUNDS} rounds"))
            }
            Self::Salted { .. } => (true, String::new()),
        };
        fits.then_some(()).ok_or_else(|| format!("at most {cap}"))
    }

    /// Computes what the password gives, `length` bytes of it; nothing that could be equal to a stored hash when
    /// the scheme cannot take the password. None: too much work for so long a password.
    pub(super) fn run(&self, password: &[u8], length: usize) -> Option<Vec<u8>> {
        match self {
            Self::Bcrypt { cost, salt, signed, prehash: Prehash::None } => {
                bcrypt(*cost, salt, password, *signed)
            }
            Self::Bcrypt { cost, salt, signed, prehash: Prehash::HexSha256 } => {
                let hex = HEXLOWER.encode(&Prf::Sha256.of(&[password]));
                bcrypt(*cost, salt, hex.as_bytes(), *signed)
            }
            Self::Scrypt(scrypt) => scrypt.derive(password, length),
            Self::Firebase { scrypt, signer } => {
                encrypted(&scrypt.derive(password, AES_256_KEY)?, signer.clone())
            }
            Self::Pbkdf2 { prf, iterations, salt } => {
                let (rounds, mut out) = (NonZeroU32::new((*iterations).try_into().ok()?)?, vec![0; length]);
                pbkdf2::derive(prf.hmac(), rounds, salt, password, &mut out);
                Some(out)
            }
            Self::Phpass { log_rounds, salt } => phpass(1 << log_rounds, salt, password),
            Self::ShaCrypt { prf, rounds, salt } => sha_crypt(*prf, *rounds, salt, password),
            Self::Salted { prf, salt } => Some(prf.of(&[password, salt])),
        }
    }
}

impl Prf {
    fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hash(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    /// Bytes of a digest.
    pub(super) fn length(self) -> usize {
        self.hash().output_len()
    }

    fn of(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut context = digest::Context::new(self.hash());
        parts.iter().for_each(|part| context.update(part));
        context.finish().as_ref().to_vec()
    }
}

impl Scrypt {
    fn affordable(&self) -> bool {
        let wide = |factors: [u64; 3]| factors.into_iter().try_fold(1u64, u64::checked_mul);
        let within = |factors, cap| wide(factors).is_some_and(|product| product <= cap);
        let n = 1 << self.log_n;
        let lanes = self.p.saturating_add(1);
        within([n, self.r, self.p], MAX_SCRYPT_BLOCKS)
            && within([n.saturating_add(lanes), self.r, 128], MAX_SCRYPT_MEMORY)
    }

    fn derive(&self, password: &[u8], length: usize) -> Option<Vec<u8>> {
        let (log_n, r, p) = (self.log_n.try_into().ok()?, self.r.try_into().ok()?, self.p.try_into().ok()?);
        let (cost, mut out) = (scrypt::Params::new(log_n, r, p).ok()?, vec![0; length]);
        scrypt::scrypt(password, &self.salt, &cost, &mut out).ok()?;
        Some(out)
    }
}

const AES_256_KEY: usize = 32;

fn encrypted(key: &[u8], mut text: Vec<u8>) -> Option<Vec<u8>> {
    let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_256, key).ok()?).ok()?;
    // A counter from zero is safe: every password and salt makes another key.
    key.less_safe_encrypt(&mut text, EncryptionContext::Iv128(FixedLength::from([0; 16]))).ok()?;
    Some(text)
}

/// bcrypt (Provos and Mazières, 1999). Other systems cut a password at 72 bytes or at a NUL; here such a password
/// is never right, for half a password must not open an account, but takes as long as any other.
///
/// `$2a$`'s safeguard in crypt_blowfish, which changes hashes of some passwords with bytes 0xFF, is left out: no
/// UTF-8 text has any.
fn bcrypt(cost: u64, salt: &[u8], password: &[u8], signed: bool) -> Option<Vec<u8>> {
    // "OrpheanBeholderScryDoubt".
    const TEXT: [[u32; 2]; 3] =
        [[0x4f72_7068, 0x6561_6e42], [0x6568_6f6c, 0x6465_7253], [0x6372_7944, 0x6f75_6274]];
    let key = schedule(password, signed);
    let mut state = Blowfish::bc_init_state();
    state.salted_expand_key(salt, &key);
    for _ in 0..1u64 << cost {
        state.bc_expand_key(&key);
        state.bc_expand_key(salt);
    }
    let encrypt = |block| (0..64).fold(block, |block, _| state.bc_encrypt(block));
    let mut out: Vec<u8> = TEXT.into_iter().flat_map(encrypt).flat_map(u32::to_be_bytes).collect();
    out.truncate(23);
    let whole = password.len() <= BCRYPT_BYTES && !password.contains(&0);
    Some(if whole { out } else { Vec::new() })
}

/// The 18 words that key the cipher: the password and a NUL, again and again. The old bug let a byte from 0x80 up
/// set every bit above it in its word.
fn schedule(password: &[u8], signed: bool) -> Vec<u8> {
    let mut bytes = password.iter().chain(&[0]).cycle();
    let mut word = |_| {
        bytes.by_ref().take(4).fold(0u32, |word, byte| {
            word << 8 | if signed { i32::from(byte.cast_signed()).cast_unsigned() } else { u32::from(*byte) }
        })
    };
    (0..BCRYPT_BYTES / 4).flat_map(|n| word(n).to_be_bytes()).collect()
}

fn phpass(rounds: u64, salt: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    bearable(rounds, password)?;
    let first = Md5::new().chain_update(salt).chain_update(password).finalize();
    let again = |hash, _| Md5::new().chain_update(hash).chain_update(password).finalize();
    Some((0..rounds).fold(first, again).to_vec())
}

fn sha_crypt(prf: Prf, rounds: u64, salt: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    bearable(rounds, password)?;
    let rounds = sha_crypt::Params::new(rounds.try_into().ok()?).ok()?;
    Some(match prf {
        Prf::Sha512 => shuffled(&sha_crypt::sha512_crypt(password, salt, rounds), 1),
        _ => shuffled(&sha_crypt::sha256_crypt(password, salt, rounds), 2),
    })
}

/// SHA-crypt writes a byte from each third of the digest, the last first, then the rest; which third comes first
/// turns by so many places each time.
fn shuffled(digest: &[u8], turn: usize) -> Vec<u8> {
    let third = digest.len() / 3;
    let triple = |n: usize| {
        let mut triple = [n, n + third, n + 2 * third].map(|at| digest.get(at));
        triple.rotate_left(n * turn % 3);
        triple.into_iter().rev().flatten()
    };
    (0..third).flat_map(triple).chain(digest.iter().skip(3 * third)).copied().collect()
}

fn bearable(rounds: u64, password: &[u8]) -> Option<()> {
    let bytes = password.len() as u64 + 64;
    (rounds.saturating_mul(bytes) <= MAX_ROUND_BYTES).then_some(())
}
