//! The command line.

use crate::failure::{Failure, Outcome};

/// What `--help` teaches.
pub(crate) const HELP: &str = "\
cargo xtask COMMAND: what a newcomer to Pearlgate runs

  test [--only FILTER]
      The whole check, the same that CI runs: lock file, format, clippy, docs, then every test on both databases.
      Installs what the tests need when it is missing (PostgreSQL, Redis, openssl, Python, Node: Debian's packages, when you
      are root or have sudo without password; otherwise it says what to install), starts throwaway servers of its own
      on free ports of 127.0.0.1 and removes them again. Stops at the first failure.
      --only FILTER skips the checks before the tests and runs the tests whose name contains FILTER.

  services
      Starts the same throwaway servers, prints `export NAME='value'` lines for a shell, and keeps the servers until
      Ctrl-D, Ctrl-C or the end of its input. Paste the lines into a second terminal; there `cargo test` finds them.

  bench [NAME…]
      Builds in release, starts PostgreSQL with full durability, and Redis, and takes the ordinary measures, or those
      whose name contains one of the words. Installs libsodium-dev for one comparison, when it may.
  bench --timing [SAMPLES] | --races [ROUNDS] | --import [--people N] | --breach [--lines N]
      What takes longer: whether the time of a refusal tells what account there is; the race for mailed secrets; the
      import of 1,000,000 people; a filter of 20,000,000 breached hashes. `bench --help` tells more.

  common-passwords
      Makes the built-in list of the most common passwords again, from npm's and PyPI's registries.

  help, --help, -h
      This page.
";

/// A command and its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// The full check, or only the tests whose name contains a text.
    Test { only: Option<String> },
    /// Servers to test against by hand.
    Services,
    /// The built-in list of common passwords, made again.
    CommonPasswords,
    /// Measurements; the arguments belong to the `bench` crate.
    Bench { args: Vec<String> },
}

impl Command {
    /// Understands the arguments after the program's name.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Outcome<Self> {
        let args: Vec<String> = args.collect();
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => Err(usage("no command given")),
            ["help" | "--help" | "-h", ..] | ["test" | "services", "--help" | "-h"] => Ok(Self::Help),
            ["test"] => Ok(Self::Test { only: None }),
            ["test", "--only", filter] => Self::only(filter),
            ["test", option] if option.starts_with("--only=") => {
                Self::only(option.trim_start_matches("--only="))
            }
            ["services"] => Ok(Self::Services),
            ["common-passwords"] => Ok(Self::CommonPasswords),
            ["bench", rest @ ..] => {
                Ok(Self::Bench { args: rest.iter().copied().map(str::to_owned).collect() })
            }
            _ => Err(usage(&format!("cannot understand `{}`", words.join(" ")))),
        }
    }

    fn only(filter: &str) -> Outcome<Self> {
        if filter.is_empty() || filter.starts_with('-') {
            return Err(usage("--only needs a part of a test's name"));
        }
        Ok(Self::Test { only: Some(filter.to_owned()) })
    }
}

fn usage(what: &str) -> Failure {
    Failure::new(
        what,
        "the commands are test, services, bench, common-passwords and help",
        "read `cargo xtask --help`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Outcome<Command> {
        Command::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn commands_are_understood() {
        let only = || Command::Test { only: Some("refresh".into()) };
        assert_eq!(parse("test").unwrap(), Command::Test { only: None });
        assert_eq!(parse("test --only refresh").unwrap(), only());
        assert_eq!(parse("test --only=refresh").unwrap(), only());
        assert_eq!(parse("services").unwrap(), Command::Services);
        assert_eq!(parse("bench --help").unwrap(), Command::Bench { args: vec!["--help".into()] });
        assert_eq!(parse("test --help").unwrap(), Command::Help);
    }

    #[test]
    fn everything_else_is_refused_with_a_remedy() {
        for line in
            ["", "tests", "test --only", "test --only=", "test --only --release", "test now", "services 1"]
        {
            assert!(parse(line).unwrap_err().to_string().contains("cargo xtask --help"), "{line}");
        }
    }
}
