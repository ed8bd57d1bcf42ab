//! The report as a page that stands by itself: no script, no other file.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{BREAK, Cells, READING, Report, about, compared, goal_id, plot};
use crate::bench::catalogue::SHOWN;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(super) fn page(report: &Report<'_>) -> String {
    let mut body = String::from("<h1>Spanwire beside its rivals</h1>\n<dl>");
    for (key, value) in about(report) {
        let _ = write!(body, "<dt>{key}</dt><dd>{}</dd>", escaped(&value));
    }
    let _ = write!(body, "</dl>\n<p>{}</p>\n", escaped(READING));

    let _ = writeln!(body, "<h2>{}</h2>", report.goals_reached());
    let goals = report.goals();
    let goals = goals.iter().map(|line| {
        let Cells { what, rivals, ours, ratio, goal, outcome, .. } = Cells::of(line);
        vec![goal_id(line).to_owned(), what, rivals, ours, ratio, goal, outcome]
    });
    let heads = ["id", "what", "rivals", "Spanwire", "ratio", "goal", "outcome"];
    body.push_str(&table(&heads, goals));
    let _ = writeln!(body, "<p>{}.</p>", report.expected_reached());

    if let Some(comparison) = &report.comparison {
        body.push_str("<h2>Since the baseline</h2>\n<ul>");
        for line in compared(comparison) {
            let _ = write!(body, "<li>{}</li>", escaped(&line));
        }
        body.push_str("</ul>\n");
    }
    for (section, lines) in &report.sections {
        let _ = writeln!(body, "<h2>{}</h2>", escaped(&report.title(section)));
        body.push_str(&table(&Cells::HEADS, lines.iter().map(|line| Cells::of(line).into_vec())));
        body.push_str("<div class=\"plots\">\n");
        let mut drawn = BTreeSet::new();
        for name in lines.iter().map(|line| &line.row.figure) {
            // Whole times and those of one element would be the same bars.
            if drawn.insert((&name.group, name.unit.trim_end_matches(" each"))) {
                body.push_str(&plot::bars(&name.group, &name.unit, report.figures));
            }
        }
        body.push_str("</div>\n");
    }

    body.push_str("<h2>Shown by a command</h2>\n");
    let rows = SHOWN.iter();
    let rows = rows.map(|shown| [shown.requirement, shown.what, shown.by].map(str::to_owned));
    body.push_str(&table(&["id", "what", "command"], rows.map(Vec::from)));
    if !report.others.is_empty() {
        body.push_str("<h2>Other figures</h2>\n");
        let rows = report.others.iter().map(|(name, spread)| {
            let noise = if spread.is_noisy() { ", noisy" } else { "" };
            vec![name.to_string(), format!("{}{noise}", spread.show(&name.unit))]
        });
        body.push_str(&table(&["what", "figure"], rows));
    }
    let failed = report.failed();
    if !failed.is_empty() {
        body.push_str("<h2>What failed</h2>\n");
        for failure in failed {
            let _ = writeln!(body, "<pre>{}</pre>", escaped(&failure));
        }
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Spanwire beside its rivals</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n{body}</body>\n</html>\n"
    )
}

/// A table whose cells repeat their heads, which a narrow screen shows in place of columns.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = String::from("<table><thead><tr>");
    for head in heads {
        let _ = write!(table, "<th>{head}</th>");
    }
    table.push_str("</tr></thead><tbody>\n");
    for row in rows {
        // The outcome, where there is one, comes last and colours its cell.
        let last = row.last().filter(|_| heads.last() == Some(&"outcome"));
        let outcome = last.and_then(|cell| cell.split([',', ' ']).next()).unwrap_or("");
        let _ = write!(table, "<tr class=\"{}\">", escaped(outcome));
        for (head, cell) in heads.iter().zip(&row) {
            let cell = escaped(cell).replace(BREAK, "<br>");
            // One element, so that a narrow screen keeps its lines together.
            let _ = write!(table, "<td data-head=\"{head}\"><span>{cell}</span></td>");
        }
        table.push_str("</tr>\n");
    }
    table.push_str("</tbody></table>\n");
    table
}

/// Text as it may stand in HTML, in attributes too.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
