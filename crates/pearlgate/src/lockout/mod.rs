//! Who may guess a password, and how often. An attempt is spent before the hash is computed and given back when the
//! password was right; parallel attempts never overshoot, because the row decides.
//!
//! * Strangers share one row per account. With the fifth failure in a row they are kept out for a minute, then for two,
//!   four, at most an hour; after eighty in all, until the owner unlocks the account or sets a new password.
//! * A device that signed in before has attempts of its own: ten in a row, twenty over all devices. 80 + 20 is what
//!   NIST SP 800-63B-4 §3.2.2 allows. What others do never keeps it out.
//! * An address that nobody has is counted like an account, on one of 2^22 slots: it locks in the same way.
//! * Links by mail, resets and other proofs are not guesses and go on working.
//! * The owner gets one mail when a lock begins, and another when it still goes on after the link has expired. The link
//!   unlocks, or keeps strangers out for a day.

mod flow;
pub mod http;
mod model;
pub mod pages;
mod store;
mod turns;

pub use flow::{
    adopt, disown, forget, handle, locked, reserve, reserve_signed_in, right, sweep, turn, unlock, unlock_in,
    unused, wrong,
};
pub use model::{Count, Refused, Reserved, Whose, counts, pause};
pub use store::STATEMENTS;
pub use turns::{Turn, Turns};
