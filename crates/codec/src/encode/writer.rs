//! A span that is written from front to back while it is open.

use std::ops::Range;

use bytes::BufMut;
use spanwire_model::{SpanId, SpanKind, Status, TraceId, Value};

use super::{IDS_LEN, RareFields, put_attribute};
use crate::field::{any_value, key_value, scope_spans, span};
use crate::wire::{Field, Reader};

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
/// writer.put_framed(&end, &mut chunk);
/// let span = view::framed(&chunk).next().expect("one span");
/// assert_eq!((span.name(), span.end_time_unix_nano()), (&b"GET /users/{id}"[..], 2_500));
/// ```
#[derive(Debug, Default)]
pub struct SpanWriter {
    /// Initialised to its end, so that writing is a comparison and a store, and a copy may have a fixed
    /// size. The body is its first `len` bytes.
    bytes: Vec<u8>,
    len: usize,
    /// The name field, tag and length included.
    name: Range<usize>,
    /// Where the times go: [`TIMES_LEN`] bytes, which mean nothing before the span ends. The
    /// attributes follow.
    times: usize,
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

/// Longest name that is copied in place, without a call.
const SHORT_LEN_MAX: usize = 64;

/// Most bytes that a span with a short name and no trace state has before its attributes.
const SHORT_HEAD_LEN_MAX: usize =
    IDS_LEN + PARENT_LEN + SHORT_NAME_HEADER_LEN + SHORT_LEN_MAX + KIND_LEN + TIMES_LEN;

const PARENT_LEN: usize = span::PARENT_SPAN_ID.size(8);
const SHORT_NAME_HEADER_LEN: usize = span::NAME.size(0);
const KIND_LEN: usize = span::KIND.size(SpanKind::Consumer as u64);

/// Bytes that [`put_short_attribute`] may write to.
const SHORT_ATTRIBUTE_LEN_MAX: usize = 4 + SHORT_LEN_MAX + 4 + SHORT_LEN_MAX;

/// What is initialised behind a body: enough for a span of some ten attributes.
const ROOM_BYTES: usize = 512;
const _: () = assert!(ROOM_BYTES >= SHORT_HEAD_LEN_MAX && ROOM_BYTES >= SHORT_ATTRIBUTE_LEN_MAX);

impl SpanWriter {
    /// Starts a span; what was written before is forgotten.
    ///
    /// Inlined always: it has one hot caller, and half of it is known there.
    #[inline(always)]
    pub fn begin(
        &mut self,
        trace_id: TraceId,
        span_id: SpanId,
        trace_state: &str,
        parent_span_id: Option<SpanId>,
        name: &str,
        kind: SpanKind,
    ) {
        match self.bytes.first_chunk_mut::<SHORT_HEAD_LEN_MAX>() {
            Some(head) if trace_state.is_empty() && name.len() <= SHORT_LEN_MAX => {
                let mut at = IDS_LEN;
                super::put_ids(&mut &mut head[..IDS_LEN], trace_id, span_id);
                if let Some(parent) = parent_span_id {
                    span::PARENT_SPAN_ID.put_array(&mut &mut head[at..], parent.to_bytes());
                    at += PARENT_LEN;
                }
                let name_start = at;
                if !name.is_empty() {
                    head[at] = span::NAME.tag() as u8;
                    head[at + 1] = name.len() as u8;
                    at += SHORT_NAME_HEADER_LEN;
                    copy_short(name.as_bytes(), &mut head[at..]);
                    at += name.len();
                }
                self.name = name_start..at;
                if kind != SpanKind::Unspecified {
                    head[at] = span::KIND.tag() as u8;
                    head[at + 1] = kind as u8;
                    at += KIND_LEN;
                }
                self.times = at;
                self.len = at + TIMES_LEN;
            }
            _ => self.begin_long(trace_id, span_id, trace_state, parent_span_id, name, kind),
        }
    }

    /// [`begin`](Self::begin) for a head of any length.
    #[cold]
    #[inline(never)]
    fn begin_long(
        &mut self,
        trace_id: TraceId,
        span_id: SpanId,
        trace_state: &str,
        parent_span_id: Option<SpanId>,
        name: &str,
        kind: SpanKind,
    ) {
        let body = &mut self.bytes;
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
        self.times = body.len();
        self.len = self.times + TIMES_LEN;
        self.make_room();
    }

    /// Initialises some storage behind the body: enough for a few attributes, and not so much that many
    /// long ones are dear.
    fn make_room(&mut self) {
        self.bytes.resize(self.len + ROOM_BYTES, 0);
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
        self.bytes.truncate(self.len);
        self.times = self.times - old.len() + self.name.len();
        self.bytes.splice(old, header[..header_len].iter().copied().chain(name.bytes()));
        self.len = self.bytes.len();
        self.make_room();
    }

    /// Appends an attribute, whose key must not be there yet.
    ///
    /// Cost: two copies, of the key and of the value. Inlined always: where the kind of the value is
    /// known when compiled, the others cost nothing.
    #[inline(always)]
    pub fn put_attribute(&mut self, key: &str, value: &Value<'_>) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        match room.first_chunk_mut().and_then(|out| put_short_attribute(key, value, out)) {
            Some(len) => self.len += len,
            None => self.put_long_attribute(key, value),
        }
    }

    #[inline(never)]
    fn put_long_attribute(&mut self, key: &str, value: &Value<'_>) {
        self.bytes.truncate(self.len);
        put_attribute(key, value, &mut self.bytes);
        self.len = self.bytes.len();
        self.make_room();
    }

    /// The attributes so far.
    #[must_use]
    pub fn attributes(&self) -> &[u8] {
        self.bytes.get(self.times + TIMES_LEN..self.len).unwrap_or_default()
    }

    /// Takes the attribute with this key out; returns how many come before it.
    ///
    /// Cost: reads the attributes up to it, and moves those after it.
    pub fn remove_attribute(&mut self, key: &str) -> Option<usize> {
        let attributes = self.attributes();
        let mut reader = Reader::new(attributes);
        for before in 0.. {
            let start = attributes.len() - reader.rest().len();
            reader.tag().ok()?;
            let mut pair = reader.message().ok()?;
            let found = match pair.field() {
                Ok(Some(Field::Len(key_value::KEY, found))) => found,
                // An empty key is omitted, as is every proto3 default.
                _ => &[],
            };
            if found == key.as_bytes() {
                let end = attributes.len() - reader.rest().len();
                let first = self.times + TIMES_LEN;
                self.bytes.copy_within(first + end..self.len, first + start);
                self.len -= end - start;
                return Some(before);
            }
        }
        None
    }

    /// Bytes of the framed span.
    #[must_use]
    #[inline(always)]
    pub fn framed_len(&self, end: &SpanEnd<'_>) -> usize {
        scope_spans::SPANS.size(self.len(end))
    }

    #[inline(always)]
    fn len(&self, end: &SpanEnd<'_>) -> usize {
        let rest = end.rest.as_ref().map_or(0, SpanRest::len);
        let flags = if end.flags != 0 { span::FLAGS.size() } else { 0 };
        self.len + rest + flags
    }

    /// Writes the framed span to `out`.
    ///
    /// # Panics
    ///
    /// If no span was begun, or if `out` is shorter than [`framed_len`](Self::framed_len); debug builds
    /// also if it is longer.
    #[inline(always)]
    pub fn put_framed(&self, end: &SpanEnd<'_>, out: &mut [u8]) {
        let body = &self.bytes[..self.len];
        let header_len = put_frame_header(self.len(end), out);
        let (copy, mut out) = out[header_len..].split_at_mut(body.len());
        copy_body(body, copy);
        // Over the copy and not into the body before: a copy of bytes stored just before would have
        // to wait for them.
        let mut times = [0; TIMES_LEN];
        times[0] = span::START_TIME_UNIX_NANO.tag() as u8;
        times[1..9].copy_from_slice(&end.start_time_unix_nano.to_le_bytes());
        times[9] = span::END_TIME_UNIX_NANO.tag() as u8;
        times[10..].copy_from_slice(&end.end_time_unix_nano.to_le_bytes());
        copy[self.times..self.times + TIMES_LEN].copy_from_slice(&times);
        if let Some(rest) = &end.rest {
            rest.put(&mut out);
        }
        span::FLAGS.put_nonzero(&mut out, end.flags);
        debug_assert!(out.is_empty(), "`framed_len` is exact");
    }

    /// Bytes of storage it keeps.
    #[must_use]
    #[inline]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Forgets the span, and gives storage beyond so many bytes back.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
        self.bytes.shrink_to(bytes);
        (self.len, self.name, self.times) = (0, 0..0, 0);
    }
}

/// Writes an attribute of which every length takes one byte, and its copies no call; returns its length.
/// Other attributes are left to [`put_attribute`], which writes the same bytes.
#[inline(always)]
fn put_short_attribute(
    key: &str,
    value: &Value<'_>,
    out: &mut [u8; SHORT_ATTRIBUTE_LEN_MAX],
) -> Option<usize> {
    let value_len = match value {
        Value::String(text) if text.len() <= SHORT_LEN_MAX => 2 + text.len(),
        Value::Bool(_) => 2,
        Value::Int(number) => any_value::INT_VALUE.size(*number as u64),
        Value::Double(_) => any_value::DOUBLE_VALUE.size(),
        _ => return None,
    };
    let len = 2 + key.len() + 2 + value_len;
    if key.is_empty() || key.len() > SHORT_LEN_MAX || len >= 0x80 {
        return None;
    }
    out[0] = span::ATTRIBUTES.tag() as u8;
    out[1] = len as u8;
    out[2] = key_value::KEY.tag() as u8;
    out[3] = key.len() as u8;
    copy_short(key.as_bytes(), &mut out[4..]);
    let out = &mut out[4 + key.len()..];
    out[0] = key_value::VALUE.tag() as u8;
    out[1] = value_len as u8;
    match value {
        Value::String(text) => {
            out[2] = any_value::STRING_VALUE.tag() as u8;
            out[3] = text.len() as u8;
            copy_short(text.as_bytes(), &mut out[4..]);
        }
        Value::Bool(truth) => any_value::BOOL_VALUE.put(&mut &mut out[2..], u64::from(*truth)),
        Value::Int(number) => any_value::INT_VALUE.put(&mut &mut out[2..], *number as u64),
        Value::Double(number) => {
            any_value::DOUBLE_VALUE.put(&mut &mut out[2..], number.to_bits());
        }
        _ => return None,
    }
    Some(2 + len)
}

/// Writes what precedes a span of `len` bytes; returns how much that is.
#[inline(always)]
fn put_frame_header(len: usize, out: &mut [u8]) -> usize {
    const { assert!(scope_spans::SPANS.tag() < 0x80) };
    let tag = scope_spans::SPANS.tag() as u8;
    if len < 0x80 {
        out[..2].copy_from_slice(&[tag, len as u8]);
        2
    } else if len < 0x4000 {
        out[..3].copy_from_slice(&[tag, len as u8 | 0x80, (len >> 7) as u8]);
        3
    } else {
        put_long_frame_header(len, out)
    }
}

#[cold]
#[inline(never)]
fn put_long_frame_header(len: usize, out: &mut [u8]) -> usize {
    let room = out.len();
    let mut rest = out;
    scope_spans::SPANS.put_header(&mut rest, len);
    room - rest.len()
}

/// Copies the body of a span; short ones, which are those of a few attributes, in place.
#[inline(always)]
fn copy_body(body: &[u8], out: &mut [u8]) {
    if body.len() > 2 * 64 || !(copy_ends::<64>(body, out) || copy_ends::<32>(body, out)) {
        out.copy_from_slice(body);
    }
}

/// Copies a text of at most [`SHORT_LEN_MAX`] bytes to the start of `out`, which is longer.
///
/// Each length is two copies of a fixed size that may overlap: no call, and no register saved for one.
#[inline(always)]
fn copy_short(text: &[u8], out: &mut [u8]) {
    let out = &mut out[..text.len()];
    if !(copy_ends::<32>(text, out)
        || copy_ends::<16>(text, out)
        || copy_ends::<8>(text, out)
        || copy_ends::<4>(text, out))
    {
        for (to, from) in out.iter_mut().zip(text) {
            *to = *from;
        }
    }
}

/// Copies the first and the last `N` bytes, if there are as many.
#[inline(always)]
fn copy_ends<const N: usize>(text: &[u8], out: &mut [u8]) -> bool {
    let (Some(first), Some(last)) = (text.first_chunk::<N>(), text.last_chunk::<N>()) else {
        return false;
    };
    if let Some(to) = out.first_chunk_mut() {
        *to = *first;
    }
    if let Some(to) = out.last_chunk_mut() {
        *to = *last;
    }
    true
}
