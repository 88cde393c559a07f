-- How people come, when an operator asks them to, and how they go.

-- Somebody is asked to an address: one open invitation each. Whoever made it is written as in the trail (`usr_…`, `key_…`);
-- what they may when it is accepted is what counts.
CREATE TABLE invitations (
    id BYTEA NOT NULL PRIMARY KEY,
    address TEXT COLLATE "C" NOT NULL,
    address_key TEXT COLLATE "C" NOT NULL UNIQUE,
    link_digest BYTEA NOT NULL UNIQUE,
    invited_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX invitations_expires_at ON invitations (expires_at);
CREATE INDEX invitations_invited_by ON invitations (invited_by, created_at);

-- Whoever accepts it is given this role: everywhere, or for this.
CREATE TABLE invitation_roles (
    invitation_id BYTEA NOT NULL REFERENCES invitations (id) ON DELETE CASCADE,
    role TEXT COLLATE "C" NOT NULL REFERENCES roles (name) ON DELETE CASCADE,
    resource TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (invitation_id, role, resource)
);
CREATE INDEX invitation_roles_role ON invitation_roles (role);

-- An account that is to be deleted. Until then nobody signs in to it, and whoever has the link keeps it.
CREATE TABLE closings (
    user_id BYTEA NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    link_digest BYTEA NOT NULL UNIQUE,
    -- As in the trail: the person's own id, an operator's, a key's, or `console`.
    asked_by TEXT COLLATE "C" NOT NULL,
    asked_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    -- 1: this shut them out, and keeping the account lets them in again; 0: they were shut out before.
    shut_out BIGINT NOT NULL
);

-- A session in which an operator is somebody else. Without this row, such a session is over: it goes with the operator's.
CREATE TABLE impersonations (
    session_id BYTEA NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    operator_id BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    operator_session_id BYTEA NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    reason TEXT COLLATE "C" NOT NULL
);
CREATE INDEX impersonations_operator_id ON impersonations (operator_id);
CREATE INDEX impersonations_operator_session_id ON impersonations (operator_session_id);

-- Something that is done to many people, one after the other.
CREATE TABLE bulk_actions (
    id BYTEA NOT NULL PRIMARY KEY,
    action TEXT COLLATE "C" NOT NULL,
    -- What belongs to it, such as a reason: a JSON object.
    details TEXT COLLATE "C" NOT NULL,
    -- Who asked for it, as in the trail, and in which session; '' for a key.
    asked_by TEXT COLLATE "C" NOT NULL,
    asker BYTEA NOT NULL,
    session TEXT COLLATE "C" NOT NULL,
    address TEXT COLLATE "C" NOT NULL,
    -- 'running', 'done', 'stopped'.
    state TEXT COLLATE "C" NOT NULL,
    total BIGINT NOT NULL,
    done BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);
CREATE INDEX bulk_actions_changed_at ON bulk_actions (changed_at);

-- To whom, and what came of it: '' as long as it waits, 'done', or why not.
CREATE TABLE bulk_targets (
    bulk_id BYTEA NOT NULL REFERENCES bulk_actions (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    user_id BYTEA NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (bulk_id, number)
);
CREATE INDEX bulk_targets_outcome ON bulk_targets (bulk_id, outcome, number);

-- What was tried with one account, for whoever asks for what is stored about them, or has it erased.
CREATE INDEX sign_in_attempts_subject ON sign_in_attempts (subject, at);
