//! Decompresses whole bodies within a limit and a budget.

use std::io::{self, Read};

use bytes::buf::Reader;
use bytes::{Buf as _, Bytes};
use flate2::bufread::MultiGzDecoder;

use crate::body::Admitted;
use crate::fault::Fault;
use crate::stats::Reason;

/// A compression that requests may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// RFC 1952. Several members follow each other as if they were one; anything else after one
    /// is an error.
    Gzip,
    /// RFC 8878, with a window of at most 8 MiB as RFC 9659 has it. Frames likewise follow each other.
    Zstd,
}

impl Coding {
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") {
            Some(Self::Gzip)
        } else if name.eq_ignore_ascii_case(b"zstd") {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

/// Decompresses `wire`, to at most `bytes_max` bytes.
///
/// Output memory is taken from the budget before it is allocated; the compressed bytes are given
/// back at the end. What the decompressor itself needs is not taken: it is there for no longer than
/// this runs, and of zstd's window no more is ever touched than has come out. A body that has not ended after [`INLINE_BYTES`] of output continues on
/// Tokio's blocking threads, because 64 MiB of it would keep every other connection of this
/// worker waiting for a tenth of a second.
pub(crate) async fn inflate(
    wire: Admitted,
    coding: Coding,
    bytes_max: usize,
) -> Result<Admitted, Fault> {
    let mut inflating = Inflating::start(wire, coding, bytes_max)?;
    if inflating.run(INLINE_BYTES)? {
        return Ok(inflating.finish());
    }
    let rest = move || {
        inflating.run(bytes_max)?;
        Ok(inflating.finish())
    };
    // A panic in a decompressor is the data's fault, and so is the answer.
    tokio::task::spawn_blocking(rest).await.unwrap_or_else(|_panic| Err(corrupt()))
}

struct Inflating {
    decoder: Decoder,
    out: Vec<u8>,
    out_len: usize,
    bytes_max: usize,
    reservation: crate::budget::Reservation,
}

enum Decoder {
    // Boxed because its state is as large as a page, and moves with the request's future.
    Gzip(Box<MultiGzDecoder<Reader<Bytes>>>),
    Zstd(zstd::stream::read::Decoder<'static, Reader<Bytes>>),
}

impl Inflating {
    fn start(wire: Admitted, coding: Coding, bytes_max: usize) -> Result<Self, Fault> {
        let Admitted { bytes, reservation } = wire;
        if bytes.is_empty() {
            // Not a compressed nothing, which has a header: a stream cut off before its first byte.
            return Err(corrupt());
        }
        let guess = guess(&bytes, coding).clamp(INITIAL_BYTES_MIN, INITIAL_BYTES_MAX);
        let decoder = match coding {
            Coding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(bytes.reader()))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes.reader())
                    .map_err(|_error| corrupt())?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_error| corrupt())?;
                Decoder::Zstd(decoder)
            }
        };
        let mut inflating = Self { decoder, out: Vec::new(), out_len: 0, bytes_max, reservation };
        inflating.extend(guess.min(bytes_max))?;
        Ok(inflating)
    }

    /// Runs until the end, `true`, or until `pause` bytes are out, `false`.
    fn run(&mut self, pause: usize) -> Result<bool, Fault> {
        loop {
            if self.out_len < self.out.len() {
                match self.decoder.read(&mut self.out[self.out_len..])? {
                    0 => return Ok(true),
                    more => self.out_len += more,
                }
            } else {
                // The buffer often has the exact size, so see first whether there is anything more.
                let mut probe = [0; 64];
                let more = self.decoder.read(&mut probe)?;
                if more == 0 {
                    return Ok(true);
                }
                if self.out_len + more > self.bytes_max {
                    return Err(Fault::too_large(self.bytes_max));
                }
                self.extend((2 * self.out_len).clamp(self.out_len + more, self.bytes_max))?;
                self.out[self.out_len..][..more].copy_from_slice(&probe[..more]);
                self.out_len += more;
            }
            if self.out_len >= pause && pause < self.bytes_max {
                return Ok(false);
            }
        }
    }

    fn extend(&mut self, len: usize) -> Result<(), Fault> {
        if !self.reservation.grow(len - self.out.len()) {
            return Err(Fault::budget());
        }
        self.out.reserve_exact(len - self.out.len());
        self.out.resize(len, 0);
        Ok(())
    }

    fn finish(self) -> Admitted {
        let Self { mut out, out_len, reservation, .. } = self;
        out.truncate(out_len);
        Admitted::filled(out, reservation)
    }
}

impl Decoder {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        let read: io::Result<usize> = match self {
            Self::Gzip(decoder) => decoder.read(out),
            Self::Zstd(decoder) => decoder.read(out),
        };
        read.map_err(|_error| corrupt())
    }
}

/// How much may come out; only the first allocation is sized by it.
fn guess(wire: &[u8], coding: Coding) -> usize {
    match coding {
        // ISIZE, RFC 1952 section 2.3.1: the length of the last member, modulo 2^32.
        Coding::Gzip => wire.last_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize),
        Coding::Zstd => 4 * wire.len(),
    }
}

fn corrupt() -> Fault {
    Fault::new(Reason::Malformed, "the compressed body is corrupt")
}

/// One to two milliseconds of work, after which a worker should turn to its other connections.
const INLINE_BYTES: usize = 1 << 20;

/// Enough for one or two spans.
const INITIAL_BYTES_MIN: usize = 1 << 10;

/// What a compressed body's word for its own size alone can make us allocate.
const INITIAL_BYTES_MAX: usize = 1 << 20;

/// 8 MiB, what RFC 9659 lets a receiver refuse to exceed.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::budget::Share;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).expect("a vector takes all");
        encoder.finish().expect("a vector takes all")
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        zstd::encode_all(data, 1).expect("a vector takes all")
    }

    async fn run(wire: &[u8], coding: Coding, bytes_max: usize) -> Result<Vec<u8>, Reason> {
        let share = Share::alone(100 << 20);
        let wire = Admitted {
            bytes: Bytes::copy_from_slice(wire),
            reservation: share.reserve(wire.len()).expect("a fresh budget"),
        };
        match inflate(wire, coding, bytes_max).await {
            Ok(Admitted { bytes, reservation }) => {
                let out = Vec::from(bytes);
                assert_eq!(share.bytes(), reservation.bytes());
                assert_eq!(reservation.bytes(), out.capacity(), "spare bytes are counted");
                assert!(out.capacity() <= out.len() + out.len() / 8, "and they are few");
                Ok(out)
            }
            Err(fault) => {
                assert_eq!(share.bytes(), 0);
                Err(fault.reason)
            }
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(len)
        .collect()
    }

    #[tokio::test]
    async fn what_was_compressed_comes_back_at_every_size() {
        for len in [0, 1, 1000, 1024, 1025, 100_000, 1 << 20, (1 << 20) + 1, 3_000_000] {
            let data = noise(len);
            assert_eq!(run(&gzip(&data), Coding::Gzip, 4 << 20).await.as_ref(), Ok(&data));
            assert_eq!(run(&zstd(&data), Coding::Zstd, 4 << 20).await.as_ref(), Ok(&data));
        }
    }

    /// Faults 48, 49.
    #[tokio::test]
    async fn members_and_frames_that_follow_each_other_decode_whole() {
        let wire = [gzip(b"abc"), gzip(b""), gzip(b"def")].concat();
        assert_eq!(run(&wire, Coding::Gzip, 100).await, Ok(b"abcdef".to_vec()));
        let skippable = b"\x50\x2A\x4D\x18\x03\0\0\0???".to_vec();
        let wire = [zstd(b"abc"), skippable, zstd(b"def")].concat();
        assert_eq!(run(&wire, Coding::Zstd, 100).await, Ok(b"abcdef".to_vec()));
    }

    /// Faults 49.
    #[tokio::test]
    async fn garbage_after_the_end_is_refused() {
        for garbage in [&b"\0"[..], b"abc", &[0x1F, 0x8B], &[0xFF; 100]] {
            let wire = [&gzip(b"abc"), garbage].concat();
            assert_eq!(run(&wire, Coding::Gzip, 100).await, Err(Reason::Malformed));
            let wire = [&zstd(b"abc"), garbage].concat();
            assert_eq!(run(&wire, Coding::Zstd, 100).await, Err(Reason::Malformed));
        }
    }

    /// Faults 46.
    #[tokio::test]
    async fn a_stream_cut_anywhere_is_refused() {
        for (wire, coding) in [(gzip(&noise(300)), Coding::Gzip), (zstd(&noise(300)), Coding::Zstd)]
        {
            for end in 0..wire.len() {
                let cut = run(&wire[..end], coding, 1000).await;
                assert_eq!(cut, Err(Reason::Malformed), "{coding:?} cut at {end}");
            }
        }
    }

    /// Faults 46.
    #[tokio::test]
    async fn a_damaged_checksum_or_size_is_refused() {
        let wire = gzip(&noise(300));
        for place in wire.len() - 8..wire.len() {
            let mut damaged = wire.clone();
            damaged[place] ^= 1;
            assert_eq!(run(&damaged, Coding::Gzip, 1000).await, Err(Reason::Malformed));
        }
    }

    /// Faults 47, 48.
    #[tokio::test]
    async fn a_bomb_stops_at_the_limit() {
        let data = vec![0; 30 << 20];
        for limit in [1000, 1 << 20, 10 << 20, (30 << 20) - 1] {
            assert_eq!(run(&gzip(&data), Coding::Gzip, limit).await, Err(Reason::TooLarge));
            assert_eq!(run(&zstd(&data), Coding::Zstd, limit).await, Err(Reason::TooLarge));
        }
        assert_eq!(run(&gzip(&data), Coding::Gzip, 30 << 20).await.as_ref(), Ok(&data));
    }

    /// Faults 92.
    #[tokio::test]
    async fn a_bomb_stops_at_the_budget_and_may_come_again() {
        let wire = gzip(&vec![0; 10 << 20]);
        let share = Share::alone(5 << 20);
        let admitted = Admitted {
            reservation: share.reserve(wire.len()).expect("a fresh budget"),
            bytes: wire.into(),
        };
        let fault = inflate(admitted, Coding::Gzip, 64 << 20).await.expect_err("no room");
        assert_eq!(fault.reason, Reason::Budget);
        assert!(fault.retry_after.is_some());
        assert_eq!(share.bytes(), 0);
    }

    /// Faults 48.
    #[tokio::test]
    async fn a_zstd_window_over_8_mib_is_refused() {
        let data = noise(100_000);
        let compress = |window_log| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("level 1 exists");
            encoder.window_log(window_log).expect("within zstd's range");
            encoder.write_all(&data).expect("a vector takes all");
            encoder.finish().expect("a vector takes all")
        };
        assert_eq!(run(&compress(23), Coding::Zstd, 1 << 20).await.as_ref(), Ok(&data));
        assert_eq!(run(&compress(24), Coding::Zstd, 1 << 20).await, Err(Reason::Malformed));
    }

    /// Faults 46.
    #[tokio::test]
    async fn a_gzip_header_with_other_magic_method_or_reserved_flags_is_refused() {
        let wire = gzip(b"abc");
        for (place, value) in [(0, 0x1E), (1, 0x8C), (2, 7), (3, 0x20), (3, 0x40), (3, 0x80)] {
            let mut damaged = wire.clone();
            damaged[place] = value;
            let read = run(&damaged, Coding::Gzip, 1000).await;
            assert_eq!(read, Err(Reason::Malformed), "byte {place} = {value:#x}");
        }
        // Name and comment are allowed, and skipped: RFC 1952 section 2.3.1.
        let named = [&wire[..3], &[0x18], &wire[4..10], b"name\0comment\0", &wire[10..]].concat();
        assert_eq!(run(&named, Coding::Gzip, 1000).await, Ok(b"abc".to_vec()));
    }

    /// Faults 47.
    #[tokio::test]
    async fn a_bomb_of_ten_gibibytes_costs_no_more_than_the_limit() {
        // Blocks of deflate after a full flush stand for themselves, so one can be repeated.
        let mut encoder = flate2::Compress::new(flate2::Compression::best(), false);
        let mut block = Vec::with_capacity(10_000);
        encoder
            .compress_vec(&vec![0; 1 << 20], &mut block, flate2::FlushCompress::Full)
            .expect("room for it");
        let head = b"\x1F\x8B\x08\0\0\0\0\0\0\xFF";
        let bomb = [&head[..], &block.repeat(10 << 10)].concat();
        assert!(bomb.len() < 20 << 20, "{} bytes", bomb.len());
        // The share holds the wire bytes and the limit, and whatever went beyond it would be
        // refused as over the budget instead.
        let share = Share::alone(bomb.len() + (8 << 20));
        let reservation = share.reserve(bomb.len()).expect("a fresh budget");
        let wire = Admitted { bytes: bomb.into(), reservation };
        let fault = inflate(wire, Coding::Gzip, 8 << 20).await.expect_err("too large");
        assert_eq!((fault.reason, fault.retry_after), (Reason::TooLarge, None));
        assert_eq!(share.bytes(), 0);
    }

    /// Faults 48.
    #[tokio::test]
    async fn a_zstd_header_is_not_taken_at_its_word() {
        // Magic, descriptor, window or content size, then one raw block of three bytes that is the
        // last: RFC 8878 section 3.1.1.
        let frame = |header: &[u8]| [b"\x28\xB5\x2F\xFD", header, b"\x19\0\0abc"].concat();
        let read = async |header: &[u8]| run(&frame(header), Coding::Zstd, 1 << 20).await;
        assert_eq!(read(&[0x20, 3]).await, Ok(b"abc".to_vec()), "one segment of three bytes");
        assert_eq!(read(&[0x20, 2]).await, Err(Reason::Malformed), "less than there is");
        assert_eq!(read(&[0x20, 4]).await, Err(Reason::Malformed), "more than there is");
        let gibibyte = [&[0xA0][..], &(1_u32 << 30).to_le_bytes()].concat();
        assert_eq!(read(&gibibyte).await, Err(Reason::Malformed), "a gibibyte in one segment");
        assert_eq!(read(&[0x00, 13 << 3]).await, Ok(b"abc".to_vec()), "a window of 8 MiB");
        assert_eq!(read(&[0x00, 20 << 3]).await, Err(Reason::Malformed), "a window of 1 GiB");
        assert_eq!(read(&[0x21, 7, 3]).await, Err(Reason::Malformed), "dictionary number 7");
        assert_eq!(read(&[0x28, 3]).await, Err(Reason::Malformed), "the reserved bit");
    }
}
