//! The bounded hand-over from many threads to one.

mod gate;
mod room;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;

use self::gate::Gate;
use self::room::{BYTES_CEILING, Cost, ITEMS_CEILING, NoRoom, Room};
use crate::Weigh;

/// A first-in, first-out queue bounded by items and by the bytes they hold in memory.
///
/// Any number of threads may push, and any number may pop. Neither takes a lock, except a push that
/// has to wait under [`Overflow::Block`] and whoever then wakes it. A push that finds room costs a
/// compare-and-swap for the room, one for the slot and one counter.
///
/// # Waking the consumer
///
/// The queue wakes no consumer; [`Pushed`] tells the caller when to, once per crossing of a
/// threshold rather than once per push. For that the consumer has to keep one rule: **sleep only
/// after [`is_empty`](Self::is_empty) said so** (or [`bytes`](Self::bytes) is below the threshold),
/// never because [`pop`](Self::pop) had nothing. An item counts from the moment its room is taken,
/// a few instructions before it can be popped; with this rule the push that finds the queue empty
/// is sure to come after the look that found it so, and its wake-up cannot be missed.
///
/// A consumer that sleeps below a threshold instead has to keep the threshold a largest item under
/// the bound and look at the queue now and then besides; otherwise an item that doesn't fit is
/// refused, or waits, while nobody is told.
///
/// ```
/// use spanwire_batcher::{Bounds, Overflow, Queue, Weigh};
///
/// struct Chunk { spans: usize, buffer: Vec<u8> }
///
/// impl Weigh for Chunk {
///     fn spans(&self) -> usize { self.spans }
///     fn wire_bytes(&self) -> usize { self.buffer.len() }
///     fn held_bytes(&self) -> usize { self.buffer.capacity() }
/// }
///
/// let queue = Queue::new(Bounds::new(1024, 150_000)?);
/// let chunk = |spans| Chunk { spans, buffer: Vec::with_capacity(65_536) };
///
/// let pushed = queue.push(chunk(100), Overflow::DropNewest, drop).map_err(|e| e.reason)?;
/// assert!(pushed.to_empty(), "the consumer may be asleep: wake it");
/// queue.push(chunk(200), Overflow::DropNewest, drop).map_err(|e| e.reason)?;
///
/// // A third buffer would take the queue over its bytes: the oldest makes room for it.
/// let mut lost = 0;
/// queue.push(chunk(300), Overflow::DropOldest, |shed| lost += shed.spans).map_err(|e| e.reason)?;
/// assert_eq!((lost, queue.stats().evicted, queue.bytes()), (100, 100, 131_072));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Queue<T> {
    ring: ArrayQueue<Entry<T>>,
    bounds: Bounds,
    gate: Gate,
    /// On one line, because a push writes both: whoever owns the line for one has it for the other.
    entrance: CachePadded<Entrance>,
    /// Spans popped; apart from the entrance, so that the consumer doesn't slow the producers.
    popped: CachePadded<AtomicU64>,
    /// Written only when something is shed.
    shed: CachePadded<Shed>,
}

#[derive(Debug)]
struct Entrance {
    room: Room,
    /// Spans pushed. Added to before the item can be popped, and read after `popped`, so that
    /// nobody sees more spans leave than came.
    pushed: AtomicU64,
}

/// An item with its weight as it was when pushed: what is given back is what was taken.
struct Entry<T> {
    item: T,
    spans: u64,
    cost: Cost,
}

/// Spans shed, by reason.
#[derive(Debug, Default)]
struct Shed {
    evicted: AtomicU64,
    full: AtomicU64,
    timed_out: AtomicU64,
    too_large: AtomicU64,
    closed: AtomicU64,
}

impl<T: Weigh> Queue<T> {
    /// An empty queue. Its slots are allocated here and nothing is allocated after.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            ring: ArrayQueue::new(bounds.items_max),
            bounds,
            gate: Gate::new(),
            entrance: CachePadded::new(Entrance { room: Room::new(), pushed: AtomicU64::new(0) }),
            popped: CachePadded::new(AtomicU64::new(0)),
            shed: CachePadded::new(Shed::default()),
        }
    }

    /// Appends `item`, doing what `overflow` says if there is no room.
    ///
    /// Items evicted by [`Overflow::DropOldest`] are given to `shed`, oldest first, for the caller
    /// to count; the other policies don't call it.
    ///
    /// # Errors
    ///
    /// Hands the item back, with the reason: no room, larger than the whole queue, or closed.
    pub fn push(
        &self,
        item: T,
        overflow: Overflow,
        shed: impl FnMut(T),
    ) -> Result<Pushed, PushError<T>> {
        let (spans, held_bytes) = (item.spans() as u64, item.held_bytes());
        if held_bytes > self.bounds.bytes_max {
            return Err(self.refuse(item, spans, Refusal::TooLarge));
        }
        let cost = Cost::of_item(held_bytes);
        let reserved = match self.entrance.room.reserve(cost, &self.bounds) {
            Ok(before) => Ok(before),
            Err(NoRoom::Closed) => Err(Refusal::Closed),
            Err(NoRoom::Full) => self.make_room(cost, overflow, shed),
        };
        let before = match reserved {
            Ok(before) => before,
            Err(reason) => return Err(self.refuse(item, spans, reason)),
        };
        self.entrance.pushed.fetch_add(spans, Relaxed);
        let entry = Entry { item, spans, cost };
        let Ok(()) = self.ring.push(entry) else {
            // Room is given back only once its entry has left the ring, so the entries in there and
            // the one here are at most `items_max`, which is the ring's capacity.
            unreachable!("a reservation is a free slot");
        };
        let after = cost.added_to(before);
        Ok(Pushed { items: after.items(), bytes: after.bytes(), item_bytes: held_bytes })
    }

    /// Takes the oldest item.
    ///
    /// `None` if there is none, or none that is wholly pushed yet; see
    /// [waking the consumer](Self#waking-the-consumer).
    pub fn pop(&self) -> Option<T> {
        let entry = self.ring.pop()?;
        self.give_back(entry.cost, entry.spans);
        Some(entry.item)
    }

    /// Takes up to `items_max` items, oldest first; returns how many.
    ///
    /// Cheaper than as many [`pop`](Self::pop)s: the room they took is given back at once at the
    /// end, so `take` should keep the item and come back.
    pub fn drain(&self, items_max: usize, mut take: impl FnMut(T)) -> usize {
        // Gives the room back even if `take` panics.
        struct Drained<'a, T: Weigh> {
            queue: &'a Queue<T>,
            cost: Cost,
            spans: u64,
        }
        impl<T: Weigh> Drop for Drained<'_, T> {
            fn drop(&mut self) {
                self.queue.give_back(self.cost, self.spans);
            }
        }

        let Some(first) = (items_max > 0).then(|| self.ring.pop()).flatten() else {
            return 0;
        };
        let mut drained = Drained { queue: self, cost: first.cost, spans: first.spans };
        take(first.item);
        let mut items = 1;
        while items < items_max
            && let Some(entry) = self.ring.pop()
        {
            drained.cost.add(entry.cost);
            drained.spans += entry.spans;
            items += 1;
            take(entry.item);
        }
        items
    }

    /// Refuses every later push, and lets those that wait fail. What is queued can still be popped.
    pub fn close(&self) {
        self.entrance.room.close();
        self.gate.notify();
    }

    /// Whether the queue is closed and empty: nothing will come out of it any more.
    pub fn is_finished(&self) -> bool {
        let taken = self.entrance.room.read();
        taken.is_closed() && taken.items() == 0
    }

    /// Items queued, or being pushed or popped right now.
    pub fn len(&self) -> usize {
        self.entrance.room.read().items()
    }

    /// Whether nothing is queued, or being pushed or popped right now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held by the items queued, or being pushed or popped right now.
    pub fn bytes(&self) -> usize {
        self.entrance.room.read().bytes()
    }

    /// How full the queue is, from 0 to 1, by the bound that is nearer.
    ///
    /// The measure of load for [`SizeRange::by_load`](crate::SizeRange::by_load).
    pub fn fill(&self) -> f64 {
        let taken = self.entrance.room.read();
        let items = taken.items() as f64 / self.bounds.items_max as f64;
        let bytes = taken.bytes() as f64 / self.bounds.bytes_max as f64;
        items.max(bytes)
    }

    /// What has gone through so far, in spans.
    pub fn stats(&self) -> QueueStats {
        // What left is read before what came; see `Entrance::pushed`.
        let popped = self.popped.load(Acquire);
        let evicted = self.shed.evicted.load(Acquire);
        QueueStats {
            pushed: self.entrance.pushed.load(Relaxed),
            popped,
            evicted,
            refused_full: self.shed.full.load(Relaxed),
            refused_timed_out: self.shed.timed_out.load(Relaxed),
            refused_too_large: self.shed.too_large.load(Relaxed),
            refused_closed: self.shed.closed.load(Relaxed),
        }
    }

    /// A reservation of `cost` although the queue was full, or the reason why not.
    #[cold]
    fn make_room(
        &self,
        cost: Cost,
        overflow: Overflow,
        mut shed: impl FnMut(T),
    ) -> Result<room::Taken, Refusal> {
        let reserve = || match self.entrance.room.reserve(cost, &self.bounds) {
            Ok(before) => Some(Ok(before)),
            Err(NoRoom::Closed) => Some(Err(Refusal::Closed)),
            Err(NoRoom::Full) => None,
        };
        match overflow {
            Overflow::DropNewest => Err(Refusal::Full),
            Overflow::DropOldest => loop {
                // Each round takes out an item that was there, so this ends unless other producers
                // keep filling what is freed here; then they make progress, and this one in turn.
                let Some(oldest) = self.ring.pop() else {
                    return Err(Refusal::Full);
                };
                self.shed.evicted.fetch_add(oldest.spans, Release);
                self.entrance.room.release(oldest.cost);
                self.gate.notify();
                shed(oldest.item);
                if let Some(answer) = reserve() {
                    return answer;
                }
            },
            Overflow::Block { timeout } if timeout.is_zero() || self.gate.is_stalled() => {
                Err(Refusal::Full)
            }
            Overflow::Block { timeout } => {
                self.gate.wait(timeout, reserve).unwrap_or(Err(Refusal::TimedOut))
            }
        }
    }

    #[cold]
    fn refuse(&self, item: T, spans: u64, reason: Refusal) -> PushError<T> {
        let counter = match reason {
            Refusal::Full => &self.shed.full,
            Refusal::TimedOut => &self.shed.timed_out,
            Refusal::TooLarge => &self.shed.too_large,
            Refusal::Closed => &self.shed.closed,
        };
        counter.fetch_add(spans, Relaxed);
        PushError { item, reason }
    }

    /// Counts what the consumer took and lets others have its room.
    fn give_back(&self, cost: Cost, spans: u64) {
        self.popped.fetch_add(spans, Release);
        self.entrance.room.release(cost);
        self.gate.taken();
    }
}

impl<T: Weigh> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("items", &self.len())
            .field("bytes", &self.bytes())
            .field("bounds", &self.bounds)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// How much a [`Queue`] may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    items_max: usize,
    bytes_max: usize,
}

impl Bounds {
    /// One item of one byte.
    pub const MIN: Self = Self { items_max: 1, bytes_max: 1 };

    /// At most `items_max` items that hold at most `bytes_max` bytes of memory together.
    ///
    /// The queue allocates `items_max` slots ahead, each an item and 24 bytes more.
    ///
    /// # Errors
    ///
    /// If either is zero, or more than a queue can count: 8,388,607 items and 1 TiB less one byte.
    pub fn new(items_max: usize, bytes_max: usize) -> Result<Self, InvalidBounds> {
        if items_max == 0 || items_max as u64 > ITEMS_CEILING {
            return Err(InvalidBounds::Items { items_max });
        }
        if bytes_max == 0 || bytes_max as u64 > BYTES_CEILING {
            return Err(InvalidBounds::Bytes { bytes_max });
        }
        Ok(Self { items_max, bytes_max })
    }
}

/// Why [`Bounds`] were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBounds {
    /// `items_max` is out of range.
    #[error("a queue must be allowed 1 to {ITEMS_CEILING} items, not {items_max}")]
    Items {
        /// What was asked for.
        items_max: usize,
    },
    /// `bytes_max` is out of range.
    #[error("a queue must be allowed 1 to {BYTES_CEILING} bytes, not {bytes_max}")]
    Bytes {
        /// What was asked for.
        bytes_max: usize,
    },
}

/// What a push does if the queue is full.
///
/// It is chosen for each push: a thread that is about to exit must not block, whatever the others
/// do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Hands the new item back. The cheapest: producers never contend with the consumer.
    #[default]
    DropNewest,
    /// Evicts the oldest items until there is room. Hands the new item back only if everything in
    /// the queue is still being pushed by other threads, so that there is nothing to evict.
    DropOldest,
    /// Waits for room, then hands the item back.
    ///
    /// Once a wait has ended in vain and nothing was popped meanwhile, later pushes don't wait
    /// until something is popped again: a dead consumer costs one timeout, and not one for each
    /// push. Never use it on the thread that pops.
    Block {
        /// The longest wait, in real time; zero is the same as `DropNewest`.
        timeout: Duration,
    },
}

/// What the queue held just after a push, the new item included.
///
/// Pushes take their room one after another, so for each threshold and each time it is crossed
/// upward, exactly one push sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Items queued.
    pub items: usize,
    /// Bytes held by them.
    pub bytes: usize,
    item_bytes: usize,
}

impl Pushed {
    /// Whether the queue was empty before.
    pub fn to_empty(&self) -> bool {
        self.items == 1
    }

    /// Whether this push took the queue from below `bytes` to `bytes` or more.
    pub fn crossed(&self, bytes: usize) -> bool {
        self.bytes >= bytes && self.bytes - self.item_bytes < bytes
    }
}

/// An item that was not queued, and why.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("queue refused the item: {reason}")]
pub struct PushError<T> {
    /// The item, unchanged; its spans are the caller's to count or to push again.
    pub item: T,
    /// Why it was refused.
    pub reason: Refusal,
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// Why a push was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No room, and the push was not to wait, or the queue is stalled.
    #[error("no room")]
    Full,
    /// No room, and none came within the timeout.
    #[error("no room within the timeout")]
    TimedOut,
    /// The item holds more bytes than the whole queue may.
    #[error("larger than the whole queue")]
    TooLarge,
    /// The queue is closed.
    #[error("closed")]
    Closed,
}

/// What has gone through a [`Queue`], in spans.
///
/// `pushed = popped + evicted + queued` holds at every moment that no push or pop is under way.
/// What was refused was never pushed; whether it is lost is up to whom it was handed back to, and
/// if that one pushes it again and is refused again, it counts again.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct QueueStats {
    /// Spans accepted.
    pub pushed: u64,
    /// Spans taken by the consumer.
    pub popped: u64,
    /// Spans evicted by [`Overflow::DropOldest`].
    pub evicted: u64,
    /// Spans handed back with [`Refusal::Full`].
    pub refused_full: u64,
    /// Spans handed back with [`Refusal::TimedOut`].
    pub refused_timed_out: u64,
    /// Spans handed back with [`Refusal::TooLarge`].
    pub refused_too_large: u64,
    /// Spans handed back with [`Refusal::Closed`].
    pub refused_closed: u64,
}

impl QueueStats {
    /// Spans in the queue.
    pub fn queued(&self) -> u64 {
        let left = self.popped.saturating_add(self.evicted);
        self.pushed.saturating_sub(left)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// Bytes held, and one span.
    struct Held(usize);

    impl Weigh for Held {
        fn spans(&self) -> usize {
            1
        }
        fn wire_bytes(&self) -> usize {
            self.0
        }
        fn held_bytes(&self) -> usize {
            self.0
        }
    }

    /// What becomes of a push of 10 bytes that waits at a queue full with 60 and 40 of 100 bytes,
    /// once `act` is done.
    fn blocked_push(act: impl FnOnce(&Queue<Held>)) -> Result<Pushed, Refusal> {
        // Longer than any test should run: a wake-up that is lost fails it.
        let timeout = Duration::from_secs(30);
        let queue = Queue::new(Bounds::new(8, 100).expect("test bounds are in range"));
        for bytes in [60, 40] {
            assert!(queue.push(Held(bytes), Overflow::DropNewest, drop).is_ok());
        }
        thread::scope(|scope| {
            let blocked = scope.spawn(|| queue.push(Held(10), Overflow::Block { timeout }, drop));
            while !queue.gate.has_waiter() && !blocked.is_finished() {
                thread::yield_now();
            }
            let start = Instant::now();
            act(&queue);
            let answer = blocked.join().expect("no panic");
            // The last try, at the timeout, would find the room without being told.
            assert!(start.elapsed() < timeout, "a wake-up was lost");
            answer.map_err(|refused| refused.reason)
        })
    }

    #[test]
    fn a_blocked_push_gets_the_room_that_a_pop_makes() {
        let pushed = blocked_push(|queue| assert!(queue.pop().is_some()));
        assert_eq!(pushed.map(|pushed| pushed.bytes), Ok(50));
    }

    #[test]
    fn a_blocked_push_gets_the_room_that_a_drain_makes() {
        let pushed = blocked_push(|queue| assert_eq!(queue.drain(8, drop), 2));
        assert_eq!(pushed.map(|pushed| pushed.bytes), Ok(10));
    }

    #[test]
    fn a_blocked_push_gets_the_room_that_an_eviction_leaves() {
        let pushed = blocked_push(|queue| {
            let evicting = queue.push(Held(50), Overflow::DropOldest, drop);
            assert!(evicting.is_ok());
        });
        assert!(pushed.is_ok());
    }

    #[test]
    fn a_blocked_push_fails_when_the_queue_is_closed() {
        assert_eq!(blocked_push(Queue::close), Err(Refusal::Closed));
    }
}
