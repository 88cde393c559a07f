//! Second factors over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse, Response};
use foundation::http::{Json, OptionalJson};
use foundation::kernel::{FieldError, Problem, Secret};
use qrcode::QrCode;
use qrcode::render::svg;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::check::{Factor, Shown};
use super::flow::{self, Wish};
use super::gate::{Answer, HalfLogin, answer};
use super::own::{self, Begun, Change};
use crate::app::App;
use crate::openapi::ProblemDocument;
use crate::passkeys::{Presented, Use};
use crate::router::From;
use crate::sessions::http::{TokenSet, Transport};
use crate::sessions::{Current, Visit, let_in};

/// A second step is due: no tokens yet.
#[derive(Debug, Serialize, ToSchema)]
pub struct MfaRequired {
    /// Always `mfa_required`.
    #[schema(example = "mfa_required")]
    status: &'static str,
    /// `pgm_…`, for `/v1/auth/mfa` and nothing else.
    mfa_token: String,
    /// Seconds until it expires.
    #[schema(example = 300)]
    expires_in: u64,
    /// What may be shown: `totp`, `passkey`, `recovery_code`, `email_code`.
    factors: Vec<&'static str>,
    /// What may be set up, when policy demands a factor and there is none; left out otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(nullable = false, required = false)]
    enrolment: Vec<&'static str>,
}

impl MfaRequired {
    pub(super) fn of(half: &HalfLogin) -> Self {
        Self {
            status: "mfa_required",
            mfa_token: half.token.reveal().to_owned(),
            expires_in: half.expires_in.as_secs(),
            factors: half.factors.clone(),
            enrolment: if half.enrolment { vec![Factor::Totp.as_str()] } else { Vec::new() },
        }
    }
}

/// What a proof leads to: tokens, or a second step.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum SignedIn {
    /// Tokens.
    In(Box<TokenSet>),
    /// A second step.
    Half(MfaRequired),
}

/// The second step.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecondStep {
    /// From the first step's answer.
    #[schema(value_type = String)]
    mfa_token: Secret,
    /// Which factor is shown.
    r#type: Factor,
    /// The code.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    code: Option<Secret>,
    /// For a passkey in the place of a code: what `PublicKeyCredential.toJSON()` gave.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Object>)]
    credential: Option<Presented>,
    /// How tokens travel: as at the first step.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Transport>)]
    transport: Option<Transport>,
    /// What the device is called in the list of sessions.
    #[serde(default)]
    device_name: String,
    /// Whether this device need not show the factor for a while, where the service allows that.
    #[serde(default)]
    trust_device: bool,
}

/// Show the second factor
///
/// Ends a sign-in that was answered with `mfa_required`. A code works once; wrong ones are counted for the account, however
/// many sign-ins they are tried in: after ten the next one waits, after a hundred the factor is switched off.
#[utoipa::path(post, path = "/v1/auth/mfa", tag = "sign-in", request_body = SecondStep,
    responses((status = 200, body = SignedIn), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn second_step(
    State(app): State<App>,
    visit: Visit,
    Json(body): Json<SecondStep>,
) -> Result<Answer, Problem> {
    let visit = visit.on(&body.device_name, None)?;
    let named = !body.device_name.is_empty();
    let wish = Wish { transport: body.transport, trust: body.trust_device, named, visit: visit.clone() };
    let shown = match (body.r#type, body.code, body.credential) {
        (Factor::Passkey, None, Some(credential)) => {
            Shown::Key(Some(Use::in_half(&app, &body.mfa_token, credential)))
        }
        (factor, Some(code), None) if factor != Factor::Passkey => Shown::Code(factor, code),
        _ => return Err(one_of_both()),
    };
    let (entered, transport) = flow::complete(&app, &body.mfa_token, shown, wish).await?;
    answer(&app, entered, transport, &visit).await
}

/// 422 for a factor that came without what shows it.
pub fn one_of_both() -> Problem {
    let message = "give code, or credential for a passkey";
    Problem::invalid(vec![FieldError::new("code", "required", message)])
}

/// What is to be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeWanted {
    /// From the first step's answer.
    #[schema(value_type = String)]
    mfa_token: Secret,
    /// `email_code` or `passkey`.
    r#type: Challenged,
}

/// What can be sent.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Challenged {
    /// A code to the mailbox.
    EmailCode,
    /// A question to a passkey.
    Passkey,
}

/// It was sent, or here it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct CodeSent {
    /// `code_sent`, or `challenge`.
    #[schema(example = "code_sent")]
    status: &'static str,
    /// For `PublicKeyCredential.parseRequestOptionsFromJSON()`, when a passkey is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Object>)]
    options: Option<serde_json::Value>,
}

/// Ask for the second step
///
/// A code by mail, for whoever chose that: a newer one replaces an older one, and wrong ones stay counted. Or what a passkey
/// is asked, whose answer is the `credential` of `/v1/auth/mfa`.
#[utoipa::path(post, path = "/v1/auth/mfa/challenge", tag = "sign-in", request_body = CodeWanted,
    responses((status = 200, body = CodeSent), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn challenge(
    State(app): State<App>,
    From(from): From,
    Json(body): Json<CodeWanted>,
) -> Result<JsonAnswer<CodeSent>, Problem> {
    Ok(JsonAnswer(match body.r#type {
        Challenged::EmailCode => {
            flow::mail_code(&app, &body.mfa_token, from).await?;
            CodeSent { status: "code_sent", options: None }
        }
        Challenged::Passkey => {
            CodeSent { status: "challenge", options: Some(flow::ask_key(&app, &body.mfa_token).await?) }
        }
    }))
}

/// A sign-in that is held up because a factor has to be set up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// From the first step's answer.
    #[schema(value_type = String)]
    mfa_token: Secret,
}

/// An authenticator app is being set up: shown once.
#[derive(Debug, Serialize, ToSchema)]
pub struct Enrolment {
    /// Base32 without padding, for typing.
    secret: String,
    /// For a link on the device that has the app.
    otpauth_uri: String,
    /// The same as a picture, for the app's camera.
    qr_svg: String,
}

impl Enrolment {
    fn of(begun: &Begun) -> Result<Self, Problem> {
        let picture = QrCode::new(begun.uri.reveal()).map_err(|_| Problem::internal())?;
        let svg = picture.render::<svg::Color<'_>>().min_dimensions(240, 240).build();
        // Without the XML declaration, so that it can stand in a page as it is.
        let from = svg.find("<svg").unwrap_or_default();
        Ok(Self {
            secret: begun.secret.reveal().to_owned(),
            otpauth_uri: begun.uri.reveal().to_owned(),
            qr_svg: svg.get(from..).unwrap_or_default().to_owned(),
        })
    }
}

/// Set up a factor to get in
///
/// When policy demands a second factor and the account has none: a sign-in whose answer had `enrolment`.
#[utoipa::path(post, path = "/v1/auth/mfa/totp", tag = "sign-in", request_body = Enrol,
    responses((status = 200, body = Enrolment), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn enrol(
    State(app): State<App>,
    Json(body): Json<Enrol>,
) -> Result<JsonAnswer<Enrolment>, Problem> {
    Enrolment::of(&flow::enrol(&app, &body.mfa_token).await?).map(JsonAnswer)
}

/// The app's first code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmEnrolment {
    /// From the first step's answer.
    #[schema(value_type = String)]
    mfa_token: Secret,
    /// What the app shows.
    #[schema(value_type = String)]
    code: Secret,
    /// How tokens travel: as at the first step.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Transport>)]
    transport: Option<Transport>,
    /// What the device is called in the list of sessions.
    #[serde(default)]
    device_name: String,
}

/// Tokens, and the codes to write down.
#[derive(Debug, Serialize, ToSchema)]
pub struct Enrolled {
    #[serde(flatten)]
    tokens: TokenSet,
    /// Each lets in once in the place of the app. Shown now and never again.
    recovery_codes: Vec<String>,
}

/// Confirm the factor and get in
///
/// The app shows that it has the secret; its code is used up by that. The answer is the token set with the recovery codes.
#[utoipa::path(post, path = "/v1/auth/mfa/totp/confirm", tag = "sign-in", request_body = ConfirmEnrolment,
    responses((status = 200, body = Enrolled), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn confirm_enrolment(
    State(app): State<App>,
    visit: Visit,
    Json(body): Json<ConfirmEnrolment>,
) -> Result<Response, Problem> {
    let visit = visit.on(&body.device_name, None)?;
    let named = !body.device_name.is_empty();
    let wish = Wish { transport: body.transport, trust: false, named, visit: visit.clone() };
    let (started, transport, codes) = flow::confirm_enrolment(&app, &body.mfa_token, body.code, wish).await?;
    let (cookies, tokens) = let_in(&app, *started, transport, &visit).await?.into_parts();
    let body = Enrolled { tokens, recovery_codes: shown(&codes) };
    Ok((AppendHeaders(cookies), JsonAnswer(body)).into_response())
}

fn shown(codes: &[Secret]) -> Vec<String> {
    codes.iter().map(|code| code.reveal().to_owned()).collect()
}

/// One's own second factors.
#[derive(Debug, Serialize, ToSchema)]
pub struct Mfa {
    /// Whether there is an authenticator app.
    pub(super) totp: bool,
    /// Since when; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) confirmed_at: Option<String>,
    /// How many passkeys there are.
    pub(super) passkeys: i64,
    /// Recovery codes that were not used.
    pub(super) recovery_codes_left: i64,
    /// Whether a code from the mailbox is asked for after the password.
    pub(super) email_code: bool,
    /// Whether policy demands a second factor.
    pub(super) required: bool,
    /// From when on nobody gets in without it; left out when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) required_from: Option<String>,
    /// Factors that were switched off after too many wrong codes.
    pub(super) switched_off: Vec<String>,
    /// When an operator's reset takes the factors away; left out when none waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) reset_due_at: Option<String>,
}

/// My second factors
///
/// What there is, and what policy wants.
#[utoipa::path(get, path = "/v1/me/mfa", tag = "account", security(("access_token" = [])),
    responses((status = 200, body = Mfa), (status = "4XX", body = ProblemDocument)))]
pub async fn my_factors(State(app): State<App>, current: Current) -> Result<JsonAnswer<Mfa>, Problem> {
    own::status(&app, &current).await.map(JsonAnswer)
}

/// Nothing to say.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Set up an authenticator app
///
/// Gives a secret for the app, as text, link and picture. Nothing counts before its first code is confirmed, within ten
/// minutes. Needs a fresh session.
#[utoipa::path(post, path = "/v1/me/mfa/totp", tag = "account", security(("access_token" = [])), request_body = Nothing,
    responses((status = 200, body = Enrolment), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn begin_totp(
    State(app): State<App>,
    current: Current,
    OptionalJson(Nothing {}): OptionalJson<Nothing>,
) -> Result<JsonAnswer<Enrolment>, Problem> {
    Enrolment::of(&own::begin(&app, &current).await?).map(JsonAnswer)
}

/// The app's first code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmTotp {
    /// What the app shows.
    #[schema(value_type = String)]
    code: Secret,
}

/// The codes to write down.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecoveryCodes {
    /// Each lets in once in the place of the app. Shown now and never again.
    recovery_codes: Vec<String>,
}

/// Confirm the authenticator app
///
/// From now on it is asked for at every sign-in, in the place of an app that was there before. Its code is used up by
/// this. Needs a fresh session.
#[utoipa::path(post, path = "/v1/me/mfa/totp/confirm", tag = "account", security(("access_token" = [])), request_body = ConfirmTotp,
    responses((status = 200, body = RecoveryCodes), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn confirm_totp(
    State(app): State<App>,
    current: Current,
    From(from): From,
    Json(body): Json<ConfirmTotp>,
) -> Result<JsonAnswer<RecoveryCodes>, Problem> {
    let codes = own::change(&app, &current, Change::Confirm(body.code), from).await?;
    Ok(JsonAnswer(RecoveryCodes { recovery_codes: shown(&codes) }))
}

/// Take the authenticator app away
///
/// The recovery codes go with it. Refused while policy demands a factor. Needs a fresh session.
#[utoipa::path(delete, path = "/v1/me/mfa/totp", tag = "account", security(("access_token" = [])),
    responses((status = 204), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn remove_totp(
    State(app): State<App>,
    current: Current,
    From(from): From,
) -> Result<StatusCode, Problem> {
    own::change(&app, &current, Change::RemoveTotp, from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// New recovery codes
///
/// The old set dies. Needs a fresh session.
#[utoipa::path(post, path = "/v1/me/mfa/recovery-codes", tag = "account", security(("access_token" = [])), request_body = Nothing,
    responses((status = 200, body = RecoveryCodes), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn new_recovery_codes(
    State(app): State<App>,
    current: Current,
    From(from): From,
    OptionalJson(Nothing {}): OptionalJson<Nothing>,
) -> Result<JsonAnswer<RecoveryCodes>, Problem> {
    let codes = own::change(&app, &current, Change::RecoveryCodes, from).await?;
    Ok(JsonAnswer(RecoveryCodes { recovery_codes: shown(&codes) }))
}

/// Ask me for a code from my mailbox
///
/// After the password, at every sign-in: better than nothing, and no second factor in the sense of assurance level 2. Needs
/// a fresh session.
#[utoipa::path(put, path = "/v1/me/mfa/email-code", tag = "account", security(("access_token" = [])),
    responses((status = 204), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn choose_email_code(
    State(app): State<App>,
    current: Current,
    From(from): From,
) -> Result<StatusCode, Problem> {
    own::change(&app, &current, Change::ChooseEmailCode, from).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// No more codes from my mailbox
///
/// Needs a fresh session.
#[utoipa::path(delete, path = "/v1/me/mfa/email-code", tag = "account", security(("access_token" = [])),
    responses((status = 204), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn remove_email_code(
    State(app): State<App>,
    current: Current,
    From(from): From,
) -> Result<StatusCode, Problem> {
    own::change(&app, &current, Change::RemoveEmailCode, from).await?;
    Ok(StatusCode::NO_CONTENT)
}
