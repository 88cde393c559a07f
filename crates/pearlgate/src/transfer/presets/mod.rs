//! What others export, read as our own [`Record`]s, one at a time.
//!
//! Each exporter has a file that says what its export looks like and what comes along. They share a shape: a row of
//! the export is typed leniently (what is not there is empty, what is not known is passed over), and becomes a record
//! or words. A hash is handed on as it is where it says by itself what it is, else as a PHC string; whether it can be
//! checked is for `passwords::foreign::canonical` to say. What cannot be brought along is said in the record's warnings. What the exporter knew and we have no
//! place for, its own id above all, is in `metadata` under `imported`.

mod auth0;
mod better_auth;
mod django;
mod facts;
mod firebase;
mod keycloak;
mod stream;
mod supabase;
#[cfg(test)]
mod tests;

use std::io::BufRead;
use std::ops::ControlFlow;
use std::str::FromStr;

use serde_json::Value;

use self::facts::typed;
use crate::transfer::record::Record;
use foundation::kernel::{Secret, Timestamp};

/// Whose export it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Our own: [`Record`]s as NDJSON.
    Pearlgate,
    /// A realm export, or its files of users.
    Keycloak,
    /// The export with password hashes, the export of users, or the file that its import takes.
    Auth0,
    /// `firebase auth:export`, as JSON.
    Firebase,
    /// Rows of GoTrue's `auth.users`.
    Supabase,
    /// The tables of better-auth.
    BetterAuth,
    /// `manage.py dumpdata`.
    Django,
}

impl FromStr for Preset {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "pearlgate" => Self::Pearlgate,
            "keycloak" => Self::Keycloak,
            "auth0" => Self::Auth0,
            "firebase" => Self::Firebase,
            "supabase" => Self::Supabase,
            "better-auth" => Self::BetterAuth,
            "django" => Self::Django,
            _ => {
                return Err(
                    "give one of pearlgate, keycloak, auth0, firebase, supabase, better-auth, django"
                        .to_owned(),
                );
            }
        })
    }
}

/// What an export does not carry by itself.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// How the Firebase project hashes passwords.
    pub firebase: Option<FirebaseHash>,
    /// That the addresses of a Django export were proven: Django does not say.
    pub assume_verified: bool,
    /// Which temporary suspensions are over.
    pub now: Timestamp,
}

/// A Firebase project's password hash parameters, as its console shows them.
#[derive(Debug, Clone)]
pub struct FirebaseHash {
    /// `base64_signer_key`
    pub signer_key: Secret,
    /// `base64_salt_separator`
    pub salt_separator: String,
    /// `rounds`
    pub rounds: u32,
    /// `mem_cost`
    pub mem_cost: u32,
}

/// Reads an export and calls `each` with the number of every person (the line where there are lines, else the place
/// in the list, from 1) and the record, or words that say why there is none; until `each` breaks.
///
/// Memory does not grow with the file, except for what [`Preset::Django`] and the tables of [`Preset::BetterAuth`]
/// tell about a person further down.
///
/// # Errors
/// In words, when the file cannot be read or is not such an export. What came before has been handed over.
pub(super) fn read(
    preset: Preset,
    mut reader: impl BufRead,
    extras: &Extras,
    each: &mut dyn FnMut(u64, Result<Record, String>) -> ControlFlow<()>,
) -> Result<(), String> {
    let person: &dyn Fn(Value) -> Result<Record, String> = match preset {
        Preset::Pearlgate => &typed::<Record>,
        Preset::Keycloak => &keycloak::person,
        Preset::Firebase => &|row| firebase::person(row, extras),
        Preset::Auth0 => &auth0::person,
        Preset::Supabase => &|row| supabase::person(row, extras),
        Preset::BetterAuth => return better_auth::read(reader, extras, each),
        Preset::Django => return django::read(reader, extras, each),
    };
    match preset {
        Preset::Keycloak | Preset::Firebase => {
            stream::open(&mut reader)?;
            let mut number = 0;
            stream::walk(reader, &["users"], &mut |_, row| {
                number += 1;
                each(number, row.and_then(person))
            })
        }
        Preset::Pearlgate => {
            let opening = stream::open(&mut reader)?;
            stream::lines(reader, opening.lines, &mut |number, row| each(number, row.and_then(person)))
        }
        _ => stream::rows(reader, &mut |number, row| each(number, row.and_then(person))),
    }
}
