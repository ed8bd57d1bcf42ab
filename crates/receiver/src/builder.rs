//! The settings of a receiver.

use std::io;
use std::net::{SocketAddr, TcpListener};
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::budget::Budget;
use crate::connection::{Phase, Shared};
use crate::cors::{Cors, Policy};
use crate::endpoint::{Bound, Endpoint};
use crate::listener;
use crate::receiver::{Addresses, Places, Receiver};
use crate::settings::{ConnectionAge, Settings};
use crate::sink::{Sink, Transport};
use crate::stats::Counters;
#[cfg(feature = "_tls")]
use crate::tls::{InvalidTls, ServerTls, TlsPorts};
#[cfg(unix)]
use crate::unix::UnixSocket;

/// Settings of a [`Receiver`]; made by [`Receiver::builder`].
///
/// At most this much memory is held for what peers have sent:
///
/// ```text
/// in_flight_bytes_max                                                 requests admitted
///   + connections_max * (connection_window_bytes + frame_bytes_max)   received over HTTP/2 on the HTTP
///                                                                     port, not yet looked at
///   + decompressing * 9 MiB                                           zstd's windows
/// ```
///
/// The first counts buffers by what they hold, spare bytes included, and a request twice while it is
/// decompressed, read from JSON or copied without its malformed spans, or as long as its compressed
/// form is [kept](Self::keep_compressed). The old place of a buffer that grows, which some
/// allocators keep until they have moved it, is not counted.
///
/// The second is what such peers can reach by sending faster than this process runs. An HTTP/1.1
/// connection holds at most twice [`header_bytes_max`](Self::header_bytes_max) and 16 KiB instead,
/// and a gRPC connection 256 KiB: what it read, header fields on their way, and answers. TLS adds at
/// most 160 KiB to either: a record or handshake message on its way in, and answers on their way out.
///
/// The third is for the zstd bodies that are being decompressed: one on each worker thread of the
/// runtime, and those that have taken more than 1 MiB of `in_flight_bytes_max` already. A window is
/// allocated as its frame's header declares it, up to 8 MiB, but is touched only a block ahead of
/// what has come out, so windows take about as many pages as the first term at most. The state of
/// gzip and zlib takes 50 KiB, that of snappy's frames 140 KiB.
///
/// An idle connection takes little of that: 5 KiB before its first byte, 40 KiB after a gRPC request
/// and 20 KiB after one by HTTP/1.1, beside the operating system's socket buffers (resident memory
/// of 2,000 connections, requests of 38 KB, x86-64 Linux, release build).
#[must_use = "a builder does nothing until it is bound"]
#[derive(Clone, Debug)]
pub struct Builder {
    endpoints: Vec<(Transport, Endpoint)>,
    budget: Option<Arc<Budget>>,
    cors: Cors,
    #[cfg(feature = "_tls")]
    grpc_tls: Option<ServerTls>,
    #[cfg(feature = "_tls")]
    http_tls: Option<ServerTls>,
    settings: Settings,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            endpoints: Vec::new(),
            budget: None,
            cors: Cors::default(),
            #[cfg(feature = "_tls")]
            grpc_tls: None,
            #[cfg(feature = "_tls")]
            http_tls: None,
            settings: Settings::default(),
        }
    }

    /// Serves OTLP/gRPC on this address, beside any other. OTLP's port is 4317; with port 0 the
    /// system chooses one, and [`Receiver::grpc_addresses`] tells it. Not served by default.
    pub fn grpc(self, address: SocketAddr) -> Self {
        self.on(Transport::Grpc, Endpoint::Address(address))
    }

    /// Serves OTLP/HTTP on this address, beside any other: HTTP/1.1, and HTTP/2 with prior knowledge.
    /// OTLP's port is 4318; with port 0 the system chooses one, and [`Receiver::http_addresses`]
    /// tells it. Not served by default.
    pub fn http(self, address: SocketAddr) -> Self {
        self.on(Transport::Http, Endpoint::Address(address))
    }

    /// Serves OTLP/gRPC on a socket that listens already, beside any other. Who keeps a clone of it
    /// can give that to the receiver that comes next, as [`Receiver::stop_accepting`] shows. Clones
    /// become non-blocking with it.
    pub fn grpc_listener(self, listener: TcpListener) -> Self {
        self.on(Transport::Grpc, Endpoint::Listener(Arc::new(listener)))
    }

    /// The same for OTLP/HTTP.
    pub fn http_listener(self, listener: TcpListener) -> Self {
        self.on(Transport::Http, Endpoint::Listener(Arc::new(listener)))
    }

    /// Serves OTLP/gRPC on a socket of the Unix domain, beside any other, made and removed as
    /// [`UnixSocket::bind`] has it.
    #[cfg(unix)]
    pub fn grpc_unix(self, path: impl Into<PathBuf>) -> Self {
        self.on(Transport::Grpc, Endpoint::Path(path.into()))
    }

    /// The same for OTLP/HTTP.
    #[cfg(unix)]
    pub fn http_unix(self, path: impl Into<PathBuf>) -> Self {
        self.on(Transport::Http, Endpoint::Path(path.into()))
    }

    /// Serves OTLP/gRPC on a socket of the Unix domain that listens already, beside any other.
    #[cfg(unix)]
    pub fn grpc_unix_socket(self, socket: UnixSocket) -> Self {
        self.on(Transport::Grpc, Endpoint::Socket(socket))
    }

    /// The same for OTLP/HTTP.
    #[cfg(unix)]
    pub fn http_unix_socket(self, socket: UnixSocket) -> Self {
        self.on(Transport::Http, Endpoint::Socket(socket))
    }

    fn on(mut self, transport: Transport, endpoint: Endpoint) -> Self {
        self.endpoints.push((transport, endpoint));
        self
    }

    /// Speaks TLS, and nothing else, wherever OTLP/gRPC is served. ALPN offers `h2`.
    #[cfg(feature = "_tls")]
    pub fn grpc_tls(mut self, tls: ServerTls) -> Self {
        self.grpc_tls = Some(tls);
        self
    }

    /// Speaks TLS, and nothing else, wherever OTLP/HTTP is served. ALPN offers `h2` and `http/1.1`.
    #[cfg(feature = "_tls")]
    pub fn http_tls(mut self, tls: ServerTls) -> Self {
        self.http_tls = Some(tls);
        self
    }

    /// The path of OTLP/HTTP, `/v1/traces` by default.
    pub fn http_traces_path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.settings.http_traces_path);
        self
    }

    /// Lets web pages send to the HTTP port. None may by default.
    pub fn cors(mut self, cors: Cors) -> Self {
        self.cors = cors;
        self
    }

    /// Whether [`Received::compressed`](crate::Received::compressed) is kept for the sink. Not by
    /// default: its bytes count against the budget beside those of the request.
    pub fn keep_compressed(mut self, keep: bool) -> Self {
        self.settings.keep_compressed = keep;
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
    /// them: compressed and decompressed bytes, JSON and the protobuf it becomes. 256 MiB by
    /// default. A request that does not fit is asked to come back; so that each can fit some time,
    /// this is at least twice the larger request limit.
    pub fn in_flight_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.in_flight_bytes_max = bytes;
        self.budget = None;
        self
    }

    /// Takes those bytes out of a budget that others take from as well, in place of
    /// [`in_flight_bytes_max`](Self::in_flight_bytes_max).
    pub fn budget(mut self, budget: Arc<Budget>) -> Self {
        self.settings.in_flight_bytes_max = budget.bytes_max();
        self.budget = Some(budget);
        self
    }

    /// The most of those bytes that one connection may hold, so that a peer which sends too much
    /// leaves room for the others; what is more is asked to come back.
    ///
    /// Half of [`in_flight_bytes_max`](Self::in_flight_bytes_max) by default. Where it is less
    /// than the largest request takes, a request may go beyond it as long as it is the
    /// connection's only one.
    ///
    /// Where several connections hold requests, those with more than an equal part leave the last
    /// eighth of the budget to the others. Only a single request that does not fit into the rest may
    /// take of it.
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

    /// What a peer may send on one HTTP/2 stream before we read it, 65,535 bytes to 2 GiB less one.
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

    /// How long a new connection may take for its first bytes, over TLS for its handshake and the
    /// first bytes after that, and an HTTP/1.1 connection for the headers of each request from their
    /// first byte on. 30 s by default.
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
    /// answered, HTTP/1.1 peers by `Connection: close` in the answer to the request that is open, or
    /// else to the next one; where none comes within the grace, it is closed without a word. The age of
    /// each connection differs by up to a tenth, so that those which began together do not end together.
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

    /// Looks at all that [`bind`](Self::bind) does before it looks at addresses: whether settings
    /// are in their range, and whether certificates and keys, which it reads, can be used. Nothing
    /// is bound or served.
    ///
    /// ```
    /// use spanwire_receiver::Receiver;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), spanwire_receiver::BindError> {
    /// let builder = Receiver::builder().in_flight_bytes_max(16 << 20);
    /// let error = builder.check().await.expect_err("a request may have 64 MiB");
    /// assert_eq!(
    ///     error.to_string(),
    ///     "in_flight_bytes_max must be at least twice the larger request limit"
    /// );
    /// builder.grpc_request_bytes_max(4 << 20).http_request_bytes_max(8 << 20).check().await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`BindError::Setting`] and `BindError::Tls`, as [`bind`](Self::bind) would give them.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime, where there is a certificate to be read.
    pub async fn check(&self) -> Result<(), BindError> {
        self.parts().await.map(drop)
    }

    /// Binds the addresses and serves them with `sink`, on the Tokio runtime this is awaited on.
    ///
    /// # Errors
    ///
    /// [`BindError`], if a setting is out of its range, a certificate cannot be used or an address
    /// cannot be bound. Nothing is served then.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with I/O and time enabled, as Tokio's own sockets do.
    pub async fn bind<S: Sink>(self, sink: S) -> Result<Receiver, BindError> {
        let parts = self.parts().await?;
        if self.endpoints.is_empty() {
            return Err(BindError::NoAddress);
        }
        let mut bound = Vec::with_capacity(self.endpoints.len());
        for (transport, endpoint) in self.endpoints {
            bound.push((transport, endpoint.bind().await?));
        }

        let counters = Arc::new(Counters::default());
        let settings = parts.settings;
        let budget =
            self.budget.unwrap_or_else(|| Arc::new(Budget::new(settings.in_flight_bytes_max)));
        let permits = Arc::new(Semaphore::new(settings.connections_max));
        let (phase, _) = watch::channel(Phase::Serving);
        let mut shared = Shared::new(sink, settings, Arc::clone(&counters), Arc::clone(&budget));
        shared.cors = parts.cors;
        #[cfg(feature = "_tls")]
        shared.tls.clone_from(&parts.tls);
        let shared = Arc::new(shared);
        let mut addresses = Addresses::default();
        for (transport, bound) in bound {
            let (shared, permits) = (Arc::clone(&shared), Arc::clone(&permits));
            let phase = phase.subscribe();
            match bound {
                Bound::Tcp(listener, address) => {
                    addresses.of(transport).push(address);
                    tokio::spawn(listener::run(phase, listener, transport, shared, permits));
                }
                #[cfg(unix)]
                Bound::Unix(listener) => {
                    tokio::spawn(listener::run(phase, listener, transport, shared, permits));
                }
            }
        }
        Ok(Receiver::new(
            addresses,
            phase,
            counters,
            budget,
            Places::new(permits, shared.settings.connections_max),
            #[cfg(feature = "_tls")]
            parts.tls,
        ))
    }

    async fn parts(&self) -> Result<Parts, BindError> {
        Ok(Parts {
            settings: self.settings.clone().checked()?,
            cors: Policy::new(&self.cors)?,
            #[cfg(feature = "_tls")]
            tls: TlsPorts::open(self.grpc_tls.clone(), self.http_tls.clone()).await?,
        })
    }
}

/// What settings come to before an address is looked at.
struct Parts {
    settings: Settings,
    cors: Option<Policy>,
    #[cfg(feature = "_tls")]
    tls: TlsPorts,
}

#[cfg(test)]
impl Builder {
    pub(crate) fn settings(self) -> Settings {
        self.settings
    }
}

/// Why a receiver does not serve.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Nowhere to serve gRPC or HTTP was given.
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
    /// A socket that was given cannot be used.
    #[error("cannot serve the socket given")]
    Listener(#[source] io::Error),
    /// A path cannot be bound.
    #[cfg(unix)]
    #[error("cannot bind {}", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[cfg(feature = "_tls")]
    #[error(transparent)]
    Tls(#[from] InvalidTls),
}
