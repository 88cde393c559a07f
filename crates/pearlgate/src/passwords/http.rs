//! Changing one's password over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::State;
use foundation::http::Json;
use foundation::kernel::{Problem, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Attempt, flow};
use crate::app::App;
use crate::openapi::ProblemDocument;
use crate::router::From;
use crate::sessions::Current;

/// The old and the new password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The one that counts now.
    #[schema(value_type = String)]
    current_password: Secret,
    /// The one that shall count.
    #[schema(value_type = String, example = "seven slow rivers hum")]
    new_password: Secret,
}

/// What a changed password is answered with.
#[derive(Debug, Serialize, ToSchema)]
pub struct PasswordChanged {
    /// Always `password_changed`.
    #[schema(example = "password_changed")]
    pub status: &'static str,
}

impl PasswordChanged {
    /// The one answer.
    pub const ANSWER: Self = Self { status: "password_changed" };
}

/// Change the password
///
/// Needs the current password and a fresh session. The other sessions end, what was mailed stops working, and the
/// owner of the address is told.
#[utoipa::path(put, path = "/v1/me/password", tag = "account", security(("access_token" = [])), request_body = ChangePassword,
    responses((status = 200, body = PasswordChanged), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn change_password(
    State(app): State<App>,
    current: Current,
    From(from): From,
    Json(body): Json<ChangePassword>,
) -> Result<JsonAnswer<PasswordChanged>, Problem> {
    let old =
        Attempt::accept("current_password", &body.current_password).map_err(|e| Problem::invalid(vec![e]))?;
    flow::change(&app, &current, old, &body.new_password, from).await?;
    Ok(JsonAnswer(PasswordChanged::ANSWER))
}
