//! Who someone is: the profile and the address, `/v1/me`, one's own history, everything that is stored about one, and how one
//! leaves.
//!
//! * An account that is to be deleted is a row ([`close_in`]). Until its time has come its owner keeps it with a mailed link, and
//!   operators with a call ([`restore_in`]); meanwhile it is suspended.
//! * Then a job erases it: nothing that was stored about the person is left under their name, and what is left is written down
//!   in the guide.

mod closing;
mod erase;
pub mod export;
mod flow;
pub mod http;
mod model;
pub mod pages;
mod store;

pub use closing::{close, close_in, keep_in, restore, restore_in, stays_out};
pub use flow::{
    Suspension, find, handle, sign_out, sign_out_in, suspend, suspend_in, unsuspend, unsuspend_in,
};
pub use model::{DisplayName, EmailAddress, Locale, Metadata, User, UserRow, address_key, is_odd, name_key};
pub use store::STATEMENTS;
