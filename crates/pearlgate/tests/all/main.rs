//! The one integration binary. `support` starts real servers on both databases; `journeys` are stories through
//! HTTP; `attacks` has a function for each row of the attack book; `ground` tests what everything stands on;
//! `program` runs the program itself; `architecture` reads the source.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![allow(unreachable_pub, reason = "one binary: everything is private to it")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside: they read the environment and make clients"
)]

mod architecture;
mod attacks;
mod ground;
mod journeys;
mod program;
mod support;
