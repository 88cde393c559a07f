//! The keys that sign access tokens: sealed under the master key, shared by every process on the database.
//!
//! A key is **published** as soon as it is made, and **signs** from `signs_from` on, when every cache that keeps our
//! JWKS as long as we allow has it. It is **retired** when its successor has signed for longer than a token lives. All
//! of that follows from one column, so that processes agree without talking: who knows the rows knows what to do at
//! any moment. A process looks at the rows every two seconds, a small part of the time between the first two steps.

use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use data_encoding::{BASE64, HEXLOWER};
use foundation::audit::{Event, Stream, Trail};
use foundation::db::{self, Db, Tx};
use foundation::http::{Claim, IdempotencyKey};
use foundation::jobs::{Handlers, Job, JobError};
use foundation::kernel::{Clock, Entropy, SealError, Sealer, Timestamp, sha256};
use foundation::params;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::access_tokens::{Published, Ring, RingKey, memory};
use super::store::{self, StoredKey};
use crate::access::{By, Denied, may};
use crate::app::App;
use crate::settings::{Settings, SigningAlgorithm};

const PURPOSE: &str = "signing key";
/// As it stands in the trail that there is another key.
const PUBLISHED: &str = "signing_key_published";
/// How long anybody may keep our public keys: what the JWKS says in `Cache-Control`.
pub(super) const CACHED: Duration = Duration::from_secs(300);
/// What clocks and caches are allowed to be wrong by.
const MARGIN: Duration = Duration::from_secs(60);
/// How often a process looks at the keys.
const LOOK: Duration = Duration::from_secs(2);
/// How often somebody asks whether a key is too old.
const CHECK: Duration = Duration::from_secs(60);
/// Bits of an RSA key: 128 bits of strength (NIST SP 800-57 part 1, table 2).
const RSA: KeySize = KeySize::Rsa3072;
/// Fewer bytes of modulus are refused when a key is loaded.
const LEAST_RSA: usize = 256;

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The database is away.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// The stored key is not readable with the configured master key.
    #[error(
        "the signing key {kid} in the database cannot be opened: {why}. Set secrets.master_key to the key that this \
         database was made with, or add that key to secrets.old_master_keys. If it is lost: `pearlgate keys revoke {kid}`."
    )]
    Sealed {
        /// Which key.
        kid: String,
        /// What is wrong.
        why: SealError,
    },
    /// A key that does not parse, or is too weak.
    #[error("a signing key cannot be made or read")]
    Broken,
}

/// A signing key as `pearlgate keys list` shows it.
#[derive(Debug, Clone)]
pub struct SigningKeyInfo {
    /// Its id: the key's thumbprint (RFC 7638).
    pub kid: String,
    /// Its algorithm.
    pub algorithm: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it does now: `published`, `signing` or `retiring`.
    pub state: &'static str,
    /// From when on it signs.
    pub signs_from: Timestamp,
}

/// What became of a wish for another key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rotated {
    /// It is published, and signs from then on.
    Published(String, Timestamp),
    /// One is on its way already.
    Pending(String, Timestamp),
    /// The newest key is young enough.
    NotDue,
}

/// Whoever keeps the keys: the server, or a command.
#[derive(Clone)]
pub struct KeyKeeper {
    db: Db,
    sealer: Sealer,
    clock: Clock,
    trail: Trail,
    algorithm: SigningAlgorithm,
    rotate_after: Duration,
    access_lifetime: Duration,
}

impl KeyKeeper {
    /// For these settings.
    pub fn new(settings: &Settings, db: Db, sealer: Sealer, clock: Clock, chance: Entropy) -> Self {
        Self {
            db,
            sealer,
            trail: Trail::new(clock.clone(), chance),
            clock,
            algorithm: settings.signing_algorithm,
            rotate_after: settings.rotate_keys,
            access_lifetime: settings.access_lifetime,
        }
    }

    /// From publishing a key to signing with it.
    fn wait(&self) -> Duration {
        CACHED + LOOK + MARGIN
    }

    /// From the last signature of a key to its end.
    fn keep(&self) -> Duration {
        self.access_lifetime + MARGIN
    }

    /// The keys, in the order in which they sign.
    ///
    /// # Errors
    /// As every read.
    pub async fn list(&self) -> db::Result<Vec<SigningKeyInfo>> {
        let keys: Vec<StoredKey> = self.db.read_one(|tx| tx.all(&store::KEYS, &[])).await?;
        let now = self.clock.now();
        let signing = signer(&keys, now).map(|key| key.kid.clone());
        let state = |key: &StoredKey| match &signing {
            Some(kid) if *kid == key.kid => "signing",
            _ if key.signs_from > now => "published",
            _ => "retiring",
        };
        Ok(keys.iter().map(|key| key.info(state(key))).collect())
    }

    /// Makes a key, publishes it now and lets it sign later; with `due_only`, when the newest one is too old or for
    /// another algorithm than the settings say. Retires what is not needed any more.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn rotate(&self, due_only: bool) -> Result<Rotated, KeyError> {
        let keys: Vec<StoredKey> = self.db.read_one(|tx| tx.all(&store::KEYS, &[])).await?;
        let useless = keys
            .windows(2)
            .any(|pair| matches!(pair, [_, next] if next.signs_from + self.keep() <= self.clock.now()));
        if due_only && !self.is_due(&keys) && !useless {
            return Ok(Rotated::NotDue);
        }
        // Made before the lock: an RSA key takes a while.
        let fresh = self.generate(self.clock.now() + self.wait()).ok_or(KeyError::Broken)?;
        let keeper = self.clone();
        let done = self.db.write(move |tx| {
            tx.one::<(i64,)>(&store::LOCK_KEYS, &[])?;
            let keys: Vec<StoredKey> = tx.all(&store::KEYS, &[])?;
            keeper.retire(tx, &keys)?;
            let rotated = keeper.weigh(&keys, &fresh, due_only);
            if let Rotated::Published(..) = rotated {
                keeper.insert(tx, &fresh)?;
            }
            Ok(rotated)
        });
        Ok(done.await?)
    }

    /// What is to become of a key that was just made, beside those that there are.
    fn weigh(&self, keys: &[StoredKey], fresh: &StoredKey, due_only: bool) -> Rotated {
        match keys.last() {
            Some(newest) if newest.signs_from > self.clock.now() => {
                Rotated::Pending(newest.kid.clone(), newest.signs_from)
            }
            _ if due_only && !self.is_due(keys) => Rotated::NotDue,
            _ => Rotated::Published(fresh.kid.clone(), fresh.signs_from),
        }
    }

    /// Takes a key away at once, because somebody else may have it: what it signed is worth nothing from then on to
    /// us, and to others as soon as they look at the JWKS again. When it was the one that signs, a new one signs
    /// immediately. False when there is no such key.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn revoke(&self, kid: &str) -> Result<bool, KeyError> {
        let fresh = self.generate(self.clock.now()).ok_or(KeyError::Broken)?;
        let (keeper, kid) = (self.clone(), kid.to_owned());
        let done = self.db.write(move |tx| {
            tx.one::<(i64,)>(&store::LOCK_KEYS, &[])?;
            let keys: Vec<StoredKey> = tx.all(&store::KEYS, &[])?;
            if tx.opt::<(Timestamp,)>(&store::DELETE_KEY, params![kid])?.is_none() {
                return Ok(false);
            }
            keeper.note(tx, "signing_key_revoked", json!({ "kid": kid }))?;
            if signer(&keys, keeper.clock.now()).is_some_and(|signer| signer.kid == kid) {
                keeper.insert(tx, &fresh)?;
            }
            Ok(true)
        });
        Ok(done.await?)
    }

    /// Seals under the current master key what is sealed under one of before; how many.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn reseal(&self) -> Result<usize, KeyError> {
        let keys: Vec<StoredKey> = self.db.read_one(|tx| tx.all(&store::KEYS, &[])).await?;
        let mut resealed = 0;
        for key in keys.into_iter().filter(|key| self.sealer.is_outdated(&key.sealed)) {
            let sealed = |why| KeyError::Sealed { kid: key.kid.clone(), why };
            let plain = self.sealer.open(PURPOSE, &key.sealed).map_err(sealed)?;
            let anew = self.sealer.seal(PURPOSE, &plain).map_err(sealed)?;
            let done =
                self.db.write(move |tx| tx.execute(&store::RESEAL_KEY, params![key.kid, anew, key.sealed]));
            resealed += usize::try_from(done.await?).unwrap_or(0);
        }
        Ok(resealed)
    }

    fn is_due(&self, keys: &[StoredKey]) -> bool {
        let now = self.clock.now();
        keys.last().is_none_or(|newest| {
            newest.signs_from.max(newest.created_at) + self.rotate_after <= now
                || newest.algorithm != name(self.algorithm)
        })
    }

    /// Keys whose successor has signed for longer than a token lives.
    fn retire(&self, tx: &mut Tx<'_>, keys: &[StoredKey]) -> db::Result<()> {
        let now = self.clock.now();
        for pair in keys.windows(2) {
            let [old, next] = pair else { continue };
            if next.signs_from + self.keep() <= now {
                tx.opt::<(Timestamp,)>(&store::DELETE_KEY, params![old.kid])?;
                self.note(tx, "signing_key_retired", json!({ "kid": old.kid }))?;
            }
        }
        Ok(())
    }

    fn insert(&self, tx: &mut Tx<'_>, key: &StoredKey) -> db::Result<()> {
        put(tx, key)?;
        self.note(tx, PUBLISHED, published(key))
    }

    fn note(&self, tx: &mut Tx<'_>, kind: &'static str, details: serde_json::Value) -> db::Result<()> {
        let event = Event { kind, actor: String::new(), address: String::new(), details };
        self.trail.record(tx, &Stream::server(), &event)
    }

    fn generate(&self, signs_from: Timestamp) -> Option<StoredKey> {
        let algorithm = jws(self.algorithm);
        let private = match self.algorithm {
            SigningAlgorithm::Es256 => {
                let pair =
                    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
                Zeroizing::new(pair.ok()?.as_ref().to_vec())
            }
            SigningAlgorithm::EdDsa => {
                Zeroizing::new(Ed25519KeyPair::generate().ok()?.to_pkcs8v1().ok()?.as_ref().to_vec())
            }
            SigningAlgorithm::Rs256 => {
                let pair = RsaKeyPair::generate(RSA).ok()?;
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().ok()?;
                Zeroizing::new(der.as_ref().to_vec())
            }
        };
        let mut jwk = Jwk::from_encoding_key(&encoding_key(algorithm, &private)?, algorithm).ok()?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Some(StoredKey {
            sealed: self.sealer.seal(PURPOSE, &private).ok()?,
            public_jwk: serde_json::to_string(&jwk).ok()?,
            kid,
            algorithm: name(self.algorithm).into(),
            created_at: self.clock.now(),
            signs_from,
        })
    }

    fn ring(&self, keys: &[StoredKey]) -> Result<Ring, KeyError> {
        let mut ring = Vec::new();
        let mut published = Vec::new();
        for key in keys {
            let jwk: Jwk = serde_json::from_str(&key.public_jwk).map_err(|_| KeyError::Broken)?;
            let algorithm = algorithm(&key.algorithm).filter(|_| is_strong(&jwk)).ok_or(KeyError::Broken)?;
            let private = self
                .sealer
                .open(PURPOSE, &key.sealed)
                .map_err(|why| KeyError::Sealed { kid: key.kid.clone(), why })?;
            ring.push(RingKey {
                kid: key.kid.clone(),
                algorithm: jws(algorithm),
                name: name(algorithm),
                signs_from: key.signs_from,
                signing: encoding_key(jws(algorithm), &private).ok_or(KeyError::Broken)?,
                verifying: DecodingKey::from_jwk(&jwk).map_err(|_| KeyError::Broken)?,
            });
            published.push(jwk);
        }
        let jwks = json!({ "keys": published }).to_string();
        let etag = format!("\"{}\"", HEXLOWER.encode(&sha256(jwks.as_bytes()).truncated::<16>()));
        Ok(Ring { keys: ring, published: std::sync::Arc::new(Published { jwks, etag }), verified: memory() })
    }
}

/// An operator's wish for another key, once under their key for that; none when it was done before.
///
/// # Errors
/// As every statement; when no key can be made.
pub async fn rotate_by(
    app: &App,
    by: By,
    once: &IdempotencyKey,
) -> db::Result<Result<Option<Rotated>, Denied>> {
    // Made before the lock: an RSA key takes a while.
    let fresh = app.keys.generate(app.clock.now() + app.keys.wait());
    let fresh = fresh.ok_or_else(|| db::Error::Bug(KeyError::Broken.to_string()))?;
    let (inner, once) = (app.clone(), once.clone());
    let done = app.db.write(move |tx| {
        if let Err(denied) = may(tx, &inner, &by, "signing_keys:write")? {
            return Ok(Err(denied));
        }
        tx.one::<(i64,)>(&store::LOCK_KEYS, &[])?;
        let keys: Vec<StoredKey> = tx.all(&store::KEYS, &[])?;
        let rotated = inner.keys.weigh(&keys, &fresh, false);
        let answer = serde_json::to_string(&rotated).map_err(|e| db::Error::Bug(e.to_string()))?;
        if once.claim(tx, inner.clock.now(), 200, &answer)? == Claim::Done {
            return Ok(Ok(None));
        }
        inner.keys.retire(tx, &keys)?;
        if let Rotated::Published(..) = rotated {
            put(tx, &fresh)?;
            inner.audit_by(tx, &Stream::server(), PUBLISHED, &by, published(&fresh))?;
        }
        Ok(Ok(Some(rotated)))
    });
    done.await
}

fn put(tx: &mut Tx<'_>, key: &StoredKey) -> db::Result<()> {
    tx.execute(
        &store::INSERT_KEY,
        params![key.kid, key.algorithm, key.sealed, key.public_jwk, key.created_at, key.signs_from],
    )
    .map(|_| ())
}

fn published(key: &StoredKey) -> serde_json::Value {
    json!({ "kid": key.kid, "signs_from": key.signs_from.to_string() })
}

/// The newest key whose time has come.
fn signer(keys: &[StoredKey], now: Timestamp) -> Option<&StoredKey> {
    keys.iter().rev().find(|key| key.signs_from <= now)
}

impl StoredKey {
    fn info(&self, state: &'static str) -> SigningKeyInfo {
        SigningKeyInfo {
            kid: self.kid.clone(),
            algorithm: self.algorithm.clone(),
            created_at: self.created_at,
            state,
            signs_from: self.signs_from,
        }
    }
}

/// Loads the keys, making the first one when there is none; of several processes that start at once, one makes it.
///
/// # Errors
/// [`KeyError`].
pub async fn load(app: &App) -> Result<(), KeyError> {
    let keys: Vec<StoredKey> = app.db.read_one(|tx| tx.all(&store::KEYS, &[])).await?;
    let keys = if keys.is_empty() { first(app).await? } else { keys };
    app.access_tokens.install(app.keys.ring(&keys)?);
    Ok(())
}

/// Nobody has kept any of our keys yet: the first one signs at once.
async fn first(app: &App) -> Result<Vec<StoredKey>, KeyError> {
    let fresh = app.keys.generate(app.clock.now()).ok_or(KeyError::Broken)?;
    let keeper = app.keys.clone();
    let keys = app.db.write(move |tx| {
        tx.one::<(i64,)>(&store::LOCK_KEYS, &[])?;
        let known: Vec<StoredKey> = tx.all(&store::KEYS, &[])?;
        if !known.is_empty() {
            return Ok(known);
        }
        keeper.insert(tx, &fresh)?;
        Ok(vec![fresh.clone()])
    });
    Ok(keys.await?)
}

/// Looks at the keys again and again: every two seconds, and whenever the clock is moved.
pub async fn keep_loaded(app: App) {
    loop {
        let moved = app.clock.moved();
        if let Err(error) = load(&app).await {
            tracing::warn!(%error, "the signing keys could not be looked at; those that are known stay in use");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = moved => {}
        }
    }
}

/// Replaces the signing key when it is too old.
#[derive(Debug, Serialize, Deserialize)]
struct RotateKeys {}

impl Job for RotateKeys {
    const KIND: &'static str = "sessions.rotate_keys";
}

/// Adds this slice's jobs to a worker's handlers.
#[must_use]
pub fn handle(app: &App, handlers: Handlers) -> Handlers {
    let keys = app.keys.clone();
    let rotate = move |_: RotateKeys| {
        let keys = keys.clone();
        async move {
            let failed = |e: KeyError| JobError::Retry(e.to_string());
            keys.reseal().await.map_err(failed)?;
            keys.rotate(true).await.map(|_| ()).map_err(failed)
        }
    };
    handlers.on(rotate).recurring(&RotateKeys {}, CHECK)
}

fn name(algorithm: SigningAlgorithm) -> &'static str {
    match algorithm {
        SigningAlgorithm::Es256 => "ES256",
        SigningAlgorithm::EdDsa => "EdDSA",
        SigningAlgorithm::Rs256 => "RS256",
    }
}

fn algorithm(text: &str) -> Option<SigningAlgorithm> {
    let all = [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa, SigningAlgorithm::Rs256];
    all.into_iter().find(|algorithm| name(*algorithm) == text)
}

fn jws(algorithm: SigningAlgorithm) -> Algorithm {
    match algorithm {
        SigningAlgorithm::Es256 => Algorithm::ES256,
        SigningAlgorithm::EdDsa => Algorithm::EdDSA,
        SigningAlgorithm::Rs256 => Algorithm::RS256,
    }
}

/// From PKCS#8 (RFC 5958).
fn encoding_key(algorithm: Algorithm, private: &[u8]) -> Option<EncodingKey> {
    match algorithm {
        Algorithm::ES256 => Some(EncodingKey::from_ec_der(private)),
        Algorithm::EdDSA => Some(EncodingKey::from_ed_der(private)),
        _ => {
            // The library takes RSA out of PKCS#8 only when it is PEM.
            let pem = Zeroizing::new(format!(
                "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                BASE64.encode(private)
            ));
            EncodingKey::from_rsa_pem(pem.as_bytes()).ok()
        }
    }
}

/// A weak key is refused when it is loaded, whoever put it there.
fn is_strong(jwk: &Jwk) -> bool {
    match &jwk.algorithm {
        AlgorithmParameters::RSA(key) => {
            data_encoding::BASE64URL_NOPAD.decode(key.n.as_bytes()).is_ok_and(|n| n.len() >= LEAST_RSA)
        }
        AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::OctetKeyPair(_) => true,
        _ => false,
    }
}
