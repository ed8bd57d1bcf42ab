//! Bytes as text: hexadecimal for identifiers, base64 (RFC 4648) for everything else.

/// Appends `bytes` in lower-case hexadecimal.
pub(super) fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for pair in bytes.iter().map(|&byte| HEX[usize::from(byte)]) {
        out.extend_from_slice(&pair);
    }
}

/// Appends `N` bytes in lower-case hexadecimal: one store where the length is known beforehand.
pub(super) fn put_hex_id<const N: usize, const M: usize>(out: &mut Vec<u8>, id: &[u8; N]) {
    const { assert!(M == 2 * N) };
    let mut digits = [0; M];
    for (pair, &byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(id) {
        *pair = HEX[usize::from(byte)];
    }
    out.extend_from_slice(&digits);
}

/// Appends the bytes that pairs of hexadecimal digits of either case stand for. `None`, perhaps
/// with something appended, where there is another character or an odd count.
#[must_use]
pub(super) fn get_hex(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let mut seen = 0;
    // All digits first, the verdict at the end: a loop without a way out runs several times faster.
    out.extend(pairs.iter().map(|[high, low]| {
        let (high, low) = (NIBBLE[usize::from(*high)], NIBBLE[usize::from(*low)]);
        seen |= high | low;
        high << 4 | low
    }));
    (seen <= 0xF).then_some(())
}

/// Appends `bytes` in base64, standard alphabet, padded, as proto3 JSON has it.
pub(super) fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let digit = |bits: u32| ALPHABET[bits as usize & 0x3F];
    out.reserve(bytes.len().div_ceil(3) * 4);
    let (triples, tail) = bytes.as_chunks::<3>();
    for &[a, b, c] in triples {
        let bits = u32::from_be_bytes([0, a, b, c]);
        out.extend_from_slice(&[18, 12, 6, 0].map(|shift| digit(bits >> shift)));
    }
    match *tail {
        [a] => {
            let bits = u32::from(a) << 4;
            out.extend_from_slice(&[digit(bits >> 6), digit(bits), b'=', b'=']);
        }
        [a, b] => {
            let bits = u32::from_be_bytes([0, 0, a, b]) << 2;
            out.extend_from_slice(&[digit(bits >> 12), digit(bits >> 6), digit(bits), b'=']);
        }
        _ => {}
    }
}

/// Appends the bytes that `text` stands for: standard or URL-safe alphabet, padded or not, as
/// proto3 JSON demands of readers. `None`, with part of them appended, where it is no base64.
#[must_use]
pub(super) fn get_base64(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let padding = text.iter().rev().take(2).take_while(|&&digit| digit == b'=').count();
    if padding > 0 && !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = &text[..text.len() - padding];
    out.reserve(digits.len() / 4 * 3 + 2);
    let (quads, tail) = digits.as_chunks::<4>();
    for quad in quads {
        let [a, b, c, d] = quad.map(|digit| VALUE[usize::from(digit)]);
        if a | b | c | d > 0x3F {
            return None;
        }
        out.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
    }
    let value = |digit: u8| match VALUE[usize::from(digit)] {
        NONE => None,
        value => Some(value),
    };
    match *tail {
        [] => {}
        [a, b] => out.push(value(a)? << 2 | value(b)? >> 4),
        [a, b, c] => {
            let (a, b, c) = (value(a)?, value(b)?, value(c)?);
            out.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2]);
        }
        // Six bits are no byte.
        _ => return None,
    }
    Some(())
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Marks a character that is no digit in the tables below.
const NONE: u8 = 0xFF;

static HEX: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0xF]];
        byte += 1;
    }
    table
};

static NIBBLE: [u8; 256] = {
    let mut table = [NONE; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        table[DIGITS[value] as usize] = value as u8;
        table[DIGITS[value].to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    table
};

static VALUE: [u8; 256] = {
    let mut table = [NONE; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        table[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    table[b'-' as usize] = 62;
    table[b'_' as usize] = 63;
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        put_base64(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    fn from_base64(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        get_base64(&mut out, text.as_bytes()).map(|()| out)
    }

    #[test]
    fn base64_matches_the_vectors_of_rfc_4648() {
        let vectors =
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"].iter().enumerate();
        for (len, text) in vectors {
            assert_eq!(base64(&b"foobar"[..len]), *text);
            assert_eq!(from_base64(text).unwrap(), b"foobar"[..len]);
            let unpadded = text.trim_end_matches('=');
            assert_eq!(from_base64(unpadded).unwrap(), b"foobar"[..len]);
        }
    }

    #[test]
    fn base64_is_read_in_both_alphabets() {
        assert_eq!(base64(&[0xFB, 0xEF, 0xFF]), "++//");
        assert_eq!(from_base64("++//"), Some(vec![0xFB, 0xEF, 0xFF]));
        assert_eq!(from_base64("--__"), Some(vec![0xFB, 0xEF, 0xFF]));
    }

    #[test]
    fn base64_of_another_shape_is_refused() {
        for text in ["A", "AAAAA", "A===", "====", "=", "AA=", "AA=A", "Zg== ", "Zg!=", "Zé=="] {
            assert_eq!(from_base64(text), None, "{text}");
        }
    }

    #[test]
    fn hex_is_written_low_and_read_in_any_case() {
        let mut out = Vec::new();
        put_hex(&mut out, &[0x00, 0xAF, 0x19]);
        put_hex_id::<3, 6>(&mut out, &[0x00, 0xAF, 0x19]);
        assert_eq!(out, b"00af1900af19");
        let mut bytes = Vec::new();
        assert_eq!(get_hex(&mut bytes, b"00AFaf"), Some(()));
        assert_eq!(bytes, [0x00, 0xAF, 0xAF]);
        for text in ["0", "0g", "g0", "0 ", "0x12", "é"] {
            assert_eq!(get_hex(&mut bytes, text.as_bytes()), None, "{text}");
        }
    }
}
