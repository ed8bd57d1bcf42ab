//! The settings of a server of spans, as the configuration has them and as the receiver takes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spanwire_config::{self as config, ComponentId, Listen, Setting};
use spanwire_receiver::{
    BindError, Budget, Builder, Cors, Pem, Receiver, ServerTls, Sink, TlsVersion,
};

use crate::sockets::Socket;
use crate::start_error::StartError;

/// One of the protocols of a receiver. Each is a server of its own, as each has settings of its own,
/// and a reload that changes one leaves the other alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Server {
    Grpc(config::GrpcServer),
    Http(config::HttpServer),
}

/// The name of a protocol in addresses and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Grpc,
    Http,
}

impl Protocol {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }

    /// Its settings in those of a receiver.
    pub(crate) fn setting(self, id: &ComponentId) -> Setting {
        Setting::component("receivers", id).key("protocols").key(self.as_str())
    }
}

impl Server {
    /// Those that a receiver has.
    pub(crate) fn all(receiver: &config::Receiver) -> impl Iterator<Item = Self> {
        let config::Receiver::Otlp(otlp) = receiver;
        let grpc = otlp.grpc.clone().map(Self::Grpc);
        grpc.into_iter().chain(otlp.http.clone().map(Self::Http))
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Self::Grpc(_) => Protocol::Grpc,
            Self::Http(_) => Protocol::Http,
        }
    }

    pub(crate) fn endpoint(&self) -> &Listen {
        match self {
            Self::Grpc(grpc) => &grpc.endpoint,
            Self::Http(http) => &http.endpoint,
        }
    }

    /// Whether it could serve, as far as that shows without a socket.
    pub(crate) async fn check(
        &self,
        id: &ComponentId,
        budget: Arc<Budget>,
    ) -> Result<(), StartError> {
        let wrong = |source| StartError::Receiver { setting: self.blamed(id, &source), source };
        self.builder(budget).check().await.map_err(wrong)
    }

    fn tls(&self) -> Option<&config::ServerTls> {
        match self {
            Self::Grpc(grpc) => grpc.tls.as_ref(),
            Self::Http(http) => http.tls.as_ref(),
        }
    }

    /// The setting that is the cause of an error.
    fn blamed(&self, id: &ComponentId, error: &BindError) -> Setting {
        let server = self.protocol().setting(id);
        let (BindError::Tls(error), Some(tls)) = (error, self.tls()) else { return server };
        server.key("tls").key(match error.what() {
            "server certificate" if tls.cert_file.is_none() => "cert_pem",
            "server certificate" => "cert_file",
            "server key" if tls.key_file.is_none() => "key_pem",
            "server key" => "key_file",
            _ => "client_ca_file",
        })
    }

    /// Serves on sockets that listen.
    pub(crate) async fn serve(
        &self,
        mut builder: Builder,
        sockets: Vec<Socket>,
        sink: impl Sink,
    ) -> Result<Receiver, BindError> {
        for socket in sockets {
            builder = match (self, socket) {
                (Self::Grpc(_), Socket::Tcp(listener)) => builder.grpc_listener(listener),
                (Self::Grpc(_), Socket::Unix(socket)) => builder.grpc_unix_socket(socket),
                (Self::Http(_), Socket::Tcp(listener)) => builder.http_listener(listener),
                (Self::Http(_), Socket::Unix(socket)) => builder.http_unix_socket(socket),
            };
        }
        builder.bind(sink).await
    }

    /// Its settings, for bytes that are taken from a budget.
    pub(crate) fn builder(&self, budget: Arc<Budget>) -> Builder {
        let memory = budget.bytes_max();
        let builder = request_bytes_max(
            Receiver::builder().budget(budget),
            self.request_bytes_max(memory),
            memory,
        );
        match self {
            Self::Grpc(grpc) => of_grpc(grpc, builder),
            Self::Http(http) => of_http(http, builder),
        }
    }

    /// The largest request: no larger than half of the memory, as it may be there compressed and
    /// decompressed at once.
    pub(crate) fn request_bytes_max(&self, memory: usize) -> usize {
        self.request_bytes_asked().1.min(memory / 2).max(1)
    }

    /// The key of the configuration that asks for it, and what it asks for.
    pub(crate) fn request_bytes_asked(&self) -> (&'static str, usize) {
        match self {
            Self::Grpc(grpc) => ("max_recv_msg_size_mib", grpc.max_recv_msg_size_bytes),
            Self::Http(http) => ("max_request_body_size", http.max_request_body_size),
        }
    }
}

/// What a connection may hold. Queues hold half of the memory and what is on its way a quarter: a
/// sender that is alone shall wait for room in them before it is refused.
pub(crate) fn connection_bytes_max(memory: usize) -> usize {
    memory - memory / 8
}

/// The protocol that is not served has the same limit, and no user of it.
fn request_bytes_max(builder: Builder, bytes: usize, memory: usize) -> Builder {
    let builder = builder.grpc_request_bytes_max(bytes).http_request_bytes_max(bytes);
    builder.connection_bytes_max(connection_bytes_max(memory))
}

fn of_grpc(grpc: &config::GrpcServer, mut builder: Builder) -> Builder {
    if let Some(streams) = grpc.max_concurrent_streams {
        builder = builder.streams_max(streams);
    }
    let keepalive = &grpc.keepalive;
    if let Some(age) = keepalive.max_connection_age {
        let grace = keepalive.max_connection_age_grace.unwrap_or(AGE_GRACE);
        builder = builder.connection_age_max(age, grace);
    }
    if let Some(idle) = keepalive.max_connection_idle {
        builder = builder.idle_max(idle);
    }
    if keepalive.time.is_some() || keepalive.timeout.is_some() {
        let time = keepalive.time.unwrap_or(KEEPALIVE.0);
        builder = builder.keep_alive(time, keepalive.timeout.unwrap_or(KEEPALIVE.1));
    }
    match &grpc.tls {
        Some(tls) => builder.grpc_tls(server_tls(tls)),
        None => builder,
    }
}

fn of_http(http: &config::HttpServer, builder: Builder) -> Builder {
    // Without an end, in the words of the configuration.
    let idle = http.idle_timeout.unwrap_or(Duration::MAX);
    let mut builder = builder.http_traces_path(&http.traces_url_path).idle_max(idle);
    if let Some(cors) = &http.cors {
        builder = builder.cors(Cors {
            allowed_origins: cors.allowed_origins.clone(),
            allowed_headers: cors.allowed_headers.clone(),
            max_age: cors.max_age,
        });
    }
    if let Some(timeout) = http.read_header_timeout.filter(|timeout| !timeout.is_zero()) {
        builder = builder.header_read_timeout(timeout);
    }
    match &http.tls {
        Some(tls) => builder.http_tls(server_tls(tls)),
        None => builder,
    }
}

/// The configuration has exactly one of file and text, of either.
fn server_tls(tls: &config::ServerTls) -> ServerTls {
    let pem = |file: &Option<PathBuf>, text: &Option<config::Secret>| match (file, text) {
        (Some(file), _) => Pem::File(file.clone()),
        (None, text) => {
            Pem::Bytes(text.as_ref().map(|text| text.expose().into()).unwrap_or_default())
        }
    };
    let chain = pem(&tls.cert_file, &tls.cert_pem);
    let mut server = ServerTls::new(chain, pem(&tls.key_file, &tls.key_pem));
    if let Some(ca) = &tls.client_ca_file {
        server = server.client_ca(Pem::File(ca.clone()));
    }
    if let Some(interval) = tls.reload_interval {
        server = server.reload_interval(interval);
    }
    server.min_version(match tls.min_version {
        config::TlsVersion::Tls12 => TlsVersion::V1_2,
        config::TlsVersion::Tls13 => TlsVersion::V1_3,
    })
}

/// What gRPC servers have by default (keepalive `ServerParameters` of grpc-go): two hours and 20 s.
const KEEPALIVE: (Duration, Duration) = (Duration::from_hours(2), Duration::from_secs(20));
const AGE_GRACE: Duration = Duration::from_secs(30);
