//! Spanwire ready to record and send, over each wire that is compared.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use spanwire::{BuildError, Client, Compression, Overflow, Protocol};

use crate::fixtures::SERVICE;
use crate::sink::Sink;

/// How spans travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// gRPC, not compressed.
    Grpc,
    /// HTTP/1.1 with protobuf, not compressed.
    Http,
    /// gRPC with gzip. Spanwire compresses at level 1, `opentelemetry-otlp` at level 6; neither can
    /// be told otherwise, and both use zlib-rs here.
    GrpcGzip,
}

impl Wire {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Grpc, Self::Http, Self::GrpcGzip];

    /// The sink's base URL for it.
    #[must_use]
    pub fn url(self, sink: &Sink) -> String {
        match self {
            Self::Grpc | Self::GrpcGzip => sink.grpc_url(),
            Self::Http => sink.http_url(),
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Grpc => "gRPC",
            Self::Http => "HTTP",
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

/// Spanwire with default settings but for the overflow policy.
///
/// # Errors
///
/// As [`Client::new`].
pub fn spanwire(wire: Wire, url: String, overflow: Overflow) -> Result<Client, BuildError> {
    let (protocol, compression) = match wire {
        Wire::Grpc => (Protocol::Grpc, Compression::None),
        Wire::Http => (Protocol::HttpProtobuf, Compression::None),
        Wire::GrpcGzip => (Protocol::Grpc, Compression::Gzip),
    };
    // `opentelemetry-otlp` detects nothing here either.
    let builder = Client::builder().service_name(SERVICE).detect_resource(false);
    builder.endpoint(url).protocol(protocol).compression(compression).overflow(overflow).build()
}

/// Longer than any export here takes.
pub const PATIENCE: Duration = Duration::from_secs(120);
