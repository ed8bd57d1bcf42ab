//! Fixtures and helpers of the benchmarks: the same work for Spanwire and for each rival.
//!
//! This crate decides what a benchmarked span looks like, how each rival is set up, and how the
//! cost of a process is read. The benchmarks themselves are in `benches/`:
//!
//! | suite | what it measures |
//! | --- | --- |
//! | `cpu_benchmarks` | recording, batching, encoding and reading, without a network |
//! | `memory_benchmarks` | copies, shares and reuse of spans |
//! | `network_benchmarks` | the time from recording to the receiver's answer |
//! | `concurrency_benchmarks` | several threads, and several requests, at once |
//! | `e2e_benchmarks` | a span's whole way, sampled or not |
//! | `export_cpu` | CPU of a whole client process, throughput and losses |
//!
//! and in `src/bin/`: `heap` counts bytes and allocations, `hot_paths` takes one path at a time.
//!
//! `cargo bench -p spanwire-benches` runs the suites; the binaries are run by name. `cargo xtask
//! bench` runs the suites and `heap`, and puts their figures into one report.
//!
//! # Guarantees
//!
//! - A fixture has the same content on the wire whoever encodes it.
//! - Rivals run in their fastest form that loses nothing, and what that form is stands beside it. Where
//!   what is measured is a client with its default settings, as in bursts, it has those, and what it
//!   loses is a figure of its own.
//! - Nobody is configured by `OTEL_*` variables of the environment.
//!
//! # Example
//!
//! ```
//! use spanwire_benches::fixtures::Requests;
//!
//! let requests = Requests::new(1_000);
//! let encoded = requests.encoded();
//! let request = spanwire_codec::view::Request::parse(&encoded)?;
//! assert_eq!(request.spans(), 1_000);
//! # Ok::<(), spanwire_codec::view::Malformed>(())
//! ```

pub mod child;
pub mod exporters;
pub mod fixtures;
pub mod hot_paths;
pub mod metrics;
pub mod process;
pub mod reuse;
#[cfg(feature = "rivals")]
pub mod rivals;
pub mod sink;
pub mod tracers;
