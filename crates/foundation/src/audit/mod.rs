//! What happened, hash-chained from the first event: each event's hash covers its predecessor's, so that a changed
//! or missing row is noticed. A stream is one chain: one person, or for what has no person one of 64 shards, so
//! that no chain makes the whole server wait on one row.
//!
//! An event is written in the transaction of what it tells about: both or neither.

use serde::Serialize;

use crate::db::{self, Db, Tx};
use crate::kernel::{Clock, Digest, Entity, Entropy, Id, Timestamp, sha256};
use crate::{params, record, statements};

/// Chains for events that belong to no person.
const SHARDS: u8 = 64;

statements! {
    /// Takes the chain's next number and locks its head until the transaction ends.
    NEXT = "INSERT INTO audit_streams (stream, seq, hash) VALUES ($1, 1, $2)
        ON CONFLICT (stream) DO UPDATE SET seq = audit_streams.seq + 1 RETURNING seq, hash";
    INSERT = "INSERT INTO audit_events (stream, seq, id, at, kind, actor, address, details, hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    HEAD = "UPDATE audit_streams SET hash = $2 WHERE stream = $1";
    LIST = "SELECT seq, id, at, kind, actor, address, details, hash FROM audit_events
        WHERE stream = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3";
    CHAIN = "SELECT seq, id, at, kind, actor, address, details, hash FROM audit_events WHERE stream = $1 ORDER BY seq";
    HEAD_OF = "SELECT seq, hash FROM audit_streams WHERE stream = $1";
}

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

record! {
    /// An event as it was stored.
    #[derive(Debug, Clone)]
    pub struct Recorded {
        /// Its number in its stream, from 1.
        pub seq: i64,
        /// Its id.
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
        hash: Digest,
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
        let start = start_of(stream);
        let (seq, previous): (i64, Digest) = tx.one(&NEXT, params![stream.0, start])?;
        let recorded = Recorded {
            seq,
            id: Id::new(&self.clock, &self.chance),
            at: self.clock.now(),
            kind: event.kind.to_owned(),
            actor: event.actor.clone(),
            address: event.address.clone(),
            details: event.details.to_string(),
            hash: previous,
        };
        let hash = link(&previous, &recorded);
        let r = &recorded;
        tx.execute(&INSERT, params![stream.0, seq, r.id, r.at, r.kind, r.actor, r.address, r.details, hash])?;
        tx.execute(&HEAD, params![stream.0, hash])?;
        Ok(())
    }
}

/// The newest events of a stream before number `before`, at most `limit`.
///
/// # Errors
/// As every read.
pub async fn list(db: &Db, stream: &Stream, before: i64, limit: u16) -> db::Result<Vec<Recorded>> {
    let stream = stream.clone();
    db.read_one(move |tx| tx.all(&LIST, params![stream.0, before, i64::from(limit)])).await
}

/// What checking a chain found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Every event is there and unchanged.
    Whole,
    /// The first number at which the chain does not hold: changed, missing, or added.
    BrokenAt(i64),
}

/// Recomputes a whole chain.
///
/// # Errors
/// As every read.
pub async fn verify(db: &Db, stream: &Stream) -> db::Result<Verdict> {
    let name = stream.clone();
    let (head, events) = db
        .scan(move |tx| {
            let head: Option<(i64, Digest)> = tx.opt(&HEAD_OF, params![name.0])?;
            Ok((head, tx.all::<Recorded>(&CHAIN, params![name.0])?))
        })
        .await?;
    let (mut expected, mut previous) = (1, start_of(stream));
    for event in events {
        if event.seq != expected || link(&previous, &event) != event.hash {
            return Ok(Verdict::BrokenAt(expected));
        }
        (expected, previous) = (expected + 1, event.hash);
    }
    match head {
        Some((seq, hash)) if seq + 1 == expected && hash == previous => Ok(Verdict::Whole),
        None if expected == 1 => Ok(Verdict::Whole),
        _ => Ok(Verdict::BrokenAt(expected)),
    }
}

fn start_of(stream: &Stream) -> Digest {
    sha256(stream.0.as_bytes())
}

/// The hash of an event: over its predecessor's hash and each of its parts with its length.
fn link(previous: &Digest, event: &Recorded) -> Digest {
    let (seq, at) = (event.seq.to_be_bytes(), event.at.micros().to_be_bytes());
    let parts: [&[u8]; 8] = [
        previous.as_bytes(),
        &seq,
        &at,
        event.id.as_bytes(),
        event.kind.as_bytes(),
        event.actor.as_bytes(),
        event.address.as_bytes(),
        event.details.as_bytes(),
    ];
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    sha256(&bytes)
}
