//! When requests are due.

use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;
use std::time::Duration;

use crate::ledger::Ledger;

/// Spans wanted a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// So many, whatever the target makes of them: an open loop.
    Spans(NonZeroU64),
    /// As many as the target takes: a closed loop, in which each answer makes room for the next
    /// request. Its latencies say nothing about a load that does not wait.
    Max,
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        match text {
            "max" => Ok(Self::Max),
            spans => spans.replace('_', "").parse().map(Self::Spans).map_err(|_| InvalidRate),
        }
    }
}

/// The text is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a number of spans a second, at least 1, or `max`")]
pub struct InvalidRate;

/// When each request of a run is due, as time since its start.
///
/// In an open loop due times are fixed before the first request is sent: request `i` is due at
/// `i * spans_per_request / rate`, computed anew for each `i`, so that nothing adds up over a long
/// run.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    rate: Rate,
    spans_per_request: NonZeroU32,
    end: Duration,
}

impl Schedule {
    /// Requests until `end`.
    #[must_use]
    pub const fn new(rate: Rate, spans_per_request: NonZeroU32, end: Duration) -> Self {
        Self { rate, spans_per_request, end }
    }

    /// The end.
    pub(crate) const fn end(&self) -> Duration {
        self.end
    }

    /// When `request`, which counts from 0, is due; `None` where that is not before the end, or where
    /// its spans could not be told apart by their numbers any more. `now` matters to a closed loop
    /// alone, where a request is due when it can be sent.
    #[must_use]
    pub fn due(&self, request: u64, now: Duration) -> Option<Duration> {
        let spans = u128::from(request) * u128::from(self.spans_per_request.get());
        if spans + u128::from(self.spans_per_request.get()) > u128::from(Ledger::SPANS_MAX) {
            return None;
        }
        let due = match self.rate {
            Rate::Max => now,
            Rate::Spans(rate) => {
                let nanos = spans * NANOS_PER_SECOND / u128::from(rate.get());
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
        };
        (due < self.end).then_some(due)
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: &str, spans_per_request: u32, seconds: u64) -> Schedule {
        let spans_per_request = NonZeroU32::new(spans_per_request).expect("at least one");
        let rate = rate.parse().expect("a rate");
        Schedule::new(rate, spans_per_request, Duration::from_secs(seconds))
    }

    #[test]
    fn in_an_open_loop_the_time_of_asking_moves_no_request() {
        let schedule = schedule("10_000", 100, 60);
        for now in [Duration::ZERO, Duration::from_secs(30), Duration::from_secs(3600)] {
            assert_eq!(schedule.due(0, now), Some(Duration::ZERO));
            assert_eq!(schedule.due(1, now), Some(Duration::from_millis(10)));
            assert_eq!(schedule.due(5_999, now), Some(Duration::from_millis(59_990)));
            assert_eq!(schedule.due(6_000, now), None, "a minute holds 6,000 requests");
        }
    }

    #[test]
    fn a_rate_that_no_interval_divides_is_kept_over_an_hour() {
        // 7 spans at 3 a second: one request in 2.333… s.
        let schedule = schedule("3", 7, 3_600);
        let requests = (0..).take_while(|&i| schedule.due(i, Duration::ZERO).is_some()).count();
        assert_eq!(requests, 1_543, "3,600 s / (7/3 s), rounded up");
        assert_eq!(schedule.due(3, Duration::ZERO), Some(Duration::from_secs(7)));
    }

    #[test]
    fn in_a_closed_loop_a_request_is_due_when_it_can_be_sent() {
        let schedule = schedule("max", 100, 2);
        let now = Duration::from_millis(1_999);
        assert_eq!(schedule.due(123, now), Some(now));
        assert_eq!(schedule.due(124, Duration::from_secs(2)), None);
    }

    #[test]
    fn a_closed_loop_ends_where_its_spans_run_out_of_numbers() {
        let schedule = schedule("max", 1 << 10, 2);
        assert_eq!(schedule.due((1 << 26) - 1, Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(schedule.due(1 << 26, Duration::ZERO), None);
        assert_eq!(schedule.due(u64::MAX, Duration::ZERO), None);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "0", "-1", "1.5", "fast", "MAX"] {
            assert_eq!(text.parse::<Rate>(), Err(InvalidRate), "{text}");
        }
    }
}
