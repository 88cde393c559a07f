//! Debian's packages, when we may install them.

use std::process::Command;

use crate::failure::{Failure, Outcome};
use crate::parts::user::is_root;
use crate::process::{find, run_aside, succeeds};
use crate::repo::Repo;

/// Installs the packages with `install.sh`, which keeps their services from starting.
pub(crate) fn install(repo: &Repo, what: &str, packages: &[&str]) -> Outcome {
    let packages_line = packages.join(" ");
    if find("apt-get").is_none() {
        return Err(Failure::new(
            format!("the tests need {what}"),
            "it is not installed, and this system has no apt-get to install it with",
            format!("install it with your system's packages (Debian calls them {packages_line})"),
        ));
    }
    let mut command = if is_root()? {
        Command::new("sh")
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "sh"]);
        sudo
    } else {
        return Err(Failure::new(
            format!("the tests need {what}"),
            "it is not installed, and installing needs root or sudo without a password",
            format!("run `sudo apt-get install --no-install-recommends {packages_line}`, then this again"),
        ));
    };
    eprintln!("installing {packages_line}, because {what} is missing");
    run_aside(
        command.arg(repo.part("install.sh")).args(packages),
        "read apt's words above; without a network, install the packages by hand",
    )
}
