//! `cargo xtask pgo [--quick]`: a build optimised by a profile of the hot paths, and what it gains.
//! `--quick` leaves out the builds for this machine's own processor, and takes fewer rounds.
//!
//! The program of the hot paths is built with instrumentation and does all of its work once: it
//! records, encodes, reads, writes and reads JSON, and exports over real sockets to a receiver. The
//! profile of that goes into a second build, which then runs beside a plain release build, one with
//! LTO, and those for this machine's processor, in turns. The same is done with the collector, whose
//! work is what the load generator sends through it.
//!
//! # Guarantees
//!
//! - A gain is the median of ratios within each round, with the quartiles beside it; where these lie
//!   on both sides of nothing, it says `no gain`.
//! - The flags of `RUSTFLAGS` and `CARGO_ENCODED_RUSTFLAGS` are in every build. Flags in cargo's
//!   configuration files are in none, whether or not these are set.
//! - Training that wrote no profile, or an empty one, is an error.
#![expect(clippy::print_stdout, reason = "the gains are what the command is for")]

mod build;
mod gains;
mod profile_data;

pub(crate) use self::gains::{ASKED_PERCENT, COLLECT};

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use self::build::{Build, Subject, Variant};
use self::gains::{Figures, Run};
use self::profile_data::ProfileData;
use crate::bench::machine::Machine;
use crate::relay::Relay;
use crate::shell::{self, failed, output, root, succeed};

/// Rounds in which each build runs once.
const ROUNDS: usize = 9;
const ROUNDS_QUICK: usize = 3;

/// Runs the command.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let outcome = match arguments {
        [] => Pgo::run(&Variant::ALL, ROUNDS),
        [quick] if quick == "--quick" => Pgo::run(&Variant::PORTABLE, ROUNDS_QUICK),
        _ => Err(format!("{arguments:?} are unknown: cargo xtask pgo [--quick]")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One run of the command.
struct Pgo {
    root: PathBuf,
    /// Everything it builds and writes is below it.
    folder: PathBuf,
    build: Build,
    profile_data: ProfileData,
    steps: Steps,
}

impl Pgo {
    fn run(variants: &[Variant], rounds: usize) -> Result<(), String> {
        let root = root()?;
        let folder = shell::target(&root).join("pgo");
        let build = Build::new(&root, &folder)?;
        let profile_data = ProfileData::find(&root, &build.rustc)?;
        // Each variant; for both, an instrumented build, training and measuring; the generator and the
        // artefacts.
        let count = variants.len() + Variant::PORTABLE.len() + 2 * 3 + 2;
        let steps = Steps { done: 0, count, start: Instant::now() };
        Self { root, folder, build, profile_data, steps }.all(variants, rounds)
    }

    fn all(mut self, variants: &[Variant], rounds: usize) -> Result<(), String> {
        self.steps.next("building the load generator");
        let generator = self.build.generator()?;
        let paths = self.builds(Subject::HotPaths, variants, &generator)?;
        let collectors = self.builds(Subject::Collector, &Variant::PORTABLE, &generator)?;
        let mut figures = Figures::default();
        let measuring = |of: &str, builds: &[(Variant, PathBuf)]| {
            format!("measuring {} builds of {of}, {rounds} rounds in turns", builds.len())
        };
        self.steps.next(&measuring("the hot paths", &paths));
        in_turns(&paths, rounds, |variant, program| {
            let lines = output(Command::new(program).args(["time", "--json"]))?;
            lines.lines().try_for_each(|line| figures.add_line(variant, line))
        })?;
        self.steps.next(&measuring("the collector", &collectors));
        in_turns(&collectors, rounds, |variant, program| {
            let printed = self.load(&generator, program, Relay::GRPC_100, LOADED)?;
            figures.add_load(variant, &printed)
        })?;
        let run = Run { machine: Machine::read(&self.root), rounds };
        let [json, markdown] = ["figures.json", "report.md"].map(|name| self.folder.join(name));
        shell::write(&json, figures.to_json(&run))?;
        let report = figures.report(&run);
        shell::write(&markdown, &report)?;
        println!("{report}");
        let artefacts = self.artefacts(&collectors)?;
        for written in [json, markdown, artefacts] {
            println!("{}", written.display());
        }
        Ok(())
    }

    /// Builds the subject in each of these ways, and trains it where the first needs the profile.
    fn builds(
        &mut self,
        subject: Subject,
        variants: &[Variant],
        generator: &Path,
    ) -> Result<Vec<(Variant, PathBuf)>, String> {
        let profile = self.folder.join(subject.profile());
        let mut programs = Vec::new();
        let mut trained = false;
        for variant in variants {
            if variant.profile_guided && !trained {
                self.train(subject, generator, &profile)?;
                trained = true;
            }
            self.steps.next(&format!("building {}: {}", subject.name(), variant.name));
            programs.push((*variant, self.build.variant(subject, variant, &profile)?));
        }
        Ok(programs)
    }

    /// Builds with instrumentation, runs that, and leaves its profile at this path.
    fn train(&mut self, subject: Subject, generator: &Path, profile: &Path) -> Result<(), String> {
        let raw = self.folder.join("profiles");
        self.steps.next(&format!("building {} with instrumentation", subject.name()));
        let program = self.build.instrumented(subject, &raw)?;
        self.steps.next(match subject {
            Subject::HotPaths => {
                "training: recording, encoding, reading, JSON, exports to a receiver"
            }
            Subject::Collector => "training: each load of `cargo xtask bench collector`",
        });
        // What is there is of other code.
        if raw.exists() {
            fs::remove_dir_all(&raw).map_err(|error| failed(&raw, &error))?;
        }
        shell::create_folder(&raw)?;
        match subject {
            Subject::HotPaths => {
                // A path of the caller's for profiles would lead them past the folder looked into.
                succeed(Command::new(&program).arg("train").env_remove("LLVM_PROFILE_FILE"))?;
            }
            Subject::Collector => {
                for relay in Relay::ALL {
                    self.load(generator, &program, relay, TRAINED)?;
                }
            }
        }
        let functions = self.profile_data.merge(&raw, profile)?;
        eprintln!("{functions} functions are in the profile");
        Ok(())
    }

    /// Loads a collector for so long; what the generator printed of it.
    fn load(
        &self,
        generator: &Path,
        collector: &Path,
        relay: Relay,
        duration: Duration,
    ) -> Result<String, String> {
        let loaded = relay.start(collector, &self.folder.join("collector.log"))?;
        let mut command = Command::new(generator);
        command.args(relay.arguments(WARM_UP, duration)).args(&loaded.to);
        let printed = output(&mut command)?;
        loaded.stop()?;
        Ok(printed)
    }

    /// The optimised programs, and the profiles with how to use them, in one folder.
    fn artefacts(&mut self, collectors: &[(Variant, PathBuf)]) -> Result<PathBuf, String> {
        self.steps.next("collecting what was built");
        let folder = self.folder.join("artefacts");
        shell::create_folder(&folder)?;
        let profile = |subject: Subject| self.folder.join(subject.profile());
        let [of_paths, of_collector] = [Subject::HotPaths, Subject::Collector].map(profile);
        let mut copied = Vec::from(self.build.optimised(&of_paths)?);
        let guided = collectors.iter().filter(|(variant, _)| variant.profile_guided);
        copied.extend(guided.map(|(_, program)| program.clone()));
        copied.extend([of_paths, of_collector]);
        for from in &copied {
            let name = from.file_name().ok_or_else(|| format!("{} has no name", from.display()))?;
            fs::copy(from, folder.join(name)).map_err(|error| failed(from, &error))?;
        }
        shell::write(
            &folder.join("README.md"),
            usage(&folder, &self.build.rustc, &self.build.host),
        )?;
        Ok(folder)
    }
}

/// How long the collector is loaded in a round, and in training by each load.
const LOADED: Duration = Duration::from_secs(4);
const TRAINED: Duration = Duration::from_secs(3);

/// Before that.
const WARM_UP: Duration = Duration::from_secs(1);

/// Runs each program once a round, each round beginning with another.
fn in_turns(
    programs: &[(Variant, PathBuf)],
    rounds: usize,
    mut run: impl FnMut(&'static str, &Path) -> Result<(), String>,
) -> Result<(), String> {
    for round in 0..rounds {
        for turn in 0..programs.len() {
            let (variant, program) = &programs[(round + turn) % programs.len()];
            run(variant.name, program)?;
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    Ok(())
}

/// What stands beside the profiles.
fn usage(folder: &Path, rustc: &str, host: &str) -> String {
    let [paths, collector] =
        [Subject::HotPaths, Subject::Collector].map(|subject| folder.join(subject.profile()));
    let compiler = rustc.lines().next().unwrap_or_default();
    format!(
        "# Profile-guided builds\n\n\
         The programs here are built with LTO and a profile: the collector with that of loads on it, the \
         others with that of the hot paths. To build the collector, or another program of this \
         workspace, with one of them, by the same compiler ({compiler}):\n\n\
         ```sh\nRUSTFLAGS=\"-Cprofile-use={}\" cargo build --profile bench --target {host} -p spanwire-collector\n\
         RUSTFLAGS=\"-Cprofile-use={}\" cargo build --profile bench --target {host} -p PACKAGE\n```\n\n\
         The compiler finds a function in a profile by its symbol and the shape of its code. Both \
         depend on where a crate comes from, its features, cargo's profile and `--target`, so these \
         profiles fit this workspace at this commit and no application that depends on it. Such an \
         application needs a profile of its own work: build it with \
         `RUSTFLAGS=\"-Cprofile-generate=DIR\"` and `--target`, let it do its usual work and end, run \
         `llvm-profdata merge -o app.profdata DIR`, and build it again with \
         `-Cprofile-use=/path/to/app.profdata` in place of the first flag.\n",
        collector.display(),
        paths.display()
    )
}

/// Lines of progress, a step each.
struct Steps {
    done: usize,
    count: usize,
    start: Instant,
}

impl Steps {
    fn next(&mut self, what: &str) {
        self.done += 1;
        let seconds = self.start.elapsed().as_secs();
        eprintln!("[{}/{}, {seconds} s] {what}", self.done, self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_beside_the_profile_names_its_file() {
        let text = usage(Path::new("/builds/artefacts"), "rustc 1.95.0\n", "riscv64");
        for file in ["spanwire.profdata", "collector.profdata"] {
            let flags = format!("RUSTFLAGS=\"-Cprofile-use=/builds/artefacts/{file}\"");
            assert!(text.contains(&flags), "{text}");
        }
        assert!(text.contains("--target riscv64"), "symbols are others without it");
        assert!(text.contains("(rustc 1.95.0)"));
    }

    #[test]
    fn builds_that_need_the_profile_come_after_those_that_do_not() {
        for variants in [&Variant::ALL[..], &Variant::PORTABLE] {
            assert!(variants.is_sorted_by_key(|variant| variant.profile_guided));
        }
    }
}
