//! Span contexts and baggage in the headers of a request: W3C Trace Context Level 2 and W3C Baggage,
//! and Zipkin's B3 for those who still need it.
//!
//! The functions are W3C's; [`Propagators`] are what was configured.
//!
//! The functions take a getter or a setter rather than a map, so they serve every carrier without
//! copying it: HTTP headers, gRPC metadata, message properties, environment variables. Names are
//! passed in lower case; a carrier whose names have case compares them without it. Where a carrier
//! has several lines of one name, the getter joins them with commas, in order, as RFC 9110 section
//! 5.3 has it; only `tracestate` and `baggage` may have several.
//!
//! # Guarantees
//!
//! - Hostile headers cost bounded time and memory, whatever their length and bytes.
//! - What is malformed is left out and harms nothing beside it: a bad `tracestate` leaves
//!   `traceparent` valid.
//! - Without a `tracestate`, reading and writing a span context allocates nothing.
//! - What is written is visible ASCII, blanks and tabs, so no value can break out of its header.
//!
//! # Example
//!
//! ```
//! use spanwire_tracer::propagation::{TRACEPARENT, extract_span_context, inject_span_context};
//!
//! let received = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
//! let get = |name| (name == TRACEPARENT).then_some(received);
//! let context = extract_span_context(get).expect("a valid traceparent");
//! assert!(context.is_remote && context.is_sampled() && context.flags.is_random());
//!
//! let mut sent = Vec::new();
//! inject_span_context(&context, |name, value| sent.push((name, value.to_owned())));
//! assert_eq!(sent, [(TRACEPARENT, received.to_owned())]);
//! ```

use arrayvec::ArrayString;
use spanwire_model::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::baggage::Baggage;

mod b3;
mod propagators;

pub use propagators::{InvalidPropagator, ParsedPropagators, Propagator, Propagators};

/// Name of the header that carries ids and flags ("traceparent Header", W3C Trace Context Level 2).
pub const TRACEPARENT: &str = "traceparent";

/// Name of the header that carries vendor entries ("tracestate Header", W3C Trace Context Level 2).
pub const TRACESTATE: &str = "tracestate";

/// Name of the header that carries baggage ("Header Name", W3C Baggage).
pub const BAGGAGE: &str = "baggage";

/// Length of a `traceparent` of version 00, the only one written.
pub const TRACEPARENT_LEN: usize = 2 // version
    + 1 + TRACE_ID_DIGITS
    + 1 + SPAN_ID_DIGITS
    + 1 + 2; // flags

/// Longest `traceparent` looked at. Later versions may append fields, and W3C asks to refuse only
/// what is prohibitively long; this bounds how much blank space is trimmed.
pub const TRACEPARENT_BYTES_MAX: usize = 512;

const TRACE_ID_DIGITS: usize = 32;
const SPAN_ID_DIGITS: usize = 16;

/// Where a trace id starts in a `traceparent`; each field follows a dash.
const TRACE_ID_AT: usize = 3;
const SPAN_ID_AT: usize = TRACE_ID_AT + TRACE_ID_DIGITS + 1;
const FLAGS_AT: usize = SPAN_ID_AT + SPAN_ID_DIGITS + 1;
const _: () = assert!(FLAGS_AT + 2 == TRACEPARENT_LEN);

/// The flags that Trace Context Level 2 defines. The others are reserved: a sender must set them to
/// zero, and what a later version means by them is unknown here.
const FLAGS_KNOWN: u8 = TraceFlags::SAMPLED.0 | TraceFlags::RANDOM.0;

/// Why a text is not a `traceparent`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTraceparent {
    /// Shorter than [`TRACEPARENT_LEN`], longer than version 00 is, or longer than
    /// [`TRACEPARENT_BYTES_MAX`].
    #[error("a traceparent cannot have {bytes} bytes")]
    Length {
        /// Length found.
        bytes: usize,
    },
    /// Version `ff`, which W3C forbids.
    #[error("version ff is forbidden")]
    Version,
    /// A byte is not a lower-case hex digit.
    #[error("not a lower-case hex digit at byte {at}")]
    Digit {
        /// Offset of the first such byte.
        at: usize,
    },
    /// Two fields are not parted by a dash.
    #[error("no dash at byte {at}")]
    Dash {
        /// Where it is missing.
        at: usize,
    },
    /// The trace id is all zeros.
    #[error("the trace id is zero")]
    TraceId,
    /// The parent's span id is all zeros.
    #[error("the parent id is zero")]
    SpanId,
}

/// Reads the span context of the caller; `get` looks a header up by its lower-case name.
///
/// The context [is remote](SpanContext::is_remote). `None` without a valid `traceparent`: the
/// request then starts a new trace, and `tracestate` is not read. A malformed or overlong
/// `tracestate` is discarded as a whole.
///
/// ```
/// use spanwire_tracer::propagation::{TRACESTATE, extract_span_context};
///
/// let context = extract_span_context(|name| match name {
///     TRACESTATE => Some("not a list"),
///     _ => Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
/// });
/// assert!(context.is_some_and(|context| context.is_sampled() && context.trace_state.is_empty()));
/// ```
///
/// Cost: two look-ups and one pass over at most [`TRACEPARENT_BYTES_MAX`] +
/// [`TraceState::BYTES_MAX`] bytes; one allocation if there is a `tracestate`, else none.
///
/// Source: "Processing Model for Working with Trace Context", W3C Trace Context Level 2.
pub fn extract_span_context<'h>(
    mut get: impl FnMut(&'static str) -> Option<&'h str>,
) -> Option<SpanContext> {
    let mut context = parse_traceparent(get(TRACEPARENT)?).ok()?;
    if let Some(list) = get(TRACESTATE) {
        context.trace_state = TraceState::parse(list).unwrap_or_default();
    }
    Some(context)
}

/// Writes a span context for the callee: `set` receives `traceparent`, then `tracestate` if there is
/// one.
///
/// Cost: allocates nothing.
pub fn inject_span_context(context: &SpanContext, mut set: impl FnMut(&'static str, &str)) {
    set(TRACEPARENT, &format_traceparent(context));
    if !context.trace_state.is_empty() {
        set(TRACESTATE, context.trace_state.as_str());
    }
}

/// Reads the caller's baggage; `get` looks a header up by its lower-case name.
///
/// Empty without the header. To know what was left out of a header, use [`Baggage::parse`].
///
/// ```
/// use spanwire_tracer::propagation::extract_baggage;
///
/// let baggage = extract_baggage(|_| Some("tenant=acme%20inc, tier=gold"));
/// assert_eq!(baggage.get("tenant").as_deref(), Some("acme inc"));
/// ```
///
/// Cost: that of [`Baggage::parse`].
pub fn extract_baggage<'h>(mut get: impl FnMut(&'static str) -> Option<&'h str>) -> Baggage {
    get(BAGGAGE).map(|header| Baggage::parse(header).baggage).unwrap_or_default()
}

/// Writes baggage for the callee: `set` receives `baggage`, or is not called if there is none.
///
/// Cost: allocates nothing; baggage is kept as its header's text.
pub fn inject_baggage(baggage: &Baggage, mut set: impl FnMut(&'static str, &str)) {
    if !baggage.is_empty() {
        set(BAGGAGE, baggage.as_str());
    }
}

/// The `traceparent` of a span context, on the stack. Reserved flags are written as zero.
///
/// ```
/// use spanwire_model::{SpanContext, SpanId, TraceFlags, TraceId};
/// use spanwire_tracer::propagation::format_traceparent;
///
/// let (trace, span) = (TraceId::new(0xab).expect("not 0"), SpanId::new(0xcd).expect("not 0"));
/// let header = format_traceparent(&SpanContext::new(trace, span, TraceFlags::SAMPLED));
/// assert_eq!(&header[..], "00-000000000000000000000000000000ab-00000000000000cd-01");
/// ```
#[must_use]
pub fn format_traceparent(context: &SpanContext) -> ArrayString<TRACEPARENT_LEN> {
    let mut text = *b"00---------------------------------------------------00";
    put_hex(&mut text[TRACE_ID_AT..], context.trace_id.to_bytes());
    put_hex(&mut text[SPAN_ID_AT..], context.span_id.to_bytes());
    put_hex(&mut text[FLAGS_AT..], [context.flags.0 & FLAGS_KNOWN]);
    // Hex digits and dashes are ASCII, so there is no other case.
    ArrayString::from_byte_string(&text).unwrap_or_default()
}

/// Reads a `traceparent`; blanks and tabs around it are ignored.
///
/// The context [is remote](SpanContext::is_remote) and has no trace state. Of the flags, Sampled
/// and Random are kept. Versions after 00 are read as far as version 00 goes, as "Versioning of
/// traceparent" in W3C Trace Context Level 2 demands.
///
/// ```
/// use spanwire_tracer::propagation::{InvalidTraceparent, parse_traceparent};
///
/// let upper = "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01";
/// assert_eq!(parse_traceparent(upper), Err(InvalidTraceparent::Digit { at: 4 }));
/// ```
///
/// # Errors
///
/// [`InvalidTraceparent`], with offsets into the trimmed text. W3C demands that such a header be
/// ignored and a new trace started.
pub fn parse_traceparent(header: &str) -> Result<SpanContext, InvalidTraceparent> {
    if header.len() > TRACEPARENT_BYTES_MAX {
        return Err(InvalidTraceparent::Length { bytes: header.len() });
    }
    let bytes = header.trim_matches([' ', '\t']).as_bytes();
    let length = InvalidTraceparent::Length { bytes: bytes.len() };
    let Some((text, rest)) = bytes.split_first_chunk::<TRACEPARENT_LEN>() else {
        return Err(length);
    };
    let [version] = read_hex(text, 0)?;
    match (version, rest.first()) {
        (0xff, _) => return Err(InvalidTraceparent::Version),
        (0x00, Some(_)) => return Err(length),
        // What follows the flags in a later version is a field of its own or not there at all.
        (_, Some(b'-') | None) => {}
        (_, Some(_)) => return Err(InvalidTraceparent::Dash { at: TRACEPARENT_LEN }),
    }
    for at in [TRACE_ID_AT - 1, SPAN_ID_AT - 1, FLAGS_AT - 1] {
        if text[at] != b'-' {
            return Err(InvalidTraceparent::Dash { at });
        }
    }
    let trace_id = TraceId::from_bytes(read_hex(text, TRACE_ID_AT)?);
    let span_id = SpanId::from_bytes(read_hex(text, SPAN_ID_AT)?);
    let [flags] = read_hex(text, FLAGS_AT)?;
    Ok(SpanContext {
        trace_id: trace_id.ok_or(InvalidTraceparent::TraceId)?,
        span_id: span_id.ok_or(InvalidTraceparent::SpanId)?,
        flags: TraceFlags(flags & FLAGS_KNOWN),
        is_remote: true,
        trace_state: TraceState::EMPTY,
    })
}

/// Reads `2 * N` lower-case hex digits from offset `at`.
fn read_hex<const N: usize>(
    text: &[u8; TRACEPARENT_LEN],
    at: usize,
) -> Result<[u8; N], InvalidTraceparent> {
    let digits = &text[at..at + 2 * N];
    let mut bytes = [0; N];
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (DIGIT_VALUE[usize::from(pair[0])], DIGIT_VALUE[usize::from(pair[1])]);
        *byte = high << 4 | low & 0x0f;
        seen |= high | low;
    }
    // One test after the loop rather than one a digit: nearly every header is valid.
    if seen & NO_DIGIT == 0 { Ok(bytes) } else { Err(first_bad_digit(digits, at)) }
}

#[cold]
fn first_bad_digit(digits: &[u8], at: usize) -> InvalidTraceparent {
    let is_bad = |digit: &u8| DIGIT_VALUE[usize::from(*digit)] == NO_DIGIT;
    InvalidTraceparent::Digit { at: at + digits.iter().position(is_bad).unwrap_or(0) }
}

fn put_hex<const N: usize>(text: &mut [u8], bytes: [u8; N]) {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0x0f)];
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Marks a byte that is no digit; shares no bit with a digit's value.
const NO_DIGIT: u8 = 0x80;

/// The value of each lower-case hex digit, by its byte.
static DIGIT_VALUE: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    values
};
