use bytes::Bytes;

use super::check::{self, Malformed, SpanError};
use super::span::Span;
use crate::field::{Len, request, resource_spans, scope_spans};
use crate::wire::{Fault, Field, Reader, put_varint, varint_len};

/// A request whose spans may all travel on, and an account of those that may not.
#[derive(Clone, Debug)]
#[must_use]
pub struct Checked {
    /// The request without its malformed spans; the very bytes that came where there is none.
    pub request: Bytes,
    /// Spans in it.
    pub spans: usize,
    /// Spans left out: what `rejected_spans` of the answer counts.
    pub rejected: usize,
    /// Why the first of them was left out.
    pub reason: Option<SpanError>,
}

/// Leaves malformed spans out of a request, so that their neighbours can travel on.
///
/// All else stays byte for byte, unknown fields included, except that an envelope which thereby
/// loses all its spans goes too. Spans with all-zero ids pass; [`Span::has_zero_id`] finds them.
///
/// Cost: one pass over the request, no allocation and no copy where all spans are well-formed;
/// otherwise a second pass and one allocation of at most the request's size.
///
/// # Errors
///
/// [`Malformed`] where the fault doesn't lie within a span.
///
/// ```
/// use bytes::Bytes;
/// use spanwire_codec::view::{SpanError, reject_malformed};
///
/// // One span of which nothing but an id of two bytes is left.
/// let request = Bytes::from_static(&[0x0A, 8, 0x12, 6, 0x12, 4, 0x0A, 2, 0xC0, 0xFE]);
/// let checked = reject_malformed(request)?;
/// assert_eq!((checked.spans, checked.rejected), (0, 1));
/// assert_eq!(checked.reason, Some(SpanError::TraceId { len: 2 }));
/// assert!(checked.request.is_empty());
/// # Ok::<(), spanwire_codec::view::Malformed>(())
/// ```
pub fn reject_malformed(request: Bytes) -> Result<Checked, Malformed> {
    inspect(request)?.reject()
}

/// Finds malformed spans and leaves them where they are: the first half of [`reject_malformed`], for
/// a caller who must have room for the copy before it is made.
///
/// Cost: one pass over the request, no allocation.
///
/// # Errors
///
/// [`Malformed`] where the fault doesn't lie within a span.
///
/// ```
/// use bytes::Bytes;
/// use spanwire_codec::view::inspect;
///
/// // One span of which nothing but an id of two bytes is left.
/// let request = Bytes::from_static(&[0x0A, 8, 0x12, 6, 0x12, 4, 0x0A, 2, 0xC0, 0xFE]);
/// let inspected = inspect(request)?;
/// assert_eq!(inspected.copy_bytes_max(), 10);
/// assert_eq!(inspected.reject()?.rejected, 1);
/// # Ok::<(), spanwire_codec::view::Malformed>(())
/// ```
pub fn inspect(request: Bytes) -> Result<Inspected, Malformed> {
    let mut rejected = 0;
    let mut reason = None;
    let counts = check::request(&request, |body| {
        if let Err(error) = check::span(body) {
            rejected += 1;
            reason.get_or_insert(error);
        }
    })?;
    let spans = counts.spans - rejected;
    Ok(Inspected(Checked { request, spans, rejected, reason }))
}

/// A request whose malformed spans are known and still in it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Inspected(Checked);

impl Inspected {
    /// What [`reject`](Self::reject) may allocate, in bytes, while the request is still there: its
    /// size, or 0 where no span is malformed.
    #[must_use]
    pub fn copy_bytes_max(&self) -> usize {
        if self.0.rejected == 0 { 0 } else { self.0.request.len() }
    }

    /// Leaves the malformed spans out. What holds the copy is no larger than that.
    ///
    /// # Errors
    ///
    /// [`Malformed`] where the framing is wrong, which [`inspect`] has ruled out.
    pub fn reject(self) -> Result<Checked, Malformed> {
        let Self(mut checked) = self;
        if checked.rejected > 0 {
            checked.request = rewrite(&checked.request)?.into();
        }
        Ok(checked)
    }
}

fn rewrite(request: &[u8]) -> Result<Vec<u8>, Fault> {
    // Only ever shrinks: bodies do, and their lengths are written no longer than they were.
    let mut out = Vec::with_capacity(request.len());
    let mut fields = Reader::new(request);
    while let Some((bytes, field)) = fields.field_bytes()? {
        match field {
            Field::Len(request::RESOURCE_SPANS, body) => {
                envelope(request::RESOURCE_SPANS, body, &mut out, resource_spans)?;
            }
            _ => out.extend_from_slice(bytes),
        }
    }
    out.shrink_to_fit();
    Ok(out)
}

fn resource_spans(body: &[u8], out: &mut Vec<u8>) -> Result<Kept, Fault> {
    let mut kept = Kept::default();
    let mut fields = Reader::new(body);
    while let Some((bytes, field)) = fields.field_bytes()? {
        match field {
            Field::Len(resource_spans::SCOPE_SPANS, body) => {
                kept += envelope(resource_spans::SCOPE_SPANS, body, out, scope_spans)?;
            }
            _ => out.extend_from_slice(bytes),
        }
    }
    Ok(kept)
}

fn scope_spans(body: &[u8], out: &mut Vec<u8>) -> Result<Kept, Fault> {
    let mut kept = Kept::default();
    let mut fields = Reader::new(body);
    while let Some((bytes, field)) = fields.field_bytes()? {
        match field {
            Field::Len(scope_spans::SPANS, body) if Span::new(body).check().is_err() => {
                kept.rejected += 1;
                continue;
            }
            Field::Len(scope_spans::SPANS, _) => kept.spans += 1,
            _ => {}
        }
        out.extend_from_slice(bytes);
    }
    Ok(kept)
}

#[derive(Default)]
struct Kept {
    spans: usize,
    rejected: usize,
}

impl std::ops::AddAssign for Kept {
    fn add_assign(&mut self, other: Self) {
        self.spans += other.spans;
        self.rejected += other.rejected;
    }
}

/// Appends `field` with what `rewrite` makes of its body, unless no span is left in it.
fn envelope(
    field: Len,
    body: &[u8],
    out: &mut Vec<u8>,
    rewrite: fn(&[u8], &mut Vec<u8>) -> Result<Kept, Fault>,
) -> Result<Kept, Fault> {
    let start = out.len();
    // The body's new length is known once it is written. Its place is that of the old one, and
    // where the new one is shorter the body moves down: at most nine bytes, each byte at most twice.
    field.put_header(out, body.len());
    let body_start = out.len();
    let kept = rewrite(body, out)?;
    if kept.rejected > 0 && kept.spans == 0 {
        out.truncate(start);
        return Ok(kept);
    }
    let len = out.len() - body_start;
    crate::work::add(len);
    let surplus = varint_len(body.len() as u64) - varint_len(len as u64);
    out.copy_within(body_start.., body_start - surplus);
    out.truncate(out.len() - surplus);
    let len_start = body_start - varint_len(body.len() as u64);
    put_varint(&mut &mut out[len_start..body_start - surplus], len as u64);
    Ok(kept)
}
