//! People who are asked to come: an operator names an address and roles, and whoever reads that mailbox accepts.
//!
//! * One open invitation for an address. It is bound to the address and the roles of its row: who accepts names neither.
//! * It works once, and the row decides; its time is looked at when it is shown, whether or not anybody sweeps.
//! * What counts is what its inviter may when it is accepted: whoever was suspended, lost the permission, or could not give the
//!   roles by then has invited nobody. Then it goes, and is answered like a link that was never good.
//! * Accepting proves the mailbox, so it ends whatever somebody else may have planted at an address that nobody had proven.
//!   Of an account that proved the address meanwhile nothing is changed but its roles, and nobody is signed in to it.
//! * Its token has a prefix of its own: it is nothing to any other door, and no other token opens this one.

mod flow;
pub mod http;
mod model;
pub mod pages;
mod store;

pub use flow::sweep;
pub use model::InvitationRow;
pub use store::STATEMENTS;
