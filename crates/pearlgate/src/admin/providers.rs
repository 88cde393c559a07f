//! `/v1/admin/providers`: who else signs people in.

use axum::Json as JsonAnswer;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use foundation::http::Json;
use foundation::kernel::{Problem, Secret};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};
use utoipa::ToSchema;

use super::shared::once;
use crate::access::Operator;
use crate::access::http::settled;
use crate::app::App;
use crate::federation::{self, Listed, ProviderChange};
use crate::openapi::ProblemDocument;

/// Somebody who signs people in.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminProvider {
    /// As it stands in addresses.
    #[schema(example = "google")]
    id: String,
    /// As people know it.
    #[schema(example = "Google")]
    name: String,
    /// As it calls itself.
    issuer: String,
    /// As it knows this server.
    client_id: String,
    /// Where it has to send people back to: what it is to be told.
    callback_url: String,
    /// Whether it stands in the server's settings: there it is changed, here it can be disabled.
    in_settings: bool,
    /// Whether people may sign in through it.
    enabled: bool,
    /// `up`, `down`, or `unknown` when nobody has asked it lately.
    #[schema(example = "up")]
    state: String,
}

impl AdminProvider {
    fn of(app: &App, listed: Listed) -> Self {
        Self {
            callback_url: format!("{}/v1/auth/oauth/{}/callback", app.settings.public_url, listed.id),
            id: listed.id,
            name: listed.name,
            issuer: listed.issuer,
            client_id: listed.client_id,
            in_settings: listed.in_settings,
            enabled: listed.offered,
            state: listed.state,
        }
    }
}

/// Providers.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminProviders {
    /// All of them: those of the settings, then those that were added.
    items: Vec<AdminProvider>,
    /// Always empty.
    next_cursor: String,
}

/// What a provider is, with the keys of its section in the server's settings; what is not given is as it is there by default.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// `google`, `github`, `microsoft`, `apple`, or `oidc` for any OpenID provider; without it what the provider is called.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    preset: Option<String>,
    /// As people see it.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    name: Option<String>,
    /// Its address, to the letter as it calls itself.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    issuer: Option<String>,
    /// Of `microsoft`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    tenant: Option<String>,
    /// As it knows this server.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    client_id: Option<String>,
    /// Shown to nobody again.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    client_secret: Option<Secret>,
    /// How the secret is sent: `basic` or `post`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    client_auth: Option<String>,
    /// What it calls native applications, which bring ID tokens.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Vec<String>>)]
    native_client_ids: Option<Vec<String>>,
    /// What is asked for.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Vec<String>>)]
    scopes: Option<Vec<String>>,
    /// Domains whose mailboxes it hands out itself: with an address there it lets into an account that has this address.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Vec<String>>)]
    authoritative_for: Option<Vec<String>>,
    /// Whether an address that it calls verified needs no mail to be proven, for new accounts.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<bool>)]
    believe_email: Option<bool>,
    /// What it says of a sign-in that makes a second factor unnecessary.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Vec<String>>)]
    trusted_amr: Option<Vec<String>>,
    /// The same by its `acr`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Vec<String>>)]
    trusted_acr: Option<Vec<String>>,
    /// How old a sign-in there may be, such as `12h`; `0` for any age.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    max_age: Option<String>,
    /// Of `apple`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    team_id: Option<String>,
    /// Of `apple`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    key_id: Option<String>,
    /// Of `apple`: PEM. Shown to nobody again.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    private_key: Option<Secret>,
}

impl ProviderSettings {
    /// As its section in the settings.
    fn table(self) -> Table {
        let revealed = |secret: Option<Secret>| secret.map(|secret| secret.reveal().to_owned());
        let texts = [
            ("preset", self.preset),
            ("name", self.name),
            ("issuer", self.issuer),
            ("tenant", self.tenant),
            ("client_id", self.client_id),
            ("client_secret", revealed(self.client_secret)),
            ("client_auth", self.client_auth),
            ("max_age", self.max_age),
            ("team_id", self.team_id),
            ("key_id", self.key_id),
            ("private_key", revealed(self.private_key)),
        ];
        let lists = [
            ("native_client_ids", self.native_client_ids),
            ("scopes", self.scopes),
            ("authoritative_for", self.authoritative_for),
            ("trusted_amr", self.trusted_amr),
            ("trusted_acr", self.trusted_acr),
        ];
        let list = |all: Vec<String>| Value::Array(all.into_iter().map(Value::String).collect());
        let texts = texts.into_iter().map(|(key, text)| (key, text.map(Value::String)));
        let lists = lists.into_iter().map(|(key, all)| (key, all.map(list)));
        let believe = [("believe_email", self.believe_email.map(Value::Boolean))];
        let given = texts.chain(lists).chain(believe);
        given.filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

/// A provider to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProvider {
    /// As it is to stand in addresses: small letters, digits and hyphens.
    #[schema(example = "work")]
    id: String,
    /// What it is.
    settings: ProviderSettings,
}

/// What to change of a provider; what is not given stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeProvider {
    /// Whether people may sign in through it.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<bool>)]
    enabled: Option<bool>,
    /// Of one that was added: these of its settings. Needs a fresh session.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<ProviderSettings>)]
    settings: Option<ProviderSettings>,
}

/// Sign-in providers
#[utoipa::path(get, path = "/v1/admin/providers", tag = "admin", security(("access_token" = [])),
    responses((status = 200, body = AdminProviders), (status = "4XX", body = ProblemDocument)))]
pub async fn list_providers(
    State(app): State<App>,
    _: Operator,
) -> Result<JsonAnswer<AdminProviders>, Problem> {
    let found = federation::providers(&app).await.map_err(|e| e.to_problem())?;
    let items = found.into_iter().map(|listed| AdminProvider::of(&app, listed)).collect();
    Ok(JsonAnswer(AdminProviders { items, next_cursor: String::new() }))
}

/// Add a sign-in provider
///
/// It counts at once, on every server. Whoever may do this decides who people are: a provider that is `authoritative_for` a
/// domain lets its people into accounts with an address there. Needs a fresh session.
#[utoipa::path(post, path = "/v1/admin/providers", tag = "admin", security(("access_token" = [])), request_body = NewProvider,
    params(("Idempotency-Key" = Option<String>, Header, description = "the same key and body gives the first answer again, for 24 hours")),
    responses((status = 201, body = AdminProvider), (status = "4XX", body = ProblemDocument)))]
pub async fn add_provider(
    State(app): State<App>,
    operator: Operator,
    headers: HeaderMap,
    Json(body): Json<NewProvider>,
) -> Result<(StatusCode, JsonAnswer<AdminProvider>), Problem> {
    operator.must_be_fresh(&app)?;
    let settings = body.settings.table();
    let text = settings.to_string();
    let parts = [body.id.as_bytes(), text.as_bytes()];
    let key = app.idempotency.key(&headers, &operator.by.actor(), "providers", &parts)?;
    let added = federation::add_provider_by(&app, operator.by, &body.id, &settings, &key);
    let listed: Listed = once(&app, &key, added).await?;
    Ok((StatusCode::CREATED, JsonAnswer(AdminProvider::of(&app, listed))))
}

/// Change a sign-in provider
///
/// Sign-ins that are on their way through it come to nothing when its settings change or it is disabled.
#[utoipa::path(patch, path = "/v1/admin/providers/{id}", tag = "admin", security(("access_token" = [])), request_body = ChangeProvider,
    params(("id" = String, Path, description = "as it stands in addresses")),
    responses((status = 200, body = AdminProvider), (status = "4XX", body = ProblemDocument)))]
pub async fn change_provider(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    Json(body): Json<ChangeProvider>,
) -> Result<JsonAnswer<AdminProvider>, Problem> {
    if body.settings.is_some() {
        operator.must_be_fresh(&app)?;
    }
    let settings = body.settings.map(ProviderSettings::table).unwrap_or_default();
    let change = ProviderChange { settings, enabled: body.enabled };
    settled(federation::change_provider_by(&app, operator.by, &id, change).await)?;
    let found = federation::providers(&app).await.map_err(|e| e.to_problem())?;
    let listed = found.into_iter().find(|one| one.id == id).ok_or_else(Problem::not_found)?;
    Ok(JsonAnswer(AdminProvider::of(&app, listed)))
}

/// Remove a sign-in provider
///
/// One that was added. Identities that are linked at it stay, and let nobody in.
#[utoipa::path(delete, path = "/v1/admin/providers/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "as it stands in addresses")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn remove_provider(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    operator.must_be_fresh(&app)?;
    settled(federation::remove_provider_by(&app, operator.by, &id).await)?;
    Ok(StatusCode::NO_CONTENT)
}
