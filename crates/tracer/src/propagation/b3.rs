//! The headers that Zipkin's tracers use.
//!
//! Source: openzipkin/b3-propagation, `README.md`; "B3 Requirements" in `context/api-propagators.md`,
//! opentelemetry-specification v1.60.

use arrayvec::ArrayString;
use spanwire_model::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// All in one: `{trace id}-{span id}-{sampling state}-{parent's span id}`, the last two optional.
const SINGLE: &str = "b3";

const TRACE_ID: &str = "x-b3-traceid";
const SPAN_ID: &str = "x-b3-spanid";
const SAMPLED: &str = "x-b3-sampled";
const FLAGS: &str = "x-b3-flags";

const TRACE_ID_DIGITS: usize = 32;
const SPAN_ID_DIGITS: usize = 16;

/// Longest header written. The parent's id is not: here a server's span has an id of its own, so
/// there is nothing to tell by it.
const SINGLE_LEN: usize = TRACE_ID_DIGITS + 1 + SPAN_ID_DIGITS + 1 + 1;

/// Longest header looked at, which bounds what is trimmed.
const BYTES_MAX: usize = 128;
const _: () = assert!(BYTES_MAX >= SINGLE_LEN + 1 + SPAN_ID_DIGITS);

/// What is to happen to a trace, by its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Accept,
    Deny,
    /// Accepted, and to be traced by everybody whatever their own rules are.
    Debug,
}

/// The caller's span, and whether its trace is a debug trace. The single header goes first; the
/// others are looked at where it is absent or malformed.
pub(super) fn extract<'h>(
    get: &mut impl FnMut(&'static str) -> Option<&'h str>,
) -> Option<(SpanContext, bool)> {
    let single = get(SINGLE).and_then(|header| parse_single(trimmed(header)?));
    let (trace_id, span_id, state) = single.or_else(|| extract_multi(get))?;
    let flags = match state {
        State::Accept | State::Debug => TraceFlags::SAMPLED,
        State::Deny => TraceFlags::default(),
    };
    let context =
        SpanContext { trace_id, span_id, flags, is_remote: true, trace_state: TraceState::EMPTY };
    Some((context, state == State::Debug))
}

/// Writes the single header.
pub(super) fn inject_single(
    context: &SpanContext,
    is_debug: bool,
    set: &mut impl FnMut(&'static str, &str),
) {
    let mut header = ArrayString::<SINGLE_LEN>::new();
    let (trace_id, span_id) = (context.trace_id.to_hex(), context.span_id.to_hex());
    let state = if is_debug { "d" } else { sampled(context) };
    for part in [&*trace_id, "-", &*span_id, "-", state] {
        header.push_str(part);
    }
    set(SINGLE, &header);
}

/// Writes a header for each field. Debug says that it is sampled, so that is not said again.
pub(super) fn inject_multi(
    context: &SpanContext,
    is_debug: bool,
    set: &mut impl FnMut(&'static str, &str),
) {
    set(TRACE_ID, &context.trace_id.to_hex());
    set(SPAN_ID, &context.span_id.to_hex());
    match is_debug {
        true => set(FLAGS, "1"),
        false => set(SAMPLED, sampled(context)),
    }
}

fn sampled(context: &SpanContext) -> &'static str {
    if context.is_sampled() { "1" } else { "0" }
}

/// `None` also for a sampling state alone, which B3 allows: without ids there is no context for it.
fn parse_single(header: &str) -> Option<(TraceId, SpanId, State)> {
    let mut fields = header.split('-');
    let trace_id = parse_trace_id(fields.next()?)?;
    let span_id = parse_span_id(fields.next()?)?;
    let state = match fields.next() {
        Some("1") => State::Accept,
        Some("d") => State::Debug,
        // Left to the receiver. A context has no place for that, so it is as elsewhere in
        // OpenTelemetry: not sampled.
        Some("0") | None => State::Deny,
        Some(_) => return None,
    };
    if let Some(parent) = fields.next() {
        parse_span_id(parent)?;
    }
    fields.next().is_none().then_some((trace_id, span_id, state))
}

fn extract_multi<'h>(
    get: &mut impl FnMut(&'static str) -> Option<&'h str>,
) -> Option<(TraceId, SpanId, State)> {
    let trace_id = parse_trace_id(trimmed(get(TRACE_ID)?)?)?;
    let span_id = parse_span_id(trimmed(get(SPAN_ID)?)?)?;
    // Other flags were never given a meaning.
    if get(FLAGS).and_then(trimmed) == Some("1") {
        return Some((trace_id, span_id, State::Debug));
    }
    let state = match get(SAMPLED).map(trimmed) {
        // Old tracers write words.
        Some(Some("1" | "true")) => State::Accept,
        Some(Some("0" | "false")) | None => State::Deny,
        Some(_) => return None,
    };
    Some((trace_id, span_id, state))
}

/// The header without the blanks around it; `None` where it cannot be one.
fn trimmed(header: &str) -> Option<&str> {
    (header.len() <= BYTES_MAX).then(|| header.trim_matches([' ', '\t']))
}

/// A trace id of 64 bits is the low half of one of 128.
fn parse_trace_id(digits: &str) -> Option<TraceId> {
    match digits.len() {
        SPAN_ID_DIGITS => TraceId::new(parse_span_id(digits)?.get().into()),
        _ => lower_hex(digits).and_then(|digits| TraceId::from_hex(digits).ok()),
    }
}

fn parse_span_id(digits: &str) -> Option<SpanId> {
    lower_hex(digits).and_then(|digits| SpanId::from_hex(digits).ok())
}

/// Ids are hex digits of either case to `from_hex`; here only lower-case ones are allowed.
fn lower_hex(digits: &str) -> Option<&[u8]> {
    let digits = digits.as_bytes();
    (!digits.iter().any(u8::is_ascii_uppercase)).then_some(digits)
}
