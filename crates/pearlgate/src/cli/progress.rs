//! How far a long piece of work has come, for whoever watches a terminal; nothing when nobody does.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `total` bytes, with rate and time left.
pub(super) fn bytes(total: u64) -> ProgressBar {
    styled(ProgressBar::new(total), "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}")
}

/// A count without a known end.
pub(super) fn count(what: &'static str) -> ProgressBar {
    styled(ProgressBar::no_length(), "{human_pos} {msg}  {per_sec}").with_message(what)
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
