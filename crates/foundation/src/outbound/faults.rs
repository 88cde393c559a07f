//! The seven ways in which a dependency breaks (`outages.md`), on command, in dev mode.

use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// A way to be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Works.
    None,
    /// Refuses connections.
    Down,
    /// Accepts and never answers.
    Hang,
    /// Answers after ten seconds.
    Slow,
    /// Answers 500.
    Error,
    /// Answers something that nobody asked for.
    Garbage,
    /// Answers without end.
    Huge,
    /// Works one time in three.
    Flaky,
}

const ALL: [(&str, Fault); 8] = [
    ("none", Fault::None),
    ("down", Fault::Down),
    ("hang", Fault::Hang),
    ("slow", Fault::Slow),
    ("error", Fault::Error),
    ("garbage", Fault::Garbage),
    ("huge", Fault::Huge),
    ("flaky", Fault::Flaky),
];

/// Not one of the faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give one of down, hang, slow, error, garbage, huge, flaky, none")]
pub struct UnknownFault;

impl FromStr for Fault {
    type Err = UnknownFault;
    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        ALL.iter().find(|(name, _)| *name == text).map(|(_, fault)| *fault).ok_or(UnknownFault)
    }
}

/// The switch of one dependency.
#[derive(Debug, Default)]
pub(super) struct Switch {
    fault: AtomicU8,
    calls: AtomicU32,
}

impl Switch {
    pub(super) fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// The fault of the next call; a flaky dependency is down two times in three.
    pub(super) fn next(&self) -> Fault {
        let number = self.fault.load(Ordering::SeqCst);
        let fault =
            ALL.iter().find(|(_, fault)| *fault as u8 == number).map_or(Fault::None, |(_, fault)| *fault);
        match fault {
            Fault::Flaky if self.calls.fetch_add(1, Ordering::SeqCst) % 3 == 2 => Fault::None,
            Fault::Flaky => Fault::Down,
            other => other,
        }
    }
}
