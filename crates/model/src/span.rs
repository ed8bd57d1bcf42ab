use std::error::Error;

use smallvec::SmallVec;

use crate::{Attributes, KeyValue, Limits, SpanContext, SpanId, Text, TraceFlags};

/// What a span stands for in a call.
///
/// Source: `enum SpanKind` of `message Span` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SpanKind {
    /// Not given, or a number this version does not know.
    Unspecified = 0,
    /// An operation within an application.
    #[default]
    Internal = 1,
    /// The receiving side of a call.
    Server = 2,
    /// The calling side.
    Client = 3,
    /// Puts a message into a queue.
    Producer = 4,
    /// Takes a message from a queue.
    Consumer = 5,
}

impl SpanKind {
    /// The kind with this number on the wire; unknown ones are [`Unspecified`](Self::Unspecified).
    #[must_use]
    pub const fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }
}

/// How the operation ended.
///
/// Source: `message Status` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Nobody said.
    #[default]
    Unset,
    /// Somebody who knows said that it went well.
    Ok,
    /// It failed.
    Error {
        /// What a developer should read; may be empty.
        message: Text,
    },
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// When, in nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// What.
    pub name: Text,
    /// Further facts. A plain vector, so that an event stays small within its span.
    pub attributes: Vec<KeyValue>,
    /// Attributes left out because of a limit.
    pub dropped_attributes_count: u32,
}

/// A span of this or another trace that this one has to do with.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The other span.
    pub context: SpanContext,
    /// The raw `flags` field; see [`Span::flags`].
    pub flags: u32,
    /// Further facts.
    pub attributes: Vec<KeyValue>,
    /// Attributes left out because of a limit.
    pub dropped_attributes_count: u32,
}

/// A finished span, as plain data.
///
/// The first [`Attributes::INLINE`] attributes and [`Span::EVENTS_INLINE`] events need no allocation.
///
/// ```
/// use spanwire_model::{Span, SpanContext, SpanId, TraceFlags, TraceId};
///
/// let (Some(trace), Some(id)) = (TraceId::new(1), SpanId::new(2)) else { unreachable!() };
/// let mut span = Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "GET /users/{id}");
/// span.attributes.set("http.route", "/users/{id}");
/// assert_eq!(span.flags & 0x01, 0x01);
/// ```
///
/// Source: `message Span` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its ids, flags and trace state.
    pub context: SpanContext,
    /// The span that caused it; `None` for a root.
    pub parent_span_id: Option<SpanId>,
    /// The raw `flags` field: W3C trace flags in bits 0–7, [`HAS_IS_REMOTE`](Self::HAS_IS_REMOTE)
    /// and [`IS_REMOTE`](Self::IS_REMOTE) about the parent. Kept as it came when a span is read.
    pub flags: u32,
    /// The operation.
    pub name: Text,
    /// Its part in a call.
    pub kind: SpanKind,
    /// Start, in nanoseconds since the Unix epoch.
    pub start_time_unix_nano: u64,
    /// End, in nanoseconds since the Unix epoch.
    pub end_time_unix_nano: u64,
    /// Facts about the operation.
    pub attributes: Attributes,
    /// Moments within it.
    pub events: SmallVec<[Event; Self::EVENTS_INLINE]>,
    /// Events left out because of a limit.
    pub dropped_events_count: u32,
    /// Spans it has to do with.
    pub links: Vec<Link>,
    /// Links left out because of a limit.
    pub dropped_links_count: u32,
    /// How it ended.
    pub status: Status,
}

impl Span {
    /// Events held without an allocation.
    pub const EVENTS_INLINE: usize = 4;

    /// Bit of `flags`: it is known whether the parent (or linked context) is remote.
    pub const HAS_IS_REMOTE: u32 = 0x100;

    /// Bit of `flags`: the parent (or linked context) is remote.
    pub const IS_REMOTE: u32 = 0x200;

    /// A span without a parent.
    pub fn new(context: SpanContext, name: impl Into<Text>) -> Self {
        Self {
            flags: Self::flags_of(context.flags, false),
            context,
            parent_span_id: None,
            name: name.into(),
            kind: SpanKind::Internal,
            start_time_unix_nano: 0,
            end_time_unix_nano: 0,
            attributes: Attributes::new(),
            events: SmallVec::new(),
            dropped_events_count: 0,
            links: Vec::new(),
            dropped_links_count: 0,
            status: Status::Unset,
        }
    }

    /// The `flags` field of a span with these flags whose parent is remote or not, and of a link
    /// to a context with these flags that is remote or not.
    ///
    /// Source: `enum SpanFlags` in `trace/v1/trace.proto`, opentelemetry-proto v1.11.0.
    #[must_use]
    pub const fn flags_of(flags: TraceFlags, remote: bool) -> u32 {
        let remote = if remote { Self::IS_REMOTE } else { 0 };
        flags.0 as u32 | Self::HAS_IS_REMOTE | remote
    }

    /// Makes it a child of `parent`, in the same trace.
    pub fn set_parent(&mut self, parent: &SpanContext) {
        self.context.trace_id = parent.trace_id;
        self.parent_span_id = Some(parent.span_id);
        self.flags = Self::flags_of(self.context.flags, parent.is_remote);
    }

    /// Adds an event within the limits, those of its attributes included.
    pub fn add_event(
        &mut self,
        time_unix_nano: u64,
        name: impl Into<Text>,
        mut attributes: Attributes,
        limits: &Limits,
    ) {
        if self.events.len() >= limits.events as usize {
            self.dropped_events_count = self.dropped_events_count.saturating_add(1);
            return;
        }
        attributes.cut(limits.event_attributes, limits);
        let (attributes, dropped_attributes_count) = attributes.into_parts();
        let name = name.into();
        self.events.push(Event { time_unix_nano, name, attributes, dropped_attributes_count });
    }

    /// Adds a link within the limits, those of its attributes included; the flags tell whether the
    /// linked context is remote.
    pub fn add_link(&mut self, context: SpanContext, mut attributes: Attributes, limits: &Limits) {
        if self.links.len() >= limits.links as usize {
            self.dropped_links_count = self.dropped_links_count.saturating_add(1);
            return;
        }
        let flags = Self::flags_of(context.flags, context.is_remote);
        attributes.cut(limits.link_attributes, limits);
        let (attributes, dropped_attributes_count) = attributes.into_parts();
        self.links.push(Link { context, flags, attributes, dropped_attributes_count });
    }

    /// Adds an `exception` event for an error and marks the span as failed.
    ///
    /// `exception.type` is the type's name, `exception.message` the error's text, and
    /// `exception.stacktrace` its causes, one a line, where it has any.
    ///
    /// Source: "Recording exceptions" in semantic conventions v1.44 (`exceptions-spans.md`).
    pub fn record_error<E: Error + ?Sized>(
        &mut self,
        time_unix_nano: u64,
        error: &E,
        limits: &Limits,
    ) {
        let mut attributes = Attributes::new();
        let message = error.to_string();
        attributes.set(exception::TYPE, std::any::type_name::<E>());
        attributes.set(exception::MESSAGE, message.clone());
        if let Some(causes) = exception::causes(error) {
            attributes.set(exception::STACKTRACE, causes);
        }
        self.add_event(time_unix_nano, exception::EVENT, attributes, limits);
        self.status = Status::Error { message: message.into() };
    }

    /// Time between start and end in nanoseconds; zero where the end lies before the start.
    #[must_use]
    pub const fn duration_nanos(&self) -> u64 {
        self.end_time_unix_nano.saturating_sub(self.start_time_unix_nano)
    }
}

/// The names of an exception event (semantic conventions v1.44, `exceptions-spans.md`).
pub mod exception {
    use std::error::Error;
    use std::fmt::Write;

    /// Name of the event.
    pub const EVENT: &str = "exception";
    /// The error's type.
    pub const TYPE: &str = "exception.type";
    /// The error's text.
    pub const MESSAGE: &str = "exception.message";
    /// What led to it.
    pub const STACKTRACE: &str = "exception.stacktrace";

    /// Most causes followed; a cycle of sources ends here.
    const CAUSES_MAX: usize = 32;

    /// The causes of an error, one a line; `None` where it has none.
    pub fn causes<E: Error + ?Sized>(error: &E) -> Option<String> {
        let mut source = error.source()?;
        let mut text = String::new();
        for _ in 0..CAUSES_MAX {
            // Writing to a `String` cannot fail.
            let _infallible = writeln!(text, "caused by: {source}");
            match source.source() {
                Some(next) => source = next,
                None => break,
            }
        }
        text.truncate(text.trim_end().len());
        Some(text)
    }
}
