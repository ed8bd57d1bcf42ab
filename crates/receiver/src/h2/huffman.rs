//! The Huffman code of HPACK, RFC 7541 appendix B.
//!
//! The code is canonical: the codes of one length are consecutive, in the order of their symbols,
//! and follow from those before. So the lengths are all there is to know.

/// The text is not one of this code, or its padding is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Appends what `text` stands for, at most 8/5 of its length. One look-up for most symbols.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut bytes = text.iter();
    // The lowest `count` bits of these are still to be read.
    let (mut bits, mut count) = (0_u64, 0);
    loop {
        while count < LENGTH_MAX
            && let Some(byte) = bytes.next()
        {
            bits = bits << 8 | u64::from(*byte);
            count += 8;
        }
        // The longest code there could be; behind the text it goes on in ones, as its padding does.
        let next = match count.checked_sub(LENGTH_MAX) {
            Some(further) => bits >> further,
            None => bits << (LENGTH_MAX - count) | ((1 << (LENGTH_MAX - count)) - 1),
        } as u32
            & END;
        let (symbol, length) = symbol(next);
        if length > count {
            // What is left over is less than a byte, and all ones.
            return if count < 8 && next == END { Ok(()) } else { Err(Malformed) };
        }
        out.push(symbol.ok_or(Malformed)?);
        count -= length;
    }
}

/// The first symbol of `next`, if it is not the end mark, and the length of its code.
fn symbol(next: u32) -> (Option<u8>, usize) {
    let (symbol, length) = CODES.short[(next >> (LENGTH_MAX - SHORT_BITS)) as usize];
    if length > 0 {
        return (Some(symbol), length.into());
    }
    for (length, codes) in CODES.lengths.iter().enumerate().skip(SHORT_BITS + 1) {
        let place = (next >> (LENGTH_MAX - length)).wrapping_sub(codes.first_code) as usize;
        if place < codes.count {
            return (Some(CODES.symbols[codes.first_symbol + place]), length);
        }
    }
    (None, LENGTH_MAX)
}

/// The codes of one length.
#[derive(Clone, Copy)]
struct OfLength {
    first_code: u32,
    first_symbol: usize,
    count: usize,
}

struct Codes {
    lengths: [OfLength; LENGTH_MAX + 1],
    /// By length, and by value within a length.
    symbols: [u8; 256],
    /// By the first bits: the symbol, and the length of its code; 0 if that is longer.
    short: [(u8, u8); 1 << SHORT_BITS],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut lengths = [OfLength { first_code: 0, first_symbol: 0, count: 0 }; LENGTH_MAX + 1];
    let mut symbols = [0; 256];
    let mut short = [(0, 0); 1 << SHORT_BITS];
    let (mut code, mut placed, mut length) = (0, 0, 1);
    while length <= LENGTH_MAX {
        code <<= 1;
        let first_symbol = placed;
        let mut symbol = 0_u8;
        loop {
            if LENGTHS[symbol as usize] as usize == length {
                symbols[placed] = symbol;
                if length <= SHORT_BITS {
                    let spare = SHORT_BITS - length;
                    let first = (code as usize + placed - first_symbol) << spare;
                    let mut rest = 0;
                    while rest < 1 << spare {
                        short[first + rest] = (symbol, length as u8);
                        rest += 1;
                    }
                }
                placed += 1;
            }
            if symbol == u8::MAX {
                break;
            }
            symbol += 1;
        }
        let count = placed - first_symbol;
        lengths[length] = OfLength { first_code: code, first_symbol, count };
        code += count as u32;
        length += 1;
    }
    Codes { lengths, symbols, short }
}

const LENGTH_MAX: usize = 30;

/// The end mark.
const END: u32 = (1 << LENGTH_MAX) - 1;

const SHORT_BITS: usize = 8;

/// The bits of each byte's code. The end mark, not among them, has 30.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        decode(text, &mut out).map(|()| out)
    }

    /// RFC 7541 appendix C.4 and C.6.
    #[test]
    fn the_texts_of_the_rfc_are_read() {
        let texts: [(&[u8], &str); 4] = [
            (b"\xF1\xE3\xC2\xE5\xF2\x3A\x6B\xA0\xAB\x90\xF4\xFF", "www.example.com"),
            (b"\xA8\xEB\x10\x64\x9C\xBF", "no-cache"),
            (b"\x64\x02", "302"),
            (
                b"\x9D\x29\xAD\x17\x18\x63\xC7\x8F\x0B\x97\xC8\xE9\xAE\x82\xAE\x43\xD3",
                "https://www.example.com",
            ),
        ];
        for (text, expected) in texts {
            assert_eq!(decoded(text).as_deref(), Ok(expected.as_bytes()));
        }
        assert_eq!(decoded(b""), Ok(vec![]));
    }

    #[test]
    fn every_byte_comes_back_out_of_its_code() {
        // The codes anew, without the tables: the next one, longer where the length grows.
        let mut symbols: Vec<u8> = (0..=255).collect();
        symbols.sort_by_key(|symbol| LENGTHS[usize::from(*symbol)]);
        let (mut code, mut length) = (0_u64, 0);
        for symbol in symbols {
            let grown = LENGTHS[usize::from(symbol)];
            code <<= grown - length;
            length = grown;
            // As a text of its own, ones behind it.
            let bytes = length.div_ceil(8);
            let spare = bytes * 8 - length;
            let text = ((code + 1) << spare) - 1;
            let text = &text.to_be_bytes()[8 - usize::from(bytes)..];
            assert_eq!(decoded(text), Ok(vec![symbol]));
            code += 1;
        }
        assert_eq!(code, (1 << 30) - 1, "and but for the end mark none is left");
    }

    /// RFC 7541 section 5.2.
    #[test]
    fn padding_is_ones_and_less_than_a_byte_and_no_text_has_an_end_mark() {
        assert_eq!(decoded(b"\x07"), Ok(b"0".to_vec()), "three ones");
        for text in
            [&b"\x07\xFF"[..], b"\x06", b"\xFF", b"\xFF\xFF\xFF\xFF", b"\xFF\xFF\xFF\xFC\x07"]
        {
            assert_eq!(decoded(text), Err(Malformed), "{text:?}");
        }
    }
}
