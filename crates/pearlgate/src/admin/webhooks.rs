//! `/v1/admin/webhooks`: the applications that are told what happens.

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use foundation::http::Json;
use foundation::kernel::{FieldError, Id, PageRequest, Problem, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shared::{once, placed, position};
use crate::access::Operator;
use crate::access::http::{named, page, settled};
use crate::accounts::DisplayName;
use crate::accounts::http::{keep, refuse};
use crate::app::App;
use crate::openapi::ProblemDocument;
use crate::webhooks::{self, Change, Cursor, Delivery, EndpointRow, Listed, New, Pause};

/// Why an endpoint is paused when nobody says.
const PAUSED: &str = "paused";

/// An endpoint of an application.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminWebhook {
    /// `whk_…`
    id: String,
    /// Where it is told.
    url: String,
    /// What it is.
    description: String,
    /// What it is told of.
    events: Vec<String>,
    /// Whether it is told nothing for now; what happens waits.
    paused: bool,
    /// Why; empty when it is not paused.
    pause_reason: String,
    /// Since when there is one.
    created_at: String,
}

impl AdminWebhook {
    fn of(listed: Listed) -> Self {
        Self {
            id: listed.id.to_string(),
            url: listed.url,
            description: listed.description,
            events: listed.types,
            paused: !listed.paused.is_empty(),
            pause_reason: listed.paused,
            created_at: listed.created_at.to_string(),
        }
    }
}

/// Endpoints.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminWebhooks {
    /// All of them, the oldest first.
    items: Vec<AdminWebhook>,
    /// Always empty.
    next_cursor: String,
}

/// An endpoint, and what its messages are signed with, when that is new.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookWithSecret {
    #[serde(flatten)]
    webhook: AdminWebhook,
    /// Shown now and never again; left out when it has the secret that it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret: Option<String>,
}

impl WebhookWithSecret {
    fn of(listed: Listed, secret: Option<&Secret>) -> Self {
        Self { webhook: AdminWebhook::of(listed), secret: secret.map(|secret| secret.reveal().to_owned()) }
    }
}

/// Endpoints of applications
#[utoipa::path(get, path = "/v1/admin/webhooks", tag = "admin", security(("access_token" = [])),
    responses((status = 200, body = AdminWebhooks), (status = "4XX", body = ProblemDocument)))]
pub async fn list_webhooks(
    State(app): State<App>,
    _: Operator,
) -> Result<JsonAnswer<AdminWebhooks>, Problem> {
    let found = webhooks::list(&app).await.map_err(|e| e.to_problem())?;
    let items = found.into_iter().map(AdminWebhook::of).collect();
    Ok(JsonAnswer(AdminWebhooks { items, next_cursor: String::new() }))
}

/// One endpoint
#[utoipa::path(get, path = "/v1/admin/webhooks/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`whk_…`")),
    responses((status = 200, body = AdminWebhook), (status = "4XX", body = ProblemDocument)))]
pub async fn one_webhook(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<JsonAnswer<AdminWebhook>, Problem> {
    found(&app, named(&id)?).await.map(|listed| JsonAnswer(AdminWebhook::of(listed)))
}

async fn found(app: &App, id: Id<EndpointRow>) -> Result<Listed, Problem> {
    webhooks::find(app, id).await.map_err(|e| e.to_problem())?.ok_or_else(Problem::not_found)
}

/// An endpoint to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// Where it is told: https and public, or a host in `webhooks.private_hosts`.
    #[schema(example = "https://books.example.com/hooks/accounts")]
    url: String,
    /// What it is told of, such as `user.created`; without it everything.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Vec<String>>)]
    events: Option<Vec<String>>,
    /// What it is: at most 100 characters.
    #[serde(default)]
    description: String,
}

/// Have an application told what happens
///
/// From now on. Needs a fresh session. The answer has the secret that messages are signed with, shown this once: therefore an
/// `Idempotency-Key` is ignored, and asking twice makes two endpoints.
#[utoipa::path(post, path = "/v1/admin/webhooks", tag = "admin", security(("access_token" = [])), request_body = NewWebhook,
    responses((status = 201, body = WebhookWithSecret), (status = "4XX", body = ProblemDocument)))]
pub async fn add_webhook(
    State(app): State<App>,
    operator: Operator,
    Json(body): Json<NewWebhook>,
) -> Result<(StatusCode, JsonAnswer<WebhookWithSecret>), Problem> {
    operator.must_be_fresh(&app)?;
    let mut errors = Vec::new();
    let wanted = body.events.unwrap_or_else(|| vec!["*".to_owned()]);
    let url = keep(&mut errors, Some(webhooks::address(&app, &body.url)));
    let types = keep(&mut errors, Some(webhooks::events(&wanted)));
    let description = keep(&mut errors, Some(DisplayName::parse("description", &body.description)));
    let (Some(url), Some(types), Some(description)) = (url, types, description) else {
        return Err(Problem::invalid(errors));
    };
    let new = New { url, types, description: description.0 };
    let (listed, secret) = settled(webhooks::add_by(&app, operator.by, new).await)?;
    Ok((StatusCode::CREATED, JsonAnswer(WebhookWithSecret::of(listed, Some(&secret)))))
}

/// What to change of an endpoint; what is not given stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeWebhook {
    /// Where it is told. Needs a fresh session.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    url: Option<String>,
    /// What it is: at most 100 characters.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    description: Option<String>,
    /// All that it is told of. What is new to it, it is told of from now on.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Vec<String>>)]
    events: Option<Vec<String>>,
    /// Whether it is told nothing for now: what happens waits, and is told when it is not paused any more.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<bool>)]
    paused: Option<bool>,
    /// Why it is paused, beside `paused`: 1 to 100 characters.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    pause_reason: Option<String>,
    /// `true` gives it another secret; the one before signs beside it for a day. Needs a fresh session.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<bool>)]
    rotate_secret: Option<bool>,
}

/// Change an endpoint
#[utoipa::path(patch, path = "/v1/admin/webhooks/{id}", tag = "admin", security(("access_token" = [])), request_body = ChangeWebhook,
    params(("id" = String, Path, description = "`whk_…`")),
    responses((status = 200, body = WebhookWithSecret), (status = "4XX", body = ProblemDocument)))]
pub async fn change_webhook(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    Json(body): Json<ChangeWebhook>,
) -> Result<JsonAnswer<WebhookWithSecret>, Problem> {
    let id: Id<EndpointRow> = named(&id)?;
    let rotate = body.rotate_secret == Some(true);
    if rotate || body.url.is_some() {
        operator.must_be_fresh(&app)?;
    }
    let change = change(&app, body, rotate)?;
    let changed = settled(webhooks::change_by(&app, operator.by, id, change).await)?;
    let listed = found(&app, id).await?;
    Ok(JsonAnswer(WebhookWithSecret::of(listed, changed.secret.as_ref())))
}

fn change(app: &App, body: ChangeWebhook, rotate: bool) -> Result<Change, Problem> {
    let mut errors = Vec::new();
    let url = keep(&mut errors, body.url.map(|text| webhooks::address(app, &text)));
    let types = keep(&mut errors, body.events.map(|names| webhooks::events(&names)));
    let description =
        keep(&mut errors, body.description.map(|text| DisplayName::parse("description", &text)));
    let reason = keep(&mut errors, body.pause_reason.map(|text| reason(&text, body.paused)));
    refuse(errors)?;
    let begin = || Pause::Begin(reason.unwrap_or_else(|| PAUSED.to_owned()));
    let pause = body.paused.map(|paused| if paused { begin() } else { Pause::End });
    Ok(Change { url, description: description.map(|text| text.0), types, pause, rotate })
}

fn reason(text: &str, paused: Option<bool>) -> Result<String, FieldError> {
    let invalid = |words: &str| Err(FieldError::new("pause_reason", "invalid", words));
    match DisplayName::parse("pause_reason", text)?.0 {
        _ if paused != Some(true) => invalid("goes with \"paused\": true"),
        empty if empty.is_empty() => invalid("says something, or is left out"),
        reason => Ok(reason),
    }
}

/// Tell an application nothing any more
#[utoipa::path(delete, path = "/v1/admin/webhooks/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`whk_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn remove_webhook(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id: Id<EndpointRow> = named(&id)?;
    settled(webhooks::remove_by(&app, operator.by, id).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What came of telling an endpoint of something.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookDelivery {
    /// `msg_…`: the event, and its message.
    event: String,
    /// What happened.
    #[schema(example = "user.created")]
    r#type: String,
    /// To whom.
    user_id: String,
    /// `delivered`, `waiting` for another try, or `dead`: given up.
    #[schema(example = "delivered")]
    state: String,
    /// How often it was tried.
    attempts: i64,
    /// The last time.
    last_at: String,
    /// What came of that, in words.
    answer: String,
}

impl WebhookDelivery {
    fn of(delivery: Delivery) -> Self {
        Self {
            event: delivery.event.to_string(),
            r#type: delivery.kind,
            user_id: delivery.user.to_string(),
            state: delivery.state,
            attempts: delivery.attempts,
            last_at: delivery.last_at.to_string(),
            answer: delivery.answer,
        }
    }
}

/// One page of what an endpoint was told.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookDeliveries {
    /// What was tried last comes first.
    items: Vec<WebhookDelivery>,
    /// For the next page; empty on the last one.
    next_cursor: String,
}

/// What an endpoint was told
#[utoipa::path(get, path = "/v1/admin/webhooks/{id}/deliveries", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`whk_…`"),
        ("limit" = Option<u16>, Query, description = "1 to 200, 50 by default"), ("cursor" = Option<String>, Query, description = "the previous page's next_cursor")),
    responses((status = 200, body = WebhookDeliveries), (status = "4XX", body = ProblemDocument)))]
pub async fn webhook_deliveries(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<String>,
    query: Result<Query<PageRequest>, QueryRejection>,
) -> Result<JsonAnswer<WebhookDeliveries>, Problem> {
    let id: Id<EndpointRow> = named(&id)?;
    let list = format!("deliveries:{id}");
    let (limit, after) = app.cursors.open_text(&list, &page(query)?)?;
    let found = webhooks::deliveries_before(&app, id, placed(&after), limit + 1).await;
    let found = found.map_err(|e| e.to_problem())?.ok_or_else(Problem::not_found)?;
    let more = found.len() > usize::from(limit);
    let items: Vec<Delivery> = found.into_iter().take(limit.into()).collect();
    let next = items.last().filter(|_| more).map(|last| position(last.last_at, last.event));
    Ok(JsonAnswer(WebhookDeliveries {
        items: items.into_iter().map(WebhookDelivery::of).collect(),
        next_cursor: next.map(|position| app.cursors.issue_text(&list, &position)).unwrap_or_default(),
    }))
}

/// From where on an endpoint is told again: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayWebhook {
    /// A time: RFC 3339.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    since: Option<String>,
    /// `msg_…`: an event, and what came after it.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    event: Option<String>,
}

/// It was begun.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayBegun {
    /// Always `replaying`.
    #[schema(example = "replaying")]
    status: &'static str,
}

/// Tell an application again
///
/// What it wants to be told of and happened since then, each person's events in their order, also what was given up. While it
/// is paused that waits.
#[utoipa::path(post, path = "/v1/admin/webhooks/{id}/replay", tag = "admin", security(("access_token" = [])), request_body = ReplayWebhook,
    params(("id" = String, Path, description = "`whk_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "the same key and body does nothing again, for 24 hours")),
    responses((status = 202, body = ReplayBegun), (status = "4XX", body = ProblemDocument)))]
pub async fn replay_webhook(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<ReplayWebhook>,
) -> Result<(StatusCode, JsonAnswer<ReplayBegun>), Problem> {
    let endpoint: Id<EndpointRow> = named(&id)?;
    let (since, event) = (body.since.unwrap_or_default(), body.event.unwrap_or_default());
    let parts = [&id, &since, &event].map(|text| text.as_bytes());
    let key = app.idempotency.key(&headers, &operator.by.actor(), "webhooks/replay", &parts)?;
    let from = cursor(&since, &event).map_err(|e| Problem::invalid(vec![e]))?;
    once(&app, &key, webhooks::replay_by(&app, operator.by, endpoint, from, &key)).await?;
    Ok((StatusCode::ACCEPTED, JsonAnswer(ReplayBegun { status: "replaying" })))
}

fn cursor(since: &str, event: &str) -> Result<Cursor, FieldError> {
    match (since, event) {
        (since, "") if !since.is_empty() => Timestamp::parse(since)
            .map(Cursor::Since)
            .ok_or_else(|| FieldError::new("since", "invalid", "is a time such as 2026-11-26T09:00:00Z")),
        ("", event) if !event.is_empty() => {
            event.parse().map(Cursor::Event).map_err(|_| FieldError::new("event", "invalid", "is msg_…"))
        }
        _ => Err(FieldError::new("since", "required", "give since or event, and not both")),
    }
}
