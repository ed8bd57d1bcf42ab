//! Log lines that say a thing once and then how often it came again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures of one component, of which one in [`QUIET`] is told.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    untold: u64,
    spans_untold: u64,
}

/// So long after a line about a component, further failures of it are only counted.
const QUIET: Duration = Duration::from_secs(10);

impl Failures {
    /// Something failed; `spans_dropped` spans are lost by it.
    pub(crate) fn failed(&self, id: &str, message: &str, spans_dropped: usize) {
        let Some((untold, spans_untold)) = self.tell(Instant::now(), spans_dropped) else { return };
        tracing::warn!(
            component = id,
            spans_dropped = spans_dropped as u64 + spans_untold,
            failures_since_the_last_line = untold,
            "{message}"
        );
    }

    /// Whether to tell, and what was not told before.
    fn tell(&self, now: Instant, spans_dropped: usize) -> Option<(u64, u64)> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = told.at.is_some_and(|at| now.saturating_duration_since(at) < QUIET);
        if quiet {
            told.untold += 1;
            told.spans_untold += spans_dropped as u64;
            return None;
        }
        let before = (told.untold, told.spans_untold);
        *told = Told { at: Some(now), untold: 0, spans_untold: 0 };
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once_and_then_how_often_it_came_again() {
        let (failures, start) = (Failures::default(), Instant::now());
        assert_eq!(failures.tell(start, 5), Some((0, 0)));
        assert_eq!(failures.tell(start + QUIET / 2, 3), None);
        assert_eq!(failures.tell(start + QUIET / 2, 4), None);
        assert_eq!(failures.tell(start + QUIET, 1), Some((2, 7)));
        assert_eq!(failures.tell(start + QUIET * 2, 1), Some((0, 0)));
    }
}
