//! A span that is written from front to back while it is open.

use std::ops::Range;

use bytes::BufMut;
use spanwire_model::{SpanId, SpanKind, Status, TraceId, Value};

use super::{RareFields, put_attribute};
use crate::field::{scope_spans, span};

/// The body of one `Span` as far as it is known: ids and name when it starts, attributes as they are
/// set, the rest where it ends.
///
/// Each part is encoded once, right where it stays, so that ending a span is little more than one
/// copy of the whole. A writer is used again for the next span and keeps its storage.
///
/// ```
/// use spanwire_codec::encode::SpanWriter;
/// use spanwire_codec::view;
/// use spanwire_model::{SpanId, SpanKind, TraceId, Value};
///
/// let (Some(trace), Some(id)) = (TraceId::new(1), SpanId::new(2)) else { unreachable!() };
/// let mut writer = SpanWriter::default();
/// writer.begin(trace, id, "", None, "GET /users/{id}", SpanKind::Server);
/// writer.put_attribute("http.response.status_code", &Value::Int(200));
/// writer.end(1_000, 2_500, 0x101, None);
///
/// let mut chunk = vec![0; writer.framed_len()];
/// writer.put_framed(&mut &mut chunk[..]);
/// let span = view::framed(&chunk).next().expect("one span");
/// assert_eq!((span.name(), span.end_time_unix_nano()), (&b"GET /users/{id}"[..], 2_500));
/// ```
#[derive(Debug, Default)]
pub struct SpanWriter {
    body: Vec<u8>,
    /// The name field, tag and length included.
    name: Range<usize>,
    /// Where the attributes start, right after the times.
    attributes: usize,
}

/// What few spans have, for [`SpanWriter::end`].
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

/// Both times, to be filled in at the end: written even if zero, unlike other defaults.
const TIMES: [u8; 18] = {
    let mut times = [0; 18];
    times[0] = span::START_TIME_UNIX_NANO.tag() as u8;
    times[9] = span::END_TIME_UNIX_NANO.tag() as u8;
    times
};

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
        span::NAME.put_nonempty(body, name.as_bytes());
        self.name = name_start..body.len();
        span::KIND.put_nonzero(body, kind as u64);
        body.put_slice(&TIMES);
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

    /// Completes the span.
    #[inline]
    pub fn end(
        &mut self,
        start_time_unix_nano: u64,
        end_time_unix_nano: u64,
        flags: u32,
        rest: Option<SpanRest<'_>>,
    ) {
        let times = self.attributes.checked_sub(TIMES.len()).and_then(|at| self.body.get_mut(at..));
        // A writer that was never begun has none.
        if let Some(times) = times.and_then(|tail| tail.first_chunk_mut::<{ TIMES.len() }>()) {
            times[1..9].copy_from_slice(&start_time_unix_nano.to_le_bytes());
            times[10..].copy_from_slice(&end_time_unix_nano.to_le_bytes());
        }
        if let Some(rest) = &rest {
            self.put_rest(rest);
        }
        span::FLAGS.put_nonzero(&mut self.body, flags);
    }

    #[cold]
    fn put_rest(&mut self, rest: &SpanRest<'_>) {
        let rare = RareFields {
            dropped_attributes_count: rest.dropped_attributes_count,
            dropped_events_count: rest.dropped_events_count,
            dropped_links_count: rest.dropped_links_count,
            status: rest.status,
        };
        let body = &mut self.body;
        rare.put(body, |out| out.put_slice(rest.events), |out| out.put_slice(rest.links));
    }

    /// Bytes of the framed span.
    #[must_use]
    #[inline]
    pub fn framed_len(&self) -> usize {
        scope_spans::SPANS.size(self.body.len())
    }

    /// Appends the framed span: [`framed_len`](Self::framed_len) bytes.
    #[inline]
    pub fn put_framed(&self, out: &mut impl BufMut) {
        scope_spans::SPANS.put(out, &self.body);
    }

    /// Bytes of storage it keeps.
    #[must_use]
    #[inline]
    pub fn capacity(&self) -> usize {
        self.body.capacity()
    }
}
