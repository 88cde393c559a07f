//! The rules, read from `deny.toml`.
//!
//! Only what this file understands may stand there: a rule that cargo-deny follows and we overlook would be a quiet
//! disagreement, so an unknown key is an error here.

use toml::{Table, Value};

use crate::failure::{Failure, OrFail, Outcome};

/// What may come in.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Crates that may not be built.
    pub(crate) bans: Vec<Ban>,
    /// Crates, each with the features that may not be on.
    pub(crate) features: Vec<(String, Vec<String>)>,
    /// Licences, some `WITH` an exception.
    pub(crate) licences: Vec<String>,
}

/// A banned crate.
#[derive(Debug)]
pub(crate) struct Ban {
    /// Its name.
    pub(crate) name: String,
    /// Why.
    pub(crate) reason: String,
    /// One version is welcome, several are not.
    pub(crate) only_several: bool,
}

impl Rules {
    /// Reads the text of `deny.toml`.
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        let file: Table = text.parse().or_fail("cannot read deny.toml", "mend its TOML")?;
        let bans = section(&file, "bans")?;
        known(bans, "bans", &["multiple-versions", "wildcards", "deny", "features"])?;
        let licences = section(&file, "licenses")?;
        known(licences, "licenses", &["confidence-threshold", "include-dev", "include-build", "allow"])?;
        let sources = section(&file, "sources")?;
        known(sources, "sources", &["unknown-registry", "unknown-git"])?;
        if !sources.values().all(|level| level.as_str() == Some("deny")) || sources.len() != 2 {
            return Err(unclear("[sources] must deny unknown-registry and unknown-git"));
        }
        Ok(Self {
            bans: entries(bans, "deny")?.into_iter().map(Ban::parse).collect::<Outcome<_>>()?,
            features: entries(bans, "features")?.into_iter().map(features).collect::<Outcome<_>>()?,
            licences: texts(licences, "allow")?,
        })
    }
}

impl Ban {
    fn parse(entry: &Table) -> Outcome<Self> {
        known(entry, "bans.deny", &["crate", "reason", "deny-multiple-versions"])?;
        Ok(Self {
            name: crate_name(entry)?,
            reason: text(entry, "reason")?,
            only_several: entry.get("deny-multiple-versions").and_then(Value::as_bool).unwrap_or(false),
        })
    }
}

fn features(entry: &Table) -> Outcome<(String, Vec<String>)> {
    known(entry, "bans.features", &["crate", "deny"])?;
    Ok((crate_name(entry)?, texts(entry, "deny")?))
}

/// A crate's bare name: we understand no version requirement behind it.
fn crate_name(entry: &Table) -> Outcome<String> {
    let name = text(entry, "crate")?;
    if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Ok(name);
    }
    Err(unclear(&format!("crate = \"{name}\" is more than a name")))
}

fn section<'a>(file: &'a Table, name: &str) -> Outcome<&'a Table> {
    file.get(name).and_then(Value::as_table).ok_or_else(|| unclear(&format!("[{name}] is missing")))
}

fn known(table: &Table, place: &str, keys: &[&str]) -> Outcome {
    match table.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => Err(unclear(&format!("[{place}] has the key {key}"))),
        None => Ok(()),
    }
}

fn list<'a>(table: &'a Table, key: &str) -> Outcome<&'a Vec<Value>> {
    table.get(key).and_then(Value::as_array).ok_or_else(|| unclear(&format!("the list {key} is missing")))
}

fn entries<'a>(table: &'a Table, key: &str) -> Outcome<Vec<&'a Table>> {
    let entry = |value: &'a Value| {
        value.as_table().ok_or_else(|| unclear(&format!("{key} holds what is no table: {value}")))
    };
    list(table, key)?.iter().map(entry).collect()
}

fn texts(table: &Table, key: &str) -> Outcome<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let texts = list(table, key)?.iter().map(text).collect::<Option<Vec<_>>>();
    texts.ok_or_else(|| unclear(&format!("{key} may hold nothing but text")))
}

fn text(table: &Table, key: &str) -> Outcome<String> {
    let text = table.get(key).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| unclear(&format!("the text {key} is missing in {table}")))
}

fn unclear(why: &str) -> Failure {
    Failure::new(
        "cannot follow deny.toml",
        why,
        "keep to the keys that are there, or teach xtask/src/lockfile/rules.rs the new one",
    )
}
