//! Where and with what a run was made: a figure without it is worth little.

use std::fs;
use std::hint::black_box;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::flags::Flags;
use crate::shell;

/// The machine, its software and the commit. What cannot be found out reads `unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    /// What the caller had every build made with.
    pub(crate) flags: String,
    /// With a word about changes that are not in it.
    pub(crate) commit: String,
    pub(crate) date: String,
}

impl Machine {
    /// Reads `/proc` and asks `rustc` and `git`, in the workspace at `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let proc = |file: &str| fs::read_to_string(Path::new("/proc").join(file)).ok();
        let unknown = || "unknown".to_owned();
        let cpu = proc("cpuinfo").and_then(|text| field(&text, "model name"));
        let memory = proc("meminfo").and_then(|text| field(&text, "MemTotal"));
        let memory = memory.and_then(|memory| memory.split(' ').next()?.parse::<f64>().ok());
        Self {
            cpu: cpu.unwrap_or_else(unknown),
            cores: cores(),
            memory: memory
                .map_or_else(unknown, |kib| format!("{:.0} GiB", kib / f64::from(1 << 20))),
            kernel: proc("sys/kernel/osrelease")
                .map_or_else(unknown, |text| format!("Linux {}", text.trim())),
            rustc: asked(root, "rustc", &["--version"]).unwrap_or_else(unknown),
            flags: match Flags::of_caller().map(|flags| flags.to_string()) {
                Ok(flags) if flags.is_empty() => "none".to_owned(),
                Ok(flags) => flags,
                Err(unreadable) => unreadable,
            },
            commit: commit(root),
            date: httpdate::fmt_http_date(SystemTime::now()),
        }
    }
}

/// Threads that can run at once here.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// The commit, shortened, and whether the files differ from it.
fn commit(root: &Path) -> String {
    let Some(commit) = asked(root, "git", &["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match asked(root, "git", &["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit} with uncommitted changes"),
    }
}

fn field(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn asked(root: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    let text = shell::output(Command::new(program).args(arguments).current_dir(root)).ok()?;
    Some(text.trim().to_owned())
}

/// The machine at one moment, whatever the code under test does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    /// How long a fixed piece of arithmetic takes, in ns: the median of many short runs, as the
    /// benchmarks take theirs.
    pub(super) arithmetic_ns: f64,
    /// Part of the time for which this thread had to wait for a core meanwhile, if the kernel tells.
    pub(super) waited: Option<f64>,
}

impl Pulse {
    /// Takes some 20 ms.
    pub(super) fn take() -> Self {
        const RUNS: usize = 41;
        let before = on_and_off_core();
        let mut times: Vec<Duration> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
                for _ in 0..100_000 {
                    state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (state >> 29);
                }
                black_box(state);
                start.elapsed()
            })
            .collect();
        times.sort();
        let waited = before.zip(on_and_off_core()).map(|(before, after)| {
            let [on, off] = [after.0 - before.0, after.1 - before.1];
            off / (on + off).max(1.0)
        });
        Self { arithmetic_ns: times[RUNS / 2].as_nanos() as f64, waited }
    }
}

/// For how long, in ns, this thread has had a core so far, and wanted one without having it.
fn on_and_off_core() -> Option<(f64, f64)> {
    let times = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut times = times.split(' ').map(str::parse);
    Some((times.next()?.ok()?, times.next()?.ok()?))
}
