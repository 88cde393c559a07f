//! The program. Everything is in the library; this only starts it.

use std::process::ExitCode;

/// Fast, and it gives memory back: idle servers should be small.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pearlgate::cli::run()
}
