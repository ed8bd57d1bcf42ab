//! The account of spans at one destination, exact at every look.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Where every span is that a destination was given:
/// `accepted = sent + rejected + dropped + queued` at every instant, as each step is made under one
/// lock. Steps are per request, not per span.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    account: Mutex<Account>,
    shutting_down: AtomicBool,
}

/// Spans of one destination.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Given to the destination's queue.
    pub accepted: u64,
    /// Waiting, or on their way.
    pub queued: u64,
    /// Taken by the destination.
    pub sent: u64,
    /// Refused by the destination by partial success.
    pub rejected: u64,
    /// Lost here, by [`DropReason`].
    dropped: [u64; DropReason::ALL.len()],
    /// Not let into the queue, and not accepted therefore.
    pub refused: u64,
    /// Requests sent, whatever came of them.
    pub requests: u64,
    /// Requests that failed and were, or may have been, tried again.
    pub failures: u64,
    /// Bytes of requests as sent.
    pub wire_bytes: u64,
    /// Requests waiting in the queue, or on their way.
    pub requests_queued: u64,
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

    /// What is missing from the account, or too much in it: always 0.
    #[must_use]
    pub fn imbalance(&self) -> i64 {
        let known = self.queued + self.sent + self.rejected + self.dropped_in_all();
        self.accepted.wrapping_sub(known) as i64
    }
}

impl Ledger {
    pub(crate) fn read(&self) -> Account {
        *self.account()
    }

    /// From here on what is given up without a word is lost by the shutdown.
    pub(crate) fn shutting_down(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Why a claim was given up without a word.
    pub(crate) fn abandoned(&self) -> DropReason {
        match self.shutting_down.load(Ordering::Relaxed) {
            true => DropReason::Shutdown,
            false => DropReason::Internal,
        }
    }

    pub(crate) fn accepted(&self, spans: usize) {
        let mut account = self.account();
        account.accepted += spans as u64;
        account.queued += spans as u64;
        account.requests_queued += 1;
    }

    /// Not accepted after all: the queue is closed, and the spans are the sender's still.
    pub(crate) fn withdrawn(&self, spans: usize) {
        let mut account = self.account();
        account.accepted -= spans as u64;
        account.queued -= spans as u64;
        account.requests_queued -= 1;
        account.refused += spans as u64;
    }

    /// A request on its way is in the queue again.
    pub(crate) fn returned(&self) {
        self.account().requests_queued += 1;
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

    /// A request in the queue was cut into so many.
    pub(crate) fn queued_as(&self, parts: usize) {
        self.account().requests_queued += parts as u64 - 1;
    }

    /// So many requests of the queue became one on its way, until what is returned is dropped.
    pub(crate) fn left_queue(self: &Arc<Self>, requests: usize) -> InFlight {
        let mut account = self.account();
        account.requests_queued -= requests as u64;
        account.requests_in_flight += 1;
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

/// Spans into a stage and out of it.
#[derive(Debug, Default)]
pub(crate) struct Flow(Mutex<Passed>);

/// What a stage was given, and what it passed on; the rest it filtered or sampled out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) incoming: u64,
    pub(crate) outgoing: u64,
}

impl Flow {
    pub(crate) fn passed(&self, incoming: usize, outgoing: usize) {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        passed.incoming += incoming as u64;
        passed.outgoing += outgoing as u64;
    }

    pub(crate) fn read(&self) -> Passed {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
