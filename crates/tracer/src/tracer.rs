use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crossbeam_queue::ArrayQueue;
use spanwire_codec::encode::EncodedScope;
use spanwire_model::Scope;

use crate::outlet::TracedScope;
use crate::provider::Shared;
use crate::record::Record;
use crate::sampler::{Sampler, Settled};
use crate::sink::Open;
use crate::span::{Span, SpanBuilder};

/// Records that wait for a thread that starts spans after threads that ended them, for programs whose
/// spans change threads.
const RECORDS_SHARED: usize = 64;

/// Starts spans of one instrumentation scope.
///
/// Clones are the same tracer; starting a span from a shared one writes no shared memory.
#[derive(Clone)]
pub struct Tracer {
    pub(crate) shared: Arc<TracerShared>,
    pub(crate) settled: Settled,
    /// Held by tracers alone, unlike `shared`, which threads hold too for as long as they live.
    pub(crate) in_use: Arc<()>,
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
        !self.provider.is_recording() || self.in_use.strong_count() == 0
    }

    /// A record for a new span.
    #[cold]
    pub(crate) fn open(self: &Arc<Self>) -> Open {
        let record = self.records.pop();
        let record = record.unwrap_or_else(|| Box::new(Record::new(self.provider.limits())));
        Open { tracer: Arc::clone(self), record }
    }

    /// Keeps an empty record for another thread, or frees it where enough are kept.
    #[cold]
    pub(crate) fn keep(&self, record: Box<Record>) {
        // In another process the queue may be in the middle of a change, for good.
        if !self.provider.is_inherited() {
            drop(self.records.push(record));
        }
    }

    #[inline]
    pub(crate) fn sampler(&self) -> &Sampler {
        self.provider.sampler()
    }
}

impl fmt::Debug for TracerShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracerShared").field("scope", &self.scope.id).finish_non_exhaustive()
    }
}

impl Tracer {
    pub(crate) fn new(provider: &Arc<Shared>, scope: &Scope) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let in_use = Arc::new(());
        let shared = Arc::new(TracerShared {
            provider: Arc::clone(provider),
            scope: TracedScope {
                id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
                encoded: EncodedScope::new(scope),
            },
            records: ArrayQueue::new(RECORDS_SHARED),
            in_use: Arc::downgrade(&in_use),
        });
        Self { settled: provider.sampler().settled(), shared, in_use }
    }

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
