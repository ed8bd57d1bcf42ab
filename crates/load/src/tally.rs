//! What became of the requests.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Duration;

use spanwire_transport::{Accepted, EncodeError, SendError};

use crate::latencies::Latencies;

/// The answers to the requests of one part of a run.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests that were due, answered or not.
    pub requests: u64,
    /// Spans in them.
    pub spans: u64,
    /// Requests whose answer was success, in whole or in part.
    pub requests_accepted: u64,
    /// Spans that the target took over.
    pub spans_accepted: u64,
    /// Spans refused by partial success.
    pub spans_rejected: u64,
    /// Requests whose answer was a success, but none of OTLP: an unreadable body, or HTTP 204.
    pub answers_unreadable: u64,
    /// Requests that failed, by code: a gRPC code's name, an HTTP status, or what happened to the
    /// connection.
    pub failures: BTreeMap<String, Failures>,
    /// From when a request was due to the end of its answer, or to its failure.
    pub latencies: Latencies,
    /// From when a request was due, and there was a place for it among those in flight, to when the
    /// generator had it ready for the connection: how far the generator itself fell behind.
    pub lateness: Latencies,
    /// Requests that had to wait because as many as may be were in flight.
    pub held_back: u64,
}

/// Requests that failed for the same reason.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub requests: u64,
    /// The text of the first one's error.
    pub example: String,
}

/// Why a request was not taken over.
pub(crate) enum Failure {
    /// There was no place for it among those in flight before the run had to end.
    NoPlace,
    Encode(EncodeError),
    Send(SendError),
}

/// One request that was sent, and its answer.
pub(crate) struct Exchange {
    pub(crate) spans: u64,
    pub(crate) answer: Result<Accepted, Failure>,
    pub(crate) latency: Duration,
    pub(crate) lateness: Duration,
    pub(crate) held_back: bool,
}

impl Tally {
    /// Enters an exchange; returns how many of its spans the target did not take over.
    pub(crate) fn enter(&mut self, exchange: Exchange) -> u64 {
        let Exchange { spans, answer, latency, lateness, held_back } = exchange;
        self.requests += 1;
        self.spans += spans;
        self.held_back += u64::from(held_back);
        self.latencies.record(latency);
        self.lateness.record(lateness);
        match answer {
            Ok(accepted) => {
                let rejected = accepted.rejected_spans.min(spans);
                self.requests_accepted += 1;
                self.spans_accepted += spans - rejected;
                self.spans_rejected += rejected;
                self.answers_unreadable += u64::from(accepted.unreadable);
                rejected
            }
            Err(failure) => {
                let failures = self.failures.entry(failure.code());
                let new = || Failures { requests: 0, example: failure.text() };
                failures.or_insert_with(new).requests += 1;
                spans
            }
        }
    }

    /// Adds all of another tally.
    pub(crate) fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.spans += other.spans;
        self.requests_accepted += other.requests_accepted;
        self.spans_accepted += other.spans_accepted;
        self.spans_rejected += other.spans_rejected;
        self.answers_unreadable += other.answers_unreadable;
        for (code, failures) in other.failures {
            let own = self.failures.entry(code);
            own.and_modify(|own| own.requests += failures.requests).or_insert(failures);
        }
        self.latencies.merge(&other.latencies);
        self.lateness.merge(&other.lateness);
        self.held_back += other.held_back;
    }

    /// Requests that failed, whatever the reason.
    #[must_use]
    pub fn requests_failed(&self) -> u64 {
        self.requests - self.requests_accepted
    }
}

impl Failure {
    /// Whether there was no connection.
    pub(crate) fn is_of_connecting(&self) -> bool {
        matches!(self, Self::Send(SendError::Connect(_) | SendError::Proxy { .. }))
    }

    fn code(&self) -> String {
        let Self::Send(error) = self else { return "not sent".to_owned() };
        match error {
            SendError::Connect(_) => "no connection".to_owned(),
            SendError::Proxy { status, .. } => format!("proxy HTTP {status}"),
            SendError::Disconnect(_) => "connection lost".to_owned(),
            SendError::Timeout { .. } => "no answer in time".to_owned(),
            SendError::Throttle { status, .. }
            | SendError::Reject { status, .. }
            | SendError::Oversize { status, .. } => status.to_string(),
            SendError::AnswerTooLarge { .. } => "answer too large".to_owned(),
            other => other.to_string(),
        }
    }

    /// The error and its causes.
    fn text(&self) -> String {
        match self {
            Self::NoPlace => "too many were in flight when the run had to end".to_owned(),
            Self::Encode(error) => chain(error),
            Self::Send(error) => chain(error),
        }
    }
}

/// An error's text and those of its causes.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let errors = std::iter::successors(Some(error), |error| error.source());
    errors.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Spans that need not arrive, since the target did not say that it took them over.
#[derive(Debug)]
pub(crate) struct Excused {
    spans_per_request: u64,
    /// Requests all of whose spans may be missing: the first of each row of them, with the one after
    /// the last. A target that fails does so for a while, and takes a row.
    whole: BTreeMap<u64, u64>,
    /// How many spans of other requests may be.
    part: HashMap<u64, u64>,
}

impl Excused {
    pub(crate) fn new(spans_per_request: u64) -> Self {
        Self { spans_per_request, whole: BTreeMap::new(), part: HashMap::new() }
    }

    /// So many spans of `request` may be missing. To be said once of a request.
    pub(crate) fn add(&mut self, request: u64, spans: u64) {
        match spans {
            0 => {}
            part if part < self.spans_per_request => {
                self.part.insert(request, part);
            }
            _ => {
                let before = self.whole.range(..request).next_back();
                let before = before.filter(|(_, end)| **end == request);
                let first = before.map_or(request, |(first, _)| *first);
                let end = self.whole.remove(&(request + 1)).unwrap_or(request + 1);
                self.whole.insert(first, end);
            }
        }
    }

    /// Whether all spans of `request` may be missing.
    fn is_whole(&self, request: u64) -> bool {
        self.whole.range(..=request).next_back().is_some_and(|(_, end)| request < *end)
    }

    /// Of the spans `missing`, each request's numbers in a row, those that had been accepted.
    pub(crate) fn lost(&self, missing: &[Range<u64>]) -> u64 {
        let spans_per_request = self.spans_per_request;
        let mut by_request: HashMap<u64, u64> = HashMap::new();
        let mut lost = 0;
        for range in missing {
            let mut from = range.start;
            while from < range.end {
                let request = (from - 1) / spans_per_request;
                let to = range.end.min((request + 1) * spans_per_request + 1);
                if self.part.contains_key(&request) {
                    *by_request.entry(request).or_default() += to - from;
                } else if !self.is_whole(request) {
                    lost += to - from;
                }
                from = to;
            }
        }
        let beyond = |(request, missing): (&u64, &u64)| missing.saturating_sub(self.part[request]);
        lost + by_request.iter().map(beyond).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(answer: Result<Accepted, Failure>) -> Exchange {
        let latency = Duration::from_millis(5);
        Exchange { spans: 10, answer, latency, lateness: Duration::ZERO, held_back: false }
    }

    fn accepted(rejected_spans: u64) -> Result<Accepted, Failure> {
        Ok(Accepted { rejected_spans, ..Accepted::default() })
    }

    fn timeout() -> Result<Accepted, Failure> {
        Err(Failure::Send(SendError::Timeout { after: Duration::from_secs(1) }))
    }

    #[test]
    fn every_span_is_accepted_rejected_or_in_a_failed_request() {
        let mut parts = [Tally::default(), Tally::default()];
        assert_eq!(parts[0].enter(exchange(accepted(0))), 0);
        assert_eq!(parts[0].enter(exchange(timeout())), 10);
        assert_eq!(parts[1].enter(exchange(accepted(3))), 3);
        assert_eq!(parts[1].enter(exchange(timeout())), 10);
        let [mut all, other] = parts;
        all.merge(other);
        assert_eq!((all.requests, all.requests_accepted, all.requests_failed()), (4, 2, 2));
        assert_eq!((all.spans, all.spans_accepted, all.spans_rejected), (40, 17, 3));
        let failures = &all.failures["no answer in time"];
        assert_eq!(failures.requests, 2);
        assert_eq!(failures.example, "no answer from the destination within 1000 ms");
        assert_eq!(all.latencies.count(), 4);
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of ranges is what is meant")]
    fn only_accepted_spans_can_be_lost() {
        let mut excused = Excused::new(10);
        excused.add(1, 10); // 11 to 20, failed
        excused.add(2, 3); // 21 to 30, three rejected
        let cases: [(&[Range<u64>], u64); 7] = [
            (&[], 0),
            (&[11..21], 0),
            (&[5..6], 1),
            (&[10..22], 1),
            (&[21..23, 30..31], 0),
            (&[21..23, 28..31], 2),
            (&[1..41], 10 + 7 + 10),
        ];
        for (missing, lost) in cases {
            assert_eq!(excused.lost(missing), lost, "{missing:?}");
        }
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of ranges is what is meant")]
    fn a_row_of_failed_requests_takes_one_entry_in_whatever_order_they_fail() {
        let mut excused = Excused::new(10);
        [3, 5, 4, 0, 1, 2, 8].into_iter().for_each(|request| excused.add(request, 10));
        assert_eq!(excused.whole, BTreeMap::from([(0, 6), (8, 9)]));
        assert_eq!(excused.lost(&[1..101]), 3 * 10, "requests 6, 7 and 9");
    }
}
