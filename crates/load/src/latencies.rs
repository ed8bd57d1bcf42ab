//! Durations, kept well enough for percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A distribution of durations up to an hour, each kept within 0.1 % or the nanosecond; what is longer
/// counts as an hour. 264 KiB, however many there are: four of them for each thread that sends.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(NANOS_MIN, NANOS_MAX, DIGITS);
        Self(histogram.expect("the bounds are constants of the right order"))
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds all of another distribution.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The duration that the share `quantile`, 0 to 1, of all do not exceed; `None` without any.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.value_at_quantile(quantile)))
    }

    /// The longest, within 0.1 %; `None` without any.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.max()))
    }
}

const NANOS_MIN: u64 = 1;
const NANOS_MAX: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_thousandth_and_survive_merging() {
        let mut all = Latencies::default();
        assert_eq!((all.quantile(0.5), all.max()), (None, None));
        for part in 0..4 {
            let mut latencies = Latencies::default();
            (1..=1_000).filter(|i| i % 4 == part).for_each(|i| {
                latencies.record(Duration::from_micros(i * 100));
            });
            all.merge(&latencies);
        }
        assert_eq!(all.count(), 1_000);
        for (quantile, millis) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (0.999, 99.9)] {
            let found = all.quantile(quantile).expect("some").as_secs_f64() * 1e3;
            assert!((found / millis - 1.0).abs() < 0.001, "P{quantile}: {found} ms");
        }
    }

    #[test]
    fn a_few_microseconds_are_kept_as_well_as_milliseconds() {
        for nanos in [1, 1_000, 1_234, 56_789, 1_234_567] {
            let mut latencies = Latencies::default();
            latencies.record(Duration::from_nanos(nanos));
            let max = latencies.max().expect("one").as_nanos() as f64;
            assert!((max / nanos as f64 - 1.0).abs() < 0.001, "{max} of {nanos} ns");
        }
    }

    #[test]
    fn what_is_out_of_bounds_counts_as_the_bound() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::MAX);
        let max = latencies.max().expect("one").as_secs_f64();
        assert!((max / 3_600.0 - 1.0).abs() < 0.001, "{max} s");
        assert_eq!(latencies.count(), 1);
    }
}
