//! Time, chance, ids, secrets, problems, pages: what everything else is made of. Imports nothing of ours.

mod clock;
mod entropy;
mod id;
mod page;
mod problem;
mod seal;
mod secret;
mod setting;
pub mod tls;
pub mod trace;

pub use clock::{Clock, Timestamp};
pub use entropy::Entropy;
pub use id::{Entity, Id, IdError};
pub use page::{CursorKey, Page, PageRequest};
pub use problem::{FieldError, Problem};
pub use seal::{SealError, Sealer};
pub use secret::{Digest, MacKey, MacKeys, MasterKeys, Secret, sha256};
pub use setting::WrongSetting;
