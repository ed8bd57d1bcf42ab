//! One report of a run, as Markdown, as a page, and in short on the terminal.

mod html;
mod markdown;
mod plot;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::baseline::{Baseline, Comparison};
use super::catalogue::{Goal, Section};
use super::figures::{Figures, Name, Spread, show, show_ratio};
use super::machine::Machine;
use super::run::Failure;
use super::verdict::{Line, Outcome};
use crate::shell;

/// All that a report says.
pub(super) struct Report<'a> {
    pub(super) machine: &'a Machine,
    /// Part of the time for which other work had the cores.
    pub(super) waited: Option<f64>,
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
    /// Part of the time for which other work had the cores in this run.
    pub(super) now_waited: Option<f64>,
    /// Whether the baseline was a quick run and this one is not, or the other way round.
    pub(super) lengths_differ: bool,
    pub(super) threshold: f64,
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

    /// What was asked for and was not measured.
    pub(super) fn not_measured(&self) -> Vec<&Line<'_>> {
        let missing = |line: &&Line<'_>| line.outcome() == Outcome::NotMeasured;
        self.lines().filter(missing).collect()
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
        let rivals = line.rivals.iter().filter(|beside| beside.figure.is_some());
        let list = |cells: Vec<String>| if cells.is_empty() { none() } else { cells.join(BREAK) };
        let goals = line.goals.iter().map(|(goal, reached)| one_goal(goal, *reached, line));
        Self {
            ids: line.row.requirements.join(", "),
            what: line.row.what.clone(),
            expected: line.row.expected.map_or_else(none, |figure| show(figure, unit)),
            rivals: list(
                rivals
                    .clone()
                    .map(|beside| {
                        let figure = beside.figure.map(|spread| show(spread.median, unit));
                        format!("{} {}", beside.label, figure.unwrap_or_default())
                    })
                    .collect(),
            ),
            ours: measured(line.ours).unwrap_or_else(|| "not measured".to_owned()),
            ratio: list(rivals.map(|beside| beside.ratio.map_or_else(none, one_ratio)).collect()),
            goal: list(goals.collect()),
            outcome: outcome(line),
        }
    }

    fn into_vec(self) -> Vec<String> {
        let Self { ids, what, expected, rivals, ours, ratio, goal, outcome } = self;
        vec![ids, what, expected, rivals, ours, ratio, goal, outcome]
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
        None if line.ours.is_some() => format!("{text} (not measured)"),
        _ => text,
    }
}

fn outcome(line: &Line<'_>) -> String {
    let noise = if line.noisy { ", noisy" } else { "" };
    match line.outcome() {
        Outcome::Reached => format!("reached{noise}"),
        Outcome::Missed => format!("missed{noise}"),
        Outcome::NotMeasured => "not measured".to_owned(),
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
        ("commit", machine.commit.clone()),
        ("date", machine.date.clone()),
        ("other work", other_work(report.waited)),
    ]
}

/// From this part of the time on, what other work takes shows in the figures.
const BUSY_FROM: f64 = 0.02;

fn other_work(waited: Option<f64>) -> String {
    let Some(waited) = waited else { return "unknown".to_owned() };
    let text = format!("had the cores for {:.1} % of the time", waited * 100.0);
    if waited < BUSY_FROM {
        return text;
    }
    format!("{text}: enough to show, so that no time here should be relied on")
}

/// How figures are to be read, in sentences.
const READING: &str = "A figure is the median of the rounds, with the least and the greatest of them; a ratio is \
taken within each round and says how many times better Spanwire is than the rival. “noisy” marks rows whose rounds \
lie further apart than a fifth of their median: neither their outcome nor their figure should be relied on; a ratio \
that varies as much has its spread beside it. Goals are held against medians. “expected” is the figure published as what may be expected of such a library.";

/// The comparison with a baseline, in lines.
fn compared(compared: &Compared<'_>) -> Vec<String> {
    let Compared { baseline, then, now_waited, lengths_differ, threshold, comparison } = compared;
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
        "A fixed piece of arithmetic takes {:.3} times as long as it did then. The machine's shift is \
         taken out of each round: by the rivals of the same group, and by that piece where there are \
         none.",
        comparison.shift
    ));
    let regressions = comparison.regressions.len();
    lines.push(format!(
        "{} of Spanwire's figures compared: {regressions} worse by more than {:.0} % and beyond the \
         noise, {} better.",
        comparison.compared,
        threshold * 100.0,
        comparison.improvements.len(),
    ));
    for (word, changes) in
        [("worse", &comparison.regressions), ("better", &comparison.improvements)]
    {
        for change in changes {
            let unit = &change.name.unit;
            lines.push(format!(
                "{word}: {} {} → {} ({})",
                change.name,
                change.then.show(unit),
                change.now.show(unit),
                show_ratio(change.times()),
            ));
        }
    }
    lines.extend(comparison.gone.iter().map(|name| format!("no longer measured: {name}")));
    lines
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
            commit: "75df592ab123 with uncommitted changes".to_owned(),
            date: "today".to_owned(),
        }
    }

    fn row(figure: Name, at_most: f64) -> Row {
        Row {
            requirements: &["G2", "S0.2"],
            what: "a span".to_owned(),
            rivals: vec![Rival { label: "fastrace".to_owned(), name: name("fastrace") }],
            figure,
            expected: Some(350.0),
            goals: vec![
                Goal::AtMost(at_most),
                Goal::Ahead { rival: "fastrace".to_owned(), times: 3.0 },
            ],
        }
    }

    /// Pieces that both forms of a report of two rows must have, the second row never measured.
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
        let section = Section {
            title: "Recording",
            suite: None,
            rows: vec![row(name("spanwire"), 90.0), row(name("spanwire, later"), 90.0)],
        };
        let sections = [section];
        let machine = machine();
        let side = |figures| Side { figures, arithmetic_ns: &[100.0] };
        let comparison = compare(side(&before), side(&figures), 0.1, |_| true);
        let (arithmetic_ns, waits) = (vec![100.0], vec![0.5]);
        let ran = Ran { figures: before, arithmetic_ns, waits, ..Ran::default() };
        let then = Baseline::new("then".to_owned(), false, machine.clone(), &ran);
        look(&Report {
            machine: &machine,
            waited: Some(0.001),
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
                threshold: 0.1,
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
                "| other work | had the cores for 0.1 % of the time |",
                "- Other work, then: had the cores for 50.0 % of the time: enough to show",
                "## 0 of 2 goals reached",
                "1 of 2 figures are as good as those expected",
                "| G2, S0.2 | a span | 350 ns | fastrace 164 ns | 82 ns (80–84) | 2× | ≤ 90 ns<br>\
                 ≥ 3× fastrace (missed) | missed |",
                "| not measured | – | ≤ 90 ns<br>≥ 3× fastrace | not measured |",
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
