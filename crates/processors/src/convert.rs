//! Values given another type, by the rules of the `convert` action.

use std::borrow::Cow;

use spanwire_codec::edit::Value;
use spanwire_codec::view::AnyValue;

use crate::action::Type;
use crate::text;

/// The value as one of another type; `None` where it has that type already, or can't be converted.
pub(crate) fn to(to: Type, value: AnyValue<'_>) -> Option<Value<'static>> {
    match to {
        Type::Int => int(value).map(Value::Int),
        Type::Double => double(value).map(Value::Double),
        Type::String => match value {
            AnyValue::String(_) => None,
            value => Some(Value::String(Cow::Owned(text::of(value)?))),
        },
    }
}

fn int(value: AnyValue<'_>) -> Option<i64> {
    match value {
        // Truncates. Beyond the range Go leaves the result to the CPU; here it is the nearest there is.
        AnyValue::Double(number) => Some(number as i64),
        AnyValue::Bool(truth) => Some(i64::from(truth)),
        // As `strconv.ParseInt` in base 10: a sign and digits, all of it, within range.
        AnyValue::String(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn double(value: AnyValue<'_>) -> Option<f64> {
    match value {
        AnyValue::Int(number) => Some(number as f64),
        AnyValue::Bool(truth) => Some(f64::from(u8::from(truth))),
        AnyValue::String(text) => parse_double(text),
        _ => None,
    }
}

/// A double as Go's `strconv.ParseFloat` reads it, except for hexadecimal ones: decimal, or infinite
/// or not a number by name. `None` beyond the range, and for a NaN with a sign.
pub(crate) fn parse_double(text: &[u8]) -> Option<f64> {
    let number = std::str::from_utf8(text).ok()?.parse::<f64>().ok()?;
    let named = text.last().is_some_and(|last| last.is_ascii_alphabetic());
    match text {
        [b'+' | b'-', ..] if number.is_nan() => None,
        _ if number.is_infinite() && !named => None,
        _ => Some(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_become_doubles_as_in_go() {
        for (text, number) in [
            ("1.5", 1.5),
            ("-0", -0.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("+1E3", 1000.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e-400", 0.0),
        ] {
            let bits = parse_double(text.as_bytes()).map(f64::to_bits);
            assert_eq!(bits, Some(f64::to_bits(number)), "{text}");
        }
        assert!(parse_double(b"NaN").is_some_and(f64::is_nan));
        for text in ["", ".", "1e", " 1", "1 ", "1_000", "1e400", "-1e400", "+nan", "-NaN", "x"] {
            assert_eq!(parse_double(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_double(b"\xFF"), None);
    }

    #[test]
    fn numbers_become_integers_towards_zero_and_within_range() {
        for (number, integer) in
            [(1.9, 1), (-1.9, -1), (f64::NAN, 0), (1e300, i64::MAX), (f64::NEG_INFINITY, i64::MIN)]
        {
            assert_eq!(int(AnyValue::Double(number)), Some(integer), "{number}");
        }
    }

    #[test]
    fn strings_become_integers_as_in_go() {
        let int = |text: &str| int(AnyValue::String(text.as_bytes()));
        assert_eq!(int("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(int("+007"), Some(7));
        for text in ["", "-", "1.0", "0x10", "1_000", " 1", "9223372036854775808"] {
            assert_eq!(int(text), None, "{text}");
        }
    }
}
