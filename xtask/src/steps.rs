//! Named steps with their seconds.

use std::time::Duration;

use crate::failure::Outcome;
use crate::machine;

/// The steps that have ended, in order.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    ended: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Runs one step: its name when it starts, its seconds when it ends, well or badly.
    pub(crate) fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        println!("── {name}");
        let start = machine::now();
        let outcome = step();
        let took = start.elapsed();
        self.ended.push((name, took));
        let end = if outcome.is_ok() { "done" } else { "FAILED" };
        println!("── {name}: {end} in {:.1} s\n", took.as_secs_f64());
        outcome.map_err(|failure| failure.within(&format!("step \"{name}\" failed")))
    }

    /// The seconds of every step and their sum.
    pub(crate) fn table(&self) -> String {
        let total = ("total", self.ended.iter().map(|(_, took)| *took).sum());
        let rows = self.ended.iter().copied().chain([total]);
        let row = |(name, took): (&str, Duration)| format!("{name:<12}{:>8.1}\n", took.as_secs_f64());
        std::iter::once(format!("{:<12}{:>8}\n", "step", "seconds")).chain(rows.map(row)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ends_with_the_sum() {
        let steps = Steps {
            ended: vec![("format", Duration::from_millis(1500)), ("clippy", Duration::from_secs(60))],
        };
        let table =
            "step         seconds\nformat           1.5\nclippy          60.0\ntotal           61.5\n";
        assert_eq!(steps.table(), table);
    }
}
