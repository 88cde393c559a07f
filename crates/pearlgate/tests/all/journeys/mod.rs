//! Stories through HTTP.

pub mod access;
mod account;
pub mod authenticator;
mod breaches;
mod email_change;
mod equal_work;
mod followers;
mod identities;
mod keys;
mod magic_links;
mod mail_chain;
mod operations;
mod own_sessions;
mod pages;
pub mod passkeys;
mod passwords;
mod recovery;
mod registration;
mod second_factors;
mod sessions;
mod social_login;
mod steps;
mod sweeps;
mod token_kinds;
pub mod webhooks;
