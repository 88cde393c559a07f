//! The page behind the link of a verification mail, where the mailbox's owner chooses a password.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use foundation::kernel::{Problem, Secret};
use serde::Deserialize;
use serde_json::json;

use super::flow;
use super::model::Refusal;
use crate::app::App;
use crate::mailed::pages::{Arrived, LinkPage, LinkQuery};
use crate::passwords::Unfit;
use crate::router::From;

const PAGE: LinkPage = LinkPage {
    path: "/verify-email",
    cookie: "__Host-pearlgate-verify",
    template: "pages/verify_email.html",
};

/// What the form posts.
#[derive(Debug, Deserialize)]
pub(crate) struct Chosen {
    password: Secret,
}

/// `GET /verify-email`
pub(crate) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    link: LinkQuery,
) -> Result<Response, Problem> {
    match PAGE.arrive(&headers, link)? {
        Arrived::Moved(response) => Ok(response),
        Arrived::Without => PAGE.state(&app, StatusCode::OK, "expired_cookie"),
        Arrived::With(token) => match flow::open_for(&app, &token).await? {
            Some(address) => form(&app, &token, &address, ""),
            None => PAGE.state(&app, StatusCode::OK, "invalid"),
        },
    }
}

/// `POST /verify-email`
pub(crate) async fn submit(
    State(app): State<App>,
    From(from): From,
    request: Request,
) -> Result<Response, Problem> {
    let Some((token, chosen)) = PAGE.submitted::<Chosen>(&app, request).await? else {
        return PAGE.state(&app, StatusCode::OK, "expired_cookie");
    };
    match flow::claim_mailbox(&app, token.clone(), chosen.password, from).await {
        Ok(()) => PAGE.done(&app, "done"),
        Err(Refusal::VerificationInvalid) => PAGE.state(&app, StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        Err(Refusal::Unfit(Unfit::Field(error))) => {
            let address = flow::open_for(&app, &token).await?.unwrap_or_default();
            let again = form(&app, &token, &address, &error.message)?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, again).into_response())
        }
        Err(refusal) => Err(refusal.into()),
    }
}

fn form(app: &App, token: &Secret, address: &str, field_error: &str) -> Result<Response, Problem> {
    PAGE.form(app, token, json!({ "address": address, "field_error": field_error, "min_length": app.settings.min_password_length }))
}
