//! What one build gains over another, and the report of it.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::build::Variant;
use crate::bench::figures::Spread;
use crate::bench::machine::Machine;

/// What was measured, in order of first appearance.
#[derive(Debug, Default)]
pub(super) struct Figures {
    rows: Vec<Row>,
}

/// One piece of work in one build.
#[derive(Debug)]
struct Row {
    name: String,
    variant: &'static str,
    /// Nanoseconds a span, one for each round.
    rounds: Vec<f64>,
}

/// The run that the figures are of.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) machine: Machine,
    pub(super) rounds: usize,
}

/// Percent by which this work is to be faster with LTO and a profile than in a plain release build.
pub(crate) const ASKED_PERCENT: f64 = 10.0;

/// The work of which that is asked.
const ASKED_OF: [&str; 3] = ["span_without_attributes", "encode_1000_spans", "receive_1000_spans"];

impl Figures {
    /// Adds one line of `hot_paths time --json` by a build.
    pub(super) fn add(&mut self, variant: &'static str, line: &str) -> Result<(), String> {
        let wrong = || format!("`hot_paths time --json` printed {line:?}");
        let value: Value = serde_json::from_str(line).map_err(|_| wrong())?;
        let name = value["name"].as_str().ok_or_else(wrong)?;
        let nanos = value["ns"].as_f64().filter(|nanos| *nanos > 0.0).ok_or_else(wrong)?;
        match self.rows.iter_mut().find(|row| row.variant == variant && row.name == name) {
            Some(row) => row.rounds.push(nanos),
            None => self.rows.push(Row { name: name.to_owned(), variant, rounds: vec![nanos] }),
        }
        Ok(())
    }

    pub(super) fn to_json(&self, run: &Run) -> String {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|Row { name, variant, rounds }| {
                json!({ "name": name, "variant": variant, "unit": "ns/span", "rounds": rounds })
            })
            .collect();
        let Machine { commit, date, rustc, cpu, .. } = &run.machine;
        let all = json!({
            "commit": commit, "date": date, "rustc": rustc, "processor": cpu, "rows": rows,
        });
        format!("{all:#}\n")
    }

    /// The gains as a table in Markdown, work by work, and whether what is asked for is there.
    pub(super) fn report(&self, run: &Run) -> String {
        let mut report = String::new();
        // Writing to a string does not fail.
        let _ok = self.write_report(run, &mut report);
        report
    }

    fn write_report(&self, run: &Run, out: &mut String) -> fmt::Result {
        let Run { machine: Machine { commit, date, rustc, flags, cpu, .. }, rounds } = run;
        let measured = |name: &&str| self.rows.iter().any(|row| row.variant == *name);
        let others = || Variant::ALL.iter().map(|variant| variant.name).skip(1).filter(measured);
        writeln!(out, "# What LTO and a profile gain\n")?;
        writeln!(
            out,
            "`cargo xtask pgo` at {commit}, {date}, {rustc}, flags: {flags}, {cpu}. {rounds} rounds, all \
             builds in each.\nTime less than in a plain release build: median of the rounds (least to \
             greatest). CPU time for exports and for\nreceiving, wall time of one thread for the \
             rest.\n"
        )?;
        writeln!(
            out,
            "| work | release, ns a span | {} |",
            others().collect::<Vec<_>>().join(" | ")
        )?;
        writeln!(out, "| --- | ---: |{}", " --- |".repeat(others().count()))?;
        for row in self.rows.iter().filter(|row| row.variant == Variant::RELEASE.name) {
            let release = Spread::of(row.rounds.iter().copied());
            let release = release.map_or(0.0, |spread| spread.median);
            write!(out, "| {} | {release:.1} |", row.name)?;
            for variant in others() {
                match self.gain(&row.name, variant) {
                    Some(gain) => write!(out, " {gain} |")?,
                    None => write!(out, " not measured |")?,
                }
            }
            writeln!(out)?;
        }
        let variant = Variant::LTO_PGO.name;
        writeln!(out, "\nAsked for: {ASKED_PERCENT} % by {variant}.\n")?;
        for name in ASKED_OF {
            let verdict = match self.gain(name, variant) {
                Some(gain) if gain.is_real() && gain.0.median >= ASKED_PERCENT => {
                    format!("reached, {gain}")
                }
                Some(gain) => format!("missed, {gain}"),
                None => "not measured".to_owned(),
            };
            writeln!(out, "- {name}: {verdict}")?;
        }
        Ok(())
    }

    /// What a build gains over the plain one.
    fn gain(&self, name: &str, variant: &str) -> Option<Gain> {
        let rounds = |variant: &str| {
            let row = self.rows.iter().find(|row| row.variant == variant && row.name == name);
            row.map(|row| row.rounds.as_slice())
        };
        Gain::of(rounds(Variant::RELEASE.name)?, rounds(variant)?)
    }
}

/// Time less than in the plain build, in percent of that.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gain(Spread);

impl Gain {
    /// Of two builds' rounds, each with the one it ran beside; `None` without any.
    fn of(plain: &[f64], other: &[f64]) -> Option<Self> {
        let gain = |(plain, other): (&f64, &f64)| (1.0 - other / plain) * 100.0;
        Spread::of(plain.iter().zip(other).map(gain)).map(Self)
    }

    /// Whether all rounds agree that there is one, or a loss.
    fn is_real(&self) -> bool {
        self.0.least > 0.0 || self.0.greatest < 0.0
    }
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { median, least, greatest } = self.0;
        if !self.is_real() {
            return write!(f, "no gain ({least:+.1} to {greatest:+.1})");
        }
        write!(f, "{median:+.1} % ({least:+.1} to {greatest:+.1})")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_gain_is_the_median_of_the_ratios_within_each_round() {
        // The second round was twice as slow as a whole, which is no matter.
        let gain = Gain::of(&[100.0, 200.0, 100.0], &[80.0, 150.0, 90.0]);
        let gain = gain.expect("three rounds");
        assert_eq!(gain.to_string(), "+20.0 % (+10.0 to +25.0)");
        assert_eq!(Gain::of(&[], &[]), None);
    }

    #[test]
    fn rounds_on_both_sides_of_nothing_are_no_gain() {
        let gain = Gain::of(&[100.0, 100.0, 100.0], &[80.0, 70.0, 101.0]);
        assert_eq!(gain.expect("three rounds").to_string(), "no gain (-1.0 to +30.0)");
        let loss = Gain::of(&[100.0, 100.0], &[110.0, 120.0]).expect("two rounds");
        assert_eq!(loss.to_string(), "-15.0 % (-20.0 to -10.0)");
    }

    fn run() -> Run {
        let machine = Machine::read(Path::new(env!("CARGO_MANIFEST_DIR")));
        Run { machine: Machine { commit: "0123abc".to_owned(), ..machine }, rounds: 2 }
    }

    /// Both rounds of a few builds; the second build takes `ratio` of the time of the first.
    fn figures(ratio: f64) -> Figures {
        let mut figures = Figures::default();
        for round in [1.0, 1.1] {
            for (variant, factor) in [(Variant::RELEASE, 1.0), (Variant::LTO_PGO, ratio)] {
                for name in ASKED_OF {
                    let line = json!({ "name": name, "ns": 50.0 * round * factor }).to_string();
                    figures.add(variant.name, &line).expect("a line as it is printed");
                }
            }
        }
        figures
    }

    #[test]
    fn the_report_has_each_gain_and_whether_it_is_what_was_asked_for() {
        let report = figures(0.8).report(&run());
        let row = "| encode_1000_spans | 52.5 | +20.0 % (+20.0 to +20.0) |";
        assert!(report.contains(row), "{report}");
        assert!(report.contains("- encode_1000_spans: reached, +20.0 %"), "{report}");
        let report = figures(0.95).report(&run());
        assert!(report.contains("- encode_1000_spans: missed, +5.0 %"), "{report}");
    }

    #[test]
    fn the_figures_keep_every_round() {
        let json: Value = serde_json::from_str(&figures(0.8).to_json(&run())).expect("it is JSON");
        assert_eq!(json["commit"], "0123abc");
        assert_eq!(json["rows"].as_array().map(Vec::len), Some(6));
        assert_eq!(json["rows"][0]["rounds"], json!([50.0, 55.00000000000001]));
    }

    #[test]
    fn a_line_that_is_no_figure_is_refused() {
        for line in ["", "{}", r#"{"name": "a", "ns": 0}"#, r#"{"name": 1, "ns": 2.0}"#] {
            assert!(Figures::default().add("LTO", line).is_err(), "{line:?}");
        }
    }
}
