//! The pages behind the links of reset mails and notices.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use foundation::kernel::{Problem, Secret};
use serde::Deserialize;
use serde_json::json;

use super::flow::{self, Disavowed, Disowned, Shown};
use super::model::Refusal;
use crate::app::App;
use crate::mailed::pages::{Arrived, LinkPage, LinkQuery};
use crate::mfa;
use crate::passwords::Unfit;
use crate::router::From;
use crate::sessions;

const RESET: LinkPage = LinkPage {
    path: "/reset-password",
    cookie: "__Host-pearlgate-reset",
    template: "pages/reset_password.html",
};
const NOT_ME: LinkPage =
    LinkPage { path: "/not-me", cookie: "__Host-pearlgate-not-me", template: "pages/not_me.html" };

/// What the form posts.
#[derive(Debug, Deserialize)]
struct Chosen {
    password: Secret,
}

/// A form of one button.
#[derive(Debug, Deserialize)]
struct Pressed {}

/// `GET /reset-password`
pub(crate) async fn show_reset(
    State(app): State<App>,
    headers: HeaderMap,
    link: LinkQuery,
) -> Result<Response, Problem> {
    match RESET.arrive(&headers, link)? {
        Arrived::Moved(response) => Ok(response),
        Arrived::Without => RESET.state(&app, StatusCode::OK, "expired_cookie"),
        Arrived::With(token) => reset_form(&app, &token, "").await,
    }
}

/// `POST /reset-password`
pub(crate) async fn submit_reset(
    State(app): State<App>,
    From(from): From,
    request: Request,
) -> Result<Response, Problem> {
    let Some((token, chosen)) = RESET.submitted::<Chosen>(&app, request).await? else {
        return RESET.state(&app, StatusCode::OK, "expired_cookie");
    };
    match flow::reset(&app, Shown::Link(token.clone()), &chosen.password, from).await {
        Ok(()) => RESET.done(&app, "done"),
        Err(Refusal::Invalid) => RESET.state(&app, StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        Err(Refusal::Suspended) => RESET.state(&app, StatusCode::FORBIDDEN, "suspended"),
        Err(Refusal::Unfit(Unfit::Field(error))) => {
            let again = reset_form(&app, &token, &error.message).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, again).into_response())
        }
        Err(refusal) => Err(refusal.into()),
    }
}

async fn reset_form(app: &App, token: &Secret, field_error: &str) -> Result<Response, Problem> {
    match flow::open_for(app, token).await? {
        Some((address, min_length)) => {
            let values = json!({ "address": address, "min_length": min_length, "field_error": field_error });
            RESET.form(app, token, values)
        }
        None => RESET.state(app, StatusCode::OK, "invalid"),
    }
}

/// `GET /not-me`
pub(crate) async fn show_not_me(
    State(app): State<App>,
    headers: HeaderMap,
    link: LinkQuery,
) -> Result<Response, Problem> {
    match NOT_ME.arrive(&headers, link)? {
        Arrived::Moved(response) => Ok(response),
        Arrived::Without => NOT_ME.state(&app, StatusCode::OK, "expired_cookie"),
        Arrived::With(token) => {
            if let Some(device_name) = sessions::disownable(&app, &token).await? {
                return NOT_ME.form(&app, &token, json!({ "state": "device", "device_name": device_name }));
            }
            if mfa::reset_for(&app, &token).await.map_err(|e| e.to_problem())? {
                return NOT_ME.form(&app, &token, json!({ "what": "keep_factors" }));
            }
            match flow::not_me_for(&app, &token).await? {
                Some((address, added)) => {
                    let values =
                        json!({ "address": address, "factor": added.factor, "identity": added.identity });
                    NOT_ME.form(&app, &token, values)
                }
                None => NOT_ME.state(&app, StatusCode::OK, "invalid"),
            }
        }
    }
}

/// `POST /not-me`
pub(crate) async fn submit_not_me(
    State(app): State<App>,
    From(from): From,
    request: Request,
) -> Result<Response, Problem> {
    let Some((token, Pressed {})) = NOT_ME.submitted::<Pressed>(&app, request).await? else {
        return NOT_ME.state(&app, StatusCode::OK, "expired_cookie");
    };
    match flow::disown(&app, &token, from).await? {
        Disowned::Invalid => {}
        Disowned::Ended => return NOT_ME.done(&app, "device_done"),
        Disowned::EndedAndLocked => return NOT_ME.done(&app, "device_locked"),
    }
    if mfa::cancel_by_link(&app, &token, from).await.map_err(|e| e.to_problem())? {
        return NOT_ME.done(&app, "kept");
    }
    match flow::not_me(&app, &token, from).await? {
        Disavowed::Restored => NOT_ME.done(&app, "done"),
        Disavowed::Suspended => NOT_ME.done(&app, "suspended"),
        Disavowed::Invalid => NOT_ME.state(&app, StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
    }
}
