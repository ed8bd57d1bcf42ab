//! How large batches were, and why they were complete.

use std::sync::atomic::{AtomicU64, Ordering};

use spanwire_batcher::{Batch, Complete};

/// The batches of one destination.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    spans: Sizes<{ SPANS.len() }>,
    bytes: Sizes<{ BYTES.len() }>,
    by_size: AtomicU64,
    by_age: AtomicU64,
}

/// Upper bounds, which are those of the Go Collector (`batch_send_size` and `batch_send_size_bytes`
/// in `processor/batchprocessor/metadata.yaml`).
const SPANS: [u64; 22] = [
    10, 25, 50, 75, 100, 250, 500, 750, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000,
    9_000, 10_000, 20_000, 30_000, 50_000, 100_000,
];
const BYTES: [u64; 18] = {
    let mut bounds = [128; 18];
    let mut place = 1;
    while place < bounds.len() {
        bounds[place] = 2 * bounds[place - 1];
        place += 1;
    }
    bounds
};

/// How often each size came.
#[derive(Debug)]
struct Sizes<const BOUNDS: usize> {
    within: [AtomicU64; BOUNDS],
    beyond: AtomicU64,
    sum: AtomicU64,
}

/// The sizes of batches.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Upper bounds, and how many are above the one before and not above this one.
    pub buckets: Vec<(u64, u64)>,
    /// How many are above the last bound.
    pub beyond: u64,
    /// The sum of all.
    pub sum: u64,
}

/// The batches that one destination was sent.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchStats {
    /// The batch processor that asks for them, as in the configuration; the destination's own
    /// settings do if it is `None`.
    pub processor: Option<String>,
    /// Their spans.
    pub spans: Histogram,
    /// Their bytes, uncompressed.
    pub bytes: Histogram,
    /// Complete as they were large enough.
    pub by_size: u64,
    /// Complete as they had waited long enough.
    pub by_age: u64,
}

impl Batches {
    pub(crate) fn note<T>(&self, batch: &Batch<T>) {
        self.spans.note(batch.spans as u64, &SPANS);
        self.bytes.note(batch.bytes as u64, &BYTES);
        let reason = match batch.reason {
            Complete::Spans | Complete::Bytes => &self.by_size,
            Complete::Age => &self.by_age,
            Complete::Flush => return,
        };
        reason.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, processor: Option<&str>) -> BatchStats {
        BatchStats {
            processor: processor.map(str::to_owned),
            spans: self.spans.read(&SPANS),
            bytes: self.bytes.read(&BYTES),
            by_size: self.by_size.load(Ordering::Relaxed),
            by_age: self.by_age.load(Ordering::Relaxed),
        }
    }
}

impl<const BOUNDS: usize> Default for Sizes<BOUNDS> {
    fn default() -> Self {
        Self {
            within: std::array::from_fn(|_| AtomicU64::new(0)),
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl<const BOUNDS: usize> Sizes<BOUNDS> {
    fn note(&self, size: u64, bounds: &[u64; BOUNDS]) {
        let place = bounds.partition_point(|bound| *bound < size);
        self.within.get(place).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(size, Ordering::Relaxed);
    }

    fn read(&self, bounds: &[u64; BOUNDS]) -> Histogram {
        let counts = self.within.iter().map(|count| count.load(Ordering::Relaxed));
        Histogram {
            buckets: bounds.iter().copied().zip(counts).collect(),
            beyond: self.beyond.load(Ordering::Relaxed),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_in_the_first_bucket_whose_bound_it_is_not_above() {
        let sizes = Sizes::<3>::default();
        let bounds = [10, 20, 30];
        [1, 10, 11, 30, 31, 1_000].into_iter().for_each(|size| sizes.note(size, &bounds));
        let read = sizes.read(&bounds);
        assert_eq!(read.buckets, [(10, 2), (20, 1), (30, 1)]);
        assert_eq!((read.beyond, read.sum), (2, 1_083));
    }

    #[test]
    fn bounds_of_bytes_double_from_128_to_16_mib() {
        assert_eq!((BYTES[0], BYTES[1], BYTES[17]), (128, 256, 16 << 20));
    }
}
