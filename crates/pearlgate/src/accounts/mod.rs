//! Who someone is: the profile and the address, `/v1/me`, one's own history.

mod flow;
pub mod http;
mod model;
mod store;

pub use flow::{
    Suspension, find, handle, sign_out, sign_out_in, suspend, suspend_in, unsuspend, unsuspend_in,
};
pub use model::{DisplayName, EmailAddress, Locale, Metadata, User, UserRow, address_key, name_key};
pub use store::STATEMENTS;
