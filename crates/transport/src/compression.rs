//! Compressing a list of bytes, and decompressing an answer within bounds.

use std::future::Future;
use std::io::{self, Read as _};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use async_compression::Level;
use async_compression::tokio::bufread::{BrotliDecoder, ZstdDecoder};
use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// How request bodies are compressed.
///
/// Each algorithm runs at the level that costs least on spans; higher ones gain a few percent for
/// a multiple of the CPU. Every OTLP receiver must take gzip; zstd and brotli need one that says
/// so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// As encoded.
    #[default]
    None,
    /// RFC 1952, level 1.
    Gzip,
    /// RFC 8878, level 1.
    Zstd,
    /// RFC 7932, quality 2. HTTP only: gRPC has no name for it.
    Brotli,
}

impl Compression {
    /// The name in `Content-Encoding` and `grpc-encoding`; `None` means identity.
    pub(crate) fn coding(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::Brotli => Some("br"),
        }
    }

    /// Appends the compressed `pieces` to `out` and returns it.
    ///
    /// Yields to the runtime after each 256 KiB of input, so that a body of many MiB does not
    /// hold up the requests in flight beside it.
    pub(crate) async fn compress(self, pieces: &[Bytes], mut out: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::None => {
                pieces.iter().for_each(|piece| out.extend_from_slice(piece));
                Ok(out)
            }
            Self::Gzip => {
                let mut encoder = GzipEncoder::with_quality(out, Level::Precise(1));
                pump(&mut encoder, pieces).await?;
                Ok(encoder.into_inner())
            }
            Self::Zstd => {
                let mut encoder = ZstdEncoder::with_quality(out, Level::Precise(1));
                pump(&mut encoder, pieces).await?;
                Ok(encoder.into_inner())
            }
            Self::Brotli => {
                // On spans, 2 is as fast as 0 and a fifth smaller.
                let mut encoder = BrotliEncoder::with_quality(out, Level::Precise(2));
                pump(&mut encoder, pieces).await?;
                Ok(encoder.into_inner())
            }
        }
    }
}

impl Compression {
    /// Undoes [`compress`](Self::compress) for a body that was `len` bytes long. More bytes than
    /// that, or fewer, are an error.
    pub(crate) fn decompress(self, compressed: &[u8], len: usize) -> io::Result<Vec<u8>> {
        let plain = match self {
            Self::None => compressed.to_vec(),
            Self::Gzip => gunzip(compressed, len)?.unwrap_or_default(),
            Self::Zstd => ready(read_at_most(ZstdDecoder::new(compressed), len))?,
            Self::Brotli => ready(read_at_most(BrotliDecoder::new(compressed), len))?,
        };
        if plain.len() == len { Ok(plain) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

async fn read_at_most(decoder: impl AsyncRead, len: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(len);
    pin!(decoder).take(len as u64 + 1).read_to_end(&mut out).await?;
    Ok(out)
}

/// The outcome of a future that reads from memory, and so never waits.
fn ready<T>(reading: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match pin!(reading).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

async fn pump(encoder: &mut (impl AsyncWrite + Unpin), pieces: &[Bytes]) -> io::Result<()> {
    for slice in pieces.iter().flat_map(|piece| piece.chunks(YIELD_BYTES)) {
        encoder.write_all(slice).await?;
        if slice.len() == YIELD_BYTES {
            tokio::task::yield_now().await;
        }
    }
    encoder.shutdown().await
}

/// Decompresses a gzip answer of any number of members, up to `bytes_max`.
///
/// The limit holds while inflating, so a bomb costs `bytes_max` and no more. `Ok(None)` means that
/// there was more.
pub(crate) fn gunzip(compressed: &[u8], bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    let mut inflated = flate2::read::MultiGzDecoder::new(compressed).take(bytes_max as u64 + 1);
    inflated.read_to_end(&mut out)?;
    Ok((out.len() <= bytes_max).then_some(out))
}

const YIELD_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).expect("to memory");
        encoder.finish().expect("to memory")
    }

    /// Faults 57.
    #[test]
    fn inflating_stops_at_the_limit() {
        let bomb = gzip(&vec![0; 1 << 20]);
        assert!(bomb.len() < 20_000);
        assert_eq!(gunzip(&bomb, (1 << 20) - 1).expect("valid"), None);
        assert_eq!(gunzip(&bomb, 1 << 20).expect("valid").map(|v| v.len()), Some(1 << 20));
    }

    #[test]
    fn all_members_are_inflated_and_damage_is_an_error() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(gunzip(&two, 100).expect("valid").as_deref(), Some(&b"one two"[..]));
        assert!(gunzip(&two[..two.len() - 1], 100).is_err());
    }
}
