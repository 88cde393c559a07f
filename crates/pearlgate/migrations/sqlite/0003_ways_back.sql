-- Passwords over their lives, and the ways back in when one is lost.

-- The breach service was away when this password was set: it is asked at the next sign-in.
CREATE TABLE pending_breach_checks (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Nobody signs in with the password any more until another one is set through the mailbox.
CREATE TABLE password_change_demands (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    reason TEXT NOT NULL,
    demanded_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The password's hash is another system's; the scheme with its cost, such as bcrypt:12.
CREATE TABLE foreign_hashes (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    scheme TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX foreign_hashes_scheme ON foreign_hashes (scheme);

-- One open magic link; a newer one replaces it.
CREATE TABLE magic_link_tokens (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    magic_link_id BLOB NOT NULL UNIQUE,
    link_digest BLOB NOT NULL UNIQUE,
    code_digest BLOB NOT NULL UNIQUE,
    failures INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX magic_link_tokens_expires_at ON magic_link_tokens (expires_at);

-- Whoever reads this mailbox, the account's at that time, may say "that was not me" and have the account back.
-- Several per person: a second change must not take the first owner's way back.
CREATE TABLE not_me_tokens (
    link_digest BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    address TEXT NOT NULL,
    address_key TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX not_me_tokens_user_id ON not_me_tokens (user_id);
CREATE INDEX not_me_tokens_expires_at ON not_me_tokens (expires_at);

-- A time-based one-time password; its seed is sealed under the master key.
CREATE TABLE totp_factors (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    sealed BLOB NOT NULL,
    last_step INTEGER NOT NULL,
    confirmed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A linked sign-in: the key is what the provider calls the person, never an address.
CREATE TABLE federated_identities (
    provider TEXT NOT NULL,
    subject TEXT NOT NULL,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    linked_at INTEGER NOT NULL,
    PRIMARY KEY (provider, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX federated_identities_user_id ON federated_identities (user_id);

-- A person has a role.
CREATE TABLE user_roles (
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    granted_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, role)
) STRICT, WITHOUT ROWID;

-- The person came from another system; their account is not swept away when nobody proves its address in time.
CREATE TABLE imported_users (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    source TEXT NOT NULL,
    imported_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How far the import of a file has come.
CREATE TABLE imports (
    file_digest BLOB NOT NULL PRIMARY KEY,
    done INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
