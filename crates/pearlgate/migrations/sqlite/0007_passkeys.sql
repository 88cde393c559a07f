-- Keys that sign somebody in, or are their second factor (WebAuthn Level 3).

CREATE TABLE passkeys (
    id BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    credential_id BLOB NOT NULL UNIQUE,
    -- As the authenticator gave it (COSE_Key, RFC 9052).
    public_key BLOB NOT NULL,
    -- The highest that was shown; 0 for authenticators that do not count.
    sign_count INTEGER NOT NULL,
    -- 1: it may be copied to other devices of its owner; and it was.
    backup_eligible INTEGER NOT NULL,
    backed_up INTEGER NOT NULL,
    -- How browsers may reach it, separated by spaces.
    transports TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- 0: never.
    last_used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX passkeys_user_id ON passkeys (user_id);

-- A challenge that was answered, until nobody could answer it any more: each is answered once.
CREATE TABLE used_challenges (
    digest BLOB NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX used_challenges_expires_at ON used_challenges (expires_at);
