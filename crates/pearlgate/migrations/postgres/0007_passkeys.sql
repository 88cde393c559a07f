-- Keys that sign somebody in, or are their second factor (WebAuthn Level 3).

CREATE TABLE passkeys (
    id BYTEA NOT NULL PRIMARY KEY,
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    credential_id BYTEA NOT NULL UNIQUE,
    -- As the authenticator gave it (COSE_Key, RFC 9052).
    public_key BYTEA NOT NULL,
    -- The highest that was shown; 0 for authenticators that do not count.
    sign_count BIGINT NOT NULL,
    -- 1: it may be copied to other devices of its owner; and it was.
    backup_eligible BIGINT NOT NULL,
    backed_up BIGINT NOT NULL,
    -- How browsers may reach it, separated by spaces.
    transports TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    -- 0: never.
    last_used_at BIGINT NOT NULL
);
CREATE INDEX passkeys_user_id ON passkeys (user_id);

-- A challenge that was answered, until nobody could answer it any more: each is answered once.
CREATE TABLE used_challenges (
    digest BYTEA NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX used_challenges_expires_at ON used_challenges (expires_at);
