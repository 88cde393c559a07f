//! Dev mode: a mailbox in the browser, a clock that can be moved, providers that can be broken. Mounted with
//! `--dev` alone.

pub mod http;
