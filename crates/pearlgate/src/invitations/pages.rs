//! The page behind the link of an invitation, where whoever is asked chooses a password; with an account, one button.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use foundation::kernel::{Problem, Secret};
use serde::Deserialize;
use serde_json::json;

use super::flow::{self, Acceptance, Accepted};
use super::store::Waiting;
use crate::accounts::{DisplayName, Locale};
use crate::app::App;
use crate::mailed::pages::{Arrived, LinkPage, LinkQuery};
use crate::passwords::Unfit;
use crate::registration::Refusal;
use crate::router::From;

const PAGE: LinkPage = LinkPage {
    path: "/accept-invitation",
    cookie: "__Host-pearlgate-invitation",
    template: "pages/accept_invitation.html",
};

/// What the form posts; whoever has an account already posts neither.
#[derive(Debug, Deserialize)]
struct Filled {
    #[serde(default = "nothing")]
    password: Secret,
    #[serde(default)]
    display_name: String,
}

fn nothing() -> Secret {
    Secret::new(String::new())
}

/// `GET /accept-invitation`
pub(crate) async fn show(
    State(app): State<App>,
    headers: HeaderMap,
    link: LinkQuery,
) -> Result<Response, Problem> {
    match PAGE.arrive(&headers, link)? {
        Arrived::Moved(response) => Ok(response),
        Arrived::Without => PAGE.state(&app, StatusCode::OK, "expired_cookie"),
        Arrived::With(token) => match flow::open_for(&app, &token).await? {
            Some(waiting) => form(&app, &token, &waiting, ("", "")),
            None => PAGE.state(&app, StatusCode::OK, "invalid"),
        },
    }
}

/// `POST /accept-invitation`
pub(crate) async fn submit(
    State(app): State<App>,
    From(from): From,
    request: Request,
) -> Result<Response, Problem> {
    let Some((token, filled)) = PAGE.submitted::<Filled>(&app, request).await? else {
        return PAGE.state(&app, StatusCode::OK, "expired_cookie");
    };
    let (display_name, wrong) = match DisplayName::parse("display_name", &filled.display_name) {
        Ok(name) => (name, None),
        Err(error) => (DisplayName::default(), Some(Unfit::Field(error))),
    };
    let acceptance = Acceptance {
        token: token.clone(),
        password: filled.password,
        display_name,
        locale: Locale::default(),
    };
    let accepted = match wrong {
        None => flow::accept(&app, acceptance, from, None).await,
        Some(unfit) => Err(Refusal::Unfit(unfit)),
    };
    match accepted {
        Ok(Accepted::Joined) => PAGE.done(&app, "joined"),
        Ok(Accepted::Begun | Accepted::In(_)) => PAGE.done(&app, "done"),
        Err(Refusal::VerificationInvalid) => PAGE.state(&app, StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        Err(Refusal::Unfit(Unfit::Field(error))) => {
            let again = match flow::open_for(&app, &token).await? {
                Some(waiting) => form(&app, &token, &waiting, (&error.message, &filled.display_name))?,
                None => PAGE.state(&app, StatusCode::OK, "invalid")?,
            };
            Ok((StatusCode::UNPROCESSABLE_ENTITY, again).into_response())
        }
        Err(refusal) => Err(refusal.into()),
    }
}

fn form(
    app: &App,
    token: &Secret,
    waiting: &Waiting,
    (error, name): (&str, &str),
) -> Result<Response, Problem> {
    let state = if waiting.proven { "join" } else { "form" };
    let values = json!({
        "state": state, "address": waiting.address, "field_error": error, "display_name": name,
        "min_length": app.settings.min_password_length,
    });
    PAGE.form(app, token, values)
}
