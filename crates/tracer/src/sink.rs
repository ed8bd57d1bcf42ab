//! Where a thread's finished spans go: into its own chunk, one for each tracer it uses.

use std::cell::RefCell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use spanwire_codec::encode::SpanEnd;
use spanwire_pool::{ChunkFull, ChunkWriter};

use crate::outlet::{Loss, Outlet, TracedChunk, TracedSlice};
use crate::provider::Shared;
use crate::record::Record;
use crate::tracer::TracerShared;

/// Idle records a thread keeps for one tracer: as many spans as it may have open at once without
/// an allocation. More go to the tracer's shared pool, for threads that only ever start spans.
const RECORDS_KEPT: usize = 32;

thread_local! {
    static LOCAL: RefCell<Local> = const { RefCell::new(Local::new()) };
}

/// What a thread keeps for recording.
struct Local {
    /// The one used last comes first.
    sinks: Vec<Sink>,
    /// Whether spans started here are not recorded. Looked at only where there is no sink, so the
    /// thread is given none.
    suppressed: bool,
}

impl Local {
    const fn new() -> Self {
        Self { sinks: Vec::new(), suppressed: false }
    }

    #[inline]
    fn sink(&mut self, tracer: &Arc<TracerShared>) -> Option<&mut Sink> {
        match self.sinks.first() {
            Some(sink) if Arc::ptr_eq(&sink.tracer, tracer) => {}
            _ => self.bring_forward(tracer)?,
        }
        self.sinks.first_mut()
    }

    /// Makes the tracer's sink the first one; `None` where it has none and gets none.
    #[cold]
    fn bring_forward(&mut self, tracer: &Arc<TracerShared>) -> Option<()> {
        match self.sinks.iter().position(|sink| Arc::ptr_eq(&sink.tracer, tracer)) {
            Some(at) => self.sinks.swap(0, at),
            None => {
                // A closed provider records nothing more, and a tracer whose handles are all gone
                // starts nothing more; here their sinks are noticed and go.
                self.sinks.retain(|sink| !sink.tracer.is_obsolete());
                if self.suppressed || !tracer.provider.is_recording() {
                    return None;
                }
                self.sinks.insert(0, Sink::new(tracer)?);
            }
        }
        Some(())
    }
}

/// An open span's record and the tracer it belongs to.
///
/// Both stay together in a thread's store of idle records, so that starting and ending a span
/// touches no reference count that other threads touch.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) tracer: Arc<TracerShared>,
    pub(crate) record: Box<Record>,
}

/// Records no span that is started on this thread from now on, for as long as it lives.
///
/// For threads that serve the tracing itself: what they record would be about the sending of what
/// they record. Such spans are not recording and pass their parent on. Spans that were started on
/// another thread and end here are recorded as ever.
///
/// Cost: none for any other thread.
///
/// ```
/// use spanwire_tracer::{Loss, Provider, suppress_on_this_thread};
///
/// let tracer = Provider::builder().build(|_| Err(Loss::QueueFull)).tracer("exporter");
/// std::thread::spawn(move || {
///     suppress_on_this_thread();
///     assert!(!tracer.start("send a batch").is_recording());
/// })
/// .join()
/// .expect("no panic");
/// ```
pub fn suppress_on_this_thread() {
    // A thread in its last moments starts nothing more that matters.
    let _ended = LOCAL.try_with(|local| {
        if let Ok(mut local) = local.try_borrow_mut() {
            local.suppressed = true;
            local.sinks.clear();
        }
    });
}

fn is_suppressed() -> bool {
    let suppressed = LOCAL.try_with(|local| local.try_borrow().is_ok_and(|local| local.suppressed));
    suppressed.unwrap_or(false)
}

/// An empty record; counts a span as started. `None` once the provider is closed, on a thread that
/// is suppressed, and in a fork of its process.
#[inline(always)]
pub(crate) fn start(tracer: &Arc<TracerShared>) -> Option<Open> {
    let started = LOCAL.try_with(|local| {
        let mut local = local.try_borrow_mut().ok()?;
        Some(local.sink(tracer)?.start())
    });
    started.ok().flatten().unwrap_or_else(|| start_detached(tracer))
}

/// Encodes a finished span into the thread's chunk; counts it as recorded or as lost. In a fork of
/// its process it is neither: it is the parent's.
#[inline(never)]
pub(crate) fn end(mut open: Open) {
    open.record.end_now();
    let mut open = Some(open);
    let _ended = LOCAL.try_with(|local| {
        let mut local = local.try_borrow_mut().ok()?;
        let sink = local.sink(&open.as_ref()?.tracer)?;
        sink.end(open.take()?);
        Some(())
    });
    if let Some(open) = open {
        end_detached(open);
    }
}

#[cold]
#[inline(never)]
fn start_detached(tracer: &Arc<TracerShared>) -> Option<Open> {
    if is_suppressed() || !tracer.provider.is_recording() {
        return None;
    }
    Sink::new(tracer)?.start()
}

/// For a thread that has no sink and is given none, as in the destructor of another thread-local
/// value, or within the outlet.
#[cold]
#[inline(never)]
fn end_detached(open: Open) {
    if let Some(mut sink) = Sink::new(&open.tracer) {
        sink.end(open);
    }
}

/// One thread's end of one tracer.
struct Sink {
    tracer: Arc<TracerShared>,
    /// The tracer's, at the end of one pointer instead of two.
    provider: Arc<Shared>,
    slot: Arc<Slot>,
    writer: Option<ChunkWriter>,
    /// How many chunks of a new thread the next one's size comes after.
    filled: usize,
    idle: Vec<Open>,
}

impl Sink {
    /// `None` in a fork of the provider's process, where nothing of it may be touched.
    #[cold]
    fn new(tracer: &Arc<TracerShared>) -> Option<Self> {
        let tracer = Arc::clone(tracer);
        let provider = Arc::clone(&tracer.provider);
        if provider.is_inherited() {
            return None;
        }
        let slot = Arc::new(Slot::default());
        provider.register(&slot);
        Some(Self { tracer, provider, slot, writer: None, filled: 0, idle: Vec::new() })
    }

    #[inline]
    fn start(&mut self) -> Option<Open> {
        if !self.provider.is_recording() {
            return None;
        }
        add(&self.slot.started, 1);
        Some(self.idle.pop().unwrap_or_else(|| self.tracer.open()))
    }

    #[inline(always)]
    fn end(&mut self, mut open: Open) {
        match self.append(&open.record) {
            Ok(()) => add(&self.slot.recorded, 1),
            Err(loss) => add(&self.slot.lost[loss as usize], 1),
        }
        open.record.reset();
        if self.idle.len() < RECORDS_KEPT {
            self.idle.push(open);
        } else {
            open.tracer.keep(open.record);
        }
    }

    #[inline(always)]
    fn append(&mut self, record: &Record) -> Result<(), Loss> {
        if !self.provider.is_recording() {
            return self.refuse();
        }
        if let Some(writer) = &mut self.writer
            && let Some(end) = record.plain_end()
            && put(writer, record, &end).is_ok()
        {
            return Ok(());
        }
        self.append_out_of_line(record)
    }

    /// Appends a span that has more than attributes, or does not fit into the chunk.
    #[inline(never)]
    fn append_out_of_line(&mut self, record: &Record) -> Result<(), Loss> {
        let end = record.end();
        let bytes = record.writer.framed_len(&end);
        if self.writer.as_ref().is_none_or(|writer| writer.room() < bytes) {
            self.exchange(bytes)?;
        }
        let next = self.writer.as_mut().ok_or(Loss::Memory)?;
        put(next, record, &end).map_err(|_full| Loss::Memory)
    }

    /// Hands the full chunk over and takes the next one, which has room for so many bytes.
    #[cold]
    #[inline(never)]
    fn exchange(&mut self, bytes: usize) -> Result<(), Loss> {
        self.hand_over(|outlet, full| outlet.accept(full))?;
        let next = match self.next_chunk(bytes) {
            Some(next) => next,
            None => self.wait_for_chunk(bytes)?,
        };
        self.slot.set(Some(self.traced(&next)));
        self.writer = Some(next);
        Ok(())
    }

    fn next_chunk(&self, bytes: usize) -> Option<ChunkWriter> {
        let pool = self.provider.pool();
        pool.take_for(bytes, pool.size(self.filled).min(self.provider.share_bytes()))
    }

    /// Chooses the size of the next chunk by how many of the last one's spans no sweep had taken when it
    /// was full: of all of them, it was full too soon; of few, most of it was waiting for spans.
    fn resize(&mut self, untaken: usize, spans: usize) {
        let pool = self.provider.pool();
        if untaken == spans && pool.size(self.filled) < pool.chunk_bytes() {
            self.filled += 1;
        } else if untaken < spans / 4 {
            self.filled = self.filled.saturating_sub(1);
        }
    }

    /// The memory is used up; how long to wait for it is the outlet's decision.
    fn wait_for_chunk(&self, bytes: usize) -> Result<ChunkWriter, Loss> {
        let bytes_max = self.provider.pool().budget().bytes_max().min(u32::MAX as usize);
        let since = Instant::now();
        let make_room = || self.provider.outlet().make_room(since.elapsed());
        while bytes <= bytes_max && caught(make_room).unwrap_or(false) {
            if !self.provider.is_recording() {
                return Err(Loss::Shutdown);
            }
            if let Some(next) = self.next_chunk(bytes) {
                return Ok(next);
            }
        }
        Err(Loss::Memory)
    }

    /// Lets go of the chunk. Refused, it stays: the span at hand is shed, and the next one tries again.
    fn hand_over(
        &mut self,
        accept: impl FnOnce(&dyn Outlet, TracedChunk) -> Result<(), Loss>,
    ) -> Result<(), Loss> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let full = self.traced(writer);
        // Out of the slot first: from here on no sweep takes spans out of it. Whoever misses it there
        // finds it counted as being in hand, until it has arrived.
        self.slot.in_hand.store(full.chunk.pending() as u64, Ordering::Release);
        self.slot.set(None);
        let pending = full.chunk.pending();
        self.slot.in_hand.store(pending as u64, Ordering::Release);
        let offered = full.clone();
        let accepted = match pending {
            // Swept to the last span, it holds nothing but memory.
            0 => Ok(()),
            _ => caught(|| accept(self.provider.outlet(), offered)).unwrap_or(Err(Loss::QueueFull)),
        };
        match accepted {
            Ok(()) => {
                let spans = writer.spans();
                self.writer = None;
                self.resize(pending, spans);
                bump(&self.slot.arrived);
            }
            Err(_) => self.slot.set(Some(full)),
        }
        self.slot.in_hand.store(0, Ordering::Release);
        bump(&self.slot.handed);
        accepted
    }

    /// Sheds a span that ends after the closing. What the chunk holds ended before and may still be
    /// swept; once it is, the chunk goes. In a fork of the process it stays as it is.
    #[cold]
    fn refuse(&mut self) -> Result<(), Loss> {
        if self.provider.is_inherited() {
            return Err(Loss::Shutdown);
        }
        if self.writer.as_ref().is_some_and(|writer| writer.chunk().pending() == 0) {
            self.slot.set(None);
            self.writer = None;
        }
        Err(Loss::Shutdown)
    }

    fn traced(&self, writer: &ChunkWriter) -> TracedChunk {
        TracedChunk { chunk: writer.chunk(), scope: self.tracer.scope.clone() }
    }
}

/// What the outlet answers, unless it panics: where a span ends, which may be while its thread
/// unwinds, and in a thread's last moments a panic would abort the process.
fn caught<R>(ask: impl FnOnce() -> R) -> Option<R> {
    // Whatever it leaves half changed is its own.
    catch_unwind(AssertUnwindSafe(ask)).ok()
}

#[inline(always)]
fn put(writer: &mut ChunkWriter, record: &Record, end: &SpanEnd<'_>) -> Result<(), ChunkFull> {
    let mut space = writer.space(record.writer.framed_len(end))?;
    record.writer.put_framed(end, &mut space);
    space.append();
    Ok(())
}

/// The thread ends, or forgets a tracer.
impl Drop for Sink {
    fn drop(&mut self) {
        if self.provider.is_inherited() {
            // The parent still has what is in them; giving the chunk back to its pool, or dropping
            // it with the slot, could wait for a thread that is not in this process.
            mem::forget(self.writer.take());
            mem::forget(Arc::clone(&self.slot));
            return;
        }
        match self.hand_over(|outlet, last| outlet.accept_last(last)) {
            Ok(()) => self.provider.retire(&self.slot),
            // The slot outlives its thread, until a sweep has emptied it.
            Err(_) => self.provider.orphan(&self.slot),
        }
    }
}

/// What other threads may see of a sink: its chunk and its counts.
///
/// Aligned so that no two threads write to one cache line (128 bytes: processors fetch in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Slot {
    started: AtomicU64,
    recorded: AtomicU64,
    /// Spans that did not get into a chunk, by [`Loss`].
    lost: [AtomicU64; Loss::COUNT],
    /// Spans in a chunk that has left the slot and has not arrived anywhere yet.
    in_hand: AtomicU64,
    /// Hand-overs that have ended, and those among them that did not bring the chunk back.
    handed: AtomicU64,
    arrived: AtomicU64,
    /// The current chunk. The owner locks it once a chunk, to exchange a pointer; whoever sweeps,
    /// once a sweep, to take what is complete.
    chunk: Mutex<Option<TracedChunk>>,
}

impl Slot {
    fn set(&self, chunk: Option<TracedChunk>) {
        // The old one is dropped after the lock is released.
        let old = mem::replace(&mut *self.lock(), chunk);
        drop(old);
    }

    /// What is complete in the current chunk; or, without one, the hand-over that has it.
    ///
    /// Exact because of the lock: a chunk in hand was counted before it left, and it cannot come back,
    /// nor can the next one follow it, before the lock is released.
    pub(crate) fn take(&self) -> Result<Option<TracedSlice>, HandOver> {
        match &*self.lock() {
            Some(chunk) => Ok(chunk.take()),
            None => self.hand_over().map_or(Ok(None), Err),
        }
    }

    pub(crate) fn discard(&self) -> usize {
        self.lock().as_ref().map_or(0, |chunk| chunk.chunk.discard())
    }

    /// Spans in the current chunk that nobody took yet.
    pub(crate) fn pending(&self) -> u64 {
        let chunk = self.lock();
        chunk.as_ref().map_or(0, |chunk| chunk.chunk.pending() as u64)
    }

    pub(crate) fn in_hand(&self) -> u64 {
        // Acquire: who reads zero after a chunk was in hand also finds it where it went.
        self.in_hand.load(Ordering::Acquire)
    }

    /// The hand-over that is under way.
    pub(crate) fn hand_over(&self) -> Option<HandOver> {
        let handed = self.handed.load(Ordering::Acquire);
        let arrived = self.arrived.load(Ordering::Acquire);
        (self.in_hand() > 0).then_some(HandOver { handed, arrived })
    }

    pub(crate) fn counts(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            started: load(&self.started),
            recorded: load(&self.recorded),
            lost: self.lost.each_ref().map(load),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<TracedChunk>> {
        self.chunk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot's counts, or the sum of several.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) started: u64,
    pub(crate) recorded: u64,
    pub(crate) lost: [u64; Loss::COUNT],
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.started += other.started;
        self.recorded += other.recorded;
        for (sum, more) in self.lost.iter_mut().zip(other.lost) {
            *sum += more;
        }
    }
}

/// A hand-over of a chunk, by the counts before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HandOver {
    pub(crate) handed: u64,
    pub(crate) arrived: u64,
}

/// Counts one more for those who then look at what was counted.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Release);
}

/// Adds to a counter that only this thread writes: a load and a store, no locked instruction.
#[inline]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{Loss, Provider};

    /// Pitfall 16.
    #[test]
    fn a_span_touches_no_reference_count_that_threads_share() {
        let provider = Provider::builder().build(|_| Err(Loss::QueueFull));
        let tracer = provider.tracer("t");
        tracer.start("the first one of the thread").end();
        let counts = || {
            let shared = &tracer.shared;
            [
                (Arc::strong_count(shared), Arc::weak_count(shared)),
                (Arc::strong_count(&shared.provider), Arc::weak_count(&shared.provider)),
            ]
        };
        let before = counts();
        let span = tracer.start("warm");
        assert!(span.is_recording());
        assert_eq!(counts(), before, "while it is open");
        span.end();
        assert_eq!(counts(), before);
    }
}
