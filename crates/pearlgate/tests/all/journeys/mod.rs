//! Stories through HTTP.

mod account;
mod pages;
mod registration;
mod sessions;
