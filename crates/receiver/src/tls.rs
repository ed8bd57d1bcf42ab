//! TLS of the ports: what they show, and whom they let in.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod files;
mod server;

pub(crate) use server::{H2, TlsServer};

use crate::sink::Transport;

/// Certificates or a key in PEM (RFC 7468).
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A regular file of 4 MiB at most.
    File(PathBuf),
    /// The PEM itself.
    Bytes(Vec<u8>),
}

/// TLS of one port: settings of [`Builder::grpc_tls`](crate::Builder::grpc_tls) and
/// [`Builder::http_tls`](crate::Builder::http_tls).
///
/// Files are looked at again while the port is served, so certificates are renewed by replacing
/// them. One that is replaced by what cannot be used, or is half written, changes nothing: new
/// connections get what was read before, and
/// [`Receiver::unused_tls_files`](crate::Receiver::unused_tls_files) says why.
///
/// Peers without ALPN are served too, as HTTP/2 on the gRPC port and HTTP/1.1 on the other.
/// Revocation is not checked: certificates that live shortly are the remedy.
///
/// ```no_run
/// use spanwire_receiver::{Accepted, Pem, Received, Receiver, ServerTls};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = ServerTls::new(
///     Pem::File("/etc/otel/server.pem".into()),
///     Pem::File("/etc/otel/server.key".into()),
/// )
/// .client_ca(Pem::File("/etc/otel/clients.pem".into()));
/// // Reads the files, and names the one that is missing or wrong.
/// let receiver = Receiver::builder()
///     .grpc("0.0.0.0:4317".parse()?)
///     .grpc_tls(tls)
///     .bind(async |_: Received| Ok(Accepted::default()))
///     .await?;
/// # let _ = receiver;
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct ServerTls {
    chain: Pem,
    key: Pem,
    client_ca: Option<Pem>,
    min_version: TlsVersion,
    reload_interval: Duration,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    V1_2,
    /// TLS 1.3, RFC 8446.
    V1_3,
}

impl ServerTls {
    /// Shows a certificate, followed by those between it and its root, to every peer, and asks for
    /// none. The key is in PKCS#8, PKCS#1 or SEC1, without a password.
    pub fn new(chain: Pem, key: Pem) -> Self {
        Self {
            chain,
            key,
            client_ca: None,
            min_version: TlsVersion::V1_2,
            reload_interval: Duration::from_secs(1),
        }
    }

    /// Lets nobody in without a certificate that one of these stands for.
    pub fn client_ca(mut self, certificates: Pem) -> Self {
        self.client_ca = Some(certificates);
        self
    }

    /// The oldest version spoken, TLS 1.2 by default.
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min_version = version;
        self
    }

    /// How long files count as unchanged after they were looked at, 1 s by default; the first
    /// connection after that looks again, by reading them. With 0 each one does.
    pub fn reload_interval(mut self, interval: Duration) -> Self {
        self.reload_interval = interval;
        self
    }
}

/// Why certificates or a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{what} in {origin}")]
pub struct InvalidTls {
    what: &'static str,
    origin: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl InvalidTls {
    /// `server certificate`, `server key` or `client CA certificates`.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Bytes(pem) => write!(f, "Bytes({} bytes)", pem.len()),
        }
    }
}

/// TLS of each port that has it.
#[derive(Clone, Default)]
pub(crate) struct TlsPorts {
    pub(crate) grpc: Option<Arc<TlsServer>>,
    pub(crate) http: Option<Arc<TlsServer>>,
}

impl TlsPorts {
    /// Reads the certificates of the ports that have any.
    pub(crate) async fn open(
        grpc: Option<ServerTls>,
        http: Option<ServerTls>,
    ) -> Result<Self, InvalidTls> {
        Ok(Self {
            grpc: open(grpc, Transport::Grpc).await?,
            http: open(http, Transport::Http).await?,
        })
    }

    pub(crate) fn of(&self, transport: Transport) -> Option<&Arc<TlsServer>> {
        match transport {
            Transport::Grpc => self.grpc.as_ref(),
            Transport::Http => self.http.as_ref(),
        }
    }

    /// Why the latest handshake failed that did, on either port.
    pub(crate) fn failure(&self) -> Option<Arc<io::Error>> {
        let failures =
            [&self.grpc, &self.http].into_iter().flatten().filter_map(|tls| tls.failure());
        failures.max_by_key(|(at, _)| *at).map(|(_, error)| error)
    }

    /// Why files of a port are not used as they are now.
    pub(crate) fn unused_files(&self) -> Vec<Arc<InvalidTls>> {
        [&self.grpc, &self.http]
            .into_iter()
            .flatten()
            .filter_map(|tls| tls.unused_files())
            .collect()
    }
}

async fn open(
    settings: Option<ServerTls>,
    transport: Transport,
) -> Result<Option<Arc<TlsServer>>, InvalidTls> {
    let Some(settings) = settings else {
        return Ok(None);
    };
    let chain = settings.chain.clone();
    // A receiver may be bound beside others that serve, and disks can be slow.
    let server = tokio::task::spawn_blocking(move || TlsServer::new(settings, transport)).await;
    // Where the runtime ends before they are read.
    let server =
        server.unwrap_or_else(|ended| Err(files::unusable(files::CHAIN, &chain, ended)))?;
    Ok(Some(Arc::new(server)))
}
