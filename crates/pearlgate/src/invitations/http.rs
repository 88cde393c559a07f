//! `/v1/admin/invitations`, and accepting one, over HTTP.

use std::collections::BTreeSet;

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use foundation::http::Json;
use foundation::kernel::{FieldError, Id, PageRequest, Problem, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::flow::{self, Acceptance, Accepted, Invited};
use super::model::MOST_ROLES;
use crate::access::http::{named, page, settled};
use crate::access::{Operator, Place, Scope};
use crate::accounts::http::keep;
use crate::accounts::{DisplayName, EmailAddress, Locale};
use crate::admin::once;
use crate::app::App;
use crate::mfa;
use crate::mfa::http::MfaRequired;
use crate::openapi::ProblemDocument;
use crate::registration::{self, Way};
use crate::sessions::Visit;
use crate::sessions::http::{TokenSet, Transport};

/// A role that comes with an invitation.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationRole {
    /// Its name.
    role: String,
    /// `course/42`, or `course/*` for all courses; empty for everywhere.
    #[serde(default)]
    resource: String,
}

/// Somebody who is asked to come.
#[derive(Debug, Serialize, ToSchema)]
pub struct Invitation {
    /// `inv_…`
    id: String,
    /// The address.
    email: String,
    /// What they are given when they come.
    roles: Vec<InvitationRole>,
    /// Who asks them: the id of a person or of a key.
    invited_by: String,
    /// Since when.
    created_at: String,
    /// Until when it can be accepted.
    expires_at: String,
}

impl Invitation {
    fn of(invited: Invited) -> Self {
        let roles = invited.roles.into_iter().map(|(role, resource)| InvitationRole { role, resource });
        Self {
            id: invited.id.to_string(),
            email: invited.email,
            roles: roles.collect(),
            invited_by: invited.invited_by,
            created_at: invited.created_at,
            expires_at: invited.expires_at,
        }
    }
}

/// Invitations.
#[derive(Debug, Serialize, ToSchema)]
pub struct Invitations {
    /// Those that can be accepted, the newest first.
    items: Vec<Invitation>,
    /// For the next page; empty on the last one.
    next_cursor: String,
}

/// Invitations that are open
#[utoipa::path(get, path = "/v1/admin/invitations", tag = "admin", security(("access_token" = [])),
    params(("limit" = Option<u16>, Query, description = "1 to 200, 50 by default"), ("cursor" = Option<String>, Query, description = "the previous page's next_cursor")),
    responses((status = 200, body = Invitations), (status = "4XX", body = ProblemDocument)))]
pub async fn list_invitations(
    State(app): State<App>,
    _: Operator,
    query: Result<Query<PageRequest>, QueryRejection>,
) -> Result<JsonAnswer<Invitations>, Problem> {
    let (limit, after) = app.cursors.open_text("invitations", &page(query)?)?;
    let before = after.parse().unwrap_or(Id::from_bytes([0xff; 16]));
    let mut found = flow::list(&app, before, limit + 1).await.map_err(|e| e.to_problem())?;
    let more = found.len() > usize::from(limit);
    found.truncate(limit.into());
    let last = found.last().filter(|_| more).map(|invited| invited.id.to_string());
    let next_cursor = last.map(|last| app.cursors.issue_text("invitations", &last)).unwrap_or_default();
    Ok(JsonAnswer(Invitations { items: found.into_iter().map(Invitation::of).collect(), next_cursor }))
}

/// Whom to ask.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewInvitation {
    /// The address: whoever reads it accepts, and nobody else.
    #[schema(example = "ada@example.com")]
    email: String,
    /// What they are given when they come: at most 20 roles, each of which one could give now.
    #[serde(default)]
    roles: Vec<InvitationRole>,
}

/// Invite somebody
///
/// A mail to the address has the link. Needs a fresh session, and `roles:write` when there are roles. When it is accepted it
/// counts what its inviter may by then. 409 when the address has an account, when an invitation to it is open, and when the
/// mailbox has had too many mails.
#[utoipa::path(post, path = "/v1/admin/invitations", tag = "admin", security(("access_token" = [])), request_body = NewInvitation,
    params(("Idempotency-Key" = Option<String>, Header, description = "the same key and body gives the first answer again, for 24 hours")),
    responses((status = 201, body = Invitation), (status = "4XX", body = ProblemDocument)))]
pub async fn add_invitation(
    State(app): State<App>,
    operator: Operator,
    headers: HeaderMap,
    Json(body): Json<NewInvitation>,
) -> Result<(StatusCode, JsonAnswer<Invitation>), Problem> {
    operator.must_be_fresh(&app)?;
    let said = format!("{body:?}");
    let key = app.idempotency.key(&headers, &operator.by.actor(), "invitations", &[said.as_bytes()])?;
    let mut errors = Vec::new();
    let email = keep(&mut errors, Some(EmailAddress::parse("email", &body.email)));
    let roles = keep(&mut errors, Some(places(body.roles)));
    let (Some(email), Some(roles)) = (email, roles) else { return Err(Problem::invalid(errors)) };
    registration::admits(&app.settings.people, &email, Way::Asked)?;
    let invited: Invited = once(&app, &key, flow::invite(&app, operator.by, email, roles, &key)).await?;
    Ok((StatusCode::CREATED, JsonAnswer(Invitation::of(invited))))
}

fn places(roles: Vec<InvitationRole>) -> Result<BTreeSet<Place>, FieldError> {
    if roles.len() > MOST_ROLES {
        return Err(FieldError::new("roles", "invalid", format!("are at most {MOST_ROLES}")));
    }
    let place = |one: InvitationRole| {
        let scope = Scope::parse("roles", &one.resource)?;
        Ok((one.role, scope.as_str().to_owned()))
    };
    roles.into_iter().map(place).collect()
}

/// Take an invitation back
///
/// Its link stops working. One that names roles is taken back by whoever could have given them.
#[utoipa::path(delete, path = "/v1/admin/invitations/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`inv_…`")),
    responses((status = 204), (status = "4XX", body = ProblemDocument)))]
pub async fn revoke_invitation(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    settled(flow::revoke(&app, operator.by, named(&id)?).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Somebody accepts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptInvitation {
    /// From the mail's link.
    #[schema(value_type = String)]
    token: Secret,
    /// The password of the account: at least 15 characters. Whoever has an account already keeps theirs.
    #[schema(value_type = String, example = "nine purple lanterns drift")]
    password: Secret,
    /// At most 100 characters.
    #[serde(default)]
    display_name: String,
    /// A language tag such as `en` or `de-CH`.
    #[serde(default)]
    locale: String,
    /// How tokens travel.
    #[serde(default)]
    transport: Transport,
    /// What the device is called in the list of sessions.
    #[serde(default)]
    device_name: String,
}

/// What became of an account that was there.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JoinedStatus {
    /// It has the roles.
    Joined,
}

/// An account that was there has what the invitation names.
#[derive(Debug, Serialize, ToSchema)]
pub struct Joined {
    /// Always `joined`.
    status: JoinedStatus,
}

/// What accepting leads to: tokens, a second step, or nothing but the roles.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum InvitationAccepted {
    /// Tokens of the account that began.
    In(Box<TokenSet>),
    /// A second step is due.
    Half(MfaRequired),
    /// The address has an account by now: sign in to it as ever.
    Joined(Joined),
}

/// Accept an invitation
///
/// Once. It is the address of the invitation that has an account from now on, with its roles. Somebody who has proven that address
/// meanwhile is given the roles, keeps their password, and signs in as ever: `{"status":"joined"}`.
#[utoipa::path(post, path = "/v1/auth/accept-invitation", tag = "registration", request_body = AcceptInvitation,
    responses((status = 200, body = InvitationAccepted), (status = "4XX", body = ProblemDocument), (status = "5XX", body = ProblemDocument)))]
pub async fn accept_invitation(
    State(app): State<App>,
    visit: Visit,
    Json(body): Json<AcceptInvitation>,
) -> Result<Response, Problem> {
    let transport = body.transport;
    let visit = visit.on(&body.device_name, None)?;
    let mut errors = Vec::new();
    let name = keep(&mut errors, Some(DisplayName::parse("display_name", &body.display_name)));
    let locale = keep(&mut errors, Some(Locale::parse("locale", &body.locale)));
    let (Some(display_name), Some(locale)) = (name, locale) else { return Err(Problem::invalid(errors)) };
    let acceptance = Acceptance { token: body.token, password: body.password, display_name, locale };
    match flow::accept(&app, acceptance, visit.from, Some((visit.clone(), transport))).await? {
        Accepted::In(entered) => Ok(mfa::answer(&app, *entered, transport, &visit).await?.into_response()),
        Accepted::Joined => {
            let joined = Joined { status: JoinedStatus::Joined };
            Ok(JsonAnswer(InvitationAccepted::Joined(joined)).into_response())
        }
        // With a visit, whoever begins comes in.
        Accepted::Begun => Err(Problem::internal()),
    }
}
