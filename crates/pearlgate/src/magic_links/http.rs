//! Magic links over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use foundation::http::Json;
use foundation::kernel::{FieldError, Problem, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::flow::{self, Shown};
use super::model::Refusal;
use crate::accounts::EmailAddress;
use crate::app::App;
use crate::mfa::http::SignedIn;
use crate::mfa::{self, Answer};
use crate::openapi::ProblemDocument;
use crate::router::From;
use crate::sessions::Visit;
use crate::sessions::http::Transport;

/// Who wants in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MagicLink {
    /// The address.
    #[schema(example = "ada@example.com")]
    email: String,
}

/// What every address is answered with.
#[derive(Debug, Serialize, ToSchema)]
pub struct MagicLinkRequested {
    /// Always `magic_link_requested`.
    #[schema(example = "magic_link_requested")]
    status: &'static str,
    /// `mgl_…`, to be given back with the mail's code.
    magic_link_id: String,
}

/// What shows that somebody reads the mailbox: `token`, or `magic_link_id` with `code`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumeMagicLink {
    /// From the mail's link.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    token: Option<Secret>,
    /// From the request's answer.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    magic_link_id: Option<String>,
    /// From the mail: six digits.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    code: Option<Secret>,
    /// How tokens travel.
    #[serde(default)]
    transport: Transport,
    /// What the device is called in the list of sessions.
    #[serde(default)]
    device_name: String,
}

/// Ask for a magic link
///
/// Answers the same for every address. Whoever reads its mailbox gets a link and a code, good for 10 minutes; a newer
/// mail replaces an older one.
#[utoipa::path(post, path = "/v1/auth/magic-link", tag = "sign-in", request_body = MagicLink,
    params(("Idempotency-Key" = Option<String>, Header, description = "the same key and body sends nothing again, for 24 hours")),
    responses((status = 202, body = MagicLinkRequested), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn ask(
    State(app): State<App>,
    From(from): From,
    headers: HeaderMap,
    Json(body): Json<MagicLink>,
) -> Result<(StatusCode, JsonAnswer<MagicLinkRequested>), Problem> {
    let key = app.idempotency.key(&headers, "", "magic-link", &[body.email.as_bytes()])?;
    let email = EmailAddress::parse("email", &body.email).map_err(|e| Problem::invalid(vec![e]))?;
    let id = flow::ask(&app, email, &key, from).await?;
    let answer = MagicLinkRequested { status: "magic_link_requested", magic_link_id: id.to_string() };
    Ok((StatusCode::ACCEPTED, JsonAnswer(answer)))
}

/// Sign in with a magic link
///
/// With the mail's `token`, or with `magic_link_id` and the mail's `code`. Works once.
#[utoipa::path(post, path = "/v1/auth/magic-link/consume", tag = "sign-in", request_body = ConsumeMagicLink,
    responses((status = 200, body = SignedIn), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn consume(
    State(app): State<App>,
    visit: Visit,
    Json(body): Json<ConsumeMagicLink>,
) -> Result<Answer, Problem> {
    let visit = visit.on(&body.device_name, None)?;
    let shown = match (body.token, body.magic_link_id, body.code) {
        (Some(token), None, None) => Shown::Link(token),
        (None, Some(id), Some(code)) => Shown::Code(id.parse().map_err(|_| Refusal::Invalid)?, code),
        _ => {
            let message = "give token, or magic_link_id with code";
            return Err(Problem::invalid(vec![FieldError::new("token", "required", message)]));
        }
    };
    let entered = flow::consume(&app, shown, visit.clone(), body.transport).await?;
    mfa::answer(&app, entered, body.transport, &visit).await
}
