//! Introspection (RFC 7662) for services that would rather ask than verify: the store is asked each time.

use foundation::kernel::{Problem, Secret};
use serde::Serialize;
use utoipa::ToSchema;

use super::access_tokens::{Claims, TokenRefusal};
use super::store;
use crate::app::App;

/// What is said of a token: everything it says itself, or that it is not active and nothing else (RFC 7662 §2.2).
#[derive(Debug, Serialize, ToSchema)]
pub struct Introspected {
    /// Whether it opens anything now.
    active: bool,
    #[serde(flatten)]
    #[schema(value_type = Option<Object>)]
    claims: Option<Active>,
}

#[derive(Debug, Serialize)]
struct Active {
    token_type: &'static str,
    #[serde(flatten)]
    claims: Claims,
}

/// Is this access token good, and does its session live?
///
/// # Errors
/// 503 when the store or the keys cannot be asked: nobody is told that a token is dead because we do not know.
pub(super) async fn introspect(app: &App, token: &Secret) -> Result<Introspected, Problem> {
    let now = app.clock.now();
    let inactive = Introspected { active: false, claims: None };
    let claims = match app.access_tokens.verify(token.reveal(), now) {
        Ok(claims) => claims,
        Err(TokenRefusal::NoKeys) => {
            return Err(Problem::unavailable("The signing keys have not been loaded yet; try again."));
        }
        Err(TokenRefusal::Invalid | TokenRefusal::Expired) => return Ok(inactive),
    };
    let session = claims.sid;
    let found = app.db.read_one(move |tx| store::load(tx, session, now)).await.map_err(|e| e.to_problem())?;
    Ok(match found.filter(|row| row.user_id == claims.sub) {
        Some(_) => Introspected {
            active: true,
            claims: Some(Active { token_type: "Bearer", claims: Claims::clone(&claims) }),
        },
        None => inactive,
    })
}
