//! What one build gains over another, and the report of it.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::build::Variant;
use crate::bench::figures::{Spread, quantile};
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

/// The work of the collector, as [`Relay::GRPC_100`](crate::relay::Relay::GRPC_100) has it.
pub(crate) const COLLECT: &str = "collect_100_spans";

/// The work of which that is asked.
const ASKED_OF: [&str; 4] =
    ["span_without_attributes", "encode_1000_spans", "receive_1000_spans", COLLECT];

impl Figures {
    /// Adds one line of `hot_paths time --json` by a build.
    pub(super) fn add_line(&mut self, variant: &'static str, line: &str) -> Result<(), String> {
        let wrong = || format!("`hot_paths time --json` printed {line:?}");
        let value: Value = serde_json::from_str(line).map_err(|_| wrong())?;
        let name = value["name"].as_str().ok_or_else(wrong)?;
        let nanos = value["ns"].as_f64().filter(|nanos| *nanos > 0.0).ok_or_else(wrong)?;
        self.add(variant, name, nanos);
        Ok(())
    }

    /// Adds what the generator printed of a load on a collector of this build: the CPU of the
    /// collector, and its own as the yardstick, which no build of the collector can change.
    pub(super) fn add_load(&mut self, variant: &'static str, printed: &str) -> Result<(), String> {
        let load: Value = serde_json::from_str(printed).unwrap_or_default();
        for (name, usage) in [
            (COLLECT.to_owned(), &load["target"]["cpu"]),
            (format!("{COLLECT}: the generator"), &load["generator"]),
        ] {
            let seconds = usage["cpu_seconds_per_million_spans"].as_f64();
            let seconds = seconds.filter(|seconds| *seconds > 0.0);
            let seconds = seconds.ok_or_else(|| format!("`spanwire-load` printed {printed}"))?;
            // Seconds for a million are microseconds for one.
            self.add(variant, &name, seconds * 1e3);
        }
        match load["requests_failed"].as_u64() {
            Some(0) => Ok(()),
            _ => Err(format!("requests failed: {}", load["warnings"])),
        }
    }

    fn add(&mut self, variant: &'static str, name: &str, nanos: f64) {
        match self.rows.iter_mut().find(|row| row.variant == variant && row.name == name) {
            Some(row) => row.rounds.push(nanos),
            None => self.rows.push(Row { name: name.to_owned(), variant, rounds: vec![nanos] }),
        }
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
             builds in each.\nTime less than in a plain release build: median of the rounds (lower to \
             upper quartile); no gain where these\nlie on both sides of nothing. CPU time for \
             exports, for receiving and for the collector, wall time of one\nthread for the rest. The \
             generator is the same program beside each collector: what it gains is noise.\n"
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
                Some(gain) if gain.is_real() && gain.median >= ASKED_PERCENT => {
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
struct Gain {
    median: f64,
    /// The lower and the upper one: one round that went astray decides nothing.
    quartiles: [f64; 2],
}

impl Gain {
    /// Of two builds' rounds, each with the one it ran beside; `None` without any.
    fn of(plain: &[f64], other: &[f64]) -> Option<Self> {
        let gain = |(plain, other): (&f64, &f64)| (1.0 - other / plain) * 100.0;
        let gains: Vec<f64> = plain.iter().zip(other).map(gain).collect();
        let Spread { median, .. } = Spread::of(gains.iter().copied())?;
        Some(Self { median, quartiles: [0.25, 0.75].map(|part| quantile(&gains, part)) })
    }

    /// Whether three quarters of the rounds agree that there is one, or a loss.
    fn is_real(&self) -> bool {
        let [lower, upper] = self.quartiles;
        lower > 0.0 || upper < 0.0
    }
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, quartiles: [lower, upper] } = self;
        if !self.is_real() {
            return write!(f, "no gain ({lower:+.1} to {upper:+.1})");
        }
        write!(f, "{median:+.1} % ({lower:+.1} to {upper:+.1})")
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
        assert_eq!(gain.to_string(), "+20.0 % (+15.0 to +22.5)");
        assert_eq!(Gain::of(&[], &[]), None);
    }

    #[test]
    fn quartiles_on_both_sides_of_nothing_are_no_gain() {
        let shown = |other: &[f64]| {
            let gain = Gain::of(&[100.0, 100.0, 100.0, 100.0, 100.0], other);
            gain.expect("five rounds").to_string()
        };
        assert_eq!(shown(&[80.0, 70.0, 101.0, 102.0, 90.0]), "no gain (-1.0 to +20.0)");
        assert_eq!(shown(&[80.0, 70.0, 400.0, 88.0, 90.0]), "+12.0 % (+10.0 to +20.0)");
        assert_eq!(shown(&[110.0, 120.0, 60.0, 130.0, 115.0]), "-15.0 % (-20.0 to -10.0)");
    }

    #[test]
    fn a_load_gives_the_collector_and_its_generator_a_row_each() {
        let load = |collector: f64, failed: u32| {
            let usage = |seconds: f64| json!({ "cpu_seconds_per_million_spans": seconds });
            json!({
                "target": { "cpu": usage(collector) }, "generator": usage(0.25),
                "requests_failed": failed, "warnings": ["a warning"],
            })
            .to_string()
        };
        let mut figures = Figures::default();
        figures.add_load(Variant::RELEASE.name, &load(0.5, 0)).expect("well formed");
        figures.add_load(Variant::LTO_PGO.name, &load(0.4, 0)).expect("well formed");
        let report = figures.report(&run());
        for row in [
            "| collect_100_spans | 500.0 | +20.0 % (+20.0 to +20.0) |",
            "| collect_100_spans: the generator | 250.0 | no gain (+0.0 to +0.0) |",
            "- collect_100_spans: reached, +20.0 %",
        ] {
            assert!(report.contains(row), "{row}\nis not in\n{report}");
        }
        assert!(figures.add_load("LTO", "").is_err());
        assert!(figures.add_load("LTO", &load(0.0, 0)).is_err());
        let error = figures.add_load("LTO", &load(0.5, 1)).expect_err("another load");
        assert!(error.contains("a warning"), "{error}");
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
                    figures.add_line(variant.name, &line).expect("a line as it is printed");
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
        assert_eq!(json["rows"].as_array().map(Vec::len), Some(8));
        assert_eq!(json["rows"][0]["rounds"], json!([50.0, 55.00000000000001]));
    }

    #[test]
    fn a_line_that_is_no_figure_is_refused() {
        for line in ["", "{}", r#"{"name": "a", "ns": 0}"#, r#"{"name": 1, "ns": 2.0}"#] {
            assert!(Figures::default().add_line("LTO", line).is_err(), "{line:?}");
        }
    }
}
