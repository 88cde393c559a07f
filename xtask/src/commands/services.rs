//! `cargo xtask services`: servers for a developer who runs single tests.

use std::io;

use crate::failure::{OrFail, Outcome};
use crate::parts;
use crate::repo::Repo;
use crate::services::{Durability, Services};

/// Starts the servers, tells a shell where they are, and keeps them until standard input ends.
pub(crate) fn run(repo: &Repo) -> Outcome {
    let parts = parts::make_sure(repo)?;
    let services = Services::start(&parts, Durability::None)?;
    for (name, value) in services.environment() {
        println!("export {name}={}", quoted(value));
    }
    eprintln!("The servers run until Ctrl-D, Ctrl-C or the end of standard input.");
    io::copy(&mut io::stdin().lock(), &mut io::sink())
        .map(drop)
        .or_fail("cannot read standard input", "start it from a terminal, or with a pipe that stays open")
}

/// A value as one word of a POSIX shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_meant() {
        assert_eq!(quoted("/tmp/a b"), "'/tmp/a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
