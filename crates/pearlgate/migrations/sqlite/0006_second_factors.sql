-- Second factors, and what is between a first proof and a session.

-- An authenticator app that was begun and not confirmed.
CREATE TABLE totp_enrolments (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    sealed BLOB NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX totp_enrolments_expires_at ON totp_enrolments (expires_at);

-- A code that still lets in once, beside a first proof.
CREATE TABLE recovery_codes (
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    digest BLOB NOT NULL,
    made_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, digest)
) STRICT, WITHOUT ROWID;

-- Somebody wants to be asked for a code from their mailbox after the password.
CREATE TABLE email_code_factors (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The last such code that was mailed.
CREATE TABLE email_codes (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    code_digest BLOB NOT NULL,
    failures INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX email_codes_expires_at ON email_codes (expires_at);

-- Wrong codes of a factor since the last right one, however many sign-ins they were tried in.
CREATE TABLE factor_failures (
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    factor TEXT NOT NULL,
    failures INTEGER NOT NULL,
    blocked_until INTEGER NOT NULL,
    PRIMARY KEY (user_id, factor)
) STRICT, WITHOUT ROWID;

-- Somebody has given a first proof and owes a factor: what was proven, and to whom. No session.
CREATE TABLE half_logins (
    digest BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- 'factor': it has to be shown; 'enrolment': one has to be set up.
    purpose TEXT NOT NULL,
    client_id TEXT NOT NULL,
    transport TEXT NOT NULL,
    -- The hash that the password was right for; '' when the proof was another.
    password_hash TEXT NOT NULL,
    amr TEXT NOT NULL,
    -- The known device that it came from; zeros for a stranger.
    device_id BLOB NOT NULL,
    device_name TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX half_logins_user_id ON half_logins (user_id);
CREATE INDEX half_logins_expires_at ON half_logins (expires_at);

-- A device on which the factor was shown, and which need not show it again until then.
CREATE TABLE trusted_devices (
    user_id BLOB NOT NULL,
    device_id BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, device_id),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, device_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX trusted_devices_expires_at ON trusted_devices (expires_at);

-- Until when somebody may go on without the factor that policy demands of them. There is only one such time for a person.
CREATE TABLE enrolment_graces (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- An operator was asked to take somebody's factors away; the owner was told, and can keep them until then.
CREATE TABLE factor_resets (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    link_digest BLOB NOT NULL UNIQUE,
    due_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- When a factor was last shown in this session; 0 for never.
ALTER TABLE sessions ADD COLUMN factor_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE replaced_tokens ADD COLUMN factor_at INTEGER NOT NULL DEFAULT 0;
