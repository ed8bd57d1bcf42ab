use arrayvec::ArrayString;
use proptest::prelude::*;
use spanwire_model::{InvalidId, SpanId, TraceId};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

proptest! {
    #[test]
    fn ids_come_back_from_their_hex_in_either_case(number in 1_u128.., upper in any::<bool>()) {
        let trace = TraceId::new(number).expect("not zero");
        let hex: ArrayString<32> = trace.to_hex();
        prop_assert_eq!(hex.as_str(), format!("{number:032x}"));
        let text = if upper { hex.to_uppercase() } else { hex.to_string() };
        prop_assert_eq!(text.parse(), Ok(trace));
        prop_assert_eq!(TraceId::from_bytes(trace.to_bytes()), Some(trace));

        let Some(span) = SpanId::new(number as u64) else { return Ok(()) };
        let hex: ArrayString<16> = span.to_hex();
        prop_assert_eq!(hex.as_str(), format!("{:016x}", span.get()));
        prop_assert_eq!(hex.to_uppercase().parse(), Ok(span));
        prop_assert_eq!(SpanId::from_bytes(span.to_bytes()), Some(span));
    }

    #[test]
    fn any_bytes_are_an_id_or_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let is_hex = bytes.iter().all(u8::is_ascii_hexdigit) && bytes.iter().any(|b| *b != b'0');
        prop_assert_eq!(TraceId::from_hex(&bytes).is_ok(), is_hex && bytes.len() == 32);
        prop_assert_eq!(SpanId::from_hex(&bytes).is_ok(), is_hex && bytes.len() == 16);
    }
}

#[test]
fn zero_is_no_id_in_any_form() {
    assert_eq!(TraceId::new(0), None);
    assert_eq!(SpanId::from_bytes([0; 8]), None);
    assert_eq!("0".repeat(32).parse::<TraceId>(), Err(InvalidId::Zero));
    assert_eq!("0".repeat(16).parse::<SpanId>(), Err(InvalidId::Zero));
}

#[test]
fn an_error_says_where_the_first_bad_digit_is() {
    for (at, bad) in
        [(0, b'g'), (3, b'G'), (4, b':'), (5, b' '), (9, b'@'), (12, b'`'), (20, b'/'), (31, 0xff)]
    {
        let mut hex = TRACE.as_bytes().to_vec();
        hex[at] = bad;
        assert_eq!(TraceId::from_hex(&hex), Err(InvalidId::Digit { at }));
    }
    let error = TRACE[1..].parse::<TraceId>().expect_err("too short");
    assert_eq!(error.to_string(), "expected 32 hex digits, found 31 bytes");
}

#[test]
fn ids_are_shown_as_hex_and_padded_like_text() {
    let trace: TraceId = TRACE.parse().expect("valid");
    assert_eq!(format!("{trace}|{trace:?}"), format!("{TRACE}|{TRACE}"));
    assert_eq!(format!("{trace:>34}"), format!("  {TRACE}"));
}

#[test]
fn an_option_of_an_id_costs_nothing() {
    assert_eq!(size_of::<Option<TraceId>>(), 16);
    assert_eq!(size_of::<Option<SpanId>>(), 8);
}
