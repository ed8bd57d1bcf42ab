//! Every compression, whole and damaged, large and lying.

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

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

fn snappy(data: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(data).expect("short enough")
}

fn snappy_framed(data: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(data).expect("a vector takes all");
    let framed = encoder.into_inner().expect("a vector takes all");
    match framed.is_empty() {
        // The encoder writes the identifier with its first frame.
        true => b"\xFF\x06\0\0sNaPpY".to_vec(),
        false => framed,
    }
}

/// `data` in each compression.
fn compressed(data: &[u8]) -> [(Coding, Vec<u8>); 5] {
    [
        (Coding::Gzip, gzip(data)),
        (Coding::Zstd, zstd(data)),
        (Coding::Zlib, zlib(data)),
        (Coding::Snappy, snappy(data)),
        (Coding::SnappyFramed, snappy_framed(data)),
    ]
}

fn admitted(share: &std::sync::Arc<Share>, wire: &[u8]) -> Admitted {
    Admitted {
        bytes: Bytes::copy_from_slice(wire),
        reservation: share.reserve(wire.len()).expect("a fresh budget"),
    }
}

async fn run(wire: &[u8], coding: Coding, bytes_max: usize) -> Result<Vec<u8>, Reason> {
    let share = Share::alone(100 << 20);
    match inflate(admitted(&share, wire), coding, bytes_max, false).await {
        Ok(Inflated { plain: Admitted { bytes, reservation }, compressed }) => {
            assert!(compressed.is_none());
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
        for (coding, wire) in compressed(&data) {
            assert_eq!(run(&wire, coding, 4 << 20).await.as_ref(), Ok(&data), "{coding:?}");
        }
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
    let wire = [snappy_framed(b"abc"), b"\xFE\x02\0\0??".to_vec(), snappy_framed(b"def")].concat();
    assert_eq!(run(&wire, Coding::SnappyFramed, 100).await, Ok(b"abcdef".to_vec()));
}

/// What the Go Collector's exporters send as `snappy`, before and after version 0.125.
#[tokio::test]
async fn a_body_called_snappy_is_a_block_or_frames_by_how_it_begins() {
    let data = noise(3000);
    for wire in [snappy(&data), snappy_framed(&data)] {
        assert_eq!(run(&wire, Coding::Snappy, 4000).await.as_ref(), Ok(&data));
    }
    assert_eq!(run(&snappy(&data), Coding::SnappyFramed, 4000).await, Err(Reason::Malformed));
}

/// Faults 49.
#[tokio::test]
async fn garbage_after_the_end_is_refused() {
    for garbage in [&b"\0"[..], b"abc", &[0x1F, 0x8B], &[0xFF; 100]] {
        for (coding, wire) in compressed(b"abc") {
            let wire = [&wire, garbage].concat();
            assert_eq!(run(&wire, coding, 100).await, Err(Reason::Malformed), "{coding:?}");
        }
    }
}

/// Faults 46.
#[tokio::test]
async fn a_stream_cut_anywhere_is_refused() {
    for (coding, wire) in compressed(&noise(300)) {
        for end in 0..wire.len() {
            if coding == Coding::SnappyFramed && end == 10 {
                // The identifier alone is a stream of nothing; frames have no last one.
                continue;
            }
            let cut = run(&wire[..end], coding, 1000).await;
            assert_eq!(cut, Err(Reason::Malformed), "{coding:?} cut at {end}");
        }
    }
}

/// Faults 46.
#[tokio::test]
async fn a_damaged_checksum_or_size_is_refused() {
    let data = noise(300);
    let (gzip, zlib, framed) = (gzip(&data), zlib(&data), snappy_framed(&data));
    for (coding, wire, places) in [
        (Coding::Gzip, &gzip, gzip.len() - 8..gzip.len()),
        (Coding::Zlib, &zlib, zlib.len() - 4..zlib.len()),
        // After the identifier, and a frame's kind and length.
        (Coding::SnappyFramed, &framed, 14..18),
        (Coding::Snappy, &snappy(&data), 0..2),
    ] {
        for place in places {
            let mut damaged = wire.clone();
            damaged[place] ^= 1;
            let read = run(&damaged, coding, 1000).await;
            assert_eq!(read, Err(Reason::Malformed), "{coding:?}, byte {place}");
        }
    }
}

/// Faults 47, 48.
#[tokio::test]
async fn a_bomb_stops_at_the_limit() {
    let data = vec![0; 30 << 20];
    for limit in [1000, 1 << 20, 10 << 20, (30 << 20) - 1] {
        for (coding, wire) in compressed(&data) {
            assert_eq!(run(&wire, coding, limit).await, Err(Reason::TooLarge), "{coding:?}");
        }
    }
    for (coding, wire) in compressed(&data) {
        assert_eq!(run(&wire, coding, 30 << 20).await.as_ref(), Ok(&data), "{coding:?}");
    }
}

/// Faults 5, 47.
#[tokio::test]
async fn a_block_that_claims_more_than_its_bytes_can_become_is_refused_before_there_is_room() {
    // 60 MiB as a varint, and a literal of one byte.
    let lie = b"\x80\x80\x80\x1E\0a";
    let share = Share::alone(1 << 20);
    let wire = admitted(&share, lie);
    let fault = inflate(wire, Coding::Snappy, 64 << 20, false).await.err().expect("refused");
    assert_eq!(fault.reason, Reason::Malformed);
    // A literal of one byte, then copies of 64 bytes each: the most that a block can become.
    let mut bomb = b"\0a".to_vec();
    bomb.extend([0xFE, 1, 0].repeat(30_000));
    let len = 1 + 64 * 30_000;
    let block = [&varint(len)[..], &bomb].concat();
    assert_eq!(run(&block, Coding::Snappy, 4 << 20).await, Ok(vec![b'a'; len]));
    let share = Share::alone(block.len() + len - 1);
    let wire = admitted(&share, &block);
    let fault = inflate(wire, Coding::Snappy, 4 << 20, false).await.err().expect("refused");
    assert_eq!((fault.reason, share.bytes()), (Reason::Budget, 0));
}

fn varint(value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(value as u64, &mut out);
    out
}

/// Faults 92.
#[tokio::test]
async fn what_is_kept_compressed_has_a_reservation_of_its_own() {
    let data = noise(3000).repeat(10);
    for (coding, wire) in compressed(&data) {
        let share = Share::alone(100 << 10);
        let inflated = inflate(admitted(&share, &wire), coding, 64 << 10, true).await;
        let Inflated { plain, compressed } = inflated.expect("room for both");
        let kept = compressed.expect("kept");
        assert_eq!((kept.encoding, &kept.bytes[..]), (coding, &wire[..]));
        let plain_bytes = plain.reservation.bytes();
        assert_eq!(share.bytes(), plain_bytes + wire.len(), "{coding:?}");
        drop(kept);
        assert_eq!(share.bytes(), plain_bytes, "{coding:?}");
    }
}

#[tokio::test]
async fn zlib_of_a_dictionary_or_without_its_header_is_refused() {
    // FDICT and the check bits that go with it: RFC 1950 section 2.2.
    let whole = zlib(b"abc");
    let dictionary = [b"\x78\xBB\0\0\0\x01", &whole[2..]].concat();
    assert_eq!(run(&dictionary, Coding::Zlib, 100).await, Err(Reason::Malformed));
    let bare = &whole[2..whole.len() - 4];
    assert_eq!(run(bare, Coding::Zlib, 100).await, Err(Reason::Malformed));
}

/// Faults 92.
#[tokio::test]
async fn a_bomb_stops_at_the_budget_and_may_come_again() {
    let wire = gzip(&vec![0; 10 << 20]);
    let share = Share::alone(5 << 20);
    let wire = admitted(&share, &wire);
    let fault = inflate(wire, Coding::Gzip, 64 << 20, false).await.err().expect("no room");
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
    let fault = inflate(wire, Coding::Gzip, 8 << 20, false).await.err().expect("too large");
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
