//! The page behind the link of the mail that tells that an account is to be deleted.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use foundation::kernel::Problem;
use serde::Deserialize;
use serde_json::json;

use super::closing;
use crate::app::App;
use crate::mailed::pages::{Arrived, LinkPage, LinkQuery};
use crate::router::From;

const KEEP: LinkPage = LinkPage {
    path: "/keep-account",
    cookie: "__Host-pearlgate-keep-account",
    template: "pages/keep_account.html",
};

/// A form of one button.
#[derive(Debug, Deserialize)]
struct Pressed {}

/// `GET /keep-account`
pub(crate) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    link: LinkQuery,
) -> Result<Response, Problem> {
    match KEEP.arrive(&headers, link)? {
        Arrived::Moved(response) => Ok(response),
        Arrived::Without => KEEP.state(&app, StatusCode::OK, "expired_cookie"),
        Arrived::With(token) => match closing::open_for(&app, &token).await.map_err(|e| e.to_problem())? {
            Some(address) => KEEP.form(&app, &token, json!({ "address": address })),
            None => KEEP.state(&app, StatusCode::OK, "invalid"),
        },
    }
}

/// `POST /keep-account`
pub(crate) async fn submit(
    State(app): State<App>,
    From(from): From,
    request: Request,
) -> Result<Response, Problem> {
    let Some((token, Pressed {})) = KEEP.submitted::<Pressed>(&app, request).await? else {
        return KEEP.state(&app, StatusCode::OK, "expired_cookie");
    };
    match closing::keep(&app, &token, from).await.map_err(|e| e.to_problem())? {
        true => KEEP.done(&app, "done"),
        false => KEEP.state(&app, StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
    }
}
