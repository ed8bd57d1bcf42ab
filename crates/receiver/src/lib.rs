//! Receives OTLP traces over gRPC and HTTP and hands them, as validated wire bytes, to a [`Sink`].
//!
//! The receiver decides what may come in: it admits a request by its exact bytes before it reads
//! them, decompresses within limits, checks the framing and each span, and gives every refusal the
//! status by which OTLP clients know whether to send it again. It builds no spans: what the sink
//! gets is the peer's own protobuf, uncompressed, and in place if it came in one piece. It keeps no
//! queue and retries nothing; the peer waits for the sink's answer. It logs nothing either: what
//! happened is in its [`Stats`]. TLS needs one of the features `tls-ring` and `tls-aws-lc`.
//!
//! # Guarantees
//!
//! - A request over its size limit is refused before it is read, or while it is decompressed, and
//!   for good: HTTP 413, or RESOURCE_EXHAUSTED without RetryInfo.
//! - The requests in flight never hold more than
//!   [`in_flight_bytes_max`](Builder::in_flight_bytes_max), spare bytes of their buffers included, or
//!   than a [`Budget`] that several receivers share; what does not fit is asked to come back: HTTP
//!   429 with `Retry-After`, or RESOURCE_EXHAUSTED with RetryInfo. A connection of many streams takes
//!   no more than [`connection_bytes_max`](Builder::connection_bytes_max) of it.
//! - A request of more than [`elements_max`](Builder::elements_max) elements is refused for good,
//!   however few its bytes.
//! - No memory is allocated on a peer's word alone beyond 1 MiB a request, and zstd's window of at
//!   most 8 MiB while it is decompressed; a snappy block's word counts up to the 22 times its own
//!   bytes that it can become. [`Builder`] has the sum.
//! - A malformed span is answered for by partial success, and its neighbours reach the sink byte
//!   for byte. A request without spans succeeds and reaches no sink.
//! - A peer that falls silent, dribbles, reads nothing or is gone holds its connection for a set
//!   time, and what it held is given back then.
//! - A connection that ends of age or by shutdown, within its grace, has answered what it took over;
//!   an HTTP/2 peer is told which of its requests were not looked at. One that ends because its
//!   receiver has [stopped accepting](Receiver::stop_accepting) breaks no request off at all.
//! - Where a port has TLS, nothing is read or answered without it, and without a trusted certificate
//!   if one is asked for.
//! - Each request is counted once, as accepted or as refused with a [`Reason`]; a preflight of
//!   [`Cors`] is none.
//! - Nothing a peer or the operating system does ends the accept loop.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use spanwire_receiver::{Accepted, Received, Receiver};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let receiver = Receiver::builder()
//!     .grpc("127.0.0.1:0".parse()?)
//!     .http("127.0.0.1:0".parse()?)
//!     .bind(async |received: Received| {
//!         println!("{} spans in {} bytes", received.spans, received.request.len());
//!         Ok(Accepted::default())
//!     })
//!     .await?;
//! println!("serving {:?} and {:?}", receiver.grpc_address(), receiver.http_address());
//!
//! let shutdown = receiver.shutdown(Duration::from_secs(5)).await;
//! assert_eq!(shutdown.connections_cut, 0);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod body;
mod budget;
mod builder;
mod coding;
mod connection;
mod cors;
mod elements;
mod endpoint;
mod fault;
mod grpc;
mod h1;
mod h2;
mod http;
mod inflate;
mod intake;
mod listener;
mod message;
mod peer;
mod receiver;
mod settings;
mod sink;
mod socket;
mod stats;
#[cfg(feature = "_tls")]
mod tls;
#[cfg(unix)]
mod unix;

pub use budget::{Budget, Reservation};
pub use builder::{BindError, Builder};
pub use coding::Coding;
pub use cors::Cors;
pub use receiver::{Receiver, Shutdown};
pub use sink::{
    Accepted, ChannelSink, Compressed, Encoding, Received, Refusal, Sink, Transport, channel,
};
pub use stats::{Reason, Refused, Stats, TransportStats};
#[cfg(feature = "_tls")]
pub use tls::{InvalidTls, Pem, ServerTls, TlsVersion};
#[cfg(unix)]
pub use unix::UnixSocket;
