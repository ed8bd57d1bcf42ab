//! OTLP/JSON, both ways, straight between text and wire bytes.
//!
//! [`write_request`] turns the protobuf form of an export request into JSON and [`read_request`]
//! turns JSON into the protobuf form, each without building the request as structs or as a tree. So
//! JSON is an encoding at the edge only: all else in Spanwire sees wire bytes. The small messages
//! around a request, [`ExportTraceServiceResponse`] and [`Status`], are structs.
//!
//! Source: "JSON Protobuf Encoding" in `docs/specification.md`, opentelemetry-proto v1.11.0, which
//! amends the JSON mapping of proto3; RFC 8259 for JSON, RFC 4648 for base64.
//!
//! # What is written
//!
//! - Compact JSON, names in lowerCamelCase, members in the order of their field numbers.
//! - Identifiers in lower-case hexadecimal; `bytesValue` in padded base64; 64-bit integers as
//!   decimal strings; enums as numbers; doubles as the shortest decimal that reads the same, or
//!   `"NaN"`, `"Infinity"`, `"-Infinity"`.
//! - No field that has its default, except the key of an attribute and the list in an array or map,
//!   which several readers insist on. In an attribute's value `""`, `0` and `false` are values and
//!   are written; a value without any is `{}`.
//! - Invalid UTF-8 as U+FFFD. Unknown fields, and those that only profiles may use, are left out.
//!
//! # What is read
//!
//! - Members in any order, white space anywhere. Unknown names are ignored with their whole value;
//!   names in snake_case are unknown. `null` is as if the member were not there.
//! - Identifiers in hexadecimal of either case, of any length: whether they identify anything is
//!   for [`Span::check`](crate::view::Span::check) to say.
//! - Integers as numbers or as strings of the same form, `1e3` and `1.0` included, within the range
//!   of their type. Enums as numbers only. Base64 in either alphabet, padded or not.
//! - A repeated name is what a repeated field is in protobuf: of a scalar the last value counts, a
//!   list goes on where it ended, a message is merged.
//! - One document, UTF-8, without a byte order mark and without anything behind it.
//!
//! # Limits
//!
//! Attribute values nest at most [`NESTING_MAX`](crate::view::NESTING_MAX) arrays and maps, unknown
//! members 128. Time is linear in the input, whatever it holds. Memory is the output and a buffer
//! for one string with escapes: the protobuf form is about as long as its JSON at most, and JSON
//! takes at most six bytes for each byte of a string and a constant for each field.

mod binary;
mod error;
mod lexer;
mod number;
mod pull;
mod read;
mod reply;
mod scan;
mod text;
mod write;

pub use error::{JsonError, JsonErrorKind};
pub use read::read_request;
pub use reply::{read_response, read_status, write_response, write_status};
pub use write::write_request;

#[cfg(doc)]
use crate::message::{ExportTraceServiceResponse, Status};
