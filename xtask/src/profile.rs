//! `cargo xtask profile BENCH [--flamegraph|--perf|--cachegrind] [FILTER]`: where a benchmark spends
//! its time.
//!
//! BENCH is a piece of work of `hot_paths time`, such as `encode_1000_spans`, or a suite, such as
//! `cpu`, of which FILTER picks benchmarks as it does for criterion. Everything is written to
//! `target/profile`, and the file to open is named at the end.
//!
//! - `--flamegraph` (the default): an SVG of the stacks that `perf` samples, widest where most time
//!   goes.
//! - `--perf`: `perf`'s own file, and its report as text.
//! - `--cachegrind`: instructions and cache misses of each function and line, as text. Simulated, so
//!   some fifty times slower and the same every time.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::bench;
use crate::flags::Flags;
use crate::shell::{self, failed, output, root, succeed};

const USAGE: &str = "cargo xtask profile BENCH [--flamegraph|--perf|--cachegrind] [FILTER], where BENCH is a suite \
     (cpu, memory, network, concurrency, e2e) or one of the works that `hot_paths time` prints";

/// The version that the commands below are written for.
const INFERNO: &str = "0.12.8";

/// Seconds that a benchmark runs under the profiler.
const SECONDS: &str = "5";

/// Samples a second, not a divisor of what timers go by.
const HERTZ: &str = "1997";

/// Seconds under cachegrind, in which some fifty times less is done.
const CACHEGRIND_SECONDS: &str = "2";

/// Runs the command.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    match Options::parse(arguments).and_then(|options| Profile::prepare()?.run(&options)) {
        Ok(file) => {
            eprintln!("{}", file.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("profile: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Flamegraph,
    Perf,
    Cachegrind,
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    bench: String,
    tool: Tool,
    filter: Option<String>,
}

impl Options {
    fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let mut tool = None;
        let mut words = Vec::new();
        for argument in arguments {
            let argument = argument.to_str().ok_or("arguments must be UTF-8")?;
            let named = match argument {
                "--flamegraph" => Tool::Flamegraph,
                "--perf" => Tool::Perf,
                "--cachegrind" => Tool::Cachegrind,
                other if other.starts_with("--") => {
                    return Err(format!("{other} is unknown: {USAGE}"));
                }
                word => {
                    words.push(word.to_owned());
                    continue;
                }
            };
            if tool.replace(named).is_some_and(|before| before != named) {
                return Err(format!("one tool at a time: {USAGE}"));
            }
        }
        let mut words = words.into_iter();
        let bench = words.next().ok_or(USAGE)?;
        let options = Self { bench, tool: tool.unwrap_or(Tool::Flamegraph), filter: words.next() };
        match words.next() {
            Some(more) => Err(format!("{more:?} is too much: {USAGE}")),
            None if options.filter.is_some() && options.suite().is_none() => {
                Err(format!("a filter is for a suite, and {} is none: {USAGE}", options.bench))
            }
            None => Ok(options),
        }
    }

    /// The bench target of the suite, if it is one.
    fn suite(&self) -> Option<&'static str> {
        bench::criterion_target(&self.bench)
    }

    /// What its files are called.
    fn file_name(&self) -> String {
        let words = [Some(self.bench.as_str()), self.filter.as_deref()];
        let words = words.into_iter().flatten().collect::<Vec<_>>().join("-");
        words.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
    }
}

struct Profile {
    root: PathBuf,
    target: PathBuf,
    /// Of what is written, and of the builds, which have flags of their own.
    folder: PathBuf,
}

impl Profile {
    fn prepare() -> Result<Self, String> {
        let root = root()?;
        let target = shell::target(&root);
        let folder = target.join("profile");
        shell::create_folder(&folder)?;
        Ok(Self { root, target, folder })
    }

    /// The file to open.
    fn run(&self, options: &Options) -> Result<PathBuf, String> {
        // Before minutes are spent on a build.
        match options.tool {
            Tool::Cachegrind => require("valgrind", "apt-get install valgrind")?,
            Tool::Flamegraph | Tool::Perf => {
                require("perf", "apt-get install linux-perf, or linux-tools-generic on Ubuntu")?;
            }
        }
        let program = self.build(options)?;
        if let Some(filter) = &options.filter {
            let listed = output(Command::new(&program).args(["--bench", "--list", filter]))?;
            if !lists_any(&listed) {
                return Err(format!("no benchmark of {} matches {filter:?}", options.bench));
            }
        }
        let work = |seconds: &str| -> Vec<String> {
            let words = match options.suite() {
                Some(_) => vec!["--bench", "--profile-time", seconds],
                None => vec!["repeat", &options.bench, seconds],
            };
            words.into_iter().chain(options.filter.as_deref()).map(str::to_owned).collect()
        };
        let name = options.file_name();
        match options.tool {
            Tool::Flamegraph => {
                let inferno = self.inferno()?;
                let event = event();
                let data = self.record(event, &program, &work(SECONDS), &name)?;
                self.flamegraph(event, &data, &inferno, &name)
            }
            Tool::Perf => {
                let data = self.record(event(), &program, &work(SECONDS), &name)?;
                self.report(&data, &name)
            }
            Tool::Cachegrind => self.cachegrind(&program, &work(CACHEGRIND_SECONDS), &name),
        }
    }

    /// Builds as the benches are built, with frame pointers, by which `perf` finds the callers.
    fn build(&self, options: &Options) -> Result<PathBuf, String> {
        let mut build = match options.suite() {
            Some(suite) => {
                let arguments = ["bench", "--no-run", "--locked", "-p", "spanwire-benches"];
                let mut build = super::cargo(&arguments, &[]);
                build.args(["--bench", suite]);
                build
            }
            None => {
                let arguments =
                    ["build", "--profile", "bench", "--locked", "-p", "spanwire-benches"];
                let mut build = super::cargo(&arguments, &[]);
                build.args(["--no-default-features", "--bin", "hot_paths"]);
                build
            }
        };
        build.arg("--target-dir").arg(self.folder.join("build")).current_dir(&self.root);
        Flags::of_caller()?.give(&mut build, &["-Cforce-frame-pointers=yes".to_owned()]);
        eprintln!("building {} with frame pointers", options.bench);
        let wanted = options.suite().unwrap_or("hot_paths");
        let mut built = shell::executables(&mut build)?;
        built.remove(wanted).ok_or_else(|| format!("cargo built no {wanted}"))
    }

    /// Samples the stacks of the program and of its children.
    fn record(
        &self,
        event: &str,
        program: &Path,
        work: &[String],
        name: &str,
    ) -> Result<PathBuf, String> {
        let data = self.folder.join(format!("{name}.perf.data"));
        eprintln!("sampling {event} for {SECONDS} s a benchmark");
        let mut perf = Command::new("perf");
        perf.args(["record", "--quiet", "--event", event, "--freq", HERTZ, "--call-graph", "fp"]);
        perf.arg("--output").arg(&data).arg("--").arg(program).args(work);
        // A suite keeps its figures in a folder below the current one.
        output(perf.current_dir(&self.folder))?;
        Ok(data)
    }

    fn report(&self, data: &Path, name: &str) -> Result<PathBuf, String> {
        let text = self.folder.join(format!("{name}.perf.txt"));
        let mut perf = Command::new("perf");
        perf.args(["report", "--stdio", "--no-children", "--percent-limit", "0.5"]);
        perf.args(["--call-graph", "caller,0.5,callee,function,percent", "--no-inline"]);
        perf.arg("--input").arg(data);
        shell::write(&text, output(&mut perf)?)?;
        eprintln!("`perf annotate -i {}` shows single instructions", data.display());
        Ok(text)
    }

    fn flamegraph(
        &self,
        event: &str,
        data: &Path,
        inferno: &Path,
        name: &str,
    ) -> Result<PathBuf, String> {
        let [stacks, folded, svg] =
            ["stacks", "folded", "svg"].map(|kind| self.folder.join(format!("{name}.{kind}")));
        // Inlined functions would be looked up one by one, which takes minutes.
        let mut script = Command::new("perf");
        script.args(["script", "--no-inline", "--input"]).arg(data);
        into_file(&mut script, &stacks)?;
        into_file(Command::new(inferno.join("inferno-collapse-perf")).arg(&stacks), &folded)?;
        let mut graph = Command::new(inferno.join("inferno-flamegraph"));
        // The clock's samples are weighed by the nanoseconds between them.
        let unit = if event == "cpu-clock" { "ns" } else { event };
        graph.args(["--title", name, "--countname", unit, "--deterministic"]).arg(&folded);
        into_file(&mut graph, &svg)?;
        // They are as large as the samples, and what is of use in them is in the picture.
        for part in [&stacks, &folded] {
            fs::remove_file(part).map_err(|error| failed(part, &error))?;
        }
        Ok(svg)
    }

    fn cachegrind(&self, program: &Path, work: &[String], name: &str) -> Result<PathBuf, String> {
        let [counts, text] =
            ["cachegrind", "cachegrind.txt"].map(|kind| self.folder.join(format!("{name}.{kind}")));
        eprintln!("simulating instructions and caches");
        let mut valgrind = Command::new("valgrind");
        // Versions from 3.21 on leave the caches out unless they are told.
        valgrind.args(["--tool=cachegrind", "--cache-sim=yes"]);
        valgrind.arg(format!("--cachegrind-out-file={}", counts.display()));
        output(valgrind.arg(program).args(work).current_dir(&self.folder))?;
        shell::write(&text, output(Command::new("cg_annotate").arg(&counts))?)?;
        Ok(text)
    }

    /// The folder of inferno's programs, installed below `target` at first use.
    fn inferno(&self) -> Result<PathBuf, String> {
        // A folder for each version, so that a new one is installed wherever the old one is.
        let tools = self.target.join("tools").join(format!("inferno-{INFERNO}"));
        let programs = tools.join("bin");
        if !programs.join("inferno-flamegraph").exists() {
            eprintln!("installing inferno {INFERNO} into {}", tools.display());
            let arguments = ["install", "inferno", "--locked", "--version", INFERNO];
            succeed(super::cargo(&arguments, &[]).arg("--root").arg(&tools))?;
        }
        Ok(programs)
    }
}

/// Whether criterion's list names a benchmark.
fn lists_any(listed: &str) -> bool {
    listed.lines().any(|line| line.ends_with(": benchmark"))
}

fn require(program: &str, install: &str) -> Result<(), String> {
    if shell::exists(program) {
        return Ok(());
    }
    Err(format!("{program} is not installed: {install}"))
}

/// What is sampled: cycles where the processor counts them, time on a processor where it does not,
/// as in most virtual machines. Recording would change to the second by itself and not say so.
fn event() -> &'static str {
    let mut perf = Command::new("perf");
    perf.args(["stat", "--log-fd", "1", "--event", "cycles", "-x", ",", "true"]);
    let counts = |line: &str| line.split(',').next().is_some_and(|n| n.parse::<u64>().is_ok());
    let counted = output(&mut perf).is_ok_and(|counted| counted.lines().any(counts));
    if counted { "cycles" } else { "cpu-clock" }
}

fn into_file(command: &mut Command, path: &Path) -> Result<(), String> {
    let file = File::create(path).map_err(|error| failed(path, &error))?;
    succeed(command.stdin(Stdio::null()).stdout(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_bench_has_one_tool_and_a_suite_may_have_a_filter() {
        let options = parse(&["cpu", "--perf", "span/5"]).expect("a suite");
        assert_eq!(options.tool, Tool::Perf);
        assert_eq!(options.suite(), Some("cpu_benchmarks"));
        assert_eq!(options.file_name(), "cpu-span_5");

        let options = parse(&["read_1000_spans: check"]).expect("a hot path");
        assert_eq!((options.tool, options.suite()), (Tool::Flamegraph, None));
        assert_eq!(options.file_name(), "read_1000_spans__check");

        for wrong in [
            &[][..],
            &["cpu", "--perf", "--cachegrind"],
            &["cpu", "--valgrind"],
            &["cpu", "encode", "more"],
            &["encode_1000_spans", "filter"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_filter_that_matches_nothing_lists_nothing() {
        assert!(lists_any("encode_1000_spans/spanwire: benchmark\n"));
        assert!(!lists_any("") && !lists_any("compressed to 4 bytes\n"));
    }
}
