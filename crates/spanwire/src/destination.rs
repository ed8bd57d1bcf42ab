//! Where spans go.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use spanwire_transport::{
    Compression, InvalidConfig, Pem, Protocol, Proxy, RetrySettings, SendError, Tls,
    TransportConfig,
};

/// One place that spans go to.
///
/// ```
/// use spanwire::{Client, Destination, Endpoint, Otlp, Output, Protocol};
///
/// let archive = Otlp {
///     protocol: Protocol::Grpc,
///     endpoints: vec!["http://archive:4317".into()],
///     ..Otlp::default()
/// };
/// let builder = Client::builder()
///     .environment(false)
///     .endpoint(Endpoint::Exact("http://collector:4318/custom/path".into()))
///     .destination(archive)
///     .destination(Destination::JsonLines(Output::File("spans.jsonl".into())));
/// let (config, _) = builder.resolve();
/// let names: Vec<_> = config.destinations.iter().map(ToString::to_string).collect();
/// assert_eq!(names, [
///     "otlp to http://collector:4318/custom/path",
///     "otlp to http://archive:4317",
///     "file:spans.jsonl",
/// ]);
/// ```
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum Destination {
    /// An OTLP collector.
    Otlp(Box<Otlp>),
    /// Standard output, each trace as a tree to be read by people.
    Console,
    /// OTLP JSON lines, one request a line (`specification/protocol/file-exporter.md`,
    /// opentelemetry-specification v1.60).
    JsonLines(Output),
}

/// What it is called in messages; without secrets.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Otlp(otlp) => {
                f.write_str("otlp to ")?;
                for (number, endpoint) in otlp.addresses().iter().enumerate() {
                    write!(f, "{}{endpoint}", if number > 0 { " and " } else { "" })?;
                }
                Ok(())
            }
            Self::Console => f.write_str("console"),
            Self::JsonLines(Output::Stdout) => f.write_str("otlp/stdout"),
            Self::JsonLines(Output::File(path)) => write!(f, "file:{}", path.display()),
        }
    }
}

impl Default for Destination {
    fn default() -> Self {
        Otlp::default().into()
    }
}

impl From<Otlp> for Destination {
    fn from(otlp: Otlp) -> Self {
        Self::Otlp(Box::new(otlp))
    }
}

/// Where lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// The end of this file, which is made where it is missing.
    File(std::path::PathBuf),
}

/// An OTLP collector and how to talk to it. `Debug` hides the values of headers.
#[derive(Clone)]
pub struct Otlp {
    /// How spans travel; `http/protobuf` by default.
    pub protocol: Protocol,
    /// The collector, or several that share the load. None: the standard port on localhost, 4317
    /// for gRPC and 4318 for HTTP.
    ///
    /// `http://host:port`, `https://host:port`, `unix:/path`; for gRPC `host:port` too, which is
    /// https unless [`insecure`](Self::insecure).
    pub endpoints: Vec<Endpoint>,
    /// Whether a gRPC endpoint without a scheme is `http` rather than `https`. It says nothing about
    /// any other.
    pub insecure: bool,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
    /// How requests are compressed.
    pub compression: Compression,
    /// Requests below so many bytes are sent as they are.
    pub compression_bytes_min: usize,
    /// The certificates an https collector's own must lead to, in place of those that the build or
    /// the system trusts.
    pub ca: Option<Pem>,
    /// What is shown to a collector that asks for a certificate: it, and those between it and its
    /// root. Of use with [`client_key`](Self::client_key) only.
    pub client_certificate: Option<Pem>,
    /// The key of [`client_certificate`](Self::client_certificate): PKCS#8, PKCS#1 or SEC1, without
    /// a password.
    pub client_key: Option<Pem>,
    /// The name an https collector's certificate must be for, in place of the endpoint's host.
    pub server_name: Option<String>,
    /// The proxies on the way. By default none; a [`Builder`](crate::Builder) finds those of the
    /// environment.
    pub proxy: Proxy,
    /// Longest time for a connection to be made; no more than nine tenths of
    /// [`request_timeout`](Self::request_timeout), so that a failure says where it got stuck.
    pub connect_timeout: Duration,
    /// Longest time for one attempt to be answered; zero is no limit.
    pub request_timeout: Duration,
    /// Time between two probes of an HTTP/2 connection that owes an answer; zero is no probes.
    pub keep_alive_interval: Duration,
    /// Longest time for such a probe to be answered.
    pub keep_alive_timeout: Duration,
    /// Idle HTTP connections kept.
    pub idle_connections_max: usize,
    /// How long an idle HTTP connection is kept.
    pub idle_timeout: Duration,
    /// How long a connection is used before it is made anew and its name is looked up again; zero,
    /// the default, is for as long as it works.
    pub connection_age_max: Duration,
    /// Requests in flight at once: throughput is at most this many requests in one round trip.
    pub requests_in_flight_max: usize,
    /// When and how often a failed request is sent again.
    pub retry: RetrySettings,
    /// Narrows what OTLP allows to be sent again.
    pub retry_if: RetryIf,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            // "Specify Protocol" in `specification/protocol/exporter.md`,
            // opentelemetry-specification v1.60.
            protocol: Protocol::HttpProtobuf,
            endpoints: Vec::new(),
            insecure: false,
            headers: Vec::new(),
            compression: Compression::None,
            // Below it the headers outweigh what compression saves.
            compression_bytes_min: 1 << 10,
            ca: None,
            client_certificate: None,
            client_key: None,
            server_name: None,
            proxy: Proxy::none(),
            connect_timeout: Duration::from_secs(5),
            // "Configuration Options", same place: 10 s.
            request_timeout: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(10),
            idle_connections_max: 4,
            idle_timeout: Duration::from_secs(90),
            connection_age_max: Duration::ZERO,
            requests_in_flight_max: 4,
            retry: RetrySettings::default(),
            retry_if: RetryIf::default(),
        }
    }
}

impl Otlp {
    /// The endpoints with a scheme each; there is at least one.
    pub(crate) fn addresses(&self) -> Vec<Endpoint> {
        if self.endpoints.is_empty() {
            let localhost = match self.protocol {
                Protocol::Grpc => "http://localhost:4317",
                Protocol::HttpProtobuf | Protocol::HttpJson => "http://localhost:4318",
            };
            return vec![localhost.into()];
        }
        self.endpoints.iter().map(|endpoint| self.with_scheme(endpoint.clone())).collect()
    }

    pub(crate) fn transport_config(&self) -> Result<TransportConfig, InvalidConfig> {
        let addresses = self.addresses();
        let mut urls = addresses.iter().map(|endpoint| endpoint.of_signal(self.protocol));
        // There is at least one.
        let first = urls.next().unwrap_or_else(|| Ok(String::new()))?;
        let mut config = TransportConfig::with_url(self.protocol, &first)?;
        for further in urls {
            config = config.endpoint(&further?)?;
        }
        for (name, value) in &self.headers {
            config = config.header(name, value)?;
        }
        Ok(config
            .compression(self.compression)?
            .compression_bytes_min(self.compression_bytes_min)
            .tls(self.tls())
            .proxy(self.proxy.clone())
            .connect_timeout(self.connect_timeout)
            .request_timeout(self.request_timeout)
            .keep_alive(self.keep_alive_interval, self.keep_alive_timeout)
            .idle_connections(self.idle_connections_max, self.idle_timeout)
            .connection_age_max(self.connection_age_max))
    }

    fn tls(&self) -> Tls {
        let mut tls = Tls::new();
        if let Some(ca) = &self.ca {
            tls = tls.ca(ca.clone());
        }
        if let (Some(chain), Some(key)) = (&self.client_certificate, &self.client_key) {
            tls = tls.client_certificate(chain.clone(), key.clone());
        }
        if let Some(name) = &self.server_name {
            tls = tls.server_name(name);
        }
        tls
    }

    /// "Insecure" among the "Configuration Options" of `specification/protocol/exporter.md`,
    /// opentelemetry-specification v1.60. HTTP has no such form.
    pub(crate) fn with_scheme(&self, mut endpoint: Endpoint) -> Endpoint {
        let (Endpoint::Base(url) | Endpoint::Exact(url)) = &mut endpoint;
        let has_scheme = url.contains("://") || url.starts_with("unix:");
        if self.protocol == Protocol::Grpc && !has_scheme {
            let scheme = if self.insecure { "http" } else { "https" };
            *url = format!("{scheme}://{}", url.trim());
        }
        endpoint
    }
}

/// The address of a collector. `Debug` and `Display` hide its query and any credentials.
#[derive(Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The base URL, to which HTTP appends `v1/traces`.
    Base(String),
    /// The URL as it is, as from `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.
    Exact(String),
}

impl Endpoint {
    /// As it was given.
    #[must_use]
    pub fn url(&self) -> &str {
        let (Self::Base(url) | Self::Exact(url)) = self;
        url
    }

    /// With the signal's path, for endpoints of both forms may stand side by side.
    fn of_signal(&self, protocol: Protocol) -> Result<String, InvalidConfig> {
        match self {
            Self::Base(url) => Ok(TransportConfig::new(protocol, url)?.url()),
            Self::Exact(url) => Ok(url.clone()),
        }
    }
}

/// Without what may be secret: a user's name and password, and what follows `?`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url();
        let (start, rest) = match url.find("://") {
            Some(at) => url.split_at(at + "://".len()),
            None => ("", url),
        };
        let end = |of: &str, marks: &[char]| of.find(marks).unwrap_or(of.len());
        let authority = &rest[..end(rest, &['/', '?', '#'])];
        let (hidden, rest) = match (authority.rfind('@'), rest.contains('@')) {
            (Some(at), _) => ("(hidden)", &rest[at..]),
            // A password with a slash or a question mark that it should not have, perhaps.
            (None, true) => return write!(f, "{start}(hidden)"),
            (None, false) => ("", rest),
        };
        let shown = &rest[..end(rest, &['?', '#'])];
        let query = if shown.len() < rest.len() { "?(hidden)" } else { "" };
        write!(f, "{start}{hidden}{shown}{query}")
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = if matches!(self, Self::Base(_)) { "Base" } else { "Exact" };
        write!(f, "{form}({self})")
    }
}

impl<T: Into<String>> From<T> for Endpoint {
    fn from(url: T) -> Self {
        Self::Base(url.into())
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Otlp")
            .field("protocol", &self.protocol)
            .field("endpoints", &self.endpoints)
            .field("headers", &headers)
            .field("compression", &self.compression)
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}

/// A further condition for sending a failed request again.
///
/// It can only forbid: what OTLP does not allow to be repeated never is.
///
/// ```
/// use spanwire::{RetryIf, SendError};
///
/// // A sidecar that is not there will not be there later.
/// let retry_if = RetryIf::new(|error: &SendError| !error.to_string().contains("refused"));
/// ```
#[derive(Clone, Default)]
pub struct RetryIf(Option<Arc<Allowed>>);

type Allowed = dyn Fn(&SendError) -> bool + Send + Sync;

impl RetryIf {
    /// Retries only failures for which `allowed` says so.
    pub fn new(allowed: impl Fn(&SendError) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(allowed)))
    }

    pub(crate) fn allows(&self, error: &SendError) -> bool {
        self.0.as_ref().is_none_or(|allowed| allowed(error))
    }
}

impl fmt::Display for RetryIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a function" } else { "as OTLP has it" })
    }
}

impl fmt::Debug for RetryIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryIf({self})")
    }
}
