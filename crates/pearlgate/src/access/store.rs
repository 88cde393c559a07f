//! The statements about roles, who has them, and keys of machines.

use foundation::kernel::{Id, Timestamp};
use foundation::{record, statements};

use super::keys::KeyRow;
use super::model::{Granted, RoleRow};
use crate::accounts::UserRow;

statements! {
    /// Whoever changes what somebody may do waits for whoever else does, and sees in the next statement what came of it.
    LOCK = "UPDATE access_lock SET epoch = epoch + 1 WHERE id = 1 RETURNING epoch";
    /// What somebody may do everywhere, and how high they stand. Nothing for whoever is suspended.
    HELD = "SELECT r.level, COALESCE(f.permission, '') FROM user_roles g JOIN roles r ON r.name = g.role
            LEFT JOIN role_effects f ON f.role = g.role
        WHERE g.user_id = $1 AND g.resource = ''
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = g.user_id)";
    /// Whether a session is still there, and has shown a second factor.
    IN_SESSION = "SELECT s.aal FROM sessions s WHERE s.id = $1 AND s.user_id = $2 AND s.expires_at > $3 AND s.aal >= 2";
    /// How high somebody stands, suspended or not.
    LEVEL = "SELECT CAST(COALESCE(MAX(r.level), 0) AS BIGINT) FROM user_roles g JOIN roles r ON r.name = g.role
        WHERE g.user_id = $1";
    /// The grants that speak of a permission ($2, $3 and $4 are the patterns that mean it).
    DECIDE = "SELECT g.role, g.resource, f.permission, f.via FROM user_roles g JOIN role_effects f ON f.role = g.role
        WHERE g.user_id = $1 AND f.permission IN ($2, $3, $4)
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = g.user_id)";
    WHO = "SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT)
        FROM users u WHERE u.id = $1";
    /// Whether somebody is an operator: a role above level 0.
    OPERATES = "SELECT g.role, r.level FROM user_roles g JOIN roles r ON r.name = g.role WHERE g.user_id = $1";
    PERMISSIONS_OF = "SELECT DISTINCT f.permission FROM user_roles g JOIN role_effects f ON f.role = g.role
        WHERE g.user_id = $1 AND g.resource = '' ORDER BY f.permission";
    ROLES = "SELECT id, name, description, level, created_at, changed_at FROM roles ORDER BY name";
    ROLE_NAMED = "SELECT id, name, description, level, created_at, changed_at FROM roles WHERE name = $1";
    ROLE = "SELECT id, name, description, level, created_at, changed_at FROM roles WHERE id = $1";
    PARENTS = "SELECT role, parent FROM role_parents ORDER BY role, parent";
    PERMISSIONS = "SELECT role, permission FROM role_permissions ORDER BY role, permission";
    EFFECTS = "SELECT role, permission, via FROM role_effects ORDER BY role, permission";
    EFFECTS_OF = "SELECT permission FROM role_effects WHERE role = $1";
    DEFAULTS = "SELECT role FROM default_roles ORDER BY role";
    CLEAR_DEFAULTS = "DELETE FROM default_roles";
    ADD_DEFAULT = "INSERT INTO default_roles (role) VALUES ($1)";
    PUT_ROLE = "INSERT INTO roles (id, name, description, level, created_at, changed_at) VALUES ($1, $2, $3, $4, $5, $5)
        ON CONFLICT (name) DO UPDATE SET description = excluded.description, level = excluded.level,
            changed_at = excluded.changed_at";
    REMOVE_ROLE = "DELETE FROM roles WHERE name = $1";
    CLEAR_PARENTS = "DELETE FROM role_parents WHERE role = $1";
    ADD_PARENT = "INSERT INTO role_parents (role, parent) VALUES ($1, $2)";
    CLEAR_PERMISSIONS = "DELETE FROM role_permissions WHERE role = $1";
    ADD_PERMISSION = "INSERT INTO role_permissions (role, permission) VALUES ($1, $2)";
    CLEAR_EFFECTS = "DELETE FROM role_effects WHERE role = $1";
    ADD_EFFECT = "INSERT INTO role_effects (role, permission, via) VALUES ($1, $2, $3)";
    HOLDER = "SELECT user_id FROM user_roles WHERE role = $1 LIMIT 1";
    GRANTS_OF = "SELECT role, resource, granted_at, granted_by FROM user_roles WHERE user_id = $1
        ORDER BY role, resource";
    GRANT = "INSERT INTO user_roles (user_id, role, granted_at, resource, granted_by) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (user_id, role, resource) DO NOTHING RETURNING granted_at";
    REVOKE = "DELETE FROM user_roles WHERE user_id = $1 AND role = $2 AND resource = $3 RETURNING granted_at";
    GRANT_DEFAULTS = "INSERT INTO user_roles (user_id, role, granted_at, resource, granted_by)
        SELECT $1, d.role, $2, '', 'default' FROM default_roles d WHERE d.role <> ''
        ON CONFLICT (user_id, role, resource) DO NOTHING";
    /// Another owner than this one, who can sign in.
    OTHER_OWNER = "SELECT g.user_id FROM user_roles g WHERE g.role = 'owner' AND g.resource = '' AND g.user_id <> $1
            AND EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = g.user_id)
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = g.user_id) LIMIT 1";
    IS_OWNER = "SELECT granted_at FROM user_roles WHERE user_id = $1 AND role = 'owner' AND resource = ''";
    CHANGED = "INSERT INTO access_changes (subject, changed_at) VALUES ($1, $2)
        ON CONFLICT (subject) DO UPDATE SET changed_at = excluded.changed_at";
    SWEEP_CHANGES = "DELETE FROM access_changes WHERE changed_at <= $1";
    ADD_KEY = "INSERT INTO api_keys (id, name, prefix, digest, created_by, created_at, expires_at, last_used_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 0)";
    ADD_KEY_PERMISSION = "INSERT INTO api_key_permissions (key_id, permission) VALUES ($1, $2)";
    /// A key that is good, and what it was given; nothing when whoever made it is suspended.
    KEY = "SELECT k.id, k.created_by, k.last_used_at, p.permission
        FROM api_keys k JOIN api_key_permissions p ON p.key_id = k.id
        WHERE k.digest = $1 AND k.expires_at > $2
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = k.created_by)";
    /// The same for one that is known.
    KEY_NOW = "SELECT k.id, k.created_by, k.last_used_at, p.permission
        FROM api_keys k JOIN api_key_permissions p ON p.key_id = k.id
        WHERE k.id = $1 AND k.expires_at > $2
            AND NOT EXISTS (SELECT 1 FROM suspensions x WHERE x.user_id = k.created_by)";
    KEY_USED = "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND last_used_at < $3";
    KEYS = "SELECT id, name, prefix, created_by, created_at, expires_at, last_used_at FROM api_keys WHERE id < $1
        ORDER BY id DESC LIMIT $2";
    KEY_BY_ID = "SELECT id, name, prefix, created_by, created_at, expires_at, last_used_at FROM api_keys WHERE id = $1";
    KEY_PERMISSIONS = "SELECT permission FROM api_key_permissions WHERE key_id = $1 ORDER BY permission";
    REMOVE_KEY = "DELETE FROM api_keys WHERE id = $1 RETURNING name";
    /// Keys that somebody made since a moment.
    END_KEYS = "DELETE FROM api_keys WHERE created_by = $1 AND created_at >= $2 RETURNING id, name";
    /// Invitations that somebody made since a moment ($1 as in the trail).
    END_INVITATIONS = "DELETE FROM invitations WHERE invited_by = $1 AND created_at >= $2 RETURNING id, created_at";
    SWEEP_KEYS = "DELETE FROM api_keys WHERE expires_at <= $1";
    SETUP_DONE = "SELECT done_at, operator FROM setup_done WHERE id = 1";
    /// Once, for ever: whoever gets a row back is the one.
    SET_UP = "INSERT INTO setup_done (id, done_at, operator) VALUES (1, $1, $2) ON CONFLICT (id) DO NOTHING
        RETURNING done_at";
    SETUP_LINK = "INSERT INTO setup_links (id, link_digest, expires_at) VALUES (1, $1, $2)
        ON CONFLICT (id) DO UPDATE SET link_digest = excluded.link_digest, expires_at = excluded.expires_at";
    USE_SETUP_LINK = "DELETE FROM setup_links WHERE link_digest = $1 AND expires_at > $2 RETURNING expires_at";
    IS_SETUP_LINK = "SELECT expires_at FROM setup_links WHERE link_digest = $1 AND expires_at > $2";
    NO_SETUP_LINK = "DELETE FROM setup_links";
}

record! {
    /// A role as it is stored.
    #[derive(Debug, Clone)]
    pub struct StoredRole {
        /// Its id.
        pub id: Id<RoleRow>,
        /// Its name.
        pub name: String,
        /// What it is.
        pub description: String,
        /// How high it stands.
        pub level: i64,
        /// Since when there is one.
        pub created_at: Timestamp,
        /// When it was changed last.
        pub changed_at: Timestamp,
    }
}

record! {
    /// A role that somebody has.
    #[derive(Debug, Clone)]
    pub struct Grant {
        /// Its name.
        pub role: String,
        /// Where: everywhere when it is empty.
        pub resource: String,
        /// Since when.
        pub granted_at: Timestamp,
        /// Who gave it: an id, `console`, `default`, or empty when it came with an import.
        pub granted_by: String,
    }
}

record! {
    /// A key, without itself.
    #[derive(Debug, Clone)]
    pub struct StoredKey {
        /// Its id.
        pub id: Id<KeyRow>,
        /// What it is for.
        pub name: String,
        /// How it begins.
        pub prefix: String,
        /// Who made it.
        pub created_by: Id<UserRow>,
        /// When.
        pub created_at: Timestamp,
        /// Until when it is good.
        pub expires_at: Timestamp,
        /// When it was used last, to the minute; 0 for never.
        pub last_used_at: Timestamp,
    }
}

/// One permission of a key.
pub(super) type KeyLine = (Id<KeyRow>, Id<UserRow>, Timestamp, String);

/// A grant as a row.
pub(super) fn granted((role, resource, permission, via): (String, String, String, String)) -> Granted {
    Granted { role, resource, permission, via }
}
