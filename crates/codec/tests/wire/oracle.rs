//! What `prost` makes of a request, and the same made of a view.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1 as resource;
use opentelemetry_proto::tonic::trace::v1 as trace;
use prost::Message;
use spanwire_codec::view::{AnyValue, KeyValue, Request, Span, SpanError};

/// Reads a request through its view; texts must be UTF-8.
pub(crate) fn read(request: &Request<'_>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: request
            .resource_spans()
            .map(|view| trace::ResourceSpans {
                resource: view.resource().map(|view| resource::Resource {
                    attributes: attributes(view.attributes()),
                    dropped_attributes_count: view.dropped_attributes_count(),
                    entity_refs: view
                        .entity_refs()
                        .map(|view| common::EntityRef {
                            schema_url: text(view.schema_url()),
                            r#type: text(view.kind()),
                            id_keys: view.id_keys().map(text).collect(),
                            description_keys: view.description_keys().map(text).collect(),
                        })
                        .collect(),
                }),
                scope_spans: view
                    .scope_spans()
                    .map(|view| trace::ScopeSpans {
                        scope: view.scope().map(|view| common::InstrumentationScope {
                            name: text(view.name()),
                            version: text(view.version()),
                            attributes: attributes(view.attributes()),
                            dropped_attributes_count: view.dropped_attributes_count(),
                        }),
                        spans: view.spans().map(|view| span(&view)).collect(),
                        schema_url: text(view.schema_url()),
                    })
                    .collect(),
                schema_url: text(view.schema_url()),
            })
            .collect(),
    }
}

fn span(view: &Span<'_>) -> trace::Span {
    assert_head(view);
    trace::Span {
        trace_id: view.trace_id().map_or(Vec::new(), |id| id.to_vec()),
        span_id: view.span_id().map_or(Vec::new(), |id| id.to_vec()),
        trace_state: text(view.trace_state()),
        parent_span_id: view.parent_span_id().map_or(Vec::new(), |id| id.to_vec()),
        flags: view.flags(),
        name: text(view.name()),
        kind: view.kind(),
        start_time_unix_nano: view.start_time_unix_nano(),
        end_time_unix_nano: view.end_time_unix_nano(),
        attributes: attributes(view.attributes()),
        dropped_attributes_count: view.dropped_attributes_count(),
        events: view
            .events()
            .map(|view| trace::span::Event {
                time_unix_nano: view.time_unix_nano(),
                name: text(view.name()),
                attributes: attributes(view.attributes()),
                dropped_attributes_count: view.dropped_attributes_count(),
            })
            .collect(),
        dropped_events_count: view.dropped_events_count(),
        links: view
            .links()
            .map(|view| trace::span::Link {
                trace_id: view.trace_id().map_or(Vec::new(), |id| id.to_vec()),
                span_id: view.span_id().map_or(Vec::new(), |id| id.to_vec()),
                trace_state: text(view.trace_state()),
                attributes: attributes(view.attributes()),
                dropped_attributes_count: view.dropped_attributes_count(),
                flags: view.flags(),
            })
            .collect(),
        dropped_links_count: view.dropped_links_count(),
        status: view
            .status()
            .map(|view| trace::Status { message: text(view.message()), code: view.code() }),
    }
}

/// Asserts that a span's head has what the getters give, one by one.
pub(crate) fn assert_head(view: &Span<'_>) {
    let head = view.head();
    assert_eq!(
        (head.trace_id, head.span_id, head.parent_span_id),
        (view.trace_id(), view.span_id(), view.parent_span_id())
    );
    assert_eq!((head.trace_state, head.name), (view.trace_state(), view.name()));
    assert_eq!(
        (head.kind, head.flags, head.start_time_unix_nano, head.end_time_unix_nano),
        (view.kind(), view.flags(), view.start_time_unix_nano(), view.end_time_unix_nano())
    );
}

fn attributes<'a>(entries: impl Iterator<Item = KeyValue<'a>>) -> Vec<common::KeyValue> {
    entries.map(key_value).collect()
}

fn key_value(view: KeyValue<'_>) -> common::KeyValue {
    let value = Some(any_value(view.value()));
    common::KeyValue { key: text(view.key()), value, key_strindex: 0 }
}

fn any_value(view: AnyValue<'_>) -> common::AnyValue {
    let value = match view {
        AnyValue::Empty => None,
        AnyValue::String(bytes) => Some(Value::StringValue(text(bytes))),
        AnyValue::Bool(truth) => Some(Value::BoolValue(truth)),
        AnyValue::Int(int) => Some(Value::IntValue(int)),
        AnyValue::Double(double) => Some(Value::DoubleValue(double)),
        AnyValue::Array(values) => {
            let values = values.map(any_value).collect();
            Some(Value::ArrayValue(common::ArrayValue { values }))
        }
        AnyValue::Map(entries) => {
            let values = entries.map(key_value).collect();
            Some(Value::KvlistValue(common::KeyValueList { values }))
        }
        AnyValue::Bytes(bytes) => Some(Value::BytesValue(bytes.to_vec())),
    };
    common::AnyValue { value }
}

fn text(bytes: &[u8]) -> String {
    str::from_utf8(bytes).expect("prost has accepted it").to_owned()
}

/// Where views read less than there is: what only profiles may use is absent, and an absent value
/// is an empty one.
fn normalize(request: &mut ExportTraceServiceRequest) {
    for resource_spans in &mut request.resource_spans {
        if let Some(resource) = &mut resource_spans.resource {
            normalize_attributes(&mut resource.attributes);
        }
        for scope_spans in &mut resource_spans.scope_spans {
            if let Some(scope) = &mut scope_spans.scope {
                normalize_attributes(&mut scope.attributes);
            }
            for span in &mut scope_spans.spans {
                normalize_attributes(&mut span.attributes);
                for event in &mut span.events {
                    normalize_attributes(&mut event.attributes);
                }
                for link in &mut span.links {
                    normalize_attributes(&mut link.attributes);
                }
            }
        }
    }
}

fn normalize_attributes(attributes: &mut [common::KeyValue]) {
    for attribute in attributes {
        attribute.key_strindex = 0;
        normalize_value(attribute.value.get_or_insert_default());
    }
}

fn normalize_value(value: &mut common::AnyValue) {
    match &mut value.value {
        Some(Value::StringValueStrindex(_)) => value.value = None,
        Some(Value::ArrayValue(array)) => array.values.iter_mut().for_each(normalize_value),
        Some(Value::KvlistValue(map)) => normalize_attributes(&mut map.values),
        _ => {}
    }
}

/// Asserts that views and `prost` agree on bytes, and on what they hold.
///
/// They may differ in what views promise: ids have their lengths, texts need not be UTF-8. And
/// `prost` counts levels of messages where views count levels of values and of groups.
pub(crate) fn assert_agrees(bytes: &[u8]) {
    let theirs = ExportTraceServiceRequest::decode(bytes);
    let framing = Request::parse(bytes);
    let spans = framing.map(|request| {
        assert_eq!(request.spans(), spans(&request).count());
        spans(&request).try_for_each(|span| span.check())
    });
    match (theirs, spans) {
        (Ok(mut theirs), Ok(Ok(()))) => {
            normalize(&mut theirs);
            let ours = read(&Request::parse(bytes).expect("parsed just now"));
            // By bytes, as NaN is not equal to itself.
            assert!(ours.encode_to_vec() == theirs.encode_to_vec(), "{ours:?}\n{theirs:?}");
        }
        (Ok(_), Ok(Err(SpanError::Malformed(error)))) => panic!("prost reads a span: {error}"),
        (Ok(_), Ok(Err(_))) => {}
        (Ok(_), Err(error)) => panic!("prost reads a request: {error}: {bytes:02X?}"),
        (Err(error), Ok(Ok(()))) => {
            let error = error.to_string();
            let tolerated = error.contains("UTF-8") || error.contains("recursion");
            assert!(tolerated, "prost refuses: {error}: {bytes:02X?}");
        }
        (Err(_), _) => {}
    }
}

/// All spans of a request in order.
pub(crate) fn spans<'a>(request: &Request<'a>) -> impl Iterator<Item = Span<'a>> {
    request
        .resource_spans()
        .flat_map(|resource_spans| resource_spans.scope_spans())
        .flat_map(|scope_spans| scope_spans.spans())
}
