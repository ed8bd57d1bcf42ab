//! A collector for OTLP traces: wire bytes in, wire bytes out.
//!
//! ```text
//! receivers ──> processors ──────────> a queue for each destination ──> batches ──> destinations
//! checked,      only the spans          places by requests, spans       joined,      tried again,
//! not decoded   concerned rewritten     or bytes                        not copied   taken apart
//! ```
//!
//! It runs a [`Config`](spanwire_config::Config), which is the Go Collector's. A request is checked
//! where it comes in and then moved as the bytes it came as: batching joins requests, as two encoded
//! requests one after the other are an encoded request. Decoding, copying and compressing happen only
//! where a component needs them; [`explain`] says where that is.
//!
//! # Guarantees
//!
//! - Every span that receivers took over for a destination is in its [`Account`], at every look:
//!   accepted is sampled out, sent, rejected, dropped for a reason, or queued.
//! - A sender is answered when the queue of each destination has its spans, or, with
//!   `wait_for_result`, when the destination has answered; merging and cutting keep each source
//!   request's answer apart.
//! - What a destination refuses for good loses no neighbour: a merged request is halved until the
//!   source request that it refuses stands alone, unless the destination takes nothing at all.
//! - A destination that is stuck fills its own queue and no other. With one destination the sender
//!   waits then, for a while; where others take the spans, those of the stuck one are dropped and counted.
//! - The memory that requests hold is bounded before they are read.
//! - A reload changes everything or nothing, and refuses no request.
#![forbid(unsafe_code)]

mod admin;
mod batches;
mod build;
mod collect;
mod delivery;
mod destination;
mod explain;
mod exporter;
mod fan_out;
mod health;
mod intake;
mod item;
mod ledger;
mod limits;
mod listens;
mod log;
mod metrics;
mod pages;
mod pipeline;
mod server;
mod service;
mod sockets;
mod source;
mod start_error;
mod stats;
mod steps;
mod watch;

pub use batches::{BatchStats, Histogram};
pub use collect::{CollectError, Inlet, InletStats};
pub use explain::{check, explain, memory_limit, notes};
pub use ledger::{Account, DropReason, Passed};
#[doc(hidden)] // For the binary.
pub use log::chain;
pub use service::{Collector, Shutdown};
pub use start_error::StartError;
pub use stats::{
    ConnectionStats, ExporterStats, MemoryStats, PipelineStats, ProcessorStats, ReceiverStats,
    Stats,
};
