//! What every answer gets: a request id, headers that browsers obey, and, when it is a refusal, a problem document.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::kernel::{Clock, Entity, Entropy, Id, Problem, trace};

/// Ids of requests.
#[derive(Debug)]
pub(super) struct RequestRow;
impl Entity for RequestRow {
    const PREFIX: &'static str = "req";
}

/// The id under which a request is found in the log; in `X-Request-Id` of its answer.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Turns a problem into something other than JSON when the request wants that (a page).
pub type Respond = Arc<dyn Fn(&Problem, &RequestId, &HeaderMap) -> Option<Response> + Send + Sync>;

/// What [`finish`] needs to know.
#[derive(Clone)]
pub struct Finish {
    /// The server's own address, without a slash at the end: where a problem's `type` points to.
    pub public_url: Arc<str>,
    /// For ids.
    pub clock: Clock,
    /// For ids.
    pub chance: Entropy,
    /// For pages.
    pub page: Respond,
}

/// A handler's `Err(problem)` travels in the response's extensions; [`finish`] makes the document of it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

const SECURITY: [(HeaderName, &str); 8] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The outermost layer.
pub async fn finish(State(state): State<Finish>, mut request: Request, next: Next) -> Response {
    let request_id = Id::<RequestRow>::new(&state.clock, &state.chance);
    let id = RequestId(request_id.to_string());
    request.extensions_mut().insert(id.clone());
    let headers = request.headers().clone();
    let ambiguity = ambiguous(&request);
    let close = ambiguity.is_some();
    let mut response = match ambiguity {
        Some(problem) => problem.into_response(),
        None => trace::on_behalf_of(*request_id.as_bytes(), next.run(request)).await,
    };
    let failed = response.status().is_client_error() || response.status().is_server_error();
    let problem = response.extensions_mut().remove::<Arc<Problem>>();
    // What says who may read the answer, and how often, stays when the answer becomes a document.
    let sharing: Vec<(HeaderName, HeaderValue)> = response
        .headers()
        .iter()
        .filter(|(name, _)| {
            let name = name.as_str();
            name == "vary" || name.starts_with("access-control-") || name.starts_with("ratelimit")
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(problem) = problem {
        response = document(&state, &problem, &id, &headers);
        // A problem's own word on a limit comes before the network's.
        let own = response.headers().contains_key("ratelimit");
        let more = sharing.into_iter().filter(|(name, _)| !(own && name.as_str().starts_with("ratelimit")));
        response.headers_mut().extend(more);
    } else if failed
        && response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind == "text/plain; charset=utf-8")
    {
        // A refusal by a library: its words are not for people.
        let allow = response.headers_mut().remove(header::ALLOW);
        response = document(&state, &generic(response.status()), &id, &headers);
        response.headers_mut().extend(sharing);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    add_headers(&state, &id, response.headers_mut());
    if close {
        // Whatever follows on this connection may be part of what was not understood.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn add_headers(state: &Finish, id: &RequestId, headers: &mut HeaderMap) {
    for (name, value) in SECURITY {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if state.public_url.starts_with("https://") {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=63072000; includeSubDomains"),
        );
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert("x-request-id", value);
    }
}

/// A message that two parties could read differently is not read at all (RFC 9112 §6.3, §3.2).
fn ambiguous(request: &Request) -> Option<Problem> {
    let headers = request.headers();
    let several = |name| headers.get_all(name).iter().count() > 1;
    let both =
        headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH);
    let hosts = headers.get_all(header::HOST).iter().count();
    let coding = headers
        .get(header::TRANSFER_ENCODING)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if both
        || coding
        || several(header::CONTENT_LENGTH)
        || several(header::TRANSFER_ENCODING)
        || several(header::AUTHORIZATION)
    {
        return Some(Problem::malformed("The request has contradictory headers."));
    }
    (hosts != 1).then(|| Problem::malformed("The request must have exactly one Host header."))
}

fn document(state: &Finish, problem: &Problem, id: &RequestId, request: &HeaderMap) -> Response {
    // Being turned away because of too much is counted, and a line for each would be too much as well.
    if problem.status >= 500 && problem.code != "overloaded" {
        tracing::warn!(request_id = id.0, code = problem.code, status = problem.status, "a request failed");
    }
    let mut response = (state.page)(problem, id, request).unwrap_or_else(|| {
        let mut body = json!({
            "type": format!("{}/errors/{}", state.public_url, problem.code),
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
            "code": problem.code,
            "fields": problem.fields,
            "request_id": id.0,
        });
        if let Some(members) = body.as_object_mut() {
            if let Some(seconds) = problem.retry_after {
                members.insert("retry_after".into(), seconds.into());
            }
            members.extend(problem.members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        }
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (kind, body.to_string()).into_response()
    });
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(seconds) = problem.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    for (name, value) in &problem.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(*name, value);
        }
    }
    // Whatever still comes is the rest of what was refused, and no request.
    if matches!(problem.status, 408 | 413) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if problem.status == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn generic(status: StatusCode) -> Problem {
    match status.as_u16() {
        404 => Problem::not_found(),
        405 => Problem::new(405, "method_not_allowed", "This address does not take this method")
            .detail("The Allow header lists the methods that it takes."),
        413 => Problem::new(413, "payload_too_large", "The body is too large"),
        status if status >= 500 => Problem::internal(),
        _ => Problem::malformed("The request could not be read."),
    }
}

/// Whether an unsafe request comes from a page of another origin than ours and `others`, whatever it carries. What is
/// no browser sends neither header, and may; a browser that hides its origin (`null`) may not.
pub fn cross_origin(headers: &HeaderMap, public_url: &str, others: &[String]) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let known = |origin: &str| others.iter().any(|other| other == origin);
    match (text("sec-fetch-site"), headers.get("origin").map(|_| text("origin").unwrap_or_default())) {
        (Some("same-origin" | "none"), _) => false,
        (Some(_), origin) => !origin.is_some_and(known),
        (None, Some(origin)) => origin != public_url && !known(origin),
        (None, None) => false,
    }
}

/// Whether a browser says that a request comes from one of our own pages, or from one of `others`: what a cookie needs
/// to count. A browser that says nothing is told no.
pub fn from_own_page(headers: &HeaderMap, public_url: &str, others: &[String]) -> bool {
    let origin = headers.get("origin").and_then(|value| value.to_str().ok());
    same_origin(headers, public_url)
        || (!cross_origin(headers, public_url, others)
            && origin.is_some_and(|origin| others.iter().any(|o| o == origin)))
}

/// Whether an unsafe request of a browser comes from one of our own pages: by `Sec-Fetch-Site`, else by `Origin`.
/// A browser that sends neither is told no; what is not a browser sends no cookies that could be abused.
pub fn same_origin(headers: &HeaderMap, public_url: &str) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => origin == public_url,
        (None, None) => false,
    }
}
