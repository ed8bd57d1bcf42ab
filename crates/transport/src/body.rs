//! Lists of bytes: what a caller hands in, and what the HTTP stacks take piece by piece.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// An export request before compression and framing: pieces of protobuf that joined are one
/// `ExportTraceServiceRequest` (`collector/trace/v1/trace_service.proto`, opentelemetry-proto
/// v1.11.0), and the number of spans in it.
///
/// A clone copies a pointer, not bytes.
///
/// ```
/// use bytes::Bytes;
/// use spanwire_transport::Body;
///
/// let body = Body::new([Bytes::from_static(b"\x0A\x02"), Bytes::from_static(b"\x12\x00")], 1);
/// assert_eq!((body.len(), body.spans()), (4, 1));
/// ```
#[derive(Clone)]
pub struct Body {
    pieces: Arc<[Bytes]>,
    len: usize,
    spans: usize,
}

impl Body {
    /// A body of `pieces` in this order, `spans` spans in all.
    ///
    /// The bytes are sent as they are, unchecked. `spans` bounds what a collector may claim to
    /// have rejected. Empty pieces are left out: each would cost a frame.
    pub fn new(pieces: impl IntoIterator<Item = Bytes>, spans: usize) -> Self {
        let pieces: Arc<[Bytes]> = pieces.into_iter().filter(|p| !p.is_empty()).collect();
        let len = pieces.iter().map(Bytes::len).sum();
        Self { pieces, len, spans }
    }

    /// The pieces, none of them empty.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes. Such a body is a valid request with nothing in it; OTLP asks
    /// senders not to send it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Spans in all pieces.
    pub fn spans(&self) -> usize {
        self.spans
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("pieces", &self.pieces.len())
            .field("len", &self.len)
            .field("spans", &self.spans)
            .finish()
    }
}

/// Framed and compressed pieces on their way out, one data frame for each.
///
/// `is_end_stream` turns true with the last piece, so that HTTP/2 ends the stream in that frame
/// instead of an empty one behind it. The exact size becomes `content-length`.
pub(crate) struct Frames {
    pieces: Arc<[Bytes]>,
    next: usize,
    bytes_left: u64,
}

impl Frames {
    /// `len` is the sum of the pieces' lengths.
    pub(crate) fn new(pieces: Arc<[Bytes]>, len: usize) -> Self {
        Self { pieces, next: 0, bytes_left: len as u64 }
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.get(self.next).cloned();
        Poll::Ready(piece.map(|piece| {
            self.next += 1;
            self.bytes_left -= piece.len() as u64;
            Ok(Frame::data(piece))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.pieces.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left)
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use std::task::Waker;

    use super::*;

    #[test]
    fn pieces_go_out_uncopied_and_the_last_one_ends_the_stream() {
        let big = Bytes::from(vec![7; 10_000]);
        let body = Body::new([big.clone(), Bytes::new(), Bytes::from_static(b"end")], 2);
        assert_eq!(body.pieces().len(), 2, "the empty piece is left out");

        let mut frames = Frames::new(body.pieces.clone(), body.len());
        let mut cx = Context::from_waker(Waker::noop());
        let mut seen = Vec::new();
        let mut hints = vec![frames.size_hint().exact()];
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut frames).poll_frame(&mut cx) {
            seen.push(frame.into_data().expect("only data"));
            hints.push(frames.size_hint().exact());
            assert_eq!(frames.is_end_stream(), seen.len() == 2);
        }
        assert_eq!(seen[0].as_ptr(), big.as_ptr());
        assert_eq!(seen[1], "end");
        assert_eq!(hints, [Some(10_003), Some(3), Some(0)]);
    }

    #[test]
    fn debug_shows_sizes_and_no_bytes() {
        let body = Body::new([Bytes::from_static(b"secret")], 3);
        assert_eq!(format!("{body:?}"), "Body { pieces: 1, len: 6, spans: 3 }");
    }
}
