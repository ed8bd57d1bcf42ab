//! Numbers both ways: the integers and doubles of proto3 JSON.

use std::io::Write as _;

use super::error::JsonErrorKind;
use super::scan;

/// Appends `value` in decimal.
#[inline]
pub(super) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    if value < 1_000 {
        // Enums, flags, statuses and ports: no buffer, no copy.
        let value = value as u32;
        if value >= 100 {
            out.push(b'0' + (value / 100) as u8);
        }
        if value >= 10 {
            out.push(b'0' + (value / 10 % 10) as u8);
        }
        return out.push(b'0' + (value % 10) as u8);
    }
    let mut digits = [0; DIGITS_MAX];
    let mut start = DIGITS_MAX;
    // Times have 19 digits: eight of them at once don't wait for each other.
    while value >= 100_000_000 {
        let low = (value % 100_000_000) as u32;
        value /= 100_000_000;
        start -= 8;
        let pairs = [low / 1_000_000, low / 10_000 % 100, low / 100 % 100, low % 100];
        for (digits, pair) in digits[start..].as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
            *digits = PAIRS[pair as usize];
        }
    }
    let mut value = value as u32;
    while value >= 100 {
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[(value % 100) as usize]);
        value /= 100;
    }
    if value >= 10 {
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[value as usize]);
    } else {
        start -= 1;
        digits[start] = b'0' + value as u8;
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends `value` in decimal.
pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    put_u64(out, value.unsigned_abs());
}

/// Appends the shortest decimal that reads as `value` again; what is no number becomes a string.
pub(super) fn put_f64(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else {
        let magnitude = value.abs();
        // Without an exponent the largest doubles have 309 digits.
        let written = if magnitude == 0.0 || (1e-5..1e17).contains(&magnitude) {
            write!(out, "{value}")
        } else {
            write!(out, "{value:e}")
        };
        written.expect("a vector takes all that is written");
    }
}

/// What the digits at the start of `text` stand for, and how many they are: 19 at most, which is what
/// surely fits. Eight at once: times have 19.
#[inline]
pub(super) fn leading_digits(text: &[u8]) -> (u64, usize) {
    let (mut value, mut len) = (0, 0);
    for eight in text.as_chunks().0.iter().take(2) {
        let Some(digits) = eight_digits(*eight) else { break };
        value = value * 100_000_000 + digits;
        len += 8;
    }
    for digit in text[len..].iter().take(19 - len) {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value * 10 + u64::from(digit);
        len += 1;
    }
    (value, len)
}

/// The number that eight digits stand for; `None` where there is another byte.
#[inline]
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    // The first digit is the lowest byte.
    let word = u64::from_le_bytes(text);
    let digits = word.wrapping_sub(0x3030_3030_3030_3030);
    // A byte below a digit borrows and one above carries, each into its high half.
    if (digits | digits.wrapping_add(0x0606_0606_0606_0606)) & 0xF0F0_F0F0_F0F0_F0F0 != 0 {
        return None;
    }
    // Neighbours are joined to numbers of two, then four, then eight digits.
    let twos = (digits * 10 + (digits >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (twos * 100 + (twos >> 16)) & 0x0000_FFFF_0000_FFFF;
    Some((fours * 10_000 + (fours >> 32)) & 0xFFFF_FFFF)
}

/// An integer: its sign and its magnitude.
///
/// `text` follows the grammar of a number. A fraction of zeros and an exponent are no obstacle, as
/// in `1.0` and `1e3`. One pass over the digits, however many there are.
fn integer(text: &[u8]) -> Result<(bool, u64), JsonErrorKind> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let whole = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let magnitude = if whole < text.len() {
        scaled(text, whole)?
    } else if whole < DIGITS_MAX {
        text.iter().fold(0, |magnitude, byte| magnitude * 10 + u64::from(byte - b'0'))
    } else {
        text.iter().try_fold(0, |magnitude, byte| push_digit(magnitude, byte - b'0'))?
    };
    Ok((negative, magnitude))
}

/// An unsigned integer written with a fraction or an exponent behind its `whole` first digits.
#[cold]
fn scaled(text: &[u8], whole: usize) -> Result<u64, JsonErrorKind> {
    let exponent_at = text.iter().position(|byte| byte | 0x20 == b'e').unwrap_or(text.len());
    let fraction = &text[(whole + 1).min(exponent_at)..exponent_at];
    let exponent = match text.get(exponent_at + 1..) {
        Some([b'-', digits @ ..]) => -magnitude_of(digits),
        Some([b'+', digits @ ..] | digits) => magnitude_of(digits),
        None => 0,
    };
    // Digits before the point once the exponent has moved it.
    let point = exponent.saturating_add_unsigned(whole as u64);
    let digits = text[..whole].iter().chain(fraction).map(|byte| byte - b'0');
    let mut magnitude = 0;
    let mut position = 0;
    for digit in digits {
        if position < point {
            magnitude = push_digit(magnitude, digit)?;
        } else if digit != 0 {
            return Err(JsonErrorKind::Integer);
        }
        position += 1;
    }
    if magnitude != 0 {
        // Ends by overflow after twenty rounds at most, whatever the exponent.
        while position < point {
            magnitude = push_digit(magnitude, 0)?;
            position += 1;
        }
    }
    Ok(magnitude)
}

#[inline]
fn push_digit(magnitude: u64, digit: u8) -> Result<u64, JsonErrorKind> {
    magnitude
        .checked_mul(10)
        .and_then(|magnitude| magnitude.checked_add(u64::from(digit)))
        .ok_or(JsonErrorKind::Range)
}

/// An exponent's digits as a number; one that is beyond counting becomes the largest there is.
fn magnitude_of(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |magnitude: i64, byte| {
        magnitude.saturating_mul(10).saturating_add(i64::from(byte - b'0'))
    })
}

/// The value of a number that follows the grammar.
pub(super) fn get_u64(text: &[u8]) -> Result<u64, JsonErrorKind> {
    match integer(text)? {
        (false, magnitude) | (true, magnitude @ 0) => Ok(magnitude),
        _ => Err(JsonErrorKind::Range),
    }
}

/// The value of a number that follows the grammar.
pub(super) fn get_i64(text: &[u8]) -> Result<i64, JsonErrorKind> {
    let (negative, magnitude) = integer(text)?;
    let value =
        if negative { 0_i64.checked_sub_unsigned(magnitude) } else { magnitude.try_into().ok() };
    value.ok_or(JsonErrorKind::Range)
}

/// The value of a number that follows the grammar; the nearest double, unless that is infinite.
pub(super) fn get_f64(text: &[u8]) -> Result<f64, JsonErrorKind> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|value: &f64| value.is_finite())
        .ok_or(JsonErrorKind::Double)
}

/// The text of a string if it follows the grammar of a number.
pub(super) fn in_string(text: &[u8], kind: JsonErrorKind) -> Result<&[u8], JsonErrorKind> {
    if scan::number(text) == Some(text.len()) { Ok(text) } else { Err(kind) }
}

/// Digits of `u64::MAX`.
const DIGITS_MAX: usize = 20;

static PAIRS: [[u8; 2]; 100] = {
    let mut table = [[0; 2]; 100];
    let mut value = 0;
    while value < table.len() {
        table[value] = [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn leading_digits_end_at_the_first_other_byte_or_after_nineteen() {
        let number = b"9876543210123456789";
        for len in 0..=number.len() {
            let digits = &number[..len];
            let value = str::from_utf8(digits).unwrap().parse().unwrap_or(0_u64);
            for end in
                [&b""[..], b"\"", b"/", b":", b"\xFF", b"\"}]}]}]}]}", b"::::::::", b"/0000000"]
            {
                let text = [digits, end].concat();
                assert_eq!(leading_digits(&text), (value, len), "{text:?}");
            }
        }
        assert_eq!(leading_digits(&[b'9'; 40]), (9_999_999_999_999_999_999, 19));
        for (at, byte) in (0..8).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
            let mut eight = *b"12345678";
            eight[at] = byte;
            let digits = eight.iter().all(u8::is_ascii_digit);
            let value = digits.then(|| str::from_utf8(&eight).unwrap().parse().unwrap());
            assert_eq!(eight_digits(eight), value, "{byte:#x} at {at}");
        }
    }

    #[test]
    fn integers_may_carry_zeros_behind_the_point_and_an_exponent() {
        for (text, value) in [
            ("1e3", 1000),
            ("1E+3", 1000),
            ("1.5e1", 15),
            ("150e-1", 15),
            ("15.000", 15),
            ("0.0001e4", 1),
            ("0e999999999999999999999", 0),
            ("0.000e-5", 0),
            ("0.00", 0),
            ("-0", 0),
            ("1.8446744073709551615e19", u64::MAX),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(get_u64(text.as_bytes()), Ok(value), "{text}");
        }
        for text in ["1.5", "1e-1", "15e-2", "0.1", "100e-3", "1e-99999999999999999999"] {
            assert_eq!(get_u64(text.as_bytes()), Err(JsonErrorKind::Integer), "{text}");
        }
        for text in ["18446744073709551616", "1e20", "1e99999999999999999999", "-1"] {
            assert_eq!(get_u64(text.as_bytes()), Err(JsonErrorKind::Range), "{text}");
        }
    }

    #[test]
    fn signed_integers_reach_both_ends_and_no_further() {
        for (text, value) in [
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775809", Err(JsonErrorKind::Range)),
            ("9223372036854775808", Err(JsonErrorKind::Range)),
            ("-1e0", Ok(-1)),
        ] {
            assert_eq!(get_i64(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn doubles_are_short_and_beyond_range_is_an_error() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e300, "1e300"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (f64::NAN, "\"NaN\""),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            assert_eq!(written(|out| put_f64(out, value)), text);
        }
        assert_eq!(get_f64(b"1e309"), Err(JsonErrorKind::Double));
        assert_eq!(get_f64(b"1e-400"), Ok(0.0));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(
            signed in any::<i64>(),
            small in -200_i64..200,
            unsigned in any::<u64>(),
            bits in any::<u64>(),
        ) {
            for value in [signed, small] {
                let text = written(|out| put_i64(out, value));
                prop_assert_eq!(&text, &value.to_string());
                prop_assert_eq!(get_i64(text.as_bytes()), Ok(value));
            }
            let text = written(|out| put_u64(out, unsigned));
            prop_assert_eq!(&text, &unsigned.to_string());
            prop_assert_eq!(get_u64(text.as_bytes()), Ok(unsigned));
            let double = f64::from_bits(bits);
            if double.is_finite() {
                let text = written(|out| put_f64(out, double));
                prop_assert!(text.len() <= 24, "{}", text);
                prop_assert_eq!(get_f64(text.as_bytes()).map(f64::to_bits), Ok(bits));
            }
        }

        #[test]
        fn moving_the_point_changes_no_integer(value in any::<u64>(), shift in 0_usize..30) {
            let zeros = "0".repeat(shift);
            for text in [format!("{value}{zeros}e-{shift}"), format!("{value}.{zeros}")] {
                if scan::number(text.as_bytes()) == Some(text.len()) {
                    prop_assert_eq!(get_u64(text.as_bytes()), Ok(value));
                }
            }
            let digits = value.to_string();
            let (head, tail) = digits.split_at(1);
            if !tail.is_empty() {
                let text = format!("{head}.{tail}{zeros}e{}", tail.len());
                prop_assert_eq!(get_u64(text.as_bytes()), Ok(value));
            }
        }
    }
}
