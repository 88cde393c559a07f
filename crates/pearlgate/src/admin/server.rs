//! What operators see of the server itself: what it depends on, its signing keys, its settings.

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::HeaderMap;
use foundation::config::Shown;
use foundation::http::OptionalJson;
use foundation::kernel::{Problem, Timestamp};
use foundation::outbound::Health;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::shared::once;
use crate::access::Operator;
use crate::app::App;
use crate::mfa::http::Nothing;
use crate::openapi::ProblemDocument;
use crate::sessions::{self, Rotated, SigningKeyInfo};

/// Something that the server can go on without.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminDependency {
    /// Its name.
    #[schema(example = "mail.primary")]
    name: String,
    /// `up`, `down`, or `unknown` when nobody has asked it lately.
    #[schema(example = "up")]
    state: &'static str,
    /// Since when it is so.
    since: String,
    /// The last failure; empty when there was none.
    last_error: String,
    /// What people notice while it is away; empty while it is not.
    degraded: &'static str,
    /// Calls that were not made since this server started: it was left alone for a moment, or too many waited for it.
    short_circuited: u64,
}

impl AdminDependency {
    fn of(health: Health) -> Self {
        Self {
            name: health.name,
            state: health.state,
            since: health.since.to_string(),
            last_error: health.last_error,
            degraded: health.degraded,
            short_circuited: health.short_circuited,
        }
    }
}

/// Dependencies.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminDependencies {
    /// All of them, as the server that answers sees them.
    items: Vec<AdminDependency>,
    /// Always empty.
    next_cursor: String,
}

/// What the server can go on without
#[utoipa::path(get, path = "/v1/admin/dependencies", tag = "admin", security(("access_token" = [])),
    responses((status = 200, body = AdminDependencies), (status = "4XX", body = ProblemDocument)))]
pub async fn list_dependencies(State(app): State<App>, _: Operator) -> JsonAnswer<AdminDependencies> {
    let items = app.dependencies.health().into_iter().map(AdminDependency::of).collect();
    JsonAnswer(AdminDependencies { items, next_cursor: String::new() })
}

/// A key that signs access tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct SigningKey {
    /// Its id: the key's thumbprint (RFC 7638).
    kid: String,
    /// `ES256`, `EdDSA` or `RS256`.
    #[schema(example = "ES256")]
    algorithm: String,
    /// `published`, `signing` or `retiring`.
    #[schema(example = "signing")]
    state: &'static str,
    /// When it was made.
    created_at: String,
    /// From when on it signs.
    signs_from: String,
}

impl SigningKey {
    fn of(key: SigningKeyInfo) -> Self {
        Self {
            kid: key.kid,
            algorithm: key.algorithm,
            state: key.state,
            created_at: key.created_at.to_string(),
            signs_from: key.signs_from.to_string(),
        }
    }
}

/// Signing keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct SigningKeys {
    /// In the order in which they sign.
    items: Vec<SigningKey>,
    /// Always empty.
    next_cursor: String,
}

/// Keys that sign access tokens
#[utoipa::path(get, path = "/v1/admin/signing-keys", tag = "admin", security(("access_token" = [])),
    responses((status = 200, body = SigningKeys), (status = "4XX", body = ProblemDocument)))]
pub async fn list_signing_keys(
    State(app): State<App>,
    _: Operator,
) -> Result<JsonAnswer<SigningKeys>, Problem> {
    let found = app.keys.list().await.map_err(|e| e.to_problem())?;
    let items = found.into_iter().map(SigningKey::of).collect();
    Ok(JsonAnswer(SigningKeys { items, next_cursor: String::new() }))
}

/// What became of the wish for another key.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyRotation {
    /// `published`, or `pending` when one was on its way already.
    #[schema(example = "published")]
    status: &'static str,
    /// The next key.
    kid: String,
    /// From when on it signs: when everybody who keeps the public keys has it.
    signs_from: String,
}

impl KeyRotation {
    fn of(rotated: Rotated) -> Option<Self> {
        let rotation = |status, kid, at: Timestamp| Some(Self { status, kid, signs_from: at.to_string() });
        match rotated {
            Rotated::Published(kid, at) => rotation("published", kid, at),
            Rotated::Pending(kid, at) => rotation("pending", kid, at),
            Rotated::NotDue => None,
        }
    }
}

/// Replace the signing key
///
/// The next one is published now and signs some minutes later; tokens that are out stay good. Needs a fresh session. A key that
/// somebody else may have is taken away with `pearlgate keys revoke`.
#[utoipa::path(post, path = "/v1/admin/signing-keys/rotate", tag = "admin", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    params(("Idempotency-Key" = Option<String>, Header, description = "the same key gives the first answer again, for 24 hours")),
    responses((status = 200, body = KeyRotation), (status = "4XX", body = ProblemDocument)))]
pub async fn rotate_signing_keys(
    State(app): State<App>,
    operator: Operator,
    headers: HeaderMap,
    OptionalJson(Nothing {}): OptionalJson<Nothing>,
) -> Result<JsonAnswer<KeyRotation>, Problem> {
    operator.must_be_fresh(&app)?;
    let key = app.idempotency.key(&headers, &operator.by.actor(), "signing-keys/rotate", &[])?;
    let rotated = once(&app, &key, sessions::rotate_signing_keys(&app, operator.by, &key)).await?;
    KeyRotation::of(rotated).map(JsonAnswer).ok_or_else(Problem::internal)
}

/// A setting.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminSetting {
    /// Its key.
    #[schema(example = "tokens.access")]
    key: String,
    /// A text, a number, true or false, or a list; `(hidden)` for a secret that is set.
    value: Value,
    /// Where it was set: a file and line, an environment variable, an option, or `the defaults`.
    #[schema(example = "the defaults")]
    source: String,
}

impl AdminSetting {
    fn of(shown: &Shown) -> Self {
        Self { key: shown.key.clone(), value: shown.value.clone(), source: shown.place.clone() }
    }
}

/// Settings.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminSettings {
    /// All of them, by key.
    items: Vec<AdminSetting>,
    /// Always empty.
    next_cursor: String,
}

/// The settings in force
///
/// As the server that answers was started with, secrets hidden.
#[utoipa::path(get, path = "/v1/admin/settings", tag = "admin", security(("access_token" = [])),
    responses((status = 200, body = AdminSettings), (status = "4XX", body = ProblemDocument)))]
pub async fn list_settings(State(app): State<App>, _: Operator) -> JsonAnswer<AdminSettings> {
    let items = app.settings.shown.0.iter().map(AdminSetting::of).collect();
    JsonAnswer(AdminSettings { items, next_cursor: String::new() })
}
