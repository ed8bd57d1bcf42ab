//! `cargo xtask pgo [--quick]`: a build optimised by a profile of the hot paths, and what it gains.
//! `--quick` leaves out the builds for this machine's own processor, and takes fewer rounds.
//!
//! The program of the hot paths is built with instrumentation and does all of its work once: it
//! records, encodes, reads, writes and reads JSON, and exports over real sockets to a receiver. The
//! profile of that goes into a second build, which then runs beside a plain release build, one with
//! LTO, and those for this machine's processor, in turns.
//!
//! # Guarantees
//!
//! - A gain is the median of ratios within each round, with the least and the greatest beside it;
//!   where these lie on both sides of nothing, it says `no gain`.
//! - The flags of `RUSTFLAGS` and `CARGO_ENCODED_RUSTFLAGS` are in every build. Flags in cargo's
//!   configuration files are in none, whether or not these are set.
//! - Training that wrote no profile, or an empty one, is an error.
#![expect(clippy::print_stdout, reason = "the gains are what the command is for")]

mod build;
mod gains;
mod profile_data;

pub(crate) use self::gains::ASKED_PERCENT;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use self::build::{Build, Variant};
use self::gains::{Figures, Run};
use self::profile_data::ProfileData;
use crate::bench::machine::Machine;
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
        // Each variant, the instrumented build, training, measuring and the artefacts.
        let steps = Steps { done: 0, count: variants.len() + 4, start: Instant::now() };
        Self { root, folder, build, profile_data, steps }.all(variants, rounds)
    }

    fn all(mut self, variants: &[Variant], rounds: usize) -> Result<(), String> {
        let profile = self.folder.join("spanwire.profdata");
        let mut programs = Vec::new();
        let mut trained = false;
        for variant in variants {
            if variant.profile_guided && !trained {
                self.train(&profile)?;
                trained = true;
            }
            self.steps.next(&format!("building {}", variant.name));
            programs.push((*variant, self.build.variant(variant, &profile)?));
        }
        self.steps.next(&format!("measuring {} builds, {rounds} rounds in turns", programs.len()));
        let figures = measure(&programs, rounds)?;
        let run = Run { machine: Machine::read(&self.root), rounds };
        let [json, markdown] = ["figures.json", "report.md"].map(|name| self.folder.join(name));
        shell::write(&json, figures.to_json(&run))?;
        let report = figures.report(&run);
        shell::write(&markdown, &report)?;
        println!("{report}");
        let artefacts = self.artefacts(&profile)?;
        for written in [json, markdown, artefacts] {
            println!("{}", written.display());
        }
        Ok(())
    }

    /// Builds with instrumentation, runs that, and leaves its profile at this path.
    fn train(&mut self, profile: &Path) -> Result<(), String> {
        let raw = self.folder.join("profiles");
        self.steps.next("building with instrumentation");
        let program = self.build.instrumented(&raw)?;
        self.steps.next("training: recording, encoding, reading, JSON, exports to a receiver");
        // What is there is of other code.
        if raw.exists() {
            fs::remove_dir_all(&raw).map_err(|error| failed(&raw, &error))?;
        }
        shell::create_folder(&raw)?;
        // A path of the caller's for profiles would lead them past the folder looked into.
        succeed(Command::new(&program).arg("train").env_remove("LLVM_PROFILE_FILE"))?;
        let functions = self.profile_data.merge(&raw, profile)?;
        eprintln!("{functions} functions are in the profile");
        Ok(())
    }

    /// The optimised programs, and the profile with how to use it, in one folder.
    fn artefacts(&mut self, profile: &Path) -> Result<PathBuf, String> {
        self.steps.next("collecting what was built");
        let folder = self.folder.join("artefacts");
        shell::create_folder(&folder)?;
        let mut copied = self.build.optimised(profile)?;
        copied.push(profile.to_path_buf());
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

/// Runs each program once a round, each round beginning with another.
fn measure(programs: &[(Variant, PathBuf)], rounds: usize) -> Result<Figures, String> {
    let mut figures = Figures::default();
    for round in 0..rounds {
        for turn in 0..programs.len() {
            let (variant, program) = &programs[(round + turn) % programs.len()];
            let lines = output(Command::new(program).args(["time", "--json"]))?;
            lines.lines().try_for_each(|line| figures.add(variant.name, line))?;
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    Ok(figures)
}

/// What stands beside the profile.
fn usage(folder: &Path, rustc: &str, host: &str) -> String {
    let profile = folder.join("spanwire.profdata");
    let compiler = rustc.lines().next().unwrap_or_default();
    format!(
        "# Profile-guided builds\n\n\
         The programs here are built with LTO and the profile. To build another program of this \
         workspace with it, by the same compiler ({compiler}):\n\n\
         ```sh\nRUSTFLAGS=\"-Cprofile-use={}\" cargo build --profile bench --target {host} -p PACKAGE\n```\n\n\
         The compiler finds a function in a profile by its symbol and the shape of its code. Both \
         depend on where a crate comes from, its features, cargo's profile and `--target`, so this \
         profile fits this workspace at this commit and no application that depends on it. Such an \
         application needs a profile of its own work: build it with \
         `RUSTFLAGS=\"-Cprofile-generate=DIR\"` and `--target`, let it do its usual work and end, run \
         `llvm-profdata merge -o app.profdata DIR`, and build it again with \
         `-Cprofile-use=/path/to/app.profdata` in place of the first flag.\n",
        profile.display()
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
        assert!(text.contains("RUSTFLAGS=\"-Cprofile-use=/builds/artefacts/spanwire.profdata\""));
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
