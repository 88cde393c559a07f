//! Access tokens: JWTs per RFC 9068, signed with ES256, verified by anybody from the JWKS.
//!
//! Our own API verifies them too, and then asks the store about the session. A verified token is remembered by its
//! digest: the signature of the same bytes does not change, and checking it costs ten times the rest of a call.

use std::collections::HashMap;
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

/// The keys in use.
pub(super) struct Ring {
    pub(super) kid: String,
    pub(super) signing: EncodingKey,
    pub(super) verifying: HashMap<String, DecodingKey>,
    pub(super) jwks: String,
}

/// Signs and verifies.
pub struct AccessTokens {
    ring: RwLock<Option<Arc<Ring>>>,
    issuer: String,
    audience: String,
    client_id: String,
    lifetime: Duration,
    verified: Cache<[u8; 32], Arc<Claims>>,
}

impl AccessTokens {
    /// Without keys yet; [`super::ensure_signing_key`] loads them.
    pub fn new(settings: &Settings) -> Self {
        let issuer = settings.public_url.clone();
        let audience = if settings.audience.is_empty() { issuer.clone() } else { settings.audience.clone() };
        Self {
            ring: RwLock::new(None),
            issuer,
            audience,
            client_id: settings.client_id.clone(),
            lifetime: settings.access_lifetime,
            verified: Cache::with_weighter(100, REMEMBERED, UnitWeighter),
        }
    }

    pub(super) fn install(&self, ring: Ring) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(ring));
        self.verified.clear();
    }

    fn ring(&self) -> Option<Arc<Ring>> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The public keys as a JWK set (RFC 7517 §5); none before they are loaded.
    pub fn jwks(&self) -> Option<String> {
        self.ring().map(|ring| ring.jwks.clone())
    }

    /// How long a token is good.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A token for a session; none before the keys are loaded.
    pub(super) fn sign(&self, session: &SessionUser, now: Timestamp, chance: &Entropy) -> Option<Secret> {
        let ring = self.ring()?;
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
            roles: Vec::new(),
        };
        let header =
            Header { typ: Some(TYPE.into()), kid: Some(ring.kid.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &ring.signing).map(Secret::new).ok()
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
        let digest = *sha256(token.as_bytes()).as_bytes();
        if let Some(claims) = self.verified.get(&digest) {
            return Ok(claims);
        }
        let ring = self.ring().ok_or(TokenRefusal::NoKeys)?;
        let claims = self.decode(&ring, token).ok_or(TokenRefusal::Invalid)?;
        self.verified.insert(digest, claims.clone());
        Ok(claims)
    }

    /// The algorithm is the key's, never the header's (RFC 8725 §3.1).
    fn decode(&self, ring: &Ring, token: &str) -> Option<Arc<Claims>> {
        let header = BASE64URL_NOPAD.decode(token.split('.').next()?.as_bytes()).ok()?;
        let header: OurHeader = serde_json::from_slice(&header).ok()?;
        if header.typ != TYPE || header.alg != "ES256" {
            return None;
        }
        let key = ring.verifying.get(&header.kid)?;
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Expiry is ours to check: by the injected clock, without leeway.
        rules.validate_exp = false;
        jsonwebtoken::decode::<Claims>(token, key, &rules).ok().map(|data| Arc::new(data.claims))
    }
}
