//! Spanwire ready to record and send, over each wire that is compared.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use spanwire::{Builder, Client, Compression, Protocol};

use crate::fixtures::SERVICE;
use crate::sink::Sink;

/// How spans travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// gRPC, not compressed.
    Grpc,
    /// HTTP/1.1 with protobuf, not compressed.
    Http,
    /// HTTP/1.1 with JSON, not compressed. `opentelemetry-otlp` indents its JSON and cannot be told
    /// otherwise.
    HttpJson,
    /// gRPC with gzip. Spanwire compresses at level 1, `opentelemetry-otlp` at level 6; neither can
    /// be told otherwise, and both use zlib-rs here.
    GrpcGzip,
}

impl Wire {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Grpc, Self::Http, Self::HttpJson, Self::GrpcGzip];

    /// The sink's base URL for it.
    #[must_use]
    pub fn url(self, sink: &Sink) -> String {
        match self {
            Self::Grpc | Self::GrpcGzip => sink.grpc_url(),
            Self::Http | Self::HttpJson => sink.http_url(),
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Grpc => "gRPC",
            Self::Http => "HTTP",
            Self::HttpJson => "HTTP/JSON",
            Self::GrpcGzip => "gRPC+gzip",
        })
    }
}

impl FromStr for Wire {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let wire = Self::ALL.into_iter().find(|wire| wire.to_string() == name);
        wire.ok_or_else(|| format!("no wire is called {name}"))
    }
}

/// Spanwire with default settings but for the wire.
pub fn spanwire(wire: Wire, url: String) -> Builder {
    let (protocol, compression) = match wire {
        Wire::Grpc => (Protocol::Grpc, Compression::None),
        Wire::Http => (Protocol::HttpProtobuf, Compression::None),
        Wire::HttpJson => (Protocol::HttpJson, Compression::None),
        Wire::GrpcGzip => (Protocol::Grpc, Compression::Gzip),
    };
    // `opentelemetry-otlp` detects nothing here either, and has no settings from the environment.
    let builder = Client::builder().environment(false).detect_resource(false).service_name(SERVICE);
    builder.endpoint(url).protocol(protocol).compression(compression)
}

/// Sends everything recorded so far.
///
/// # Panics
///
/// When not every span was accepted: the figure would be that of another amount of work.
pub fn flush(client: &Client) {
    let report = client.flush_blocking(PATIENCE);
    let lost = report.rejected + report.dropped + report.pending;
    assert!(report.complete && lost == 0, "{report}");
}

/// Longer than any export here takes.
pub const PATIENCE: Duration = Duration::from_secs(120);
