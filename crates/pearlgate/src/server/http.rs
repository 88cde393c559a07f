//! The server's own endpoints.

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use foundation::kernel::Problem;
use foundation::outbound::Health;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::app::App;
use crate::openapi::{self, ProblemDocument};

/// How the process is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Condition {
    /// `ok`
    #[schema(example = "ok")]
    status: &'static str,
}

/// Where others find what they need to verify our tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenIdConfiguration {
    /// The `iss` of every token.
    issuer: String,
    /// The public keys.
    jwks_uri: String,
}

/// Is the process alive
#[utoipa::path(get, path = "/health/live", tag = "server", responses((status = 200, body = Condition)))]
pub async fn live() -> JsonAnswer<Condition> {
    JsonAnswer(Condition { status: "ok" })
}

/// Can it do its work
///
/// 503 while the database does not answer or its schema is not the one this version needs.
#[utoipa::path(get, path = "/health/ready", tag = "server",
    responses((status = 200, body = Condition), (status = 503, body = ProblemDocument)))]
pub async fn ready(State(app): State<App>) -> Result<JsonAnswer<Condition>, Problem> {
    if app.access_tokens.published().is_some() && app.db.ready().await {
        return Ok(JsonAnswer(Condition { status: "ok" }));
    }
    Err(Problem::unavailable("The database does not answer, or its schema has not been checked yet."))
}

/// What the server can go on without, and how it is
pub(crate) async fn dependencies(State(app): State<App>) -> JsonAnswer<Value> {
    let items: Vec<Health> = app.dependencies.health();
    JsonAnswer(json!({ "items": items }))
}

/// Counts and timings in the text form of Prometheus
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
        .into_response()
}

/// Where the keys are
///
/// `issuer` and `jwks_uri`, which is what a verifier of our access tokens needs. The server is not an OpenID
/// provider.
#[utoipa::path(get, path = "/.well-known/openid-configuration", tag = "server",
    responses((status = 200, body = OpenIdConfiguration)))]
pub async fn openid_configuration(State(app): State<App>) -> Response {
    let issuer = app.settings.public_url.clone();
    let jwks_uri = format!("{issuer}/.well-known/jwks.json");
    ([(header::CACHE_CONTROL, "public, max-age=300")], JsonAnswer(OpenIdConfiguration { issuer, jwks_uri }))
        .into_response()
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "server", responses((status = 200, body = Object)))]
pub async fn openapi(State(app): State<App>) -> Response {
    let document = openapi::document(&app.settings.public_url);
    ([(header::CACHE_CONTROL, "public, max-age=300")], JsonAnswer(document)).into_response()
}
