//! When to send again: exponential backoff with full jitter, as a pure state machine.

use std::time::{Duration, Instant};

use crate::error::Retry;

/// The numbers of a [`RetryPolicy`], unchecked.
///
/// ```
/// use std::time::Duration;
/// use spanwire_transport::{RetryPolicy, RetrySettings};
///
/// let policy = RetryPolicy::new(RetrySettings {
///     elapsed_max: Duration::from_secs(60),
///     ..RetrySettings::default()
/// });
/// assert!(policy.is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrySettings {
    /// Attempts in all, the first one included. At least 1; 1 means no retry.
    pub attempts_max: u32,
    /// Time from the first attempt within which another may start. Zero means no retry.
    pub elapsed_max: Duration,
    /// Upper bound of the first wait. Above zero.
    pub interval_initial: Duration,
    /// Upper bound of any wait that the collector did not ask for. At least `interval_initial`.
    pub interval_max: Duration,
    /// Growth of the upper bound from one wait to the next. 1 or more.
    pub multiplier: f64,
    /// How much of the wait is random: 1 is full jitter, from zero to the upper bound; 0.5 is from
    /// half of it; 0 is none, so that clients that failed together come back together. 0 to 1.
    pub randomization: f64,
}

impl Default for RetrySettings {
    /// 12 attempts within 5 minutes, 1 s doubling up to 30 s, full jitter.
    fn default() -> Self {
        Self {
            attempts_max: 12,
            elapsed_max: Duration::from_secs(300),
            interval_initial: Duration::from_secs(1),
            interval_max: Duration::from_secs(30),
            multiplier: 2.0,
            randomization: 1.0,
        }
    }
}

/// How often and how fast to send the same bytes again. Checked when it is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy(RetrySettings);

impl RetryPolicy {
    /// Checks the ranges given at [`RetrySettings`].
    ///
    /// # Errors
    ///
    /// The first setting outside its range.
    pub fn new(settings: RetrySettings) -> Result<Self, InvalidRetrySettings> {
        if settings.attempts_max == 0 {
            return Err(InvalidRetrySettings::Attempts);
        }
        if settings.interval_initial.is_zero() {
            return Err(InvalidRetrySettings::IntervalInitial);
        }
        if settings.interval_max < settings.interval_initial {
            return Err(InvalidRetrySettings::IntervalMax {
                initial: settings.interval_initial,
                max: settings.interval_max,
            });
        }
        if !(settings.multiplier.is_finite() && settings.multiplier >= 1.0) {
            return Err(InvalidRetrySettings::Multiplier(settings.multiplier));
        }
        if !(0.0..=1.0).contains(&settings.randomization) {
            return Err(InvalidRetrySettings::Randomization(settings.randomization));
        }
        Ok(Self(settings))
    }

    /// The settings it was made of.
    pub fn settings(&self) -> &RetrySettings {
        &self.0
    }
}

impl Default for RetryPolicy {
    /// [`RetrySettings::default`], which is within every range.
    fn default() -> Self {
        Self(RetrySettings::default())
    }
}

/// Which retry setting is out of range.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRetrySettings {
    /// `attempts_max` is 0.
    #[error("attempts_max is 0, must be at least 1")]
    Attempts,
    /// `interval_initial` is zero, so every wait would be.
    #[error("interval_initial is zero")]
    IntervalInitial,
    /// `interval_max` is below `interval_initial`.
    #[error("interval_max of {max:?} is below interval_initial of {initial:?}")]
    IntervalMax {
        /// `interval_initial`.
        initial: Duration,
        /// `interval_max`.
        max: Duration,
    },
    /// `multiplier` would shrink the waits, or is not a number.
    #[error("multiplier is {0}, must be 1 or more")]
    Multiplier(f64),
    /// `randomization` is outside 0 to 1, or is not a number.
    #[error("randomization is {0}, must be from 0 to 1")]
    Randomization(f64),
}

/// The retries of one body.
///
/// It owns no clock and no source of randomness: both come in with each call, so tests run in
/// virtual time.
///
/// ```
/// use std::time::{Duration, Instant};
/// use spanwire_transport::{Backoff, Retry, RetryPolicy};
///
/// let start = Instant::now();
/// let mut backoff = Backoff::new(RetryPolicy::default(), start);
/// // The largest random number gives the longest wait.
/// assert_eq!(backoff.wait_after(Retry::Backoff, start, u64::MAX), Some(Duration::from_secs(1)));
/// assert_eq!(backoff.wait_after(Retry::Backoff, start, u64::MAX), Some(Duration::from_secs(2)));
/// assert_eq!(backoff.wait_after(Retry::Never, start, u64::MAX), None);
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    started: Instant,
    attempts: u32,
    /// Upper bound of the next wait.
    interval: Duration,
}

impl Backoff {
    /// For a body whose first attempt starts at `now`.
    pub fn new(policy: RetryPolicy, now: Instant) -> Self {
        Self { policy, started: now, attempts: 0, interval: policy.0.interval_initial }
    }

    /// How long to wait after an attempt that failed at `now`, or `None` to give up.
    ///
    /// `random` is uniform over all of `u64`. A delay the collector asked for is waited in full,
    /// with the jittered interval on top, so that clients told the same delay do not return
    /// together; the intervals after it grow from that delay (`RetryInfo` under "OTLP/gRPC
    /// Throttling" in `docs/specification.md`, opentelemetry-proto v1.11.0). No wait ends after
    /// `elapsed_max`: the last attempt starts there, instead of the body being dropped early.
    #[must_use = "the wait has to be waited, or the body counted as dropped"]
    pub fn wait_after(&mut self, retry: Retry, now: Instant, random: u64) -> Option<Duration> {
        let settings = &self.policy.0;
        self.attempts = self.attempts.saturating_add(1);
        let asked = match retry {
            Retry::Never => return None,
            Retry::Backoff => Duration::ZERO,
            Retry::After(delay) => delay,
        };
        let elapsed = now.saturating_duration_since(self.started);
        let left = settings.elapsed_max.saturating_sub(elapsed);
        if self.attempts >= settings.attempts_max || left.is_zero() {
            return None;
        }

        let uniform = random as f64 / u64::MAX as f64;
        let share = 1.0 - settings.randomization * (1.0 - uniform);
        let wait = asked.saturating_add(scale(self.interval, share)).min(left);
        self.interval =
            scale(self.interval.max(asked), settings.multiplier).min(settings.interval_max);
        Some(wait)
    }

    /// Attempts that failed so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// `interval` times `factor`, without the panic of `Duration::mul_f64` on overflow.
fn scale(interval: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(interval.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> impl Strategy<Value = RetrySettings> {
        (1..20u32, 0..400_000u64, 1..10_000u64, 0..60_000u64, 1.0..5.0f64, 0.0..=1.0f64).prop_map(
            |(attempts_max, elapsed, initial, more, multiplier, randomization)| RetrySettings {
                attempts_max,
                elapsed_max: Duration::from_millis(elapsed),
                interval_initial: Duration::from_millis(initial),
                interval_max: Duration::from_millis(initial + more),
                multiplier,
                randomization,
            },
        )
    }

    fn retries() -> impl Strategy<Value = Retry> {
        prop_oneof![
            3 => Just(Retry::Backoff),
            1 => (0..200_000u64).prop_map(|ms| Retry::After(Duration::from_millis(ms))),
            1 => Just(Retry::After(Duration::MAX)),
        ]
    }

    proptest! {
        #[test]
        fn attempts_end_by_count_and_by_deadline_whatever_the_collector_asks(
            settings in settings(),
            retries in prop::collection::vec((retries(), any::<u64>(), 0..5_000u64), 1..40),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut backoff = Backoff::new(RetryPolicy::new(settings)?, start);
            let mut attempts = 0;
            for (retry, random, took_ms) in retries {
                attempts += 1;
                now += Duration::from_millis(took_ms);
                let spent = attempts >= settings.attempts_max
                    || now - start >= settings.elapsed_max;
                let wait = backoff.wait_after(retry, now, random);
                prop_assert_eq!(wait.is_none(), spent);
                let Some(wait) = wait else { break };
                prop_assert!(now + wait <= start + settings.elapsed_max);
                now += wait;
            }
        }

        /// Faults 105.
        #[test]
        fn a_wait_lies_between_its_bounds(
            settings in settings(),
            random in any::<u64>(),
            failures in 0..8i32,
        ) {
            let settings = RetrySettings { attempts_max: 20, elapsed_max: Duration::MAX, ..settings };
            let start = Instant::now();
            let mut backoff = Backoff::new(RetryPolicy::new(settings)?, start);
            for _ in 0..failures {
                let _ = backoff.wait_after(Retry::Backoff, start, random);
            }
            let wait = backoff.wait_after(Retry::Backoff, start, random).expect("attempts left");
            let upper = (settings.interval_initial.as_secs_f64()
                * settings.multiplier.powi(failures))
                .min(settings.interval_max.as_secs_f64());
            let tolerance = 1e-6;
            prop_assert!(wait.as_secs_f64() <= upper + tolerance);
            prop_assert!(wait.as_secs_f64() >= upper * (1.0 - settings.randomization) - tolerance);
        }

        /// Faults 97.
        #[test]
        fn a_delay_the_collector_asked_for_is_a_minimum(
            asked_ms in 0..100_000u64,
            random in any::<u64>(),
        ) {
            let asked = Duration::from_millis(asked_ms);
            let start = Instant::now();
            let mut backoff = Backoff::new(RetryPolicy::default(), start);
            let wait = backoff.wait_after(Retry::After(asked), start, random).expect("first");
            prop_assert!(wait >= asked);
            prop_assert!(wait <= asked + Duration::from_secs(1));
        }
    }

    /// Faults 97.
    #[test]
    fn full_jitter_spreads_evenly_from_zero_to_the_bound() {
        let start = Instant::now();
        let wait = |random| {
            let mut backoff = Backoff::new(RetryPolicy::default(), start);
            backoff.wait_after(Retry::Backoff, start, random).expect("first").as_millis()
        };
        let quarter = u64::MAX / 4;
        assert_eq!(
            [0, quarter, 2 * quarter, 3 * quarter, u64::MAX].map(wait),
            [0, 250, 500, 750, 1000]
        );
    }

    /// Faults 109.
    #[test]
    fn waits_grow_from_the_delay_the_collector_asked_for() {
        let start = Instant::now();
        let mut backoff = Backoff::new(RetryPolicy::default(), start);
        let mut wait = |retry| backoff.wait_after(retry, start, u64::MAX).map(|w| w.as_secs());
        assert_eq!(wait(Retry::After(Duration::from_secs(5))), Some(6));
        assert_eq!(wait(Retry::Backoff), Some(10));
        assert_eq!(wait(Retry::Backoff), Some(20));
        assert_eq!(wait(Retry::Backoff), Some(30));
    }

    /// Faults 106.
    #[test]
    fn a_delay_past_the_deadline_makes_a_last_attempt_at_the_deadline() {
        let start = Instant::now();
        let mut backoff = Backoff::new(RetryPolicy::default(), start);
        let hour = Retry::After(Duration::from_secs(3600));
        let wait = backoff.wait_after(hour, start, 0);
        assert_eq!(wait, Some(Duration::from_secs(300)));
        assert_eq!(backoff.wait_after(hour, start + Duration::from_secs(300), 0), None);
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let good = RetrySettings::default();
        let bad = [
            RetrySettings { attempts_max: 0, ..good },
            RetrySettings { interval_initial: Duration::ZERO, ..good },
            RetrySettings { interval_max: Duration::from_millis(1), ..good },
            RetrySettings { multiplier: 0.9, ..good },
            RetrySettings { multiplier: f64::NAN, ..good },
            RetrySettings { multiplier: f64::INFINITY, ..good },
            RetrySettings { randomization: -0.1, ..good },
            RetrySettings { randomization: 1.1, ..good },
            RetrySettings { randomization: f64::NAN, ..good },
        ];
        for settings in bad {
            assert!(RetryPolicy::new(settings).is_err(), "{settings:?}");
        }
        assert_eq!(RetryPolicy::new(good), Ok(RetryPolicy::default()));
    }
}
