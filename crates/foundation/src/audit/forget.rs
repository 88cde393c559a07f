//! Everything that a chain holds goes, and the chain stays whole: it goes on from where it was. For somebody who is to be
//! forgotten, whose events are about nobody else.

use super::Stream;
use super::store::{self, End};
use crate::db::{self, Tx};
use crate::kernel::Timestamp;
use crate::params;

/// Nothing of it may go: nothing is left.
const NOTHING: Timestamp = Timestamp::from_micros(i64::MAX);

/// Removes every event of a chain, whatever their age and whether or not they hold, and gives how many there were. What is
/// recorded after this goes on from the number and the hash that the chain had, so that a checkpoint of before finds nothing
/// wrong with it.
///
/// # Errors
/// [`db::Error`] as every statement.
pub fn forget(tx: &mut Tx<'_>, stream: &Stream) -> db::Result<u64> {
    // As recording locks it: nobody writes between the look and the end of this transaction.
    let Some(head) = tx.opt::<End>(&store::LOCK_HEAD, params![stream.0])? else { return Ok(0) };
    let gone = tx.execute(&store::DROP_ALL, params![stream.0])?;
    tx.execute(&store::SET_BASE, params![head.stream, head.seq, head.hash])?;
    tx.execute(&store::SET_OLDEST, params![head.stream, NOTHING])?;
    Ok(gone)
}
