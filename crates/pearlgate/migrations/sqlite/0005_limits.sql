-- How often something may be done.

-- One counter of one limit (a slot, not a person): the moment from which nothing counts against it any more.
CREATE TABLE limits (
    key INTEGER NOT NULL PRIMARY KEY,
    free_at INTEGER NOT NULL
) STRICT;
CREATE INDEX limits_free_at ON limits (free_at);

-- Wrong passwords that were tried: of an account (its id), or of an address that nobody has (one of 2^22 slots, and a
-- tag that says which address it counts at present; 0 for accounts).
CREATE TABLE password_guesses (
    subject TEXT NOT NULL PRIMARY KEY,
    tag INTEGER NOT NULL,
    -- By strangers, without a long pause: how long the next pause is.
    in_a_row INTEGER NOT NULL,
    -- By strangers, since the last right one.
    strangers INTEGER NOT NULL,
    -- On known devices and by signed-in people, since the last right one.
    devices INTEGER NOT NULL,
    locked_until INTEGER NOT NULL,
    last_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX password_guesses_last_at ON password_guesses (last_at);

-- Wrong passwords in a row on this device.
ALTER TABLE devices ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;

-- The link in the mail that tells of a lock.
CREATE TABLE unlock_tokens (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    link_digest BLOB NOT NULL UNIQUE,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX unlock_tokens_expires_at ON unlock_tokens (expires_at);

-- A mailbox that strangers had mails sent to, and how often ever: the number of the last one.
CREATE TABLE mailboxes (
    mailbox BLOB NOT NULL PRIMARY KEY,
    number INTEGER NOT NULL,
    last_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX mailboxes_last_at ON mailboxes (last_at);
-- Those of the last day, one row each.
CREATE TABLE mails_asked (
    mailbox BLOB NOT NULL REFERENCES mailboxes (mailbox) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (mailbox, number)
) STRICT, WITHOUT ROWID;

-- Sign-ins by password as they came, for the replay of other policies: whose password (as in password_guesses), from
-- which network, whether on a known device (1) and how it went.
CREATE TABLE sign_in_attempts (
    id BLOB NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    subject TEXT NOT NULL,
    network TEXT NOT NULL,
    device INTEGER NOT NULL,
    outcome TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sign_in_attempts_at ON sign_in_attempts (at);
