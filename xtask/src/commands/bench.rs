//! `cargo xtask bench`: measurements against servers that keep what they acknowledge.

use std::path::Path;
use std::process::Command;

use crate::failure::Outcome;
use crate::parts;
use crate::process::{capture, cargo, find, run as run_command, run_aside, succeeds};
use crate::repo::Repo;
use crate::services::{Durability, Services};

/// Builds the program and the `bench` crate, starts durable servers and hands over to the crate.
pub(crate) fn run(repo: &Repo, args: &[String]) -> Outcome {
    let parts = parts::make_sure(repo)?;
    // The words of the ordinary measures begin without a dash; only they have a row for libsodium.
    if !args.iter().any(|word| word.starts_with('-')) {
        libsodium(repo);
    }
    // `cargo run` builds the library of the program that is measured, but not the program.
    run_command(
        cargo(repo).args(["build", "--release", "--locked", "--package", "bench", "--package", "pearlgate"]),
        "mend what it names",
    )?;
    let mut services = Services::start(&parts, Durability::Full)?;
    let mut command = cargo(repo);
    command.args(["run", "--release", "--locked", "--package", "bench", "--"]).args(args);
    services.run(&mut command, "read its words above; `cargo xtask bench --help` tells its arguments")
}

/// Installs what our raw hashing rate is compared with, when we may; without it the crate leaves the row out and says
/// so.
fn libsodium(repo: &Repo) {
    if Path::new("/usr/include/sodium.h").exists() || find("apt-get").is_none() {
        return;
    }
    let root = capture(Command::new("id").arg("-u"), "").is_ok_and(|id| id.trim() == "0");
    let mut command = if root {
        Command::new("sh")
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "sh"]);
        sudo
    } else {
        println!("libsodium-dev is not installed: hashing will not be compared with libsodium's");
        return;
    };
    command.arg(repo.part("install.sh")).arg("libsodium-dev");
    if let Err(failure) = run_aside(&mut command, "without a network, install libsodium-dev by hand") {
        println!("hashing will not be compared with libsodium's: {failure}");
    }
}
