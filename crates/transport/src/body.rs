//! Lists of bytes: what a caller hands in, and what the HTTP stacks write of them.

use std::convert::Infallible;
use std::fmt;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
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

/// A request on its way out, handed over as one piece of data: HTTP/2 cuts it into frames as large
/// as the peer takes, and ends the stream with the last of them. The exact size becomes
/// `content-length`.
pub(crate) struct Outgoing(Option<Pieces>);

impl Outgoing {
    /// `len` is the sum of the pieces' lengths.
    pub(crate) fn new(pieces: Arc<[Bytes]>, len: usize) -> Self {
        let pieces = Pieces { pieces, first: 0, taken: 0, left: len };
        Self((len > 0).then_some(pieces))
    }
}

impl http_body::Body for Outgoing {
    type Data = Pieces;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Pieces>, Infallible>>> {
        Poll::Ready(self.0.take().map(|pieces| Ok(Frame::data(pieces))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |pieces| pieces.left as u64))
    }
}

/// Framed and compressed pieces, none of them empty, that are written side by side: a system call
/// takes many, where a piece each took 6 µs over loopback, the time in which some 50 KB are copied.
pub(crate) struct Pieces {
    pieces: Arc<[Bytes]>,
    first: usize,
    /// Of the first.
    taken: usize,
    left: usize,
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.get(self.first).map_or(&[], |piece| &piece[self.taken..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut taken = self.taken;
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces[self.first..]) {
            *slice = IoSlice::new(&piece[std::mem::take(&mut taken)..]);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, bytes: usize) {
        self.left -= bytes;
        self.taken += bytes;
        while let Some(piece) = self.pieces.get(self.first).filter(|it| it.len() <= self.taken) {
            self.taken -= piece.len();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use std::task::Waker;

    use super::*;

    #[test]
    fn pieces_go_out_uncopied_as_one_and_end_the_stream() {
        let big = Bytes::from(vec![7; 10_000]);
        let body = Body::new([big.clone(), Bytes::new(), Bytes::from_static(b"end")], 2);
        assert_eq!(body.pieces().len(), 2, "the empty piece is left out");

        let mut outgoing = Outgoing::new(body.pieces.clone(), body.len());
        assert_eq!(outgoing.size_hint().exact(), Some(10_003));
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut outgoing).poll_frame(&mut cx) else {
            panic!("there is data");
        };
        assert!(outgoing.is_end_stream());
        assert_eq!(outgoing.size_hint().exact(), Some(0));
        let Ok(data) = frame.into_data() else { panic!("only data") };
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(data.chunks_vectored(&mut slices), 2);
        assert_eq!(slices[0].as_ptr(), big.as_ptr());
        assert_eq!((slices[0].len(), &*slices[1]), (10_000, &b"end"[..]));
        assert!(Outgoing::new(Arc::new([]), 0).is_end_stream());
    }

    #[test]
    fn pieces_are_the_same_bytes_however_they_are_taken() {
        let parts = [&b"ab"[..], b"c", b"defg", b"h"].map(Bytes::from_static);
        for step in 1..=8 {
            let mut pieces = Pieces { pieces: parts.to_vec().into(), first: 0, taken: 0, left: 8 };
            let mut seen: Vec<u8> = Vec::new();
            while pieces.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 8];
                let filled = pieces.chunks_vectored(&mut slices);
                let rest = slices[..filled].iter().flat_map(|slice| slice.iter()).copied();
                let rest: Vec<u8> = rest.collect();
                assert_eq!(rest.len(), pieces.remaining());
                assert!(rest.starts_with(pieces.chunk()) && !pieces.chunk().is_empty());
                let step = step.min(rest.len());
                seen.extend(&rest[..step]);
                pieces.advance(step);
            }
            assert_eq!(seen, b"abcdefgh");
            assert_eq!(pieces.chunk(), b"");
        }
    }

    #[test]
    fn debug_shows_sizes_and_no_bytes() {
        let body = Body::new([Bytes::from_static(b"secret")], 3);
        assert_eq!(format!("{body:?}"), "Body { pieces: 1, len: 6, spans: 3 }");
    }
}
