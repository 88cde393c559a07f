-- No column may be null: a fact that may be absent has a table of its own, and the row is the fact.
-- Times are microseconds since 1970 in UTC. Digests are SHA-256 or HMAC-SHA-256. Ids are UUIDv7.

-- A person: only what every person has.
CREATE TABLE users (
    id BYTEA NOT NULL PRIMARY KEY,
    display_name TEXT COLLATE "C" NOT NULL,
    locale TEXT COLLATE "C" NOT NULL,
    metadata TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL
);

-- The person's address, as typed and in the canonical form that decides who it is; written before it is proven.
CREATE TABLE user_emails (
    user_id BYTEA NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    address TEXT COLLATE "C" NOT NULL,
    address_key TEXT COLLATE "C" NOT NULL UNIQUE
);

-- The address was proven.
CREATE TABLE verified_emails (
    user_id BYTEA NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    verified_at BIGINT NOT NULL
);

-- The person signs in with a password.
CREATE TABLE password_credentials (
    user_id BYTEA NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    password_hash TEXT COLLATE "C" NOT NULL,
    set_at BIGINT NOT NULL
);

-- One open verification: the registration's password waits here until the mail is proven with its id.
CREATE TABLE email_verification_tokens (
    user_id BYTEA NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    verification_id BYTEA NOT NULL UNIQUE,
    link_digest BYTEA NOT NULL UNIQUE,
    code_digest BYTEA NOT NULL UNIQUE,
    password_hash TEXT COLLATE "C" NOT NULL,
    failures BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX email_verification_tokens_expires_at ON email_verification_tokens (expires_at);

-- Wrong codes by account, over all its mails: a new mail resets nothing.
CREATE TABLE code_failures (
    user_id BYTEA NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    in_a_row BIGINT NOT NULL,
    today BIGINT NOT NULL,
    today_ends_at BIGINT NOT NULL
);

-- One open reset; a newer one replaces it.
CREATE TABLE password_reset_tokens (
    user_id BYTEA NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    link_digest BYTEA NOT NULL UNIQUE,
    code_digest BYTEA NOT NULL UNIQUE,
    failures BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX password_reset_tokens_expires_at ON password_reset_tokens (expires_at);

-- One open change of address, holding exactly the new one.
CREATE TABLE email_change_tokens (
    user_id BYTEA NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    address TEXT COLLATE "C" NOT NULL,
    address_key TEXT COLLATE "C" NOT NULL,
    link_digest BYTEA NOT NULL UNIQUE,
    code_digest BYTEA NOT NULL UNIQUE,
    failures BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX email_change_tokens_expires_at ON email_change_tokens (expires_at);

-- The person may not sign in and no session works.
CREATE TABLE suspensions (
    user_id BYTEA NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    reason TEXT COLLATE "C" NOT NULL,
    suspended_at BIGINT NOT NULL
);

-- A living session.
CREATE TABLE sessions (
    id BYTEA NOT NULL PRIMARY KEY,
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    authenticated_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    aal BIGINT NOT NULL,
    amr TEXT COLLATE "C" NOT NULL,
    device_id BYTEA NOT NULL,
    device_name TEXT COLLATE "C" NOT NULL,
    address TEXT COLLATE "C" NOT NULL
);
CREATE INDEX sessions_user_id ON sessions (user_id);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

-- The session's one refresh token: what is current, what it replaced, when.
CREATE TABLE refresh_tokens (
    session_id BYTEA NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    current_digest BYTEA NOT NULL,
    previous_digest BYTEA NOT NULL,
    rotated_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_user_id ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_expires_at ON refresh_tokens (expires_at);

-- A session that ended, and why; kept until its refresh token would have expired.
CREATE TABLE ended_sessions (
    id BYTEA NOT NULL PRIMARY KEY,
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    reason TEXT COLLATE "C" NOT NULL,
    ended_at BIGINT NOT NULL,
    kept_until BIGINT NOT NULL
);
CREATE INDEX ended_sessions_user_id ON ended_sessions (user_id);
CREATE INDEX ended_sessions_kept_until ON ended_sessions (kept_until);
