//! New connections: TCP, Unix sockets, TLS, and the way through a proxy.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
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
use stream::{Kind, Stream};
use tunnel::Tunnel;

use crate::config::{InvalidConfig, TransportConfig};
use crate::endpoint::Endpoint;
use crate::proxy::Hop;
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
    /// Reads the certificates; dials nothing.
    pub(crate) fn new(
        config: &TransportConfig,
        endpoint: &Endpoint,
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
        http.set_keepalive(config.keep_alive_interval);
        http.set_connect_timeout(config.connect_timeout);
        #[cfg(feature = "_tls")]
        let tls = match endpoint.is_https() {
            true => Some(TlsClient::new(&config.tls, endpoint.host(), !needs_h2)?),
            false => None,
        };
        Ok(Self(Arc::new(Inner {
            endpoint: endpoint.clone(),
            way,
            http,
            resolver,
            timeout: config.connect_timeout,
            #[cfg(feature = "_tls")]
            tls,
            #[cfg(feature = "_tls")]
            needs_h2,
        })))
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

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    /// The URL is the endpoint's own, which is known.
    fn call(&mut self, _: Uri) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.connect().await.map(TokioIo::new) })
    }
}

impl Inner {
    async fn connect(&self) -> Result<Stream, ConnectError> {
        let deadline = Deadline::after(self.timeout);
        #[cfg(unix)]
        if let Some(path) = &self.endpoint.socket {
            let connecting = tokio::net::UnixStream::connect(path);
            let unix = deadline
                .bound(Stage::Dial, connecting)
                .await?
                .map_err(|error| unreachable(self.endpoint.peer(), error))?;
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
        let tcp = deadline.bound(Stage::Dial, http.call(to.clone())).await?;
        let authority = || to.authority().map(ToString::to_string).unwrap_or_default();
        tcp.map(TokioIo::into_inner).map_err(|error| unreachable(authority(), error))
    }

    async fn tunnel(
        &self,
        tcp: &mut TcpStream,
        hop: &Hop,
        deadline: &Deadline,
    ) -> Result<(), ConnectError> {
        let authority = self.endpoint.peer();
        let opening = tunnel::open(tcp, &authority, hop.authorization.as_ref());
        match deadline.bound(Stage::Tunnel, opening).await? {
            Ok(Tunnel::Open) => Ok(()),
            Ok(Tunnel::Refused { status }) => Err(ConnectError::Refused { status }),
            Err(error) => Err(ConnectError::Tunnel(Arc::new(error))),
        }
    }

    #[cfg(feature = "_tls")]
    async fn secure(
        &self,
        tls: &Arc<TlsClient>,
        tcp: TcpStream,
        deadline: &Deadline,
    ) -> Result<Stream, ConnectError> {
        let stream =
            deadline.bound(Stage::Handshake, tls.handshake(tcp)).await?.map_err(|error| {
                let fault = crate::tls::fault(&error);
                ConnectError::Tls { peer: self.endpoint.peer(), fault, source: Arc::new(error) }
            })?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if self.needs_h2 && !is_h2 {
            return Err(ConnectError::NoHttp2 { peer: self.endpoint.peer() });
        }
        Ok(Stream { kind: Kind::Tls(Box::new(stream)), is_h2, is_forwarded: false })
    }
}

fn unreachable(peer: String, source: impl Error + Send + Sync + 'static) -> ConnectError {
    ConnectError::Unreachable { peer, source: Arc::new(source) }
}

/// The end of the time for a connection, if there is one.
struct Deadline(Option<(Instant, Duration)>);

impl Deadline {
    fn after(timeout: Option<Duration>) -> Self {
        Self(timeout.and_then(|after| Some((Instant::now().checked_add(after)?, after))))
    }

    async fn bound<T>(
        &self,
        stage: Stage,
        step: impl Future<Output = T>,
    ) -> Result<T, ConnectError> {
        match self.0 {
            Some((at, after)) => tokio::time::timeout_at(at, step)
                .await
                .map_err(|_| ConnectError::Timeout { after, stage }),
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
    #[error("timeout after {} ms, {stage}", after.as_millis())]
    Timeout { after: Duration, stage: Stage },
    #[cfg(feature = "_tls")]
    #[error("no TLS with {peer}: {fault}")]
    Tls { peer: String, fault: &'static str, source: Arc<std::io::Error> },
    #[cfg(feature = "_tls")]
    #[error("{peer} does not speak HTTP/2: its TLS did not negotiate `h2` by ALPN")]
    NoHttp2 { peer: String },
    #[error("the proxy broke off before there was a tunnel")]
    Tunnel(#[source] Arc<std::io::Error>),
    /// Becomes an error of its own, as it decides whether to try again.
    #[error("the proxy refused a tunnel: HTTP {status}")]
    Refused { status: u16 },
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
            Self::Handshake => "in the TLS handshake",
        })
    }
}
