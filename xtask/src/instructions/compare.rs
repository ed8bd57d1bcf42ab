//! Which differences from the kept figures matter.

use std::fmt;

use super::kept::{Environment, Kept, PathFigures};

/// Instructions more than kept, in percent, that are a regression. Counts repeat to 0.01 %, so this
/// is room for changes nobody meant and nobody minds.
const PERCENT_MAX: f64 = 3.0;

/// The same of instructions under another compiler or C library, which each move the counts of
/// unchanged code.
const PERCENT_MAX_ELSEWHERE: f64 = 10.0;

/// Allocated bytes more than kept, in percent, that are a regression wherever it is.
const BYTES_PERCENT_MAX: f64 = 3.0;

/// Every path, kept and now.
#[derive(Debug)]
pub(super) struct Comparison {
    rows: Vec<Row>,
    /// How the environment differs from that of the kept figures, and what follows.
    notes: Vec<String>,
}

#[derive(Debug)]
struct Row {
    name: String,
    kept: Option<PathFigures>,
    now: Option<PathFigures>,
    change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Better,
    Worse,
    /// Not kept yet.
    New,
    /// Kept, and not there any more.
    Gone,
}

/// Compares paths by their names.
pub(super) fn compare(kept: &Kept, environment: &Environment, now: &[PathFigures]) -> Comparison {
    let (percent_max, notes) = tolerance(&kept.environment, environment);
    let mut rows: Vec<Row> = now
        .iter()
        .map(|now| {
            let kept = kept.paths.iter().find(|kept| kept.name == now.name);
            let percent_max = percent_max.of(&now.name);
            let change = kept.map_or(Change::New, |kept| change(kept, now, percent_max));
            Row { name: now.name.clone(), kept: kept.cloned(), now: Some(now.clone()), change }
        })
        .collect();
    let gone = kept.paths.iter().filter(|kept| now.iter().all(|now| now.name != kept.name));
    rows.extend(gone.map(|kept| Row {
        name: kept.name.clone(),
        kept: Some(kept.clone()),
        now: None,
        change: Change::Gone,
    }));
    Comparison { rows, notes }
}

/// Percent of instructions more that are accepted.
struct PercentMax {
    percent: f64,
    same_clock: bool,
}

impl PercentMax {
    /// `None` where the path's instructions cannot be compared: recording alone reads the clock.
    fn of(&self, path: &str) -> Option<f64> {
        (self.same_clock || !path.starts_with("span_")).then_some(self.percent)
    }
}

/// What is accepted here, and why it is more than elsewhere.
fn tolerance(kept: &Environment, here: &Environment) -> (PercentMax, Vec<String>) {
    let mut notes = Vec::new();
    let mut percent = PERCENT_MAX;
    for (what, kept, here) in
        [("compiler", &kept.rustc, &here.rustc), ("C library", &kept.libc, &here.libc)]
    {
        if kept != here {
            percent = PERCENT_MAX_ELSEWHERE;
            notes.push(format!(
                "another {what}, {here} and not {kept}: only beyond {PERCENT_MAX_ELSEWHERE} % are \
                 instructions a regression"
            ));
        }
    }
    let same_clock = kept.clock == here.clock;
    if !same_clock {
        notes.push(format!(
            "another clock, {} and not {}, is read by other code: instructions of span_* are printed \
             and not compared",
            here.clock, kept.clock
        ));
    }
    (PercentMax { percent, same_clock }, notes)
}

fn change(kept: &PathFigures, now: &PathFigures, percent_max: Option<f64>) -> Change {
    let percent = percent(kept, now);
    let beyond = |sign: f64| {
        percent.zip(percent_max).is_some_and(|(percent, percent_max)| sign * percent > percent_max)
    };
    let [kept_bytes, now_bytes] = [kept, now].map(|path| path.bytes as f64);
    let more_bytes = now_bytes > kept_bytes * (1.0 + BYTES_PERCENT_MAX / 100.0);
    let less_bytes = now_bytes < kept_bytes * (1.0 - BYTES_PERCENT_MAX / 100.0);
    if now.allocations > kept.allocations || more_bytes || beyond(1.0) {
        Change::Worse
    } else if now.allocations < kept.allocations || less_bytes || beyond(-1.0) {
        Change::Better
    } else {
        Change::None
    }
}

/// Instructions more than kept, in percent.
fn percent(kept: &PathFigures, now: &PathFigures) -> Option<f64> {
    let (kept, now) = kept.instructions.zip(now.instructions)?;
    Some((now as f64 / kept as f64 - 1.0) * 100.0)
}

impl Comparison {
    /// Each row that must not stay as it is, with its figures.
    pub(super) fn regressed(&self) -> Vec<String> {
        self.with(|change| matches!(change, Change::Worse | Change::New | Change::Gone))
    }

    /// Each row that is better than what is kept.
    pub(super) fn improved(&self) -> Vec<String> {
        self.with(|change| change == Change::Better)
    }

    fn with(&self, chosen: impl Fn(Change) -> bool) -> Vec<String> {
        self.rows.iter().filter(|row| chosen(row.change)).map(Row::difference).collect()
    }
}

impl Row {
    fn difference(&self) -> String {
        let (Some(kept), Some(now)) = (&self.kept, &self.now) else {
            let what = if self.kept.is_some() { "is kept and not there" } else { "is not kept" };
            return format!("{} {what}", self.name);
        };
        let mut parts = Vec::new();
        if let Some(((kept, now), percent)) =
            kept.instructions.zip(now.instructions).zip(percent(kept, now))
        {
            parts.push(format!("{kept} -> {now} instructions ({percent:+.1} %)"));
        }
        if kept.allocations != now.allocations {
            parts.push(format!("{} -> {} allocations", kept.allocations, now.allocations));
        }
        if kept.bytes != now.bytes {
            parts.push(format!("{} -> {} bytes", kept.bytes, now.bytes));
        }
        format!("{} {}", self.name, parts.join(", "))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instructions = |figures: &Option<PathFigures>| {
            let count = figures.as_ref().and_then(|figures| figures.instructions);
            count.map_or_else(|| "-".to_owned(), |count| count.to_string())
        };
        let allocations = |figures: &Option<PathFigures>| {
            figures
                .as_ref()
                .map_or_else(|| "-".to_owned(), |figures| figures.allocations.to_string())
        };
        writeln!(
            f,
            "{:<32} {:>14} {:>14} {:>8} {:>13}",
            "one run", "kept", "instructions", "", "allocations"
        )?;
        for Row { name, kept, now, change } in &self.rows {
            let percent =
                kept.as_ref().zip(now.as_ref()).and_then(|(kept, now)| percent(kept, now));
            let percent = percent.map_or_else(String::new, |percent| format!("{percent:+.2} %"));
            let allocations = match (allocations(kept), allocations(now)) {
                (kept, now) if kept == now => now,
                (kept, now) => format!("{kept} -> {now}"),
            };
            let verdict = match change {
                Change::None => "",
                Change::Better => "better",
                Change::Worse => "WORSE",
                Change::New => "NOT KEPT",
                Change::Gone => "GONE",
            };
            let (kept, now) = (instructions(kept), instructions(now));
            writeln!(
                f,
                "{name:<32} {kept:>14} {now:>14} {percent:>8} {allocations:>13}  {verdict}"
            )?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(rustc: &str, libc: &str, clock: &str) -> Environment {
        let [rustc, libc, clock] = [rustc, libc, clock].map(str::to_owned);
        Environment { rustc, libc, clock }
    }

    fn path(name: &str, instructions: impl Into<Option<u64>>, allocations: u64) -> PathFigures {
        PathFigures {
            name: name.to_owned(),
            instructions: instructions.into(),
            allocations,
            bytes: 0,
        }
    }

    /// What 1,000 kept instructions and two allocations turned into, in this environment.
    fn change_in(here: &Environment, now: PathFigures) -> Change {
        let kept = Kept {
            environment: environment("1.95", "glibc 2.36", "tsc"),
            paths: vec![path("encode", 1_000, 2)],
        };
        compare(&kept, here, &[now]).rows[0].change
    }

    #[test]
    fn over_three_percent_more_instructions_or_one_more_allocation_is_a_regression() {
        let here = environment("1.95", "glibc 2.36", "tsc");
        for (instructions, allocations, expected) in [
            (1_000, 2, Change::None),
            (1_029, 2, Change::None),
            (1_031, 2, Change::Worse),
            (1_000, 3, Change::Worse),
            // Fewer instructions do not make up for an allocation.
            (500, 3, Change::Worse),
            (971, 2, Change::None),
            (969, 2, Change::Better),
            (1_000, 1, Change::Better),
        ] {
            let now = path("encode", instructions, allocations);
            assert_eq!(change_in(&here, now.clone()), expected, "{now:?}");
        }
    }

    #[test]
    fn under_another_compiler_or_c_library_ten_percent_are_accepted() {
        for here in
            [environment("1.96", "glibc 2.36", "tsc"), environment("1.95", "glibc 2.41", "tsc")]
        {
            assert_eq!(change_in(&here, path("encode", 1_099, 2)), Change::None);
            assert_eq!(change_in(&here, path("encode", 1_101, 2)), Change::Worse);
            assert_eq!(change_in(&here, path("encode", 1_000, 3)), Change::Worse);
        }
    }

    #[test]
    fn under_another_clock_only_the_allocations_are_compared_of_paths_that_read_it() {
        let here = environment("1.95", "glibc 2.36", "kvm-clock");
        let kept = Kept {
            environment: environment("1.95", "glibc 2.36", "tsc"),
            paths: ["span_without", "encode", "read"].map(|name| path(name, 1_000, 2)).into(),
        };
        let now = ["span_without", "encode", "read"].map(|name| path(name, 5_000, 2));
        let changes = compare(&kept, &here, &now).rows.into_iter().map(|row| row.change);
        let expected = [Change::None, Change::Worse, Change::Worse];
        assert_eq!(changes.collect::<Vec<_>>(), expected);
        let now = path("span_without", 1_000, 3);
        assert_eq!(compare(&kept, &here, &[now]).rows[0].change, Change::Worse);
    }

    #[test]
    fn more_bytes_in_as_many_allocations_are_a_regression() {
        let here = environment("1.95", "glibc 2.36", "tsc");
        let of = |bytes| PathFigures { bytes, ..path("encode", 1_000, 2) };
        let kept = Kept { environment: here.clone(), paths: vec![of(1_000)] };
        for (bytes, expected) in
            [(1_020, Change::None), (1_040, Change::Worse), (960, Change::Better)]
        {
            assert_eq!(compare(&kept, &here, &[of(bytes)]).rows[0].change, expected, "{bytes}");
        }
    }

    #[test]
    fn without_instructions_allocations_alone_are_compared() {
        let here = environment("1.95", "glibc 2.36", "tsc");
        assert_eq!(change_in(&here, path("encode", None, 2)), Change::None);
        assert_eq!(change_in(&here, path("encode", None, 3)), Change::Worse);
    }

    #[test]
    fn a_path_that_is_new_or_gone_is_named() {
        let here = environment("1.95", "glibc 2.36", "tsc");
        let kept = Kept { environment: here.clone(), paths: vec![path("encode", 1_000, 2)] };
        let comparison = compare(&kept, &here, &[path("decode", 1_000, 2)]);
        assert_eq!(comparison.regressed(), ["decode is not kept", "encode is kept and not there"]);
    }

    #[test]
    fn a_regression_is_named_with_both_figures() {
        let here = environment("1.95", "glibc 2.36", "tsc");
        let kept = Kept { environment: here.clone(), paths: vec![path("encode", 1_000, 2)] };
        let comparison = compare(&kept, &here, &[path("encode", 1_250, 3)]);
        let expected = "encode 1000 -> 1250 instructions (+25.0 %), 2 -> 3 allocations";
        assert_eq!(comparison.regressed(), [expected]);
        assert_eq!(comparison.improved(), Vec::<String>::new());
    }
}
