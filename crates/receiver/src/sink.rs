//! Where received requests go, and what comes back.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::budget::Reservation;
use crate::coding::Coding;

/// Takes validated requests and answers for them.
///
/// The peer waits for the answer: whoever answers `Ok` has taken the spans over, and a peer that is
/// refused decides by the [`Refusal`] whether it sends them again.
///
/// The future is dropped, wherever it waits, when the peer resets its stream, closes its
/// connection or lets its deadline pass. Spans taken over before that reach the peer as a failure,
/// and may come again: OTLP prefers a duplicate to a loss ("Duplicate Data" in
/// `docs/specification.md`, opentelemetry-proto v1.11.0).
///
/// An async closure is a sink:
///
/// ```
/// use spanwire_receiver::{Accepted, Received, Refusal, Sink};
///
/// fn sink() -> impl Sink {
///     async |received: Received| match received.spans {
///         0..10_000 => Ok(Accepted::default()),
///         _ => Err(Refusal::Invalid { message: "too many spans for this sink".to_owned() }),
///     }
/// }
/// # let _ = sink();
/// ```
pub trait Sink: Send + Sync + 'static {
    /// Takes over, rejects in part, or refuses one request.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] refuses every span of the request.
    ///
    /// # Panics
    ///
    /// A panic fails its own request for good, with INTERNAL or 500, and no other.
    fn accept(&self, received: Received) -> impl Future<Output = Result<Accepted, Refusal>> + Send;
}

impl<F, A> Sink for F
where
    F: Fn(Received) -> A + Send + Sync + 'static,
    A: Future<Output = Result<Accepted, Refusal>> + Send,
{
    fn accept(&self, received: Received) -> impl Future<Output = Result<Accepted, Refusal>> + Send {
        self(received)
    }
}

/// One request with at least one span.
///
/// Its bytes count against the receiver's budget until it is dropped: a sink that keeps the whole
/// `Received` in its queue, or its [parts](Self::into_parts), lets
/// [`in_flight_bytes_max`](crate::Builder::in_flight_bytes_max) bound that queue as well; one that
/// takes `request` out and drops the rest bounds its memory itself.
pub struct Received {
    /// An `ExportTraceServiceRequest` in protobuf, uncompressed. Its framing is valid down to the
    /// spans, and every span is well-formed.
    pub request: Bytes,
    /// Spans in `request`, at least one.
    pub spans: usize,
    /// The protocol it came by.
    pub transport: Transport,
    /// The format it was sent in. `request` is protobuf in either case.
    pub encoding: Encoding,
    /// What decompresses to exactly `request`, as it came; `None` if it came otherwise, if a span
    /// was rejected, or if [`keep_compressed`](crate::Builder::keep_compressed) is not set. A
    /// forwarder can send it on without compressing again.
    pub compressed: Option<Compressed>,
    pub(crate) reservation: Reservation,
}

impl Received {
    /// The request, its number of spans, and what holds its bytes in the budget: for a queue that
    /// wants no more of it. What it came as is given back.
    pub fn into_parts(self) -> (Bytes, usize, Reservation) {
        (self.request, self.spans, self.reservation)
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("bytes", &self.request.len())
            .field("spans", &self.spans)
            .field("transport", &self.transport)
            .field("encoding", &self.encoding)
            .field("compressed", &self.compressed)
            .field("reservation", &self.reservation)
            .finish()
    }
}

/// A request's body as it came, before it was decompressed. Its bytes count against the budget until
/// it is dropped.
pub struct Compressed {
    /// How it is compressed.
    pub encoding: Coding,
    /// The whole body, or gRPC message without its prefix.
    pub bytes: Bytes,
    pub(crate) reservation: Reservation,
}

impl Compressed {
    /// The compression, the body, and what holds its bytes in the budget.
    pub fn into_parts(self) -> (Coding, Bytes, Reservation) {
        (self.encoding, self.bytes, self.reservation)
    }
}

impl fmt::Debug for Compressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressed")
            .field("encoding", &self.encoding)
            .field("bytes", &self.bytes.len())
            .field("reservation", &self.reservation)
            .finish()
    }
}

/// The protocol a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP, over HTTP/1.1 or HTTP/2.
    Http,
}

/// The format a request was sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Binary protobuf.
    Protobuf,
    /// OTLP/JSON.
    Json,
}

/// The answer for a request that was taken over, whole or in part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Spans refused for good; the peer never sends them again. At most the request's spans count.
    pub rejected_spans: u64,
    /// Why; with no span rejected, a warning. Empty for full success.
    pub message: String,
}

/// Why a whole request was refused.
///
/// It becomes a gRPC status, or an HTTP status with a `google.rpc.Status` body, by "Failures" and
/// "Throttling" in `docs/specification.md`, opentelemetry-proto v1.11.0.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not now; the peer may send the same bytes later: UNAVAILABLE, 503.
    #[error("the receiver cannot take spans now")]
    Unavailable {
        /// The least time the peer should wait; `None` leaves it to the peer's own backoff.
        retry_after: Option<Duration>,
    },
    /// The same, in the sink's own words: whose queue is full, or what became of the spans further on.
    #[error("{message}")]
    Undelivered {
        /// Why not now.
        message: String,
        /// The least time the peer should wait; `None` leaves it to the peer's own backoff.
        retry_after: Option<Duration>,
    },
    /// A resource is used up at the moment; the peer may send the same bytes later: RESOURCE_EXHAUSTED
    /// with RetryInfo, 429. The delay is not optional: without it, gRPC peers drop the request.
    #[error("the receiver has no room for spans now")]
    Exhausted {
        /// The least time the peer should wait.
        retry_after: Duration,
    },
    /// Too large ever to be taken; final: RESOURCE_EXHAUSTED without RetryInfo, 413.
    #[error("{message}")]
    TooLarge {
        /// What the limit is.
        message: String,
    },
    /// The data is bad; final: INVALID_ARGUMENT, 400.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// The receiver failed, and would fail again; final: INTERNAL, 500.
    #[error("{message}")]
    Internal {
        /// What failed.
        message: String,
    },
}

/// A sink that hands each request to a bounded queue, and the queue's other end.
///
/// A full queue is refused with [`Refusal::Unavailable`], so that the peer backs off; a queue whose
/// receiving end is gone likewise.
///
/// # Panics
///
/// If `requests_max` is 0, as [`tokio::sync::mpsc::channel`] does.
///
/// ```
/// let (sink, mut requests) = spanwire_receiver::channel(64);
/// # let _: (spanwire_receiver::ChannelSink, tokio::sync::mpsc::Receiver<spanwire_receiver::Received>) = (sink, requests);
/// ```
pub fn channel(requests_max: usize) -> (ChannelSink, mpsc::Receiver<Received>) {
    let (sender, receiver) = mpsc::channel(requests_max);
    (ChannelSink { sender }, receiver)
}

/// The sending end of [`channel`].
#[derive(Clone, Debug)]
pub struct ChannelSink {
    sender: mpsc::Sender<Received>,
}

impl Sink for ChannelSink {
    async fn accept(&self, received: Received) -> Result<Accepted, Refusal> {
        match self.sender.try_send(received) {
            Ok(()) => Ok(Accepted::default()),
            Err(_full_or_closed) => Err(Refusal::Unavailable { retry_after: None }),
        }
    }
}
