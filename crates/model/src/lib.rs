//! What a trace is made of: ids, span contexts, attribute values, spans, resources and scopes.
//!
//! This crate decides what is a valid id, what a limit cuts and which of two attributes with one key
//! stays; [`TraceTree`] shows the result to people. It knows nothing of wires, clocks, threads or
//! where a span goes, and only [`Resource::detect`] looks at the machine.
//!
//! # Guarantees
//!
//! - An id is never zero, and its hex form needs no heap.
//! - Attribute keys are unique where attributes are set: the last one wins, as OTLP demands.
//! - What a limit leaves out is counted.
//! - Static names and keys never allocate; nor do the first eight attributes and four events.
//! - Nothing here panics or recurses deeper than [`Limits::DEPTH_MAX`], whatever a peer sent.
//!
//! # Example
//!
//! ```
//! use spanwire_model::{Limits, Span, SpanContext, SpanId, TraceFlags, TraceId, Value};
//!
//! let trace: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse()?;
//! let id: SpanId = "00f067aa0ba902b7".parse()?;
//! let mut span = Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "GET /users/{id}");
//!
//! let limits = Limits { attributes: 1, attribute_value_length: 5, ..Limits::default() };
//! span.attributes.set_within("http.route", Value::from("/users/{id}"), &limits);
//! span.attributes.set_within("url.path", Value::from("/users/7"), &limits);
//!
//! assert_eq!(span.attributes.get("http.route"), Some(&Value::from("/user")));
//! assert_eq!(span.attributes.dropped(), 1);
//! # Ok::<(), spanwire_model::InvalidId>(())
//! ```
#![forbid(unsafe_code)]

mod attributes;
mod context;
mod detect;
mod id;
mod interner;
mod limits;
mod resource;
mod span;
mod text;
mod tree;
mod value;

pub use attributes::{Attributes, KeyValue};
pub use context::{InvalidTraceState, SpanContext, TraceFlags, TraceState};
pub use detect::{Detected, InvalidResourceAttributes, Surroundings};
pub use id::{InvalidId, SpanId, TraceId};
pub use interner::Interner;
pub use limits::Limits;
pub use resource::{Resource, Scope};
pub use span::{Event, Link, Span, SpanKind, Status, exception};
pub use text::Text;
pub use tree::TraceTree;
pub use value::Value;
