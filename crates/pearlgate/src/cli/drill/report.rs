//! What the drill found, as a table for people and as JSON for programs.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::tally::{Counts, Tally};

/// One thing, broken in one way.
#[derive(Serialize)]
pub(super) struct Row {
    dependency: String,
    fault: String,
    requests: usize,
    /// Told, as the outage contract says, that what is away is needed.
    declared: u64,
    failed: u64,
    slowest_ms: f64,
    /// From the mend until everything worked; left out when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered_ms: Option<f64>,
    reasons: Vec<String>,
}

impl Row {
    pub(super) fn of(dependency: &str, fault: &str, tallies: &[&Tally], again: Option<Duration>) -> Self {
        let mut row = Self {
            dependency: dependency.to_owned(),
            fault: fault.to_owned(),
            requests: 0,
            declared: 0,
            failed: 0,
            slowest_ms: 0.0,
            recovered_ms: again.map(ms),
            reasons: Vec::new(),
        };
        for tally in tallies {
            let counts = tally.counts();
            row.requests += counts.took.len();
            row.declared += counts.declared;
            row.failed += counts.failed;
            row.slowest_ms = row.slowest_ms.max(ms(counts.percentile(100)));
            row.reasons.extend(counts.reasons());
        }
        row
    }

    fn passed(&self) -> bool {
        self.failed == 0 && self.recovered_ms.is_some()
    }
}

/// What a crowd's requests came to in one phase.
#[derive(Serialize)]
pub(super) struct Phase {
    name: &'static str,
    requests: usize,
    failed: u64,
    p50_ms: f64,
    p99_ms: f64,
    slowest_ms: f64,
    reasons: Vec<String>,
}

impl Phase {
    pub(super) fn of(name: &'static str, counts: &Counts) -> Self {
        Self {
            name,
            requests: counts.took.len(),
            failed: counts.failed,
            p50_ms: ms(counts.percentile(50)),
            p99_ms: ms(counts.percentile(99)),
            slowest_ms: ms(counts.percentile(100)),
            reasons: counts.reasons(),
        }
    }
}

/// People who were signed in and active.
#[derive(Serialize)]
pub(super) struct Crowd {
    pub(super) people: u32,
    pub(super) phases: Vec<Phase>,
    /// Sessions that could be refreshed once more at the end, and why others could not.
    pub(super) good: u32,
    pub(super) reasons: Vec<String>,
}

/// What became of the part about the database.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Database {
    Done(Row),
    /// With the reason.
    NotDone(String),
}

/// Everything.
pub(super) struct Report {
    pub(super) server: String,
    pub(super) faults: Vec<Row>,
    pub(super) crowd: Crowd,
    pub(super) database: Database,
}

impl Report {
    fn rows(&self) -> impl Iterator<Item = &Row> {
        let database = match &self.database {
            Database::Done(row) => Some(row),
            Database::NotDone(_) => None,
        };
        self.faults.iter().chain(database)
    }

    /// Whether nothing failed and everything recovered.
    pub(super) fn passed(&self) -> bool {
        let crowd = &self.crowd;
        self.rows().all(Row::passed)
            && crowd.phases.iter().all(|phase| phase.failed == 0)
            && crowd.good == crowd.people
    }

    pub(super) fn json(&self) -> String {
        let Self { server, faults, crowd, database } = self;
        json!({
            "passed": self.passed(), "server": server, "faults": faults, "crowd": crowd, "database": database,
        })
        .to_string()
    }

    pub(super) fn text(&self) -> String {
        let mut lines = vec![format!(
            "{:<16} {:<8} {:>8} {:>8} {:>6} {:>12}  {}",
            "dependency", "fault", "requests", "declared", "failed", "slowest", "recovered after"
        )];
        for row in self.rows() {
            let Row { dependency, fault, requests, declared, failed, .. } = row;
            let (slowest, again) = (in_ms(row.slowest_ms), row.recovered_ms.map_or("never".into(), in_ms));
            lines.push(format!(
                "{dependency:<16} {fault:<8} {requests:>8} {declared:>8} {failed:>6} {slowest:>12}  {again}"
            ));
        }
        if let Database::NotDone(why) = &self.database {
            lines.push(format!("The database was left alone: {why}."));
        }
        let Crowd { people, phases, good, .. } = &self.crowd;
        lines.push(format!(
            "\n{people} people signed in and active; everything outside is away during, and back after"
        ));
        lines.push(format!(
            "{:<16} {:>8} {:>6} {:>12} {:>12} {:>12}",
            "phase", "requests", "failed", "p50", "p99", "slowest"
        ));
        for Phase { name, requests, failed, p50_ms, p99_ms, slowest_ms, .. } in phases {
            let (p50, p99, slowest) = (in_ms(*p50_ms), in_ms(*p99_ms), in_ms(*slowest_ms));
            lines.push(format!("{name:<16} {requests:>8} {failed:>6} {p50:>12} {p99:>12} {slowest:>12}"));
        }
        lines.push(format!("{good} of {people} sessions were good at the end\n"));
        lines.extend(self.reasons());
        lines.push(match self.passed() {
            true => "Nothing failed, and everything recovered.".into(),
            false => "NOT AS DECLARED: the lines above say what failed or did not recover.".into(),
        });
        lines.join("\n")
    }

    /// What failed, and while what was so.
    fn reasons(&self) -> Vec<String> {
        let of = |when: String, reasons: &[String]| -> Vec<String> {
            reasons.iter().map(|why| format!("{when}: {why}")).collect()
        };
        let rows = self.rows().flat_map(|row| of(format!("{} {}", row.dependency, row.fault), &row.reasons));
        let phases = self
            .crowd
            .phases
            .iter()
            .flat_map(|phase| of(format!("the crowd, {}", phase.name), &phase.reasons));
        rows.chain(phases).chain(of("the sessions at the end".into(), &self.crowd.reasons)).collect()
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

fn in_ms(ms: f64) -> String {
    format!("{ms:.1} ms")
}
