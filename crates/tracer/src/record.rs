//! A span while it is open: what was set so far, as wire bytes already.

use std::borrow::Cow;
use std::mem::ManuallyDrop;

use smallvec::SmallVec;
use spanwire_codec::encode::{self, SpanEnd, SpanRest, SpanWriter};
use spanwire_model::{Attributes, Limits, Link, Span, SpanContext, Status, Value};

use crate::clock;

/// Storage kept by a pooled record, for attributes, events and links each; what is larger is freed, so
/// that one huge span does not pin its memory for good. Storage doubles as it grows, so half of it is
/// what a span may have and allocate nothing.
const KEPT_BYTES: usize = 8 << 10;

/// What the tracer knows of an open span.
///
/// All of it is encoded where it is set: borrowed text is copied once, right to where the wire wants
/// it, and no value is ever held as an object. Records are reused.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) writer: SpanWriter,
    pub(crate) flags: u32,
    pub(crate) started: Time,
    pub(crate) ended: Time,
    limits: Limits,
    index: Index,
    rest: Rest,
}

/// What few spans have. The others pay for one branch when they end, and no more.
#[derive(Debug, Default)]
struct Rest {
    /// Whether anything below is other than its default.
    used: bool,
    status: Status,
    dropped_attributes: u32,
    events: Encoded,
    links: Encoded,
}

/// A moment as it was given or taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Time {
    /// Not yet.
    #[default]
    Never,
    /// Ticks of the clock.
    Ticks(u64),
    /// Nanoseconds since the Unix epoch, from the caller.
    UnixNano(u64),
}

/// Fields encoded so far, with their number.
#[derive(Debug, Default)]
struct Encoded {
    bytes: Vec<u8>,
    count: u32,
    dropped: u32,
}

impl Encoded {
    /// Counts one in; `false` when it is over the limit and counted as dropped.
    fn admit(&mut self, count_max: u32) -> bool {
        let admitted = self.count < count_max;
        let counter = if admitted { &mut self.count } else { &mut self.dropped };
        *counter = counter.saturating_add(1);
        admitted
    }

    fn reset(&mut self) {
        reset_bytes(&mut self.bytes);
        self.count = 0;
        self.dropped = 0;
    }
}

impl Record {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Forgets the span and keeps the storage; what is written is overwritten by the next one.
    #[inline]
    pub(crate) fn reset(&mut self) {
        self.ended = Time::Never;
        self.index.clear();
        if self.writer.capacity() > KEPT_BYTES {
            self.shrink();
        }
        if self.rest.used {
            self.rest.reset();
        }
    }

    #[cold]
    fn shrink(&mut self) {
        self.writer.shrink_to(KEPT_BYTES);
        self.index.fingerprints.shrink_to(KEPT_BYTES / size_of::<u32>());
    }

    /// Sets an attribute; an earlier one with this key goes.
    ///
    /// One copy of the encoder for each of the common kinds: with the kind known when compiled, half
    /// of the work is gone.
    #[inline(always)]
    pub(crate) fn set_attribute(&mut self, key: &str, value: Value<'_>) {
        // Of these kinds nothing needs dropping, and the compiler does not see that by itself.
        let value = ManuallyDrop::new(value);
        match &*value {
            Value::String(Cow::Borrowed(text)) => self.set_text(key, text),
            Value::Int(number) => self.set_int(key, *number),
            Value::Bool(truth) => self.set_bool(key, *truth),
            Value::Double(number) => self.set_double(key, *number),
            _ => self.set_other(key, ManuallyDrop::into_inner(value)),
        }
    }

    #[inline(never)]
    fn set_text(&mut self, key: &str, text: &str) {
        let text = self.limits.cut_text(text);
        self.set(key, &ManuallyDrop::new(Value::String(Cow::Borrowed(text))));
    }

    #[inline(never)]
    fn set_int(&mut self, key: &str, number: i64) {
        self.set(key, &ManuallyDrop::new(Value::Int(number)));
    }

    #[inline(never)]
    fn set_bool(&mut self, key: &str, truth: bool) {
        self.set(key, &ManuallyDrop::new(Value::Bool(truth)));
    }

    #[inline(never)]
    fn set_double(&mut self, key: &str, number: f64) {
        self.set(key, &ManuallyDrop::new(Value::Double(number)));
    }

    #[inline(never)]
    fn set_other(&mut self, key: &str, mut value: Value<'_>) {
        self.limits.cut(&mut value);
        self.set(key, &value);
    }

    #[inline(always)]
    fn set(&mut self, key: &str, value: &Value<'_>) {
        let fingerprint = fingerprint(key);
        if self.index.may_have(fingerprint) {
            self.remove(fingerprint, key);
        }
        if self.index.len() >= self.limits.attributes as usize {
            return self.drop_attribute();
        }
        self.writer.put_attribute(key, value);
        self.index.push(fingerprint);
    }

    #[cold]
    #[inline(never)]
    fn remove(&mut self, fingerprint: u32, key: &str) {
        // Another key may have the same fingerprint.
        if self.index.has(fingerprint)
            && let Some(at) = self.writer.remove_attribute(key)
        {
            self.index.remove(at);
        }
    }

    #[cold]
    #[inline(never)]
    fn drop_attribute(&mut self) {
        self.rest.used = true;
        self.rest.dropped_attributes = self.rest.dropped_attributes.saturating_add(1);
    }

    /// `Ok` is final; `Unset` changes nothing.
    pub(crate) fn set_status(&mut self, status: Status) {
        if self.rest.status != Status::Ok && status != Status::Unset {
            self.rest.used = true;
            self.rest.status = status;
        }
    }

    pub(crate) fn add_event<'a>(
        &mut self,
        time_unix_nano: u64,
        name: &str,
        attributes: impl IntoIterator<Item = (&'a str, Value<'a>)>,
    ) {
        self.rest.used = true;
        if !self.rest.events.admit(self.limits.events) {
            return;
        }
        let mut unique: SmallVec<[(&str, Value<'a>); 8]> = SmallVec::new();
        let mut dropped = 0u32;
        for (key, mut value) in attributes {
            self.limits.cut(&mut value);
            match unique.iter().position(|(known, _)| *known == key) {
                Some(at) => unique[at].1 = value,
                None if unique.len() < self.limits.event_attributes as usize => {
                    unique.push((key, value));
                }
                None => dropped = dropped.saturating_add(1),
            }
        }
        let pairs = unique.iter().map(|(key, value)| (*key, value));
        encode::put_event(time_unix_nano, name, pairs, dropped, &mut self.rest.events.bytes);
    }

    pub(crate) fn add_link<'a>(
        &mut self,
        context: &SpanContext,
        attributes: impl IntoIterator<Item = (&'a str, Value<'a>)>,
    ) {
        self.rest.used = true;
        if !self.rest.links.admit(self.limits.links) {
            return;
        }
        let limits = Limits { attributes: self.limits.link_attributes, ..self.limits };
        let mut unique = Attributes::new();
        for (key, value) in attributes {
            unique.set_within(String::from(key), value.into_owned(), &limits);
        }
        let (attributes, dropped_attributes_count) = unique.into_parts();
        let flags = Span::flags_of(context.flags, context.is_remote);
        let link = Link { context: context.clone(), flags, attributes, dropped_attributes_count };
        encode::put_link(&link, &mut self.rest.links.bytes);
    }

    /// It ends now, unless the caller has said when.
    #[inline]
    pub(crate) fn end_now(&mut self) {
        if let Time::Never = self.ended {
            self.ended = Time::Ticks(clock::ticks());
        }
    }

    /// What completes the wire bytes.
    pub(crate) fn end(&self) -> SpanEnd<'_> {
        let (start_time_unix_nano, end_time_unix_nano) = match (self.started, self.ended) {
            (Time::Ticks(start), Time::Ticks(end)) => clock::unix_nanos(start, end),
            (start, end) => mixed_times(start, end),
        };
        let rest = self.rest.used.then(|| self.rest.parts());
        SpanEnd { start_time_unix_nano, end_time_unix_nano, flags: self.flags, rest }
    }

    /// [`end`](Self::end) where the span has what most have, and no more.
    #[inline(always)]
    pub(crate) fn plain_end(&self) -> Option<SpanEnd<'static>> {
        match (self.started, self.ended, self.rest.used) {
            (Time::Ticks(start), Time::Ticks(end), false) => {
                let (start_time_unix_nano, end_time_unix_nano) = clock::unix_nanos(start, end);
                let flags = self.flags;
                Some(SpanEnd { start_time_unix_nano, end_time_unix_nano, flags, rest: None })
            }
            _ => None,
        }
    }
}

/// One end or both came from the caller: what they say goes, even an end before the start.
#[cold]
fn mixed_times(start: Time, end: Time) -> (u64, u64) {
    let unix_nano = |time| match time {
        Time::UnixNano(unix_nano) => unix_nano,
        Time::Ticks(ticks) => clock::unix_nanos(ticks, ticks).0,
        Time::Never => clock::unix_nano(),
    };
    (unix_nano(start), unix_nano(end))
}

impl Rest {
    #[cold]
    fn parts(&self) -> SpanRest<'_> {
        SpanRest {
            dropped_attributes_count: self.dropped_attributes,
            events: &self.events.bytes,
            dropped_events_count: self.events.dropped,
            links: &self.links.bytes,
            dropped_links_count: self.links.dropped,
            status: &self.status,
        }
    }

    #[cold]
    fn reset(&mut self) {
        self.used = false;
        self.status = Status::Unset;
        self.dropped_attributes = 0;
        self.events.reset();
        self.links.reset();
    }
}

fn reset_bytes(bytes: &mut Vec<u8>) {
    bytes.clear();
    if bytes.capacity() > KEPT_BYTES {
        bytes.shrink_to(KEPT_BYTES);
    }
}

/// Tells of most keys at once that no attribute has them.
#[derive(Debug, Default)]
struct Index {
    /// A bit for each key, of 64: while few are set, a new key is mostly known to be new at once.
    filter: u64,
    /// One word a key, in the order of the attributes, so that a scan is a few vector comparisons.
    fingerprints: Vec<u32>,
}

impl Index {
    #[inline]
    fn len(&self) -> usize {
        self.fingerprints.len()
    }

    #[inline]
    fn may_have(&self, fingerprint: u32) -> bool {
        self.filter & Self::bit(fingerprint) != 0
    }

    #[inline]
    fn has(&self, fingerprint: u32) -> bool {
        // No early exit: that lets the compiler compare eight at a time.
        self.fingerprints.iter().fold(false, |any, &known| any | (known == fingerprint))
    }

    #[inline]
    fn bit(fingerprint: u32) -> u64 {
        1 << (fingerprint.wrapping_mul(0x9e37_79b1) >> 26)
    }

    #[inline]
    fn push(&mut self, fingerprint: u32) {
        self.filter |= Self::bit(fingerprint);
        self.fingerprints.push(fingerprint);
    }

    /// Forgets an attribute, by its position.
    fn remove(&mut self, at: usize) {
        // The filter keeps its bit: another attribute may have the same.
        self.fingerprints.remove(at);
    }

    #[inline]
    fn clear(&mut self) {
        self.filter = 0;
        self.fingerprints.clear();
    }
}

/// Tells most keys apart: by their length and by their first and last four bytes, where `client.address`
/// and `server.address`, and `….id` and `….name`, differ.
#[inline]
fn fingerprint(key: &str) -> u32 {
    let bytes = key.as_bytes();
    let ends = match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(head), Some(tail)) => {
            u32::from_le_bytes(*head).rotate_left(16) ^ u32::from_le_bytes(*tail)
        }
        _ => bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte)),
    };
    ends ^ (bytes.len() as u32).wrapping_mul(0x9e37_79b1)
}
