use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

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

/// Idle buffers of one size, the last one in the first one out: it is the one that is still in a
/// cache, and those that a burst once needed stay untouched below.
pub(crate) struct Shelf {
    size: usize,
    kept_max: usize,
    /// Nobody ever waits for it to put or to take: whoever holds it may have lost its processor.
    stack: Mutex<Vec<Arc<Buffer>>>,
    /// For buffers that come while another thread holds the stack.
    aside: ArrayQueue<Arc<Buffer>>,
}

/// As many buffers as can come at the same instant; one more is freed.
const ASIDE_MAX: usize = 16;

impl Shelf {
    fn new(size: usize, kept_max: usize) -> Self {
        Self { size, kept_max, stack: Mutex::default(), aside: ArrayQueue::new(ASIDE_MAX) }
    }

    /// Keeps a buffer, or frees it where enough are kept.
    pub(crate) fn put(&self, buffer: Arc<Buffer>) {
        let surplus = match self.try_lock() {
            Some(stack) if stack.len() >= self.kept_max => Some(buffer),
            Some(mut stack) => {
                stack.push(buffer);
                None
            }
            None => self.aside.push(buffer).err(),
        };
        // The trimming; the lock is free again.
        drop(surplus);
    }

    fn take(&self) -> Option<Arc<Buffer>> {
        let top = self.try_lock().and_then(|mut stack| stack.pop());
        top.or_else(|| self.aside.pop())
    }

    fn trim(&self) {
        let idle = std::mem::take(&mut *self.lock());
        // Freed with the lock free again.
        drop(idle);
        while self.aside.pop().is_some() {}
    }

    fn len(&self) -> usize {
        self.lock().len() + self.aside.len()
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Vec<Arc<Buffer>>>> {
        match self.stack.try_lock() {
            Ok(stack) => Some(stack),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Buffer>>> {
        // A push or pop is never half done.
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shelf({} idle of {} bytes)", self.len(), self.size)
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
                Arc::new(Shelf::new(size, kept))
            })
            .collect();
        Self { shelves, budget: Budget::new(settings.bytes_max) }
    }

    /// The chunk for a writer that has filled `filled` chunks before; `None` when the budget is
    /// exhausted.
    ///
    /// Cost: two atomic writes where a buffer is idle, else an allocation. Never waits, except for a
    /// moment where the budget is exhausted and another thread has its hands on the idle chunks.
    #[must_use]
    pub fn take(&self, filled: usize) -> Option<ChunkWriter> {
        let shelf = self.shelves.get(filled).or_else(|| self.shelves.last())?;
        self.take_from(shelf).or_else(|| {
            self.trim();
            self.take_from(shelf)
        })
    }

    /// A chunk with room for `bytes`, of the largest size up to `preferred`; of a smaller one where the
    /// budget has no more, as far as it has that room.
    ///
    /// For something larger than the largest chunk it has just that room, and is freed, not kept, after
    /// use. `None` when the budget is exhausted or the size does not fit in 32 bits.
    #[must_use]
    pub fn take_for(&self, bytes: usize, preferred: usize) -> Option<ChunkWriter> {
        let least = self.shelves.partition_point(|shelf| shelf.size < bytes);
        if least == self.shelves.len() {
            return self.take_exact(bytes);
        }
        let within = self.shelves.partition_point(|shelf| shelf.size <= preferred);
        let best = within.saturating_sub(1).max(least);
        // Idle chunks of other sizes are freed for it first: many small chunks are dearer than one.
        self.take(best).or_else(|| {
            let mut smaller = self.shelves[least..best].iter().rev();
            smaller.find_map(|shelf| self.take_from(shelf))
        })
    }

    /// An idle chunk of this size or a new one.
    fn take_from(&self, shelf: &Arc<Shelf>) -> Option<ChunkWriter> {
        let buffer = shelf.take().or_else(|| {
            let reservation = self.budget.reserve(shelf.size)?;
            Some(Arc::new(Buffer::new(Arc::downgrade(shelf), reservation)))
        })?;
        Some(ChunkWriter::new(buffer))
    }

    fn take_exact(&self, bytes: usize) -> Option<ChunkWriter> {
        u32::try_from(bytes).ok()?;
        let reservation = self.budget.reserve(bytes).or_else(|| {
            self.trim();
            self.budget.reserve(bytes)
        })?;
        Some(ChunkWriter::new(Arc::new(Buffer::new(Weak::new(), reservation))))
    }

    /// Frees every idle buffer.
    pub fn trim(&self) {
        self.shelves.iter().for_each(|shelf| shelf.trim());
    }

    /// Bytes of the chunk for a writer that has filled `filled` chunks before.
    #[must_use]
    pub fn size(&self, filled: usize) -> usize {
        self.shelves.get(filled).or_else(|| self.shelves.last()).map_or(0, |shelf| shelf.size)
    }

    /// Bytes of the largest pooled chunk.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        self.size(usize::MAX)
    }

    /// Bytes of idle buffers.
    #[must_use]
    pub fn idle_bytes(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.size * shelf.len()).sum()
    }

    /// The budget all chunks come from; idle ones count as used.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of one size, and that size's shelf.
    fn pool() -> (ChunkPool, Arc<Shelf>) {
        let settings =
            ChunkSettings { initial_bytes: 64, chunk_bytes: 64, ..ChunkSettings::default() };
        let pool = ChunkPool::new(settings);
        let shelf = Arc::clone(&pool.shelves[0]);
        (pool, shelf)
    }

    /// Takes a chunk, and says where its memory is.
    fn taken(pool: &ChunkPool) -> (ChunkWriter, usize) {
        let mut writer = pool.take(0).expect("within the budget");
        writer.append(1, |bytes| bytes.fill(1)).expect("64 bytes are free");
        let slice = writer.chunk().take().expect("one span");
        let address = slice.bytes.as_ptr().addr();
        (writer, address)
    }

    #[test]
    fn the_chunk_that_came_back_last_goes_out_first() {
        let (pool, _) = pool();
        let [(one, _), (two, second), (three, third)] = [(); 3].map(|()| taken(&pool));
        drop(one);
        drop(two);
        assert_eq!(taken(&pool).1, second);
        drop(three);
        let (_three, address) = taken(&pool);
        assert_eq!(address, third);
        assert_eq!(taken(&pool).1, second);
    }

    #[test]
    fn a_thread_that_is_interrupted_at_the_idle_chunks_holds_up_nobody() {
        let (pool, shelf) = pool();
        let (writer, address) = taken(&pool);
        let held = shelf.lock();
        drop(writer);
        assert_eq!(taken(&pool).1, address, "put aside, and taken from there");
        let chunks: Vec<_> = (0..=ASIDE_MAX).map(|_| taken(&pool)).collect();
        let used = pool.budget().used();
        drop(chunks);
        assert_eq!(pool.budget().used(), used - 64, "one more than is put aside is freed");
        drop(held);
        assert_eq!(pool.idle_bytes(), 64 * ASIDE_MAX);
        pool.trim();
        assert_eq!((pool.idle_bytes(), pool.budget().used()), (0, 0));
    }
}
