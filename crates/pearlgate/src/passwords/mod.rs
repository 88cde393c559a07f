//! Passwords: which are acceptable when they are set, how they are hashed and checked, and changing one.
//!
//! * A password is at least 15 characters (code points) and at most 1,024 bytes long, of any characters at all; no
//!   composition rules, nothing trimmed, cut or folded (NIST SP 800-63B-4 §3.1.1.2). It is normalised to NFKC
//!   before it is hashed, so that the same letters typed on two machines are the same password.
//! * The length in bytes is checked before anything else touches it.
//! * Refused when they are set, with the reason: the most common ones, breached ones, those about the person or the
//!   service, and patterns. Never at a sign-in; but a password whose breach check was put off is checked there.
//! * Hashing is Argon2id in a pool of threads, one per core, each with its own memory; a full queue is 503 at once.
//! * Hashes of other systems are checked as they are and replaced at the first sign-in.

mod argon;
mod breach;
mod calibrate;
mod filter;
mod flow;
mod foreign;
mod hash;
pub mod http;
mod model;
mod store;

pub use argon::{Cost, Pepper, Peppers};
pub use breach::{Breaches, Finding, filter_key};
pub use calibrate::{Proposal, calibrate};
pub use filter::{Builder, Filter, HashKind, Place, key_of};
pub use flow::{
    Chosen, Unfit, about_newcomer, about_person, choose, demand_change, examine, learn_foreign,
    note_breach_check, renew, set, tell_changed, verify_own,
};
pub use foreign::canonical;
pub use hash::{Checked, HashPool, Overloaded, Verdict, bare_rate, scheme};
pub use model::{About, Attempt, MAX_BYTES, Password, cap, common_passwords};
pub use store::STATEMENTS;
