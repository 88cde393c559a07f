//! The check, roles, who has them, and keys, over HTTP.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use foundation::http::{IdempotencyKey, Json};
use foundation::kernel::{Entity, FieldError, Id, PageRequest, Problem, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::by::Who;
use super::flow::{self, Denied};
use super::grants::{self, Change, Place};
use super::guard::{Caller, Operator};
use super::keys::{self, Key, KeyRow, NewKey};
use super::model::{Pattern, Permission, Resource, RoleName, RoleRow, Scope};
use super::roles::{self, Described, Wanted, Which};
use super::setup::{self, SetUp};
use super::store::Grant;
use crate::accounts::{DisplayName, EmailAddress, UserRow};
use crate::app::App;
use crate::errors;
use crate::openapi::ProblemDocument;
use crate::router::From;

/// How long a key is good when nobody says.
const KEY_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// Questions in one call.
const QUESTIONS: usize = 100;

/// Whether somebody may do something.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// `usr_…`: who; without it whoever asks. Asking about somebody else needs `access:check`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    subject: Option<String>,
    /// What.
    #[schema(example = "course:publish")]
    permission: String,
    /// To what; without it: everywhere.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>, example = "course/42")]
    resource: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Verdict {
    /// Whether they may.
    allowed: bool,
    /// Why, or why not.
    #[schema(example = "role instructor")]
    because: String,
}

/// May somebody do this
///
/// By the roles that they have at this moment.
#[utoipa::path(post, path = "/v1/authorize", tag = "access", security(("access_token" = [])), request_body = Question,
    responses((status = 200, body = Verdict), (status = "4XX", body = ProblemDocument)))]
pub async fn authorize(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<Question>,
) -> Result<JsonAnswer<Verdict>, Problem> {
    let asked = [read(&caller, &body, "")?];
    let mut verdicts = answer(&app, &caller, &asked).await?;
    verdicts.pop().map(JsonAnswer).ok_or_else(Problem::internal)
}

/// Several questions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Questions {
    /// 1 to 100 of them.
    checks: Vec<Question>,
}

/// Their answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Verdicts {
    /// In the order of the questions.
    results: Vec<Verdict>,
}

/// May somebody do these
#[utoipa::path(post, path = "/v1/authorize/batch", tag = "access", security(("access_token" = [])), request_body = Questions,
    responses((status = 200, body = Verdicts), (status = "4XX", body = ProblemDocument)))]
pub async fn authorize_batch(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<Questions>,
) -> Result<JsonAnswer<Verdicts>, Problem> {
    if !(1..=QUESTIONS).contains(&body.checks.len()) {
        return Err(invalid("checks", format!("are 1 to {QUESTIONS}")));
    }
    let numbered = body.checks.iter().enumerate();
    let asked: Vec<Asked> =
        numbered.map(|(n, one)| read(&caller, one, &format!("checks.{n}."))).collect::<Result<_, _>>()?;
    Ok(JsonAnswer(Verdicts { results: answer(&app, &caller, &asked).await? }))
}

struct Asked {
    subject: Id<UserRow>,
    permission: Permission,
    resource: Option<Resource>,
}

fn read(caller: &Caller, question: &Question, at: &str) -> Result<Asked, Problem> {
    let subject = match (&question.subject, caller.who) {
        (Some(text), _) => text.parse().map_err(|_| invalid(&format!("{at}subject"), "is an id: usr_…"))?,
        (None, Who::Person(user, _)) => user,
        (None, Who::Key(..) | Who::Console) => {
            return Err(invalid(&format!("{at}subject"), "a key says whom it asks about: usr_…"));
        }
    };
    let placed = |mut error: FieldError| {
        error.field = format!("{at}{}", error.field);
        Problem::invalid(vec![error])
    };
    let permission = Permission::parse("permission", &question.permission).map_err(placed)?;
    let resource = question.resource.as_deref().map(|text| Resource::parse("resource", text));
    Ok(Asked { subject, permission, resource: resource.transpose().map_err(placed)? })
}

async fn answer(app: &App, caller: &Caller, asked: &[Asked]) -> Result<Vec<Verdict>, Problem> {
    let own = matches!(caller.who, Who::Person(user, _) if asked.iter().all(|one| one.subject == user));
    if !own && !caller.standing.may("access:check") {
        return Err(Denied::Permission("access:check".into()).problem());
    }
    let mut verdicts = Vec::with_capacity(asked.len());
    for one in asked {
        let decision = flow::decide(app, one.subject, &one.permission, one.resource.as_ref()).await;
        let decision = decision.map_err(|e| e.to_problem())?;
        verdicts.push(Verdict { allowed: decision.allowed, because: decision.because });
    }
    Ok(verdicts)
}

fn invalid(field: &str, message: impl Into<String>) -> Problem {
    Problem::invalid(vec![FieldError::new(field, "invalid", message)])
}

/// An id in the path; one that is none names nothing.
///
/// # Errors
/// 404.
pub fn named<E: Entity>(text: &str) -> Result<Id<E>, Problem> {
    text.parse().map_err(|_| Problem::not_found())
}

/// What came of something that an operator did, as an answer.
///
/// # Errors
/// As [`Denied::problem`], and 503.
pub fn settled<T>(done: foundation::db::Result<Result<T, Denied>>) -> Result<T, Problem> {
    done.map_err(|e| e.to_problem())?.map_err(|denied| denied.problem())
}

/// The query of a list.
///
/// # Errors
/// 422.
pub fn page(query: Result<Query<PageRequest>, QueryRejection>) -> Result<PageRequest, Problem> {
    let words = "give limit as a number from 1 to 200, cursor as text, and nothing else";
    query.map(|Query(request)| request).map_err(|_| invalid("limit", words))
}

/// A permission that a role has in the end.
#[derive(Debug, Serialize, ToSchema)]
pub struct RoleEffect {
    /// The permission, or a pattern of some.
    permission: String,
    /// The role that says so: itself, or one that it inherits.
    through: String,
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
pub struct Role {
    /// `rol_…`
    id: String,
    /// Its name, for ever.
    name: String,
    /// What it is.
    description: String,
    /// How high it stands: 0 an ordinary person, 100 the owner.
    level: i64,
    /// What it inherits.
    inherits: Vec<String>,
    /// What it holds itself.
    permissions: Vec<String>,
    /// What it may in the end.
    effects: Vec<RoleEffect>,
    /// Whether whoever registers is given it.
    default: bool,
    /// Since when there is one.
    created_at: String,
    /// When it was changed last.
    changed_at: String,
}

impl Role {
    fn of(described: Described) -> Self {
        let Described { row, spec, effects, default } = described;
        let effects = effects.into_iter().map(|(permission, through)| RoleEffect { permission, through });
        Self {
            id: row.id.to_string(),
            name: row.name,
            description: row.description,
            level: row.level,
            inherits: spec.inherits.into_iter().collect(),
            permissions: spec.permissions.into_iter().collect(),
            effects: effects.collect(),
            default,
            created_at: row.created_at.to_string(),
            changed_at: row.changed_at.to_string(),
        }
    }
}

/// Roles.
#[derive(Debug, Serialize, ToSchema)]
pub struct Roles {
    /// All of them, by name.
    items: Vec<Role>,
    /// Always empty.
    next_cursor: String,
}

/// All roles
#[utoipa::path(get, path = "/v1/admin/roles", tag = "admin", security(("access_token" = [])),
    responses((status = 200, body = Roles), (status = "4XX", body = ProblemDocument)))]
pub async fn list_roles(State(app): State<App>, _: Operator) -> Result<JsonAnswer<Roles>, Problem> {
    let found = roles::roles(&app).await.map_err(|e| e.to_problem())?;
    Ok(JsonAnswer(Roles { items: found.into_iter().map(Role::of).collect(), next_cursor: String::new() }))
}

/// One role
#[utoipa::path(get, path = "/v1/admin/roles/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`rol_…`")),
    responses((status = 200, body = Role), (status = "4XX", body = ProblemDocument)))]
pub async fn one_role(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<JsonAnswer<Role>, Problem> {
    let id: Id<RoleRow> = named(&id)?;
    role(&app, |row| row.row.id == id).await
}

async fn role(app: &App, is: impl Fn(&Described) -> bool) -> Result<JsonAnswer<Role>, Problem> {
    let found = roles::roles(app).await.map_err(|e| e.to_problem())?;
    found.into_iter().find(is).map(|row| JsonAnswer(Role::of(row))).ok_or_else(Problem::not_found)
}

/// What a role is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRole {
    /// Small letters, digits, dots, hyphens; for ever.
    name: String,
    /// What it is.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    description: Option<String>,
    /// How high it stands: 0 (without it) to 99.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 99)]
    level: Option<i64>,
    /// Names of roles.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Vec<String>>)]
    inherits: Option<BTreeSet<String>>,
    /// `area:action`, or `area:*`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Vec<String>>)]
    permissions: Option<BTreeSet<String>>,
    /// Whether whoever registers is given it.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<bool>)]
    default: Option<bool>,
}

/// What to change of a role; what is not given stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeRole {
    /// What it is.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    description: Option<String>,
    /// How high it stands: 0 to 99.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 99)]
    level: Option<i64>,
    /// Names of roles.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Vec<String>>)]
    inherits: Option<BTreeSet<String>>,
    /// `area:action`, or `area:*`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Vec<String>>)]
    permissions: Option<BTreeSet<String>>,
    /// Whether whoever registers is given it.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<bool>)]
    default: Option<bool>,
}

fn wanted(body: ChangeRole) -> Result<Wanted, Problem> {
    if let Some(text) = &body.description {
        DisplayName::parse("description", text).map_err(|e| Problem::invalid(vec![e]))?;
    }
    let patterns = body.permissions.iter().flatten();
    let refused: Vec<FieldError> =
        patterns.filter_map(|text| Pattern::parse("permissions", text).err()).collect();
    if !refused.is_empty() {
        return Err(Problem::invalid(refused));
    }
    Ok(Wanted {
        description: body.description,
        level: body.level,
        inherits: body.inherits,
        permissions: body.permissions,
        default: body.default,
    })
}

/// Add a role
///
/// Below one's own level, and with nothing of the server's own that one does not hold. Needs a fresh session. Repeated under
/// the same `Idempotency-Key` it answers with the role as it is by then.
#[utoipa::path(post, path = "/v1/admin/roles", tag = "admin", security(("access_token" = [])), request_body = NewRole,
    responses((status = 201, body = Role), (status = "4XX", body = ProblemDocument)))]
pub async fn add_role(
    State(app): State<App>,
    operator: Operator,
    headers: HeaderMap,
    Json(body): Json<NewRole>,
) -> Result<(StatusCode, JsonAnswer<Role>), Problem> {
    operator.must_be_fresh(&app)?;
    let name = RoleName::parse("name", &body.name).map_err(|e| Problem::invalid(vec![e]))?;
    let said = format!("{body:?}");
    let key = app.idempotency.key(&headers, &operator.by.actor(), "roles", &[said.as_bytes()])?;
    let NewRole { description, level, inherits, permissions, default, .. } = body;
    let wanted = wanted(ChangeRole { description, level, inherits, permissions, default })?;
    let before = key.replay(&app.db, app.clock.now()).await?;
    let name = match before {
        Some(first) => first.body,
        None => match settled(roles::put(&app, operator.by, Which::New(name.0), wanted, key.clone()).await) {
            Ok(name) => name,
            // Whoever asked at the same time under this key was first: what they were answered is the answer.
            Err(problem) => key.replay(&app.db, app.clock.now()).await?.ok_or(problem)?.body,
        },
    };
    Ok((StatusCode::CREATED, role(&app, |row| row.row.name == name).await?))
}

/// Change a role
///
/// Counts at once, for everybody who has it. Needs a fresh session.
#[utoipa::path(patch, path = "/v1/admin/roles/{id}", tag = "admin", security(("access_token" = [])), request_body = ChangeRole,
    params(("id" = String, Path, description = "`rol_…`")),
    responses((status = 200, body = Role), (status = "4XX", body = ProblemDocument)))]
pub async fn change_role(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    Json(body): Json<ChangeRole>,
) -> Result<JsonAnswer<Role>, Problem> {
    operator.must_be_fresh(&app)?;
    let id: Id<RoleRow> = named(&id)?;
    let wanted = wanted(body)?;
    settled(roles::put(&app, operator.by, Which::Known(id), wanted, IdempotencyKey::default()).await)?;
    role(&app, |row| row.row.id == id).await
}

/// Remove a role
///
/// That nobody has. Needs a fresh session.
#[utoipa::path(delete, path = "/v1/admin/roles/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`rol_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn remove_role(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    operator.must_be_fresh(&app)?;
    settled(roles::remove(&app, operator.by, named(&id)?).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A role that somebody has.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserRole {
    /// Its name.
    role: String,
    /// Where it counts; empty for everywhere.
    resource: String,
    /// Since when.
    granted_at: String,
    /// Who gave it: an id, `console`, `default`, or empty when it came with an import.
    granted_by: String,
}

/// The roles of somebody.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserRoles {
    /// By name.
    items: Vec<UserRole>,
    /// Always empty.
    next_cursor: String,
}

fn user_roles(grants: Vec<Grant>) -> JsonAnswer<UserRoles> {
    let items = grants.into_iter().map(|grant| UserRole {
        role: grant.role,
        resource: grant.resource,
        granted_at: grant.granted_at.to_string(),
        granted_by: grant.granted_by,
    });
    JsonAnswer(UserRoles { items: items.collect(), next_cursor: String::new() })
}

/// Somebody's roles
#[utoipa::path(get, path = "/v1/admin/users/{id}/roles", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 200, body = UserRoles), (status = "4XX", body = ProblemDocument)))]
pub async fn roles_of_user(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<JsonAnswer<UserRoles>, Problem> {
    let found = grants::grants(&app, named(&id)?).await.map_err(|e| e.to_problem())?;
    found.map(user_roles).ok_or_else(Problem::not_found)
}

/// A role somewhere.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolePlace {
    /// Its name.
    role: String,
    /// `course/42`, or `course/*` for all courses; everywhere without it.
    #[serde(default)]
    resource: String,
}

/// What somebody's roles are to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRoles {
    /// All of them; what is not here is taken away.
    roles: Vec<RolePlace>,
}

/// Give somebody roles, and take others away
///
/// Of people below one's own level, roles below it. Counts at once. Needs a fresh session.
#[utoipa::path(put, path = "/v1/admin/users/{id}/roles", tag = "admin", security(("access_token" = [])), request_body = SetRoles,
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 200, body = UserRoles), (status = "4XX", body = ProblemDocument)))]
pub async fn set_roles_of_user(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    Json(body): Json<SetRoles>,
) -> Result<JsonAnswer<UserRoles>, Problem> {
    operator.must_be_fresh(&app)?;
    let places = body.roles.into_iter().map(|place| {
        let scope = Scope::parse("roles", &place.resource)?;
        Ok((place.role, scope.as_str().to_owned()))
    });
    let places: BTreeSet<Place> =
        places.collect::<Result<_, FieldError>>().map_err(|e| Problem::invalid(vec![e]))?;
    let done = grants::change(&app, operator.by, named(&id)?, Change::To(places)).await;
    settled(done).map(user_roles)
}

/// A key of a machine.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKey {
    /// `key_…`
    id: String,
    /// What it is for.
    name: String,
    /// How it begins; the rest was shown once.
    prefix: String,
    /// What it may do, as long as whoever made it may.
    permissions: Vec<String>,
    /// Who made it.
    created_by: String,
    /// When.
    created_at: String,
    /// Until when it is good.
    expires_at: String,
    /// When it was used last, to the minute; left out when it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_used_at: Option<String>,
}

impl ApiKey {
    fn of(Key { row, permissions }: Key) -> Self {
        Self {
            id: row.id.to_string(),
            name: row.name,
            prefix: row.prefix,
            permissions,
            created_by: row.created_by.to_string(),
            created_at: row.created_at.to_string(),
            expires_at: row.expires_at.to_string(),
            last_used_at: (row.last_used_at.micros() > 0).then(|| row.last_used_at.to_string()),
        }
    }
}

/// Keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKeys {
    /// Newest first.
    items: Vec<ApiKey>,
    /// For the next page; empty on the last one.
    next_cursor: String,
}

/// Keys of machines
#[utoipa::path(get, path = "/v1/admin/api-keys", tag = "admin", security(("access_token" = [])),
    params(("limit" = Option<u16>, Query, description = "1 to 200, 50 by default"), ("cursor" = Option<String>, Query, description = "the previous page's next_cursor")),
    responses((status = 200, body = ApiKeys), (status = "4XX", body = ProblemDocument)))]
pub async fn list_keys(
    State(app): State<App>,
    _: Operator,
    query: Result<Query<PageRequest>, QueryRejection>,
) -> Result<JsonAnswer<ApiKeys>, Problem> {
    let (limit, after) = app.cursors.open_text("api-keys", &page(query)?)?;
    let before = after.parse().unwrap_or(Id::from_bytes([0xff; 16]));
    let mut found = keys::keys(&app, before, limit + 1).await.map_err(|e| e.to_problem())?;
    let more = found.len() > usize::from(limit);
    found.truncate(limit.into());
    let last = found.last().filter(|_| more).map(|key| key.row.id.to_string());
    let next_cursor = last.map(|last| app.cursors.issue_text("api-keys", &last)).unwrap_or_default();
    Ok(JsonAnswer(ApiKeys { items: found.into_iter().map(ApiKey::of).collect(), next_cursor }))
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// What it is for.
    name: String,
    /// What it may do: at least one, each one that one holds oneself; no patterns.
    permissions: BTreeSet<String>,
    /// How many seconds it is good: 90 days without it, at most 400.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<u32>, minimum = 60)]
    expires_in: Option<u32>,
}

/// A key that was made.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeApiKey {
    /// What the machine sends as `Authorization: Bearer pga_…`. Shown now and never again.
    key: String,
    /// The rest about it.
    api_key: ApiKey,
}

/// Make a key
///
/// Needs a fresh session; a key makes no keys.
#[utoipa::path(post, path = "/v1/admin/api-keys", tag = "admin", security(("access_token" = [])), request_body = NewApiKey,
    responses((status = 201, body = MadeApiKey), (status = "4XX", body = ProblemDocument)))]
pub async fn make_key(
    State(app): State<App>,
    operator: Operator,
    Json(body): Json<NewApiKey>,
) -> Result<(StatusCode, JsonAnswer<MadeApiKey>), Problem> {
    operator.must_be_fresh(&app)?;
    let name = DisplayName::parse("name", &body.name).map_err(|e| Problem::invalid(vec![e]))?;
    if body.permissions.is_empty() {
        return Err(invalid("permissions", "give at least one"));
    }
    for text in &body.permissions {
        Permission::parse("permissions", text).map_err(|e| Problem::invalid(vec![e]))?;
    }
    let lifetime = match body.expires_in {
        Some(seconds) if seconds < 60 => return Err(invalid("expires_in", "is at least 60 seconds")),
        Some(seconds) => Duration::from_secs(seconds.into()),
        None => KEY_LIFETIME,
    };
    let new = NewKey { name: name.0, permissions: body.permissions, lifetime };
    let (key, secret) = settled(keys::make(&app, operator.by, new).await)?;
    let made = MadeApiKey { key: secret.reveal().to_owned(), api_key: ApiKey::of(key) };
    Ok((StatusCode::CREATED, JsonAnswer(made)))
}

/// End a key
///
/// At once. Of one's own, or of somebody's below one's own level.
#[utoipa::path(delete, path = "/v1/admin/api-keys/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`key_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn revoke_key(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id: Id<KeyRow> = named(&id)?;
    settled(keys::revoke(&app, operator.by, id).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The first operator.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetUpFirst {
    /// From the link that the server printed.
    #[schema(value_type = String)]
    token: Secret,
    /// Their address.
    email: String,
    /// Their password, by the same rules as everybody's.
    #[schema(value_type = String)]
    password: Secret,
    /// What they are called.
    #[serde(default)]
    display_name: String,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct SetUpDone {
    /// `operator_created`
    #[schema(example = "operator_created")]
    status: &'static str,
    /// `usr_…`
    user_id: String,
}

/// Set up the first operator
///
/// With the link that the server prints as long as there was none: once, for ever. They sign in afterwards, as everybody
/// does, and show a second factor before they do anything as an operator.
#[utoipa::path(post, path = "/v1/setup", tag = "access", request_body = SetUpFirst,
    responses((status = 201, body = SetUpDone), (status = "4XX", body = ProblemDocument), (status = 503, body = ProblemDocument)))]
pub async fn set_up(
    State(app): State<App>,
    From(from): From,
    Json(body): Json<SetUpFirst>,
) -> Result<(StatusCode, JsonAnswer<SetUpDone>), Problem> {
    let form = Form { email: body.email, password: body.password, display_name: body.display_name };
    match founded(&app, body.token, form, from).await? {
        SetUp::Done(user) => {
            let done = SetUpDone { status: "operator_created", user_id: user.to_string() };
            Ok((StatusCode::CREATED, JsonAnswer(done)))
        }
        SetUp::Before => Err(errors::problem("conflict")
            .detail("The first operator was set up before. Others are made by an owner, or with `pearlgate user grant`.")),
        SetUp::Link => Err(errors::problem("token_invalid").detail(
            "This link is not good any more. The server prints a new one when it starts; `pearlgate admin link` does, too.",
        )),
    }
}

/// What somebody fills in.
pub(super) struct Form {
    pub(super) email: String,
    pub(super) password: Secret,
    pub(super) display_name: String,
}

/// The same for the page.
pub(super) async fn founded(
    app: &App,
    token: Secret,
    form: Form,
    from: foundation::http::ClientAddress,
) -> Result<SetUp, Problem> {
    // Nothing is hashed for whoever has no link.
    if setup::is_done(app).await.map_err(|e| e.to_problem())? {
        return Ok(SetUp::Before);
    }
    if !setup::is_open(app, &token).await.map_err(|e| e.to_problem())? {
        return Ok(SetUp::Link);
    }
    let email = EmailAddress::parse("email", &form.email);
    let name = DisplayName::parse("display_name", &form.display_name);
    let (email, display_name) = match (email, name) {
        (Ok(email), Ok(name)) => (email, name),
        (email, name) => {
            return Err(Problem::invalid(email.err().into_iter().chain(name.err()).collect()));
        }
    };
    let founding = setup::prepare(app, email, display_name, &form.password).await?;
    setup::set_up(app, Some(token), founding, from).await.map_err(|e| e.to_problem())
}
