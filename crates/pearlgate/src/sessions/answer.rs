//! What a client gets when somebody is let in, by either transport.

use axum::Json as JsonAnswer;
use axum::http::HeaderName;
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::accounts::User;
use crate::pages::set_cookie;

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
    /// Tells this device from a stranger at its next sign-in, beside the password; by itself it opens nothing.
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
pub(crate) const COOKIE: &str = "__Host-pearlgate-session";
/// Where a browser keeps what makes it a known device.
pub(super) const DEVICE_COOKIE: &str = "__Host-pearlgate-device";
/// As long as browsers keep any cookie (RFC 6265bis §5.5).
const DEVICE_SECONDS: u32 = 400 * 86_400;

/// Somebody is let in: a token set, and the cookies when the refresh token travels in one.
#[derive(Debug)]
pub struct LetIn {
    body: TokenSet,
    cookies: Vec<(HeaderName, String)>,
}

impl LetIn {
    /// The answer by this transport.
    pub(super) fn new(mut body: TokenSet, transport: Transport) -> Self {
        let mut cookies = Vec::new();
        if transport == Transport::Cookie {
            let seconds = u32::try_from(body.refresh_expires_in).unwrap_or(u32::MAX);
            if let Some(token) = body.refresh_token.take() {
                cookies.extend(set_cookie(COOKIE, &token, seconds));
            }
            cookies.extend(set_cookie(DEVICE_COOKIE, &body.device_token, DEVICE_SECONDS));
        }
        Self { body, cookies }
    }

    /// What the body says.
    pub fn body(&self) -> &TokenSet {
        &self.body
    }

    /// Both, for an answer that says more.
    pub fn into_parts(self) -> (Vec<(HeaderName, String)>, TokenSet) {
        (self.cookies, self.body)
    }

    /// The cookies alone, for a page.
    pub fn into_cookies(self) -> Vec<(HeaderName, String)> {
        self.cookies
    }
}

impl IntoResponse for LetIn {
    fn into_response(self) -> Response {
        (AppendHeaders(self.cookies), JsonAnswer(self.body)).into_response()
    }
}
