//! A summary as a table that fits a screen, however many nodes there are.

use std::fmt::Write;

use super::group::{CellState, Group};
use super::summary::Summary;
use crate::style::{Colour, Style};

/// How many rows a table has before it only counts.
const ROWS: usize = 20;

/// How many causes are told below it.
const CAUSES: usize = 5;

/// How many nodes of a row are named before it only counts.
const NAMED: usize = 3;

/// The table.
#[must_use]
pub fn table(summary: &Summary, is_wide: bool, style: Style) -> String {
    let colour = if summary.ready { Colour::Green } else { Colour::Red };
    let mut text = format!("{}\n", style.paint(colour, &summary.config));
    for problem in &summary.problems {
        let _ = writeln!(text, "{}", style.paint(Colour::Red, problem));
    }
    let other = if summary.unrelated > 0 {
        format!("; {} without NPUs are not shown", summary.unrelated)
    } else {
        String::new()
    };
    let _ = writeln!(text, "{} nodes, {} not as they should be{other}", summary.nodes, summary.not_ready);
    let most = if is_wide { usize::MAX } else { ROWS };
    rows(&mut text, &summary.groups, most, is_wide, style);
    causes(&mut text, summary, if is_wide { usize::MAX } else { CAUSES });
    for unknown in &summary.unknown {
        let _ = writeln!(text, "not known: {unknown}");
    }
    text
}

fn rows(text: &mut String, groups: &[Group], most: usize, is_wide: bool, style: Style) {
    let Some(first) = groups.first() else { return };
    let mut head: Vec<String> = vec!["NODES".into(), "MODE".into()];
    head.extend(first.row.components.iter().map(|cell| cell.component.to_uppercase()));
    head.extend(["NPUS", "VERSION", "KERNEL", "UPGRADE"].map(str::to_owned));
    // All that are well are one row and always shown; of the others the worst are.
    let (bad, good): (Vec<_>, Vec<_>) = groups.iter().partition(|group| !group.ready);
    let left = most.saturating_sub(good.len().min(most / 2));
    let shown: Vec<_> = bad.iter().take(left).chain(good.iter().take(most - bad.len().min(left))).collect();
    let cells: Vec<_> = shown.iter().map(|group| line(group, is_wide)).collect();
    let widths: Vec<_> = (0..head.len())
        .map(|column| {
            cells.iter().map(|row| row[column].0.chars().count()).chain([head[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let heads: Vec<_> = head.iter().zip(&widths).map(|(head, width)| format!("{head:width$}")).collect();
    let _ = writeln!(text, "\n{}", heads.join("  ").trim_end());
    for row in &cells {
        let mut padded = row.iter().zip(&widths).map(|((cell, colour), width)| {
            let cell = format!("{cell:width$}");
            colour.map_or(cell.clone(), |colour| style.paint(colour, &cell))
        });
        let line = padded.by_ref().collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let rest: Vec<_> = groups.iter().filter(|group| !shown.iter().any(|one| std::ptr::eq(**one, *group))).collect();
    if !rest.is_empty() {
        let nodes: usize = rest.iter().map(|group| group.nodes.len()).sum();
        let _ = writeln!(text, "and {nodes} nodes in {} more rows: -o wide shows them", rest.len());
    }
}

fn line(group: &Group, is_wide: bool) -> Vec<(String, Option<Colour>)> {
    let row = &group.row;
    let name_colour = match (group.ready, group.needs_attention) {
        (true, _) => None,
        (false, false) => Some(Colour::Yellow),
        (false, true) => Some(Colour::Red),
    };
    let mut cells = vec![(names(group, is_wide), name_colour), (row.mode.to_owned(), None)];
    cells.extend(row.components.iter().map(|cell| {
        let colour = match cell.state {
            CellState::Ready => Some(Colour::Green),
            CellState::Waiting => Some(Colour::Yellow),
            CellState::Failing => Some(Colour::Red),
            CellState::Unwanted | CellState::Off => None,
        };
        (cell.state.as_str().to_owned(), colour)
    }));
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let found = row.npus_found.map_or_else(|| "?".to_owned(), |found| found.to_string());
    let npus = if row.mode == "container" { format!("{}/{found}", row.npus_allocatable) } else { found };
    cells.push((npus, None));
    cells.push((or_none(&row.driver_version), None));
    cells.push((or_none(&row.kernel), None));
    let upgrade = if row.kubelet_ready { row.upgrade.clone() } else { [&row.upgrade, "node not ready"].concat() };
    cells.push((or_none(&upgrade), None));
    cells
}

/// Exceptions by name, the others as a number.
fn names(group: &Group, is_wide: bool) -> String {
    let count = group.nodes.len();
    let named = group.nodes.iter().take(NAMED).cloned().collect::<Vec<_>>().join(",");
    match (group.ready, is_wide, count) {
        (_, _, 1) => group.nodes[0].clone(),
        (false, true, _) => group.nodes.join(","),
        (false, false, _) if count <= NAMED => named,
        (false, false, _) => format!("{named} +{}", count - NAMED),
        (true, ..) => format!("{count} nodes"),
    }
}

fn causes(text: &mut String, summary: &Summary, most: usize) {
    let with_cause = || summary.groups.iter().filter_map(|group| Some((group, group.cause.as_ref()?)));
    if with_cause().next().is_some() {
        text.push('\n');
    }
    for (group, cause) in with_cause().take(most) {
        let first = group.nodes.first().map(String::as_str).unwrap_or_default();
        let _ = writeln!(text, "{first}: {cause}");
    }
    if let Some((group, _)) = with_cause().next() {
        let first = group.nodes.first().map(String::as_str).unwrap_or_default();
        let _ = writeln!(text, "what to do: kubectl accelerator explain node/{first}");
    }
}
