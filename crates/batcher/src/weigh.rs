//! What an item weighs, and how it is cut.

/// What one item weighs, in each of the measures that something is bounded by.
///
/// An item has two sizes in bytes, because two different things are limited. A chunk of 1,000
/// encoded bytes in a pooled buffer of 64 KiB adds 1,000 bytes to a request, yet keeps 64 KiB from
/// anyone else while it waits.
///
/// The weight of an item must not change while it is queued or batched. Each method is called once
/// or twice an item, never per span, so it may be computed, but a stored number is better.
pub trait Weigh {
    /// Spans in the item. Items without spans are discarded by a [`Batcher`](crate::Batcher).
    fn spans(&self) -> usize;

    /// Bytes the item adds to a request; bounds a [`Batcher`](crate::Batcher).
    ///
    /// At least one for each span, as every encoding has it: with [`Strategy::TimeFirst`] nothing
    /// else limits how many items a batch can gather before it is due.
    ///
    /// [`Strategy::TimeFirst`]: crate::Strategy::TimeFirst
    fn wire_bytes(&self) -> usize;

    /// Bytes of memory the item keeps in use, so the capacity of its buffer rather than its length;
    /// bounds a [`Queue`](crate::Queue).
    fn held_bytes(&self) -> usize;
}

/// An item that can be cut between two spans, so that an oversized one travels in several batches.
pub trait Split: Weigh + Sized {
    /// Cuts off the longest first part that has at most `spans_max` spans and `bytes_max`
    /// [wire bytes](Weigh::wire_bytes), and returns it with the rest.
    ///
    /// The first part holds exactly one span when a single span is larger than `bytes_max`. The
    /// rest is `None` when the whole item is in the first part. Both keep the order of the spans,
    /// and together they hold all of them. Both limits are at least 1.
    ///
    /// Parts may share one buffer; each then keeps all of it in use.
    #[must_use]
    fn split(self, spans_max: usize, bytes_max: usize) -> (Self, Option<Self>);
}
