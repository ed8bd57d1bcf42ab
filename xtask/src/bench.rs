//! `cargo xtask bench [SUITE]`: every claim beside its rivals, in one report.
//!
//! The suites run round by round, each program once in each round, so that whoever is compared ran
//! within the same seconds. What they measured is held against the [`catalogue`] of what is required,
//! and written to `target/bench/report.md` and `report.html`.
//!
//! # Guarantees
//!
//! - A figure comes from this run, except those of optimised builds: they are `cargo xtask pgo`'s, at
//!   the same commit without changes, and are headed so.
//! - What was not measured reads `not measured`. A run without a filter that lacks a figure fails, and
//!   so does one that has no figure, or none to compare.
//! - A ratio is taken within each round; rows whose rounds lie far apart are marked and never left out.
//! - A program that fails makes the command fail, once the rest has its report.
//! - What looks worse than the baseline is measured again before it counts.
//! - `--baseline` fails if a figure of ours is worse by more than the threshold and beyond the noise,
//!   with the machine's own shift taken out, or is no longer there. Its verdicts are as good as the
//!   machine is quiet; `bench --instructions` does not depend on it.
//! - `--save` keeps a run without problems only.
#![expect(clippy::print_stdout, reason = "the table of goals is what the command is for")]

mod baseline;
mod catalogue;
mod collect;
pub(crate) mod figures;
pub(crate) mod machine;
mod report;
mod run;
mod suite;
mod verdict;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, ValueEnum as _};

use baseline::{Baseline, Side};
use catalogue::{Section, Setting};
use figures::Name;
use machine::Machine;
use report::{Compared, Report};
use run::{Plan, Ran};
use suite::{Length, Program, Suite};

use crate::shell;

/// Runs the benchmarks beside their rivals and writes one report.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench",
    no_binary_name = true,
    after_help = "With --instructions, and --save or nothing beside it, instructions and allocations \
                  of the hot paths are counted and compared, which no other work on the machine moves."
)]
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
    #[arg(
        long, value_name = "PERCENT", default_value_t = 10.0, value_parser = percent,
        requires = "baseline"
    )]
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

/// The bench target of a suite, if it has one that criterion runs.
pub(crate) fn criterion_target(suite: &str) -> Option<&'static str> {
    let suite = Suite::from_str(suite, false).ok()?;
    suite.programs().iter().find_map(|program| match program {
        Program::Criterion(target) => Some(*target),
        _ => None,
    })
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent: &f64| percent.is_finite() && *percent >= 0.0);
    percent.ok_or_else(|| "a number of percent from 0 on".to_owned())
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
    possible(arguments)?;
    let root = shell::root()?;
    let target = shell::target(&root);
    let folder = target.join("bench");
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
    let builds_date = match arguments.suite {
        None => {
            collect::builds(&target.join("pgo/figures.json"), &machine.commit, &mut ran.figures)?
        }
        Some(_) => None,
    };
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
        builds_date,
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

    let mut problems = problems(arguments, &ran, &report);
    if let Some(name) = &arguments.save {
        if problems.is_empty() {
            let baseline = Baseline::new(command.clone(), arguments.quick, machine.clone(), &ran);
            println!("{}", baseline.save(&baselines, name)?.display());
        } else {
            problems.push(format!("nothing is kept as {name:?}"));
        }
    }
    Ok(problems)
}

/// Refuses what clap cannot: arguments that make no sense together.
fn possible(arguments: &Arguments) -> Result<(), String> {
    let Arguments { suite, filter, save, baseline, .. } = arguments;
    if let Some(suite) = suite.filter(|_| filter.is_some())
        && !suite.programs().iter().any(|program| program.takes_filter())
    {
        return Err(format!("no program of the suite {suite} takes a filter"));
    }
    if save.is_some() && save == baseline {
        return Err("--save would write over what --baseline compares with".to_owned());
    }
    Ok(())
}

/// What of the catalogue this run is about.
fn sections(arguments: &Arguments, ran: &Ran) -> Vec<Section> {
    let setting = Setting { cores: machine::cores(), quick: arguments.quick };
    let mut sections = catalogue::sections(setting);
    sections.retain(|section| arguments.suite.is_none() || section.suite == arguments.suite);
    if arguments.filter.is_some() {
        for section in &mut sections {
            section.rows.retain(|row| ran.figures.spread(&row.figure).is_some());
            for row in &mut section.rows {
                row.rivals.retain(|rival| ran.figures.spread(&rival.name).is_some());
            }
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
    let program = |name: &Name| {
        let of = |section: &&Section| section.rows.iter().any(|row| row.figure.group == name.group);
        sections.iter().find(of)?.suite
    };
    let lengths_differ = then.quick != arguments.quick;
    // Only what is measured again can be missing; exports of another length are other figures.
    let expected = |name: &Name| match arguments.filter {
        Some(_) => false,
        None => arguments.suite.is_none() && !lengths_differ || program(name).is_some(),
    };
    let part = |name: &Name| expected(name) || ran.figures.spread(name).is_some();
    let comparison = baseline::compare(
        Side { figures: &then.figures(), arithmetic_ns: &then.arithmetic_ns },
        Side { figures: &ran.figures, arithmetic_ns: &ran.arithmetic_ns },
        arguments.threshold / 100.0,
        |name| ours(name) && part(name),
        program,
    );
    Compared {
        baseline: name,
        then,
        now_waited: ran.waited(),
        lengths_differ,
        threshold_percent: arguments.threshold,
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
    if ran.figures.iter().next().is_none() {
        problems.push("no figure was measured".to_owned());
    }
    if arguments.filter.is_none() {
        let missing = report.not_measured().into_iter();
        problems.extend(missing.map(|name| format!("not measured: {name}")));
    }
    if let Some(Compared { comparison, .. }) = &report.comparison {
        let names: Vec<String> =
            comparison.regressions.iter().map(|change| change.name.to_string()).collect();
        if !names.is_empty() {
            problems.push(format!("worse than the baseline: {}", names.join("; ")));
        }
        if comparison.compared == 0 {
            problems.push("no figure of the baseline was measured again".to_owned());
        }
        let gone = comparison.gone.iter();
        problems.extend(gone.map(|name| format!("in the baseline, and not measured: {name}")));
    }
    problems
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
    let Length { rounds, warm_up, measurement, samples, load, relay, .. } = plan.length;
    let again = match ran.again.iter().map(ToString::to_string).collect::<Vec<_>>() {
        suites if suites.is_empty() => String::new(),
        suites => format!("; as many again of {}, where a figure looked worse", suites.join(", ")),
    };
    let load_rounds = Program::Load.rounds(&plan.length);
    format!(
        "{rounds} rounds, each program once in each{again}; criterion: {:.2} s to warm up, {:.2} s and \
         {samples} samples a row and round; load: {load_rounds} × {} s; collector: {} s a row and \
         round; {:.0} min {:.0} s in all",
        warm_up.as_secs_f64(),
        measurement.as_secs_f64(),
        load.as_secs(),
        relay.as_secs(),
        ran.took.as_secs() / 60,
        ran.took.as_secs() % 60,
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
            "--baseline main --threshold NaN",
            "--baseline main --threshold inf",
            "--baseline main --threshold -5",
            "cpu memory",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in [
            "export --filter x",
            "load --filter x",
            "collector --filter x",
            "--save main --baseline main",
        ] {
            assert!(possible(&parse(line).expect("well formed")).is_err(), "{line}");
        }
        for line in ["memory --filter x", "--save main --baseline v1"] {
            assert_eq!(possible(&parse(line).expect("well formed")), Ok(()), "{line}");
        }
    }

    /// What is wrong with a run of these arguments that measured this figure, the baseline another.
    fn problems_of(line: &str, then: Option<&Name>, now: Option<&Name>) -> Vec<String> {
        let arguments = parse(line).expect("well formed");
        let ran = |name: Option<&Name>| {
            let mut ran = Ran::default();
            name.into_iter().for_each(|name| ran.figures.enter(0, name.clone(), 100.0));
            ran
        };
        let machine = Machine::read(Path::new(env!("CARGO_MANIFEST_DIR")));
        let then = then.map(|then| {
            Baseline::new(String::new(), arguments.quick, machine.clone(), &ran(Some(then)))
        });
        let ran = ran(now);
        let sections = sections(&arguments, &ran);
        let lines = |section| (section, verdict::lines(section, &ran.figures));
        let compared = |then| compare(then, "main", &arguments, &ran, &sections);
        let report = Report {
            machine: &machine,
            waited: None,
            builds_date: None,
            command: "",
            method: String::new(),
            sections: sections.iter().map(lines).collect(),
            others: Vec::new(),
            figures: &ran.figures,
            failures: &[],
            comparison: then.as_ref().map(compared),
        };
        problems(&arguments, &ran, &report)
    }

    #[test]
    fn a_run_that_measured_nothing_fails() {
        let one = Name::new("span", "spanwire", "5", figures::NS);
        assert_eq!(problems_of("cpu --filter typo", None, None), ["no figure was measured"]);
        assert_eq!(problems_of("cpu --filter span/5", None, Some(&one)), [""; 0]);
        let missing = problems_of("cpu", None, Some(&one));
        assert!(missing.contains(&"not measured: trace_id/spanwire".to_owned()), "{missing:?}");
        assert!(!missing.contains(&"not measured: span/spanwire/5".to_owned()), "{missing:?}");
    }

    #[test]
    fn a_comparison_of_nothing_and_one_of_less_than_was_kept_fail() {
        let [kept, other] =
            ["5", "10"].map(|value| Name::new("span", "spanwire", value, figures::NS));
        let filtered = |filter: &str, now| {
            problems_of(&format!("cpu --filter {filter} --baseline main"), Some(&kept), Some(now))
        };
        let nothing = "no figure of the baseline was measured again";
        assert_eq!(filtered("span/10", &other), [nothing]);
        assert_eq!(filtered("span/5", &kept), [""; 0]);
        let gone = "in the baseline, and not measured: span/spanwire/5".to_owned();
        for line in ["cpu --baseline main", "--baseline main"] {
            let problems = problems_of(line, Some(&kept), Some(&other));
            assert!(problems.contains(&gone), "{line}: {problems:?}");
        }
        let problems = problems_of("memory --baseline main", Some(&kept), Some(&other));
        assert!(!problems.contains(&gone), "another suite's: {problems:?}");
    }
}
