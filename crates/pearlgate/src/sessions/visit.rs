//! Who comes: from where, on which device, and with which cookies. Taken from the request once, before anything that
//! may begin a session.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use foundation::http::{ClientAddress, from_own_page};
use foundation::kernel::{Id, Problem, Secret};

use super::devices;
use super::http::{COOKIE, DEVICE_COOKIE};
use super::model::SessionRow;
use crate::app::App;
use crate::pages::cookie;
use crate::router::device_name;

/// A visit.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The network address.
    pub from: ClientAddress,
    /// What the device is called: as its client says, else as the browser's name suggests.
    pub device_name: String,
    /// What the device has from an earlier sign-in.
    pub device_token: Option<Secret>,
    /// The session that the browser has, when the request is one of our own pages' or a configured application's.
    session: Option<Secret>,
}

impl Visit {
    /// A visit that no request made: of a command, or of a test.
    pub fn nowhere() -> Self {
        let from = ClientAddress::NOWHERE;
        Self { from, device_name: String::new(), device_token: None, session: None }
    }

    /// With what the body says about the device: what it says comes first.
    ///
    /// # Errors
    /// 422 for a name that is not one line of at most 100 characters.
    pub fn on(mut self, name: &str, token: Option<Secret>) -> Result<Self, Problem> {
        let name = device_name(name)?;
        if !name.is_empty() {
            self.device_name = name;
        }
        self.device_token = token.or(self.device_token);
        Ok(self)
    }

    /// The session that the browser was signed in with, if its cookie is one of ours.
    pub(super) fn former_session(&self, app: &App) -> Option<Id<SessionRow>> {
        app.refresh_key.read(self.session.as_ref()?)
    }
}

impl FromRequestParts<App> for Visit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let from = parts.extensions.get::<ClientAddress>().copied().ok_or_else(Problem::internal)?;
        let headers = &parts.headers;
        let own = from_own_page(headers, &app.settings.public_url, &app.settings.cors_origins);
        let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        Ok(Self {
            from,
            device_name: agent.map(devices::describe).unwrap_or_default(),
            device_token: own.then(|| secret(headers, DEVICE_COOKIE)).flatten(),
            session: own.then(|| secret(headers, COOKIE)).flatten(),
        })
    }
}

fn secret(headers: &HeaderMap, name: &str) -> Option<Secret> {
    cookie(headers, name).filter(|text| !text.is_empty()).map(|text| Secret::new(text.to_owned()))
}
