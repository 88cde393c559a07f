-- Who may do what: roles, what they hold, who has them; keys of machines; the first operator.

-- A role. Level 0 is an ordinary person's; operators act on people below their own level. A name never changes.
CREATE TABLE roles (
    id BYTEA NOT NULL PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    description TEXT COLLATE "C" NOT NULL,
    level BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);

-- The one role that is always there.
INSERT INTO roles (id, name, description, level, created_at, changed_at)
VALUES ('\x00000000000070008000000000000001', 'owner', 'May do everything', 100, 0, 0);

-- It holds this pattern itself.
CREATE TABLE role_permissions (
    role TEXT COLLATE "C" NOT NULL REFERENCES roles (name) ON DELETE CASCADE,
    permission TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (role, permission)
);
INSERT INTO role_permissions (role, permission) VALUES ('owner', '*');

-- It may do what that one may.
CREATE TABLE role_parents (
    role TEXT COLLATE "C" NOT NULL REFERENCES roles (name) ON DELETE CASCADE,
    parent TEXT COLLATE "C" NOT NULL REFERENCES roles (name) ON DELETE CASCADE,
    PRIMARY KEY (role, parent)
);
CREATE INDEX role_parents_parent ON role_parents (parent);

-- In the end it may do this, through that role: written anew whenever a role changes, so that a decision is one look.
CREATE TABLE role_effects (
    role TEXT COLLATE "C" NOT NULL REFERENCES roles (name) ON DELETE CASCADE,
    permission TEXT COLLATE "C" NOT NULL,
    via TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (role, permission)
);
INSERT INTO role_effects (role, permission, via) VALUES ('owner', '*', 'owner');

-- Whoever registers is given it.
CREATE TABLE default_roles (
    role TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES roles (name) ON DELETE CASCADE
);

-- Names that people brought from another system are roles that may do nothing until somebody says what. One that is called
-- as ours is nobody's.
DELETE FROM user_roles WHERE role = 'owner';
INSERT INTO roles (id, name, description, level, created_at, changed_at)
SELECT decode(replace(gen_random_uuid()::text, '-', ''), 'hex'), r.role, '', 0, 0, 0 FROM (SELECT DISTINCT role FROM user_roles) r;

-- Somebody has a role: everywhere, or for one thing ('course/42') or all of a kind ('course/*').
ALTER TABLE user_roles ADD COLUMN resource TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE user_roles ADD COLUMN granted_by TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE user_roles DROP CONSTRAINT user_roles_pkey;
ALTER TABLE user_roles ADD PRIMARY KEY (user_id, role, resource);
ALTER TABLE user_roles ADD FOREIGN KEY (role) REFERENCES roles (name) ON DELETE CASCADE;
CREATE INDEX user_roles_role ON user_roles (role, user_id);

-- Whoever changes what somebody may do waits here for whoever else does: nobody hands out what they lose just now.
CREATE TABLE access_lock (
    id BIGINT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL
);
INSERT INTO access_lock (id, epoch) VALUES (1, 0);

-- What a person, or everybody with a role, may do changed then: for whoever believes access tokens by themselves.
CREATE TABLE access_changes (
    subject TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    changed_at BIGINT NOT NULL
);
CREATE INDEX access_changes_changed_at ON access_changes (changed_at, subject);

-- A key of a machine. It may do what it was given, as long as whoever made it may.
CREATE TABLE api_keys (
    id BYTEA NOT NULL PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    prefix TEXT COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL UNIQUE,
    created_by BYTEA NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL
);
CREATE INDEX api_keys_created_by ON api_keys (created_by);
CREATE INDEX api_keys_expires_at ON api_keys (expires_at);

-- It was given this.
CREATE TABLE api_key_permissions (
    key_id BYTEA NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    permission TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (key_id, permission)
);

-- The link with which the first operator is set up, as long as there was none.
CREATE TABLE setup_links (
    id BIGINT NOT NULL PRIMARY KEY,
    link_digest BYTEA NOT NULL UNIQUE,
    expires_at BIGINT NOT NULL
);

-- The first operator was set up: once, for ever, whatever became of them.
CREATE TABLE setup_done (
    id BIGINT NOT NULL PRIMARY KEY,
    done_at BIGINT NOT NULL,
    operator TEXT COLLATE "C" NOT NULL
);

-- A suspension that ends by itself; 0 for one that does not.
ALTER TABLE suspensions ADD COLUMN ends_at BIGINT NOT NULL DEFAULT 0;

-- A name as it is searched for.
ALTER TABLE users ADD COLUMN name_key TEXT COLLATE "C" NOT NULL DEFAULT '';
UPDATE users SET name_key = LOWER(TRIM(display_name));
CREATE INDEX users_name_key ON users (name_key, id);

-- Where a chain of events goes on from: everything up to this number was removed because it was older than it is kept.
CREATE TABLE audit_bases (
    stream TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash BYTEA NOT NULL
);

-- From when its oldest event is that may go some day: 0 is not known, the largest number is none, for the newest one stays.
ALTER TABLE audit_streams ADD COLUMN oldest_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX audit_streams_oldest_at ON audit_streams (oldest_at);

-- By time, and what somebody did by time. Nobody known is left out: nobody asks what they did, and they did much.
CREATE INDEX audit_events_at ON audit_events (at);
CREATE INDEX audit_events_actor_at ON audit_events (actor, at) WHERE actor <> '';

-- Where a job that was given up waited, and until when it was worth doing; 0 for one from before that was written down.
ALTER TABLE dead_jobs ADD COLUMN lane TEXT COLLATE "C" NOT NULL DEFAULT 'main';
ALTER TABLE dead_jobs ADD COLUMN deadline_at BIGINT NOT NULL DEFAULT 0;
UPDATE dead_jobs SET lane = 'mail' WHERE kind = 'mail.deliver';

-- What happened before it asked for this is no concern of an endpoint's.
ALTER TABLE webhook_subscriptions ADD COLUMN from_at BIGINT NOT NULL DEFAULT 0;
