//! The attack book, `security/attack-book.md`: one function a row, named after the row and its first precedent.
//!
//! The contract of every function here:
//! * It runs its row's whole matrix as far as the product has the feature; what does not exist yet is said in one
//!   comment, and whoever builds it adds the step.
//! * It runs on both databases (`both!`) where anything is stored; rows of the transport alone run on SQLite.
//! * It goes through the door: HTTP, or the bare socket where a client library would mend the request.
//! * The book's "400" is `api.md`'s 422 for a field that is refused, and 400 for what cannot be read in one way only.
//! * Every answer passes [`support::clean`]: no 5xx, no secret, no inner words.
//! * It looks at what is stored and mailed, not at answers alone, and where it can it shows that its trap would shut.

mod access;
mod bombing;
mod browser;
mod closed_registration;
mod compare;
mod credentials;
mod cross_site;
mod factors;
mod federation;
mod fuzz;
mod guessing;
mod hashing;
mod injection;
mod invitations;
mod jwt;
mod leakage;
mod links;
mod mail;
mod mailed;
mod notices;
mod outside;
mod parsers;
mod passkeys;
mod passwords;
mod recovery;
mod registration;
mod relying_party;
mod sessions;
mod silence;
mod slowness;
mod smuggling;
mod stuffing;
mod support;
mod throttling;

use std::collections::BTreeSet;

/// Every row of the book; the ids have gaps.
const ROWS: [u8; 83] = [
    1, 2, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 19, 21, 22, 23, 25, 26, 27, 28, 29, 30, 31, 32, 33, 35,
    36, 37, 38, 39, 40, 42, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58, 60, 61, 62, 63, 65,
    66, 67, 68, 69, 70, 71, 72, 73, 74, 76, 77, 78, 79, 80, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94,
    95, 96, 97,
];

/// The rows that must be covered by now: an issue that takes a row puts it here.
const COVERED: [u8; 75] = [
    1, 2, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 19, 21, 22, 23, 25, 26, 27, 28, 29, 30, 31, 32, 33, 35,
    36, 37, 38, 39, 40, 42, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58, 60, 61, 62, 63, 65,
    66, 67, 68, 72, 73, 74, 76, 77, 78, 79, 80, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92,
];

const SOURCES: [&str; 31] = [
    include_str!("closed_registration.rs"),
    include_str!("invitations.rs"),
    include_str!("leakage.rs"),
    include_str!("access.rs"),
    include_str!("outside.rs"),
    include_str!("federation.rs"),
    include_str!("relying_party.rs"),
    include_str!("passkeys.rs"),
    include_str!("factors.rs"),
    include_str!("silence.rs"),
    include_str!("bombing.rs"),
    include_str!("guessing.rs"),
    include_str!("stuffing.rs"),
    include_str!("throttling.rs"),
    include_str!("browser.rs"),
    include_str!("compare.rs"),
    include_str!("credentials.rs"),
    include_str!("cross_site.rs"),
    include_str!("hashing.rs"),
    include_str!("injection.rs"),
    include_str!("jwt.rs"),
    include_str!("links.rs"),
    include_str!("mail.rs"),
    include_str!("notices.rs"),
    include_str!("parsers.rs"),
    include_str!("passwords.rs"),
    include_str!("recovery.rs"),
    include_str!("registration.rs"),
    include_str!("sessions.rs"),
    include_str!("slowness.rs"),
    include_str!("smuggling.rs"),
];

/// The row of a line like `async fn a16_better_auth_…(`.
fn row(line: &str) -> Option<u8> {
    let name = line.trim_start().strip_prefix("async fn a")?;
    name.split_once('_')?.0.parse().ok()
}

#[test]
fn rows_not_yet_covered() {
    let found: Vec<u8> = SOURCES.iter().flat_map(|source| source.lines()).filter_map(row).collect();
    let covered: BTreeSet<u8> = found.iter().copied().collect();
    assert_eq!(found.len(), covered.len(), "a row has one function: {found:?}");
    assert_eq!(
        covered,
        BTreeSet::from(COVERED),
        "the rows that have a function are not the rows that should"
    );
    let book = BTreeSet::from(ROWS);
    assert_eq!(book.len(), ROWS.len(), "a row stands twice in the list");
    assert!(covered.is_subset(&book), "{:?} are in no book", covered.difference(&book));
    let others: Vec<String> = book.difference(&covered).map(|row| format!("A-{row:02}")).collect();
    println!("{} of {} rows are not yet covered: {}", others.len(), ROWS.len(), others.join(" "));
}
