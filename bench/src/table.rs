//! The table of figures.

use crate::Measured;

const BEGIN: &str = "<!-- figures: made by `cargo xtask bench` -->";
const END: &str = "<!-- end of figures -->";

/// Rows of figures.
pub(crate) struct Table(Vec<[String; 4]>);

impl Table {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// A row: what, the figure, the goal, under which conditions.
    pub(crate) fn row(&mut self, what: &str, figure: String, goal: &str, how: &str) {
        println!("{what}: {figure}");
        self.0.push([what.to_owned(), figure, goal.to_owned(), how.to_owned()]);
    }

    fn markdown(&self) -> String {
        let mut out = String::from("| what | figure | goal | how |\n|---|---|---|---|\n");
        for row in &self.0 {
            out.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        out
    }

    pub(crate) fn print(&self) {
        println!("\n{}", self.markdown());
    }

    /// Replaces the figures in the guide's page; a run of only some measures leaves the page alone.
    pub(crate) fn keep(&self, path: &str) -> Measured<()> {
        if self.0.len() < 12 {
            return Ok(());
        }
        let page = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
        let parts = page.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
        let (head, tail) = parts.ok_or_else(|| format!("{path} has no place for figures"))?;
        let page = format!("{head}{BEGIN}\n{}{END}{tail}", self.markdown());
        std::fs::write(path, page).map_err(|e| format!("{path}: {e}"))
    }
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The figure below which this share of them lies.
pub(crate) fn quantile(figures: &mut [f64], share: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let at = (figures.len() as f64 * share) as usize;
    figures.get(at.min(figures.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
