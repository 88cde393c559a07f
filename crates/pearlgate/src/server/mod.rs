//! What the server tells about itself: health, metrics, keys' whereabouts, its API, its error codes. And running it.

pub mod http;
pub mod pages;
mod run;

pub use run::{Running, StartError, start};
pub(crate) use run::{lock_directory, master_keys, open_database};
