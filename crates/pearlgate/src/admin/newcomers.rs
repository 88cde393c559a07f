//! `POST /v1/admin/users`: operators make people.

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use foundation::db;
use foundation::http::{Claim, IdempotencyKey, Json};
use foundation::kernel::{Id, Problem};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::http::{AdminUser, shown};
use super::shared::once;
use crate::access::{By, Denied, Operator, may};
use crate::accounts::http::keep;
use crate::accounts::{DisplayName, EmailAddress, Locale, Metadata, UserRow};
use crate::app::App;
use crate::openapi::ProblemDocument;
use crate::registration::{self, NewPerson, Unmade, Way};

/// Whoever makes people needs this.
const PERMISSION: &str = "users:write";

/// Somebody to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// The address.
    #[schema(example = "ada@example.com")]
    email: String,
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
    /// Whether the address is known to be theirs: they set a password with "forgot password", or come by a mailed link or a
    /// provider. Otherwise a mail asks whoever reads it for a password.
    #[serde(default)]
    email_verified: bool,
}

/// Make somebody
///
/// With what everybody new is given, and no password: nobody knows one but its owner. Needs a fresh session. 409 when the address is somebody's, proven or not. Repeated under the
/// same `Idempotency-Key` it answers with the person as they are by then.
#[utoipa::path(post, path = "/v1/admin/users", tag = "admin", security(("access_token" = [])), request_body = NewUser,
    params(("Idempotency-Key" = Option<String>, Header, description = "the same key and body makes nobody again, for 24 hours")),
    responses((status = 201, body = AdminUser), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn add_user(
    State(app): State<App>,
    operator: Operator,
    headers: HeaderMap,
    Json(body): Json<NewUser>,
) -> Result<(StatusCode, JsonAnswer<AdminUser>), Problem> {
    operator.must_be_fresh(&app)?;
    let metadata = Value::Object(body.metadata.clone()).to_string();
    let verified = if body.email_verified { "1" } else { "0" };
    let parts =
        [body.email.as_str(), &body.display_name, &body.locale, &metadata, verified].map(str::as_bytes);
    let key = app.idempotency.key(&headers, &operator.by.actor(), "users", &parts)?;
    let person = person(&app, &body)?;
    let user: Id<UserRow> = once(&app, &key, make(&app, operator.by, person, &key)).await?;
    Ok((StatusCode::CREATED, shown(&app, user).await?))
}

/// Checks everything that needs no transaction.
fn person(app: &App, body: &NewUser) -> Result<NewPerson, Problem> {
    let mut errors = Vec::new();
    let email = keep(&mut errors, Some(EmailAddress::parse("email", &body.email)));
    let name = keep(&mut errors, Some(DisplayName::parse("display_name", &body.display_name)));
    let locale = keep(&mut errors, Some(Locale::parse("locale", &body.locale)));
    let metadata = keep(&mut errors, Some(Metadata::parse("metadata", &body.metadata)));
    let (Some(email), Some(display_name), Some(locale), Some(metadata)) = (email, name, locale, metadata)
    else {
        return Err(Problem::invalid(errors));
    };
    registration::admits(&app.settings.people, &email, Way::Asked)?;
    let id = Id::new(&app.clock, &app.chance);
    Ok(NewPerson { id, email, display_name, locale, metadata, proven: body.email_verified })
}

/// Makes them, once under a key; none when it was done before.
async fn make(
    app: &App,
    by: By,
    person: NewPerson,
    key: &IdempotencyKey,
) -> db::Result<Result<Option<Id<UserRow>>, Denied>> {
    let (inner, key) = (app.clone(), key.clone());
    app.db
        .write(move |tx| {
            if let Err(denied) = may(tx, &inner, &by, PERMISSION)? {
                return Ok(Err(denied));
            }
            if let Err(unmade) = registration::may_make(tx, &inner, &person)? {
                return Ok(Err(refused(unmade)));
            }
            let answer = serde_json::to_string(&person.id).map_err(|e| db::Error::Bug(e.to_string()))?;
            if key.claim(tx, inner.clock.now(), 201, &answer)? == Claim::Done {
                return Ok(Ok(None));
            }
            registration::make(tx, &inner, &by, &person)?;
            Ok(Ok(Some(person.id)))
        })
        .await
}

fn refused(unmade: Unmade) -> Denied {
    let words = match unmade {
        Unmade::Taken => {
            "Somebody has this address, or has registered with it without having proven it yet: look them up."
        }
        Unmade::TooManyMails => {
            "This mailbox has had as many mails as may be asked for. Try again in an hour, or say that the address is verified."
        }
    };
    Denied::Conflict(words.into())
}
