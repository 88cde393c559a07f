//! Signing in without a password, by a link or code that is mailed.
//!
//! * Asking is answered the same for every address; a job finds out whether there is anybody.
//! * One open link per person, the newest wins; GET burns nothing; second factors are still asked for.
//! * Using one proves the mailbox: what was planted at an unproven address dies (better-auth GHSA-qq9h-g4jm-xgf3).

mod flow;
pub mod http;
mod model;
pub mod pages;
mod store;

pub use flow::{SendMagicLink, handle, mail_link};
pub use model::{MagicLinkRow, Refusal};
pub use store::STATEMENTS;
