//! Arbitrary requests of every shape the schema has, as `opentelemetry-proto` messages.
//!
//! Ids have their lengths and doubles are not NaN, so that a request equals itself after a round
//! trip; tests of bad ids and of NaN make their own.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A request of up to a few dozen spans; any part may be empty or absent.
pub(crate) fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    vec(resource_spans(), 0..4)
        .prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

fn resource_spans() -> impl Strategy<Value = ResourceSpans> {
    (option::of(resource()), vec(scope_spans(), 0..4), text()).prop_map(
        |(resource, scope_spans, schema_url)| ResourceSpans { resource, scope_spans, schema_url },
    )
}

fn resource() -> impl Strategy<Value = Resource> {
    (attributes(), count(), vec(entity_ref(), 0..3)).prop_map(
        |(attributes, dropped_attributes_count, entity_refs)| Resource {
            attributes,
            dropped_attributes_count,
            entity_refs,
        },
    )
}

fn entity_ref() -> impl Strategy<Value = EntityRef> {
    (text(), text(), vec(text(), 0..3), vec(text(), 0..3)).prop_map(
        |(schema_url, r#type, id_keys, description_keys)| EntityRef {
            schema_url,
            r#type,
            id_keys,
            description_keys,
        },
    )
}

fn scope_spans() -> impl Strategy<Value = ScopeSpans> {
    (option::of(scope()), vec(span(), 0..5), text())
        .prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url })
}

fn scope() -> impl Strategy<Value = InstrumentationScope> {
    (text(), text(), attributes(), count()).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn span() -> impl Strategy<Value = Span> {
    let identity = (any::<[u8; 16]>(), any::<[u8; 8]>(), text(), option::of(any::<[u8; 8]>()));
    let operation = (text(), number(), any::<u64>(), any::<u64>(), any::<u32>());
    let details = (attributes(), vec(event(), 0..3), vec(link(), 0..3), option::of(status()));
    let dropped = (count(), count(), count());
    (identity, operation, details, dropped).prop_map(|(identity, operation, details, dropped)| {
        let (trace_id, span_id, trace_state, parent) = identity;
        let (name, kind, start_time_unix_nano, end_time_unix_nano, flags) = operation;
        let (attributes, events, links, status) = details;
        Span {
            trace_id: trace_id.to_vec(),
            span_id: span_id.to_vec(),
            trace_state,
            parent_span_id: parent.map_or(Vec::new(), |id| id.to_vec()),
            flags,
            name,
            kind,
            start_time_unix_nano,
            end_time_unix_nano,
            attributes,
            dropped_attributes_count: dropped.0,
            events,
            dropped_events_count: dropped.1,
            links,
            dropped_links_count: dropped.2,
            status,
        }
    })
}

fn event() -> impl Strategy<Value = Event> {
    (any::<u64>(), text(), attributes(), count()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn link() -> impl Strategy<Value = Link> {
    let context = (any::<[u8; 16]>(), any::<[u8; 8]>(), text(), any::<u32>());
    (context, attributes(), count()).prop_map(|(context, attributes, dropped_attributes_count)| {
        let (trace_id, span_id, trace_state, flags) = context;
        Link {
            trace_id: trace_id.to_vec(),
            span_id: span_id.to_vec(),
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        }
    })
}

fn status() -> impl Strategy<Value = Status> {
    (text(), number()).prop_map(|(message, code)| Status { message, code })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(key_value(any_value()), 0..4)
}

fn key_value(value: impl Strategy<Value = AnyValue>) -> impl Strategy<Value = KeyValue> {
    (text(), value).prop_map(|(key, value)| KeyValue { key, value: Some(value), key_strindex: 0 })
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let double = prop_oneof![
        proptest::num::f64::ANY.prop_filter("NaN differs from itself", |double| !double.is_nan()),
        Just(-0.0),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
    ];
    let int = prop_oneof![any::<i64>(), Just(0), Just(i64::MIN), Just(-1)];
    let scalar = prop_oneof![
        Just(None),
        text().prop_map(|text| Some(Value::StringValue(text))),
        any::<bool>().prop_map(|truth| Some(Value::BoolValue(truth))),
        int.prop_map(|int| Some(Value::IntValue(int))),
        double.prop_map(|double| Some(Value::DoubleValue(double))),
        vec(any::<u8>(), 0..20).prop_map(|bytes| Some(Value::BytesValue(bytes))),
    ]
    .prop_map(|value| AnyValue { value });
    scalar.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec(key_value(inner), 0..3)
                .prop_map(|values| Value::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

/// Short, empty and long texts: lengths of one and two bytes, characters of one to four.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z.]{1,12}",
        "\\PC{0,8}",
        Just("\u{0}\u{FEFF}\u{202E}\u{1F980}\"\\\n".to_owned()),
        Just("long".repeat(50)),
    ]
}

/// A dropped count: mostly none.
fn count() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), any::<u32>()]
}

/// An enum's number, known or not.
fn number() -> impl Strategy<Value = i32> {
    prop_oneof![0..6, Just(99), Just(-1)]
}
