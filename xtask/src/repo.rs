//! Where things are in the repository.

use std::path::{Path, PathBuf};

use crate::failure::{Failure, OrFail, Outcome};

/// The repository we were called in.
#[derive(Debug, Clone)]
pub(crate) struct Repo {
    root: PathBuf,
}

impl Repo {
    /// Finds the root, from the working directory upwards.
    pub(crate) fn find() -> Outcome<Self> {
        let remedy = "run `cargo xtask` inside the repository";
        let here = std::env::current_dir().or_fail("there is no working directory", remedy)?;
        let is_root = |dir: &&Path| dir.join("Cargo.lock").is_file() && dir.join("deny.toml").is_file();
        match here.ancestors().find(is_root) {
            Some(root) => Ok(Self { root: root.to_owned() }),
            None => Err(Failure::new(
                format!("{} is not in the repository", here.display()),
                "no folder above it has both Cargo.lock and deny.toml",
                remedy,
            )),
        }
    }

    /// The root itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A file that belongs to the tests' parts.
    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.root.join("xtask/parts").join(name)
    }

    /// Where tools for the tests are installed. `cargo clean` takes them along.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// The text of a file, by its path from the root.
    pub(crate) fn read(&self, path: &str) -> Outcome<String> {
        std::fs::read_to_string(self.root.join(path))
            .or_fail(format!("cannot read {path}"), "restore the file from git")
    }
}
