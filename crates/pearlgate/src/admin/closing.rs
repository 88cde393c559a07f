//! Operators have accounts deleted, and keep them, over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use foundation::http::OptionalJson;
use foundation::kernel::{Id, Problem};

use super::flow::on_person;
use crate::access::Operator;
use crate::access::http::{named, settled};
use crate::accounts::http::AccountCloses;
use crate::accounts::{self, UserRow};
use crate::app::App;
use crate::mfa;
use crate::openapi::ProblemDocument;

/// Have somebody's account deleted
///
/// Every session ends at once, and nobody signs in any more. It is erased as soon as no access token of it is good, unless its
/// owner, who is mailed, or an operator keeps it before. Asked again, it answers when that is. Needs a fresh session.
#[utoipa::path(delete, path = "/v1/admin/users/{id}", tag = "admin", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 202, body = AccountCloses), (status = "4XX", body = ProblemDocument)))]
pub async fn delete_user(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    OptionalJson(mfa::http::Nothing {}): OptionalJson<mfa::http::Nothing>,
) -> Result<(StatusCode, JsonAnswer<AccountCloses>), Problem> {
    operator.must_be_fresh(&app)?;
    let user: Id<UserRow> = named(&id)?;
    let done = on_person(&app, operator.by, "users:write", user, move |tx, app, by| {
        accounts::close_in(tx, app, by, user)
    });
    let due = settled(done.await)?;
    Ok((StatusCode::ACCEPTED, JsonAnswer(AccountCloses::at(due))))
}

/// Keep an account that is to be deleted
///
/// Whoever was suspended before stays so. Needs a fresh session.
#[utoipa::path(post, path = "/v1/admin/users/{id}/restore", tag = "admin", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn restore_user(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    OptionalJson(mfa::http::Nothing {}): OptionalJson<mfa::http::Nothing>,
) -> Result<StatusCode, Problem> {
    operator.must_be_fresh(&app)?;
    let user: Id<UserRow> = named(&id)?;
    let done = on_person(&app, operator.by, "users:write", user, move |tx, app, by| {
        accounts::restore_in(tx, app, by, user)
    });
    settled(done.await)?;
    Ok(StatusCode::NO_CONTENT)
}
