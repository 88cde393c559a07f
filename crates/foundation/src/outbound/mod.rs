//! The one door to other people's machines. Nothing outside is trusted to be up: each dependency has a name, a
//! time budget, a cap on what it may answer, a fault switch for dev mode and a line on `/health/dependencies`.
//!
//! A dependency with [`Patience`] is left alone for a while after failures in a row. What somebody else may name, such as an
//! identity provider, is asked by a client that knows where it may go ([`Private`]). A bulkhead comes into
//! [`Dependency::call`] later, without changing its callers.

mod addresses;
mod breaker;
mod faults;
mod guard;
mod http;

pub use addresses::{Private, is_public};
pub use breaker::Patience;
pub use faults::{Fault, UnknownFault};
pub use guard::{CallError, Dependencies, Dependency, Health, Settings};
pub use http::{Answer, Asking, HttpClient};
