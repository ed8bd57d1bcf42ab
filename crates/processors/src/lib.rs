//! What the collector's processors do to traces, done to the encoded request.
//!
//! [`Actions`] are the attributes processor and the resource processor, [`Sampler`] is the
//! probabilistic sampler. Each takes the bytes of an `ExportTraceServiceRequest` and returns an
//! [`Edited`] one: only the spans concerned are rewritten, none is decoded.
//!
//! The crate does no I/O, reads no clock and keeps no state between requests; a processor is shared
//! between threads as it is. It logs and counts nothing: what it dropped is in what it returns.
//!
//! Behaviour is that of the components `attributesprocessor`, `resourceprocessor` and
//! `probabilisticsamplerprocessor` of opentelemetry-collector-contrib v0.159, as far as traces and
//! settings go that the types here can express.
//!
//! # Guarantees
//!
//! - **A request in which nothing changes comes back as it is**, the very same bytes.
//! - **Unknown fields, nested values and invalid UTF-8 stay** byte for byte, wherever they are.
//! - **No action makes a duplicate key.** Where a key came twice, its last value counts.
//! - No input panics, recurses or takes more than linear time and memory.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use spanwire_processors::{Action, Actions, From, Value};
//!
//! let actions = Actions::new(vec![
//!     Action::Upsert { key: "tier".into(), from: From::Value(Value::Str("edge".into())) },
//!     Action::Delete { key: None, pattern: Some("(?i)password".into()) },
//! ])?;
//! let request = Bytes::from_static(
//!     b"\x0A\x18\x12\x16\x12\x14\x4A\x12\x0A\x0Bdb.Password\x12\x03\x0A\x01x",
//! );
//! let edited = actions.spans(request)?;
//! assert_eq!(edited.spans, 1);
//! assert_eq!(edited.joined()[6..], *b"\x4A\x0E\x0A\x04tier\x12\x06\x0A\x04edge");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod action;
mod actions;
mod convert;
mod pattern;
mod probability;
mod sampler;
mod text;
mod trace_state;

pub use spanwire_codec::edit::Edited;
pub use spanwire_codec::view::Malformed;

pub use action::{Action, From, InvalidAction, Type, Value};
pub use actions::Actions;
pub use sampler::{InvalidSampler, Mode, Sampled, Sampler, Settings};
