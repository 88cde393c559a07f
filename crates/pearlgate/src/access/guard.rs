//! The guard of operators' routes: who is calling, and whether they may, before anything of the request is read.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use foundation::kernel::{Problem, Secret};

use super::by::{By, Who};
use super::flow::{Denied, Standing, standing_of};
use super::keys;
use crate::app::App;
use crate::errors;
use crate::sessions::{self, Came, Current};

/// Whoever was let through.
#[derive(Debug, Clone)]
pub struct Operator {
    /// Who acts, from where.
    pub by: By,
    /// What they may do, as it was when the request came.
    pub standing: Standing,
    /// A person's session.
    current: Option<Current>,
}

impl Operator {
    /// For what only somebody may do who proved who they are just now; a key proves it with every call.
    ///
    /// # Errors
    /// 403 `reauthentication_required`.
    pub fn must_be_fresh(&self, app: &App) -> Result<(), Problem> {
        self.current.as_ref().map_or(Ok(()), |current| current.must_be_fresh(app))
    }
}

/// Set by `require`; a handler behind a route without that guard gets a 500 and a test fails.
impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.remove::<Self>().ok_or_else(Problem::internal)
    }
}

/// Who asks: a person in a session of any level, or a key.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whoever asks.
    pub who: Who,
    /// What they may do as an operator: nothing in a session without a second factor.
    pub standing: Standing,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.remove::<Self>().ok_or_else(Problem::internal)
    }
}

/// Lets through whoever holds a permission: a session of assurance level 2, or a key. 401, then 403, then everything else.
pub(crate) async fn require(
    State((app, permission)): State<(App, &'static str)>,
    mut request: Request,
    next: Next,
) -> Response {
    let came = match Came::of(&request) {
        Ok(came) => came,
        Err(problem) => return problem.into_response(),
    };
    match operator(&app, permission, came).await {
        Ok(operator) => {
            request.extensions_mut().insert(operator);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Lets through any person who is signed in, and any key.
pub(crate) async fn require_caller(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let came = match Came::of(&request) {
        Ok(came) => came,
        Err(problem) => return problem.into_response(),
    };
    match caller(&app, came).await {
        Ok((caller, _)) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn operator(app: &App, permission: &'static str, came: Came<'_>) -> Result<Operator, Problem> {
    let (Caller { who, standing }, current) = caller(app, came).await?;
    if let Some(current) = &current
        && current.row.aal < 2
        && whole(app, current).await?.may(permission)
    {
        return Err(errors::problem("mfa_required").detail(
            "Operators show a second factor: sign in with one, or show it with POST /v1/me/reauthenticate.",
        ));
    }
    if !standing.may(permission) {
        return Err(Denied::Permission(permission.to_owned()).problem());
    }
    Ok(Operator { by: By { who, from: came.from }, standing, current })
}

async fn caller(app: &App, came: Came<'_>) -> Result<(Caller, Option<Current>), Problem> {
    if let Some(key) = key(came)? {
        let found = keys::find(app, &key).await.map_err(|e| e.to_problem())?;
        let (who, standing) = found.ok_or_else(|| errors::problem("token_invalid"))?;
        return Ok((Caller { who, standing }, None));
    }
    let current = sessions::current(app, came).await?;
    let who = Who::Person(current.row.user_id, current.row.session_id);
    let standing = if current.row.aal < 2 { Standing::default() } else { whole(app, &current).await? };
    Ok((Caller { who, standing }, Some(current)))
}

async fn whole(app: &App, current: &Current) -> Result<Standing, Problem> {
    let user = current.row.user_id;
    app.db.read_one(move |tx| standing_of(tx, user)).await.map_err(|e| e.to_problem())
}

/// The key in `Authorization: Bearer pga_…`; none for tokens of another kind.
fn key(came: Came<'_>) -> Result<Option<Secret>, Problem> {
    let token = sessions::bearer(came.headers)?;
    Ok(token.filter(|token| token.starts_with(keys::PREFIX)).map(|token| Secret::new(token.to_owned())))
}
