//! A living sign-in: the session row, its one refresh token, the access tokens made from it.
//!
//! The refresh token, in four cases (`refresh`). A token is `pgr_` + session id ‖ nonce ‖ MAC; without a good MAC the
//! database is not asked.
//! 1. It is the current one: it becomes the previous one, and its successor, derived from it and the moment,
//!    becomes current. One conditional update; one round trip on PostgreSQL.
//! 2. It is the previous one, at most 30 s after the rotation: the same successor again. A lost response, a second
//!    tab and a retry change nothing.
//! 3. It is the previous one, later: its successor was never presented. Another successor takes its place.
//! 4. Anything else is an old token replayed: the session ends, with an audit event and a mail.
//!
//! Every end keeps its reason, which the 401 tells and the feed spreads.

mod access_tokens;
mod answer;
mod devices;
mod factors;
mod feed;
mod flow;
mod guard;
pub mod http;
mod impersonation;
mod introspection;
mod model;
mod own;
mod places;
mod refresh;
mod seen;
mod signing_keys;
mod store;
mod visit;

pub use access_tokens::{AccessTokens, Actor, Claims};
pub use devices::DeviceRow;
pub use factors::{again, factor_gone, factor_shown, shorten_all, trust};
pub use flow::{
    Barred, Beginning, Begun, NOTICE, Started, bars, begin, device, device_token, end_all, end_others,
    known_device, let_in, sweep,
};
pub use guard::Current;
pub(crate) use guard::{Came, bearer, current, reason as end_reason, require};
pub use impersonation::{AsAnother, begin_as, end_as, token_as};
pub use model::{EndReason, Proof, RefreshKey, SessionRow, Shown};
pub use own::{Disowned, Own, disown, disownable, end_in, list_of, renew, renew_in};
pub use places::Places;
pub use refresh::{Wanted, refresh};
pub use seen::{Seen, write_down as write_down_seen};
pub use signing_keys::{
    KeyError, KeyKeeper, Rotated, SigningKeyInfo, handle, keep_loaded as keep_signing_keys,
    load as load_signing_keys, rotate_by as rotate_signing_keys,
};
pub use store::{RAW_ROTATION, STATEMENTS, SessionUser};
pub use visit::Visit;
