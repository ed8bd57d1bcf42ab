//! Requests as they lie in the buffer: borrowed, validated, never materialised.
//!
//! [`Request::parse`] checks everything but the insides of spans, and counts them; [`Span::check`]
//! checks one span. So a malformed span can be refused by itself, as partial success asks, and
//! [`reject_malformed`] does so. Getters read fields where they lie, one scan each; [`Span::head`]
//! reads nine of them in one. Nothing here allocates, except [`reject_malformed`] when it must leave
//! a span out, and nothing recurses.
//!
//! # Guarantees
//!
//! - Fields may come in any order. A scalar that occurs twice has its last value; a message that
//!   occurs in pieces reads as the pieces merged, as protobuf demands and `prost` does it.
//! - Unknown fields of every wire type are skipped at every level, and stay in the raw bytes.
//! - Values nest at most [`NESTING_MAX`] arrays and maps, unknown groups at most 64 groups.
//! - Strings are bytes. A reader that needs UTF-8 repairs them; a forwarder leaves them alone.
//!
//! ```
//! use spanwire_codec::view::{AnyValue, Request};
//!
//! let request = [
//!     0x0A, 47, 0x12, 45, 0x12, 43, // resource_spans, scope_spans, spans
//!     0x0A, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, // trace_id
//!     0x12, 8, 0, 1, 2, 3, 4, 5, 6, 7, // span_id
//!     0x4A, 13, 0x0A, 7, b'a', b't', b't', b'e', b'm', b'p', b't', 0x12, 2, 0x18, 3, // attribute
//! ];
//! let request = Request::parse(&request)?;
//! assert_eq!(request.spans(), 1);
//! for resource_spans in request.resource_spans() {
//!     for scope_spans in resource_spans.scope_spans() {
//!         for span in scope_spans.spans() {
//!             span.check()?;
//!             assert_eq!(span.name(), b"");
//!             let attribute = span.attributes().next().expect("one was sent");
//!             assert_eq!(attribute.key(), b"attempt");
//!             assert!(matches!(attribute.value(), AnyValue::Int(3)));
//!         }
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod check;
mod fields;
mod reject;
mod request;
mod span;
mod value;

pub use check::{Malformed, NESTING_MAX, SpanError};
pub use reject::{Checked, Inspected, inspect, reject_malformed};
pub use request::{EntityRef, Request, Resource, ResourceSpans, Scope, ScopeSpans, framed};
pub use span::{Event, Link, Span, SpanHead, SpanStatus};
pub use value::{AnyValue, ArrayValue, KeyValue, KeyValueList};

pub use crate::wire::Expected;
