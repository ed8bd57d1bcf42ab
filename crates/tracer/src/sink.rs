//! Where a thread's finished spans go: into its own chunk, one for each tracer it uses.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use spanwire_codec::encode::SpanParts;
use spanwire_model::SpanContext;
use spanwire_pool::ChunkWriter;

use crate::clock::{self, Line};
use crate::outlet::{Loss, TracedChunk, TracedSlice};
use crate::provider::TracerShared;
use crate::record::{Record, Time};

/// Idle records a thread keeps for one tracer: as many spans as it may have open at once without
/// an allocation. More go to the tracer's shared pool, for threads that only ever start spans.
const RECORDS_KEPT: usize = 64;

thread_local! {
    static LOCAL: RefCell<Local> = const { RefCell::new(Local::new()) };
}

/// What a thread keeps for recording.
struct Local {
    line: Line,
    /// The one used last comes first.
    sinks: Vec<Sink>,
}

impl Local {
    const fn new() -> Self {
        Self { line: Line::UNKNOWN, sinks: Vec::new() }
    }

    #[inline]
    fn sink(&mut self, tracer: &Arc<TracerShared>) -> &mut Sink {
        match self.sinks.first() {
            Some(sink) if Arc::ptr_eq(&sink.tracer, tracer) => {}
            _ => self.bring_forward(tracer),
        }
        &mut self.sinks[0]
    }

    #[cold]
    fn bring_forward(&mut self, tracer: &Arc<TracerShared>) {
        match self.sinks.iter().position(|sink| Arc::ptr_eq(&sink.tracer, tracer)) {
            Some(at) => self.sinks.swap(0, at),
            None => {
                // A closed provider records nothing more; here its sinks are noticed and go.
                self.sinks.retain(|sink| !sink.tracer.provider.is_closed());
                self.sinks.insert(0, Sink::new(Arc::clone(tracer)));
            }
        }
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

/// An empty record; counts a span as started.
#[inline]
pub(crate) fn start(tracer: &Arc<TracerShared>) -> Open {
    let taken = LOCAL.try_with(|local| {
        let mut local = local.try_borrow_mut().ok()?;
        Some(local.sink(tracer).start())
    });
    taken.ok().flatten().unwrap_or_else(|| Sink::new(Arc::clone(tracer)).start())
}

/// Encodes a finished span into the thread's chunk; counts it as recorded or as lost.
#[inline]
pub(crate) fn end(context: &SpanContext, open: Open) {
    let mut open = Some(open);
    let ended = LOCAL.try_with(|local| {
        let mut local = local.try_borrow_mut().ok()?;
        let open = open.take()?;
        let times = times(&mut local.line, &open.record);
        local.sink(&open.tracer).end(context, open, times);
        Some(())
    });
    if let (Err(_) | Ok(None), Some(open)) = (ended, open) {
        end_detached(context, open);
    }
}

/// For a thread whose local storage is gone or in use: a span that ends in the destructor of
/// another thread-local value, or within the outlet.
#[cold]
fn end_detached(context: &SpanContext, open: Open) {
    let mut line = Line::UNKNOWN;
    let times = times(&mut line, &open.record);
    Sink::new(Arc::clone(&open.tracer)).end(context, open, times);
}

#[inline]
fn times(line: &mut Line, record: &Record) -> (u64, u64) {
    match (record.start, record.end) {
        (Time::Ticks(start), Time::Ticks(end)) => line.unix_nanos(start, end),
        (start, end) => mixed_times(line, start, end),
    }
}

/// One end or both came from the caller: what they say goes, even an end before the start.
#[cold]
fn mixed_times(line: &mut Line, start: Time, end: Time) -> (u64, u64) {
    let mut unix_nano = |time| match time {
        Time::UnixNano(unix_nano) => unix_nano,
        Time::Ticks(ticks) => line.unix_nanos(ticks, ticks).0,
        Time::Never => {
            let now = clock::ticks();
            line.unix_nanos(now, now).0
        }
    };
    (unix_nano(start), unix_nano(end))
}

/// One thread's end of one tracer.
struct Sink {
    tracer: Arc<TracerShared>,
    slot: Arc<Slot>,
    writer: Option<ChunkWriter>,
    /// Chunks filled so far; decides the next one's size.
    filled: usize,
    idle: Vec<Open>,
}

impl Sink {
    #[cold]
    fn new(tracer: Arc<TracerShared>) -> Self {
        let slot = Arc::new(Slot::default());
        tracer.provider.register(&slot);
        Self { tracer, slot, writer: None, filled: 0, idle: Vec::new() }
    }

    #[inline]
    fn start(&mut self) -> Open {
        add(&self.slot.started, 1);
        self.idle.pop().unwrap_or_else(|| self.tracer.open())
    }

    #[inline]
    fn end(&mut self, context: &SpanContext, mut open: Open, times: (u64, u64)) {
        let parts = open.record.parts(context, times);
        match self.append(&parts) {
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

    #[inline]
    fn append(&mut self, span: &SpanParts<'_>) -> Result<(), Loss> {
        if self.tracer.provider.is_closed() {
            return self.refuse();
        }
        let bytes = span.framed_len();
        match &mut self.writer {
            Some(writer) if bytes <= writer.room() => put(writer, bytes, span),
            _ => self.append_to_next(bytes, span),
        }
    }

    /// Hands the full chunk over and starts the next one.
    #[cold]
    #[inline(never)]
    fn append_to_next(&mut self, bytes: usize, span: &SpanParts<'_>) -> Result<(), Loss> {
        if let Some(writer) = &self.writer {
            // Out of the slot first: from here on no sweep takes spans out of it.
            let full = self.traced(writer);
            self.slot.set(None);
            if let Err(loss) = self.tracer.provider.outlet().accept(full.clone()) {
                // It stays: this span is shed, and the next one tries again.
                self.slot.set(Some(full));
                return Err(loss);
            }
            self.writer = None;
            self.filled += 1;
        }
        let pool = self.tracer.provider.pool();
        let mut next = pool.take(self.filled).ok_or(Loss::Memory)?;
        if bytes > next.room() {
            next = match bytes > pool.chunk_bytes() {
                true => pool.take_exact(bytes),
                false => pool.take(usize::MAX),
            }
            .ok_or(Loss::Memory)?;
        }
        self.slot.set(Some(self.traced(&next)));
        put(self.writer.insert(next), bytes, span)
    }

    /// What a closed provider's threads still hold is lost, and counted.
    #[cold]
    fn refuse(&mut self) -> Result<(), Loss> {
        if let Some(writer) = self.writer.take() {
            self.slot.set(None);
            add(&self.slot.discarded[Loss::Shutdown as usize], writer.chunk().discard() as u64);
        }
        Err(Loss::Shutdown)
    }

    fn traced(&self, writer: &ChunkWriter) -> TracedChunk {
        TracedChunk { chunk: writer.chunk(), scope: self.tracer.scope.clone() }
    }
}

fn put(writer: &mut ChunkWriter, bytes: usize, span: &SpanParts<'_>) -> Result<(), Loss> {
    let written = writer.append(bytes, |mut tail| {
        span.put_framed(&mut tail);
        debug_assert!(tail.is_empty(), "`framed_len` is exact");
    });
    written.map_err(|_full| Loss::Memory)
}

/// The thread ends, or forgets a closed provider.
impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.slot.set(None);
            let loss = match self.tracer.provider.is_closed() {
                true => Err(Loss::Shutdown),
                false => self.tracer.provider.outlet().accept(self.traced(&writer)),
            };
            if let Err(loss) = loss {
                let spans = writer.chunk().discard();
                add(&self.slot.discarded[loss as usize], spans as u64);
            }
        }
        self.tracer.provider.retire(&self.slot);
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
    /// Spans thrown away out of a chunk, by [`Loss`].
    discarded: [AtomicU64; Loss::COUNT],
    /// The current chunk. The owner locks it once a chunk, to exchange a pointer; whoever sweeps,
    /// once a sweep, to take what is complete.
    chunk: Mutex<Option<TracedChunk>>,
}

impl Slot {
    fn set(&self, chunk: Option<TracedChunk>) {
        // The old one is dropped after the lock is released.
        let old = std::mem::replace(&mut *self.lock(), chunk);
        drop(old);
    }

    pub(crate) fn take(&self) -> Option<TracedSlice> {
        self.lock().as_ref()?.take()
    }

    pub(crate) fn discard(&self) -> usize {
        self.lock().as_ref().map_or(0, |chunk| chunk.chunk.discard())
    }

    pub(crate) fn pending(&self) -> usize {
        self.lock().as_ref().map_or(0, |chunk| chunk.chunk.pending())
    }

    pub(crate) fn counts(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            started: load(&self.started),
            recorded: load(&self.recorded),
            lost: self.lost.each_ref().map(load),
            discarded: self.discarded.each_ref().map(load),
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
    pub(crate) discarded: [u64; Loss::COUNT],
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.started += other.started;
        self.recorded += other.recorded;
        for (sum, more) in self.lost.iter_mut().zip(other.lost) {
            *sum += more;
        }
        for (sum, more) in self.discarded.iter_mut().zip(other.discarded) {
            *sum += more;
        }
    }
}

/// Adds to a counter that only this thread writes: a load and a store, no locked instruction.
#[inline]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}
