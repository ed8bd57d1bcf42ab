//! Builds the programs once and runs them round by round.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, stderr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::collect;
use super::figures::{Figures, Spread};
use super::machine::Pulse;
use super::suite::{Executable, Length, Program, Suite};
use crate::relay::Loaded;
use crate::shell::{self, failed};

/// What is to be run, and where its results go.
pub(super) struct Plan {
    pub(super) root: PathBuf,
    /// Emptied at the start: criterion's folders, lines of figures and what the programs print.
    pub(super) folder: PathBuf,
    pub(super) suites: Vec<Suite>,
    pub(super) length: Length,
    pub(super) filter: Option<String>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Ran {
    pub(super) figures: Figures,
    /// Time of the fixed arithmetic in each round, in ns.
    pub(super) arithmetic_ns: Vec<f64>,
    /// Part of the time for which a thread had to wait for a core, in the pauses between programs.
    pub(super) waits: Vec<f64>,
    pub(super) failures: Vec<Failure>,
    pub(super) took: Duration,
    /// Suites that had as many rounds again, because a figure had looked worse.
    pub(super) again: Vec<Suite>,
}

impl Ran {
    /// Part of the pauses between programs for which a thread had to wait for a core, if the kernel
    /// tells.
    pub(super) fn waited(&self) -> Option<f64> {
        let all = self.waits.iter().sum::<f64>();
        (!self.waits.is_empty()).then(|| all / self.waits.len() as f64)
    }

    fn failed(&mut self, round: usize, program: &'static str, what: String) {
        match self.failures.iter_mut().find(|failure| failure.program == program) {
            Some(failure) => failure.rounds.push(round + 1),
            None => self.failures.push(Failure { program, rounds: vec![round + 1], what }),
        }
    }
}

/// A program that did not give its figures.
pub(super) struct Failure {
    program: &'static str,
    /// Rounds in which it did not, counted from 1.
    rounds: Vec<usize>,
    /// What happened in the first of them.
    what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds: Vec<String> = self.rounds.iter().map(ToString::to_string).collect();
        write!(f, "{} in round {}: {}", self.program, rounds.join(", "), self.what)
    }
}

impl Plan {
    /// Builds, then runs each program once in each round.
    ///
    /// A program that fails does not end the run: what the others give is worth a report.
    pub(super) fn run(&self) -> Result<Ran, String> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).map_err(|error| failed(&self.folder, &error))?;
        }
        self.build()?;
        let mut ran = Ran::default();
        self.rounds(&self.suites, 0, &mut ran)?;
        Ok(ran)
    }

    /// As many rounds again, after those before, of some of the suites.
    pub(super) fn again(&self, suites: Vec<Suite>, ran: &mut Ran) -> Result<(), String> {
        self.rounds(&suites, self.length.rounds, ran)?;
        ran.again = suites;
        Ok(())
    }

    fn rounds(&self, suites: &[Suite], first: usize, ran: &mut Ran) -> Result<(), String> {
        let start = Instant::now();
        let programs = self.programs(suites);
        let rounds = first..first + self.length.rounds;
        let mut progress = Progress::new(&programs, rounds.clone(), self.length);
        for round in rounds {
            let runs = |program: &&Program| round - first < program.rounds(&self.length);
            let programs: Vec<Program> = programs.iter().filter(runs).copied().collect();
            let folder = self.folder.join(format!("round-{}", round + 1));
            shell::create_folder(&folder)?;
            let mut pulses = vec![Pulse::take()];
            for &program in in_turn(&programs, round) {
                progress.start(round, program);
                if let Err(what) = self.program(program, &folder, &progress) {
                    progress.say(&format!("{} failed", program.name()));
                    ran.failed(round, program.name(), what);
                }
                progress.done();
                pulses.push(Pulse::take());
            }
            let arithmetic = Spread::of(pulses.iter().map(|pulse| pulse.arithmetic_ns));
            ran.arithmetic_ns.extend(arithmetic.map(|spread| spread.median));
            ran.waits.extend(pulses.iter().filter_map(|pulse| pulse.waited));
            if let Err(what) = collect::round(&folder, round, &mut ran.figures) {
                ran.failed(round, "collecting", what);
            }
        }
        progress.bar.finish_and_clear();
        ran.took += start.elapsed();
        Ok(())
    }

    fn programs(&self, suites: &[Suite]) -> Vec<Program> {
        let programs = suites.iter().flat_map(|suite| suite.programs()).copied();
        programs.filter(|program| self.filter.is_none() || program.takes_filter()).collect()
    }

    /// Where the executables are that are run.
    fn executables(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// Builds all programs, and copies them: whoever builds meanwhile does not change what is run.
    fn build(&self) -> Result<(), String> {
        shell::create_folder(&self.executables())?;
        let programs = self.programs(&self.suites);
        let mut wanted: Vec<Executable> = programs
            .iter()
            .flat_map(|program| [Some(program.executable()), program.beside()])
            .flatten()
            .collect();
        wanted.sort();
        wanted.dedup();
        for wanted in wanted.chunk_by(|one, next| one.package == next.package) {
            let Executable { package, profile, .. } = wanted[0];
            let mut cargo =
                crate::cargo(&["build", "--profile", profile, "--locked", "-p", package], &[]);
            cargo.current_dir(&self.root);
            for Executable { target, is_bench, .. } in wanted {
                cargo.args([if *is_bench { "--bench" } else { "--bin" }, target]);
            }
            let built = shell::executables(&mut cargo)?;
            for Executable { target, .. } in wanted {
                let from = built
                    .get(*target)
                    .ok_or_else(|| format!("cargo built no executable called {target}"))?;
                let to = self.executables().join(target);
                fs::copy(from, to).map_err(|error| failed(from, &error))?;
            }
        }
        Ok(())
    }

    /// Runs a program to its end; an error ends with the last lines of its output.
    fn program(&self, program: Program, folder: &Path, progress: &Progress) -> Result<(), String> {
        let executable = &self.executables().join(program.executable().target);
        let [out, log, beside] = ["out", "log", "beside.log"]
            .map(|kind| folder.join(format!("{}.{kind}", program.name())));
        let file = |path: &Path| File::create(path).map_err(|error| failed(path, &error));
        let mut command = Command::new(executable);
        // Clients would take settings from it.
        shell::without_telemetry_settings(&mut command);
        command.args(program.arguments(&self.length, self.filter.as_deref()));
        let loaded = match program {
            Program::Relay(relay) => {
                let binary = self.executables().join(Executable::COLLECTOR.target);
                let loaded = relay.start(&binary, &beside)?;
                command.args(&loaded.to);
                Some(loaded)
            }
            Program::Criterion(_) | Program::Heap | Program::ExportCpu | Program::Load => None,
        };
        let mut child = command
            // Where cargo runs the benches of a package.
            .current_dir(self.root.join("benches"))
            .env("CRITERION_HOME", folder.join(collect::CRITERION))
            .env("SPANWIRE_FIGURES", folder.join(collect::FIGURES))
            // The end of what it prints is shown, and should be what went wrong.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(file(&out)?)
            .stderr(file(&log)?)
            .spawn()
            .map_err(|error| failed(executable, &error))?;
        let limit = TIMES_AS_LONG * program.about(&self.length) + STARTING;
        let status =
            progress.wait(&mut child, limit).map_err(|error| failed(executable, &error))?;
        let end = match status {
            Some(status) if status.success() => return loaded.map_or(Ok(()), Loaded::stop),
            Some(status) => format!("ended with {status}"),
            None => format!("was ended, as it took longer than {} s", limit.as_secs()),
        };
        Err(format!("{end}; its output ends\n{}", ends([&log, &out])))
    }
}

/// All of them, each round beginning with another: nobody always runs after the same other.
fn in_turn<T>(all: &[T], round: usize) -> impl Iterator<Item = &T> {
    let (later, first) = all.split_at(round % all.len().max(1));
    first.iter().chain(later)
}

/// The last lines of the first of these files that is not empty.
fn ends(files: [&Path; 2]) -> String {
    const LINES: usize = 20;
    for file in files {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let end = &lines[lines.len().saturating_sub(LINES)..];
        if !end.is_empty() {
            return end.iter().map(|line| format!("    {line}\n")).collect();
        }
    }
    "    (it printed nothing)".to_owned()
}

/// How far a run is: a bar with the time left on a terminal, else a line for each program.
struct Progress {
    bar: ProgressBar,
    length: Length,
    /// The number of the last round, counted from 1.
    rounds: usize,
    /// What all that has ended was thought to take; the bar counts in this, in ms.
    behind: Duration,
    /// The same for what runs now.
    current: Duration,
}

impl Progress {
    fn new(programs: &[Program], rounds: Range<usize>, length: Length) -> Self {
        let all = programs.iter().map(|program| {
            let rounds = program.rounds(&length).min(rounds.len());
            program.about(&length) * u32::try_from(rounds).unwrap_or(u32::MAX)
        });
        let all = all.sum();
        let bar = match stderr().is_terminal() {
            true => ProgressBar::new(millis(all)),
            false => ProgressBar::hidden(),
        };
        // The default bar stands in for a template that does not parse.
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {eta:>4} left  {msg}") {
            bar.set_style(style);
        }
        let (behind, current) = (Duration::ZERO, Duration::ZERO);
        Self { bar, length, rounds: rounds.end, behind, current }
    }

    /// A program begins its round, counted from 0.
    fn start(&mut self, round: usize, program: Program) {
        self.current = program.about(&self.length);
        let at = format!("round {} of {}: {}", round + 1, self.rounds, program.name());
        if self.bar.is_hidden() {
            self.say(&at);
        }
        self.bar.set_message(at);
    }

    /// How it ended; `None` where it had to be killed, for not ending within `limit`.
    fn wait(&self, child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if start.elapsed() >= limit {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            // Rarely enough not to be seen in what is measured.
            thread::sleep(Duration::from_millis(250));
            let position = self.behind + start.elapsed().min(self.current);
            self.bar.set_position(millis(position));
        }
    }

    fn done(&mut self) {
        self.behind += self.current;
        self.bar.set_position(millis(self.behind));
    }

    /// A line that stays, above the bar where there is one.
    fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("bench: {line}"));
    }
}

/// How many times as long as it should a program may take: what is beyond is hung, and not slow.
const TIMES_AS_LONG: u32 = 10;

/// What it may take beside that: fixtures, connections and what else comes before the first figure.
const STARTING: Duration = Duration::from_secs(60);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another_program() {
        let order = |round| in_turn(&['a', 'b', 'c'], round).collect::<String>();
        assert_eq!([0, 1, 2, 3].map(order), ["abc", "bca", "cab", "abc"]);
        assert_eq!(in_turn::<char>(&[], 1).count(), 0);
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let progress = Progress::new(&[], 0..1, Length::QUICK);
        let mut child = Command::new("sleep").arg("600").spawn().expect("runs");
        let ended = progress.wait(&mut child, Duration::ZERO).expect("can be waited for");
        assert!(ended.is_none());
        assert!(child.try_wait().expect("can be asked").is_some(), "it is gone");
    }
}
