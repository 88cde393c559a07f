//! One case for each step of WebAuthn Level 3, §7.1 and §7.2, that a relying party can check, numbered as the standard
//! numbers them. Each row breaks one thing, and everything else stays true: what was signed is what was sent.
//!
//! No case have, of §7.1: 1 and 2 (what we ask for and the browser's call; a journey looks at the options), 4 and 28 (we ask
//! for no extensions, and what comes unasked is not looked at), 12 (a hash; 22 shows that it is the right one), 18 and 19
//! (policies on copies: there is none), 23 and 24 (trust in makers of authenticators: none is asked for, all others are
//! refused at 21 and 22), 26 and 27 (the database's: a journey), 29 (the end). Of §7.2: 1, 2 and 4 as above, 5 (which keys
//! were asked: the journeys' and the second factor's, as a sign-in is whoever's the key is), 7 (names), 20 (a hash), 23 (as
//! 4), 24 (the database's) and 25 (the end).

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[path = "../../../tests/all/support/soft_key.rs"]
mod soft_key;

use soft_key::{
    AT, BE, BS, ED, Entries, Pair, Parts, SoftKey, Statement, UP, UV, b64, cbor as encoded, int, put, text,
};

const ORIGIN: &str = "http://localhost:8080";
const CHALLENGE: [u8; 32] = [5; 32];
const OWNER: [u8; 16] = [7; 16];
const COUNTED: u32 = 5;

fn party() -> Party {
    Party {
        id: "localhost".to_owned(),
        origins: vec![ORIGIN.to_owned(), "https://app.example.com".to_owned()],
    }
}

fn options() -> serde_json::Value {
    let id = json!({ "id": "localhost" });
    json!({ "challenge": b64(&CHALLENGE), "rp": id, "rpId": "localhost", "user": { "id": b64(&OWNER) } })
}

/// One thing that is wrong, and how it is called.
type Row = (String, Flaw, fn(&mut Parts));

fn row(what: &str, flaw: Flaw, change: fn(&mut Parts)) -> Row {
    (what.to_owned(), flaw, change)
}

/// The same rows where the other paragraph has the same steps so many numbers later.
fn later(rows: Vec<Row>, by: u32) -> Vec<Row> {
    let renumbered = |what: String| match what.split_once(' ') {
        Some((step, rest)) if step.parse::<u32>().is_ok() => {
            format!("{} {rest}", step.parse::<u32>().unwrap() + by)
        }
        _ => what,
    };
    rows.into_iter().map(|(what, flaw, change)| (renumbered(what), flaw, change)).collect()
}

fn new_parts() -> Parts {
    SoftKey::p256().creating(&options(), ORIGIN)
}

fn registered(parts: &Parts, must_verify: bool) -> Result<NewKey, Flaw> {
    registered_from(parts.registration(), must_verify)
}

fn registered_from(answer: serde_json::Value, must_verify: bool) -> Result<NewKey, Flaw> {
    let answer: Registration = serde_json::from_value(answer).map_err(|_| Flaw::Unreadable)?;
    register(&answer, &CHALLENGE, &party(), must_verify)
}

/// A key that counted to [`COUNTED`], and how it is known.
fn kept(mut key: SoftKey) -> (SoftKey, KnownKey) {
    let new = registered(&key.creating(&options(), ORIGIN), true).unwrap();
    let known = KnownKey {
        public_key: new.public_key,
        sign_count: if key.counts { COUNTED.into() } else { 0 },
        backup_eligible: new.backup_eligible,
        owner: OWNER,
    };
    key.count = if key.counts { COUNTED } else { 0 };
    (key, known)
}

fn used(parts: &Parts, known: &KnownKey, needs: (bool, bool)) -> Result<Used, Flaw> {
    used_from(parts.assertion(), known, needs)
}

fn used_from(answer: serde_json::Value, known: &KnownKey, needs: (bool, bool)) -> Result<Used, Flaw> {
    let answer: Assertion = serde_json::from_value(answer).map_err(|_| Flaw::Unreadable)?;
    super::assert(&answer, &CHALLENGE, &party(), known, needs)
}

fn blob(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

/// Changes the new key's map.
fn rekey(parts: &mut Parts, change: impl FnOnce(&mut Entries)) {
    let mut key = parts.signer.cose();
    change(&mut key);
    set_key(parts, key);
}

fn set_key(parts: &mut Parts, key: Entries) {
    parts.credential.as_mut().unwrap().key = encoded(&Value::Map(key));
}

/// Another pair in the place of the one it has.
fn repair(parts: &mut Parts, pair: &std::sync::Arc<Pair>) {
    parts.signer = pair.clone();
    set_key(parts, pair.cose());
}

fn name(parts: &mut Parts, id: &[u8]) {
    (parts.id, parts.raw_id) = (b64(id), b64(id));
}

/// So many arrays in each other.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = vec![0x81; depth];
    bytes.push(0);
    bytes
}

fn object(entries: Entries) -> Option<Vec<u8>> {
    Some(encoded(&Value::Map(entries)))
}

fn sign_over(parts: &mut Parts, message: impl FnOnce(&Parts) -> Vec<u8>) {
    parts.signature = Some(parts.signer.sign(&message(parts)));
}

/// RSA takes a while to make.
static RSA: LazyLock<std::sync::Arc<Pair>> = LazyLock::new(Pair::rsa);

/// What client data may not be, in both ceremonies. The numbers are those of §7.1.
fn client_rows() -> Vec<Row> {
    vec![
        row("5 client data: not UTF-8", Flaw::Unreadable, |p| {
            p.client_data = Some([br#"{"type":""#.as_slice(), b"\xff", br#""}"#].concat());
        }),
        row("5 client data: UTF-16", Flaw::Unreadable, |p| {
            p.client_data = Some(
                String::from_utf8(p.client_data())
                    .unwrap()
                    .encode_utf16()
                    .flat_map(u16::to_be_bytes)
                    .collect(),
            );
        }),
        row("6 client data: none", Flaw::Unreadable, |p| p.client_data = Some(Vec::new())),
        row("6 client data: no JSON", Flaw::Unreadable, |p| {
            p.client_data = Some(b"type=webauthn.create".to_vec())
        }),
        row("6 client data: a list", Flaw::Unreadable, |p| {
            p.client_data = Some([b"[".to_vec(), p.client_data(), b"]".to_vec()].concat())
        }),
        row("6 client data: something behind it", Flaw::Unreadable, |p| {
            p.client_data = Some([p.client_data(), b"{}".to_vec()].concat());
        }),
        row("6 client data: cut off", Flaw::Unreadable, |p| {
            let mut data = p.client_data();
            data.pop();
            p.client_data = Some(data);
        }),
        row("6 client data: nested deeply", Flaw::Unreadable, |p| {
            p.client_data =
                Some(format!("{{\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes());
        }),
        row("6 client data: two origins", Flaw::Unreadable, |p| {
            let text = String::from_utf8(p.client_data()).unwrap();
            p.client_data = Some(text.replacen('{', r#"{"origin":"https://evil.example","#, 1).into_bytes());
        }),
        row("6 client data: no origin", Flaw::Unreadable, |p| {
            let text = String::from_utf8(p.client_data()).unwrap();
            p.client_data = Some(text.replace("\"origin\"", "\"0rigin\"").into_bytes());
        }),
        row("7 type: none", Flaw::Ceremony, |p| p.r#type = String::new()),
        row("7 type: another case", Flaw::Ceremony, |p| p.r#type = p.r#type.to_uppercase()),
        row("7 type: payment", Flaw::Ceremony, |p| p.r#type = "payment.get".to_owned()),
        row("7 type: something behind it", Flaw::Ceremony, |p| p.r#type.push('x')),
        row("8 challenge: another", Flaw::Challenge, |p| p.challenge = b64(&[6; 32])),
        row("8 challenge: none", Flaw::Challenge, |p| p.challenge = String::new()),
        row("8 challenge: the beginning of it", Flaw::Challenge, |p| p.challenge = b64(&CHALLENGE[..31])),
        row("8 challenge: something behind it", Flaw::Challenge, |p| p.challenge = b64(&[5; 33])),
        row("8 challenge: no base64url", Flaw::Unreadable, |p| p.challenge = "+/+/".to_owned()),
        row("9 origin: another port", Flaw::Origin, |p| p.origin = "http://localhost:8081".to_owned()),
        row("9 origin: no port", Flaw::Origin, |p| p.origin = "http://localhost".to_owned()),
        row("9 origin: another scheme", Flaw::Origin, |p| p.origin = "https://localhost:8080".to_owned()),
        row("9 origin: another case", Flaw::Origin, |p| p.origin = "http://LOCALHOST:8080".to_owned()),
        row("9 origin: suffix badlocalhost", Flaw::Origin, |p| {
            p.origin = "http://badlocalhost:8080".to_owned()
        }),
        row("9 origin: suffix badapp.example.com", Flaw::Origin, |p| {
            p.origin = "https://badapp.example.com".to_owned()
        }),
        row("9 origin: under ours", Flaw::Origin, |p| p.origin = "http://sub.localhost:8080".to_owned()),
        row("9 origin: above ours", Flaw::Origin, |p| p.origin = "https://example.com".to_owned()),
        row("9 origin: ours as a prefix", Flaw::Origin, |p| {
            p.origin = "http://localhost:8080.evil.example".to_owned()
        }),
        row("9 origin: ours as a prefix, and a digit", Flaw::Origin, |p| {
            p.origin = "http://localhost:80800".to_owned()
        }),
        row("9 origin: ours as a user", Flaw::Origin, |p| {
            p.origin = "http://localhost:8080@evil.example".to_owned()
        }),
        row("9 origin: ours as a path", Flaw::Origin, |p| {
            p.origin = "https://evil.example/http://localhost:8080".to_owned()
        }),
        row("9 origin: a slash behind it", Flaw::Origin, |p| p.origin = "http://localhost:8080/".to_owned()),
        row("9 origin: a space before it", Flaw::Origin, |p| p.origin = " http://localhost:8080".to_owned()),
        row("9 origin: a dot behind the host", Flaw::Origin, |p| {
            p.origin = "http://localhost.:8080".to_owned()
        }),
        row("9 origin: an address", Flaw::Origin, |p| p.origin = "http://127.0.0.1:8080".to_owned()),
        row("9 origin: null", Flaw::Origin, |p| p.origin = "null".to_owned()),
        row("9 origin: none", Flaw::Origin, |p| p.origin = String::new()),
        row("9 origin: an Android app", Flaw::Origin, |p| p.origin = "android:apk-key-hash:AAAA".to_owned()),
        row("10 crossOrigin: true", Flaw::CrossOrigin, |p| p.cross_origin = json!(true)),
        row("10 crossOrigin: true, in words", Flaw::Unreadable, |p| p.cross_origin = json!("true")),
        row("10 crossOrigin: a number", Flaw::Unreadable, |p| p.cross_origin = json!(1)),
        row("11 topOrigin: another", Flaw::TopOrigin, |p| p.top_origin = json!("https://evil.example")),
        row("11 topOrigin: ours", Flaw::TopOrigin, |p| p.top_origin = json!(ORIGIN)),
        row("11 topOrigin: empty", Flaw::TopOrigin, |p| p.top_origin = json!("")),
    ]
}

/// What flags and the party's hash may not be, in both ceremonies. The numbers are those of §7.1.
fn flag_rows() -> Vec<Row> {
    vec![
        row("14 rpIdHash: another's", Flaw::Party, |p| p.rp_id = "evil.example".to_owned()),
        row("14 rpIdHash: another case", Flaw::Party, |p| p.rp_id = "LOCALHOST".to_owned()),
        row("14 rpIdHash: with the port", Flaw::Party, |p| p.rp_id = "localhost:8080".to_owned()),
        row("14 rpIdHash: the origin's", Flaw::Party, |p| p.rp_id = ORIGIN.to_owned()),
        row("14 rpIdHash: nobody's", Flaw::Party, |p| p.rp_id = String::new()),
        row("15 UP: not set", Flaw::Presence, |p| p.flags &= !UP),
        row("15 UP: nothing set", Flaw::Presence, |p| p.flags &= !(UP | UV)),
        row("16 UV: not set, and required", Flaw::Verification, |p| p.flags &= !UV),
        row("17 BS without BE", Flaw::Backup, |p| p.flags |= BS),
        row("authenticator data: something behind it", Flaw::Unreadable, |p| p.extra = vec![0]),
        row("authenticator data: none", Flaw::Unreadable, |p| p.auth_data = Some(Vec::new())),
        row("authenticator data: the flag of extensions without them", Flaw::Unreadable, |p| p.flags |= ED),
        row("authenticator data: extensions without the flag", Flaw::Unreadable, |p| {
            p.extensions = vec![0xa0]
        }),
        row("authenticator data: extensions that are no map", Flaw::Unreadable, |p| {
            (p.flags, p.extensions) = (p.flags | ED, vec![0x80]);
        }),
        row("authenticator data: extensions nested deeply", Flaw::Unreadable, |p| {
            (p.flags, p.extensions) = (p.flags | ED, [vec![0xa1, 0], nested(100_000)].concat());
        }),
        row("authenticator data: extensions without end", Flaw::Unreadable, |p| {
            (p.flags, p.extensions) = (p.flags | ED, vec![0xbf]);
        }),
    ]
}

fn registration_rows() -> Vec<Row> {
    let mut rows = vec![
        row("3 type: a password", Flaw::Credential, |p| p.kind = "password".to_owned()),
        row("3 type: none", Flaw::Credential, |p| p.kind = String::new()),
        row("3 id: another than rawId", Flaw::Credential, |p| p.id = b64(&[1; 32])),
        row("3 rawId: another than id", Flaw::Credential, |p| p.raw_id = b64(&[1; 32])),
        row("3 id: another than in the authenticator data", Flaw::Credential, |p| name(p, &[1; 32])),
        row("3 id: the beginning of the one in the authenticator data", Flaw::Credential, |p| {
            let id = p.credential.as_ref().unwrap().id[..31].to_vec();
            name(p, &id);
        }),
        row("3 id: none", Flaw::Unreadable, |p| {
            name(p, &[]);
            p.credential.as_mut().unwrap().id = Vec::new();
        }),
        row("3 id: no base64url", Flaw::Unreadable, |p| {
            (p.id, p.raw_id) = ("+/+/".to_owned(), "+/+/".to_owned())
        }),
        row("7 type: an assertion", Flaw::Ceremony, |p| p.r#type = "webauthn.get".to_owned()),
        row("13 attestation object: none", Flaw::Unreadable, |p| p.attestation_object = Some(Vec::new())),
        row("13 attestation object: a list", Flaw::Unreadable, |p| {
            p.attestation_object = Some(vec![0x83, 0, 0, 0])
        }),
        row("13 attestation object: an empty map", Flaw::Unreadable, |p| {
            p.attestation_object = object(Vec::new())
        }),
        row("13 attestation object: without fmt", Flaw::Unreadable, |p| {
            p.attestation_object = object(vec![
                (text("attStmt"), Value::Map(Vec::new())),
                (text("authData"), blob(&p.auth_data())),
            ]);
        }),
        row("13 attestation object: without attStmt", Flaw::Unreadable, |p| {
            p.attestation_object =
                object(vec![(text("fmt"), text("none")), (text("authData"), blob(&p.auth_data()))]);
        }),
        row("13 attestation object: without authData", Flaw::Unreadable, |p| {
            p.attestation_object =
                object(vec![(text("fmt"), text("none")), (text("attStmt"), Value::Map(Vec::new()))]);
        }),
        row("13 attestation object: authData as text", Flaw::Unreadable, |p| {
            let entries = vec![
                (text("fmt"), text("none")),
                (text("attStmt"), Value::Map(Vec::new())),
                (text("authData"), text("x")),
            ];
            p.attestation_object = object(entries);
        }),
        row("13 attestation object: attStmt as a list", Flaw::Unreadable, |p| {
            let data = blob(&p.auth_data());
            p.attestation_object = object(vec![
                (text("fmt"), text("none")),
                (text("attStmt"), Value::Array(Vec::new())),
                (text("authData"), data),
            ]);
        }),
        row("13 attestation object: something behind it", Flaw::Unreadable, |p| p.object_extra = vec![0]),
        row("13 attestation object: itself once more behind it", Flaw::Unreadable, |p| {
            p.object_extra = p.attestation_object()
        }),
        row("13 attestation object: nested deeply", Flaw::Unreadable, |p| {
            p.attestation_object = Some(nested(100_000))
        }),
        row("13 attestation object: tags in tags", Flaw::Unreadable, |p| {
            p.attestation_object = Some([vec![0xd8_u8; 100_000], vec![0]].concat());
        }),
        row("13 attestation object: attStmt nested deeply", Flaw::Unreadable, |p| {
            let mut statement = Value::Null;
            for _ in 0..40 {
                statement = Value::Array(vec![statement]);
            }
            (p.fmt, p.statement) = ("packed".to_owned(), Statement::Given(vec![(text("x"), statement)]));
        }),
        row("13 attestation object: a map that says it has billions", Flaw::Unreadable, |p| {
            p.attestation_object = Some([vec![0xbb_u8], vec![0x7f; 8]].concat());
        }),
        row("13 attestation object: bytes that say they are billions", Flaw::Unreadable, |p| {
            p.attestation_object = Some([vec![0x5b_u8], vec![0x7f; 8]].concat());
        }),
        row("13 authenticator data: no credential", Flaw::Unreadable, |p| {
            (p.flags, p.credential) = (p.flags & !AT, None)
        }),
        row("13 authenticator data: the flag of a credential without it", Flaw::Unreadable, |p| {
            p.credential = None
        }),
        row("13 authenticator data: a credential without the flag", Flaw::Unreadable, |p| p.flags &= !AT),
        row("13 authenticator data: an id longer than all there is", Flaw::Unreadable, |p| {
            let mut data = p.auth_data();
            data[53..55].copy_from_slice(&[0xff, 0xff]);
            p.auth_data = Some(data);
        }),
        row("13 authenticator data: a key that is nested deeply", Flaw::Unreadable, |p| {
            p.credential.as_mut().unwrap().key = nested(100_000);
        }),
        row("20 alg: ES384", Flaw::Key, |p| rekey(p, |key| put(key, int(3), int(-35)))),
        row("20 alg: ES256K", Flaw::Key, |p| rekey(p, |key| put(key, int(3), int(-47)))),
        row("20 alg: RS1", Flaw::Key, |p| rekey(p, |key| put(key, int(3), int(-65_535)))),
        row("20 alg: an HMAC", Flaw::Key, |p| rekey(p, |key| put(key, int(3), int(5)))),
        row("20 alg: none", Flaw::Key, |p| rekey(p, |key| key.retain(|(label, _)| *label != int(3)))),
        row("20 alg: as text", Flaw::Key, |p| rekey(p, |key| put(key, int(3), text("ES256")))),
        row("20 alg: a number without end", Flaw::Key, |p| {
            rekey(p, |key| put(key, int(3), Value::Integer(u64::MAX.into())))
        }),
        row("20 alg: PS256, with an RSA key", Flaw::Key, |p| {
            repair(p, &RSA);
            rekey(p, |key| put(key, int(3), int(-37)));
        }),
        row("20 alg: ES256, with an Ed25519 key", Flaw::Key, |p| {
            repair(p, &Pair::ed25519());
            rekey(p, |key| put(key, int(3), int(-7)));
        }),
        row("20 alg: ES256 and P-256, with an Ed25519 key", Flaw::Key, |p| {
            repair(p, &Pair::ed25519());
            rekey(p, |key| {
                for (label, value) in [(1, 2), (3, -7), (-1, 1)] {
                    put(key, int(label), int(value));
                }
            });
        }),
        row("20 alg: EdDSA, with a P-256 key", Flaw::Key, |p| rekey(p, |key| put(key, int(3), int(-8)))),
        row("20 alg: RS256, with a P-256 key", Flaw::Key, |p| rekey(p, |key| put(key, int(3), int(-257)))),
        row("20 alg: ES256, with an RSA key", Flaw::Key, |p| {
            repair(p, &RSA);
            rekey(p, |key| put(key, int(3), int(-7)));
        }),
        row("20 key: no map", Flaw::Key, |p| p.credential.as_mut().unwrap().key = vec![0x80]),
        row("20 key: an empty map", Flaw::Key, |p| set_key(p, Vec::new())),
        row("20 key: of another type", Flaw::Key, |p| rekey(p, |key| put(key, int(1), int(1)))),
        row("20 key: symmetric", Flaw::Key, |p| rekey(p, |key| put(key, int(1), int(4)))),
        row("20 key: curve P-384", Flaw::Key, |p| rekey(p, |key| put(key, int(-1), int(2)))),
        row("20 key: curve secp256k1", Flaw::Key, |p| rekey(p, |key| put(key, int(-1), int(8)))),
        row("20 key: no curve", Flaw::Key, |p| rekey(p, |key| key.retain(|(label, _)| *label != int(-1)))),
        row("20 key: a point off the curve", Flaw::Key, |p| {
            rekey(p, |key| put(key, int(-3), blob(&[1; 32])))
        }),
        row("20 key: the point at infinity", Flaw::Key, |p| {
            rekey(p, |key| {
                put(key, int(-2), blob(&[0; 32]));
                put(key, int(-3), blob(&[0; 32]));
            });
        }),
        row("20 key: coordinates beyond the field", Flaw::Key, |p| {
            rekey(p, |key| put(key, int(-2), blob(&[0xff; 32])))
        }),
        row("20 key: a short coordinate", Flaw::Key, |p| rekey(p, |key| put(key, int(-2), blob(&[1; 31])))),
        row("20 key: a long coordinate", Flaw::Key, |p| rekey(p, |key| put(key, int(-2), blob(&[0; 33])))),
        row("20 key: a compressed point", Flaw::Key, |p| {
            rekey(p, |key| put(key, int(-3), Value::Bool(true)))
        }),
        row("20 key: no y", Flaw::Key, |p| rekey(p, |key| key.retain(|(label, _)| *label != int(-3)))),
        row("20 key: a label twice", Flaw::Key, |p| rekey(p, |key| key.push((int(-2), blob(&[1; 32]))))),
        row("20 key: a label twice with the same", Flaw::Key, |p| {
            rekey(p, |key| {
                let again = key[1].clone();
                key.push(again);
            });
        }),
        row("20 key: a label of text", Flaw::Key, |p| rekey(p, |key| key.push((text("alg"), int(-7))))),
        row("20 key: Ed448", Flaw::Key, |p| {
            repair(p, &Pair::ed25519());
            rekey(p, |key| put(key, int(-1), int(7)));
        }),
        row("20 key: a short Ed25519 key", Flaw::Key, |p| {
            repair(p, &Pair::ed25519());
            rekey(p, |key| put(key, int(-2), blob(&[1; 31])));
        }),
        row("20 key: an Ed25519 key in the wrapping of X.509", Flaw::Key, |p| {
            repair(p, &Pair::ed25519());
            rekey(p, |key| {
                let raw = key[3].1.as_bytes().unwrap().clone();
                put(
                    key,
                    int(-2),
                    blob(&[b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec(), raw].concat()),
                );
            });
        }),
        row("20 key: RSA with 1,024 bits", Flaw::Key, |p| {
            repair(p, &RSA);
            rekey(p, |key| put(key, int(-1), blob(&[0xff; 128])));
        }),
        row("20 key: RSA with 16,384 bits", Flaw::Key, |p| {
            repair(p, &RSA);
            rekey(p, |key| put(key, int(-1), blob(&[0xff; 2_048])));
        }),
        row("20 key: RSA with zeros before the modulus", Flaw::Key, |p| {
            repair(p, &RSA);
            rekey(p, |key| {
                let n = key[2].1.as_bytes().unwrap().clone();
                put(key, int(-1), blob(&[vec![0], n].concat()));
            });
        }),
        row("20 key: RSA with 1,024 bits behind zeros", Flaw::Key, |p| {
            repair(p, &RSA);
            rekey(p, |key| put(key, int(-1), blob(&[[0_u8; 128], [0xff; 128]].concat())));
        }),
        row("20 key: RSA without an exponent", Flaw::Key, |p| {
            repair(p, &RSA);
            rekey(p, |key| put(key, int(-2), blob(&[])));
        }),
        row("20 key: RSA with a long exponent", Flaw::Key, |p| {
            repair(p, &RSA);
            rekey(p, |key| put(key, int(-2), blob(&[1; 9])));
        }),
        row("21 fmt: one that nobody knows", Flaw::Attestation, |p| p.fmt = "made-up".to_owned()),
        row("21 fmt: none at all", Flaw::Attestation, |p| p.fmt = String::new()),
        row("21 fmt: another case", Flaw::Attestation, |p| p.fmt = "None".to_owned()),
        row("21 fmt: fido-u2f", Flaw::Attestation, |p| p.fmt = "fido-u2f".to_owned()),
        row("21 fmt: tpm", Flaw::Attestation, |p| p.fmt = "tpm".to_owned()),
        row("22 none: with a statement", Flaw::Attestation, |p| p.statement = Statement::Packed(Vec::new())),
        row("22 packed: without a statement", Flaw::Attestation, |p| p.fmt = "packed".to_owned()),
        row("22 packed: with a chain of certificates", Flaw::Attestation, |p| {
            packed(p, vec![(text("x5c"), Value::Array(vec![blob(&[0x30, 0])]))]);
        }),
        row("22 packed: with an empty chain of certificates", Flaw::Attestation, |p| {
            packed(p, vec![(text("x5c"), Value::Array(Vec::new()))])
        }),
        row("22 packed: with no chain of certificates, in words", Flaw::Attestation, |p| {
            packed(p, vec![(text("x5c"), Value::Null)])
        }),
        row("22 packed: another algorithm", Flaw::Attestation, |p| packed(p, vec![(text("alg"), int(-8))])),
        row("22 packed: no algorithm", Flaw::Attestation, |p| packed(p, vec![(text("alg"), Value::Null)])),
        row("22 packed: no signature", Flaw::Attestation, |p| packed(p, vec![(text("sig"), Value::Null)])),
        row("22 packed: an empty signature", Flaw::Attestation, |p| {
            packed(p, vec![(text("sig"), blob(&[]))])
        }),
        row("22 packed: a signature of another key", Flaw::Attestation, |p| {
            let signature = Pair::p256().sign(&p.signed());
            packed(p, vec![(text("sig"), blob(&signature))]);
        }),
        row("22 packed: a signature of another key of another kind", Flaw::Attestation, |p| {
            p.signer = Pair::ed25519();
            packed(p, Vec::new());
        }),
        row("22 packed: a signature over another hash", Flaw::Attestation, |p| {
            let signature = p.signer.sign(&[p.auth_data(), p.client_data()].concat());
            packed(p, vec![(text("sig"), blob(&signature))]);
        }),
        row("22 packed: a signature over another challenge", Flaw::Attestation, |p| {
            let other = p.clone().with(|p| p.challenge = b64(&[6; 32]));
            let signature = p.signer.sign(&other.signed());
            packed(p, vec![(text("sig"), blob(&signature))]);
        }),
        row("22 packed: a signature over another counter", Flaw::Attestation, |p| {
            let other = p.clone().with(|p| p.count += 1);
            let signature = p.signer.sign(&other.signed());
            packed(p, vec![(text("sig"), blob(&signature))]);
        }),
        row("22 packed: RSA with another hash", Flaw::Attestation, |p| {
            repair(p, &RSA);
            let signature = p.signer.sign_sha512(&p.signed());
            packed(p, vec![(text("sig"), blob(&signature))]);
        }),
        row("25 id: 1,024 bytes", Flaw::IdTooLong, |p| {
            p.credential.as_mut().unwrap().id = vec![1; 1_024];
            name(p, &[1; 1_024]);
        }),
        row("25 id: 65,535 bytes", Flaw::IdTooLong, |p| {
            p.credential.as_mut().unwrap().id = vec![1; 65_535];
            name(p, &[1; 65_535]);
        }),
    ];
    rows.extend(client_rows());
    rows.extend(flag_rows());
    rows
}

fn packed(parts: &mut Parts, over: Entries) {
    (parts.fmt, parts.statement) = ("packed".to_owned(), Statement::Packed(over));
}

fn assertion_rows() -> Vec<Row> {
    let mut rows = vec![
        row("3 type: a password", Flaw::Credential, |p| p.kind = "password".to_owned()),
        row("3 id: another than rawId", Flaw::Credential, |p| p.id = b64(&[1; 32])),
        row("3 id: none", Flaw::Unreadable, |p| name(p, &[])),
        row("3 id: no base64url", Flaw::Unreadable, |p| {
            (p.id, p.raw_id) = ("+/+/".to_owned(), "+/+/".to_owned())
        }),
        row("6 userHandle: missing", Flaw::Owner, |p| p.user_handle = None),
        row("6 userHandle: another's", Flaw::Owner, |p| p.user_handle = Some(vec![8; 16])),
        row("6 userHandle: empty", Flaw::Owner, |p| p.user_handle = Some(Vec::new())),
        row("6 userHandle: the beginning of it", Flaw::Owner, |p| p.user_handle = Some(OWNER[..15].to_vec())),
        row("6 userHandle: something behind it", Flaw::Owner, |p| p.user_handle = Some(vec![7; 17])),
        row("10 type: a registration", Flaw::Ceremony, |p| p.r#type = "webauthn.create".to_owned()),
        row("19 BE: what could not be copied can be now", Flaw::BackupChanged, |p| p.flags |= BE),
        row("19 BE: and was", Flaw::BackupChanged, |p| p.flags |= BE | BS),
        row("21 signature: none", Flaw::Signature, |p| p.signature = Some(Vec::new())),
        row("21 signature: zeros", Flaw::Signature, |p| {
            p.signature = Some(b"\x30\x06\x02\x01\x00\x02\x01\x00".to_vec())
        }),
        row("21 signature: another bit", Flaw::Signature, |p| {
            let mut signature = p.signer.sign(&p.signed());
            let last = signature.len() - 1;
            signature[last] ^= 1;
            p.signature = Some(signature);
        }),
        row("21 signature: cut off", Flaw::Signature, |p| {
            let mut signature = p.signer.sign(&p.signed());
            signature.pop();
            p.signature = Some(signature);
        }),
        row("21 signature: something behind it", Flaw::Signature, |p| {
            let signature = p.signer.sign(&p.signed());
            p.signature = Some([signature, vec![0]].concat());
        }),
        row("21 signature: of another key", Flaw::Signature, |p| p.signer = Pair::p256()),
        row("21 signature: of another key of another kind", Flaw::Signature, |p| p.signer = Pair::ed25519()),
        row("21 signature: over the client data itself", Flaw::Signature, |p| {
            sign_over(p, |p| [p.auth_data(), p.client_data()].concat());
        }),
        row("21 signature: over a hash of it all", Flaw::Signature, |p| {
            sign_over(p, |p| soft_key::sha256(&p.signed()))
        }),
        row("21 signature: over the authenticator data alone", Flaw::Signature, |p| {
            sign_over(p, Parts::auth_data)
        }),
        row("21 signature: over the other way round", Flaw::Signature, |p| {
            sign_over(p, |p| [soft_key::sha256(&p.client_data()), p.auth_data()].concat());
        }),
        row("21 signature: over another challenge", Flaw::Signature, |p| {
            let other = p.clone().with(|p| p.challenge = b64(&[6; 32]));
            sign_over(p, |_| other.signed());
        }),
        row("21 signature: over another counter", Flaw::Signature, |p| {
            let other = p.clone().with(|p| p.count += 1);
            sign_over(p, |_| other.signed());
        }),
        row("21 signature: before 22: a stranger's says nothing about the counter", Flaw::Signature, |p| {
            (p.signer, p.count) = (Pair::p256(), 1);
        }),
        row("22 counter: the same", Flaw::Counter, |p| p.count = COUNTED),
        row("22 counter: lower", Flaw::Counter, |p| p.count = COUNTED - 1),
        row("22 counter: zero", Flaw::Counter, |p| p.count = 0),
    ];
    rows.extend(later(client_rows(), 3));
    rows.extend(later(flag_rows(), 1));
    rows
}

#[test]
fn a_new_key_is_refused_at_each_step_of_7_1() {
    registered(&new_parts(), true).unwrap();
    for (what, flaw, change) in registration_rows() {
        let mut parts = new_parts();
        change(&mut parts);
        assert_eq!(registered(&parts, true).map(|_| ()), Err(flaw), "7.1/{what}");
    }
}

#[test]
fn a_use_is_refused_at_each_step_of_7_2() {
    let (key, known) = kept(SoftKey::p256());
    used(&key.clone().getting(&options(), ORIGIN), &known, (true, false)).unwrap();
    for (what, flaw, change) in assertion_rows() {
        let mut parts = key.clone().getting(&options(), ORIGIN);
        change(&mut parts);
        assert_eq!(used(&parts, &known, (true, false)).map(|_| ()), Err(flaw), "7.2/{what}");
    }
}

#[test]
fn what_is_of_the_other_ceremony_cannot_be_read() {
    let (mut key, known) = kept(SoftKey::p256());
    let (new, use_of_it) = (key.create(&options(), ORIGIN), key.get(&options(), ORIGIN));
    assert_eq!(registered_from(use_of_it, true).map(|_| ()), Err(Flaw::Unreadable), "7.1/3");
    assert_eq!(used_from(new, &known, (true, false)), Err(Flaw::Unreadable), "7.2/3");
    for nothing in [
        json!(null),
        json!([]),
        json!("x"),
        json!({}),
        json!({ "id": "x", "rawId": "x", "type": "public-key" }),
    ] {
        assert_eq!(registered_from(nothing.clone(), true).map(|_| ()), Err(Flaw::Unreadable), "{nothing}");
        assert_eq!(used_from(nothing.clone(), &known, (true, false)), Err(Flaw::Unreadable), "{nothing}");
    }
    for field in ["clientDataJSON", "attestationObject"] {
        let mut answer = new_parts().registration();
        answer["response"][field] = json!("no base64url!");
        assert_eq!(registered_from(answer, true).map(|_| ()), Err(Flaw::Unreadable), "{field}");
    }
    for field in ["clientDataJSON", "authenticatorData", "signature", "userHandle"] {
        let mut answer = key.get(&options(), ORIGIN);
        answer["response"][field] = json!("no base64url!");
        assert_eq!(used_from(answer, &known, (true, false)), Err(Flaw::Unreadable), "{field}");
    }
}

#[test]
fn every_kind_of_key_is_taken_with_or_without_its_own_signature() {
    for (kind, pair) in [("P-256", Pair::p256()), ("Ed25519", Pair::ed25519()), ("RSA", RSA.clone())] {
        for format in ["none", "packed"] {
            let mut key = SoftKey::of(pair.clone());
            let mut parts = key.creating(&options(), ORIGIN);
            if format == "packed" {
                packed(&mut parts, Vec::new());
            }
            let new = registered(&parts, true).unwrap_or_else(|flaw| panic!("{kind} {format}: {flaw:?}"));
            assert_eq!(new.credential_id, key.id, "{kind} {format}");
            assert_eq!(new.public_key, encoded(&Value::Map(pair.cose())), "{kind} {format}");
            assert_eq!(new.sign_count, 0, "{kind} {format}");
            assert_eq!(
                (new.user_verified, new.backup_eligible, new.backed_up),
                (true, false, false),
                "{kind} {format}"
            );
            let known =
                KnownKey { public_key: new.public_key, sign_count: 0, backup_eligible: false, owner: OWNER };
            let shown = used(&key.getting(&options(), ORIGIN), &known, (true, false));
            let expected = Used { user_verified: true, backed_up: false, sign_count: 1 };
            assert_eq!(shown, Ok(expected), "{kind} {format}");
        }
    }
}

#[test]
fn what_may_differ_may_differ() {
    let taken = |what: &str, change: fn(&mut Parts)| {
        let parts = new_parts().with(change);
        registered(&parts, false).unwrap_or_else(|flaw| panic!("{what}: {flaw:?}"))
    };
    taken("a byte order mark", |p| {
        p.client_data = Some([b"\xef\xbb\xbf".to_vec(), p.client_data()].concat())
    });
    taken("another origin of ours", |p| p.origin = "https://app.example.com".to_owned());
    taken("no word on frames", |p| p.cross_origin = serde_json::Value::Null);
    taken("members that nobody knows yet", |p| {
        p.client_extra.insert(
            "other_keys_can_be_added_here".to_owned(),
            json!("do not compare clientDataJSON against a template"),
        );
    });
    taken("extensions that nobody asked for", |p| {
        (p.flags, p.extensions) = (p.flags | ED, b"\xa1\x6bcredProtect\x02".to_vec())
    });
    taken("a maker's name", |p| p.credential.as_mut().unwrap().model = [9; 16]);
    taken("the longest id", |p| {
        p.credential.as_mut().unwrap().id = vec![1; 1_023];
        name(p, &[1; 1_023]);
    });
    taken("the shortest id", |p| {
        p.credential.as_mut().unwrap().id = vec![1];
        name(p, &[1]);
    });
    assert!(!taken("no verification where none is required", |p| p.flags &= !UV).user_verified);
    let eligible = taken("may be copied", |p| p.flags |= BE);
    assert_eq!((eligible.backup_eligible, eligible.backed_up), (true, false));
    let copied = taken("was copied", |p| p.flags |= BE | BS);
    assert_eq!((copied.backup_eligible, copied.backed_up), (true, true));
    assert_eq!(taken("a counter", |p| p.count = u32::MAX).sign_count, u32::MAX);
    let spoken = taken("hints", |p| {
        p.transports = ["usb", "nfc", "<script>", "usb", "telepathy"].map(str::to_owned).to_vec()
    });
    assert_eq!(spoken.transports, "nfc usb");
    assert_eq!(taken("no hints", |p| p.transports.clear()).transports, "");

    let (key, known) = kept(SoftKey::p256());
    let shown = |what: &str, needs: (bool, bool), change: fn(&mut Parts)| {
        let parts = key.clone().getting(&options(), ORIGIN).with(change);
        used(&parts, &known, needs).unwrap_or_else(|flaw| panic!("{what}: {flaw:?}"))
    };
    shown("a byte order mark", (true, false), |p| {
        p.client_data = Some([b"\xef\xbb\xbf".to_vec(), p.client_data()].concat())
    });
    shown("another origin of ours", (true, false), |p| p.origin = "https://app.example.com".to_owned());
    shown("extensions", (true, false), |p| (p.flags, p.extensions) = (p.flags | ED, vec![0xa0]));
    shown("no userHandle of somebody who is known", (true, true), |p| p.user_handle = None);
    assert!(
        !shown("no verification where none is required", (false, true), |p| p.flags &= !UV).user_verified
    );
    assert_eq!(shown("a jump of the counter", (true, false), |p| p.count = u32::MAX).sign_count, u32::MAX);
    let another = key.clone().getting(&options(), ORIGIN).with(|p| p.user_handle = Some(vec![8; 16]));
    assert_eq!(
        used(&another, &known, (true, true)),
        Err(Flaw::Owner),
        "7.2/6 another's, of somebody who is known"
    );
}

#[test]
fn copies_and_counters_of_keys_that_are_known() {
    let (key, known) = kept(SoftKey::synced());
    let shown = |known: &KnownKey, change: fn(&mut Parts)| {
        used(&key.clone().getting(&options(), ORIGIN).with(change), known, (true, false))
    };
    assert_eq!(
        shown(&known, |_| {}),
        Ok(Used { user_verified: true, backed_up: true, sign_count: 0 }),
        "0 after 0"
    );
    assert_eq!(
        shown(&known, |p| p.flags &= !BS).map(|used| used.backed_up),
        Ok(false),
        "the copies are gone"
    );
    assert_eq!(
        shown(&known, |p| p.flags &= !(BE | BS)),
        Err(Flaw::BackupChanged),
        "7.2/19 BE: it cannot be copied any more"
    );
    assert_eq!(shown(&known, |p| p.flags &= !BE), Err(Flaw::Backup), "7.2/18 BS without BE");
    assert_eq!(shown(&known, |p| p.count = 1).map(|used| used.sign_count), Ok(1), "it begins to count");
    let counted = KnownKey { sign_count: u32::MAX.into(), ..known };
    assert_eq!(
        shown(&counted, |p| p.count = u32::MAX),
        Err(Flaw::Counter),
        "7.2/22 counter: the last one again"
    );
    assert_eq!(shown(&counted, |_| {}), Err(Flaw::Counter), "7.2/22 counter: it does not count any more");
}

#[test]
fn a_key_that_is_kept_is_used_as_what_it_is() {
    // 7.2/21: what is kept says which algorithm it is, and nothing else does.
    let (key, known) = kept(SoftKey::ed25519());
    let parts = key.clone().getting(&options(), ORIGIN);
    used(&parts, &known, (true, false)).unwrap();
    for (label, value) in [(3, -7), (3, -257), (1, 2), (1, 3), (-1, 1)] {
        let mut map = key.pair.cose();
        put(&mut map, int(label), int(value));
        let confused = KnownKey { public_key: encoded(&Value::Map(map)), ..known.clone() };
        assert_eq!(used(&parts, &confused, (true, false)), Err(Flaw::Key), "{label}: {value}");
    }
    let others = [("P-256", Pair::p256()), ("Ed25519", Pair::ed25519()), ("RSA", RSA.clone())];
    for (kind, pair) in &others {
        let other = KnownKey { public_key: encoded(&Value::Map(pair.cose())), ..known.clone() };
        assert_eq!(
            used(&parts, &other, (true, false)),
            Err(Flaw::Signature),
            "7.2/21 checked with a key {kind}"
        );
    }
    let known = KnownKey { public_key: encoded(&Value::Map(RSA.cose())), ..known };
    let parts = key.clone().getting(&options(), ORIGIN).with(|p| p.signer = RSA.clone());
    used(&parts, &known, (true, false)).unwrap();
    let other_hash = parts.clone().with(|p| p.signature = Some(p.signer.sign_sha512(&p.signed())));
    assert_eq!(
        used(&other_hash, &known, (true, false)),
        Err(Flaw::Signature),
        "7.2/21 RSA over another hash"
    );
}

#[test]
fn nothing_that_is_cut_off_is_taken() {
    for format in ["none", "packed"] {
        let mut parts = new_parts();
        if format == "packed" {
            packed(&mut parts, Vec::new());
        }
        let (object, data) = (parts.attestation_object(), parts.auth_data());
        for end in 0..object.len() {
            let cut = parts.clone().with(|p| p.attestation_object = Some(object[..end].to_vec()));
            assert_eq!(registered(&cut, false).map(|_| ()), Err(Flaw::Unreadable), "{format}, object {end}");
        }
        for end in 0..data.len() {
            let cut = parts.clone().with(|p| p.auth_data = Some(data[..end].to_vec()));
            assert_eq!(registered(&cut, false).map(|_| ()), Err(Flaw::Unreadable), "{format}, data {end}");
        }
    }
    let (key, known) = kept(SoftKey::p256());
    let parts = key.clone().getting(&options(), ORIGIN);
    let (data, client) = (parts.auth_data(), parts.client_data());
    for end in 0..data.len() {
        let cut = parts.clone().with(|p| p.auth_data = Some(data[..end].to_vec()));
        assert_eq!(used(&cut, &known, (false, true)), Err(Flaw::Unreadable), "data {end}");
    }
    for end in 0..client.len() {
        let cut = parts.clone().with(|p| p.client_data = Some(client[..end].to_vec()));
        assert_eq!(used(&cut, &known, (false, true)), Err(Flaw::Unreadable), "client {end}");
    }
    let signature = parts.signer.sign(&parts.signed());
    for end in 0..signature.len() {
        let cut = parts.clone().with(|p| p.signature = Some(signature[..end].to_vec()));
        assert_eq!(used(&cut, &known, (false, true)), Err(Flaw::Signature), "signature {end}");
    }
}

#[test]
fn a_party_is_its_host_and_takes_its_own_pages() {
    let named = |id: &str, origins: &[&str], url: &str| {
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        let party = Party { id: id.to_owned(), origins }.at(url);
        (party.id, party.origins)
    };
    let expected = |id: &str, origins: &[&str]| {
        (id.to_owned(), origins.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(named("", &[], "http://localhost:8080"), expected("localhost", &["http://localhost:8080"]));
    assert_eq!(
        named("", &[], "https://id.example.com"),
        expected("id.example.com", &["https://id.example.com"])
    );
    let both = ["https://app.example.com", "https://id.example.com"];
    assert_eq!(named("example.com", &both[..1], both[1]), expected("example.com", &both));
    assert_eq!(named("example.com", &both, both[1]), expected("example.com", &both), "not twice");
}

/// A good use, and how its key is known.
static GOOD: LazyLock<(Parts, KnownKey)> = LazyLock::new(|| {
    let (mut key, known) = kept(SoftKey::p256());
    let parts = key.getting(&options(), ORIGIN);
    let signature = parts.signer.sign(&parts.signed());
    (parts.with(|p| p.signature = Some(signature)), known)
});
static NEW: LazyLock<Parts> = LazyLock::new(new_parts);

fn flipped(mut bytes: Vec<u8>, at: prop::sample::Index, with: u8) -> Option<Vec<u8>> {
    let at = at.index(bytes.len());
    bytes[at] ^= with;
    Some(bytes)
}

proptest! {
    #[test]
    fn whatever_comes_nobody_falls_over(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,60}") {
        let (good, known) = &*GOOD;
        let news = [
            NEW.clone().with(|p| p.client_data = Some(bytes.clone())),
            NEW.clone().with(|p| p.attestation_object = Some(bytes.clone())),
            NEW.clone().with(|p| p.auth_data = Some(bytes.clone())),
            NEW.clone().with(|p| p.auth_data = Some([p.auth_data()[..55].to_vec(), bytes.clone()].concat())),
            NEW.clone().with(|p| p.extra.clone_from(&bytes)),
            NEW.clone().with(|p| (p.flags, p.extensions) = (p.flags | ED, bytes.clone())),
            NEW.clone().with(|p| p.raw_id.clone_from(&text)),
        ];
        for (n, new) in news.iter().enumerate() {
            let taken = registered(new, false).is_ok();
            // Extensions that happen to be a map may be there, and so may no bytes at all.
            prop_assert!(!taken || n == 4 && bytes.is_empty() || n == 5, "{n}");
        }
        let uses = [
            good.clone().with(|p| p.client_data = Some(bytes.clone())),
            good.clone().with(|p| p.auth_data = Some(bytes.clone())),
            good.clone().with(|p| p.signature = Some(bytes.clone())),
            good.clone().with(|p| p.user_handle = Some(bytes.clone())),
            good.clone().with(|p| p.challenge.clone_from(&text)),
            good.clone().with(|p| p.origin.clone_from(&text)),
        ];
        for (n, one) in uses.iter().enumerate() {
            prop_assert!(used(one, known, (false, true)).is_err(), "{n}");
        }
        let strange = KnownKey { public_key: bytes, ..known.clone() };
        prop_assert!(used(good, &strange, (false, true)).is_err());
        prop_assert!(registered_from(json!(text.clone()), false).is_err());
        let refused = used_from(json!({ "id": text.clone(), "rawId": text, "type": "public-key" }), known, (false, true)).is_err();
        prop_assert!(refused);
    }

    #[test]
    fn no_bit_of_a_use_can_change(at in any::<prop::sample::Index>(), with in 1u8..) {
        let (good, known) = &*GOOD;
        prop_assert_eq!(used(good, known, (true, false)).map(|_| ()), Ok(()));
        let signature = good.signature.clone().unwrap();
        let changed = [
            good.clone().with(|p| p.client_data = flipped(p.client_data(), at, with)),
            good.clone().with(|p| p.auth_data = flipped(p.auth_data(), at, with)),
            good.clone().with(|p| p.signature = flipped(signature, at, with)),
        ];
        for (n, one) in changed.iter().enumerate() {
            prop_assert!(used(one, known, (false, true)).is_err(), "{n}");
        }
        // Nobody has signed a new key, so some of it may; and nobody falls over.
        let _ = registered(&NEW.clone().with(|p| p.attestation_object = flipped(p.attestation_object(), at, with)), false);
        let _ = registered(&NEW.clone().with(|p| p.auth_data = flipped(p.auth_data(), at, with)), false);
    }
}
