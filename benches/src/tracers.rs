//! Spanwire's tracer by itself, whose finished spans go nowhere or are kept.

use std::hint::black_box;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spanwire_tracer::{Provider, Sampler, TracedChunk, TracedSlice, Tracer};

use crate::fixtures::SCOPE;

/// Spanwire with everything but the sending: spans are encoded, and each full chunk is taken over as
/// the exporter takes it, then dropped, which gives its memory back to the pool.
#[must_use]
pub fn spanwire(sampler: Sampler) -> Provider {
    Provider::builder().sampler(sampler).build(|chunk: TracedChunk| {
        black_box(chunk.take());
        Ok(())
    })
}

/// The same, which keeps what it has encoded.
#[derive(Debug)]
pub struct Keeping {
    provider: Provider,
    kept: Kept,
}

type Kept = Arc<Mutex<Vec<TracedSlice>>>;

fn lock(kept: &Kept) -> MutexGuard<'_, Vec<TracedSlice>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeping {
    /// One that has kept nothing so far.
    #[must_use]
    pub fn new() -> Self {
        let kept = Kept::default();
        let full = Arc::clone(&kept);
        let keep = move |chunk: TracedChunk| {
            lock(&full).extend(chunk.take());
            Ok(())
        };
        Self { provider: Provider::builder().build(keep), kept }
    }

    /// What records into it.
    #[must_use]
    pub fn tracer(&self) -> Tracer {
        self.provider.tracer(SCOPE)
    }

    /// All spans that have ended, those included that were still in their thread's chunk.
    pub fn spans(&self) -> MutexGuard<'_, Vec<TracedSlice>> {
        let mut kept = lock(&self.kept);
        drop(self.provider.sweep(|slice| kept.push(slice)));
        kept
    }
}

impl Default for Keeping {
    fn default() -> Self {
        Self::new()
    }
}
