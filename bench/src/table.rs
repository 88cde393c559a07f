//! The table of figures.

use crate::Measured;

const BEGIN: &str = "<!-- figures: made by `cargo xtask bench` -->";
const END: &str = "<!-- end of figures -->";

/// Rows of figures.
pub(crate) struct Table(Vec<[String; 5]>);

impl Table {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// A row: what, the figure, the goal (if there is one, nobody can say yet whether it is met), under which
    /// conditions.
    pub(crate) fn row(&mut self, what: &str, figure: String, goal: &str, how: &str) {
        self.add([what, &figure, goal, "–", how]);
    }

    /// A row with a goal that is met or missed.
    pub(crate) fn judged(&mut self, what: &str, figure: String, goal: &str, met: bool, how: &str) {
        self.add([what, &figure, goal, if met { "met" } else { "missed" }, how]);
    }

    fn add(&mut self, row: [&str; 5]) {
        let [what, figure, _, verdict, _] = row;
        println!("{what}: {figure} ({verdict})");
        self.0.push(row.map(str::to_owned));
    }

    fn markdown(&self) -> String {
        let mut out = String::from("| what | figure | goal | met? | how |\n|---|---|---|---|---|\n");
        for row in &self.0 {
            out.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        out
    }

    pub(crate) fn print(&self) {
        println!("\n{}", self.markdown());
    }

    /// Replaces the figures in the guide's page: for a run of all the ordinary measures.
    pub(crate) fn keep(&self, path: &str) -> Measured<()> {
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
