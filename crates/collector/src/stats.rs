//! All counters of a running collector at one look.

use crate::ledger::Account;

/// What a collector has counted.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// By receiver and transport, in the order of the configuration.
    pub receivers: Vec<ReceiverStats>,
    /// By pipeline.
    pub pipelines: Vec<StageStats>,
    /// By pipeline and processor.
    pub processors: Vec<StageStats>,
    /// By destination.
    pub exporters: Vec<ExporterStats>,
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
    /// Connections open now, of both transports together.
    pub connections: usize,
}

/// Spans through a pipeline or a processor.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageStats {
    /// Of the pipeline or the processor, as in the configuration.
    pub id: String,
    /// The pipeline that a processor is in.
    pub pipeline: Option<String>,
    /// Spans that came.
    pub incoming: u64,
    /// Spans passed on; the others were filtered or sampled out.
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
    /// What fails at the moment, if anything does: for how many seconds, and the last error.
    pub failing: Option<(u64, String)>,
}

impl Stats {
    /// Whether every span that a destination was given is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.exporters.iter().all(|exporter| exporter.account.imbalance() == 0)
    }
}
