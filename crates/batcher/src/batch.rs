//! The batcher and what comes out of it.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use crate::{Limits, Split, Strategy};

/// Gathers items until a batch is complete.
///
/// Items are kept whole where they fit: a batch is closed before an item that would take it over a
/// limit, and only an item that is over a limit by itself is [split](Split::split). So if items are
/// at most half as large as a limit, the batches which that limit completes are at least half full.
///
/// The caller brings the time: `now` with each call, from one monotonic clock. It should
/// [`poll`](Self::poll) when [`deadline`](Self::deadline) is reached.
///
/// ```
/// use std::time::{Duration, Instant};
/// use spanwire_batcher::{Batcher, Complete, Limits, Split, Strategy, Weigh};
///
/// /// So many spans of 100 bytes.
/// struct Spans(usize);
///
/// impl Weigh for Spans {
///     fn spans(&self) -> usize { self.0 }
///     fn wire_bytes(&self) -> usize { self.0 * 100 }
///     fn held_bytes(&self) -> usize { self.0 * 100 }
/// }
///
/// impl Split for Spans {
///     fn split(self, spans_max: usize, bytes_max: usize) -> (Self, Option<Self>) {
///         let first = self.0.min(spans_max).min((bytes_max / 100).max(1));
///         let rest = self.0 - first;
///         (Spans(first), (rest > 0).then_some(Spans(rest)))
///     }
/// }
///
/// let limits = Limits::new(1000, 1 << 20, Duration::from_secs(5))?;
/// let mut batcher = Batcher::new(limits, Strategy::default());
/// let now = Instant::now();
///
/// let batches: Vec<usize> = batcher.push(Spans(2500), now).map(|batch| batch.spans).collect();
/// assert_eq!(batches, [1000, 1000]);
///
/// // The other 500 wait for company, but not for ever.
/// assert!(batcher.poll(now).is_none());
/// let deadline = batcher.deadline().expect("something is pending");
/// let last = batcher.poll(deadline).expect("the deadline is reached");
/// assert_eq!((last.spans, last.reason), (500, Complete::Age));
/// # Ok::<(), spanwire_batcher::InvalidLimits>(())
/// ```
#[must_use = "a batcher may hold spans; flush it before it is dropped"]
pub struct Batcher<T> {
    limits: Limits,
    strategy: Strategy,
    pending: Option<Batch<T>>,
    /// Complete, oldest first, and not yet fetched.
    ready: VecDeque<Batch<T>>,
    stats: BatcherStats,
    /// Items in the batch before: what the next one will probably hold.
    items_expected: usize,
}

impl<T: Split> Batcher<T> {
    /// An empty batcher; allocates nothing yet.
    pub fn new(limits: Limits, strategy: Strategy) -> Self {
        Self {
            limits,
            strategy,
            pending: None,
            ready: VecDeque::new(),
            stats: BatcherStats::default(),
            items_expected: 0,
        }
    }

    /// Adds `item`, which arrived at `now`, and returns the batches complete by it: mostly none or
    /// one, more if it had to be split.
    ///
    /// An item without spans is discarded: a request without spans must not be sent.
    ///
    /// Batches not fetched from the iterator are not lost; the next call of `push`,
    /// [`poll`](Self::poll) or [`flush`](Self::flush) returns them first.
    #[must_use = "the batches returned are complete"]
    pub fn push(&mut self, item: T, now: Instant) -> Completed<'_, T> {
        let mut next = Some(item);
        let mut spans_before = usize::MAX;
        while let Some(item) = next.take() {
            let weight = Weight::of(&item);
            // A rest that is no smaller than what it was cut from travels as it is, so a `split`
            // that gets nowhere cannot hold up the thread.
            if weight.fits(&self.capacity()) || weight.spans >= spans_before {
                self.append(item, weight, now);
                break;
            }
            spans_before = weight.spans;
            let capacity = self.capacity();
            let (first, rest) = item.split(capacity.spans, capacity.bytes);
            let weight = Weight::of(&first);
            self.append(first, weight, now);
            next = rest;
        }
        self.complete_if_due(now);
        Completed { ready: &mut self.ready }
    }

    /// The next batch that is complete at `now`, if any. Call it again until it returns `None`.
    #[must_use]
    pub fn poll(&mut self, now: Instant) -> Option<Batch<T>> {
        self.complete_if_due(now);
        self.ready.pop_front()
    }

    /// When [`poll`](Self::poll) will have a batch even if nothing is pushed until then.
    ///
    /// `None` if nothing is pending, or if age doesn't complete a batch
    /// ([`Strategy::SizeFirst`]). In the past if a batch is complete already.
    pub fn deadline(&self) -> Option<Instant> {
        if let Some(complete) = self.ready.front() {
            return Some(complete.oldest);
        }
        let pending = self.pending.as_ref()?;
        if self.full(pending).is_some() {
            return Some(pending.oldest);
        }
        if !self.strategy.ages() {
            return None;
        }
        // An age past the end of the clock is never reached.
        pending.oldest.checked_add(self.limits.age_max())
    }

    /// The next batch, complete or not. Call it again until it returns `None`; then nothing is
    /// left.
    #[must_use]
    pub fn flush(&mut self) -> Option<Batch<T>> {
        if self.ready.is_empty() {
            self.complete(Complete::Flush);
        }
        self.ready.pop_front()
    }

    /// Applies other limits from here on.
    ///
    /// What is pending was gathered under the old ones: if it is over the new ones, it is complete
    /// as it stands, and [`deadline`](Self::deadline) says so.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use spanwire_batcher::{Batcher, Limits, Strategy};
    /// # use spanwire_batcher::{Split, Weigh};
    /// # struct Spans(usize);
    /// # impl Weigh for Spans {
    /// #     fn spans(&self) -> usize { self.0 }
    /// #     fn wire_bytes(&self) -> usize { self.0 }
    /// #     fn held_bytes(&self) -> usize { self.0 }
    /// # }
    /// # impl Split for Spans {
    /// #     fn split(self, spans_max: usize, _: usize) -> (Self, Option<Self>) {
    /// #         let first = self.0.min(spans_max);
    /// #         (Self(first), (self.0 > first).then(|| Self(self.0 - first)))
    /// #     }
    /// # }
    ///
    /// let limits = |spans_max| Limits::new(spans_max, 1 << 20, Duration::from_secs(5));
    /// let mut batcher = Batcher::new(limits(1_000)?, Strategy::Hybrid);
    /// batcher.set_limits(limits(100)?); // the collector found 1,000 too many
    /// let complete = batcher.push(Spans(250), Instant::now()).map(|batch| batch.spans);
    /// assert_eq!(complete.collect::<Vec<_>>(), [100, 100]);
    /// # Ok::<(), spanwire_batcher::InvalidLimits>(())
    /// ```
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of memory that the items not yet returned in a batch hold. Cost: a look at each.
    pub fn held_bytes(&self) -> usize {
        let batches = self.ready.iter().chain(&self.pending);
        batches.flat_map(|batch| &batch.items).map(crate::Weigh::held_bytes).sum()
    }

    /// Spans not yet returned in a batch.
    pub fn spans(&self) -> usize {
        let ready: usize = self.ready.iter().map(|batch| batch.spans).sum();
        ready + self.pending.as_ref().map_or(0, |batch| batch.spans)
    }

    /// What has been batched so far.
    pub fn stats(&self) -> &BatcherStats {
        &self.stats
    }

    /// What a batch may hold: the limits, as far as the strategy heeds them.
    fn capacity(&self) -> Weight {
        Weight {
            spans: self.strategy.spans_max(&self.limits),
            bytes: self.limits.items_bytes_max(),
        }
    }

    /// Adds an item to the pending batch, or to a new one if it doesn't fit.
    fn append(&mut self, item: T, weight: Weight, now: Instant) {
        if weight.spans == 0 {
            return;
        }
        if let Some(pending) = &self.pending {
            let together = Weight {
                spans: pending.spans.saturating_add(weight.spans),
                bytes: pending.bytes.saturating_add(weight.bytes),
            };
            if let Some(reason) = together.exceeds(&self.capacity()) {
                self.complete(reason);
            }
        }
        let items_expected = self.items_expected;
        let pending = self.pending.get_or_insert_with(|| Batch {
            items: Vec::with_capacity(items_expected),
            spans: 0,
            bytes: 0,
            oldest: now,
            reason: Complete::Flush,
        });
        pending.items.push(item);
        pending.spans += weight.spans;
        pending.bytes += weight.bytes;
        pending.oldest = pending.oldest.min(now);
        if let Some(reason) = self.pending.as_ref().and_then(|batch| self.full(batch)) {
            self.complete(reason);
        }
    }

    /// The limit that a batch has reached, if any.
    fn full(&self, batch: &Batch<T>) -> Option<Complete> {
        let capacity = self.capacity();
        if batch.spans >= capacity.spans {
            Some(Complete::Spans)
        } else if batch.bytes >= capacity.bytes {
            Some(Complete::Bytes)
        } else {
            None
        }
    }

    fn complete_if_due(&mut self, now: Instant) {
        let Some(pending) = &self.pending else { return };
        let age = now.saturating_duration_since(pending.oldest);
        // Full without having completed happens only if the limits were lowered meanwhile.
        if let Some(reason) = self.full(pending) {
            self.complete(reason);
        } else if self.strategy.ages() && age >= self.limits.age_max() {
            self.complete(Complete::Age);
        }
    }

    fn complete(&mut self, reason: Complete) {
        if let Some(mut batch) = self.pending.take() {
            batch.reason = reason;
            self.items_expected = batch.items.len();
            self.stats.count(&batch, &self.capacity());
            self.ready.push_back(batch);
        }
    }
}

impl<T> fmt::Debug for Batcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher")
            .field("limits", &self.limits)
            .field("strategy", &self.strategy)
            .field("pending", &self.pending)
            .field("ready", &self.ready.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Items that travel in one request.
#[must_use = "a batch holds spans"]
pub struct Batch<T> {
    /// The items in push order; each has at least one span.
    pub items: Vec<T>,
    /// Spans in all of them.
    pub spans: usize,
    /// [Wire bytes](crate::Weigh::wire_bytes) of all of them, without the request's overhead.
    pub bytes: usize,
    /// When the oldest of them was pushed.
    pub oldest: Instant,
    /// Why the batch is complete.
    pub reason: Complete,
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("items", &self.items.len())
            .field("spans", &self.spans)
            .field("bytes", &self.bytes)
            .field("oldest", &self.oldest)
            .field("reason", &self.reason)
            .finish()
    }
}

/// Why a [`Batch`] is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Complete {
    /// It holds as many spans as it may, or the next item would have taken it over.
    Spans,
    /// It has as many bytes as it may, or the next item would have taken it over.
    Bytes,
    /// Its oldest span waited for as long as it may.
    Age,
    /// The caller wanted what there was.
    Flush,
}

/// The batches that a [`Batcher::push`] completed, oldest first. What is not taken stays in the
/// batcher.
#[derive(Debug)]
#[must_use = "the batches in here are complete"]
pub struct Completed<'a, T> {
    ready: &'a mut VecDeque<Batch<T>>,
}

impl<T> Iterator for Completed<'_, T> {
    type Item = Batch<T>;

    fn next(&mut self) -> Option<Batch<T>> {
        self.ready.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.ready.len(), Some(self.ready.len()))
    }
}

impl<T> ExactSizeIterator for Completed<'_, T> {}

/// What a [`Batcher`] has batched: batches by reason, and what they held.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct BatcherStats {
    /// Batches complete by [`Complete::Spans`].
    pub by_spans: u64,
    /// Batches complete by [`Complete::Bytes`].
    pub by_bytes: u64,
    /// Batches complete by [`Complete::Age`].
    pub by_age: u64,
    /// Batches complete by [`Complete::Flush`].
    pub by_flush: u64,
    /// Spans in all of them.
    pub spans: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    fill_sum: f64,
}

impl BatcherStats {
    /// Batches in all.
    pub fn batches(&self) -> u64 {
        self.by_spans + self.by_bytes + self.by_age + self.by_flush
    }

    /// How full batches were on average, from 0 to 1, each by the limit it came nearer to; 0 if
    /// there was none. A batch of one span that is too large counts as full.
    pub fn mean_fill(&self) -> f64 {
        self.mean(self.fill_sum)
    }

    /// Spans in a batch on average; 0 if there was none.
    pub fn mean_spans(&self) -> f64 {
        self.mean(self.spans as f64)
    }

    fn mean(&self, sum: f64) -> f64 {
        match self.batches() {
            0 => 0.0,
            batches => sum / batches as f64,
        }
    }

    fn count<T>(&mut self, batch: &Batch<T>, capacity: &Weight) {
        let counter = match batch.reason {
            Complete::Spans => &mut self.by_spans,
            Complete::Bytes => &mut self.by_bytes,
            Complete::Age => &mut self.by_age,
            Complete::Flush => &mut self.by_flush,
        };
        *counter += 1;
        self.spans += batch.spans as u64;
        self.bytes += batch.bytes as u64;
        let spans = batch.spans as f64 / capacity.spans as f64;
        let bytes = batch.bytes as f64 / capacity.bytes as f64;
        self.fill_sum += spans.max(bytes).min(1.0);
    }
}

/// Spans and wire bytes, of an item or of what a batch may hold.
#[derive(Debug, Clone, Copy)]
struct Weight {
    spans: usize,
    bytes: usize,
}

impl Weight {
    fn of(item: &impl Split) -> Self {
        Self { spans: item.spans(), bytes: item.wire_bytes() }
    }

    fn fits(&self, capacity: &Self) -> bool {
        self.exceeds(capacity).is_none()
    }

    fn exceeds(&self, capacity: &Self) -> Option<Complete> {
        if self.spans > capacity.spans {
            Some(Complete::Spans)
        } else if self.bytes > capacity.bytes {
            Some(Complete::Bytes)
        } else {
            None
        }
    }
}
