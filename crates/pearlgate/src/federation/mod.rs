//! Others sign the person in: OpenID providers and GitHub; we are the relying party (OpenID Connect Core, RFC 9700).
//!
//! * Who somebody is: (provider, subject), whatever the address says now. An address counts once, for somebody who is not
//!   known: when the provider has proven it (`email_verified` is the JSON value true) and is believed. An account that has
//!   proven the address itself is linked only when the provider hands out that mailbox; otherwise its owner signs in first,
//!   then links. Nothing merges into an account that nobody has proven: what was planted in it dies.
//! * A browser that leaves has a cookie; the row of its sign-in is found by the state and that cookie, at that provider,
//!   once, within ten minutes. Nonce and PKCE verifier are derived from the two, so they stand nowhere.
//! * What a provider said waits, sealed, for whoever began: no account is touched before the application exchanges its code.
//!   From there it goes through the gate of second factors, as every way in.
//! * Whoever is asked is asked through the guard, in one conversation of five seconds, at public addresses and by https.
//!   Descriptions and keys are kept, asked for once for everybody, and used longer while the provider is away.
//! * Linking is pressed on a page of ours that names the account: whoever lures somebody onto a link gets nothing.

mod flow;
pub mod http;
mod metadata;
mod model;
mod operate;
mod own;
pub mod pages;
mod provider;
mod registry;
mod store;
mod talk;
mod tokens;
mod who;

pub use model::Refusal;
pub use operate::{
    Listed, ProviderChange, add_provider, add_provider_by, change_provider_by, list_providers, providers,
    remove_provider, remove_provider_by, reseal_providers, set_disabled,
};
pub use own::{disavow, linked_since, signs_in_by, sweep};
pub use provider::{PRETEND, Provider};
pub use registry::Providers;
pub use store::STATEMENTS;
