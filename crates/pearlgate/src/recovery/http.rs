//! Ways back in over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use foundation::http::Json;
use foundation::kernel::{FieldError, Problem, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::flow::{self, Shown};
use crate::accounts::EmailAddress;
use crate::app::App;
use crate::openapi::ProblemDocument;
use crate::passwords::http::PasswordChanged;
use crate::router::From;

/// Whose password is lost.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgotPassword {
    /// The address.
    #[schema(example = "ada@example.com")]
    email: String,
}

/// What every address is answered with.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResetRequested {
    /// Always `reset_requested`.
    #[schema(example = "reset_requested")]
    status: &'static str,
}

/// What shows that somebody reads the mailbox, and the new password: `token`, or `email` with `code`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetPassword {
    /// From the mail's link.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    token: Option<Secret>,
    /// Whose code it is.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    email: Option<String>,
    /// From the mail: six digits.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    code: Option<Secret>,
    /// The new password.
    #[schema(value_type = String, example = "seven slow rivers hum")]
    password: Secret,
}

/// Ask for a new password
///
/// Answers the same for every address. Whoever reads its mailbox gets a link and a code, good for 15 minutes; a newer
/// mail replaces an older one.
#[utoipa::path(post, path = "/v1/auth/forgot-password", tag = "recovery", request_body = ForgotPassword,
    params(("Idempotency-Key" = Option<String>, Header, description = "the same key and body sends nothing again, for 24 hours")),
    responses((status = 202, body = ResetRequested), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn forgot_password(
    State(app): State<App>,
    From(from): From,
    headers: HeaderMap,
    Json(body): Json<ForgotPassword>,
) -> Result<(StatusCode, JsonAnswer<ResetRequested>), Problem> {
    let key = app.idempotency.key(&headers, "", "forgot-password", &[body.email.as_bytes()])?;
    let email = EmailAddress::parse("email", &body.email).map_err(|e| Problem::invalid(vec![e]))?;
    flow::forgot(&app, email, &key, from).await?;
    Ok((StatusCode::ACCEPTED, JsonAnswer(ResetRequested { status: "reset_requested" })))
}

/// Set a new password
///
/// With the mail's `token`, or with `email` and the mail's `code`. Every session ends and everything else that was
/// mailed stops working; second factors stay. A password that is refused costs neither link nor code.
#[utoipa::path(post, path = "/v1/auth/reset-password", tag = "recovery", request_body = ResetPassword,
    responses((status = 200, body = PasswordChanged), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn reset_password(
    State(app): State<App>,
    From(from): From,
    Json(body): Json<ResetPassword>,
) -> Result<JsonAnswer<PasswordChanged>, Problem> {
    let shown = match (body.token, body.email, body.code) {
        (Some(token), None, None) => Shown::Link(token),
        (None, Some(email), Some(code)) => {
            Shown::Code(EmailAddress::parse("email", &email).map_err(|e| Problem::invalid(vec![e]))?, code)
        }
        _ => {
            let message = "give token, or email with code";
            return Err(Problem::invalid(vec![FieldError::new("token", "required", message)]));
        }
    };
    flow::reset(&app, shown, &body.password, from).await?;
    Ok(JsonAnswer(PasswordChanged::ANSWER))
}
