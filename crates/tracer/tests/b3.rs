//! Zipkin's headers, and which headers a list of names means.

use proptest::prelude::*;
use spanwire_model::{SpanContext, SpanId, TraceFlags, TraceId};
use spanwire_tracer::propagation::{InvalidPropagator, Propagator, Propagators};
use spanwire_tracer::{Baggage, Context, Loss, Provider};

const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
const SPAN: &str = "e457b5a2e4d86bd1";
const PARENT: &str = "05e3ac9a4f6e3b90";

type Headers<'h> = &'h [(&'h str, &'h str)];

fn extract(propagators: &str, headers: Headers<'_>) -> Context {
    let parsed = Propagators::parse(propagators);
    assert_eq!(parsed.refused, []);
    parsed.propagators.extract(|name| headers.iter().find(|h| h.0 == name).map(|h| h.1))
}

fn inject(propagators: &str, context: &Context) -> Vec<String> {
    let mut sent = Vec::new();
    let propagators = Propagators::parse(propagators).propagators;
    propagators.inject(context, |name, value| sent.push(format!("{name}: {value}")));
    sent
}

fn remote(trace_id: &str, flags: TraceFlags) -> SpanContext {
    let trace_id: TraceId = trace_id.parse().expect("valid");
    let span_id: SpanId = SPAN.parse().expect("valid");
    SpanContext { is_remote: true, ..SpanContext::new(trace_id, span_id, flags) }
}

const ACCEPTED: TraceFlags = TraceFlags::SAMPLED;
const DENIED: TraceFlags = TraceFlags(0);

#[test]
fn single_header_is_read_with_or_without_its_last_two_fields() {
    for (rest, flags, is_debug) in [
        ("", DENIED, false),
        ("-0", DENIED, false),
        ("-1", ACCEPTED, false),
        ("-d", ACCEPTED, true),
        ("-1-05e3ac9a4f6e3b90", ACCEPTED, false),
        ("-d-05e3ac9a4f6e3b90 ", ACCEPTED, true),
    ] {
        let header = format!("{TRACE}-{SPAN}{rest}");
        let context = extract("b3", &[("b3", &header)]);
        assert_eq!(context.span(), Some(&remote(TRACE, flags)), "{header}");
        assert_eq!(context.is_debug(), is_debug, "{header}");
    }
}

#[test]
fn several_headers_are_read_with_or_without_a_decision() {
    for (decision, flags, is_debug) in [
        (None, DENIED, false),
        (Some(("x-b3-sampled", "0")), DENIED, false),
        (Some(("x-b3-sampled", "false")), DENIED, false),
        (Some(("x-b3-sampled", "1")), ACCEPTED, false),
        (Some(("x-b3-sampled", "true")), ACCEPTED, false),
        (Some(("x-b3-flags", "1")), ACCEPTED, true),
        (Some(("x-b3-flags", "0")), DENIED, false),
    ] {
        let mut headers = vec![("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
        headers.push(("x-b3-parentspanid", PARENT));
        headers.extend(decision);
        for propagators in ["b3", "b3multi"] {
            let context = extract(propagators, &headers);
            assert_eq!(context.span(), Some(&remote(TRACE, flags)), "{decision:?}");
            assert_eq!(context.is_debug(), is_debug, "{decision:?}");
        }
    }
}

#[test]
fn debug_means_sampled_even_where_the_headers_deny_it() {
    let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
    let context = extract("b3", &[ids[0], ids[1], ("x-b3-flags", "1"), ("x-b3-sampled", "0")]);
    assert!(context.is_debug());
    assert_eq!(context.span(), Some(&remote(TRACE, ACCEPTED)));
}

#[test]
fn trace_id_of_64_bits_is_padded_with_zeros() {
    let padded = remote("0000000000000000e457b5a2e4d86bd1", ACCEPTED);
    let single = [("b3", "e457b5a2e4d86bd1-e457b5a2e4d86bd1-1")];
    assert_eq!(extract("b3", &single).span(), Some(&padded));
    let multi = [("x-b3-traceid", SPAN), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")];
    let context = extract("b3", &multi);
    assert_eq!(context.span(), Some(&padded));
    let sent = "b3: 0000000000000000e457b5a2e4d86bd1-e457b5a2e4d86bd1-1";
    assert_eq!(inject("b3", &context), [sent]);
}

#[test]
fn single_header_goes_before_the_others_unless_it_is_malformed() {
    let single = format!("{TRACE}-{SPAN}-1");
    let multi = [("x-b3-traceid", PARENT), ("x-b3-spanid", SPAN), ("x-b3-sampled", "0")];
    let both = |single| [("b3", single), multi[0], multi[1], multi[2]];
    for propagators in ["b3", "b3multi"] {
        let context = extract(propagators, &both(&single));
        assert_eq!(context.span(), Some(&remote(TRACE, ACCEPTED)));
        let context = extract(propagators, &both("0"));
        assert_eq!(context.span(), Some(&remote("000000000000000005e3ac9a4f6e3b90", DENIED)));
    }
}

#[test]
fn malformed_headers_yield_nothing() {
    let upper = TRACE.to_uppercase();
    let singles = [
        // A decision without ids, which no context can hold.
        "0".to_owned(),
        "1".to_owned(),
        "d".to_owned(),
        String::new(),
        "-".to_owned(),
        TRACE.to_owned(),
        format!("{TRACE}-"),
        format!("{TRACE}-{SPAN}-"),
        format!("{TRACE}-{SPAN}-2"),
        format!("{TRACE}-{SPAN}-true"),
        format!("{TRACE}-{SPAN}-1-"),
        format!("{TRACE}-{SPAN}-1-5"),
        format!("{TRACE}-{SPAN}-1-{PARENT}-"),
        format!("{TRACE}-{SPAN}-{PARENT}"),
        format!("{upper}-{SPAN}-1"),
        format!("{TRACE}0-{SPAN}-1"),
        format!("0{SPAN}-{SPAN}-1"),
        format!("{TRACE}-{TRACE}-1"),
        format!("{TRACE}-0000000000000000-1"),
        format!("0000000000000000-{SPAN}-1"),
        format!("00000000000000000000000000000000-{SPAN}-1"),
        format!("{TRACE}-{SPAN}-1{}", " ".repeat(10 << 20)),
        "é".repeat(40),
    ];
    for header in &singles {
        let context = extract("b3", &[("b3", header)]);
        assert_eq!(context.span(), None, "{}", &header[..header.len().min(100)]);
        assert!(!context.is_debug());
    }
    let long = "1".repeat(10 << 20);
    let multis: [&[(&str, &str)]; 6] = [
        &[("x-b3-traceid", TRACE)],
        &[("x-b3-spanid", SPAN)],
        &[("x-b3-traceid", &upper), ("x-b3-spanid", SPAN)],
        &[("x-b3-traceid", &long), ("x-b3-spanid", SPAN)],
        &[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "yes")],
        &[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", &long)],
    ];
    for headers in multis {
        assert_eq!(extract("b3multi", headers).span(), None);
    }
}

#[test]
fn one_header_is_written_by_default_and_several_on_request() {
    for (state, single, multi) in [
        ("0", "0", ["x-b3-sampled: 0"]),
        ("1", "1", ["x-b3-sampled: 1"]),
        ("d", "d", ["x-b3-flags: 1"]),
    ] {
        let context = extract("b3", &[("b3", &format!("{TRACE}-{SPAN}-{state}-{PARENT}"))]);
        assert_eq!(inject("b3", &context), [format!("b3: {TRACE}-{SPAN}-{single}")]);
        let mut expected = vec![format!("x-b3-traceid: {TRACE}"), format!("x-b3-spanid: {SPAN}")];
        expected.extend(multi.map(String::from));
        assert_eq!(inject("b3multi", &context), expected, "no parent's id, no second decision");
    }
}

#[test]
fn debug_goes_along_to_children_and_not_to_another_trace() {
    let provider = Provider::builder().build(|_| Err(Loss::QueueFull));
    let tracer = provider.tracer("t");
    let header = format!("{TRACE}-{SPAN}-d");
    let _caller = extract("b3", &[("b3", &header)]).attach();
    let server = tracer.start("server");
    assert!(server.is_recording());
    let _current = server.enter();
    let client = tracer.start("client");
    let sent = format!("b3: {TRACE}-{}-d", client.context().span_id);
    assert_eq!(inject("b3", &client.as_current()), [sent]);
    let other = tracer.span("other").root().start();
    assert!(!other.as_current().is_debug());
    assert_eq!(inject("b3", &Context::new()), [""; 0]);
}

#[test]
fn names_mean_their_propagators_once_each_in_order_and_in_any_case() {
    for (names, expected) in [
        ("tracecontext,baggage", "tracecontext,baggage"),
        (" B3Multi , TRACECONTEXT,b3multi,, ", "b3multi,tracecontext"),
        ("b3,none", "b3"),
        ("none", "none"),
        ("None, none", "none"),
        ("", "tracecontext,baggage"),
        (" , ", "tracecontext,baggage"),
    ] {
        let parsed = Propagators::parse(names);
        assert_eq!(parsed.propagators.to_string(), expected, "{names:?}");
        assert_eq!(parsed.refused, [], "{names:?}");
    }
    let all = [Propagator::B3, Propagator::B3, Propagator::Baggage];
    assert_eq!(Propagators::new(all), Propagators::parse("b3,baggage").propagators);
}

#[test]
fn names_that_mean_no_propagator_are_reported_and_the_others_count() {
    let parsed = Propagators::parse("Jaeger,b3,wc3,xray,ottrace");
    assert_eq!(parsed.propagators.to_string(), "b3");
    let unsupported = |name: &str| InvalidPropagator::Unsupported { name: name.into() };
    let unknown = InvalidPropagator::Unknown { name: "wc3".into() };
    let expected = [unsupported("Jaeger"), unknown, unsupported("xray"), unsupported("ottrace")];
    assert_eq!(parsed.refused, expected);
    assert!(parsed.refused[0].to_string().starts_with("propagator `Jaeger` is not supported"));
    assert!(parsed.refused[1].to_string().starts_with("no propagator `wc3`"));
    let parsed = Propagators::parse("jaeger");
    assert_eq!(parsed.propagators, Propagators::default(), "nothing left, so as if unset");
    assert_eq!(parsed.refused, [unsupported("jaeger")]);
}

#[test]
fn what_is_not_named_is_neither_read_nor_written() {
    let single = format!("{TRACE}-{SPAN}-1");
    let w3c = format!("00-{TRACE}-{PARENT}-03");
    let headers = [("b3", single.as_str()), ("traceparent", &w3c), ("baggage", "tenant=7")];
    let span_id = |context: &Context| context.span().map(|span| span.span_id.to_string());

    let none = extract("none", &headers);
    assert_eq!((none.span(), none.baggage().len()), (None, 0));
    let b3 = extract("b3", &headers);
    assert_eq!((span_id(&b3).as_deref(), b3.baggage().len()), (Some(SPAN), 0));
    assert_eq!(inject("none", &b3), [""; 0]);
    assert_eq!(inject("baggage", &b3), [""; 0]);

    let last_wins = extract("tracecontext,b3,baggage", &headers);
    assert_eq!(span_id(&last_wins).as_deref(), Some(SPAN));
    assert_eq!(last_wins.baggage().as_str(), "tenant=7");
    let last_wins = extract("b3,tracecontext", &headers);
    assert_eq!(span_id(&last_wins).as_deref(), Some(PARENT));
    assert_eq!(inject("tracecontext", &last_wins), [format!("traceparent: {w3c}")]);
    let kept = extract("tracecontext,b3", &[("b3", "malformed"), ("traceparent", &w3c)]);
    assert_eq!(span_id(&kept).as_deref(), Some(PARENT), "a malformed header takes nothing away");
}

#[test]
fn default_is_what_a_context_reads_and_writes_by_itself() {
    let w3c = format!("00-{TRACE}-{SPAN}-03");
    let headers = [("traceparent", w3c.as_str()), ("tracestate", "a=1"), ("baggage", "b=2")];
    let get = |name: &str| headers.iter().find(|header| header.0 == name).map(|header| header.1);
    let context = Context::extract(get);
    assert_eq!(Propagators::default().extract(get).span(), context.span());
    assert_eq!(context.baggage(), &Baggage::parse("b=2").baggage);
    let mut sent = Vec::new();
    context.inject(|name, value| sent.push(format!("{name}: {value}")));
    assert_eq!(inject("", &context), sent);
    assert_eq!(sent.len(), 3);
}

proptest! {
    #[test]
    fn what_is_injected_is_extracted(
        trace_id in 1_u128..,
        span_id in 1_u64..,
        state in 0..3_u8,
        name in prop_oneof![Just("b3"), Just("b3multi")],
    ) {
        let (trace_id, span_id) = (TraceId::new(trace_id), SpanId::new(span_id));
        let (trace_id, span_id) = (trace_id.expect("not zero"), span_id.expect("not zero"));
        let state = ["0", "1", "d"][usize::from(state)];
        let context = extract("b3", &[("b3", &format!("{trace_id}-{span_id}-{state}"))]);
        let sent = inject(name, &context);
        let headers: Vec<_> = sent.iter().filter_map(|line| line.split_once(": ")).collect();
        let received = extract(name, &headers);
        prop_assert_eq!(received.span(), context.span());
        prop_assert_eq!(received.is_debug(), state == "d");
    }

    #[test]
    fn any_headers_are_read_or_refused_without_panic(
        single in ".{0,80}",
        damaged in "[0-9a-fA-F]{14,18}(-[0-9a-f]{15,17}){1,3}(-[01d]){0,2}-?",
        sampled in ".{0,3}",
    ) {
        for header in [&single, &damaged] {
            let ids = [("x-b3-traceid", &**header), ("x-b3-spanid", header)];
            let context = extract("b3", &[("b3", header), ids[0], ids[1], ("x-b3-sampled", &sampled)]);
            if let Some(span) = context.span() {
                prop_assert!(header.contains(span.span_id.to_hex().as_str()));
            }
        }
    }
}
