//! Who we are, and who runs PostgreSQL.

use std::path::Path;
use std::process::Command;

use crate::failure::{Failure, OrFail, Outcome};
use crate::process::{capture, find};

/// The user Debian's package makes.
const NAME: &str = "postgres";

/// Another user, whom only root can become.
#[derive(Debug)]
pub(crate) struct SystemUser {
    /// The user's name.
    pub(crate) name: &'static str,
    /// The user's number.
    pub(crate) uid: u32,
    /// The number of the user's own group.
    pub(crate) gid: u32,
}

impl SystemUser {
    /// A command that runs as this user, under the process id that we start.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", self.uid))
            .arg(format!("--regid={}", self.gid))
            .args(["--clear-groups", "--"])
            .arg(program);
        command
    }
}

/// Whether we are root.
pub(crate) fn is_root() -> Outcome<bool> {
    Ok(id(&["-u"])? == 0)
}

/// The user who runs PostgreSQL for us: nobody else, unless we are root.
pub(crate) fn for_postgres() -> Outcome<Option<SystemUser>> {
    if !is_root()? {
        return Ok(None);
    }
    if find("setpriv").is_none() {
        return Err(Failure::new(
            "cannot start PostgreSQL as another user",
            "it refuses root, and setpriv is missing",
            "install util-linux, or run this as an ordinary user",
        ));
    }
    Ok(Some(SystemUser { name: NAME, uid: id(&["-u", NAME])?, gid: id(&["-g", NAME])? }))
}

fn id(args: &[&str]) -> Outcome<u32> {
    let remedy = "run this as an ordinary user, or make the user: `useradd --system postgres`";
    let text = capture(Command::new("id").args(args), remedy)?;
    text.trim().parse().or_fail(format!("`id` answered {text:?}"), remedy)
}
