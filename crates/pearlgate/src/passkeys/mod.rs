//! Passkeys: keys that an authenticator keeps and uses only for us (WebAuthn Level 3). With user verification one is both
//! factors by itself and signs in alone (assurance level 2); beside a password it is the second factor.
//!
//! * What an authenticator says is checked in one pure place, `ceremony`, one flaw for each step of the standard.
//! * A challenge is no row: it is made under a server key from its id, and bound to the ceremony and to whose it is, so
//!   that strangers who ask for millions leave nothing behind. What was answered with success is remembered until it
//!   expires, and answered once.
//! * What an address is told about its keys, when it has none or nobody has it, is a key that does not exist: always the
//!   same one.

mod ceremony;
mod cose;
mod flow;
pub mod http;
mod model;
mod store;

pub use ceremony::Party;
pub use flow::{Use, of_half, sweep, use_as_factor};
pub use model::{PasskeyRow, Presented};
pub use store::STATEMENTS;
