//! How each system writes a hash down. Every form is split into exactly the parts that it has, every number is
//! plain decimal and every length is checked: what is left over or missing is damage.

use std::sync::LazyLock;

use data_encoding::{BASE64_NOPAD, BitOrder, Encoding, HEXLOWER, Specification};

use crate::settings::{MAX_STORED_MEMORY, MAX_STORED_WORK};

use super::work::{Prehash, Prf, Scrypt, Work};

/// No hash that we know is longer, in bytes; Firebase's, which carry their project's keys, come to about 250.
const MAX_TEXT: usize = 512;
/// Bytes of a salt, so that nobody stores a book in one.
const MAX_SALT: usize = 128;
/// Bytes of a digest: a shorter one would be right by chance, a longer one costs more and proves nothing.
const DIGEST: std::ops::RangeInclusive<usize> = 16..=64;

/// KiB that Argon2 may ask for.
const MAX_ARGON2_MEMORY: u64 = MAX_STORED_MEMORY as u64;
/// Lanes that Argon2 may ask for.
const MAX_ARGON2_LANES: u64 = 16;

/// A stored hash: what to compute from the password, and what must come out.
pub(super) struct Stored {
    pub(super) work: Work,
    pub(super) expected: Vec<u8>,
}

/// Why a text is not taken.
pub(super) enum Refusal {
    Unknown,
    Damaged,
    /// The cap, in words.
    TooMuch(String),
}

type Form = fn(&str) -> Option<Stored>;

/// Every form by how it starts.
const FORMS: &[(&str, Form)] = &[
    ("$2", |rest| bcrypt(rest, Prehash::None)),
    ("bcrypt$$2", |rest| bcrypt(rest, Prehash::None)),
    ("bcrypt_sha256$$2", |rest| bcrypt(rest, Prehash::HexSha256)),
    ("$scrypt$", scrypt_phc),
    ("scrypt$", scrypt_django),
    ("scrypt:", scrypt_werkzeug),
    ("$fbscrypt$", firebase),
    ("$pbkdf2$", |rest| pbkdf2(rest, Prf::Sha1)),
    ("$pbkdf2-sha1$", |rest| pbkdf2(rest, Prf::Sha1)),
    ("$pbkdf2-sha256$", |rest| pbkdf2(rest, Prf::Sha256)),
    ("$pbkdf2-sha512$", |rest| pbkdf2(rest, Prf::Sha512)),
    ("pbkdf2_sha1$", |rest| pbkdf2_django(rest, Prf::Sha1)),
    ("pbkdf2_sha256$", |rest| pbkdf2_django(rest, Prf::Sha256)),
    ("pbkdf2:sha1:", |rest| pbkdf2_werkzeug(rest, Prf::Sha1)),
    ("pbkdf2:sha256:", |rest| pbkdf2_werkzeug(rest, Prf::Sha256)),
    ("pbkdf2:sha512:", |rest| pbkdf2_werkzeug(rest, Prf::Sha512)),
    ("$P$", phpass),
    ("$H$", phpass),
    ("$5$", |rest| sha_crypt(rest, Prf::Sha256)),
    ("$6$", |rest| sha_crypt(rest, Prf::Sha512)),
    ("{SSHA}", |rest| salted(rest, Prf::Sha1)),
    ("{SSHA256}", |rest| salted(rest, Prf::Sha256)),
    ("{SSHA512}", |rest| salted(rest, Prf::Sha512)),
];

/// Reads a hash of any form but Argon2's.
pub(super) fn parse(text: &str) -> Result<Stored, Refusal> {
    let form = |(start, form): &(&str, Form)| text.strip_prefix(start).map(|rest| (*form, rest));
    let (form, rest) = FORMS.iter().find_map(form).ok_or(Refusal::Unknown)?;
    let hash = Some(rest).filter(|_| text.len() <= MAX_TEXT).and_then(form).ok_or(Refusal::Damaged)?;
    hash.work.affordable(hash.expected.len()).map_err(Refusal::TooMuch)?;
    Ok(hash)
}

/// Checks an Argon2 hash's form and cost (RFC 9106).
pub(super) fn argon2(text: &str) -> Result<(), Refusal> {
    let rest = ["$argon2id$", "$argon2i$", "$argon2d$"].iter().find_map(|start| text.strip_prefix(start));
    let rest = rest.filter(|_| text.len() <= MAX_TEXT).ok_or(Refusal::Damaged)?;
    let rest = ["v=19$", "v=16$"].iter().find_map(|version| rest.strip_prefix(version)).unwrap_or(rest);
    let (memory, passes, lanes) = argon2_cost(rest).ok_or(Refusal::Damaged)?;
    if memory > MAX_ARGON2_MEMORY || memory * passes > MAX_STORED_WORK || lanes > MAX_ARGON2_LANES {
        let (memory, lanes) = (MAX_ARGON2_MEMORY, MAX_ARGON2_LANES);
        return Err(Refusal::TooMuch(format!("at most m={memory}, m times t {MAX_STORED_WORK}, p={lanes}")));
    }
    Ok(())
}

fn argon2_cost(rest: &str) -> Option<(u64, u64, u64)> {
    let [cost, salt, hash] = parts(rest, '$')?;
    let strict = |text: &str| BASE64_NOPAD.decode(text.as_bytes()).ok();
    strict(salt).filter(|salt| (8..=48).contains(&salt.len()))?;
    strict(hash).filter(|hash| DIGEST.contains(&hash.len()))?;
    // Which pepper went into it is for whoever checks it.
    let cost = cost.split_once(",keyid=").map_or(cost, |(cost, _)| cost);
    let [memory, passes, lanes] = named(cost, ["m", "t", "p"])?.map(number);
    let (memory, passes, lanes) = (memory?, passes?, lanes?);
    (passes >= 1
        && passes <= u64::from(u32::MAX)
        && memory <= u64::from(u32::MAX)
        && lanes >= 1
        && memory / 8 >= lanes)
        .then_some((memory, passes, lanes))
}

/// `b$12$`, 22 characters of salt, 31 of hash. The bits that their last characters have to spare are ignored, as
/// every bcrypt does: some libraries left chance in them.
fn bcrypt(rest: &str, prehash: Prehash) -> Option<Stored> {
    let [variant, cost, tail] = parts(rest, '$')?;
    let signed = variant == "x";
    if !(matches!(variant, "a" | "b" | "y") || signed) || cost.len() != 2 {
        return None;
    }
    let cost = number(cost.strip_prefix('0').unwrap_or(cost)).filter(|cost| (4..=31).contains(cost))?;
    let (salt, hash) = tail.split_at_checked(22).filter(|(_, hash)| hash.len() == 31)?;
    let decode = |text: &str| BCRYPT64.as_ref()?.decode(text.as_bytes()).ok();
    Some(Stored {
        work: Work::Bcrypt { cost, salt: decode(salt)?, signed, prehash },
        expected: decode(hash)?,
    })
}

fn scrypt_phc(rest: &str) -> Option<Stored> {
    let [cost, salt, hash] = parts(rest, '$')?;
    let [log_n, r, p] = named(cost, ["ln", "r", "p"])?;
    let cost = scrypt(number(log_n)?, r, p, base64(salt)?)?;
    Some(Stored { work: Work::Scrypt(cost), expected: digest(base64(hash)?)? })
}

fn scrypt_django(rest: &str) -> Option<Stored> {
    let [n, salt, r, p, hash] = parts(rest, '$')?;
    let cost = scrypt(log2(number(n)?)?, r, p, salt.into())?;
    Some(Stored { work: Work::Scrypt(cost), expected: digest(base64(hash)?)? })
}

fn scrypt_werkzeug(rest: &str) -> Option<Stored> {
    let [cost, salt, hash] = parts(rest, '$')?;
    let [n, r, p] = parts(cost, ':')?;
    let cost = scrypt(log2(number(n)?)?, r, p, salt.into())?;
    Some(Stored { work: Work::Scrypt(cost), expected: digest(hex(hash)?)? })
}

/// Firebase's own, as Supabase writes it: the project's separator and key stand in every hash.
fn firebase(rest: &str) -> Option<Stored> {
    let [cost, salt, hash] = parts(rest, '$')?;
    let [version, log_n, r, p, separator, signer] = named(cost, ["v", "n", "r", "p", "ss", "sk"])?;
    let mut salt = base64(salt)?;
    salt.extend(base64(separator)?);
    let (signer, expected) = (digest(base64(signer)?)?, base64(hash)?);
    let scrypt = scrypt(number(log_n)?, r, p, salt)?;
    let whole = version == "1" && signer.len() == expected.len();
    whole.then_some(Stored { work: Work::Firebase { scrypt, signer }, expected })
}

fn scrypt(log_n: u64, r: &str, p: &str, salt: Vec<u8>) -> Option<Scrypt> {
    let (r, p, salt) = (number(r)?, number(p)?, salted_with(salt)?);
    (1..64).contains(&log_n).then_some(())?;
    (r >= 1 && p >= 1).then_some(Scrypt { log_n, r, p, salt })
}

/// Passlib's `600000$salt$hash` and PHC's `i=600000,l=32$salt$hash`, whose length is optional.
fn pbkdf2(rest: &str, prf: Prf) -> Option<Stored> {
    let [cost, salt, hash] = parts(rest, '$')?;
    let expected = digest(base64(hash)?)?;
    let (iterations, length) = match named(cost, ["i", "l"]) {
        Some([iterations, length]) => (iterations, length),
        None => (cost.strip_prefix("i=").unwrap_or(cost), ""),
    };
    if !length.is_empty() && usize::try_from(number(length)?).ok()? != expected.len() {
        return None;
    }
    iterated(prf, iterations, base64(salt)?, expected)
}

fn pbkdf2_django(rest: &str, prf: Prf) -> Option<Stored> {
    let [iterations, salt, hash] = parts(rest, '$')?;
    iterated(prf, iterations, salt.into(), exactly(prf, base64(hash)?)?)
}

fn pbkdf2_werkzeug(rest: &str, prf: Prf) -> Option<Stored> {
    let [iterations, salt, hash] = parts(rest, '$')?;
    iterated(prf, iterations, salt.into(), exactly(prf, hex(hash)?)?)
}

fn iterated(prf: Prf, iterations: &str, salt: Vec<u8>, expected: Vec<u8>) -> Option<Stored> {
    let iterations = number(iterations).filter(|iterations| *iterations >= 1)?;
    Some(Stored { work: Work::Pbkdf2 { prf, iterations, salt: salted_with(salt)? }, expected })
}

/// One character of cost, eight of salt, the hash.
fn phpass(rest: &str) -> Option<Stored> {
    let (cost, rest) = rest.split_at_checked(1)?;
    let (salt, hash) = rest.split_at_checked(8)?;
    let log_rounds = CRYPT_SYMBOLS.find(cost).filter(|log| (7..=30).contains(log))?;
    let expected = crypt64(hash).filter(|hash| hash.len() == 16)?;
    Some(Stored { work: Work::Phpass { log_rounds, salt: salt.into() }, expected })
}

/// `rounds=656000$salt$hash`; without rounds they are 5,000.
fn sha_crypt(rest: &str, prf: Prf) -> Option<Stored> {
    let (rounds, rest) = match rest.strip_prefix("rounds=") {
        Some(rest) => rest.split_once('$').and_then(|(rounds, rest)| Some((number(rounds)?, rest)))?,
        None => (5_000, rest),
    };
    let [salt, hash] = parts(rest, '$')?;
    let expected = exactly(prf, crypt64(hash)?)?;
    let whole = (1_000..1_000_000_000).contains(&rounds) && (1..=16).contains(&salt.len());
    whole.then_some(Stored { work: Work::ShaCrypt { prf, rounds, salt: salt.into() }, expected })
}

/// LDAP's: the salt is what follows the digest.
fn salted(rest: &str, prf: Prf) -> Option<Stored> {
    let mut expected = base64(rest)?;
    let salt = (expected.len() > prf.length()).then(|| expected.split_off(prf.length()))?;
    Some(Stored { work: Work::Salted { prf, salt: salted_with(salt)? }, expected })
}

fn parts<const N: usize>(text: &str, separator: char) -> Option<[&str; N]> {
    text.splitn(N + 1, separator).collect::<Vec<_>>().try_into().ok()
}

/// The values of `a=1,b=2`, when there are exactly these names, in any order.
fn named<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Option<[&'a str; N]> {
    let pairs = parts::<N>(text, ',')?.map(|pair| pair.split_once('='));
    let values = names.map(|name| pairs.iter().flatten().find(|(known, _)| *known == name));
    let values: Vec<_> = values.iter().flatten().map(|(_, value)| *value).collect();
    values.try_into().ok()
}

/// A plain decimal number: no sign, no leading zero.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn log2(n: u64) -> Option<u64> {
    n.is_power_of_two().then(|| n.ilog2().into())
}

fn salted_with(salt: Vec<u8>) -> Option<Vec<u8>> {
    (1..=MAX_SALT).contains(&salt.len()).then_some(salt)
}

fn digest(hash: Vec<u8>) -> Option<Vec<u8>> {
    DIGEST.contains(&hash.len()).then_some(hash)
}

fn exactly(prf: Prf, hash: Vec<u8>) -> Option<Vec<u8>> {
    (hash.len() == prf.length()).then_some(hash)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER.decode(text.as_bytes()).ok()
}

/// Base64 with or without padding, in the usual, the URL's (Firebase exports) and Passlib's alphabet.
fn base64(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    let padded = bare.len() == text.len() || (text.len().is_multiple_of(4) && text.len() - bare.len() <= 2);
    BASE64.as_ref().filter(|_| padded)?.decode(bare.as_bytes()).ok()
}

fn crypt64(text: &str) -> Option<Vec<u8>> {
    CRYPT64.as_ref()?.decode(text.as_bytes()).ok()
}

const CRYPT_SYMBOLS: &str = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BCRYPT_SYMBOLS: &str = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

static BASE64: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut alphabet = BASE64_NOPAD.specification();
    alphabet.translate.from.push_str("-_.");
    alphabet.translate.to.push_str("+/+");
    alphabet.encoding().ok()
});

/// crypt(3)'s alphabet, which phpass and SHA-crypt fill from the low bits up.
static CRYPT64: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut alphabet = Specification::new();
    alphabet.symbols.push_str(CRYPT_SYMBOLS);
    alphabet.bit_order = BitOrder::LeastSignificantFirst;
    alphabet.encoding().ok()
});

static BCRYPT64: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut alphabet = Specification::new();
    alphabet.symbols.push_str(BCRYPT_SYMBOLS);
    alphabet.check_trailing_bits = false;
    alphabet.encoding().ok()
});
