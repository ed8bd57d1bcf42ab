//! How large batches should be, decided from measurements.

use std::cmp::Ordering;
use std::time::Duration;

/// Finds a batch size by feedback: 10 % smaller when a target is missed, 10 % larger while there is
/// room.
///
/// It decides and nothing else: the caller measures, and applies the size with
/// [`Batcher::set_limits`](crate::Batcher::set_limits). One measurement should cover several
/// batches of the size in force, or the size follows the noise.
///
/// | what was measured | size |
/// | --- | --- |
/// | memory or latency over its target | − 10 % |
/// | else, throughput has a target: below it | + 10 % |
/// | else, throughput has a target: at or above it | same |
/// | else, memory and latency under their targets | + 10 % |
/// | else | same |
///
/// So a ceiling goes before the floor: where latency and throughput can't both be had, latency is
/// kept. A step is at least one span.
///
/// ```
/// use std::time::Duration;
/// use spanwire_batcher::{Adaptive, Limits, Measurement, SizeRange, Targets};
///
/// let targets = Targets { latency: Some(Duration::from_millis(50)), ..Targets::default() };
/// let mut adaptive = Adaptive::new(SizeRange::new(64, 8192)?, 512, targets);
///
/// let slow = Measurement { latency: Duration::from_millis(80), ..Measurement::default() };
/// let limits = Limits::new(512, 4 << 20, Duration::from_secs(1))?;
/// let limits = limits.with_spans_max(adaptive.observe(slow))?;
/// assert_eq!(limits.spans_max(), 460);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Adaptive {
    range: SizeRange,
    targets: Targets,
    size: usize,
}

impl Adaptive {
    /// Starts at `size` spans, or at the end of `range` that is nearest to it.
    pub fn new(range: SizeRange, size: usize, targets: Targets) -> Self {
        Self { range, targets, size: range.clamp(size) }
    }

    /// Takes a measurement into account and returns the `spans_max` to use from now on; within the
    /// range, so never zero.
    pub fn observe(&mut self, measured: Measurement) -> usize {
        let step = self.size.div_ceil(STEPS_PER_SIZE);
        let size = match self.targets.verdict(&measured) {
            Verdict::Shrink => self.size - step,
            Verdict::Keep => self.size,
            Verdict::Grow => self.size.saturating_add(step),
        };
        self.size = self.range.clamp(size);
        self.size
    }

    /// The `spans_max` in force.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// A step is a tenth of the size.
const STEPS_PER_SIZE: usize = 10;

/// What an [`Adaptive`] size aims at; without any target it never changes.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Targets {
    /// The longest a batch should take, from complete to answered.
    pub latency: Option<Duration>,
    /// The fewest spans a second.
    pub spans_per_second: Option<f64>,
    /// The most bytes of memory.
    pub memory_bytes: Option<u64>,
}

impl Targets {
    fn verdict(&self, measured: &Measurement) -> Verdict {
        let ceilings = [
            self.memory_bytes.map(|target| measured.memory_bytes.cmp(&target)),
            self.latency.map(|target| measured.latency.cmp(&target)),
        ];
        if ceilings.contains(&Some(Ordering::Greater)) {
            return Verdict::Shrink;
        }
        match self.spans_per_second {
            Some(floor) if measured.spans_per_second < floor => Verdict::Grow,
            Some(_) => Verdict::Keep,
            None if ceilings.contains(&Some(Ordering::Equal)) => Verdict::Keep,
            None if ceilings.contains(&Some(Ordering::Less)) => Verdict::Grow,
            None => Verdict::Keep,
        }
    }
}

/// What was measured since the last time; what has no target may stay at its default.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Measurement {
    /// How long a batch took, from complete to answered; a mean or a percentile, as the target is.
    pub latency: Duration,
    /// Spans delivered a second.
    pub spans_per_second: f64,
    /// Bytes of memory in use.
    pub memory_bytes: u64,
}

/// The sizes that a batch may be given, in spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeRange {
    min: usize,
    max: usize,
}

impl SizeRange {
    /// From `min` to `max` spans, both included.
    ///
    /// # Errors
    ///
    /// If `min` is zero or greater than `max`.
    pub fn new(min: usize, max: usize) -> Result<Self, InvalidSizeRange> {
        if min == 0 || min > max {
            return Err(InvalidSizeRange { min, max });
        }
        Ok(Self { min, max })
    }

    /// The size for a load from 0 (`min`, so that spans leave early) to 1 (`max`, so that each
    /// request carries more), in proportion between; [`Queue::fill`](crate::Queue::fill) is such a
    /// load. What is outside counts as the nearer end, and NaN as 0.
    ///
    /// ```
    /// let range = spanwire_batcher::SizeRange::new(100, 1100)?;
    /// assert_eq!([0.0, 0.5, 1.0].map(|load| range.by_load(load)), [100, 600, 1100]);
    /// # Ok::<(), spanwire_batcher::InvalidSizeRange>(())
    /// ```
    pub fn by_load(&self, load: f64) -> usize {
        let span = (self.max - self.min) as f64;
        // A float becomes the nearest integer in range, and NaN becomes 0.
        let above_min = (span * load).round() as usize;
        self.clamp(self.min.saturating_add(above_min))
    }

    fn clamp(&self, size: usize) -> usize {
        size.clamp(self.min, self.max)
    }
}

/// A [`SizeRange`] was to be empty, or to allow batches of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("batch sizes must go from at least 1 up, not from {min} to {max} spans")]
pub struct InvalidSizeRange {
    /// The smallest size asked for.
    pub min: usize,
    /// The largest size asked for.
    pub max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Shrink,
    Keep,
    Grow,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TARGET: Duration = Duration::from_millis(100);
    const LATENCY: Targets =
        Targets { latency: Some(TARGET), spans_per_second: None, memory_bytes: None };
    const ALL: Targets = Targets {
        latency: Some(TARGET),
        spans_per_second: Some(10_000.0),
        memory_bytes: Some(1_000_000),
    };

    /// The size after one measurement, from 1,000 within 100 to 1,050.
    fn after(targets: Targets, latency_ms: u64, spans_per_second: f64, memory_bytes: u64) -> usize {
        let range = SizeRange::new(100, 1_050).expect("100 is below 1,050");
        Adaptive::new(range, 1_000, targets).observe(Measurement {
            latency: Duration::from_millis(latency_ms),
            spans_per_second,
            memory_bytes,
        })
    }

    #[test]
    fn size_falls_by_a_tenth_over_the_latency_target_and_rises_by_a_tenth_under_it() {
        assert_eq!(after(LATENCY, 101, 0.0, 0), 900);
        assert_eq!(after(LATENCY, 100, 0.0, 0), 1_000);
        assert_eq!(after(LATENCY, 99, 0.0, 0), 1_050, "held at the maximum");
    }

    #[test]
    fn a_ceiling_goes_before_the_throughput_floor() {
        let too_slow = 9_999.0;
        assert_eq!(after(ALL, 101, too_slow, 0), 900);
        assert_eq!(after(ALL, 99, too_slow, 1_000_001), 900);
        assert_eq!(after(ALL, 100, too_slow, 1_000_000), 1_050);
    }

    #[test]
    fn size_is_kept_once_throughput_is_reached_and_no_ceiling_is_passed() {
        assert_eq!(after(ALL, 10, 10_000.0, 10), 1_000);
    }

    #[test]
    fn memory_alone_is_a_target() {
        let targets = Targets { memory_bytes: Some(1_000_000), ..Targets::default() };
        assert_eq!(after(targets, 0, 0.0, 1_000_001), 900);
        assert_eq!(after(targets, 0, 0.0, 1_000_000), 1_000);
        assert_eq!(after(targets, 0, 0.0, 999_999), 1_050);
    }

    #[test]
    fn without_a_target_the_size_never_changes() {
        assert_eq!(after(Targets::default(), 1, 1.0, 1), 1_000);
    }

    #[test]
    fn a_small_size_still_moves() {
        let range = SizeRange::new(1, 10).expect("1 is below 10");
        let mut adaptive = Adaptive::new(range, 3, LATENCY);
        let fast = Measurement::default();
        assert_eq!([(); 3].map(|()| adaptive.observe(fast)), [4, 5, 6]);
    }

    #[test]
    fn a_range_that_allows_nothing_is_refused() {
        for (min, max) in [(0, 10), (11, 10), (0, 0)] {
            assert_eq!(SizeRange::new(min, max), Err(InvalidSizeRange { min, max }));
        }
    }

    #[test]
    fn a_load_that_is_no_load_gives_an_end_of_the_range() {
        let range = SizeRange::new(10, 20).expect("10 is below 20");
        let sizes = [-1.0, f64::NAN, 2.0, f64::INFINITY].map(|load| range.by_load(load));
        assert_eq!(sizes, [10, 10, 20, 20]);
    }

    proptest! {
        #[test]
        fn size_stays_within_its_range(
            (min, max) in (1usize..2_000).prop_flat_map(|min| (Just(min), min..4_000)),
            start: usize,
            measurements in prop::collection::vec((0u64..200, 0.0..20_000.0, 0u64..2_000_000), 0..100),
        ) {
            let range = SizeRange::new(min, max)?;
            let mut adaptive = Adaptive::new(range, start, ALL);
            prop_assert!((min..=max).contains(&adaptive.size()));
            for (latency_ms, spans_per_second, memory_bytes) in measurements {
                let size = adaptive.observe(Measurement {
                    latency: Duration::from_millis(latency_ms),
                    spans_per_second,
                    memory_bytes,
                });
                prop_assert!((min..=max).contains(&size));
                prop_assert_eq!(size, adaptive.size());
            }
        }

        /// With a latency proportional to the size, the size comes within a step of the one that
        /// takes exactly the target, and stays there.
        #[test]
        fn size_converges_to_the_target(ideal in 20usize..50_000, start in 1usize..100_000) {
            let range = SizeRange::new(1, 100_000)?;
            let mut adaptive = Adaptive::new(range, start, LATENCY);
            let step = ideal.div_ceil(STEPS_PER_SIZE) + 1;
            for round in 0..300 {
                let latency = TARGET.mul_f64(adaptive.size() as f64 / ideal as f64);
                let size = adaptive.observe(Measurement { latency, ..Measurement::default() });
                if round > 200 {
                    prop_assert!(size.abs_diff(ideal) <= step, "{size} is far from {ideal}");
                }
            }
        }

        #[test]
        fn more_load_never_gives_a_smaller_size(
            (min, max) in (1usize..2_000).prop_flat_map(|min| (Just(min), min..4_000)),
            loads: [f64; 2],
        ) {
            let range = SizeRange::new(min, max)?;
            let [low, high] = loads.map(|load| range.by_load(load));
            prop_assert!(loads[0] > loads[1] || low <= high || loads[1].is_nan());
            prop_assert!((min..=max).contains(&low));
        }
    }
}
