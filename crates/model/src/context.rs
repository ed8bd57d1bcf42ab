use std::fmt;
use std::sync::Arc;

use crate::{SpanId, TraceId};

/// The part of a span that travels to other processes.
///
/// Cloning touches a reference count only where a [`TraceState`] is present.
///
/// Source: "SpanContext" in `trace/api.md`, opentelemetry-specification v1.60.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// W3C trace flags.
    pub flags: TraceFlags,
    /// Whether the context came from another process.
    pub is_remote: bool,
    /// Vendor entries that travel along.
    pub trace_state: TraceState,
}

impl SpanContext {
    /// A local context without trace state.
    #[must_use]
    pub const fn new(trace_id: TraceId, span_id: SpanId, flags: TraceFlags) -> Self {
        Self { trace_id, span_id, flags, is_remote: false, trace_state: TraceState::EMPTY }
    }

    /// Whether the span is recorded and exported.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags.is_sampled()
    }
}

/// The W3C trace flags: one byte, unknown bits kept.
///
/// Source: "trace-flags" in W3C Trace Context Level 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TraceFlags(pub u8);

impl TraceFlags {
    /// The span is sampled.
    pub const SAMPLED: Self = Self(0x01);
    /// The trace id's rightmost 56 bits are random.
    pub const RANDOM: Self = Self(0x02);

    /// Whether [`SAMPLED`](Self::SAMPLED) is set.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED.0 != 0
    }

    /// Whether [`RANDOM`](Self::RANDOM) is set.
    #[must_use]
    pub const fn is_random(self) -> bool {
        self.0 & Self::RANDOM.0 != 0
    }

    /// These flags and those.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These flags without those.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// The W3C `tracestate`: up to 32 vendor entries, kept as the text they came in.
///
/// A clone shares the text; an empty state holds nothing. One pointer, so that contexts stay small:
/// nearly all are without.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TraceState(Option<Arc<Box<str>>>);

/// Why a text is not a `tracestate`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTraceState {
    /// Longer than [`TraceState::BYTES_MAX`].
    #[error("{bytes} bytes of tracestate exceed the limit")]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// More than [`TraceState::ENTRIES_MAX`] entries.
    #[error("more than 32 tracestate entries")]
    TooManyEntries,
    /// An entry is not `key=value` in the characters W3C allows.
    #[error("malformed tracestate entry")]
    Entry,
}

impl TraceState {
    /// No entries.
    pub const EMPTY: Self = Self(None);

    /// Most entries a list may have (W3C Trace Context Level 2, "tracestate").
    pub const ENTRIES_MAX: usize = 32;

    /// Longest text kept. W3C asks for at least 512 characters to be propagated; the rest is
    /// headroom, and it bounds what a peer can make this process carry.
    pub const BYTES_MAX: usize = 4096;

    fn of(text: Box<str>) -> Self {
        Self(Some(Arc::new(text)))
    }

    /// Checks and keeps a header's text. Empty list members are dropped.
    ///
    /// # Errors
    ///
    /// [`InvalidTraceState`] when W3C demands that the whole list be discarded, or past a limit.
    /// Cost: one pass over the text, at most [`BYTES_MAX`](Self::BYTES_MAX) bytes of it.
    pub fn parse(text: &str) -> Result<Self, InvalidTraceState> {
        if text.len() > Self::BYTES_MAX {
            return Err(InvalidTraceState::TooLong { bytes: text.len() });
        }
        let mut entries = 0;
        let mut untidy = false;
        for member in text.split(',') {
            let entry = trim(member);
            untidy |= entry.len() != member.len() || entry.is_empty();
            if entry.is_empty() {
                continue;
            }
            let (key, value) = entry.split_once('=').ok_or(InvalidTraceState::Entry)?;
            if !is_key(key) || !is_value(value) {
                return Err(InvalidTraceState::Entry);
            }
            entries += 1;
        }
        if entries > Self::ENTRIES_MAX {
            return Err(InvalidTraceState::TooManyEntries);
        }
        if entries == 0 {
            return Ok(Self::EMPTY);
        }
        if !untidy {
            return Ok(Self::of(text.into()));
        }
        let entries: Vec<&str> = text.split(',').map(trim).filter(|e| !e.is_empty()).collect();
        Ok(Self::of(entries.join(",").into()))
    }

    /// The header's text; empty without entries.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().map_or("", |text| text)
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// This state with one entry set. The entry moves to the front, as W3C asks of a vendor that
    /// changes its own; where there are too many, the one at the end gives way.
    ///
    /// ```
    /// use spanwire_model::TraceState;
    ///
    /// let state = TraceState::parse("ot=th:c,vendor=1")?.with("vendor", "2")?;
    /// assert_eq!(state.as_str(), "vendor=2,ot=th:c");
    /// # Ok::<(), spanwire_model::InvalidTraceState>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidTraceState`] when key or value has characters W3C forbids, or when the text would
    /// be longer than [`BYTES_MAX`](Self::BYTES_MAX); the state itself is as it was.
    pub fn with(&self, key: &str, value: &str) -> Result<Self, InvalidTraceState> {
        if !is_key(key) || !is_value(value) {
            return Err(InvalidTraceState::Entry);
        }
        let mut text = format!("{key}={value}");
        for entry in self.entries_except(key).take(Self::ENTRIES_MAX - 1) {
            text.push(',');
            text.push_str(entry);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(InvalidTraceState::TooLong { bytes: text.len() });
        }
        Ok(Self::of(text.into()))
    }

    /// This state without the entries of one key.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        let entries: Vec<&str> = self.entries_except(key).collect();
        if entries.is_empty() { Self::EMPTY } else { Self::of(entries.join(",").into()) }
    }

    fn entries_except<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let is_other = move |entry: &&str| entry.split_once('=').is_some_and(|(k, _)| k != key);
        self.as_str().split(',').filter(is_other)
    }

    /// The value of the first entry with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.as_str().split(',').find_map(|entry| match entry.split_once('=') {
            Some((k, value)) if k == key => Some(value),
            _ => None,
        })
    }
}

impl fmt::Debug for TraceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceState({} bytes)", self.as_str().len())
    }
}

fn trim(member: &str) -> &str {
    member.trim_matches([' ', '\t'])
}

/// `key = ( lcalpha / DIGIT ) 0*255 ( keychar )`, Trace Context Level 2.
fn is_key(key: &str) -> bool {
    let bytes = key.as_bytes();
    matches!(bytes.first(), Some(b'a'..=b'z' | b'0'..=b'9'))
        && bytes.len() <= 256
        && bytes
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'))
}

/// `value = 0*255(chr) nblk-chr`: no comma, no equals sign, no blank at the end.
fn is_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    matches!(bytes.len(), 1..=256)
        && !value.ends_with(' ')
        && bytes.iter().all(|b| matches!(b, 0x20..=0x7e) && !matches!(b, b',' | b'='))
}
