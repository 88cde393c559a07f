//! The way back in when a password is lost or somebody else has it: forgot, reset, and "that was not me".
//!
//! * Asking is answered the same for every address; a job finds out whether there is anybody.
//! * One open reset per person, the newest wins; link and code; one winner of any number of redemptions.
//! * A reset proves the mailbox: every session ends and everything else that was mailed dies. Second factors stay.
//! * "That was not me", from a notice: the account goes back to the address it had, every session ends, and the
//!   password lets nobody in until the owner of that mailbox sets another one.

mod flow;
pub mod http;
mod model;
pub mod pages;
mod store;

pub(crate) use flow::{Disavowed, not_me, not_me_for};
pub use flow::{ForgotPassword, handle, mail_reset, mail_reset_once};
pub use model::Refusal;
pub use store::STATEMENTS;
