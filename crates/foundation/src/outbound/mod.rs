//! The one door to other people's machines. Nothing outside is trusted to be up: each dependency has a name, a
//! time budget, a cap on what it may answer, a fault switch for dev mode and a line on `/health/dependencies`.
//!
//! A dependency with [`Patience`] is left alone for a while after failures in a row. Bulkhead and address guard come into
//! [`Dependency::call`] later, without changing its callers.

mod breaker;
mod faults;
mod guard;
mod http;

pub use breaker::Patience;
pub use faults::{Fault, UnknownFault};
pub use guard::{CallError, Dependencies, Dependency, Health, Settings};
pub use http::{Answer, HttpClient};
