//! What operators' calls have in common: something is done once under its key, and a list goes on where it stopped.

use foundation::db;
use foundation::http::IdempotencyKey;
use foundation::kernel::{Entity, Id, Problem, Timestamp};
use serde::de::DeserializeOwned;

use crate::access::Denied;
use crate::access::http::settled;
use crate::app::App;

/// Does something once under a key, and answers as the first time. `work` gives none when it finds that it was done.
///
/// # Errors
/// As [`Denied::problem`]; 422 `idempotency_key_reused`; 503.
pub(crate) async fn once<T: DeserializeOwned>(
    app: &App,
    key: &IdempotencyKey,
    work: impl Future<Output = db::Result<Result<Option<T>, Denied>>>,
) -> Result<T, Problem> {
    if let Some(first) = before(app, key).await? {
        return Ok(first);
    }
    let done = match settled(work.await) {
        Ok(Some(done)) => return Ok(done),
        Ok(None) => Problem::internal(),
        Err(problem) => problem,
    };
    // Whoever asked at the same time under this key was first: what they were answered is the answer.
    before(app, key).await?.ok_or(done)
}

async fn before<T: DeserializeOwned>(app: &App, key: &IdempotencyKey) -> Result<Option<T>, Problem> {
    let first = key.replay(&app.db, app.clock.now()).await?;
    let read = first.map(|first| serde_json::from_str(&first.body).map_err(|_| Problem::internal()));
    read.transpose()
}

/// The position of something in a list of moments.
pub(super) fn position<E: Entity>(at: Timestamp, id: Id<E>) -> String {
    format!("{} {id}", at.micros())
}

/// The moment and the id of a position; without one, where a list begins whose newest comes first.
pub(super) fn placed<E: Entity>(position: &str) -> (Timestamp, Id<E>) {
    let read: Option<(i64, Id<E>)> =
        position.split_once(' ').and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    read.map_or_else(
        || (Timestamp::from_micros(i64::MAX), Id::from_bytes([0xff; 16])),
        |(at, id)| (Timestamp::from_micros(at), id),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::MessageRow;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let id = Id::<MessageRow>::from_bytes([7; 16]);
        let at = Timestamp::from_micros(1_795_430_000_000_001);
        assert_eq!(placed(&position(at, id)), (at, id));
        for none in ["", "1", "x y", "1 usr_07070707070707070707070707070707"] {
            assert_eq!(placed::<MessageRow>(none).0, Timestamp::from_micros(i64::MAX), "{none:?}");
        }
    }
}
