//! Reads the source: no secret is compared by `==`, which stops at the first byte that differs and so tells where it is.
//!
//! Secrets are looked up by their digest, or compared with `ct_eq`; [`foundation::kernel::Digest`]'s own `==` is
//! `ct_eq`. Everything else that is made of a secret is an array or a text, and its `==` is flagged here: what
//! `reveal()` and `truncated()` give, the bytes of a digest, tag, token, hash or code, and what is called a tag where
//! there are MAC keys.

use std::path::{Path, PathBuf};

/// What holds a secret when its bytes are taken, by its last name.
const SECRET: [&str; 19] = [
    "digest",
    "tag",
    "mac",
    "hmac",
    "token",
    "secret",
    "code",
    "password",
    "hash",
    "expected",
    "signature",
    "key",
    "seed",
    "pepper",
    "cookie",
    "otp",
    "mac_parts",
    "sha256",
    "code_digest",
];
/// What is a secret by its name alone; `tag` is one where MACs are made.
const ALONE: [&str; 5] = ["mac", "hmac", "signature", "secret", "otp"];
const BYTES: [&str; 6] = [".as_bytes()", ".as_slice()", ".as_ref()", ".to_vec()", ".as_str()", "[..]"];

/// What the rule flags and what is right all the same, with the reason.
const EXCUSED: [(&str, &str, &str); 4] = [
    (
        "audit/chain.rs",
        "link(&self.hash, event).as_bytes() != event.hash.as_slice()",
        "hashes of events are no secret: whoever reads the trail reads them",
    ),
    ("audit/chain.rs", "expected.as_bytes() != hash", "the same, of a checkpoint"),
    (
        "passwords/flow.rs",
        "chosen.password.reveal() == old.reveal()",
        "both were typed by the same person into the same request",
    ),
    (
        "passwords/filter.rs",
        "sha256(body).truncated::<CHECKSUM>() != *checksum",
        "a checksum of a public file",
    ),
];

fn sources(under: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text.split("#[cfg(test)]").next().unwrap().to_owned()));
        }
    }
    found
}

/// The lines of code; a line that begins with the comparison belongs to the one before.
fn lines(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        match all.last_mut() {
            Some(last) if line.starts_with("== ") || line.starts_with("!= ") => {
                last.push(' ');
                last.push_str(line);
            }
            _ => all.push(line.to_owned()),
        }
    }
    all
}

/// What stands directly before a comparison, as far as it is one expression.
fn before(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices().rev() {
        match c {
            ')' | ']' => depth += 1,
            '(' | '[' if depth > 0 => depth -= 1,
            '(' | '[' => return &text[at + 1..],
            ',' | ';' | '{' | '}' | '|' | '=' if depth == 0 => return &text[at + 1..],
            _ => {}
        }
    }
    text
}

/// And behind it.
fn behind(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' if depth > 0 => depth -= 1,
            ')' | ']' => return &text[..at],
            ',' | ';' | '{' | '}' | '|' | '=' if depth == 0 => return &text[..at],
            _ => {}
        }
    }
    text
}

/// The last name of an expression; of a call, the name of what is called.
fn last_name(mut text: &str) -> &str {
    if text.ends_with(')') {
        let mut depth = 0;
        let opening = text.char_indices().rev().find(|(_, c)| {
            match c {
                ')' => depth += 1,
                '(' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        text = &text[..opening.map_or(0, |(at, _)| at)];
    }
    text.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap()
}

/// Whether one side of a comparison is a secret's bytes or text. A length is none.
fn is_secret(side: &str, macs: bool) -> bool {
    let side = side.trim().trim_start_matches(['&', '*', '!']);
    if [".len()", ".is_empty()", ".count()"].iter().any(|end| side.ends_with(*end)) {
        return false;
    }
    if side.contains(".reveal()") || side.contains(".truncated") {
        return true;
    }
    let whose = BYTES.iter().fold(side, |side, end| side.strip_suffix(*end).unwrap_or(side));
    let name = last_name(whose);
    if whose.len() < side.len() {
        return SECRET.contains(&name);
    }
    whose.ends_with(name) && (ALONE.contains(&name) || (macs && name == "tag"))
}

fn flagged(line: &str, macs: bool) -> bool {
    let line = line.replace("&&", ";").replace("||", ";").replace(".eq(", " == ").replace(".ne(", " != ");
    [" == ", " != "].iter().any(|operator| {
        line.match_indices(*operator).any(|(at, _)| {
            let (left, right) = (&line[..at], &line[at + operator.len()..]);
            is_secret(before(left), macs) || is_secret(behind(right), macs)
        })
    })
}

const BAD: [&str; 14] = [
    "if token.reveal() == stored {",
    "if stored == token.reveal() {",
    "found.filter(|row| row.secret.reveal() == presented)",
    "let same = presented.digest().as_bytes() == row.digest.as_bytes();",
    "if key.mac_parts(&[a, b]).truncated::<TAG>() == given {",
    "if key.mac(body).as_bytes() != given {",
    "if expected.as_slice() == tag {",
    "expected == tag",
    "return signature != theirs;",
    "if a.is_some() && hash.as_bytes() == other {",
    "matches!(code, Some(code) if code.as_str() == row.code)",
    "if given.eq(token.reveal()) {",
    "bool::from(x) || sha256(text).as_bytes() == wanted",
    "if api_key.secret == *given {",
];

const GOOD: [&str; 12] = [
    "if presented == row.current {",
    "if !spend_account_guess(tx, user, now)? || digest != expected {",
    "bool::from(expected.as_slice().ct_eq(tag)).then(|| Id::from_bytes(*session))",
    "Some(first) if first.body_mac != body => Err(problem()),",
    "self.current.iter().find(|pepper| pepper.id.as_bytes() == id)",
    "assert!(code.reveal().len() == 6);",
    "if token.reveal().len() != bytes.len() {",
    "Some(found) if found.checksum == sha256(migration.text(kind).as_bytes()) => {",
    "if seq + 1 == expected && hash == previous {",
    "if header.typ != TYPE || header.alg != \"ES256\" {",
    "if link(&previous, &event) != event.hash {",
    "let named = token.reveal().starts_with(PREFIX);",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a87_rauthy_005_timing_safe_comparison() {
    // The trap: it shuts on what it should, and on nothing else.
    for line in BAD {
        assert!(flagged(line, true), "not flagged: {line}");
    }
    for line in GOOD {
        assert!(!flagged(line, true), "flagged: {line}");
    }
    assert!(!flagged("operation[\"tags\"][0] == tag", false), "a tag that is none of a MAC");
    assert_eq!(lines("if a.reveal()\n    // so\n    == b {").concat(), "if a.reveal() == b {");

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all = sources(&root.join("pearlgate/src"));
    all.extend(sources(&root.join("foundation/src")));
    assert!(all.len() > 50, "the source was read");
    let (mut excused, mut wrong) = (Vec::new(), Vec::new());
    for (path, text) in &all {
        let macs = text.contains("MacKey") || text.contains("hmac");
        for line in lines(text).into_iter().filter(|line| flagged(line, macs)) {
            match EXCUSED.iter().find(|(file, words, _)| path.ends_with(file) && line.contains(*words)) {
                Some(excuse) => excused.push(excuse),
                None => wrong.push(format!("{}: {line}", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "compare with `ct_eq`, or look it up by its digest:\n{}", wrong.join("\n"));
    assert_eq!(excused.len(), EXCUSED.len(), "an excuse for nothing: {excused:?}");

    // A secret has no `==` at all, and a digest's takes as long for every other.
    let secret = &all.iter().find(|(path, _)| path.ends_with("kernel/secret.rs")).unwrap().1;
    let own: Vec<&str> = secret.split("impl PartialEq for ").skip(1).collect();
    assert_eq!(own.len(), 1, "one type of secrets can be compared");
    let body: String = own[0].split_whitespace().collect();
    assert!(
        body.starts_with("Digest{fneq(&self,other:&Self)->bool{self.0.ct_eq(&other.0).into()}}"),
        "{body}"
    );
    let derived =
        secret.lines().filter(|line| line.starts_with("#[derive(")).any(|line| line.contains("PartialEq"));
    assert!(!derived, "a derived `==` is none for secrets");
    // Whoever cuts a MAC short compares it by hand.
    let cut: Vec<&(PathBuf, String)> =
        all.iter().filter(|(_, text)| text.contains(".truncated::<TAG>()")).collect();
    assert!(cut.len() >= 3, "refresh tokens, device tokens, cursors: {}", cut.len());
    for (path, text) in cut {
        assert!(
            text.contains(".ct_eq("),
            "{} makes tags and does not compare them in constant time",
            path.display()
        );
    }
    // Elsewhere: the timing of whole calls, in `equal_work`. Not yet: API keys, client secrets.
}
