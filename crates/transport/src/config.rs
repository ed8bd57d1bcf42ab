//! Where to send and how: parsed when it is written down, not when it is first used.

use std::time::Duration;

use ::http::uri::{PathAndQuery, Scheme};
use ::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::compression::Compression;
use crate::error::Source;

/// The three forms of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `grpc`: unary calls of `TraceService/Export` over HTTP/2, usually to port 4317.
    Grpc,
    /// `http/protobuf`: POST of `application/x-protobuf`, usually to port 4318.
    HttpProtobuf,
    /// `http/json`: POST of `application/json`. Every body is rewritten, at many times the CPU.
    HttpJson,
}

/// A destination and how to talk to it.
///
/// ```
/// use std::time::Duration;
/// use spanwire_transport::{Compression, Protocol, TransportConfig};
///
/// let config = TransportConfig::new(Protocol::HttpProtobuf, "http://localhost:4318")?
///     .header("x-tenant", "blue")?
///     .compression(Compression::Zstd)?
///     .request_timeout(Duration::from_secs(5));
/// assert_eq!(config.url(), "http://localhost:4318/v1/traces");
///
/// // gRPC has no name for brotli.
/// let grpc = TransportConfig::new(Protocol::Grpc, "http://localhost:4317")?;
/// assert!(grpc.compression(Compression::Brotli).is_err());
/// # Ok::<(), spanwire_transport::InvalidConfig>(())
/// ```
#[derive(Clone, Debug)]
pub struct TransportConfig {
    pub(crate) protocol: Protocol,
    pub(crate) url: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) user_agent: HeaderValue,
    pub(crate) compression: Compression,
    pub(crate) compression_bytes_min: usize,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) keep_alive_interval: Option<Duration>,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) idle_connections_max: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) http2_only: bool,
}

impl TransportConfig {
    /// To the collector at `endpoint`, `http://` or `https://` and a host.
    ///
    /// HTTP appends `v1/traces` to the endpoint's path ("OTLP/HTTP Request" in
    /// `docs/specification.md`, opentelemetry-proto v1.11.0), with one slash between, and keeps a
    /// query. gRPC ignores path and query.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig::Endpoint`], [`InvalidConfig::Credentials`] and [`InvalidConfig::Tls`].
    pub fn new(protocol: Protocol, endpoint: &str) -> Result<Self, InvalidConfig> {
        let mut config = Self::with_url(protocol, endpoint)?;
        if protocol != Protocol::Grpc {
            config.url = append_signal_path(config.url).map_err(|reason| {
                InvalidConfig::Endpoint { endpoint: shorten(endpoint), reason }
            })?;
        }
        Ok(config)
    }

    /// As [`new`](Self::new), with the path as it is: `url` is the whole address of the signal.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_url(protocol: Protocol, url: &str) -> Result<Self, InvalidConfig> {
        Ok(Self {
            protocol,
            url: parse_endpoint(url)?,
            headers: HeaderMap::new(),
            user_agent: HeaderValue::from_static(USER_AGENT),
            compression: Compression::None,
            compression_bytes_min: 1024,
            connect_timeout: Some(Duration::from_secs(5)),
            request_timeout: Some(Duration::from_secs(10)),
            keep_alive_interval: Some(Duration::from_secs(30)),
            keep_alive_timeout: Duration::from_secs(10),
            idle_connections_max: 16,
            idle_timeout: Duration::from_secs(90),
            http2_only: false,
        })
    }

    /// Sends a header with each request; a name given before is replaced.
    ///
    /// `user-agent` is put in front of the exporter's own. Values are never shown by `Debug`, and
    /// HTTP/2 keeps them out of its compression tables.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig::Header`] if name or value is not valid in HTTP, or the name is one that
    /// OTLP, gRPC or the connection sets (`content-*`, `grpc-*`, `host`, `te`,
    /// `transfer-encoding`, `connection`, `accept-encoding`).
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, InvalidConfig> {
        let invalid = |reason| InvalidConfig::Header { name: shorten(name), reason };
        let parsed =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("not a header name"))?;
        if is_reserved(&parsed) {
            return Err(invalid("set by the protocol"));
        }
        if parsed == header::USER_AGENT {
            self.user_agent = HeaderValue::from_str(&format!("{value} {USER_AGENT}"))
                .map_err(|_| invalid("not a header value"))?;
            return Ok(self);
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| invalid("not a header value"))?;
        value.set_sensitive(true);
        self.headers.insert(parsed, value);
        Ok(self)
    }

    /// Compresses bodies of [`compression_bytes_min`](Self::compression_bytes_min) bytes or more.
    /// Default: [`Compression::None`].
    ///
    /// # Errors
    ///
    /// [`InvalidConfig::Compression`] for brotli over gRPC.
    pub fn compression(mut self, compression: Compression) -> Result<Self, InvalidConfig> {
        if self.protocol == Protocol::Grpc && compression == Compression::Brotli {
            return Err(InvalidConfig::Compression);
        }
        self.compression = compression;
        Ok(self)
    }

    /// Smaller bodies are sent as they are. Default: 1 KiB.
    pub fn compression_bytes_min(mut self, bytes_min: usize) -> Self {
        self.compression_bytes_min = bytes_min;
        self
    }

    /// Time to open a connection, TLS included. Zero means no limit. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout).filter(|t| !t.is_zero());
        self
    }

    /// Time for one attempt, from opening a connection to the end of the answer. Zero means no
    /// limit, as in `OTEL_EXPORTER_OTLP_TIMEOUT`. Default: 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout).filter(|t| !t.is_zero());
        self
    }

    /// On HTTP/2, sends a ping when nothing was received for `interval` while an answer is
    /// outstanding, and closes the connection when none comes back within `timeout`. A zero
    /// `interval` means no pings. Default: 30 s and 10 s.
    ///
    /// Idle connections are not pinged: many gRPC servers close the connection of a client that
    /// does.
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keep_alive_interval = Some(interval).filter(|i| !i.is_zero());
        self.keep_alive_timeout = timeout;
        self
    }

    /// How many unused connections HTTP keeps, and for how long each. gRPC holds one connection.
    /// Default: 16, for 90 s.
    pub fn idle_connections(mut self, connections_max: usize, timeout: Duration) -> Self {
        self.idle_connections_max = connections_max;
        self.idle_timeout = timeout;
        self
    }

    /// HTTP speaks HTTP/2 from the first byte, so that all requests share one connection without
    /// TLS too. Otherwise HTTP/2 is used where TLS negotiates it. gRPC always does. Default: off.
    pub fn http2_only(mut self, http2_only: bool) -> Self {
        self.http2_only = http2_only;
        self
    }

    /// The protocol spoken.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The address that requests go to, signal path included.
    pub fn url(&self) -> String {
        self.url.to_string()
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// The endpoint is not `http://` or `https://` and a host.
    #[error("endpoint `{endpoint}`: {reason}")]
    Endpoint {
        /// The endpoint, cut to 200 characters.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The endpoint holds a user name or a password, which would end up in logs; an
    /// `authorization` header is the place for them. The endpoint is not repeated here.
    #[error("endpoint holds credentials; use an authorization header")]
    Credentials,
    /// A header cannot be sent.
    #[error("header `{name}`: {reason}")]
    Header {
        /// The header's name, cut to 200 characters.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// gRPC has no registered name for brotli.
    #[error("brotli cannot be used over gRPC; use gzip or zstd")]
    Compression,
    /// An https endpoint in a build without TLS.
    #[error(
        "https needs a TLS provider (feature tls-ring or tls-aws-lc) and root certificates \
         (feature tls-native-roots or tls-webpki-roots)"
    )]
    Tls,
    /// The HTTP client or its TLS settings could not be made.
    #[error("no client for this endpoint")]
    Client(#[source] Source),
    /// A transport was made outside a Tokio runtime.
    #[error("no Tokio runtime: make the transport inside the one that will send")]
    Runtime,
}

fn parse_endpoint(endpoint: &str) -> Result<Uri, InvalidConfig> {
    let invalid = |reason| InvalidConfig::Endpoint { endpoint: shorten(endpoint), reason };
    // Looked for before parsing, so that no error repeats a password.
    let authority = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(InvalidConfig::Credentials);
    }
    let url: Uri = endpoint.trim().parse().map_err(|_| invalid("not a URL"))?;
    let Some(scheme) = url.scheme() else {
        return Err(invalid("must start with http:// or https://"));
    };
    if url.host().is_none_or(str::is_empty) {
        return Err(invalid("names no host"));
    }
    if *scheme == Scheme::HTTP {
        Ok(url)
    } else if *scheme == Scheme::HTTPS {
        if HAS_TLS { Ok(url) } else { Err(InvalidConfig::Tls) }
    } else {
        Err(invalid("must start with http:// or https://"))
    }
}

fn append_signal_path(base: Uri) -> Result<Uri, &'static str> {
    let mut parts = base.into_parts();
    let (path, query) = match &parts.path_and_query {
        Some(p) => (p.path().trim_end_matches('/'), p.query()),
        None => ("", None),
    };
    let path = match query {
        Some(query) => format!("{path}/v1/traces?{query}"),
        None => format!("{path}/v1/traces"),
    };
    let path = PathAndQuery::try_from(path).map_err(|_| "path too long")?;
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| "not a URL")
}

fn is_reserved(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("grpc-")
        || text.starts_with("content-")
        || [
            header::ACCEPT_ENCODING,
            header::CONNECTION,
            header::HOST,
            header::TE,
            header::TRANSFER_ENCODING,
        ]
        .contains(name)
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

const HAS_TLS: bool =
    cfg!(feature = "_tls") && cfg!(any(feature = "tls-native-roots", feature = "tls-webpki-roots"));

/// `OTel-OTLP-Exporter-<Language>/<version>`, as "User Agent" of the exporter specification has it
/// (`specification/protocol/exporter.md`, opentelemetry-specification v1.60).
const USER_AGENT: &str = concat!(
    "OTel-OTLP-Exporter-Rust/",
    env!("CARGO_PKG_VERSION"),
    " spanwire/",
    env!("CARGO_PKG_VERSION")
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_gets_the_signal_path_with_one_slash_and_an_exact_url_stays() {
        let cases = [
            ("http://h:4318", "http://h:4318/v1/traces"),
            ("http://h:4318/", "http://h:4318/v1/traces"),
            ("http://h/otlp", "http://h/otlp/v1/traces"),
            ("http://h/otlp//", "http://h/otlp/v1/traces"),
            ("http://h/otlp?key=1", "http://h/otlp/v1/traces?key=1"),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
        ];
        for (base, url) in cases {
            let config = TransportConfig::new(Protocol::HttpProtobuf, base).expect(base);
            assert_eq!(config.url(), url);
        }
        let exact = TransportConfig::with_url(Protocol::HttpJson, "http://h/a").expect("valid");
        assert_eq!(exact.url(), "http://h/a");
    }

    #[test]
    fn endpoints_that_cannot_be_dialled_are_refused_with_the_reason() {
        for endpoint in
            ["", "localhost:4317", "ftp://h", "http://", "http://:80", "http://a b", "/x"]
        {
            let error = TransportConfig::new(Protocol::Grpc, endpoint).expect_err(endpoint);
            assert!(matches!(error, InvalidConfig::Endpoint { .. }), "{endpoint}: {error}");
        }
    }

    #[test]
    fn a_password_in_the_endpoint_is_refused_and_not_repeated() {
        for endpoint in ["http://u:pass@h", "http://u:pa ss@h", "u:pass@h:4317"] {
            let error = TransportConfig::new(Protocol::Grpc, endpoint).expect_err("credentials");
            assert!(!format!("{error} {error:?}").contains("pa"), "{error:?}");
        }
        assert!(TransportConfig::new(Protocol::HttpJson, "http://h/a@b").is_ok());
    }

    #[test]
    fn https_without_tls_features_is_refused() {
        let result = TransportConfig::new(Protocol::Grpc, "https://h");
        assert_eq!(result.is_ok(), HAS_TLS);
        assert_eq!(matches!(result, Err(InvalidConfig::Tls)), !HAS_TLS);
    }

    #[test]
    fn reserved_and_malformed_headers_are_refused_and_values_stay_hidden() {
        let config = || TransportConfig::new(Protocol::Grpc, "http://h").expect("valid");
        for name in ["content-type", "Content-Encoding", "grpc-timeout", "TE", "host", "a b", ""] {
            assert!(config().header(name, "x").is_err(), "{name}");
        }
        assert!(config().header("x", "a\nb").is_err());
        let shown = format!("{:?}", config().header("authorization", "hunter2").expect("valid"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
