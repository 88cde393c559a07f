//! Being somebody else for a while, to see what they see: in the open, and never above oneself.

use axum::Json as JsonAnswer;
use axum::extract::{Path, State};
use foundation::audit::Stream;
use foundation::http::Json;
use foundation::kernel::{Id, Problem};
use foundation::mail::Mail;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::flow::on_person;
use super::http::reason;
use crate::access::http::{named, settled};
use crate::access::{Denied, Operator, Who};
use crate::accounts::{User, UserRow};
use crate::app::App;
use crate::errors;
use crate::mailed;
use crate::openapi::ProblemDocument;
use crate::sessions::{self, AsAnother, NOTICE};

/// Why somebody wants to be somebody else.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Impersonate {
    /// For the record, and for the person, who is mailed it: 1 to 500 characters.
    reason: String,
}

/// One access token of somebody else. There is no refresh token.
#[derive(Debug, Serialize, ToSchema)]
pub struct Impersonation {
    /// Its `act` claim says who is behind it (RFC 8693 §4.1).
    access_token: String,
    /// `Bearer`
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    /// `ses_…`: `DELETE /v1/me/sessions/{id}` with the token ends it.
    session_id: String,
    /// Whose it is.
    user: User,
}

/// Be somebody else
///
/// For a few minutes, whoever stands below: a person who was signed in with a second factor just now, and no key. The token's
/// `act` claim names the operator; here it opens what one looks at, and changes nothing. The person is mailed, with the reason.
#[utoipa::path(post, path = "/v1/admin/users/{id}/impersonate", tag = "admin", security(("access_token" = [])), request_body = Impersonate,
    params(("id" = String, Path, description = "`usr_…`")),
    responses((status = 200, body = Impersonation), (status = "4XX", body = ProblemDocument)))]
pub async fn impersonate(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
    Json(body): Json<Impersonate>,
) -> Result<JsonAnswer<Impersonation>, Problem> {
    operator.must_be_fresh(&app)?;
    let user: Id<UserRow> = named(&id)?;
    let reason = reason(body.reason)?;
    let Who::Person(who, session) = operator.by.who else {
        return Err(
            errors::problem("permission_denied").detail("A key is nobody, and cannot be somebody else.")
        );
    };
    let Some(lifetime) = app.settings.people.impersonation else {
        return Err(errors::problem("permission_denied")
            .detail("Nobody is somebody else here: the setting impersonation.lifetime is 0."));
    };
    if who == user {
        return Err(errors::problem("conflict").detail("You are them already."));
    }
    let until = app.clock.now() + lifetime.min(app.access_tokens.lifetime());
    let done = on_person(&app, operator.by, "users:impersonate", user, move |tx, app, by| {
        if !mailed::may_tell(tx, app, user)? {
            return Ok(Err(Denied::Conflict(mailed::TOLD_ENOUGH.into())));
        }
        let with = AsAnother { operator: (who, session), user, reason: &reason, until };
        let Some(row) = sessions::begin_as(tx, app, with)? else {
            return Ok(Err(Denied::Conflict("They are shut out: there is nothing to see.".into())));
        };
        let details = json!({ "as": row.session_id, "reason": reason });
        app.audit_by(tx, &Stream::of(user), "impersonated", by, details)?;
        if let Some(to) = mailed::proven_address(tx, user)? {
            let now = app.clock.now();
            let values = json!({
                "service_name": app.settings.service_name, "at": now.to_string(), "reason": reason,
                "until": until.to_string(),
            });
            app.postman.send_first(tx, &Mail { kind: "impersonated".into(), to, values }, now, NOTICE)?;
        }
        Ok(Ok(row))
    });
    let row = settled(done.await)?;
    let (token, expires_in) = sessions::token_as(&app, &row, who).await?;
    Ok(JsonAnswer(Impersonation {
        access_token: token.reveal().to_owned(),
        token_type: "Bearer",
        expires_in,
        session_id: row.session_id.to_string(),
        user: row.user(),
    }))
}
