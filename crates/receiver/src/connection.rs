//! The life of one connection: which protocol it speaks, its requests, and its end.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use http_body_util::Full;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::budget::{Budget, Share};
use crate::cors::Policy;
use crate::h1::{self, Ending};
use crate::peer::{Io, Peer, Protocol};
use crate::settings::Settings;
use crate::sink::{Sink, Transport};
use crate::socket::Socket;
use crate::stats::Counters;
#[cfg(feature = "_tls")]
use crate::tls::TlsPorts;
use crate::{h2, http};

mod drive;
#[cfg(feature = "_tls")]
mod secured;

use drive::{drive, poll_pinned};

/// Where a receiver is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// No new connections; those there are end with the request after which they can be told.
    Retiring,
    /// No new connections and requests; those in flight are finished.
    Draining,
    /// Everything ends where it stands. A receiver that is dropped is in this phase too.
    Aborting,
}

impl Phase {
    /// Whether a connection without a request is closed.
    pub(crate) fn is_ending(self) -> bool {
        matches!(self, Self::Draining | Self::Aborting)
    }
}

/// What all connections of a receiver share.
pub(crate) struct Shared<S> {
    pub(crate) sink: S,
    pub(crate) settings: Settings,
    pub(crate) counters: Arc<Counters>,
    pub(crate) cors: Option<Policy>,
    #[cfg(feature = "_tls")]
    pub(crate) tls: TlsPorts,
    budget: Arc<Budget>,
    http2: http2::Builder<TokioExecutor>,
}

impl<S: Sink> Shared<S> {
    pub(crate) fn new(
        sink: S,
        settings: Settings,
        counters: Arc<Counters>,
        budget: Arc<Budget>,
    ) -> Self {
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(settings.keep_alive_interval)
            .keep_alive_timeout(settings.keep_alive_timeout)
            .max_concurrent_streams(settings.streams_max)
            .max_frame_size(settings.frame_bytes_max)
            .initial_stream_window_size(settings.stream_window_bytes)
            .initial_connection_window_size(settings.connection_window_bytes)
            .max_header_list_size(settings.header_bytes_max)
            .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
            .max_local_error_reset_streams(RESETS_PROVOKED_MAX);
        Self {
            sink,
            settings,
            counters,
            cors: None,
            #[cfg(feature = "_tls")]
            tls: TlsPorts::default(),
            budget,
            http2,
        }
    }
}

/// One connection, as its requests see it.
pub(crate) struct Connection<S> {
    pub(crate) shared: Arc<Shared<S>>,
    /// Its part of the budget, for as long as its requests live.
    pub(crate) share: Arc<Share>,
    pub(crate) requests_begun: AtomicU64,
    pub(crate) requests_open: AtomicUsize,
    draining: AtomicBool,
    retiring: AtomicBool,
}

impl<S> Connection<S> {
    fn new(shared: Arc<Shared<S>>) -> Arc<Self> {
        let (several_bytes_max, one_bytes_max) = shared.settings.connection_bytes_max();
        let of_bytes_max = shared.settings.in_flight_bytes_max;
        let budget = Arc::clone(&shared.budget);
        let share = Share::part(several_bytes_max, one_bytes_max, of_bytes_max, budget);
        Arc::new(Self {
            shared,
            share,
            requests_begun: AtomicU64::new(0),
            requests_open: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            retiring: AtomicBool::new(false),
        })
    }

    /// Whether it ends where no request is on its way.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether it ends with its next answer: HTTP/1.1 has no way to say between two requests that the
    /// next one will not be read.
    pub(crate) fn is_retiring(&self) -> bool {
        self.retiring.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(&self) -> OpenRequest<'_> {
        self.requests_begun.fetch_add(1, Ordering::Relaxed);
        self.requests_open.fetch_add(1, Ordering::Relaxed);
        OpenRequest(&self.requests_open)
    }
}

/// Counts a request as open until it is dropped.
pub(crate) struct OpenRequest<'a>(&'a AtomicUsize);

impl Drop for OpenRequest<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection to its end, whichever comes first: the peer's, an error's, that of its
/// patience with an idle peer, or that of `phase`. A shutdown waits for `phase` to be dropped, so
/// that is held until the socket is closed.
pub(crate) async fn serve<S: Sink, P: Peer>(
    shared: Arc<Shared<S>>,
    peer: P,
    transport: Transport,
    mut phase: watch::Receiver<Phase>,
) {
    let counters = Arc::clone(&shared.counters);
    counters.connections_accepted.fetch_add(1, Ordering::Relaxed);
    counters.connections_open.fetch_add(1, Ordering::Relaxed);
    let _open = OpenRequest(&counters.connections_open);
    if serve_peer(shared, peer, transport, &mut phase).await.is_err() {
        counters.connections_failed.fetch_add(1, Ordering::Relaxed);
    }
}

async fn serve_peer<S: Sink, P: Peer>(
    shared: Arc<Shared<S>>,
    mut peer: P,
    transport: Transport,
    phase: &mut watch::Receiver<Phase>,
) -> io::Result<()> {
    peer.prepare();
    let header_read_timeout = shared.settings.header_read_timeout;
    let spoken = tokio::select! {
        spoken = timeout(header_read_timeout, peer.speaks()) => spoken,
        _ = phase.wait_for(|phase| phase.is_ending()) => return Ok(()),
    };
    let Ok(spoken) = spoken else {
        peer.forget();
        return Err(io::ErrorKind::TimedOut.into());
    };
    let Some(protocol) = spoken? else {
        return Ok(());
    };
    let socket = Socket::new(peer, shared.settings.write_timeout);
    #[cfg(feature = "_tls")]
    if let Some(tls) = shared.tls.of(transport) {
        // In a box of its own, as most connections have no use for its room.
        let tls = Arc::clone(tls);
        return Box::pin(secured::serve(shared, tls, socket, transport, phase)).await;
    }
    let io = P::plain(socket);
    if protocol == Protocol::Tls {
        shared.counters.connections_unexpected_tls.fetch_add(1, Ordering::Relaxed);
    }
    match (protocol, transport) {
        (Protocol::Http1, Transport::Grpc) => {
            shared.counters.connections_not_grpc.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                ended = Box::pin(h1::turn_away(io)) => ended,
                _ = phase.wait_for(|phase| phase.is_ending()) => {
                    Err(io::ErrorKind::ConnectionAborted.into())
                }
            }
        }
        // In a box of its own as well, since most connections are gRPC's or say nothing yet.
        (Protocol::Http1 | Protocol::Tls, Transport::Http) => {
            Box::pin(serve_http1(shared, io, Ending::Silent, phase)).await
        }
        (Protocol::Http2, _) | (Protocol::Tls, Transport::Grpc) => {
            serve_http2(shared, io, transport, phase).await
        }
    }
}

async fn serve_http2<S: Sink>(
    shared: Arc<Shared<S>>,
    io: impl Io + 'static,
    transport: Transport,
    phase: &mut watch::Receiver<Phase>,
) -> io::Result<()> {
    let connection = Connection::new(shared);
    match transport {
        Transport::Grpc => {
            let mut served = h2::Served::new(Arc::clone(&connection), io);
            drive(
                &connection,
                &mut served,
                h2::Served::poll,
                h2::Served::drain,
                h2::Served::drain,
                phase,
            )
            .await
        }
        Transport::Http => {
            let requests = Arc::clone(&connection);
            let service = service_fn(move |request| {
                let connection = Arc::clone(&requests);
                async move {
                    let _open = connection.begin();
                    let (head, mut body) = request.into_parts();
                    let response = http::answer(&connection, &head, &mut body).await;
                    Ok::<_, Infallible>(response.map(Full::new))
                }
            });
            let mut served = connection.shared.http2.serve_connection(TokioIo::new(io), service);
            let drain = |served: &mut _| http2::Connection::graceful_shutdown(Pin::new(served));
            drive(&connection, &mut served, poll_pinned, drain, drain, phase).await
        }
    }
}

async fn serve_http1<S: Sink>(
    shared: Arc<Shared<S>>,
    io: impl Io + 'static,
    ending: Ending,
    phase: &mut watch::Receiver<Phase>,
) -> io::Result<()> {
    let connection = Connection::new(shared);
    let mut served = pin!(h1::serve(&connection, io, ending));
    let drain = |_: &mut _| connection.draining.store(true, Ordering::Relaxed);
    let retire = |_: &mut _| connection.retiring.store(true, Ordering::Relaxed);
    drive(&connection, &mut served, poll_pinned, drain, retire, phase).await
}

/// Streams a peer may open and reset before we have seen them; more is CVE-2023-44487.
const RESETS_PENDING_MAX: usize = 20;

/// Streams we may have to reset for a peer's errors; more is CVE-2025-8671.
const RESETS_PROVOKED_MAX: usize = 1024;
