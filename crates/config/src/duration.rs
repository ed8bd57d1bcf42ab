//! Go's notation of durations, both ways.

use std::time::Duration;

/// Reads `1h30m`, `200ms`, `1.5s`, `0`: what Go's `time.ParseDuration` takes, except that a
/// negative one is an error, since no setting has a use for it.
pub(crate) fn parse(text: &str) -> Result<Duration, &'static str> {
    const SYNTAX: &str =
        "a duration is a number with a unit (ns, us, ms, s, m, h), such as 200ms or 1h30m";
    const LONG: &str = "a duration is at most 292 years";
    if text.starts_with('-') {
        return Err("a duration cannot be negative here");
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(SYNTAX);
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|char: char| !(char.is_ascii_digit() || char == '.'));
        let (number, tail) = rest.split_at(number.ok_or(SYNTAX)?);
        let unit = tail.find(|char: char| char.is_ascii_digit() || char == '.');
        let (unit, tail) = tail.split_at(unit.unwrap_or(tail.len()));
        let nanos: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(SYNTAX),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(SYNTAX);
        }
        if whole.len() > 19 {
            return Err(LONG);
        }
        total +=
            if whole.is_empty() { 0 } else { whole.parse::<u128>().map_err(|_| SYNTAX)? * nanos };
        let mut weight = nanos;
        for digit in fraction.bytes() {
            if !digit.is_ascii_digit() {
                return Err(SYNTAX);
            }
            // What is lost is below a nanosecond.
            weight /= 10;
            total += u128::from(digit - b'0') * weight;
        }
        if total > i64::MAX as u128 {
            return Err(LONG);
        }
        rest = tail;
    }
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| LONG)
}

/// Writes a duration as [`parse`] reads it: `1h30m`, `200ms`, `1.5s`, `0s`.
pub(crate) fn format(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    for (unit, length) in [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ] {
        if nanos >= length {
            out += &format!("{}{unit}", nanos / length);
            nanos %= length;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{format, parse};

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("200ms", 200_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5m", 30_000_000_000),
            ("3.h", 10_800_000_000_000),
            ("+5us", 5_000),
            ("5µs7ns", 5_007),
            ("0.123456789s", 123_456_789),
            ("1.0000000000000000000000000001s", 1_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text:?}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused_and_negative_ones_too() {
        for text in [
            "",
            "+",
            "5",
            "1h30",
            "s",
            ".s",
            "1.2.3s",
            "5 s",
            "5sec",
            "1d",
            "-5s",
            "1e3s",
            "300000000h",
            "99999999999999999999999h",
            "٣s",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for nanos in [0, 1, 999, 1_500_000_000, 200_000_000, 5_400_000_000_000, i64::MAX as u64] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse(&format(duration)), Ok(duration), "{}", format(duration));
        }
        assert_eq!(format(Duration::from_millis(5_400_200)), "1h30m200ms");
    }
}
