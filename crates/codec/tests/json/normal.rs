//! Rewrites requests to what another encoding, or another reader, can carry of them.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

/// Shows every value in a request, the innermost first, and drops what only profiles may use.
pub(crate) fn values(
    request: &mut ExportTraceServiceRequest,
    mut change: impl FnMut(&mut Option<Value>),
) {
    for resource_spans in &mut request.resource_spans {
        if let Some(resource) = &mut resource_spans.resource {
            attributes(&mut resource.attributes, &mut change);
        }
        for scope_spans in &mut resource_spans.scope_spans {
            if let Some(scope) = &mut scope_spans.scope {
                attributes(&mut scope.attributes, &mut change);
            }
            for span in &mut scope_spans.spans {
                attributes(&mut span.attributes, &mut change);
                for event in &mut span.events {
                    attributes(&mut event.attributes, &mut change);
                }
                for link in &mut span.links {
                    attributes(&mut link.attributes, &mut change);
                }
            }
        }
    }
}

fn attributes(attributes: &mut [KeyValue], change: &mut impl FnMut(&mut Option<Value>)) {
    for attribute in attributes {
        attribute.key_strindex = 0;
        if let Some(value) = &mut attribute.value {
            any_value(value, change);
        }
    }
}

fn any_value(value: &mut AnyValue, change: &mut impl FnMut(&mut Option<Value>)) {
    match &mut value.value {
        Some(Value::ArrayValue(array)) => {
            for value in &mut array.values {
                any_value(value, change);
            }
        }
        Some(Value::KvlistValue(map)) => attributes(&mut map.values, change),
        Some(Value::StringValueStrindex(_)) => value.value = None,
        _ => {}
    }
    change(&mut value.value);
}
