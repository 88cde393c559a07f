-- How often something may be done.

-- One counter of one limit (a slot, not a person): the moment from which nothing counts against it any more.
CREATE TABLE limits (
    key BIGINT NOT NULL PRIMARY KEY,
    free_at BIGINT NOT NULL
);
CREATE INDEX limits_free_at ON limits (free_at);

-- Wrong passwords that were tried: of an account (its id), or of an address that nobody has (one of 2^22 slots, and a
-- tag that says which address it counts at present; 0 for accounts).
CREATE TABLE password_guesses (
    subject TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tag BIGINT NOT NULL,
    -- By strangers, without a long pause: how long the next pause is.
    in_a_row BIGINT NOT NULL,
    -- By strangers, since the last right one.
    strangers BIGINT NOT NULL,
    -- On known devices and by signed-in people, since the last right one.
    devices BIGINT NOT NULL,
    locked_until BIGINT NOT NULL,
    last_at BIGINT NOT NULL
);
CREATE INDEX password_guesses_last_at ON password_guesses (last_at);

-- Wrong passwords in a row on this device.
ALTER TABLE devices ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;

-- The link in the mail that tells of a lock.
CREATE TABLE unlock_tokens (
    user_id BYTEA NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    link_digest BYTEA NOT NULL UNIQUE,
    expires_at BIGINT NOT NULL
);
CREATE INDEX unlock_tokens_expires_at ON unlock_tokens (expires_at);

-- A mailbox that strangers had mails sent to, and how often ever: the number of the last one.
CREATE TABLE mailboxes (
    mailbox BYTEA NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL,
    last_at BIGINT NOT NULL
);
CREATE INDEX mailboxes_last_at ON mailboxes (last_at);
-- Those of the last day, one row each.
CREATE TABLE mails_asked (
    mailbox BYTEA NOT NULL REFERENCES mailboxes (mailbox) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (mailbox, number)
);

-- Sign-ins by password as they came, for the replay of other policies: whose password (as in password_guesses), from
-- which network, whether on a known device (1) and how it went.
CREATE TABLE sign_in_attempts (
    id BYTEA NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    network TEXT COLLATE "C" NOT NULL,
    device BIGINT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL
);
CREATE INDEX sign_in_attempts_at ON sign_in_attempts (at);
