use std::time::Duration;

use crate::net::{Listen, ServerTls};
use crate::section::Section;

/// What spans come in by.
#[derive(Clone, Debug, PartialEq)]
pub enum Receiver {
    /// `otlp`: the protocol of OpenTelemetry.
    Otlp(OtlpReceiver),
}

/// The `otlp` receiver (`receiver/otlpreceiver/README.md` of the Go Collector).
///
/// At least one of the two is set after loading.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpReceiver {
    /// OTLP/gRPC, if it is served.
    pub grpc: Option<GrpcServer>,
    /// OTLP/HTTP, if it is served.
    pub http: Option<HttpServer>,
}

impl Default for OtlpReceiver {
    /// Both protocols on their default ports.
    fn default() -> Self {
        Self { grpc: Some(GrpcServer::default()), http: Some(HttpServer::default()) }
    }
}

/// A server of OTLP/gRPC (`config/configgrpc/README.md` of the Go Collector).
///
/// `read_buffer_size`, `write_buffer_size`, `include_metadata` and
/// `keepalive::enforcement_policy` are taken and have no effect; see
/// [`Config::notes`](crate::Config::notes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcServer {
    /// Where it listens; `localhost:4317` by default.
    pub endpoint: Listen,
    /// The largest message, uncompressed; 4 MiB by default. Written as `max_recv_msg_size_mib`.
    pub max_recv_msg_size_bytes: usize,
    /// Requests in flight on one connection; the server's own choice if `None`.
    pub max_concurrent_streams: Option<u32>,
    /// What becomes of connections. Written as `keepalive::server_parameters`.
    pub keepalive: Keepalive,
    /// Plain text if `None`.
    pub tls: Option<ServerTls>,
}

impl Default for GrpcServer {
    fn default() -> Self {
        Self {
            endpoint: Listen::Tcp(GRPC_ENDPOINT.into()),
            max_recv_msg_size_bytes: 4 << 20,
            max_concurrent_streams: None,
            keepalive: Keepalive::default(),
            tls: None,
        }
    }
}

const GRPC_ENDPOINT: &str = "localhost:4317";
const HTTP_ENDPOINT: &str = "localhost:4318";

/// When a gRPC server pings and closes connections. `None` is gRPC's default: connections live as
/// long as they like, with a ping after 2 h of silence that is waited for 20 s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// A connection without requests for this long is closed.
    pub max_connection_idle: Option<Duration>,
    /// A connection older than this is closed, give or take a tenth.
    pub max_connection_age: Option<Duration>,
    /// How long requests may go on after that; without end if `None`.
    pub max_connection_age_grace: Option<Duration>,
    /// A client that is silent for this long is pinged.
    pub time: Option<Duration>,
    /// How long the answer to a ping is waited for.
    pub timeout: Option<Duration>,
}

/// A server of OTLP/HTTP (`config/confighttp/README.md` of the Go Collector).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpServer {
    /// Where it listens; `localhost:4318` by default.
    pub endpoint: Listen,
    /// The largest body in bytes, uncompressed; 20 MiB by default.
    pub max_request_body_size: usize,
    /// Which web pages may send; none if `None`.
    pub cors: Option<Cors>,
    /// Plain text if `None`.
    pub tls: Option<ServerTls>,
    /// How long the headers of a request may take; 1 min by default, the server's own choice if
    /// `None`, as no request may take without end.
    pub read_header_timeout: Option<Duration>,
    /// How long a connection may wait for its next request; 1 min by default, without end if
    /// `None`.
    pub idle_timeout: Option<Duration>,
    /// The path that takes traces; `/v1/traces` by default.
    pub traces_url_path: String,
}

impl Default for HttpServer {
    fn default() -> Self {
        Self {
            endpoint: Listen::Tcp(HTTP_ENDPOINT.into()),
            max_request_body_size: 20 << 20,
            cors: None,
            tls: None,
            read_header_timeout: Some(Duration::from_secs(60)),
            idle_timeout: Some(Duration::from_secs(60)),
            traces_url_path: "/v1/traces".into(),
        }
    }
}

/// Cross-origin requests (Fetch standard; `config/confighttp/README.md` of the Go Collector).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins that may send, each with at most one `*` for any characters.
    pub allowed_origins: Vec<String>,
    /// Request headers they may use beside the ones that are always allowed; `*` for any.
    pub allowed_headers: Vec<String>,
    /// How long a browser may keep the answer, in whole seconds; the browser's default if `None`.
    pub max_age: Option<Duration>,
}

impl OtlpReceiver {
    pub(crate) fn read(section: Section<'_>) -> Self {
        let mut receiver = Self { grpc: None, http: None };
        if let Some(protocols) = section.section("protocols") {
            receiver.grpc = protocols.section("grpc").map(GrpcServer::read);
            receiver.http = protocols.section("http").map(HttpServer::read);
            // A protocol that is there but wrong has been reported.
            let none = protocols.is_empty();
            let (path, place) = (protocols.path.clone(), protocols.place);
            protocols.finish();
            if none {
                no_protocol(&section, &path, place);
            }
        } else if !section.has("protocols") {
            no_protocol(&section, &section.path, section.place);
        }
        section.finish();
        receiver
    }
}

fn no_protocol(section: &Section<'_>, path: &str, place: crate::tree::Place) {
    section.findings.error_with_help(
        place,
        format!("{path} has no protocol"),
        "give the receiver protocols: with grpc: or http: in it, or both",
    );
}

impl GrpcServer {
    fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        section.refused("auth", AUTH);
        section.unsupported(&["middlewares"]);
        section.without_effect(&[
            ("read_buffer_size", BUFFERS),
            ("write_buffer_size", BUFFERS),
            ("include_metadata", METADATA),
            ("dialer", "a server does not dial"),
        ]);
        let mib = section.number("max_recv_msg_size_mib", 0..=2047).filter(|mib| *mib > 0);
        let streams = section.number("max_concurrent_streams", 0..=u64::from(u32::MAX));
        let server = Self {
            endpoint: Listen::read(&section, GRPC_ENDPOINT),
            max_recv_msg_size_bytes: mib
                .and_then(|mib| usize::try_from(mib << 20).ok())
                .unwrap_or(default.max_recv_msg_size_bytes),
            max_concurrent_streams: streams
                .and_then(|streams| u32::try_from(streams).ok())
                .filter(|streams| *streams > 0),
            keepalive: section.section("keepalive").map(Keepalive::read).unwrap_or_default(),
            tls: section.section_if_set("tls").map(ServerTls::read),
        };
        section.finish();
        server
    }
}

/// Left out, it would let everybody in.
const AUTH: &str = "require client certificates instead, by tls::client_ca_file";
const BUFFERS: &str = "buffers follow what is in flight";
const METADATA: &str = "no processor or exporter here uses the client's metadata";

impl Keepalive {
    fn read(section: Section<'_>) -> Self {
        let mut keepalive = Self::default();
        if let Some(parameters) = section.section("server_parameters") {
            let duration = |key| parameters.duration(key).filter(|duration| !duration.is_zero());
            keepalive = Self {
                max_connection_idle: duration("max_connection_idle"),
                max_connection_age: duration("max_connection_age"),
                max_connection_age_grace: duration("max_connection_age_grace"),
                time: duration("time"),
                timeout: duration("timeout"),
            };
            parameters.finish();
        }
        section.without_effect(&[("enforcement_policy", "clients may ping as they like")]);
        section.finish();
        keepalive
    }
}

impl HttpServer {
    fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        section.refused("auth", AUTH);
        section.unsupported(&[
            "middlewares",
            "response_headers",
            "compression_algorithms",
            "include_tls_metadata",
        ]);
        section.without_effect(&[
            ("include_metadata", METADATA),
            ("keep_alives_enabled", "clients decide whether they keep their connection"),
            ("read_timeout", "a body that does not arrive is given up by its own limits"),
            ("write_timeout", "an answer that is not read is given up by its own limits"),
            ("metrics_url_path", "only traces are received"),
            ("logs_url_path", "only traces are received"),
            ("profiles_url_path", "only traces are received"),
        ]);
        let timeout = |key, default| match section.duration(key) {
            Some(timeout) => Some(timeout).filter(|timeout| !timeout.is_zero()),
            None => default,
        };
        let server = Self {
            endpoint: Listen::read(&section, HTTP_ENDPOINT),
            max_request_body_size: section
                .size("max_request_body_size", 0)
                .filter(|size| *size > 0)
                .unwrap_or(default.max_request_body_size),
            cors: section.section_if_set("cors").map(Cors::read),
            tls: section.section_if_set("tls").map(ServerTls::read),
            read_header_timeout: timeout("read_header_timeout", default.read_header_timeout),
            idle_timeout: timeout("idle_timeout", default.idle_timeout),
            traces_url_path: traces_url_path(&section).unwrap_or(default.traces_url_path),
        };
        section.finish();
        server
    }
}

fn traces_url_path(section: &Section<'_>) -> Option<String> {
    let path = section.string("traces_url_path")?;
    let clean = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#');
    if path.is_empty() || !clean {
        let key = "traces_url_path";
        let message = format!("{} is not a path: {}", section.path_of(key), section.shown(key));
        section.error(key, message);
        return None;
    }
    Some(if path.starts_with('/') { path } else { format!("/{path}") })
}

impl Cors {
    fn read(section: Section<'_>) -> Self {
        section.unsupported(&["exposed_headers"]);
        let cors = Self {
            allowed_origins: section.strings("allowed_origins").unwrap_or_default(),
            allowed_headers: section.strings("allowed_headers").unwrap_or_default(),
            max_age: section
                .number("max_age", 0..=u64::from(u32::MAX))
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
        };
        if cors.allowed_origins.iter().any(|origin| origin.matches('*').count() > 1) {
            let message =
                format!("{} has more than one * in it", section.path_of("allowed_origins"));
            section.error("allowed_origins", message);
        }
        if cors.allowed_origins.is_empty() && !cors.allowed_headers.is_empty() {
            section.findings.warning(
                section.place,
                format!("{} allows headers but no origin, so it allows nothing", section.path),
                "list the origins in allowed_origins",
            );
        }
        section.finish();
        cors
    }
}
