//! The settings of a receiver.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::budget::Budget;
use crate::connection::{Phase, Shared};
use crate::listener;
use crate::receiver::Receiver;
use crate::sink::{Sink, Transport};
use crate::stats::Counters;

/// Settings of a [`Receiver`]; made by [`Receiver::builder`].
///
/// At most this much memory is held for what peers have sent:
///
/// ```text
/// in_flight_bytes_max                                                 requests admitted
///   + connections_max * (connection_window_bytes + frame_bytes_max)   received, not yet looked at
/// ```
///
/// The second term is what HTTP/2 peers can reach by sending faster than this process runs. An
/// HTTP/1.1 connection has a read buffer of at most 400 KiB instead.
#[must_use = "a builder does nothing until it is bound"]
#[derive(Clone, Debug)]
pub struct Builder {
    grpc: Option<SocketAddr>,
    http: Option<SocketAddr>,
    settings: Settings,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) grpc_request_bytes_max: usize,
    pub(crate) http_request_bytes_max: usize,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) connections_max: usize,
    pub(crate) streams_max: u32,
    pub(crate) frame_bytes_max: u32,
    pub(crate) stream_window_bytes: u32,
    pub(crate) connection_window_bytes: u32,
    pub(crate) header_bytes_max: u32,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) header_read_timeout: Duration,
    pub(crate) body_read_timeout: Duration,
    pub(crate) idle_max: Duration,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            grpc: None,
            http: None,
            settings: Settings {
                grpc_request_bytes_max: REQUEST_BYTES_MAX,
                http_request_bytes_max: REQUEST_BYTES_MAX,
                in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
                connections_max: 1024,
                streams_max: 256,
                frame_bytes_max: 1 << 20,
                stream_window_bytes: 2 << 20,
                connection_window_bytes: 4 << 20,
                header_bytes_max: 16 << 10,
                keep_alive_interval: Duration::from_secs(30),
                keep_alive_timeout: Duration::from_secs(20),
                header_read_timeout: Duration::from_secs(30),
                body_read_timeout: Duration::from_secs(30),
                idle_max: Duration::from_mins(5),
            },
        }
    }

    /// Serves OTLP/gRPC on this address. OTLP's port is 4317; with port 0 the system chooses one,
    /// and [`Receiver::grpc_address`] tells it. Not served by default.
    pub fn grpc(mut self, address: SocketAddr) -> Self {
        self.grpc = Some(address);
        self
    }

    /// Serves OTLP/HTTP on this address, HTTP/1.1 and HTTP/2 with prior knowledge. OTLP's port is
    /// 4318; with port 0 the system chooses one, and [`Receiver::http_address`] tells it. Not
    /// served by default.
    pub fn http(mut self, address: SocketAddr) -> Self {
        self.http = Some(address);
        self
    }

    /// The most bytes of one gRPC message, as sent and after decompression. 64 MiB by default, as
    /// "OTLP/gRPC" in `docs/specification.md`, opentelemetry-proto v1.11.0, recommends; what is
    /// larger is refused for good.
    pub fn grpc_request_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.grpc_request_bytes_max = bytes;
        self
    }

    /// The most bytes of one HTTP body, as sent and after decompression. 64 MiB by default, as
    /// "OTLP/HTTP" in `docs/specification.md`, opentelemetry-proto v1.11.0, recommends; what is
    /// larger is refused for good.
    pub fn http_request_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.http_request_bytes_max = bytes;
        self
    }

    /// The most bytes of all requests together, from before they are read until the sink drops
    /// them, compressed and decompressed bytes both. 256 MiB by default. A request that does not
    /// fit is asked to come back; so that each can fit some time, this is at least twice the
    /// larger request limit.
    pub fn in_flight_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.in_flight_bytes_max = bytes;
        self
    }

    /// The most connections open at once, of both transports together. 1,024 by default. Further
    /// ones wait, all but one for each address in the operating system's queue.
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.settings.connections_max = connections;
        self
    }

    /// The most requests open at once on one HTTP/2 connection. 256 by default; a peer that opens
    /// more has them refused unprocessed.
    pub fn streams_max(mut self, streams: u32) -> Self {
        self.settings.streams_max = streams;
        self
    }

    /// The largest HTTP/2 frame that peers may send, 16 KiB to 16 MiB less one byte. 1 MiB by
    /// default: a request in one frame is handed on without being copied.
    pub fn frame_bytes_max(mut self, bytes: u32) -> Self {
        self.settings.frame_bytes_max = bytes;
        self
    }

    /// What a peer may send on one HTTP/2 stream before we read it, up to 2 GiB less one byte.
    /// 2 MiB by default: larger requests move at this much a round trip.
    pub fn stream_window_bytes(mut self, bytes: u32) -> Self {
        self.settings.stream_window_bytes = bytes;
        self
    }

    /// The same for all streams of a connection together. 4 MiB by default, 400 MB a second at a
    /// round trip of 10 ms.
    pub fn connection_window_bytes(mut self, bytes: u32) -> Self {
        self.settings.connection_window_bytes = bytes;
        self
    }

    /// The most bytes of a request's headers. 16 KiB by default.
    pub fn header_bytes_max(mut self, bytes: u32) -> Self {
        self.settings.header_bytes_max = bytes;
        self
    }

    /// How often an HTTP/2 connection is asked whether its peer is still there, and how long the
    /// answer may take before the connection is closed. 30 s and 20 s by default.
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.settings.keep_alive_interval = interval;
        self.settings.keep_alive_timeout = timeout;
        self
    }

    /// How long a new connection may take for its first bytes, and an HTTP/1.1 connection for the
    /// headers of each request, the time between two requests included. 30 s by default.
    pub fn header_read_timeout(mut self, timeout: Duration) -> Self {
        self.settings.header_read_timeout = timeout;
        self
    }

    /// How long the body of one request may take to arrive. 30 s by default.
    pub fn body_read_timeout(mut self, timeout: Duration) -> Self {
        self.settings.body_read_timeout = timeout;
        self
    }

    /// How long a connection may have no request open. It is closed after once to twice this time,
    /// 5 minutes by default.
    pub fn idle_max(mut self, idle: Duration) -> Self {
        self.settings.idle_max = idle;
        self
    }

    /// Binds the addresses and serves them with `sink`, on the Tokio runtime this is awaited on.
    ///
    /// # Errors
    ///
    /// [`BindError`], if a setting is out of its range or an address cannot be bound. Nothing is
    /// served then.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with I/O and time enabled, as Tokio's own sockets do.
    pub async fn bind<S: Sink>(self, sink: S) -> Result<Receiver, BindError> {
        let Self { grpc, http, settings } = self;
        settings.check()?;
        if grpc.is_none() && http.is_none() {
            return Err(BindError::NoAddress);
        }
        let grpc = listen(grpc).await?;
        let http = listen(http).await?;

        let counters = Arc::new(Counters::default());
        let budget = Budget::new(settings.in_flight_bytes_max);
        let permits = Arc::new(Semaphore::new(settings.connections_max));
        let (phase, _) = watch::channel(Phase::Serving);
        let shared =
            Arc::new(Shared::new(sink, settings, Arc::clone(&counters), Arc::clone(&budget)));
        let mut addresses = [None, None];
        let listeners = [(grpc, Transport::Grpc), (http, Transport::Http)];
        for (address, (bound, transport)) in addresses.iter_mut().zip(listeners) {
            if let Some((listener, bound)) = bound {
                *address = Some(bound);
                tokio::spawn(listener::run(
                    listener,
                    transport,
                    Arc::clone(&shared),
                    Arc::clone(&permits),
                    phase.subscribe(),
                ));
            }
        }
        let [grpc, http] = addresses;
        Ok(Receiver::new(grpc, http, phase, counters, budget))
    }
}

#[cfg(test)]
impl Builder {
    pub(crate) fn settings(self) -> Settings {
        self.settings
    }
}

impl Settings {
    fn check(&self) -> Result<(), BindError> {
        let request_bytes_max = self.grpc_request_bytes_max.max(self.http_request_bytes_max);
        let checks = [
            (
                self.grpc_request_bytes_max > 0 && self.http_request_bytes_max > 0,
                "a request limit must not be 0",
            ),
            (
                self.in_flight_bytes_max / 2 >= request_bytes_max,
                "in_flight_bytes_max must be at least twice the larger request limit",
            ),
            (
                (1..=Semaphore::MAX_PERMITS).contains(&self.connections_max),
                "connections_max must be 1 to usize::MAX / 8",
            ),
            (self.streams_max > 0, "streams_max must not be 0"),
            (
                // RFC 9113 section 6.5.2, SETTINGS_MAX_FRAME_SIZE.
                (1 << 14..1 << 24).contains(&self.frame_bytes_max),
                "frame_bytes_max must be 16 KiB to 16 MiB less 1",
            ),
            (
                // RFC 9113 section 6.5.2, SETTINGS_INITIAL_WINDOW_SIZE.
                (1..1 << 31).contains(&self.stream_window_bytes),
                "stream_window_bytes must be 1 to 2 GiB less 1",
            ),
            (
                // RFC 9113 section 6.9.2: a connection starts with 65,535, and may only gain.
                (65_535..1 << 31).contains(&self.connection_window_bytes),
                "connection_window_bytes must be 65,535 to 2 GiB less 1",
            ),
            (
                // hyper's smallest read buffer, which must hold them.
                self.header_bytes_max >= 1 << 13,
                "header_bytes_max must be at least 8 KiB",
            ),
            (
                ![
                    self.keep_alive_interval,
                    self.keep_alive_timeout,
                    self.header_read_timeout,
                    self.body_read_timeout,
                    self.idle_max,
                ]
                .contains(&Duration::ZERO),
                "a duration must not be 0",
            ),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => Err(BindError::Setting { rule }),
        }
    }
}

async fn listen(
    address: Option<SocketAddr>,
) -> Result<Option<(TcpListener, SocketAddr)>, BindError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let bind = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    match bind.await {
        Ok(bound) => Ok(Some(bound)),
        Err(source) => Err(BindError::Address { address, source }),
    }
}

/// Why a receiver does not serve.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Neither a gRPC nor an HTTP address was given.
    #[error("no address to serve")]
    NoAddress,
    /// A setting is out of its range.
    #[error("{rule}")]
    Setting {
        /// What the range is.
        rule: &'static str,
    },
    /// An address cannot be bound.
    #[error("cannot bind {address}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// 64 MiB, for either transport: what the specification recommends servers to take, so that what a
/// conforming client may send is never too large here.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// The largest request can be in flight on both transports at once, compressed and decompressed.
const IN_FLIGHT_BYTES_MAX: usize = 2 // transports
    * 2 // a request as sent, and as it comes out of decompression
    * REQUEST_BYTES_MAX;
