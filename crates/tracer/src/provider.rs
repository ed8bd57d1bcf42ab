use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use spanwire_model::{Limits, Scope};
use spanwire_pool::{ChunkPool, ChunkSettings};

use crate::clock;
use crate::fork;
use crate::outlet::{Loss, Outlet, TracedSlice};
use crate::sampler::Sampler;
use crate::sink::{Counts, HandOver, Slot};
use crate::tracer::{Tracer, TracerShared};

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
        // Before anything that a fork may copy.
        fork::watch();
        // Every span starts after this first anchor, so that times are read between two of them.
        clock::anchor();
        let made_in = fork::generation();
        Provider {
            shared: Arc::new(Shared {
                sampler: self.sampler,
                limits: self.limits,
                pool,
                outlet: Arc::new(outlet),
                made_in,
                records_in: AtomicU32::new(made_in),
                slots: Mutex::default(),
                live: AtomicUsize::new(0),
                tracers: Mutex::default(),
            }),
        }
    }
}

pub(crate) struct Shared {
    sampler: Sampler,
    limits: Limits,
    pool: ChunkPool,
    outlet: Arc<dyn Outlet>,
    /// The [generation](fork::generation) of its process.
    made_in: u32,
    /// The same, until it is closed: one comparison tells whether to record.
    records_in: AtomicU32,
    slots: Mutex<Slots>,
    /// As many as there are live ones.
    live: AtomicUsize,
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

/// No process's generation.
const CLOSED: u32 = u32::MAX;

impl Shared {
    /// Whether it is neither closed nor another process's.
    #[inline]
    pub(crate) fn is_recording(&self) -> bool {
        self.records_in.load(Ordering::Relaxed) == fork::generation()
    }

    /// Whether it was copied into this process by a fork.
    pub(crate) fn is_inherited(&self) -> bool {
        self.made_in != fork::generation()
    }

    pub(crate) fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn pool(&self) -> &ChunkPool {
        &self.pool
    }

    pub(crate) fn outlet(&self) -> &dyn Outlet {
        &*self.outlet
    }

    pub(crate) fn register(&self, slot: &Arc<Slot>) {
        self.slots().live.push(Arc::clone(slot));
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// Most bytes that a thread's next chunk should have, so that all together hold about an eighth of
    /// the memory; one of the smallest size it has in any case.
    pub(crate) fn share_bytes(&self) -> usize {
        let chunks = self.live.load(Ordering::Relaxed).max(1);
        self.pool.budget().bytes_max() / 8 / chunks
    }

    pub(crate) fn retire(&self, slot: &Arc<Slot>) {
        let mut slots = self.slots();
        slots.retired += slot.counts();
        self.forget(&mut slots, slot);
    }

    pub(crate) fn orphan(&self, slot: &Arc<Slot>) {
        let mut slots = self.slots();
        self.forget(&mut slots, slot);
        slots.orphans.push(Arc::clone(slot));
    }

    fn forget(&self, slots: &mut Slots, slot: &Arc<Slot>) {
        slots.live.retain(|live| !Arc::ptr_eq(live, slot));
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.is_inherited() {
            // Dropping these could wait for a thread that is not in this process.
            mem::forget(Arc::clone(&self.outlet));
            let slots = self.slots.get_mut().unwrap_or_else(PoisonError::into_inner);
            mem::forget(mem::take(slots));
        }
    }
}

impl Provider {
    /// A builder with the defaults.
    #[must_use]
    pub fn builder() -> ProviderBuilder {
        ProviderBuilder::default()
    }

    /// A provider that was closed before it recorded anything, for tracing that is switched off.
    ///
    /// Callers and callees trace as if this process were not between them: what is injected from a
    /// span under a sampled parent are the parent's ids and flags. Other spans are not sampled.
    ///
    /// ```
    /// use spanwire_tracer::{Context, Provider};
    ///
    /// let tracer = Provider::disabled().tracer("shop");
    /// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let _caller = Context::extract(|name| (name == "traceparent").then_some(header)).attach();
    /// let span = tracer.start("checkout");
    /// assert!(!span.is_recording());
    /// span.as_current().inject(|_, value| assert_eq!(value, header));
    /// ```
    ///
    /// Cost: no memory for chunks.
    ///
    /// Source: "Behavior of the API in the absence of an installed SDK" in `trace/api.md`,
    /// opentelemetry-specification v1.60.
    #[must_use]
    pub fn disabled() -> Self {
        let no_chunks = ChunkSettings {
            initial_bytes: 1,
            chunk_bytes: 1,
            bytes_max: 0,
            trim_threshold_bytes: 0,
            ..ChunkSettings::default()
        };
        let provider = Self::builder()
            .sampler(Sampler::parent_based(Sampler::AlwaysOff))
            .pool(ChunkPool::new(no_chunks))
            .build(|_| Err(Loss::Shutdown));
        provider.close();
        provider
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
        if self.is_inherited() {
            return Tracer::new(&self.shared, scope);
        }
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
        if let Some((shared, in_use)) = found {
            return Tracer { settled: self.shared.sampler.settled(), shared, in_use };
        }
        let tracer = Tracer::new(&self.shared, scope);
        tracers.push(Known {
            scope: scope.clone(),
            shared: Arc::downgrade(&tracer.shared),
            in_use: Arc::downgrade(&tracer.in_use),
        });
        tracer
    }

    /// Takes what every thread has finished so far, out of chunks that are not full; also keeps the
    /// clock true to the wall clock. To be called about as often as a span may wait.
    ///
    /// Recording goes on meanwhile, undisturbed. Returns the chunks that were with neither their
    /// threads nor the outlet at that moment, but on their way from one to the other.
    pub fn sweep(&self, mut each: impl FnMut(TracedSlice)) -> HandOvers {
        let mut missed = Vec::new();
        if self.is_inherited() {
            return HandOvers(missed);
        }
        self.follow_wall_clock();
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

    /// Keeps the clock true to the wall clock, as each [sweep](Self::sweep) does: for whoever has no
    /// room for what a sweep would find.
    pub fn follow_wall_clock(&self) {
        // One that is inherited takes no lock.
        if !self.is_inherited() {
            clock::anchor();
        }
    }

    /// Ends recording: spans that end from now on are lost, and counted as such. Those that start are
    /// not recording, and have their parents' ids, so that no callee refers to a span that nobody has.
    ///
    /// What ended before is still there for [`sweep`](Self::sweep).
    pub fn close(&self) {
        self.shared.records_in.store(CLOSED, Ordering::Relaxed);
    }

    /// Whether it was made in another process, of which this one is a fork.
    ///
    /// Such a provider and its tracers record nothing and take no lock, so they can neither send the
    /// parent's spans a second time nor wait for one of the parent's threads, which are not in this
    /// process. Their spans are as after [`close`](Self::close); those open at the fork are discarded where they end;
    /// a sweep finds nothing, and [`stats`](Self::stats) are empty. What they hold is never freed, so
    /// that dropping them is safe too. The parent has all of it still, and goes on.
    ///
    /// To record, make a new provider, with a pool of its own. Ids do not repeat the parent's, and
    /// spans started under a context of the parent's are its children.
    ///
    /// Always `false` where there is no `fork`.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.shared.is_inherited()
    }

    /// Throws away what a sweep would find, from now on, and counts it as [`Loss::Shutdown`]: the last
    /// step after [`close`](Self::close), for spans that ended at that very moment.
    pub fn abandon(&self) {
        if self.is_inherited() {
            return;
        }
        let mut slots = self.shared.slots();
        slots.abandoned.get_or_insert(0);
        slots.throw_away();
    }

    /// What was recorded and lost so far, summed over all threads; nothing if the provider
    /// [is inherited](Self::is_inherited).
    #[must_use]
    pub fn stats(&self) -> RecordStats {
        if self.is_inherited() {
            return RecordStats::default();
        }
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
            .field("recording", &self.shared.is_recording())
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
#[derive(Clone, Copy, Debug, Default)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_follows_the_wall_clock_without_a_sweep() {
        let provider = Provider::builder().build(|_| Ok(()));
        let before = clock::anchored();
        // Longer than a clock takes to settle.
        std::thread::sleep(std::time::Duration::from_millis(20));
        provider.follow_wall_clock();
        assert!(clock::anchored() > before);
    }

    /// Faults 135.
    #[test]
    fn nothing_is_kept_of_threads_that_are_gone_once_their_chunks_are_taken() {
        for refuse in [false, true] {
            let outlet = move |_| if refuse { Err(Loss::QueueFull) } else { Ok(()) };
            let provider = Provider::builder().build(outlet);
            let tracer = provider.tracer("t");
            for _ in 0..100 {
                let tracer = tracer.clone();
                std::thread::spawn(move || tracer.start("short").end()).join().expect("ends");
            }
            let kept = || {
                let slots = provider.shared.slots();
                (slots.live.len(), slots.orphans.len())
            };
            assert_eq!(kept(), (0, if refuse { 100 } else { 0 }));
            assert!(provider.sweep(drop).is_empty());
            assert_eq!(kept(), (0, 0));
            let stats = provider.stats();
            assert_eq!((stats.started(), stats.recorded(), stats.in_chunks()), (100, 100, 0));
            let threads = Arc::strong_count(&tracer.shared);
            assert_eq!(threads, 1, "no thread holds the tracer");
        }
    }
}
