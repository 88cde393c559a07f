//! Running other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::failure::{Failure, OrFail, Outcome};
use crate::machine;
use crate::repo::Repo;

/// The cargo that runs us, in the repository's root.
pub(crate) fn cargo(repo: &Repo) -> Command {
    let mut command = Command::new(machine::env("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repo.root());
    if machine::env("CI").as_deref() == Some("true") {
        // A machine that is thrown away gains nothing from incremental state, and it is large.
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// Runs to the end on our terminal.
pub(crate) fn run(command: &mut Command, remedy: &str) -> Outcome {
    let status = command.status().or_fail(format!("cannot start {}", line(command)), remedy)?;
    succeeded(command, status, "its own words are above", remedy)
}

/// Runs to the end with all output on standard error, which leaves standard output to us.
pub(crate) fn run_aside(command: &mut Command, remedy: &str) -> Outcome {
    run(command.stdin(Stdio::null()).stdout(std::io::stderr()), remedy)
}

/// Runs to the end in silence and returns standard output.
pub(crate) fn capture(command: &mut Command, remedy: &str) -> Outcome<String> {
    let output =
        command.stdin(Stdio::null()).output().or_fail(format!("cannot start {}", line(command)), remedy)?;
    let words = String::from_utf8_lossy(&output.stderr);
    succeeded(command, output.status, words.trim(), remedy)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether it starts and succeeds, in silence.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Turns a bad end into a failure that names the command.
pub(crate) fn succeeded(command: &Command, status: ExitStatus, words: &str, remedy: &str) -> Outcome {
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{}` failed", line(command)), format!("{status}; {words}"), remedy))
}

/// A program by name: in PATH, or where administrators' programs are.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = machine::env("PATH").unwrap_or_default();
    let more = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The command as one would type it, without folders. No secret may be an argument (`ps` would show it as well).
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
