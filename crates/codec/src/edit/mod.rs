//! Changing a request where it must change, and nowhere else.
//!
//! A request goes in as the bytes that came, a list of pieces comes out. Long stretches in which
//! nothing changes are slices of what came; the envelopes around a change get new lengths, and all
//! other bytes are as they were.
//!
//! # Guarantees
//!
//! - **A request in which nothing changes is returned as it is**, the very same bytes. That allocates
//!   nothing but the list that holds its one piece, as long as no span has more than 128 attributes.
//! - **What comes out is what `prost` makes of the change**: lengths are exact and minimal, whatever
//!   the order, repetition or splitting of fields. Unknown fields stay byte for byte at every level.
//! - **No change makes a duplicate key.** Those that came stay, unless their key is acted on.
//! - **What comes out holds on to what came** only where it is at least half as long.
//! - Time and memory are linear in the request and in what is added; nothing recurses.
//!
//! Framing is checked down to the fields of the spans (or resources) that are looked into; what lies
//! within an attribute is read as far as it is well-formed. [`reject_malformed`] checks it all.
//!
//! [`reject_malformed`]: crate::view::reject_malformed
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use spanwire_codec::edit::{self, Encoded, Value};
//!
//! let request = Bytes::from_static(&[
//!     0x0A, 6, 0x12, 4, 0x12, 2, 0x30, 1, // resource_spans, scope_spans, a span: its kind
//! ]);
//! let tier = Encoded::new(b"tier", &Value::Int(1));
//! let edited = edit::span_attributes(&request, |attributes| attributes.set(&tier))?;
//! assert_eq!(edited.joined(), [
//!     &[0x0A, 18, 0x12, 16, 0x12, 14, 0x30, 1, 0x4A, 10][..],
//!     &[0x0A, 4, b't', b'i', b'e', b'r', 0x12, 2, 0x18, 1], // the attribute
//! ].concat());
//!
//! let untouched = edit::span_attributes(&request, |attributes| attributes.retain(|_| true))?;
//! assert_eq!(untouched.joined().as_ptr(), request.as_ptr());
//! # Ok::<(), spanwire_codec::view::Malformed>(())
//! ```

mod attributes;
mod script;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::Bytes;

pub use attributes::{Attributes, Encoded, Value};
pub use script::Edited;
use script::Script;

use crate::field::{request, resource, resource_spans, scope_spans, span};
use crate::view::{AnyValue, KeyValue, Malformed, ResourceSpans, ScopeSpans, Span};
use crate::wire::{Fault, Field, Reader};

/// Changes the attributes of each span as `change` does it.
///
/// Cost: visits each attribute; of the request, rewrites the spans that change and copies what lies
/// between them, except for stretches of 4 KiB and more, which are shared.
///
/// # Errors
///
/// [`Malformed`] where the framing is wrong down to the fields of a span.
pub fn span_attributes<'a>(
    request: &'a Bytes,
    mut change: impl FnMut(&mut Attributes<'a>),
) -> Result<Edited, Malformed> {
    let mut attributes = Attributes::new();
    each_span(request, Empty::Stays, |script, place| {
        attributes.clear();
        attributes.read(place.span, span::ATTRIBUTES)?;
        change(&mut attributes);
        if attributes.is_changed() {
            let Place { range, .. } = place;
            script.enter(scope_spans::SPANS, range.clone(), place.span.rest().len());
            attributes.write_changed(script, span::ATTRIBUTES, 0, range.end);
            if attributes.added_bytes(span::ATTRIBUTES) > 0 {
                let end = range.end;
                script.replace(end..end, |out| attributes.put_added(out, span::ATTRIBUTES));
            }
            script.leave();
        }
        Ok(true)
    })
}

/// Changes the attributes of each resource as `change` does it.
///
/// Where a `ResourceSpans` has no resource, it gets one if an attribute is added. Entity references
/// stay as they are.
///
/// Cost: visits each attribute of each resource, and the first bytes of each span; else as
/// [`span_attributes`].
///
/// # Errors
///
/// [`Malformed`] where the framing is wrong, spans not looked into.
///
/// ```
/// use bytes::Bytes;
/// use spanwire_codec::edit::{self, Encoded, Value};
///
/// let request = Bytes::from_static(&[0x0A, 6, 0x12, 4, 0x12, 2, 0x30, 1]); // has no resource
/// let tier = Encoded::new(b"tier", &Value::Int(1));
/// let edited = edit::resource_attributes(&request, |attributes| attributes.set(&tier))?;
/// assert_eq!(edited.spans, 1);
/// assert_eq!(edited.joined()[..6], [0x0A, 20, 0x0A, 12, 0x0A, 10]);
/// # Ok::<(), spanwire_codec::view::Malformed>(())
/// ```
pub fn resource_attributes<'a>(
    request: &'a Bytes,
    mut change: impl FnMut(&mut Attributes<'a>),
) -> Result<Edited, Malformed> {
    let mut script = Script::new(request);
    let mut attributes = Attributes::new();
    let mut spans = 0;
    let mut fields = Reader::new(request);
    while let Some((at, field)) = fields.field_at()? {
        let Field::Len(request::RESOURCE_SPANS, body) = field else { continue };
        script.enter(request::RESOURCE_SPANS, at..fields.pos(), body.len());
        let resource_spans = fields.within(body);
        attributes.clear();
        // The resource may come in pieces, and behind the spans.
        let mut pieces = 0;
        let mut rest = resource_spans;
        while let Some(field) = rest.field()? {
            match field {
                Field::Len(resource_spans::RESOURCE, body) => {
                    pieces += 1;
                    attributes.read(rest.within(body), resource::ATTRIBUTES)?;
                }
                Field::Len(resource_spans::SCOPE_SPANS, body) => spans += count(rest.within(body))?,
                _ => {}
            }
        }
        change(&mut attributes);
        if attributes.is_changed() {
            write_resource(&mut script, resource_spans, pieces, &attributes)?;
        }
        script.leave();
    }
    Ok(script.finish(spans))
}

/// Writes the changed attributes of a resource that lies in `pieces` pieces.
fn write_resource(
    script: &mut Script<'_>,
    mut resource_spans: Reader<'_>,
    mut pieces: usize,
    attributes: &Attributes<'_>,
) -> Result<(), Fault> {
    let added = attributes.added_bytes(resource::ATTRIBUTES);
    if pieces == 0 && added > 0 {
        let at = resource_spans.pos();
        script.replace(at..at, |out| {
            resource_spans::RESOURCE.put_header(out, added);
            attributes.put_added(out, resource::ATTRIBUTES);
        });
    }
    let mut next = 0;
    while let Some((at, field)) = resource_spans.field_at()? {
        let Field::Len(resource_spans::RESOURCE, body) = field else { continue };
        let end = resource_spans.pos();
        script.enter(resource_spans::RESOURCE, at..end, body.len());
        next = attributes.write_changed(script, resource::ATTRIBUTES, next, end);
        pieces -= 1;
        if pieces == 0 && added > 0 {
            script.replace(end..end, |out| attributes.put_added(out, resource::ATTRIBUTES));
        }
        script.leave();
    }
    Ok(())
}

fn count(mut scope_spans: Reader<'_>) -> Result<usize, Fault> {
    let mut spans = 0;
    while let Some(field) = scope_spans.field()? {
        spans += usize::from(matches!(field, Field::Len(scope_spans::SPANS, _)));
    }
    Ok(spans)
}

/// A span and what surrounds it, to be judged by [`filter`].
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The resource's spans; the resource can be read whether it came before or behind them.
    pub resource_spans: ResourceSpans<'a>,
    /// The scope's spans.
    pub scope_spans: ScopeSpans<'a>,
    /// The span itself.
    pub span: Span<'a>,
}

impl<'a> Candidate<'a> {
    /// The value of the span's last attribute with this key: one scan of the span.
    #[must_use]
    pub fn attribute(&self, key: &[u8]) -> Option<AnyValue<'a>> {
        let mut found = None;
        let mut fields = Reader::new(self.span.bytes());
        while let Ok(Some(field)) = fields.field() {
            let Field::Len(span::ATTRIBUTES, body) = field else { continue };
            let mut next = Some(body);
            while let Some(body) = next {
                if attributes::key(body) == key {
                    found = Some(body);
                }
                next = fields.short(span::ATTRIBUTES);
            }
        }
        found.map(|body| KeyValue::new(body).value())
    }
}

/// What becomes of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Keep,
    /// It stays with the `tracestate` that was written.
    SetTraceState,
    /// It is left out.
    Drop,
}

/// Leaves spans out, or gives them another W3C `tracestate`, as `judge` decides.
///
/// `judge` gets each span and an empty buffer for the `tracestate` that goes with
/// [`Verdict::SetTraceState`]. An envelope without a span goes, whether it loses its spans here or
/// came without any: senders should not send empty ones, says "Empty Telemetry Envelopes" in
/// `docs/specification.md`, opentelemetry-proto v1.11.0.
///
/// Cost: visits the first bytes of each span, beside what `judge` reads; copies and shares as
/// [`span_attributes`].
///
/// # Errors
///
/// [`Malformed`] where the framing is wrong; spans are not looked into, except for those that get
/// another `tracestate`.
///
/// ```
/// use bytes::Bytes;
/// use spanwire_codec::edit::{self, Verdict};
///
/// let request = Bytes::from_static(&[
///     0x0A, 10, 0x12, 8, 0x12, 2, 0x30, 1, 0x12, 2, 0x30, 2, // two spans: a kind each
/// ]);
/// let servers = edit::filter(&request, |candidate, _| match candidate.span.kind() {
///     2 => Verdict::Keep,
///     _ => Verdict::Drop,
/// })?;
/// assert_eq!(servers.spans, 1);
/// assert_eq!(servers.joined(), [0x0A, 6, 0x12, 4, 0x12, 2, 0x30, 2][..]);
/// # Ok::<(), spanwire_codec::view::Malformed>(())
/// ```
pub fn filter<'a>(
    request: &'a Bytes,
    mut judge: impl FnMut(Candidate<'a>, &mut Vec<u8>) -> Verdict,
) -> Result<Edited, Malformed> {
    let mut trace_state = Vec::new();
    each_span(request, Empty::Goes, |script, place| {
        let Place { range, span, resource_spans, scope_spans } = place;
        let candidate = Candidate {
            resource_spans: ResourceSpans { body: resource_spans },
            scope_spans: ScopeSpans { body: scope_spans },
            span: Span::new(span.rest()),
        };
        trace_state.clear();
        match judge(candidate, &mut trace_state) {
            Verdict::Keep => {}
            Verdict::Drop => {
                script.remove(range);
                return Ok(false);
            }
            Verdict::SetTraceState => set_trace_state(script, range, span, &trace_state)?,
        }
        Ok(true)
    })
}

fn set_trace_state(
    script: &mut Script<'_>,
    range: Range<usize>,
    mut fields: Reader<'_>,
    trace_state: &[u8],
) -> Result<(), Fault> {
    let end = range.end;
    script.enter(scope_spans::SPANS, range, fields.rest().len());
    let mut set = trace_state.is_empty();
    let mut put = |out: &mut Vec<u8>| {
        if !set {
            span::TRACE_STATE.put(out, trace_state);
            set = true;
        }
    };
    // One that came twice has its last value; here there is one then.
    while let Some((at, field)) = fields.field_at()? {
        if let Field::Len(span::TRACE_STATE, _) = field {
            script.replace(at..fields.pos(), &mut put);
        }
    }
    script.replace(end..end, put);
    script.leave();
    Ok(())
}

/// A span and where it lies.
struct Place<'a> {
    /// The field in the request, tag and length included.
    range: Range<usize>,
    /// The fields of its body.
    span: Reader<'a>,
    /// The body of the `ResourceSpans` it is in.
    resource_spans: &'a [u8],
    /// The body of the `ScopeSpans` it is in.
    scope_spans: &'a [u8],
}

/// What becomes of envelopes that have no span, or none any more.
#[derive(Clone, Copy, PartialEq)]
enum Empty {
    Stays,
    Goes,
}

impl Empty {
    fn end(self, script: &mut Script<'_>, spans: usize) {
        if spans == 0 && self == Empty::Goes {
            script.cut();
        } else {
            script.leave();
        }
    }
}

/// Shows each span to `edit`, which says to the script what changes, and returns whether the span stays.
#[inline]
fn each_span<'a>(
    request: &'a Bytes,
    empty: Empty,
    mut edit: impl FnMut(&mut Script<'a>, Place<'a>) -> Result<bool, Fault>,
) -> Result<Edited, Malformed> {
    let mut script = Script::new(request);
    let mut spans = 0;
    let mut fields = Reader::new(request);
    while let Some((at, field)) = fields.field_at()? {
        let Field::Len(request::RESOURCE_SPANS, resource_spans) = field else { continue };
        script.enter(request::RESOURCE_SPANS, at..fields.pos(), resource_spans.len());
        let before_resource = spans;
        let mut fields = fields.within(resource_spans);
        while let Some((at, field)) = fields.field_at()? {
            let Field::Len(resource_spans::SCOPE_SPANS, scope_spans) = field else { continue };
            script.enter(resource_spans::SCOPE_SPANS, at..fields.pos(), scope_spans.len());
            let before_scope = spans;
            let mut fields = fields.within(scope_spans);
            while let Some((at, field)) = fields.field_at()? {
                let Field::Len(scope_spans::SPANS, body) = field else { continue };
                let (range, span) = (at..fields.pos(), fields.within(body));
                let place = Place { range, span, resource_spans, scope_spans };
                spans += usize::from(edit(&mut script, place)?);
            }
            empty.end(&mut script, spans - before_scope);
        }
        empty.end(&mut script, spans - before_resource);
    }
    Ok(script.finish(spans))
}
