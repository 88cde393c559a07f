//! The page behind a mailed link. GET and HEAD consume nothing, so a mail scanner burns nothing: they move the token
//! from the address into a cookie and redirect to the same page without it; the page's form posts.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use foundation::http::{read_form, same_origin};
use foundation::kernel::{Problem, Secret};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::app::App;
use crate::errors;
use crate::pages::{cookie, render, see_other, set_cookie};

/// Long enough to think of a password.
const COOKIE_SECONDS: u32 = 1_800;

/// A page behind a mailed link.
#[derive(Debug)]
pub struct LinkPage {
    /// Where it is.
    pub path: &'static str,
    /// Where the token waits for the form.
    pub cookie: &'static str,
    /// Its template.
    pub template: &'static str,
}

/// What the link carries.
#[derive(Debug, Deserialize)]
pub struct Link {
    token: Option<Secret>,
}

/// Which link the form was shown for: another one opened meanwhile has replaced the cookie.
#[derive(Debug, Deserialize)]
struct ShownFor {
    link: String,
}

/// Somebody came to the page.
#[derive(Debug)]
pub enum Arrived {
    /// By the link: the browser is sent on, without the token in its address.
    Moved(Response),
    /// After that, with the token in the cookie.
    With(Secret),
    /// Without either.
    Without,
}

/// The query of a page behind a link.
pub type LinkQuery = Result<Query<Link>, QueryRejection>;

impl LinkPage {
    /// What `GET` and `HEAD` do first.
    ///
    /// # Errors
    /// 400 for a query that cannot be read.
    pub fn arrive(&self, headers: &HeaderMap, link: LinkQuery) -> Result<Arrived, Problem> {
        let Query(link) = link
            .map_err(|_| Problem::malformed("The link is not complete; open it as it stands in the mail."))?;
        if let Some(token) = link.token {
            // Whatever stands in the address is kept only when it can stand in a cookie.
            let plain = token.reveal().len() < 200
                && token.reveal().bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            let value = if plain { token.reveal() } else { "" };
            let moved =
                (set_cookie(self.cookie, value, COOKIE_SECONDS), see_other(self.path)).into_response();
            return Ok(Arrived::Moved(moved));
        }
        Ok(self.waiting(headers).map_or(Arrived::Without, Arrived::With))
    }

    fn waiting(&self, headers: &HeaderMap) -> Option<Secret> {
        cookie(headers, self.cookie).filter(|text| !text.is_empty()).map(|text| Secret::new(text.to_owned()))
    }

    /// What the form posted, and the token it was shown for; none when the cookie is gone or another link's.
    ///
    /// # Errors
    /// 403 for a form of another site; 400, 408, 413, 415 for a body that is no form.
    pub async fn submitted<T: DeserializeOwned>(
        &self,
        app: &App,
        request: Request,
    ) -> Result<Option<(Secret, T)>, Problem> {
        let headers = request.headers().clone();
        if !same_origin(&headers, &app.settings.public_url) {
            return Err(errors::problem("permission_denied")
                .detail("This form was sent from another site. Open the link in the mail again."));
        }
        let body = read_form(request).await?;
        let incomplete = |_| Problem::malformed("The form is not complete.");
        let shown_for: ShownFor = serde_urlencoded::from_bytes(&body).map_err(incomplete)?;
        let form: T = serde_urlencoded::from_bytes(&body).map_err(incomplete)?;
        let token = self.waiting(&headers).filter(|token| fingerprint(token) == shown_for.link);
        Ok(token.map(|token| (token, form)))
    }

    /// The page with its form.
    ///
    /// # Errors
    /// 500 when the template fails, which the tests rule out.
    pub fn form(&self, app: &App, token: &Secret, more: Value) -> Result<Response, Problem> {
        let mut values = json!({
            "state": "form", "field_error": "", "action": self.path, "link": fingerprint(token),
            "service_name": app.settings.service_name,
        });
        if let (Some(values), Value::Object(more)) = (values.as_object_mut(), more) {
            values.extend(more);
        }
        render(app, self.template, values)
    }

    /// The page in another state: `invalid`, `expired_cookie`, `done`, or one of its own.
    ///
    /// # Errors
    /// As [`LinkPage::form`].
    pub fn state(&self, app: &App, status: StatusCode, state: &str) -> Result<Response, Problem> {
        let values = json!({
            "state": state, "field_error": "", "action": self.path, "service_name": app.settings.service_name,
        });
        Ok((status, render(app, self.template, values)?).into_response())
    }

    /// The page after its work; the cookie goes.
    ///
    /// # Errors
    /// As [`LinkPage::form`].
    pub fn done(&self, app: &App, state: &str) -> Result<Response, Problem> {
        Ok((set_cookie(self.cookie, "", 0), self.state(app, StatusCode::OK, state)?).into_response())
    }
}

/// Names a link without being one.
fn fingerprint(token: &Secret) -> String {
    HEXLOWER.encode(&token.digest().truncated::<16>())
}
