//! Load for any OTLP trace receiver, and an account of every span of it.
//!
//! The generator sends at a given rate whatever the answers do (an *open loop*), as a fleet of
//! clients would: a target that stalls for a second shows a second of latency in every request that
//! was due meanwhile, not in the few that happened to be in flight. It measures the answers, the
//! target's CPU and memory, and itself. Each span carries a number; where what the target forwards
//! can be received, lost and duplicated spans are known one by one.
//!
//! It does not retry, batch or record: those are a client's business, and would hide the target.
//!
//! # Use
//!
//! ```sh
//! # Spanwire's own receiver in a process of its own: 60 s at 10,000 spans a second.
//! spanwire-load --rate 10000 --duration 60
//!
//! # A collector on this machine, which forwards what it gets to port 4320 over gRPC.
//! spanwire-load --endpoint http://localhost:4317 --pid "$(pidof otelcol)" \
//!     --sink 127.0.0.1:4320 --rate 100000
//!
//! # As much as it takes, over HTTP with gzip, 32 requests in flight; figures for a script.
//! spanwire-load --endpoint http://localhost:4318 --protocol http/protobuf --compression gzip \
//!     --rate max --connections 1 --in-flight-max 32 --json
//! ```
//!
//! It ends with a status other than 0 if spans that the target accepted were lost or duplicated, or
//! if it accepted none. Ctrl-C ends a run early, with its report; a second one ends the wait for
//! what has not arrived.
//!
//! # Guarantees
//!
//! - In an open loop each request is due at a time fixed before the run, and its latency counts from
//!   then: also where it could not be sent because too many were in flight, or because the generator
//!   itself was late. How late the generator was is reported apart.
//! - `--rate max` is a closed loop, and its report says so.
//! - Every request is counted once: accepted, or failed with a code; one without an answer for 10 s
//!   has failed. Every span is accepted, rejected by partial success, or in a failed request.
//! - *Lost* means accepted and not arrived; *duplicated* counts arrivals beyond a span's first.
//!   Both are exact. Spans of another run are told apart by their trace ids.
//! - Requests are made from one template, encoded once, in which ids and times are replaced; so what
//!   the generator spends is the price of sending.
//!
//! # What it costs
//!
//! The generator's own CPU is in every report. Of 100-span requests over gRPC it takes 0.23 s a
//! million spans, over HTTP 0.22 s, almost half of it in the kernel (`--rate max`, AMD EPYC, 2 virtual
//! cores, Linux 6.18, a busy machine). It runs on half of the cores, its receiver on as many threads.
//! HTTP/1.1 takes a connection for each request in flight.
//!
//! # As a library
//!
//! ```no_run
//! use std::sync::{Arc, Mutex};
//!
//! use spanwire_load::{Ledger, Load, Run, Settings, Stop};
//!
//! # fn settings() -> Settings { unimplemented!() }
//! let run = Run::random();
//! // Filled by whatever receives what the target forwards: `ledger.enter(&request)`.
//! let ledger = Arc::new(Mutex::new(Ledger::new(run)));
//! let load = Load::new(settings(), run, "http://localhost:4317").arrivals(ledger);
//! let report = load.run(&Stop::default(), |progress| drop(progress))?;
//! println!("{report}");
//! assert_eq!(report.verdict(), Ok(()));
//! # Ok::<_, spanwire_load::RunError>(())
//! ```
#![forbid(unsafe_code)]

mod arrivals;
mod connection;
mod latencies;
mod ledger;
mod load;
mod process;
mod report;
mod schedule;
mod settings;
mod tally;
mod template;
mod ticker;

pub use arrivals::{Addresses, Arrivals, ReceiverProcess, serve_if_asked};
pub use latencies::Latencies;
pub use ledger::{Arrived, Ledger};
pub use load::{Load, Progress, RunError, Stop};
pub use process::MemoryPeak;
pub use report::{Delivery, Report, TargetUse, Verdict};
pub use schedule::{InvalidRate, Rate, Schedule};
pub use settings::Settings;
pub use tally::{Failures, Tally};
pub use template::{Run, Template};
