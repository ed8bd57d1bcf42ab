//! One destination, whichever protocol it speaks and however many endpoints it has.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::balance::{Balance, Pick};
use crate::body::Body;
use crate::compression::Compression;
use crate::config::{InvalidConfig, Protocol, TransportConfig};
use crate::connections::{Connections, Generation};
use crate::encode::{self, EncodeError, Encoded};
use crate::error::SendError;
use crate::request::{self, Template};
use crate::response::Accepted;

/// A destination with its connections.
///
/// `encode` and `send` may run any number of times at once; how many requests are in flight is the
/// caller's decision. Over HTTP/2, which gRPC always is, requests share one connection for each
/// endpoint; HTTP/1.1 takes one for each request in flight and keeps them. Connections are made
/// when they are needed.
///
/// After a failure, requests go over new connections: names are looked up and certificates read
/// again, and another address comes first. With several endpoints the next attempt goes to another
/// one.
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
        let target = |endpoint| {
            let connections = Connections::new(config, endpoint, now)?;
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

    /// Makes one attempt to send `encoded`, and waits for the answer. Must run in a Tokio runtime
    /// with its timer and its I/O switched on, always the same one: connections live there.
    ///
    /// Dropping the future gives the attempt up; the collector may have taken the spans.
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
        let outcome = match self.request_timeout {
            Some(after) => tokio::time::timeout(after, attempt)
                .await
                .unwrap_or(Err(SendError::Timeout { after })),
            None => attempt.await,
        };
        self.learn(pick, &generation, &outcome);
        outcome.map_err(|error| target.connections.explain(error))
    }

    /// Draws the conclusions for the attempts to come.
    fn learn(
        &self,
        pick: Pick,
        generation: &Arc<Generation>,
        outcome: &Result<Accepted, SendError>,
    ) {
        let now = now();
        let failure = outcome.as_ref().err();
        if failure.is_some_and(SendError::is_of_the_connection) {
            self.endpoints[pick.index].connections.retire(generation, now);
        }
        if failure.is_some_and(SendError::is_of_the_endpoint) {
            self.balance().failed(pick, now);
        } else {
            self.balance().answered(pick);
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
