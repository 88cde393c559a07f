//! `/v1/me` over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use foundation::audit::Recorded;
use foundation::http::{Json, OptionalJson, from_own_page};
use foundation::kernel::{FieldError, PageRequest, Problem, Secret, Timestamp};
use foundation::limits::Taken;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::closing;
use super::export::{self, Export};
use super::flow::{self, Change};
use super::model::{DisplayName, Locale, Metadata, User};
use crate::app::App;
use crate::errors;
use crate::limits::{self, EXPORTS};
use crate::mfa;
use crate::openapi::ProblemDocument;
use crate::router::From;
use crate::sessions::{Current, Own};

/// One's own account.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    #[serde(flatten)]
    user: User,
    /// A language tag, or empty.
    locale: String,
    /// What the application keeps.
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    /// What the person should know: nothing, mostly.
    notices: Vec<Notice>,
}

/// Something that a person should know about their account.
#[derive(Debug, Serialize, ToSchema)]
pub struct Notice {
    /// `email_unreachable`: mail does not reach them.
    code: String,
    /// In words.
    message: String,
    /// Since when.
    since: String,
}

impl Me {
    pub(super) fn of(current: &Current) -> Self {
        Self {
            user: current.row.user(),
            locale: current.row.locale.clone(),
            metadata: serde_json::from_str(&current.row.metadata).unwrap_or_default(),
            notices: notices(current),
        }
    }
}

fn notices(current: &Current) -> Vec<Notice> {
    if current.row.unreachable_since.micros() == 0 {
        return Vec::new();
    }
    let message = format!(
        "We cannot reach you at {}: mail came back, or was called spam there. Make the mailbox take it again, or change the \
         address; whoever runs this service can lift it.",
        current.row.address
    );
    let since = current.row.unreachable_since.to_string();
    vec![Notice { code: "email_unreachable".into(), message, since }]
}

/// What to change of one's profile; what is not given stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeMe {
    /// At most 100 characters.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    display_name: Option<String>,
    /// A language tag, or empty.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    locale: Option<String>,
    /// Replaces the whole object.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

/// Something that happened to one's account.
#[derive(Debug, Serialize, ToSchema)]
pub struct Activity {
    /// `evt_…`
    id: String,
    /// What, such as `sign_in`.
    kind: String,
    /// When.
    created_at: String,
    /// The network address it came from; empty when it came from inside.
    address: String,
    /// What else is known.
    #[schema(value_type = Object)]
    details: Value,
}

impl Activity {
    /// Of what somebody else did it is not shown from where, in which session, and why.
    pub(super) fn of(event: Recorded, own: &str) -> Self {
        let others = !event.actor.is_empty() && event.actor != own;
        let mut details: Value = serde_json::from_str(&event.details).unwrap_or_default();
        if let Some(details) = details.as_object_mut().filter(|_| others) {
            details.remove("session");
            details.remove("reason");
        }
        Self {
            id: event.id.to_string(),
            kind: event.kind,
            created_at: event.at.to_string(),
            address: if others { String::new() } else { event.address },
            details,
        }
    }
}

/// One page of one's own history.
#[derive(Debug, Serialize, ToSchema)]
pub struct ActivityPage {
    /// Newest first.
    items: Vec<Activity>,
    /// For the next page; empty on the last one.
    next_cursor: String,
}

/// Who am I
///
/// The account of whoever holds the access token; session and account are checked in the store at every call.
#[utoipa::path(get, path = "/v1/me", tag = "account", security(("access_token" = [])),
    responses((status = 200, body = Me), (status = "4XX", body = crate::openapi::ProblemDocument)))]
pub async fn me(current: Current) -> JsonAnswer<Me> {
    JsonAnswer(Me::of(&current))
}

/// Change the profile
///
/// Display name, language tag and the application's metadata. Everything else has a call of its own.
#[utoipa::path(patch, path = "/v1/me", tag = "account", security(("access_token" = [])), request_body = ChangeMe,
    responses((status = 200, body = Me), (status = "4XX", body = crate::openapi::ProblemDocument)))]
pub async fn change_me(
    State(app): State<App>,
    current: Current,
    From(from): From,
    Json(body): Json<ChangeMe>,
) -> Result<JsonAnswer<Me>, Problem> {
    let mut errors = Vec::new();
    let change = Change {
        display_name: keep(
            &mut errors,
            body.display_name.map(|text| DisplayName::parse("display_name", &text)),
        ),
        locale: keep(&mut errors, body.locale.map(|text| Locale::parse("locale", &text))),
        metadata: keep(&mut errors, body.metadata.map(|object| Metadata::parse("metadata", &object))),
    };
    refuse(errors)?;
    flow::change_profile(&app, current, from, change).await.map(JsonAnswer)
}

/// What happened to my account
///
/// Own security events, newest first.
#[utoipa::path(get, path = "/v1/me/activity", tag = "account", security(("access_token" = [])),
    params(("limit" = Option<u16>, Query, description = "1 to 200, 50 by default"), ("cursor" = Option<String>, Query, description = "the previous page's next_cursor")),
    responses((status = 200, body = ActivityPage), (status = "4XX", body = crate::openapi::ProblemDocument)))]
pub async fn my_activity(
    State(app): State<App>,
    current: Current,
    query: Result<Query<PageRequest>, QueryRejection>,
) -> Result<JsonAnswer<ActivityPage>, Problem> {
    let Query(request) = query.map_err(|_| {
        Problem::invalid(vec![FieldError::new(
            "limit",
            "invalid",
            "give limit as a number from 1 to 200, cursor as text, and nothing else",
        )])
    })?;
    let page = flow::activity(&app, &current, &request).await?;
    Ok(JsonAnswer(ActivityPage { items: page.items, next_cursor: page.next_cursor }))
}

/// When an account is deleted.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountCloses {
    /// Always `announced`.
    #[schema(example = "announced")]
    status: &'static str,
    /// When it is, unless it is kept.
    #[schema(example = "2026-12-07T10:00:00.000000Z")]
    due_at: String,
}

impl AccountCloses {
    /// At this moment.
    pub fn at(due: Timestamp) -> Self {
        Self { status: "announced", due_at: due.to_string() }
    }
}

/// Delete my account
///
/// Needs a fresh session. Every session ends at once, and nobody signs in any more; the mail that tells of it has a link that
/// keeps the account until `due_at`. Then everything that is stored about the person is removed.
#[utoipa::path(delete, path = "/v1/me", tag = "account", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    responses((status = 202, body = AccountCloses), (status = "4XX", body = ProblemDocument)))]
pub async fn delete_me(
    State(app): State<App>,
    current: Current,
    From(from): From,
    OptionalJson(mfa::http::Nothing {}): OptionalJson<mfa::http::Nothing>,
) -> Result<(StatusCode, JsonAnswer<AccountCloses>), Problem> {
    current.must_be_fresh(&app)?;
    let due = closing::close_own(&app, &current, from).await?;
    Ok((StatusCode::ACCEPTED, JsonAnswer(AccountCloses::at(due))))
}

/// What the mail carried that tells that an account is to be deleted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepAccount {
    /// From the mail's link.
    #[schema(value_type = String)]
    token: Secret,
}

/// Keep my account
///
/// With the token of the mail that tells that it is to be deleted. Nobody is signed in by it: the person signs in as before.
#[utoipa::path(post, path = "/v1/auth/keep-account", tag = "recovery", request_body = KeepAccount,
    responses((status = 204), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn keep_account(
    State(app): State<App>,
    From(from): From,
    Json(body): Json<KeepAccount>,
) -> Result<StatusCode, Problem> {
    match closing::keep(&app, &body.token, from).await.map_err(|e| e.to_problem())? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(errors::problem("verification_invalid")),
    }
}

/// Everything that is stored about me
///
/// One document, to be kept as a file; no password, token or key is in it. Needs a fresh session.
#[utoipa::path(get, path = "/v1/me/export", tag = "account", security(("access_token" = [])),
    responses((status = 200, body = Export), (status = "4XX", body = ProblemDocument)))]
pub async fn export_me(
    State(app): State<App>,
    current: Current,
    From(from): From,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    // It is the person's own: an operator sees what operators see.
    if current.actor().is_some() {
        return Err(errors::problem("impersonated"));
    }
    // It is written down, and counted: no link on another site's page has somebody's browser ask for it.
    if current.by_cookie() && !from_own_page(&headers, &app.settings.public_url, &app.settings.cors_origins) {
        return Err(errors::problem("permission_denied").detail(
            "With the session cookie this is for the server's own pages, and for origins in cors.origins.",
        ));
    }
    current.must_be_fresh(&app)?;
    let taken = app.limits.take(EXPORTS.name, current.row.user_id.as_bytes()).await;
    if let Some(taken) = taken.map_err(|e| e.to_problem())?.filter(Taken::refused) {
        return Err(limits::too_many(&taken));
    }
    let all = export::everything(&app, current.row.user_id).await?;
    let (inner, own): (App, Own) = (app.clone(), (&current).into());
    let noted = app.db.write(move |tx| inner.audit_own(tx, own, "exported", from, json!({})));
    noted.await.map_err(|e| e.to_problem())?;
    let file = [(header::CONTENT_DISPOSITION, "attachment; filename=\"account.json\"")];
    Ok((file, JsonAnswer(all)))
}

/// Keeps a parsed field or collects its error.
pub fn keep<T>(errors: &mut Vec<FieldError>, parsed: Option<Result<T, FieldError>>) -> Option<T> {
    parsed.and_then(|parsed| parsed.map_err(|error| errors.push(error)).ok())
}

/// 422 when there are errors.
///
/// # Errors
/// All of them in one problem.
pub fn refuse(errors: Vec<FieldError>) -> Result<(), Problem> {
    if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors)) }
}
