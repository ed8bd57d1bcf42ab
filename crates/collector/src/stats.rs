//! All counters of a running collector at one look.

use crate::batches::BatchStats;
use crate::ledger::{Account, Passed};

/// What a collector has counted.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// What all requests hold.
    pub memory: MemoryStats,
    /// By receiver and transport, in the order of the configuration.
    pub receivers: Vec<ReceiverStats>,
    /// By pipeline.
    pub pipelines: Vec<PipelineStats>,
    /// By pipeline and processor.
    pub processors: Vec<ProcessorStats>,
    /// By destination.
    pub exporters: Vec<ExporterStats>,
}

/// The memory of requests, from before they are read until they are sent, and of copies that are held
/// beside them.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Held now, in bytes.
    pub held: usize,
    /// From here on no more is taken; it may be exceeded by copies of what was taken before.
    pub max: usize,
}

/// Spans that came by one transport of a receiver.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// `otlp`, as in the configuration.
    pub receiver: String,
    /// `grpc` or `http`.
    pub transport: &'static str,
    /// Taken over.
    pub accepted: u64,
    /// Refused by the pipelines or for want of memory; the sender may send them again.
    pub refused: u64,
    /// Malformed, or in requests that could not be read: refused for good.
    pub failed: u64,
    /// Requests refused, by the name of each reason there is. Of one that could not be read the spans
    /// are not known, and this is where it is counted.
    pub requests_refused: Vec<(&'static str, u64)>,
    /// Connections of its peers.
    pub connections: ConnectionStats,
}

/// Connections to one port of a receiver.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Open now.
    pub open: usize,
    /// Open at once at most; more wait.
    pub max: usize,
    /// That came.
    pub accepted: u64,
    /// Of these, ended by an error: a timeout, bad HTTP, a peer that is gone, no TLS in common.
    pub failed: u64,
    /// Of these, by one of the TLS handshake.
    pub tls_handshakes_failed: u64,
    /// Of these, begun with TLS where none is served.
    pub unexpected_tls: u64,
    /// Of these, that spoke neither HTTP/2 nor TLS to the gRPC port: HTTP/1.1, mostly.
    pub not_grpc: u64,
    /// Times that the system could not hand one over, as too many files are open mostly.
    pub accept_errors: u64,
}

impl ConnectionStats {
    fn add(&mut self, other: Self) {
        self.open += other.open;
        self.max = self.max.max(other.max);
        self.accepted += other.accepted;
        self.failed += other.failed;
        self.tls_handshakes_failed += other.tls_handshakes_failed;
        self.unexpected_tls += other.unexpected_tls;
        self.not_grpc += other.not_grpc;
        self.accept_errors += other.accept_errors;
    }
}

impl ReceiverStats {
    /// Counts the same port of an earlier receiver, or a later one, in.
    pub(crate) fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.failed += other.failed;
        self.connections.add(other.connections);
        for ((_, requests), (_, more)) in
            self.requests_refused.iter_mut().zip(other.requests_refused)
        {
            *requests += more;
        }
    }
}

/// Spans through a pipeline.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineStats {
    /// `traces/2`, as in the configuration.
    pub pipeline: String,
    /// What became of them.
    pub passed: Passed,
}

/// Spans through a processor, of requests that were taken over.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessorStats {
    /// `attributes/2`, as in the configuration.
    pub processor: String,
    /// The pipeline that it is in.
    pub pipeline: String,
    /// Spans that came.
    pub incoming: u64,
    /// Spans passed on.
    pub outgoing: u64,
}

/// Spans given to one destination.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExporterStats {
    /// `otlp/2`, as in the configuration.
    pub exporter: String,
    /// Where its spans are.
    pub account: Account,
    /// What its queue holds, in its sizer's unit.
    pub queue_size: usize,
    /// What its queue holds at most, in its sizer's unit.
    pub queue_capacity: usize,
    /// Its batches, if it gathers requests into larger ones.
    pub batches: Option<BatchStats>,
    /// What fails at the moment, if anything does: for how many seconds, and the last error.
    pub failing: Option<(u64, String)>,
}

impl Stats {
    /// Whether every span is accounted for that a pipeline took over, or that was for a destination.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.pipelines.iter().all(|pipeline| pipeline.passed.imbalance() == 0)
            && self.exporters.iter().all(|exporter| exporter.account.imbalance() == 0)
    }
}
