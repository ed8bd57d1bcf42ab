//! What a connection over TLS trusts and shows: settings, as data.

use std::fmt;
use std::path::PathBuf;

#[cfg(feature = "_tls")]
mod any;
#[cfg(feature = "_tls")]
mod client;
#[cfg(feature = "_tls")]
mod files;

#[cfg(feature = "_tls")]
mod roots;

#[cfg(feature = "_tls")]
pub(crate) use client::{TlsClient, fault};
#[cfg(feature = "_tls")]
pub(crate) use roots::Roots;

/// Certificates or a key in PEM (RFC 7468).
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A regular file of 4 MiB at most. It is read when the transport is made and looked at again for each
    /// new connection, so that a file replaced on disk is used from then on.
    File(PathBuf),
    /// The PEM itself.
    Bytes(Vec<u8>),
}

/// Settings of https endpoints.
///
/// ```no_run
/// use spanwire_transport::{Pem, Protocol, Tls, Transport, TransportConfig};
///
/// let tls = Tls::new()
///     .ca(Pem::File("/etc/otel/ca.pem".into()))
///     .client_certificate(
///         Pem::File("/etc/otel/client.pem".into()),
///         Pem::File("/etc/otel/client.key".into()),
///     );
/// let config = TransportConfig::new(Protocol::Grpc, "https://collector.example:4317")?.tls(tls);
/// // Reads the files, and names the one that is missing or wrong.
/// let transport = Transport::new(&config)?;
/// # Ok::<(), spanwire_transport::InvalidConfig>(())
/// ```
///
/// A file that is replaced by one that cannot be used, or is half written, changes nothing: the
/// connections are made with what was read before, and an attempt that then fails in the handshake
/// or on a connection says so. The same holds while a disk does not answer. In no case is a
/// connection made without TLS.
///
/// Revocation is not checked: no list of it is at hand. Certificates that live shortly are the
/// remedy, and the reason why files are looked at again.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    pub(crate) ca: Option<Pem>,
    pub(crate) identity: Option<Identity>,
    pub(crate) server_name: Option<String>,
    pub(crate) min_version: TlsVersion,
    pub(crate) accepts_any: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    #[default]
    V1_2,
    /// TLS 1.3, RFC 8446.
    V1_3,
}

/// What the client shows of itself.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "_tls"), expect(dead_code, reason = "read where there is TLS"))]
pub(crate) struct Identity {
    pub(crate) chain: Pem,
    pub(crate) key: Pem,
}

impl Tls {
    /// The root certificates of the build, no client certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts these certificates, and none of the build's: the features `tls-native-roots` and
    /// `tls-webpki-roots` are not needed then.
    pub fn ca(mut self, certificates: Pem) -> Self {
        self.ca = Some(certificates);
        self
    }

    /// Shows a certificate, followed by those between it and its root, to a collector that asks
    /// for one. The key is in PKCS#8, PKCS#1 or SEC1, without a password.
    pub fn client_certificate(mut self, chain: Pem, key: Pem) -> Self {
        self.identity = Some(Identity { chain, key });
        self
    }

    /// Expects the collector's certificate to be for `name`, a host name or an IP address, in
    /// place of the endpoint's host.
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_owned());
        self
    }

    /// The oldest version spoken, TLS 1.2 by default. TLS 1.3 is spoken with every collector that
    /// speaks it.
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min_version = version;
        self
    }

    /// Accepts whatever certificate the collector shows: expired, for another name, signed by
    /// nobody known. Whoever is in between can then read and change all that is sent, credentials in
    /// headers included. All that is checked is that the collector has the key of its certificate;
    /// neither the roots of the build nor those of [`ca`](Self::ca) matter.
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.accepts_any = true;
        self
    }
}

/// Stands for the root certificates, where there is no TLS.
#[cfg(not(feature = "_tls"))]
pub(crate) struct Roots;

#[cfg(not(feature = "_tls"))]
impl Roots {
    #[expect(clippy::unnecessary_wraps, reason = "with TLS they may be missing")]
    pub(crate) fn of(
        _: &crate::config::TransportConfig,
    ) -> Result<Self, crate::config::InvalidConfig> {
        Ok(Self)
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
