//! Bodies of OTLP bytes to collectors over gRPC and HTTP, and what their answers mean.
//!
//! A [`Body`] is a list of byte pieces that joined are one encoded `ExportTraceServiceRequest`.
//! [`Transport::encode`] compresses and frames it once; [`Transport::send`] sends the result any
//! number of times, over connections that are kept and shared: TCP, TLS, Unix sockets, through a
//! [`Proxy`], to one endpoint or several. This crate never decides to send
//! again: an error says whether the same bytes may be sent again ([`SendError::retry`]), [`Backoff`]
//! says when, and the caller owns the queue, the clock and the tasks. It does not batch, split or
//! decode spans.
//!
//! # Guarantees
//!
//! - Without compression, pieces of 16 KiB or more reach the socket layer uncopied.
//! - A second attempt sends the very bytes of the first; nothing is compressed twice.
//! - Whether to retry follows "OTLP/gRPC Response" and "OTLP/HTTP Response" of
//!   `docs/specification.md`, opentelemetry-proto v1.11.0, to the letter; a partial success is
//!   never an error.
//! - No peer is trusted: an answer is read up to 4 MiB after decompression, its text is cut to
//!   1 KiB and stripped of control characters, redirects are not followed, and more rejected spans
//!   than were sent are not believed.
//! - After a failure the next attempt uses a new connection, with names looked up and certificates
//!   read again, and goes to another endpoint if there is one. What is in flight finishes. Only
//!   where HTTP/2 refused a request because there were too many, the connection is kept.
//! - An endpoint that asks for a wait has it, and only where there is no other the caller hears of
//!   it.
//! - TLS fails closed, and an error names its cause: what is wrong with a certificate, where a
//!   timeout struck, what a proxy answered. No error and no `Debug` shows credentials.
//! - Brotli over gRPC, https without a TLS feature, unusable certificates, and reserved headers are
//!   refused when the transport is configured or made, not when it first sends.
//!
//! # Example
//!
//! ```
//! use std::time::Instant;
//!
//! use bytes::Bytes;
//! use spanwire_transport::{
//!     Backoff, Body, Compression, Protocol, RetryPolicy, Transport, TransportConfig,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = TransportConfig::new(Protocol::Grpc, "http://127.0.0.1:9")?
//!     .header("authorization", "Bearer opensesame")?
//!     .compression(Compression::Gzip)?;
//! let transport = Transport::new(&config)?;
//!
//! let body = Body::new([Bytes::from_static(b"\x0A\x00")], 0);
//! let encoded = transport.encode(&body).await?;
//!
//! let mut backoff = Backoff::new(RetryPolicy::default(), Instant::now());
//! // Nothing listens on port 9, so the attempt fails and may be repeated after a while.
//! let error = transport.send(&encoded).await.expect_err("nobody there");
//! let wait = backoff.wait_after(error.retry(), Instant::now(), 0x1234_5678_9ABC_DEF0);
//! assert!(wait.is_some());
//! # Ok(())
//! # }
//! ```
//!
//! # TLS
//!
//! An https endpoint needs one of the features `tls-ring` and `tls-aws-lc`, and either an own CA
//! ([`Tls::ca`]) or one of `tls-native-roots` and `tls-webpki-roots`. A provider the process has
//! installed as its default wins over the features.

#![forbid(unsafe_code)]

mod backoff;
mod balance;
mod body;
mod compression;
mod config;
mod connect;
mod connections;
mod encode;
mod endpoint;
mod error;
mod grpc;
mod http;
mod proxy;
mod request;
mod response;
mod tls;
mod transport;

pub use backoff::{Backoff, InvalidRetrySettings, RetryPolicy, RetrySettings};
pub use body::Body;
pub use compression::Compression;
pub use config::{InvalidConfig, Protocol, TransportConfig};
pub use encode::{EncodeError, Encoded, RequestError};
pub use error::{Retry, SendError, Status};
pub use proxy::Proxy;
pub use response::Accepted;
pub use tls::{Pem, Tls, TlsVersion};
pub use transport::Transport;
