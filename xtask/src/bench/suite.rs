//! What can be run, and how each program is asked for its figures.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::relay::Relay;

/// What `cargo xtask bench SUITE` may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Suite {
    /// Recording, encoding and reading, without a network
    Cpu,
    /// Clones, pools, interning; bytes and allocations on the heap
    Memory,
    /// From recording to the receiver's answer, over sockets
    Network,
    /// Several threads, several requests in flight
    Concurrency,
    /// Create, batch, encode, send, answered
    E2e,
    /// CPU, memory and losses of whole client processes
    Export,
    /// A load in open loop against a receiver
    Load,
    /// As many spans as go through a collector
    Collector,
}

impl Suite {
    /// The programs whose figures make up the suite.
    pub(super) fn programs(self) -> &'static [Program] {
        match self {
            Self::Cpu => &[Program::Criterion("cpu_benchmarks")],
            Self::Memory => &[Program::Criterion("memory_benchmarks"), Program::Heap],
            Self::Network => &[Program::Criterion("network_benchmarks")],
            Self::Concurrency => &[Program::Criterion("concurrency_benchmarks")],
            Self::E2e => &[Program::Criterion("e2e_benchmarks")],
            Self::Export => &[Program::ExportCpu],
            Self::Load => &[Program::Load],
            Self::Collector => &[
                Program::Relay(Relay::GRPC_100),
                Program::Relay(Relay::GRPC_1000),
                Program::Relay(Relay::GRPC_10),
                Program::Relay(Relay::HTTP_100),
                Program::Relay(Relay::GZIP_1000),
            ],
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Network => "network",
            Self::Concurrency => "concurrency",
            Self::E2e => "e2e",
            Self::Export => "export",
            Self::Load => "load",
            Self::Collector => "collector",
        })
    }
}

/// An executable that gives figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// A criterion suite, by the name of its bench target.
    Criterion(&'static str),
    /// Bytes and allocations, counted by dhat.
    Heap,
    /// Whole exports, a process for each client.
    ExportCpu,
    /// The load generator, against a receiver of its own.
    Load,
    /// The load generator, against a collector in a process of its own.
    Relay(Relay),
}

/// What cargo builds for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Executable {
    pub(super) package: &'static str,
    pub(super) profile: &'static str,
    /// The name of its target in that package.
    pub(super) target: &'static str,
    /// Whether the target is a bench and not a binary.
    pub(super) is_bench: bool,
}

impl Executable {
    pub(super) const LOAD: Self = Self {
        package: "spanwire-load",
        profile: "bench",
        target: "spanwire-load",
        is_bench: false,
    };

    /// As people build it, since it is what they run.
    pub(super) const COLLECTOR: Self = Self {
        package: "spanwire-collector",
        profile: "release",
        target: "spanwire-collector",
        is_bench: false,
    };

    const fn of_benches(target: &'static str, is_bench: bool) -> Self {
        Self { package: "spanwire-benches", profile: "bench", target, is_bench }
    }
}

impl Program {
    /// What it is called, in messages and as a file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Relay(relay) => relay.file,
            Self::Criterion(_) | Self::Heap | Self::ExportCpu | Self::Load => {
                self.executable().target
            }
        }
    }

    /// What is run.
    pub(super) fn executable(self) -> Executable {
        match self {
            Self::Criterion(target) => Executable::of_benches(target, true),
            Self::Heap => Executable::of_benches("heap", false),
            Self::ExportCpu => Executable::of_benches("export_cpu", true),
            Self::Load | Self::Relay(_) => Executable::LOAD,
        }
    }

    /// What runs beside it.
    pub(super) fn beside(self) -> Option<Executable> {
        match self {
            Self::Relay(_) => Some(Executable::COLLECTOR),
            Self::Criterion(_) | Self::Heap | Self::ExportCpu | Self::Load => None,
        }
    }

    /// Whether a filter can choose among its rows.
    pub(super) fn takes_filter(self) -> bool {
        matches!(self, Self::Criterion(_))
    }

    /// How it is asked for one round.
    pub(super) fn arguments(self, length: &Length, filter: Option<&str>) -> Vec<String> {
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        match self {
            Self::Criterion(_) => {
                let (warm_up, measurement) = (seconds(length.warm_up), seconds(length.measurement));
                let mut arguments: Vec<String> =
                    ["--bench", "--noplot", "--warm-up-time", &warm_up, "--measurement-time"]
                        .map(str::to_owned)
                        .into();
                arguments.extend([measurement, "--sample-size".to_owned()]);
                arguments.extend([length.samples.to_string()]);
                arguments.extend(["--nresamples", "1000"].map(str::to_owned));
                arguments.extend(filter.map(str::to_owned));
                arguments
            }
            Self::Heap => Vec::new(),
            Self::ExportCpu => {
                let mut arguments = vec!["--rounds".to_owned(), "1".to_owned()];
                arguments.extend(length.quick.then(|| "--quick".to_owned()));
                arguments
            }
            Self::Load => {
                let duration = length.load.as_secs().to_string();
                ["--rate", LOAD_SPANS_PER_SECOND, "--duration", &duration, "--json"]
                    .map(str::to_owned)
                    .into()
            }
            Self::Relay(relay) => relay.arguments(length.relay_warm_up, length.relay),
        }
    }

    /// In how many of the rounds it runs, from the first one on.
    pub(super) fn rounds(self, length: &Length) -> usize {
        match self {
            // What is asked for is one minute of it, without a pause; it has no rival to take turns
            // with.
            Self::Load if !length.quick => 1,
            _ => length.rounds,
        }
    }

    /// About how long a round of it takes; only the bar of progress goes by it.
    pub(super) fn about(self, length: &Length) -> Duration {
        match self {
            Self::Criterion(target) => {
                let rows = match target {
                    "cpu_benchmarks" => 90,
                    "concurrency_benchmarks" => 40,
                    "network_benchmarks" => 25,
                    _ => 16,
                };
                (length.warm_up + length.measurement + Duration::from_millis(60)) * rows
            }
            Self::Heap => Duration::from_secs(5),
            Self::ExportCpu => Duration::from_secs(if length.quick { 20 } else { 60 }),
            Self::Load => length.load + Duration::from_secs(2),
            Self::Relay(_) => length.relay_warm_up + length.relay + Duration::from_secs(1),
        }
    }
}

/// The rate of the load, as the argument of the generator and the value of its rows.
pub(super) const LOAD_SPANS_PER_SECOND: &str = "10000";

/// How long a run takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    pub(super) quick: bool,
    /// Rounds in which each program runs once, so that what is compared is interleaved; but see
    /// [`Program::rounds`].
    pub(super) rounds: usize,
    /// Of each row of a criterion suite, in a round.
    pub(super) warm_up: Duration,
    pub(super) measurement: Duration,
    pub(super) samples: usize,
    /// Of the load, in a round.
    pub(super) load: Duration,
    /// Of each load through the collector, in a round.
    pub(super) relay_warm_up: Duration,
    pub(super) relay: Duration,
}

impl Length {
    /// Some 50 minutes.
    pub(super) const FULL: Self = Self {
        quick: false,
        rounds: 5,
        warm_up: Duration::from_millis(200),
        measurement: Duration::from_millis(600),
        samples: 20,
        load: Duration::from_secs(60),
        relay_warm_up: Duration::from_secs(2),
        relay: Duration::from_secs(8),
    };

    /// Less than 5 minutes.
    pub(super) const QUICK: Self = Self {
        quick: true,
        rounds: 3,
        warm_up: Duration::from_millis(40),
        measurement: Duration::from_millis(120),
        samples: 10,
        load: Duration::from_secs(4),
        relay_warm_up: Duration::from_secs(1),
        relay: Duration::from_secs(2),
    };
}
