//! The page for the second step, for a browser that came by a link of ours.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use foundation::kernel::{Problem, Secret};
use serde::Deserialize;
use serde_json::json;

use super::check::{Factor, Shown};
use super::flow::{self, Wish};
use super::gate::{Entered, HalfLogin};
use super::model::Refusal;
use crate::app::App;
use crate::mailed::pages::{Arrived, LinkPage, LinkQuery};
use crate::pages::{see_other, set_cookie};
use crate::sessions::http::Transport;
use crate::sessions::{Visit, let_in};

const PAGE: LinkPage = LinkPage { path: "/mfa", cookie: "__Host-pearlgate-mfa", template: "pages/mfa.html" };

/// A code, or the wish for one.
#[derive(Debug, Deserialize)]
struct Filled {
    #[serde(default)]
    code: Option<Secret>,
    #[serde(default)]
    r#type: Option<Factor>,
    #[serde(default)]
    send: Option<String>,
}

/// Sends a browser that owes the second step to its page.
pub fn ask(half: &HalfLogin) -> Response {
    let seconds = u32::try_from(half.expires_in.as_secs()).unwrap_or(u32::MAX);
    (set_cookie(PAGE.cookie, half.token.reveal(), seconds), see_other(PAGE.path)).into_response()
}

/// `GET /mfa`
pub(crate) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    link: LinkQuery,
) -> Result<Response, Problem> {
    match PAGE.arrive(&headers, link)? {
        Arrived::Moved(response) => Ok(response),
        Arrived::Without => PAGE.state(&app, StatusCode::OK, "expired_cookie"),
        Arrived::With(token) => form(&app, &token, StatusCode::OK, "", false).await,
    }
}

async fn form(
    app: &App,
    token: &Secret,
    status: StatusCode,
    error: &str,
    sent: bool,
) -> Result<Response, Problem> {
    match flow::open_for(app, token).await? {
        None => PAGE.state(app, status, "invalid"),
        Some((_, true)) => PAGE.state(app, status, "enrol"),
        // A passkey needs a script, and this page has none.
        Some((factors, false)) if factors == [Factor::Passkey.as_str()] => PAGE.state(app, status, "passkey"),
        Some((factors, false)) if factors.is_empty() => PAGE.state(app, status, "switched_off"),
        Some((factors, false)) => {
            let passkey = factors.contains(&Factor::Passkey.as_str());
            let typed: Vec<_> =
                factors.into_iter().filter(|factor| *factor != Factor::Passkey.as_str()).collect();
            let page = PAGE.form(
                app,
                token,
                json!({ "factors": typed, "passkey": passkey, "field_error": error, "sent": sent }),
            )?;
            Ok((status, page).into_response())
        }
    }
}

/// `POST /mfa`
pub(crate) async fn submit(
    State(app): State<App>,
    visit: Visit,
    request: Request,
) -> Result<Response, Problem> {
    let Some((token, filled)) = PAGE.submitted::<Filled>(&app, request).await? else {
        return PAGE.state(&app, StatusCode::OK, "expired_cookie");
    };
    if filled.send.is_some() {
        return match flow::mail_code(&app, &token, visit.from).await {
            Ok(()) => form(&app, &token, StatusCode::OK, "", true).await,
            Err(refusal) => refused(&app, &token, refusal).await,
        };
    }
    let (Some(code), Some(factor)) = (filled.code, filled.r#type) else {
        return Err(Problem::malformed("The form is not complete."));
    };
    let wish = Wish { transport: Some(Transport::Cookie), trust: false, named: false, visit: visit.clone() };
    match flow::complete(&app, &token, Shown::Code(factor, code), wish).await {
        Ok((Entered::In(started), transport)) => {
            // This page's cookie goes, the session's and the device's come.
            let session = let_in(&app, *started, transport, &visit).await?.into_cookies();
            Ok((AppendHeaders(session), PAGE.done(&app, "done")?).into_response())
        }
        Ok((Entered::Half(half), _)) => Ok(ask(&half)),
        Err(refusal) => refused(&app, &token, refusal).await,
    }
}

async fn refused(app: &App, token: &Secret, refusal: Refusal) -> Result<Response, Problem> {
    match refusal {
        Refusal::CodeInvalid => {
            let again = "This code is wrong, or it was used already. Wait for the next one and try again.";
            form(app, token, StatusCode::UNPROCESSABLE_ENTITY, again, false).await
        }
        Refusal::TokenInvalid | Refusal::TokenExpired | Refusal::OtherTransport => {
            PAGE.state(app, StatusCode::UNPROCESSABLE_ENTITY, "invalid")
        }
        Refusal::Paused(left) => {
            let minutes = left.as_secs().div_ceil(60).max(1);
            let page = PAGE.form(app, token, json!({ "state": "paused", "minutes": minutes }))?;
            Ok((StatusCode::TOO_MANY_REQUESTS, page).into_response())
        }
        Refusal::SwitchedOff => PAGE.state(app, StatusCode::LOCKED, "switched_off"),
        other => Err(other.into()),
    }
}
