//! The crates of the workspace: what is built, by `cargo tree`, and where it comes from, by `Cargo.lock`.
//!
//! The two differ. `Cargo.lock` also lists what an optional dependency *could* bring: rustls-webpki and quinn-proto
//! name `ring` behind a weak feature (`ring?/…`), which cargo locks although nothing ever turns it on. So bans,
//! features and licences are judged by what `cargo tree` reaches on any platform with the features we build with, and
//! only sources, where a line in the lock file is enough to fetch from there, are judged by `Cargo.lock`.

use std::collections::BTreeSet;

use crate::failure::{Failure, OrFail, Outcome};
use crate::process::{capture, cargo};
use crate::repo::Repo;

/// crates.io as `Cargo.lock` calls it, whichever mirror a machine may really use.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A crate that is built, once per set of features.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its version, without the `v`.
    pub(crate) version: String,
    /// Its licence as its manifest says; empty when it says nothing.
    pub(crate) licence: String,
    /// The features that are on.
    pub(crate) features: Vec<String>,
}

impl Package {
    /// Reads one line of the format that [`built`] asks for.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('|');
        let (package, licence, features) = (fields.next()?, fields.next()?, fields.next()?);
        let mut words = package.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: licence.trim().to_owned(),
            features: features.split(',').filter(|f| !f.is_empty()).map(str::to_owned).collect(),
        })
    }
}

/// A crate of `Cargo.lock` that is fetched from somewhere.
#[derive(Debug)]
pub(crate) struct Source {
    /// The crate's name.
    pub(crate) name: String,
    /// Where it is fetched from.
    pub(crate) address: String,
}

impl Source {
    /// Whether that is the one registry we use.
    pub(crate) fn is_crates_io(&self) -> bool {
        self.address == CRATES_IO
    }
}

/// Every crate that is built for us, for our build scripts or for our tests, on any platform.
pub(crate) fn built(repo: &Repo) -> Outcome<BTreeSet<Package>> {
    let text = capture(
        cargo(repo)
            .args(["tree", "--locked", "--workspace", "--target", "all", "--edges", "normal,build,dev"])
            .args(["--prefix", "none", "--format", "{p}|{l}|{f}|"]),
        "if Cargo.lock is behind the manifests, run `cargo check` and look at what it changed",
    )?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            Package::parse(line).ok_or_else(|| {
                Failure::new("cannot read `cargo tree`", line, "teach xtask/src/lockfile/packages.rs")
            })
        })
        .collect()
}

/// Everything in the lock file that is not a crate of this workspace.
pub(crate) fn sources(lock: &str) -> Outcome<Vec<Source>> {
    let table: toml::Table = lock.parse().or_fail("cannot read Cargo.lock", "restore it from git")?;
    let packages = table.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let text = |package: &toml::Value, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    Ok(packages
        .filter_map(|package| {
            Some(Source { name: text(package, "name")?, address: text(package, "source")? })
        })
        .collect())
}
