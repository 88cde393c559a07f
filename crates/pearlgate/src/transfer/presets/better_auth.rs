//! better-auth: its tables as one object `{"user":[…],"account":[…]}`, or a person on each line as
//! `{"user":{…},"accounts":[…]}`.
//!
//! Tables are kept in memory until all have been seen, because a person's accounts are further down; lines are not.
//! A password is `salt:key` in hexadecimal, and what scrypt was given as the salt is that text, not its bytes. The
//! secrets of second factors (table `twoFactor`) are encrypted under better-auth's own secret and not looked at.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, Cursor, Read};
use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::Value;

use super::Extras;
use super::facts::{flag, from_hex, lenient, scrypt, text};
use super::stream::{self, unreadable};
use crate::transfer::record::Record;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct User {
    id: Value,
    email: String,
    #[serde(deserialize_with = "flag", alias = "email_verified")]
    email_verified: bool,
    name: String,
    username: String,
    #[serde(alias = "created_at")]
    created_at: Value,
    /// The admin plugin's roles, with commas between.
    role: String,
    #[serde(deserialize_with = "flag")]
    banned: bool,
    #[serde(alias = "ban_reason")]
    ban_reason: String,
    #[serde(alias = "ban_expires")]
    ban_expires: Value,
    #[serde(deserialize_with = "flag", alias = "two_factor_enabled")]
    two_factor_enabled: bool,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Account {
    #[serde(alias = "account_id")]
    account_id: Value,
    #[serde(alias = "provider_id")]
    provider_id: String,
    #[serde(alias = "user_id")]
    user_id: Value,
    password: String,
}

#[derive(Deserialize)]
struct Line {
    user: User,
    #[serde(default, alias = "account")]
    accounts: Vec<Account>,
}

pub(super) fn read(
    mut reader: impl BufRead,
    extras: &Extras,
    each: &mut dyn FnMut(u64, Result<Record, String>) -> ControlFlow<()>,
) -> Result<(), String> {
    let opening = stream::open(&mut reader)?;
    // A first line that is not a whole object, or holds a list of users, is the beginning of the tables.
    let mut first = Vec::new();
    reader.by_ref().take(1 << 20).read_until(b'\n', &mut first).map_err(unreadable)?;
    let tables = match serde_json::from_slice::<Value>(&first) {
        Ok(line) => ["user", "account"].iter().any(|name| line.get(name).is_some_and(Value::is_array)),
        Err(error) => error.is_eof(),
    };
    let whole = Cursor::new(first).chain(reader);
    if tables {
        return read_tables(whole, extras, each);
    }
    stream::lines(whole, opening.lines, &mut |number, row| {
        let record = row.and_then(lenient::<Line>).and_then(|line| person(line.user, &line.accounts, extras));
        each(number, record)
    })
}

fn read_tables(
    reader: impl Read,
    extras: &Extras,
    each: &mut dyn FnMut(u64, Result<Record, String>) -> ControlFlow<()>,
) -> Result<(), String> {
    let mut users = Vec::new();
    let mut accounts: HashMap<String, Vec<Account>> = HashMap::new();
    let mut unclear = HashSet::new();
    stream::walk(reader, &["user", "account"], &mut |table, row| {
        let owner =
            row.as_ref().ok().and_then(|row| row.get("userId").or_else(|| row.get("user_id"))).map(text);
        if table == "user" {
            users.push(row.and_then(lenient::<User>));
        } else {
            match row.and_then(lenient::<Account>) {
                Ok(account) => accounts.entry(text(&account.user_id)).or_default().push(account),
                Err(_) => unclear.extend(owner),
            }
        }
        ControlFlow::Continue(())
    })?;
    for (number, user) in (1..).zip(users) {
        let record = user.and_then(|user| {
            let id = text(&user.id);
            let mut record = person(user, accounts.get(&id).map_or(&[], Vec::as_slice), extras)?;
            if unclear.contains(&id) {
                record.warn("a row of the table account is not understood");
            }
            Ok(record)
        });
        if each(number, record).is_break() {
            break;
        }
    }
    Ok(())
}

fn person(user: User, accounts: &[Account], extras: &Extras) -> Result<Record, String> {
    let mut record = Record::with_address(&user.email)?;
    record.email_verified = user.email_verified;
    record.display_name = user.name;
    record.created(&user.created_at);
    record.roles =
        user.role.split(',').map(str::trim).filter(|role| !role.is_empty()).map(str::to_owned).collect();
    for account in accounts {
        if account.provider_id != "credential" {
            record.identity(&account.provider_id, &text(&account.account_id));
        } else if !account.password.is_empty() {
            record.hash(password(&account.password));
        }
    }
    if user.two_factor_enabled {
        record.factor(Err("better-auth encrypts its secret"));
    }
    if user.banned {
        let reason = if user.ban_reason.is_empty() { "banned in better-auth" } else { &user.ban_reason };
        record.suspend(reason, &user.ban_expires, extras.now);
    }
    record.remember("better-auth", [("id", text(&user.id).into()), ("username", user.username.into())]);
    Ok(record)
}

fn password(hash: &str) -> Result<String, String> {
    match hash.split_once(':') {
        Some((salt, key)) => scrypt(16_384, 16, 1, salt.as_bytes(), &from_hex(key)?),
        // Those who gave better-auth a hash function of their own.
        None => Ok(hash.to_owned()),
    }
}
