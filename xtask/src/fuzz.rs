//! `cargo xtask fuzz [TARGET] [--seconds N] [--seed-corpus]`: the targets of `fuzz/`, one after the
//! other.
//!
//! New inputs go to `target/fuzz/corpus`, beside those of `fuzz/corpus`, which only change where
//! somebody means it: a file that showed a fault is moved there, and every `cargo test` repeats it
//! (`xtask/tests/corpus.rs`).

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::shell::{self, failed, root, succeed};

/// The version that the commands below are written for.
const CARGO_FUZZ: &str = "0.13.2";

/// Seconds that each target runs unless the command says otherwise.
const SECONDS: u64 = 60;

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// What libFuzzer calls a hang, and what it calls too much memory: every check takes milliseconds
/// and a few MiB, most of which AddressSanitizer holds back to find a use after free.
const INPUT_SECONDS_MAX: u32 = 10;
const MEMORY_MIB_MAX: u32 = 2048;

/// Runs the command.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let outcome = root().and_then(|root| {
        let options = Options::parse(arguments, &root)?;
        match options.seed_corpus {
            true => seed_corpus(&root),
            false => Fuzz::prepare(root)?.run(&options),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    targets: Vec<String>,
    seconds: u64,
    seed_corpus: bool,
}

impl Options {
    fn parse(arguments: &[OsString], root: &Path) -> Result<Self, String> {
        let known = targets(root)?;
        let mut options = Self { targets: Vec::new(), seconds: SECONDS, seed_corpus: false };
        let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
        while let Some(argument) = arguments.next() {
            match &*argument {
                "--seed-corpus" => options.seed_corpus = true,
                "--seconds" => {
                    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok());
                    // To libFuzzer none means for ever.
                    let seconds = seconds.filter(|seconds| *seconds > 0);
                    options.seconds = seconds.ok_or("--seconds takes a whole number from 1 on")?;
                }
                target if known.iter().any(|known| known == target) => {
                    options.targets.push(target.to_owned());
                }
                other => return Err(format!("no target {other:?}, only {}", known.join(", "))),
            }
        }
        if options.targets.is_empty() {
            options.targets = known;
        }
        Ok(options)
    }
}

/// The targets by their files, in order of their names.
fn targets(root: &Path) -> Result<Vec<String>, String> {
    let folder = root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).map_err(|error| failed(&folder, &error))?;
    let mut targets: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    targets.sort_unstable();
    Ok(targets)
}

/// Has the test that knows the seeds write them instead of looking for them.
fn seed_corpus(root: &Path) -> Result<(), String> {
    let arguments = ["test", "-p", "xtask", "--test", "corpus", "every_seed_is_in_the_corpus"];
    succeed(super::cargo(&arguments, &[]).env("SPANWIRE_WRITE_SEEDS", "").current_dir(root))
}

struct Fuzz {
    root: PathBuf,
    cargo_fuzz: PathBuf,
    /// Of the builds, the logs and the inputs that were found.
    folder: PathBuf,
}

/// How a target ended.
struct Outcome {
    target: String,
    inputs: String,
    edges: String,
    failed: bool,
}

impl Fuzz {
    /// Finds `cargo-fuzz`, or installs it below `target`.
    fn prepare(root: PathBuf) -> Result<Self, String> {
        let target = shell::target(&root);
        // A folder for each version, so that a new one is installed wherever the old one is.
        let tools = target.join("tools").join(format!("cargo-fuzz-{CARGO_FUZZ}"));
        let (cargo_fuzz, folder) = (tools.join("bin/cargo-fuzz"), target.join("fuzz"));
        let fuzz = Self { root, cargo_fuzz, folder };
        if !fuzz.cargo_fuzz.exists() {
            eprintln!("installing cargo-fuzz {CARGO_FUZZ} into {}", tools.display());
            let arguments = ["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ];
            succeed(super::cargo(&arguments, &[]).arg("--root").arg(tools))?;
        }
        Ok(fuzz)
    }

    fn run(&self, options: &Options) -> Result<(), String> {
        eprintln!("building the targets with AddressSanitizer (minutes, the first time)");
        succeed(&mut self.command("build"))?;
        let mut outcomes = Vec::new();
        for target in &options.targets {
            outcomes.push(self.target(target, options.seconds)?);
        }
        eprintln!("\n{:<12} {:>12} {:>8}", "target", "inputs", "edges");
        for Outcome { target, inputs, edges, failed } in &outcomes {
            let verdict = if *failed { "FAILED" } else { "ok" };
            eprintln!("{target:<12} {inputs:>12} {edges:>8}  {verdict}");
        }
        match outcomes.iter().filter(|outcome| outcome.failed).count() {
            0 => Ok(()),
            count => Err(format!("{count} of {} targets failed", outcomes.len())),
        }
    }

    /// Runs one target, whose output goes to a file; a line of progress now and then.
    fn target(&self, target: &str, seconds: u64) -> Result<Outcome, String> {
        let found = self.folder.join("corpus").join(target);
        shell::create_folder(&found)?;
        let log_path = self.folder.join(format!("{target}.log"));
        let log = File::create(&log_path).map_err(|error| failed(&log_path, &error))?;
        let mut command = self.command("run");
        command.arg(target).arg(&found).arg(self.root.join("fuzz/corpus").join(target)).arg("--");
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={INPUT_SECONDS_MAX}"),
            format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
            // Names of functions take the symbolizer longer than the functions take.
            "-print_funcs=0".to_owned(),
        ]);
        let start = Instant::now();
        let mut child = command
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| failed(&self.cargo_fuzz, &error))?;
        let mut next_line = PROGRESS;
        let status = loop {
            let ended = child.try_wait().map_err(|error| failed(&self.cargo_fuzz, &error))?;
            if let Some(status) = ended {
                break status;
            }
            if start.elapsed() >= next_line {
                let (inputs, edges) = progress(&log_path);
                eprintln!("{target}: {} s, {inputs} inputs, {edges} edges", next_line.as_secs());
                next_line += PROGRESS;
            }
            thread::sleep(Duration::from_millis(200));
        };
        let (inputs, edges) = progress(&log_path);
        if !status.success() {
            let log = fs::read(&log_path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let from = log.find("panicked at").or_else(|| log.find("ERROR: ")).unwrap_or(0);
            eprintln!(
                "{target}: {}\n... the whole of it is in {}",
                log[from..].lines().take(12).collect::<Vec<_>>().join("\n"),
                log_path.display()
            );
        }
        Ok(Outcome { target: target.to_owned(), inputs, edges, failed: !status.success() })
    }

    /// A command of `cargo-fuzz`. Sanitizers are unstable options of a stable compiler.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.cargo_fuzz);
        command.args(["fuzz", name, "--fuzz-dir"]).arg(self.root.join("fuzz"));
        command.arg("--target-dir").arg(&self.folder);
        command.env("RUSTC_BOOTSTRAP", "1").current_dir(self.root.join("fuzz"));
        command
    }
}

/// Inputs tried and edges reached, by the last line of libFuzzer's that has them, such as
/// `#9892 REDUCE cov: 10056 ft: 16053 corp: 450/114Kb ...`.
fn progress(log: &Path) -> (String, String) {
    let log = fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let mut lines = log.lines().rev();
    let line = lines.find(|line| line.starts_with('#') && line.contains(" cov: "));
    let words: Vec<&str> = line.unwrap_or("#0").split_whitespace().collect();
    let edges = words.iter().position(|word| *word == "cov:").and_then(|at| words.get(at + 1));
    (words[0].trim_start_matches('#').to_owned(), edges.unwrap_or(&"0").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(arguments: &[&str]) -> Result<u64, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Options::parse(&arguments, &root).map(|options| options.seconds)
    }

    #[test]
    fn a_target_runs_for_a_time_that_ends() {
        assert_eq!(seconds(&[]), Ok(SECONDS));
        assert_eq!(seconds(&["json", "--seconds", "600"]), Ok(600));
        for wrong in ["0", "-1", "1.5", ""] {
            assert!(seconds(&["--seconds", wrong]).is_err(), "{wrong:?}");
        }
        assert!(seconds(&["--seconds"]).is_err());
        assert!(seconds(&["no-such-target"]).is_err());
    }
}
