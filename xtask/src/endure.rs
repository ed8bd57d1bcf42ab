//! `cargo xtask endure`: what a collector has to live through, for longer than a test may take.
//!
//! The scenarios are the collector's own tests, built with optimisation and run one at a time, with
//! the time they are to go on in their environment. They tell what they found in lines of JSON.
#![expect(clippy::print_stdout, reason = "the table is what the command is for")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::shell::{self, failed};

/// How long each scenario goes on that has no number of rounds.
const SECONDS: u64 = 30;

/// A scenario that takes longer than this hangs.
const TIME_MAX: Duration = Duration::from_secs(180);

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// A test of the collector, by the program it is in.
struct Scenario {
    program: &'static str,
    test: &'static str,
    /// For those that tell no figures of their own.
    what: &'static str,
}

const SCENARIOS: [Scenario; 12] = [
    Scenario {
        program: "overload",
        test: "five_times_what_a_destination_takes_stays_within_the_memory_and_none_of_it_is_lost",
        what: "five times what the destination takes",
    },
    Scenario {
        program: "overload",
        test: "json_from_hundreds_of_connections_stays_within_the_memory_and_none_of_it_is_lost",
        what: "the same as JSON, from 256 connections",
    },
    Scenario {
        program: "overload",
        test: "a_sender_of_little_is_served_beside_eight_connections_that_send_without_end",
        what: "a sender of little beside 8 connections of much",
    },
    Scenario {
        program: "overload",
        test: "in_a_control_group_senders_are_refused_before_the_system_kills_the_collector",
        what: "the same as JSON, in a container of 96 MiB",
    },
    Scenario {
        program: "overload",
        test: "bombs_from_all_sides_stay_within_the_memory_and_good_senders_are_served_beside_them",
        what: "decompression bombs",
    },
    Scenario {
        program: "outage",
        test: "a_destination_that_was_killed_gets_what_it_had_not_answered_for_and_what_came_meanwhile",
        what: "the destination killed",
    },
    Scenario {
        program: "outage",
        test: "a_destination_that_refuses_every_tenth_request_gets_each_span_once",
        what: "every tenth request refused",
    },
    Scenario {
        program: "outage",
        test: "a_destination_that_dawdles_and_leaves_requests_unanswered_gets_each_span_and_those_twice",
        what: "slow answers, every tenth never",
    },
    Scenario {
        program: "outage",
        test: "a_gigabyte_that_waits_for_its_destination_takes_its_own_size_of_memory",
        what: "a gigabyte that waits for its destination",
    },
    Scenario {
        program: "process",
        test: "sigterm_under_load_loses_no_span_that_was_acknowledged_in_a_hundred_rounds",
        what: "SIGTERM under full load, 100 rounds",
    },
    Scenario {
        program: "reload",
        test: "reloads_under_load_half_of_them_invalid_lose_and_refuse_nothing",
        what: "100 reloads under load, half of them invalid",
    },
    Scenario {
        program: "process",
        test: "sighup_under_load_reloads_what_is_valid_and_says_what_is_not",
        what: "SIGHUP under load, valid and invalid in turns",
    },
];

/// Runs the command.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let outcome = match arguments {
        [] => endure(),
        _ => Err(format!("{arguments:?}: it takes no arguments")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("endure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn endure() -> Result<(), String> {
    let root = shell::root()?;
    let folder = shell::target(&root).join("endure");
    shell::create_folder(&folder)?;
    eprintln!("endure: building the collector and its tests");
    let mut cargo =
        super::cargo(&["test", "--package", "spanwire-collector", "--release", "--no-run"], &[]);
    for program in ["overload", "outage", "process", "reload"] {
        cargo.args(["--test", program]);
    }
    let programs = shell::executables(cargo.current_dir(&root))?;
    let (mut rows, mut failures) = (Vec::new(), 0);
    let begun = Instant::now();
    for (at, scenario) in SCENARIOS.iter().enumerate() {
        let place = format!("[{}/{}]", at + 1, SCENARIOS.len());
        eprintln!("endure: {place} {}", scenario.what);
        let log = folder.join(format!("{}.log", scenario.test));
        let passed = scenario.run(&programs, &root, &log, &place)?;
        let said = fs::read_to_string(&log).map_err(|error| failed(&log, &error))?;
        if !passed {
            failures += 1;
            eprintln!("{}\nthe whole of it is in {}", shell::tail(&said), log.display());
        }
        rows.extend(rows_of(scenario, &said, passed));
    }
    print!("{}", table(&rows));
    println!("in {} s", begun.elapsed().as_secs());
    match failures {
        0 => Ok(()),
        _ => Err(format!("{failures} of {} scenarios failed", SCENARIOS.len())),
    }
}

impl Scenario {
    /// Whether the test was there, and passed.
    fn run(
        &self,
        programs: &BTreeMap<String, PathBuf>,
        root: &Path,
        log: &Path,
        place: &str,
    ) -> Result<bool, String> {
        let program = programs.get(self.program).ok_or("cargo built no such program")?;
        let said = File::create(log).map_err(|error| failed(log, &error))?;
        let also = said.try_clone().map_err(|error| failed(log, &error))?;
        let mut child = Command::new(program)
            .args(["--exact", self.test, "--nocapture", "--include-ignored"])
            .env("SPANWIRE_ENDURE_SECONDS", SECONDS.to_string())
            .current_dir(root.join("crates/collector"))
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(also)
            .spawn()
            .map_err(|error| failed(program, &error))?;
        let begun = Instant::now();
        let mut next_line = PROGRESS;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(|error| failed(program, &error))? {
                break status;
            }
            if begun.elapsed() > TIME_MAX {
                // Its end is waited for right behind.
                let _gone = child.kill();
                eprintln!("endure: {place} does not end, and is killed");
            } else if begun.elapsed() >= next_line {
                eprintln!("endure: {place} {} s", next_line.as_secs());
                next_line += PROGRESS;
            }
            thread::sleep(Duration::from_millis(100));
        };
        let said = fs::read_to_string(log).map_err(|error| failed(log, &error))?;
        Ok(status.success() && has_passed(&said))
    }
}

/// Whether the test was run at all: one that is not there does not fail.
fn has_passed(said: &str) -> bool {
    said.lines().any(|line| line.starts_with("test result: ok. 1 passed"))
}

/// A line of the table; what is not known of a scenario is a dash.
type Row = [String; 7];

const HEAD: [&str; 7] =
    ["what", "spans accepted", "lost", "twice", "memory, of at most", "verdict", "explained"];

/// What a test told, or that it told nothing.
fn rows_of(scenario: &Scenario, said: &str, passed: bool) -> Vec<Row> {
    let verdict = if passed { "ok" } else { "FAILED" };
    let told = said.lines().filter_map(|line| line.split_once("found {"));
    let told = told.filter_map(|(_, rest)| serde_json::from_str(&format!("{{{rest}")).ok());
    let rows: Vec<Row> = told.map(|found| row(&found, verdict)).collect();
    if !rows.is_empty() {
        return rows;
    }
    let mut row = HEAD.map(|_| "–".to_owned());
    row[0] = scenario.what.to_owned();
    let why = said.lines().find_map(|line| Some(line.split_once("not run: ")?.1));
    row[5] = why.map_or(verdict, |_| "not run").to_owned();
    row[6] = why.unwrap_or_default().to_owned();
    vec![row]
}

fn row(found: &Value, verdict: &str) -> Row {
    let text = |key: &str| found[key].as_str().unwrap_or("–").to_owned();
    let count = |key: &str| found[key].as_u64().map_or("–".to_owned(), |count| count.to_string());
    let mib = |key: &str| found[key].as_u64().map_or(0, |bytes| bytes.div_ceil(1 << 20));
    let memory = format!("{} of {} MiB", mib("memory_peak"), mib("memory_max"));
    [
        text("what"),
        count("accepted"),
        count("lost"),
        count("duplicates"),
        memory,
        verdict.to_owned(),
        text("explained"),
    ]
}

/// As Markdown, with columns as wide as their widest cell.
fn table(rows: &[Row]) -> String {
    let head = HEAD.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |row: &Row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let rule = widths.map(|width| "-".repeat(width));
    [line(&head), line(&rule)].into_iter().chain(rows.iter().map(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scenario_is_a_test_of_the_collector() {
        let root = shell::root().expect("the workspace");
        for Scenario { program, test, .. } in SCENARIOS {
            let path = root.join("crates/collector/tests").join(format!("{program}.rs"));
            let source = fs::read_to_string(&path).expect("a program of tests");
            assert!(source.contains(&format!("fn {test}()")), "{test} in {program}");
        }
    }

    #[test]
    fn what_a_test_found_stands_in_the_table_and_what_it_did_not_tell_is_a_dash() {
        let said = "running 1 test\ntest name ... found {\"what\":\"bombs\",\"accepted\":7,\
                    \"lost\":0,\"duplicates\":1,\"explained\":\"why\",\"memory_peak\":1048577,\
                    \"memory_max\":134217728}\nok\n";
        let rows = rows_of(&SCENARIOS[0], said, true);
        let told = ["bombs", "7", "0", "1", "2 of 128 MiB", "ok", "why"];
        assert_eq!(rows, [told.map(str::to_owned)]);
        let [silent] = &rows_of(&SCENARIOS[5], "running 1 test\n", false)[..] else {
            panic!("one row")
        };
        assert_eq!((&*silent[1], &*silent[5]), ("–", "FAILED"));
        let [not_run] = &rows_of(&SCENARIOS[5], "test name ... not run: no right\n", true)[..]
        else {
            panic!("one row")
        };
        assert_eq!((&*not_run[5], &*not_run[6]), ("not run", "no right"));
        let table = table(&rows);
        assert!(table.contains("| bombs | 7 "), "{table}");
    }

    #[test]
    fn a_test_that_is_not_there_has_not_passed() {
        assert!(has_passed("test result: ok. 1 passed; 0 failed; 0 ignored\n"));
        assert!(!has_passed("test result: ok. 0 passed; 0 failed; 0 ignored\n"));
    }
}
