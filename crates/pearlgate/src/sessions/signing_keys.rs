//! The key that signs access tokens: made once, sealed under the master key, shared by every process on the
//! database.

use std::collections::HashMap;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use foundation::db;
use foundation::kernel::{SealError, Sealer};
use foundation::params;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::json;

use super::access_tokens::Ring;
use super::store::{self, StoredKey};
use crate::app::App;

const PURPOSE: &str = "signing key";
const ALGORITHM: &str = "ES256";

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The database is away.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// The stored key is not readable with the configured master key.
    #[error(
        "the signing key {kid} in the database cannot be opened: {why}. Set secrets.master_key to the key that this \
         database was made with."
    )]
    Sealed {
        /// Which key.
        kid: String,
        /// What is wrong.
        why: SealError,
    },
    /// A key that does not parse.
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
    pub created_at: foundation::kernel::Timestamp,
}

/// Loads the keys, making the first one when there is none; of several processes that start at once, one makes it.
///
/// # Errors
/// [`KeyError`].
pub async fn ensure(app: &App) -> Result<(), KeyError> {
    let fresh = generate(&app.sealer, app.clock.now()).ok_or(KeyError::Broken)?;
    let keys = app.db.write(move |tx| {
        tx.one::<(i64,)>(&store::LOCK_KEYS, &[])?;
        let known: Vec<StoredKey> = tx.all(&store::KEYS, &[])?;
        if !known.is_empty() {
            return Ok(known);
        }
        let k = &fresh;
        tx.execute(&store::INSERT_KEY, params![k.kid, k.algorithm, k.sealed, k.public_jwk, k.created_at])?;
        Ok(vec![fresh.clone()])
    });
    let ring = ring(&app.sealer, keys.await?)?;
    app.access_tokens.install(ring);
    Ok(())
}

/// The keys in the database.
///
/// # Errors
/// As every read.
pub async fn list(db: &db::Db) -> db::Result<Vec<SigningKeyInfo>> {
    let keys: Vec<StoredKey> = db.read_one(|tx| tx.all(&store::KEYS, &[])).await?;
    let info = |key: StoredKey| SigningKeyInfo {
        kid: key.kid,
        algorithm: key.algorithm,
        created_at: key.created_at,
    };
    Ok(keys.into_iter().map(info).collect())
}

fn generate(sealer: &Sealer, now: foundation::kernel::Timestamp) -> Option<StoredKey> {
    let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).ok()?;
    let mut jwk = Jwk::from_encoding_key(&EncodingKey::from_ec_der(pair.as_ref()), Algorithm::ES256).ok()?;
    let kid = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
    jwk.common.key_id = Some(kid.clone());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Some(StoredKey {
        sealed: sealer.seal(PURPOSE, pair.as_ref()).ok()?,
        public_jwk: serde_json::to_string(&jwk).ok()?,
        kid,
        algorithm: ALGORITHM.into(),
        created_at: now,
    })
}

fn ring(sealer: &Sealer, keys: Vec<StoredKey>) -> Result<Ring, KeyError> {
    let mut verifying = HashMap::new();
    let mut published = Vec::new();
    for key in &keys {
        let jwk: Jwk = serde_json::from_str(&key.public_jwk).map_err(|_| KeyError::Broken)?;
        verifying.insert(key.kid.clone(), DecodingKey::from_jwk(&jwk).map_err(|_| KeyError::Broken)?);
        published.push(jwk);
    }
    let current = keys.first().ok_or(KeyError::Broken)?;
    let private = sealer
        .open(PURPOSE, &current.sealed)
        .map_err(|why| KeyError::Sealed { kid: current.kid.clone(), why })?;
    Ok(Ring {
        kid: current.kid.clone(),
        signing: EncodingKey::from_ec_der(&private),
        verifying,
        jwks: json!({ "keys": published }).to_string(),
    })
}
