//! Pearlgate, an accounts server: it knows who people are, lets them in, and keeps everybody else out.
//!
//! A slice is a folder: `model.rs` is pure, `store.rs` holds its statements, `flow.rs` its steps and transactions,
//! `http.rs` and `pages.rs` its doors. `router.rs` is the whole URL map.

pub mod access;
pub mod accounts;
pub mod admin;
pub mod app;
pub mod cli;
pub mod dev;
pub mod email_change;
pub mod errors;
pub mod federation;
pub mod invitations;
pub mod limits;
pub mod lockout;
pub mod magic_links;
pub mod mailed;
pub mod mailing;
pub mod maintenance;
pub mod mfa;
pub mod openapi;
pub mod pages;
pub mod passkeys;
pub mod passwords;
pub mod recovery;
pub mod registration;
pub mod router;
pub mod server;
pub mod sessions;
pub mod settings;
pub mod sign_in;
pub mod templates;
pub mod transfer;
pub mod webhooks;

/// Every statement of this program, for the test that prepares them on both databases.
pub fn statements() -> Vec<&'static foundation::db::Statement> {
    let ours = [
        access::STATEMENTS,
        accounts::STATEMENTS,
        admin::STATEMENTS,
        email_change::STATEMENTS,
        federation::STATEMENTS,
        invitations::STATEMENTS,
        lockout::STATEMENTS,
        magic_links::STATEMENTS,
        mailed::STATEMENTS,
        mfa::STATEMENTS,
        passkeys::STATEMENTS,
        passwords::STATEMENTS,
        recovery::STATEMENTS,
        registration::STATEMENTS,
        sessions::STATEMENTS,
        sign_in::STATEMENTS,
        transfer::STATEMENTS,
        webhooks::STATEMENTS,
    ];
    let foundations = [
        foundation::jobs::STATEMENTS,
        foundation::audit::STATEMENTS,
        foundation::http::STATEMENTS,
        foundation::limits::STATEMENTS,
        foundation::mail::STATEMENTS,
    ];
    ours.into_iter().chain(foundations).flatten().copied().collect()
}
