//! One report of a run, as Markdown, as a page, and in short on the terminal.

mod html;
mod markdown;
mod plot;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::iter::once;
use std::path::{Path, PathBuf};

use super::baseline::{Baseline, Change, Comparison};
use super::catalogue::{Goal, Section};
use super::figures::{BUILDS, Figures, Name, Spread, show, show_ratio};
use super::machine::Machine;
use super::run::Failure;
use super::verdict::{Beside, Line, Outcome};
use crate::shell;

/// All that a report says.
pub(super) struct Report<'a> {
    pub(super) machine: &'a Machine,
    /// Part of the pauses between programs for which a thread had to wait for a core.
    pub(super) waited: Option<f64>,
    /// When `cargo xtask pgo` measured the optimised builds, if their figures are taken over.
    pub(super) builds_date: Option<String>,
    pub(super) command: &'a str,
    /// Rounds and times, in words.
    pub(super) method: String,
    pub(super) sections: Vec<(&'a Section, Vec<Line<'a>>)>,
    pub(super) others: Vec<(&'a Name, Spread)>,
    pub(super) figures: &'a Figures,
    pub(super) failures: &'a [Failure],
    pub(super) comparison: Option<Compared<'a>>,
}

/// A comparison, with what it is with.
pub(super) struct Compared<'a> {
    pub(super) baseline: &'a str,
    pub(super) then: &'a Baseline,
    /// The same of this run.
    pub(super) now_waited: Option<f64>,
    /// Whether the baseline was a quick run and this one is not, or the other way round.
    pub(super) lengths_differ: bool,
    pub(super) threshold_percent: f64,
    pub(super) comparison: Comparison,
}

impl Report<'_> {
    /// Writes `report.md` and `report.html` into `folder`; returns where.
    pub(super) fn write(&self, folder: &Path) -> Result<[PathBuf; 2], String> {
        let paths = ["report.md", "report.html"].map(|file| folder.join(file));
        shell::create_folder(folder)?;
        for (path, text) in paths.iter().zip([markdown::page(self), html::page(self)]) {
            shell::write(path, text)?;
        }
        Ok(paths)
    }

    /// The title of a section, with where its figures come from if that is not this run.
    pub(super) fn title(&self, section: &Section) -> String {
        match (section.suite, &self.builds_date) {
            (None, Some(date)) => format!("{}, by `cargo xtask pgo` at {date}", section.title),
            (None, None) => format!("{}, by `cargo xtask pgo`", section.title),
            (Some(_), _) => section.title.to_owned(),
        }
    }

    /// Lines about this library's own goals.
    pub(super) fn goals(&self) -> Vec<&Line<'_>> {
        let mut lines: Vec<&Line<'_>> =
            self.lines().filter(|line| line.is_goal() && !line.goals.is_empty()).collect();
        lines.sort_by_key(|line| goal_number(line));
        lines
    }

    /// How many of this library's goals are reached, in words.
    pub(super) fn goals_reached(&self) -> String {
        let goals = self.goals();
        let reached = goals.iter().filter(|line| line.outcome() == Outcome::Reached).count();
        format!("{reached} of {} goals reached", goals.len())
    }

    /// How many of the published figures are reached, in words.
    pub(super) fn expected_reached(&self) -> String {
        let expected: Vec<(&Line<'_>, f64)> =
            self.lines().filter_map(|line| Some((line, line.row.expected?))).collect();
        let reached = expected.iter().filter(|(line, expected)| {
            let more = line.row.figure.more_is_better();
            line.ours.is_some_and(|ours| {
                if more { ours.median >= *expected } else { ours.median <= *expected }
            })
        });
        let (reached, all) = (reached.count(), expected.len());
        format!("{reached} of {all} figures are as good as those expected of such a library")
    }

    fn lines(&self) -> impl Iterator<Item = &Line<'_>> {
        self.sections.iter().flat_map(|(_, lines)| lines)
    }

    /// Figures that rows name, as their own or as a rival's, and that were not measured; but those of
    /// optimised builds are another command's.
    pub(super) fn not_measured(&self) -> BTreeSet<&Name> {
        let rows = self.lines().map(|line| line.row);
        let named = rows
            .flat_map(|row| once(&row.figure).chain(row.rivals.iter().map(|rival| &rival.name)));
        named.filter(|name| name.group != BUILDS && self.figures.spread(name).is_none()).collect()
    }

    /// What went wrong in the run, in texts.
    pub(super) fn failed(&self) -> Vec<String> {
        let mut failed: Vec<String> = self.failures.iter().map(ToString::to_string).collect();
        let missing: Vec<String> =
            self.not_measured().into_iter().map(|name| format!("  {name}")).collect();
        if !missing.is_empty() {
            failed.push(format!("not measured:\n{}", missing.join("\n")));
        }
        failed
    }

    /// The goals, for a terminal: in short, as the pages have the rest.
    pub(super) fn terminal(&self) -> String {
        let goals = self.goals();
        if goals.is_empty() {
            return self.expected_reached();
        }
        let rows: Vec<[String; 4]> = goals
            .iter()
            .map(|line| {
                let unit = &line.row.figure.unit;
                let ours = line.ours.map_or_else(String::new, |ours| show(ours.median, unit));
                let missed = line.goals.iter().filter(|(_, reached)| *reached == Some(false));
                let missed: Vec<String> = missed.map(|(goal, _)| goal.show(unit)).collect();
                let outcome = match missed.is_empty() {
                    true => outcome(line),
                    false => format!("{}: {}", outcome(line), missed.join("; ")),
                };
                [goal_id(line).to_owned(), line.row.what.clone(), ours, outcome]
            })
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let [ids, whats, figures] = [0, 1, 2].map(|column| width(column).unwrap_or(0));
        let mut text = String::new();
        for [id, what, ours, outcome] in &rows {
            // Writing to a string does not fail.
            let _ok = writeln!(text, "{id:ids$}  {what:whats$}  {ours:>figures$}  {outcome}");
        }
        format!("{text}\n{}; {}", self.goals_reached(), self.expected_reached())
    }
}

/// The goal a line is about.
fn goal_id(line: &Line<'_>) -> &'static str {
    line.row.requirements.iter().find(|id| id.starts_with('G')).map_or("", |id| *id)
}

fn goal_number(line: &Line<'_>) -> u32 {
    goal_id(line).trim_start_matches('G').parse().unwrap_or(0)
}

/// In place of a figure.
const NOT_MEASURED: &str = "not measured";

/// Between the lines of a cell.
const BREAK: &str = "\n";

/// The cells of a line, the same for each form of the report.
pub(super) struct Cells {
    ids: String,
    what: String,
    expected: String,
    rivals: String,
    ours: String,
    ratio: String,
    goal: String,
    outcome: String,
}

impl Cells {
    const HEADS: [&str; 8] =
        ["id", "what", "expected", "rivals", "Spanwire", "ratio", "goal", "outcome"];

    fn of(line: &Line<'_>) -> Self {
        let unit = &line.row.figure.unit;
        let measured = |spread: Option<Spread>| spread.map(|spread| spread.show(unit));
        let none = || "–".to_owned();
        let list = |cells: Vec<String>| if cells.is_empty() { none() } else { cells.join(BREAK) };
        let goals = line.goals.iter().map(|(goal, reached)| one_goal(goal, *reached, line));
        let earlier = line.row.earlier.iter();
        let earlier =
            earlier.map(|(label, figure)| format!("{label} {}, earlier", show(*figure, unit)));
        Self {
            ids: line.row.requirements.join(", "),
            what: match line.row.note {
                Some(note) => format!("{}{BREAK}{note}", line.row.what),
                None => line.row.what.clone(),
            },
            expected: line.row.expected.map_or_else(none, |figure| show(figure, unit)),
            rivals: list(
                line.rivals.iter().map(|beside| one_rival(beside, unit)).chain(earlier).collect(),
            ),
            ours: measured(line.ours).unwrap_or_else(|| NOT_MEASURED.to_owned()),
            ratio: list(
                line.rivals
                    .iter()
                    .map(|beside| beside.ratio.map_or_else(none, one_ratio))
                    .collect(),
            ),
            goal: list(goals.collect()),
            outcome: outcome(line),
        }
    }

    fn into_vec(self) -> Vec<String> {
        let Self { ids, what, expected, rivals, ours, ratio, goal, outcome } = self;
        vec![ids, what, expected, rivals, ours, ratio, goal, outcome]
    }
}

fn one_rival(beside: &Beside<'_>, unit: &str) -> String {
    match beside.figure {
        Some(spread) => format!("{} {}", beside.label, show(spread.median, unit)),
        None => format!("{}: {NOT_MEASURED}", beside.label),
    }
}

/// A ratio, with its spread where that is too wide for it to be taken at its word.
fn one_ratio(ratio: Spread) -> String {
    let [median, least, greatest] = [ratio.median, ratio.least, ratio.greatest].map(show_ratio);
    if ratio.is_noisy() { format!("{median} ({least}–{greatest})") } else { median }
}

/// A goal; of several, one that is missed says so.
fn one_goal(goal: &Goal, reached: Option<bool>, line: &Line<'_>) -> String {
    let text = goal.show(&line.row.figure.unit);
    match reached {
        Some(false) if line.goals.len() > 1 => format!("{text} (missed)"),
        None if line.ours.is_some() => format!("{text} ({NOT_MEASURED})"),
        _ => text,
    }
}

fn outcome(line: &Line<'_>) -> String {
    let noise = if line.noisy { ", noisy" } else { "" };
    match line.outcome() {
        Outcome::Reached => format!("reached{noise}"),
        Outcome::Missed => format!("missed{noise}"),
        Outcome::NotMeasured => NOT_MEASURED.to_owned(),
        Outcome::NoGoal if line.noisy => "noisy".to_owned(),
        Outcome::NoGoal => "–".to_owned(),
    }
}

/// Machine and method, as pairs.
fn about<'a>(report: &'a Report<'_>) -> Vec<(&'static str, String)> {
    let machine: &'a Machine = report.machine;
    vec![
        ("command", report.command.to_owned()),
        ("method", report.method.clone()),
        ("machine", format!("{}, {} cores, {}", machine.cpu, machine.cores, machine.memory)),
        ("system", machine.kernel.clone()),
        ("compiler", machine.rustc.clone()),
        ("flags", machine.flags.clone()),
        ("commit", machine.commit.clone()),
        ("date", machine.date.clone()),
        ("other work", other_work(report.waited)),
    ]
}

/// From this part of the time on, waiting for a core shows in the figures.
const BUSY_FROM: f64 = 0.02;

fn other_work(waited: Option<f64>) -> String {
    let Some(waited) = waited else { return "unknown".to_owned() };
    let text = format!(
        "a thread had to wait for a core {:.1} % of the time, asked in the pauses between programs",
        waited * 100.0
    );
    if waited < BUSY_FROM {
        return text;
    }
    format!("{text}: enough to show, so that no time here should be relied on")
}

/// How figures are to be read, in sentences.
const READING: &str = "A figure is the median of the rounds, with the least and the greatest of them; a ratio is \
taken within each round and says how many times better Spanwire is than the rival. “noisy” marks rows whose rounds \
lie further apart than a fifth of their median: neither their outcome nor their figure should be relied on; a ratio \
that varies as much has its spread beside it. Goals are held against medians, those of losses and of allocations against the worst round. “expected” is the figure published as what may be expected of such a library; \
“earlier” marks what a rival came to on another machine when the goals were set, which is no figure of this run.";

/// The comparison with a baseline, in lines.
fn compared(compared: &Compared<'_>) -> Vec<String> {
    let Compared { baseline, then, now_waited, lengths_differ, threshold_percent, comparison } =
        compared;
    let machine = &then.machine;
    let mut lines = vec![format!(
        "Baseline {baseline}: commit {}, {}, {}.",
        machine.commit, machine.date, machine.cpu
    )];
    for (when, waited) in [("then", then.waited), ("now", *now_waited)] {
        if waited.is_some_and(|waited| waited >= BUSY_FROM) {
            lines.push(format!("Other work, {when}: {}.", other_work(waited)));
        }
    }
    if *lengths_differ {
        lines.push("One of the two is a quick run: their spreads differ.".to_owned());
    }
    lines.push(format!(
        "The machine's shift is taken out of each round by the foreign code that the same program ran; \
         where there is too little of that, nothing is taken out. A fixed piece of arithmetic takes \
         {:.3} times as long as it did then.",
        comparison.arithmetic
    ));
    let regressions = comparison.regressions.len();
    lines.push(format!(
        "{} of Spanwire's figures compared: {regressions} worse by more than {threshold_percent} % and \
         beyond the noise, {} worse within the noise, {} better.",
        comparison.compared,
        comparison.doubtful.len(),
        comparison.improvements.len(),
    ));
    for (word, changes) in [
        ("worse", &comparison.regressions),
        ("median worse, rounds overlap", &comparison.doubtful),
        ("better", &comparison.improvements),
    ] {
        lines.extend(changes.iter().map(|change| format!("{word}: {}", moved(change))));
    }
    lines.extend(comparison.gone.iter().map(|name| format!("no longer measured: {name}")));
    lines
}

/// A figure then and now; as it was measured too, if the machine's shift is taken out of it.
fn moved(change: &Change) -> String {
    let Change { name, then, now, measured } = change;
    let show = |spread: &Spread| spread.show(&name.unit);
    let ratio = show_ratio(change.times());
    let corrected = format!("{name} {} → {} ({ratio})", show(then), show(now));
    if measured == &[*then, *now] {
        return corrected;
    }
    let [then, now] = measured.each_ref().map(show);
    format!("{corrected}, measured {then} → {now}")
}

impl Compared<'_> {
    /// The comparison, for a terminal.
    pub(super) fn terminal(&self) -> String {
        compared(self).join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::baseline::{Side, compare};
    use crate::bench::catalogue::{Rival, Row};
    use crate::bench::run::Ran;
    use crate::bench::verdict;

    fn name(function: &str) -> Name {
        Name::new("span", function, "5", "ns")
    }

    fn machine() -> Machine {
        Machine {
            cpu: "Abacus <9>".to_owned(),
            cores: 2,
            memory: "24 GiB".to_owned(),
            kernel: "Linux 6".to_owned(),
            rustc: "rustc 1.95.0".to_owned(),
            flags: "-Ctarget-cpu=native".to_owned(),
            commit: "75df592ab123 with uncommitted changes".to_owned(),
            date: "today".to_owned(),
        }
    }

    fn row(figure: Name, at_most: f64) -> Row {
        Row {
            requirements: &["G2", "S0.2"],
            what: "a span".to_owned(),
            note: Some("Its clock is read twice."),
            rivals: vec![Rival { label: "fastrace".to_owned(), name: name("fastrace") }],
            earlier: vec![("minitrace", 99.0)],
            figure,
            expected: Some(350.0),
            goals: vec![
                Goal::AtMost(at_most),
                Goal::Ahead { rival: "fastrace".to_owned(), times: 3.0 },
            ],
        }
    }

    /// Pieces that both forms of a report of two rows must have, the second row never measured, and
    /// one of its rivals neither.
    fn with_report(look: impl FnOnce(&Report<'_>)) {
        let mut figures = Figures::default();
        for (round, (ours, rival)) in
            [(80.0, 160.0), (82.0, 164.0), (84.0, 168.0)].iter().enumerate()
        {
            figures.enter(round, name("spanwire"), *ours);
            figures.enter(round, name("fastrace"), *rival);
            figures.enter(round, Name::new("clock", "Instant", "", "ns"), 46.0);
        }
        let mut before = Figures::default();
        before.enter(0, name("spanwire"), 60.0);
        let mut later = row(name("spanwire, later"), 90.0);
        later.rivals.push(Rival { label: "tracing".to_owned(), name: name("tracing") });
        let rows = vec![row(name("spanwire"), 90.0), later];
        let section = Section { title: "Recording", suite: None, rows };
        let sections = [section];
        let machine = machine();
        let side = |figures| Side { figures, arithmetic_ns: &[100.0] };
        let comparison = compare(side(&before), side(&figures), 0.1, |_| true, |_| Some(()));
        let (arithmetic_ns, waits) = (vec![100.0], vec![0.5]);
        let ran = Ran { figures: before, arithmetic_ns, waits, ..Ran::default() };
        let then = Baseline::new("then".to_owned(), false, machine.clone(), &ran);
        look(&Report {
            machine: &machine,
            waited: Some(0.001),
            builds_date: Some("noon".to_owned()),
            command: "cargo xtask bench cpu",
            method: "3 rounds".to_owned(),
            sections: sections
                .iter()
                .map(|section| (section, verdict::lines(section, &figures)))
                .collect(),
            others: verdict::others(&sections, &figures),
            figures: &figures,
            failures: &[],
            comparison: Some(Compared {
                baseline: "main",
                then: &then,
                now_waited: Some(0.0),
                lengths_differ: false,
                threshold_percent: 2.5,
                comparison,
            }),
        });
    }

    #[test]
    fn a_row_has_what_was_measured_beside_what_is_wanted() {
        with_report(|report| {
            let page = markdown::page(report);
            for piece in [
                "| commit | 75df592ab123 with uncommitted changes |",
                "| flags | -Ctarget-cpu=native |",
                "| other work | a thread had to wait for a core 0.1 % of the time, asked in the pauses",
                "- Other work, then: a thread had to wait for a core 50.0 % of the time",
                "pauses between programs: enough to show",
                "1 worse by more than 2.5 % and beyond the noise",
                "## Recording, by `cargo xtask pgo` at noon",
                "## 0 of 2 goals reached",
                "1 of 2 figures are as good as those expected",
                "| G2, S0.2 | a span<br>Its clock is read twice. | 350 ns | fastrace 164 ns<br>minitrace 99 ns, earlier | 82 ns (80–84) | 2× | ≤ 90 ns<br>\
                 ≥ 3× fastrace (missed) | missed |",
                "| fastrace 164 ns<br>tracing: not measured<br>minitrace 99 ns, earlier | not measured | –<br>– | ≤ 90 ns<br>\
                 ≥ 3× fastrace | not measured |",
                "## What failed\n\n```text\nnot measured:\n  span/spanwire, later/5\n  span/tracing/5\n```",
                "| clock/Instant | 46 ns |",
                "- worse: span/spanwire/5 60 ns → 82 ns (80–84) (1.37×)",
                "| S1.2 | flame graph",
            ] {
                assert!(page.contains(piece), "{piece}\nis not in\n{page}");
            }
        });
    }

    #[test]
    fn the_page_stands_by_itself() {
        with_report(|report| {
            let page = html::page(report);
            assert!(
                page.contains("<tr class=\"missed\"><td data-head=\"id\"><span>G2</span></td>"),
                "{page}"
            );
            assert!(
                page.contains("Abacus &lt;9&gt;") && page.contains("<svg role=\"img\""),
                "{page}"
            );
            for other in ["<script", "src=", "href=", "@import", "url("] {
                assert!(!page.contains(other), "{other} in\n{page}");
            }
        });
    }

    #[test]
    fn the_terminal_shows_goals_in_columns() {
        with_report(|report| {
            let text = report.terminal();
            let first = text.lines().next().unwrap_or_default();
            let columns = "G2  a span  82 ns  missed: ≥ 3× fastrace";
            assert_eq!(first, columns, "{text}");
        });
    }
}
