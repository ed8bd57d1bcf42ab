//! Scans over the bytes of strings and numbers: sixteen at a time in a vector register, then eight.

use wide::u8x16;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Marks, one bit for each, the bytes that JSON doesn't allow raw in a string: the quote, the
/// backslash and control characters.
#[inline(always)]
fn special_in(block: u8x16) -> u32 {
    let quote = block.simd_eq(u8x16::splat(b'"'));
    let backslash = block.simd_eq(u8x16::splat(b'\\'));
    let control = block.min(u8x16::splat(0x1F)).simd_eq(block);
    (quote | backslash | control).to_bitmask()
}

/// Marks the same bytes by their high bits.
///
/// A borrow may also mark bytes above a marked one, so only whether there is a mark, and the lowest
/// one, mean something.
#[inline]
const fn special(word: u64) -> u64 {
    let zero_quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let zero_backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    let control = word.wrapping_sub(ONES * 0x20);
    (zero_quote | zero_backslash | control) & !word & HIGHS
}

/// Length of the prefix that has neither quote nor backslash nor control character.
#[inline]
pub(super) fn plain(bytes: &[u8]) -> usize {
    let len = plain_len(bytes);
    crate::work::add(len);
    len
}

#[inline]
fn plain_len(bytes: &[u8]) -> usize {
    let (blocks, tail) = bytes.as_chunks();
    for (index, block) in blocks.iter().enumerate() {
        let marks = special_in(u8x16::new(*block));
        if marks != 0 {
            return index * 16 + marks.trailing_zeros() as usize;
        }
    }
    bytes.len() - tail.len() + plain_len_of_few(tail)
}

/// The same for what is less than a block: the end of the text, or a short one.
#[cold]
fn plain_len_of_few(bytes: &[u8]) -> usize {
    let stop = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    bytes.iter().position(stop).unwrap_or(bytes.len())
}

/// Whether all of it needs neither escapes nor a check of encoding: ASCII without quotes, backslashes
/// and control characters.
#[inline]
pub(super) fn is_plain_ascii(bytes: &[u8]) -> bool {
    // Blocks and words that overlap rather than bytes one by one: most texts are short.
    if let Some(last) = bytes.last_chunk() {
        let marks = |block: &[u8; 16]| {
            let block = u8x16::new(*block);
            special_in(block) | block.to_bitmask()
        };
        let blocks = bytes.as_chunks().0.iter();
        return blocks.fold(marks(last), |seen, block| seen | marks(block)) == 0;
    }
    let marks = |word: u64| (special(word) | word) & HIGHS;
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        marks(first) | marks(last) == 0
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        marks(u64::from(first) << 32 | u64::from(last)) == 0
    } else {
        bytes.iter().all(|&byte| matches!(byte, b' '..0x80) && byte != b'"' && byte != b'\\')
    }
}

/// The character that a `\u` escape at the start of `bytes` stands for, and its length: 6, or 12
/// for a pair of surrogates. `None` for a bad digit or a surrogate alone.
pub(super) fn unicode_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| match bytes.get(at..at + 6)? {
        [b'\\', b'u', digits @ ..] => digits
            .iter()
            .try_fold(0, |unit, &digit| Some(unit << 4 | (digit as char).to_digit(16)?)),
        _ => None,
    };
    match unit(0)? {
        high @ 0xD800..=0xDBFF => {
            let low = unit(6).filter(|unit| (0xDC00..=0xDFFF).contains(unit))?;
            let character = 0x1_0000 + ((high - 0xD800) << 10 | (low - 0xDC00));
            Some((char::from_u32(character)?, 12))
        }
        unit => Some((char::from_u32(unit)?, 6)),
    }
}

/// Length of the number at the start of `bytes`, by RFC 8259, section 6. `None` if there is none.
#[inline]
pub(super) fn number(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let len = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        (len > 0).then_some(from + len)
    };
    let start = usize::from(bytes.first() == Some(&b'-'));
    let mut end = digits(start)?;
    if bytes[start] == b'0' && end > start + 1 {
        return None;
    }
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let sign = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
        end = digits(end + 1 + usize::from(sign))?;
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_stops_at_the_first_special_byte_wherever_it_lies() {
        for stop in [b'"', b'\\', 0, 0x1F, b'\n'] {
            for at in 0..40 {
                let mut bytes = vec![b'a'; 40];
                bytes[at] = stop;
                assert_eq!(plain(&bytes), at, "{stop:#x}");
                for (from, to) in (0..=at).flat_map(|from| (at..=40).map(move |to| (from, to))) {
                    assert_eq!(is_plain_ascii(&bytes[from..to]), to == at, "{stop:#x}");
                }
                // Bytes one above a special one are those that a borrow could mark wrongly.
                bytes[at + 1..].fill(stop + 1);
                assert_eq!((plain(&bytes), is_plain_ascii(&bytes)), (at, false), "{stop:#x}");
            }
        }
    }

    #[test]
    fn every_other_byte_is_plain_and_only_ascii_is_plain_ascii() {
        for byte in (0x20..=0xFF).filter(|byte| !matches!(byte, b'"' | b'\\')) {
            let bytes = [byte; 19];
            assert_eq!(plain(&bytes), 19, "{byte:#x}");
            for len in 1..19 {
                assert_eq!(is_plain_ascii(&bytes[..len]), byte < 0x80, "{byte:#x}");
            }
        }
    }

    #[test]
    fn surrogates_count_only_in_pairs() {
        assert_eq!(unicode_escape(br"\u00e9x"), Some(('é', 6)));
        assert_eq!(unicode_escape(br"\uD83D\uDE00"), Some(('😀', 12)));
        for alone in [r"\ud83d", r"\ud83dx", r"\ude00", r"\ud83d\u0041", r"\ud83d\ud83d"] {
            assert_eq!(unicode_escape(alone.as_bytes()), None, "{alone}");
        }
        for bad in [r"\u12", r"\u12g4", r"\u+123", r"\x0041"] {
            assert_eq!(unicode_escape(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn numbers_end_where_the_grammar_ends_them() {
        let long = [("0", 1), ("-0", 2), ("12,", 2), ("1.5e+3]", 6), ("2E9}", 3), ("0.0", 3)];
        for (text, len) in long {
            assert_eq!(number(text.as_bytes()), Some(len), "{text}");
        }
        for text in ["", "-", "01", "-01", "1.", ".5", "1e", "1e+", "+1", "NaN"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }
}
