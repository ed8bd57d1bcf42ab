//! Span contexts in headers, checked against the rules of W3C Trace Context Level 2.

use proptest::prelude::*;
use spanwire_model::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use spanwire_tracer::propagation::{
    InvalidTraceparent as Invalid, TRACEPARENT, TRACEPARENT_BYTES_MAX, TRACEPARENT_LEN, TRACESTATE,
    extract_span_context, format_traceparent, inject_span_context, parse_traceparent,
};

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn context(flags: u8) -> SpanContext {
    let trace_id = TraceId::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736).expect("not zero");
    let span_id = SpanId::new(0x00f0_67aa_0ba9_02b7).expect("not zero");
    SpanContext::new(trace_id, span_id, TraceFlags(flags))
}

fn remote(flags: u8) -> SpanContext {
    SpanContext { is_remote: true, ..context(flags) }
}

/// What a callee reads where the caller sent these two headers.
fn extract(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<SpanContext> {
    extract_span_context(|name| match name {
        TRACEPARENT => traceparent,
        TRACESTATE => tracestate,
        _ => None,
    })
}

fn inject(context: &SpanContext) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    inject_span_context(context, |name, value| headers.push((name, value.to_owned())));
    headers
}

#[test]
fn traceparent_is_read_and_written_in_the_form_of_version_00() {
    assert_eq!(parse_traceparent(SAMPLED), Ok(remote(1)));
    assert_eq!(&format_traceparent(&context(1))[..], SAMPLED);
    assert_eq!(SAMPLED.len(), TRACEPARENT_LEN);
}

/// Pitfall 6.
#[test]
fn sampled_and_random_flags_travel_and_reserved_ones_do_not() {
    for (received, kept) in [(0x00, 0), (0x01, 1), (0x02, 2), (0x03, 3), (0xfc, 0), (0xff, 3)] {
        let header = format!("{}{received:02x}", &SAMPLED[..53]);
        assert_eq!(parse_traceparent(&header), Ok(remote(kept)), "{header}");
        let written = format_traceparent(&context(received));
        assert_eq!(written[53..], format!("{kept:02x}"), "{header}");
    }
}

#[test]
fn version_00_ends_with_its_flags() {
    for rest in ["-", "-00", "0", "x", "é"] {
        let header = format!("{SAMPLED}{rest}");
        assert_eq!(parse_traceparent(&header), Err(Invalid::Length { bytes: header.len() }));
    }
}

#[test]
fn later_versions_are_read_as_far_as_version_00_goes() {
    for version in ["01", "0a", "cc", "fe"] {
        for rest in ["", "-", "-what-the-future-will-be-like", "-é"] {
            let header = format!("{version}{}{rest}", &SAMPLED[2..]);
            assert_eq!(parse_traceparent(&header), Ok(remote(1)), "{header}");
        }
        let header = format!("{version}{}.what", &SAMPLED[2..]);
        assert_eq!(parse_traceparent(&header), Err(Invalid::Dash { at: 55 }), "{header}");
    }
}

#[test]
fn version_ff_is_forbidden() {
    for rest in ["", "-more"] {
        let header = format!("ff{}{rest}", &SAMPLED[2..]);
        assert_eq!(parse_traceparent(&header), Err(Invalid::Version));
    }
}

#[test]
fn each_digit_must_be_a_lower_case_hex_digit_and_each_dash_a_dash() {
    for at in 0..TRACEPARENT_LEN {
        let is_dash = SAMPLED.as_bytes()[at] == b'-';
        let expected = if is_dash { Invalid::Dash { at } } else { Invalid::Digit { at } };
        for wrong in ["A", "F", "g", "`", "/", ":", "\0", "\u{7f}", "_"] {
            let mut header = SAMPLED.to_owned();
            header.replace_range(at..=at, wrong);
            assert_eq!(parse_traceparent(&header), Err(expected), "{header:?}");
        }
    }
}

#[test]
fn ids_of_zeros_are_refused() {
    let no_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    assert_eq!(parse_traceparent(no_trace), Err(Invalid::TraceId));
    let no_parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
    assert_eq!(parse_traceparent(no_parent), Err(Invalid::SpanId));
}

#[test]
fn blanks_and_tabs_around_a_traceparent_are_ignored_and_those_within_are_not() {
    assert_eq!(parse_traceparent(&format!(" \t {SAMPLED}\t ")), Ok(remote(1)));
    let within = SAMPLED.replacen('-', " -", 1);
    assert_eq!(parse_traceparent(&within), Err(Invalid::Length { bytes: 56 }));
    for other in ["\n", "\r", "\u{a0}"] {
        assert!(parse_traceparent(&format!("{SAMPLED}{other}")).is_err(), "{other:?}");
    }
}

#[test]
fn prohibitively_long_traceparent_is_refused_unread() {
    let padded = |bytes| format!("01{:-<width$}", &SAMPLED[2..], width = bytes - 2);
    assert_eq!(parse_traceparent(&padded(TRACEPARENT_BYTES_MAX)), Ok(remote(1)));
    let bytes = TRACEPARENT_BYTES_MAX + 1;
    assert_eq!(parse_traceparent(&padded(bytes)), Err(Invalid::Length { bytes }));
}

#[test]
fn truncated_traceparent_is_refused() {
    for length in 0..SAMPLED.len() {
        let header = &SAMPLED[..length];
        let refused = Err(Invalid::Length { bytes: length });
        assert_eq!(parse_traceparent(header), refused, "{header}");
    }
}

#[test]
fn extracted_context_is_remote_and_carries_the_tracestate() {
    let context = extract(Some(SAMPLED), Some("rojo=00f067aa0ba902b7 , ,congo=t61rcWkgMzE"));
    let context = context.expect("valid headers");
    assert_eq!(context.trace_state.as_str(), "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
    assert_eq!(SpanContext { trace_state: TraceState::EMPTY, ..context }, remote(1));
}

#[test]
fn bad_tracestate_is_discarded_whole_and_leaves_traceparent_valid() {
    let many = vec!["a=1"; TraceState::ENTRIES_MAX + 1].join(",");
    let long = "x".repeat(10 << 20);
    for bad in ["ok=1,broken", "ok=1,UPPER=2", "ok=1,k=a=b", "é=1", &many, &long] {
        assert_eq!(extract(Some(SAMPLED), Some(bad)), Some(remote(1)));
    }
    assert_eq!(extract(Some(SAMPLED), Some("")), Some(remote(1)));
}

#[test]
fn tracestate_is_not_looked_at_without_a_valid_traceparent() {
    for traceparent in [None, Some(""), Some("00-nonsense")] {
        let context = extract_span_context(|name| match name {
            TRACEPARENT => traceparent,
            _ => panic!("looked up {name}"),
        });
        assert_eq!(context, None);
    }
}

#[test]
fn injected_headers_are_those_that_have_a_value() {
    let mut context = context(3);
    let traceparent = (TRACEPARENT, SAMPLED.replace("-01", "-03"));
    assert_eq!(inject(&context), vec![traceparent.clone()]);
    context.trace_state = TraceState::parse("congo=t61rcWkgMzE").expect("valid");
    assert_eq!(inject(&context), [traceparent, (TRACESTATE, "congo=t61rcWkgMzE".to_owned())]);
}

fn any_context() -> impl Strategy<Value = SpanContext> {
    let trace_state =
        proptest::collection::vec(("[a-z][a-z0-9@/*_-]{0,9}", "[ -+.-<>-~]{0,9}[!]"), 0..9);
    (1_u128.., 1_u64.., 0..4_u8, trace_state).prop_map(|(trace_id, span_id, flags, entries)| {
        let entries: Vec<String> = entries.iter().map(|(k, v)| format!("{k}={v}")).collect();
        SpanContext {
            trace_id: TraceId::new(trace_id).expect("not zero"),
            span_id: SpanId::new(span_id).expect("not zero"),
            flags: TraceFlags(flags),
            is_remote: true,
            trace_state: TraceState::parse(&entries.join(",")).expect("valid entries"),
        }
    })
}

proptest! {
    #[test]
    fn what_is_injected_is_extracted(context in any_context()) {
        let headers = inject(&context);
        let extracted = extract_span_context(|name| {
            headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
        });
        prop_assert_eq!(extracted, Some(context));
    }

    #[test]
    fn any_text_is_refused_or_read_without_panic(traceparent in ".{0,80}", tracestate in ".{0,80}") {
        if let Some(context) = extract(Some(&traceparent), Some(&tracestate)) {
            prop_assert!(traceparent.contains(context.trace_id.to_hex().as_str()));
        }
    }

    /// Near misses reach further into the parser than arbitrary texts do.
    #[test]
    fn damaged_headers_are_refused_or_read_without_panic(at in 0..55_usize, damage in "\\PC{0,3}") {
        let mut header = SAMPLED.to_owned();
        header.replace_range(at..=at, &damage);
        if let Ok(context) = parse_traceparent(&header) {
            prop_assert_eq!(header.len(), TRACEPARENT_LEN);
            prop_assert_eq!(&format_traceparent(&context)[3..53], &header[3..53]);
        }
    }
}
