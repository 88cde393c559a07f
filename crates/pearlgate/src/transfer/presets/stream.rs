//! One row at a time, however long the file: lines, a list, or lists inside an object.
//!
//! A row is parsed in two steps, first found and then understood, so that one that makes no sense costs itself and
//! not the rest of the file.

use std::fmt;
use std::io::{BufRead, Read};
use std::ops::ControlFlow;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Bytes of one row: more is not a person.
const MAX_ROW: usize = 1 << 20;

/// Where a row is, and the row or why it is none.
pub(super) type Row<'a> = &'a mut dyn FnMut(u64, Result<Value, String>) -> ControlFlow<()>;

/// The list's name, and the row or why it is none.
pub(super) type TableRow<'a> = &'a mut dyn FnMut(&str, Result<Value, String>) -> ControlFlow<()>;

/// What a file begins with.
pub(super) struct Opening {
    /// Its first character that says something.
    pub(super) sign: Option<u8>,
    /// How many lines were empty before.
    pub(super) lines: u64,
}

/// Goes past a byte order mark and empty lines.
pub(super) fn open(reader: &mut impl BufRead) -> Result<Opening, String> {
    let mut lines = 0;
    loop {
        let sign = reader.fill_buf().map_err(unreadable)?.first().copied();
        match sign {
            Some(b'\n') => lines += 1,
            Some(b' ' | b'\t' | b'\r' | 0xef | 0xbb | 0xbf) => {}
            sign => return Ok(Opening { sign, lines }),
        }
        reader.consume(1);
    }
}

/// A list of rows, or a row on each line: whichever the file is.
pub(super) fn rows(mut reader: impl BufRead, row: Row<'_>) -> Result<(), String> {
    let opening = open(&mut reader)?;
    match opening.sign {
        None => Ok(()),
        Some(b'[') => {
            let mut number = 0;
            walk(reader, &[], &mut |_, value| {
                number += 1;
                row(number, value)
            })
        }
        Some(b'{') => lines(reader, opening.lines, row),
        Some(_) => Err("this is neither a JSON list nor a JSON object on each line".to_owned()),
    }
}

/// A row on each line, counted from the line after `before`. Empty lines are passed over.
pub(super) fn lines(mut reader: impl BufRead, before: u64, row: Row<'_>) -> Result<(), String> {
    let mut line = Vec::new();
    for number in before + 1.. {
        line.clear();
        let limit = MAX_ROW as u64 + 1;
        if reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            break;
        }
        let found = if line.len() > MAX_ROW && !line.ends_with(b"\n") {
            reader.skip_until(b'\n').map_err(unreadable)?;
            Err(too_long())
        } else if line.trim_ascii().is_empty() {
            continue;
        } else {
            serde_json::from_slice(&line).map_err(bad_row)
        };
        if row(number, found).is_break() {
            break;
        }
    }
    Ok(())
}

/// The rows of the lists that an object (or each object of a list) has under the names of `tables`; with no names,
/// the rows of the list that the file itself is. Everything else is passed over.
pub(super) fn walk(reader: impl Read, tables: &[&str], row: TableRow<'_>) -> Result<(), String> {
    let mut walk = Walk { tables, row, seen: tables.is_empty(), stopped: false };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let came = if tables.is_empty() {
        Table("", &mut walk).deserialize(&mut json)
    } else {
        Outer(&mut walk).deserialize(&mut json)
    };
    let (seen, stopped) = (walk.seen, walk.stopped);
    if stopped {
        return Ok(());
    }
    came.and_then(|()| json.end()).map_err(not_json)?;
    if seen {
        Ok(())
    } else {
        Err(format!("there is no list \"{}\" in it: is it the right export?", tables.join("\" or \"")))
    }
}

struct Walk<'a> {
    tables: &'a [&'a str],
    row: TableRow<'a>,
    seen: bool,
    stopped: bool,
}

/// The object around the lists, or a list of such objects.
struct Outer<'w, 'a>(&'w mut Walk<'a>);

impl<'de> DeserializeSeed<'de> for Outer<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Outer<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if self.0.tables.contains(&key.as_str()) {
                self.0.seen = true;
                map.next_value_seed(Table(&key, &mut *self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        while seq.next_element_seed(Outer(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// A list whose rows are handed over.
struct Table<'w, 'a, 'n>(&'n str, &'w mut Walk<'a>);

impl<'de> DeserializeSeed<'de> for Table<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Table<'_, '_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }
    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        while let Some(raw) = seq.next_element::<Box<RawValue>>()? {
            let found = if raw.get().len() > MAX_ROW {
                Err(too_long())
            } else {
                serde_json::from_str(raw.get()).map_err(bad_row)
            };
            if (self.1.row)(self.0, found).is_break() {
                self.1.stopped = true;
                return Err(S::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// In words that hold nothing of the row, which is full of secrets.
fn bad_row(error: serde_json::Error) -> String {
    let words = error.to_string();
    let what = words.split(" at line ").next().unwrap_or_default();
    format!("this is not JSON: {what}, at its character {}", error.column())
}

fn not_json(error: serde_json::Error) -> String {
    if error.is_io() {
        return format!("the file cannot be read: {error}");
    }
    if error.is_data() {
        return format!("something else was expected at line {}, column {}", error.line(), error.column());
    }
    format!("this is not JSON: {error}")
}

pub(super) fn unreadable(error: std::io::Error) -> String {
    format!("the file cannot be read: {error}")
}

fn too_long() -> String {
    "longer than 1 MiB".to_owned()
}
