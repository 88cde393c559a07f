//! What every page shares: rendering with a nonce for the one inline style, and cookies.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use foundation::http::RequestId;
use foundation::kernel::Problem;
use minijinja::value::Serde;
use serde_json::{Value, json};

use crate::app::App;

/// Renders a page. `values` is a JSON object; `nonce` is added.
///
/// # Errors
/// 500 when the template fails, which the tests rule out.
pub fn render(app: &App, name: &str, values: Value) -> Result<Response, Problem> {
    render_under(app, name, values, |nonce| policy(nonce, "", ""))
}

/// The same for a page whose form leads on to one of these origins in the end: browsers ask about every step.
///
/// # Errors
/// As [`render`].
pub fn render_with_forms_to(
    app: &App,
    name: &str,
    values: Value,
    origins: &[String],
) -> Result<Response, Problem> {
    render_under(app, name, values, |nonce| policy(nonce, &format!(" {}", origins.join(" ")), ""))
}

/// The same for a page of dev mode with a script of its own, which calls this server.
///
/// # Errors
/// As [`render`].
pub fn render_with_script(app: &App, name: &str, values: Value) -> Result<Response, Problem> {
    let more = |nonce: &str| format!("; script-src 'nonce-{nonce}'; connect-src 'self'");
    render_under(app, name, values, |nonce| policy(nonce, "", &more(nonce)))
}

fn render_under(
    app: &App,
    name: &str,
    mut values: Value,
    policy: impl Fn(&str) -> String,
) -> Result<Response, Problem> {
    let nonce = BASE64URL_NOPAD.encode(&app.chance.bytes::<16>());
    if let Some(values) = values.as_object_mut() {
        values.insert("nonce".into(), nonce.clone().into());
    }
    let html =
        app.templates.get_template(name).and_then(|page| page.render(Serde(&values))).map_err(|error| {
            tracing::error!(%error, name, "a page could not be rendered");
            Problem::internal()
        })?;
    Ok(with_policy(policy(&nonce), html))
}

fn policy(nonce: &str, forms: &str, more: &str) -> String {
    format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'{forms}; frame-ancestors 'none'; base-uri 'none'{more}"
    )
}

fn with_policy(policy: String, html: String) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response()
}

/// A problem as a page, for a browser that asked for one.
pub fn problem_page(app: &App, problem: &Problem, id: &RequestId, request: &HeaderMap) -> Option<Response> {
    let accept = request.get(header::ACCEPT)?.to_str().ok()?;
    if !accept.starts_with("text/html") {
        return None;
    }
    let nonce = BASE64URL_NOPAD.encode(&app.chance.bytes::<16>());
    let values = json!({
        "nonce": nonce, "status": problem.status, "title": problem.title, "detail": problem.detail,
        "code": problem.code, "request_id": id.0, "retry_after": problem.retry_after.unwrap_or(0),
        // What a provider sent back works once: the same address again leads nowhere.
        "reloads": problem.code != "provider_unavailable",
    });
    let html =
        app.templates.get_template("pages/problem.html").and_then(|page| page.render(Serde(&values))).ok()?;
    Some(with_policy(policy(&nonce, "", ""), html))
}

/// A cookie that lives `seconds`, seen by no script and sent to no other site; 0 seconds removes it.
pub fn set_cookie(name: &str, value: &str, seconds: u32) -> [(header::HeaderName, String); 1] {
    [(
        header::SET_COOKIE,
        format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}"),
    )]
}

/// The value of a cookie; none when it is not there or there are several of that name.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    // In bytes: what another application of the site puts into its cookies must not hide ours.
    let pairs =
        headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    let mut found = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|b| *b == b'=')?;
        let (key, value) = (pair.get(..at)?, pair.get(at + 1..)?);
        // Exactly: a browser keeps no promise for `__host-`.
        (key == name.as_bytes()).then_some(value)
    });
    let only = found.next().filter(|_| found.next().is_none())?;
    std::str::from_utf8(only).ok()
}

/// 303 to another address of ours.
pub fn see_other(to: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, to.to_owned())]).into_response()
}
