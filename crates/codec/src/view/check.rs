use arrayvec::ArrayVec;

use super::request::Counts;
use crate::field::plain_tag::{
    BOOL, DOUBLE, END_TIME, INT, KEY, PARENT_SPAN_ID, SPAN_ID, SPAN_KIND, START_TIME, STRING,
    TRACE_ID, VALUE,
};
use crate::field::{
    Len, any_value, array_value, entity_ref, event, key_value, key_value_list, link, request,
    resource, resource_spans, scope, scope_spans, span, status,
};
use crate::wire::{self, Expected, Fault, Field, Reader, unknown};

/// Levels of arrays and maps that an attribute's value may have, as `AttributeValueDepthLimit` of
/// opentelemetry-specification v1.60. A scalar has none, `[]` has one.
pub const NESTING_MAX: usize = spanwire_model::Limits::DEPTH_MAX as usize;

/// Bytes that are not the protobuf message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf at byte {offset}: expected {expected}")]
pub struct Malformed {
    offset: usize,
    expected: Expected,
}

impl Malformed {
    /// Where in the checked bytes the fault lies.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// What should have been there.
    #[must_use]
    pub const fn expected(&self) -> Expected {
        self.expected
    }
}

impl From<Fault> for Malformed {
    fn from(Fault { offset, expected }: Fault) -> Self {
        Self { offset, expected }
    }
}

/// Why one span must not travel on; its neighbours may.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// The span's bytes are no `Span`; offsets count from where the span's body begins.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// `trace_id` has another length than 16.
    #[error("trace_id has {len} bytes, not 16")]
    TraceId {
        /// Its length.
        len: usize,
    },
    /// `span_id` has another length than 8.
    #[error("span_id has {len} bytes, not 8")]
    SpanId {
        /// Its length.
        len: usize,
    },
    /// `parent_span_id` is neither empty nor 8 bytes long.
    #[error("parent_span_id has {len} bytes, not 8 or 0")]
    ParentSpanId {
        /// Its length.
        len: usize,
    },
    /// `trace_id` of a link is neither empty nor 16 bytes long.
    #[error("trace_id of a link has {len} bytes, not 16 or 0")]
    LinkTraceId {
        /// Its length.
        len: usize,
    },
    /// `span_id` of a link is neither empty nor 8 bytes long.
    #[error("span_id of a link has {len} bytes, not 8 or 0")]
    LinkSpanId {
        /// Its length.
        len: usize,
    },
}

impl From<Fault> for SpanError {
    #[cold]
    fn from(fault: Fault) -> Self {
        SpanError::Malformed(fault.into())
    }
}

/// Checks a request down to where its spans begin, and shows each span's body to `visit`.
#[inline]
pub(super) fn request<'a>(
    bytes: &'a [u8],
    mut visit: impl FnMut(&'a [u8]),
) -> Result<Counts, Fault> {
    let mut counts = Counts::default();
    let mut request = Reader::new(bytes);
    while let Some((at, field)) = request.field_at()? {
        let Field::Len(request::RESOURCE_SPANS, body) = field else {
            unknown(at, &field, request::NUMBER_MAX)?;
            continue;
        };
        counts.resource_spans += 1;
        let mut resource_spans = request.within(body);
        while let Some((at, field)) = resource_spans.field_at()? {
            match field {
                Field::Len(resource_spans::SCOPE_SPANS, body) => {
                    counts.scope_spans += 1;
                    counts.spans += scope_spans(resource_spans.within(body), &mut visit)?;
                }
                Field::Len(resource_spans::RESOURCE, body) => {
                    resource(resource_spans.within(body))?;
                }
                Field::Len(resource_spans::SCHEMA_URL, _) => {}
                field => unknown(at, &field, resource_spans::NUMBER_MAX)?,
            }
        }
    }
    Ok(counts)
}

#[inline]
fn scope_spans<'a>(
    mut scope_spans: Reader<'a>,
    visit: &mut impl FnMut(&'a [u8]),
) -> Result<usize, Fault> {
    let mut spans = 0;
    while let Some((at, field)) = scope_spans.field_at()? {
        match field {
            Field::Len(scope_spans::SPANS, body) => {
                spans += 1;
                visit(body);
            }
            Field::Len(scope_spans::SCOPE, body) => scope(scope_spans.within(body))?,
            Field::Len(scope_spans::SCHEMA_URL, _) => {}
            field => unknown(at, &field, scope_spans::NUMBER_MAX)?,
        }
    }
    Ok(spans)
}

fn resource(mut resource: Reader<'_>) -> Result<(), Fault> {
    while let Some((at, field)) = resource.field_at()? {
        match field {
            Field::Len(resource::ATTRIBUTES, body) => {
                attributes(&mut resource, resource::ATTRIBUTES, body)?
            }
            Field::Len(resource::ENTITY_REFS, body) => entity_ref(resource.within(body))?,
            Field::Varint(resource::DROPPED_ATTRIBUTES_COUNT, _) => {}
            field => unknown(at, &field, resource::NUMBER_MAX)?,
        }
    }
    Ok(())
}

fn entity_ref(mut entity: Reader<'_>) -> Result<(), Fault> {
    while let Some((at, field)) = entity.field_at()? {
        match field {
            Field::Len(
                entity_ref::SCHEMA_URL
                | entity_ref::TYPE
                | entity_ref::ID_KEYS
                | entity_ref::DESCRIPTION_KEYS,
                _,
            ) => {}
            field => unknown(at, &field, entity_ref::NUMBER_MAX)?,
        }
    }
    Ok(())
}

fn scope(mut scope: Reader<'_>) -> Result<(), Fault> {
    while let Some((at, field)) = scope.field_at()? {
        match field {
            Field::Len(scope::ATTRIBUTES, body) => attributes(&mut scope, scope::ATTRIBUTES, body)?,
            Field::Len(scope::NAME | scope::VERSION, _)
            | Field::Varint(scope::DROPPED_ATTRIBUTES_COUNT, _) => {}
            field => unknown(at, &field, scope::NUMBER_MAX)?,
        }
    }
    Ok(())
}

/// Checks the body of one span; see [`Span::check`](super::Span::check).
pub(super) fn span(body: &[u8]) -> Result<(), SpanError> {
    let (mut trace_id, mut span_id, mut parent_span_id) = (0, 0, 0);
    let mut span = Reader::new(body);
    if span.plain(is_plain_ids) {
        (trace_id, span_id) = (16, 8);
        if span.plain(is_plain_parent) {
            parent_span_id = 8;
        }
        span.short(span::NAME);
        span.plain(is_plain_times);
    }
    while let Some((at, field)) = span.field_at()? {
        match field {
            Field::Len(span::ATTRIBUTES, body) => attributes(&mut span, span::ATTRIBUTES, body)?,
            Field::Len(span::TRACE_ID, id) => trace_id = id.len(),
            Field::Len(span::SPAN_ID, id) => span_id = id.len(),
            Field::Len(span::PARENT_SPAN_ID, id) => parent_span_id = id.len(),
            Field::Len(span::EVENTS, body) => event(span.within(body))?,
            Field::Len(span::LINKS, body) => link(span.within(body))?,
            Field::Len(span::STATUS, body) => status(span.within(body))?,
            Field::Len(span::NAME | span::TRACE_STATE, _)
            | Field::Varint(
                span::KIND
                | span::DROPPED_ATTRIBUTES_COUNT
                | span::DROPPED_EVENTS_COUNT
                | span::DROPPED_LINKS_COUNT,
                _,
            )
            | Field::Fixed64(span::START_TIME_UNIX_NANO | span::END_TIME_UNIX_NANO, _)
            | Field::Fixed32(span::FLAGS, _) => {}
            field => unknown(at, &field, span::NUMBER_MAX)?,
        }
    }
    match (trace_id, span_id, parent_span_id) {
        (16, 8, 0 | 8) => Ok(()),
        (16, 8, len) => Err(SpanError::ParentSpanId { len }),
        (16, len, _) => Err(SpanError::SpanId { len }),
        (len, ..) => Err(SpanError::TraceId { len }),
    }
}

fn event(mut event: Reader<'_>) -> Result<(), Fault> {
    while let Some((at, field)) = event.field_at()? {
        match field {
            Field::Len(event::ATTRIBUTES, body) => attributes(&mut event, event::ATTRIBUTES, body)?,
            Field::Len(event::NAME, _)
            | Field::Fixed64(event::TIME_UNIX_NANO, _)
            | Field::Varint(event::DROPPED_ATTRIBUTES_COUNT, _) => {}
            field => unknown(at, &field, event::NUMBER_MAX)?,
        }
    }
    Ok(())
}

fn link(mut link: Reader<'_>) -> Result<(), SpanError> {
    let (mut trace_id, mut span_id) = (0, 0);
    while let Some((at, field)) = link.field_at()? {
        match field {
            Field::Len(link::ATTRIBUTES, body) => attributes(&mut link, link::ATTRIBUTES, body)?,
            Field::Len(link::TRACE_ID, id) => trace_id = id.len(),
            Field::Len(link::SPAN_ID, id) => span_id = id.len(),
            Field::Len(link::TRACE_STATE, _)
            | Field::Varint(link::DROPPED_ATTRIBUTES_COUNT, _)
            | Field::Fixed32(link::FLAGS, _) => {}
            field => unknown(at, &field, link::NUMBER_MAX)?,
        }
    }
    // The schema calls a span invalid for its own ids only. An absent linked id passes therefore,
    // but one of a wrong length makes strict destinations refuse the whole request.
    match (trace_id, span_id) {
        (0 | 16, 0 | 8) => Ok(()),
        (0 | 16, len) => Err(SpanError::LinkSpanId { len }),
        (len, _) => Err(SpanError::LinkTraceId { len }),
    }
}

fn status(mut status: Reader<'_>) -> Result<(), Fault> {
    while let Some((at, field)) = status.field_at()? {
        match field {
            Field::Len(status::MESSAGE, _) | Field::Varint(status::CODE, _) => {}
            field if field.number() == status::RESERVED => {}
            field => unknown(at, &field, status::NUMBER_MAX)?,
        }
    }
    Ok(())
}

/// Checks the attribute that `parent` has just read, and those that follow it.
#[inline(always)]
fn attributes<'a>(parent: &mut Reader<'a>, field: Len, first: &'a [u8]) -> Result<(), Fault> {
    let mut next = Some(first);
    while let Some(body) = next {
        if !is_short(body) && !is_plain(body) {
            nested(parent.within(body))?;
        }
        next = parent.short(field);
    }
    Ok(())
}

/// Whether an attribute has the form that nearly all have: a key, then a scalar, each shorter than
/// 128 bytes, and nothing else. Checked in a few comparisons.
#[inline(always)]
fn is_short(key_value: &[u8]) -> bool {
    let [KEY, key_len @ 0..0x80, key @ ..] = key_value else { return false };
    // A scalar has two bytes at least.
    let Some([VALUE, len @ 0..0x80, kind, first, rest @ ..]) = key.get(usize::from(*key_len)..)
    else {
        return false;
    };
    usize::from(*len) == 2 + rest.len()
        && match *kind {
            STRING => usize::from(*first) == rest.len(),
            BOOL => *first < 0x80 && rest.is_empty(),
            INT => matches!((*first, rest), (0..0x80, []) | (0x80.., [0..0x80])),
            DOUBLE => rest.len() == 7,
            _ => false,
        }
}

/// Whether an attribute is a key, then a scalar, and nothing else: half the cost of [`nested`].
fn is_plain(key_value: &[u8]) -> bool {
    let [KEY, key @ ..] = key_value else { return false };
    let Some((_, [VALUE, value @ ..])) = wire::split_len(key) else { return false };
    match wire::split_len(value) {
        Some(([STRING, text @ ..], [])) => matches!(wire::split_len(text), Some((_, []))),
        Some(([BOOL | INT, number @ ..], [])) => {
            matches!(wire::split_varint(number), Some((_, [])))
        }
        Some(([DOUBLE, bits @ ..], [])) => bits.len() == 8,
        _ => false,
    }
}

/// Whether a span begins as nearly all do: with a trace id of 16 bytes and a span id of 8.
#[inline(always)]
fn is_plain_ids(head: &[u8; 28]) -> bool {
    (head[0], head[1], head[18], head[19]) == (TRACE_ID, 16, SPAN_ID, 8)
}

/// Whether the parent's id of 8 bytes comes next.
#[inline(always)]
fn is_plain_parent(field: &[u8; 10]) -> bool {
    (field[0], field[1]) == (PARENT_SPAN_ID, 8)
}

/// Whether the kind and both times come next.
#[inline(always)]
fn is_plain_times(fields: &[u8; 20]) -> bool {
    (fields[0], fields[2], fields[11]) == (SPAN_KIND, START_TIME, END_TIME) && fields[1] < 0x80
}

/// The messages that nest in each other.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
}

/// Messages open at once: the attribute and its value, then for each level at most a list, an entry
/// and the entry's value.
const OPEN_MAX: usize = 2 + 3 * NESTING_MAX;

/// Checks an attribute of any form, without recursion: a peer decides how deep it is.
fn nested(attribute: Reader<'_>) -> Result<(), Fault> {
    let mut outer = ArrayVec::<(Reader<'_>, Kind), OPEN_MAX>::new();
    let (mut message, mut kind) = (attribute, Kind::KeyValue);
    let mut nesting = 0;
    loop {
        let Some((at, field)) = message.field_at()? else {
            let Some(parent) = outer.pop() else { return Ok(()) };
            nesting -= usize::from(matches!(kind, Kind::ArrayValue | Kind::KeyValueList));
            (message, kind) = parent;
            continue;
        };
        let (body, inner) = match (kind, field) {
            (Kind::KeyValue, Field::Len(key_value::VALUE, body)) => (body, Kind::AnyValue),
            (Kind::AnyValue, Field::Len(any_value::ARRAY_VALUE, body)) => (body, Kind::ArrayValue),
            (Kind::AnyValue, Field::Len(any_value::KVLIST_VALUE, body)) => {
                (body, Kind::KeyValueList)
            }
            (Kind::ArrayValue, Field::Len(array_value::VALUES, body)) => (body, Kind::AnyValue),
            (Kind::KeyValueList, Field::Len(key_value_list::VALUES, body)) => {
                (body, Kind::KeyValue)
            }
            (Kind::KeyValue, field) => {
                key_value_leaf(at, &field)?;
                continue;
            }
            (Kind::AnyValue, field) => {
                any_value_leaf(at, &field)?;
                continue;
            }
            (Kind::ArrayValue, field) => {
                unknown(at, &field, array_value::NUMBER_MAX)?;
                continue;
            }
            (Kind::KeyValueList, field) => {
                unknown(at, &field, key_value_list::NUMBER_MAX)?;
                continue;
            }
        };
        nesting += usize::from(matches!(inner, Kind::ArrayValue | Kind::KeyValueList));
        let child = message.within(body);
        if nesting > NESTING_MAX || outer.try_push((message, kind)).is_err() {
            return Err(Fault { offset: at, expected: Expected::Nesting });
        }
        (message, kind) = (child, inner);
    }
}

fn key_value_leaf(at: usize, field: &Field<'_>) -> Result<(), Fault> {
    match field {
        Field::Len(key_value::KEY, _) | Field::Varint(key_value::KEY_STRINDEX, _) => Ok(()),
        field => unknown(at, field, key_value::NUMBER_MAX),
    }
}

fn any_value_leaf(at: usize, field: &Field<'_>) -> Result<(), Fault> {
    match field {
        Field::Len(any_value::STRING_VALUE | any_value::BYTES_VALUE, _)
        | Field::Varint(
            any_value::BOOL_VALUE | any_value::INT_VALUE | any_value::STRING_VALUE_STRINDEX,
            _,
        )
        | Field::Fixed64(any_value::DOUBLE_VALUE, _) => Ok(()),
        field => unknown(at, field, any_value::NUMBER_MAX),
    }
}
