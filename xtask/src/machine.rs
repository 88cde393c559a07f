//! Clock, chance and environment of the machine. The server gets them as arguments; this tool asks for them here, and
//! nowhere else.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use crate::failure::{OrFail, Outcome};

/// The moment now, for measuring.
#[expect(clippy::disallowed_methods, reason = "a tool that times its steps has no clock to inject")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits between two looks at something that cannot tell us when it is ready.
#[expect(
    clippy::disallowed_methods,
    reason = "a tool that polls other processes has nothing else to do meanwhile"
)]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// An environment variable, if it is set to text.
#[expect(clippy::disallowed_methods, reason = "this tool has no configuration but its surroundings")]
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// 32 hexadecimal digits that nobody can guess.
pub(crate) fn random_hex() -> Outcome<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .or_fail("no random bytes from /dev/urandom", "run this on Linux or macOS")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
