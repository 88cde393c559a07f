//! Another address for an account: asked for by somebody who proved who they are just now, proven at the new
//! address, told to the old one, which can undo it for seven days.
//!
//! * One open change per person, holding exactly the new address; it dies with every reset, verification and change.
//! * Whether somebody else has the address is told by the mail to it, not by the answer.
//! * An account that never proved the address loses it to whoever proves it now.

mod flow;
pub mod http;
mod model;
pub mod pages;
mod store;

pub use flow::give_back;
pub use model::Refusal;
pub use store::STATEMENTS;
