//! What a browser is shown on its way: the pretend provider of dev mode, and the one button that a link or another site's
//! start wants.

use axum::response::Response;
use foundation::kernel::{Problem, Secret};
use serde_json::json;

use super::provider::Provider;
use super::talk::PEOPLE;
use crate::app::App;
use crate::pages::{render, render_with_forms_to};

/// Dev mode's people, each with a button.
pub(super) fn pretend(app: &App, provider: &Provider, state: &Secret) -> Result<Response, Problem> {
    let people: Vec<_> = PEOPLE
        .iter()
        .map(|(id, name, address, about)| json!({ "id": id, "name": name, "address": address, "about": about }))
        .collect();
    let action = format!("/v1/auth/oauth/{}/callback", provider.id);
    let values = json!({
        "service_name": app.settings.service_name, "action": action, "state": state.reveal(), "people": people,
    });
    render_with_forms_to(app, "pages/dev_provider.html", values, &app.settings.federation.return_origins)
}

/// A page with one link: to go on to a provider, or to link it to the account of this address.
pub(super) fn go_on(app: &App, provider: &Provider, href: &str, account: &str) -> Result<Response, Problem> {
    let values = json!({
        "service_name": app.settings.service_name, "provider_name": provider.name, "href": href, "account": account,
    });
    render(app, "pages/continue.html", values)
}
