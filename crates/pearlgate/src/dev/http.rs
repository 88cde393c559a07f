//! Dev mode over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use foundation::http::Json;
use foundation::kernel::{FieldError, Problem};
use foundation::mail::Kept;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::pages::{render, render_with_script, see_other};

/// Which messages.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    to: Option<String>,
    kind: Option<String>,
}

/// How far to move the clock.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Advance {
    advance: String,
}

/// How to break a dependency.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Break {
    fault: String,
}

/// `GET /`: where a newcomer lands.
pub(crate) async fn start() -> Response {
    see_other("/docs")
}

/// `GET /dev/mailbox`
pub(crate) async fn mailbox(
    State(app): State<App>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    let filter = read(filter)?;
    let to_filter = filter.to.clone().unwrap_or_default();
    let values = json!({ "messages": kept(&app, &filter), "to_filter": to_filter, "base_url": app.settings.public_url });
    render(&app, "pages/mailbox.html", values)
}

/// `GET /dev/v1/messages?to=&kind=`
pub(crate) async fn messages(
    State(app): State<App>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<JsonAnswer<Value>, Problem> {
    Ok(JsonAnswer(json!({ "items": kept(&app, &read(filter)?) })))
}

fn read(filter: Result<Query<Filter>, QueryRejection>) -> Result<Filter, Problem> {
    filter
        .map(|Query(filter)| filter)
        .map_err(|_| Problem::malformed("Give ?to= and ?kind= at most once, and nothing else."))
}

fn kept(app: &App, filter: &Filter) -> Vec<Kept> {
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    app.mailbox
        .as_ref()
        .map(|mailbox| mailbox.list(some(&filter.to).as_deref(), some(&filter.kind).as_deref()))
        .unwrap_or_default()
}

/// `POST /dev/v1/clock`
pub(crate) async fn clock(
    State(app): State<App>,
    Json(body): Json<Advance>,
) -> Result<JsonAnswer<Value>, Problem> {
    let by = humantime::parse_duration(&body.advance).map_err(|_| {
        Problem::invalid(vec![FieldError::new(
            "advance",
            "invalid",
            "give a duration such as \"15m\", \"24h\" or \"30d\"",
        )])
    })?;
    Ok(JsonAnswer(json!({ "now": app.clock.advance(by).to_string() })))
}

/// `PUT /dev/v1/faults/{dependency}`
pub(crate) async fn fault(
    State(app): State<App>,
    Path(name): Path<String>,
    Json(body): Json<Break>,
) -> Result<StatusCode, Problem> {
    let fault = body
        .fault
        .parse()
        .map_err(|e| Problem::invalid(vec![FieldError::new("fault", "invalid", format!("{e}"))]))?;
    if app.dependencies.break_with(&name, fault) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found()
            .detail("There is no dependency of this name; /health/dependencies lists them."))
    }
}

/// `GET /dev/passkeys`: tries passkeys in this browser, until an application of one's own does.
pub(crate) async fn passkeys(State(app): State<App>) -> Result<Response, Problem> {
    render_with_script(&app, "pages/passkeys.html", json!({ "service_name": app.settings.service_name }))
}
