-- No column may be null: a fact that may be absent has a table of its own, and the row is the fact.
-- Times are microseconds since 1970 in UTC. Digests are SHA-256 or HMAC-SHA-256. Ids are UUIDv7.

-- A person: only what every person has.
CREATE TABLE users (
    id BLOB NOT NULL PRIMARY KEY,
    display_name TEXT NOT NULL,
    locale TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The person's address, as typed and in the canonical form that decides who it is; written before it is proven.
CREATE TABLE user_emails (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    address TEXT NOT NULL,
    address_key TEXT NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;

-- The address was proven.
CREATE TABLE verified_emails (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    verified_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The person signs in with a password.
CREATE TABLE password_credentials (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    password_hash TEXT NOT NULL,
    set_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One open verification: the registration's password waits here until the mail is proven with its id.
CREATE TABLE email_verification_tokens (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    verification_id BLOB NOT NULL UNIQUE,
    link_digest BLOB NOT NULL UNIQUE,
    code_digest BLOB NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    failures INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX email_verification_tokens_expires_at ON email_verification_tokens (expires_at);

-- Wrong codes by account, over all its mails: a new mail resets nothing.
CREATE TABLE code_failures (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    in_a_row INTEGER NOT NULL,
    today INTEGER NOT NULL,
    today_ends_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One open reset; a newer one replaces it.
CREATE TABLE password_reset_tokens (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    link_digest BLOB NOT NULL UNIQUE,
    code_digest BLOB NOT NULL UNIQUE,
    failures INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX password_reset_tokens_expires_at ON password_reset_tokens (expires_at);

-- One open change of address, holding exactly the new one.
CREATE TABLE email_change_tokens (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    address TEXT NOT NULL,
    address_key TEXT NOT NULL,
    link_digest BLOB NOT NULL UNIQUE,
    code_digest BLOB NOT NULL UNIQUE,
    failures INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX email_change_tokens_expires_at ON email_change_tokens (expires_at);

-- The person may not sign in and no session works.
CREATE TABLE suspensions (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    reason TEXT NOT NULL,
    suspended_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A living session.
CREATE TABLE sessions (
    id BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    authenticated_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    aal INTEGER NOT NULL,
    amr TEXT NOT NULL,
    device_id BLOB NOT NULL,
    device_name TEXT NOT NULL,
    address TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_user_id ON sessions (user_id);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

-- The session's one refresh token: what is current, what it replaced, when.
CREATE TABLE refresh_tokens (
    session_id BLOB NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    current_digest BLOB NOT NULL,
    previous_digest BLOB NOT NULL,
    rotated_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_user_id ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_expires_at ON refresh_tokens (expires_at);

-- A session that ended, and why; kept until its refresh token would have expired.
CREATE TABLE ended_sessions (
    id BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    reason TEXT NOT NULL,
    ended_at INTEGER NOT NULL,
    kept_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ended_sessions_user_id ON ended_sessions (user_id);
CREATE INDEX ended_sessions_kept_until ON ended_sessions (kept_until);
