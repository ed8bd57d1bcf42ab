//! Fixed texts, character by character.

use crate::text::{read, write};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

fn key_value(key: &str, value: impl Into<Option<Value>>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: value.into() }),
        ..KeyValue::default()
    }
}

/// One request with every field of the schema and every kind of value.
pub(crate) fn request() -> ExportTraceServiceRequest {
    let text = |text: &str| Value::StringValue(text.to_owned());
    let any = |value: Value| AnyValue { value: Some(value) };
    let span = Span {
        trace_id: (0xA0..=0xAF).collect(),
        span_id: (1..=8).collect(),
        trace_state: "ot=th:c".to_owned(),
        parent_span_id: vec![0xFF; 8],
        flags: 0x301,
        name: "GET /caf\u{e9} \"\u{1F980}\"".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_544_712_660_000_000_000,
        end_time_unix_nano: u64::MAX,
        attributes: vec![
            key_value("string", text("line\nfeed \\ \u{1}")),
            key_value("empty string", text("")),
            key_value("true", Value::BoolValue(true)),
            key_value("false", Value::BoolValue(false)),
            key_value("int", Value::IntValue(i64::MIN)),
            key_value("zero", Value::IntValue(0)),
            key_value("double", Value::DoubleValue(0.1)),
            key_value("whole", Value::DoubleValue(3.0)),
            key_value("large", Value::DoubleValue(-1.5e300)),
            key_value("infinity", Value::DoubleValue(f64::INFINITY)),
            key_value("bytes", Value::BytesValue(vec![0xFB, 0xFF, 0, 1])),
            key_value("no bytes", Value::BytesValue(vec![])),
            key_value(
                "array",
                Value::ArrayValue(ArrayValue {
                    values: vec![
                        any(text("a")),
                        AnyValue { value: None },
                        any(Value::ArrayValue(ArrayValue { values: vec![] })),
                    ],
                }),
            ),
            key_value(
                "map",
                Value::KvlistValue(KeyValueList {
                    values: vec![key_value("inner", Value::IntValue(-1))],
                }),
            ),
            key_value("no map", Value::KvlistValue(KeyValueList { values: vec![] })),
            key_value("nothing", None),
            KeyValue { key: String::new(), ..KeyValue::default() },
        ],
        dropped_attributes_count: 1,
        events: vec![
            Event {
                time_unix_nano: 5,
                name: "exception".to_owned(),
                attributes: vec![key_value("exception.type", text("Oops"))],
                dropped_attributes_count: 2,
            },
            Event::default(),
        ],
        dropped_events_count: 3,
        links: vec![Link {
            trace_id: vec![0x10; 16],
            span_id: vec![0x20; 8],
            trace_state: "a=b".to_owned(),
            attributes: vec![key_value("why", text("retry"))],
            dropped_attributes_count: 4,
            flags: 0x100,
        }],
        dropped_links_count: u32::MAX,
        status: Some(Status { message: "timed out".to_owned(), code: 2 }),
    };
    let bare = Span { status: Some(Status::default()), ..Span::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![
            ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![key_value("service.name", text("shop"))],
                    dropped_attributes_count: 7,
                    entity_refs: vec![EntityRef {
                        schema_url: "https://example.org/e".to_owned(),
                        r#type: "service".to_owned(),
                        id_keys: vec!["service.name".to_owned(), "service.id".to_owned()],
                        description_keys: vec!["service.version".to_owned()],
                    }],
                }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "http".to_owned(),
                        version: "1.2".to_owned(),
                        attributes: vec![key_value("short", Value::BoolValue(true))],
                        dropped_attributes_count: 8,
                    }),
                    spans: vec![span, bare],
                    schema_url: "https://example.org/s".to_owned(),
                }],
                schema_url: "https://example.org/r".to_owned(),
            },
            ResourceSpans { resource: Some(Resource::default()), ..ResourceSpans::default() },
        ],
    }
}

/// [`request`] as it must be written, but for the line ends and indents, which are not.
pub(crate) const TEXT: &str = r#"
{"resourceSpans":[
  {"resource":{
    "attributes":[{"key":"service.name","value":{"stringValue":"shop"}}],
    "droppedAttributesCount":7,
    "entityRefs":[{
      "schemaUrl":"https://example.org/e",
      "type":"service",
      "idKeys":["service.name","service.id"],
      "descriptionKeys":["service.version"]}]},
  "scopeSpans":[
    {"scope":{
      "name":"http",
      "version":"1.2",
      "attributes":[{"key":"short","value":{"boolValue":true}}],
      "droppedAttributesCount":8},
    "spans":[
      {"traceId":"a0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
      "spanId":"0102030405060708",
      "traceState":"ot=th:c",
      "parentSpanId":"ffffffffffffffff",
      "name":"GET /café \"🦀\"",
      "kind":2,
      "startTimeUnixNano":"1544712660000000000",
      "endTimeUnixNano":"18446744073709551615",
      "attributes":[
        {"key":"string","value":{"stringValue":"line\nfeed \\ \u0001"}},
        {"key":"empty string","value":{"stringValue":""}},
        {"key":"true","value":{"boolValue":true}},
        {"key":"false","value":{"boolValue":false}},
        {"key":"int","value":{"intValue":"-9223372036854775808"}},
        {"key":"zero","value":{"intValue":"0"}},
        {"key":"double","value":{"doubleValue":0.1}},
        {"key":"whole","value":{"doubleValue":3}},
        {"key":"large","value":{"doubleValue":-1.5e300}},
        {"key":"infinity","value":{"doubleValue":"Infinity"}},
        {"key":"bytes","value":{"bytesValue":"+/8AAQ=="}},
        {"key":"no bytes","value":{"bytesValue":""}},
        {"key":"array","value":{"arrayValue":{"values":[
          {"stringValue":"a"},
          {},
          {"arrayValue":{"values":[]}}]}}},
        {"key":"map","value":{"kvlistValue":{"values":[
          {"key":"inner","value":{"intValue":"-1"}}]}}},
        {"key":"no map","value":{"kvlistValue":{"values":[]}}},
        {"key":"nothing","value":{}},
        {"key":""}],
      "droppedAttributesCount":1,
      "events":[
        {"timeUnixNano":"5",
        "name":"exception",
        "attributes":[{"key":"exception.type","value":{"stringValue":"Oops"}}],
        "droppedAttributesCount":2},
        {}],
      "droppedEventsCount":3,
      "links":[
        {"traceId":"10101010101010101010101010101010",
        "spanId":"2020202020202020",
        "traceState":"a=b",
        "attributes":[{"key":"why","value":{"stringValue":"retry"}}],
        "droppedAttributesCount":4,
        "flags":256}],
      "droppedLinksCount":4294967295,
      "status":{"message":"timed out","code":2},
      "flags":769},
      {"status":{}}],
    "schemaUrl":"https://example.org/s"}],
  "schemaUrl":"https://example.org/r"},
  {"resource":{}}]}
"#;

/// [`TEXT`] on one line.
pub(crate) fn compact() -> String {
    TEXT.lines().map(str::trim_start).collect()
}

/// Faults 27, 31.
#[test]
fn every_field_is_written_as_the_protocol_has_it() {
    assert_eq!(write(&request().encode_to_vec()), compact());
}

/// Faults 29.
#[test]
fn every_field_is_read_from_what_is_written() {
    assert_eq!(read(&compact()), Ok(request()));
    assert_eq!(read(TEXT), Ok(request()), "white space changes nothing");
}

/// Faults 1.
#[test]
fn an_empty_request_is_an_empty_object() {
    assert_eq!(write(&[]), "{}");
    for json in ["{}", " { } ", r#"{"resourceSpans":[]}"#, r#"{"resourceSpans":null}"#] {
        assert_eq!(read(json), Ok(ExportTraceServiceRequest::default()), "{json}");
    }
}

/// The shape of the trace that the protocol's repository gives as its example, its content our own.
///
/// Faults 45.
#[test]
fn a_trace_as_the_protocol_shows_one_reads_as_its_binary_form() {
    let json = include_str!("trace.json");
    let text = |text: &str| Value::StringValue(text.to_owned());
    let expected = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![key_value("service.name", text("checkout"))],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "payments".to_owned(),
                    version: "2.4.0".to_owned(),
                    attributes: vec![key_value("library.mode", text("sync"))],
                    ..InstrumentationScope::default()
                }),
                spans: vec![Span {
                    trace_id: 0x7BAE_3B0A_A01F_4C2D_9E51_F0B6_A1C3_D5E7_u128.to_be_bytes().into(),
                    span_id: 0x51C8_D2E4_F6A8_B0C2_u64.to_be_bytes().into(),
                    parent_span_id: 0x51C8_D2E4_F6A8_B0C1_u64.to_be_bytes().into(),
                    flags: 1,
                    name: "charge card".to_owned(),
                    kind: 3,
                    start_time_unix_nano: 1_700_000_000_000_000_001,
                    end_time_unix_nano: 1_700_000_000_250_000_001,
                    attributes: vec![key_value("attempt", Value::IntValue(2))],
                    ..Span::default()
                }],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    assert_eq!(read(json), Ok(expected.clone()));
    // And back: the same members, each in its place.
    let written = write(&expected.encode_to_vec());
    assert_eq!(read(&written), Ok(expected));
    let value = |json| serde_json::from_str::<serde_json::Value>(json).expect("JSON");
    assert_eq!(value(&written.to_lowercase()), value(&json.to_lowercase()));
}
