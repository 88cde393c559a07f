//! Logs and metrics. Logs go to standard error, one line an event; metrics are rendered when somebody asks.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Seconds: from a session check to a slow mail provider.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Starts logging to standard error, as text or as JSON (one object a line, everything escaped). The second call
/// in one process changes nothing.
pub fn start_logging(json: bool, level: LevelFilter) {
    // Libraries speak up only when something is wrong, whatever our own level: their debug lines may hold
    // what we must not log.
    let targets = Targets::new()
        .with_default(LevelFilter::WARN.min(level))
        .with_targets([("foundation", level), ("pearlgate", level)]);
    let registry = tracing_subscriber::registry().with(targets);
    let _ = if json {
        registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
    } else {
        let colours = std::io::stderr().is_terminal();
        let layer = tracing_subscriber::fmt::layer()
            .with_target(false)
            .with_ansi(colours)
            .with_writer(std::io::stderr);
        registry.with(layer).try_init()
    };
}

/// Counts and histograms of this process in the text form of Prometheus.
#[derive(Clone)]
pub struct Metrics(Option<PrometheusHandle>);

impl Metrics {
    /// Starts to collect. In a process that collects already (tests), the second one renders nothing.
    pub fn start() -> Self {
        let builder =
            PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("seconds".into()), &BUCKETS);
        let Ok(recorder) = builder.map(PrometheusBuilder::build_recorder) else { return Self(None) };
        let handle = recorder.handle();
        Self(metrics::set_global_recorder(recorder).is_ok().then_some(handle))
    }

    /// Puts what was measured since the last time into its buckets; to be called every few seconds, or memory
    /// grows with every request that nobody looks at.
    pub fn upkeep(&self) {
        if let Some(handle) = &self.0 {
            handle.run_upkeep();
        }
    }

    /// All metrics as text.
    pub fn render(&self) -> String {
        self.0
            .as_ref()
            .map(|handle| {
                handle.run_upkeep();
                handle.render()
            })
            .unwrap_or_default()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}
