//! Sessions over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foundation::http::{OptionalJson, same_origin};
use foundation::kernel::{FieldError, Problem, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access_tokens::TokenRefusal;
use super::flow;
use super::guard::bearer;
use crate::accounts::User;
use crate::app::App;
use crate::errors;
use crate::pages::{cookie, set_cookie};
use crate::router::From;

/// What a client gets when somebody is let in.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenSet {
    /// Always `authenticated`.
    #[schema(example = "authenticated")]
    pub status: &'static str,
    /// A JWT per RFC 9068, for `Authorization: Bearer`.
    pub access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    pub token_type: &'static str,
    /// Seconds until the access token expires.
    #[schema(example = 600)]
    pub expires_in: u64,
    /// Opaque; gives a new token set at `/v1/auth/refresh`. Left out when it travels in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub refresh_token: Option<String>,
    /// Seconds until the refresh token expires if it is not used.
    pub refresh_expires_in: u64,
    /// Tells this device from a stranger at its next sign-in; opens nothing.
    pub device_token: String,
    /// The session.
    pub session: SessionInfo,
    /// The person.
    pub user: User,
}

/// A session as its client sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionInfo {
    /// `ses_…`
    pub id: String,
    /// When it began.
    pub created_at: String,
    /// When it ends if it is not refreshed.
    pub expires_at: String,
    /// Authenticator assurance level (NIST SP 800-63B-4).
    pub aal: i64,
    /// Authentication methods (RFC 8176).
    pub amr: Vec<String>,
}

/// How tokens travel. `token`: in the body. `cookie`: the refresh token in a cookie that no script sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Tokens in the body.
    #[default]
    Token,
    /// The refresh token in a `__Host-` cookie.
    Cookie,
}

/// Where the refresh token is kept by a browser.
pub(super) const COOKIE: &str = "__Host-pearlgate-session";

/// Somebody is let in: a token set, and the cookie when the refresh token travels in one.
#[derive(Debug)]
pub struct LetIn {
    /// The body.
    pub body: TokenSet,
    /// The cookie.
    pub cookie: Option<[(header::HeaderName, String); 1]>,
}

impl IntoResponse for LetIn {
    fn into_response(self) -> Response {
        match self.cookie {
            Some(cookie) => (cookie, JsonAnswer(self.body)).into_response(),
            None => JsonAnswer(self.body).into_response(),
        }
    }
}

/// A refresh token; without one the cookie counts.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// `pgr_…`
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    refresh_token: Option<Secret>,
}

/// Whose session ends.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Logout {
    /// `pgr_…`; without it the session of the access token in `Authorization` ends.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    refresh_token: Option<Secret>,
}

/// New tokens
///
/// The refresh token is replaced. Repeating the call with the same token within 30 seconds gives the same answer
/// again, so a lost response or a second tab signs nobody out. A token that was replaced long ago ends the session.
/// Without a body the session cookie counts, and its successor is a cookie again.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "sign-in", request_body = Refresh,
    responses((status = 200, body = TokenSet), (status = "4XX", body = crate::openapi::ProblemDocument)))]
pub async fn refresh(
    State(app): State<App>,
    From(from): From,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<Refresh>,
) -> Result<LetIn, Problem> {
    let (token, transport) = match body.refresh_token {
        Some(token) => (token, Transport::Token),
        None => (in_cookie(&app, &headers)?.ok_or_else(no_token)?, Transport::Cookie),
    };
    let started = flow::refresh(&app, &token, from).await?;
    flow::let_in(&app, started, transport)
}

fn no_token() -> Problem {
    let message = "give it, or send the session cookie";
    Problem::invalid(vec![FieldError::new("refresh_token", "required", message)])
}

/// The refresh token in the cookie, for a request of our own origin alone; two cookies of one name are none.
fn in_cookie(app: &App, headers: &HeaderMap) -> Result<Option<Secret>, Problem> {
    let Some(text) = cookie(headers, COOKIE).filter(|text| !text.is_empty()) else { return Ok(None) };
    if !same_origin(headers, &app.settings.public_url) {
        return Err(errors::problem("permission_denied")
            .detail("A request with the session cookie must come from a page of the server's own address."));
    }
    Ok(Some(Secret::new(text.to_owned())))
}

/// Sign out
///
/// Ends the session of the refresh token in the body and of the access token in `Authorization`. Answers 204 also
/// when that session is over already.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "sign-in", request_body = Logout,
    responses((status = 204), (status = "4XX", body = crate::openapi::ProblemDocument)))]
pub async fn logout(
    State(app): State<App>,
    From(from): From,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<Logout>,
) -> Result<Response, Problem> {
    // Whatever of the two names a session ends it: nobody who shows one good token stays in.
    let named = body.refresh_token.is_some() || headers.contains_key(header::AUTHORIZATION);
    // The cookie of another site's request counts for nothing; when it is all there is, that is said.
    let carried = match in_cookie(&app, &headers) {
        Err(refusal) if !named => return Err(refusal),
        carried => carried.ok().flatten(),
    };
    let refreshed = body.refresh_token.and_then(|token| app.refresh_key.read(&token));
    let carried_session = carried.as_ref().and_then(|token| app.refresh_key.read(token));
    let signed = match bearer(&headers).ok().flatten().map(|token| app.access_tokens.verify_signature(token))
    {
        Some(Err(TokenRefusal::NoKeys)) => {
            return Err(Problem::unavailable("The signing keys have not been loaded yet; try again."));
        }
        Some(Ok(claims)) => Some(claims.sid),
        Some(Err(_)) | None => None,
    };
    let mut sessions: Vec<_> = [refreshed, signed, carried_session].into_iter().flatten().collect();
    sessions.dedup();
    for session in sessions {
        flow::log_out(&app, session, from).await?;
    }
    let gone = carried.map(|_| set_cookie(COOKIE, "", 0));
    Ok((gone, StatusCode::NO_CONTENT).into_response())
}

/// The public keys
///
/// Verifies access tokens with any JOSE library (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "server",
    responses((status = 200, body = Object, content_type = "application/jwk-set+json"), (status = 503, body = crate::openapi::ProblemDocument)))]
pub async fn jwks(State(app): State<App>) -> Result<Response, Problem> {
    let keys = app
        .access_tokens
        .jwks()
        .ok_or_else(|| Problem::unavailable("The keys have not been loaded yet; try again."))?;
    let headers =
        [(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, "public, max-age=300")];
    Ok((headers, keys).into_response())
}
