//! A buffer that one thread appends spans to while others already take the finished ones.
#![expect(
    unsafe_code,
    reason = "one writer and many readers share a buffer without a lock, split by the ledger"
)]

use std::cell::UnsafeCell;
use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::budget::Reservation;
use crate::chunk_pool::Shelf;
use crate::ledger::{Ledger, Place};

/// The buffer with its ledger.
pub(crate) struct Buffer {
    ledger: Ledger,
    cells: Box<[UnsafeCell<u8>]>,
    /// Where it is kept when the last user is gone; dead for a buffer that is not pooled.
    home: Weak<Shelf>,
    /// Gives the bytes back to the budget when the buffer is freed.
    _reservation: Reservation,
}

// SAFETY: `cells` is what keeps `Buffer` from being `Sync`. A cell is written only through the one
// `ChunkWriter` (not `Clone`, appends by `&mut self`), and only past `ledger.published()`. It is
// read only before that mark, by `Slice`, after an acquiring load of it. So no cell is ever written
// while somebody may read it. `ledger.rs` checks the protocol with loom.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) fn new(home: Weak<Shelf>, reservation: Reservation) -> Self {
        let zeros: Box<[u8]> = vec![0; reservation.bytes()].into_boxed_slice();
        // SAFETY: `UnsafeCell<u8>` has the layout of `u8` (it is `repr(transparent)`), and the box
        // is given up by `into_raw` before it is taken over by `from_raw`.
        let cells = unsafe { Box::from_raw(Box::into_raw(zeros) as *mut [UnsafeCell<u8>]) };
        Self { ledger: Ledger::new(), cells, home, _reservation: reservation }
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        // `UnsafeCell::raw_get` of the slice's first cell, with the provenance of the whole slice.
        self.cells.as_ptr() as *mut u8
    }
}

/// One share of a buffer. The last one to go puts the buffer back on its shelf.
struct Share(Option<Arc<Buffer>>);

impl Share {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl std::ops::Deref for Share {
    type Target = Buffer;

    #[inline]
    fn deref(&self) -> &Buffer {
        self.0.as_deref().expect("emptied only by drop")
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(mut buffer) = self.0.take() else { return };
        // Two last shares that go at the same instant may both see the other; then the buffer is
        // freed rather than kept, which costs an allocation later and nothing else.
        if let Some(last) = Arc::get_mut(&mut buffer)
            && let Some(home) = last.home.upgrade()
        {
            last.ledger.reset();
            home.put(buffer);
        }
    }
}

/// The writing end of a chunk: appends spans, each visible to readers as soon as it is complete.
///
/// Obtained from [`ChunkPool::take`](crate::ChunkPool::take). Appending takes no lock, makes no
/// system call and writes no memory that another writer writes.
pub struct ChunkWriter {
    buffer: Share,
    /// What is published, kept here so that appending reads no shared memory.
    at: Place,
}

impl ChunkWriter {
    pub(crate) fn new(buffer: Arc<Buffer>) -> Self {
        Self { buffer: Share(Some(buffer)), at: Place::default() }
    }

    /// Appends one span of exactly `bytes` bytes, which `write` fills in: all of them, for until then
    /// they may be an earlier span's.
    ///
    /// Nothing is appended when `write` panics.
    ///
    /// # Errors
    ///
    /// [`ChunkFull`] when fewer bytes are left; `write` is not called.
    #[inline]
    pub fn append(&mut self, bytes: usize, write: impl FnOnce(&mut [u8])) -> Result<(), ChunkFull> {
        let mut space = self.space(bytes)?;
        write(&mut space);
        space.append();
        Ok(())
    }

    /// Room for one span of exactly `bytes` bytes, to be filled in and then [appended](Space::append).
    ///
    /// A chunk is used again without being cleared: what is not filled in would be sent as what an
    /// earlier span left there. Debug builds have a pattern in its place.
    ///
    /// ```
    /// use spanwire_pool::{ChunkPool, ChunkSettings};
    ///
    /// let pool = ChunkPool::new(ChunkSettings::default());
    /// let mut writer = pool.take(0).expect("the budget is not used");
    /// let mut space = writer.space(3).expect("4 KiB are free");
    /// space.copy_from_slice(b"abc");
    /// space.append();
    /// assert_eq!((writer.spans(), writer.room()), (1, (4 << 10) - 3));
    /// ```
    ///
    /// # Errors
    ///
    /// [`ChunkFull`] when fewer bytes are left.
    #[inline(always)]
    pub fn space(&mut self, bytes: usize) -> Result<Space<'_>, ChunkFull> {
        let start = self.at.bytes as usize;
        let Buffer { cells, ledger, .. } = &*self.buffer;
        if bytes > cells.len() - start {
            return Err(ChunkFull);
        }
        // SAFETY: `start + bytes` lies within the buffer, as just checked, and everything from
        // `start` on lies past `published`: it belongs to this one writer, borrowed by `&mut self`
        // for as long as the slice is there.
        // Readers hold no reference to it: `Slice` covers bytes before `published` only.
        let tail = unsafe { std::slice::from_raw_parts_mut(self.buffer.start().add(start), bytes) };
        // Worth it: benches/cpu_benchmarks.rs `chunk` measures it against a `Mutex<Vec<u8>>`.
        if cfg!(debug_assertions) {
            tail.fill(UNWRITTEN);
        }
        Ok(Space { tail, at: &mut self.at, ledger })
    }

    /// Spans appended so far.
    #[must_use]
    pub fn spans(&self) -> usize {
        self.at.spans as usize
    }

    /// Bytes that can still be appended.
    #[must_use]
    pub fn room(&self) -> usize {
        self.buffer.cells.len() - self.at.bytes as usize
    }

    /// A reading end.
    #[must_use]
    pub fn chunk(&self) -> Chunk {
        Chunk { buffer: self.buffer.clone() }
    }
}

impl fmt::Debug for ChunkWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkWriter({} spans, {} bytes)", self.at.spans, self.at.bytes)
    }
}

/// What debug builds put where a span is to be written: no tag of any field.
const UNWRITTEN: u8 = 0xff;

/// Where the next span of a chunk goes. Dropped, it appends nothing.
#[must_use = "nothing is appended until `append`"]
pub struct Space<'a> {
    tail: &'a mut [u8],
    at: &'a mut Place,
    ledger: &'a Ledger,
}

impl Space<'_> {
    /// Makes its bytes a span of the chunk, which readers see from now on.
    #[inline(always)]
    pub fn append(self) {
        let bytes = self.at.bytes + self.tail.len() as u32;
        *self.at = Place { spans: self.at.spans + 1, bytes };
        self.ledger.publish(*self.at);
    }
}

impl std::ops::Deref for Space<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        self.tail
    }
}

impl std::ops::DerefMut for Space<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.tail
    }
}

impl fmt::Debug for Space<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Space({} bytes)", self.tail.len())
    }
}

/// A span does not fit into what is left of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunk is full")]
pub struct ChunkFull;

/// A reading end of a chunk: takes the spans that are complete and that nobody took yet.
///
/// Any number of clones may exist, on any threads; each span is taken through exactly one of them.
pub struct Chunk {
    buffer: Share,
}

impl Chunk {
    /// The complete spans that were not taken yet, without copying them.
    ///
    /// Cost: one atomic write, and one small allocation where there are spans.
    #[must_use]
    pub fn take(&self) -> Option<Slice> {
        let (from, to) = self.buffer.ledger.claim()?;
        let readable = Readable { buffer: self.buffer.clone(), from, to };
        Some(Slice {
            spans: (to.spans - from.spans) as usize,
            held_bytes: self.capacity(),
            bytes: Bytes::from_owner(readable),
        })
    }

    /// Takes like [`take`](Self::take) and throws away; returns how many spans that were.
    pub fn discard(&self) -> usize {
        let claimed = self.buffer.ledger.claim();
        claimed.map_or(0, |(from, to)| (to.spans - from.spans) as usize)
    }

    /// Complete spans nobody took yet. A writer or reader at work can change it at once.
    #[must_use]
    pub fn pending(&self) -> usize {
        // `claimed` first: read the other way round it could run past an older `published`.
        let claimed = self.buffer.ledger.claimed();
        (self.buffer.ledger.published().spans - claimed.spans) as usize
    }

    /// Bytes of memory the whole chunk holds, used or not.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.cells.len()
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Self {
        Self { buffer: self.buffer.clone() }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} spans pending)", self.pending())
    }
}

/// Spans taken from a [`Chunk`]: whole, in the order they were appended.
///
/// The chunk's memory is held until the last clone of `bytes` is dropped.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The spans' bytes, one after the other.
    pub bytes: Bytes,
    /// How many spans they are.
    pub spans: usize,
    /// Memory held: the whole chunk's.
    pub held_bytes: usize,
}

/// The owner behind a slice's bytes.
struct Readable {
    buffer: Share,
    from: Place,
    to: Place,
}

impl AsRef<[u8]> for Readable {
    fn as_ref(&self) -> &[u8] {
        let (from, to) = (self.from.bytes as usize, self.to.bytes as usize);
        debug_assert!(from <= to && to <= self.buffer.cells.len());
        // SAFETY: `claim` returned this range, so it lies before a `published` that was loaded with
        // acquire: its bytes are initialised, within the buffer, and never written again while a
        // share exists (`reset` needs the last one). The buffer outlives the borrow of `self`.
        unsafe { std::slice::from_raw_parts(self.buffer.start().add(from), to - from) }
    }
}
