-- Sessions that neither leak nor fall apart.

-- When one of the session's tokens was last shown; written in batches, never for each request.
ALTER TABLE sessions ADD COLUMN last_seen_at BIGINT NOT NULL DEFAULT 0;
-- How long its refresh token is good while nobody uses it, in microseconds.
ALTER TABLE sessions ADD COLUMN idle BIGINT NOT NULL DEFAULT 2592000000000;
-- Roughly where it began, in words; empty when nobody knows.
ALTER TABLE sessions ADD COLUMN place TEXT COLLATE "C" NOT NULL DEFAULT '';
UPDATE sessions SET last_seen_at = created_at;

-- From when on the key signs: later than it was published, so that every cache knows it by then.
ALTER TABLE signing_keys ADD COLUMN signs_from BIGINT NOT NULL DEFAULT 0;

-- For those who ask which sessions ended since.
CREATE INDEX ended_sessions_ended_at ON ended_sessions (ended_at);

-- A device on which a person has signed in.
CREATE TABLE devices (
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device_id BYTEA NOT NULL,
    first_seen_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
CREATE INDEX devices_last_seen_at ON devices (last_seen_at);
INSERT INTO devices (user_id, device_id, first_seen_at, last_seen_at)
    SELECT user_id, device_id, MIN(created_at), MAX(created_at) FROM sessions GROUP BY user_id, device_id;

-- The person proved who they are once more, and the session got a new refresh token: this is the token it had, and
-- the one before it, and what the session was. They count for nothing once the new one was used.
CREATE TABLE replaced_tokens (
    session_id BYTEA NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    digest BYTEA NOT NULL,
    previous_digest BYTEA NOT NULL,
    successor_digest BYTEA NOT NULL,
    authenticated_at BIGINT NOT NULL,
    aal BIGINT NOT NULL,
    amr TEXT COLLATE "C" NOT NULL
);

-- Whoever reads this mail may end the session that began on a device nobody knew; with what was proven then, which
-- counts also when the session has ended since.
CREATE TABLE new_device_notices (
    link_digest BYTEA NOT NULL PRIMARY KEY,
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    session_id BYTEA NOT NULL,
    device_id BYTEA NOT NULL,
    device_name TEXT COLLATE "C" NOT NULL,
    amr TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX new_device_notices_user_id ON new_device_notices (user_id);
CREATE INDEX new_device_notices_expires_at ON new_device_notices (expires_at);
