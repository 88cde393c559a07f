//! What operators do to people and to the server, over HTTP: a permission opens the route, and in the transaction of what is done it is decided
//! again whether whoever does it may, and stands above whom it is done to.

mod acts;
pub mod audit;
pub mod bulk;
pub mod closing;
mod flow;
pub mod http;
pub mod impersonate;
pub mod jobs;
pub mod mail;
mod model;
pub mod newcomers;
pub mod providers;
pub mod server;
mod shared;
mod store;
pub mod webhooks;

pub use bulk::{handle, sweep};
pub use flow::{Look, Search, on_person, one, people};
pub(crate) use shared::once;
pub use store::{Found, STATEMENTS};
