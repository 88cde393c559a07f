//! Sessions over HTTP.

use std::time::Duration;

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foundation::http::{OptionalJson, from_own_page, read_form};
use foundation::kernel::{FieldError, Id, PageRequest, Problem, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access_tokens::TokenRefusal;
use super::guard::{Current, bearer, not_our_page};
use super::model::SessionRow;
use super::signing_keys::CACHED;
use super::store::{Changed, Listed, Over};
use super::{feed, flow, introspection, own, refresh as refreshing};
use crate::access::Operator;
use crate::app::App;
use crate::openapi::ProblemDocument;
use crate::pages::{cookie, set_cookie};
use crate::router::From;

pub(crate) use super::answer::COOKIE;
pub(super) use super::answer::DEVICE_COOKIE;
pub use super::answer::{LetIn, SessionInfo, TokenSet, Transport};

/// A refresh token; without one the cookie counts.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// `pgr_…`
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    refresh_token: Option<Secret>,
    /// The assurance level that the application needs: 1 or 2.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 2)]
    aal: Option<i64>,
    /// How old the last proof may be, in seconds.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<i64>, minimum = 0)]
    max_age: Option<i64>,
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
///
/// An application that needs a strong or a recent proof says so with `aal` and `max_age`: when the session has none like
/// that, nothing is replaced and the answer is `reauthentication_required`.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "sign-in", request_body = Refresh,
    responses((status = 200, body = TokenSet), (status = "4XX", body = ProblemDocument)))]
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
    if body.aal.is_some_and(|aal| !(1..=2).contains(&aal)) {
        return Err(Problem::invalid(vec![FieldError::new("aal", "invalid", "is 1 or 2")]));
    }
    let max_age = body.max_age.map(u64::try_from).transpose();
    let max_age = max_age.map_err(|_| {
        Problem::invalid(vec![FieldError::new("max_age", "invalid", "is a number of seconds")])
    })?;
    // Nothing here is older than ten years.
    let max_age = max_age.map(|seconds| Duration::from_secs(seconds.min(315_360_000)));
    let wanted = refreshing::Wanted { aal: body.aal, max_age };
    let started = refreshing::refresh(&app, &token, wanted, from).await?;
    Ok(LetIn::new(flow::token_set(&app, started).await?, transport))
}

fn no_token() -> Problem {
    let message = "give it, or send the session cookie";
    Problem::invalid(vec![FieldError::new("refresh_token", "required", message)])
}

/// The refresh token in the cookie, for a request of our own or a configured origin alone; two cookies of one name are
/// none.
fn in_cookie(app: &App, headers: &HeaderMap) -> Result<Option<Secret>, Problem> {
    let Some(text) = cookie(headers, COOKIE).filter(|text| !text.is_empty()) else { return Ok(None) };
    if !from_own_page(headers, &app.settings.public_url, &app.settings.cors_origins) {
        return Err(not_our_page());
    }
    Ok(Some(Secret::new(text.to_owned())))
}

/// Sign out
///
/// Ends the session of the refresh token in the body and of the access token in `Authorization`. Answers 204 also
/// when that session is over already.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "sign-in", request_body = Logout,
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
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

/// One of one's own sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnSession {
    /// `ses_…`
    id: String,
    /// Whether it is the one that asks.
    current: bool,
    /// What it runs on.
    device: OwnDevice,
    /// Roughly where it began, in words; empty when nobody knows.
    place: String,
    /// The network address that it began from.
    address: String,
    /// When it began.
    created_at: String,
    /// When it was last used, to the minute.
    last_seen_at: String,
    /// When it ends if it is not refreshed.
    expires_at: String,
    /// Authenticator assurance level (NIST SP 800-63B-4).
    aal: i64,
    /// Authentication methods (RFC 8176).
    amr: Vec<String>,
    /// Until when this device need not show the second factor; left out when it must.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    trusted_until: Option<String>,
}

/// A device.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnDevice {
    /// As its client says, else as the browser's name suggests; may be empty.
    name: String,
    /// When somebody signed in on it for the first time.
    first_seen_at: String,
}

impl OwnSession {
    pub(super) fn of(row: Listed, own: Option<Id<SessionRow>>, now: Timestamp) -> Self {
        Self {
            trusted_until: (row.trusted_until > now).then(|| row.trusted_until.to_string()),
            current: Some(row.id) == own,
            id: row.id.to_string(),
            device: OwnDevice { name: row.device_name, first_seen_at: row.first_seen_at.to_string() },
            place: row.place,
            address: row.address,
            created_at: row.created_at.to_string(),
            last_seen_at: row.last_seen_at.to_string(),
            expires_at: row.expires_at.min(row.token_expires_at).to_string(),
            aal: row.aal,
            amr: row.amr.split(' ').map(str::to_owned).collect(),
        }
    }
}

/// One page of one's own sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnSessions {
    /// Newest first.
    items: Vec<OwnSession>,
    /// For the next page; empty on the last one.
    next_cursor: String,
}

/// Where am I signed in
///
/// Every living session with its device, newest first. When a session was last used is written down once a minute.
#[utoipa::path(get, path = "/v1/me/sessions", tag = "account", security(("access_token" = [])),
    params(("limit" = Option<u16>, Query, description = "1 to 200, 50 by default"), ("cursor" = Option<String>, Query, description = "the previous page's next_cursor")),
    responses((status = 200, body = OwnSessions), (status = "4XX", body = ProblemDocument)))]
pub async fn my_sessions(
    State(app): State<App>,
    current: Current,
    query: Result<Query<PageRequest>, QueryRejection>,
) -> Result<JsonAnswer<OwnSessions>, Problem> {
    let Query(request) = query.map_err(|_| {
        let message = "give limit as a number from 1 to 200, cursor as text, and nothing else";
        Problem::invalid(vec![FieldError::new("limit", "invalid", message)])
    })?;
    let page = own::list(&app, &current, &request).await?;
    Ok(JsonAnswer(OwnSessions { items: page.items, next_cursor: page.next_cursor }))
}

/// End one of my sessions
///
/// Nothing of it works after the answer. Ending another one than the calling session needs a fresh proof.
#[utoipa::path(delete, path = "/v1/me/sessions/{id}", tag = "account", security(("access_token" = [])),
    params(("id" = String, Path, description = "`ses_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn end_my_session(
    State(app): State<App>,
    current: Current,
    From(from): From,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    // An id that cannot be one names nothing, like one that is somebody else's.
    let session = id.parse().map_err(|_| Problem::not_found())?;
    own::end_one(&app, &current, session, from).await.map(|()| StatusCode::NO_CONTENT)
}

/// End all my other sessions
///
/// Needs a fresh proof. The calling session goes on.
#[utoipa::path(delete, path = "/v1/me/sessions", tag = "account", security(("access_token" = [])),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn end_my_other_sessions(
    State(app): State<App>,
    current: Current,
    From(from): From,
) -> Result<StatusCode, Problem> {
    own::end_others(&app, &current, from).await.map(|()| StatusCode::NO_CONTENT)
}

/// A session that ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Revocation {
    /// `ses_…`: the `sid` of its access tokens.
    pub(super) session_id: String,
    /// `usr_…`: their `sub`.
    pub(super) user_id: String,
    /// Why it ended.
    pub(super) reason: String,
    /// When.
    pub(super) ended_at: String,
}

impl Revocation {
    pub(super) fn of(row: &Over) -> Self {
        Self {
            session_id: row.id.to_string(),
            user_id: row.user_id.to_string(),
            reason: row.reason.clone(),
            ended_at: row.ended_at.to_string(),
        }
    }
}

/// Whose roles changed: access tokens that were issued until then say what was before.
#[derive(Debug, Serialize, ToSchema)]
pub struct RolesChanged {
    /// `usr_…`, the `sub` of the tokens; or the name of a role, for everybody whose tokens name it.
    pub(super) subject: String,
    /// When.
    pub(super) changed_at: String,
}

impl RolesChanged {
    pub(super) fn of(row: &Changed) -> Self {
        Self { subject: row.subject.clone(), changed_at: row.changed_at.to_string() }
    }
}

/// Sessions that ended, and people whose roles changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Revocations {
    /// Oldest first.
    pub(super) items: Vec<Revocation>,
    /// Whose roles changed in the same while.
    pub(super) roles_changed: Vec<RolesChanged>,
    /// For the rest, when there is one; else empty.
    pub(super) next_cursor: String,
    /// What to give as `since` the next time.
    pub(super) until: String,
}

/// What to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    since: Option<String>,
    cursor: Option<String>,
}

/// Which sessions ended
///
/// For services that verify access tokens by themselves: the ids of sessions that ended within the last lifetime of an
/// access token, so that a sign-out reaches them before its tokens expire. With `Accept: text/event-stream` the
/// connection stays open and says each end as it happens, as an event `session_ended`, and each change of roles, as an event
/// `roles_changed`.
#[utoipa::path(get, path = "/v1/revocations", tag = "server",
    params(("since" = Option<String>, Query, description = "the `until` of the previous answer, or any RFC 3339 time"), ("cursor" = Option<String>, Query, description = "the previous answer's next_cursor")),
    responses((status = 200, content((Revocations = "application/json"), (String = "text/event-stream"))), (status = "4XX", body = ProblemDocument)))]
pub async fn revocations(
    State(app): State<App>,
    headers: HeaderMap,
    extensions: Extensions,
    query: Result<Query<Since>, QueryRejection>,
) -> Result<Response, Problem> {
    let wrong =
        |field: &str, message: &str| Problem::invalid(vec![FieldError::new(field, "invalid", message)]);
    let Query(query) =
        query.map_err(|_| wrong("since", "give since as a time, cursor as text, and nothing else"))?;
    let time = |text: &str| {
        Timestamp::parse(text).ok_or_else(|| wrong("since", "give a time such as 2026-11-25T12:00:00Z"))
    };
    // A browser's EventSource says by this header where it was.
    let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let since = resumed.or(query.since.as_deref()).filter(|text| !text.is_empty()).map(time).transpose()?;
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepts.starts_with("text/event-stream") {
        // Whoever came with a key comes again now and then: it may have been taken away.
        let until = extensions.get::<Operator>().map(|_| app.clock.now() + feed::BY_KEY);
        return Ok(feed::stream(&app, since, until));
    }
    Ok(JsonAnswer(feed::list(&app, since, query.cursor).await?).into_response())
}

/// What a token is asked about with.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Introspect {
    /// An access token.
    #[schema(value_type = String)]
    token: Secret,
}

/// What a token is
///
/// RFC 7662, for access tokens: `active` is true while the token is good and its session lives. Anything else, also a
/// token of another kind, is `{"active": false}` and no more.
#[utoipa::path(post, path = "/v1/introspect", tag = "server",
    request_body(content = Introspect, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = introspection::Introspected), (status = "4XX", body = ProblemDocument)))]
pub async fn introspect(
    State(app): State<App>,
    request: Request,
) -> Result<JsonAnswer<introspection::Introspected>, Problem> {
    let body = read_form(request).await?;
    let asked: Introspect = serde_urlencoded::from_bytes(&body).map_err(|_| {
        Problem::invalid(vec![FieldError::new("token", "required", "give the token as a form field")])
    })?;
    introspection::introspect(&app, &asked.token).await.map(JsonAnswer)
}

/// The public keys
///
/// Verifies access tokens with any JOSE library (RFC 7517). May be kept as long as `Cache-Control` says: a new key is
/// published before it signs.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "server",
    responses((status = 200, body = Object, content_type = "application/jwk-set+json"), (status = 304), (status = 503, body = ProblemDocument)))]
pub async fn jwks(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let keys = app
        .access_tokens
        .published()
        .ok_or_else(|| Problem::unavailable("The keys have not been loaded yet; try again."))?;
    let shared = [
        (header::CACHE_CONTROL, format!("public, max-age={}", CACHED.as_secs())),
        (header::ETAG, keys.etag.clone()),
        // Public is public: any page may read it, none with credentials.
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*".to_owned()),
    ];
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = known.flat_map(|text| text.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    if tags.any(|tag| tag == keys.etag || tag == "*") {
        return Ok((StatusCode::NOT_MODIFIED, shared).into_response());
    }
    let kind = [(header::CONTENT_TYPE, "application/jwk-set+json")];
    Ok((shared, kind, keys.jwks.clone()).into_response())
}
