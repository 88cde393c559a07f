-- What other machines are told and asked: webhooks of applications, mails and what became of them.

-- Jobs of one lane hold up none of another; how often a job was put again while it waited or ran.
ALTER TABLE jobs ADD COLUMN lane TEXT NOT NULL DEFAULT 'main';
ALTER TABLE jobs ADD COLUMN puts INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_lane_run_at ON jobs (lane, run_at);
DROP INDEX jobs_run_at;

-- An application that wants to be told. What happened before from_at is no concern of its; what is told again since
-- told_again_at has its time anew.
CREATE TABLE webhook_endpoints (
    id BLOB NOT NULL PRIMARY KEY,
    url TEXT NOT NULL,
    description TEXT NOT NULL,
    from_at INTEGER NOT NULL,
    told_again_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- It wants to hear of this.
CREATE TABLE webhook_subscriptions (
    type TEXT NOT NULL,
    endpoint_id BLOB NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    PRIMARY KEY (type, endpoint_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_subscriptions_endpoint_id ON webhook_subscriptions (endpoint_id);

-- A secret that its messages are signed with, sealed; one that was replaced signs beside the new one until then.
CREATE TABLE webhook_secrets (
    endpoint_id BLOB NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    id BLOB NOT NULL,
    sealed BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (endpoint_id, id)
) STRICT, WITHOUT ROWID;

-- It is told nothing for now.
CREATE TABLE webhook_pauses (
    endpoint_id BLOB NOT NULL PRIMARY KEY REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    reason TEXT NOT NULL,
    paused_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The number of the last event of a person. People go; what happened to them is told all the same.
CREATE TABLE webhook_streams (
    user_id BLOB NOT NULL PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What happened to a person, in this order.
CREATE TABLE webhook_events (
    user_id BLOB NOT NULL,
    number INTEGER NOT NULL,
    id BLOB NOT NULL UNIQUE,
    type TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_events_created_at ON webhook_events (created_at);

-- How far an endpoint has been told of a person.
CREATE TABLE webhook_positions (
    endpoint_id BLOB NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    user_id BLOB NOT NULL,
    number INTEGER NOT NULL,
    moved_at INTEGER NOT NULL,
    PRIMARY KEY (endpoint_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_positions_moved_at ON webhook_positions (moved_at);

-- What came of telling an endpoint of an event: delivered, waiting for another try, or given up.
CREATE TABLE webhook_deliveries (
    endpoint_id BLOB NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    event_id BLOB NOT NULL REFERENCES webhook_events (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (endpoint_id, event_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_deliveries_event_id ON webhook_deliveries (event_id);
CREATE INDEX webhook_deliveries_endpoint_id_last_at ON webhook_deliveries (endpoint_id, last_at);

-- A mail that was to be sent, and what became of it: waiting, sent, delivered, bounced, complained, suppressed, given_up.
CREATE TABLE mail_deliveries (
    id BLOB NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    recipient TEXT NOT NULL,
    state TEXT NOT NULL,
    provider TEXT NOT NULL,
    reference TEXT NOT NULL,
    detail TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX mail_deliveries_created_at ON mail_deliveries (created_at);
CREATE INDEX mail_deliveries_recipient ON mail_deliveries (recipient, created_at);

-- Nobody can be reached at this address: it is not tried before then.
CREATE TABLE mail_suppressions (
    recipient TEXT NOT NULL PRIMARY KEY,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    provider TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX mail_suppressions_until ON mail_suppressions (until);

-- An event that a mail provider told of: told once, heard once.
CREATE TABLE mail_events_heard (
    digest BLOB NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX mail_events_heard_expires_at ON mail_events_heard (expires_at);

-- How many mails went a way in a span of time: through a provider, to a domain.
CREATE TABLE mail_windows (
    subject TEXT NOT NULL,
    starts_at INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    ends_at INTEGER NOT NULL,
    PRIMARY KEY (subject, starts_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX mail_windows_ends_at ON mail_windows (ends_at);
