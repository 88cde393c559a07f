//! `cargo xtask common-passwords`: the built-in list, made again from the registries.

use std::process::Command;

use crate::failure::{Failure, OrFail, Outcome};
use crate::repo::Repo;

/// Runs the script that downloads, joins and packs the lists.
pub(crate) fn run(repo: &Repo) -> Outcome {
    let script = repo.root().join("xtask/common-passwords.sh");
    let status =
        Command::new("sh").arg(script).status().or_fail("the script did not start", "install a shell")?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(
        "the list was not made",
        status,
        "read its words above; it needs npm, pip, python3, tar and unzip",
    ))
}
