use proptest::prelude::*;
use prost::Message;
use spanwire_codec::encode::{self, EncodedResource, EncodedScope};
use spanwire_codec::view::Request;
use spanwire_codec::{decode, message};
use spanwire_model::{Span, SpanKind, Status, Value};

use crate::generate;

const PLENTY: usize = 64 << 20;

/// A request of one span, changed by `change`; ids are right.
fn one_span(change: impl FnOnce(&mut message::Span)) -> Vec<u8> {
    let mut span =
        message::Span { trace_id: vec![1; 16], span_id: vec![2; 8], ..Default::default() };
    change(&mut span);
    let scope_spans = vec![message::ScopeSpans { spans: vec![span], ..Default::default() }];
    let resource_spans = vec![message::ResourceSpans { scope_spans, ..Default::default() }];
    message::ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn decoded(bytes: &[u8]) -> decode::Decoded {
    decode::request(&Request::parse(bytes).expect("framing is right"), PLENTY).expect("small")
}

fn first(decoded: &decode::Decoded) -> &Span {
    &decoded.resource_spans[0].scope_spans[0].spans[0]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is decoded, encoded again and decoded again is the same: nothing gets lost on the way
    /// through the model.
    #[test]
    fn spans_survive_the_way_through_the_model(request in generate::request()) {
        let once = decoded(&request.encode_to_vec());
        prop_assert_eq!(once.spans_rejected, 0);
        for resource_spans in &once.resource_spans {
            let resource = EncodedResource::new(&resource_spans.resource);
            for scope_spans in &resource_spans.scope_spans {
                let scope = EncodedScope::new(&scope_spans.scope);
                let len = scope_spans.spans.iter().map(encode::framed_len).sum();
                let mut bytes = Vec::new();
                resource.put_header(scope.field_len(len), &mut bytes);
                scope.put_header(len, &mut bytes);
                encode::put_batch(&scope_spans.spans, &mut bytes);
                let again = decoded(&bytes);
                prop_assert_eq!(&again.resource_spans[0].resource, &resource_spans.resource);
                prop_assert_eq!(&again.resource_spans[0].scope_spans[0], scope_spans);
            }
        }
    }
}

/// Faults 29.
#[test]
fn a_span_reads_field_for_field() {
    let bytes = one_span(|span| {
        span.parent_span_id = vec![3; 8];
        span.name = "GET /".into();
        span.kind = 2;
        span.trace_state = "ot=th:c".into();
        span.start_time_unix_nano = 10;
        span.end_time_unix_nano = 5;
        span.flags = 0x0301;
        span.dropped_attributes_count = 4;
        span.status = Some(message::SpanStatus { message: "late".into(), code: 2 });
    });
    let decoded = decoded(&bytes);
    let span = first(&decoded);
    assert_eq!(span.context.trace_id.to_bytes(), [1; 16]);
    assert_eq!(span.context.span_id.to_bytes(), [2; 8]);
    assert_eq!(span.parent_span_id.map(|id| id.to_bytes()), Some([3; 8]));
    assert_eq!((&*span.name, span.kind), ("GET /", SpanKind::Server));
    assert_eq!(span.context.trace_state.get("ot"), Some("th:c"));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (10, 5));
    assert_eq!((span.flags, span.context.is_sampled()), (0x0301, true));
    assert_eq!(span.attributes.dropped(), 4);
    assert_eq!(span.status, Status::Error { message: "late".into() });
}

/// Faults 24.
#[test]
fn text_that_is_not_utf8_is_repaired_and_counted() {
    let good = one_span(|span| {
        span.name = "caf_".into();
        span.attributes = vec![message::KeyValue {
            key: "k_".into(),
            value: Some(message::AnyValue {
                value: Some(message::any_value::Value::StringValue("v_".into())),
            }),
            key_strindex: 0,
        }];
    });
    assert_eq!(decoded(&good).texts_repaired, 0);
    let bad: Vec<u8> = good.iter().map(|&byte| if byte == b'_' { 0xE9 } else { byte }).collect();
    let decoded = decoded(&bad);
    assert_eq!(decoded.texts_repaired, 3);
    let span = first(&decoded);
    assert_eq!(&*span.name, "caf\u{FFFD}");
    assert_eq!(span.attributes.get("k\u{FFFD}"), Some(&Value::from("v\u{FFFD}")));
}

/// Faults 23.
#[test]
fn a_parent_of_zeros_is_none() {
    for parent in [vec![], vec![0; 8]] {
        let root = decoded(&one_span(|span| span.parent_span_id = parent));
        assert_eq!(first(&root).parent_span_id, None);
    }
}

/// Faults 22.
#[test]
fn what_no_struct_can_hold_is_left_out_and_counted() {
    let rejected = |bytes: &[u8]| (decoded(bytes).spans, decoded(bytes).spans_rejected);
    assert_eq!(rejected(&one_span(|_| {})), (1, 0));
    assert_eq!(rejected(&one_span(|span| span.trace_id = vec![0; 16])), (0, 1));
    assert_eq!(rejected(&one_span(|span| span.span_id = vec![0; 8])), (0, 1));
    assert_eq!(rejected(&one_span(|span| span.span_id = vec![1; 7])), (0, 1));

    let link = |trace_id: &[u8]| message::Link {
        trace_id: trace_id.to_vec(),
        span_id: vec![1; 8],
        ..Default::default()
    };
    let bytes = one_span(|span| {
        span.links = vec![link(&[]), link(&[0; 16]), link(&[1; 16])];
        span.dropped_links_count = 5;
    });
    let with_links = decoded(&bytes);
    assert_eq!(first(&with_links).links.len(), 1);
    assert_eq!(first(&with_links).dropped_links_count, 7);

    let state = decoded(&one_span(|span| span.trace_state = "no entry".into()));
    assert!(first(&state).context.trace_state.is_empty());
    assert_eq!(state.texts_repaired, 1);
}

/// Faults 26.
#[test]
fn duplicate_keys_are_kept_as_sent() {
    let attribute = || message::KeyValue { key: "k".into(), ..Default::default() };
    let bytes = one_span(|span| span.attributes = vec![attribute(), attribute()]);
    assert_eq!(first(&decoded(&bytes)).attributes.len(), 2);
}

/// Faults 15.
#[test]
fn small_elements_count_with_the_memory_they_take() {
    // Two bytes each on the wire.
    let empty_values = |count: usize| {
        one_span(|span| {
            let values = vec![message::AnyValue::default(); count];
            let value = message::any_value::Value::ArrayValue(message::ArrayValue { values });
            let value = Some(message::AnyValue { value: Some(value) });
            span.attributes = vec![message::KeyValue { value, ..Default::default() }];
        })
    };
    let bytes = empty_values(100_000);
    let request = Request::parse(&bytes).expect("framing is right");
    assert!(bytes.len() < 250_000);
    let refused = decode::request(&request, 1 << 20).expect_err("values take more than a MiB");
    assert_eq!(refused.to_string(), "decoded request exceeds 1048576 bytes");
    assert!(decode::request(&request, 8 << 20).is_ok());
}
