//! What the workspace does beside building and testing: `cargo xtask COMMAND`.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a command-line tool")]

mod bench;
mod collector;
mod endure;
mod flags;
mod fuzz;
mod instructions;
mod interop;
mod loom;
mod pgo;
mod profile;
mod relay;
mod shell;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

const USAGE: &str = "\
cargo xtask COMMAND

  bench [SUITE]    every claim beside its rivals, in one report: target/bench/report.html; SUITE is
                   cpu, memory, network, concurrency, e2e, export, load or collector; --quick ends
                   within five minutes; --save NAME keeps the figures, --baseline NAME finds what
                   became slower
  bench --instructions
                   instructions and allocations of the hot paths, compared with those kept in
                   benches/instructions.json; --save keeps them anew (needs valgrind)
  pgo              builds with LTO and a profile, of the hot paths and of the collector, and what they
                   gain, measured in turns: target/pgo; --quick takes fewer rounds and portable
                   builds only (needs llvm-tools)
  profile BENCH    where a hot path or a suite spends its time: --flamegraph, --perf, --cachegrind
  load             spans at a fixed rate to an OTLP receiver, by default to one of its own: answers,
                   throughput, the receiver's CPU and memory, lost spans; --help has the options
  export           CPU a span of whole exports, beside opentelemetry-otlp, receiver apart
  interop [FILTER] spans to and from the OTLP exporters and sinks of other languages, and through the
                   collector, field by field (needs Python 3 with venv, Node.js 20 and the network
                   to install them; Go takes part where it is there)
  endure           a collector under five times its load, bombs, outages, SIGTERM and reloads, for
                   minutes: spans accepted, lost and doubled, memory, in a table
  fuzz [TARGET]    every fuzz target a minute each, or --seconds N; --seed-corpus writes the inputs
                   they start from
  loom             every interleaving of the hand-over between a chunk's writer and its readers
  ci               what the project's CI runs";

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    let mut run = match command.to_str() {
        Some("bench") if instructions::is_asked_for(&rest) => return instructions::run(&rest),
        Some("bench") => return bench::run(&rest),
        Some("export") => {
            cargo(&["bench", "-p", "spanwire-benches", "--bench", "export_cpu", "--"], &rest)
        }
        Some("load") => cargo(&["run", "--release", "-p", "spanwire-load", "--"], &rest),
        Some("endure") => return endure::run(&rest),
        Some("fuzz") => return fuzz::run(&rest),
        Some("pgo") => return pgo::run(&rest),
        Some("profile") => return profile::run(&rest),
        Some("interop") => return interop::run(&rest),
        Some("loom") => return loom::run(&rest),
        Some("ci") if rest.is_empty() => {
            let mut ci = Command::new("bash");
            ci.arg(".ci/run");
            ci
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    run.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    match run.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("{command:?} ended with {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot run {:?}: {error}", run.get_program());
            ExitCode::FAILURE
        }
    }
}

fn cargo(arguments: &[&str], rest: &[OsString]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).args(rest);
    cargo
}
