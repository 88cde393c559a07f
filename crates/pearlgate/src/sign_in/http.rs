//! Signing in over HTTP.

use axum::Json as JsonAnswer;
use axum::extract::State;
use foundation::http::Json;
use foundation::kernel::{FieldError, Problem, Secret};
use serde::Deserialize;
use utoipa::ToSchema;

use super::flow;
use super::work::{self, Challenge};
use crate::accounts::EmailAddress;
use crate::accounts::http::keep;
use crate::app::App;
use crate::mfa::http::SignedIn;
use crate::mfa::{self, Answer, Factor, Shown};
use crate::openapi::ProblemDocument;
use crate::passkeys::{Presented, Use};
use crate::passwords::Attempt;
use crate::router::device_name;
use crate::sessions::http::{LetIn, TokenSet, Transport};
use crate::sessions::{Current, Visit, let_in};

/// Who wants in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The address.
    email: String,
    /// The password.
    #[schema(value_type = String)]
    password: Secret,
    /// How tokens travel.
    #[serde(default)]
    transport: Transport,
    /// What the device is called in the list of sessions.
    #[serde(default)]
    device_name: String,
    /// From an earlier sign-in of this account on this device.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    device_token: Option<Secret>,
    /// A solved challenge of `/v1/auth/challenge`, when that is asked for (`proof_of_work_required`).
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    proof_of_work: Option<String>,
}

/// Sign in
///
/// One answer for an unknown address and a wrong password. What is true of an account (not verified, suspended) is
/// told only after its right password.
#[utoipa::path(post, path = "/v1/auth/login", tag = "sign-in", request_body = Login,
    responses((status = 200, body = SignedIn), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn login(State(app): State<App>, visit: Visit, Json(body): Json<Login>) -> Result<Answer, Problem> {
    let transport = body.transport;
    let visit = visit.on(&body.device_name, body.device_token)?;
    let mut errors = Vec::new();
    // The length before anything else: it decides whether anything else is done.
    let password = keep(&mut errors, Some(Attempt::accept("password", &body.password)));
    let email = keep(&mut errors, Some(EmailAddress::parse("email", &body.email)));
    let (Some(password), Some(email)) = (password, email) else { return Err(Problem::invalid(errors)) };
    let (seen, proof_of_work) = (visit.clone(), body.proof_of_work);
    let login = flow::Login { email, password, visit: seen, transport, proof_of_work };
    let entered = flow::login(&app, login).await?;
    mfa::answer(&app, entered, transport, &visit).await
}

/// A piece of work
///
/// In the form of Altcha, whose widget takes this address as its `challengeurl`: find the number whose SHA-256 behind the
/// salt is the challenge, and send what the widget gives as `proof_of_work`. Good for one attempt, for five minutes.
#[utoipa::path(get, path = "/v1/auth/challenge", tag = "sign-in", responses((status = 200, body = Challenge)))]
pub async fn challenge(State(app): State<App>) -> JsonAnswer<Challenge> {
    JsonAnswer(work::challenge(&app.work_key, &app.chance, app.clock.now()))
}

/// Proves once more who one is: with `password`, with `type` and `code`, or with a passkey.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reauthenticate {
    /// The password.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    password: Option<Secret>,
    /// Which factor: `totp`, `recovery_code` or `passkey`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Factor>)]
    r#type: Option<Factor>,
    /// The factor's code.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    code: Option<Secret>,
    /// For a passkey: from `/v1/me/reauthenticate/passkey`.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<String>)]
    challenge_id: Option<Secret>,
    /// For a passkey: what `PublicKeyCredential.toJSON()` gave.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Object>)]
    credential: Option<Presented>,
    /// How tokens travel: without a word, as they did in this request.
    #[serde(default, deserialize_with = "crate::router::present")]
    #[schema(value_type = Option<Transport>)]
    transport: Option<Transport>,
    /// What the device is called in the list of sessions, from now on.
    #[serde(default)]
    device_name: String,
}

/// Prove again who I am
///
/// With the password, or with a code of a second factor; an account that has both is fresh for what is sensitive when both
/// were shown. The session stays the same. Access tokens that are out stay good; the refresh
/// token (or the cookie) is replaced, and the old one leads nowhere.
#[utoipa::path(post, path = "/v1/me/reauthenticate", tag = "account", security(("access_token" = [])), request_body = Reauthenticate,
    responses((status = 200, body = TokenSet), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn reauthenticate(
    State(app): State<App>,
    current: Current,
    visit: Visit,
    Json(body): Json<Reauthenticate>,
) -> Result<LetIn, Problem> {
    let name = device_name(&body.device_name)?;
    let key = body.challenge_id.zip(body.credential);
    let started = match (&body.password, body.r#type, body.code, key) {
        (Some(password), None, None, None) => {
            let password = Attempt::accept("password", password).map_err(|e| Problem::invalid(vec![e]))?;
            flow::reauthenticate(&app, &current, &password, name, visit.from).await?
        }
        (None, Some(Factor::EmailCode), Some(_), None) => {
            let message = "a code from the mailbox is no factor: give totp, passkey or recovery_code";
            return Err(Problem::invalid(vec![FieldError::new("type", "invalid", message)]));
        }
        (None, Some(Factor::Passkey), None, Some((challenge, credential))) => {
            let used = Use::again(&app, &current, &challenge, credential);
            let shown = Shown::Key(used);
            mfa::reauthenticate(&app, &current, shown, name, visit.from).await?
        }
        (None, Some(factor), Some(code), None) if factor != Factor::Passkey => {
            mfa::reauthenticate(&app, &current, Shown::Code(factor, code), name, visit.from).await?
        }
        _ => {
            let message =
                "give password, or type with code, or type, challenge_id and credential of a passkey";
            return Err(Problem::invalid(vec![FieldError::new("password", "required", message)]));
        }
    };
    let same = if current.by_cookie() { Transport::Cookie } else { Transport::Token };
    let_in(&app, started, body.transport.unwrap_or(same), &visit).await
}
