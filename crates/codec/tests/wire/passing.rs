//! What looks odd and is allowed: it passes as it came.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use spanwire_codec::view::{Request, reject_malformed};
use spanwire_codec::{decode, json, split};

use crate::oracle::{assert_agrees, spans};

const PLENTY: usize = 64 << 20;

fn span() -> Span {
    Span { trace_id: vec![1; 16], span_id: vec![2; 8], name: "odd".into(), ..Span::default() }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

fn key_value(key: &str, value: impl Into<Option<Value>>) -> KeyValue {
    let value = Some(AnyValue { value: value.into() });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

/// Neither checking nor splitting changes a byte, and JSON brings back the same.
fn assert_passes(request: &ExportTraceServiceRequest) {
    let bytes = Bytes::from(request.encode_to_vec());
    let checked = reject_malformed(bytes.clone()).expect("well-formed");
    assert_eq!((&checked.request, checked.rejected), (&bytes, 0));
    let parts = split::request(&bytes, 1, PLENTY).expect("well-formed");
    let joined: Vec<u8> = parts.iter().flat_map(|part| part.pieces.concat()).collect();
    let joined = Request::parse(&joined).expect("parts joined");
    let before = Request::parse(&bytes).expect("well-formed");
    assert!(spans(&joined).map(|span| span.bytes()).eq(spans(&before).map(|span| span.bytes())));

    let mut text = Vec::new();
    json::write_request(&bytes, &mut text).expect("well-formed");
    assert_eq!(json::read_request(&text).expect("what was written"), bytes);
}

fn decoded(request: &[u8]) -> decode::Decoded {
    let request = Request::parse(request).expect("well-formed");
    decode::request(&request, PLENTY).expect("small")
}

/// Faults 29, 30.
#[test]
fn impossible_times_and_reserved_flags_pass_unchanged() {
    for (start, end) in [(0, 0), (u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX), (2, 1)] {
        for flags in [0, 0x301, 0xFFFF_FC00, u32::MAX] {
            let event = Event { time_unix_nano: end, ..Event::default() };
            let link =
                Link { trace_id: vec![1; 16], span_id: vec![2; 8], flags, ..Link::default() };
            let span = Span {
                start_time_unix_nano: start,
                end_time_unix_nano: end,
                flags,
                events: vec![event],
                links: vec![link],
                ..span()
            };
            let request = request(vec![span]);
            assert_passes(&request);
            let decoded = decoded(&request.encode_to_vec());
            let span = &decoded.resource_spans[0].scope_spans[0].spans[0];
            assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (start, end));
            assert_eq!((span.flags, span.links[0].flags), (flags, flags));
        }
    }
}

/// Faults 26, 27, 31.
#[test]
fn every_kind_of_value_and_any_key_pass_unchanged() {
    let any = |value| AnyValue { value };
    let mixed = vec![
        any(None),
        any(Some(Value::StringValue(String::new()))),
        any(Some(Value::BoolValue(false))),
        any(Some(Value::IntValue(i64::MIN))),
        any(Some(Value::ArrayValue(ArrayValue::default()))),
        any(Some(Value::BytesValue(vec![]))),
    ];
    let map = vec![key_value("k", Value::IntValue(1)), key_value("k", Value::IntValue(2))];
    let attributes = vec![
        key_value("twice", Value::IntValue(1)),
        key_value("twice", Value::StringValue("other".into())),
        key_value("unset", None),
        key_value("bytes", Value::BytesValue(vec![0xFF, 0])),
        key_value("mixed", Value::ArrayValue(ArrayValue { values: mixed })),
        key_value("map", Value::KvlistValue(KeyValueList { values: map })),
        key_value("negative zero", Value::DoubleValue(-0.0)),
        key_value("infinite", Value::DoubleValue(f64::NEG_INFINITY)),
        key_value("not a number", Value::DoubleValue(f64::NAN)),
    ];
    assert_passes(&request(vec![Span { attributes, ..span() }]));

    // An empty key is its default, which nobody writes.
    let bytes = request(vec![Span {
        attributes: vec![key_value("", Value::IntValue(1)), KeyValue::default()],
        ..span()
    }])
    .encode_to_vec();
    assert_agrees(&bytes);
    assert_eq!(reject_malformed(bytes.clone().into()).expect("well-formed").request, bytes);
}

/// Faults 25.
#[test]
fn characters_that_are_odd_but_valid_are_kept() {
    let odd = "\0 \u{FEFF} \u{202E} \u{1F980} \u{10FFFF} \u{7F} \u{2028}";
    let status = Some(Status { message: odd.into(), code: 2 });
    let attributes = vec![key_value(odd, Value::StringValue(odd.into()))];
    let request = request(vec![Span { name: odd.into(), attributes, status, ..span() }]);
    assert_passes(&request);
    let decoded = decoded(&request.encode_to_vec());
    assert_eq!(decoded.texts_repaired, 0);
    assert_eq!(&*decoded.resource_spans[0].scope_spans[0].spans[0].name, odd);
}

/// Faults 24, 25.
#[test]
fn text_that_is_not_utf8_is_repaired_where_it_stands_and_nowhere_else() {
    // Latin-1, an overlong form, half a character, surrogates as CESU-8 has them: three characters
    // of replacement each, as many as their bytes.
    for bad in [&b"\xE9\xE8\xE7"[..], b"\xC0\xAF\xFF", b"\xED\xA0\x80"] {
        let mark = "~~~";
        let attribute = key_value(mark, Value::StringValue(mark.into()));
        let marked = Span {
            name: mark.into(),
            trace_state: "a=~~~".into(),
            attributes: vec![attribute],
            status: Some(Status { message: mark.into(), code: 2 }),
            ..span()
        };
        let mut request = request(vec![span(), marked, span()]);
        request.resource_spans[0].schema_url = mark.into();
        request.resource_spans[0].scope_spans[0].schema_url = mark.into();
        let bytes = replaced(request.encode_to_vec(), mark.as_bytes(), bad);

        let checked = reject_malformed(bytes.clone().into()).expect("not the framing's business");
        assert_eq!((checked.spans, &checked.request[..]), (3, &bytes[..]));
        let decoded = decoded(&bytes);
        // Name, key, value, message, two schema URLs; and a trace state, which is discarded.
        assert_eq!((decoded.spans, decoded.texts_repaired), (3, 7));
        let repaired = "\u{FFFD}\u{FFFD}\u{FFFD}";
        let resource_spans = &decoded.resource_spans[0];
        assert_eq!(&*resource_spans.resource.schema_url, repaired);
        assert_eq!(&*resource_spans.scope_spans[0].scope.schema_url, repaired);
        let [first, marked, last] = &resource_spans.scope_spans[0].spans[..] else {
            panic!("three spans")
        };
        assert_eq!((&*first.name, &*last.name), ("odd", "odd"));
        assert_eq!(&*marked.name, repaired);
        assert_eq!(marked.attributes.get(repaired), Some(&repaired.to_owned().into()));
        assert!(marked.context.trace_state.is_empty());

        let mut text = Vec::new();
        json::write_request(&bytes, &mut text).expect("not the framing's business");
        let text = String::from_utf8(text).expect("JSON is UTF-8");
        assert_eq!(text.matches(repaired).count(), 7);
    }
}

fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    while let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

/// Faults 19, 20.
#[test]
fn numbers_too_large_for_their_type_are_cut_as_protobuf_cuts_them() {
    let varint = |value: u64| {
        let mut out = Vec::new();
        prost::encoding::encode_varint(value, &mut out);
        out
    };
    for value in [2, 99, 1 << 31, (1 << 32) + 5, 1 << 40, u64::MAX - 98, u64::MAX] {
        let value = varint(value);
        let ids = span().encode_to_vec();
        let truth = [&[0x10], &value[..]].concat();
        let truth = [&[0x4A, truth.len() as u8 + 2, 0x12, truth.len() as u8], &truth[..]].concat();
        let status = [&[0x7A, value.len() as u8 + 1, 0x18], &value[..]].concat();
        let body = [&ids[..], &[0x30], &value, &[0x50], &value, &truth, &status].concat();
        let mut bytes = body;
        for tag in [0x12, 0x12, 0x0A] {
            bytes = [&[tag], &varint(bytes.len() as u64)[..], &bytes].concat();
        }
        // The oracle compares every field.
        assert_agrees(&bytes);
        let request = Request::parse(&bytes).expect("well-formed");
        assert!(spans(&request).all(|span| span.check().is_ok()));
    }
}

/// Faults 16.
#[test]
fn a_span_of_64_mib_is_neither_refused_nor_copied() {
    let text = "x".repeat((64 << 20) - 1024);
    let attributes = vec![key_value("large", Value::StringValue(text))];
    let bytes = Bytes::from(request(vec![Span { attributes, ..span() }]).encode_to_vec());
    let checked = reject_malformed(bytes.clone()).expect("well-formed");
    assert_eq!((checked.spans, checked.request.as_ptr()), (1, bytes.as_ptr()));
    let parts = split::request(&bytes, 100, 4 << 20).expect("well-formed");
    let [part] = &parts[..] else { panic!("{} parts", parts.len()) };
    let largest = part.pieces.iter().max_by_key(|piece| piece.len()).expect("a span");
    assert!(largest.len() > 63 << 20 && bytes.as_ptr_range().contains(&largest.as_ptr()));
}

/// Faults 2, 15.
#[test]
fn elements_of_nothing_are_counted_and_cost_no_more_than_their_bytes() {
    const COUNT: usize = 200_000;
    let ids = span().encode_to_vec();
    // What two bytes repeat, the tags on the way there, and the envelopes that makes.
    for (tag, path, envelopes) in [
        (0x0A, &[][..], COUNT),                           // ResourceSpans
        (0x12, &[0x0A], 1 + COUNT),                       // ScopeSpans
        (0x4A, &[0x0A, 0x12, 0x12], 2),                   // KeyValue
        (0x5A, &[0x0A, 0x12, 0x12], 2),                   // Event
        (0x6A, &[0x0A, 0x12, 0x12], 2),                   // Link
        (0x0A, &[0x0A, 0x12, 0x12, 0x4A, 0x12, 0x2A], 2), // AnyValue
        (0x0A, &[0x0A, 0x12, 0x12, 0x4A, 0x12, 0x32], 2), // KeyValue of a map
        (0x0A, &[0x0A, 0x0A], 1),                         // KeyValue of a resource
    ] {
        let mut bytes = [tag, 0].repeat(COUNT);
        for depth in (0..path.len()).rev() {
            let mut header = vec![path[depth]];
            if depth == 2 && path.starts_with(&[0x0A, 0x12, 0x12]) {
                bytes = [&ids[..], &bytes].concat();
            }
            prost::encoding::encode_varint(bytes.len() as u64, &mut header);
            bytes = [header, bytes].concat();
        }
        let shown = format!("{tag:02X} in {path:02X?}");
        let parsed = Request::parse(&bytes).expect("well-formed");
        assert_eq!(parsed.envelopes(), envelopes, "{shown}");
        let checked = reject_malformed(bytes.clone().into()).expect("well-formed");
        assert_eq!((&checked.request[..], checked.rejected), (&bytes[..], 0), "{shown}");
        // Structs take many times two bytes, so it is the budget that ends it.
        let links = tag == 0x6A;
        assert_eq!(decode::request(&parsed, 1 << 20).is_err(), !links, "{shown}");
        // What no struct can hold takes no memory either: a link without ids.
        if links {
            let decoded = decode::request(&parsed, 1 << 20).expect("no link of them");
            let span = &decoded.resource_spans[0].scope_spans[0].spans[0];
            assert_eq!((span.links.len(), span.dropped_links_count), (0, COUNT as u32));
        }
        // Senders should send no empty envelopes: parts have none.
        let parts = split::request(&bytes.clone().into(), 100, 1 << 30).expect("well-formed");
        assert_eq!(parts.len(), parsed.spans(), "{shown}");
    }
}
