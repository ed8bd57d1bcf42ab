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
    /// When a request was taken apart last though everything is refused.
    looked: Option<Instant>,
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

/// A destination that refused so many, for so long, and took none, refuses everything.
const REFUSED_MIN: u64 = 32;
const LOOK: Duration = Duration::from_secs(10);

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

    /// Whether a request that was refused for good is to be taken apart, to find the part that spoils
    /// it. Where the destination takes nothing at all, that would be twice as many requests as there
    /// are parts, of every request and for nothing; it is looked at once in a while then.
    pub(crate) fn halves(&self, now: Instant) -> bool {
        let mut state = self.state();
        let Some(refusing) = &mut state.refusing else { return true };
        let lasted = now.saturating_duration_since(refusing.since);
        if refusing.attempts < REFUSED_MIN || lasted < LOOK {
            return true;
        }
        let is_due = refusing.looked.is_none_or(|looked| now >= looked + LOOK);
        if is_due {
            refusing.looked = Some(now);
        }
        is_due
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
        let failing = before.get_or_insert_with(|| Self {
            since: now,
            last: now,
            attempts: 0,
            error: Box::default(),
            looked: None,
        });
        failing.last = now;
        failing.attempts += 1;
        failing.error = error.into();
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

    #[test]
    fn a_destination_that_refuses_everything_is_sent_parts_once_in_a_while_until_it_takes_one() {
        let (health, start) = (Health::default(), Instant::now());
        assert!(health.halves(start));
        (0..100).for_each(|_| health.refused("HTTP 400", start));
        assert!(health.halves(start + seconds(9)), "it may have been one sender's fault");
        let looks = (10..40).filter(|&second| health.halves(start + seconds(second)));
        assert_eq!(looks.collect::<Vec<_>>(), [10, 20, 30]);
        health.succeeded();
        health.refused("HTTP 400", start + seconds(40));
        assert!((41..80).all(|second| health.halves(start + seconds(second))), "a single one");
    }
}
