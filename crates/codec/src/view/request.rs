use std::fmt;

use super::check::{self, Malformed};
use super::fields::Fields;
use super::span::Span;
use super::value::KeyValue;
use crate::field::{entity_ref, request, resource, resource_spans, scope, scope_spans};

/// An export request, as it lies in the buffer, valid down to where its spans begin.
///
/// Source: `message ExportTraceServiceRequest` in `collector/trace/v1/trace_service.proto`,
/// opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    body: &'a [u8],
    counts: Counts,
}

/// What a request holds.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) resource_spans: usize,
    pub(super) scope_spans: usize,
    pub(super) spans: usize,
}

impl<'a> Request<'a> {
    /// Checks a request's framing and counts its spans.
    ///
    /// Resources and scopes are checked whole, as they concern all their spans; of each span only
    /// where it ends, so this visits a few bytes a span. See [`Span::check`] for the rest.
    ///
    /// # Errors
    ///
    /// [`Malformed`] where the bytes are no request; there is no part of it to be saved then.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Ok(Self { body: bytes, counts: check::request(bytes, |_| {})? })
    }

    /// Number of spans, well-formed or not.
    #[must_use]
    pub const fn spans(&self) -> usize {
        self.counts.spans
    }

    /// Number of `ResourceSpans` and `ScopeSpans`, empty ones included: what a budget that counts
    /// elements must allow beside the spans.
    #[must_use]
    pub const fn envelopes(&self) -> usize {
        self.counts.resource_spans + self.counts.scope_spans
    }

    /// The spans by resource.
    pub fn resource_spans(&self) -> impl Iterator<Item = ResourceSpans<'a>> + Clone + use<'a> {
        let fields = Fields::new(self.body);
        fields.repeated(request::RESOURCE_SPANS).map(|body| ResourceSpans { body })
    }

    /// The raw body of the message.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.body
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} spans in {} bytes)", self.counts.spans, self.body.len())
    }
}

/// Spans of one resource, as they lie in the buffer.
///
/// Source: `message ResourceSpans` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct ResourceSpans<'a> {
    pub(crate) body: &'a [u8],
}

impl<'a> ResourceSpans<'a> {
    /// What produced the spans; absent means nothing is known.
    #[must_use]
    pub fn resource(&self) -> Option<Resource<'a>> {
        Fields::of_singular(self.body, resource_spans::RESOURCE).map(|fields| Resource { fields })
    }

    /// Schema of the resource; UTF-8 by contract but not checked.
    #[must_use]
    pub fn schema_url(&self) -> &'a [u8] {
        Fields::new(self.body).bytes(resource_spans::SCHEMA_URL)
    }

    /// The spans by instrumentation scope.
    pub fn scope_spans(&self) -> impl Iterator<Item = ScopeSpans<'a>> + Clone + use<'a> {
        let fields = Fields::new(self.body);
        fields.repeated(resource_spans::SCOPE_SPANS).map(|body| ScopeSpans { body })
    }

    /// The raw body of the message, unknown fields included.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.body
    }
}

impl fmt::Debug for ResourceSpans<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceSpans({} bytes)", self.body.len())
    }
}

/// Spans of one instrumentation scope, as they lie in the buffer.
///
/// Source: `message ScopeSpans` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct ScopeSpans<'a> {
    pub(crate) body: &'a [u8],
}

impl<'a> ScopeSpans<'a> {
    /// What recorded the spans; absent means unknown.
    #[must_use]
    pub fn scope(&self) -> Option<Scope<'a>> {
        Fields::of_singular(self.body, scope_spans::SCOPE).map(|fields| Scope { fields })
    }

    /// Schema of the scope, the spans and their events; UTF-8 by contract but not checked.
    #[must_use]
    pub fn schema_url(&self) -> &'a [u8] {
        Fields::new(self.body).bytes(scope_spans::SCHEMA_URL)
    }

    /// The spans, well-formed or not.
    pub fn spans(&self) -> impl Iterator<Item = Span<'a>> + Clone + use<'a> {
        Fields::new(self.body).repeated(scope_spans::SPANS).map(Span::new)
    }

    /// The raw body of the message, unknown fields included.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.body
    }
}

impl fmt::Debug for ScopeSpans<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopeSpans({} bytes)", self.body.len())
    }
}

/// What produced spans, as it lies in the buffer.
///
/// Source: `message Resource` in `resource/v1/resource.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct Resource<'a> {
    fields: Fields<'a>,
}

impl<'a> Resource<'a> {
    /// The attributes in the order sent.
    pub fn attributes(&self) -> impl Iterator<Item = KeyValue<'a>> + Clone + use<'a> {
        self.fields.repeated(resource::ATTRIBUTES).map(KeyValue::new)
    }

    /// Attributes the producer left out.
    #[must_use]
    pub fn dropped_attributes_count(&self) -> u32 {
        self.fields.varint(resource::DROPPED_ATTRIBUTES_COUNT) as u32
    }

    /// The entities that the resource consists of.
    pub fn entity_refs(&self) -> impl Iterator<Item = EntityRef<'a>> + Clone + use<'a> {
        self.fields.repeated(resource::ENTITY_REFS).map(|body| EntityRef { body })
    }
}

impl fmt::Debug for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({} attributes)", self.attributes().count())
    }
}

/// An entity, by reference to attributes, as it lies in the buffer. Strings are not checked.
///
/// Source: `message EntityRef` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct EntityRef<'a> {
    body: &'a [u8],
}

impl<'a> EntityRef<'a> {
    /// Schema of the entity.
    #[must_use]
    pub fn schema_url(&self) -> &'a [u8] {
        Fields::new(self.body).bytes(entity_ref::SCHEMA_URL)
    }

    /// The kind of entity, such as `service` or `host`.
    #[must_use]
    pub fn kind(&self) -> &'a [u8] {
        Fields::new(self.body).bytes(entity_ref::TYPE)
    }

    /// Keys of the attributes that identify the entity.
    pub fn id_keys(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        Fields::new(self.body).repeated(entity_ref::ID_KEYS)
    }

    /// Keys of the attributes that describe it.
    pub fn description_keys(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        Fields::new(self.body).repeated(entity_ref::DESCRIPTION_KEYS)
    }
}

impl fmt::Debug for EntityRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntityRef({} bytes)", self.body.len())
    }
}

/// What recorded spans, as it lies in the buffer.
///
/// Source: `message InstrumentationScope` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    fields: Fields<'a>,
}

impl<'a> Scope<'a> {
    /// The library's name; empty means unknown. UTF-8 by contract but not checked.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.fields.bytes(scope::NAME)
    }

    /// The library's version; empty means unknown. UTF-8 by contract but not checked.
    #[must_use]
    pub fn version(&self) -> &'a [u8] {
        self.fields.bytes(scope::VERSION)
    }

    /// What else describes the scope, in the order sent.
    pub fn attributes(&self) -> impl Iterator<Item = KeyValue<'a>> + Clone + use<'a> {
        self.fields.repeated(scope::ATTRIBUTES).map(KeyValue::new)
    }

    /// Attributes the producer left out.
    #[must_use]
    pub fn dropped_attributes_count(&self) -> u32 {
        self.fields.varint(scope::DROPPED_ATTRIBUTES_COUNT) as u32
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({} attributes)", self.attributes().count())
    }
}

/// The spans among framed ones, as [`encode`](crate::encode) appends them and `ScopeSpans` repeats
/// them. Ends where the framing is wrong.
pub fn framed(spans: &[u8]) -> impl Iterator<Item = Span<'_>> + Clone {
    ScopeSpans { body: spans }.spans()
}
