//! Who someone is: the profile and the address, `/v1/me`, one's own history.

mod flow;
pub mod http;
mod model;
mod store;

pub use flow::{find, sign_out, suspend, unsuspend};
pub use model::{DisplayName, EmailAddress, Locale, Metadata, User, UserRow, address_key};
pub use store::STATEMENTS;
