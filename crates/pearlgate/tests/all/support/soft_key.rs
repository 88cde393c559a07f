//! An authenticator without a device, and the browser in front of it. It says what is true until a test changes a part
//! before it signs. It stands alone: the unit tests of the ceremony include it, too.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool of tests, of which each uses another part"
)]

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA512, RsaKeyPair,
};
use ciborium::Value as Cbor;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value, json};

/// User present, user verified, backup eligible, backed up, attested credential data, extension data (WebAuthn §6.1).
pub const UP: u8 = 1;
pub const UV: u8 = 1 << 2;
pub const BE: u8 = 1 << 3;
pub const BS: u8 = 1 << 4;
pub const AT: u8 = 1 << 6;
pub const ED: u8 = 1 << 7;

/// A COSE key, or a statement: entries in their order, so that one can stand there twice.
pub type Entries = Vec<(Cbor, Cbor)>;

pub fn b64(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

pub fn unb64(text: &str) -> Vec<u8> {
    BASE64URL_NOPAD.decode(text.as_bytes()).unwrap()
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

pub fn cbor(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

pub fn int(number: i64) -> Cbor {
    Cbor::from(number)
}

pub fn text(text: &str) -> Cbor {
    Cbor::Text(text.to_owned())
}

/// Puts another value in the place of an entry, or adds one.
pub fn put(entries: &mut Entries, key: Cbor, value: Cbor) {
    match entries.iter_mut().find(|(known, _)| *known == key) {
        Some((_, old)) => *old = value,
        None => entries.push((key, value)),
    }
}

#[derive(Debug)]
pub enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Pair {
    pub fn p256() -> Arc<Self> {
        Arc::new(Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()))
    }

    pub fn ed25519() -> Arc<Self> {
        Arc::new(Self::Ed25519(Ed25519KeyPair::generate().unwrap()))
    }

    pub fn rsa() -> Arc<Self> {
        Arc::new(Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    /// COSE's number of what it signs with.
    pub fn algorithm(&self) -> i64 {
        match self {
            Self::P256(_) => -7,
            Self::Ed25519(_) => -8,
            Self::Rsa(_) => -257,
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// The same with SHA-512, for RSA alone.
    pub fn sign_sha512(&self, message: &[u8]) -> Vec<u8> {
        let Self::Rsa(pair) = self else { panic!("only RSA signs with another hash here") };
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    /// Its public half (RFC 9053 §7, RFC 8230 §4).
    pub fn cose(&self) -> Entries {
        match self {
            Self::P256(pair) => {
                let (x, y) = raw(pair.public_key())[1..].split_at(32);
                vec![
                    (int(1), int(2)),
                    (int(3), int(-7)),
                    (int(-1), int(1)),
                    (int(-2), Cbor::Bytes(x.to_vec())),
                    (int(-3), Cbor::Bytes(y.to_vec())),
                ]
            }
            Self::Ed25519(pair) => vec![
                (int(1), int(1)),
                (int(3), int(-8)),
                (int(-1), int(6)),
                (int(-2), Cbor::Bytes(raw(pair.public_key()).to_vec())),
            ],
            Self::Rsa(pair) => {
                let mut rest = raw(pair.public_key());
                let mut inside = der(&mut rest, 0x30);
                let (n, e) = (der(&mut inside, 2), der(&mut inside, 2));
                vec![
                    (int(1), int(3)),
                    (int(3), int(-257)),
                    (int(-1), Cbor::Bytes(unsigned(n))),
                    (int(-2), Cbor::Bytes(unsigned(e))),
                ]
            }
        }
    }
}

pub fn raw(key: &impl AsRef<[u8]>) -> &[u8] {
    key.as_ref()
}

/// The content of the next DER item.
pub fn der<'a>(rest: &mut &'a [u8], tag: u8) -> &'a [u8] {
    let all: &'a [u8] = rest;
    assert_eq!(all[0], tag, "this is not the DER of a public key");
    let first = usize::from(all[1]);
    let (length, header) = if first < 0x80 {
        (first, 2)
    } else {
        let bytes = first & 0x7f;
        (all[2..2 + bytes].iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), 2 + bytes)
    };
    *rest = &all[header + length..];
    &all[header..header + length]
}

pub fn unsigned(integer: &[u8]) -> Vec<u8> {
    integer.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// A key as its authenticator keeps it. A clone is a copy of what should not be copied.
#[derive(Debug, Clone)]
pub struct SoftKey {
    pub pair: Arc<Pair>,
    pub id: Vec<u8>,
    /// What it counted to.
    pub count: u32,
    /// Whether it counts; many do not, and say 0.
    pub counts: bool,
    /// Whether it checks who uses it.
    pub verifies: bool,
    /// Whether it may be copied to other devices, and whether it was.
    pub eligible: bool,
    pub copied: bool,
    /// Whose it was told that it is.
    pub user_handle: Option<Vec<u8>>,
    pub transports: Vec<String>,
}

impl SoftKey {
    pub fn of(pair: Arc<Pair>) -> Self {
        Self {
            pair,
            id: random::<32>().to_vec(),
            count: 0,
            counts: true,
            verifies: true,
            eligible: false,
            copied: false,
            user_handle: None,
            transports: vec!["internal".to_owned(), "hybrid".to_owned()],
        }
    }

    pub fn p256() -> Self {
        Self::of(Pair::p256())
    }

    pub fn ed25519() -> Self {
        Self::of(Pair::ed25519())
    }

    pub fn rsa() -> Self {
        Self::of(Pair::rsa())
    }

    /// One of those that are synchronized between their owner's devices, and do not count.
    pub fn synced() -> Self {
        Self { counts: false, eligible: true, copied: true, ..Self::p256() }
    }

    pub fn without_counter(self) -> Self {
        Self { counts: false, ..self }
    }

    pub fn without_verification(self) -> Self {
        Self { verifies: false, ..self }
    }

    fn flags(&self) -> u8 {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        UP | flag(self.verifies, UV) | flag(self.eligible, BE) | flag(self.copied, BS)
    }

    fn parts(&self, ceremony: &str, options: &Value, rp_id: &Value, origin: &str) -> Parts {
        Parts {
            signer: self.pair.clone(),
            kind: "public-key".to_owned(),
            id: b64(&self.id),
            raw_id: b64(&self.id),
            r#type: ceremony.to_owned(),
            challenge: options["challenge"].as_str().unwrap().to_owned(),
            origin: origin.to_owned(),
            cross_origin: json!(false),
            top_origin: Value::Null,
            client_extra: Map::new(),
            rp_id: rp_id.as_str().unwrap().to_owned(),
            flags: self.flags(),
            count: self.count,
            credential: None,
            extensions: Vec::new(),
            extra: Vec::new(),
            user_handle: self.user_handle.clone(),
            fmt: "none".to_owned(),
            statement: Statement::Empty,
            object_extra: Vec::new(),
            transports: self.transports.clone(),
            client_data: None,
            auth_data: None,
            attestation_object: None,
            signature: None,
        }
    }

    /// The parts of a new key.
    pub fn creating(&mut self, options: &Value, origin: &str) -> Parts {
        self.user_handle = Some(unb64(options["user"]["id"].as_str().unwrap()));
        let mut parts = self.parts("webauthn.create", options, &options["rp"]["id"], origin);
        parts.flags |= AT;
        parts.credential =
            Some(Credential { model: [0; 16], id: self.id.clone(), key: cbor(&Cbor::Map(self.pair.cose())) });
        parts
    }

    /// The parts of a use.
    pub fn getting(&mut self, options: &Value, origin: &str) -> Parts {
        if self.counts {
            self.count += 1;
        }
        self.parts("webauthn.get", options, &options["rpId"], origin)
    }

    /// `navigator.credentials.create()`, and `toJSON()` of what comes.
    pub fn create(&mut self, options: &Value, origin: &str) -> Value {
        self.creating(options, origin).registration()
    }

    /// `navigator.credentials.get()`, and `toJSON()` of what comes.
    pub fn get(&mut self, options: &Value, origin: &str) -> Value {
        self.getting(options, origin).assertion()
    }
}

/// §6.5.1.
#[derive(Debug, Clone)]
pub struct Credential {
    pub model: [u8; 16],
    pub id: Vec<u8>,
    /// CBOR.
    pub key: Vec<u8>,
}

/// What comes with an attestation object.
#[derive(Debug, Clone)]
pub enum Statement {
    Empty,
    /// The key's own signature, with these entries laid over it.
    Packed(Entries),
    Given(Entries),
}

/// Everything that an answer is made of. What is changed before [`Parts::registration`] or [`Parts::assertion`] is signed as
/// it is then.
#[derive(Debug, Clone)]
pub struct Parts {
    pub signer: Arc<Pair>,
    /// `type` of the credential.
    pub kind: String,
    pub id: String,
    pub raw_id: String,
    /// `type` in the client data.
    pub r#type: String,
    pub challenge: String,
    pub origin: String,
    /// Left out when they are null, as are `client_extra`'s members when there are none.
    pub cross_origin: Value,
    pub top_origin: Value,
    pub client_extra: Map<String, Value>,
    pub rp_id: String,
    pub flags: u8,
    pub count: u32,
    pub credential: Option<Credential>,
    /// CBOR; they need the flag, too.
    pub extensions: Vec<u8>,
    /// Bytes behind everything in the authenticator data.
    pub extra: Vec<u8>,
    pub user_handle: Option<Vec<u8>>,
    pub fmt: String,
    pub statement: Statement,
    /// Bytes behind the attestation object.
    pub object_extra: Vec<u8>,
    pub transports: Vec<String>,
    /// In the place of what the parts make.
    pub client_data: Option<Vec<u8>>,
    pub auth_data: Option<Vec<u8>>,
    pub attestation_object: Option<Vec<u8>>,
    pub signature: Option<Vec<u8>>,
}

impl Parts {
    /// The same with something changed.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The same with another key in it, as its map.
    pub fn with_key(self, key: Entries) -> Self {
        self.with(|parts| parts.credential.as_mut().unwrap().key = cbor(&Cbor::Map(key)))
    }

    pub fn client_data(&self) -> Vec<u8> {
        if let Some(given) = &self.client_data {
            return given.clone();
        }
        let mut client = Map::new();
        client.insert("type".to_owned(), json!(self.r#type));
        client.insert("challenge".to_owned(), json!(self.challenge));
        client.insert("origin".to_owned(), json!(self.origin));
        for (name, value) in [("crossOrigin", &self.cross_origin), ("topOrigin", &self.top_origin)] {
            if !value.is_null() {
                client.insert(name.to_owned(), value.clone());
            }
        }
        client.extend(self.client_extra.clone());
        Value::Object(client).to_string().into_bytes()
    }

    pub fn auth_data(&self) -> Vec<u8> {
        if let Some(given) = &self.auth_data {
            return given.clone();
        }
        let mut data = sha256(self.rp_id.as_bytes());
        data.push(self.flags);
        data.extend(self.count.to_be_bytes());
        if let Some(credential) = &self.credential {
            data.extend(credential.model);
            data.extend(u16::try_from(credential.id.len()).unwrap().to_be_bytes());
            data.extend(&credential.id);
            data.extend(&credential.key);
        }
        data.extend(&self.extensions);
        data.extend(&self.extra);
        data
    }

    /// What is signed.
    pub fn signed(&self) -> Vec<u8> {
        [self.auth_data(), sha256(&self.client_data())].concat()
    }

    pub fn attestation_object(&self) -> Vec<u8> {
        if let Some(given) = &self.attestation_object {
            return given.clone();
        }
        let statement = match &self.statement {
            Statement::Empty => Vec::new(),
            Statement::Given(entries) => entries.clone(),
            Statement::Packed(over) => {
                let signature = Cbor::Bytes(self.signer.sign(&self.signed()));
                let mut entries = vec![(text("alg"), int(self.signer.algorithm())), (text("sig"), signature)];
                for (key, value) in over {
                    put(&mut entries, key.clone(), value.clone());
                }
                entries
            }
        };
        let mut object = cbor(&Cbor::Map(vec![
            (text("fmt"), text(&self.fmt)),
            (text("attStmt"), Cbor::Map(statement)),
            (text("authData"), Cbor::Bytes(self.auth_data())),
        ]));
        object.extend(&self.object_extra);
        object
    }

    /// `PublicKeyCredential.toJSON()` of a new key.
    pub fn registration(&self) -> Value {
        json!({
            "id": self.id, "rawId": self.raw_id, "type": self.kind,
            "authenticatorAttachment": "platform", "clientExtensionResults": { "credProps": { "rk": true } },
            "response": {
                "clientDataJSON": b64(&self.client_data()), "attestationObject": b64(&self.attestation_object()),
                "authenticatorData": b64(&self.auth_data()), "publicKeyAlgorithm": self.signer.algorithm(),
                "transports": self.transports,
            },
        })
    }

    /// `PublicKeyCredential.toJSON()` of a use.
    pub fn assertion(&self) -> Value {
        let signature = self.signature.clone().unwrap_or_else(|| self.signer.sign(&self.signed()));
        let mut response = json!({
            "clientDataJSON": b64(&self.client_data()), "authenticatorData": b64(&self.auth_data()),
            "signature": b64(&signature),
        });
        if let Some(handle) = &self.user_handle {
            response["userHandle"] = json!(b64(handle));
        }
        json!({
            "id": self.id, "rawId": self.raw_id, "type": self.kind,
            "authenticatorAttachment": "platform", "clientExtensionResults": {}, "response": response,
        })
    }
}
