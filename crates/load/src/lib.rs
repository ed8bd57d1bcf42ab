//! Load for an OTLP trace receiver, and an account of every span of it.
//!
//! The generator sends at a given rate whatever the answers do (an *open loop*), as a fleet of
//! clients would: a target that stalls for a second shows a second of latency in every request that
//! was due meanwhile, not in the few that happened to be in flight. It measures the answers, the
//! target's CPU and memory, and itself. Each span carries a number; where what the target forwards
//! can be received, lost and duplicated spans are known one by one.
//!
//! It does not retry, batch or record: those are a client's business, and would hide the target. It
//! speaks to any receiver that takes plain connections without credentials: neither TLS nor headers of
//! the caller's.
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
//! if it accepted none after the warm-up. Ctrl-C ends a run early, with its report; a second one ends
//! the wait for what has not arrived.
//!
//! # Guarantees
//!
//! - In an open loop each request is due at a time fixed before the run, and its latency counts from
//!   then: also where it could not be sent because too many were in flight, or because the generator
//!   itself was late. How late the generator was is reported apart.
//! - `--rate max` is a closed loop, and its report says so.
//! - Every request is counted once: accepted, or failed with a code. Every span is accepted, rejected by
//!   partial success, or in a failed request.
//! - A request without an answer for 10 s has failed, and so has one that is due and has no place among
//!   those in flight 10 s after the end: a target that hangs holds a run up for twice that at most.
//! - *Lost* means accepted and not arrived; *duplicated* counts arrivals beyond a span's first.
//!   Both are exact. Spans of another run are told apart by their trace ids.
//! - Requests are made from one template, encoded once, in which ids and times are replaced; so what
//!   the generator spends is the price of sending.
//!
//! # What it costs
//!
//! The generator's own CPU is in every report. It runs on half of the cores, its receiver on as many
//! threads. HTTP/1.1 takes a connection for each request in flight.
//!
//! # As a library
//!
//! ```
//! use std::num::NonZero;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use spanwire_load::{Ledger, Load, Rate, Run, Settings, Stop};
//! use spanwire_receiver::{Accepted, Received, Receiver};
//! use spanwire_transport::{Compression, Protocol};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The target enters into the ledger what it gets; another one would have it forwarded to us.
//! let run = Run::random();
//! let ledger = Arc::new(Mutex::new(Ledger::new(run)));
//! let entered = Arc::clone(&ledger);
//! let target = Receiver::builder().grpc("127.0.0.1:0".parse()?).bind(move |received: Received| {
//!     entered.lock().expect("no panic").enter(&received.request).expect("a request");
//!     async { Ok(Accepted::default()) }
//! });
//! let runtime = tokio::runtime::Runtime::new()?;
//! let target = runtime.block_on(target)?;
//! let address = target.grpc_address().expect("bound");
//!
//! let count = |count| NonZero::new(count).expect("not 0");
//! let settings = Settings {
//!     rate: Rate::Spans(NonZero::new(10_000).expect("not 0")),
//!     duration: Duration::from_millis(100),
//!     warm_up: Duration::ZERO,
//!     settle: Duration::from_secs(10),
//!     connections: count(1),
//!     in_flight_max: count(16),
//!     spans_per_request: count(100),
//!     attributes: 8,
//!     protocol: Protocol::Grpc,
//!     compression: Compression::None,
//! };
//! let load = Load::new(settings, run, format!("http://{address}")).arrivals(ledger);
//! let report = load.run(&Stop::default(), drop)?;
//! assert_eq!(report.measured.spans, 1_000);
//! assert_eq!(report.verdict(), Ok(()), "{report}");
//! # Ok(())
//! # }
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
pub use settings::{InvalidSettings, Settings};
pub use tally::{Failures, Tally};
pub use template::{Run, Template};
