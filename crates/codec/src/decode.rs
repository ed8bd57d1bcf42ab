//! Requests to `spanwire_model` structs, for display, tools and tests.
//!
//! The data path never comes here: a built span takes many times its wire size, so what may be built
//! is bounded. What a struct can't hold is repaired and counted: text that is not UTF-8 gets U+FFFD,
//! a `tracestate` that W3C says to discard is discarded. A span that
//! [`check`](crate::view::Span::check) refuses or whose id is all zeros is left out.
//!
//! ```
//! use spanwire_codec::encode::{self, EncodedResource, EncodedScope};
//! use spanwire_codec::{decode, view::Request};
//! use spanwire_model::{Resource, Scope, Span, SpanContext, SpanId, TraceFlags, TraceId};
//!
//! let (Some(trace), Some(id)) = (TraceId::new(1), SpanId::new(2)) else { unreachable!() };
//! let span = Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "checkout");
//! let scope = EncodedScope::new(&Scope::new("shop"));
//! let mut request = Vec::new();
//! let framed = encode::framed_len(&span);
//! EncodedResource::new(&Resource::default()).put_header(scope.field_len(framed), &mut request);
//! scope.put_header(framed, &mut request);
//! encode::put_framed(&span, &mut request);
//!
//! let decoded = decode::request(&Request::parse(&request)?, 1 << 20)?;
//! assert_eq!(decoded.resource_spans[0].scope_spans[0].scope, Scope::new("shop"));
//! assert_eq!(decoded.resource_spans[0].scope_spans[0].spans, [span]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Cow;

use spanwire_model as model;
use spanwire_model::{Attributes, KeyValue, Text, TraceFlags, TraceState, Value};

use crate::view;

/// What a request holds, and what it held that is not in here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The spans by resource, envelopes without a span included.
    pub resource_spans: Vec<ResourceSpans>,
    /// Spans in it.
    pub spans: usize,
    /// Spans left out, as malformed or for an all-zero id.
    pub spans_rejected: usize,
    /// Texts with U+FFFD in place of what was not UTF-8, and trace states discarded.
    pub texts_repaired: usize,
}

/// Spans of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceSpans {
    /// What produced them; an absent one reads as the default.
    pub resource: model::Resource,
    /// The spans by scope.
    pub scope_spans: Vec<ScopeSpans>,
}

/// Spans of one instrumentation scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScopeSpans {
    /// What recorded them; an absent one reads as the default.
    pub scope: model::Scope,
    /// The spans.
    pub spans: Vec<model::Span>,
}

/// The request would take more memory than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("decoded request exceeds {bytes_max} bytes")]
pub struct TooLarge {
    /// The limit.
    pub bytes_max: usize,
}

/// Builds the spans of a request.
///
/// `bytes_max` bounds the memory: each struct counts with its size, each text and byte string with
/// its length. Spare capacity of vectors is not counted and may come to as much again. A link whose
/// ids are absent or all zeros is left out and added to its span's `dropped_links_count`.
///
/// # Errors
///
/// [`TooLarge`] as soon as the next struct would exceed `bytes_max`.
pub fn request(request: &view::Request<'_>, bytes_max: usize) -> Result<Decoded, TooLarge> {
    let mut decoder = Decoder { bytes_max, bytes_left: bytes_max, texts_repaired: 0 };
    let mut decoded = Decoded::default();
    for resource_spans in request.resource_spans() {
        decoder.charge(size_of::<ResourceSpans>())?;
        let mut out =
            ResourceSpans { resource: decoder.resource(&resource_spans)?, scope_spans: Vec::new() };
        for scope_spans in resource_spans.scope_spans() {
            decoder.charge(size_of::<ScopeSpans>())?;
            let mut scope = ScopeSpans { scope: decoder.scope(&scope_spans)?, spans: Vec::new() };
            for span in scope_spans.spans() {
                match decoder.span(&span)? {
                    Some(span) => scope.spans.push(span),
                    None => decoded.spans_rejected += 1,
                }
            }
            decoded.spans += scope.spans.len();
            out.scope_spans.push(scope);
        }
        decoded.resource_spans.push(out);
    }
    decoded.texts_repaired = decoder.texts_repaired;
    Ok(decoded)
}

struct Decoder {
    bytes_max: usize,
    bytes_left: usize,
    texts_repaired: usize,
}

impl Decoder {
    fn charge(&mut self, bytes: usize) -> Result<(), TooLarge> {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => Err(TooLarge { bytes_max: self.bytes_max }),
        }
    }

    fn resource(
        &mut self,
        envelope: &view::ResourceSpans<'_>,
    ) -> Result<model::Resource, TooLarge> {
        let mut attributes = Attributes::new();
        if let Some(resource) = envelope.resource() {
            attributes = self.attributes(resource.attributes())?;
            attributes.set_dropped(resource.dropped_attributes_count());
        }
        Ok(model::Resource { attributes, schema_url: self.text(envelope.schema_url())? })
    }

    fn scope(&mut self, envelope: &view::ScopeSpans<'_>) -> Result<model::Scope, TooLarge> {
        let mut scope = model::Scope::default();
        if let Some(view) = envelope.scope() {
            scope.name = self.text(view.name())?;
            scope.version = self.text(view.version())?;
            scope.attributes = self.attributes(view.attributes())?;
            scope.attributes.set_dropped(view.dropped_attributes_count());
        }
        scope.schema_url = self.text(envelope.schema_url())?;
        Ok(scope)
    }

    /// The span, or `None` where no struct can hold it.
    fn span(&mut self, view: &view::Span<'_>) -> Result<Option<model::Span>, TooLarge> {
        if view.check().is_err() {
            return Ok(None);
        }
        let head = view.head();
        let Some(context) =
            self.context(head.trace_id, head.span_id, head.trace_state, head.flags)?
        else {
            return Ok(None);
        };
        self.charge(size_of::<model::Span>())?;
        let mut span = model::Span::new(context, self.text(head.name)?);
        span.flags = head.flags;
        span.parent_span_id = head.parent_span_id.and_then(model::SpanId::from_bytes);
        span.kind = model::SpanKind::from_number(head.kind);
        span.start_time_unix_nano = head.start_time_unix_nano;
        span.end_time_unix_nano = head.end_time_unix_nano;
        span.attributes = self.attributes(view.attributes())?;
        span.attributes.set_dropped(view.dropped_attributes_count());
        for event in view.events() {
            self.charge(size_of::<model::Event>())?;
            span.events.push(model::Event {
                time_unix_nano: event.time_unix_nano(),
                name: self.text(event.name())?,
                attributes: self.attributes(event.attributes())?.into_parts().0,
                dropped_attributes_count: event.dropped_attributes_count(),
            });
        }
        span.dropped_events_count = view.dropped_events_count();
        span.dropped_links_count = view.dropped_links_count();
        for link in view.links() {
            match self.link(&link)? {
                Some(link) => span.links.push(link),
                None => span.dropped_links_count = span.dropped_links_count.saturating_add(1),
            }
        }
        span.status = match view.status() {
            Some(status) if status.code() == 1 => model::Status::Ok,
            Some(status) if status.code() == 2 => {
                model::Status::Error { message: self.text(status.message())? }
            }
            _ => model::Status::Unset,
        };
        Ok(Some(span))
    }

    fn link(&mut self, view: &view::Link<'_>) -> Result<Option<model::Link>, TooLarge> {
        let flags = view.flags();
        let context = self.context(view.trace_id(), view.span_id(), view.trace_state(), flags)?;
        let Some(mut context) = context else { return Ok(None) };
        context.is_remote = flags & model::Span::IS_REMOTE != 0;
        self.charge(size_of::<model::Link>())?;
        Ok(Some(model::Link {
            context,
            flags,
            attributes: self.attributes(view.attributes())?.into_parts().0,
            dropped_attributes_count: view.dropped_attributes_count(),
        }))
    }

    fn context(
        &mut self,
        trace_id: Option<[u8; 16]>,
        span_id: Option<[u8; 8]>,
        trace_state: &[u8],
        flags: u32,
    ) -> Result<Option<model::SpanContext>, TooLarge> {
        let (Some(trace_id), Some(span_id)) = (
            trace_id.and_then(model::TraceId::from_bytes),
            span_id.and_then(model::SpanId::from_bytes),
        ) else {
            return Ok(None);
        };
        // The low byte holds the W3C trace flags; see `model::Span::flags`.
        let mut context = model::SpanContext::new(trace_id, span_id, TraceFlags(flags as u8));
        if !trace_state.is_empty() {
            self.charge(trace_state.len())?;
            let text = simdutf8::basic::from_utf8(trace_state).ok();
            match text.and_then(|text| TraceState::parse(text).ok()) {
                Some(state) => context.trace_state = state,
                None => self.texts_repaired += 1,
            }
        }
        Ok(Some(context))
    }

    fn attributes<'a>(
        &mut self,
        entries: impl Iterator<Item = view::KeyValue<'a>>,
    ) -> Result<Attributes, TooLarge> {
        let mut attributes = Attributes::new();
        for entry in entries {
            self.charge(size_of::<KeyValue>())?;
            let key = self.text(entry.key())?;
            attributes.push(KeyValue { key, value: self.value(entry.value())? });
        }
        Ok(attributes)
    }

    /// Recursion is bounded: what comes here was checked to nest no deeper than
    /// [`view::NESTING_MAX`].
    fn value(&mut self, view: view::AnyValue<'_>) -> Result<Value<'static>, TooLarge> {
        Ok(match view {
            view::AnyValue::Empty => Value::Empty,
            view::AnyValue::String(text) => Value::String(Cow::Owned(self.string(text)?)),
            view::AnyValue::Bool(truth) => Value::Bool(truth),
            view::AnyValue::Int(number) => Value::Int(number),
            view::AnyValue::Double(number) => Value::Double(number),
            view::AnyValue::Bytes(bytes) => {
                self.charge(bytes.len())?;
                Value::Bytes(Cow::Owned(bytes.to_vec()))
            }
            view::AnyValue::Array(elements) => {
                let mut values = Vec::new();
                for element in elements {
                    self.charge(size_of::<Value<'_>>())?;
                    values.push(self.value(element)?);
                }
                Value::Array(values)
            }
            view::AnyValue::Map(entries) => {
                let mut map = Vec::new();
                for entry in entries {
                    self.charge(size_of::<(Cow<'_, str>, Value<'_>)>())?;
                    let key = Cow::Owned(self.string(entry.key())?);
                    map.push((key, self.value(entry.value())?));
                }
                Value::Map(map)
            }
        })
    }

    fn text(&mut self, bytes: &[u8]) -> Result<Text, TooLarge> {
        // An empty text needs no allocation.
        if bytes.is_empty() { Ok(Text::default()) } else { Ok(Text::from(self.string(bytes)?)) }
    }

    fn string(&mut self, bytes: &[u8]) -> Result<String, TooLarge> {
        let string = match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                self.texts_repaired += 1;
                String::from_utf8_lossy(bytes).into_owned()
            }
        };
        self.charge(string.len())?;
        Ok(string)
    }
}
