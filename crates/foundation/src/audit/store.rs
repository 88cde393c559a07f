//! The statements about what happened.

use crate::kernel::Timestamp;
use crate::{record, statements};

statements! {
    /// Takes the chain's next number and locks its head until the transaction ends. A chain that had one event, which stays, has
    /// one now that may go some day: it is looked at.
    NEXT = "INSERT INTO audit_streams (stream, seq, hash, oldest_at) VALUES ($1, 1, $2, 9223372036854775807)
        ON CONFLICT (stream) DO UPDATE SET seq = audit_streams.seq + 1, oldest_at =
            CASE WHEN audit_streams.oldest_at = 9223372036854775807 THEN 0 ELSE audit_streams.oldest_at END
        RETURNING seq, hash";
    INSERT = "INSERT INTO audit_events (stream, seq, id, at, kind, actor, address, details, hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    HEAD = "UPDATE audit_streams SET hash = $2 WHERE stream = $1";
    /// The newest of a chain.
    LIST = "SELECT stream, seq, id, at, kind, actor, address, details, hash FROM audit_events
        WHERE stream = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3";
    /// A chain from a number on.
    CHAIN = "SELECT stream, seq, id, at, kind, actor, address, details, hash FROM audit_events
        WHERE stream = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    /// All chains, one after the other.
    WALK = "SELECT stream, seq, id, at, kind, actor, address, details, hash FROM audit_events
        WHERE (stream, seq) > ($1, $2) ORDER BY stream, seq LIMIT $3";
    HEAD_OF = "SELECT stream, seq, hash FROM audit_streams WHERE stream = $1";
    HEADS = "SELECT stream, seq, hash FROM audit_streams WHERE stream >= $1 ORDER BY stream LIMIT $2";
    BASE_OF = "SELECT stream, seq, hash FROM audit_bases WHERE stream = $1";
    BASES = "SELECT stream, seq, hash FROM audit_bases WHERE stream >= $1 ORDER BY stream LIMIT $2";

    BEFORE = "SELECT stream, seq, id, at, kind, actor, address, details, hash FROM audit_events
        WHERE at < $1 AND at >= $2 ORDER BY at DESC LIMIT $3";
    AFTER = "SELECT stream, seq, id, at, kind, actor, address, details, hash FROM audit_events
        WHERE at > $1 AND at < $2 ORDER BY at LIMIT $3";
    AT = "SELECT stream, seq, id, at, kind, actor, address, details, hash FROM audit_events WHERE at = $1";
    /// Nobody known is in no index: there are too many.
    BEFORE_BY = "SELECT stream, seq, id, at, kind, actor, address, details, hash FROM audit_events
        WHERE actor = $1 AND actor <> '' AND at < $2 AND at >= $3 ORDER BY at DESC LIMIT $4";
    AFTER_BY = "SELECT stream, seq, id, at, kind, actor, address, details, hash FROM audit_events
        WHERE actor = $1 AND actor <> '' AND at > $2 AND at < $3 ORDER BY at LIMIT $4";
    AT_BY = "SELECT stream, seq, id, at, kind, actor, address, details, hash FROM audit_events
        WHERE actor = $1 AND actor <> '' AND at = $2";

    /// Chains that have something to go, locked as recording locks them; who is being written to just now is left for next time.
    DUE = "SELECT stream, seq, hash FROM audit_streams WHERE oldest_at < $1 ORDER BY oldest_at LIMIT 50
        /*pg FOR UPDATE SKIP LOCKED */";
    DROP_OLDEST = "DELETE FROM audit_events WHERE stream = $1 AND seq > $2 AND seq <= $3";
    /// A chain's head, locked as recording locks it.
    LOCK_HEAD = "SELECT stream, seq, hash FROM audit_streams WHERE stream = $1 /*pg FOR UPDATE */";
    DROP_ALL = "DELETE FROM audit_events WHERE stream = $1";
    SET_BASE = "INSERT INTO audit_bases (stream, seq, hash) VALUES ($1, $2, $3)
        ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq, hash = excluded.hash";
    SET_OLDEST = "UPDATE audit_streams SET oldest_at = $2 WHERE stream = $1";
}

record! {
    /// An event as it stands in its row, whatever somebody made of it.
    #[derive(Debug, Clone)]
    pub(super) struct Stored {
        pub(super) stream: String,
        pub(super) seq: i64,
        pub(super) id: Vec<u8>,
        pub(super) at: Timestamp,
        pub(super) kind: String,
        pub(super) actor: String,
        pub(super) address: String,
        pub(super) details: String,
        pub(super) hash: Vec<u8>,
    }
}

record! {
    /// An end of a chain: its head, or the base that it goes on from.
    #[derive(Debug, Clone)]
    pub(super) struct End {
        pub(super) stream: String,
        pub(super) seq: i64,
        pub(super) hash: Vec<u8>,
    }
}
