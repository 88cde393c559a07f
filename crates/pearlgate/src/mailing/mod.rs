//! What becomes of mails: heard from those who carry them, shown to operators.

mod flow;
pub mod http;

pub use flow::lift;
