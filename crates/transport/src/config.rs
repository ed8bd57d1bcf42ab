//! Where to send and how: parsed when it is written down, not when it is first used.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::compression::Compression;
use crate::endpoint::Endpoint;
use crate::error::Source;
use crate::proxy::Proxy;
use crate::tls::Tls;

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
    /// One at least.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Endpoints are bases, to which HTTP appends the path of the signal.
    appends: bool,
    pub(crate) headers: HeaderMap,
    pub(crate) user_agent: HeaderValue,
    pub(crate) compression: Compression,
    pub(crate) compression_bytes_min: usize,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) keep_alive_interval: Option<Duration>,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) idle_connections_max: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) http2_only: bool,
    pub(crate) connection_age_max: Option<Duration>,
    pub(crate) proxy: Proxy,
    pub(crate) tls: Tls,
}

impl TransportConfig {
    /// To the collector at `endpoint`: `http://` or `https://` and a host, or the path of a Unix
    /// socket as `unix:path` or `unix:///path`.
    ///
    /// HTTP appends `v1/traces` to the endpoint's path ("OTLP/HTTP Request" in
    /// `docs/specification.md`, opentelemetry-proto v1.11.0), with one slash between, and keeps a
    /// query. gRPC ignores path and query. Over a Unix socket the path is `/v1/traces`.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig::Endpoint`], [`InvalidConfig::Credentials`] and [`InvalidConfig::Tls`].
    pub fn new(protocol: Protocol, endpoint: &str) -> Result<Self, InvalidConfig> {
        Self::to(protocol, endpoint, true)
    }

    /// As [`new`](Self::new), with the path as it is: `url` is the whole address of the signal.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_url(protocol: Protocol, url: &str) -> Result<Self, InvalidConfig> {
        Self::to(protocol, url, false)
    }

    /// Adds a further endpoint of the same protocol, written as the first one was.
    ///
    /// Attempts go round all of them. One that cannot be reached, breaks off, runs into a timeout
    /// or answers that it is away (502, 503, 504, UNAVAILABLE) is passed over for 1 s, and longer
    /// each time, up to 64 s. One that says how long to wait is passed over for at least that, up
    /// to an hour, and the error does not ask for a wait that another endpoint does not need. With
    /// all of them away, the one away longest is tried.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn endpoint(mut self, endpoint: &str) -> Result<Self, InvalidConfig> {
        self.endpoints.push(Endpoint::parse(self.protocol, endpoint, self.appends)?);
        Ok(self)
    }

    fn to(protocol: Protocol, endpoint: &str, appends: bool) -> Result<Self, InvalidConfig> {
        Ok(Self {
            protocol,
            endpoints: vec![Endpoint::parse(protocol, endpoint, appends)?],
            appends,
            headers: HeaderMap::new(),
            user_agent: HeaderValue::from_static(USER_AGENT),
            compression: Compression::None,
            compression_bytes_min: 1024,
            connect_timeout: Some(Duration::from_secs(5)),
            request_timeout: Some(Duration::from_secs(10)),
            keep_alive_interval: Some(Duration::from_secs(30)),
            keep_alive_timeout: Duration::from_secs(10),
            idle_connections_max: 16,
            idle_timeout: Some(Duration::from_secs(90)),
            http2_only: false,
            connection_age_max: None,
            proxy: Proxy::none(),
            tls: Tls::new(),
        })
    }

    /// Sends a header with each request; a name given before is replaced.
    ///
    /// `user-agent` is put in front of the exporter's own. The values of all others are never shown
    /// by `Debug`, and HTTP/2 keeps them out of its compression tables.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig::Header`] if name or value is not valid in HTTP, or the name is one that
    /// OTLP, gRPC or the connection sets (`content-*`, `grpc-*`, `host`, `te`,
    /// `transfer-encoding`, `connection`, `accept-encoding`, `proxy-authorization`).
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

    /// Time to open a connection, TLS included. It ends after nine tenths of the request timeout at
    /// the latest, so that the error says where the time went. Zero means no limit but that.
    /// Default: 5 s.
    ///
    /// This and all other durations count as a year where they are longer.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = limit(timeout);
        self
    }

    /// Time for one attempt, from opening a connection to the end of the answer. Zero means no
    /// limit, as in `OTEL_EXPORTER_OTLP_TIMEOUT`. Default: 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = limit(timeout);
        self
    }

    /// On HTTP/2, sends a ping when nothing was received for `interval` while an answer is
    /// outstanding, and closes the connection when none comes back within `timeout`. A zero
    /// `interval` means no pings. Default: 30 s and 10 s.
    ///
    /// Idle connections are not pinged: many gRPC servers close the connection of a client that
    /// does. TCP keeps watch over those, and over HTTP/1.1: after `interval` without a byte it sends
    /// three probes, a third of `timeout` apart. It counts in whole seconds, from 1 s to 9 hours.
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keep_alive_interval = limit(interval);
        self.keep_alive_timeout = timeout.min(DURATION_MAX);
        self
    }

    /// How many unused connections HTTP/1.1 keeps, and for how long each. Where HTTP/2 is spoken or
    /// may be negotiated, one is kept at least, for as long. A zero `timeout` means no limit. Default: 16, for 90 s.
    pub fn idle_connections(mut self, connections_max: usize, timeout: Duration) -> Self {
        self.idle_connections_max = connections_max;
        self.idle_timeout = limit(timeout);
        self
    }

    /// HTTP speaks HTTP/2 from the first byte, so that all requests share one connection without
    /// TLS too. Otherwise HTTP/2 is used where TLS negotiates it. gRPC always does. Default: off.
    pub fn http2_only(mut self, http2_only: bool) -> Self {
        self.http2_only = http2_only;
        self
    }

    /// Makes connections anew after this time, and looks up names again; a tenth of it may be
    /// taken off at random. What is in flight finishes on the old connection. Zero means no limit.
    ///
    /// Default: no limit. A connection that works is the cheapest one, servers that want theirs
    /// spread say so by GOAWAY or by closing them, and a failure leads to a new one anyway. It
    /// serves where names stand for a changing set of collectors and nothing closes connections.
    pub fn connection_age_max(mut self, age_max: Duration) -> Self {
        self.connection_age_max = limit(age_max);
        self
    }

    /// The proxies on the way. Default: [`Proxy::none`], whatever the environment says.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// Certificates and names of https endpoints; the others ignore them. Default: [`Tls::new`].
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// The protocol spoken.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The address that requests go to, signal path included, or the path of a Unix socket. With
    /// several endpoints, the first one's.
    pub fn url(&self) -> String {
        self.endpoints.first().map(ToString::to_string).unwrap_or_default()
    }

    /// Time to open a connection.
    pub(crate) fn dial_timeout(&self) -> Option<Duration> {
        let most = self.request_timeout.map(|timeout| timeout / 10 * 9);
        [self.connect_timeout, most].into_iter().flatten().min()
    }

    /// Whether HTTP/2 is spoken and nothing else.
    pub(crate) fn speaks_only_h2(&self) -> bool {
        self.protocol == Protocol::Grpc || self.http2_only
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// The endpoint is not `http://` or `https://` and a host, nor the path of a Unix socket.
    #[error("endpoint `{endpoint}`: {reason}")]
    Endpoint {
        /// The endpoint without its query, cut to 200 characters.
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
    /// A proxy's URL cannot be used. It is not repeated here, as it may hold a password.
    #[error("{setting}: {reason}")]
    Proxy {
        /// `proxy`, or the environment variable.
        setting: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An https endpoint in a build without TLS.
    #[error("https needs a TLS provider (feature tls-ring or tls-aws-lc)")]
    Tls,
    /// An https endpoint without an own CA, in a build without root certificates or on a system
    /// that has none.
    #[error(
        "https needs root certificates: an own CA, or those of the feature tls-native-roots or \
         tls-webpki-roots"
    )]
    Roots {
        /// Why those of the system could not be read, as far as it was said.
        #[source]
        source: Option<Source>,
    },
    /// Certificates or a key cannot be read or used.
    #[error("{what} in {origin}")]
    Pem {
        /// `CA certificates`, `client certificate` or `client key`.
        what: &'static str,
        /// The file, or that the bytes were given.
        origin: String,
        /// What is wrong.
        #[source]
        source: Source,
    },
    /// The name that the collector's certificate must be for is neither a host name nor an IP
    /// address.
    #[error("`{name}` cannot be the name in a certificate")]
    ServerName {
        /// The name, cut to 200 characters.
        name: String,
    },
    /// The parts that requests and connections are made of do not fit together.
    #[error("no client for this endpoint")]
    Client(#[source] Source),
}

fn is_reserved(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("grpc-")
        || text.starts_with("content-")
        || [
            header::ACCEPT_ENCODING,
            header::CONNECTION,
            header::HOST,
            header::PROXY_AUTHORIZATION,
            header::TE,
            header::TRANSFER_ENCODING,
        ]
        .contains(name)
}

/// A setting where zero means no limit.
fn limit(duration: Duration) -> Option<Duration> {
    Some(duration.min(DURATION_MAX)).filter(|duration| !duration.is_zero())
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

/// A year: as good as for ever, and no clock overflows with it, whoever adds it to the time.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

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
    fn further_endpoints_are_read_as_the_first_one_was() {
        let base = TransportConfig::new(Protocol::HttpProtobuf, "http://a")
            .and_then(|config| config.endpoint("http://b/x"))
            .expect("valid");
        assert_eq!(base.endpoints[1].to_string(), "http://b/x/v1/traces");
        let exact = TransportConfig::with_url(Protocol::HttpProtobuf, "http://a/y")
            .and_then(|config| config.endpoint("http://b/x"))
            .expect("valid");
        assert_eq!(
            (exact.url().as_str(), exact.endpoints[1].to_string().as_str()),
            ("http://a/y", "http://b/x")
        );
        assert!(exact.endpoint("b:80").is_err());
    }

    #[test]
    fn no_duration_is_longer_than_a_year_and_a_connection_has_less_time_than_its_request() {
        let config = || TransportConfig::new(Protocol::Grpc, "http://h").expect("valid");
        let most = config()
            .connect_timeout(Duration::MAX)
            .request_timeout(Duration::MAX)
            .keep_alive(Duration::MAX, Duration::MAX)
            .idle_connections(1, Duration::MAX)
            .connection_age_max(Duration::MAX);
        let durations = [
            most.connect_timeout,
            most.request_timeout,
            most.keep_alive_interval,
            Some(most.keep_alive_timeout),
            most.idle_timeout,
            most.connection_age_max,
        ];
        assert_eq!(durations, [Some(DURATION_MAX); 6]);

        let millis = Duration::from_millis;
        let timeouts = |connect, request| {
            let config = config().connect_timeout(millis(connect));
            config.request_timeout(millis(request)).dial_timeout()
        };
        assert_eq!(timeouts(5000, 10_000), Some(millis(5000)));
        assert_eq!(timeouts(5000, 3000), Some(millis(2700)));
        assert_eq!(timeouts(0, 3000), Some(millis(2700)));
        assert_eq!(timeouts(5000, 0), Some(millis(5000)));
        assert_eq!(timeouts(0, 0), None);
    }

    #[test]
    fn a_key_in_the_path_or_the_query_of_an_endpoint_stays_hidden() {
        let config = TransportConfig::new(Protocol::HttpJson, "http://h/hunter1?key=hunter2")
            .and_then(|config| config.endpoint("http://i:1/hunter3"))
            .expect("valid");
        let shown = format!("{config:?}");
        assert!(shown.contains("h:80") && shown.contains("i:1"), "{shown}");
        assert!(!shown.contains("hunter"), "{shown}");
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
