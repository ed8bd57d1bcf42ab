//! The Huffman code of HPACK, RFC 7541 appendix B.
//!
//! The code is canonical: the codes of one length are consecutive, in the order of their symbols,
//! and follow from those before. So the lengths are all there is to know.

/// The text is not one of this code, or its padding is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Appends what `text` stands for, at most 8/5 of its length. A walk over its bits.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut code = Code::default();
    for byte in text {
        for shift in (0..8).rev() {
            if let Some(symbol) = code.push(byte >> shift & 1)? {
                out.push(symbol);
                code = Code::default();
            }
        }
    }
    // What is left over is the start of the end mark, which is all ones, and less than a byte of it.
    let is_padding = code.length < 8 && code.bits + 1 == 1 << code.length;
    is_padding.then_some(()).ok_or(Malformed)
}

/// The start of a code.
#[derive(Default)]
struct Code {
    bits: u32,
    length: usize,
}

impl Code {
    fn push(&mut self, bit: u8) -> Result<Option<u8>, Malformed> {
        self.bits = self.bits << 1 | u32::from(bit);
        self.length += 1;
        let Some(of_length) = CODES.lengths.get(self.length) else {
            // Only the end mark is as long as this, and it must not be in a text.
            return Err(Malformed);
        };
        let place = self.bits.wrapping_sub(of_length.first_code) as usize;
        Ok((place < of_length.count).then(|| CODES.symbols[of_length.first_symbol + place]))
    }
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
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut lengths = [OfLength { first_code: 0, first_symbol: 0, count: 0 }; LENGTH_MAX + 1];
    let mut symbols = [0; 256];
    let (mut code, mut placed, mut length) = (0, 0, 1);
    while length <= LENGTH_MAX {
        code <<= 1;
        let first_symbol = placed;
        let mut symbol = 0_u8;
        loop {
            if LENGTHS[symbol as usize] as usize == length {
                symbols[placed] = symbol;
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
    Codes { lengths, symbols }
}

const LENGTH_MAX: usize = 30;

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
