-- What the server itself needs: keys, work, what happened, answers given before.

-- A key that signs access tokens; the private half is sealed under the master key.
CREATE TABLE signing_keys (
    kid TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    algorithm TEXT COLLATE "C" NOT NULL,
    sealed BYTEA NOT NULL,
    public_jwk TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL
);

-- Work to be done from run_at on. Whoever takes it moves run_at to the end of the lease and raises the fence.
CREATE TABLE jobs (
    id BYTEA NOT NULL PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    unique_key TEXT COLLATE "C" NOT NULL UNIQUE,
    payload TEXT COLLATE "C" NOT NULL,
    run_at BIGINT NOT NULL,
    deadline_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    history TEXT COLLATE "C" NOT NULL
);
CREATE INDEX jobs_run_at ON jobs (run_at);

-- Work that was given up, with everything that went wrong.
CREATE TABLE dead_jobs (
    id BYTEA NOT NULL PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    unique_key TEXT COLLATE "C" NOT NULL,
    payload TEXT COLLATE "C" NOT NULL,
    attempts BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    died_at BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    history TEXT COLLATE "C" NOT NULL
);
CREATE INDEX dead_jobs_died_at ON dead_jobs (died_at);

-- The head of each chain of events.
CREATE TABLE audit_streams (
    stream TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash BYTEA NOT NULL
);

-- What happened; append-only. Each hash covers its predecessor's.
CREATE TABLE audit_events (
    stream TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    id BYTEA NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    actor TEXT COLLATE "C" NOT NULL,
    address TEXT COLLATE "C" NOT NULL,
    details TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (stream, seq)
);

-- An answer that was given under an Idempotency-Key.
CREATE TABLE idempotency_keys (
    key_digest BYTEA NOT NULL PRIMARY KEY,
    body_mac BYTEA NOT NULL,
    status BIGINT NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);
