//! `opentelemetry_sdk`, by itself and with `opentelemetry-otlp`.

mod exporter;
mod mix;
mod requests;

use std::hint::black_box;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    self as sdk, SdkTracerProvider, SpanData, SpanExporter, SpanProcessor,
};

pub use self::exporter::OpenTelemetry;
#[cfg(test)]
pub(crate) use self::keep::Keep;
pub use self::mix::AttributesGiven;
pub use self::requests::resource;

/// A provider with this processor.
#[must_use]
pub fn opentelemetry(
    sampler: sdk::Sampler,
    processor: impl SpanProcessor + 'static,
) -> SdkTracerProvider {
    SdkTracerProvider::builder().with_sampler(sampler).with_span_processor(processor).build()
}

/// The SDK's default, which keeps each trace that begins here.
#[must_use]
pub fn default_sampler() -> sdk::Sampler {
    sdk::Sampler::ParentBased(Box::new(sdk::Sampler::AlwaysOn))
}

/// Drops each span: as a processor where it ends, as an exporter on the batch processor's thread.
#[derive(Debug)]
pub struct Discard;

impl SpanExporter for Discard {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        drop(black_box(batch));
        Ok(())
    }
}

impl SpanProcessor for Discard {
    fn on_start(&self, _span: &mut sdk::Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        drop(black_box(span));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod keep {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Keeps each span for a test to look at.
    #[derive(Debug)]
    pub(crate) struct Keep(Sender<SpanData>);

    impl Keep {
        pub(crate) fn new() -> (Self, Receiver<SpanData>) {
            let (sender, spans) = channel();
            (Self(sender), spans)
        }
    }

    impl SpanProcessor for Keep {
        fn on_start(&self, _span: &mut sdk::Span, _context: &Context) {}

        fn on_end(&self, span: SpanData) {
            self.0.send(span).expect("the test still looks");
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
            Ok(())
        }
    }
}
