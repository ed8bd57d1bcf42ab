//! One destination, whichever protocol it speaks.

use std::fmt;
use std::time::Duration;

use crate::body::Body;
use crate::compression::Compression;
use crate::config::{InvalidConfig, Protocol, TransportConfig};
use crate::encode::{self, EncodeError, Encoded};
use crate::error::SendError;
use crate::grpc::GrpcSender;
use crate::http::HttpSender;
use crate::response::Accepted;

/// A destination with its connections.
///
/// `encode` and `send` may run any number of times at once; how many requests are in flight is the
/// caller's decision. All gRPC requests share one connection; HTTP/1.1 takes one for each request
/// in flight and keeps them. Connections are made when they are needed, and again after they broke.
pub struct Transport {
    sender: Sender,
    protocol: Protocol,
    compression: Compression,
    compression_bytes_min: usize,
    request_timeout: Option<Duration>,
}

enum Sender {
    Grpc(GrpcSender),
    Http(HttpSender),
}

impl Transport {
    /// Dials nothing yet. Must be called inside the Tokio runtime that will send, with its timer
    /// and its I/O switched on.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig::Runtime`] outside a runtime, and [`InvalidConfig::Client`] if the TLS
    /// settings cannot be made.
    pub fn new(config: &TransportConfig) -> Result<Self, InvalidConfig> {
        // tonic starts a task for its channel, and would panic where there is no runtime.
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(InvalidConfig::Runtime);
        }
        let sender = match config.protocol {
            Protocol::Grpc => Sender::Grpc(GrpcSender::new(config)?),
            Protocol::HttpProtobuf | Protocol::HttpJson => Sender::Http(HttpSender::new(config)?),
        };
        Ok(Self {
            sender,
            protocol: config.protocol,
            compression: config.compression,
            compression_bytes_min: config.compression_bytes_min,
            request_timeout: config.request_timeout,
        })
    }

    /// Compresses and frames `body`, to be sent any number of times.
    ///
    /// Without compression this copies only pieces below 16 KiB. With it, or for JSON, it is the
    /// expensive step: it works on the current task and yields between 256 KiB of input.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]; the same body would fail again.
    pub async fn encode(&self, body: &Body) -> Result<Encoded, EncodeError> {
        encode::encode(body, self.protocol, self.compression, self.compression_bytes_min).await
    }

    /// Makes one attempt to send `encoded`, and waits for the answer.
    ///
    /// Dropping the future gives the attempt up; the collector may have taken the spans.
    ///
    /// # Errors
    ///
    /// [`SendError`], whose [`retry`](SendError::retry) says what to do with the bytes.
    pub async fn send(&self, encoded: &Encoded) -> Result<Accepted, SendError> {
        let attempt = async {
            match &self.sender {
                _ if encoded.protocol != self.protocol => Err(SendError::Mismatch),
                Sender::Grpc(sender) => sender.send(encoded).await,
                Sender::Http(sender) => sender.send(encoded).await,
            }
        };
        match self.request_timeout {
            Some(after) => match tokio::time::timeout(after, attempt).await {
                Ok(outcome) => outcome,
                Err(_) => Err(SendError::Timeout { after }),
            },
            None => attempt.await,
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("protocol", &self.protocol)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}
