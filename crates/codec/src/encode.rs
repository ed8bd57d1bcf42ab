//! Spans to wire bytes: sizes first, then one pass that only appends.
//!
//! Everything here appends: spans and their parts to a vector, what only goes before or around them
//! to any [`BufMut`]. Every `put` has a `len` that says beforehand how many bytes it will append.
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

mod attribute;
mod writer;

use bytes::{BufMut, Bytes};
use smallvec::SmallVec;
use spanwire_model::{
    Attributes, Event, Link, Resource, Scope, Span, SpanId, SpanKind, Status, TraceId, Value,
};

use self::attribute::{
    attributes_len, pairs_len, put_attribute, put_attributes, put_name, put_pairs,
};
pub use self::writer::{SpanEnd, SpanRest, SpanWriter};
use crate::field::{
    Len, event, link, request, resource, resource_spans, scope, scope_spans, span, status,
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

    fn put(&self, out: &mut Vec<u8>) {
        put_ids(out, self.trace_id, self.span_id);
        span::TRACE_STATE.put_nonempty(out, self.trace_state.as_bytes());
        if let Some(parent) = self.parent_span_id {
            span::PARENT_SPAN_ID.put_array(out, parent.to_bytes());
        }
        put_name(span::NAME, self.name, out);
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
/// Arrays and maps nested deeper than [`Limits::DEPTH_MAX`](spanwire_model::Limits::DEPTH_MAX) become empty values.
pub fn put_framed(span: &Span, out: &mut Vec<u8>) {
    put_sized(span, span_len(span), out);
}

/// Appends a framed span whose body is `len` bytes.
fn put_sized(span: &Span, len: usize, out: &mut Vec<u8>) {
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
///
/// ```
/// use spanwire_codec::{encode, view};
/// use spanwire_model::{Span, SpanContext, SpanId, TraceFlags, TraceId};
///
/// let (Some(trace), Some(id)) = (TraceId::new(1), SpanId::new(2)) else { unreachable!() };
/// let span = Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "checkout");
/// let mut chunk = Vec::new();
/// encode::put_batch(&vec![span; 3], &mut chunk);
/// assert_eq!(view::framed(&chunk).count(), 3);
/// ```
pub fn put_batch<'a>(spans: impl IntoIterator<Item = &'a Span> + Clone, out: &mut Vec<u8>) {
    // Not collected, as that moves 8 KiB.
    let mut sizes = SmallVec::<[usize; 1024]>::new();
    sizes.extend(spans.clone().into_iter().map(span_len));
    out.reserve(sizes.iter().map(|&len| scope_spans::SPANS.size(len)).sum());
    for (span, len) in spans.into_iter().zip(sizes) {
        put_sized(span, len, out);
    }
}

/// Appends one event of a span: a part of [`SpanRest::events`].
///
/// ```
/// use spanwire_codec::encode;
/// use spanwire_model::Value;
///
/// let key = Value::from("user:7");
/// let mut events = Vec::new();
/// encode::put_event(1_000, "cache miss", [("cache.key", &key)].into_iter(), 0, &mut events);
/// encode::put_event(2_500, "cache filled", [].into_iter(), 0, &mut events);
/// ```
pub fn put_event<'a>(
    time_unix_nano: u64,
    name: &str,
    attributes: impl Iterator<Item = (&'a str, &'a Value<'a>)> + Clone,
    dropped_attributes_count: u32,
    out: &mut Vec<u8>,
) {
    let body = event_head_len(time_unix_nano, name)
        + pairs_len(event::ATTRIBUTES, attributes.clone())
        + nonzero_size(event::DROPPED_ATTRIBUTES_COUNT, dropped_attributes_count);
    span::EVENTS.put_header(out, body);
    event::TIME_UNIX_NANO.put_nonzero(out, time_unix_nano);
    put_name(event::NAME, name, out);
    put_pairs(event::ATTRIBUTES, attributes, out);
    event::DROPPED_ATTRIBUTES_COUNT.put_nonzero(out, dropped_attributes_count.into());
}

/// Appends one link of a span: a part of [`SpanRest::links`].
///
/// ```
/// use spanwire_codec::encode;
/// use spanwire_model::{Link, Span, SpanContext, SpanId, TraceFlags, TraceId};
///
/// let (Some(trace), Some(id)) = (TraceId::new(1), SpanId::new(2)) else { unreachable!() };
/// let context = SpanContext::new(trace, id, TraceFlags::SAMPLED);
/// let flags = Span::flags_of(context.flags, context.is_remote);
/// let mut links = Vec::new();
/// let link = Link { context, flags, attributes: Vec::new(), dropped_attributes_count: 0 };
/// encode::put_link(&link, &mut links);
/// ```
pub fn put_link(link: &Link, out: &mut Vec<u8>) {
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

fn put_event_body(event: &Event, out: &mut Vec<u8>) {
    event::TIME_UNIX_NANO.put_nonzero(out, event.time_unix_nano);
    put_name(event::NAME, &event.name, out);
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

fn put_link_body(link: &Link, out: &mut Vec<u8>) {
    put_ids(out, link.context.trace_id, link.context.span_id);
    link::TRACE_STATE.put_nonempty(out, link.context.trace_state.as_str().as_bytes());
    put_attributes(link::ATTRIBUTES, link.attributes.iter(), out);
    link::DROPPED_ATTRIBUTES_COUNT.put_nonzero(out, link.dropped_attributes_count.into());
    link::FLAGS.put_nonzero(out, link.flags);
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
