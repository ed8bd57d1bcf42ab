//! The clients under test, ready to record and send.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry_otlp::{
    Compression as OtlpCompression, SpanExporter, WithExportConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfig, BatchSpanProcessor, SdkTracerProvider};
use spanwire::{BuildError, Client, Compression, Overflow, Protocol};
use tokio::runtime::{self, Runtime};

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

/// `opentelemetry_sdk` with its stock batch processor and `opentelemetry-otlp`.
#[derive(Debug)]
pub struct OpenTelemetry {
    /// Where tracers come from.
    pub provider: SdkTracerProvider,
    /// Where tonic's connection lives. One worker is enough for one connection.
    _runtime: Runtime,
}

impl OpenTelemetry {
    /// A provider that sends to this base URL.
    ///
    /// # Errors
    ///
    /// What the exporter or the runtime cannot be built for.
    pub fn new(wire: Wire, url: String, batch: BatchConfig) -> Result<Self, Box<dyn Error>> {
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let _entered = runtime.enter();
        let builder = SpanExporter::builder();
        let exporter = match wire {
            Wire::Grpc => builder.with_tonic().with_endpoint(url).build()?,
            Wire::GrpcGzip => {
                let builder = builder.with_tonic().with_compression(OtlpCompression::Gzip);
                builder.with_endpoint(url).build()?
            }
            Wire::Http => builder.with_http().with_endpoint(url + "/v1/traces").build()?,
        };
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch).build();
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder_empty().with_service_name(SERVICE).build())
            .with_span_processor(processor)
            .build();
        drop(_entered);
        Ok(Self { provider, _runtime: runtime })
    }
}

/// Longer than any export here takes.
pub const PATIENCE: Duration = Duration::from_secs(120);
