//! Decisions of the sampler, and what it writes about them.

use fastrand::Rng;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use spanwire_processors::{InvalidSampler, Mode, Sampler, Settings};

use crate::generate;
use crate::{attribute, decoded, encoded, request, spans, text};

const MODES: [Mode; 3] = [Mode::HashSeed, Mode::Proportional, Mode::Equalizing];
const W3C: [Mode; 2] = [Mode::Proportional, Mode::Equalizing];

fn settings(mode: Mode, percentage: f32) -> Settings {
    Settings { mode, percentage, precision: 14, ..Settings::default() }
}

fn id(hex: &str) -> Vec<u8> {
    let id = u128::from_str_radix(hex, 16).expect("hexadecimal digits");
    id.to_be_bytes().to_vec()
}

/// The `tracestate` a span is kept with, if it is.
fn kept(
    settings: Settings,
    trace_id: &[u8],
    state: &str,
    attributes: &[KeyValue],
) -> Option<String> {
    let sampler = Sampler::new(settings).expect("it is valid");
    let span = Span {
        trace_id: trace_id.to_vec(),
        trace_state: state.to_owned(),
        attributes: attributes.to_vec(),
        ..Span::default()
    };
    let sampled = sampler.sample(encoded(&request(vec![span]))).expect("a request");
    assert_eq!(sampled.kept.spans + sampled.dropped, 1);
    spans(&decoded(sampled.kept)).next().map(|span| span.trace_state.clone())
}

/// Decisions of the Go Collector at 50 % for seeds and traces, from the tests of
/// `probabilisticsamplerprocessor`.
#[test]
fn hash_seed_decides_as_the_go_collector_does() {
    for (seed, trace_id, sampled) in [
        (653, "474a03c76d75951a4b4c537ced8f1122", true),
        (563, "53a518291e91307e43cd8467bb06f986", true),
        (142, "a56a02f843b9bc6ee0b13889249e90e6", true),
        (904, "4e40762d3ee97a1c0932e4fa584f89a8", false),
        (445, "5224507db93db513f0ea2a4b4e0578c8", true),
        (38, "0c8717ced36216037af657e9d7f8b35b", true),
        (561, "2a8aa76c18d08e1e8be935541f9318c7", false),
        (757, "9e3d0f9481dc422cb613ea550897ae71", false),
        (22, "66a66c516ac22054673e5da5e6492545", false),
        (172, "84a1ce7bcea3e66194e72b4aa2694e31", true),
        (552, "a811a7def34ca4b98d8e320afd115fad", false),
        (546, "e3a345cc8dbb6f014bfa1edad3981820", true),
        (315, "a71effb50e28d27cbdc9892f3765b8c2", false),
        (510, "55ee665a3fa22f8ea1b744ce15a7339d", false),
        (230, "7a5006be4d0ce7b542d59f83cd6f1c41", false),
        (544, "825b8fb9cfd45867794f4cd8a5a699bd", false),
        (790, "7629ecbea89398bfd9752a2f51c2c137", true),
        (555, "de6cdfb44d69e211f886c57120d7bda0", true),
        (147, "a8a5c3bb9205883fae17ead6675b2450", false),
        (238, "937e6cb3332dbe87062fa3997f48f425", false),
        (122, "5a357e150995e005847816c431ba502d", false),
        (963, "20cb3dcebe2cf8abe6102f4a2e548245", false),
        (666, "3ee60b013303bcfda06be89071b90bd1", true),
        (305, "c90c7cf3471bbc3a804a8a831633705b", true),
        (6, "d6a68b47c66d1f94eed46b8ddc72faf4", false),
        (16, "2533c732bed8c1ba4721c25a1205f06c", false),
    ] {
        let settings = Settings { hash_seed: seed, ..settings(Mode::HashSeed, 50.0) };
        assert_eq!(kept(settings, &id(trace_id), "", &[]).is_some(), sampled, "{seed} {trace_id}");
    }
}

#[test]
fn hash_seed_writes_a_threshold_of_14_bits_and_a_randomness_that_it_keeps() {
    for (percentage, threshold) in [
        (100.0, "0"),
        (75.0, "4"),
        (50.0, "8"),
        (25.0, "c"),
        (10.0, "e668"),
        (100.0 / 3.0, "aaac"),
        (200.0, "0"),
    ] {
        let mut rng = Rng::with_seed(4312);
        let mut found = 0;
        while found < 10 {
            let trace_id = rng.u128(1..).to_be_bytes();
            let Some(state) = kept(settings(Mode::HashSeed, percentage), &trace_id, "", &[]) else {
                continue;
            };
            found += 1;
            let (randomness, written) = state
                .strip_prefix("ot=rv:")
                .and_then(|rest| rest.split_once(";th:"))
                .expect("both");
            assert_eq!((randomness.len(), written), (14, threshold));
            // A sampler by the specification decides alike.
            let again = kept(settings(Mode::Equalizing, percentage), &trace_id, &state, &[]);
            assert_eq!(again.is_some(), randomness >= format!("{threshold:0<14}").as_str());
        }
    }
}

/// `th` and `rv` as the examples of "TraceState: Probability Sampling" have them, and what the Go
/// Collector makes of more.
#[test]
fn thresholds_and_randomness_are_read_compared_and_written() {
    let default = "fefefefefefefefefe80000000000000";
    let always = "111111111111111111ffffffffffffff";
    // Percentage, precision, trace, tracestate; what proportional and equalizing sampling write.
    type Kept = Option<&'static str>;
    let cases: [(f32, u8, &str, &str, Kept, Kept); 26] = [
        (100.0, 4, default, "", Some("ot=th:0"), Some("ot=th:0")),
        (50.0, 4, default, "", Some("ot=th:8"), Some("ot=th:8")),
        (49.0, 14, default, "", None, None),
        (25.0, 4, "ddddddddddddddddddc0000000000000", "", Some("ot=th:c"), Some("ot=th:c")),
        (25.0, 4, "ddddddddddddddddddb0000000000000", "", None, None),
        (
            1.0,
            14,
            default,
            "ot=rv:FD70A3D70A3D71",
            Some("ot=rv:FD70A3D70A3D71;th:fd70a3d70a3d71"),
            Some("ot=rv:FD70A3D70A3D71;th:fd70a3d70a3d71"),
        ),
        (1.0, 14, default, "ot=rv:FD70A3D70A3D70", None, None),
        (
            1.0,
            4,
            default,
            "ot=rv:FD70A3D70A3D71",
            Some("ot=rv:FD70A3D70A3D71;th:fd70a"),
            Some("ot=rv:FD70A3D70A3D71;th:fd70a"),
        ),
        (1.0, 3, default, "ot=rv:FD70A3D70A3D71", None, None),
        (
            1.0,
            5,
            "a0a0a0a0a0a0a0a0a0fe000000000000",
            "",
            Some("ot=th:fd70a4"),
            Some("ot=th:fd70a4"),
        ),
        (
            50.0,
            4,
            default,
            "ot=rv:90000000000000;th:80000000000000",
            None,
            Some("ot=rv:90000000000000;th:8"),
        ),
        (25.0, 4, default, "ot=th:8", None, None),
        (25.0, 4, always, "ot=th:8", Some("ot=th:e"), Some("ot=th:c")),
        (
            50.0,
            4,
            default,
            "ot=rv:c0000000000000;th:8",
            Some("ot=rv:c0000000000000;th:c"),
            Some("ot=rv:c0000000000000;th:8"),
        ),
        (50.0, 4, always, "ot=th:c", Some("ot=th:e"), Some("ot=th:c")),
        (
            40.0,
            3,
            default,
            "ot=rv:a0000000000000",
            Some("ot=rv:a0000000000000;th:99a"),
            Some("ot=rv:a0000000000000;th:99a"),
        ),
        (
            40.0,
            6,
            "a0a0a0a0a0a0a0a0a0d0000000000000",
            "ot=th:8",
            Some("ot=th:cccccd"),
            Some("ot=th:99999a"),
        ),
        (40.0, 3, "a0a0a0a0a0a0a0a0a0b0000000000000", "ot=th:8", None, Some("ot=th:99a")),
        (40.0, 3, "a0a0a0a0a0a0a0a0a080000000000000", "ot=th:8", None, None),
        (200.0, 4, default, "", Some("ot=th:0"), Some("ot=th:0")),
        (100.0 / 16384.0, 4, always, "ot=th:fffc", Some("ot=th:fffffff"), Some("ot=th:fffc")),
        (
            (1.0 - 8e-7) * 100.0,
            10,
            always,
            "",
            Some("ot=th:00000cccccccd"),
            Some("ot=th:00000cccccccd"),
        ),
        (0.0625, 14, always, "ot=th:fffffffffffff8", None, Some("ot=th:fffffffffffff8")),
        (
            50.0,
            4,
            default,
            "a=1,ot=x:y;rv:c0000000000000,b=2",
            Some("ot=rv:c0000000000000;th:8;x:y,a=1,b=2"),
            Some("ot=rv:c0000000000000;th:8;x:y,a=1,b=2"),
        ),
        (50.0, 4, default, "a=1", Some("ot=th:8,a=1"), Some("ot=th:8,a=1")),
        (0.0, 4, always, "", None, None),
    ];
    for (percentage, precision, trace_id, state, proportional, equalizing) in cases {
        for (mode, expected) in W3C.into_iter().zip([proportional, equalizing]) {
            let settings = Settings { precision, ..settings(mode, percentage) };
            let state = kept(settings, &id(trace_id), state, &[]);
            assert_eq!(state.as_deref(), expected, "{mode:?} {percentage} {trace_id}");
        }
    }
}

#[test]
fn a_priority_comes_before_the_percentage_in_all_modes() {
    use Value::{BoolValue, DoubleValue, IntValue, StringValue};
    let string = |text: &str| StringValue(text.to_owned());
    for mode in MODES {
        let is_kept = |percentage, priority| {
            let priority = attribute("sampling.priority", priority);
            kept(settings(mode, percentage), &[1; 16], "", &[priority]).is_some()
        };
        for above in [IntValue(2), DoubleValue(0.5), string("1"), string("0.5"), string("inf")] {
            assert!(is_kept(0.0, above.clone()), "{mode:?} {above:?}");
        }
        for zero in [IntValue(0), DoubleValue(-0.0), string("0"), string("0.0")] {
            assert!(!is_kept(100.0, zero.clone()), "{mode:?} {zero:?}");
        }
        for other in [IntValue(-1), string("NaN"), string("-1"), string("high"), BoolValue(true)] {
            assert!(is_kept(100.0, other.clone()), "{mode:?} {other:?}");
            assert!(!is_kept(0.0, other.clone()), "{mode:?} {other:?}");
        }
    }
    let priority = [attribute("sampling.priority", IntValue(1))];
    let state = kept(settings(Mode::Equalizing, 1.0), &[1; 16], "", &priority);
    assert_eq!(state.as_deref(), Some("ot=th:0"));
}

#[test]
fn without_a_decision_a_span_fails_closed_or_open() {
    let [zeros, short, fine] = [&[0; 16][..], &[1; 8], &[1; 16]];
    for (modes, trace_id, state, open) in [
        (&W3C[..], zeros, "", "ot=th:0"),
        (&W3C, short, "", "ot=th:0"),
        (&W3C, zeros, "ot=th:8", "ot=th:8"),
        (&MODES, fine, "ot=rv:abababababababab", "ot=rv:abababababababab"),
        (&MODES, fine, "ot=th:abababababababab", "ot=th:abababababababab"),
        (&MODES, fine, "ot=th:-1", "ot=th:-1"),
        (&MODES, fine, "what?", "what?"),
        (&W3C, fine, "ot=th:8;rv:70000000000000", "ot=rv:70000000000000;th:0"),
        (&W3C, fine, "ot=th:8", "ot=th:0"),
        (&MODES[..1], fine, "ot=th:8", "ot=th:8"),
        (&MODES[..1], fine, "ot=rv:70000000000000", "ot=rv:70000000000000"),
        (&MODES[..1], zeros, "", "ot=rv:ffffffffffffff;th:0"),
    ] {
        for mode in modes {
            let decide = |fail_closed| {
                let settings = Settings { fail_closed, ..settings(*mode, 100.0) };
                kept(settings, trace_id, state, &[])
            };
            assert_eq!(decide(true), None, "{mode:?} {state}");
            assert_eq!(decide(false).as_deref(), Some(open), "{mode:?} {state}");
        }
    }
}

#[test]
fn rates_are_what_was_set_and_a_greater_one_keeps_all_that_a_smaller_one_does() {
    let mut rng = Rng::with_seed(1);
    let count = 100_000;
    let span = |_| Span { trace_id: rng.u128(1..).to_be_bytes().to_vec(), ..Span::default() };
    let bytes = encoded(&request((0..count).map(span).collect()));
    for mode in MODES {
        let mut before: Vec<Vec<u8>> = Vec::new();
        for percentage in [0.1, 1.0, 10.0, 50.0, 90.0] {
            let sampler = Sampler::new(settings(mode, percentage)).expect("it is valid");
            let sampled = sampler.sample(bytes.clone()).expect("a request");
            assert_eq!(sampled.kept.spans + sampled.dropped, count);
            let expected = f64::from(percentage) / 100.0 * count as f64;
            let deviation = (expected * (1.0 - f64::from(percentage) / 100.0)).sqrt();
            let off = (sampled.kept.spans as f64 - expected).abs();
            // 14 bits round 0.1 % down by up to 6 %.
            let rounding = if mode == Mode::HashSeed { count as f64 / 16_384.0 } else { 0.0 };
            assert!(off < 4.0 * deviation + rounding, "{mode:?} {percentage}: {off}");
            let request = decoded(sampled.kept);
            let kept: Vec<_> = spans(&request).map(|span| span.trace_id.clone()).collect();
            // Both are in the order they came.
            let mut all = kept.iter();
            assert!(before.iter().all(|id| all.any(|other| other == id)), "{mode:?} {percentage}");
            before = kept;
        }
    }
}

#[test]
fn proportional_and_equalizing_agree_on_what_was_not_sampled_before() {
    let mut rng = Rng::with_seed(2);
    let span = |_| Span { trace_id: rng.u128(1..).to_be_bytes().to_vec(), ..Span::default() };
    let bytes = encoded(&request((0..1_000).map(span).collect()));
    let [proportional, equalizing] = W3C.map(|mode| {
        let sampler = Sampler::new(settings(mode, 30.0)).expect("it is valid");
        sampler.sample(bytes.clone()).expect("a request").kept.joined()
    });
    assert_eq!(proportional, equalizing);
}

#[test]
fn a_span_that_says_already_how_it_was_sampled_is_left_alone() {
    let span = Span {
        trace_id: vec![0xFF; 16],
        trace_state: "ot=th:8,a=1".to_owned(),
        attributes: vec![text("k", "v")],
        ..Span::default()
    };
    let bytes = encoded(&request(vec![span]));
    let sampler = Sampler::new(settings(Mode::Equalizing, 50.0)).expect("it is valid");
    let sampled = sampler.sample(bytes.clone()).expect("a request");
    assert_eq!(sampled.kept.pieces[0].as_ptr(), bytes.as_ptr());
}

#[test]
fn where_all_spans_are_dropped_nothing_is_left() {
    let span = Span { trace_id: vec![1; 16], ..Span::default() };
    let sampler = Sampler::new(Settings::default()).expect("it is valid");
    let sampled = sampler.sample(encoded(&request(vec![span; 3]))).expect("a request");
    assert_eq!((sampled.kept.spans, sampled.kept.bytes, sampled.dropped), (0, 0, 3));
    assert!(sampled.kept.pieces.is_empty());
}

#[test]
fn numbers_out_of_range_are_refused() {
    let refused = |settings| Sampler::new(settings).expect_err("it is invalid").to_string();
    for percentage in [-1.0, f32::NAN, f32::INFINITY] {
        let text = format!("sampling percentage {percentage} is not a finite number from 0 on");
        assert_eq!(refused(settings(Mode::HashSeed, percentage)), text);
    }
    let percentage = 1e-16;
    let error = Sampler::new(settings(Mode::HashSeed, percentage)).expect_err("it is invalid");
    assert_eq!(error, InvalidSampler::TooSmall { percentage });
    for precision in [0, 15] {
        let settings = Settings { precision, ..Settings::default() };
        let error = Sampler::new(settings).expect_err("it is invalid");
        assert_eq!(error, InvalidSampler::Precision { precision });
    }
}

proptest! {
    /// What is kept differs from what came by its `tracestate` only, and no envelope is without a span.
    ///
    /// Faults 2, 18.
    #[test]
    fn spans_are_dropped_or_marked_and_else_as_they_were(
        request in generate::request(),
        encoding in generate::encoding(),
        mode in prop::sample::select(&MODES),
        percentage in 0_f32..=100.0,
        fail_closed: bool,
    ) {
        let settings = Settings { fail_closed, ..settings(mode, percentage) };
        let sampler = Sampler::new(settings).expect("it is valid");
        let sampled = sampler.sample(encoding.encode(&request)).expect("a request");
        prop_assert_eq!(sampled.kept.spans + sampled.dropped, spans(&request).count());
        let mut expected = request.clone();
        let decide = |span: &mut Span| {
            let state = kept(settings, &span.trace_id, &span.trace_state, &span.attributes);
            let is_kept = state.is_some();
            span.trace_state = state.unwrap_or_default();
            is_kept
        };
        for resource_spans in &mut expected.resource_spans {
            resource_spans.scope_spans.retain_mut(|scope_spans| {
                scope_spans.spans.retain_mut(decide);
                !scope_spans.spans.is_empty()
            });
        }
        expected.resource_spans.retain(|resource_spans| !resource_spans.scope_spans.is_empty());
        prop_assert_eq!(decoded(sampled.kept), expected);
    }
}
