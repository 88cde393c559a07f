//! Counters in the database, which all processes share. One statement decides; keys are slots of a fixed number, so the
//! table is bounded whatever comes.

use super::Key;
use super::gcra::Quota;
use crate::db::{self, Tx};
use crate::kernel::Timestamp;
use crate::{params, statements};

statements! {
    /// $3 is the earliest moment to count from, $4 the interval, $5 the latest moment that may be reached, $6 the latest
    /// that can have been.
    TAKE = "INSERT INTO limits (key, free_at) VALUES ($1, $2)
        ON CONFLICT (key) DO UPDATE SET free_at =
            CASE WHEN limits.free_at > $3 AND limits.free_at <= $6 THEN limits.free_at ELSE $3 END + $4
        WHERE CASE WHEN limits.free_at > $3 AND limits.free_at <= $6 THEN limits.free_at ELSE $3 END + $4 <= $5
        RETURNING free_at";
    STANDS = "SELECT free_at FROM limits WHERE key = $1";
    GIVE_BACK = "UPDATE limits SET free_at = free_at - $2 WHERE key = $1";
    FORGET = "DELETE FROM limits WHERE key = $1";
    SWEEP = "DELETE FROM limits WHERE key IN (SELECT l.key FROM limits l WHERE l.free_at <= $1 ORDER BY l.free_at LIMIT 500
        /*pg FOR UPDATE SKIP LOCKED */)";
}

/// Tries once, from `known` at the earliest: whether it is allowed, and the number after it.
pub(super) fn take(
    tx: &mut Tx<'_>,
    key: Key,
    quota: &Quota,
    now: Timestamp,
    known: i64,
) -> db::Result<(bool, i64)> {
    let (allowed, first) = quota.try_at(known, now);
    if !allowed {
        return Ok((false, first));
    }
    let (key, from) = (key.as_number(), quota.from(known, now));
    let latest = now.micros().saturating_add(quota.window());
    let most = quota.latest(now);
    if let Some((free_at,)) =
        tx.opt::<(i64,)>(&TAKE, params![key, first, from, quota.interval(), latest, most])?
    {
        return Ok((true, free_at));
    }
    let stands: Option<(i64,)> = tx.opt(&STANDS, params![key])?;
    Ok((false, stands.map_or(from, |(free_at,)| free_at.max(from))))
}

/// The attempt counts no more.
pub(super) fn give_back(tx: &mut Tx<'_>, key: Key, quota: &Quota) -> db::Result<()> {
    tx.execute(&GIVE_BACK, params![key.as_number(), quota.interval()]).map(|_| ())
}

/// Nothing counts any more.
pub(super) fn forget(tx: &mut Tx<'_>, key: Key) -> db::Result<()> {
    tx.execute(&FORGET, params![key.as_number()]).map(|_| ())
}

/// Forgets a batch of what counts no more. True when there is more.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> db::Result<bool> {
    Ok(tx.execute(&SWEEP, params![now])? >= 500)
}
