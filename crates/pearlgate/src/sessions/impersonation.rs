//! Sessions in which an operator is somebody else: one access token that says so, nothing that renews it, and never fresh.

use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Id, Problem, Secret, Timestamp};
use foundation::params;

use super::access_tokens::Actor;
use super::devices::DeviceRow;
use super::flow::{end, nearest_second, signed};
use super::model::{EndReason, SessionRow};
use super::store::{self, SessionUser};
use crate::accounts::UserRow;
use crate::app::App;

/// What such a session is called in the person's list.
const NAME: &str = "An operator of this service";

/// An operator who is to be somebody else, and why.
#[derive(Debug, Clone, Copy)]
pub struct AsAnother<'r> {
    /// The operator, in their session: it goes on no longer than that one.
    pub operator: (Id<UserRow>, Id<SessionRow>),
    /// Whom they are to be.
    pub user: Id<UserRow>,
    /// For the record.
    pub reason: &'r str,
    /// When it ends.
    pub until: Timestamp,
}

/// Begins one; none when the person is not there, or shut out.
///
/// # Errors
/// As every statement.
pub fn begin_as(tx: &mut Tx<'_>, app: &App, with: AsAnother<'_>) -> db::Result<Option<SessionUser>> {
    let (now, id) = (app.clock.now(), Id::<SessionRow>::new(&app.clock, &app.chance));
    tx.opt::<(Id<UserRow>,)>(&store::LOCK_BEGINNER, params![with.user])?;
    // A device of nobody's: it is not remembered.
    let device: Id<DeviceRow> = Id::from_bytes(app.chance.bytes());
    let values = params![id, with.user, now, with.until, device, NAME];
    if tx.opt::<(Timestamp,)>(&store::BEGIN_AS, values)?.is_none() {
        return Ok(None);
    }
    let (operator, session) = with.operator;
    tx.execute(&store::IMPERSONATE, params![id, operator, session, with.reason])?;
    store::load(tx, id, now)
}

/// What somebody may has changed: nobody is another by what they could do before, and nobody is them.
///
/// # Errors
/// As every statement.
pub fn end_as(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<()> {
    let sessions: Vec<(Id<SessionRow>,)> = tx.all(&store::AS_ANOTHER, params![user])?;
    for (session,) in sessions {
        end(tx, app, session, EndReason::RevokedByAdmin, ClientAddress::NOWHERE)?;
    }
    Ok(())
}

/// Its access token, and for how many seconds that is good.
///
/// # Errors
/// 503 before the signing keys are loaded.
pub async fn token_as(app: &App, row: &SessionUser, operator: Id<UserRow>) -> Result<(Secret, u64), Problem> {
    let token = signed(app, row, Some(Actor { sub: operator })).await?;
    let left = app.clock.now().until(row.expires_at).min(app.access_tokens.lifetime());
    Ok((token, nearest_second(left)))
}
