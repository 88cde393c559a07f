//! Django: `manage.py dumpdata` as JSON, with or without natural keys.
//!
//! People are rows of `auth.user`, or of any model that has `password` and `last_login` as Django's base class for
//! users does. Groups come before the people in a dump; what completes a person (django-otp's `totpdevice`,
//! django-allauth's `emailaddress`) comes after, so people are kept in memory until the end: about 1 KB each.

use std::collections::HashMap;
use std::io::BufRead;
use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Extras;
use super::facts::{from_hex, lenient, text, to_base32};
use super::stream;
use crate::transfer::record::{Record, Totp};
use foundation::kernel::Timestamp;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Row {
    model: String,
    pk: Value,
    fields: Map<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    username: String,
    email: String,
    password: String,
    is_active: Option<bool>,
    is_staff: bool,
    is_superuser: bool,
    date_joined: Value,
    first_name: String,
    last_name: String,
    groups: Vec<Value>,
}

#[derive(Deserialize)]
struct Device {
    key: String,
    #[serde(default)]
    confirmed: bool,
    step: u32,
    digits: u32,
    #[serde(default)]
    t0: i64,
}

pub(super) fn read(
    reader: impl BufRead,
    extras: &Extras,
    each: &mut dyn FnMut(u64, Result<Record, String>) -> ControlFlow<()>,
) -> Result<(), String> {
    let mut dump =
        Dump { people: Vec::new(), by_key: HashMap::new(), groups: HashMap::new(), waiting: Vec::new() };
    stream::rows(reader, &mut |number, row| {
        match row.and_then(lenient::<Row>) {
            Ok(row) => dump.take(number, row, extras),
            Err(why) => dump.people.push((number, Err(why))),
        }
        ControlFlow::Continue(())
    })?;
    for row in std::mem::take(&mut dump.waiting) {
        dump.complete(row);
    }
    for (number, record) in dump.people {
        if each(number, record).is_break() {
            break;
        }
    }
    Ok(())
}

struct Dump {
    people: Vec<(u64, Result<Record, String>)>,
    /// Where a person is among them, by primary and by natural key.
    by_key: HashMap<String, usize>,
    groups: HashMap<String, String>,
    /// What completes a person.
    waiting: Vec<Row>,
}

impl Dump {
    fn take(&mut self, number: u64, row: Row, extras: &Extras) {
        let has = |name: &str| row.fields.contains_key(name);
        match row.model.as_str() {
            "auth.group" => {
                let name = row.fields.get("name").map(text).unwrap_or_default();
                self.groups.insert(key(&row.pk), name);
            }
            "otp_totp.totpdevice" | "account.emailaddress" => self.waiting.push(row),
            model if model == "auth.user" || (has("password") && has("last_login")) => {
                let record = lenient(Value::Object(row.fields)).and_then(|user: User| {
                    let at = self.people.len();
                    self.by_key.extend([(key(&row.pk), at), (format!("[{}]", user.username), at)]);
                    self.person(user, &row.pk, extras)
                });
                self.people.push((number, record));
            }
            _ => {}
        }
    }

    fn person(&self, user: User, pk: &Value, extras: &Extras) -> Result<Record, String> {
        let mut record = Record::with_address(&user.email)?;
        record.email_verified = extras.assume_verified;
        record.display_name = format!("{} {}", user.first_name, user.last_name).trim().to_owned();
        record.created(&user.date_joined);
        if !user.password.is_empty() && !user.password.starts_with('!') {
            record.hash(Ok(user.password));
        }
        for group in &user.groups {
            match (group, self.groups.get(&key(group))) {
                (Value::Array(natural), _) => record.roles.extend(natural.first().map(text)),
                (_, Some(name)) => record.roles.push(name.clone()),
                (_, None) => record.warn("a group is not in the dump: dump auth.group, too"),
            }
        }
        record.roles.extend(user.is_staff.then(|| "staff".to_owned()));
        record.roles.extend(user.is_superuser.then(|| "superuser".to_owned()));
        if user.is_active == Some(false) {
            record.suspend("inactive in Django", &Value::Null, Timestamp::default());
        }
        record.remember("django", [("id", text(pk).into()), ("username", user.username.into())]);
        Ok(record)
    }

    /// Adds a device or a proven address to its person.
    fn complete(&mut self, row: Row) {
        let at = row.fields.get("user").and_then(|user| self.by_key.get(&key(user)));
        let Some((_, Ok(record))) = at.and_then(|at| self.people.get_mut(*at)) else {
            return;
        };
        if row.model == "account.emailaddress" {
            let said = |name: &str| row.fields.get(name);
            let same = said("email")
                .and_then(Value::as_str)
                .is_some_and(|it| it.eq_ignore_ascii_case(&record.email));
            record.email_verified |= same && said("verified") == Some(&Value::Bool(true));
            return;
        }
        match lenient::<Device>(Value::Object(row.fields)) {
            Ok(device) if !device.confirmed => {}
            Ok(device) => record.factor(totp(&device)),
            Err(_) => record.factor(Err("its device is not understood")),
        }
    }
}

/// A primary key, or a natural one in brackets.
fn key(reference: &Value) -> String {
    match reference {
        Value::Array(natural) => format!("[{}]", natural.first().map(text).unwrap_or_default()),
        primary => text(primary),
    }
}

fn totp(device: &Device) -> Result<Totp, &'static str> {
    if device.t0 != 0 {
        return Err("its time does not begin at 1970");
    }
    let secret = to_base32(&from_hex(&device.key).map_err(|_| "its key is not hexadecimal")?);
    Ok(Totp { digits: device.digits, period: device.step, ..Totp::usual(secret) })
}
