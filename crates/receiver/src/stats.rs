//! What a receiver has counted: every request is accepted or refused, and every refusal has a reason.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::sink::Transport;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No such service, method or path.
    Path,
    /// A method other than POST.
    Method,
    /// A `Content-Type` that OTLP does not have.
    ContentType,
    /// A compression that is not supported.
    ContentEncoding,
    /// The request is over its limit of bytes, as sent or after decompression, or of elements.
    TooLarge,
    /// The bytes of the requests in flight, of the receiver or of the connection, left no room for
    /// this one.
    Budget,
    /// The request broke the rules of HTTP or gRPC: a head that is malformed or too large, a body cut
    /// short, too long, or not exactly one message.
    Framing,
    /// The body is not a compressed stream, a protobuf message or a JSON document as it claims.
    Malformed,
    /// The body took too long to arrive, or the deadline that the peer had set passed.
    Timeout,
    /// The peer reset the request or closed the connection before it was answered.
    Cancelled,
    /// The sink, or the code that read the request for it, panicked.
    Panic,
    /// The sink answered [`Refusal::Unavailable`](crate::Refusal::Unavailable) or
    /// [`Refusal::Undelivered`](crate::Refusal::Undelivered).
    SinkUnavailable,
    /// The sink answered [`Refusal::Exhausted`](crate::Refusal::Exhausted).
    SinkExhausted,
    /// The sink answered [`Refusal::TooLarge`](crate::Refusal::TooLarge).
    SinkTooLarge,
    /// The sink answered [`Refusal::Invalid`](crate::Refusal::Invalid).
    SinkInvalid,
    /// The sink answered [`Refusal::Internal`](crate::Refusal::Internal).
    SinkInternal,
}

impl Reason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 16] = [
        Self::Path,
        Self::Method,
        Self::ContentType,
        Self::ContentEncoding,
        Self::TooLarge,
        Self::Budget,
        Self::Framing,
        Self::Malformed,
        Self::Timeout,
        Self::Cancelled,
        Self::Panic,
        Self::SinkUnavailable,
        Self::SinkExhausted,
        Self::SinkTooLarge,
        Self::SinkInvalid,
        Self::SinkInternal,
    ];

    /// The name for a metric's label, in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Method => "method",
            Self::ContentType => "content_type",
            Self::ContentEncoding => "content_encoding",
            Self::TooLarge => "too_large",
            Self::Budget => "budget",
            Self::Framing => "framing",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Panic => "panic",
            Self::SinkUnavailable => "sink_unavailable",
            Self::SinkExhausted => "sink_exhausted",
            Self::SinkTooLarge => "sink_too_large",
            Self::SinkInvalid => "sink_invalid",
            Self::SinkInternal => "sink_internal",
        }
    }
}

/// A reading of a receiver's counters, from [`Receiver::stats`](crate::Receiver::stats).
///
/// The counters are read one by one, so a reading taken under load may be a request apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// What came by gRPC.
    pub grpc: TransportStats,
    /// What came by HTTP.
    pub http: TransportStats,
    /// Connections open now.
    pub connections_open: usize,
    /// Connections accepted so far.
    pub connections_accepted: u64,
    /// Connections that ended with an error: bad HTTP, a timeout, a peer gone, no end within the
    /// grace of their age.
    pub connections_failed: u64,
    /// Those of them whose TLS handshake failed: no TLS, no version or cipher in common, no
    /// certificate that is trusted, too slow.
    pub tls_handshakes_failed: u64,
    /// Those that began with TLS where none is served.
    pub connections_unexpected_tls: u64,
    /// Those that spoke neither HTTP/2 nor TLS to the gRPC port: HTTP/1.1, mostly.
    pub connections_not_grpc: u64,
    /// Times the operating system refused to hand over a connection.
    pub accept_errors: u64,
    /// Bytes of requests being read, decoded or held by the sink now; if the receiver's
    /// [`Budget`](crate::Budget) is shared, those of everybody who takes from it.
    pub in_flight_bytes: usize,
}

/// What came by one transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportStats {
    /// Requests answered with success, in whole or in part, empty ones included. A preflight of
    /// CORS is a question about requests, and none.
    pub requests_accepted: u64,
    /// Spans the sink took over.
    pub spans_accepted: u64,
    /// Spans answered for by partial success: malformed, or rejected by the sink.
    pub spans_rejected: u64,
    /// Body bytes of the requests read to the end, as sent.
    pub wire_bytes: u64,
    /// The same requests' bytes in protobuf, uncompressed.
    pub request_bytes: u64,
    refused: [Refused; Reason::ALL.len()],
}

impl TransportStats {
    /// What was refused for `reason`.
    #[must_use]
    pub fn refused(&self, reason: Reason) -> Refused {
        self.refused[reason as usize]
    }

    /// What was refused for any reason.
    #[must_use]
    pub fn refused_in_all(&self) -> Refused {
        self.refused.iter().fold(Refused::default(), |sum, refused| Refused {
            requests: sum.requests + refused.requests,
            spans: sum.spans + refused.spans,
        })
    }
}

/// How much was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Requests.
    pub requests: u64,
    /// Their spans, of those requests that were read far enough to count them.
    pub spans: u64,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    grpc: TransportCounters,
    http: TransportCounters,
    pub(crate) connections_open: AtomicUsize,
    pub(crate) connections_accepted: AtomicU64,
    pub(crate) connections_failed: AtomicU64,
    pub(crate) tls_handshakes_failed: AtomicU64,
    pub(crate) connections_unexpected_tls: AtomicU64,
    pub(crate) connections_not_grpc: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
}

impl Counters {
    pub(crate) fn of(&self, transport: Transport) -> &TransportCounters {
        match transport {
            Transport::Grpc => &self.grpc,
            Transport::Http => &self.http,
        }
    }

    pub(crate) fn read(&self, in_flight_bytes: usize) -> Stats {
        Stats {
            grpc: self.grpc.read(),
            http: self.http.read(),
            connections_open: self.connections_open.load(Ordering::Relaxed),
            connections_accepted: get(&self.connections_accepted),
            connections_failed: get(&self.connections_failed),
            tls_handshakes_failed: get(&self.tls_handshakes_failed),
            connections_unexpected_tls: get(&self.connections_unexpected_tls),
            connections_not_grpc: get(&self.connections_not_grpc),
            accept_errors: get(&self.accept_errors),
            in_flight_bytes,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct TransportCounters {
    requests_accepted: AtomicU64,
    spans_accepted: AtomicU64,
    spans_rejected: AtomicU64,
    wire_bytes: AtomicU64,
    request_bytes: AtomicU64,
    refused_requests: [AtomicU64; Reason::ALL.len()],
    refused_spans: [AtomicU64; Reason::ALL.len()],
}

impl TransportCounters {
    fn read(&self) -> TransportStats {
        TransportStats {
            requests_accepted: get(&self.requests_accepted),
            spans_accepted: get(&self.spans_accepted),
            spans_rejected: get(&self.spans_rejected),
            wire_bytes: get(&self.wire_bytes),
            request_bytes: get(&self.request_bytes),
            refused: array::from_fn(|reason| Refused {
                requests: get(&self.refused_requests[reason]),
                spans: get(&self.refused_spans[reason]),
            }),
        }
    }
}

/// The account of one request: it is closed exactly once, as [`Reason::Cancelled`] if by nobody else.
#[derive(Debug)]
pub(crate) struct Tally {
    counters: Arc<Counters>,
    transport: Transport,
    spans: u64,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Accepted { rejected: u64 },
    Refused(Reason),
}

impl Tally {
    pub(crate) fn open(counters: &Arc<Counters>, transport: Transport) -> Self {
        let counters = Arc::clone(counters);
        Self { counters, transport, spans: 0, outcome: Outcome::Refused(Reason::Cancelled) }
    }

    fn counters(&self) -> &TransportCounters {
        self.counters.of(self.transport)
    }

    /// The body was read to its end.
    pub(crate) fn read(&self, wire_bytes: usize) {
        add(&self.counters().wire_bytes, wire_bytes as u64);
    }

    /// The request was understood; `spans` are all that it carried.
    pub(crate) fn decoded(&mut self, request_bytes: usize, spans: u64) {
        add(&self.counters().request_bytes, request_bytes as u64);
        self.spans = spans;
    }

    /// Closes the account; `rejected` of the spans were answered for by partial success.
    pub(crate) fn accepted(mut self, rejected: u64) {
        self.outcome = Outcome::Accepted { rejected: rejected.min(self.spans) };
    }

    /// Closes the account.
    pub(crate) fn refused(mut self, reason: Reason) {
        self.outcome = Outcome::Refused(reason);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let counters = self.counters();
        match self.outcome {
            Outcome::Accepted { rejected } => {
                add(&counters.requests_accepted, 1);
                add(&counters.spans_accepted, self.spans - rejected);
                add(&counters.spans_rejected, rejected);
            }
            Outcome::Refused(reason) => {
                add(&counters.refused_requests[reason as usize], 1);
                add(&counters.refused_spans[reason as usize], self.spans);
            }
        }
    }
}

/// Relaxed, here and in [`get`]: counters order nothing.
fn add(counter: &AtomicU64, more: u64) {
    // A locked addition of nothing costs as much as one of something.
    if more > 0 {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_once_at_its_own_place() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{}", reason.as_str());
        }
    }

    #[test]
    fn an_account_nobody_closed_counts_as_cancelled_with_its_spans() {
        let counters = Arc::new(Counters::default());
        let mut tally = Tally::open(&counters, Transport::Grpc);
        tally.decoded(100, 7);
        drop(tally);
        let stats = counters.read(0);
        let cancelled = Refused { requests: 1, spans: 7 };
        assert_eq!(stats.grpc.refused(Reason::Cancelled), cancelled);
        assert_eq!(stats.grpc.refused_in_all(), cancelled);
        assert_eq!(stats.http.refused_in_all(), Refused::default());
    }

    #[test]
    fn no_more_spans_are_rejected_than_came() {
        let counters = Arc::new(Counters::default());
        let mut tally = Tally::open(&counters, Transport::Http);
        tally.decoded(100, 7);
        tally.accepted(u64::MAX);
        let stats = counters.read(0).http;
        assert_eq!((stats.spans_accepted, stats.spans_rejected), (0, 7));
    }
}
