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
use crate::settings::{ConnectionAge, Settings};
use crate::sink::{Sink, Transport};
use crate::stats::Counters;

/// Settings of a [`Receiver`]; made by [`Receiver::builder`].
///
/// At most this much memory is held for what peers have sent:
///
/// ```text
/// in_flight_bytes_max                                                 requests admitted
///   + connections_max * (connection_window_bytes + frame_bytes_max)   received, not yet looked at
///   + decompressing * 9 MiB                                           zstd's windows
/// ```
///
/// The first counts buffers by what they hold, spare bytes included, and a request twice while it is
/// decompressed, read from JSON or copied without its malformed spans. The old place of a buffer
/// that grows, which some allocators keep until they have moved it, is not counted.
///
/// The second is what HTTP/2 peers can reach by sending faster than this process runs. An HTTP/1.1
/// connection has a read buffer of at most 400 KiB instead.
///
/// The third is for the zstd bodies that are being decompressed: one on each worker thread of the
/// runtime, and those that have taken more than 1 MiB of `in_flight_bytes_max` already. A window is
/// allocated as its frame's header declares it, up to 8 MiB, but is touched only a block ahead of
/// what has come out, so windows take about as many pages as the first term at most. Gzip's state
/// takes 50 KiB.
///
/// An idle connection takes little of that: 5 KiB before its first byte, 40 KiB after a gRPC request
/// and 50 KiB after one by HTTP/1.1, beside the operating system's socket buffers (resident memory
/// of 2,000 connections, requests of 38 KB, x86-64 Linux, release build).
#[must_use = "a builder does nothing until it is bound"]
#[derive(Clone, Debug)]
pub struct Builder {
    grpc: Option<SocketAddr>,
    http: Option<SocketAddr>,
    settings: Settings,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { grpc: None, http: None, settings: Settings::default() }
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
    /// them: compressed and decompressed bytes, JSON and the protobuf it becomes. 256 MiB by default. A request that does not
    /// fit is asked to come back; so that each can fit some time, this is at least twice the
    /// larger request limit.
    pub fn in_flight_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.in_flight_bytes_max = bytes;
        self
    }

    /// The most of those bytes that one connection may hold, so that a peer which sends too much
    /// leaves room for the others; what is more is asked to come back. Half of
    /// [`in_flight_bytes_max`](Self::in_flight_bytes_max) by default; so that each request can fit
    /// some time, this too is at least twice the larger request limit.
    pub fn connection_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.connection_bytes_max = Some(bytes);
        self
    }

    /// The most elements of one request: resources, scopes, spans, attributes, events, links, and
    /// the values within arrays and maps. 4 Mi by default, one for every 16 bytes of 64 MiB; more is
    /// refused for good.
    ///
    /// An element takes two bytes on the wire and a hundred in a sink that decodes it, so bytes
    /// alone bound that sink badly. Requests of less than twice as many bytes are not counted,
    /// as they cannot have more; those that are take two more passes, and a third if spans had to
    /// be left out.
    pub fn elements_max(mut self, elements: usize) -> Self {
        self.settings.elements_max = elements;
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

    /// How long the body of one request may take to arrive, and the bytes a second by which it
    /// earns more time: a body is given up once it is slower than this rate by more than the
    /// timeout. 30 s and 256 KiB a second by default.
    ///
    /// The rate decides how long a request may hold its bytes:
    /// `timeout + request_bytes_max / rate_min`, about five minutes for one of 64 MiB.
    pub fn body_read_timeout(mut self, timeout: Duration, rate_min: u32) -> Self {
        self.settings.body_read_timeout = timeout;
        self.settings.body_rate_min = rate_min;
        self
    }

    /// How long a peer may take nothing of what was sent to it before its connection is closed. 30 s
    /// by default. It bounds what unread answers hold; a peer that reads, but opens no HTTP/2 window
    /// for them, is closed as idle.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.settings.write_timeout = timeout;
        self
    }

    /// How long a connection lives, and how long its last requests then have to end before it is
    /// cut. Not limited by default.
    ///
    /// Peers behind a load balancer stay for good where they connected first; this makes them
    /// connect again. The end is orderly: HTTP/2 peers are told by GOAWAY which requests will be
    /// answered, HTTP/1.1 peers by `Connection: close` in the answer to the request that is open. An
    /// HTTP/1.1 connection between two requests has none to say it in, and is closed. The age of each
    /// connection differs by up to a tenth, so that those which began together do not end together.
    pub fn connection_age_max(mut self, age: Duration, grace: Duration) -> Self {
        self.settings.connection_age = Some(ConnectionAge { max: age, grace });
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
        let settings = settings.checked()?;
        if grpc.is_none() && http.is_none() {
            return Err(BindError::NoAddress);
        }
        let grpc = listen(grpc).await?;
        let http = listen(http).await?;

        let counters = Arc::new(Counters::default());
        let budget = Arc::new(Budget::new(settings.in_flight_bytes_max));
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
