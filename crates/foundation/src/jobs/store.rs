//! The statements of the job tables.

use crate::jobs::JobRow;
use crate::kernel::{Id, Timestamp};
use crate::{record, statements};

statements! {
    INSERT = "INSERT INTO jobs (id, kind, unique_key, payload, run_at, deadline_at, created_at, attempts, fence, history)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, '[]') ON CONFLICT (unique_key) DO NOTHING RETURNING fence";
    NEXT_DUE = "SELECT run_at FROM jobs ORDER BY run_at LIMIT 1";
    CLAIM = "UPDATE jobs SET fence = fence + 1, attempts = attempts + 1, run_at = $2
        WHERE id IN (SELECT id FROM jobs WHERE run_at <= $1 ORDER BY run_at LIMIT $3 /*pg FOR UPDATE SKIP LOCKED */)
        RETURNING id, kind, unique_key, payload, attempts, fence, deadline_at, history";
    HEARTBEAT = "UPDATE jobs SET run_at = $3 WHERE id = $1 AND fence = $2";
    FINISH = "DELETE FROM jobs WHERE id = $1 AND fence = $2";
    RETRY = "UPDATE jobs SET run_at = $3, history = $4 WHERE id = $1 AND fence = $2";
    /// Gives the job back unharmed: the attempt did not count.
    RELEASE = "UPDATE jobs SET run_at = $3, attempts = attempts - 1 WHERE id = $1 AND fence = $2";
    BURY = "INSERT INTO dead_jobs (id, kind, unique_key, payload, attempts, created_at, died_at, reason, history)
        SELECT id, kind, unique_key, payload, attempts, created_at, $3, $4, $5 FROM jobs WHERE id = $1 AND fence = $2";
    COUNT = "SELECT kind, CAST(COUNT(*) AS BIGINT) FROM jobs GROUP BY kind ORDER BY kind";
    DEAD = "SELECT kind, reason FROM dead_jobs ORDER BY died_at";
}

record! {
    /// A job that this worker holds.
    #[derive(Debug, Clone)]
    pub(super) struct Claimed {
        pub(super) id: Id<JobRow>,
        pub(super) kind: String,
        pub(super) unique_key: String,
        pub(super) payload: String,
        pub(super) attempts: i64,
        pub(super) fence: i64,
        pub(super) deadline: Timestamp,
        pub(super) history: String,
    }
}
