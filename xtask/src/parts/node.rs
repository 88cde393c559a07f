//! Programs for Node under `target/`, each with exactly what its lock file pins.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, OrFail, Outcome};
use crate::process::{capture, run_aside};
use crate::repo::Repo;

const REMEDY: &str =
    "remove target/tools/node and run this again; npm needs the network, or a mirror it is set up for";
/// The oldest Node that has what the programs use. Debian 12's is that.
const OLDEST: u32 = 18;

/// Whether Node is new enough: an older one in PATH is not helped by a package.
pub(crate) fn check(node: &Path) -> Outcome {
    let version = capture(Command::new(node).arg("--version"), REMEDY)?;
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    if major.is_some_and(|major: u32| major >= OLDEST) {
        return Ok(());
    }
    Err(Failure::new(
        "the tests need a newer Node",
        format!("{} says that it is {}", node.display(), version.trim()),
        format!("put Node {OLDEST} or newer first in PATH"),
    ))
}

/// A folder with copies of programs from the folder `from`, and their packages. Instant when its lock file is what was
/// installed the last time; the programs themselves are always the newest.
pub(crate) fn make_sure(
    repo: &Repo,
    npm: &Path,
    (name, from): (&str, &str),
    programs: &[&str],
) -> Outcome<PathBuf> {
    let home = repo.tools().join("node").join(name);
    std::fs::create_dir_all(&home).or_fail(format!("cannot make {}", home.display()), REMEDY)?;
    for file in ["package.json", "package-lock.json", ".npmrc"].iter().chain(programs) {
        let copy = home.join(file);
        std::fs::write(&copy, repo.read(&format!("{from}/{file}"))?)
            .or_fail(format!("cannot write {}", copy.display()), REMEDY)?;
    }
    // Written last, and removed by npm together with the packages, so that what broke off halfway is made anew.
    let stamp = home.join("node_modules/installed-package-lock.json");
    let wanted = repo.read(&format!("{from}/package-lock.json"))?;
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(home);
    }
    run_aside(
        Command::new(npm).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&home),
        REMEDY,
    )?;
    std::fs::write(&stamp, wanted).or_fail(format!("cannot write {}", stamp.display()), REMEDY)?;
    Ok(home)
}
