//! What a mail carries to prove a mailbox: a link for the person who reads it, a six-digit code for the application
//! that waits. Verification, reset, magic link and change of address are one mechanism.
//!
//! * One open row per person and purpose; a newer mail replaces it. Link and code end together.
//! * Digests stay, the secrets leave once. A code is bound to its purpose and to whom it was made for.
//! * A guess is spent before it is compared: five end a code, ten a day and a hundred in a row end codes for the
//!   account, over all mails of all purposes; links go on working.
//! * Strangers can have a few mails an hour sent to a mailbox, of all kinds together ([`may_ask`]). Beyond that nothing
//!   is sent and nothing else changes: what was sent last stays good.
//! * GET consumes nothing ([`pages`]).
//! * Whoever proves the mailbox in one way ends everything else that was mailed ([`kill_all`]).

mod flow;
mod model;
pub mod pages;
mod store;

pub use flow::{
    NOBODY, Shown, TOLD_ENOUGH, address_key, consume, find, forget_failures, is_code, keep_last, kill_all,
    kill_halves, lock_person, may_ask, may_tell, not_me_link, open_person, proven_address,
    spend_account_guess, sweep,
};
pub use model::{Asked, Kind, MAX_GUESSES, NOT_ME, Proofs, code_digest, in_words, is_token};
pub use store::{EMAIL_CHANGE, MAGIC_LINK, RESET, STATEMENTS};
