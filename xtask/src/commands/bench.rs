//! `cargo xtask bench`: measurements against servers that keep what they acknowledge.

use crate::failure::Outcome;
use crate::parts;
use crate::process::cargo;
use crate::repo::Repo;
use crate::services::{Durability, Services};

/// Starts durable servers and hands over to the `bench` crate.
pub(crate) fn run(repo: &Repo, args: &[String]) -> Outcome {
    let parts = parts::make_sure(repo)?;
    let mut services = Services::start(&parts, Durability::Full)?;
    let mut command = cargo(repo);
    command.args(["run", "--release", "--locked", "--package", "bench", "--"]).args(args);
    services.run(&mut command, "read its words above; `cargo xtask bench --help` tells its arguments")
}
