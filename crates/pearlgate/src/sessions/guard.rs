//! The guard of every route that belongs to somebody: who is calling, checked in the store at each call.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use foundation::http::{ClientAddress, from_own_page};
use foundation::kernel::{Digest, Id, Problem, Secret};
use foundation::params;

use super::access_tokens::TokenRefusal;
use super::flow::end;
use super::http::COOKIE;
use super::model::{EndReason, REPEATABLE, SessionRow};
use super::store::{self, ByToken, Inspected, SessionUser};
use crate::accounts::UserRow;
use crate::app::App;
use crate::errors;
use crate::pages::cookie;

/// Whoever holds a good access token, or the cookie, of a living session.
#[derive(Debug, Clone)]
pub struct Current {
    /// Session and person, as they are in the store now.
    pub row: SessionUser,
    /// The last proof that the token knows of; none for the cookie, which is another one after each.
    proven_at: Option<i64>,
    /// The operator who is this person in this session.
    actor: Option<Id<UserRow>>,
}

impl Current {
    /// For calls that only somebody who proved who they are just now may make, with everything their account can show: a
    /// second factor as well as the password, if there are both.
    ///
    /// # Errors
    /// 403 `reauthentication_required`.
    pub fn must_be_fresh(&self, app: &App) -> Result<(), Problem> {
        let (row, now, fresh) = (&self.row, app.clock.now(), app.settings.freshness);
        // A token from before the proof stays valid and does not become fresh: who copied it has proven nothing.
        let since = self.proven_at.is_none_or(|seconds| seconds >= row.authenticated_at.seconds());
        if !since || now > row.authenticated_at + fresh {
            return Err(errors::problem("reauthentication_required"));
        }
        if row.strength > 0 && now > row.factor_at + fresh {
            return Err(errors::problem("reauthentication_required").detail(
                "The account has a second factor, and it was shown too long ago: prove who you are with it.",
            ));
        }
        if row.aal < row.strength {
            return Err(errors::problem("reauthentication_required").detail(
                "The account has a password, and this session has not shown it: prove who you are with it.",
            ));
        }
        Ok(())
    }

    /// The same as the store has it by now.
    pub(super) fn with(&self, row: SessionUser) -> Self {
        Self { row, proven_at: self.proven_at, actor: self.actor }
    }

    /// The operator who is this person in this session, if it is not theirs.
    pub fn actor(&self) -> Option<Id<UserRow>> {
        self.actor
    }

    /// Whoever is somebody else looks, and leaves. What a person does with their own account is theirs alone to do.
    fn may_come(&self, method: &Method, path: &str) -> Result<(), Problem> {
        let leaves = *method == Method::DELETE && path == format!("/v1/me/sessions/{}", self.row.session_id);
        if self.actor.is_none() || method.is_safe() || leaves {
            return Ok(());
        }
        Err(errors::problem("impersonated"))
    }

    /// Whether the session was shown as a cookie.
    pub fn by_cookie(&self) -> bool {
        self.proven_at.is_none()
    }
}

/// Set by `require`; a handler behind a route without that guard gets a 500 and a test fails.
impl<S: Send + Sync> FromRequestParts<S> for Current {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.remove::<Self>().ok_or_else(Problem::internal)
    }
}

/// Lets through whoever shows a good access token or session cookie; everybody else gets a 401 before anything else is
/// looked at.
pub(crate) async fn require(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let came = match Came::of(&request) {
        Ok(came) => came,
        Err(problem) => return problem.into_response(),
    };
    let current = current(&app, came).await;
    match current
        .and_then(|current| current.may_come(request.method(), request.uri().path()).map(|()| current))
    {
        Ok(current) => {
            request.extensions_mut().insert(current);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// What of a request says whose it is.
#[derive(Clone, Copy)]
pub(crate) struct Came<'r> {
    method: &'r Method,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) from: ClientAddress,
}

impl<'r> Came<'r> {
    /// Of a request that came through the router.
    pub(crate) fn of(request: &'r Request) -> Result<Self, Problem> {
        let from = request.extensions().get::<ClientAddress>().copied().ok_or_else(Problem::internal)?;
        Ok(Self { method: request.method(), headers: request.headers(), from })
    }
}

/// Whose request it is.
///
/// # Errors
/// 401, 503.
pub(crate) async fn current(app: &App, came: Came<'_>) -> Result<Current, Problem> {
    let current = authenticate(app, came.method, came.headers, came.from).await?;
    app.seen.note(current.row.session_id, app.clock.now());
    Ok(current)
}

async fn authenticate(
    app: &App,
    method: &Method,
    headers: &HeaderMap,
    from: ClientAddress,
) -> Result<Current, Problem> {
    match bearer(headers)? {
        Some(token) => by_access_token(app, token, from).await,
        // A token that a script put there says more than a cookie that the browser adds to everything.
        None => by_cookie(app, method, headers, from).await,
    }
}

async fn by_access_token(app: &App, token: &str, from: ClientAddress) -> Result<Current, Problem> {
    let now = app.clock.now();
    let claims = app.access_tokens.verify(token, now).map_err(|refusal| match refusal {
        TokenRefusal::Invalid => errors::problem("token_invalid"),
        TokenRefusal::Expired => errors::problem("token_expired"),
        TokenRefusal::NoKeys => Problem::unavailable("The signing keys have not been loaded yet; try again."),
    })?;
    let session = claims.sid;
    let found = app.db.read_one(move |tx| store::load(tx, session, now)).await.map_err(|e| e.to_problem())?;
    match found.filter(|row| row.user_id == claims.sub) {
        Some(row) => {
            let actor = claims.act.map(|actor| actor.sub);
            Ok(Current { row, proven_at: Some(claims.auth_time), actor })
        }
        None => Err(errors::session_ended(&reason(app, session, from).await?)),
    }
}

async fn by_cookie(
    app: &App,
    method: &Method,
    headers: &HeaderMap,
    from: ClientAddress,
) -> Result<Current, Problem> {
    let unknown = || errors::problem("not_authenticated");
    let text = cookie(headers, COOKIE).filter(|text| !text.is_empty()).ok_or_else(unknown)?;
    if !method.is_safe() && !from_own_page(headers, &app.settings.public_url, &app.settings.cors_origins) {
        return Err(not_our_page());
    }
    let token = Secret::new(text.to_owned());
    let session = app.refresh_key.read(&token).ok_or_else(unknown)?;
    let (now, digest) = (app.clock.now(), token.digest());
    let found: Option<ByToken> = app
        .db
        .read_one(move |tx| tx.opt(&store::LOAD_BY_TOKEN, params![session, now, digest, now - REPEATABLE]))
        .await
        .map_err(|e| e.to_problem())?;
    if let Some(ByToken(row, unconfirmed)) = found {
        if unconfirmed {
            confirm(app, session, digest).await?;
        }
        return Ok(Current { row, proven_at: None, actor: None });
    }
    let living = app.db.read_one(move |tx| tx.opt::<Inspected>(&store::INSPECT, params![session])).await;
    if living.map_err(|e| e.to_problem())?.is_some_and(|row| row.over(now).is_none()) {
        // The session lives, and this is a cookie it had before: refreshing tells what that means.
        return Err(errors::problem("token_expired"));
    }
    Err(errors::session_ended(&reason(app, session, from).await?))
}

/// The cookie was used: what it replaced leads nowhere any more, as if it had been shown for a refresh. One
/// write for each token, and not while a repeated refresh still gives the same.
async fn confirm(app: &App, session: Id<SessionRow>, digest: Digest) -> Result<(), Problem> {
    let settled = app.clock.now() - REPEATABLE;
    let confirmed =
        app.db.write_one(move |tx| tx.execute(&store::CONFIRM, params![session, digest, settled]));
    confirmed.await.map(|_| ()).map_err(|e| e.to_problem())
}

/// 403 for a cookie in a request that a page of ours did not make.
pub(super) fn not_our_page() -> Problem {
    errors::problem("permission_denied").detail(
        "A request with the session cookie must come from a page of the server's own address, or of an origin in cors.origins.",
    )
}

/// Why a session does not work. One whose time is over is ended by this, so that no clock that is set back revives it.
///
/// # Errors
/// 503 when the database is away.
pub(crate) async fn reason(
    app: &App,
    session: Id<SessionRow>,
    from: ClientAddress,
) -> Result<String, Problem> {
    let (inner, now) = (app.clone(), app.clock.now());
    let known = app.db.read(move |tx| {
        if let Some((reason,)) = tx.opt::<(String,)>(&store::ENDED, params![session])? {
            return Ok(Some(reason));
        }
        // Only what has to be ended costs a write.
        let row = tx.opt::<Inspected>(&store::INSPECT, params![session])?;
        let over = row.is_some_and(|row| row.over(now).is_some());
        Ok((!over).then(|| EndReason::Expired.as_str().to_owned()))
    });
    if let Some(reason) = known.await.map_err(|e| e.to_problem())? {
        return Ok(reason);
    }
    let found = app.db.write(move |tx| {
        tx.opt::<(Id<UserRow>,)>(&store::LOCK, params![session])?;
        if let Some(row) = tx.opt::<Inspected>(&store::INSPECT, params![session])? {
            let reason = row.over(inner.clock.now()).unwrap_or(EndReason::Expired);
            if row.over(inner.clock.now()).is_some() {
                end(tx, &inner, session, reason, from)?;
            }
            return Ok(reason.as_str().to_owned());
        }
        // Ended meanwhile; or gone without a trace: its record was kept as long as its token could have lived.
        let ended = tx.opt::<(String,)>(&store::ENDED, params![session])?;
        Ok(ended.map_or_else(|| EndReason::Expired.as_str().to_owned(), |(reason,)| reason))
    });
    found.await.map_err(|e| e.to_problem())
}

/// The token in `Authorization: Bearer …`; none when there is no such header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let invalid = || errors::problem("token_invalid");
    let text = value.to_str().map_err(|_| invalid())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(invalid)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(invalid());
    }
    Ok(Some(token))
}
