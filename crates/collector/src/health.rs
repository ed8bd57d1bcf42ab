//! How a destination fares, by its last attempts.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the attempts at one destination came to.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
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

impl Health {
    pub(crate) fn succeeded(&self) {
        self.state().failing = None;
    }

    pub(crate) fn failed(&self, error: &str, now: Instant) {
        let mut state = self.state();
        match &mut state.failing {
            Some(failing) => {
                failing.attempts += 1;
                failing.error = error.into();
            }
            none => *none = Some(Failing { since: now, attempts: 1, error: error.into() }),
        }
    }

    /// What fails, if the last attempt did.
    pub(crate) fn ailment(&self, now: Instant) -> Option<Ailment> {
        self.state().failing.as_ref().map(|failing| Ailment {
            lasted: now.saturating_duration_since(failing.since),
            attempts: failing.attempts,
            error: failing.error.clone(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ailment_lasts_from_the_first_failure_to_the_next_success() {
        let (health, start) = (Health::default(), Instant::now());
        assert_eq!(health.ailment(start), None);
        health.failed("refused", start);
        health.failed("timed out", start + Duration::from_secs(1));
        let ailment = health.ailment(start + Duration::from_secs(5)).expect("it fails");
        let expected =
            Ailment { lasted: Duration::from_secs(5), attempts: 2, error: "timed out".into() };
        assert_eq!(ailment, expected);
        health.succeeded();
        assert_eq!(health.ailment(start), None);
    }
}
