//! A span while it is open: what was set so far, as wire bytes already.

use smallvec::SmallVec;
use spanwire_codec::encode::{self, SpanParts};
use spanwire_model::{Limits, Link, SpanContext, SpanId, SpanKind, Status, Value};

/// Storage kept by a pooled record; a larger one is freed, so that one huge span does not pin its
/// memory for good.
const KEPT_BYTES: usize = 16 << 10;

/// What the tracer knows of an open span.
///
/// Attributes, events and links are encoded where they are set: borrowed text is copied once, right
/// to where the wire wants it, and no value is ever held as an object. Records are reused.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) parent_span_id: Option<SpanId>,
    pub(crate) flags: u32,
    pub(crate) kind: SpanKind,
    pub(crate) start: Time,
    pub(crate) end: Time,
    pub(crate) name: String,
    pub(crate) status: Status,
    limits: Limits,
    attributes: Vec<u8>,
    index: Index,
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

    /// Forgets the span and keeps the storage.
    pub(crate) fn reset(&mut self) {
        self.parent_span_id = None;
        self.name.clear();
        self.name.shrink_to(KEPT_BYTES);
        self.status = Status::Unset;
        self.end = Time::Never;
        reset_bytes(&mut self.attributes);
        self.index.reset();
        self.dropped_attributes = 0;
        self.events.reset();
        self.links.reset();
    }

    #[inline]
    pub(crate) fn set_attribute(&mut self, key: &str, mut value: Value<'_>) {
        let fingerprint = fingerprint(key);
        if self.index.may_have(fingerprint)
            && let Some(range) = self.index.remove(fingerprint, key, &self.attributes)
        {
            self.attributes.drain(range);
        } else if self.index.len() >= self.limits.attributes as usize {
            self.dropped_attributes = self.dropped_attributes.saturating_add(1);
            return;
        }
        self.limits.cut(&mut value);
        let start = self.attributes.len();
        encode::put_attribute(key, &value, &mut self.attributes);
        self.index.push(fingerprint, key.len(), start, self.attributes.len());
    }

    pub(crate) fn add_event<'a>(
        &mut self,
        time_unix_nano: u64,
        name: &str,
        attributes: impl IntoIterator<Item = (&'a str, Value<'a>)>,
    ) {
        if !self.events.admit(self.limits.events) {
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
        encode::put_event(time_unix_nano, name, pairs, dropped, &mut self.events.bytes);
    }

    pub(crate) fn add_link(&mut self, link: &Link) {
        if self.links.admit(self.limits.links) {
            encode::put_link(link, &mut self.links.bytes);
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    #[inline]
    pub(crate) fn parts<'a>(
        &'a self,
        context: &'a SpanContext,
        (start_time_unix_nano, end_time_unix_nano): (u64, u64),
    ) -> SpanParts<'a> {
        SpanParts {
            trace_id: context.trace_id,
            span_id: context.span_id,
            trace_state: context.trace_state.as_str(),
            parent_span_id: self.parent_span_id,
            name: &self.name,
            kind: self.kind,
            start_time_unix_nano,
            end_time_unix_nano,
            attributes: &self.attributes,
            dropped_attributes_count: self.dropped_attributes,
            events: &self.events.bytes,
            dropped_events_count: self.events.dropped,
            links: &self.links.bytes,
            dropped_links_count: self.links.dropped,
            status: &self.status,
            flags: self.flags,
        }
    }
}

fn reset_bytes(bytes: &mut Vec<u8>) {
    bytes.clear();
    if bytes.capacity() > KEPT_BYTES {
        bytes.shrink_to(KEPT_BYTES);
    }
}

/// Finds an attribute among the encoded ones by its key.
#[derive(Debug, Default)]
struct Index {
    /// One word a key, apart from the rest so that a scan is a few vector comparisons.
    fingerprints: SmallVec<[u32; 16]>,
    places: SmallVec<[Place; 16]>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    end: u32,
    key_len: u32,
}

impl Index {
    fn len(&self) -> usize {
        self.fingerprints.len()
    }

    #[inline]
    fn may_have(&self, fingerprint: u32) -> bool {
        // No early exit: that lets the compiler compare eight at a time.
        self.fingerprints.iter().fold(false, |any, &known| any | (known == fingerprint))
    }

    #[inline]
    fn push(&mut self, fingerprint: u32, key_len: usize, start: usize, end: usize) {
        self.fingerprints.push(fingerprint);
        let place = Place { start: start as u32, end: end as u32, key_len: key_len as u32 };
        self.places.push(place);
    }

    /// Takes an attribute out and closes the gap; returns the bytes to cut.
    #[cold]
    fn remove(
        &mut self,
        fingerprint: u32,
        key: &str,
        encoded: &[u8],
    ) -> Option<std::ops::Range<usize>> {
        let at = self.fingerprints.iter().zip(&self.places).position(|(&known, place)| {
            known == fingerprint && place.key(encoded) == Some(key.as_bytes())
        })?;
        self.fingerprints.remove(at);
        let removed = self.places.remove(at);
        let gap = removed.end - removed.start;
        for place in &mut self.places[at..] {
            place.start -= gap;
            place.end -= gap;
        }
        Some(removed.start as usize..removed.end as usize)
    }

    fn reset(&mut self) {
        self.fingerprints.clear();
        self.places.clear();
    }
}

impl Place {
    /// The key within the encoded attribute.
    fn key<'a>(&self, encoded: &'a [u8]) -> Option<&'a [u8]> {
        encode::attribute_key(encoded.get(self.start as usize..self.end as usize)?)
            .filter(|key| key.len() == self.key_len as usize)
    }
}

/// Tells most keys apart: by their length and by their last four bytes, where `…0` to `…99` and
/// `….id` to `….name` differ.
#[inline]
fn fingerprint(key: &str) -> u32 {
    let bytes = key.as_bytes();
    let tail = match bytes.last_chunk::<4>() {
        Some(tail) => u32::from_le_bytes(*tail),
        None => bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte)),
    };
    tail ^ (bytes.len() as u32).wrapping_mul(0x9e37_79b1)
}
