//! Settings: a commented default file that *is* the default, over it a file, over that the environment.
//!
//! The default file is also the list of what exists: a key that it does not have is refused, and so is a value of
//! another type than its own. `PEARLGATE__SERVER__LISTEN` sets `server.listen`; with `_FILE` behind it the value
//! is read from the named file, so that secrets need not stand in the environment.
//!
//! A section of the defaults that is called `"*"` is the template of any number of sections in its place, each with a name
//! of its own: `[providers."*"]` has the keys and defaults of `[providers.google]`.

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Why the settings are refused: the key, where it stands, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct ConfigError {
    /// The file and line, or the environment variable.
    pub place: String,
    /// What is wrong with which key, and the remedy.
    pub what: String,
}

/// A setting as it may be shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Its key, such as `server.listen`.
    pub key: String,
    /// Its value; `(hidden)` for a secret that is set.
    pub value: serde_json::Value,
    /// Where it was set: a file and line, an environment variable, an option, or `the defaults`.
    pub place: String,
}

/// What the section is called that others begin as.
const TEMPLATE: &str = "*";

/// The settings while they are put together.
#[derive(Debug, Clone)]
pub struct Layers {
    settings: Table,
    /// Where each key that is not a default was set.
    places: Vec<(String, String)>,
}

impl Layers {
    /// The defaults.
    ///
    /// # Errors
    /// When the default text is not TOML, which a test rules out.
    pub fn new(defaults: &str) -> Result<Self, ConfigError> {
        let settings = parse("the defaults", defaults)?;
        Ok(Self { settings, places: Vec::new() })
    }

    /// Lays a file over them.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, or has a key or type that does not exist.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError {
            place: place.clone(),
            what: format!("the configuration file cannot be read: {e}. Check the path given with --config."),
        })?;
        self.text(&place, &text)
    }

    /// Lays TOML text over them; `place` names it in errors.
    ///
    /// # Errors
    /// As [`Layers::file`].
    pub fn text(&mut self, place: &str, text: &str) -> Result<(), ConfigError> {
        let table = parse(place, text)?;
        for (key, value) in flatten("", &table) {
            let line = line_of(text, &key);
            self.set(&key, value, &format!("{place}, line {line}"))?;
        }
        Ok(())
    }

    /// Lays the environment over them: every variable that starts with `prefix` and two underscores.
    ///
    /// # Errors
    /// As [`Layers::file`], with the variable's name as the place.
    pub fn environment(
        &mut self,
        prefix: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let mut given: Vec<(String, String)> = Vec::new();
        for (name, value) in variables {
            let Some(path) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix("__")) else {
                continue;
            };
            let key = path.to_ascii_lowercase().replace("__", ".");
            self.make_room(&key);
            let from_file =
                if lookup(&self.settings, &key).is_none() { key.strip_suffix("_file") } else { None };
            let target = from_file.unwrap_or(&key).to_owned();
            if let Some((other, _)) = given.iter().find(|(_, k)| *k == target) {
                return Err(ConfigError {
                    place: name.clone(),
                    what: format!("`{target}` is set by {other} too: keep one of them"),
                });
            }
            given.push((name.clone(), target));
            if let Some(key) = from_file {
                let value = std::fs::read_to_string(&value).map_err(|e| ConfigError {
                    place: name.clone(),
                    what: format!(
                        "the file {value} cannot be read: {e}. The value of `{key}` is taken from it."
                    ),
                })?;
                self.set_text(key, value.trim_end_matches(['\r', '\n']), &name)?;
            } else {
                self.set_text(&key, &value, &name)?;
            }
        }
        Ok(())
    }

    /// Sets one key from a command line option.
    ///
    /// # Errors
    /// As [`Layers::file`], with the option as the place.
    pub fn option(&mut self, option: &str, key: &str, value: &str) -> Result<(), ConfigError> {
        self.set_text(key, value, option)
    }

    /// Where a key was set; `the defaults` when nobody did.
    pub fn place_of(&self, key: &str) -> &str {
        self.places.iter().rev().find(|(k, _)| k == key).map_or("the defaults", |(_, place)| place)
    }

    /// An error about a key, at the place where it was set.
    pub fn refuse(&self, key: &str, what: impl std::fmt::Display) -> ConfigError {
        ConfigError { place: self.place_of(key).to_owned(), what: format!("`{key}` {what}") }
    }

    /// All settings, as a type.
    ///
    /// # Errors
    /// When the type and the default file have grown apart, which a test rules out, or a value does not fit.
    pub fn build<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut settings = self.settings.clone();
        settings.iter_mut().filter_map(|(_, value)| value.as_table_mut()).for_each(|section| {
            section.remove(TEMPLATE);
        });
        let read = serde_path_to_error::deserialize(Value::Table(settings));
        read.map_err(|e| {
            // `server.allowed_hosts[1]` was set where `server.allowed_hosts` was.
            let path = e.path().to_string();
            let key = path.split('[').next().unwrap_or(&path).to_owned();
            let words = e.into_inner().to_string();
            self.refuse(
                &key,
                format!("has an item that does not fit: {}", words.lines().next().unwrap_or_default().trim()),
            )
        })
    }

    /// All settings as TOML, the values of `secrets` hidden.
    pub fn show(&self, secrets: &[&str]) -> String {
        toml::to_string(&self.hiding(secrets)).unwrap_or_default()
    }

    /// Each setting and where it was set, by key, the values of `secrets` hidden. Of templates, only what was made of them.
    pub fn shown(&self, secrets: &[&str]) -> Vec<Shown> {
        let mut all = flatten("", &self.hiding(secrets));
        all.retain(|(key, _)| !key.split('.').any(|part| part == TEMPLATE));
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let shown = |(key, value): (String, Value)| {
            let place = self.place_of(&key).to_owned();
            Shown { key, value: serde_json::to_value(&value).unwrap_or_default(), place }
        };
        all.into_iter().map(shown).collect()
    }

    fn hiding(&self, secrets: &[&str]) -> Table {
        let mut shown = self.settings.clone();
        for key in secrets.iter().flat_map(|key| self.named(key)) {
            let hide = |value: &mut Value| {
                if value.as_str() != Some("") {
                    *value = Value::String("(hidden)".into());
                }
            };
            match lookup_mut(&mut shown, &key) {
                Some(Value::Array(items)) => items.iter_mut().for_each(hide),
                Some(value) => hide(value),
                None => {}
            }
        }
        shown
    }

    /// The keys that a key stands for: `providers.*.client_secret` is one in every section of that template.
    fn named(&self, key: &str) -> Vec<String> {
        let Some((family, rest)) = key.split_once(".*.") else { return vec![key.to_owned()] };
        let sections = self.settings.get(family).and_then(Value::as_table);
        sections.into_iter().flatten().map(|(name, _)| format!("{family}.{name}.{rest}")).collect()
    }

    /// A section that is named for the first time begins as its template is.
    fn make_room(&mut self, key: &str) {
        let mut parts = key.splitn(3, '.');
        let (Some(family), Some(name), Some(_)) = (parts.next(), parts.next(), parts.next()) else { return };
        let Some(sections) = self.settings.get_mut(family).and_then(Value::as_table_mut) else { return };
        let plain = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if let Some(template) = sections.get(TEMPLATE).cloned().filter(|_| plain) {
            sections.entry(name).or_insert(template);
        }
    }

    fn set_text(&mut self, key: &str, text: &str, place: &str) -> Result<(), ConfigError> {
        let fail = |what: String| ConfigError { place: place.to_owned(), what };
        self.make_room(key);
        let value = match lookup(&self.settings, key) {
            None => return Err(fail(unknown(&self.settings, key))),
            Some(Value::Integer(_)) => {
                text.parse().map(Value::Integer).map_err(|_| fail(format!("`{key}` is a whole number")))
            }
            Some(Value::Boolean(_)) => {
                text.parse().map(Value::Boolean).map_err(|_| fail(format!("`{key}` is true or false")))
            }
            Some(Value::Array(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
            }
            Some(_) => Ok(Value::String(text.to_owned())),
        }?;
        self.set(key, value, place)
    }

    fn set(&mut self, key: &str, value: Value, place: &str) -> Result<(), ConfigError> {
        let fail = |what| ConfigError { place: place.to_owned(), what };
        self.make_room(key);
        if lookup(&self.settings, key).is_none() {
            return Err(fail(unknown(&self.settings, key)));
        }
        let Some(slot) = lookup_mut(&mut self.settings, key) else { return Ok(()) };
        if !slot.same_type(&value) {
            return Err(fail(format!("`{key}` is {}, not {}", word(slot), word(&value))));
        }
        *slot = value;
        self.places.push((key.to_owned(), place.to_owned()));
        Ok(())
    }
}

fn parse(place: &str, text: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|e| {
        let line = e
            .span()
            .map_or(1, |span| text.get(..span.start).map_or(1, |before| before.lines().count().max(1)));
        ConfigError { place: format!("{place}, line {line}"), what: format!("not TOML: {}", e.message()) }
    })
}

fn flatten(above: &str, table: &Table) -> Vec<(String, Value)> {
    let mut out = Vec::new();
    for (name, value) in table {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match value {
            Value::Table(inner) => out.extend(flatten(&key, inner)),
            other => out.push((key, other.clone())),
        }
    }
    out
}

fn lookup<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    match key.split_once('.') {
        Some((first, rest)) => lookup(table.get(first)?.as_table()?, rest),
        None => table.get(key).filter(|value| !value.is_table()),
    }
}

fn lookup_mut<'t>(table: &'t mut Table, key: &str) -> Option<&'t mut Value> {
    match key.split_once('.') {
        Some((first, rest)) => lookup_mut(table.get_mut(first)?.as_table_mut()?, rest),
        None => table.get_mut(key),
    }
}

fn unknown(known: &Table, key: &str) -> String {
    let all = flatten("", known);
    let near = all.iter().map(|(k, _)| k).min_by_key(|k| distance(k, key)).filter(|k| distance(k, key) <= 4);
    let hint = near.map(|k| format!(" Did you mean `{k}`?")).unwrap_or_default();
    format!("there is no setting `{key}`.{hint} `config show --default` lists them all.")
}

/// Letters to change, add or take away to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (y, pair) in b.iter().zip(row.windows(2)) {
            let (Some(left), [diagonal, above]) = (next.last().copied(), pair) else { continue };
            next.push((diagonal + usize::from(x != *y)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

fn word(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
        Value::Float(_) => "a number with a point",
        Value::Datetime(_) => "a date",
    }
}

/// The line on which a key stands, in the section it belongs to.
fn line_of(text: &str, key: &str) -> usize {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut current = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            current = header.trim_end_matches(']').trim().to_owned();
        }
        let left = line.split('=').next().unwrap_or_default().trim();
        if (current == section && left == name) || (current.is_empty() && left == key) {
            return number + 1;
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &str =
        "[server]\nlisten = \"127.0.0.1:8080\"\nproxies = []\nmost = 5\nopen = true\n[secrets]\nkey = \"\"\n";

    #[test]
    fn a_section_of_ones_own_begins_as_its_template() {
        let text = "[apps.\"*\"]\nid = \"\"\nsecret = \"\"\nmost = 5\n";
        let mut layers = Layers::new(text).unwrap();
        layers.text("file", "[apps.one]\nid = \"1\"\nsecret = \"s\"\n").unwrap();
        let variables = [("T__APPS__TWO__MOST".to_owned(), "7".to_owned())];
        layers.environment("T", variables).unwrap();
        #[derive(Debug, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct App {
            id: String,
            secret: String,
            most: i64,
        }
        #[derive(Debug, serde::Deserialize)]
        struct All {
            apps: std::collections::BTreeMap<String, App>,
        }
        let all: All = layers.build().unwrap();
        let app = |id: &str, secret: &str, most| App { id: id.into(), secret: secret.into(), most };
        let expected = [("one".to_owned(), app("1", "s", 5)), ("two".to_owned(), app("", "", 7))];
        assert_eq!(all.apps.into_iter().collect::<Vec<_>>(), expected);
        let shown = layers.show(&["apps.*.secret"]);
        assert!(shown.contains("secret = \"(hidden)\"") && !shown.contains("\"s\""), "{shown}");
        let listed = layers.shown(&["apps.*.secret"]);
        let all: Vec<_> =
            listed.iter().map(|one| format!("{} = {} by {}", one.key, one.value, one.place)).collect();
        assert_eq!(
            all,
            [
                "apps.one.id = \"1\" by file, line 2",
                "apps.one.most = 5 by the defaults",
                "apps.one.secret = \"(hidden)\" by file, line 3",
                "apps.two.id = \"\" by the defaults",
                "apps.two.most = 7 by T__APPS__TWO__MOST",
                "apps.two.secret = \"\" by the defaults",
            ]
        );
        for wrong in ["[apps.one]\nname = \"1\"", "[apps.\"Ünder\"]\nid = \"1\"", "[apps]\none = \"1\""] {
            assert!(layers.text("file", wrong).is_err(), "{wrong}");
        }
    }

    fn refused(f: impl FnOnce(&mut Layers) -> Result<(), ConfigError>) -> String {
        f(&mut Layers::new(DEFAULTS).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn later_layers_win_and_say_where_they_stand() {
        let mut layers = Layers::new(DEFAULTS).unwrap();
        layers.text("a.toml", "[server]\n\nmost = 6\nlisten = \"x\"").unwrap();
        layers
            .environment("P", [("P__SERVER__MOST".into(), "7".into()), ("OTHER".into(), "x".into())])
            .unwrap();
        layers.environment("P", [("P__SERVER__PROXIES".into(), "10.0.0.0/8, ::1".into())]).unwrap();
        let table: Table = layers.build().unwrap();
        assert_eq!(table["server"]["most"].as_integer(), Some(7));
        assert_eq!(table["server"]["proxies"].as_array().unwrap().len(), 2);
        assert_eq!(layers.place_of("server.most"), "P__SERVER__MOST");
        assert_eq!(layers.place_of("server.listen"), "a.toml, line 4");
    }

    #[test]
    fn what_does_not_exist_is_refused_with_key_place_and_remedy() {
        let lisen = refused(|l| l.text("a.toml", "[server]\nlisen = \"x\""));
        assert_eq!(
            lisen,
            "a.toml, line 2: there is no setting `server.lisen`. Did you mean `server.listen`? `config show --default` lists them all."
        );
        assert_eq!(
            refused(|l| l.text("a.toml", "[server]\nmost = \"x\"")),
            "a.toml, line 2: `server.most` is a whole number, not text"
        );
        assert!(refused(|l| l.text("a.toml", "[server\n")).starts_with("a.toml, line 1: not TOML"));
        assert!(
            refused(|l| l.environment("P", [("P__SERVER__MOST".into(), "x".into())]))
                .contains("whole number")
        );
        assert!(
            refused(|l| l.environment("P", [("P__SERVER__NOPE".into(), "x".into())]))
                .starts_with("P__SERVER__NOPE: there is no")
        );
        assert!(
            refused(|l| l.environment("P", [("P__SECRETS__KEY_FILE".into(), "/nowhere".into())]))
                .contains("cannot be read")
        );
    }

    #[test]
    fn secrets_come_from_files_and_are_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "hunter2\n").unwrap();
        let mut layers = Layers::new(DEFAULTS).unwrap();
        let path = file.path().display().to_string();
        layers.environment("P", [("P__SECRETS__KEY_FILE".into(), path)]).unwrap();
        assert_eq!(layers.build::<Table>().unwrap()["secrets"]["key"].as_str(), Some("hunter2"));
        let both = [
            ("P__SECRETS__KEY".into(), "a".into()),
            ("P__SECRETS__KEY_FILE".into(), file.path().display().to_string()),
        ];
        assert!(refused(|l| l.environment("P", both)).contains("keep one of them"));
        let shown = layers.show(&["secrets.key"]);
        assert!(!shown.contains("hunter2") && shown.contains("(hidden)"), "{shown}");
        let mut layers = Layers::new("[secrets]\nkeys = []").unwrap();
        layers.text("f", "secrets.keys = [\"hunter2\", \"hunter3\"]").unwrap();
        let shown = layers.show(&["secrets.keys"]);
        assert!(!shown.contains("hunter") && shown.contains("(hidden)"), "every item of a list: {shown}");
    }
}
