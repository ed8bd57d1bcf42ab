//! The report as Markdown.

use std::fmt::Write as _;

use super::{BREAK, Cells, READING, Report, about, compared, goal_id};
use crate::bench::catalogue::SHOWN;

/// The whole page.
pub(super) fn page(report: &Report<'_>) -> String {
    let mut page = String::from("# Spanwire beside its rivals\n\n");
    let about = about(report).into_iter().map(|(key, value)| vec![key.to_owned(), value]);
    page.push_str(&table(&["", ""], about));
    let _ = write!(page, "\n{READING}\n");

    let _ = write!(page, "\n## {}\n\n", report.goals_reached());
    let goals = report.goals();
    let goals = goals.iter().map(|line| {
        let Cells { what, rivals, ours, ratio, goal, outcome, .. } = Cells::of(line);
        vec![goal_id(line).to_owned(), what, rivals, ours, ratio, goal, outcome]
    });
    let heads = ["", "what", "rivals", "Spanwire", "ratio", "goal", "outcome"];
    page.push_str(&table(&heads, goals));
    let _ = write!(page, "\n{}.\n", report.expected_reached());

    if let Some(comparison) = &report.comparison {
        page.push_str("\n## Since the baseline\n\n");
        for line in compared(comparison) {
            let _ = writeln!(page, "- {line}");
        }
    }
    for (section, lines) in &report.sections {
        let _ = write!(page, "\n## {}\n\n", report.title(section));
        page.push_str(&table(&Cells::HEADS, lines.iter().map(|line| Cells::of(line).into_vec())));
    }

    page.push_str("\n## Shown by a command\n\n");
    let rows = SHOWN.iter().map(|shown| {
        vec![shown.requirement.to_owned(), shown.what.to_owned(), format!("`{}`", shown.by)]
    });
    page.push_str(&table(&["id", "what", "command"], rows));
    if !report.others.is_empty() {
        page.push_str("\n## Other figures\n\n");
        let rows = report.others.iter().map(|(name, spread)| {
            let noise = if spread.is_noisy() { ", noisy" } else { "" };
            vec![name.to_string(), format!("{}{noise}", spread.show(&name.unit))]
        });
        page.push_str(&table(&["what", "figure"], rows));
    }
    let failed = report.failed();
    if !failed.is_empty() {
        page.push_str("\n## What failed\n");
        for failure in failed {
            let _ = write!(page, "\n```text\n{failure}\n```\n");
        }
    }
    page
}

fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = format!("| {} |\n|{}\n", heads.join(" | "), " --- |".repeat(heads.len()));
    for row in rows {
        let cells: Vec<String> =
            row.iter().map(|cell| cell.replace('|', "\\|").replace(BREAK, "<br>")).collect();
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    table
}
