//! Reads configurations of the OpenTelemetry Collector, for traces, into typed settings.
//!
//! A configuration written for the Go Collector either means the same here or is refused by name,
//! with the line, a mark below it and what to do. This crate reads the files it is given and
//! nothing else: it asks its caller for environment variables, opens no socket, starts nothing, and
//! looks neither into certificates nor into regular expressions.
//!
//! # Guarantees
//!
//! - All that is wrong is found at once, each with file, line and column.
//! - A key that has no effect is listed in [`Config::notes`]; any other key of the Go Collector is
//!   an error, or a warning with [`Compat::Warn`], and one that is unknown is an error. None is
//!   passed over.
//! - What a [`Config`] holds is complete and fits together: whoever runs it need not check
//!   references, ranges or addresses again. The types tell what holds after loading. What is found
//!   wrong later, such as a certificate, is shown in the same way by [`Places`].
//! - A value from the environment is one value. It is neither read as YAML structure nor expanded
//!   again, and no message quotes it.
//! - Secrets show as `[REDACTED]` in every rendering of the settings; see [`Secret`].
//! - Text, nesting, the number of values (copies by aliases included) and the report are bounded.
//!
//! # Example
//!
//! ```
//! use spanwire_config::{ComponentId, Compat, Config, Exporter, Source, print};
//!
//! let yaml = "
//! receivers:
//!   otlp:
//!     protocols:
//!       grpc:
//! exporters:
//!   otlp/backend:
//!     endpoint: ${env:BACKEND}
//!     headers: {authorization: 'Bearer ${env:TOKEN}'}
//! service:
//!   pipelines:
//!     traces:
//!       receivers: [otlp]
//!       exporters: [otlp/backend]
//! ";
//! let environment = |name: &str| match name {
//!     "BACKEND" => Some("tempo:4317".to_owned()),
//!     "TOKEN" => Some("abc".to_owned()),
//!     _ => None,
//! };
//! let sources = [Source::Yaml(yaml.to_owned())];
//! let loaded = Config::load(&sources, &[], &environment, Compat::Strict)?;
//!
//! let backend: ComponentId = "otlp/backend".parse()?;
//! let Exporter::OtlpGrpc(exporter) = &loaded.config.exporters[&backend] else { unreachable!() };
//! assert_eq!(exporter.endpoint, "tempo:4317");
//! assert_eq!(exporter.headers["authorization"].expose(), "Bearer abc");
//! assert!(!print(&loaded.config).contains("abc"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod components;
mod config;
mod duration;
mod emit;
mod expand;
mod exporter;
mod extension;
mod headers;
mod id;
mod load;
mod merge;
mod net;
mod otlp_exporter;
mod places;
mod print;
mod processor;
mod queue;
mod receiver;
mod redact;
mod report;
mod secret;
mod section;
mod service;
mod source;
mod tree;
mod yaml;

pub use components::{Component, Stability, components};
pub use config::Config;
pub use exporter::{Debug, Exporter, File, FileFormat, Rotation, Verbosity};
pub use extension::{Extension, HealthCheck, Zpages};
pub use id::{ComponentId, InvalidId};
pub use load::{Compat, Environment, Loaded};
pub use net::{ClientTls, Listen, ServerTls, TlsVersion};
pub use otlp_exporter::{ClientKeepalive, Compression, Encoding, OtlpExporter};
pub use places::{Places, Setting};
pub use print::print;
pub use processor::{
    Action, ActionKind, Batch, ConvertedType, MemoryLimiter, Mode, ProbabilisticSampler, Processor,
    Value,
};
pub use queue::{Queue, QueueBatch, Retry, Sizer};
pub use receiver::{Cors, GrpcServer, HttpServer, Keepalive, OtlpReceiver, Receiver};
pub use report::{Diagnostic, Location, Report, Severity};
pub use secret::Secret;
pub use service::{
    Level, LogEncoding, Logs, MetricNames, Metrics, MetricsLevel, Pipeline, Service, Telemetry,
};
pub use source::{Source, UnsupportedSource};
