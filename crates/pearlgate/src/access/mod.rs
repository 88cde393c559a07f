//! Who may do what.
//!
//! * Permissions are texts, `area:action`; roles hold patterns of them and inherit from each other; people have roles,
//!   everywhere or for one resource. All of it is rows, and what a role may in the end is written down whenever a role
//!   changes: a decision is one look.
//! * Roles have levels. Whoever acts on somebody stands above them; whoever gives a role stands above it and holds what it
//!   holds of the server's own; nobody changes what they may do themselves; the last owner stays. All of that is decided in the
//!   transaction of what is done ([`may_act_on`]), where nobody else changes it meanwhile.
//! * Keys of machines may do what they were given, as long as whoever made them may.
//! * The first operator is set up once, for ever ([`setup`]).

mod by;
mod file;
mod flow;
mod grants;
mod guard;
pub mod http;
mod invited;
mod keys;
mod model;
pub mod pages;
mod roles;
pub mod setup;
mod store;

pub use by::{By, Who};
pub use file::{Plan, RolesFile};
pub use flow::{
    Denied, Standing, decide, give_defaults, lock, may, may_act_on, owner_stays, permissions_of, roles_of,
    sweep,
};
pub use grants::{Change, Place, change, change_in, grants};
pub use guard::{Caller, Operator};
pub(crate) use guard::{require, require_caller};
pub use invited::{give, may_give, standing_now, stands_above};
pub use keys::{Key, KeyRow, NewKey, end_keys, keys, make as make_key, revoke as revoke_key};
pub use model::{Decision, OWN, OWNER, Permission, Resource, RoleName, RoleRow, RoleSpec, Scope};
pub use roles::{Described, Wanted, Which, apply, preview, put, remove, roles};
pub use store::{Grant, STATEMENTS, StoredRole};
