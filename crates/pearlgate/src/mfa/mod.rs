//! Second factors, and the gate that every way in passes.
//!
//! * [`enter`] is the only caller of `sessions::begin`: whatever was proven (a password, a mailbox), it leads to a
//!   session or, when a factor is due, to a [`HalfLogin`]. That is a row of its own, not a session with less: its
//!   token opens `/v1/auth/mfa` and nothing else, and there is no way from it to tokens but [`enter`] again.
//! * A factor is checked in one place, whichever door it is shown at: a try is spent before it is looked at, counted
//!   per account and factor whatever sign-in it belongs to; the accepted step of an authenticator app is stored, and
//!   only later ones are accepted.
//! * A mailbox is no factor: its code is a second step for those who have nothing else, at assurance level 1.
//! * Whoever changes factors has shown everything that the account has a moment ago; a notice goes out, and everything
//!   that was half done is over.

mod check;
mod flow;
mod gate;
pub mod http;
mod model;
mod own;
pub mod pages;
mod reset;
mod store;

pub use check::{Factor, Shown};
pub use flow::reauthenticate;
pub use gate::{Answer, Entered, HalfLogin, answer, enter};
pub use model::{SEALED_FOR, Totp};
pub use own::{
    added_since, change_in, disavow, forget_planted, may_lose_passkeys, passkey_added, passkey_removed, sweep,
};
pub use reset::{
    announce_reset, announce_reset_in, cancel_by_link, cancel_in as factor_shown, cancel_reset, handle,
    reset_for,
};
pub use store::STATEMENTS;
