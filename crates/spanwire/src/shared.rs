//! What recording threads and the exporter's thread share: the queue and how to wake each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spanwire_batcher::{Bounds, Overflow, Queue, Refusal, Weigh};
use spanwire_tracer::{Loss, Outlet, TracedChunk};
use tokio::sync::Notify;

use crate::item::Queued;
use crate::stats::{Intake, Reason};

/// What recording threads and the exporter's thread share.
pub(crate) struct Shared {
    pub(crate) queue: Queue<Queued>,
    queue_spans_max: Option<u64>,
    overflow: Overflow,
    pub(crate) wake: Notify,
    /// Bytes in the queue at which the exporter is woken before its next tick.
    wake_bytes: usize,
    /// Whether a thread was in want since the exporter last took something or was done with it.
    starved: AtomicBool,
    /// Whether a thread has waited for memory in vain since a batch last was settled.
    stalled: AtomicBool,
    pub(crate) intake: Intake,
}

impl Shared {
    pub(crate) fn new(
        queue: Queue<Queued>,
        queue_spans_max: Option<usize>,
        overflow: Overflow,
        wake_bytes: usize,
    ) -> Self {
        Self {
            queue,
            queue_spans_max: queue_spans_max.map(|spans| spans as u64),
            overflow,
            wake: Notify::new(),
            wake_bytes,
            starved: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            intake: Intake::default(),
        }
    }

    /// What nothing is ever put into.
    pub(crate) fn disabled() -> Self {
        let queue = Queue::new(Bounds::MIN);
        Self::new(queue, None, Overflow::DropNewest, 0)
    }

    /// Counts what a queue that is to keep the newest has let go.
    fn shed(&self, oldest: Queued) {
        self.intake.dropped(oldest.chunk.chunk.discard(), Reason::QueueFull);
    }

    /// Wakes the exporter for a thread in want; one word is enough until it is heard, or every span
    /// shed would cost a system call.
    fn ask_for_room(&self) {
        if !self.starved.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Whether the queue's bound in spans leaves room, made as `overflow` has it, and for how long the
    /// thread has waited for it. The bound in bytes, which is the queue's own, comes on top. Two threads
    /// may be let in at once, a chunk too many.
    fn admits(&self, spans: u64, overflow: Overflow) -> Option<Duration> {
        let Some(spans_max) = self.queue_spans_max else { return Some(Duration::ZERO) };
        let fits = || {
            let queued = self.queue.stats().queued();
            // A chunk of more spans than the bound has to pass too.
            queued == 0 || queued + spans <= spans_max
        };
        let since = Instant::now();
        while !fits() {
            if !self.make_room(overflow, since.elapsed()) {
                // With nothing left to shed, whatever is counted is on its way in or out.
                return (overflow == Overflow::DropOldest).then_some(Duration::ZERO);
            }
        }
        Some(since.elapsed())
    }

    /// Makes some room, or waits a little for it, as `overflow` has it; returns whether to look again.
    fn make_room(&self, overflow: Overflow, waited: Duration) -> bool {
        self.ask_for_room();
        match overflow {
            Overflow::DropNewest => false,
            Overflow::DropOldest => self.queue.pop().map(|oldest| self.shed(oldest)).is_some(),
            Overflow::Block { timeout } if waited >= timeout => {
                self.stalled.store(true, Ordering::Relaxed);
                false
            }
            // A dead collector costs one timeout, not one for each span.
            Overflow::Block { .. } if self.stalled.load(Ordering::Relaxed) => false,
            Overflow::Block { .. } => {
                std::thread::sleep(ROOM_PAUSE);
                true
            }
        }
    }

    /// Whether the queue is so full that spans are soon lost for every destination. Threads that wait
    /// lose none.
    pub(crate) fn is_crowded(&self) -> bool {
        match self.overflow {
            Overflow::DropNewest | Overflow::DropOldest => {
                self.queue.fill().max(self.fill_in_spans()) > 0.5
            }
            Overflow::Block { .. } => false,
        }
    }

    /// How full the queue is by its bound in spans, from 0 to 1.
    fn fill_in_spans(&self) -> f64 {
        let fill = |spans_max| self.queue.stats().queued() as f64 / spans_max as f64;
        self.queue_spans_max.map_or(0.0, fill)
    }

    /// Takes up to so many of the chunks that wait, oldest first; returns how many.
    pub(crate) fn drain(&self, chunks_max: usize, take: impl FnMut(Queued)) -> usize {
        let taken = self.queue.drain(chunks_max, take);
        if taken > 0 {
            self.starved.store(false, Ordering::Relaxed);
        }
        taken
    }

    /// A batch, or a part of its memory, is done with.
    pub(crate) fn room_made(&self) {
        self.stalled.store(false, Ordering::Relaxed);
        self.starved.store(false, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

/// Between two looks for room, of a thread that is to wait for it.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// The recording threads' side.
pub(crate) struct QueueOutlet(pub(crate) Arc<Shared>);

impl Outlet for QueueOutlet {
    fn accept(&self, chunk: TracedChunk) -> Result<(), Loss> {
        self.push(chunk, self.0.overflow)
    }

    /// As for a full queue: memory is used up where it holds less than the threads and requests do.
    fn make_room(&self, waited: Duration) -> bool {
        self.0.make_room(self.0.overflow, waited)
    }

    fn accept_last(&self, chunk: TracedChunk) -> Result<(), Loss> {
        match self.0.overflow {
            // A thread that is ending does not wait for a collector.
            Overflow::Block { .. } => self.push(chunk, Overflow::DropNewest),
            overflow => self.push(chunk, overflow),
        }
    }
}

impl QueueOutlet {
    fn push(&self, chunk: TracedChunk, overflow: Overflow) -> Result<(), Loss> {
        let Self(shared) = self;
        let queued = Queued::new(chunk);
        let waited = shared.admits(queued.spans() as u64, overflow).ok_or(Loss::QueueFull)?;
        let overflow = match overflow {
            // What is left of it: both bounds together keep a thread no longer.
            Overflow::Block { timeout } => {
                Overflow::Block { timeout: timeout.saturating_sub(waited) }
            }
            overflow => overflow,
        };
        match shared.queue.push(queued, overflow, |oldest| shared.shed(oldest)) {
            Ok(pushed) => {
                // Once for each crossing, so that a wake-up pays for many chunks.
                if pushed.crossed(shared.wake_bytes) {
                    shared.wake.notify_one();
                }
                // Long before the bound in spans, which may be far below those bytes.
                if shared.fill_in_spans() > 0.5 {
                    shared.ask_for_room();
                }
                Ok(())
            }
            Err(refused) => {
                // The queue may have filled in one go.
                shared.ask_for_room();
                match refused.reason {
                    Refusal::Closed => Err(Loss::Shutdown),
                    Refusal::Full | Refusal::TimedOut => Err(Loss::QueueFull),
                    // One huge span. It will never fit, and until then its thread could record nothing.
                    Refusal::TooLarge => {
                        let spans = refused.item.chunk.chunk.discard();
                        shared.intake.dropped(spans, Reason::TooLarge);
                        Ok(())
                    }
                }
            }
        }
    }
}
