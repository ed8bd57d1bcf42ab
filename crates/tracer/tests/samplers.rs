//! Sampling decisions and descriptions.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use spanwire_model::{SpanContext, SpanId, SpanKind, TraceFlags, TraceId, TraceState};
use spanwire_tracer::sampler::{InvalidSampler, ParentBased, Sample, Sampler, SamplingParameters};
use spanwire_tracer::{Loss, Provider};

const HALF: u128 = 1 << 55;

fn trace(id: u128) -> TraceId {
    TraceId::new(id).expect("not zero")
}

fn parent(is_remote: bool, is_sampled: bool) -> SpanContext {
    let span_id = SpanId::new(1).expect("not zero");
    let context = SpanContext::new(trace(1), span_id, TraceFlags(u8::from(is_sampled)));
    SpanContext { is_remote, ..context }
}

fn decide(sampler: &Sampler, trace_id: u128, parent: Option<&SpanContext>) -> bool {
    sampler.sample(&SamplingParameters::new(parent, trace(trace_id), "span", SpanKind::Internal))
}

/// Decisions without a parent, then with a remote one (sampled, not), then with a local one.
fn decisions(sampler: &Sampler) -> [bool; 5] {
    let parents = [(true, true), (true, false), (false, true), (false, false)];
    let [a, b, c, d] = parents
        .map(|(is_remote, is_sampled)| decide(sampler, 1, Some(&parent(is_remote, is_sampled))));
    [decide(sampler, 1, None), a, b, c, d]
}

#[test]
fn always_on_and_always_off_ignore_the_parent() {
    assert_eq!(decisions(&Sampler::AlwaysOn), [true; 5]);
    assert_eq!(decisions(&Sampler::AlwaysOff), [false; 5]);
}

#[test]
fn default_follows_the_parent_and_keeps_what_starts_here() {
    assert_eq!(decisions(&Sampler::default()), [true, true, false, true, false]);
}

#[test]
fn parent_based_asks_the_root_sampler_only_without_a_parent() {
    let sampler = Sampler::parent_based(Sampler::AlwaysOff);
    assert_eq!(decisions(&sampler), [false, true, false, true, false]);
}

#[test]
fn each_kind_of_parent_has_its_own_sampler() {
    let new = || ParentBased::new(Sampler::AlwaysOn);
    let (on, off) = (Sampler::AlwaysOn, Sampler::AlwaysOff);
    let cases = [
        (new().remote_parent_sampled(off.clone()), [true, false, false, true, false]),
        (new().remote_parent_not_sampled(on.clone()), [true, true, true, true, false]),
        (new().local_parent_sampled(off), [true, true, false, false, false]),
        (new().local_parent_not_sampled(on), [true, true, false, true, true]),
    ];
    for (sampler, expected) in cases {
        assert_eq!(decisions(&sampler.clone().into()), expected, "{sampler:?}");
    }
}

#[test]
fn samplers_nest() {
    let inner = Sampler::parent_based(Sampler::ratio(0.0));
    let outer = ParentBased::new(inner.clone()).remote_parent_sampled(inner);
    assert_eq!(decisions(&outer.into()), [false, true, false, true, false]);
}

#[test]
fn ratio_keeps_traces_whose_low_56_bits_reach_the_threshold() {
    let quarter = Sampler::ratio(0.25); // th:c
    let cases =
        [(0xc0_u128 << 48, true), ((0xc0 << 48) - 1, false), ((1 << 56) - 1, true), (1, false)];
    for (low_bits, expected) in cases {
        for high_bits in [0, 1 << 56, 0xffff << 56, u128::MAX << 56] {
            let id = high_bits | low_bits;
            assert_eq!(decide(&quarter, id, None), expected, "{id:032x}");
        }
    }
}

#[test]
fn ratio_of_zero_keeps_nothing_and_of_one_everything() {
    for id in [1, 1 << 56, (1 << 56) - 1, u128::MAX] {
        assert!(!decide(&Sampler::ratio(0.0), id, None));
        assert!(decide(&Sampler::ratio(1.0), id, None));
    }
}

#[test]
fn smallest_ratio_keeps_one_trace_in_two_to_the_56() {
    let smallest = Sampler::ratio(2_f64.powi(-56));
    assert!(decide(&smallest, (1 << 56) - 1, None));
    assert!(!decide(&smallest, (1 << 56) - 2, None));
}

#[test]
fn ratio_outside_its_range_counts_as_the_nearest_and_no_number_as_one() {
    for (ratio, kept) in [
        (-0.5, false),
        (f64::NEG_INFINITY, false),
        (1.5, true),
        (f64::INFINITY, true),
        (f64::NAN, true),
    ] {
        assert_eq!(decide(&Sampler::ratio(ratio), 1, None), kept, "{ratio}");
        assert_eq!(decide(&Sampler::ratio(ratio), u128::MAX, None), kept, "{ratio}");
    }
}

#[test]
fn ratio_ignores_the_parents_decision() {
    assert_eq!(decisions(&Sampler::ratio(0.5)), [false; 5]);
    let parent = parent(true, false);
    assert!(decide(&Sampler::ratio(0.5), HALF, Some(&parent)));
}

#[test]
fn ratio_decides_by_explicit_randomness_where_the_caller_gives_it() {
    let half = Sampler::ratio(0.5);
    for (state, expected) in [
        ("ot=rv:80000000000000", true),
        ("ot=rv:7fffffffffffff", false),
        ("vendor=1,ot=th:c;rv:80000000000000", true),
        // Malformed, or none of ours: the trace id decides, as without.
        ("ot=rv:8000000000000", false),
        ("ot=rv:800000000000000", false),
        ("ot=rv:8000000000000G", false),
        ("ot=rv:+8000000000000", false),
        ("ot=th:8", false),
        ("vendor=rv:80000000000000", false),
    ] {
        let mut parent = parent(true, true);
        parent.trace_state = TraceState::parse(state).expect("valid");
        assert_eq!(decide(&half, 1, Some(&parent)), expected, "{state}");
    }
}

#[test]
fn descriptions_are_those_of_the_specification() {
    assert_eq!(Sampler::AlwaysOn.description(), "AlwaysOnSampler");
    assert_eq!(Sampler::AlwaysOff.description(), "AlwaysOffSampler");
    for (ratio, digits) in
        [(1.0, "1.000000"), (0.25, "0.250000"), (0.000_1, "0.000100"), (0.000_000_25, "0.00000025")]
    {
        let expected = format!("TraceIdRatioBased{{{digits}}}");
        assert_eq!(Sampler::ratio(ratio).description(), expected);
    }
    assert_eq!(
        format!("{:?}", Sampler::default()),
        "ParentBased{root:AlwaysOnSampler,\
         remoteParentSampled:AlwaysOnSampler,remoteParentNotSampled:AlwaysOffSampler,\
         localParentSampled:AlwaysOnSampler,localParentNotSampled:AlwaysOffSampler}"
    );
}

#[test]
fn names_of_the_specification_mean_its_samplers_in_any_case() {
    let quarter = Sampler::ratio(0.25);
    let cases = [
        ("always_on", None, Sampler::AlwaysOn),
        ("always_off", Some("ignored"), Sampler::AlwaysOff),
        ("traceidratio", Some("0.25"), quarter.clone()),
        ("traceidratio", Some(" 2.5e-1 "), quarter.clone()),
        ("traceidratio", Some(""), Sampler::ratio(1.0)),
        ("traceidratio", None, Sampler::ratio(1.0)),
        ("traceidratio", Some("0"), Sampler::ratio(0.0)),
        ("parentbased_always_on", None, Sampler::default()),
        ("parentbased_always_off", None, Sampler::parent_based(Sampler::AlwaysOff)),
        ("parentbased_traceidratio", Some("0.25"), Sampler::parent_based(quarter)),
        ("", Some("ignored"), Sampler::default()),
    ];
    for (name, argument, expected) in cases {
        for name in [name.to_owned(), name.to_uppercase(), format!(" {name} ")] {
            let sampler = Sampler::named(&name, argument).expect("known");
            assert_eq!(sampler.description(), expected.description(), "{name} {argument:?}");
        }
    }
}

#[test]
fn names_that_mean_no_sampler_are_told_apart_and_give_the_default() {
    for name in ["jaeger_remote", "parentbased_jaeger_remote", "XRay"] {
        let error = Sampler::named(name, None).expect_err("not there");
        let expected = InvalidSampler::Unsupported { name: name.to_lowercase() };
        assert_eq!(error, expected);
        assert!(error.to_string().contains("is not supported"), "{error}");
        assert_eq!(error.fallback().description(), Sampler::default().description());
    }
    for name in ["parentbased_", "parentbased_xray", "always", "0.5", "traceidratio=1"] {
        let error = Sampler::named(name, None).expect_err("not there");
        assert_eq!(error, InvalidSampler::Unknown { name: name.into() });
        assert!(error.to_string().starts_with(&format!("no sampler `{name}`")), "{error}");
        assert_eq!(error.fallback().description(), Sampler::default().description());
    }
}

/// Faults 139.
#[test]
fn an_argument_that_is_no_ratio_is_refused_and_counts_as_one() {
    for argument in ["a", "-0.1", "1.1", "25%", "0,25", "NaN", "inf", "-inf", "1e999"] {
        for (name, expected) in [
            ("traceidratio", Sampler::ratio(1.0)),
            ("ParentBased_TraceIdRatio", Sampler::parent_based(Sampler::ratio(1.0))),
        ] {
            let error = Sampler::named(name, Some(argument)).expect_err("no ratio");
            let name = name.to_lowercase();
            assert_eq!(error, InvalidSampler::Argument { name, argument: argument.into() });
            assert!(error.to_string().ends_with(&format!("not `{argument}`")), "{error}");
            assert_eq!(error.fallback().description(), expected.description());
        }
    }
}

struct ClientsOnly;

impl Sample for ClientsOnly {
    fn sample(&self, parameters: &SamplingParameters<'_>) -> bool {
        assert!(parameters.name != "fault", "a fault of the application's");
        parameters.kind == SpanKind::Client
    }

    fn description(&self) -> String {
        "ClientsOnly".into()
    }
}

#[test]
fn custom_sampler_decides_by_what_it_is_given() {
    let sampler = Sampler::parent_based(Sampler::custom(ClientsOnly));
    let with_kind = |kind| sampler.sample(&SamplingParameters::new(None, trace(1), "span", kind));
    assert!(with_kind(SpanKind::Client));
    assert!(!with_kind(SpanKind::Server));
    assert!(sampler.description().contains("root:ClientsOnly"));
}

/// Faults 128.
#[test]
fn panic_in_a_custom_sampler_is_caught_and_counted_once() {
    let custom = Sampler::custom(ClientsOnly);
    let sampler = ParentBased::new(custom.clone()).remote_parent_sampled(custom.clone());
    let sampler = Sampler::from(sampler);
    let parameters = SamplingParameters::new(None, trace(1), "fault", SpanKind::Client);
    assert!(!sampler.sample(&parameters));
    assert_eq!(sampler.panics(), 1);
    assert_eq!(custom.panics(), 1);
    assert!(decide(&sampler, 1, Some(&parent(false, true))), "the sampler goes on");
    assert_eq!(Sampler::default().panics(), 0);
}

proptest! {
    #[test]
    fn each_ratio_keeps_all_that_a_lower_one_keeps(a in 0.0..=1.0, b in 0.0..=1.0, id in 1_u128..) {
        let (lower, higher) = if a < b { (a, b) } else { (b, a) };
        let kept = decide(&Sampler::ratio(lower), id, None);
        prop_assert!(!kept || decide(&Sampler::ratio(higher), id, None));
    }

    #[test]
    fn share_of_traces_kept_is_the_ratio(ratio in 0.0..=1.0) {
        let sampler = Sampler::ratio(ratio);
        // Evenly spread ids: as good as random ones for a threshold, and the outcome is certain.
        let ids = (0..1_000_u64).map(|n| u128::from(n * ((1 << 56) / 1_000)) | 1 << 100);
        let kept = ids.filter(|id| decide(&sampler, *id, None)).count();
        prop_assert!((kept as f64 - ratio * 1_000.0).abs() <= 1.0, "{} of 1000 for {}", kept, ratio);
    }
}

#[test]
fn a_sampler_is_asked_about_the_trace_that_the_span_then_belongs_to() {
    struct Asking {
        asked: Arc<Mutex<Vec<TraceId>>>,
        sampled: bool,
    }
    impl Sample for Asking {
        fn sample(&self, parameters: &SamplingParameters<'_>) -> bool {
            self.asked.lock().expect("no panic").push(parameters.trace_id);
            self.sampled
        }

        fn description(&self) -> String {
            "Asking".into()
        }
    }
    for sampled in [true, false] {
        let asked = Arc::default();
        let sampler = Sampler::custom(Asking { asked: Arc::clone(&asked), sampled });
        let provider = Provider::builder().sampler(sampler).build(|_| Err(Loss::QueueFull));
        let tracer = provider.tracer("t");
        let root = tracer.start("root");
        let child = tracer.span("child").parent(root.context()).start();
        let traces = [&root, &child].map(|span| span.context().trace_id);
        assert_eq!(*asked.lock().expect("no panic"), traces, "sampled: {sampled}");
        assert_eq!([root.is_recording(), child.is_recording()], [sampled; 2]);
    }
}
