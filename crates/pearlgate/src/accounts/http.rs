//! `/v1/me` over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use foundation::audit::Recorded;
use foundation::http::Json;
use foundation::kernel::{FieldError, PageRequest, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::flow::{self, Change};
use super::model::{DisplayName, Locale, Metadata, User};
use crate::app::App;
use crate::router::From;
use crate::sessions::Current;

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
