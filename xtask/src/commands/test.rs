//! `cargo xtask test`: the full check. Quick and certain steps first; clippy before docs, which share their artefacts.

use crate::failure::Outcome;
use crate::process::{cargo, run as run_command};
use crate::repo::Repo;
use crate::services::{Durability, Services};
use crate::steps::Steps;
use crate::{lockfile, parts};

/// Runs the steps and prints the table, also after a failure.
pub(crate) fn run(repo: &Repo, only: Option<&str>) -> Outcome {
    let mut steps = Steps::default();
    let outcome = all(repo, only, &mut steps);
    println!("{}", steps.table());
    outcome
}

fn all(repo: &Repo, only: Option<&str>, steps: &mut Steps) -> Outcome {
    if only.is_none() {
        steps.run("lock file", || lockfile::check(repo))?;
        steps.run("format", || format(repo))?;
        steps.run("clippy", || clippy(repo))?;
        steps.run("docs", || docs(repo))?;
    }
    let parts = steps.run("parts", || parts::make_sure(repo))?;
    let mut services = steps.run("services", || Services::start(&parts, Durability::None))?;
    steps.run("tests", || tests(repo, only, &mut services))
}

fn format(repo: &Repo) -> Outcome {
    run_command(cargo(repo).args(["fmt", "--all", "--check"]), "run `cargo fmt --all`")
}

fn clippy(repo: &Repo) -> Outcome {
    run_command(
        cargo(repo)
            .args(["clippy", "--workspace", "--all-targets", "--locked"])
            .args(["--", "-D", "warnings"]),
        "mend what it names, or say beside it why it stays: #[expect(…, reason = \"…\")]",
    )
}

fn docs(repo: &Repo) -> Outcome {
    run_command(
        cargo(repo).args(["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"),
        "mend the documentation it names",
    )
}

fn tests(repo: &Repo, only: Option<&str>, services: &mut Services) -> Outcome {
    // For its tests cargo builds a package's own programs, and no other's: the examples have to be there before. With
    // the same words as the tests, or crates that they share would be built twice, with other features.
    run_command(
        cargo(repo).args(["build", "--workspace", "--all-targets", "--locked"]),
        "mend what the compiler names",
    )?;
    let mut command = cargo(repo);
    command
        .args(["test", "--workspace", "--locked"])
        .args(only)
        // What a story says when it fails is not to be lost among the frames of its runtime.
        .env("RUST_BACKTRACE", "0")
        .env("PEARLGATE_TEST_AXUM", repo.root().join("target/debug/example-axum"));
    services
        .run(&mut command, "read the first failure above; `cargo xtask test --only NAME` runs one test again")
}
