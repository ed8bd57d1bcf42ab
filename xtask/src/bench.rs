//! `cargo xtask bench [SUITE]`: every claim beside its rivals, in one report.
//!
//! The suites run round by round, each program once in each round, so that whoever is compared ran
//! within the same seconds. What they measured is held against the [`catalogue`] of what is required,
//! and written to `target/bench/report.md` and `report.html`.
//!
//! # Guarantees
//!
//! - A figure comes from this run. What was not measured reads `not measured`, and a run of all suites
//!   that lacks a figure fails.
//! - A ratio is taken within each round; rows whose rounds lie far apart are marked and never left out.
//! - A program that fails makes the command fail, once the rest has its report.
//! - What looks worse than the baseline is measured again before it counts.
//! - `--baseline` fails exactly if a figure of ours is worse by more than the threshold and no round of
//!   now is as good as any of then, with the machine's own shift taken out. Its verdicts are as good as
//!   the machine is quiet; `bench --instructions` does not depend on it.
#![expect(clippy::print_stdout, reason = "the table of goals is what the command is for")]

mod baseline;
mod catalogue;
mod collect;
mod figures;
mod machine;
mod report;
mod run;
mod suite;
mod verdict;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum as _};

use baseline::{Baseline, Side};
use catalogue::{Section, Setting};
use figures::Name;
use machine::Machine;
use report::{Compared, Report};
use run::{Plan, Ran};
use suite::{Length, Suite};

use crate::shell;

/// Runs the benchmarks beside their rivals and writes one report.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", no_binary_name = true)]
struct Arguments {
    /// Only this suite
    suite: Option<Suite>,
    /// Three short rounds: less than five minutes for all suites, once built
    #[arg(long)]
    quick: bool,
    /// Only the rows whose name matches, as for criterion
    #[arg(long, value_name = "REGEX", requires = "suite")]
    filter: Option<String>,
    /// Keeps the figures under this name
    #[arg(long, value_name = "NAME", value_parser = file_name)]
    save: Option<String>,
    /// Compares with the figures kept under this name, and fails if any of ours is worse
    #[arg(long, value_name = "NAME", value_parser = file_name)]
    baseline: Option<String>,
    /// By how many percent a figure may be worse than its baseline
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, requires = "baseline")]
    threshold: f64,
}

/// A name becomes a file's.
fn file_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(allowed) {
        return Err("letters, digits, and -_. within".to_owned());
    }
    Ok(name.to_owned())
}

/// Runs the command with these arguments.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match bench(&arguments) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("bench: {problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs, reports, compares and saves; returns why the command should fail all the same.
fn bench(arguments: &Arguments) -> Result<Vec<String>, String> {
    let root = shell::root()?;
    let folder = target(&root).join("bench");
    let baselines = folder.join("baselines");
    // Before minutes are spent on a run.
    let baseline =
        arguments.baseline.as_ref().map(|name| Baseline::load(&baselines, name)).transpose()?;

    let machine = Machine::read(&root);
    let plan = Plan {
        folder: folder.join("run"),
        suites: arguments.suite.map_or_else(|| Suite::value_variants().to_vec(), |one| vec![one]),
        length: if arguments.quick { Length::QUICK } else { Length::FULL },
        filter: arguments.filter.clone(),
        root,
    };
    let mut ran = plan.run()?;
    if arguments.suite.is_none() {
        let commit = machine.commit.split(' ').next().unwrap_or_default();
        collect::builds(&target(&plan.root).join("pgo/figures.json"), commit, &mut ran.figures)?;
    }
    let sections = sections(arguments, &ran);
    let command = command(arguments);
    let then = baseline.as_ref().zip(arguments.baseline.as_deref());
    if let Some((then, name)) = then {
        let suspected = suspected(&compare(then, name, arguments, &ran, &sections), &sections);
        if !suspected.is_empty() {
            eprintln!("bench: figures look worse than the baseline; measuring them again");
            plan.again(suspected, &mut ran)?;
        }
    }
    let compared = then.map(|(then, name)| compare(then, name, arguments, &ran, &sections));
    let report = Report {
        machine: &machine,
        waited: ran.waited(),
        command: &command,
        method: method(&plan, &ran),
        sections: sections
            .iter()
            .map(|section| (section, verdict::lines(section, &ran.figures)))
            .collect(),
        others: verdict::others(&sections, &ran.figures),
        figures: &ran.figures,
        failures: &ran.failures,
        comparison: compared,
    };
    let written = report.write(&folder)?;
    println!("\n{}\n", report.terminal());
    if let Some(comparison) = &report.comparison {
        println!("{}\n", comparison.terminal());
    }
    written.iter().for_each(|path| println!("{}", path.display()));

    if let Some(name) = &arguments.save {
        let baseline = Baseline::new(command.clone(), arguments.quick, machine.clone(), &ran);
        println!("{}", baseline.save(&baselines, name)?.display());
    }
    Ok(problems(arguments, &ran, &report))
}

/// What of the catalogue this run is about.
fn sections(arguments: &Arguments, ran: &Ran) -> Vec<Section> {
    let setting = Setting { cores: machine::cores(), quick: arguments.quick };
    let mut sections = catalogue::sections(setting);
    sections.retain(|section| arguments.suite.is_none() || section.suite == arguments.suite);
    if arguments.filter.is_some() {
        for section in &mut sections {
            section.rows.retain(|row| ran.figures.spread(&row.figure).is_some());
        }
    }
    sections
}

fn compare<'a>(
    then: &'a Baseline,
    name: &'a str,
    arguments: &Arguments,
    ran: &Ran,
    sections: &[Section],
) -> Compared<'a> {
    let ours = |name: &Name| {
        let row = |section: &Section| section.rows.iter().any(|row| row.figure == *name);
        // The same time once, and nothing that another command measured.
        let measured = name.unit != figures::NS_EACH && name.group != figures::BUILDS;
        measured && (name.is_ours() || sections.iter().any(row))
    };
    // Of a part of the suites, only what that part measures can be missing.
    let part = |name: &Name| arguments.suite.is_none() || ran.figures.spread(name).is_some();
    let threshold = arguments.threshold / 100.0;
    let comparison = baseline::compare(
        Side { figures: &then.figures(), arithmetic_ns: &then.arithmetic_ns },
        Side { figures: &ran.figures, arithmetic_ns: &ran.arithmetic_ns },
        threshold,
        |name| ours(name) && part(name),
    );
    let lengths_differ = then.quick != arguments.quick;
    Compared {
        baseline: name,
        then,
        now_waited: ran.waited(),
        lengths_differ,
        threshold,
        comparison,
    }
}

/// Suites with figures that look worse: what other work did to them will not be there again.
fn suspected(compared: &Compared<'_>, sections: &[Section]) -> Vec<Suite> {
    let regressions = &compared.comparison.regressions;
    let groups: Vec<&str> = regressions.iter().map(|change| change.name.group.as_str()).collect();
    let of = |section: &&Section| {
        section.rows.iter().any(|row| groups.contains(&row.figure.group.as_str()))
    };
    sections.iter().filter(of).filter_map(|section| section.suite).collect()
}

/// Why the command should fail although it came to its end.
fn problems(arguments: &Arguments, ran: &Ran, report: &Report<'_>) -> Vec<String> {
    let mut problems: Vec<String> = ran.failures.iter().map(ToString::to_string).collect();
    if arguments.suite.is_none() {
        // Optimised builds are another command's.
        let missing = report.not_measured().into_iter();
        let missing = missing.filter(|line| line.row.figure.group != figures::BUILDS);
        problems.extend(missing.map(|line| format!("not measured: {}", line.row.figure)));
    }
    if let Some(Compared { comparison, .. }) = &report.comparison {
        let names: Vec<String> =
            comparison.regressions.iter().map(|change| change.name.to_string()).collect();
        if !names.is_empty() {
            problems.push(format!("worse than the baseline: {}", names.join("; ")));
        }
    }
    problems
}

/// Where cargo builds, and where what is measured is kept.
fn target(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

fn command(arguments: &Arguments) -> String {
    let mut command = String::from("cargo xtask bench");
    let mut add = |text: String| {
        command.push(' ');
        command.push_str(&text);
    };
    arguments.suite.iter().for_each(|suite| add(suite.to_string()));
    if arguments.quick {
        add("--quick".to_owned());
    }
    arguments.filter.iter().for_each(|filter| add(format!("--filter {filter:?}")));
    arguments.save.iter().for_each(|name| add(format!("--save {name}")));
    if let Some(name) = &arguments.baseline {
        add(format!("--baseline {name} --threshold {}", arguments.threshold));
    }
    command
}

fn method(plan: &Plan, ran: &Ran) -> String {
    let Length { rounds, warm_up, measurement, samples, load, .. } = plan.length;
    let again = match ran.again.iter().map(ToString::to_string).collect::<Vec<_>>() {
        suites if suites.is_empty() => String::new(),
        suites => format!("; as many again of {}, where a figure looked worse", suites.join(", ")),
    };
    format!(
        "{rounds} rounds, each program once in each{again}; criterion: {:.2} s to warm up, {:.2} s and \
         {samples} samples a row and round; load: {} s a round; {:.0} min {:.0} s in all",
        warm_up.as_secs_f64(),
        measurement.as_secs_f64(),
        load.as_secs(),
        ran.took.as_secs() / 60,
        ran.took.as_secs() % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_is_shown_as_it_can_be_given_again() {
        for line in [
            "",
            "cpu --quick",
            "network --filter \"export_grpc\" --save main",
            "e2e --baseline v1.2_x --threshold 5",
        ] {
            let arguments = parse(&line.replace('"', "")).expect("well formed");
            assert_eq!(command(&arguments), format!("cargo xtask bench {line}").trim_end());
        }
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        for line in [
            "gpu",
            "--filter encode",
            "--save ../main",
            "--save -x",
            "--baseline",
            "--threshold 5",
            "cpu memory",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
