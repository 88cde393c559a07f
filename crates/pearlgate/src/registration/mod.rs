//! From a form to a verified account.
//!
//! * A registration's password waits in the open verification and becomes a credential only when the mail is
//!   proven by whoever holds the `verification_id` that this registration was answered with. Whoever opens the link
//!   without it proves the mailbox and nothing else, and chooses a password of their own: no mail activates a
//!   password that its opener did not prove (better-auth #11023).
//! * A second registration of an unproven address replaces the first (the newest wins, the older id dies); of a
//!   proven one it stores nothing, and the mail says that there is an account. The answer is the same.
//! * The request hashes and leaves a job (`register`), which stores: its time tells nothing about the address.
//! * An identity of a provider that did not prove an address waits in the place of a password, and is linked by the same
//!   proof.
//! * Who may come at all is asked in one place (`policy`), by every way to an account.
//! * Five wrong guesses kill a code, its link lives on; wrong codes also count over all of an account's mails.

mod flow;
pub mod http;
mod model;
pub mod pages;
mod policy;
mod register;
mod store;

pub use flow::{ResendVerification, first_proof, forget_profile, handle, may_begin, sweep};
pub use model::{Refusal, VerificationRow};
pub use policy::{NotAdmitted, Way, admits};
pub use register::{
    Claimed, Founder, NewPerson, Newcomer, Unmade, begin_by_identity, claim, found, make, may_make,
};
pub use store::STATEMENTS;
