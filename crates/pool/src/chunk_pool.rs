use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::Budget;
use crate::chunk::{Buffer, ChunkWriter};

/// How large chunks are and how many bytes they may take together.
///
/// ```
/// use spanwire_pool::ChunkSettings;
///
/// let settings = ChunkSettings { bytes_max: 8 << 20, ..ChunkSettings::default() };
/// assert_eq!(settings.sizes().collect::<Vec<_>>(), [4 << 10, 16 << 10, 64 << 10]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSettings {
    /// Bytes of a writer's first chunk: what a thread costs that records a span or two.
    pub initial_bytes: usize,
    /// How much larger each further chunk of the same writer is.
    pub growth_factor: usize,
    /// Bytes of the largest chunk; growth ends here.
    pub chunk_bytes: usize,
    /// Bytes of all chunks together, in use or idle.
    pub bytes_max: usize,
    /// Idle bytes of each size kept for reuse; a chunk that comes back beyond them is freed.
    pub trim_threshold_bytes: usize,
}

impl ChunkSettings {
    /// Most sizes there are, whatever the settings say.
    const SIZES_MAX: usize = 8;

    /// The sizes a writer's chunks go through, smallest first.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        let largest = self.chunk_bytes.clamp(1, u32::MAX as usize);
        let factor = self.growth_factor.max(2);
        let first = self.initial_bytes.clamp(1, largest);
        std::iter::successors(Some(first), move |&size| {
            (size < largest).then(|| size.saturating_mul(factor).min(largest))
        })
        .take(Self::SIZES_MAX)
    }
}

impl Default for ChunkSettings {
    fn default() -> Self {
        Self {
            initial_bytes: 4 << 10,
            growth_factor: 4,
            chunk_bytes: 64 << 10,
            bytes_max: 64 << 20,
            trim_threshold_bytes: 16 << 20,
        }
    }
}

/// Hands out chunks within a budget and takes them back when their last user is gone.
///
/// ```
/// use spanwire_pool::{ChunkPool, ChunkSettings};
///
/// let pool = ChunkPool::new(ChunkSettings::default());
/// let mut writer = pool.take(0).expect("the budget is empty");
/// writer.append(3, |bytes| bytes.copy_from_slice(b"abc")).expect("4 KiB are free");
///
/// let slice = writer.chunk().take().expect("one span is complete");
/// assert_eq!((&slice.bytes[..], slice.spans), (&b"abc"[..], 1));
///
/// drop((writer, slice)); // the buffer is idle now, ready for the next writer
/// assert_eq!(pool.idle_bytes(), 4 << 10);
/// ```
#[derive(Clone, Debug)]
pub struct ChunkPool {
    shelves: Arc<[Arc<Shelf>]>,
    budget: Budget,
}

/// Idle buffers of one size.
pub(crate) struct Shelf {
    size: usize,
    idle: ArrayQueue<Arc<Buffer>>,
}

impl Shelf {
    /// Keeps a buffer, or frees it where enough are kept.
    pub(crate) fn put(&self, buffer: Arc<Buffer>) {
        // Dropping the surplus is the trimming.
        drop(self.idle.push(buffer));
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shelf({} idle of {} bytes)", self.idle.len(), self.size)
    }
}

impl ChunkPool {
    /// A pool without any buffer yet.
    #[must_use]
    pub fn new(settings: ChunkSettings) -> Self {
        let shelves = settings
            .sizes()
            .map(|size| {
                let kept = (settings.trim_threshold_bytes / size).max(1);
                Arc::new(Shelf { size, idle: ArrayQueue::new(kept) })
            })
            .collect();
        Self { shelves, budget: Budget::new(settings.bytes_max) }
    }

    /// The chunk for a writer that has filled `filled` chunks before; `None` when the budget is
    /// exhausted.
    ///
    /// Cost: a pop from a lock-free queue where a buffer is idle, else an allocation.
    #[must_use]
    pub fn take(&self, filled: usize) -> Option<ChunkWriter> {
        let shelf = self.shelves.get(filled).or_else(|| self.shelves.last())?;
        if let Some(buffer) = shelf.idle.pop() {
            return Some(ChunkWriter::new(buffer));
        }
        let reservation = self.budget.reserve(shelf.size).or_else(|| {
            self.trim();
            self.budget.reserve(shelf.size)
        })?;
        let home = Arc::downgrade(shelf);
        Some(ChunkWriter::new(Arc::new(Buffer::new(home, reservation))))
    }

    /// A chunk for something larger than the largest chunk; freed, not kept, after use.
    ///
    /// `None` when the budget is exhausted or the size does not fit in 32 bits.
    #[must_use]
    pub fn take_exact(&self, bytes: usize) -> Option<ChunkWriter> {
        u32::try_from(bytes).ok()?;
        let reservation = self.budget.reserve(bytes).or_else(|| {
            self.trim();
            self.budget.reserve(bytes)
        })?;
        Some(ChunkWriter::new(Arc::new(Buffer::new(std::sync::Weak::new(), reservation))))
    }

    /// Frees every idle buffer.
    pub fn trim(&self) {
        for shelf in self.shelves.iter() {
            while shelf.idle.pop().is_some() {}
        }
    }

    /// Bytes of the largest pooled chunk.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        self.shelves.last().map_or(0, |shelf| shelf.size)
    }

    /// Bytes of idle buffers.
    #[must_use]
    pub fn idle_bytes(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.size * shelf.idle.len()).sum()
    }

    /// The budget all chunks come from; idle ones count as used.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}
