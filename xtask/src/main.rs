//! `cargo xtask`: what a newcomer runs. `cargo xtask --help` tells the commands.
//!
//! - `cli` understands the command line, `commands` holds one file per command
//! - `lockfile` decides whether what we build on may come in (bans, licences, sources)
//! - `parts` makes sure that the machine has what the tests need
//! - `services` starts throwaway PostgreSQL and Redis servers, and cleans up after them

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to its terminal")]

mod cli;
mod commands;
mod failure;
mod lockfile;
mod machine;
mod parts;
mod process;
mod repo;
mod services;
mod steps;

use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = cli::Command::parse(std::env::args().skip(1)).and_then(commands::run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
