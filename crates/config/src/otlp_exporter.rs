use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::headers;
use crate::net::{Asked, ClientTls, check_host_port, host_port};
use crate::queue::{Queue, Retry};
use crate::secret::Secret;
use crate::section::Section;
use crate::tree::Place;

/// The exporters `otlp` (gRPC) and `otlphttp`: `exporter/otlpexporter/README.md` and
/// `exporter/otlphttpexporter/README.md` of the Go Collector.
///
/// [`Default`] is what gRPC has; [`http`](Self::http) is the other.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpExporter {
    /// Where to send, as it was written, and without credentials. gRPC: `host:port`, perhaps after
    /// `https://`, `http://` (which does not make it plain text), `dns:///` or `dns:`, or `unix://` and
    /// a path. HTTP: a URL to which `/v1/traces` is added; empty if there is only a `traces_endpoint`.
    pub endpoint: String,
    /// HTTP: the whole URL for traces, which wins over `endpoint`.
    pub traces_endpoint: Option<String>,
    /// How connections are secured.
    pub tls: ClientTls,
    /// Sent with each request. Names are as written; values are secrets.
    pub headers: BTreeMap<String, Secret>,
    /// How bodies are compressed; [`Compression::Gzip`] by default.
    pub compression: Compression,
    /// How long one attempt may take; 5 s by default, and 30 s for HTTP. Without end if zero.
    pub timeout: Duration,
    /// What becomes of requests that failed and may succeed later.
    pub retry_on_failure: Retry,
    /// Where requests wait.
    pub sending_queue: Queue,
    /// HTTP: how bodies are encoded.
    pub encoding: Encoding,
    /// gRPC: when connections are pinged. If `None`, after 30 s without a byte while an answer is
    /// outstanding; the Go Collector does not ping then.
    pub keepalive: Option<ClientKeepalive>,
}

/// How an [`OtlpExporter`] compresses bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// As encoded. Written as `none`, or as an empty text.
    None,
    /// RFC 1952.
    #[default]
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

const COMPRESSIONS: [(&str, Compression); 4] = [
    ("", Compression::None),
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("zstd", Compression::Zstd),
];

/// The form of bodies (OTLP 1.11.0, "OTLP/HTTP Request").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Binary protobuf.
    #[default]
    Proto,
    /// Protobuf in JSON.
    Json,
}

/// When a gRPC client pings (`config/configgrpc/README.md` of the Go Collector).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientKeepalive {
    /// After this much silence; never if zero, and not more often than every 10 s.
    pub time: Duration,
    /// How long the answer is waited for; 20 s if zero.
    pub timeout: Duration,
}

impl Default for OtlpExporter {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            traces_endpoint: None,
            tls: ClientTls::default(),
            headers: BTreeMap::new(),
            compression: Compression::Gzip,
            timeout: Duration::from_secs(5),
            retry_on_failure: Retry::default(),
            sending_queue: Queue::default(),
            encoding: Encoding::Proto,
            keepalive: None,
        }
    }
}

impl OtlpExporter {
    /// What HTTP has by default: the same but for a `timeout` of 30 s.
    #[must_use]
    pub fn http() -> Self {
        Self { timeout: Duration::from_secs(30), ..Self::default() }
    }

    pub(crate) fn read_grpc(section: Section<'_>) -> Self {
        section.unsupported(&[
            "authority",
            "auth",
            "middlewares",
            "batcher",
            "connection_pool",
            "dialer",
            "user_agent",
        ]);
        section.without_effect(&[
            ("read_buffer_size", BUFFERS),
            ("write_buffer_size", BUFFERS),
            ("wait_for_ready", "requests wait in the queue"),
        ]);
        let mut exporter = Self::default();
        if let Some(endpoint) = endpoint(&section, "endpoint") {
            check_grpc_endpoint(&section, &endpoint);
            exporter.endpoint = endpoint;
        }
        let asked = match &exporter.endpoint {
            url if url.starts_with("https://") => Asked::Tls,
            path if path.starts_with("unix:") => Asked::PlainText,
            _ => Asked::Nothing,
        };
        exporter.read_common(&section, asked);
        if exporter.endpoint.starts_with("http://") && asked.is_tls(&exporter.tls) {
            section.findings.warning(
                section.place_of("endpoint"),
                format!("{} says http://, and TLS is spoken", section.path_of("endpoint")),
                "gRPC is in plain text by tls: {insecure: true} only; write host:port without a scheme",
            );
        }
        if let Some(one) = section.choice_beside("compression", &COMPRESSIONS, &["snappy"]) {
            exporter.compression = one;
        }
        exporter.keepalive = section.section_if_set("keepalive").map(ClientKeepalive::read);
        let in_turn =
            section.choice("balancer_name", &[("round_robin", true), ("pick_first", false)]);
        // The other one is what is done.
        if in_turn == Some(true) {
            section.no_effect("balancer_name", BALANCER);
        }
        section.finish();
        exporter
    }

    pub(crate) fn read_http(section: Section<'_>) -> Self {
        section.unsupported(&[
            "proxy_url",
            "auth",
            "middlewares",
            "disable_keep_alives",
            "batcher",
            "user_agent",
        ]);
        if let Some(cookies) = section.section("cookies") {
            cookies.unsupported(&["enabled"]);
            cookies.finish();
        }
        const CONNECTIONS: &str = "there are as many connections as requests under way need";
        const TRACES: &str = "only traces are sent";
        section.without_effect(&[
            ("read_buffer_size", BUFFERS),
            ("write_buffer_size", BUFFERS),
            ("max_idle_conns", CONNECTIONS),
            ("max_idle_conns_per_host", CONNECTIONS),
            ("max_conns_per_host", CONNECTIONS),
            ("idle_conn_timeout", CONNECTIONS),
            ("http2_read_idle_timeout", "an attempt ends by its timeout"),
            ("http2_ping_timeout", "an attempt ends by its timeout"),
            ("force_attempt_http2", "the version is agreed upon with the server"),
            ("compression_params", "each compression has the level that pays for spans"),
            ("metrics_endpoint", TRACES),
            ("logs_endpoint", TRACES),
            ("profiles_endpoint", TRACES),
        ]);
        let mut exporter = Self::http();
        exporter.traces_endpoint = section.string("traces_endpoint").filter(|url| !url.is_empty());
        if let Some(url) = &exporter.traces_endpoint {
            check_url(&section, "traces_endpoint", url);
        }
        let needed = exporter.traces_endpoint.is_none() || section.has("endpoint");
        if needed && let Some(url) = endpoint(&section, "endpoint") {
            check_url(&section, "endpoint", &url);
            exporter.endpoint = url;
        }
        let url = exporter.traces_endpoint.as_ref().unwrap_or(&exporter.endpoint);
        let asked = if url.starts_with("https://") { Asked::Tls } else { Asked::PlainText };
        exporter.read_common(&section, asked);
        let others = ["snappy", "x-snappy-framed", "zlib", "deflate", "lz4"];
        if let Some(one) = section.choice_beside("compression", &COMPRESSIONS, &others) {
            exporter.compression = one;
        }
        let encodings = [("proto", Encoding::Proto), ("json", Encoding::Json)];
        exporter.encoding = section.choice("encoding", &encodings).unwrap_or_default();
        section.finish();
        exporter
    }

    fn read_common(&mut self, section: &Section<'_>, asked: Asked) {
        if let Some(tls) = section.section("tls") {
            self.tls = ClientTls::read(tls, asked);
        }
        self.headers =
            section.raw("headers").map(|node| headers::read(section, node)).unwrap_or_default();
        if let Some(timeout) = section.duration("timeout") {
            self.timeout = timeout;
        }
        if let Some(retry) = section.section("retry_on_failure") {
            self.retry_on_failure = Retry::read(retry);
        }
        if let Some(queue) = section.section("sending_queue") {
            self.sending_queue = Queue::read(queue);
        }
    }
}

const BUFFERS: &str = "buffers follow what is in flight";
const BALANCER: &str =
    "one connection serves until it fails, and the next address of the name takes its place then";
const IDLE: &str = "an idle connection is watched by TCP, and is not pinged";

fn endpoint(section: &Section<'_>, key: &'static str) -> Option<String> {
    let endpoint = section.string(key).filter(|endpoint| !endpoint.is_empty());
    if endpoint.is_none() {
        let message = format!("{} has no {key}", section.path);
        // One of another type has been reported.
        if !section.has(key) || section.says_nothing(key) {
            section.findings.error(section.place, message);
        }
    }
    endpoint
}

fn check_grpc_endpoint(section: &Section<'_>, endpoint: &str) {
    if endpoint.starts_with("unix:") || holds_credentials(section, "endpoint", endpoint) {
        return;
    }
    let schemes = ["http://", "https://", "dns:///", "dns:"];
    let address = schemes.iter().find_map(|scheme| endpoint.strip_prefix(scheme));
    let address = address.unwrap_or(endpoint);
    let address = match address.strip_prefix("//").and_then(|rest| rest.split_once('/')) {
        Some((_resolver, address)) => {
            section.findings.unsupported(
                section.place_of("endpoint"),
                format!("{} names a resolver, which is not supported", section.path_of("endpoint")),
                Some("write dns:///host:port; the system's resolver is asked".into()),
            );
            address
        }
        None => address,
    };
    check_host_port(section, "endpoint", address.trim_end_matches('/'));
}

/// Reports a user name or a password, which every log and every printed configuration would show.
fn holds_credentials(section: &Section<'_>, key: &str, url: &str) -> bool {
    let place = section.place_of(key);
    let (holds, place) = match url.split_once("://") {
        Some((scheme, rest)) => {
            // gRPC has a resolver before the third slash, and mostly none.
            let rest = rest.trim_start_matches('/');
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            // A password may have a slash in it, and a path an @.
            let is_host = !authority.contains(':')
                || authority.starts_with('[')
                || host_port(authority).is_ok();
            let has_path = is_host && scheme != "dns";
            (authority.contains('@') || !has_path && rest.contains('@'), place)
        }
        // A line shows who comes before the host of a URL as [REDACTED], but this is none.
        None => (url.contains('@'), Place { width: 0, ..place }),
    };
    if holds {
        let message = format!("{} holds credentials", section.path_of(key));
        let help = "put them into headers:, as authorization";
        section.findings.error_with_help(place, message, help);
    }
    holds
}

fn check_url(section: &Section<'_>, key: &str, url: &str) {
    if holds_credentials(section, key, url) {
        return;
    }
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    if host.is_some_and(|host| !host.is_empty() && !host.starts_with(':')) {
        return;
    }
    let message = format!("{} is not a URL: {}", section.path_of(key), section.shown_url(key));
    let help = match rest {
        None => "write it with its scheme, such as http://localhost:4318",
        Some(_) => "it has no host; such as http://localhost:4318",
    };
    section.findings.error_with_help(section.place_of(key), message, help);
}

impl ClientKeepalive {
    fn read(section: Section<'_>) -> Self {
        let keepalive = Self {
            time: section.duration("time").unwrap_or_default(),
            timeout: section.duration("timeout").unwrap_or_default(),
        };
        if section.boolean("permit_without_stream") == Some(true) {
            section.no_effect("permit_without_stream", IDLE);
        }
        section.finish();
        keepalive
    }
}
