//! The page behind the links of a change of address: one confirms it at the new address, the other, in the notice to
//! the old one, undoes it.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use foundation::kernel::{Problem, Secret};
use serde::Deserialize;
use serde_json::json;

use super::flow;
use super::model::Refusal;
use crate::app::App;
use crate::mailed::pages::{Arrived, LinkPage, LinkQuery};
use crate::mailed::{NOT_ME, Shown, is_token};
use crate::recovery::{self, Disavowed};
use crate::router::From;

const PAGE: LinkPage =
    LinkPage { path: "/email-change", cookie: "__Host-pearlgate-email", template: "pages/email_change.html" };

/// A form of one button.
#[derive(Debug, Deserialize)]
struct Pressed {}

/// `GET /email-change`
pub(crate) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    link: LinkQuery,
) -> Result<Response, Problem> {
    match PAGE.arrive(&headers, link)? {
        Arrived::Moved(response) => Ok(response),
        Arrived::Without => PAGE.state(&app, StatusCode::OK, "expired_cookie"),
        Arrived::With(token) => form(&app, &token).await,
    }
}

async fn form(app: &App, token: &Secret) -> Result<Response, Problem> {
    let (state, address) = if is_token(NOT_ME, token) {
        ("undo_form", recovery::not_me_for(app, token).await?.map(|(address, _)| address))
    } else {
        ("form", flow::open_for(app, token).await?)
    };
    match address {
        Some(address) => PAGE.form(app, token, json!({ "state": state, "address": address })),
        None => PAGE.state(app, StatusCode::OK, "invalid"),
    }
}

/// `POST /email-change`
pub(crate) async fn submit(
    State(app): State<App>,
    From(from): From,
    request: Request,
) -> Result<Response, Problem> {
    let Some((token, Pressed {})) = PAGE.submitted::<Pressed>(&app, request).await? else {
        return PAGE.state(&app, StatusCode::OK, "expired_cookie");
    };
    if is_token(NOT_ME, &token) {
        return match recovery::not_me(&app, &token, from).await? {
            Disavowed::Restored => PAGE.done(&app, "undone"),
            Disavowed::Suspended => PAGE.done(&app, "suspended"),
            Disavowed::Invalid => PAGE.state(&app, StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        };
    }
    match flow::confirm(&app, Shown::Link(token), None, from).await {
        Ok(()) => PAGE.done(&app, "done"),
        Err(Refusal::Invalid) => PAGE.state(&app, StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        Err(Refusal::Taken) => PAGE.state(&app, StatusCode::CONFLICT, "taken"),
        Err(refusal) => Err(refusal.into()),
    }
}
