//! One destination, whichever protocol it speaks and however many endpoints it has.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::balance::{Balance, Pick};
use crate::body::Body;
use crate::compression::Compression;
use crate::config::{InvalidConfig, Protocol, TransportConfig};
use crate::connections::{Connections, Generation};
use crate::encode::{self, EncodeError, Encoded};
use crate::error::{Retry, SendError};
use crate::request::{self, Template};
use crate::response::Accepted;
use crate::tls::Roots;

/// A destination with its connections.
///
/// `encode` and `send` may run any number of times at once; how many requests are in flight is the
/// caller's decision. Over HTTP/2, which gRPC always is, requests share one connection for each
/// endpoint; HTTP/1.1 takes one for each request in flight and keeps them. Connections are made
/// when they are needed.
///
/// After a failure, requests go over new connections: names are looked up and certificates read
/// again, and another address comes first; but not where HTTP/2 refused one of too many requests.
/// With several endpoints the next attempt goes to another one.
pub struct Transport {
    endpoints: Box<[Target]>,
    balance: Mutex<Balance>,
    protocol: Protocol,
    compression: Compression,
    compression_bytes_min: usize,
    request_timeout: Option<Duration>,
}

/// An endpoint with its connections, and what each request to it looks like.
struct Target {
    connections: Connections,
    template: Template,
}

impl Transport {
    /// Reads certificates, and dials nothing yet. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig::Pem`], [`InvalidConfig::Roots`], [`InvalidConfig::ServerName`] and
    /// [`InvalidConfig::Client`], if the settings of TLS cannot be used.
    pub fn new(config: &TransportConfig) -> Result<Self, InvalidConfig> {
        let now = now();
        let roots = Roots::of(config)?;
        let target = |endpoint| {
            let connections = Connections::new(config, endpoint, &roots, now)?;
            let template = Template::new(config, endpoint, connections.connector())?;
            Ok(Target { connections, template })
        };
        let endpoints: Result<Box<[Target]>, _> = config.endpoints.iter().map(target).collect();
        let endpoints = endpoints?;
        Ok(Self {
            balance: Mutex::new(Balance::new(endpoints.len())),
            endpoints,
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

    /// Frames a request that is compressed already, as this transport would: `compressed` is what its
    /// [`Compression`] makes of `request_len` bytes of protobuf with `spans` spans in them. Nothing of
    /// that is checked. `None` where it sends JSON or does not compress.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use spanwire_transport::{Compression, Protocol, Transport, TransportConfig};
    ///
    /// let config = TransportConfig::new(Protocol::Grpc, "http://localhost:4317")?
    ///     .compression(Compression::Gzip)?;
    /// let transport = Transport::new(&config)?;
    /// let came_as = Bytes::from_static(b"\x1F\x8B...");
    /// let encoded = transport.frame(came_as, 1000, 10).expect("it sends gzip");
    /// assert_eq!(encoded.len(), 5 + 5);
    /// # Ok::<(), spanwire_transport::InvalidConfig>(())
    /// ```
    pub fn frame(&self, compressed: Bytes, request_len: usize, spans: usize) -> Option<Encoded> {
        let sends = self.protocol != Protocol::HttpJson && self.compression != Compression::None;
        let frame =
            || encode::frame(compressed, request_len, spans, self.protocol, self.compression);
        sends.then(frame)
    }

    /// What bodies are compressed with.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Makes one attempt to send `encoded`, and waits for the answer. Must run in a Tokio runtime
    /// with its timer and its I/O switched on, always the same one: connections live there.
    ///
    /// Dropping the future gives the attempt up; the collector may have taken the spans. Nothing is
    /// learnt from it, so what ends attempts that take too long is the request timeout: after that
    /// other connections, and another endpoint, have their turn.
    ///
    /// # Errors
    ///
    /// [`SendError`], whose [`retry`](SendError::retry) says what to do with the bytes.
    pub async fn send(&self, encoded: &Encoded) -> Result<Accepted, SendError> {
        if encoded.protocol != self.protocol {
            return Err(SendError::Mismatch);
        }
        let started = now();
        let pick = self.balance().pick(started);
        let target = &self.endpoints[pick.index];
        let generation = target.connections.current(started);
        let attempt = request::exchange(&generation, &target.template, encoded);
        let mut outcome = match self.request_timeout {
            Some(after) => tokio::time::timeout(after, attempt)
                .await
                .unwrap_or(Err(SendError::Timeout { after })),
            None => attempt.await,
        };
        self.learn(pick, &generation, &mut outcome);
        outcome.map_err(|error| target.connections.explain(error))
    }

    /// Draws the conclusions for the attempts to come.
    ///
    /// An endpoint that asks for quiet speaks for itself. Where there are others, it is left alone
    /// for that time, and the caller hears only how long there is nobody else.
    fn learn(
        &self,
        pick: Pick,
        generation: &Arc<Generation>,
        outcome: &mut Result<Accepted, SendError>,
    ) {
        let now = now();
        let failure = outcome.as_mut().err();
        if failure.as_ref().is_some_and(|failure| failure.is_of_the_connection()) {
            self.endpoints[pick.index].connections.retire(generation, now);
        }
        let mut balance = self.balance();
        let Some(failure) = failure else { return balance.answered(pick, now) };
        let asked = match failure.retry() {
            Retry::After(asked) => asked,
            Retry::Never | Retry::Backoff => Duration::ZERO,
        };
        if !failure.is_of_the_endpoint() && asked.is_zero() {
            return balance.answered(pick, now);
        }
        balance.failed(pick, now, asked);
        if let SendError::Throttle { retry_after, .. } = failure
            && let Some(others) = balance.others_due_in(pick.index, now)
        {
            *retry_after = retry_after.map(|asked| asked.min(others)).filter(|w| !w.is_zero());
        }
    }

    fn balance(&self) -> MutexGuard<'_, Balance> {
        self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("protocol", &self.protocol)
            .field("endpoints", &self.endpoints.len())
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

/// Tokio's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
