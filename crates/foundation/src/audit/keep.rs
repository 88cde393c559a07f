//! Old events go, and their chains stay whole: what goes is always the beginning of a chain, and where the chain goes on
//! from is written down in the same transaction.

use super::chain::Chain;
use super::store::{self, End, Stored};
use crate::db::{self, Tx};
use crate::kernel::Timestamp;
use crate::params;

/// Events that go in one transaction.
const MOST: i64 = 500;
/// Chains that are looked at in one transaction, as the statement has it.
const CHAINS: usize = 50;
/// Nothing of a chain may go: there is but its newest event.
const NOTHING: Timestamp = Timestamp::from_micros(i64::MAX);

/// Removes events from before a moment, the oldest of each chain, and gives whether there may be more of them. The newest
/// event of a chain stays however old it is. So does a chain that does not hold, with what is wrong with it.
///
/// # Errors
/// [`db::Error`] as every statement.
pub fn prune(tx: &mut Tx<'_>, before: Timestamp) -> db::Result<bool> {
    let due: Vec<End> = tx.all(&store::DUE, params![before])?;
    let share = MOST / i64::try_from(due.len()).unwrap_or(MOST).max(1);
    let mut more = due.len() >= CHAINS;
    for head in &due {
        let oldest = shorten(tx, head, before, share)?;
        tx.execute(&store::SET_OLDEST, params![head.stream, oldest])?;
        more |= oldest < before;
    }
    Ok(more)
}

/// Takes at most so many events from the beginning of a chain whose head is locked, and gives from when the next one is that
/// may go.
fn shorten(tx: &mut Tx<'_>, head: &End, before: Timestamp, most: i64) -> db::Result<Timestamp> {
    let base: Option<End> = tx.opt(&store::BASE_OF, params![head.stream])?;
    let mut chain = Chain::new(&head.stream, None);
    base.iter().for_each(|base| chain.go_on_from(base));
    let start = chain.passed();
    let events: Vec<Stored> = tx.all(&store::CHAIN, params![head.stream, start, most + 1])?;
    let (mut last, mut oldest) = (None, NOTHING);
    for (event, left) in events.iter().zip((0..=most).rev()) {
        if event.seq >= head.seq {
            break;
        }
        if left == 0 || event.at >= before {
            oldest = event.at;
            break;
        }
        chain.event(event);
        if !chain.holds() {
            // Whoever looks into it finds it as it is.
            break;
        }
        last = Some(event);
    }
    if let Some(last) = last {
        tx.execute(&store::DROP_OLDEST, params![head.stream, start, last.seq])?;
        tx.execute(&store::SET_BASE, params![head.stream, last.seq, last.hash])?;
    }
    Ok(oldest)
}
