//! A running receiver.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::budget::Budget;
use crate::builder::Builder;
use crate::connection::Phase;
use crate::stats::{Counters, Stats};

/// A running receiver. It serves until [`shutdown`](Self::shutdown), or until it is dropped, which
/// cuts its connections off where they stand.
#[must_use = "a receiver that is dropped stops serving"]
pub struct Receiver {
    grpc: Option<SocketAddr>,
    http: Option<SocketAddr>,
    phase: watch::Sender<Phase>,
    counters: Arc<Counters>,
    budget: Arc<Budget>,
}

impl Receiver {
    /// Settings to start from; at least one address must be added.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(
        grpc: Option<SocketAddr>,
        http: Option<SocketAddr>,
        phase: watch::Sender<Phase>,
        counters: Arc<Counters>,
        budget: Arc<Budget>,
    ) -> Self {
        Self { grpc, http, phase, counters, budget }
    }

    /// Where OTLP/gRPC is served, with the port that the system chose if it was to choose one.
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc
    }

    /// Where OTLP/HTTP is served, with the port that the system chose if it was to choose one.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// What was counted so far. Costs some sixty atomic loads.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.read(self.budget.bytes())
    }

    /// Stops accepting, lets the requests in flight be answered, and returns when every connection
    /// is closed; those still open after `deadline` are cut off.
    ///
    /// HTTP/2 peers are told by GOAWAY, HTTP/1.1 peers by the end of their connection. It may be
    /// called again, also while another call waits; what counts then is the first deadline to pass.
    pub async fn shutdown(&self, deadline: Duration) -> Shutdown {
        self.phase.send_if_modified(|phase| {
            let serving = *phase == Phase::Serving;
            if serving {
                *phase = Phase::Draining;
            }
            serving
        });
        // Every task that serves holds a receiver of the phase, so the last one to end closes it.
        let mut connections_cut = 0;
        if timeout(deadline, self.phase.closed()).await.is_err() {
            connections_cut = self.counters.connections_open.load(Ordering::Relaxed);
            self.phase.send_replace(Phase::Aborting);
            // What is polled ends at once. A task that a sink blocks without awaiting is not ours
            // to wait for.
            let _ = timeout(ABORT_MAX, self.phase.closed()).await;
        }
        Shutdown { connections_cut }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("grpc", &self.grpc)
            .field("http", &self.http)
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
