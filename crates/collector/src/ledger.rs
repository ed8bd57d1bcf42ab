//! The accounts of spans at destinations and in pipelines, exact at every look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::batches::Batches;

/// Where every span is that was for a destination:
/// `accepted = sampled_out + sent + rejected + dropped + queued` at every instant, as each step is
/// made under one lock. Steps are per request, not per span.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    account: Mutex<Account>,
    batches: Batches,
}

/// Spans of one destination.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Taken over from receivers for this destination.
    pub accepted: u64,
    /// Left out by a sampler on the way here.
    pub sampled_out: u64,
    /// Waiting, or on their way.
    pub queued: u64,
    /// Taken by the destination.
    pub sent: u64,
    /// Refused by the destination by partial success.
    pub rejected: u64,
    /// Lost here, by [`DropReason`].
    dropped: [u64; DropReason::ALL.len()],
    /// Not let into the queue, as it was full, and not accepted therefore.
    pub refused: u64,
    /// Requests sent, whatever came of them.
    pub requests: u64,
    /// Requests that failed and were, or may have been, tried again.
    pub failures: u64,
    /// Bytes of requests as sent.
    pub wire_bytes: u64,
    /// Requests on their way.
    pub requests_in_flight: u64,
}

/// Why spans were dropped.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The queue was full, and the sender was not to wait.
    QueueFull,
    /// The destination refused the request for good.
    Rejected,
    /// Larger than the destination takes, though it was one span.
    TooLarge,
    /// Tried for as long as the settings allow.
    RetriesExhausted,
    /// A file could not be written.
    WriteFailed,
    /// The time to shut down was over.
    Shutdown,
    /// A fault of the collector's own.
    Internal,
}

impl DropReason {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::Rejected,
        Self::TooLarge,
        Self::RetriesExhausted,
        Self::WriteFailed,
        Self::Shutdown,
        Self::Internal,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::RetriesExhausted => "retries_exhausted",
            Self::WriteFailed => "write_failed",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal",
        }
    }
}

impl Account {
    /// Spans dropped for any reason.
    #[must_use]
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Spans dropped for one reason.
    #[must_use]
    pub fn dropped(&self, why: DropReason) -> u64 {
        self.dropped[why as usize]
    }

    /// Spans that the destination will not have.
    pub(crate) fn gone(&self) -> u64 {
        self.rejected + self.dropped_in_all()
    }

    /// What is missing from the account, or too much in it: always 0.
    #[must_use]
    pub fn imbalance(&self) -> i64 {
        let known = self.sampled_out + self.queued + self.sent + self.gone();
        self.accepted.wrapping_sub(known) as i64
    }
}

impl Ledger {
    pub(crate) fn read(&self) -> Account {
        *self.account()
    }

    pub(crate) fn batches(&self) -> &Batches {
        &self.batches
    }

    /// Spans of requests that got here without them, or of which nothing was left to get here.
    pub(crate) fn sampled_out(&self, spans: u64) {
        let mut account = self.account();
        account.accepted += spans;
        account.sampled_out += spans;
    }

    /// Accepts spans unless `enqueue` gives back what they are in. Both are one step: whoever finds
    /// them in the queue finds them in the account.
    pub(crate) fn accept<T>(&self, spans: usize, enqueue: impl FnOnce() -> Option<T>) -> Option<T> {
        let mut account = self.account();
        let back = enqueue();
        if back.is_none() {
            account.accepted += spans as u64;
            account.queued += spans as u64;
        }
        back
    }

    pub(crate) fn refused(&self, spans: usize) {
        self.account().refused += spans as u64;
    }

    /// Dropped before they were let in: both in one step.
    pub(crate) fn shed(&self, spans: usize) {
        let mut account = self.account();
        account.accepted += spans as u64;
        account.dropped[DropReason::QueueFull as usize] += spans as u64;
    }

    pub(crate) fn sent(&self, spans: usize, rejected: u64) {
        let mut account = self.account();
        account.queued -= spans as u64;
        account.rejected += rejected;
        account.sent += spans as u64 - rejected;
    }

    pub(crate) fn dropped(&self, spans: usize, why: DropReason) {
        let mut account = self.account();
        account.queued -= spans as u64;
        account.dropped[why as usize] += spans as u64;
    }

    /// One request more is on its way, until what is returned is dropped.
    pub(crate) fn in_flight(self: &Arc<Self>) -> InFlight {
        self.account().requests_in_flight += 1;
        InFlight(Arc::clone(self))
    }

    pub(crate) fn attempted(&self, wire_bytes: usize) {
        let mut account = self.account();
        account.requests += 1;
        account.wire_bytes += wire_bytes as u64;
    }

    pub(crate) fn failed(&self) {
        self.account().failures += 1;
    }

    fn account(&self) -> std::sync::MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on its way, however that ends.
pub(crate) struct InFlight(Arc<Ledger>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.account().requests_in_flight -= 1;
    }
}

/// Spans into a processor and out of it, of requests that were taken over.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    incoming: AtomicU64,
    outgoing: AtomicU64,
}

impl Flow {
    pub(crate) fn passed(&self, incoming: usize, outgoing: usize) {
        self.incoming.fetch_add(incoming as u64, Ordering::Relaxed);
        self.outgoing.fetch_add(outgoing as u64, Ordering::Relaxed);
    }

    /// Both, in this order.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.incoming.load(Ordering::Relaxed), self.outgoing.load(Ordering::Relaxed))
    }
}

/// What became of the spans that a pipeline took over: `accepted = sampled_out + forwarded` at every
/// instant. What no destination took, and the sender has still, is not among them.
#[derive(Debug, Default)]
pub(crate) struct Passage(Mutex<Passed>);

/// Spans through a pipeline.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Taken over from receivers.
    pub accepted: u64,
    /// Left out by a sampler.
    pub sampled_out: u64,
    /// Given to each of the pipeline's destinations.
    pub forwarded: u64,
}

impl Passed {
    /// What is missing from the account, or too much in it: always 0.
    #[must_use]
    pub fn imbalance(&self) -> i64 {
        self.accepted.wrapping_sub(self.sampled_out + self.forwarded) as i64
    }
}

impl Passage {
    /// The spans of one request.
    pub(crate) fn passed(&self, request: Passed) {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        passed.accepted += request.accepted;
        passed.sampled_out += request.sampled_out;
        passed.forwarded += request.forwarded;
    }

    pub(crate) fn read(&self) -> Passed {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
