//! `/v1/admin/users` over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use foundation::audit::Stream;
use foundation::http::{ClientAddress, Json, OptionalJson};
use foundation::kernel::{FieldError, Id, PageRequest, Problem, Timestamp};
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::acts::Act;
use super::flow::{self, Look, Search, on_person};
use super::store::{self, Found};
use crate::access::http::{named, page, settled};
use crate::access::{Denied, Operator};
use crate::accounts::{self, DisplayName, Locale, Metadata, Suspension, User, UserRow, name_key};
use crate::app::App;
use crate::mfa;
use crate::openapi::ProblemDocument;
use crate::sessions::http::OwnSession;
use crate::sessions::{self, SessionRow};

/// The longest a reason is.
const REASON: usize = 500;

/// Why and until when somebody is shut out.
#[derive(Debug, Serialize, ToSchema)]
pub struct SuspensionInfo {
    /// For the record.
    reason: String,
    /// Since when.
    since: String,
    /// When it ends by itself; left out when it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    until: Option<String>,
}

/// Somebody's account is to be deleted.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletionInfo {
    /// When, unless it is kept.
    due_at: String,
    /// Who asked for it: `usr_…`, who may be the person; `key_…`; or `console`.
    asked_by: String,
}

/// Somebody, as operators see them.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminUser {
    #[serde(flatten)]
    user: User,
    /// A language tag, or empty.
    locale: String,
    /// What the application keeps.
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    /// Left out when they are not shut out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    suspension: Option<SuspensionInfo>,
    /// Left out when their account is not to be deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    deletion: Option<DeletionInfo>,
    /// When a living session of theirs was last used, to the minute; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_seen_at: Option<String>,
}

impl AdminUser {
    fn of(found: Found) -> Self {
        let given = |at: Timestamp| (at.micros() > 0).then(|| at.to_string());
        let suspension = given(found.suspended_at).map(|since| SuspensionInfo {
            reason: found.suspended_for,
            since,
            until: given(found.suspended_until),
        });
        let deletion =
            given(found.closes_at).map(|due_at| DeletionInfo { due_at, asked_by: found.closing_asked_by });
        Self {
            user: User {
                roles: found.roles.lines().map(str::to_owned).collect(),
                mfa_enabled: found.mfa,
                ..User::new(found.id, found.address, found.verified, found.display_name, found.created_at)
            },
            locale: found.locale,
            metadata: serde_json::from_str(&found.metadata).unwrap_or_default(),
            suspension,
            deletion,
            last_seen_at: given(found.last_seen_at),
        }
    }
}

/// One page of people.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminUsers {
    /// The newest first; by address or name when one is given.
    items: Vec<AdminUser>,
    /// For the next page; empty on the last one.
    next_cursor: String,
}

/// Whom to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListUsers {
    email: Option<String>,
    name: Option<String>,
    id: Option<String>,
    limit: Option<u16>,
    cursor: Option<String>,
}

/// People
///
/// Everybody, or those whose address or name begins like this, or the one with this id.
#[utoipa::path(get, path = "/v1/admin/users", tag = "admin", security(("access_token" = [])),
    params(("email" = Option<String>, Query, description = "how the address begins"), ("name" = Option<String>, Query, description = "how the name begins, whatever the case"),
        ("id" = Option<String>, Query, description = "`usr_…`"),
        ("limit" = Option<u16>, Query, description = "1 to 200, 50 by default"), ("cursor" = Option<String>, Query, description = "the previous page's next_cursor")),
    responses((status = 200, body = AdminUsers), (status = "4XX", body = ProblemDocument)))]
pub async fn list_users(
    State(app): State<App>,
    _: Operator,
    query: Result<Query<ListUsers>, QueryRejection>,
) -> Result<JsonAnswer<AdminUsers>, Problem> {
    let invalid = |field: &str, words: &str| Problem::invalid(vec![FieldError::new(field, "invalid", words)]);
    let Query(wanted) = query.map_err(|_| {
        invalid("limit", "give email, name or id, limit as a number from 1 to 200, cursor, and nothing else")
    })?;
    let look = match (wanted.email, wanted.name, wanted.id) {
        (None, None, None) => Look::Everybody,
        (Some(text), None, None) if text.len() <= 320 => Look::Address(text),
        (None, Some(text), None) if text.len() <= 400 => Look::Name(text),
        (None, None, Some(text)) => Look::Id(text.parse().map_err(|_| invalid("id", "is usr_…"))?),
        _ => return Err(invalid("email", "give one of email, name and id, not longer than such a thing is")),
    };
    if matches!(&look, Look::Address(text) | Look::Name(text) if text.contains('\0')) {
        return Err(invalid("email", "has no null character"));
    }
    let page = PageRequest { limit: wanted.limit, cursor: wanted.cursor };
    let found = flow::people(&app, Search { look, page }).await?;
    let items = found.items.into_iter().map(AdminUser::of).collect();
    Ok(JsonAnswer(AdminUsers { items, next_cursor: found.next_cursor }))
}

/// Somebody
#[utoipa::path(get, path = "/v1/admin/users/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 200, body = AdminUser), (status = "4XX", body = ProblemDocument)))]
pub async fn one_user(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<JsonAnswer<AdminUser>, Problem> {
    shown(&app, named(&id)?).await
}

pub(super) async fn shown(app: &App, user: Id<UserRow>) -> Result<JsonAnswer<AdminUser>, Problem> {
    let found = flow::one(app, user).await.map_err(|e| e.to_problem())?;
    found.map(|found| JsonAnswer(AdminUser::of(found))).ok_or_else(Problem::not_found)
}

/// What to change of somebody's profile; what is not given stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeUser {
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

/// Change somebody's profile
///
/// Of whoever stands below. The address is its owner's to change.
#[utoipa::path(patch, path = "/v1/admin/users/{id}", tag = "admin", security(("access_token" = [])), request_body = ChangeUser,
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 200, body = AdminUser), (status = "4XX", body = ProblemDocument)))]
pub async fn change_user(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    Json(body): Json<ChangeUser>,
) -> Result<JsonAnswer<AdminUser>, Problem> {
    let user: Id<UserRow> = named(&id)?;
    let mut errors = Vec::new();
    let name = accounts::http::keep(
        &mut errors,
        body.display_name.map(|text| DisplayName::parse("display_name", &text)),
    );
    let locale = accounts::http::keep(&mut errors, body.locale.map(|text| Locale::parse("locale", &text)));
    let metadata =
        accounts::http::keep(&mut errors, body.metadata.map(|object| Metadata::parse("metadata", &object)));
    accounts::http::refuse(errors)?;
    let given = [
        ("display_name", name.map(|name| name.0)),
        ("locale", locale.map(|locale| locale.0)),
        ("metadata", metadata.map(|metadata| metadata.0)),
    ];
    let fields: Vec<&str> =
        given.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
    let values = given.map(|(_, value)| (i64::from(value.is_some()), value.unwrap_or_default()));
    let done = on_person(&app, operator.by, "users:write", user, move |tx, app, by| {
        let [(has_name, name), (has_locale, locale), (has_metadata, metadata)] = &values;
        let key = name_key(name);
        let values = params![user, has_name, name, has_locale, locale, has_metadata, metadata, key];
        tx.opt::<(Timestamp,)>(&store::CHANGE, values)?;
        if !fields.is_empty() {
            app.audit_by(tx, &Stream::of(user), "profile_changed", by, json!({ "fields": fields }))?;
        }
        Ok(Ok(()))
    });
    settled(done.await)?;
    shown(&app, user).await
}

/// A reason as it is kept: one line of 1 to 500 characters, none of which turns text around or breaks it.
///
/// # Errors
/// 422.
pub(super) fn reason(text: String) -> Result<String, Problem> {
    let fine = (1..=REASON).contains(&text.chars().count())
        && text.chars().any(char::is_alphanumeric)
        && !text.chars().any(accounts::is_odd);
    if fine {
        return Ok(text);
    }
    let words = "is one line of 1 to 500 characters, in words";
    Err(Problem::invalid(vec![FieldError::new("reason", "invalid", words)]))
}

/// Why somebody is shut out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Suspend {
    /// For the record: 1 to 500 characters.
    reason: String,
    /// When it ends by itself: RFC 3339. Without it, when somebody lifts it.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    until: Option<String>,
}

/// Shut somebody out
///
/// Every session ends, and nobody signs in to the account.
#[utoipa::path(post, path = "/v1/admin/users/{id}/suspend", tag = "admin", security(("access_token" = [])), request_body = Suspend,
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn suspend(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    Json(body): Json<Suspend>,
) -> Result<StatusCode, Problem> {
    let suspension = suspension(&app, body.reason, body.until.as_deref())?;
    act(&app, &operator, &id, Act::Suspend(suspension)).await
}

/// A suspension as it was asked for.
///
/// # Errors
/// 422.
pub(super) fn suspension(app: &App, text: String, until: Option<&str>) -> Result<Suspension, Problem> {
    let words = "is a time to come, such as 2026-12-24T18:00:00Z";
    let until = until.map(|text| {
        let at = Timestamp::parse(text).filter(|at| *at > app.clock.now());
        at.ok_or_else(|| Problem::invalid(vec![FieldError::new("until", "invalid", words)]))
    });
    Ok(Suspension { reason: reason(text)?, until: until.transpose()? })
}

/// Does something to somebody.
async fn act(app: &App, operator: &Operator, id: &str, act: Act) -> Result<StatusCode, Problem> {
    if act.needs_fresh() {
        operator.must_be_fresh(app)?;
    }
    let (inner, by, user) = (app.clone(), operator.by, named(id)?);
    settled(app.db.write(move |tx| act.apply(tx, &inner, &by, user)).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let somebody in again
///
/// Needs a fresh session.
#[utoipa::path(post, path = "/v1/admin/users/{id}/unsuspend", tag = "admin", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 204, description = "Also when they were not shut out"), (status = "4XX", body = ProblemDocument)))]
pub async fn unsuspend(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    OptionalJson(mfa::http::Nothing {}): OptionalJson<mfa::http::Nothing>,
) -> Result<StatusCode, Problem> {
    act(&app, &operator, &id, Act::Unsuspend).await
}

/// Forget somebody's wrong passwords
#[utoipa::path(post, path = "/v1/admin/users/{id}/unlock", tag = "admin", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 204, description = "Also when nothing was counted"), (status = "4XX", body = ProblemDocument)))]
pub async fn unlock(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    OptionalJson(mfa::http::Nothing {}): OptionalJson<mfa::http::Nothing>,
) -> Result<StatusCode, Problem> {
    act(&app, &operator, &id, Act::Unlock).await
}

/// Have somebody choose a new password
///
/// The present one lets nobody in any more, every session ends, and a mail with a link goes to the address. Needs a fresh
/// session.
#[utoipa::path(post, path = "/v1/admin/users/{id}/force-reset", tag = "admin", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn force_reset(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    OptionalJson(mfa::http::Nothing {}): OptionalJson<mfa::http::Nothing>,
) -> Result<StatusCode, Problem> {
    act(&app, &operator, &id, Act::ForceReset).await
}

/// Take somebody's second factors away, who lost them
///
/// After the waiting period in which their owner, who is mailed, can say no. Needs a fresh session.
#[utoipa::path(post, path = "/v1/admin/users/{id}/reset-factors", tag = "admin", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 202, body = FactorsGo), (status = "4XX", body = ProblemDocument)))]
pub async fn reset_factors(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    OptionalJson(mfa::http::Nothing {}): OptionalJson<mfa::http::Nothing>,
) -> Result<(StatusCode, JsonAnswer<FactorsGo>), Problem> {
    operator.must_be_fresh(&app)?;
    let user: Id<UserRow> = named(&id)?;
    let due = app.clock.now() + app.settings.mfa.reset_after;
    let done = on_person(&app, operator.by, "users:write", user, move |tx, app, by| {
        let announced = mfa::announce_reset_in(tx, app, by, user)?;
        Ok(if announced { Ok(()) } else { Err(Denied::Conflict("They have no second factor.".into())) })
    });
    settled(done.await)?;
    Ok((StatusCode::ACCEPTED, JsonAnswer(FactorsGo { status: "announced", due_at: due.to_string() })))
}

/// When factors go.
#[derive(Debug, Serialize, ToSchema)]
pub struct FactorsGo {
    /// `announced`
    #[schema(example = "announced")]
    status: &'static str,
    /// When, unless their owner says no.
    due_at: String,
}

/// Somebody's sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminSessions {
    /// Newest first.
    items: Vec<OwnSession>,
    /// For the next page; empty on the last one.
    next_cursor: String,
}

/// Where somebody is signed in
#[utoipa::path(get, path = "/v1/admin/users/{id}/sessions", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`usr_…`"),
        ("limit" = Option<u16>, Query, description = "1 to 200, 50 by default"), ("cursor" = Option<String>, Query, description = "the previous page's next_cursor")),
    responses((status = 200, body = AdminSessions), (status = "4XX", body = ProblemDocument)))]
pub async fn sessions_of_user(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<String>,
    query: Result<Query<PageRequest>, QueryRejection>,
) -> Result<JsonAnswer<AdminSessions>, Problem> {
    let user: Id<UserRow> = named(&id)?;
    let request = page(query)?;
    if flow::one(&app, user).await.map_err(|e| e.to_problem())?.is_none() {
        return Err(Problem::not_found());
    }
    let found = sessions::list_of(&app, user, None, &request).await?;
    Ok(JsonAnswer(AdminSessions { items: found.items, next_cursor: found.next_cursor }))
}

/// Sign somebody out everywhere
#[utoipa::path(delete, path = "/v1/admin/users/{id}/sessions", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn end_sessions_of_user(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    act(&app, &operator, &id, Act::SignOut).await
}

/// End one session of somebody
#[utoipa::path(delete, path = "/v1/admin/users/{id}/sessions/{session_id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`usr_…`"), ("session_id" = String, Path, description = "`ses_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn end_session_of_user(
    State(app): State<App>,
    operator: Operator,
    Path((id, session)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let user: Id<UserRow> = named(&id)?;
    let session: Id<SessionRow> = named(&session)?;
    let done = on_person(&app, operator.by, "users:write", user, move |tx, app, by| {
        if !sessions::end_in(tx, app, user, session, ClientAddress::NOWHERE)? {
            return Ok(Err(Denied::NotFound));
        }
        app.audit_by(tx, &Stream::of(user), "signed_out", by, json!({ "of": session })).map(Ok)
    });
    settled(done.await)?;
    Ok(StatusCode::NO_CONTENT)
}
