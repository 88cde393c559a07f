//! `/v1/admin/mail`: what became of mails. What stood in them is nowhere to be seen.

use axum::Json as JsonAnswer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use foundation::kernel::{FieldError, PageRequest, Problem};
use foundation::mail::{self, Delivery};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shared::{placed, position};
use crate::access::Operator;
use crate::access::http::named;
use crate::accounts::address_key;
use crate::app::App;
use crate::openapi::ProblemDocument;

/// Longer than any address is.
const LONGEST: usize = 320;

/// A mail and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminMail {
    /// `mail_…`: its Message-ID is made from it.
    id: String,
    /// What it is about.
    #[schema(example = "verify_email")]
    kind: String,
    /// Whom it is for.
    to: String,
    /// `waiting`, `sent`, `delivered`, `bounced`, `complained`, `suppressed` (its address is left alone) or `given_up`.
    #[schema(example = "delivered")]
    state: String,
    /// Who took it; empty when nobody did.
    provider: String,
    /// What the provider calls it; empty when it said nothing.
    reference: String,
    /// What was said last.
    detail: String,
    /// When it was put.
    created_at: String,
    /// When it became so.
    changed_at: String,
}

impl AdminMail {
    fn of(mail: Delivery) -> Self {
        Self {
            id: mail.id.to_string(),
            kind: mail.kind,
            to: mail.recipient,
            state: mail.state,
            provider: mail.provider,
            reference: mail.reference,
            detail: mail.detail,
            created_at: mail.created_at.to_string(),
            changed_at: mail.changed_at.to_string(),
        }
    }
}

/// One page of mails.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminMails {
    /// The newest first, of the last 30 days.
    items: Vec<AdminMail>,
    /// For the next page; empty on the last one.
    next_cursor: String,
}

/// Which mails to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListMail {
    to: Option<String>,
    limit: Option<u16>,
    cursor: Option<String>,
}

/// Mails
///
/// All of them, or those to one address. Not what stood in them.
#[utoipa::path(get, path = "/v1/admin/mail", tag = "admin", security(("access_token" = [])),
    params(("to" = Option<String>, Query, description = "one address"),
        ("limit" = Option<u16>, Query, description = "1 to 200, 50 by default"), ("cursor" = Option<String>, Query, description = "the previous page's next_cursor")),
    responses((status = 200, body = AdminMails), (status = "4XX", body = ProblemDocument)))]
pub async fn list_mail(
    State(app): State<App>,
    _: Operator,
    query: Result<Query<ListMail>, QueryRejection>,
) -> Result<JsonAnswer<AdminMails>, Problem> {
    let invalid = |field: &str, words: &str| Problem::invalid(vec![FieldError::new(field, "invalid", words)]);
    let Query(wanted) = query.map_err(|_| {
        invalid("limit", "give to, limit as a number from 1 to 200, cursor, and nothing else")
    })?;
    if wanted.to.as_ref().is_some_and(|to| to.len() > LONGEST || to.contains('\0')) {
        return Err(invalid("to", "is one address"));
    }
    let to = wanted.to.as_deref().map(address_key);
    let list = format!("mail:{to:?}");
    let request = PageRequest { limit: wanted.limit, cursor: wanted.cursor };
    let (limit, after) = app.cursors.open_text(&list, &request)?;
    let found = mail::page(&app.db, to, placed(&after), limit + 1).await.map_err(|e| e.to_problem())?;
    let more = found.len() > usize::from(limit);
    let items: Vec<Delivery> = found.into_iter().take(limit.into()).collect();
    let next = items.last().filter(|_| more).map(|last| position(last.created_at, last.id));
    Ok(JsonAnswer(AdminMails {
        items: items.into_iter().map(AdminMail::of).collect(),
        next_cursor: next.map(|position| app.cursors.issue_text(&list, &position)).unwrap_or_default(),
    }))
}

/// One mail
#[utoipa::path(get, path = "/v1/admin/mail/{id}", tag = "admin", security(("access_token" = [])),
    params(("id" = String, Path, description = "`mail_…`")),
    responses((status = 200, body = AdminMail), (status = "4XX", body = ProblemDocument)))]
pub async fn one_mail(
    State(app): State<App>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<JsonAnswer<AdminMail>, Problem> {
    let found = mail::find(&app.db, named(&id)?).await.map_err(|e| e.to_problem())?;
    found.map(|mail| JsonAnswer(AdminMail::of(mail))).ok_or_else(Problem::not_found)
}
