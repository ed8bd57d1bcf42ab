//! A running receiver.

use std::fmt;
#[cfg(feature = "_tls")]
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::budget::Budget;
use crate::builder::Builder;
use crate::connection::Phase;
use crate::sink::Transport;
use crate::stats::{Counters, Stats};
#[cfg(feature = "_tls")]
use crate::tls::{InvalidTls, TlsPorts};

/// A running receiver. It serves until [`shutdown`](Self::shutdown), or until it is dropped, which
/// cuts its connections off where they stand.
#[must_use = "a receiver that is dropped stops serving"]
pub struct Receiver {
    addresses: Addresses,
    phase: watch::Sender<Phase>,
    counters: Arc<Counters>,
    budget: Arc<Budget>,
    places: Places,
    #[cfg(feature = "_tls")]
    tls: TlsPorts,
}

/// The places of connections, and how many there are to be.
#[derive(Debug)]
pub(crate) struct Places {
    permits: Arc<Semaphore>,
    connections_max: AtomicUsize,
}

impl Places {
    /// `permits` are `connections_max`.
    pub(crate) fn new(permits: Arc<Semaphore>, connections_max: usize) -> Self {
        Self { permits, connections_max: AtomicUsize::new(connections_max) }
    }

    fn resize(&self, connections_max: usize) {
        let now = connections_max.clamp(1, Semaphore::MAX_PERMITS);
        let before = self.connections_max.swap(now, Ordering::Relaxed);
        self.permits.add_permits(now.saturating_sub(before));
        let surplus = before.saturating_sub(now);
        let mut taken = surplus - self.permits.forget_permits(surplus);
        if taken > 0 {
            let permits = Arc::clone(&self.permits);
            tokio::spawn(async move {
                while taken > 0 {
                    let places = u32::try_from(taken).unwrap_or(u32::MAX);
                    // As connections end, and before others that wait for a place. Never closed.
                    let Ok(left) = permits.acquire_many(places).await else { return };
                    left.forget();
                    taken -= places as usize;
                }
            });
        }
    }
}

/// Where each transport is served, in the order asked for.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) grpc: Vec<SocketAddr>,
    pub(crate) http: Vec<SocketAddr>,
}

impl Addresses {
    pub(crate) fn of(&mut self, transport: Transport) -> &mut Vec<SocketAddr> {
        match transport {
            Transport::Grpc => &mut self.grpc,
            Transport::Http => &mut self.http,
        }
    }
}

impl Receiver {
    /// Settings to start from; at least one address must be added.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(
        addresses: Addresses,
        phase: watch::Sender<Phase>,
        counters: Arc<Counters>,
        budget: Arc<Budget>,
        places: Places,
        #[cfg(feature = "_tls")] tls: TlsPorts,
    ) -> Self {
        Self {
            addresses,
            phase,
            counters,
            budget,
            places,
            #[cfg(feature = "_tls")]
            tls,
        }
    }

    /// Where OTLP/gRPC is served, with the port that the system chose if it was to choose one; the
    /// first of [`grpc_addresses`](Self::grpc_addresses).
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.addresses.grpc.first().copied()
    }

    /// Where OTLP/HTTP is served, with the port that the system chose if it was to choose one; the
    /// first of [`http_addresses`](Self::http_addresses).
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.addresses.http.first().copied()
    }

    /// All addresses OTLP/gRPC is served on, in the order asked for; sockets of the Unix domain have
    /// none.
    #[must_use]
    pub fn grpc_addresses(&self) -> &[SocketAddr] {
        &self.addresses.grpc
    }

    /// All addresses OTLP/HTTP is served on, in the order asked for.
    #[must_use]
    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.addresses.http
    }

    /// The most connections open at once, by [`connections_max`](Builder::connections_max) or as
    /// [set](Self::set_connections_max) since.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.places.connections_max.load(Ordering::Relaxed)
    }

    /// Changes how many connections may be open at once, to one at least. Those that are open stay;
    /// where they are more, no other is served until enough of them have ended.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn set_connections_max(&self, connections: usize) {
        self.places.resize(connections);
    }

    /// What was counted so far. Costs some sixty atomic loads.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.read(self.budget.bytes())
    }

    /// Why the certificate files of a port, as they were when they were last looked at, are not
    /// used; empty while all is well.
    #[cfg(feature = "_tls")]
    #[must_use]
    pub fn unused_tls_files(&self) -> Vec<Arc<InvalidTls>> {
        self.tls.unused_files()
    }

    /// Why the latest TLS handshake failed that did: for a log, at whatever rate that allows.
    /// [`Stats::tls_handshakes_failed`] counts them all.
    #[cfg(feature = "_tls")]
    #[must_use]
    pub fn last_tls_failure(&self) -> Option<Arc<io::Error>> {
        self.tls.failure()
    }

    /// Accepts no more connections, and lets those there are end where no request is lost by it:
    /// HTTP/2 peers are told by GOAWAY, HTTP/1.1 peers by `Connection: close` in their next answer.
    /// One that sends nothing stays until [`shutdown`](Self::shutdown) or the end of
    /// [`idle_max`](Builder::idle_max).
    ///
    /// So a receiver hands over to another on the same sockets, and nobody is refused:
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use std::time::Duration;
    ///
    /// use spanwire_receiver::{Accepted, Received, Receiver};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let sink = async |_: Received| Ok(Accepted::default());
    /// let socket = TcpListener::bind("127.0.0.1:0")?;
    /// let old = Receiver::builder().grpc_listener(socket.try_clone()?).bind(sink).await?;
    ///
    /// let new = Receiver::builder().grpc_listener(socket.try_clone()?).bind(sink).await?;
    /// old.stop_accepting();
    /// // Time for peers between two requests; most are gone before.
    /// let _ = tokio::time::timeout(Duration::from_secs(10), old.closed()).await;
    /// old.shutdown(Duration::from_secs(5)).await;
    /// # let _ = new;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop_accepting(&self) {
        self.advance(&[Phase::Serving], Phase::Retiring);
    }

    /// Waits until the receiver accepts no more and its last connection is closed, which
    /// [`stop_accepting`](Self::stop_accepting) or [`shutdown`](Self::shutdown) begins.
    pub async fn closed(&self) {
        // Every task that serves holds a receiver of the phase, so the last one to end closes it.
        self.phase.closed().await;
    }

    /// Stops accepting, lets the requests in flight be answered, and returns when every connection
    /// is closed; those still open after `deadline` are cut off.
    ///
    /// HTTP/2 peers are told by GOAWAY, HTTP/1.1 peers by the end of their connection. It may be
    /// called again, also while another call waits; what counts then is the first deadline to pass.
    pub async fn shutdown(&self, deadline: Duration) -> Shutdown {
        self.advance(&[Phase::Serving, Phase::Retiring], Phase::Draining);
        let mut connections_cut = 0;
        if timeout(deadline, self.closed()).await.is_err() {
            connections_cut = self.counters.connections_open.load(Ordering::Relaxed);
            self.phase.send_replace(Phase::Aborting);
            // What is polled ends at once. A task that a sink blocks without awaiting is not ours
            // to wait for.
            let _ = timeout(ABORT_MAX, self.closed()).await;
        }
        Shutdown { connections_cut }
    }

    fn advance(&self, from: &[Phase], to: Phase) {
        self.phase.send_if_modified(|phase| {
            let is_earlier = from.contains(phase);
            if is_earlier {
                *phase = to;
            }
            is_earlier
        });
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("addresses", &self.addresses)
            .field("phase", &*self.phase.borrow())
            .finish_non_exhaustive()
    }
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Connections that were still open at the deadline and were cut off. Their peers have no
    /// answer to what was in flight, and may send it again elsewhere.
    pub connections_cut: usize,
}

/// Dropping a connection takes microseconds; this leaves room for a loaded machine.
const ABORT_MAX: Duration = Duration::from_millis(500);
