//! Registration over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use foundation::http::Json;
use foundation::kernel::{FieldError, Id, Problem, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::flow::{self, Shown};
use super::model::VerificationRow;
use super::register::{self as registering, Form};
use crate::accounts::http::{keep, refuse};
use crate::accounts::{DisplayName, EmailAddress, Locale, Metadata};
use crate::app::App;
use crate::mfa::http::SignedIn;
use crate::mfa::{self, Answer};
use crate::openapi::ProblemDocument;
use crate::passwords::{Password, about_newcomer};
use crate::router::From;
use crate::sessions::Visit;
use crate::sessions::http::Transport;

/// Who wants an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// The address; a mail to it proves it.
    #[schema(example = "ada@example.com")]
    email: String,
    /// At least 15 characters.
    #[schema(value_type = String, example = "nine purple lanterns drift")]
    password: Secret,
    /// At most 100 characters.
    #[serde(default)]
    display_name: String,
    /// A language tag such as `en` or `de-CH`.
    #[serde(default)]
    locale: String,
    /// The application's own data about the person, at most 4 KiB.
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

/// What a registration gives: the half of the proof that is not in the mail.
#[derive(Debug, Serialize, ToSchema)]
pub struct VerificationRequired {
    /// Always `verification_required`.
    #[schema(example = "verification_required")]
    status: &'static str,
    /// `ver_…`, to be given back with the mail's code or token.
    verification_id: String,
}

/// What shows that somebody reads a mailbox: `verification_id` with `token` or `code`, or `token` with `password`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyEmail {
    /// From the registration's answer.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    verification_id: Option<String>,
    /// From the mail's link.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    token: Option<Secret>,
    /// From the mail: six digits.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    code: Option<Secret>,
    /// The mailbox owner's own password, when the link is opened without the registration's id.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    password: Option<Secret>,
    /// How tokens travel.
    #[serde(default)]
    transport: Transport,
    /// What the device is called in the list of sessions.
    #[serde(default)]
    device_name: String,
}

/// Whose mail to send again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResendVerification {
    /// The address.
    email: String,
}

/// What every address is answered with.
#[derive(Debug, Serialize, ToSchema)]
pub struct Resent {
    /// Always `verification_required`.
    #[schema(example = "verification_required")]
    status: &'static str,
}

/// Register
///
/// Answers the same whether or not the address has an account; the mail tells the truth. The password becomes the
/// account's when the address is verified with this answer's `verification_id`.
#[utoipa::path(post, path = "/v1/auth/register", tag = "registration", request_body = Register,
    params(("Idempotency-Key" = Option<String>, Header, description = "the same key and body gives the first answer again, for 24 hours")),
    responses((status = 202, body = VerificationRequired), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn register(
    State(app): State<App>,
    From(from): From,
    headers: HeaderMap,
    Json(body): Json<Register>,
) -> Result<(StatusCode, JsonAnswer<VerificationRequired>), Problem> {
    let metadata = Value::Object(body.metadata.clone()).to_string();
    let parts =
        [&body.email, body.password.reveal(), &body.display_name, &body.locale, &metadata].map(str::as_bytes);
    let key = app.idempotency.key(&headers, "", "register", &parts)?;
    let verification = registering::register(&app, accept(&app, &body)?, &key, from).await?;
    let answer =
        VerificationRequired { status: "verification_required", verification_id: verification.to_string() };
    Ok((StatusCode::ACCEPTED, JsonAnswer(answer)))
}

fn accept(app: &App, body: &Register) -> Result<Form, Problem> {
    let mut errors = Vec::new();
    let email = keep(&mut errors, Some(EmailAddress::parse("email", &body.email)));
    let password = keep(
        &mut errors,
        Some(Password::accept(
            "password",
            &body.password,
            &about_newcomer(app, &body.email, &body.display_name),
        )),
    );
    let display_name = keep(&mut errors, Some(DisplayName::parse("display_name", &body.display_name)));
    let locale = keep(&mut errors, Some(Locale::parse("locale", &body.locale)));
    let metadata = keep(&mut errors, Some(Metadata::parse("metadata", &body.metadata)));
    match (email, password, display_name, locale, metadata) {
        (Some(email), Some(password), Some(display_name), Some(locale), Some(metadata)) => {
            Ok(Form { email, password, display_name, locale, metadata })
        }
        _ => Err(Problem::invalid(errors)),
    }
}

/// Verify the address
///
/// With `verification_id` and the mail's `code` or `token`, the registration's password becomes the account's. With
/// the mail's `token` and a `password`, whoever reads the mailbox sets that password; the registration's dies.
#[utoipa::path(post, path = "/v1/auth/verify-email", tag = "registration", request_body = VerifyEmail,
    responses((status = 200, body = SignedIn), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn verify_email(
    State(app): State<App>,
    visit: Visit,
    Json(body): Json<VerifyEmail>,
) -> Result<Answer, Problem> {
    let transport = body.transport;
    let visit = visit.on(&body.device_name, None)?;
    let entered = flow::verify(&app, shown(body)?, visit.clone(), transport).await?;
    mfa::answer(&app, entered, transport, &visit).await
}

fn shown(body: VerifyEmail) -> Result<Shown, Problem> {
    let invalid = || Problem::from(super::Refusal::VerificationInvalid);
    let id = body.verification_id.map(|text| text.parse::<Id<VerificationRow>>().map_err(|_| invalid()));
    match (id, body.token, body.code, body.password) {
        (_, Some(token), None, Some(password)) => Ok(Shown::LinkAndPassword(token, password)),
        (Some(id), Some(token), None, None) => Ok(Shown::IdAndLink(id?, token)),
        (Some(id), None, Some(code), None) => Ok(Shown::IdAndCode(id?, code)),
        _ => Err(Problem::invalid(vec![FieldError::new(
            "verification_id",
            "required",
            "give verification_id with token or with code, or token with the mailbox owner's password",
        )])),
    }
}

/// Send the mail again
///
/// Answers the same for every address. An address that waits for its proof gets a new link and a new code, which
/// end the older ones; a mailbox that had several mails within the hour gets none, and the newest goes on working.
#[utoipa::path(post, path = "/v1/auth/resend-verification", tag = "registration", request_body = ResendVerification,
    params(("Idempotency-Key" = Option<String>, Header, description = "the same key and body sends nothing again, for 24 hours")),
    responses((status = 202, body = Resent), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn resend_verification(
    State(app): State<App>,
    headers: HeaderMap,
    Json(body): Json<ResendVerification>,
) -> Result<(StatusCode, JsonAnswer<Resent>), Problem> {
    let key = app.idempotency.key(&headers, "", "resend-verification", &[body.email.as_bytes()])?;
    let mut errors = Vec::new();
    let email = keep(&mut errors, Some(EmailAddress::parse("email", &body.email)));
    refuse(errors)?;
    if let Some(email) = email {
        flow::resend(&app, email, &key).await?;
    }
    Ok((StatusCode::ACCEPTED, JsonAnswer(Resent { status: "verification_required" })))
}

/// How it is with mail in general.
#[derive(Debug, Serialize, ToSchema)]
pub struct Waiting {
    /// `sent`, or `slow` when no provider has taken mail for a minute: then it comes later, by itself.
    mail: &'static str,
}

/// Is the mail on its way
///
/// For a page on which somebody waits. The answer is the same for every id: it tells whether mail in general is slow.
#[utoipa::path(get, path = "/v1/auth/verifications/{id}", tag = "registration",
    params(("id" = String, Path, description = "the verification_id")),
    responses((status = 200, body = Waiting), (status = "4XX", body = crate::openapi::ProblemDocument)))]
pub async fn waiting(State(app): State<App>, Path(id): Path<String>) -> Result<JsonAnswer<Waiting>, Problem> {
    id.parse::<Id<VerificationRow>>().map_err(|_| Problem::not_found())?;
    Ok(JsonAnswer(Waiting { mail: if app.postman.is_slow() { "slow" } else { "sent" } }))
}
