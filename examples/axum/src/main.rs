//! An axum app with a route for people who are signed in at Pearlgate.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "an app of its own, not the server")]

use std::{env, error::Error, sync::Arc, time::Duration, time::Instant};

use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::Jwk, jwk::JwkSet};

#[derive(serde::Deserialize, serde::Serialize)]
struct Caller {
    #[serde(rename(deserialize = "sub"))]
    person: String,
    #[serde(rename(deserialize = "sid"))]
    session: String,
    roles: Vec<String>,
}
/// Issuer, audience, and the public keys with the time when they were fetched.
type App = (String, String, tokio::sync::Mutex<(JwkSet, Instant)>);
const ALLOWED: [Algorithm; 3] = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256];

async fn fetch(issuer: &str) -> reqwest::Result<JwkSet> {
    let request = reqwest::Client::new().get(format!("{issuer}/.well-known/jwks.json"));
    request.timeout(Duration::from_secs(5)).send().await?.error_for_status()?.json().await
}
/// The keys are fetched again for a name that is not there, and when older than the server's Cache-Control says.
async fn key((issuer, _, keys): &App, kid: &str) -> Option<Jwk> {
    let mut keys = keys.lock().await;
    let age = keys.1.elapsed().as_secs();
    if age >= 300 || (age >= 30 && keys.0.find(kid).is_none()) {
        *keys = (fetch(issuer).await.unwrap_or_else(|_| keys.0.clone()), Instant::now());
    }
    keys.0.find(kid).cloned()
}
async fn caller(app: &App, headers: &HeaderMap) -> Option<Caller> {
    let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let head = decode_header(token).ok().filter(|head| head.typ.as_deref() == Some("at+jwt"))?;
    let key = key(app, &head.kid?).await?;
    let algorithm = Algorithm::try_from(key.common.key_algorithm?).ok().filter(|a| ALLOWED.contains(a))?;
    let mut rules = Validation { leeway: 0, ..Validation::new(algorithm) };
    rules.set_issuer(&[&app.0]);
    rules.set_audience(&[&app.1]);
    rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    decode::<Caller>(token, &DecodingKey::from_jwk(&key).ok()?, &rules).ok().map(|token| token.claims)
}
async fn courses(State(app): State<Arc<App>>, headers: HeaderMap) -> impl IntoResponse {
    caller(&app, &headers).await.map(Json).ok_or((StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer")]))
}
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let set = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let issuer = set("PEARLGATE_URL", "http://localhost:8080");
    let audience = set("AUDIENCE", &issuer);
    let keys = tokio::sync::Mutex::new((fetch(&issuer).await?, Instant::now()));
    let app = Router::new().route("/courses", get(courses)).with_state(Arc::new((issuer, audience, keys)));
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", set("PORT", "0"))).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
