//! Passkeys over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use foundation::http::{Json, OptionalJson};
use foundation::kernel::{Id, Problem, Secret};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::flow;
use super::model::{Challenge, PasskeyRow, Presented};
use super::store::Listed;
use crate::accounts::EmailAddress;
use crate::app::App;
use crate::mfa::http::SignedIn;
use crate::mfa::{self, Answer};
use crate::openapi::ProblemDocument;
use crate::router::From;
use crate::sessions::http::Transport;
use crate::sessions::{Current, Visit};

/// Who will sign in, when their key does not know it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartPasskey {
    /// The address; left out for keys that know whose they are.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    email: Option<String>,
}

/// What to give to the browser.
#[derive(Debug, Serialize, ToSchema)]
pub struct PasskeyChallenge {
    /// `pgc_…`, to be given back within five minutes.
    challenge_id: String,
    /// For `PublicKeyCredential.parseRequestOptionsFromJSON()` or `…CreationOptionsFromJSON()`.
    #[schema(value_type = Object)]
    options: Value,
}

impl PasskeyChallenge {
    fn of((challenge, options): (Challenge, Value)) -> Self {
        Self { challenge_id: challenge.id.reveal().to_owned(), options }
    }
}

/// Ask a passkey
///
/// The same for everybody: an address without passkeys, or that nobody has, is given one that does not exist. Leave it out
/// for passkeys that know whose they are, also for a browser's suggestions in a form (conditional mediation).
#[utoipa::path(post, path = "/v1/auth/passkey/start", tag = "sign-in", request_body = StartPasskey,
    responses((status = 200, body = PasskeyChallenge), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn start(
    State(app): State<App>,
    OptionalJson(body): OptionalJson<StartPasskey>,
) -> Result<JsonAnswer<PasskeyChallenge>, Problem> {
    let email = body.email.map(|text| EmailAddress::parse("email", &text)).transpose();
    let email = email.map_err(|error| Problem::invalid(vec![error]))?;
    Ok(JsonAnswer(PasskeyChallenge::of(flow::start(&app, email).await?)))
}

/// A passkey's answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishPasskey {
    /// From `start`.
    #[schema(value_type = String)]
    challenge_id: Secret,
    /// What `PublicKeyCredential.toJSON()` gave.
    #[schema(value_type = Object)]
    credential: Presented,
    /// How tokens travel.
    #[serde(default)]
    transport: Transport,
    /// What the device is called in the list of sessions.
    #[serde(default)]
    device_name: String,
}

/// Sign in with a passkey
///
/// The authenticator has to check who uses it (a PIN, a fingerprint, a face): then it is both factors in one.
#[utoipa::path(post, path = "/v1/auth/passkey/finish", tag = "sign-in", request_body = FinishPasskey,
    responses((status = 200, body = SignedIn), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn finish(
    State(app): State<App>,
    visit: Visit,
    Json(body): Json<FinishPasskey>,
) -> Result<Answer, Problem> {
    let visit = visit.on(&body.device_name, None)?;
    let with = (visit.clone(), body.transport);
    let entered = flow::finish(&app, &body.challenge_id, &body.credential, with).await?;
    mfa::answer(&app, entered, body.transport, &visit).await
}

/// One of one's own passkeys.
#[derive(Debug, Serialize, ToSchema)]
pub struct Passkey {
    /// `psk_…`
    id: String,
    /// As its owner calls it; may be empty.
    name: String,
    /// When it was added.
    created_at: String,
    /// When it was last used; left out when it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_used_at: Option<String>,
    /// Whether it may be on several devices of its owner.
    backup_eligible: bool,
    /// Whether it is.
    backed_up: bool,
    /// How browsers may reach it.
    transports: Vec<String>,
}

impl Passkey {
    pub(super) fn of(row: Listed) -> Self {
        let used = row.last_used_at.micros() > 0;
        Self {
            id: row.id.to_string(),
            name: row.name,
            created_at: row.created_at.to_string(),
            last_used_at: used.then(|| row.last_used_at.to_string()),
            backup_eligible: row.backup_eligible,
            backed_up: row.backed_up,
            transports: row.transports.split_whitespace().map(str::to_owned).collect(),
        }
    }
}

/// One's own passkeys.
#[derive(Debug, Serialize, ToSchema)]
pub struct Passkeys {
    /// The oldest first; all of them.
    items: Vec<Passkey>,
    /// Always empty.
    next_cursor: String,
}

/// My passkeys
#[utoipa::path(get, path = "/v1/me/passkeys", tag = "account", security(("access_token" = [])),
    responses((status = 200, body = Passkeys), (status = "4XX", body = ProblemDocument)))]
pub async fn my_passkeys(State(app): State<App>, current: Current) -> Result<JsonAnswer<Passkeys>, Problem> {
    let items = flow::lists(&app, current.row.user_id).await.map_err(|e| e.to_problem())?;
    Ok(JsonAnswer(Passkeys { items, next_cursor: String::new() }))
}

/// Begin to add a passkey
///
/// Needs a fresh session.
#[utoipa::path(post, path = "/v1/me/passkeys/start", tag = "account", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    responses((status = 200, body = PasskeyChallenge), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn begin(
    State(app): State<App>,
    current: Current,
    OptionalJson(mfa::http::Nothing {}): OptionalJson<mfa::http::Nothing>,
) -> Result<JsonAnswer<PasskeyChallenge>, Problem> {
    Ok(JsonAnswer(PasskeyChallenge::of(flow::begin(&app, &current).await?)))
}

/// A new passkey.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepPasskey {
    /// From `start`.
    #[schema(value_type = String)]
    challenge_id: Secret,
    /// What `PublicKeyCredential.toJSON()` gave.
    #[schema(value_type = Object)]
    credential: Presented,
    /// What its owner calls it.
    #[serde(default)]
    name: String,
}

/// It is kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeptPasskey {
    /// The passkey.
    passkey: Passkey,
    /// When it is the first second factor: each lets in once in its place. Shown now and never again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(nullable = false, required = false)]
    recovery_codes: Vec<String>,
}

/// Add a passkey
///
/// Needs a fresh session. The session has shown it by this.
#[utoipa::path(post, path = "/v1/me/passkeys/finish", tag = "account", security(("access_token" = [])), request_body = KeepPasskey,
    responses((status = 200, body = KeptPasskey), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn keep(
    State(app): State<App>,
    current: Current,
    From(from): From,
    Json(body): Json<KeepPasskey>,
) -> Result<JsonAnswer<KeptPasskey>, Problem> {
    let named = (body.name, from);
    let (passkey, codes) = flow::keep(&app, &current, &body.challenge_id, &body.credential, named).await?;
    let recovery_codes = codes.iter().map(|code| code.reveal().to_owned()).collect();
    Ok(JsonAnswer(KeptPasskey { passkey, recovery_codes }))
}

/// Another name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenamePasskey {
    /// One line of at most 100 characters.
    name: String,
}

/// Rename a passkey
#[utoipa::path(patch, path = "/v1/me/passkeys/{id}", tag = "account", security(("access_token" = [])), request_body = RenamePasskey,
    params(("id" = String, Path, description = "`psk_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn rename(
    State(app): State<App>,
    current: Current,
    Path(id): Path<String>,
    Json(body): Json<RenamePasskey>,
) -> Result<StatusCode, Problem> {
    flow::rename(&app, &current, passkey(&id)?, body.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a passkey
///
/// Needs a fresh session. The last way in, and the last factor that policy demands, cannot go.
#[utoipa::path(delete, path = "/v1/me/passkeys/{id}", tag = "account", security(("access_token" = [])),
    params(("id" = String, Path, description = "`psk_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn remove(
    State(app): State<App>,
    current: Current,
    From(from): From,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    flow::remove(&app, &current, passkey(&id)?, from).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn passkey(text: &str) -> Result<Id<PasskeyRow>, Problem> {
    text.parse().map_err(|_| Problem::not_found())
}

/// Ask a passkey to prove again who I am
///
/// Its answer goes to `/v1/me/reauthenticate`, with the id of the challenge.
#[utoipa::path(post, path = "/v1/me/reauthenticate/passkey", tag = "account", security(("access_token" = [])), request_body = crate::mfa::http::Nothing,
    responses((status = 200, body = PasskeyChallenge), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn begin_again(
    State(app): State<App>,
    current: Current,
    OptionalJson(mfa::http::Nothing {}): OptionalJson<mfa::http::Nothing>,
) -> Result<JsonAnswer<PasskeyChallenge>, Problem> {
    Ok(JsonAnswer(PasskeyChallenge::of(flow::begin_again(&app, &current).await?)))
}
