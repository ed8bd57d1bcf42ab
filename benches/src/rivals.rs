//! The other tracing clients: tracers whose finished spans go nowhere, and those that send them.

mod fastrace;
mod opentelemetry;

pub use self::fastrace::start_fastrace;
#[cfg(test)]
pub(crate) use self::opentelemetry::Keep;
pub use self::opentelemetry::{
    AttributesGiven, Discard, OpenTelemetry, default_sampler, opentelemetry, resource,
};
