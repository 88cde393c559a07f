//! The one door to other people's machines. Nothing outside is trusted to be up: each dependency has a name, a
//! time budget, a cap on what it may answer, a fault switch for dev mode and a line on `/health/dependencies`.
//!
//! Breaker, bulkhead and address guard come into [`Dependency::call`] later, without changing its callers.

mod faults;
mod guard;
mod http;

pub use faults::{Fault, UnknownFault};
pub use guard::{CallError, Dependencies, Dependency, Health, Settings};
pub use http::{Answer, HttpClient};
