//! Which proofs suffice, and from proof to session.
//!
//! Every attempt costs one look and one hash, whether or not there is anybody; what is true of an account
//! (unproven, suspended) is told only after its right password.
//!
//! While so much goes wrong that it is no accident ([`Alarms`]), devices that nobody knows may need more than a password:
//! a proof of work, or a code from the mailbox.

mod alarms;
mod flow;
mod history;
pub mod http;
mod model;
mod replay;
mod store;
mod work;

pub use alarms::{Alarms, Raised};
pub use history::{History, replay, sweep, write_down_attempts};
pub use model::Refusal;
pub use replay::{Replay, Stopped};
pub use store::STATEMENTS;
