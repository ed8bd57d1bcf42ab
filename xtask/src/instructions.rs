//! `cargo xtask bench --instructions [--save]`: instructions and allocations of the hot paths,
//! compared with those kept in `benches/instructions.json`.
//!
//! Time is a property of a machine and a moment; the number of instructions is one of the code. So
//! this comparison may fail a build on a machine that is busy with other things. Instructions are
//! counted by valgrind's `callgrind`, on the processor that valgrind pretends to be, with the same
//! environment each time: the paths' own randomness is in the values of ids, not in what is done.
//! What the compiler inlines depends on the whole program, so a change of the benches' own code can
//! move a count by some percent; then the figures are kept anew with that change.
//!
//! # Guarantees
//!
//! - Only the steady state counts: the program warms up in a function that is not looked at.
//! - A path fails when it takes over 3 % more instructions or allocated bytes than kept, or one
//!   allocation more; where the kept figures are of another compiler or C library, over 10 % more
//!   instructions; where times come from another clock, which is other code, the paths that read it
//!   fail by allocations only.
//! - Without valgrind allocations are compared, and that instructions were not is the last thing said.
//! - Flags of the caller's and of cargo's configuration files are not in what is measured.

mod compare;
mod kept;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

use self::compare::{Comparison, compare};
use self::kept::{Environment, Kept, PathFigures};
use crate::shell::{self, failed, output, root};

/// Runs of each path that are counted. What happens only now and then, such as taking a new chunk,
/// is evened out over so many.
const RUNS: u64 = 20;

/// The function that `callgrind` looks into, as a pattern that fits each mangling of its name.
const COUNTED: &str = "*hot_paths*counted*";

/// Where the figures are kept, from the workspace's root.
const FILE: &str = "benches/instructions.json";

const COMMAND: &str = "cargo xtask bench --instructions";

/// Whether `cargo xtask bench` was asked for this and not for times.
pub(crate) fn is_asked_for(arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| argument == "--instructions")
}

/// Runs the command.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    match parse(arguments).and_then(measure_and_compare) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the figures are to be kept.
fn parse(arguments: &[OsString]) -> Result<bool, String> {
    let mut save = false;
    for argument in arguments.iter().filter(|argument| *argument != "--instructions") {
        match argument.to_str() {
            Some("--save") => save = true,
            _ => return Err(format!("{argument:?} is unknown: {COMMAND} [--save]")),
        }
    }
    Ok(save)
}

fn measure_and_compare(save: bool) -> Result<(), String> {
    let root = root()?;
    let counts_instructions = shell::exists("valgrind");
    if save && !counts_instructions {
        return Err(format!("instructions are needed to keep figures: {GET_VALGRIND}"));
    }
    let file = root.join(FILE);
    // Before minutes are spent on a build.
    let kept = if save { None } else { Some(read(&file)?) };
    let programs = Programs::build(&root)?;
    let environment = Environment::here(&root);
    let now = programs.measure(counts_instructions)?;
    let Some(kept) = kept else {
        let kept = Kept { environment, paths: now };
        shell::write(&file, kept.to_json())?;
        eprintln!("{}\nkept in {FILE}: commit it", kept.table());
        return Ok(());
    };
    let comparison = compare(&kept, &environment, &now);
    eprintln!("{comparison}");
    let verdict = verdict(&comparison, &programs.counts);
    if !counts_instructions {
        eprintln!("WARNING: instructions were NOT counted, only allocations: {GET_VALGRIND}.");
    }
    verdict
}

fn read(file: &Path) -> Result<Kept, String> {
    let kept = fs::read_to_string(file)
        .map_err(|error| format!("{}; `{COMMAND} --save` makes it", failed(file, &error)))?;
    Kept::from_json(&kept)
        .map_err(|error| format!("{FILE} is not what `{COMMAND} --save` writes: {error}"))
}

fn verdict(comparison: &Comparison, counts: &Path) -> Result<(), String> {
    let improved = comparison.improved();
    if !improved.is_empty() {
        let improved = improved.join(", ");
        eprintln!("better than kept: {improved}; keep it with `{COMMAND} --save`");
    }
    let regressed = comparison.regressed();
    if regressed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "worse than kept: {}\n`callgrind_annotate {}/PATH.out` shows where the instructions are. If \
         it is meant, `{COMMAND} --save` and commit {FILE}.",
        regressed.join(", "),
        counts.display()
    ))
}

const GET_VALGRIND: &str =
    "valgrind is not installed (`apt-get install valgrind`, `dnf install valgrind`)";

/// The built programs.
struct Programs {
    hot_paths: PathBuf,
    heap: PathBuf,
    /// Folder of what `callgrind` writes.
    counts: PathBuf,
}

impl Programs {
    fn build(root: &Path) -> Result<Self, String> {
        let target = shell::target(root);
        eprintln!("building the hot paths as the benches are built");
        let arguments = ["build", "--profile", "bench", "--locked", "-p", "spanwire-benches"];
        let mut build = super::cargo(&arguments, &[]);
        build.args(["--no-default-features", "--bin", "hot_paths", "--bin", "heap"]);
        build.arg("--target-dir").arg(&target).current_dir(root);
        // Kept figures are those without any flags: none that are set hide those of cargo's files.
        build.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", "");
        let mut built = shell::executables(&mut build)?;
        let mut program =
            |name: &str| built.remove(name).ok_or_else(|| format!("cargo built no {name}"));
        let (hot_paths, heap) = (program("hot_paths")?, program("heap")?);
        let counts = target.join("instructions");
        shell::create_folder(&counts)?;
        Ok(Self { hot_paths, heap, counts })
    }

    fn measure(&self, counts_instructions: bool) -> Result<Vec<PathFigures>, String> {
        let allocations = output(Command::new(&self.heap).arg("allocations"))?;
        let mut paths = allocations.lines().map(allocations_of).collect::<Result<Vec<_>, _>>()?;
        let names = output(Command::new(&self.hot_paths).arg("list"))?;
        if !names.lines().eq(paths.iter().map(|path| path.name.as_str())) {
            let heap = self.heap.display();
            return Err(format!("`{heap} allocations` and `hot_paths list` name other paths"));
        }
        if counts_instructions {
            for path in &mut paths {
                eprintln!("counting the instructions of {}", path.name);
                path.instructions = Some(self.instructions(&path.name)?);
            }
        }
        Ok(paths)
    }

    /// Instructions of one run, on average.
    fn instructions(&self, path: &str) -> Result<u64, String> {
        let name: String =
            path.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        let out = self.counts.join(format!("{name}.out"));
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", &format!("--toggle-collect={COUNTED}")]);
        valgrind.arg(format!("--callgrind-out-file={}", out.display()));
        valgrind.arg(&self.hot_paths).args(["count", path, &RUNS.to_string()]);
        // Where the stack begins depends on the environment's length, and on that how long some
        // copies take.
        let path_variable = env::var_os("PATH").unwrap_or_default();
        output(valgrind.env_clear().env("PATH", path_variable).current_dir(&self.counts))?;
        let counts = fs::read_to_string(&out).map_err(|error| failed(&out, &error))?;
        match summary(&counts) {
            Some(count) if count > 0 => Ok(count / RUNS),
            _ => Err(format!("callgrind counted nothing in {COUNTED}: see {}", out.display())),
        }
    }
}

/// One line of `heap allocations`.
fn allocations_of(line: &str) -> Result<PathFigures, String> {
    let wrong = || format!("`heap allocations` printed {line:?}");
    let value: Value = serde_json::from_str(line).map_err(|_| wrong())?;
    PathFigures::from_value(&value).ok_or_else(wrong)
}

/// The number of instructions in a file of `callgrind`'s, which only counts those.
fn summary(counts: &str) -> Option<u64> {
    let events = counts.lines().find_map(|line| line.strip_prefix("events:"))?;
    // With others beside it, this would be the first of several numbers.
    if events.trim() != "Ir" {
        return None;
    }
    let mut lines = counts.lines();
    let total = lines
        .find_map(|line| line.strip_prefix("summary:").or_else(|| line.strip_prefix("totals:")))?;
    total.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_read_from_the_summary_of_callgrind() {
        let file = "# callgrind format\nversion: 1\n\npositions: line\nevents: Ir\nsummary: 716693\n\
                    \n\nfn=(3) main\n195 3\n\ntotals: 716693\n";
        assert_eq!(summary(file), Some(716_693));
        assert_eq!(summary(&file.replace("summary: 716693\n", "")), Some(716_693));
    }

    #[test]
    fn a_file_of_other_events_or_none_has_no_instructions() {
        assert_eq!(summary("events: Ir Dr Dw\nsummary: 716693 4 5\n"), None);
        assert_eq!(summary("events: Ir\n"), None);
        assert_eq!(summary(""), None);
    }

    #[test]
    fn an_argument_that_is_not_known_is_refused() {
        let parse =
            |arguments: &[&str]| parse(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(parse(&["--instructions"]), Ok(false));
        assert_eq!(parse(&["--save", "--instructions"]), Ok(true));
        assert!(parse(&["--instructions", "--quick"]).is_err());
    }

    #[test]
    fn a_line_of_the_heap_program_gives_a_path_without_instructions() {
        let line = r#"{"name": "encode_1000_spans", "allocations": 0, "bytes": 7}"#;
        let path = allocations_of(line).expect("a line as it is printed");
        assert_eq!((path.name.as_str(), path.allocations, path.bytes), ("encode_1000_spans", 0, 7));
        assert_eq!(path.instructions, None);
        assert!(allocations_of("encode_1000_spans 0 7").is_err());
    }
}
