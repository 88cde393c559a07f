//! The page behind a magic link: one button, which signs this browser in.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use foundation::kernel::Problem;
use serde::Deserialize;
use serde_json::json;

use super::flow::{self, Shown};
use super::model::Refusal;
use crate::app::App;
use crate::mailed::pages::{Arrived, LinkPage, LinkQuery};
use crate::mfa::{self, Entered};
use crate::pages::set_cookie;
use crate::sessions::http::Transport;
use crate::sessions::{Barred, Visit, let_in};

const PAGE: LinkPage = LinkPage {
    path: "/magic-link",
    cookie: "__Host-pearlgate-magic-link",
    template: "pages/magic_link.html",
};

/// A form of one button.
#[derive(Debug, Deserialize)]
struct Pressed {}

/// `GET /magic-link`
pub(crate) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    link: LinkQuery,
) -> Result<Response, Problem> {
    match PAGE.arrive(&headers, link)? {
        Arrived::Moved(response) => Ok(response),
        Arrived::Without => PAGE.state(&app, StatusCode::OK, "expired_cookie"),
        Arrived::With(token) => match flow::open_for(&app, &token).await? {
            Some(address) => PAGE.form(&app, &token, json!({ "address": address })),
            None => PAGE.state(&app, StatusCode::OK, "invalid"),
        },
    }
}

/// `POST /magic-link`
pub(crate) async fn submit(
    State(app): State<App>,
    visit: Visit,
    request: Request,
) -> Result<Response, Problem> {
    let Some((token, Pressed {})) = PAGE.submitted::<Pressed>(&app, request).await? else {
        return PAGE.state(&app, StatusCode::OK, "expired_cookie");
    };
    match flow::consume(&app, Shown::Link(token), visit.clone(), Transport::Cookie).await {
        // The second step has a page of its own.
        Ok(Entered::Half(half)) => {
            Ok((AppendHeaders(set_cookie(PAGE.cookie, "", 0)), mfa::pages::ask(&half)).into_response())
        }
        Ok(Entered::In(started)) => {
            // This page's cookie goes, the session's and the device's come.
            let session = let_in(&app, *started, Transport::Cookie, &visit).await?.into_cookies();
            Ok((AppendHeaders(session), PAGE.done(&app, "done")?).into_response())
        }
        Err(Refusal::Invalid) => PAGE.state(&app, StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        Err(Refusal::Barred(Barred::Suspended)) => PAGE.state(&app, StatusCode::FORBIDDEN, "suspended"),
        Err(refusal) => Err(refusal.into()),
    }
}
