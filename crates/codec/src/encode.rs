//! Spans to wire bytes: sizes first, then one pass that only appends.
//!
//! Everything here appends to a [`BufMut`], a growing vector as well as a slice of exactly the
//! right size, and every `put` has a `len` that says beforehand how many bytes it will append.
//! Fields go out in number order and proto3 defaults are omitted, so equal spans encode to equal
//! bytes; schema URLs alone go before the spans they cover, so that a request is a header followed
//! by spans, to which further spans can be appended as they are.
//!
//! A *framed* span is one `spans` field of `ScopeSpans`, tag and length included. Framed spans joined
//! are the body of a `ScopeSpans`; that is what lets whole chunks travel untouched.
//!
//! ```
//! use spanwire_codec::encode::{self, EncodedResource, EncodedScope};
//! use spanwire_codec::view::Request;
//! use spanwire_model::{Resource, Scope, Span, SpanContext, SpanId, TraceFlags, TraceId};
//!
//! let (Some(trace), Some(id)) = (TraceId::new(1), SpanId::new(2)) else { unreachable!() };
//! let span = Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "checkout");
//! let resource = EncodedResource::new(&Resource::default());
//! let scope = EncodedScope::new(&Scope::new("shop"));
//!
//! let spans = encode::framed_len(&span) * 2;
//! let mut request = Vec::new();
//! resource.put_header(scope.field_len(spans), &mut request);
//! scope.put_header(spans, &mut request);
//! encode::put_framed(&span, &mut request);
//! encode::put_framed(&span, &mut request);
//!
//! assert_eq!(Request::parse(&request)?.spans(), 2);
//! # Ok::<(), spanwire_codec::view::Malformed>(())
//! ```

mod writer;

use bytes::{BufMut, Bytes};
use smallvec::SmallVec;
use spanwire_model::{
    Attributes, Event, KeyValue, Limits, Link, Resource, Scope, Span, SpanId, SpanKind, Status,
    TraceId, Value,
};

pub use self::writer::{SpanEnd, SpanRest, SpanWriter};
use crate::field::{
    Len, any_value, array_value, event, key_value, key_value_list, link, request, resource,
    resource_spans, scope, scope_spans, span, status,
};

/// The fields of a span before its attributes.
struct PlainFields<'a> {
    trace_id: TraceId,
    span_id: SpanId,
    trace_state: &'a str,
    parent_span_id: Option<SpanId>,
    name: &'a str,
    kind: SpanKind,
    start_time_unix_nano: u64,
    end_time_unix_nano: u64,
}

impl<'a> PlainFields<'a> {
    fn of(span: &'a Span) -> Self {
        Self {
            trace_id: span.context.trace_id,
            span_id: span.context.span_id,
            trace_state: span.context.trace_state.as_str(),
            parent_span_id: span.parent_span_id,
            name: &span.name,
            kind: span.kind,
            start_time_unix_nano: span.start_time_unix_nano,
            end_time_unix_nano: span.end_time_unix_nano,
        }
    }

    fn len(&self) -> usize {
        let parent = if self.parent_span_id.is_some() { span::PARENT_SPAN_ID.size(8) } else { 0 };
        let start =
            if self.start_time_unix_nano != 0 { span::START_TIME_UNIX_NANO.size() } else { 0 };
        let end = if self.end_time_unix_nano != 0 { span::END_TIME_UNIX_NANO.size() } else { 0 };
        IDS_LEN
            + nonempty_size(span::TRACE_STATE, self.trace_state.len())
            + parent
            + nonempty_size(span::NAME, self.name.len())
            + nonzero_size(span::KIND, self.kind as u32)
            + start
            + end
    }

    fn put(&self, out: &mut impl BufMut) {
        put_ids(out, self.trace_id, self.span_id);
        span::TRACE_STATE.put_nonempty(out, self.trace_state.as_bytes());
        if let Some(parent) = self.parent_span_id {
            span::PARENT_SPAN_ID.put_array(out, parent.to_bytes());
        }
        span::NAME.put_nonempty(out, self.name.as_bytes());
        span::KIND.put_nonzero(out, self.kind as u64);
        span::START_TIME_UNIX_NANO.put_nonzero(out, self.start_time_unix_nano);
        span::END_TIME_UNIX_NANO.put_nonzero(out, self.end_time_unix_nano);
    }
}

/// The fields between the attributes and the flags, but for the lists.
struct RareFields<'a> {
    dropped_attributes_count: u32,
    dropped_events_count: u32,
    dropped_links_count: u32,
    status: &'a Status,
}

impl<'a> RareFields<'a> {
    fn of(span: &'a Span) -> Self {
        Self {
            dropped_attributes_count: span.attributes.dropped(),
            dropped_events_count: span.dropped_events_count,
            dropped_links_count: span.dropped_links_count,
            status: &span.status,
        }
    }

    fn len(&self) -> usize {
        let status = match self.status {
            Status::Unset => 0,
            set => span::STATUS.size(status_len(set)),
        };
        nonzero_size(span::DROPPED_ATTRIBUTES_COUNT, self.dropped_attributes_count)
            + nonzero_size(span::DROPPED_EVENTS_COUNT, self.dropped_events_count)
            + nonzero_size(span::DROPPED_LINKS_COUNT, self.dropped_links_count)
            + status
    }

    fn put<B: BufMut>(&self, out: &mut B, events: impl FnOnce(&mut B), links: impl FnOnce(&mut B)) {
        span::DROPPED_ATTRIBUTES_COUNT.put_nonzero(out, self.dropped_attributes_count.into());
        events(out);
        span::DROPPED_EVENTS_COUNT.put_nonzero(out, self.dropped_events_count.into());
        links(out);
        span::DROPPED_LINKS_COUNT.put_nonzero(out, self.dropped_links_count.into());
        if !matches!(self.status, Status::Unset) {
            span::STATUS.put_header(out, status_len(self.status));
            if let Status::Error { message } = self.status {
                status::MESSAGE.put_nonempty(out, message.as_bytes());
            }
            status::CODE.put(out, status_code(self.status));
        }
    }
}

/// Bytes that [`put_ids`] appends.
const IDS_LEN: usize = span::TRACE_ID.size(16) + span::SPAN_ID.size(8);

/// Appends the two fields every span and link begins with, in one store.
#[inline]
fn put_ids(out: &mut impl BufMut, trace_id: TraceId, span_id: SpanId) {
    const { assert!(span::TRACE_ID.tag() == link::TRACE_ID.tag()) };
    const { assert!(span::SPAN_ID.tag() == link::SPAN_ID.tag()) };
    let mut ids = [0; IDS_LEN];
    ids[0] = span::TRACE_ID.tag() as u8;
    ids[1] = 16;
    ids[2..18].copy_from_slice(&trace_id.to_bytes());
    ids[18] = span::SPAN_ID.tag() as u8;
    ids[19] = 8;
    ids[20..].copy_from_slice(&span_id.to_bytes());
    out.put_slice(&ids);
}

fn span_len(span: &Span) -> usize {
    let events = span.events.iter().map(|event| span::EVENTS.size(event_len(event)));
    let links = span.links.iter().map(|link| span::LINKS.size(link_len(link)));
    PlainFields::of(span).len()
        + attributes_len(span::ATTRIBUTES, span.attributes.iter())
        + events.sum::<usize>()
        + links.sum::<usize>()
        + RareFields::of(span).len()
        + if span.flags != 0 { span::FLAGS.size() } else { 0 }
}

/// Bytes of a span as one `spans` field of `ScopeSpans`.
///
/// Cost: looks at each attribute once, copies nothing.
#[must_use]
pub fn framed_len(span: &Span) -> usize {
    scope_spans::SPANS.size(span_len(span))
}

/// Appends a span as one `spans` field of `ScopeSpans`.
///
/// Arrays and maps nested deeper than [`Limits::DEPTH_MAX`] become empty values.
pub fn put_framed(span: &Span, out: &mut impl BufMut) {
    put_sized(span, span_len(span), out);
}

/// Appends a framed span whose body is `len` bytes.
fn put_sized(span: &Span, len: usize, out: &mut impl BufMut) {
    scope_spans::SPANS.put_header(out, len);
    PlainFields::of(span).put(out);
    put_attributes(span::ATTRIBUTES, span.attributes.iter(), out);
    RareFields::of(span).put(
        out,
        |out| {
            for event in &span.events {
                span::EVENTS.put_header(out, event_len(event));
                put_event_body(event, out);
            }
        },
        |out| {
            for link in &span.links {
                span::LINKS.put_header(out, link_len(link));
                put_link_body(link, out);
            }
        },
    );
    span::FLAGS.put_nonzero(out, span.flags);
}

/// Appends spans, framed, to a vector; the sizes are computed first, so that it grows at most once.
///
/// Cost: one more allocation, for the sizes, beyond 1,024 spans.
pub fn put_batch<'a>(spans: impl IntoIterator<Item = &'a Span> + Clone, out: &mut Vec<u8>) {
    let sizes: SmallVec<[usize; 1024]> = spans.clone().into_iter().map(span_len).collect();
    out.reserve(sizes.iter().map(|&len| scope_spans::SPANS.size(len)).sum());
    for (span, len) in spans.into_iter().zip(sizes) {
        put_sized(span, len, out);
    }
}

/// Appends one attribute of a span: a part of a [`SpanWriter`]'s body.
///
/// Cost: two copies, of the key and of the value. Inlined always: where the kind of the value is known
/// when compiled, the others cost nothing.
#[inline(always)]
pub fn put_attribute(key: &str, value: &Value<'_>, out: &mut impl BufMut) {
    put_key_value(span::ATTRIBUTES, key, value, 0, out);
}

/// Appends one event of a span: a part of [`SpanRest::events`].
pub fn put_event<'a>(
    time_unix_nano: u64,
    name: &str,
    attributes: impl Iterator<Item = (&'a str, &'a Value<'a>)> + Clone,
    dropped_attributes_count: u32,
    out: &mut impl BufMut,
) {
    let body = event_head_len(time_unix_nano, name)
        + pairs_len(event::ATTRIBUTES, attributes.clone())
        + nonzero_size(event::DROPPED_ATTRIBUTES_COUNT, dropped_attributes_count);
    span::EVENTS.put_header(out, body);
    event::TIME_UNIX_NANO.put_nonzero(out, time_unix_nano);
    event::NAME.put_nonempty(out, name.as_bytes());
    put_pairs(event::ATTRIBUTES, attributes, out);
    event::DROPPED_ATTRIBUTES_COUNT.put_nonzero(out, dropped_attributes_count.into());
}

/// Appends one link of a span: a part of [`SpanRest::links`].
pub fn put_link(link: &Link, out: &mut impl BufMut) {
    span::LINKS.put_header(out, link_len(link));
    put_link_body(link, out);
}

fn status_len(status: &Status) -> usize {
    let message = match status {
        Status::Error { message } => nonempty_size(status::MESSAGE, message.len()),
        Status::Unset | Status::Ok => 0,
    };
    message + status::CODE.size(status_code(status))
}

fn status_code(status: &Status) -> u64 {
    match status {
        Status::Unset => 0,
        Status::Ok => 1,
        Status::Error { .. } => 2,
    }
}

fn event_head_len(time_unix_nano: u64, name: &str) -> usize {
    let time = if time_unix_nano != 0 { event::TIME_UNIX_NANO.size() } else { 0 };
    time + nonempty_size(event::NAME, name.len())
}

fn event_len(event: &Event) -> usize {
    event_head_len(event.time_unix_nano, &event.name)
        + attributes_len(event::ATTRIBUTES, event.attributes.iter())
        + nonzero_size(event::DROPPED_ATTRIBUTES_COUNT, event.dropped_attributes_count)
}

fn put_event_body(event: &Event, out: &mut impl BufMut) {
    event::TIME_UNIX_NANO.put_nonzero(out, event.time_unix_nano);
    event::NAME.put_nonempty(out, event.name.as_bytes());
    put_attributes(event::ATTRIBUTES, event.attributes.iter(), out);
    event::DROPPED_ATTRIBUTES_COUNT.put_nonzero(out, event.dropped_attributes_count.into());
}

fn link_len(link: &Link) -> usize {
    let flags = if link.flags != 0 { link::FLAGS.size() } else { 0 };
    link::TRACE_ID.size(16)
        + link::SPAN_ID.size(8)
        + nonempty_size(link::TRACE_STATE, link.context.trace_state.as_str().len())
        + attributes_len(link::ATTRIBUTES, link.attributes.iter())
        + nonzero_size(link::DROPPED_ATTRIBUTES_COUNT, link.dropped_attributes_count)
        + flags
}

fn put_link_body(link: &Link, out: &mut impl BufMut) {
    put_ids(out, link.context.trace_id, link.context.span_id);
    link::TRACE_STATE.put_nonempty(out, link.context.trace_state.as_str().as_bytes());
    put_attributes(link::ATTRIBUTES, link.attributes.iter(), out);
    link::DROPPED_ATTRIBUTES_COUNT.put_nonzero(out, link.dropped_attributes_count.into());
    link::FLAGS.put_nonzero(out, link.flags);
}

type Entries<'a> = std::slice::Iter<'a, KeyValue>;

fn pairs(entries: Entries<'_>) -> impl Iterator<Item = (&str, &Value<'_>)> + Clone {
    entries.map(|entry| (&*entry.key, &entry.value))
}

fn attributes_len(field: Len, entries: Entries<'_>) -> usize {
    pairs_len(field, pairs(entries))
}

fn put_attributes(field: Len, entries: Entries<'_>, out: &mut impl BufMut) {
    put_pairs(field, pairs(entries), out);
}

fn pairs_len<'a>(field: Len, pairs: impl Iterator<Item = (&'a str, &'a Value<'a>)>) -> usize {
    pairs.map(|(key, value)| field.size(key_value_len(key, value, 0))).sum()
}

fn put_pairs<'a>(
    field: Len,
    pairs: impl Iterator<Item = (&'a str, &'a Value<'a>)>,
    out: &mut impl BufMut,
) {
    for (key, value) in pairs {
        put_key_value(field, key, value, 0, out);
    }
}

#[inline]
fn key_value_len(key: &str, value: &Value<'_>, depth: u32) -> usize {
    nonempty_size(key_value::KEY, key.len()) + key_value::VALUE.size(value_len(value, depth))
}

#[inline(always)]
fn put_key_value<B: BufMut>(field: Len, key: &str, value: &Value<'_>, depth: u32, out: &mut B) {
    let value_len = value_len(value, depth);
    let len = nonempty_size(key_value::KEY, key.len()) + key_value::VALUE.size(value_len);
    if len < ONE_BYTE_LEN && !key.is_empty() {
        // Short, as nearly all are: every length within is one byte too.
        const { assert!(key_value::KEY.tag() < 0x80 && key_value::VALUE.tag() < 0x80) };
        let [outer, key_tag] = [field.tag() as u8, key_value::KEY.tag() as u8];
        out.put_slice(&[outer, len as u8, key_tag, key.len() as u8]);
        out.put_slice(key.as_bytes());
        let [tag, value_len] = [key_value::VALUE.tag() as u8, value_len as u8];
        match value {
            Value::String(text) => {
                let text_tag = any_value::STRING_VALUE.tag() as u8;
                out.put_slice(&[tag, value_len, text_tag, text.len() as u8]);
                out.put_slice(text.as_bytes());
            }
            Value::Bool(truth) => {
                let bool_tag = any_value::BOOL_VALUE.tag() as u8;
                out.put_slice(&[tag, value_len, bool_tag, u8::from(*truth)]);
            }
            _ => {
                out.put_slice(&[tag, value_len]);
                put_value(value, depth, out);
            }
        }
    } else {
        put_long_key(field, key, len, out);
        key_value::VALUE.put_header(out, value_len);
        put_value(value, depth, out);
    }
}

/// Lengths below it take one byte.
const ONE_BYTE_LEN: usize = 0x80;

#[cold]
#[inline(never)]
fn put_long_key<B: BufMut>(field: Len, key: &str, len: usize, out: &mut B) {
    field.put_header(out, len);
    key_value::KEY.put_nonempty(out, key.as_bytes());
}

/// Bytes of an `AnyValue`'s body. A oneof has presence: zeros and empty texts are written.
#[inline(always)]
fn value_len(value: &Value<'_>, depth: u32) -> usize {
    match value {
        Value::Empty => 0,
        Value::String(text) => any_value::STRING_VALUE.size(text.len()),
        Value::Bool(truth) => any_value::BOOL_VALUE.size(u64::from(*truth)),
        Value::Int(number) => any_value::INT_VALUE.size(*number as u64),
        Value::Double(_) => any_value::DOUBLE_VALUE.size(),
        Value::Bytes(bytes) => any_value::BYTES_VALUE.size(bytes.len()),
        Value::Array(_) | Value::Map(_) => nested_len(value, depth),
    }
}

#[inline(always)]
fn put_value<B: BufMut>(value: &Value<'_>, depth: u32, out: &mut B) {
    match value {
        Value::Empty => {}
        Value::String(text) => any_value::STRING_VALUE.put(out, text.as_bytes()),
        Value::Bool(truth) => any_value::BOOL_VALUE.put(out, u64::from(*truth)),
        Value::Int(number) => any_value::INT_VALUE.put(out, *number as u64),
        Value::Double(number) => any_value::DOUBLE_VALUE.put(out, number.to_bits()),
        Value::Bytes(bytes) => any_value::BYTES_VALUE.put(out, bytes),
        Value::Array(_) | Value::Map(_) => put_nested(value, depth, out),
    }
}

/// Out of line: few attributes are nested, and the flat ones are the hot path.
#[cold]
#[inline(never)]
fn nested_len(value: &Value<'_>, depth: u32) -> usize {
    match value {
        _ if depth >= Limits::DEPTH_MAX => 0,
        Value::Array(values) => any_value::ARRAY_VALUE.size(array_len(values, depth)),
        Value::Map(entries) => any_value::KVLIST_VALUE.size(map_len(entries, depth)),
        _ => 0,
    }
}

#[cold]
#[inline(never)]
fn put_nested<B: BufMut>(value: &Value<'_>, depth: u32, out: &mut B) {
    match value {
        _ if depth >= Limits::DEPTH_MAX => {}
        Value::Array(values) => {
            any_value::ARRAY_VALUE.put_header(out, array_len(values, depth));
            for value in values {
                array_value::VALUES.put_header(out, value_len(value, depth + 1));
                put_value(value, depth + 1, out);
            }
        }
        Value::Map(entries) => {
            any_value::KVLIST_VALUE.put_header(out, map_len(entries, depth));
            for (key, value) in entries {
                put_key_value(key_value_list::VALUES, key, value, depth + 1, out);
            }
        }
        _ => {}
    }
}

fn array_len(values: &[Value<'_>], depth: u32) -> usize {
    values.iter().map(|value| array_value::VALUES.size(value_len(value, depth + 1))).sum()
}

fn map_len(entries: &[(std::borrow::Cow<'_, str>, Value<'_>)], depth: u32) -> usize {
    let len = |(key, value): &(_, _)| {
        let key: &std::borrow::Cow<'_, str> = key;
        key_value_list::VALUES.size(key_value_len(key, value, depth + 1))
    };
    entries.iter().map(len).sum()
}

/// A resource as wire bytes: encoded once, put before every request.
///
/// Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedResource(Bytes);

impl EncodedResource {
    /// Encodes a resource.
    #[must_use]
    pub fn new(resource: &Resource) -> Self {
        let body = list_len(resource::ATTRIBUTES, &resource.attributes)
            + nonzero_size(resource::DROPPED_ATTRIBUTES_COUNT, resource.attributes.dropped());
        let mut out = Vec::new();
        if body > 0 {
            resource_spans::RESOURCE.put_header(&mut out, body);
            put_attributes(resource::ATTRIBUTES, resource.attributes.iter(), &mut out);
            let dropped = resource.attributes.dropped().into();
            resource::DROPPED_ATTRIBUTES_COUNT.put_nonzero(&mut out, dropped);
        }
        resource_spans::SCHEMA_URL.put_nonempty(&mut out, resource.schema_url.as_bytes());
        Self(out.into())
    }

    /// Bytes of a whole request that has this resource and scopes of so many bytes, which are the
    /// sum of their [`field_len`](EncodedScope::field_len)s.
    #[must_use]
    pub fn request_len(&self, scopes: usize) -> usize {
        request::RESOURCE_SPANS.size(self.0.len() + scopes)
    }

    /// Appends what precedes the scopes in a request.
    pub fn put_header(&self, scopes: usize, out: &mut impl BufMut) {
        request::RESOURCE_SPANS.put_header(out, self.0.len() + scopes);
        out.put_slice(&self.0);
    }
}

/// A scope as wire bytes: encoded once, put before the spans of each request.
///
/// Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedScope(Bytes);

impl EncodedScope {
    /// Encodes a scope.
    #[must_use]
    pub fn new(scope: &Scope) -> Self {
        let body = nonempty_size(scope::NAME, scope.name.len())
            + nonempty_size(scope::VERSION, scope.version.len())
            + list_len(scope::ATTRIBUTES, &scope.attributes)
            + nonzero_size(scope::DROPPED_ATTRIBUTES_COUNT, scope.attributes.dropped());
        let mut out = Vec::new();
        if body > 0 {
            scope_spans::SCOPE.put_header(&mut out, body);
            scope::NAME.put_nonempty(&mut out, scope.name.as_bytes());
            scope::VERSION.put_nonempty(&mut out, scope.version.as_bytes());
            put_attributes(scope::ATTRIBUTES, scope.attributes.iter(), &mut out);
            let dropped = scope.attributes.dropped().into();
            scope::DROPPED_ATTRIBUTES_COUNT.put_nonzero(&mut out, dropped);
        }
        scope_spans::SCHEMA_URL.put_nonempty(&mut out, scope.schema_url.as_bytes());
        Self(out.into())
    }

    /// Bytes of the `scope_spans` field that has this scope and so many bytes of framed spans.
    #[must_use]
    pub fn field_len(&self, spans: usize) -> usize {
        resource_spans::SCOPE_SPANS.size(self.0.len() + spans)
    }

    /// Appends what precedes the spans: exactly `spans` bytes of framed spans must follow.
    pub fn put_header(&self, spans: usize, out: &mut impl BufMut) {
        resource_spans::SCOPE_SPANS.put_header(out, self.0.len() + spans);
        out.put_slice(&self.0);
    }
}

fn list_len(field: Len, attributes: &Attributes) -> usize {
    attributes_len(field, attributes.iter())
}

#[inline]
fn nonempty_size(field: Len, len: usize) -> usize {
    if len == 0 { 0 } else { field.size(len) }
}

#[inline]
fn nonzero_size(field: crate::field::Varint, value: u32) -> usize {
    if value == 0 { 0 } else { field.size(value.into()) }
}
