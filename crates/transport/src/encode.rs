//! From a body to the bytes on the wire, once for all attempts.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use spanwire_codec::json::JsonError;
use spanwire_codec::view::Malformed;

use crate::body::{Body, Outgoing};
use crate::compression::Compression;
use crate::config::Protocol;

/// A body compressed and framed for one protocol, ready to be sent any number of times.
///
/// A clone copies a pointer, not bytes. It knows its own coding and content type, so it may be
/// sent by any transport of the same protocol.
#[derive(Clone)]
pub struct Encoded {
    pub(crate) pieces: Arc<[Bytes]>,
    pub(crate) protocol: Protocol,
    pub(crate) compression: Compression,
    len: usize,
    /// Of the protobuf message, and of what was compressed: for JSON they differ.
    request_len: usize,
    plain_len: usize,
    copied_len: usize,
    spans: usize,
}

impl Encoded {
    /// Bytes that go on the wire, without HTTP's own framing.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no bytes go on the wire, as for an empty body over HTTP.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of it that are not those of the body it was made of, and take memory beside them:
    /// compressed ones, JSON, and small pieces that were joined. gRPC's prefix is not counted.
    pub fn copied_len(&self) -> usize {
        self.copied_len
    }

    /// Spans inside.
    pub fn spans(&self) -> usize {
        self.spans
    }

    /// What it was compressed with; [`Compression::None`] below the threshold, and where
    /// compressing would not have made it smaller.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Bytes of the `ExportTraceServiceRequest` it was made of: protobuf, before compression.
    pub fn request_len(&self) -> usize {
        self.request_len
    }

    /// The `ExportTraceServiceRequest` it was made of, to be split when a collector finds it too
    /// large; so no second copy has to be kept for that.
    ///
    /// The same bytes as went in, except that a body encoded as JSON comes back without fields
    /// that OTLP does not know. Costs a decompression, a copy, or, for an uncompressed HTTP body
    /// in one piece, nothing. Works on the current task without yielding.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use spanwire_transport::{Body, Compression, Protocol, Transport, TransportConfig};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = TransportConfig::new(Protocol::Grpc, "http://localhost:4317")?
    ///     .compression(Compression::Zstd)?;
    /// let body = Body::new([Bytes::from_static(b"\x0A\x02"), Bytes::from_static(b"\x12\x00")], 1);
    /// let encoded = Transport::new(&config)?.encode(&body).await?;
    /// assert_eq!(encoded.request()?, b"\x0A\x02\x12\x00"[..]);
    /// assert_eq!(encoded.request_len(), 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RequestError`], if memory was damaged; what was encoded here can be read here.
    pub fn request(&self) -> Result<Bytes, RequestError> {
        let mut wire = match &*self.pieces {
            [] => Bytes::new(),
            [one] => one.clone(),
            several => several.concat().into(),
        };
        if self.protocol == Protocol::Grpc {
            wire = wire.slice(GRPC_PREFIX_LEN.min(wire.len())..);
        }
        let plain = match self.compression {
            Compression::None => wire,
            compression => compression.decompress(&wire, self.plain_len)?.into(),
        };
        match self.protocol {
            Protocol::Grpc | Protocol::HttpProtobuf => Ok(plain),
            Protocol::HttpJson => Ok(spanwire_codec::json::read_request(&plain)?.into()),
        }
    }

    pub(crate) fn outgoing(&self) -> Outgoing {
        Outgoing::new(self.pieces.clone(), self.len)
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("protocol", &self.protocol)
            .field("compression", &self.compression)
            .field("pieces", &self.pieces.len())
            .field("len", &self.len)
            .field("spans", &self.spans)
            .finish()
    }
}

/// Why a body cannot be sent at all. The body has to be dropped and counted, or split.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The body is larger, before compression, than a client may send.
    #[error("batch of {bytes} bytes exceeds {bytes_max} bytes")]
    Oversize {
        /// Bytes of the body, in the protocol's own form.
        bytes: usize,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The body is not an `ExportTraceServiceRequest`, so it has no JSON form.
    #[error("batch has no JSON form")]
    Json(#[source] Malformed),
    /// The compressor failed.
    #[error("batch could not be compressed")]
    Compress(#[source] std::io::Error),
}

/// Why an encoded body cannot be read back.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It does not decompress to what was compressed.
    #[error("encoded batch does not decompress")]
    Decompress(#[from] std::io::Error),
    /// It is not the JSON that was written.
    #[error("encoded batch is not OTLP/JSON")]
    Json(#[from] JsonError),
}

/// Compresses with `compression` from `bytes_min` bytes on, and frames for `protocol`.
pub(crate) async fn encode(
    body: &Body,
    protocol: Protocol,
    compression: Compression,
    bytes_min: usize,
) -> Result<Encoded, EncodeError> {
    within_limit(body.len())?;
    let json;
    let (pieces, len) = match protocol {
        Protocol::Grpc | Protocol::HttpProtobuf => (body.pieces(), body.len()),
        Protocol::HttpJson => {
            json = [to_json(body)?];
            (&json[..], json[0].len())
        }
    };

    let prefix_len = if protocol == Protocol::Grpc { GRPC_PREFIX_LEN } else { 0 };
    let mut encoded = Encoded {
        pieces: Arc::new([]),
        protocol,
        compression: Compression::None,
        len: prefix_len + len,
        request_len: body.len(),
        plain_len: len,
        copied_len: 0,
        spans: body.spans(),
    };
    if compression != Compression::None && len >= bytes_min {
        // The prefix is left free in front, so that the compressed bytes need no copy behind it.
        let mut out = Vec::with_capacity(prefix_len + len / 4);
        out.resize(prefix_len, 0);
        let mut out = compression.compress(pieces, out).await.map_err(EncodeError::Compress)?;
        if out.len() < prefix_len + len {
            if protocol == Protocol::Grpc {
                let message_len = out.len() - GRPC_PREFIX_LEN;
                out[..GRPC_PREFIX_LEN].copy_from_slice(&grpc_prefix(true, message_len));
            }
            // A retry queue counts and holds these bytes, not the spare room behind them.
            out.shrink_to_fit();
            encoded.len = out.len();
            encoded.copied_len = out.len() - prefix_len;
            encoded.compression = compression;
            encoded.pieces = Arc::new([Bytes::from(out)]);
            return Ok(encoded);
        }
    }
    let prefix = (protocol == Protocol::Grpc).then(|| grpc_prefix(false, len));
    let copied;
    (encoded.pieces, copied) = join_small(prefix.as_ref().map_or(&[], |p| &p[..]), pieces);
    encoded.copied_len = if protocol == Protocol::HttpJson { len } else { copied };
    Ok(encoded)
}

/// Outgoing for `protocol` what somebody else compressed.
pub(crate) fn frame(
    compressed: Bytes,
    request_len: usize,
    spans: usize,
    protocol: Protocol,
    compression: Compression,
) -> Encoded {
    let prefix = (protocol == Protocol::Grpc).then(|| grpc_prefix(true, compressed.len()));
    let prefix = prefix.as_ref().map_or(&[][..], |prefix| prefix);
    let len = prefix.len() + compressed.len();
    let (pieces, copied_len) = join_small(prefix, &[compressed]);
    Encoded {
        protocol,
        compression,
        len,
        request_len,
        plain_len: request_len,
        copied_len,
        spans,
        pieces,
    }
}

fn to_json(body: &Body) -> Result<Bytes, EncodeError> {
    let joined;
    let request: &[u8] = match body.pieces() {
        [] => &[],
        [one] => one,
        several => {
            joined = several.concat();
            &joined
        }
    };
    let mut json = Vec::with_capacity(request.len() * 2);
    spanwire_codec::json::write_request(request, &mut json).map_err(EncodeError::Json)?;
    within_limit(json.len())?;
    json.shrink_to_fit();
    Ok(Bytes::from(json))
}

fn within_limit(bytes: usize) -> Result<(), EncodeError> {
    if bytes > REQUEST_BYTES_MAX {
        return Err(EncodeError::Oversize { bytes, bytes_max: REQUEST_BYTES_MAX });
    }
    Ok(())
}

/// Joins runs of small pieces, `head` first, and leaves large ones as they are. Tells how many bytes
/// of the pieces were copied.
///
/// A system call takes sixteen pieces, so that many small ones would make many calls: over loopback
/// one takes 6 µs, the time in which some 50 KB are copied.
fn join_small(head: &[u8], pieces: &[Bytes]) -> (Arc<[Bytes]>, usize) {
    let (mut out, mut copied) = (Vec::new(), 0);
    let mut run = Run { head, pieces: &[], len: head.len() };
    for (i, piece) in pieces.iter().enumerate() {
        let is_large = piece.len() >= SMALL_PIECE_BYTES;
        if is_large || run.len + piece.len() > JOINED_BYTES_MAX {
            copied += run.copied();
            out.extend(run.join());
            run = Run { head: &[], pieces: &[], len: 0 };
        }
        if is_large {
            out.push(piece.clone());
        } else {
            run.pieces = &pieces[i - run.pieces.len()..=i];
            run.len += piece.len();
        }
    }
    copied += run.copied();
    out.extend(run.join());
    (out.into(), copied)
}

/// Neighbours to be sent as one piece, `len` bytes in all.
struct Run<'a> {
    head: &'a [u8],
    pieces: &'a [Bytes],
    len: usize,
}

impl Run<'_> {
    /// Bytes of its pieces that joining copies.
    fn copied(&self) -> usize {
        match (self.head, self.pieces) {
            ([], [_alone]) => 0,
            (head, _) => self.len - head.len(),
        }
    }

    fn join(self) -> Option<Bytes> {
        match (self.head, self.pieces) {
            ([], []) => None,
            ([], [alone]) => Some(alone.clone()),
            (head, pieces) => {
                let mut joined = Vec::with_capacity(self.len);
                joined.extend_from_slice(head);
                pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
                Some(joined.into())
            }
        }
    }
}

/// One byte that says whether the message is compressed, and its length
/// (`Length-Prefixed-Message` in `doc/PROTOCOL-HTTP2.md` of gRPC).
fn grpc_prefix(compressed: bool, message_len: usize) -> [u8; GRPC_PREFIX_LEN] {
    // REQUEST_BYTES_MAX keeps every length far below 32 bits.
    let [a, b, c, d] = (message_len as u32).to_be_bytes();
    [u8::from(compressed), a, b, c, d]
}

pub(crate) const GRPC_PREFIX_LEN: usize = 5;

/// Clients must not send more, uncompressed ("Request size limits" in `docs/specification.md`,
/// opentelemetry-proto v1.11.0).
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

const SMALL_PIECE_BYTES: usize = 2 * 1024;
const JOINED_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode_now(body: &Body, protocol: Protocol, compression: Compression) -> Encoded {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(encode(body, protocol, compression, 1024)).expect("within limits")
    }

    #[test]
    fn small_pieces_are_joined_and_large_ones_keep_their_place_and_address() {
        let large = Bytes::from(vec![1; SMALL_PIECE_BYTES]);
        let small = Bytes::from_static(b"small");
        let body = Body::new([small.clone(), large.clone(), small.clone(), small.clone()], 1);
        let encoded = encode_now(&body, Protocol::Grpc, Compression::None);
        let lens: Vec<usize> = encoded.pieces.iter().map(Bytes::len).collect();
        assert_eq!(lens, [GRPC_PREFIX_LEN + 5, SMALL_PIECE_BYTES, 10]);
        assert_eq!(encoded.pieces[1].as_ptr(), large.as_ptr());
        assert_eq!(encoded.pieces[0][..5], [0, 0, 0, 0x08, 0x0F]);
        assert_eq!(encoded.copied_len(), 3 * small.len());

        let alone = Body::new([small.clone(), large], 1);
        let encoded = encode_now(&alone, Protocol::HttpProtobuf, Compression::None);
        assert_eq!(encoded.pieces[0].as_ptr(), small.as_ptr(), "nothing to join with");
    }

    proptest! {
        #[test]
        fn joined_pieces_hold_the_same_bytes_in_no_more_pieces(
            lens in prop::collection::vec(1..20_000usize, 0..40),
            head in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            let pieces: Vec<Bytes> =
                lens.iter().enumerate().map(|(i, len)| vec![i as u8; *len].into()).collect();
            let (joined, copied) = join_small(&head, &pieces);
            let is_shared = |p: &&Bytes| pieces.iter().any(|other| other.as_ptr() == p.as_ptr());
            let shared: usize = joined.iter().filter(is_shared).map(Bytes::len).sum();
            prop_assert_eq!(copied, lens.iter().sum::<usize>() - shared);
            prop_assert_eq!(joined.concat(), [head.as_slice(), &pieces.concat()].concat());
            prop_assert!(joined.len() <= pieces.len() + 1);
            prop_assert!(joined.iter().all(|p| !p.is_empty()));
        }
    }

    #[test]
    fn compression_starts_at_the_threshold_and_is_left_out_where_it_does_not_help() {
        let of = |bytes: Vec<u8>| Body::new([Bytes::from(bytes)], 1);
        let gzip = |body: &Body| encode_now(body, Protocol::HttpProtobuf, Compression::Gzip);
        assert_eq!(gzip(&of(vec![0; 1023])).compression(), Compression::None);
        let zeros = gzip(&of(vec![0; 1024]));
        assert_eq!(zeros.compression(), Compression::Gzip);
        assert!(zeros.len() < 100);

        let mut noise = 1u64;
        let noise = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 56) as u8
        });
        let noise: Vec<u8> = noise.take(4096).collect();
        let encoded = gzip(&of(noise.clone()));
        assert_eq!((encoded.compression(), encoded.len()), (Compression::None, noise.len()));
    }

    #[test]
    fn every_encoding_gives_back_the_request_it_was_made_of() {
        // ResourceSpans { ScopeSpans { Span { name } } } as often as it takes to be compressed,
        // in small pieces and a large one.
        let span = b"\x0A\x0D\x12\x0B\x12\x09\x2A\x07GET /ok";
        let body = Body::new(
            [Bytes::from_static(span), Bytes::from(span.repeat(2000)), Bytes::from_static(span)],
            2002,
        );
        let request = body.pieces().concat();
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson] {
            for compression in
                [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Brotli]
            {
                let encoded = encode_now(&body, protocol, compression);
                assert_eq!(encoded.compression(), compression);
                assert_eq!(encoded.request_len(), request.len());
                if protocol == Protocol::HttpJson || compression != Compression::None {
                    let prefix_len = encoded.len() - encoded.copied_len();
                    let is_grpc = protocol == Protocol::Grpc;
                    assert_eq!(prefix_len, if is_grpc { GRPC_PREFIX_LEN } else { 0 });
                }
                assert_eq!(
                    encoded.request().expect("our own"),
                    request,
                    "{protocol:?} {compression:?}"
                );
            }
            let empty = encode_now(&Body::new([], 0), protocol, Compression::None);
            assert_eq!(empty.request().expect("our own"), Bytes::new(), "{protocol:?}");
        }
    }

    #[test]
    fn an_encoding_that_inflates_past_its_length_is_refused() {
        let body = Body::new([Bytes::from(vec![0; 100_000])], 1);
        for compression in [Compression::Gzip, Compression::Zstd, Compression::Brotli] {
            let mut encoded = encode_now(&body, Protocol::HttpProtobuf, compression);
            for wrong in [99_999, 100_001] {
                encoded.plain_len = wrong;
                assert!(encoded.request().is_err(), "{compression:?} {wrong}");
            }
        }
    }

    #[test]
    fn a_body_over_the_limit_is_refused_before_anything_is_compressed() {
        let mib = Bytes::from(vec![0; 1 << 20]);
        let body = Body::new(std::iter::repeat_n(mib, 65), 1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let error = runtime.block_on(encode(&body, Protocol::Grpc, Compression::Zstd, 0));
        assert!(matches!(error, Err(EncodeError::Oversize { bytes, .. }) if bytes == 65 << 20));
    }
}
