-- What other machines are told and asked: webhooks of applications, mails and what became of them.

-- Jobs of one lane hold up none of another; how often a job was put again while it waited or ran.
ALTER TABLE jobs ADD COLUMN lane TEXT COLLATE "C" NOT NULL DEFAULT 'main';
ALTER TABLE jobs ADD COLUMN puts BIGINT NOT NULL DEFAULT 0;
CREATE INDEX jobs_lane_run_at ON jobs (lane, run_at);
DROP INDEX jobs_run_at;

-- An application that wants to be told. What happened before from_at is no concern of its; what is told again since
-- told_again_at has its time anew.
CREATE TABLE webhook_endpoints (
    id BYTEA NOT NULL PRIMARY KEY,
    url TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    from_at BIGINT NOT NULL,
    told_again_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

-- It wants to hear of this.
CREATE TABLE webhook_subscriptions (
    type TEXT COLLATE "C" NOT NULL,
    endpoint_id BYTEA NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    PRIMARY KEY (type, endpoint_id)
);
CREATE INDEX webhook_subscriptions_endpoint_id ON webhook_subscriptions (endpoint_id);

-- A secret that its messages are signed with, sealed; one that was replaced signs beside the new one until then.
CREATE TABLE webhook_secrets (
    endpoint_id BYTEA NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    id BYTEA NOT NULL,
    sealed BYTEA NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (endpoint_id, id)
);

-- It is told nothing for now.
CREATE TABLE webhook_pauses (
    endpoint_id BYTEA NOT NULL PRIMARY KEY REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    reason TEXT COLLATE "C" NOT NULL,
    paused_at BIGINT NOT NULL
);

-- The number of the last event of a person. People go; what happened to them is told all the same.
CREATE TABLE webhook_streams (
    user_id BYTEA NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL
);

-- What happened to a person, in this order.
CREATE TABLE webhook_events (
    user_id BYTEA NOT NULL,
    number BIGINT NOT NULL,
    id BYTEA NOT NULL UNIQUE,
    type TEXT COLLATE "C" NOT NULL,
    data TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, number)
);
CREATE INDEX webhook_events_created_at ON webhook_events (created_at);

-- How far an endpoint has been told of a person.
CREATE TABLE webhook_positions (
    endpoint_id BYTEA NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    user_id BYTEA NOT NULL,
    number BIGINT NOT NULL,
    moved_at BIGINT NOT NULL,
    PRIMARY KEY (endpoint_id, user_id)
);
CREATE INDEX webhook_positions_moved_at ON webhook_positions (moved_at);

-- What came of telling an endpoint of an event: delivered, waiting for another try, or given up.
CREATE TABLE webhook_deliveries (
    endpoint_id BYTEA NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    event_id BYTEA NOT NULL REFERENCES webhook_events (id) ON DELETE CASCADE,
    state TEXT COLLATE "C" NOT NULL,
    attempts BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    answer TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (endpoint_id, event_id)
);
CREATE INDEX webhook_deliveries_event_id ON webhook_deliveries (event_id);
CREATE INDEX webhook_deliveries_endpoint_id_last_at ON webhook_deliveries (endpoint_id, last_at);

-- A mail that was to be sent, and what became of it: waiting, sent, delivered, bounced, complained, suppressed, given_up.
CREATE TABLE mail_deliveries (
    id BYTEA NOT NULL PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    recipient TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    reference TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);
CREATE INDEX mail_deliveries_created_at ON mail_deliveries (created_at);
CREATE INDEX mail_deliveries_recipient ON mail_deliveries (recipient, created_at);

-- Nobody can be reached at this address: it is not tried before then.
CREATE TABLE mail_suppressions (
    recipient TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    reason TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    since BIGINT NOT NULL,
    until BIGINT NOT NULL
);
CREATE INDEX mail_suppressions_until ON mail_suppressions (until);

-- An event that a mail provider told of: told once, heard once.
CREATE TABLE mail_events_heard (
    digest BYTEA NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX mail_events_heard_expires_at ON mail_events_heard (expires_at);

-- How many mails went a way in a span of time: through a provider, to a domain.
CREATE TABLE mail_windows (
    subject TEXT COLLATE "C" NOT NULL,
    starts_at BIGINT NOT NULL,
    sent BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    PRIMARY KEY (subject, starts_at)
);
CREATE INDEX mail_windows_ends_at ON mail_windows (ends_at);
