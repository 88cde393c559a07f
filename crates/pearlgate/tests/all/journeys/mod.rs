//! Stories through HTTP.

mod account;
mod registration;
mod sessions;
