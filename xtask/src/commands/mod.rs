//! One file per command.

mod bench;
mod common_passwords;
mod services;
mod test;

use crate::cli::{Command, HELP};
use crate::failure::Outcome;
use crate::repo::Repo;

/// Does what the command says.
pub(crate) fn run(command: Command) -> Outcome {
    match command {
        Command::Help => {
            print!("{HELP}");
            Ok(())
        }
        Command::Test { only } => test::run(&Repo::find()?, only.as_deref()),
        Command::CommonPasswords => common_passwords::run(&Repo::find()?),
        Command::Services => services::run(&Repo::find()?),
        Command::Bench { args } => bench::run(&Repo::find()?, &args),
    }
}
