//! What the workspace does beside building and testing: `cargo xtask COMMAND`.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a command-line tool")]

mod fuzz;
mod interop;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

const USAGE: &str = "\
cargo xtask COMMAND

  bench [FILTER]   the benches beside their rivals (a few minutes); FILTER as for `cargo bench`
  export           CPU a span of whole exports, beside opentelemetry-otlp, receiver apart
  interop [FILTER] spans to and from the OTLP exporters and sinks of other languages, field by field
                   (needs Python 3 with venv, Node.js 20 and the network to install them)
  fuzz [TARGET]    every fuzz target a minute each, or --seconds N; --seed-corpus writes the inputs
                   they start from
  loom             every interleaving of the hand-over between a chunk's writer and its readers
  ci               what the project's CI runs";

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    let mut run = match command.to_str() {
        Some("bench") => {
            cargo(&["bench", "-p", "spanwire-benches", "--bench", "*_benchmarks"], &rest)
        }
        Some("export") => {
            cargo(&["bench", "-p", "spanwire-benches", "--bench", "export_cpu"], &rest)
        }
        Some("fuzz") => return fuzz::run(&rest),
        Some("interop") => return interop::run(&rest),
        Some("loom") => {
            // Apart from the ordinary build, which would be thrown away for its flag.
            let mut loom = cargo(
                &[
                    "test",
                    "-p",
                    "spanwire-pool",
                    "--lib",
                    "--release",
                    "--target-dir",
                    "target/loom",
                    "ledger",
                ],
                &rest,
            );
            loom.env("RUSTFLAGS", "--cfg loom");
            loom
        }
        Some("ci") => {
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
