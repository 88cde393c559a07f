//! What operators do to people and to the server, over HTTP: a permission opens the route, and in the transaction of what is done it is decided
//! again whether whoever does it may, and stands above whom it is done to.

pub mod audit;
mod flow;
pub mod http;
pub mod jobs;
pub mod mail;
mod model;
pub mod providers;
pub mod server;
mod shared;
mod store;
pub mod webhooks;

pub use flow::{Look, Search, on_person, one, people};
pub use store::{Found, STATEMENTS};
