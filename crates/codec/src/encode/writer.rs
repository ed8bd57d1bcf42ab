//! A span that is written from front to back while it is open.

use std::ops::Range;

use bytes::BufMut;
use spanwire_model::{SpanId, SpanKind, Status, TraceId, Value};

use super::RareFields;
use super::attribute::{put_attribute, put_name};
use crate::field::{scope_spans, span};

/// The body of one `Span` as far as it is known: ids and name from its start, attributes as they are
/// set. The rest comes where it ends, by [`SpanEnd`].
///
/// Each part is encoded once, so that ending a span is little more than a copy. A writer is used again
/// for the next span and keeps its storage.
///
/// ```
/// use spanwire_codec::encode::{SpanEnd, SpanWriter};
/// use spanwire_codec::view;
/// use spanwire_model::{SpanId, SpanKind, TraceId, Value};
///
/// let (Some(trace), Some(id)) = (TraceId::new(1), SpanId::new(2)) else { unreachable!() };
/// let mut writer = SpanWriter::default();
/// writer.begin(trace, id, "", None, "GET /users/{id}", SpanKind::Server);
/// writer.put_attribute("http.response.status_code", &Value::Int(200));
///
/// let end = SpanEnd {
///     start_time_unix_nano: 1_000,
///     end_time_unix_nano: 2_500,
///     flags: 0x101,
///     rest: None,
/// };
/// let mut chunk = vec![0; writer.framed_len(&end)];
/// writer.put_framed(&end, &mut &mut chunk[..]);
/// let span = view::framed(&chunk).next().expect("one span");
/// assert_eq!((span.name(), span.end_time_unix_nano()), (&b"GET /users/{id}"[..], 2_500));
/// ```
#[derive(Debug, Default)]
pub struct SpanWriter {
    body: Vec<u8>,
    /// The name field, tag and length included.
    name: Range<usize>,
    /// Where the attributes start; the times go right before them.
    attributes: usize,
}

/// What is known of a span where it ends.
#[derive(Clone, Copy, Debug)]
pub struct SpanEnd<'a> {
    /// Start, in nanoseconds since the Unix epoch. Written even if zero, as is the end.
    pub start_time_unix_nano: u64,
    /// End, in nanoseconds since the Unix epoch.
    pub end_time_unix_nano: u64,
    /// The raw flags; see [`Span::flags`](spanwire_model::Span::flags).
    pub flags: u32,
    /// What few spans have.
    pub rest: Option<SpanRest<'a>>,
}

/// The parts that most spans are without.
#[derive(Clone, Copy, Debug)]
pub struct SpanRest<'a> {
    /// Attributes left out.
    pub dropped_attributes_count: u32,
    /// What [`put_event`](super::put_event) appended.
    pub events: &'a [u8],
    /// Events left out.
    pub dropped_events_count: u32,
    /// What [`put_link`](super::put_link) appended.
    pub links: &'a [u8],
    /// Links left out.
    pub dropped_links_count: u32,
    /// How it ended.
    pub status: &'a Status,
}

impl<'a> SpanRest<'a> {
    fn rare(&self) -> RareFields<'a> {
        RareFields {
            dropped_attributes_count: self.dropped_attributes_count,
            dropped_events_count: self.dropped_events_count,
            dropped_links_count: self.dropped_links_count,
            status: self.status,
        }
    }

    #[cold]
    fn len(&self) -> usize {
        self.rare().len() + self.events.len() + self.links.len()
    }

    #[cold]
    fn put(&self, out: &mut impl BufMut) {
        self.rare().put(out, |out| out.put_slice(self.events), |out| out.put_slice(self.links));
    }
}

/// Bytes of both times with their tags.
const TIMES_LEN: usize = span::START_TIME_UNIX_NANO.size() + span::END_TIME_UNIX_NANO.size();

/// A tag of one byte and the longest varint.
const HEADER_LEN_MAX: usize = 11;

impl SpanWriter {
    /// Starts a span; what was written before is forgotten.
    #[inline]
    pub fn begin(
        &mut self,
        trace_id: TraceId,
        span_id: SpanId,
        trace_state: &str,
        parent_span_id: Option<SpanId>,
        name: &str,
        kind: SpanKind,
    ) {
        let body = &mut self.body;
        body.clear();
        super::put_ids(body, trace_id, span_id);
        span::TRACE_STATE.put_nonempty(body, trace_state.as_bytes());
        if let Some(parent) = parent_span_id {
            span::PARENT_SPAN_ID.put_array(body, parent.to_bytes());
        }
        let name_start = body.len();
        put_name(span::NAME, name, body);
        self.name = name_start..body.len();
        span::KIND.put_nonzero(body, kind as u64);
        self.attributes = body.len();
    }

    /// Replaces the name.
    ///
    /// Cost: moves what comes after it.
    pub fn set_name(&mut self, name: &str) {
        let mut header = [0; HEADER_LEN_MAX];
        let mut unused = &mut header[..];
        if !name.is_empty() {
            span::NAME.put_header(&mut unused, name.len());
        }
        let header_len = HEADER_LEN_MAX - unused.len();
        let old = self.name.clone();
        self.name.end = old.start + header_len + name.len();
        self.attributes = self.attributes - old.len() + self.name.len();
        self.body.splice(old, header[..header_len].iter().copied().chain(name.bytes()));
    }

    /// Appends an attribute, whose key must not be there yet.
    ///
    /// Cost: that of [`put_attribute`].
    #[inline(always)]
    pub fn put_attribute(&mut self, key: &str, value: &Value<'_>) {
        put_attribute(key, value, &mut self.body);
    }

    /// Bytes of the attributes so far.
    #[must_use]
    #[inline]
    pub fn attributes_len(&self) -> usize {
        self.body.len() - self.attributes
    }

    /// The attributes so far.
    #[must_use]
    #[inline]
    pub fn attributes(&self) -> &[u8] {
        self.body.get(self.attributes..).unwrap_or_default()
    }

    /// Takes attributes out, by their range within [`attributes`](Self::attributes).
    ///
    /// # Panics
    ///
    /// If the range reaches beyond them.
    pub fn cut_attributes(&mut self, range: Range<usize>) {
        let start = self.attributes;
        self.body.drain(start + range.start..start + range.end);
    }

    /// Bytes of the framed span.
    #[must_use]
    #[inline]
    pub fn framed_len(&self, end: &SpanEnd<'_>) -> usize {
        scope_spans::SPANS.size(self.len(end))
    }

    #[inline]
    fn len(&self, end: &SpanEnd<'_>) -> usize {
        let rest = end.rest.as_ref().map_or(0, SpanRest::len);
        let flags = if end.flags != 0 { span::FLAGS.size() } else { 0 };
        self.body.len() + TIMES_LEN + rest + flags
    }

    /// Appends the framed span: [`framed_len`](Self::framed_len) bytes.
    #[inline]
    pub fn put_framed(&self, end: &SpanEnd<'_>, out: &mut impl BufMut) {
        let (head, attributes) = self.body.split_at_checked(self.attributes).unwrap_or_default();
        scope_spans::SPANS.put_header(out, self.len(end));
        out.put_slice(head);
        // Into `out` and not into the body: a copy of bytes stored just before would have to wait
        // for them.
        let mut times = [0; TIMES_LEN];
        times[0] = span::START_TIME_UNIX_NANO.tag() as u8;
        times[1..9].copy_from_slice(&end.start_time_unix_nano.to_le_bytes());
        times[9] = span::END_TIME_UNIX_NANO.tag() as u8;
        times[10..].copy_from_slice(&end.end_time_unix_nano.to_le_bytes());
        out.put_slice(&times);
        if !attributes.is_empty() {
            out.put_slice(attributes);
        }
        if let Some(rest) = &end.rest {
            rest.put(out);
        }
        span::FLAGS.put_nonzero(out, end.flags);
    }

    /// Bytes of storage it keeps.
    #[must_use]
    #[inline]
    pub fn capacity(&self) -> usize {
        self.body.capacity()
    }
}
