//! The page on which the first operator is set up.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use foundation::kernel::{Problem, Secret};
use serde::Deserialize;
use serde_json::json;

use super::http::{Form, founded};
use super::setup::{self, SetUp};
use crate::app::App;
use crate::mailed::pages::{Arrived, LinkPage, LinkQuery};
use crate::router::From;

const SETUP: LinkPage =
    LinkPage { path: "/setup", cookie: "__Host-pearlgate-setup", template: "pages/setup.html" };

/// What the form posts.
#[derive(Debug, Deserialize)]
struct Filled {
    email: String,
    password: Secret,
    display_name: String,
}

/// `GET /setup`
pub(crate) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    link: LinkQuery,
) -> Result<Response, Problem> {
    match SETUP.arrive(&headers, link)? {
        Arrived::Moved(response) => Ok(response),
        Arrived::Without => SETUP.state(&app, StatusCode::OK, "expired_cookie"),
        Arrived::With(token) => form(&app, &token, ("", "", "")).await,
    }
}

/// `POST /setup`
pub(crate) async fn submit(
    State(app): State<App>,
    From(from): From,
    request: Request,
) -> Result<Response, Problem> {
    let Some((token, filled)) = SETUP.submitted::<Filled>(&app, request).await? else {
        return SETUP.state(&app, StatusCode::OK, "expired_cookie");
    };
    let Filled { email, password, display_name } = filled;
    let (typed, name) = (email.clone(), display_name.clone());
    match founded(&app, token.clone(), Form { email, password, display_name }, from).await {
        Ok(SetUp::Done(_)) => SETUP.done(&app, "done"),
        Ok(SetUp::Before | SetUp::Link) => SETUP.state(&app, StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        Err(problem) if !problem.fields.is_empty() => {
            let words: Vec<String> =
                problem.fields.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
            let again = form(&app, &token, (&words.join("; "), &typed, &name)).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, again).into_response())
        }
        Err(problem) => Err(problem),
    }
}

async fn form(
    app: &App,
    token: &Secret,
    (error, email, name): (&str, &str, &str),
) -> Result<Response, Problem> {
    if !setup::is_open(app, token).await.map_err(|e| e.to_problem())? {
        return SETUP.state(app, StatusCode::OK, "invalid");
    }
    let values = json!({
        "field_error": error, "email": email, "display_name": name,
        "min_length": app.settings.min_password_length,
    });
    SETUP.form(app, token, values)
}
