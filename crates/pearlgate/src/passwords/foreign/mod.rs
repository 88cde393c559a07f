//! Password hashes that other systems made, for people who are imported with theirs. Each is checked once: the
//! first right password is hashed anew with Argon2id, and the foreign hash is gone.
//!
//! * What a hash says is parsed at the door ([`parse`]); damaged text is refused, never repaired by guessing.
//! * What it asks for is held against caps ([`work`]) before anything is computed: a hash that comes from
//!   somewhere else must not buy more than about three seconds of one core, or 256 MiB.
//! * Argon2 is not checked here but by the server's own code; only [`canonical`] knows how it is written.

mod parse;
#[cfg(test)]
mod tests;
mod work;

use subtle::ConstantTimeEq;

use parse::{Refusal, argon2, parse};

/// What to do about a person whose hash cannot be taken.
const INSTEAD: &str = "import the person without a password and let them set a new one";

/// The scheme and cost of a stored hash of another system, such as `bcrypt:12` or `pbkdf2-sha256:600000`; none for
/// what is not one.
pub(super) fn scheme(stored: &str) -> Option<String> {
    parse(stored).ok().map(|hash| hash.work.name())
}

/// Checks a password. None: not a hash that we know, damaged, or it asks for more work than the caps allow.
pub(super) fn verify(password: &[u8], stored: &str) -> Option<bool> {
    let hash = parse(stored).ok()?;
    let found = hash.work.run(password, hash.expected.len())?;
    Some(found.ct_eq(&hash.expected).into())
}

/// For import: the text as it is stored.
///
/// # Errors
/// In words for a person: why it cannot be taken and what to do. They never repeat the text, which may turn out to
/// be somebody's password.
pub fn canonical(text: &str) -> Result<String, String> {
    let text = text.trim();
    let text = text.strip_prefix("{CRYPT}").unwrap_or(text);
    // Django writes the name of its own hasher before what argon2-cffi made.
    let text = text.strip_prefix("argon2").filter(|rest| rest.starts_with("$argon2")).unwrap_or(text);
    let checked = if text.starts_with("$argon2") { argon2(text) } else { parse(text).map(drop) };
    match checked {
        Ok(()) => Ok(text.to_owned()),
        Err(Refusal::Damaged) => Err(format!(
            "this {} hash is damaged: export it again and check that nothing cuts it short",
            kind(text)
        )),
        Err(Refusal::TooMuch(cap)) => Err(format!(
            "this {} hash asks for more work than one check may cost ({cap}): {INSTEAD}",
            kind(text)
        )),
        Err(Refusal::Unknown) => Err(unknown(text)),
    }
}

/// Only the two that nothing else is taken for: their starts alone say what was meant.
fn kind(text: &str) -> &'static str {
    let named = [("$2", "bcrypt"), ("bcrypt", "bcrypt"), ("$argon2", "Argon2")];
    named.iter().find(|(start, _)| text.starts_with(start)).map_or("password", |(_, kind)| kind)
}

/// Names what it is where that is certain, so that nobody searches for a fault in their export.
fn unknown(text: &str) -> String {
    const NAMED: &[(&str, &str)] = &[
        ("$y$", "yescrypt"),
        ("$gy$", "gost-yescrypt"),
        ("$7$", "scrypt in crypt's own form"),
        ("$1$", "MD5-crypt"),
        ("$apr1$", "Apache's MD5-crypt"),
        ("$S$", "Drupal 7's hash"),
        ("$wp$", "WordPress 6.8's hash"),
        ("md5$", "Django's MD5"),
        ("{SHA}", "unsalted SHA-1"),
        ("{MD5}", "unsalted MD5"),
        ("{SMD5}", "salted MD5"),
    ];
    let named = NAMED.iter().find(|(start, _)| text.starts_with(start)).map(|(_, name)| *name);
    let bare = text.bytes().all(|byte| byte.is_ascii_hexdigit()) && matches!(text.len(), 32 | 40 | 64 | 128);
    if text.is_empty() {
        format!("the hash is empty: {INSTEAD}")
    } else if let Some(name) = named.or(bare.then_some("a bare MD5 or SHA digest")) {
        format!("this is {name}, which the server does not check: {INSTEAD}")
    } else {
        format!(
            "this is not a password hash that the server knows; it takes Argon2 ($argon2id$…), bcrypt ($2b$…), scrypt \
             ($scrypt$…, $fbscrypt$…), PBKDF2 ($pbkdf2-sha256$…), SHA-crypt ($5$…, $6$…), phpass ($P$…), LDAP's \
             {{SSHA}}… and what Django and Werkzeug write; if there is none, {INSTEAD}"
        )
    }
}
