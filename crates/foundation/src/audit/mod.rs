//! What happened, hash-chained from the first event: each event's hash covers its predecessor's, so that a changed
//! or missing row is noticed. A stream is one chain: one person, or for what has no person one of 64 shards, so
//! that no chain makes the whole server wait on one row.
//!
//! * An event is written in the transaction of what it tells about: both or neither.
//! * Old events go from the beginning of a chain ([`prune`]). What it goes on from is its base; the newest event stays.
//! * Of somebody who is to be forgotten all of them go ([`forget()`]); their chain goes on from where it was.
//! * [`verify_all`] finds what was changed behind our back. A [`Checkpoint`] that is kept elsewhere finds it also when
//!   somebody makes a chain anew.
//! * Operators look for events ([`search()`]) and write them into files ([`export`]).

mod chain;
mod checkpoint;
mod forget;
mod keep;
mod search;
mod store;
mod verify;

use serde::Serialize;

use crate::db::{self, Db, Tx};
use crate::kernel::{Clock, Digest, Entity, Entropy, Id, Timestamp, sha256};
use crate::params;

pub use checkpoint::{Checkpoint, NotACheckpoint, NotWritten, checkpoint};
pub use forget::forget;
pub use keep::prune;
pub use search::{Filter, Found, Results, export, search};
pub use store::STATEMENTS;
pub use verify::{Broken, Checked, verify, verify_all};

use chain::{link, start_of};
use store::Stored;

/// Chains for events that belong to no person.
const SHARDS: u8 = 64;

/// Ids of events.
#[derive(Debug)]
pub struct EventRow;
impl Entity for EventRow {
    const PREFIX: &'static str = "evt";
}

/// Whose chain an event belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream(String);

impl Stream {
    /// The chain of one person (or another thing with an id).
    pub fn of<E: Entity>(id: Id<E>) -> Self {
        Self(id.to_string())
    }

    /// The shard for what has no person: chosen by the address it came from.
    pub fn shard(address: &str) -> Self {
        let [first] = sha256(address.as_bytes()).truncated::<1>();
        Self(format!("shard_{:02}", first % SHARDS))
    }

    /// The server's own: keys, settings, commands.
    pub fn server() -> Self {
        Self("server".into())
    }

    /// The chain with this name, if there is one.
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Its name in the database.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its stable name, such as `sign_in`.
    pub kind: &'static str,
    /// Who did it: an id, or empty for nobody known.
    pub actor: String,
    /// The network address it came from; empty when it came from inside.
    pub address: String,
    /// What else is worth knowing; never a secret.
    pub details: serde_json::Value,
}

/// An event as it was stored.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its number in its stream, from 1.
    pub seq: i64,
    /// Its id; zeros when somebody put something there that is none.
    pub id: Id<EventRow>,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: String,
    /// Who.
    pub actor: String,
    /// From where.
    pub address: String,
    /// JSON text.
    pub details: String,
    /// Its hash, as it stands there.
    pub hash: Vec<u8>,
}

impl Recorded {
    fn of(stored: Stored) -> Self {
        let Stored { seq, id, at, kind, actor, address, details, hash, .. } = stored;
        let id = Id::from_slice(&id).unwrap_or_else(|_| Id::from_bytes([0; 16]));
        Self { seq, id, at, kind, actor, address, details, hash }
    }
}

/// Writes events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trail {
    clock: Clock,
    chance: Entropy,
}

impl Trail {
    /// A trail that dates events by this clock.
    pub fn new(clock: Clock, chance: Entropy) -> Self {
        Self { clock, chance }
    }

    /// Writes an event at the end of a stream, in this transaction.
    ///
    /// # Errors
    /// [`db::Error`] as every statement.
    pub fn record(&self, tx: &mut Tx<'_>, stream: &Stream, event: &Event) -> db::Result<()> {
        let start = start_of(&stream.0);
        let (seq, previous): (i64, Digest) = tx.one(&store::NEXT, params![stream.0, start])?;
        let r = Stored {
            stream: stream.0.clone(),
            seq,
            id: Id::<EventRow>::new(&self.clock, &self.chance).as_bytes().to_vec(),
            at: self.clock.now(),
            kind: event.kind.to_owned(),
            actor: event.actor.clone(),
            address: event.address.clone(),
            details: event.details.to_string(),
            hash: Vec::new(),
        };
        let hash = link(previous.as_bytes(), &r);
        tx.execute(
            &store::INSERT,
            params![r.stream, seq, r.id, r.at, r.kind, r.actor, r.address, r.details, hash],
        )?;
        tx.execute(&store::HEAD, params![stream.0, hash])?;
        Ok(())
    }
}

/// The newest events of a stream before number `before`, at most `limit`.
///
/// # Errors
/// As every read.
pub async fn list(db: &Db, stream: &Stream, before: i64, limit: u16) -> db::Result<Vec<Recorded>> {
    let stream = stream.clone();
    let newest: Vec<Stored> =
        db.read_one(move |tx| tx.all(&store::LIST, params![stream.0, before, i64::from(limit)])).await?;
    Ok(newest.into_iter().map(Recorded::of).collect())
}

/// What checking a chain found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Every event is there and unchanged.
    Whole,
    /// The first number at which the chain does not hold: changed, missing, or added.
    BrokenAt(i64),
}
