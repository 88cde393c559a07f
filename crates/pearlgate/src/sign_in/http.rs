//! Signing in over HTTP.

use axum::extract::State;
use foundation::http::Json;
use foundation::kernel::{Problem, Secret};
use serde::Deserialize;
use utoipa::ToSchema;

use super::flow;
use crate::accounts::EmailAddress;
use crate::accounts::http::keep;
use crate::app::App;
use crate::openapi::ProblemDocument;
use crate::passwords::Attempt;
use crate::router::{From, device_name};
use crate::sessions::http::{LetIn, TokenSet, Transport};

/// Who wants in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The address.
    email: String,
    /// The password.
    #[schema(value_type = String)]
    password: Secret,
    /// How tokens travel.
    #[serde(default)]
    transport: Transport,
    /// What the device is called in the list of sessions.
    #[serde(default)]
    device_name: String,
    /// From an earlier sign-in of this account on this device.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    device_token: Option<Secret>,
}

/// Sign in
///
/// One answer for an unknown address and a wrong password. What is true of an account (not verified, suspended) is
/// told only after its right password.
#[utoipa::path(post, path = "/v1/auth/login", tag = "sign-in", request_body = Login,
    responses((status = 200, body = TokenSet), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn login(
    State(app): State<App>,
    From(from): From,
    Json(body): Json<Login>,
) -> Result<LetIn, Problem> {
    let transport = body.transport;
    let device_name = device_name(&body.device_name)?;
    let mut errors = Vec::new();
    // The length before anything else: it decides whether anything else is done.
    let password = keep(&mut errors, Some(Attempt::accept("password", &body.password)));
    let email = keep(&mut errors, Some(EmailAddress::parse("email", &body.email)));
    let (Some(password), Some(email)) = (password, email) else { return Err(Problem::invalid(errors)) };
    let login = flow::Login { email, password, device_name, device_token: body.device_token, from };
    let started = flow::login(&app, login).await?;
    crate::sessions::let_in(&app, started, transport)
}
