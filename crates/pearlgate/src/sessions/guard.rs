//! The guard of every route that belongs to somebody: who is calling, checked in the store at each call.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use foundation::kernel::{Id, Problem};
use foundation::params;

use super::access_tokens::TokenRefusal;
use super::model::{EndReason, SessionRow};
use super::store::{self, SessionUser};
use crate::app::App;
use crate::errors;

/// Whoever holds a good access token of a living session.
#[derive(Debug, Clone)]
pub struct Current {
    /// Session and person, as they are in the store now.
    pub row: SessionUser,
}

impl Current {
    /// For calls that only somebody who proved who they are just now may make.
    ///
    /// # Errors
    /// 403 `reauthentication_required`.
    pub fn must_be_fresh(&self, app: &App) -> Result<(), Problem> {
        if app.clock.now() <= self.row.authenticated_at + app.settings.freshness {
            return Ok(());
        }
        Err(errors::problem("reauthentication_required"))
    }
}

/// Set by `require`; a handler behind a route without that guard gets a 500 and a test fails.
impl<S: Send + Sync> FromRequestParts<S> for Current {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.remove::<Self>().ok_or_else(Problem::internal)
    }
}

/// Lets through whoever shows a good access token; everybody else gets a 401 before anything else is looked at.
pub(crate) async fn require(State(app): State<App>, mut request: Request, next: Next) -> Response {
    match authenticate(&app, request.headers()).await {
        Ok(current) => {
            request.extensions_mut().insert(current);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn authenticate(app: &App, headers: &HeaderMap) -> Result<Current, Problem> {
    let token = bearer(headers)?.ok_or_else(|| errors::problem("not_authenticated"))?;
    let now = app.clock.now();
    let claims = app.access_tokens.verify(token, now).map_err(|refusal| match refusal {
        TokenRefusal::Invalid => errors::problem("token_invalid"),
        TokenRefusal::Expired => errors::problem("token_expired"),
        TokenRefusal::NoKeys => Problem::unavailable("The signing keys have not been loaded yet; try again."),
    })?;
    let session = claims.sid;
    let found = app.db.read_one(move |tx| store::load(tx, session, now)).await.map_err(|e| e.to_problem())?;
    match found.filter(|row| row.user_id == claims.sub) {
        Some(row) => Ok(Current { row }),
        None => Err(errors::session_ended(&reason(app, session).await?)),
    }
}

/// Why a session does not work.
pub(crate) async fn reason(app: &App, session: Id<SessionRow>) -> Result<String, Problem> {
    let read = app.db.read(move |tx| {
        if let Some((reason,)) = tx.opt::<(String,)>(&store::ENDED, params![session])? {
            return Ok(reason);
        }
        let state: Option<(foundation::kernel::Timestamp, bool)> = tx.opt(&store::STATE, params![session])?;
        let reason = match state {
            Some((_, true)) => EndReason::Suspended,
            // Gone without a trace: its record was kept as long as its token could have lived.
            Some((_, false)) | None => EndReason::Expired,
        };
        Ok(reason.as_str().to_owned())
    });
    read.await.map_err(|e| e.to_problem())
}

/// The token in `Authorization: Bearer …`; none when there is no such header.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
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
