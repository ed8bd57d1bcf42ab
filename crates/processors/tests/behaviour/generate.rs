//! Requests in which keys collide, encoded in the ways that peers encode them.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

/// Keys that attributes have and actions act on.
pub(crate) fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]", "[ab][ab]", Just("sampling.priority".to_owned()), Just(String::new())]
}

fn value() -> impl Strategy<Value = Option<Value>> {
    let scalar = prop_oneof![
        "[0-9a-c.]{0,4}".prop_map(Value::StringValue),
        any::<String>().prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        prop_oneof![any::<i64>(), 0..3_i64].prop_map(Value::IntValue),
        (-1e9..1e9).prop_map(Value::DoubleValue),
        vec(any::<u8>(), 0..5).prop_map(Value::BytesValue),
    ];
    let nested = scalar.prop_recursive(3, 8, 3, |inner| {
        let inner = inner.prop_map(|value| AnyValue { value: Some(value) });
        let entry = (key(), inner.clone()).prop_map(|(key, value)| KeyValue {
            key,
            value: Some(value),
            key_strindex: 0,
        });
        prop_oneof![
            vec(inner, 0..3).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec(entry, 0..3).prop_map(|values| Value::KvlistValue(KeyValueList { values })),
        ]
    });
    option::weighted(0.9, nested)
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let attribute = (key(), value()).prop_map(|(key, value)| KeyValue {
        key,
        value: Some(AnyValue { value }),
        key_strindex: 0,
    });
    vec(attribute, 0..6)
}

fn trace_state() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        1 => "(a=1,)?ot=(x:y;)?th:[0-9a-f]{1,3}(,b=2)?",
        1 => "ot=rv:[0-9a-f]{14}(;th:[0-9a-f]{1,3})?",
        1 => "ot=(th|rv):[0-9a-g]{0,20}",
    ]
}

fn span() -> impl Strategy<Value = Span> {
    let trace_id =
        prop_oneof![4 => vec(any::<u8>(), 16), 1 => Just(vec![0; 16]), 1 => vec(0..9_u8, 0..9)];
    let identity = (trace_id, trace_state(), any::<String>(), 0..6_i32);
    (identity, attributes(), vec(attributes(), 0..2)).prop_map(|(identity, attributes, events)| {
        let (trace_id, trace_state, name, kind) = identity;
        let events = events.into_iter().map(|attributes| Event { attributes, ..Event::default() });
        let events = events.collect();
        Span { trace_id, trace_state, name, kind, attributes, events, ..Span::default() }
    })
}

/// A request of up to a few dozen spans.
pub(crate) fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope = InstrumentationScope { name: "scope".to_owned(), ..Default::default() };
    let scope_spans = (vec(span(), 0..4), option::of(Just(scope)))
        .prop_map(|(spans, scope)| ScopeSpans { spans, scope, ..ScopeSpans::default() });
    let resource =
        attributes().prop_map(|attributes| Resource { attributes, ..Resource::default() });
    let resource_spans =
        (option::of(resource), vec(scope_spans, 0..3)).prop_map(|(resource, scope_spans)| {
            ResourceSpans { resource, scope_spans, schema_url: "schema".to_owned() }
        });
    vec(resource_spans, 0..4)
        .prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

/// How a request is encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Encoding {
    /// As most peers do it.
    Ascending,
    /// As the Go Collector does it, which puts the resource behind the spans.
    Descending,
    /// With a field at each level that is not in the schema.
    Newer,
}

pub(crate) fn encoding() -> impl Strategy<Value = Encoding> {
    prop_oneof![Just(Encoding::Ascending), Just(Encoding::Descending), Just(Encoding::Newer)]
}

impl Encoding {
    pub(crate) fn encode(self, request: &ExportTraceServiceRequest) -> Bytes {
        let bytes = request.encode_to_vec();
        if self == Encoding::Ascending {
            return bytes.into();
        }
        // The fields that hold messages on the way down to an attribute.
        const SPAN: &[Nested] = &[Nested(9, &[])];
        const SCOPE_SPANS: &[Nested] = &[Nested(2, SPAN)];
        const RESOURCE_SPANS: &[Nested] = &[Nested(1, &[Nested(1, &[])]), Nested(2, SCOPE_SPANS)];
        self.rewrite(&bytes, &[Nested(1, RESOURCE_SPANS)]).into()
    }

    fn rewrite(self, mut message: &[u8], nested: &[Nested]) -> Vec<u8> {
        let mut fields: Vec<(u64, Vec<u8>)> = Vec::new();
        while !message.is_empty() {
            let start = message;
            let tag = varint(&mut message);
            match tag & 7 {
                0 => _ = varint(&mut message),
                1 => message = &message[8..],
                5 => message = &message[4..],
                _ => {
                    let len = varint(&mut message) as usize;
                    let (body, rest) = message.split_at(len);
                    message = rest;
                    if let Some(Nested(_, nested)) = nested.iter().find(|m| m.0 == tag >> 3) {
                        let mut field = Vec::new();
                        let body = self.rewrite(body, nested);
                        prost::encoding::encode_varint(tag, &mut field);
                        prost::encoding::encode_varint(body.len() as u64, &mut field);
                        field.extend(body);
                        fields.push((tag >> 3, field));
                        continue;
                    }
                }
            }
            fields.push((tag >> 3, start[..start.len() - message.len()].to_vec()));
        }
        if self == Encoding::Descending {
            // Stable: what is repeated keeps its order.
            fields.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        } else {
            fields.push((127, UNKNOWN.to_vec()));
        }
        fields.into_iter().flat_map(|(_, field)| field).collect()
    }
}

/// A field number, and those of the messages within.
struct Nested(u64, &'static [Nested]);

/// Field 127 as a varint: what [`Encoding::Newer`] has at the end of each message.
pub(crate) const UNKNOWN: [u8; 4] = [0xF8, 0x07, 0xA5, 0x01];

fn varint(bytes: &mut &[u8]) -> u64 {
    prost::encoding::decode_varint(bytes).expect("prost wrote it")
}
