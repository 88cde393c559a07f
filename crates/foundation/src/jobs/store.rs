//! The statements of the job tables.

use crate::jobs::JobRow;
use crate::kernel::{Id, Timestamp};
use crate::{record, statements};

statements! {
    INSERT = "INSERT INTO jobs (id, kind, unique_key, payload, run_at, deadline_at, created_at, attempts, fence, history,
            lane, puts)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, '[]', $8, 0) ON CONFLICT (unique_key) DO NOTHING RETURNING fence";
    INSERT_AGAIN = "INSERT INTO jobs (id, kind, unique_key, payload, run_at, deadline_at, created_at, attempts, fence,
            history, lane, puts)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, '[]', $8, 0)
        ON CONFLICT (unique_key) DO UPDATE SET puts = jobs.puts + 1 RETURNING fence";
    /// One that runs now keeps its lease: it has an attempt that is not given back.
    INSERT_NOW = "INSERT INTO jobs (id, kind, unique_key, payload, run_at, deadline_at, created_at, attempts, fence,
            history, lane, puts)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, '[]', $8, 0)
        ON CONFLICT (unique_key) DO UPDATE SET puts = jobs.puts + 1,
            run_at = CASE WHEN jobs.attempts = 0 AND jobs.run_at > excluded.run_at THEN excluded.run_at
                ELSE jobs.run_at END
        RETURNING fence";
    /// The next lane after one, and when the first of its jobs is due.
    NEXT_LANE = "SELECT lane, run_at FROM jobs WHERE lane > $1 ORDER BY lane, run_at LIMIT 1";
    CLAIM = "UPDATE jobs SET fence = fence + 1, attempts = attempts + 1, run_at = $2
        WHERE id IN (SELECT id FROM jobs WHERE lane = $4 AND run_at <= $1 ORDER BY run_at LIMIT $3
            /*pg FOR UPDATE SKIP LOCKED */)
        RETURNING id, kind, unique_key, payload, attempts, fence, deadline_at, history, lane, puts";
    HEARTBEAT = "UPDATE jobs SET run_at = $3 WHERE id = $1 AND fence = $2";
    /// Unless it was put again while it ran ($3 is how often it had been when it began).
    FINISH = "DELETE FROM jobs WHERE id = $1 AND fence = $2 AND puts = $3";
    AGAIN = "UPDATE jobs SET run_at = $3, attempts = 0, history = '[]' WHERE id = $1 AND fence = $2";
    DROP = "DELETE FROM jobs WHERE id = $1 AND fence = $2";
    RETRY = "UPDATE jobs SET run_at = $3, history = $4 WHERE id = $1 AND fence = $2";
    /// Gives the job back unharmed: the attempt did not count.
    RELEASE = "UPDATE jobs SET run_at = $3, attempts = attempts - 1 WHERE id = $1 AND fence = $2";
    BURY = "INSERT INTO dead_jobs
            (id, kind, unique_key, payload, attempts, created_at, died_at, reason, history, lane, deadline_at)
        SELECT id, kind, unique_key, payload, attempts, created_at, $3, $4, $5, lane, deadline_at
        FROM jobs WHERE id = $1 AND fence = $2";
    WAITING_IN = "SELECT CAST(COUNT(*) AS BIGINT) FROM (SELECT 1 FROM jobs WHERE lane = $1 LIMIT 10000) w";
    /// Not tried: it counts as never begun. Soon ($5) when it was put again while it ran.
    POSTPONE = "UPDATE jobs SET run_at = CASE WHEN puts = $4 THEN CAST($3 AS BIGINT) ELSE CAST($5 AS BIGINT) END, attempts = 0
        WHERE id = $1 AND fence = $2";
    /// Some of what waits in a lane for another time does not wait any longer.
    WAKE_LANE = "UPDATE jobs SET run_at = $2 WHERE id IN
        (SELECT id FROM jobs WHERE lane = $1 AND run_at > $2 AND attempts = 0 ORDER BY run_at LIMIT 500
            /*pg FOR UPDATE SKIP LOCKED */)";
    /// What runs there runs once more.
    ONCE_MORE = "UPDATE jobs SET puts = puts + 1 WHERE lane = $1 AND run_at > $2 AND attempts > 0";
    COUNT = "SELECT kind, CAST(COUNT(*) AS BIGINT) FROM jobs GROUP BY kind ORDER BY kind";
    DEAD = "SELECT kind, reason FROM dead_jobs ORDER BY died_at";
    NEWEST = "SELECT id, kind, lane, unique_key, run_at, deadline_at, created_at, attempts, fence, history FROM jobs
        WHERE id < $1 ORDER BY id DESC LIMIT $2";
    NEWEST_DEAD = "SELECT id, kind, lane, deadline_at, created_at, attempts, died_at, reason, history FROM dead_jobs
        WHERE id < $1 ORDER BY id DESC LIMIT $2";
    ONE = "SELECT id, kind, lane, unique_key, run_at, deadline_at, created_at, attempts, fence, history FROM jobs
        WHERE id = $1";
    ONE_DEAD = "SELECT id, kind, lane, deadline_at, created_at, attempts, died_at, reason, history FROM dead_jobs
        WHERE id = $1";
    /// One with the unique key of a job that was given up.
    IN_THE_WAY = "SELECT j.id FROM dead_jobs d JOIN jobs j ON j.unique_key = d.unique_key WHERE d.id = $1";
    REVIVE = "INSERT INTO jobs (id, kind, unique_key, payload, run_at, deadline_at, created_at, attempts, fence, history,
            lane, puts)
        SELECT d.id, d.kind, d.unique_key, d.payload, $2, $3, d.created_at, 0, 0, '[]', d.lane, 0
        FROM dead_jobs d WHERE d.id = $1 ON CONFLICT (unique_key) DO NOTHING RETURNING fence";
    DROP_DEAD = "DELETE FROM dead_jobs WHERE id = $1 RETURNING died_at";
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
        pub(super) lane: String,
        pub(super) puts: i64,
    }
}

record! {
    /// A job that waits or runs, as it is looked at.
    #[derive(Debug, Clone)]
    pub(super) struct Line {
        pub(super) id: Id<JobRow>,
        pub(super) kind: String,
        pub(super) lane: String,
        pub(super) unique_key: String,
        pub(super) run_at: Timestamp,
        pub(super) deadline: Timestamp,
        pub(super) created_at: Timestamp,
        pub(super) attempts: i64,
        pub(super) fence: i64,
        pub(super) history: String,
    }
}

record! {
    /// A job that was given up, as it is looked at. Of those from before that was written down, the deadline is 0.
    #[derive(Debug, Clone)]
    pub(super) struct Grave {
        pub(super) id: Id<JobRow>,
        pub(super) kind: String,
        pub(super) lane: String,
        pub(super) deadline: Timestamp,
        pub(super) created_at: Timestamp,
        pub(super) attempts: i64,
        pub(super) died_at: Timestamp,
        pub(super) reason: String,
        pub(super) history: String,
    }
}
