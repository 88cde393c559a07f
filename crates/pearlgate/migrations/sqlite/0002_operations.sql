-- What the server itself needs: keys, work, what happened, answers given before.

-- A key that signs access tokens; the private half is sealed under the master key.
CREATE TABLE signing_keys (
    kid TEXT NOT NULL PRIMARY KEY,
    algorithm TEXT NOT NULL,
    sealed BLOB NOT NULL,
    public_jwk TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Work to be done from run_at on. Whoever takes it moves run_at to the end of the lease and raises the fence.
CREATE TABLE jobs (
    id BLOB NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    unique_key TEXT NOT NULL UNIQUE,
    payload TEXT NOT NULL,
    run_at INTEGER NOT NULL,
    deadline_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    history TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_run_at ON jobs (run_at);

-- Work that was given up, with everything that went wrong.
CREATE TABLE dead_jobs (
    id BLOB NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    unique_key TEXT NOT NULL,
    payload TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    died_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    history TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_jobs_died_at ON dead_jobs (died_at);

-- The head of each chain of events.
CREATE TABLE audit_streams (
    stream TEXT NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What happened; append-only. Each hash covers its predecessor's.
CREATE TABLE audit_events (
    stream TEXT NOT NULL,
    seq INTEGER NOT NULL,
    id BLOB NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    address TEXT NOT NULL,
    details TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (stream, seq)
) STRICT, WITHOUT ROWID;

-- An answer that was given under an Idempotency-Key.
CREATE TABLE idempotency_keys (
    key_digest BLOB NOT NULL PRIMARY KEY,
    body_mac BLOB NOT NULL,
    status INTEGER NOT NULL,
    body TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);
