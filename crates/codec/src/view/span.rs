use std::fmt;

use super::check::{self, SpanError};
use super::fields::Fields;
use super::value::KeyValue;
use crate::field::{event, link, span, status};
use crate::wire::{Field, Reader};

/// One span, as it lies in the buffer; its fields are read when asked for.
///
/// Getters scan the span's fields to its end, as the last of several counts: some thirty nanoseconds
/// each for a span of eight attributes. [`head`](Self::head) takes as long for nine of them. On a span
/// that [`check`](Self::check) refuses they read what comes before the fault.
///
/// Source: `message Span` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    body: &'a [u8],
}

impl<'a> Span<'a> {
    /// A span from its body, without tag and length; nothing is checked yet.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { body }
    }

    /// Whether the span may travel on: its ids have their lengths, its framing is right down to the
    /// last attribute, and each field of the schema has its wire type.
    ///
    /// All-zero ids, invalid UTF-8, duplicate keys, unknown enum numbers and odd times pass.
    ///
    /// # Errors
    ///
    /// The first [`SpanError`]; cost is one pass over the span, without allocation or recursion.
    pub fn check(&self) -> Result<(), SpanError> {
        check::span(self.body)
    }

    /// The trace, unless its id has another length than 16 bytes; all zeros are invalid too, but
    /// pass here.
    #[must_use]
    pub fn trace_id(&self) -> Option<[u8; 16]> {
        self.fields().bytes(span::TRACE_ID).try_into().ok()
    }

    /// The span's id, unless it has another length than 8 bytes; all zeros pass here.
    #[must_use]
    pub fn span_id(&self) -> Option<[u8; 8]> {
        self.fields().bytes(span::SPAN_ID).try_into().ok()
    }

    /// Whether the trace's or the span's id is all zeros, which the schema calls invalid.
    #[must_use]
    pub fn has_zero_id(&self) -> bool {
        self.trace_id() == Some([0; 16]) || self.span_id() == Some([0; 8])
    }

    /// W3C `tracestate`; not checked.
    #[must_use]
    pub fn trace_state(&self) -> &'a [u8] {
        self.fields().bytes(span::TRACE_STATE)
    }

    /// The parent; `None` for a root, where the field is empty, and for a wrong length.
    #[must_use]
    pub fn parent_span_id(&self) -> Option<[u8; 8]> {
        self.fields().bytes(span::PARENT_SPAN_ID).try_into().ok()
    }

    /// The operation's name, UTF-8 by contract but not checked.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.fields().bytes(span::NAME)
    }

    /// `SpanKind` as sent: 0 to 5, or what a newer peer has.
    #[must_use]
    pub fn kind(&self) -> i32 {
        self.fields().varint(span::KIND) as i32
    }

    /// Start, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn start_time_unix_nano(&self) -> u64 {
        self.fields().fixed64(span::START_TIME_UNIX_NANO)
    }

    /// End, in nanoseconds since the Unix epoch; a peer may send one before the start.
    #[must_use]
    pub fn end_time_unix_nano(&self) -> u64 {
        self.fields().fixed64(span::END_TIME_UNIX_NANO)
    }

    /// The attributes in the order sent; duplicates are passed on as they are.
    pub fn attributes(&self) -> impl Iterator<Item = KeyValue<'a>> + Clone + use<'a> {
        self.fields().repeated(span::ATTRIBUTES).map(KeyValue::new)
    }

    /// Attributes the producer left out.
    #[must_use]
    pub fn dropped_attributes_count(&self) -> u32 {
        self.fields().varint(span::DROPPED_ATTRIBUTES_COUNT) as u32
    }

    /// The events in the order sent.
    pub fn events(&self) -> impl Iterator<Item = Event<'a>> + Clone + use<'a> {
        self.fields().repeated(span::EVENTS).map(|body| Event { body })
    }

    /// Events the producer left out.
    #[must_use]
    pub fn dropped_events_count(&self) -> u32 {
        self.fields().varint(span::DROPPED_EVENTS_COUNT) as u32
    }

    /// The links in the order sent.
    pub fn links(&self) -> impl Iterator<Item = Link<'a>> + Clone + use<'a> {
        self.fields().repeated(span::LINKS).map(|body| Link { body })
    }

    /// Links the producer left out.
    #[must_use]
    pub fn dropped_links_count(&self) -> u32 {
        self.fields().varint(span::DROPPED_LINKS_COUNT) as u32
    }

    /// The outcome; absent means unset.
    #[must_use]
    pub fn status(&self) -> Option<SpanStatus<'a>> {
        Fields::of_singular(self.body, span::STATUS).map(|fields| SpanStatus { fields })
    }

    /// Bits 0 to 7: W3C trace flags. Bit 8: bit 9 is meant. Bit 9: the parent is remote. The rest
    /// is reserved and passed on.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.fields().fixed32(span::FLAGS)
    }

    /// The fields that say which span this is, what it was and when: one scan for all of them.
    ///
    /// ```
    /// use spanwire_codec::view::Span;
    ///
    /// let span = Span::new(&[0x2A, 2, b'o', b'k', 0x30, 2]); // name, kind
    /// let head = span.head();
    /// assert_eq!((head.name, head.kind, head.trace_id), (&b"ok"[..], 2, None));
    /// ```
    #[must_use]
    pub fn head(&self) -> SpanHead<'a> {
        SpanHead::read(self.body)
    }

    /// The raw body of the message, unknown fields included, without tag and length.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.body
    }

    pub(crate) const fn fields(&self) -> Fields<'a> {
        Fields::new(self.body)
    }
}

impl fmt::Debug for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({} bytes)", self.body.len())
    }
}

/// What identifies and describes a span, but for its attributes: what the getters of [`Span`] with the
/// same names give, read in one scan by [`Span::head`].
///
/// Source: `message Span` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy, Default)]
pub struct SpanHead<'a> {
    /// See [`Span::trace_id`].
    pub trace_id: Option<[u8; 16]>,
    /// See [`Span::span_id`].
    pub span_id: Option<[u8; 8]>,
    /// See [`Span::trace_state`].
    pub trace_state: &'a [u8],
    /// See [`Span::parent_span_id`].
    pub parent_span_id: Option<[u8; 8]>,
    /// See [`Span::name`].
    pub name: &'a [u8],
    /// See [`Span::kind`].
    pub kind: i32,
    /// See [`Span::start_time_unix_nano`].
    pub start_time_unix_nano: u64,
    /// See [`Span::end_time_unix_nano`].
    pub end_time_unix_nano: u64,
    /// See [`Span::flags`].
    pub flags: u32,
}

impl fmt::Debug for SpanHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanHead(name of {} bytes)", self.name.len())
    }
}

impl<'a> SpanHead<'a> {
    fn read(body: &'a [u8]) -> Self {
        let mut head = Self::default();
        let mut fields = Reader::new(body);
        while let Ok(Some(field)) = fields.field() {
            match field {
                Field::Len(span::ATTRIBUTES, _) => {
                    while fields.short(span::ATTRIBUTES).is_some() {}
                }
                Field::Len(span::TRACE_ID, id) => head.trace_id = id.try_into().ok(),
                Field::Len(span::SPAN_ID, id) => head.span_id = id.try_into().ok(),
                Field::Len(span::TRACE_STATE, state) => head.trace_state = state,
                Field::Len(span::PARENT_SPAN_ID, id) => head.parent_span_id = id.try_into().ok(),
                Field::Len(span::NAME, name) => head.name = name,
                Field::Varint(span::KIND, kind) => head.kind = kind as i32,
                Field::Fixed64(span::START_TIME_UNIX_NANO, time) => {
                    head.start_time_unix_nano = time;
                }
                Field::Fixed64(span::END_TIME_UNIX_NANO, time) => head.end_time_unix_nano = time,
                Field::Fixed32(span::FLAGS, flags) => head.flags = flags,
                _ => {}
            }
        }
        head
    }
}

/// What happened at one moment of a span, as it lies in the buffer.
///
/// Source: `message Span.Event` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    body: &'a [u8],
}

impl<'a> Event<'a> {
    /// When, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn time_unix_nano(&self) -> u64 {
        self.fields().fixed64(event::TIME_UNIX_NANO)
    }

    /// What, UTF-8 by contract but not checked.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.fields().bytes(event::NAME)
    }

    /// Details in the order sent.
    pub fn attributes(&self) -> impl Iterator<Item = KeyValue<'a>> + Clone + use<'a> {
        self.fields().repeated(event::ATTRIBUTES).map(KeyValue::new)
    }

    /// Attributes the producer left out.
    #[must_use]
    pub fn dropped_attributes_count(&self) -> u32 {
        self.fields().varint(event::DROPPED_ATTRIBUTES_COUNT) as u32
    }

    fn fields(&self) -> Fields<'a> {
        Fields::new(self.body)
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({} bytes)", self.body.len())
    }
}

/// A relation to another span, as it lies in the buffer.
///
/// Source: `message Span.Link` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct Link<'a> {
    body: &'a [u8],
}

impl<'a> Link<'a> {
    /// Trace of the linked span, where its id has 16 bytes.
    #[must_use]
    pub fn trace_id(&self) -> Option<[u8; 16]> {
        self.fields().bytes(link::TRACE_ID).try_into().ok()
    }

    /// The linked span, where its id has 8 bytes.
    #[must_use]
    pub fn span_id(&self) -> Option<[u8; 8]> {
        self.fields().bytes(link::SPAN_ID).try_into().ok()
    }

    /// W3C `tracestate` of the linked span; not checked.
    #[must_use]
    pub fn trace_state(&self) -> &'a [u8] {
        self.fields().bytes(link::TRACE_STATE)
    }

    /// What describes the relation, in the order sent.
    pub fn attributes(&self) -> impl Iterator<Item = KeyValue<'a>> + Clone + use<'a> {
        self.fields().repeated(link::ATTRIBUTES).map(KeyValue::new)
    }

    /// Attributes the producer left out.
    #[must_use]
    pub fn dropped_attributes_count(&self) -> u32 {
        self.fields().varint(link::DROPPED_ATTRIBUTES_COUNT) as u32
    }

    /// As [`Span::flags`], of the linked context.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.fields().fixed32(link::FLAGS)
    }

    fn fields(&self) -> Fields<'a> {
        Fields::new(self.body)
    }
}

impl fmt::Debug for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} bytes)", self.body.len())
    }
}

/// The outcome of a span, as it lies in the buffer.
///
/// Source: `message Status` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct SpanStatus<'a> {
    fields: Fields<'a>,
}

impl<'a> SpanStatus<'a> {
    /// Says more about an error; UTF-8 by contract but not checked.
    #[must_use]
    pub fn message(&self) -> &'a [u8] {
        self.fields.bytes(status::MESSAGE)
    }

    /// `StatusCode` as sent: 0 unset, 1 ok, 2 error, or what a newer peer has.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.fields.varint(status::CODE) as i32
    }
}

impl fmt::Debug for SpanStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanStatus(code {})", self.code())
    }
}
