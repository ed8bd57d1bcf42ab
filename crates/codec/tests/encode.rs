//! What is encoded here is, field for field, what `opentelemetry-proto` decodes.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::resource::v1 as resource;
use opentelemetry_proto::tonic::trace::v1 as trace;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use spanwire_codec::encode::{self, EncodedResource, EncodedScope, SpanEnd, SpanRest, SpanWriter};
use spanwire_codec::json::{read_request, write_request};
use spanwire_codec::{decode, view};
use spanwire_model::{
    Attributes, Event, KeyValue, Limits, Link, Resource, Scope, Span, SpanContext, SpanId,
    SpanKind, Status, TraceFlags, TraceId, TraceState, Value,
};

fn value() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        Just(Value::Empty),
        any::<String>().prop_map(|text| Value::String(text.into())),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Double),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Bytes(bytes.into())),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::Array),
            vec((".{0,9}", inner), 0..5).prop_map(Value::map),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (vec((".{0,200}", value()), 0..12), any::<u32>()).prop_map(|(entries, dropped)| {
        let mut attributes: Attributes = entries.into_iter().collect();
        attributes.set_dropped(dropped);
        attributes
    })
}

fn context() -> impl Strategy<Value = SpanContext> {
    let state = prop_oneof![
        Just(TraceState::EMPTY),
        "[a-z]{1,9}=[a-z0-9]{1,9}".prop_map(|text| TraceState::parse(&text).expect("valid")),
    ];
    (1..=u128::MAX, 1..=u64::MAX, any::<u8>(), state).prop_map(|(trace, span, flags, state)| {
        let trace = TraceId::new(trace).expect("not zero");
        let span = SpanId::new(span).expect("not zero");
        SpanContext { trace_state: state, ..SpanContext::new(trace, span, TraceFlags(flags)) }
    })
}

fn event() -> impl Strategy<Value = Event> {
    (any::<u64>(), any::<String>(), attributes()).prop_map(|(time_unix_nano, name, attributes)| {
        let (attributes, dropped_attributes_count) = attributes.into_parts();
        Event { time_unix_nano, name: name.into(), attributes, dropped_attributes_count }
    })
}

fn link() -> impl Strategy<Value = Link> {
    (context(), any::<u32>(), attributes()).prop_map(|(context, flags, attributes)| {
        let (attributes, dropped_attributes_count) = attributes.into_parts();
        Link { context, flags, attributes, dropped_attributes_count }
    })
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Unset),
        Just(Status::Ok),
        any::<String>().prop_map(|message| Status::Error { message: message.into() }),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    let plain = (context(), option::of(1..=u64::MAX), any::<u32>(), any::<String>(), 0..6);
    let rest = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), status());
    let lists = (attributes(), vec(event(), 0..4), vec(link(), 0..4));
    (plain, rest, lists).prop_map(|(plain, rest, (attributes, events, links))| {
        let (context, parent, flags, name, kind) = plain;
        let (start, end, dropped_events_count, dropped_links_count, status) = rest;
        Span {
            context,
            parent_span_id: parent.and_then(SpanId::new),
            flags,
            name: name.into(),
            kind: SpanKind::from_number(kind),
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes,
            events: events.into(),
            dropped_events_count,
            links,
            dropped_links_count,
            status,
        }
    })
}

/// The oracle's form of the same data, field by field.
fn expected(span: &Span) -> trace::Span {
    let context = &span.context;
    trace::Span {
        trace_id: context.trace_id.to_bytes().to_vec(),
        span_id: context.span_id.to_bytes().to_vec(),
        trace_state: context.trace_state.as_str().to_owned(),
        parent_span_id: span.parent_span_id.map_or(Vec::new(), |id| id.to_bytes().to_vec()),
        flags: span.flags,
        name: span.name.to_string(),
        kind: span.kind as i32,
        start_time_unix_nano: span.start_time_unix_nano,
        end_time_unix_nano: span.end_time_unix_nano,
        attributes: expected_attributes(span.attributes.iter()),
        dropped_attributes_count: span.attributes.dropped(),
        events: span.events.iter().map(expected_event).collect(),
        dropped_events_count: span.dropped_events_count,
        links: span.links.iter().map(expected_link).collect(),
        dropped_links_count: span.dropped_links_count,
        status: match &span.status {
            Status::Unset => None,
            Status::Ok => Some(trace::Status { message: String::new(), code: 1 }),
            Status::Error { message } => {
                Some(trace::Status { message: message.to_string(), code: 2 })
            }
        },
    }
}

fn expected_event(event: &Event) -> trace::span::Event {
    trace::span::Event {
        time_unix_nano: event.time_unix_nano,
        name: event.name.to_string(),
        attributes: expected_attributes(event.attributes.iter()),
        dropped_attributes_count: event.dropped_attributes_count,
    }
}

fn expected_link(link: &Link) -> trace::span::Link {
    trace::span::Link {
        trace_id: link.context.trace_id.to_bytes().to_vec(),
        span_id: link.context.span_id.to_bytes().to_vec(),
        trace_state: link.context.trace_state.as_str().to_owned(),
        attributes: expected_attributes(link.attributes.iter()),
        dropped_attributes_count: link.dropped_attributes_count,
        flags: link.flags,
    }
}

fn expected_attributes<'a>(entries: impl Iterator<Item = &'a KeyValue>) -> Vec<common::KeyValue> {
    entries.map(|entry| expected_pair(&entry.key, &entry.value)).collect()
}

fn expected_pair(key: &str, value: &Value<'_>) -> common::KeyValue {
    let value = Some(expected_value(value));
    common::KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn expected_value(value: &Value<'_>) -> common::AnyValue {
    use common::any_value::Value as Oracle;
    let value = match value {
        Value::Empty => None,
        Value::String(text) => Some(Oracle::StringValue(text.to_string())),
        Value::Bool(truth) => Some(Oracle::BoolValue(*truth)),
        Value::Int(number) => Some(Oracle::IntValue(*number)),
        Value::Double(number) => Some(Oracle::DoubleValue(*number)),
        Value::Bytes(bytes) => Some(Oracle::BytesValue(bytes.to_vec())),
        Value::Array(values) => Some(Oracle::ArrayValue(common::ArrayValue {
            values: values.iter().map(expected_value).collect(),
        })),
        Value::Map(entries) => Some(Oracle::KvlistValue(common::KeyValueList {
            values: entries.iter().map(|(key, value)| expected_pair(key, value)).collect(),
        })),
    };
    common::AnyValue { value }
}

/// The one span of a framed span's bytes, by the oracle.
fn decode_framed(framed: &[u8]) -> Vec<trace::Span> {
    // Framed spans are a `ScopeSpans` without a scope.
    trace::ScopeSpans::decode(framed).expect("the oracle reads it").spans
}

proptest! {
    #[test]
    fn a_span_encodes_to_what_the_oracle_decodes(span in span()) {
        let mut framed = Vec::new();
        encode::put_framed(&span, &mut framed);
        prop_assert_eq!(framed.len(), encode::framed_len(&span), "the size is known beforehand");
        prop_assert_eq!(decode_framed(&framed), [expected(&span)]);
    }

    #[test]
    fn the_oracles_bytes_of_a_span_are_these_bytes(span in span()) {
        let mut framed = Vec::new();
        encode::put_framed(&span, &mut framed);
        let oracle = trace::ScopeSpans { spans: vec![expected(&span)], ..Default::default() };
        prop_assert_eq!(framed, oracle.encode_to_vec());
    }

    #[test]
    fn a_span_written_while_it_is_open_has_the_same_bytes(
        span in span(),
        first_name in ".{0,200}",
        spoilt in ".{0,40}",
    ) {
        // A writer always writes the times, and they are the clock's.
        let span = Span {
            start_time_unix_nano: span.start_time_unix_nano.max(1),
            end_time_unix_nano: span.end_time_unix_nano.max(1),
            ..span
        };
        let mut writer = SpanWriter::default();
        let context = &span.context;
        let trace_state = context.trace_state.as_str();
        // Used before, and not ended.
        writer.begin(context.trace_id, context.span_id, "", None, &spoilt, SpanKind::Client);
        writer.put_attribute(&spoilt, &Value::Bool(true));
        writer.begin(
            context.trace_id, context.span_id, trace_state, span.parent_span_id, &first_name, span.kind,
        );
        let (mut events, mut links) = (Vec::new(), Vec::new());
        // No other key has a line break in it.
        let spoilt = format!("\n{spoilt}");
        for (before, entry) in span.attributes.iter().enumerate() {
            writer.put_attribute(&spoilt, &Value::Int(1));
            writer.put_attribute(&entry.key, &entry.value);
            prop_assert_eq!(writer.remove_attribute(&spoilt), Some(before));
            prop_assert_eq!(writer.remove_attribute(&spoilt), None);
        }
        writer.set_name(&span.name);
        for event in &span.events {
            let pairs = event.attributes.iter().map(|entry| (&*entry.key, &entry.value));
            let dropped = event.dropped_attributes_count;
            encode::put_event(event.time_unix_nano, &event.name, pairs, dropped, &mut events);
        }
        for link in &span.links {
            encode::put_link(link, &mut links);
        }
        let rest = SpanRest {
            dropped_attributes_count: span.attributes.dropped(),
            events: &events,
            dropped_events_count: span.dropped_events_count,
            links: &links,
            dropped_links_count: span.dropped_links_count,
            status: &span.status,
        };
        let end = SpanEnd {
            start_time_unix_nano: span.start_time_unix_nano,
            end_time_unix_nano: span.end_time_unix_nano,
            flags: span.flags,
            rest: Some(rest),
        };
        let mut whole = Vec::new();
        encode::put_framed(&span, &mut whole);
        // Into a slice of exactly the size, as a chunk hands it out.
        let mut slice = vec![0; writer.framed_len(&end)];
        writer.put_framed(&end, &mut slice);
        prop_assert_eq!(slice, whole);
    }

    #[test]
    fn headers_and_spans_joined_are_one_request(
        attributes in attributes(),
        scopes in vec((".{0,20}", attributes(), vec(span(), 0..4)), 0..3),
        schema_url in ".{0,20}",
    ) {
        let resource = Resource { attributes, schema_url: schema_url.clone().into() };
        let encoded_resource = EncodedResource::new(&resource);
        let mut fields = Vec::new();
        let mut oracle = Vec::new();
        for (name, attributes, spans) in scopes {
            let (version, schema_url) = ("1.2".into(), schema_url.clone().into());
            let scope = Scope { name: name.into(), version, attributes, schema_url };
            let mut framed = Vec::new();
            encode::put_batch(&spans, &mut framed);
            let encoded = EncodedScope::new(&scope);
            let before = fields.len();
            encoded.put_header(framed.len(), &mut fields);
            fields.extend_from_slice(&framed);
            prop_assert_eq!(fields.len() - before, encoded.field_len(framed.len()));
            oracle.push(trace::ScopeSpans {
                scope: Some(common::InstrumentationScope {
                    name: scope.name.to_string(),
                    version: scope.version.to_string(),
                    attributes: expected_attributes(scope.attributes.iter()),
                    dropped_attributes_count: scope.attributes.dropped(),
                }),
                spans: spans.iter().map(expected).collect(),
                schema_url: scope.schema_url.to_string(),
            });
        }
        let mut request = Vec::new();
        encoded_resource.put_header(fields.len(), &mut request);
        request.extend_from_slice(&fields);
        prop_assert_eq!(request.len(), encoded_resource.request_len(fields.len()));

        let decoded = ExportTraceServiceRequest::decode(&request[..]).expect("the oracle reads it");
        let attributes = expected_attributes(resource.attributes.iter());
        let dropped_attributes_count = resource.attributes.dropped();
        // An empty resource is omitted, as is every empty message.
        let some = !attributes.is_empty() || dropped_attributes_count > 0;
        prop_assert_eq!(decoded.resource_spans, [trace::ResourceSpans {
            resource: some.then(|| resource::Resource {
                attributes, dropped_attributes_count, ..Default::default()
            }),
            scope_spans: oracle,
            schema_url,
        }]);
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_span(span in span()) {
        // NaN differs from itself; the oracle's comparison above has it by its bits.
        prop_assume!(span == span.clone());
        let scope = EncodedScope::new(&Scope::default());
        let mut request = Vec::new();
        let len = encode::framed_len(&span);
        let resource = EncodedResource::new(&Resource::default());
        resource.put_header(scope.field_len(len), &mut request);
        scope.put_header(len, &mut request);
        encode::put_framed(&span, &mut request);
        let request = view::Request::parse(&request).expect("framed");
        let decoded = decode::request(&request, 1 << 24).expect("small");
        let decoded = &decoded.resource_spans[0].scope_spans[0].spans[0];
        // A context read from the wire carries the flags of the field.
        let mut expected = span;
        expected.context.flags = decoded.context.flags;
        expected.links.iter_mut().zip(&decoded.links).for_each(|(link, decoded)| {
            link.context.flags = decoded.context.flags;
            link.context.is_remote = decoded.context.is_remote;
        });
        prop_assert_eq!(decoded, &expected);
    }
}

#[test]
fn the_bytes_of_a_span_are_these() {
    let trace = TraceId::from_bytes(*b"trace id 16 byte").expect("not zero");
    let id = SpanId::from_bytes(*b"span id8").expect("not zero");
    let mut span = Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "op");
    span.parent_span_id = SpanId::from_bytes(*b"parent 8");
    span.kind = SpanKind::Server;
    span.start_time_unix_nano = 1;
    span.end_time_unix_nano = 2;
    span.attributes.set("k", "");
    span.attributes.set("n", -1);
    span.status = Status::Error { message: "no".into() };
    let mut framed = Vec::new();
    encode::put_framed(&span, &mut framed);
    let golden: &[&[u8]] = &[
        &[0x12, 103], // ScopeSpans.spans
        &[0x0A, 16],
        b"trace id 16 byte",
        &[0x12, 8],
        b"span id8",
        &[0x22, 8],
        b"parent 8",
        &[0x2A, 2],
        b"op",
        &[0x30, 2], // kind: SERVER
        &[0x39, 1, 0, 0, 0, 0, 0, 0, 0],
        &[0x41, 2, 0, 0, 0, 0, 0, 0, 0],
        &[0x4A, 7, 0x0A, 1, b'k', 0x12, 2, 0x0A, 0], // an empty text is written
        &[0x4A, 16, 0x0A, 1, b'n', 0x12, 11, 0x18],
        &[0xFF; 9],
        &[0x01], // two's complement
        &[0x7A, 6, 0x12, 2],
        b"no",
        &[0x18, 2],                      // status
        &[0x85, 0x01, 0x01, 0x01, 0, 0], // flags: sampled, parent known to be local
    ];
    assert_eq!(framed, golden.concat());
}

/// Lengths take a second byte from 128 on; texts of up to 32 bytes are copied in pieces.
#[test]
fn attributes_of_every_length_are_what_the_oracle_makes_of_them() {
    let text = |len: usize| "0123456789abcdef".repeat(9)[..len].to_owned();
    let (trace, id) = (TraceId::new(1).expect("not zero"), SpanId::new(2).expect("not zero"));
    let mut span = Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "");
    let lengths = (0..=40).map(|len| (len, 0)).chain((100..=140).map(|len| (len, len / 2)));
    for (key, value) in lengths.flat_map(|(sum, key)| [(key, sum - key), (sum - key, key)]) {
        span.name = text(value).into();
        span.attributes = Attributes::new();
        span.attributes.push(KeyValue { key: text(key).into(), value: text(value).into() });
        let mut framed = Vec::new();
        encode::put_framed(&span, &mut framed);
        assert_eq!(framed.len(), encode::framed_len(&span), "{key} and {value}");
        assert_eq!(decode_framed(&framed), [expected(&span)], "{key} and {value}");
    }
    for bits in 0..64 {
        for number in [(1_i64 << bits).wrapping_sub(1), 1 << bits, -1 << bits] {
            let value = Value::Int(number);
            let span = trace::Span {
                attributes: vec![expected_pair("key", &value)],
                ..Default::default()
            };
            assert_eq!(attribute("key", &value), span.encode_to_vec(), "{number}");
        }
    }
}

/// One attribute, as a part of a span.
fn attribute(key: &str, value: &Value<'_>) -> Vec<u8> {
    let (trace, id) = (TraceId::new(1).expect("not zero"), SpanId::new(2).expect("not zero"));
    let mut writer = SpanWriter::default();
    writer.begin(trace, id, "", None, "op", SpanKind::Internal);
    writer.put_attribute(key, value);
    writer.attributes().to_vec()
}

#[test]
fn a_value_nested_beyond_the_limit_ends_in_an_empty_one() {
    let mut value = Value::Int(7);
    for _ in 0..Limits::DEPTH_MAX + 5 {
        value = Value::Array(vec![value]);
    }
    // Read by the view: the oracle stops at 100 messages, two of which make one level.
    let span = attribute("deep", &value);
    let mut inner = view::Span::new(&span).attributes().next().expect("written").value();
    let mut depth = 0;
    while let view::AnyValue::Array(mut array) = inner {
        depth += 1;
        inner = array.next().expect("one element");
    }
    assert_eq!(depth, Limits::DEPTH_MAX);
    assert!(matches!(inner, view::AnyValue::Empty));
}

#[test]
fn a_batch_grows_its_vector_once() {
    let trace = TraceId::new(1).expect("not zero");
    let id = SpanId::new(2).expect("not zero");
    let span = Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "op");
    let spans = vec![span; 1_000];
    let mut out = Vec::new();
    encode::put_batch(&spans, &mut out);
    assert_eq!(out.capacity(), out.len());
}

/// Short attributes and names are copied in place and long ones by a call, in pieces that depend on the
/// length.
#[test]
fn texts_of_every_length_are_written_the_same_way_while_a_span_is_open() {
    let trace = TraceId::new(1).expect("not zero");
    let id = SpanId::new(2).expect("not zero");
    let letters: String = ('a'..='z').cycle().take(200).collect();
    let values = |len: usize| {
        [Value::from(&letters[..len]), Value::Bool(len > 70), Value::Int(1 << (len % 64))]
    };
    let mut writer = SpanWriter::default();
    for name_len in 0..=140 {
        let name = &letters[..name_len];
        let mut span =
            Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), String::from(name));
        span.parent_span_id = (name_len > 30).then_some(id);
        (span.start_time_unix_nano, span.end_time_unix_nano) = (3, 4);
        let end = SpanEnd {
            start_time_unix_nano: 3,
            end_time_unix_nano: 4,
            flags: span.flags,
            rest: None,
        };
        writer.begin(trace, id, "", span.parent_span_id, name, span.kind);
        let mut open = vec![0; writer.framed_len(&end)];
        writer.put_framed(&end, &mut open);
        let mut whole = Vec::new();
        encode::put_framed(&span, &mut whole);
        assert_eq!(open, whole, "a name of {name_len} bytes");

        for value in (0..=140).flat_map(values) {
            span.attributes = Attributes::new();
            span.attributes.push(KeyValue::new(String::from(name), value.clone().into_owned()));
            let mut whole = Vec::new();
            encode::put_framed(&span, &mut whole);
            writer.begin(trace, id, "", span.parent_span_id, name, span.kind);
            writer.put_attribute(name, &value);
            let mut open = vec![0; writer.framed_len(&end)];
            writer.put_framed(&end, &mut open);
            assert_eq!(open, whole, "a key of {name_len} bytes, {value:?}");
        }
    }
}

/// By the plain span, the open one, and the one that was JSON on its way.
#[test]
fn an_attribute_is_the_same_bytes_whoever_writes_it() {
    let mut runner = proptest::test_runner::TestRunner::default();
    // JSON has one NaN, and lists of which the lengths are not known beforehand.
    let scalar = prop_oneof![
        Just(Value::Empty),
        ".{0,150}".prop_map(|text| Value::String(text.into())),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        prop::num::f64::NORMAL.prop_map(Value::Double),
        vec(any::<u8>(), 0..150).prop_map(|bytes| Value::Bytes(bytes.into())),
    ];
    let cases = (".{0,150}", scalar);
    let outcome = runner.run(&cases, |(key, value)| {
        let (trace, id) = (TraceId::new(1).expect("not zero"), SpanId::new(2).expect("not zero"));
        let mut span = Span::new(SpanContext::new(trace, id, TraceFlags::SAMPLED), "op");
        (span.start_time_unix_nano, span.end_time_unix_nano) = (3, 4);
        span.attributes.set(key.clone(), value);
        let value = &span.attributes.get(&key).expect("just set").clone();
        let scope = EncodedScope::new(&Scope::new("scope"));
        let spans = encode::framed_len(&span);
        let mut plain = Vec::new();
        EncodedResource::new(&Resource::default()).put_header(scope.field_len(spans), &mut plain);
        scope.put_header(spans, &mut plain);
        encode::put_framed(&span, &mut plain);
        let written = attribute(&key, value);
        prop_assert!(plain.windows(written.len()).any(|part| part == written));
        let mut json = Vec::new();
        write_request(&plain, &mut json).expect("valid");
        prop_assert_eq!(read_request(&json).expect("just written"), plain);
        Ok(())
    });
    outcome.expect("the same");
}
