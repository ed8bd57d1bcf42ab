//! The life of one connection: which protocol it speaks, its requests, and its end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::budget::{Budget, Share};
use crate::settings::Settings;
use crate::sink::{Sink, Transport};
use crate::socket::Socket;
use crate::stats::Counters;
use crate::{grpc, http};

/// Where a receiver is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// No new connections and requests; those in flight are finished.
    Draining,
    /// Everything ends where it stands. A receiver that is dropped is in this phase too.
    Aborting,
}

/// What all connections of a receiver share.
pub(crate) struct Shared<S> {
    pub(crate) sink: S,
    pub(crate) settings: Settings,
    pub(crate) counters: Arc<Counters>,
    budget: Arc<Budget>,
    http1: http1::Builder,
    grpc: http2::Builder<TokioExecutor>,
    http2: http2::Builder<TokioExecutor>,
}

impl<S: Sink> Shared<S> {
    pub(crate) fn new(
        sink: S,
        settings: Settings,
        counters: Arc<Counters>,
        budget: Arc<Budget>,
    ) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(settings.header_read_timeout)
            .max_header_size(settings.header_bytes_max as usize)
            // A peer may end its side after the request and still wait for the answer.
            .half_close(true);
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
        let mut grpc = http2.clone();
        // gRPC has no use for it, and the header table would change every second.
        grpc.auto_date_header(false);
        Self { sink, settings, counters, budget, http1, grpc, http2 }
    }
}

/// One connection, as its requests see it.
pub(crate) struct Connection<S> {
    pub(crate) shared: Arc<Shared<S>>,
    /// Its part of the budget, for as long as its requests live.
    pub(crate) share: Arc<Share>,
    requests_begun: AtomicU64,
    requests_open: AtomicUsize,
    body_unread: AtomicBool,
}

impl<S> Connection<S> {
    /// Notes that a request was answered though part of its body may still be on its way.
    pub(crate) fn body_left_unread(&self) {
        self.body_unread.store(true, Ordering::Relaxed);
    }

    fn begin(&self) -> OpenRequest<'_> {
        self.requests_begun.fetch_add(1, Ordering::Relaxed);
        self.requests_open.fetch_add(1, Ordering::Relaxed);
        OpenRequest(&self.requests_open)
    }
}

struct OpenRequest<'a>(&'a AtomicUsize);

impl Drop for OpenRequest<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection to its end, whichever comes first: the peer's, an error's, that of its
/// patience with an idle peer, or that of `phase`. A shutdown waits for `phase` to be dropped, so
/// that is held until the socket is closed.
pub(crate) async fn serve<S: Sink>(
    shared: Arc<Shared<S>>,
    tcp: TcpStream,
    transport: Transport,
    mut phase: watch::Receiver<Phase>,
) {
    let counters = Arc::clone(&shared.counters);
    counters.connections_accepted.fetch_add(1, Ordering::Relaxed);
    counters.connections_open.fetch_add(1, Ordering::Relaxed);
    let _open = OpenRequest(&counters.connections_open);
    // Answers are small and somebody waits for each. A socket that refuses this is already dead,
    // and says so on its first read.
    let _ = tcp.set_nodelay(true);
    let served = match protocol(&tcp, &shared.settings, &mut phase).await {
        Ok(Protocol::None) => Ok(()),
        Ok(Protocol::Http1) if transport == Transport::Http => {
            serve_http1(shared, tcp, &mut phase).await
        }
        // On the gRPC port anything else is HTTP/2 too, and told so in its terms.
        Ok(Protocol::Http1 | Protocol::Http2) => {
            serve_http2(shared, tcp, transport, &mut phase).await
        }
        Err(error) => Err(error),
    };
    if served.is_err() {
        counters.connections_failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a peer speaks, by its first bytes.
enum Protocol {
    Http1,
    Http2,
    /// It said nothing and is gone, or there is no time left to hear it.
    None,
}

/// Tells HTTP/2 from HTTP/1 by the start of HTTP/2's preface, RFC 9113 section 3.4. Nothing is
/// taken from the socket, so neither protocol has to read through a buffer of ours.
async fn protocol(
    tcp: &TcpStream,
    settings: &Settings,
    phase: &mut watch::Receiver<Phase>,
) -> io::Result<Protocol> {
    const PREFACE: [u8; 4] = *b"PRI ";
    // A peek does not wait for more than it has seen, so a peer that dribbles is looked at again
    // after this long.
    const LOOK_AGAIN: Duration = Duration::from_millis(5);

    let look = async {
        let mut start = [0; PREFACE.len()];
        loop {
            let seen = tcp.peek(&mut start).await?;
            if seen == 0 {
                return Ok(Protocol::None);
            }
            if start[..seen] != PREFACE[..seen] {
                return Ok(Protocol::Http1);
            }
            if seen == PREFACE.len() {
                return Ok(Protocol::Http2);
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    tokio::select! {
        looked = timeout(settings.header_read_timeout, look) => looked.unwrap_or_else(|_elapsed| {
            // A socket closed with bytes unread resets the connection instead of ending it.
            let _ = tcp.try_read(&mut [0; PREFACE.len()]);
            Err(io::ErrorKind::TimedOut.into())
        }),
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => Ok(Protocol::None),
    }
}

async fn serve_http2<S: Sink>(
    shared: Arc<Shared<S>>,
    tcp: TcpStream,
    transport: Transport,
    phase: &mut watch::Receiver<Phase>,
) -> io::Result<()> {
    let io = TokioIo::new(Socket::new(tcp, shared.settings.write_timeout));
    let connection = connection(shared);
    let requests = Arc::clone(&connection);
    match transport {
        Transport::Grpc => {
            let service = service_fn(move |request| {
                let connection = Arc::clone(&requests);
                async move {
                    let _open = connection.begin();
                    Ok::<_, Infallible>(grpc::answer(&connection, request).await)
                }
            });
            let mut served = connection.shared.grpc.serve_connection(io, service);
            let drain = |served: &mut _| http2::Connection::graceful_shutdown(Pin::new(served));
            drive(&connection, &mut served, poll_pinned, drain, phase).await
        }
        Transport::Http => {
            let service = service_fn(move |request| {
                let connection = Arc::clone(&requests);
                async move {
                    let _open = connection.begin();
                    Ok::<_, Infallible>(http::answer(&connection, request).await)
                }
            });
            let mut served = connection.shared.http2.serve_connection(io, service);
            let drain = |served: &mut _| http2::Connection::graceful_shutdown(Pin::new(served));
            drive(&connection, &mut served, poll_pinned, drain, phase).await
        }
    }
}

async fn serve_http1<S: Sink>(
    shared: Arc<Shared<S>>,
    tcp: TcpStream,
    phase: &mut watch::Receiver<Phase>,
) -> io::Result<()> {
    let io = TokioIo::new(Socket::new(tcp, shared.settings.write_timeout));
    let connection = connection(shared);
    let requests = Arc::clone(&connection);
    let service = service_fn(move |request| {
        let connection = Arc::clone(&requests);
        // Boxed, as hyper gives the socket back at the end only if futures can be moved.
        Box::pin(async move {
            let _open = connection.begin();
            Ok::<_, Infallible>(http::answer(&connection, request).await)
        })
    });
    let mut served = connection.shared.http1.serve_connection(io, service);
    let poll = http1::Connection::poll_without_shutdown;
    let drain = |served: &mut _| http1::Connection::graceful_shutdown(Pin::new(served));
    let outcome = drive(&connection, &mut served, poll, drain, phase).await;
    if outcome.is_ok() && connection.body_unread.load(Ordering::Relaxed) {
        tokio::select! {
            () = served.into_parts().io.into_inner().linger() => {}
            _ = phase.wait_for(|phase| *phase == Phase::Aborting) => {}
        }
    }
    outcome
}

fn connection<S>(shared: Arc<Shared<S>>) -> Arc<Connection<S>> {
    let bytes_max = shared.settings.connection_bytes_max();
    let share = Share::new(bytes_max, Arc::clone(&shared.budget));
    Arc::new(Connection {
        shared,
        share,
        requests_begun: AtomicU64::new(0),
        requests_open: AtomicUsize::new(0),
        body_unread: AtomicBool::new(false),
    })
}

/// Polls a connection of either protocol to its end, drains it when `phase` or its idleness asks
/// for that, and abandons it when it does not heed.
async fn drive<C, S>(
    connection: &Connection<S>,
    served: &mut C,
    poll: impl Fn(&mut C, &mut Context<'_>) -> Poll<hyper::Result<()>>,
    drain: impl Fn(&mut C),
    phase: &mut watch::Receiver<Phase>,
) -> io::Result<()> {
    let Settings { idle_max, connection_age, .. } = connection.shared.settings;
    let mut watched = pin!(sleep(idle_max));
    let mut requests_seen = 0;
    let mut draining = false;
    // Without an age it is never polled, and costs no timer.
    let mut aged = pin!(sleep(connection_age.map_or(idle_max, |age| scattered(age.max))));
    let mut grace = connection_age.map(|age| age.grace);
    loop {
        tokio::select! {
            biased;
            ended = poll_fn(|cx| poll(served, cx)) => return ended.map_err(io::Error::other),
            // A receiver that was dropped without a shutdown has no phase any more.
            changed = phase.changed() => match changed.map(|()| *phase.borrow_and_update()) {
                Ok(Phase::Serving) => {}
                Ok(Phase::Draining) => drain(served),
                Ok(Phase::Aborting) | Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            },
            () = &mut aged, if connection_age.is_some() => match grace.take() {
                Some(grace) => {
                    drain(served);
                    aged.as_mut().reset(Instant::now() + grace);
                }
                None => return Err(io::ErrorKind::TimedOut.into()),
            },
            () = &mut watched => {
                let requests = connection.requests_begun.load(Ordering::Relaxed);
                let idle = requests == requests_seen
                    && connection.requests_open.load(Ordering::Relaxed) == 0;
                requests_seen = requests;
                if !idle {
                    watched.as_mut().reset(Instant::now() + idle_max);
                } else if draining {
                    return Err(io::ErrorKind::TimedOut.into());
                } else {
                    draining = true;
                    drain(served);
                    watched.as_mut().reset(Instant::now() + IDLE_DRAIN_MAX.min(idle_max));
                }
            }
        }
    }
}

/// `age`, up to a tenth more or less: connections that began together, as after a restart, should
/// not all come back together.
fn scattered(age: Duration) -> Duration {
    // The standard library's hash keys are the nearest source of chance.
    let thousandths = RandomState::new().build_hasher().finish() % 1000;
    age / 10 * 9 + age / 5000 * u32::try_from(thousandths).unwrap_or(0)
}

fn poll_pinned<C>(served: &mut C, cx: &mut Context<'_>) -> Poll<hyper::Result<()>>
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    Pin::new(served).poll(cx)
}

/// How long an idle connection may take to say goodbye before it is cut.
const IDLE_DRAIN_MAX: Duration = Duration::from_secs(5);

/// Streams a peer may open and reset before we have seen them; more is CVE-2023-44487.
const RESETS_PENDING_MAX: usize = 20;

/// Streams we may have to reset for a peer's errors; more is CVE-2025-8671.
const RESETS_PROVOKED_MAX: usize = 1024;
