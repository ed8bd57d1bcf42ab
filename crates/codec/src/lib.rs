//! The OTLP trace wire format, both ways.
//!
//! Protobuf `repeated` fields concatenate: an encoded span can be appended to any `ScopeSpans`, and
//! two encoded requests joined are a request. So a span is encoded once, by [`encode`], and from
//! there on only its bytes move. [`view`] reads requests where they lie, [`edit`] changes them there,
//! [`split`] cuts them at span boundaries, [`json`] is the other encoding OTLP has. [`decode`] and
//! [`message`] build structs, for tools and for the small messages around a request.
//!
//! This crate does no I/O, keeps no state and decides nothing about delivery. It does not
//! compress, and it never looks into a span it only passes on.
//!
//! # Guarantees
//!
//! - No input panics, overflows the stack or makes it allocate by a length that was only declared.
//! - What is read here is what `prost` reads, whatever the order, repetition or splitting of fields.
//! - A malformed span costs itself, never its neighbours; unknown fields stay where bytes pass.
//! - Reading and checking a request allocates nothing.
//! - Time is linear in the input: nothing that a peer sent is hashed, or compared with its neighbours.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use spanwire_codec::view::{SpanError, reject_malformed};
//!
//! let request = Bytes::from_static(&[
//!     0x0A, 36, 0x12, 34, // resource_spans, scope_spans
//!     0x12, 2, 0x30, 1, // a span without ids
//!     0x12, 28, // a span
//!     0x0A, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, // its trace_id
//!     0x12, 8, 0, 1, 2, 3, 4, 5, 6, 7, // its span_id
//! ]);
//! let checked = reject_malformed(request.clone())?;
//! assert_eq!((checked.spans, checked.rejected), (1, 1));
//! assert_eq!(checked.reason, Some(SpanError::TraceId { len: 0 }));
//! assert_eq!(checked.request[4..], request[8..], "the other span is as it came");
//! # Ok::<(), spanwire_codec::view::Malformed>(())
//! ```

pub mod decode;
pub mod edit;
pub mod encode;
mod field;
pub mod json;
pub mod message;
pub mod split;
pub mod view;
mod wire;
mod work;
