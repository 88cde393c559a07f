//! Changing one's address over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::StatusCode;
use foundation::http::Json;
use foundation::kernel::{FieldError, Problem, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::flow;
use crate::accounts::EmailAddress;
use crate::app::App;
use crate::mailed::Shown;
use crate::openapi::ProblemDocument;
use crate::router::From;
use crate::sessions::Current;

/// The new address.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeEmail {
    /// The address; a mail to it proves it.
    #[schema(example = "ada@example.org")]
    email: String,
}

/// What every new address is answered with.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfirmationRequired {
    /// Always `confirmation_required`.
    #[schema(example = "confirmation_required")]
    status: &'static str,
}

/// What shows that somebody reads the new mailbox: `token` or `code`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmEmail {
    /// From the mail's link.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    token: Option<Secret>,
    /// From the mail: six digits.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    code: Option<Secret>,
}

/// What a changed address is answered with.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmailChanged {
    /// Always `email_changed`.
    #[schema(example = "email_changed")]
    status: &'static str,
}

/// Ask for another address
///
/// Needs a fresh session. The new address counts once it is proven; the answer is the same whether or not it has an
/// account already, the mail to it tells.
#[utoipa::path(post, path = "/v1/me/email", tag = "account", security(("access_token" = [])), request_body = ChangeEmail,
    responses((status = 202, body = ConfirmationRequired), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn change_email(
    State(app): State<App>,
    current: Current,
    From(from): From,
    Json(body): Json<ChangeEmail>,
) -> Result<(StatusCode, JsonAnswer<ConfirmationRequired>), Problem> {
    let to = EmailAddress::parse("email", &body.email).map_err(|e| Problem::invalid(vec![e]))?;
    flow::ask(&app, &current, to, from).await?;
    Ok((StatusCode::ACCEPTED, JsonAnswer(ConfirmationRequired { status: "confirmation_required" })))
}

/// Prove the new address
///
/// With the mail's `token` or `code`. The old address is told and can undo the change for seven days; everything
/// else that was mailed to the account stops working.
#[utoipa::path(post, path = "/v1/me/email/confirm", tag = "account", security(("access_token" = [])), request_body = ConfirmEmail,
    responses((status = 200, body = EmailChanged), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn confirm_email(
    State(app): State<App>,
    current: Current,
    From(from): From,
    Json(body): Json<ConfirmEmail>,
) -> Result<JsonAnswer<EmailChanged>, Problem> {
    let user = current.row.user_id;
    let shown = match (body.token, body.code) {
        (Some(token), None) => Shown::Link(token),
        (None, Some(code)) => Shown::Code(Some(user), code),
        _ => {
            let message = "give token or code";
            return Err(Problem::invalid(vec![FieldError::new("token", "required", message)]));
        }
    };
    flow::confirm(&app, shown, Some((&current).into()), from).await?;
    Ok(JsonAnswer(EmailChanged { status: "email_changed" }))
}
