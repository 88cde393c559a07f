-- How people come, when an operator asks them to, and how they go.

-- Somebody is asked to an address: one open invitation each. Whoever made it is written as in the trail (`usr_…`, `key_…`);
-- what they may when it is accepted is what counts.
CREATE TABLE invitations (
    id BLOB NOT NULL PRIMARY KEY,
    address TEXT NOT NULL,
    address_key TEXT NOT NULL UNIQUE,
    link_digest BLOB NOT NULL UNIQUE,
    invited_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX invitations_expires_at ON invitations (expires_at);
CREATE INDEX invitations_invited_by ON invitations (invited_by, created_at);

-- Whoever accepts it is given this role: everywhere, or for this.
CREATE TABLE invitation_roles (
    invitation_id BLOB NOT NULL REFERENCES invitations (id) ON DELETE CASCADE,
    role TEXT NOT NULL REFERENCES roles (name) ON DELETE CASCADE,
    resource TEXT NOT NULL,
    PRIMARY KEY (invitation_id, role, resource)
) STRICT, WITHOUT ROWID;
CREATE INDEX invitation_roles_role ON invitation_roles (role);

-- An account that is to be deleted. Until then nobody signs in to it, and whoever has the link keeps it.
CREATE TABLE closings (
    user_id BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    link_digest BLOB NOT NULL UNIQUE,
    -- As in the trail: the person's own id, an operator's, a key's, or `console`.
    asked_by TEXT NOT NULL,
    asked_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    -- 1: this shut them out, and keeping the account lets them in again; 0: they were shut out before.
    shut_out INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A session in which an operator is somebody else. Without this row, such a session is over: it goes with the operator's.
CREATE TABLE impersonations (
    session_id BLOB NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    operator_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    operator_session_id BLOB NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX impersonations_operator_id ON impersonations (operator_id);
CREATE INDEX impersonations_operator_session_id ON impersonations (operator_session_id);

-- Something that is done to many people, one after the other.
CREATE TABLE bulk_actions (
    id BLOB NOT NULL PRIMARY KEY,
    action TEXT NOT NULL,
    -- What belongs to it, such as a reason: a JSON object.
    details TEXT NOT NULL,
    -- Who asked for it, as in the trail, and in which session; '' for a key.
    asked_by TEXT NOT NULL,
    asker BLOB NOT NULL,
    session TEXT NOT NULL,
    address TEXT NOT NULL,
    -- 'running', 'done', 'stopped'.
    state TEXT NOT NULL,
    total INTEGER NOT NULL,
    done INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX bulk_actions_changed_at ON bulk_actions (changed_at);

-- To whom, and what came of it: '' as long as it waits, 'done', or why not.
CREATE TABLE bulk_targets (
    bulk_id BLOB NOT NULL REFERENCES bulk_actions (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    user_id BLOB NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (bulk_id, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX bulk_targets_outcome ON bulk_targets (bulk_id, outcome, number);

-- What was tried with one account, for whoever asks for what is stored about them, or has it erased.
CREATE INDEX sign_in_attempts_subject ON sign_in_attempts (subject, at);
