-- Others sign the person in: providers, and sign-ins on their way through one. Linked identities are in 0003.

-- A provider that was added while the server ran; its settings, with its secret, rest sealed.
CREATE TABLE identity_providers (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    sealed BYTEA NOT NULL,
    -- Another moment, another provider: nothing that was cached of the one before is used.
    changed_at BIGINT NOT NULL
);

-- A provider that nobody signs in through for now, wherever it was added.
CREATE TABLE disabled_providers (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    disabled_at BIGINT NOT NULL
);

-- Whose subjects the identities under a provider's name are: the first that was used under it. Another issuer's would be
-- somebody else's.
CREATE TABLE provider_issuers (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    issuer TEXT COLLATE "C" NOT NULL
);

-- A browser began to sign in at a provider. What it proves when it comes back is derived from its cookie and the state.
CREATE TABLE oauth_sign_ins (
    state_digest BYTEA NOT NULL PRIMARY KEY,
    browser_digest BYTEA NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    return_to TEXT COLLATE "C" NOT NULL,
    -- The application's own (RFC 7636); '' when its code is for the same browser.
    challenge TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX oauth_sign_ins_expires_at ON oauth_sign_ins (expires_at);

-- What a provider said about somebody, for whoever holds the code: once.
CREATE TABLE oauth_codes (
    code_digest BYTEA NOT NULL PRIMARY KEY,
    browser_digest BYTEA NOT NULL,
    challenge TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    said BYTEA NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX oauth_codes_expires_at ON oauth_codes (expires_at);

-- The provider said too little to make an account of.
CREATE TABLE incomplete_sign_ins (
    digest BYTEA NOT NULL PRIMARY KEY,
    provider TEXT COLLATE "C" NOT NULL,
    said BYTEA NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX incomplete_sign_ins_expires_at ON incomplete_sign_ins (expires_at);

-- An identity that is linked when this verification is proven, in the place of a password: then that is ''.
CREATE TABLE pending_identities (
    user_id BYTEA NOT NULL PRIMARY KEY REFERENCES email_verification_tokens (user_id) ON DELETE CASCADE,
    verification_id BYTEA NOT NULL UNIQUE,
    provider TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL
);

-- Somebody who is signed in wants to link an identity, and has yet to say so in their browser. The session may end
-- meanwhile; then that is said.
CREATE TABLE link_tickets (
    digest BYTEA NOT NULL PRIMARY KEY,
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    session_id BYTEA NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    return_to TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX link_tickets_user_id ON link_tickets (user_id);
CREATE INDEX link_tickets_expires_at ON link_tickets (expires_at);

-- They have said so, and their browser is at the provider.
CREATE TABLE oauth_links (
    state_digest BYTEA NOT NULL PRIMARY KEY,
    browser_digest BYTEA NOT NULL,
    user_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    session_id BYTEA NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    return_to TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX oauth_links_user_id ON oauth_links (user_id);
CREATE INDEX oauth_links_expires_at ON oauth_links (expires_at);

-- A nonce that an ID token was shown with: a token that somebody copied is worth nothing.
CREATE TABLE used_nonces (
    digest BYTEA NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX used_nonces_expires_at ON used_nonces (expires_at);
