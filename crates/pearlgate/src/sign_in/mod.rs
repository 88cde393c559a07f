//! Which proofs suffice, and from proof to session.
//!
//! Every attempt costs one look and one hash, whether or not there is anybody; what is true of an account
//! (unproven, suspended) is told only after its right password.

mod flow;
pub mod http;
mod model;
mod store;

pub use model::Refusal;
pub use store::STATEMENTS;
