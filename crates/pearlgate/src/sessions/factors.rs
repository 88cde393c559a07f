//! What a second factor does to a session: it is shown in one, a device need not show it for a while, and it goes.

use foundation::db::{self, Tx};
use foundation::kernel::{Id, Timestamp};
use foundation::params;

use super::flow::{Started, life};
use super::guard::Current;
use super::model::{Proof, SessionRow};
use super::store;
use crate::accounts::UserRow;
use crate::app::App;

/// The device of a session that begins need not show the factor for so long.
///
/// # Errors
/// As every statement.
pub fn trust(tx: &mut Tx<'_>, started: &Started, until: Timestamp) -> db::Result<()> {
    let row = &started.row;
    tx.execute(&store::TRUST, params![row.user_id, row.device_id, until]).map(|_| ())
}

/// A factor was shown in a session, which goes on with the tokens that it has.
///
/// # Errors
/// As every statement.
pub fn factor_shown(tx: &mut Tx<'_>, app: &App, current: &Current, proof: Proof) -> db::Result<()> {
    let (row, now) = (&current.row, app.clock.now());
    let knows = proof.knows(&row.amr) || proof.aal >= 2;
    if knows && row.aal < 2 {
        shorten(tx, app, row.session_id, row.user_id)?;
    }
    let amr = proof.added_to(&row.amr, knows);
    tx.execute(&store::SHOWN, params![row.session_id, now, i64::from(knows), amr]).map(|_| ())
}

/// A session that shows a factor only now lives no longer than one that began with it.
pub(super) fn shorten(
    tx: &mut Tx<'_>,
    app: &App,
    session: Id<SessionRow>,
    user: Id<UserRow>,
) -> db::Result<()> {
    let life = life(tx, app, user, 2)?;
    let idle = i64::try_from(life.idle.as_micros()).unwrap_or(i64::MAX);
    let now = app.clock.now();
    tx.execute(&store::SHORTEN, params![session, now + life.absolute, idle])?;
    tx.execute(&store::SHORTEN_TOKEN, params![session, now + life.idle]).map(|_| ())
}

/// The same for every session of somebody that has shown a second factor, when what they are changed.
///
/// # Errors
/// As every statement.
pub fn shorten_all(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<()> {
    let strong: Vec<(Id<SessionRow>,)> = tx.all(&store::STRONG, params![user])?;
    strong.into_iter().try_for_each(|(session,)| shorten(tx, app, session, user))
}

/// The session as it is by now; none when it ended meanwhile.
///
/// # Errors
/// As every statement.
pub fn again(tx: &mut Tx<'_>, app: &App, current: &Current) -> db::Result<Option<Current>> {
    let row = store::load(tx, current.row.session_id, app.clock.now())?;
    Ok(row.map(|row| current.with(row)))
}

/// The person's factor is gone: no session has shown it any more.
///
/// # Errors
/// As every statement.
pub fn factor_gone(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<()> {
    tx.execute(&store::FACTOR_GONE, params![user])?;
    tx.execute(&store::FACTOR_WAS_GONE, params![user]).map(|_| ())
}
