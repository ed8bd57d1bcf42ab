//! How a destination fares, by its last attempts.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the attempts at one destination came to.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Attempts that may be made again.
    failing: Option<Failing>,
    /// Requests refused for good, with none taken between them.
    refusing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    attempts: u64,
    error: Box<str>,
}

/// Why a destination is not healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ailment {
    pub(crate) lasted: Duration,
    pub(crate) attempts: u64,
    pub(crate) error: Box<str>,
}

/// A destination that had nothing to do for so long after its last failure may be well again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

impl Health {
    pub(crate) fn succeeded(&self) {
        *self.state() = State::default();
    }

    /// The same bytes may pass later.
    pub(crate) fn failed(&self, error: &str, now: Instant) {
        Failing::again(&mut self.state().failing, error, now);
    }

    /// The destination answered, and refused the request for good. One such request is the fault of
    /// its sender; one after the other is a wrong path, or key, or destination.
    pub(crate) fn refused(&self, error: &str, now: Instant) {
        let mut state = self.state();
        state.failing = None;
        Failing::again(&mut state.refusing, error, now);
    }

    /// What fails, if the last attempt did. `queued` is whether spans wait, or are on their way: where
    /// there are none, a failure is forgotten in time.
    pub(crate) fn ailment(&self, now: Instant, queued: bool) -> Option<Ailment> {
        let state = self.state();
        let current =
            |failing: &&Failing| queued || now.duration_since(failing.last) < FORGOTTEN_AFTER;
        let ailment = |failing: &Failing, until: Instant| Ailment {
            lasted: until.saturating_duration_since(failing.since),
            attempts: failing.attempts,
            error: failing.error.clone(),
        };
        let failing = state.failing.as_ref().filter(current);
        let refusing = state.refusing.as_ref().filter(current);
        let failing = failing.map(|failing| ailment(failing, now));
        failing.or_else(|| refusing.map(|refusing| ailment(refusing, refusing.last)))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failing {
    fn again(before: &mut Option<Self>, error: &str, now: Instant) {
        let (since, attempts) =
            before.as_ref().map_or((now, 0), |before| (before.since, before.attempts));
        *before = Some(Self { since, last: now, attempts: attempts + 1, error: error.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_ailment_lasts_from_the_first_failure_to_the_next_success() {
        let (health, start) = (Health::default(), Instant::now());
        assert_eq!(health.ailment(start, true), None);
        health.failed("refused", start);
        health.failed("timed out", start + seconds(1));
        let ailment = health.ailment(start + seconds(5), true).expect("it fails");
        let expected = Ailment { lasted: seconds(5), attempts: 2, error: "timed out".into() };
        assert_eq!(ailment, expected);
        health.succeeded();
        assert_eq!(health.ailment(start, true), None);
    }

    #[test]
    fn a_failure_is_forgotten_once_there_was_nothing_to_do_for_a_while() {
        let (health, start) = (Health::default(), Instant::now());
        health.failed("timed out", start);
        assert!(health.ailment(start + seconds(29), false).is_some());
        assert!(health.ailment(start + seconds(31), true).is_some(), "spans wait for it");
        assert_eq!(health.ailment(start + seconds(31), false), None);
    }

    #[test]
    fn requests_refused_one_after_the_other_are_an_ailment_and_a_single_one_is_none_that_lasts() {
        let (health, start) = (Health::default(), Instant::now());
        health.refused("HTTP 404", start);
        let lasted = |now| health.ailment(now, true).map(|ailment| ailment.lasted);
        assert_eq!(lasted(start + seconds(20)), Some(Duration::ZERO));
        health.refused("HTTP 404", start + seconds(20));
        assert_eq!(lasted(start + seconds(25)), Some(seconds(20)));
        health.succeeded();
        assert_eq!(lasted(start + seconds(25)), None);
        health.refused("HTTP 400", start + seconds(26));
        assert_eq!(lasted(start + seconds(27)), Some(Duration::ZERO));
    }
}
