//! One destination: its share of the memory, its account, and the tasks that serve it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use spanwire_transport::Body;

use crate::diagnostics::{Diagnostics, Kind};
use crate::shared::Shared;
use crate::stats::{Account, Reason};
use crate::waits::Waits;
use crate::way::Way;

/// A destination as the exporter and the tasks see it.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) account: Account,
    pub(crate) way: Way,
    pub(crate) waits: Waits,
    pub(crate) diagnostics: Diagnostics,
    shared: Arc<Shared>,
    /// Memory that its batches hold, in bytes.
    held_bytes: AtomicUsize,
    held_bytes_max: usize,
    /// When it last took a batch, or was idle; in milliseconds since `started`.
    moved_ms: AtomicU64,
    started: Instant,
}

/// A full destination that has settled nothing for so long no longer holds up the others.
const STUCK_AFTER: Duration = Duration::from_secs(5);

impl Line {
    pub(crate) fn new(
        name: String,
        way: Way,
        held_bytes_max: usize,
        diagnostics: Diagnostics,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            name,
            account: Account::default(),
            way,
            waits: Waits::default(),
            diagnostics,
            shared,
            held_bytes: AtomicUsize::new(0),
            held_bytes_max,
            moved_ms: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// Whether its share of the memory would be used up with so many bytes more.
    pub(crate) fn is_full(&self, more: usize) -> bool {
        self.room_bytes(more) == 0
    }

    /// What would be left of its share of the memory with so many bytes more.
    pub(crate) fn room_bytes(&self, more: usize) -> usize {
        let held_bytes = self.held_bytes.load(Ordering::Relaxed);
        self.held_bytes_max.saturating_sub(held_bytes.saturating_add(more))
    }

    /// When it will have settled nothing for so long that it counts as stuck. None where it holds
    /// nothing.
    pub(crate) fn stuck_at(&self) -> Option<Instant> {
        let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
        (self.held_bytes.load(Ordering::Relaxed) > 0).then(|| self.started + moved + STUCK_AFTER)
    }

    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        self.stuck_at().is_some_and(|at| at <= now)
    }

    fn moved(&self) {
        let now = self.started.elapsed().as_millis();
        self.moved_ms.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Sends one batch until all of its spans are accepted or given up.
    pub(crate) async fn deliver(self: Arc<Self>, claim: Claim, body: Body) {
        match &self.way {
            Way::Otlp(way) => way.deliver(claim, body).await,
            Way::Lines(way) => way.deliver(claim, body).await,
        }
    }

    /// Says what went wrong, in the account and to people.
    pub(crate) fn note(&self, kind: Kind, text: String) {
        self.diagnostics.say(kind, Instant::now(), || format!("{}: {text}", self.name));
        self.account.set_last_error(text);
    }
}

/// Spans of one batch that a destination has still to answer for, and the memory they hold.
///
/// Dropped, in a task that was aborted or panicked, it counts what is left as lost. So no way out of
/// a task loses a span uncounted or keeps memory for ever.
pub(crate) struct Claim {
    line: Arc<Line>,
    spans: usize,
    bytes: usize,
}

impl Claim {
    pub(crate) fn new(line: Arc<Line>, spans: usize, bytes: usize) -> Self {
        if line.held_bytes.fetch_add(bytes, Ordering::Relaxed) == 0 {
            line.moved();
        }
        line.account.taken(spans);
        Self { line, spans, bytes }
    }

    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// So many bytes stand for the spans now: their own memory is free again, or what was
    /// compressed had to be opened.
    pub(crate) fn holds(&mut self, bytes: usize) {
        self.line.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.line.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if bytes < self.bytes {
            self.line.shared.room_made();
        }
        self.bytes = bytes;
    }

    /// So many of them were taken, all but `rejected` for good.
    pub(crate) fn exported(&mut self, spans: usize, rejected: u64) {
        self.spans -= spans;
        self.line.account.exported(spans, rejected);
        self.line.moved();
    }

    pub(crate) fn dropped(&mut self, spans: usize, reason: Reason) {
        self.spans -= spans;
        self.line.account.dropped(spans, reason);
        match reason {
            // An answer too.
            Reason::Refused | Reason::TooLarge => self.line.moved(),
            _ => {}
        }
    }

    /// All that are left.
    pub(crate) fn dropped_rest(&mut self, reason: Reason) {
        if self.spans > 0 {
            self.dropped(self.spans, reason);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        self.dropped_rest(if panicked { Reason::Internal } else { Reason::Shutdown });
        self.line.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.line.shared.room_made();
    }
}
