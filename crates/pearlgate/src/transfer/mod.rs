//! Moving people in and out: from other systems' exports or our own format, and to ours.
//!
//! * A record is one person; a bad one is said with its number and stops nothing.
//! * An address of a domain that accounts here do not have is a bad record, as everywhere.
//! * An address that exists is skipped, never overwritten. An address that was not proven brings no factors and no
//!   identities: whoever set up that account may not own the mailbox.
//! * A batch of people, what happened to them and how far the file is done are one transaction: an interrupted import
//!   goes on where it was.

mod flow;
mod presets;
mod record;
mod store;

pub use flow::{Importer, Said, Tally, export_users, file_digest, import_users, reseal_factors};
pub use presets::{Extras, FirebaseHash, Preset};
pub use record::{Identity, Record, Suspension, Totp};
pub use store::STATEMENTS;
