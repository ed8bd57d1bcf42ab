//! What became of a source request, told to whoever waits for it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// What became of the spans of one source request at one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Spans that the destination refused for good, or that were dropped on the way to it.
    pub(crate) rejected: u64,
    /// Whether spans were given up that the destination might have taken later.
    pub(crate) gave_up: bool,
    /// The first reason told.
    pub(crate) message: Option<Box<str>>,
}

/// The part of a source request in one batch. All parts together have one answer, which goes out when
/// the last of them is gone: whatever ends a part, the source hears of it.
#[derive(Clone, Debug)]
pub(crate) struct Answer(Arc<Pending>);

#[derive(Debug)]
struct Pending {
    outcome: Mutex<Outcome>,
    asks: Mutex<Option<oneshot::Sender<Outcome>>>,
}

impl Answer {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Outcome>) {
        let (asks, answered) = oneshot::channel();
        let pending = Pending { outcome: Mutex::default(), asks: Mutex::new(Some(asks)) };
        (Self(Arc::new(pending)), answered)
    }

    /// So many of its spans were refused for good.
    pub(crate) fn rejected(&self, spans: u64, message: Option<&str>) {
        self.note(spans, false, message);
    }

    /// So many of its spans were given up.
    pub(crate) fn gave_up(&self, spans: u64, message: &str) {
        self.note(spans, true, Some(message));
    }

    fn note(&self, spans: u64, gave_up: bool, message: Option<&str>) {
        let mut outcome = self.0.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.rejected += spans;
        outcome.gave_up |= gave_up;
        if outcome.message.is_none() {
            outcome.message = message.map(Into::into);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let outcome =
            std::mem::take(self.outcome.get_mut().unwrap_or_else(PoisonError::into_inner));
        if let Some(asks) = self.asks.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody waits any more where the peer went away.
            let _nobody_waits = asks.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_goes_out_with_the_last_part_and_sums_them_up() {
        let (first, mut answered) = Answer::new();
        let second = first.clone();
        first.rejected(2, Some("bad name"));
        drop(first);
        assert!(answered.try_recv().is_err(), "a part is still on its way");
        second.gave_up(3, "retries are exhausted");
        drop(second);
        let outcome = answered.try_recv().expect("all parts are gone");
        let expected = Outcome { rejected: 5, gave_up: true, message: Some("bad name".into()) };
        assert_eq!(outcome, expected);
    }
}
