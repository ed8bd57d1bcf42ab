//! A collector in a process of its own, its books as `/metrics` shows them, and what is told of a run.
//!
//! Tests run for seconds; `cargo xtask endure` runs them for as long as it says in an environment
//! variable, and reads what they found.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod bombs;
mod group;
mod sink;

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;
use spanwire_load::{Ledger, Load, Run, Settings};

use crate::support::process::{Process, command};

pub(crate) use group::Group;
pub(crate) use sink::{Conduct, Sink};

/// How long what a test is about goes on: `default`, or as long as the environment says.
pub(crate) fn lasting(default: Duration) -> Duration {
    match std::env::var("SPANWIRE_ENDURE_SECONDS") {
        Ok(seconds) => Duration::from_secs(seconds.parse().expect("a whole number of seconds")),
        Err(_unset) => default,
    }
}

/// Tests of load, of which two at once would measure each other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // One that failed leaves nothing behind that the next one uses.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a collector has its memory from.
pub(crate) enum Room {
    /// A budget, set by a memory limiter.
    Budget(Limits),
    /// What is left of this group; no limiter is set.
    Group(Group, u64),
}

impl Room {
    /// Starts a collector with receivers of both transports and one destination.
    pub(crate) fn start(&self, exporter: &str) -> Process {
        let id = exporter.split(':').next().unwrap_or_default();
        let (max_mib, limiter, limiters) = match self {
            Self::Budget(limits) => {
                let limit = limits.budget_mib + SPIKE_MIB;
                let limiter = format!(
                    "memory_limiter: {{ check_interval: 1s, limit_mib: {limit}, \
                     spike_limit_mib: {SPIKE_MIB} }}"
                );
                (limits.request_mib_max, limiter, "memory_limiter")
            }
            Self::Group(..) => (20, String::new(), ""),
        };
        let max_bytes = max_mib << 20;
        let yaml = format!(
            "
receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: 127.0.0.1:0, max_recv_msg_size_mib: {max_mib} }}
      http: {{ endpoint: 127.0.0.1:0, max_request_body_size: {max_bytes} }}
processors: {{ {limiter} }}
exporters: {{ {exporter} }}
service:
  telemetry:
    metrics: {{ readers: [{{ pull: {{ exporter: {{ prometheus: {{ host: 127.0.0.1, port: 0 }} }} }} }}] }}
  pipelines: {{ traces: {{ receivers: [otlp], processors: [{limiters}], exporters: [{id}] }} }}
"
        );
        let config = format!("yaml:{yaml}");
        let arguments = ["--config", &config];
        let mut command = match self {
            Self::Budget(_) => command(&arguments),
            Self::Group(group, _) => group.command(&arguments),
        };
        command.stdout(Stdio::null());
        Process::run(command, &["grpc", "http", "metrics"])
    }

    /// What the memory came to, and what it may come to, in bytes.
    pub(crate) fn memory(&self, collector: &Process) -> (u64, u64) {
        match self {
            Self::Budget(limits) => (collector.memory_peak(), limits.memory_max()),
            Self::Group(group, bytes_max) => (group.peak(), *bytes_max),
        }
    }
}

/// What a test sees of it while it runs.
impl Process {
    /// Its books as they are now.
    pub(crate) fn books(&self) -> Books {
        Books::read(&self.get("metrics", "/metrics"))
    }

    /// The most memory it had resident, in bytes: `VmHWM` of proc_pid_status(5).
    pub(crate) fn memory_peak(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("a number") << 10
    }

    /// Looks at the books twenty times a second while `work` goes on.
    pub(crate) fn watched<T>(&self, work: impl FnOnce() -> T) -> (T, Looks) {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            // Also where the work panics, which would be waited for for ever.
            let end = SetOnDrop(&ended);
            let watching = scope.spawn(|| {
                let mut looks = Looks::default();
                while !ended.load(Ordering::Relaxed) {
                    looks.add(&self.books());
                    thread::sleep(Duration::from_millis(50));
                }
                looks
            });
            let worked = work();
            drop(end);
            (worked, watching.join().expect("no panic"))
        })
    }

    /// Waits until nothing is queued or on its way.
    pub(crate) fn settled(&self) -> Books {
        let since = Instant::now();
        loop {
            let books = self.books();
            if books.queued() == 0 {
                return books;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "{} wait", books.queued());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as its operator does; it must find nothing that it has to give up.
    pub(crate) fn ends_well(mut self) {
        self.signal("-TERM");
        let status = self.ended();
        assert!(status.success(), "{status}");
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a collector may hold, and how large a request may be.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) budget_mib: u64,
    pub(crate) request_mib_max: u64,
}

/// The budget is the limit less the spike, whatever that is.
const SPIKE_MIB: u64 = 16;

impl Limits {
    /// What a process with this budget may have resident.
    pub(crate) fn memory_max(self) -> u64 {
        (self.budget_mib << 20) + BESIDE_BYTES
    }
}

/// What the process may take beside the budget: code, stacks, the buffers of connections, and what
/// decompressors work with.
pub(crate) const BESIDE_BYTES: u64 = 64 << 20;

/// One look at `/metrics`: each row with its labels.
pub(crate) struct Books(Vec<(String, i64)>);

impl Books {
    fn read(page: &str) -> Self {
        let rows = page.lines().filter(|line| !line.starts_with('#'));
        let value = |row: &str| {
            let (name, value) = row.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse::<f64>().ok()? as i64))
        };
        Self(rows.filter_map(value).collect())
    }

    /// The sum of a metric's rows that have this among their labels.
    pub(crate) fn sum(&self, metric: &str, label: &str) -> u64 {
        let rows = self.0.iter().filter_map(|(row, value)| {
            let labels = row.strip_prefix(metric)?.strip_prefix('{')?;
            labels.contains(label).then_some(*value)
        });
        u64::try_from(rows.sum::<i64>()).expect("counts")
    }

    pub(crate) fn ledger(&self, state: &str) -> u64 {
        self.sum("spanwire_ledger_spans_total", &format!("state=\"{state}\""))
    }

    pub(crate) fn queued(&self) -> u64 {
        self.sum("spanwire_exporter_queued_spans", "")
    }

    /// What the ledger does not account for, by its rows and by its own word.
    fn imbalance(&self) -> i64 {
        let known = ["sent", "rejected", "dropped"].map(|state| self.ledger(state));
        let known = known.iter().sum::<u64>() + self.queued();
        let told: i64 =
            self.0.iter().filter(|(row, _)| row.contains("_imbalance")).map(|r| r.1).sum();
        (self.ledger("accepted") as i64 - known as i64).abs() + told.abs()
    }
}

/// What was seen of the books while something went on.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    count: usize,
    /// Looks at which they did not balance.
    wrong: usize,
    pub(crate) queued_max: u64,
}

impl Looks {
    fn add(&mut self, books: &Books) {
        self.count += 1;
        self.wrong += usize::from(books.imbalance() != 0);
        self.queued_max = self.queued_max.max(books.queued());
    }

    pub(crate) fn assert_balanced(&self) {
        assert!(self.count >= 5 && self.wrong == 0, "{self:?}");
    }
}

/// A load by the options of its command line.
pub(crate) fn load(
    options: &str,
    collector: &Process,
    run: Run,
    ledger: &Arc<Mutex<Ledger>>,
) -> Load {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }
    let part = if options.contains("--protocol http") { "http" } else { "grpc" };
    let settle = if options.contains("--settle") { "" } else { "--settle 20" };
    let line = format!("load --warm-up 0 {settle} {options}");
    let settings = Line::parse_from(line.split_whitespace()).settings;
    let endpoint = format!("http://{}", collector.address(part));
    Load::new(settings, run, endpoint).arrivals(Arc::clone(ledger))
}

/// What a run came to; told before anything is asserted, so that a failure shows its figures.
pub(crate) struct Found<'a> {
    pub(crate) what: &'a str,
    /// Spans that senders were told are taken over.
    pub(crate) accepted: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    /// What makes duplicates come, with their number where that is known from elsewhere.
    pub(crate) explained: String,
    pub(crate) memory_peak: u64,
    pub(crate) memory_max: u64,
}

impl Found<'_> {
    #[expect(clippy::print_stdout, reason = "what a run found is read there")]
    pub(crate) fn tell(&self) {
        let found = json!({
            "what": self.what,
            "accepted": self.accepted,
            "lost": self.lost,
            "duplicates": self.duplicates,
            "explained": self.explained,
            "memory_peak": self.memory_peak,
            "memory_max": self.memory_max,
        });
        println!("found {found}");
    }
}
