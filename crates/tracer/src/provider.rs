use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crossbeam_queue::ArrayQueue;
use spanwire_codec::encode::EncodedScope;
use spanwire_model::{Limits, Scope};
use spanwire_pool::{ChunkPool, ChunkSettings};

use crate::clock;
use crate::outlet::{Loss, Outlet, TracedScope, TracedSlice};
use crate::record::Record;
use crate::sampler::{Sampler, Settled};
use crate::sink::{Counts, HandOver, Open, Slot};
use crate::span::{Span, SpanBuilder};

/// Records that wait for a thread that starts spans after threads that ended them, for programs whose
/// spans change threads.
const RECORDS_SHARED: usize = 64;

/// Source of [`Tracer`]s that share a sampler, limits, memory and an outlet.
///
/// Clones are the same provider.
///
/// ```
/// use std::sync::mpsc;
/// use spanwire_tracer::{Loss, Provider, TracedChunk};
///
/// let (sender, full_chunks) = mpsc::channel();
/// let provider = Provider::builder()
///     .build(move |chunk: TracedChunk| sender.send(chunk).map_err(|_| Loss::Shutdown));
///
/// provider.tracer("shop").start("checkout").end();
///
/// let mut spans = 0;
/// provider.sweep(|slice| spans += slice.slice.spans); // chunks that are not full yet
/// assert_eq!(spans, 1);
/// ```
#[derive(Clone)]
pub struct Provider {
    shared: Arc<Shared>,
}

/// Settings of a [`Provider`].
#[derive(Clone, Debug, Default)]
pub struct ProviderBuilder {
    sampler: Sampler,
    limits: Limits,
    pool: Option<ChunkPool>,
}

impl ProviderBuilder {
    /// Which spans are recorded; by default all, unless their parent is not.
    #[must_use]
    pub fn sampler(mut self, sampler: Sampler) -> Self {
        self.sampler = sampler;
        self
    }

    /// What one span may hold.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where chunks come from; by default a pool with default settings.
    #[must_use]
    pub fn pool(mut self, pool: ChunkPool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// The provider, whose full chunks go to `outlet`.
    #[must_use]
    pub fn build(self, outlet: impl Outlet) -> Provider {
        let pool = self.pool.unwrap_or_else(|| ChunkPool::new(ChunkSettings::default()));
        // Every span starts after this first anchor, so that times are read between two of them.
        clock::anchor();
        Provider {
            shared: Arc::new(Shared {
                sampler: self.sampler,
                limits: self.limits,
                pool,
                outlet: Box::new(outlet),
                closed: AtomicBool::new(false),
                slots: Mutex::default(),
                tracers: Mutex::default(),
            }),
        }
    }
}

pub(crate) struct Shared {
    sampler: Sampler,
    limits: Limits,
    pool: ChunkPool,
    outlet: Box<dyn Outlet>,
    closed: AtomicBool,
    slots: Mutex<Slots>,
    /// Those in use, so that asking twice for a scope gives the same one.
    tracers: Mutex<Vec<Known>>,
}

/// A scope with its tracer.
struct Known {
    scope: Scope,
    shared: Weak<TracerShared>,
    in_use: Weak<()>,
}

#[derive(Default)]
struct Slots {
    live: Vec<Arc<Slot>>,
    /// Of threads that are gone and whose last chunk the outlet refused.
    orphans: Vec<Arc<Slot>>,
    /// What threads counted that are gone.
    retired: Counts,
    /// Spans thrown away, once [`Provider::abandon`] was called.
    abandoned: Option<u64>,
}

impl Slots {
    /// Throws away what is in chunks, if it is time for that.
    fn throw_away(&mut self) {
        if let Some(abandoned) = self.abandoned {
            let spans: u64 = self.all().map(|slot| slot.discard() as u64).sum();
            self.abandoned = Some(abandoned + spans);
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.live.iter().chain(&self.orphans)
    }
}

impl Shared {
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn pool(&self) -> &ChunkPool {
        &self.pool
    }

    pub(crate) fn outlet(&self) -> &dyn Outlet {
        &*self.outlet
    }

    pub(crate) fn register(&self, slot: &Arc<Slot>) {
        self.slots().live.push(Arc::clone(slot));
    }

    pub(crate) fn retire(&self, slot: &Arc<Slot>) {
        let mut slots = self.slots();
        slots.retired += slot.counts();
        slots.live.retain(|live| !Arc::ptr_eq(live, slot));
    }

    pub(crate) fn orphan(&self, slot: &Arc<Slot>) {
        let mut slots = self.slots();
        slots.live.retain(|live| !Arc::ptr_eq(live, slot));
        slots.orphans.push(Arc::clone(slot));
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Provider {
    /// A builder with the defaults.
    #[must_use]
    pub fn builder() -> ProviderBuilder {
        ProviderBuilder::default()
    }

    /// A tracer for a library of this name; the same one as before while somebody has it.
    #[must_use]
    pub fn tracer(&self, name: impl Into<spanwire_model::Text>) -> Tracer {
        self.tracer_of(&Scope::new(name))
    }

    /// A tracer for a scope; the same one as before while somebody has it.
    ///
    /// Cost: a lock and a comparison with each scope in use, so keep what you get. A new one also
    /// means chunks of its own for each thread that uses it.
    #[must_use]
    pub fn tracer_of(&self, scope: &Scope) -> Tracer {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let settled = self.shared.sampler.settled();
        let mut tracers = self.shared.tracers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        tracers.retain(|known| {
            let in_use = known.in_use.upgrade();
            let alive = in_use.is_some();
            if found.is_none() && known.scope == *scope {
                found = known.shared.upgrade().zip(in_use);
            }
            alive
        });
        let (shared, in_use) = found.unwrap_or_else(|| {
            let in_use = Arc::new(());
            let shared = Arc::new(TracerShared {
                provider: Arc::clone(&self.shared),
                scope: TracedScope {
                    id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
                    encoded: EncodedScope::new(scope),
                },
                records: ArrayQueue::new(RECORDS_SHARED),
                in_use: Arc::downgrade(&in_use),
            });
            tracers.push(Known {
                scope: scope.clone(),
                shared: Arc::downgrade(&shared),
                in_use: Arc::downgrade(&in_use),
            });
            (shared, in_use)
        });
        Tracer { shared, settled, _in_use: in_use }
    }

    /// Takes what every thread has finished so far, out of chunks that are not full; also keeps the
    /// clock true to the wall clock. To be called about as often as a span may wait.
    ///
    /// Recording goes on meanwhile, undisturbed. Returns the chunks that were with neither their
    /// threads nor the outlet at that moment, but on their way from one to the other.
    pub fn sweep(&self, mut each: impl FnMut(TracedSlice)) -> HandOvers {
        clock::anchor();
        let mut missed = Vec::new();
        // A copy: whoever gets the slices may start spans, which registers threads.
        let all: Vec<_> = self.shared.slots().all().cloned().collect();
        for slot in all {
            match slot.take() {
                Ok(Some(slice)) => each(slice),
                Ok(None) => {}
                Err(hand_over) => missed.push((slot, hand_over)),
            }
        }
        let mut slots = self.shared.slots();
        let Slots { orphans, retired, .. } = &mut *slots;
        orphans.retain(|slot| {
            let waiting = slot.pending() > 0;
            if !waiting {
                *retired += slot.counts();
            }
            waiting
        });
        HandOvers(missed)
    }

    /// Ends recording: spans that end from now on are lost, and counted as such.
    ///
    /// What ended before is still there for [`sweep`](Self::sweep).
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
    }

    /// Throws away what a sweep would find, from now on, and counts it as [`Loss::Shutdown`]: the last
    /// step after [`close`](Self::close), for spans that ended at that very moment.
    pub fn abandon(&self) {
        let mut slots = self.shared.slots();
        slots.abandoned.get_or_insert(0);
        slots.throw_away();
    }

    /// What was recorded and lost so far, summed over all threads.
    #[must_use]
    pub fn stats(&self) -> RecordStats {
        let mut slots = self.shared.slots();
        slots.throw_away();
        let mut counts = slots.retired;
        let mut in_chunks = 0;
        for slot in slots.all() {
            in_chunks += slot.pending() + slot.in_hand();
            counts += slot.counts();
        }
        RecordStats { counts, in_chunks, abandoned: slots.abandoned.unwrap_or(0) }
    }

    /// The memory its chunks take.
    #[must_use]
    pub fn pool(&self) -> &ChunkPool {
        &self.shared.pool
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("sampler", &self.shared.sampler)
            .field("closed", &self.shared.is_closed())
            .finish_non_exhaustive()
    }
}

/// Chunks that a [`Provider::sweep`] missed, as their threads were handing them over.
#[derive(Debug)]
pub struct HandOvers(Vec<(Arc<Slot>, HandOver)>);

impl HandOvers {
    /// Whether nothing was missed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether each of them has arrived or come back. Then another sweep finds what came back, or
    /// misses it again.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.0.iter().all(|(slot, hand_over)| slot.hand_over() != Some(*hand_over))
    }

    /// Those of a later sweep's that are about these same chunks: which came back meanwhile, and were
    /// on their way again.
    #[must_use]
    pub fn missed_again(&self, later: Self) -> Self {
        let same = |slot: &Arc<Slot>, arrived| {
            self.0
                .iter()
                .any(|(known, before)| Arc::ptr_eq(known, slot) && before.arrived == arrived)
        };
        Self(later.0.into_iter().filter(|(slot, now)| same(slot, now.arrived)).collect())
    }
}

/// Counts of a provider, in spans.
///
/// Once nothing ends any more: `started = recorded + live + lost`, and of the recorded ones each was
/// taken by a sweep or an outlet, is still in a chunk, or was abandoned.
#[derive(Clone, Copy, Debug)]
pub struct RecordStats {
    counts: Counts,
    in_chunks: u64,
    abandoned: u64,
}

impl RecordStats {
    /// Started and sampled.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.counts.started
    }

    /// Started and not ended yet.
    #[must_use]
    pub fn live(&self) -> u64 {
        let ended = self.counts.recorded + self.counts.lost.iter().sum::<u64>();
        // A span may end on another thread between the readings of the two threads' counts.
        self.counts.started.saturating_sub(ended)
    }

    /// Encoded into a chunk.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.counts.recorded
    }

    /// Waiting in chunks that are not full, or being handed over.
    #[must_use]
    pub fn in_chunks(&self) -> u64 {
        self.in_chunks
    }

    /// Lost here for this reason, before or after being recorded.
    #[must_use]
    pub fn lost(&self, loss: Loss) -> u64 {
        let abandoned = if loss == Loss::Shutdown { self.abandoned } else { 0 };
        self.counts.lost[loss as usize] + abandoned
    }
}

/// Starts spans of one instrumentation scope.
///
/// Clones are the same tracer; starting a span from a shared one writes no shared memory.
#[derive(Clone)]
pub struct Tracer {
    pub(crate) shared: Arc<TracerShared>,
    pub(crate) settled: Settled,
    /// Held by tracers alone, unlike `shared`, which threads hold too for as long as they live.
    _in_use: Arc<()>,
}

pub(crate) struct TracerShared {
    pub(crate) provider: Arc<Shared>,
    pub(crate) scope: TracedScope,
    records: ArrayQueue<Box<Record>>,
    in_use: Weak<()>,
}

impl TracerShared {
    /// Whether nobody can start a span with it any more.
    pub(crate) fn is_obsolete(&self) -> bool {
        self.provider.is_closed() || self.in_use.strong_count() == 0
    }

    /// A record for a new span.
    #[cold]
    pub(crate) fn open(self: &Arc<Self>) -> Open {
        let record = self.records.pop();
        let record = record.unwrap_or_else(|| Box::new(Record::new(self.provider.limits)));
        Open { tracer: Arc::clone(self), record }
    }

    /// Keeps an empty record for another thread, or frees it where enough are kept.
    #[cold]
    pub(crate) fn keep(&self, record: Box<Record>) {
        drop(self.records.push(record));
    }

    #[inline]
    pub(crate) fn sampler(&self) -> &Sampler {
        &self.provider.sampler
    }
}

impl fmt::Debug for TracerShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracerShared").field("scope", &self.scope.id).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Starts an internal span under the current one.
    #[inline]
    pub fn start(&self, name: &str) -> Span {
        self.span(name).start()
    }

    /// A span to be started, with more to say about it.
    #[inline]
    pub fn span<'a>(&'a self, name: &'a str) -> SpanBuilder<'a> {
        SpanBuilder::new(self, name)
    }

    /// Runs `work` within a new span, which ends with it.
    pub fn in_span<R>(&self, name: &str, work: impl FnOnce(&mut Span) -> R) -> R {
        let mut span = self.start(name);
        let _entered = span.enter();
        work(&mut span)
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tracer({})", self.shared.scope.id)
    }
}
