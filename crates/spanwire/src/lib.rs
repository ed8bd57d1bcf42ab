//! OTLP tracing that costs little and loses nothing uncounted.
//!
//! A span is encoded once, on the thread where it ends; from there on only whole chunks of wire
//! bytes move. This crate composes the others: it owns the exporter's thread and decides when what
//! is sent. Its parts can be used on their own: `spanwire-tracer`, `spanwire-batcher`,
//! `spanwire-transport`, `spanwire-codec`, `spanwire-model`, `spanwire-pool`.
//!
//! # Guarantees
//!
//! - Recording a span takes no lock that threads share, makes no system call, and once warm
//!   allocates nothing for a span of up to some 4 KiB. It never blocks, unless [`Overflow::Block`] is chosen. Once in some 150 spans
//!   a full chunk is handed over, and once in some 16 chunks the exporter is woken.
//! - Each span started and sampled is in exactly one place, and [`Client::stats`] says where:
//!   `started = exported + rejected + dropped(reason) + pending`.
//! - Memory for spans is bounded by [`BatchConfig::memory_bytes_max`], whatever the collector does.
//! - Flush and shutdown return by their deadline, from anywhere, and report what was delivered. For
//!   as long as a callback of yours ([`RetryIf`], [`Diagnostics::to`]) blocks the exporter's thread, the
//!   blocking forms return a second after it, and the async ones with it.
//! - The application's runtime is never used, and none is needed.
//!
//! # Example
//!
//! ```no_run
//! use std::time::Duration;
//! use spanwire::{Client, SpanKind};
//!
//! let client = Client::builder().service_name("shop").build()?; // to localhost:4318
//! let tracer = client.tracer("checkout");
//!
//! let mut request = tracer.span("POST /checkout").kind(SpanKind::Server).start();
//! request.set_attribute("http.request.method", "POST");
//! {
//!     let _current = request.enter();
//!     tracer.in_span("charge card", |span| span.set_attribute("payment.amount", 4200));
//! }
//! request.end();
//!
//! println!("{}", client.shutdown_blocking(Duration::from_secs(5)));
//! # Ok::<(), spanwire::BuildError>(())
//! ```
#![forbid(unsafe_code)]

mod builder;
mod client;
mod config;
mod deliver;
mod destination;
mod diagnostics;
mod environment;
mod explain;
mod exporter;
mod item;
mod line;
mod lines;
mod shared;
mod size;
mod stats;
mod waits;
mod way;

pub use builder::Builder;
pub use client::{BuildError, Client, Report};
pub use config::{BatchConfig, Config};
pub use destination::{Destination, Endpoint, Otlp, Output, RetryIf};
pub use diagnostics::{Diagnostic, Diagnostics, Kind, Severity};
pub use explain::{Explanation, Setting, Source, Warning};
pub use spanwire_batcher::{Overflow, Strategy};
pub use spanwire_model::{
    Attributes, Limits, Resource, Scope, SpanContext, SpanId, SpanKind, Status, Text, TraceFlags,
    TraceId, TraceState, Value,
};
pub use spanwire_tracer::{
    Baggage, Context, ContextGuard, InContext, Sampler, Span, SpanBuilder, Tracer, propagation,
    sampler,
};
pub use spanwire_transport::{Compression, Pem, Protocol, Proxy, Retry, RetrySettings, SendError};
pub use stats::{Dropped, Pending, Reason, Stats};
