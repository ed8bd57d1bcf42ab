//! What is in a queue, in items and bytes, in one atomic word.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::Bounds;

/// How much of a queue's [`Bounds`] is taken.
///
/// Items, bytes and whether the queue is closed share one word, so that one compare-and-swap takes
/// a slot and its bytes together or neither. A count that is added to first and corrected
/// afterwards would pass the bound for an instant, and would refuse others in that instant.
///
/// ```text
///   63     62 ........... 40 39 ................................ 0
/// closed │       items      │              bytes                 │
/// ```
///
/// Every access is sequentially consistent: the argument in [`Gate`](super::gate::Gate), why no
/// wake-up is lost, needs one order over this word and the gate's. On x86-64 that costs nothing, as
/// read-modify-write instructions are full barriers there and loads are plain; on AArch64 it is the
/// load-acquire and store-release that the hand-over needs anyway.
#[derive(Debug)]
pub(super) struct Room {
    taken: AtomicU64,
}

/// What one or several items take: added to the word, and later subtracted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost(u64);

/// A reading of the word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken(u64);

/// Why a reservation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    Full,
    Closed,
}

const BYTES_BITS: u32 = 40;
const ITEMS_BITS: u32 = u64::BITS - 1 - BYTES_BITS;
const CLOSED: u64 = 1 << (u64::BITS - 1);
const ONE_ITEM: u64 = 1 << BYTES_BITS;

/// Items that the word can count: 8,388,607.
pub(super) const ITEMS_CEILING: u64 = (1 << ITEMS_BITS) - 1;
/// Bytes that the word can count: 1 TiB less one.
pub(super) const BYTES_CEILING: u64 = ONE_ITEM - 1;

impl Room {
    pub(super) fn new() -> Self {
        Self { taken: AtomicU64::new(0) }
    }

    /// Takes one slot and the bytes in `cost`; returns what was taken before.
    pub(super) fn reserve(&self, cost: Cost, bounds: &Bounds) -> Result<Taken, NoRoom> {
        let mut taken = self.read();
        loop {
            if taken.is_closed() {
                return Err(NoRoom::Closed);
            }
            // No underflow: neither has ever been passed.
            if taken.items() == bounds.items_max
                || bounds.bytes_max - taken.bytes() < cost.added_to(Taken(0)).bytes()
            {
                return Err(NoRoom::Full);
            }
            let after = cost.added_to(taken);
            match self.taken.compare_exchange_weak(taken.0, after.0, SeqCst, SeqCst) {
                Ok(_) => return Ok(taken),
                Err(now) => taken = Taken(now),
            }
        }
    }

    /// Gives back what [`reserve`](Self::reserve) took.
    pub(super) fn release(&self, cost: Cost) {
        self.taken.fetch_sub(cost.0, SeqCst);
    }

    /// Lets no later reservation succeed.
    pub(super) fn close(&self) {
        self.taken.fetch_or(CLOSED, SeqCst);
    }

    pub(super) fn read(&self) -> Taken {
        Taken(self.taken.load(SeqCst))
    }
}

impl Cost {
    /// The cost of one item; `held_bytes` is within [`BYTES_CEILING`], as every bound is.
    pub(super) fn of_item(held_bytes: usize) -> Self {
        Self(ONE_ITEM | held_bytes as u64)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0 += other.0;
    }

    pub(super) fn added_to(self, taken: Taken) -> Taken {
        Taken(taken.0 + self.0)
    }
}

impl Taken {
    pub(super) fn items(self) -> usize {
        // Lossless: at most `Bounds::items_max`, which is a usize.
        ((self.0 & !CLOSED) >> BYTES_BITS) as usize
    }

    pub(super) fn bytes(self) -> usize {
        // Lossless: at most `Bounds::bytes_max`, which is a usize.
        (self.0 & BYTES_CEILING) as usize
    }

    pub(super) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }
}
