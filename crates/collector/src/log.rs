//! Log lines that say a thing once and then how often it came again.

use std::fmt::{self, Write as _};
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures of one component, of which one in [`QUIET`] is told. Those after the last line are told
/// by [`flush`](Self::flush), and when the component is gone.
#[derive(Debug)]
pub(crate) struct Failures {
    /// The component.
    id: Box<str>,
    /// Where it sends to, if that is elsewhere.
    endpoint: Option<Box<str>>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    untold: u64,
    spans_untold: u64,
    /// What failed, the last time that it was not told. Kept to be written again: a queue that is full
    /// fails thousands of times a second.
    last: String,
}

/// So long after a line about a component, further failures of it are only counted.
pub(crate) const QUIET: Duration = Duration::from_secs(10);

impl Failures {
    /// Of a component that sends to `endpoint`.
    pub(crate) fn of(id: &str, endpoint: Option<&str>) -> Self {
        Self { id: id.into(), endpoint: endpoint.map(Into::into), told: Mutex::default() }
    }

    /// Something failed; `spans_dropped` spans are lost by it.
    pub(crate) fn failed(&self, message: impl fmt::Display, spans_dropped: usize) {
        let told = self.told().tell(Instant::now(), &message, spans_dropped);
        let Some((untold, spans_untold)) = told else { return };
        self.warn(message, untold, spans_dropped as u64 + spans_untold);
    }

    /// Tells what was only counted, if the time for it has come.
    pub(crate) fn flush(&self, now: Instant) {
        let tail = self.told().tail(now);
        self.tell(tail);
    }

    fn tell(&self, tail: Option<Tail>) {
        let Some(Tail { message, untold, spans_untold }) = tail else { return };
        self.warn(message, untold - 1, spans_untold);
    }

    /// `untold` failures came before this one without a line of their own.
    fn warn(&self, message: impl fmt::Display, untold: u64, spans_dropped: u64) {
        // What is not there is not said.
        let some = |count: u64| (count > 0).then_some(count);
        tracing::warn!(
            component = &*self.id,
            endpoint = self.endpoint.as_deref(),
            spans_dropped = some(spans_dropped),
            failures_since_the_last_line = some(untold),
            "{message}"
        );
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        let tail = self.told().take();
        self.tell(tail);
    }
}

/// Failures since the last line.
#[derive(Debug, PartialEq, Eq)]
struct Tail {
    message: String,
    untold: u64,
    spans_untold: u64,
}

impl Told {
    /// Whether to tell, and what was not told before.
    fn tell(
        &mut self,
        now: Instant,
        message: &impl fmt::Display,
        spans: usize,
    ) -> Option<(u64, u64)> {
        if self.is_quiet(now) {
            self.untold += 1;
            self.spans_untold += spans as u64;
            self.last.clear();
            // A string takes whatever is written to it.
            let _infallible = write!(self.last, "{message}");
            return None;
        }
        let before = (self.untold, self.spans_untold);
        *self = Self { at: Some(now), ..Self::default() };
        Some(before)
    }

    fn tail(&mut self, now: Instant) -> Option<Tail> {
        if self.is_quiet(now) {
            return None;
        }
        let tail = self.take()?;
        self.at = Some(now);
        Some(tail)
    }

    fn take(&mut self) -> Option<Tail> {
        let Self { untold, spans_untold, last: message, .. } = mem::take(self);
        (untold > 0).then_some(Tail { message, untold, spans_untold })
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now.saturating_duration_since(at) < QUIET)
    }
}

/// An error with its causes.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once_and_then_how_often_it_came_again() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut tell = |now, spans| told.tell(now, &"refused", spans);
        assert_eq!(tell(start, 5), Some((0, 0)));
        assert_eq!(tell(start + QUIET / 2, 3), None);
        assert_eq!(tell(start + QUIET / 2, 4), None);
        assert_eq!(tell(start + QUIET, 1), Some((2, 7)));
        assert_eq!(tell(start + QUIET * 2, 1), Some((0, 0)));
    }

    #[test]
    fn the_tail_of_a_burst_is_told_when_no_other_failure_follows() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert_eq!(told.tell(start, &"refused", 5), Some((0, 0)));
        assert_eq!(told.tell(start, &"timed out", 3), None);
        assert_eq!(told.tail(start + QUIET / 2), None);
        let tail = Tail { message: "timed out".into(), untold: 1, spans_untold: 3 };
        assert_eq!(told.tail(start + QUIET), Some(tail));
        assert_eq!(told.tail(start + QUIET * 2), None);
    }
}
