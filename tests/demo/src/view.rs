//! A moment as lines of text. Pure.

use accelerator_api::contract::COMPONENTS;

use crate::snapshot::{Cell, Row, Snapshot};

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub struct Paint(pub bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// For headings.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    fn cell(self, cell: Cell, width: usize) -> String {
        let (code, mark) = match cell {
            Cell::Empty => ("2", "·"),
            Cell::Assigned => ("33", "assigned"),
            Cell::Starting => ("33", "starting"),
            Cell::Ready => ("32", "ready"),
            Cell::Leaving => ("35", "leaving"),
            Cell::Disabled => ("2", "disabled"),
        };
        self.with(code, &format!("{mark:width$}"))
    }

    fn verdict(self, status: &str, text: &str) -> String {
        self.with(if status == "True" { "32" } else { "33" }, text)
    }
}

/// What is shown at a moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The whole of it.
    pub lines: Vec<String>,
    /// In one line, for a log.
    pub line: String,
}

/// The cluster at a moment.
pub fn picture(snapshot: &Snapshot, paint: Paint) -> Picture {
    Picture { lines: lines(snapshot, paint), line: line(snapshot) }
}

/// The whole picture: nodes and components, then the verdict.
fn lines(snapshot: &Snapshot, paint: Paint) -> Vec<String> {
    let mut lines = if snapshot.rows.is_empty() { totals(snapshot, paint) } else { table(&snapshot.rows, paint) };
    lines.push(String::new());
    lines.push(verdict(snapshot, paint));
    lines
}

/// One line for a log: counts and the verdict.
fn line(snapshot: &Snapshot) -> String {
    let counts = snapshot
        .status
        .components
        .iter()
        .map(|one| format!("{} {}/{}", one.name.trim_start_matches("rebellions-"), one.ready, one.desired));
    let ready = snapshot.status.condition("Ready");
    let ready = ready.map_or("not reported".into(), |ready| format!("{} {}", ready.status, ready.reason));
    format!("Ready={ready}; {}", counts.collect::<Vec<_>>().join(", "))
}

fn table(rows: &[Row], paint: Paint) -> Vec<String> {
    let name = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max("NODE".len());
    let widths = COMPONENTS.map(|component| component.name.len().max("starting".len()));
    let heads: Vec<_> =
        COMPONENTS.iter().zip(widths).map(|(component, width)| format!("{:width$}", component.name)).collect();
    let mut lines = vec![paint.dim(&format!("  {:name$}  {:14}  {}", "NODE", "MODE", heads.join("  ")))];
    for row in rows {
        let cells: Vec<_> = row.cells.iter().zip(widths).map(|(cell, width)| paint.cell(*cell, width)).collect();
        let mode = if row.mode.is_empty() { "-" } else { &row.mode };
        lines.push(format!("  {:name$}  {mode:14}  {}", row.name, cells.join("  ")));
    }
    lines
}

/// For many nodes: a bar per component.
fn totals(snapshot: &Snapshot, paint: Paint) -> Vec<String> {
    const BAR: i64 = 40;
    let counts = snapshot.status.nodes.clone().unwrap_or_default();
    let mut lines = vec![format!(
        "  {} nodes in mode container, {} in mode vm-passthrough, {} without a mode",
        counts.container, counts.vm_passthrough, counts.without_mode
    )];
    for component in COMPONENTS {
        let Some(entry) = snapshot.status.component(component.operand) else {
            lines.push(format!("  {:22} {}", component.name, paint.dim("not reported")));
            continue;
        };
        let filled = if entry.desired == 0 { 0 } else { entry.ready * BAR / entry.desired };
        let bar = |length: i64, part: &str| part.repeat(usize::try_from(length).unwrap_or(0));
        let drawn = paint.verdict(if entry.ready == entry.desired { "True" } else { "False" }, &bar(filled, "█"));
        let rest = paint.dim(&bar(BAR - filled, "░"));
        lines.push(format!("  {:22} {drawn}{rest} {}/{}", component.name, entry.ready, entry.desired));
    }
    lines
}

fn verdict(snapshot: &Snapshot, paint: Paint) -> String {
    let Some(ready) = snapshot.status.condition("Ready") else {
        return paint.dim("  Ready: not reported yet");
    };
    let current = if snapshot.is_current { "" } else { " (of the spec before)" };
    paint.verdict(&ready.status, &format!("  Ready={}{current} {}: {}", ready.status, ready.reason, ready.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_line_with_a_word_per_component() {
        let shown = [
            (Cell::Ready, "ready"),
            (Cell::Starting, "starting"),
            (Cell::Assigned, "assigned"),
            (Cell::Empty, "·"),
            (Cell::Leaving, "leaving"),
        ];
        let rows = vec![Row {
            name: "npu-1".into(),
            mode: "container".into(),
            cells: std::array::from_fn(|column| shown[column % shown.len()].0),
        }];
        let text = lines(&Snapshot { rows, ..Snapshot::default() }, Paint(false));
        let names = COMPONENTS.map(|component| component.name);
        let header: Vec<_> = ["NODE", "MODE"].into_iter().chain(names).collect();
        assert_eq!(text[0].split_whitespace().collect::<Vec<_>>(), header);
        let words = (0..COMPONENTS.len()).map(|column| shown[column % shown.len()].1);
        let line: Vec<_> = ["npu-1", "container"].into_iter().chain(words).collect();
        assert_eq!(text[1].split_whitespace().collect::<Vec<_>>(), line);
        assert_eq!(text[3], "  Ready: not reported yet");
    }
}
