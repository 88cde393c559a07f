//! The page behind the link of the mail about a lock.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use foundation::kernel::Problem;
use serde::Deserialize;
use serde_json::json;

use super::flow::{self, Said};
use crate::app::App;
use crate::mailed::pages::{Arrived, LinkPage, LinkQuery};
use crate::router::From;

const UNLOCK: LinkPage =
    LinkPage { path: "/unlock", cookie: "__Host-pearlgate-unlock", template: "pages/unlock.html" };

/// Which button was pressed.
#[derive(Debug, Deserialize)]
struct Pressed {
    answer: Answer,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Me,
    NotMe,
}

/// `GET /unlock`
pub(crate) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    link: LinkQuery,
) -> Result<Response, Problem> {
    match UNLOCK.arrive(&headers, link)? {
        Arrived::Moved(response) => Ok(response),
        Arrived::Without => UNLOCK.state(&app, StatusCode::OK, "expired_cookie"),
        Arrived::With(token) => match flow::open_for(&app, &token).await.map_err(|e| e.to_problem())? {
            Some(address) => UNLOCK.form(&app, &token, json!({ "address": address })),
            None => UNLOCK.state(&app, StatusCode::OK, "invalid"),
        },
    }
}

/// `POST /unlock`
pub(crate) async fn submit(
    State(app): State<App>,
    From(from): From,
    request: Request,
) -> Result<Response, Problem> {
    let Some((token, pressed)) = UNLOCK.submitted::<Pressed>(&app, request).await? else {
        return UNLOCK.state(&app, StatusCode::OK, "expired_cookie");
    };
    let (said, after) = match pressed.answer {
        Answer::Me => (Said::ItWasMe, "done"),
        Answer::NotMe => (Said::NotMe, "kept"),
    };
    match flow::answer(&app, &token, said, from).await.map_err(|e| e.to_problem())? {
        true => UNLOCK.done(&app, after),
        false => UNLOCK.state(&app, StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
    }
}
