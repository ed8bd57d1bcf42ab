//! A running server of a receiver, and the pipelines it feeds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spanwire_config::ComponentId;
use spanwire_receiver::{BindError, Coding, Reason, Receiver};

use crate::intake::{Feed, Intake};
use crate::limits;
use crate::server::{Protocol, Server, connection_bytes_max};
use crate::sockets::Socket;
use crate::stats::{ConnectionStats, MemoryStats, ReceiverStats};
use crate::watch::Watch;

/// Which receiver of the configuration, and which of its protocols.
pub(crate) type Port = (ComponentId, Protocol);

/// All that a source is made of, its sockets aside; equal plans make equal sources.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) server: Server,
    /// The compressions whose requests are kept as they came, for whoever forwards them so.
    pub(crate) keeps: Vec<Coding>,
    /// The memory limit, where it is so small that it bounds the largest request, or with that what a
    /// connection may hold: a server keeps these for as long as it runs.
    bytes_max: Option<usize>,
}

impl Plan {
    /// Of a server that takes from a budget of `bytes_max` bytes.
    pub(crate) fn new(server: Server, keeps: Vec<Coding>, bytes_max: usize) -> Self {
        let (_, request_bytes_max) = server.request_bytes_asked();
        let is_bound = connection_bytes_max(bytes_max) < request_bytes_max.saturating_mul(2);
        Self { server, keeps, bytes_max: is_bound.then_some(bytes_max) }
    }
}

/// A server of the configuration.
pub(crate) struct Source {
    pub(crate) port: Port,
    pub(crate) plan: Plan,
    pub(crate) receiver: Receiver,
    pub(crate) intake: Arc<Intake>,
    /// Its sockets by endpoint, for whoever takes its place.
    sockets: Mutex<Vec<(String, Socket)>>,
    watch: Watch,
}

/// Connections of a receiver that a reload has left behind have so long to end by themselves.
const RETIRE_MAX: Duration = Duration::from_secs(60);

impl Source {
    /// Serves on sockets that listen, and keeps a share of each.
    pub(crate) async fn serve(
        port: Port,
        plan: Plan,
        sockets: Vec<(String, Socket)>,
        intake: Arc<Intake>,
    ) -> Result<Self, BindError> {
        let shared = sockets.iter().map(|(_, socket)| socket.share());
        let shared = shared.collect::<Result<_, _>>().map_err(BindError::Listener)?;
        let budget = Arc::clone(intake.budget());
        let feed = Feed { intake: Arc::clone(&intake), keeps: plan.keeps.clone() };
        let connections_max = limits::connections_max(budget.bytes_max());
        let builder = plan.server.builder(budget).connections_max(connections_max);
        let builder = builder.keep_compressed(!plan.keeps.is_empty());
        let receiver = plan.server.serve(builder, shared, feed).await?;
        let (sockets, watch) = (Mutex::new(sockets), Watch::default());
        Ok(Self { port, plan, receiver, intake, sockets, watch })
    }

    /// Leaves new connections to whoever stands in its place.
    pub(crate) fn stop_accepting(&self) {
        self.receiver.stop_accepting();
        self.sockets().clear();
    }

    /// Lets each connection that it has accepted end with a request of its peer, and ends.
    pub(crate) async fn retire(&self) {
        let _ended_or_not = tokio::time::timeout(RETIRE_MAX, self.receiver.closed()).await;
        self.receiver.shutdown(RETIRE_MAX).await;
    }

    pub(crate) fn sockets(&self) -> MutexGuard<'_, Vec<(String, Socket)>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> ReceiverStats {
        let stats = self.receiver.stats();
        let (id, protocol) = &self.port;
        let one = match protocol {
            Protocol::Grpc => &stats.grpc,
            Protocol::Http => &stats.http,
        };
        // The last two are mostly of requests that waited for room until their senders gave up.
        let for_now = [
            Reason::Budget,
            Reason::SinkUnavailable,
            Reason::SinkExhausted,
            Reason::Timeout,
            Reason::Cancelled,
        ];
        let refused = for_now.map(|reason| one.refused(reason).spans).iter().sum();
        let requests_refused = Reason::ALL.map(|one_of| one.refused(one_of).requests);
        ReceiverStats {
            receiver: id.to_string(),
            transport: protocol.as_str(),
            accepted: one.spans_accepted,
            refused,
            failed: one.refused_in_all().spans - refused + one.spans_rejected,
            requests_refused: Reason::ALL
                .map(Reason::as_str)
                .into_iter()
                .zip(requests_refused)
                .collect(),
            connections: ConnectionStats {
                open: stats.connections_open,
                max: self.receiver.connections_max(),
                accepted: stats.connections_accepted,
                failed: stats.connections_failed,
                tls_handshakes_failed: stats.tls_handshakes_failed,
                unexpected_tls: stats.connections_unexpected_tls,
                not_grpc: stats.connections_not_grpc,
                accept_errors: stats.accept_errors,
            },
        }
    }

    /// Tells what has gone wrong with connections.
    pub(crate) fn tell(&self, now: Instant) {
        let (id, protocol) = &self.port;
        let name = format!("{id} {}", protocol.as_str());
        let budget = self.intake.budget();
        let memory = MemoryStats { held: budget.bytes(), max: budget.bytes_max() };
        self.watch.look(&name, &self.receiver, self.stats(), memory, now);
    }

    pub(crate) fn addresses(&self) -> Vec<(String, String)> {
        let (id, protocol) = &self.port;
        let addresses = match protocol {
            Protocol::Grpc => self.receiver.grpc_addresses(),
            Protocol::Http => self.receiver.http_addresses(),
        };
        let name = || format!("{id} {}", protocol.as_str());
        let tcp = addresses.iter().map(|address| (name(), address.to_string()));
        let sockets = self.sockets();
        let unix = sockets.iter().filter_map(|(endpoint, socket)| match socket {
            Socket::Unix(_) => Some((name(), endpoint.clone())),
            Socket::Tcp(_) => None,
        });
        tcp.chain(unix).collect()
    }
}
