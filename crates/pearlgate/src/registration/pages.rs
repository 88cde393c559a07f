//! The page behind the link of a verification mail. GET and HEAD consume nothing, so a mail scanner burns nothing:
//! they move the token from the address into a cookie and show a form; the form posts.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use foundation::http::{read_form, same_origin};
use foundation::kernel::{Problem, Secret};
use serde::Deserialize;
use serde_json::json;

use super::flow;
use super::model::Refusal;
use crate::app::App;
use crate::errors;
use crate::pages::{cookie, render, see_other, set_cookie};
use crate::passwords::Password;
use crate::router::From;

const PAGE: &str = "/verify-email";
const COOKIE: &str = "__Host-pearlgate-verify";
/// Long enough to think of a password.
const COOKIE_SECONDS: u32 = 1_800;

/// What the link carries.
#[derive(Debug, Deserialize)]
pub(crate) struct Link {
    token: Option<Secret>,
}

/// What the form posts.
#[derive(Debug, Deserialize)]
pub(crate) struct Chosen {
    password: Secret,
    /// Which link the form was shown for: another one opened meanwhile has replaced the cookie.
    link: String,
}

/// `GET /verify-email`
pub(crate) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    link: Result<Query<Link>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(link) =
        link.map_err(|_| Problem::malformed("The link is not complete; open it as it stands in the mail."))?;
    if let Some(token) = link.token {
        // Whatever stands in the address is kept only when it can stand in a cookie.
        let plain = token.reveal().len() < 200
            && token.reveal().bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        let value = if plain { token.reveal() } else { "" };
        return Ok((set_cookie(COOKIE, value, COOKIE_SECONDS), see_other(PAGE)).into_response());
    }
    let Some(token) = cookie(&headers, COOKIE).map(|token| Secret::new(token.to_owned())) else {
        return page(&app, "expired_cookie");
    };
    match flow::open_for(&app, &token).await? {
        Some(address) => form(&app, &token, &address, ""),
        None => page(&app, "invalid"),
    }
}

/// `POST /verify-email`
pub(crate) async fn submit(
    State(app): State<App>,
    From(from): From,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    if !same_origin(&headers, &app.settings.public_url) {
        return Err(errors::problem("permission_denied")
            .detail("This form was sent from another site. Open the link in the mail again."));
    }
    let body = read_form(request).await?;
    let chosen: Chosen =
        serde_urlencoded::from_bytes(&body).map_err(|_| Problem::malformed("The form is not complete."))?;
    let token = cookie(&headers, COOKIE).map(|token| Secret::new(token.to_owned()));
    let Some(token) = token.filter(|token| fingerprint(token) == chosen.link) else {
        return page(&app, "expired_cookie");
    };
    let password = match Password::accept("password", &chosen.password, app.settings.min_password_length) {
        Ok(password) => password,
        Err(error) => {
            let address = flow::open_for(&app, &token).await?.unwrap_or_default();
            let again = form(&app, &token, &address, &error.message)?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, again).into_response());
        }
    };
    match flow::claim_mailbox(&app, token, password, from).await {
        Ok(()) => Ok((set_cookie(COOKIE, "", 0), page(&app, "done")?).into_response()),
        Err(Refusal::VerificationInvalid) => {
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page(&app, "invalid")?).into_response())
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// Names a link without being one.
fn fingerprint(token: &Secret) -> String {
    HEXLOWER.encode(&token.digest().truncated::<16>())
}

fn form(app: &App, token: &Secret, address: &str, field_error: &str) -> Result<Response, Problem> {
    let values = json!({
        "state": "form", "field_error": field_error, "action": PAGE, "link": fingerprint(token), "address": address,
    });
    render(app, "pages/verify_email.html", values)
}

fn page(app: &App, state: &str) -> Result<Response, Problem> {
    render(app, "pages/verify_email.html", json!({ "state": state, "field_error": "", "action": PAGE }))
}
