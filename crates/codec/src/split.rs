//! Cutting at span boundaries: framed spans to a prefix, whole requests to parts within limits.
//!
//! No span's bytes are copied or looked into. Both ways a span that alone exceeds the limit in bytes
//! travels alone; whoever must not send it sees so by its size.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::field::{Len, request, resource_spans, scope_spans};
use crate::view::Malformed;
use crate::wire::{Fault, Field, Reader};

/// The start of a run of framed spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// Its length; ends where a span ends.
    pub bytes: usize,
    /// Spans in it.
    pub spans: usize,
}

/// The longest start of `framed`, spans as `ScopeSpans` repeats them, within two limits.
///
/// Holds one span at least, even where that exceeds a limit, so that a loop over the rest ends. What
/// is not a framed span ends the prefix: on bytes that this crate encoded that never happens.
///
/// Cost: visits the first bytes of each span of the prefix.
///
/// ```
/// use spanwire_codec::split::{self, Prefix};
///
/// let framed = [0x12, 2, 0x30, 1, 0x12, 2, 0x30, 2, 0x12, 2, 0x30, 3]; // three spans: a kind each
/// assert_eq!(split::prefix(&framed, 100, 10), Prefix { bytes: 8, spans: 2 });
/// assert_eq!(split::prefix(&framed, 100, 3), Prefix { bytes: 4, spans: 1 }); // travels alone
/// assert_eq!(split::prefix(&[], 100, 100), Prefix::default());
/// ```
#[must_use]
pub fn prefix(framed: &[u8], spans_max: usize, bytes_max: usize) -> Prefix {
    let mut prefix = Prefix::default();
    let mut reader = Reader::new(framed);
    while let Ok(Some(Field::Len(scope_spans::SPANS, _))) = reader.field() {
        let next = Prefix { bytes: framed.len() - reader.rest().len(), spans: prefix.spans + 1 };
        if prefix.spans > 0 && (next.spans > spans_max || next.bytes > bytes_max) {
            break;
        }
        prefix = next;
    }
    prefix
}

/// One of the requests that a request was split into.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// The encoded request, in pieces to be written one after the other; spans are slices of the
    /// request that was split.
    pub pieces: Vec<Bytes>,
    /// Length of all pieces.
    pub bytes: usize,
    /// Spans in it.
    pub spans: usize,
}

/// Splits a request at span boundaries into requests within two limits.
///
/// Each part repeats resource, scope, schema URLs and unknown fields of the envelopes its spans came
/// in; spans keep their order, and envelopes without a span are left out. A part exceeds `bytes_max`
/// only where it can't be helped: where one span alone does, or where the envelope does. An
/// envelope of more than half of `bytes_max` is not repeated but keeps its spans together in one
/// part, as otherwise a request of many small spans would multiply on the way out.
///
/// Cost: visits the first bytes of each span; copies envelopes, those of 4 KiB and more once for all
/// parts; a part has a piece for each run of adjacent spans and one or two between two runs.
///
/// # Errors
///
/// [`Malformed`] where the framing is wrong; resources, scopes and spans are not looked into.
///
/// ```
/// use bytes::Bytes;
/// use spanwire_codec::split;
///
/// let request = Bytes::from_static(&[
///     0x0A, 10, 0x12, 8, 0x12, 2, 0x30, 1, 0x12, 2, 0x30, 2, // two spans: a kind each
/// ]);
/// let parts = split::request(&request, 1, 1000)?;
/// assert_eq!(parts.len(), 2);
/// assert_eq!(parts[1].pieces.concat(), [0x0A, 6, 0x12, 4, 0x12, 2, 0x30, 2]);
/// # Ok::<(), spanwire_codec::view::Malformed>(())
/// ```
pub fn request(
    request: &Bytes,
    spans_max: usize,
    bytes_max: usize,
) -> Result<Vec<Part>, Malformed> {
    let mut parts = Vec::new();
    let mut open = OpenPart::new(request);
    let mut fields = Reader::new(request);
    while let Some(field) = fields.field()? {
        let Field::Len(request::RESOURCE_SPANS, body) = field else { continue };
        let mut resource_spans = fields.within(body);
        open.resource.head = head(resource_spans, resource_spans::SCOPE_SPANS)?;
        while let Some(field) = resource_spans.field()? {
            let Field::Len(resource_spans::SCOPE_SPANS, body) = field else { continue };
            let mut scope_spans = resource_spans.within(body);
            open.scope.head = head(scope_spans, scope_spans::SPANS)?;
            let repeats = open.resource.head.len() + open.scope.head.len() <= bytes_max / 2;
            if !repeats {
                parts.extend(open.take());
            }
            while let Some((at, field)) = scope_spans.field_at()? {
                let Field::Len(scope_spans::SPANS, _) = field else { continue };
                let span = at..scope_spans.pos();
                if repeats && (open.part.spans >= spans_max || open.len_with(&span) > bytes_max) {
                    parts.extend(open.take());
                }
                open.add(span);
            }
            if repeats {
                open.end_scope();
            } else {
                parts.extend(open.take());
            }
        }
        open.end_resource();
    }
    parts.extend(open.take());
    Ok(parts)
}

/// All fields of an envelope but those that lead to spans, joined.
fn head(mut envelope: Reader<'_>, spans: Len) -> Result<Bytes, Fault> {
    let mut head = BytesMut::new();
    while let Some((bytes, field)) = envelope.field_bytes()? {
        if !matches!(field, Field::Len(field, _) if field == spans) {
            head.put_slice(bytes);
        }
    }
    Ok(head.freeze())
}

/// The part being filled, and the envelopes within it that spans are being added to.
struct OpenPart<'a> {
    request: &'a Bytes,
    part: Part,
    resource: Envelope,
    scope: Envelope,
    /// Adjacent spans that become one piece, as a range of the request.
    run: Range<usize>,
}

impl<'a> OpenPart<'a> {
    fn new(request: &'a Bytes) -> Self {
        Self {
            request,
            part: Part::default(),
            resource: Envelope::new(request::RESOURCE_SPANS),
            scope: Envelope::new(resource_spans::SCOPE_SPANS),
            run: 0..0,
        }
    }

    /// Length of the part if it had one more span.
    fn len_with(&self, span: &Range<usize>) -> usize {
        self.part.bytes + self.resource.size_with(self.scope.size_with(span.len()))
    }

    fn add(&mut self, span: Range<usize>) {
        self.part.spans += 1;
        self.scope.len += span.len();
        if self.run.end == span.start {
            self.run.end = span.end;
        } else {
            self.end_run();
            self.run = span;
        }
    }

    fn end_run(&mut self) {
        if !self.run.is_empty() {
            self.scope.pieces.push(self.request.slice(self.run.clone()));
        }
        self.run = 0..0;
    }

    fn end_scope(&mut self) {
        self.end_run();
        self.resource.len += self.scope.move_into(&mut self.resource.pieces);
    }

    fn end_resource(&mut self) {
        self.end_scope();
        self.part.bytes += self.resource.move_into(&mut self.part.pieces);
    }

    /// Ends the part, if it has a span; the envelopes go on in the next one.
    fn take(&mut self) -> Option<Part> {
        self.end_resource();
        (self.part.spans > 0).then(|| std::mem::take(&mut self.part))
    }
}

/// From here on the parts share one copy of what they repeat of an envelope, as a piece of its own:
/// else a large resource with very many spans in small parts would take many times its memory.
const SHARED_BYTES_MIN: usize = 4096;

/// A `ResourceSpans` or `ScopeSpans` whose length isn't known yet.
struct Envelope {
    field: Len,
    /// All fields but those that lead to spans; they go first.
    head: Bytes,
    /// What leads to spans.
    pieces: Vec<Bytes>,
    /// Its length.
    len: usize,
}

impl Envelope {
    const fn new(field: Len) -> Self {
        Self { field, head: Bytes::new(), pieces: Vec::new(), len: 0 }
    }

    fn size_with(&self, added: usize) -> usize {
        self.field.size(self.head.len() + self.len + added)
    }

    /// Appends the envelope, unless nothing is in it, and returns the bytes appended. What is left is
    /// an empty one with the same head.
    fn move_into(&mut self, out: &mut Vec<Bytes>) -> usize {
        if self.len == 0 {
            return 0;
        }
        let size = self.size_with(0);
        let shares = self.head.len() >= SHARED_BYTES_MIN;
        let mut header = BytesMut::with_capacity(if shares { 16 } else { size - self.len });
        self.field.put_header(&mut header, self.head.len() + self.len);
        if shares {
            out.extend([header.freeze(), self.head.clone()]);
        } else {
            header.put_slice(&self.head);
            out.push(header.freeze());
        }
        out.append(&mut self.pieces);
        self.len = 0;
        size
    }
}
