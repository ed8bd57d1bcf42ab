//! New connections: TCP, Unix sockets, TLS, and the way through a proxy.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower_service::Service;

mod resolve;
mod stream;
mod tunnel;

use resolve::Resolver;
use stream::Kind;
pub(crate) use stream::Stream;
use tunnel::Tunnel;

use crate::config::{InvalidConfig, TransportConfig};
use crate::endpoint::Endpoint;
use crate::proxy::Hop;
use crate::tls::Roots;
#[cfg(feature = "_tls")]
use crate::tls::TlsClient;

/// Opens connections to one endpoint. A clone is the same connector.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    way: Way,
    http: HttpConnector<Resolver>,
    resolver: Resolver,
    timeout: Option<Duration>,
    #[cfg(feature = "_tls")]
    tls: Option<Arc<TlsClient>>,
    /// Anything but HTTP/2 is of no use.
    #[cfg(feature = "_tls")]
    needs_h2: bool,
}

enum Way {
    Direct,
    /// The proxy reads each request and sends it on.
    Forward(Hop),
    /// The proxy copies bytes.
    Tunnel(Hop),
}

impl Connector {
    /// Reads the certificates, but for `roots`; dials nothing.
    #[cfg_attr(not(feature = "_tls"), expect(unused_variables, reason = "no TLS, no roots"))]
    pub(crate) fn new(
        config: &TransportConfig,
        endpoint: &Endpoint,
        roots: &Roots,
    ) -> Result<Self, InvalidConfig> {
        let needs_h2 = config.speaks_only_h2();
        let way = match config.proxy.to(endpoint) {
            None => Way::Direct,
            Some(hop) if endpoint.is_https() || needs_h2 => Way::Tunnel(hop.clone()),
            Some(hop) => Way::Forward(hop.clone()),
        };
        let resolver = Resolver::new();
        let mut http = HttpConnector::new_with_resolver(resolver.clone());
        http.enforce_http(false);
        http.set_nodelay(true);
        // Finds a peer that vanished while no request was open, without pings it may dislike.
        if let Some(interval) = config.keep_alive_interval {
            http.set_keepalive(Some(in_seconds(interval)));
            http.set_keepalive_interval(Some(in_seconds(config.keep_alive_timeout / PROBES)));
            http.set_keepalive_retries(Some(PROBES));
        }
        let timeout = config.dial_timeout();
        http.set_connect_timeout(timeout);
        #[cfg(feature = "_tls")]
        let tls = match endpoint.is_https() {
            true => Some(TlsClient::new(&config.tls, roots, endpoint.host(), !needs_h2)?),
            false => None,
        };
        Ok(Self(Arc::new(Inner {
            endpoint: endpoint.clone(),
            way,
            http,
            resolver,
            timeout,
            #[cfg(feature = "_tls")]
            tls,
            #[cfg(feature = "_tls")]
            needs_h2,
        })))
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<TokioIo<Stream>, ConnectError> {
        self.0.connect().await.map(TokioIo::new)
    }

    /// Lets the next connection begin with another address.
    pub(crate) fn rotate(&self) {
        self.0.resolver.rotate();
    }

    /// What a forwarding proxy wants to see in each request.
    pub(crate) fn forward_authorization(&self) -> Option<&::http::HeaderValue> {
        match &self.0.way {
            Way::Forward(hop) => hop.authorization.as_ref(),
            Way::Direct | Way::Tunnel(_) => None,
        }
    }

    /// Why certificates that were replaced on disk are not used.
    pub(crate) fn unused_files(&self) -> Option<Arc<InvalidConfig>> {
        #[cfg(feature = "_tls")]
        return self.0.tls.as_ref()?.unused_files();
        #[cfg(not(feature = "_tls"))]
        None
    }
}

impl Inner {
    async fn connect(&self) -> Result<Stream, ConnectError> {
        let deadline = Deadline::after(self.timeout);
        #[cfg(unix)]
        if let Some(path) = &self.endpoint.socket {
            let connecting = tokio::net::UnixStream::connect(path);
            let peer = || self.endpoint.peer();
            let unix = deadline.bound(Stage::Dial, peer, connecting).await?;
            let unix = unix.map_err(|error| unreachable(peer(), error))?;
            return Ok(Stream { kind: Kind::Unix(unix), is_h2: false, is_forwarded: false });
        }
        let tcp = match &self.way {
            Way::Direct => self.dial(&self.endpoint.url, &deadline).await?,
            Way::Forward(hop) => self.dial(&hop.address, &deadline).await?,
            Way::Tunnel(hop) => {
                let mut tcp = self.dial(&hop.address, &deadline).await?;
                self.tunnel(&mut tcp, hop, &deadline).await?;
                tcp
            }
        };
        #[cfg(feature = "_tls")]
        if let Some(tls) = &self.tls {
            return self.secure(tls, tcp, &deadline).await;
        }
        let is_forwarded = matches!(self.way, Way::Forward(_));
        Ok(Stream { kind: Kind::Tcp(tcp), is_h2: false, is_forwarded })
    }

    async fn dial(&self, to: &Uri, deadline: &Deadline) -> Result<TcpStream, ConnectError> {
        let mut http = self.http.clone();
        let peer = || to.authority().map(ToString::to_string).unwrap_or_default();
        let tcp = deadline.bound(Stage::Dial, peer, http.call(to.clone())).await?;
        tcp.map(TokioIo::into_inner).map_err(|error| unreachable(peer(), error))
    }

    async fn tunnel(
        &self,
        tcp: &mut TcpStream,
        hop: &Hop,
        deadline: &Deadline,
    ) -> Result<(), ConnectError> {
        let authority = self.endpoint.peer();
        let opening = tunnel::open(tcp, &authority, hop.authorization.as_ref());
        let proxy = || hop.address.authority().map(ToString::to_string).unwrap_or_default();
        match deadline.bound(Stage::Tunnel, proxy, opening).await? {
            Ok(Tunnel::Open) => Ok(()),
            Ok(Tunnel::Refused { status }) => Err(ConnectError::Refused { proxy: proxy(), status }),
            Err(error) => Err(ConnectError::Tunnel { proxy: proxy(), source: Arc::new(error) }),
        }
    }

    #[cfg(feature = "_tls")]
    async fn secure(
        &self,
        tls: &Arc<TlsClient>,
        tcp: TcpStream,
        deadline: &Deadline,
    ) -> Result<Stream, ConnectError> {
        let peer = || self.endpoint.peer();
        let stream = deadline.bound(Stage::Handshake, peer, tls.handshake(tcp)).await?;
        let stream = stream.map_err(|error| {
            let fault = crate::tls::fault(&error);
            ConnectError::Tls { peer: peer(), fault, source: Arc::new(error) }
        })?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if self.needs_h2 && !is_h2 {
            return Err(ConnectError::NoHttp2 { peer: peer() });
        }
        Ok(Stream { kind: Kind::Tls(Box::new(stream)), is_h2, is_forwarded: false })
    }
}

fn unreachable(peer: String, source: impl Error + Send + Sync + 'static) -> ConnectError {
    ConnectError::Unreachable { peer, source: Arc::new(source) }
}

/// As TCP counts.
fn in_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs().clamp(1, TCP_SECONDS_MAX))
}

/// Without an answer to as many in a row, TCP gives the connection up.
const PROBES: u32 = 3;

/// What Linux takes at most.
const TCP_SECONDS_MAX: u64 = 32_767;

/// The end of the time for a connection, if there is one.
struct Deadline(Option<(Instant, Duration)>);

impl Deadline {
    fn after(timeout: Option<Duration>) -> Self {
        Self(timeout.and_then(|after| Some((Instant::now().checked_add(after)?, after))))
    }

    async fn bound<T>(
        &self,
        stage: Stage,
        peer: impl FnOnce() -> String,
        step: impl Future<Output = T>,
    ) -> Result<T, ConnectError> {
        match self.0 {
            Some((at, after)) => tokio::time::timeout_at(at, step)
                .await
                .map_err(|_| ConnectError::Timeout { after, stage, peer: peer() }),
            None => Ok(step.await),
        }
    }
}

/// Why there is no connection. Cheap to clone, so that it can be taken out of the error of the
/// HTTP library around it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot reach {peer}")]
    Unreachable { peer: String, source: Arc<dyn Error + Send + Sync> },
    #[error("timeout after {} ms, {stage} {peer}", after.as_millis())]
    Timeout { after: Duration, stage: Stage, peer: String },
    #[cfg(feature = "_tls")]
    #[error("no TLS with {peer}: {fault}")]
    Tls { peer: String, fault: &'static str, source: Arc<std::io::Error> },
    #[cfg(feature = "_tls")]
    #[error("{peer} does not speak HTTP/2: its TLS did not negotiate `h2` by ALPN")]
    NoHttp2 { peer: String },
    #[error("the proxy {proxy} broke off before there was a tunnel")]
    Tunnel { proxy: String, source: Arc<std::io::Error> },
    /// Becomes an error of its own, as it decides whether to try again.
    #[error("the proxy {proxy} refused a tunnel: HTTP {status}")]
    Refused { proxy: String, status: u16 },
}

impl ConnectError {
    /// Whether the peer answers, and not by TLS.
    pub(crate) fn is_without_tls(&self) -> bool {
        match self {
            #[cfg(feature = "_tls")]
            Self::Tls { source, .. } => {
                let inner = source.get_ref().and_then(|inner| inner.downcast_ref());
                matches!(inner, Some(rustls::Error::InvalidMessage(_)))
            }
            _ => false,
        }
    }

    /// Whether certificates may be why.
    pub(crate) fn is_of_tls(&self) -> bool {
        match self {
            #[cfg(feature = "_tls")]
            Self::Tls { .. } => true,
            #[cfg(feature = "_tls")]
            Self::NoHttp2 { .. } => false,
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Tunnel { .. }
            | Self::Refused { .. } => false,
        }
    }
}

/// Where the time ran out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    Dial,
    Tunnel,
    #[cfg(feature = "_tls")]
    Handshake,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dial => "looking up the name or dialling",
            Self::Tunnel => "waiting for a tunnel through the proxy",
            #[cfg(feature = "_tls")]
            Self::Handshake => "in the TLS handshake with",
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::config::Protocol;

    #[tokio::test]
    async fn tcp_gives_up_an_idle_connection_after_three_probes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let seconds = Duration::from_secs;
        let cases = [
            ((seconds(30), seconds(10)), (seconds(30), seconds(3))),
            ((Duration::from_millis(50), Duration::ZERO), (seconds(1), seconds(1))),
            ((Duration::MAX, Duration::MAX), (seconds(32_767), seconds(32_767))),
        ];
        for ((interval, timeout), expected) in cases {
            let config = TransportConfig::new(Protocol::Grpc, &url)
                .expect("valid")
                .keep_alive(interval, timeout);
            let roots = Roots::of(&config).expect("none needed");
            let connector = Connector::new(&config, &config.endpoints[0], &roots).expect("no TLS");
            let stream = connector.connect().await.expect("listening").into_inner();
            let Kind::Tcp(tcp) = &stream.kind else { panic!("a TCP endpoint") };
            let socket = socket2::SockRef::from(tcp);
            let time = socket.tcp_keepalive_time().expect("open");
            let apart = socket.tcp_keepalive_interval().expect("open");
            assert_eq!((time, apart), expected, "{interval:?}, {timeout:?}");
            assert_eq!(socket.tcp_keepalive_retries().expect("open"), 3);
        }
    }
}
