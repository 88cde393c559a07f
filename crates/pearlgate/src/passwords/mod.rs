//! Passwords: which are acceptable when they are set, and how they are hashed and checked.
//!
//! * A password is at least 15 characters (code points) and at most 1,024 bytes long, of any characters at all; no
//!   composition rules, nothing trimmed, cut or folded (NIST SP 800-63B-4 §3.1.1.2). It is normalised to NFKC
//!   before it is hashed, so that the same letters typed on two machines are the same password.
//! * The length in bytes is checked before anything else touches it.
//! * Hashing is Argon2id in a pool of threads, one per core, each with its own memory; a full queue is 503 at once.

mod hash;
mod model;

pub use hash::{Cost, HashPool, Overloaded, Verdict, bare_rate};
pub use model::{Attempt, MAX_BYTES, Password};
