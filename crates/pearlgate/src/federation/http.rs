//! Signing in at others, over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foundation::http::{Json, OptionalJson, read_form};
use foundation::kernel::{FieldError, Problem, Secret};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use utoipa::{IntoParams, ToSchema};

use super::flow::{self, Back, Completed, Completion, Leaving};
use super::model::{AT_PROVIDER, COMPLETING, pressed};
use super::who::{Came, Incomplete};
use super::{own, pages};
use crate::accounts::{DisplayName, EmailAddress, Locale};
use crate::app::App;
use crate::errors;
use crate::mfa;
use crate::mfa::http::MfaRequired;
use crate::openapi::ProblemDocument;
use crate::pages::{cookie, see_other, set_cookie};
use crate::router::From;
use crate::sessions::http::{TokenSet, Transport};
use crate::sessions::{Current, Visit};

/// What a browser leaves with, and comes back with.
const COOKIE: &str = "__Host-pearlgate-oauth";
/// As long as a browser may be at a provider, and then until its code is exchanged.
const COOKIE_SECONDS: u32 = 900;
/// Of each part of what a provider sends back.
const LONGEST: usize = 4_096;
const _: () = assert!(AT_PROVIDER.as_secs() < COOKIE_SECONDS as u64);

/// The ways in that there are now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Methods {
    /// A password.
    password: bool,
    /// A passkey.
    passkey: bool,
    /// A link by mail.
    magic_link: bool,
    /// Sign-in at others.
    providers: Vec<Method>,
}

/// A provider that people may sign in at.
#[derive(Debug, Serialize, ToSchema)]
pub struct Method {
    /// As it stands in addresses.
    #[schema(example = "google")]
    id: String,
    /// As people know it.
    #[schema(example = "Google")]
    name: String,
    /// `up`, or `down` when it did not answer the last time.
    #[schema(example = "up")]
    state: &'static str,
}

/// What a login page may offer now
///
/// A provider that is `down` is not answering: show its button as such, and the other ways in.
#[utoipa::path(get, path = "/v1/auth/methods", tag = "sign-in",
    responses((status = 200, body = Methods), (status = "5XX", body = ProblemDocument)))]
pub async fn methods(State(app): State<App>) -> Result<JsonAnswer<Methods>, Problem> {
    let inner = app.clone();
    let offered = app.db.read(move |tx| inner.providers.offered(tx)).await.map_err(|e| e.to_problem())?;
    let providers = offered.iter().map(|one| Method {
        id: one.provider.id.clone(),
        name: one.provider.name.clone(),
        state: if one.is_down() { "down" } else { "up" },
    });
    Ok(JsonAnswer(Methods {
        password: true,
        passkey: true,
        magic_link: app.settings.magic_links,
        providers: providers.collect(),
    }))
}

/// How somebody begins.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StartQuery {
    /// Where to go afterwards: a path of this server, or an address of an origin in `federation.return_origins`.
    return_to: Option<String>,
    /// The application's own challenge (RFC 7636, S256): then its verifier, and not the browser's cookie, goes with the code.
    code_challenge: Option<String>,
    /// From `POST /v1/me/identities/{provider}/start`.
    #[param(value_type = Option<String>)]
    link: Option<Secret>,
    /// From the page that asks whether it is to be linked.
    confirmed: Option<String>,
}

/// Sign in at a provider
///
/// Open it as a page: it sends the browser on. A request from another site that nobody clicked for gets a page with one link.
#[utoipa::path(get, path = "/v1/auth/oauth/{provider}/start", tag = "sign-in", params(("provider" = String, Path), StartQuery),
    responses((status = 200, description = "a page with a button", body = String, content_type = "text/html"), (status = 302, description = "to the provider"),
        (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn start(
    State(app): State<App>,
    Path(provider): Path<String>,
    query: Result<Query<StartQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|_| {
        Problem::malformed("Give return_to and code_challenge at most once each, and nothing else.")
    })?;
    let headers = request.headers();
    if headers.get("sec-fetch-dest").is_some_and(|dest| dest != "document") {
        return Err(errors::problem("permission_denied").detail(
            "Open this address as a page: neither a frame nor a script can follow it to the provider.",
        ));
    }
    let connection = flow::provider(&app, &provider).await?;
    let here = request.uri().path_and_query().map_or("/", |here| here.as_str());
    let known = browser_of(headers);
    let browser = known.clone().unwrap_or_else(|| Secret::encode("", &app.chance.bytes::<32>()));
    let response = match (&query.link, query.confirmed.as_deref()) {
        (Some(ticket), None) => {
            let account = flow::ticket_for(&app, &provider, ticket).await?;
            let href = format!("{here}&confirmed={}", pressed(&browser, ticket));
            pages::go_on(&app, &connection.provider, &href, &account)?
        }
        (Some(ticket), Some(answer)) => {
            leave(&app, flow::begin_link(&app, connection, (ticket, answer), &browser).await?)?
        }
        (None, _) => {
            let back = flow::way_back(&app, query.return_to.as_deref())?;
            if is_unasked(headers) {
                return pages::go_on(&app, &connection.provider, here, "");
            }
            leave(&app, flow::begin(&app, connection, (back, query.code_challenge), &browser).await?)?
        }
    };
    Ok((set_cookie(COOKIE, browser.reveal(), COOKIE_SECONDS), response).into_response())
}

/// Whether another site sends a browser here that nobody clicked in.
fn is_unasked(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|header| header == value);
    is("sec-fetch-site", "cross-site") && !is("sec-fetch-user", "?1")
}

/// What a browser has from before, when it is what we give.
fn browser_of(headers: &HeaderMap) -> Option<Secret> {
    let found = cookie(headers, COOKIE).map(|text| Secret::new(text.to_owned()));
    found.filter(|secret| secret.decode::<32>("").is_some())
}

fn leave(app: &App, leaving: Leaving) -> Result<Response, Problem> {
    match leaving.to {
        Some(url) => Ok((StatusCode::FOUND, [(header::LOCATION, String::from(url))]).into_response()),
        None => pages::pretend(app, &leaving.connection.provider, &leaving.state),
    }
}

/// What a provider sends back; whatever else it says is none of ours.
fn back_of(pairs: form_urlencoded::Parse<'_>) -> Result<Back, Problem> {
    let mut back = Back { state: None, code: None, iss: None, error: None };
    let strange = || {
        Problem::malformed("The provider's answer has a part twice, or one that it cannot have: begin again.")
    };
    for (name, value) in pairs {
        let ours = ["state", "code", "iss", "error"].contains(&name.as_ref());
        if ours && (value.len() > LONGEST || !value.bytes().all(|b| (0x20..0x7f).contains(&b))) {
            return Err(strange());
        }
        let before = match name.as_ref() {
            "state" => back.state.replace(Secret::new(value.into_owned())).is_some(),
            "code" => back.code.replace(Secret::new(value.into_owned())).is_some(),
            "iss" => back.iss.replace(value.into_owned()).is_some(),
            "error" => back.error.replace(value.into_owned()).is_some(),
            _ => false,
        };
        if before {
            return Err(strange());
        }
    }
    Ok(back)
}

/// A provider sends a browser back
///
/// Goes on to `return_to` with a one-time `code`, or with `error` when the person does not want to.
#[utoipa::path(get, path = "/v1/auth/oauth/{provider}/callback", tag = "sign-in",
    params(("provider" = String, Path), ("state" = Option<String>, Query), ("code" = Option<String>, Query),
        ("iss" = Option<String>, Query), ("error" = Option<String>, Query)),
    responses((status = 303, description = "to return_to"), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn callback(
    State(app): State<App>,
    From(from): From,
    Path(provider): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let back = back_of(form_urlencoded::parse(query))?;
    Ok(see_other(&flow::arrive(&app, &provider, back, browser_of(request.headers()), from).await?))
}

/// A provider has a browser post its answer
///
/// A form of another site comes without cookies: it is sent on to the same address by GET, where they are.
#[utoipa::path(post, path = "/v1/auth/oauth/{provider}/callback", tag = "sign-in", params(("provider" = String, Path)),
    responses((status = 303, description = "to return_to, or to the same address by GET"),
        (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn posted(
    State(app): State<App>,
    From(from): From,
    Path(provider): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let browser = browser_of(request.headers());
    let body = read_form(request).await?;
    let back = back_of(form_urlencoded::parse(&body))?;
    if browser.is_some() {
        return Ok(see_other(&flow::arrive(&app, &provider, back, browser, from).await?));
    }
    // Whoever sends a form here has done nothing yet.
    flow::provider(&app, &provider).await?;
    let mut query = form_urlencoded::Serializer::new(String::new());
    let texts = [
        ("state", back.state.as_ref().map(Secret::reveal)),
        ("code", back.code.as_ref().map(Secret::reveal)),
        ("iss", back.iss.as_deref()),
        ("error", back.error.as_deref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            query.append_pair(name, text);
        }
    }
    Ok(see_other(&format!("/v1/auth/oauth/{provider}/callback?{}", query.finish())))
}

/// A code, and what shows that it is one's own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// From the address that the browser came back to.
    #[schema(value_type = String)]
    code: Secret,
    /// When there was a `code_challenge`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    code_verifier: Option<Secret>,
    /// How tokens travel.
    #[serde(default)]
    transport: Transport,
    /// What the device is called in the list of sessions.
    #[serde(default)]
    device_name: String,
}

/// A provider said too little.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProfileRequired {
    /// Always `profile_required`.
    #[schema(example = "profile_required")]
    status: &'static str,
    /// `pgi_…`, for `POST /v1/auth/oauth/complete`.
    completion_token: String,
    /// Seconds until it expires.
    #[schema(example = 600)]
    expires_in: u64,
    /// What has to be given: `email`, `display_name`.
    missing: Vec<&'static str>,
    /// What may stand in the form already.
    suggested: Suggested,
}

/// What a provider said, proven or not.
#[derive(Debug, Serialize, ToSchema)]
pub struct Suggested {
    /// "" for none.
    email: String,
    /// "" for none.
    display_name: String,
}

impl ProfileRequired {
    fn of(incomplete: &Incomplete) -> Self {
        let all = [("email", incomplete.email), ("display_name", incomplete.display_name)];
        Self {
            status: "profile_required",
            completion_token: incomplete.token.reveal().to_owned(),
            expires_in: COMPLETING.as_secs(),
            missing: all.into_iter().filter(|(_, missing)| *missing).map(|(name, _)| name).collect(),
            suggested: Suggested {
                email: incomplete.suggested_email.clone(),
                display_name: incomplete.suggested_name.clone(),
            },
        }
    }
}

/// What a sign-in at a provider leads to: tokens, a second step, or a form.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum SignedInElsewhere {
    /// Tokens.
    In(Box<TokenSet>),
    /// What is due.
    Half(MfaRequired),
    /// What is missing.
    Profile(ProfileRequired),
}

async fn answer(app: &App, came: Came, transport: Transport, visit: &Visit) -> Result<Response, Problem> {
    match came {
        Came::In(entered) => Ok(mfa::answer(app, *entered, transport, visit).await?.into_response()),
        Came::Incomplete(incomplete) => Ok(JsonAnswer(ProfileRequired::of(&incomplete)).into_response()),
    }
}

/// Sign in with the code
///
/// Once, within a minute, by whoever began: with the `code_verifier` of the challenge, or else in the same browser.
#[utoipa::path(post, path = "/v1/auth/oauth/exchange", tag = "sign-in", request_body = Exchange,
    responses((status = 200, body = SignedInElsewhere), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn exchange(
    State(app): State<App>,
    visit: Visit,
    headers: HeaderMap,
    Json(body): Json<Exchange>,
) -> Result<Response, Problem> {
    let visit = visit.on(&body.device_name, None)?;
    let shown = (body.code, body.code_verifier);
    let browser = browser_of(&headers);
    let came = flow::exchange(&app, shown, browser, visit.clone(), body.transport).await?;
    answer(&app, came, body.transport, &visit).await
}

/// An ID token that an application has.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IdToken {
    /// As the provider gave it.
    #[schema(value_type = String)]
    id_token: Secret,
    /// What the application asked for it with; the token may have it as a SHA-256 in hexadecimal.
    #[schema(value_type = String)]
    nonce: Secret,
    /// How tokens travel.
    #[serde(default)]
    transport: Transport,
    /// What the device is called in the list of sessions.
    #[serde(default)]
    device_name: String,
}

/// Sign in with an ID token
///
/// For native applications, whose platform signs people in. A nonce works once.
#[utoipa::path(post, path = "/v1/auth/oauth/{provider}/id-token", tag = "sign-in", params(("provider" = String, Path)),
    request_body = IdToken,
    responses((status = 200, body = SignedInElsewhere), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn id_token(
    State(app): State<App>,
    Path(provider): Path<String>,
    visit: Visit,
    Json(body): Json<IdToken>,
) -> Result<Response, Problem> {
    let visit = visit.on(&body.device_name, None)?;
    let shown = (body.id_token, body.nonce);
    let came = flow::by_token(&app, &provider, shown, visit.clone(), body.transport).await?;
    answer(&app, came, body.transport, &visit).await
}

/// What a provider did not say.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Complete {
    /// From the answer that asked for it.
    #[schema(value_type = String)]
    completion_token: Secret,
    /// An address that the person reads: a mail goes there.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    email: Option<String>,
    /// What they are called.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    display_name: Option<String>,
    /// Their language.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    locale: Option<String>,
    /// How tokens travel.
    #[serde(default)]
    transport: Transport,
    /// What the device is called in the list of sessions.
    #[serde(default)]
    device_name: String,
}

/// A mail has to be read first.
#[derive(Debug, Serialize, ToSchema)]
pub struct ToVerify {
    /// Always `verification_required`.
    #[schema(example = "verification_required")]
    status: &'static str,
    /// `ver_…`, for `POST /v1/auth/verify-email`.
    verification_id: String,
}

/// Complete a sign-in
///
/// An address that the provider did not prove is proven by a mail: 202, the same for every address, and
/// `POST /v1/auth/verify-email` signs in and links the identity. Otherwise this signs in.
#[utoipa::path(post, path = "/v1/auth/oauth/complete", tag = "sign-in", request_body = Complete,
    responses((status = 200, body = SignedInElsewhere), (status = 202, body = ToVerify),
        (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn complete(
    State(app): State<App>,
    visit: Visit,
    Json(body): Json<Complete>,
) -> Result<Response, Problem> {
    let visit = visit.on(&body.device_name, None)?;
    let field = |error: FieldError| Problem::invalid(vec![error]);
    let completion = Completion {
        email: body.email.map(|text| EmailAddress::parse("email", &text)).transpose().map_err(field)?,
        display_name: body
            .display_name
            .map(|text| DisplayName::parse("display_name", &text))
            .transpose()
            .map_err(field)?,
        locale: body.locale.map(|text| Locale::parse("locale", &text)).transpose().map_err(field)?,
    };
    match flow::complete(&app, &body.completion_token, completion, visit.clone(), body.transport).await? {
        Completed::Verification(id) => {
            let answer = ToVerify { status: "verification_required", verification_id: id.to_string() };
            Ok((StatusCode::ACCEPTED, JsonAnswer(answer)).into_response())
        }
        Completed::Came(came) => answer(&app, came, body.transport, &visit).await,
    }
}

/// One's own identities.
#[derive(Debug, Serialize, ToSchema)]
pub struct Identities {
    /// By provider.
    items: Vec<IdentityInfo>,
}

/// An identity that signs one in.
#[derive(Debug, Serialize, ToSchema)]
pub struct IdentityInfo {
    /// As it stands in addresses.
    #[schema(example = "google")]
    provider: String,
    /// As people know it.
    #[schema(example = "Google")]
    name: String,
    /// What the provider calls the person.
    subject: String,
    /// When it was linked.
    linked_at: String,
}

/// See one's identities
#[utoipa::path(get, path = "/v1/me/identities", tag = "account", security(("access_token" = [])),
    responses((status = 200, body = Identities), (status = "4XX", body = ProblemDocument)))]
pub async fn my_identities(
    State(app): State<App>,
    current: Current,
) -> Result<JsonAnswer<Identities>, Problem> {
    let rows = own::list(&app, &current).await?;
    let items = rows.into_iter().map(|(row, name)| IdentityInfo {
        provider: row.provider,
        name,
        subject: row.subject,
        linked_at: row.linked_at.to_string(),
    });
    Ok(JsonAnswer(Identities { items: items.collect() }))
}

/// Where to go after linking.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkStart {
    /// As at `start`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    return_to: Option<String>,
}

/// Where to send the browser.
#[derive(Debug, Serialize, ToSchema)]
pub struct LinkAddress {
    /// A page that asks whether this account is meant.
    url: String,
}

/// Begin to link an identity
///
/// In a fresh session. Send the browser to `url` within ten minutes: a page of ours asks, the provider signs the person in,
/// and the browser comes back to `return_to` with `linked`, or with `error`.
#[utoipa::path(post, path = "/v1/me/identities/{provider}/start", tag = "account", security(("access_token" = [])),
    params(("provider" = String, Path)), request_body = LinkStart,
    responses((status = 200, body = LinkAddress), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn begin_link(
    State(app): State<App>,
    current: Current,
    From(from): From,
    Path(provider): Path<String>,
    OptionalJson(body): OptionalJson<LinkStart>,
) -> Result<JsonAnswer<LinkAddress>, Problem> {
    let ticket = own::ticket(&app, &current, &provider, body.return_to.as_deref(), from).await?;
    let url = format!("{}/v1/auth/oauth/{provider}/start?link={}", app.settings.public_url, ticket.reveal());
    Ok(JsonAnswer(LinkAddress { url }))
}

/// An ID token to link by.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkToken {
    /// As the provider gave it.
    #[schema(value_type = String)]
    id_token: Secret,
    /// What the application asked for it with.
    #[schema(value_type = String)]
    nonce: Secret,
}

/// Link an identity by an ID token
///
/// For native applications, in a fresh session.
#[utoipa::path(post, path = "/v1/me/identities/{provider}", tag = "account", security(("access_token" = [])),
    params(("provider" = String, Path)), request_body = LinkToken,
    responses((status = 204), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn link_token(
    State(app): State<App>,
    current: Current,
    From(from): From,
    Path(provider): Path<String>,
    Json(body): Json<LinkToken>,
) -> Result<StatusCode, Problem> {
    own::link_by_token(&app, &current, &provider, (body.id_token, body.nonce), from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Unlink an identity
///
/// In a fresh session. The last way in cannot be taken away.
#[utoipa::path(delete, path = "/v1/me/identities/{provider}", tag = "account", security(("access_token" = [])),
    params(("provider" = String, Path)),
    responses((status = 204), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn unlink(
    State(app): State<App>,
    current: Current,
    From(from): From,
    Path(provider): Path<String>,
) -> Result<StatusCode, Problem> {
    own::unlink(&app, &current, &provider, from).await?;
    Ok(StatusCode::NO_CONTENT)
}
