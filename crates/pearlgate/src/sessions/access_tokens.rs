//! Access tokens: JWTs per RFC 9068, verified by anybody from the JWKS.
//!
//! Our own API verifies them too, and then asks the store about the session. A verified token is remembered by its
//! digest: the signature of the same bytes does not change, and checking it costs ten times the rest of a call.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use foundation::kernel::{Entropy, Id, Secret, Timestamp, sha256};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use super::model::SessionRow;
use super::store::SessionUser;
use crate::accounts::UserRow;
use crate::settings::Settings;

/// RFC 9068 §2.1.
const TYPE: &str = "at+jwt";
/// A longer token is none of ours (golang-jwt CVE-2025-30204).
const LONGEST: usize = 8 * 1024;
/// Verified tokens that are remembered: about 4 MB when full.
const REMEMBERED: u64 = 20_000;

/// What an access token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are RFC 9068's, RFC 7519's and OpenID Connect's")]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    pub sub: Id<UserRow>,
    pub sid: Id<SessionRow>,
    pub iat: i64,
    pub exp: i64,
    pub jti: String,
    pub client_id: String,
    pub amr: Vec<String>,
    pub aal: i64,
    pub auth_time: i64,
    pub roles: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<String>>,
}

/// Who acts as the person whom a token is about (RFC 8693 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The operator.
    pub sub: Id<UserRow>,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenRefusal {
    /// Not one of ours, or not for us.
    Invalid,
    /// It was good once.
    Expired,
    /// The keys are not loaded yet: the database is away since the start.
    NoKeys,
}

/// The header of our tokens has these three members and no other: whoever adds `jku`, `jwk`, `crit` or `zip` wants
/// something (RFC 8725 §3.10).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OurHeader {
    alg: String,
    typ: String,
    kid: String,
}

/// A key as it is used.
pub(super) struct RingKey {
    pub(super) kid: String,
    pub(super) algorithm: Algorithm,
    /// As the header of a token spells it.
    pub(super) name: &'static str,
    pub(super) signs_from: Timestamp,
    pub(super) signing: EncodingKey,
    pub(super) verifying: DecodingKey,
}

/// The keys in use, in the order in which they sign, and as they are published.
pub(super) struct Ring {
    pub(super) keys: Vec<RingKey>,
    pub(super) published: Arc<Published>,
    /// What these keys have verified; it goes with them, so that nothing is remembered of a key that is gone.
    pub(super) verified: Cache<[u8; 32], Arc<Claims>>,
}

/// An empty memory for verified tokens.
pub(super) fn memory() -> Cache<[u8; 32], Arc<Claims>> {
    Cache::with_weighter(100, REMEMBERED, UnitWeighter)
}

/// The public keys as a JWK set (RFC 7517 §5), with the tag by which a cache knows them again.
#[derive(Debug)]
pub struct Published {
    /// The document.
    pub jwks: String,
    /// Its `ETag` (RFC 9110 §8.8.3).
    pub etag: String,
}

impl Ring {
    /// The newest key whose time has come: what was published before it is known to every cache by then.
    fn signer(&self, now: Timestamp) -> Option<&RingKey> {
        self.keys.iter().rev().find(|key| key.signs_from <= now).or_else(|| self.keys.first())
    }
}

/// Signs and verifies.
pub struct AccessTokens {
    ring: RwLock<Option<Arc<Ring>>>,
    issuer: String,
    audience: String,
    client_id: String,
    lifetime: Duration,
}

impl AccessTokens {
    /// Without keys yet; [`super::load_signing_keys`] loads them.
    pub fn new(settings: &Settings) -> Self {
        let issuer = settings.public_url.clone();
        let audience = if settings.audience.is_empty() { issuer.clone() } else { settings.audience.clone() };
        Self {
            ring: RwLock::new(None),
            issuer,
            audience,
            client_id: settings.client_id.clone(),
            lifetime: settings.access_lifetime,
        }
    }

    /// Takes over what the database has, unless it is what we have.
    pub(super) fn install(&self, ring: Ring) {
        let mut held = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let order = |ring: &Ring| -> Vec<(String, Timestamp)> {
            ring.keys.iter().map(|key| (key.kid.clone(), key.signs_from)).collect()
        };
        if held.as_ref().is_some_and(|held| order(held) == order(&ring)) {
            return;
        }
        *held = Some(Arc::new(ring));
    }

    fn ring(&self) -> Option<Arc<Ring>> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The public keys; none before they are loaded.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.ring().map(|ring| ring.published.clone())
    }

    /// How long a token is good.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A token for a session, in which somebody may be somebody else; none before the keys are loaded.
    pub(super) fn sign(
        &self,
        (session, act): (&SessionUser, Option<Actor>),
        permissions: Option<Vec<String>>,
        now: Timestamp,
        chance: &Entropy,
    ) -> Option<Secret> {
        let ring = self.ring()?;
        let key = ring.signer(now)?;
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: session.user_id,
            sid: session.session_id,
            iat: now.seconds(),
            exp: (now + self.lifetime).min(session.expires_at).seconds(),
            jti: BASE64URL_NOPAD.encode(&chance.bytes::<16>()),
            client_id: self.client_id.clone(),
            amr: session.amr.split(' ').map(str::to_owned).collect(),
            aal: session.aal,
            auth_time: session.authenticated_at.seconds(),
            roles: session.roles(),
            act,
            permissions,
        };
        let header =
            Header { typ: Some(TYPE.into()), kid: Some(key.kid.clone()), ..Header::new(key.algorithm) };
        jsonwebtoken::encode(&header, &claims, &key.signing).map(Secret::new).ok()
    }

    /// What a token says, when it is ours, for us, and not expired.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Claims>, TokenRefusal> {
        let claims = self.verify_signature(token)?;
        if claims.exp <= now.seconds() { Err(TokenRefusal::Expired) } else { Ok(claims) }
    }

    /// [`AccessTokens::verify`] without the expiry: whose token it was.
    pub(super) fn verify_signature(&self, token: &str) -> Result<Arc<Claims>, TokenRefusal> {
        if token.len() > LONGEST {
            return Err(TokenRefusal::Invalid);
        }
        let ring = self.ring().ok_or(TokenRefusal::NoKeys)?;
        let digest = *sha256(token.as_bytes()).as_bytes();
        if let Some(claims) = ring.verified.get(&digest) {
            return Ok(claims);
        }
        let claims = self.decode(&ring, token).ok_or(TokenRefusal::Invalid)?;
        ring.verified.insert(digest, claims.clone());
        Ok(claims)
    }

    /// The algorithm is the key's, never the header's (RFC 8725 §3.1), and a key that we do not have is not looked for
    /// anywhere.
    fn decode(&self, ring: &Ring, token: &str) -> Option<Arc<Claims>> {
        let header = BASE64URL_NOPAD.decode(token.split('.').next()?.as_bytes()).ok()?;
        let header: OurHeader = serde_json::from_slice(&header).ok()?;
        let key = ring.keys.iter().find(|key| key.kid == header.kid)?;
        if header.typ != TYPE || header.alg != key.name {
            return None;
        }
        let mut rules = Validation::new(key.algorithm);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Expiry is ours to check: by the injected clock, without leeway.
        rules.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.verifying, &rules).ok()?.claims;
        // None of ours lives longer, whoever signed it.
        let longest = i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
        (claims.exp.saturating_sub(claims.iat) <= longest).then(|| Arc::new(claims))
    }
}
