//! The decoders that give out a body piece by piece.

use std::io::{self, Read as _};

use bytes::buf::Reader;
use bytes::{Buf as _, Bytes};
use flate2::bufread::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use snap::read::FrameDecoder;

use super::corrupt;
use crate::coding::Coding;
use crate::fault::Fault;

pub(super) enum Decoder {
    // Boxed because its state is as large as a page, and moves with the request's future.
    Gzip(Box<MultiGzDecoder<Reader<Bytes>>>),
    Zstd(zstd::stream::read::Decoder<'static, Reader<Bytes>>),
    Zlib(Zlib),
    SnappyFramed(Box<FrameDecoder<Reader<Bytes>>>),
}

impl Decoder {
    /// `None` for the format that comes in one piece only.
    pub(super) fn new(coding: Coding, wire: Bytes) -> Result<Option<Self>, Fault> {
        Ok(Some(match coding {
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(wire.reader()))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(wire.reader())
                    .map_err(|_error| corrupt())?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_error| corrupt())?;
                Self::Zstd(decoder)
            }
            Coding::Zlib => Self::Zlib(Zlib { state: Decompress::new(true), wire, ended: false }),
            Coding::SnappyFramed => Self::SnappyFramed(Box::new(FrameDecoder::new(wire.reader()))),
            Coding::Snappy => return Ok(None),
        }))
    }

    /// Fills `out` from its start; 0 is the end of a body that was whole.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        let read = match self {
            Self::Gzip(decoder) => decoder.read(out),
            Self::Zstd(decoder) => decoder.read(out),
            Self::Zlib(decoder) => decoder.read(out),
            Self::SnappyFramed(decoder) => decoder.read(out),
        };
        read.map_err(|_error| corrupt())
    }
}

/// One zlib stream. The reader that flate2 has takes a stream that breaks off for one that ended.
pub(super) struct Zlib {
    state: Decompress,
    wire: Bytes,
    ended: bool,
}

impl Zlib {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let (taken, given) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(&self.wire, out, FlushDecompress::None)?;
            let taken = self.state.total_in() - taken;
            let given = self.state.total_out() - given;
            // Both fit the slices that they were taken from and given to.
            self.wire.advance(taken as usize);
            match status {
                Status::StreamEnd if self.wire.is_empty() => self.ended = true,
                Status::StreamEnd => return Err(io::ErrorKind::InvalidData.into()),
                Status::Ok | Status::BufError if taken == 0 && given == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Status::Ok | Status::BufError => {}
            }
            if given > 0 {
                return Ok(given as usize);
            }
        }
        Ok(0)
    }
}

/// 8 MiB, what RFC 9659 lets a receiver refuse to exceed.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
