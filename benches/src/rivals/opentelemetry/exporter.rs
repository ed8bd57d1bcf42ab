//! `opentelemetry_sdk` ready to record and send.

use std::error::Error;

use opentelemetry_otlp::{
    Compression as OtlpCompression, Protocol, SpanExporter, WithExportConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfig, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tokio::runtime::{self, Runtime};

use crate::exporters::Wire;
use crate::fixtures::SERVICE;
use crate::process;

/// `opentelemetry_sdk` with its stock batch processor and `opentelemetry-otlp`.
#[derive(Debug)]
pub struct OpenTelemetry {
    /// Where tracers come from.
    pub provider: SdkTracerProvider,
    /// Where tonic's connection lives. One worker is enough for one connection.
    _runtime: Runtime,
}

impl OpenTelemetry {
    /// A provider that sends every trace to this base URL.
    ///
    /// # Errors
    ///
    /// What the exporter or the runtime cannot be built for, or a variable of the environment from
    /// which the rival would take settings that no table shows.
    pub fn new(wire: Wire, url: String, batch: BatchConfig) -> Result<Self, Box<dyn Error>> {
        Self::sampling(wire, url, batch, Sampler::AlwaysOn)
    }

    /// The same for those traces that this sampler keeps.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn sampling(
        wire: Wire,
        url: String,
        batch: BatchConfig,
        roots: Sampler,
    ) -> Result<Self, Box<dyn Error>> {
        if let Some(name) = process::otel_variables().next() {
            return Err(
                format!("{} is set: the rival would be configured by it", name.display()).into()
            );
        }
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let _entered = runtime.enter();
        let builder = SpanExporter::builder();
        let http = |protocol, url: String| {
            let builder = SpanExporter::builder().with_http().with_protocol(protocol);
            builder.with_endpoint(url + "/v1/traces").build()
        };
        let exporter = match wire {
            Wire::Grpc => builder.with_tonic().with_endpoint(url).build()?,
            Wire::GrpcGzip => {
                let builder = builder.with_tonic().with_compression(OtlpCompression::Gzip);
                builder.with_endpoint(url).build()?
            }
            Wire::Http => http(Protocol::HttpBinary, url)?,
            Wire::HttpJson => http(Protocol::HttpJson, url)?,
        };
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch).build();
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder_empty().with_service_name(SERVICE).build())
            .with_sampler(Sampler::ParentBased(Box::new(roots)))
            .with_span_processor(processor)
            .build();
        drop(_entered);
        Ok(Self { provider, _runtime: runtime })
    }
}
