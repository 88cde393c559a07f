//! Unlocking over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::State;
use foundation::http::Json;
use foundation::kernel::{Problem, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::flow::{self, Said};
use crate::app::App;
use crate::errors;
use crate::openapi::ProblemDocument;
use crate::router::From;

/// What the mail about a lock carried.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Unlock {
    /// From the mail's link.
    #[schema(value_type = String)]
    token: Secret,
}

/// The account is open to strangers again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Unlocked {
    /// Always `unlocked`.
    #[schema(example = "unlocked")]
    status: &'static str,
}

/// Unlock my account
///
/// With the token of the mail that tells of a lock: wrong passwords of before count no more.
#[utoipa::path(post, path = "/v1/auth/unlock", tag = "recovery", request_body = Unlock,
    responses((status = 200, body = Unlocked), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn unlock(
    State(app): State<App>,
    From(from): From,
    Json(body): Json<Unlock>,
) -> Result<JsonAnswer<Unlocked>, Problem> {
    match flow::answer(&app, &body.token, Said::ItWasMe, from).await.map_err(|e| e.to_problem())? {
        true => Ok(JsonAnswer(Unlocked { status: "unlocked" })),
        false => Err(errors::problem("verification_invalid")),
    }
}
