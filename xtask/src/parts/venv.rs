//! The Python environment under `target/`, with exactly what `requirements.txt` pins.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{OrFail, Outcome};
use crate::parts::apt;
use crate::process::{run_aside, succeeds};
use crate::repo::Repo;

const REMEDY: &str =
    "remove target/tools/venv and run this again; pip needs the network, or a mirror it is set up for";

/// The environment's Python. Instant when `requirements.txt` is what was installed the last time.
pub(crate) fn make_sure(repo: &Repo, system_python: &Path) -> Outcome<PathBuf> {
    let home = repo.tools().join("venv");
    let python = home.join("bin/python");
    // Written last, so that what broke off halfway is made anew.
    let stamp = home.join("installed-requirements.txt");
    let wanted = repo.read("xtask/parts/requirements.txt")?;
    // `exists` follows the link to the system's Python, which may have been upgraded away.
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    create(repo, system_python, &home)?;
    run_aside(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--require-hashes", "--only-binary", ":all:", "--requirement"])
            .arg(repo.part("requirements.txt")),
        REMEDY,
    )?;
    std::fs::write(&stamp, wanted).or_fail(format!("cannot write {}", stamp.display()), REMEDY)?;
    Ok(python)
}

/// Debian keeps a part of `venv` in a package of its own: without it the first attempt fails. Then Debian's own Python
/// is taken, because another one, first in PATH, is not helped by the package.
fn create(repo: &Repo, system_python: &Path, home: &Path) -> Outcome {
    let make = |python: &Path| {
        let mut command = Command::new(python);
        command.args(["-m", "venv", "--clear"]).arg(home);
        command
    };
    if succeeds(&mut make(system_python)) {
        return Ok(());
    }
    apt::install(repo, "Python's venv", &["python3-venv"])?;
    run_aside(&mut make(Path::new("/usr/bin/python3")), REMEDY)
}
