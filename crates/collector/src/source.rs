//! A running receiver and the pipelines it feeds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spanwire_config::ComponentId;
use spanwire_receiver::{Reason, Receiver, TransportStats};

use crate::intake::Intake;
use crate::sockets::Socket;
use crate::stats::ReceiverStats;

/// A receiver of the configuration.
pub(crate) struct Source {
    pub(crate) receiver: Receiver,
    pub(crate) intake: Arc<Intake>,
    /// Its sockets by endpoint, for whoever takes its place.
    pub(crate) sockets: Mutex<Vec<(String, Socket)>>,
}

/// Connections of a receiver that a reload has left behind have so long to end by themselves.
const RETIRE_MAX: Duration = Duration::from_secs(60);

impl Source {
    /// Leaves new connections to whoever stands in its place, lets its own end with a request of
    /// theirs, and ends.
    pub(crate) async fn retire(&self) {
        self.receiver.stop_accepting();
        self.sockets().clear();
        let _ended_or_not = tokio::time::timeout(RETIRE_MAX, self.receiver.closed()).await;
        self.receiver.shutdown(RETIRE_MAX).await;
    }

    pub(crate) fn sockets(&self) -> MutexGuard<'_, Vec<(String, Socket)>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self, id: &ComponentId) -> Vec<ReceiverStats> {
        let stats = self.receiver.stats();
        let of = |transport, one: &TransportStats| {
            let refused = |reasons: &[Reason]| {
                reasons.iter().map(|reason| one.refused(*reason).spans).sum::<u64>()
            };
            let for_now = [Reason::Budget, Reason::SinkUnavailable, Reason::SinkExhausted];
            let in_all = one.refused_in_all().spans;
            ReceiverStats {
                receiver: id.to_string(),
                transport,
                accepted: one.spans_accepted,
                refused: refused(&for_now),
                failed: in_all - refused(&for_now) + one.spans_rejected,
                connections: stats.connections_open,
            }
        };
        [of("grpc", &stats.grpc), of("http", &stats.http)].into()
    }

    pub(crate) fn addresses(&self, id: &ComponentId) -> Vec<(String, String)> {
        let grpc = self.receiver.grpc_addresses().iter().map(|address| ("grpc", address));
        let http = self.receiver.http_addresses().iter().map(|address| ("http", address));
        let tcp = grpc.chain(http).map(|(name, one)| (format!("{id} {name}"), one.to_string()));
        let sockets = self.sockets();
        let unix = sockets.iter().filter_map(|(name, socket)| match socket {
            Socket::Unix(_) => Some((id.to_string(), name.clone())),
            Socket::Tcp(_) => None,
        });
        tcp.chain(unix).collect()
    }
}
