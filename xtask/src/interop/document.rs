//! Spans as JSON documents in which every field can be compared: the form of `interop/spans.py`.
//!
//! 64-bit numbers are decimal strings, doubles are the hexadecimal digits of their bits, ids and
//! bytes are hexadecimal: nothing depends on how a language writes numbers.

use serde_json::{Value as Json, json};
use spanwire_codec::decode;
use spanwire_codec::view::Request;
use spanwire_model::{KeyValue, Resource, Scope, Span, SpanContext, Status, Value};

/// Most memory for the spans of one request, decoded.
const DECODED_BYTES_MAX: usize = 1 << 30;

/// The documents of an `ExportTraceServiceRequest`.
pub(super) fn documents(request: &[u8]) -> Result<Vec<Json>, String> {
    let request = Request::parse(request).map_err(|error| error.to_string())?;
    let decoded =
        decode::request(&request, DECODED_BYTES_MAX).map_err(|error| error.to_string())?;
    if decoded.spans_rejected + decoded.texts_repaired > 0 {
        return Err(format!(
            "{} spans rejected and {} texts repaired in decoding",
            decoded.spans_rejected, decoded.texts_repaired
        ));
    }
    let mut documents = Vec::with_capacity(decoded.spans);
    for resource in &decoded.resource_spans {
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                documents.push(document(&resource.resource, &scope.scope, span));
            }
        }
    }
    Ok(documents)
}

/// The document of one span.
pub(super) fn document(resource: &Resource, scope: &Scope, span: &Span) -> Json {
    let events = span.events.iter().map(|event| {
        json!({
            "time": event.time_unix_nano.to_string(),
            "name": event.name.as_str(),
            "attributes": attributes(&event.attributes),
            "dropped_attributes": event.dropped_attributes_count,
        })
    });
    let links = span.links.iter().map(|link| {
        let mut document = context(&link.context, link.flags);
        document["attributes"] = attributes(&link.attributes);
        document["dropped_attributes"] = link.dropped_attributes_count.into();
        document
    });
    let status = match &span.status {
        Status::Unset => json!([0, ""]),
        Status::Ok => json!([1, ""]),
        Status::Error { message } => json!([2, message.as_str()]),
    };
    let mut document = context(&span.context, span.flags);
    let rest = json!({
        "resource": {
            "attributes": attributes(&resource.attributes),
            "schema_url": resource.schema_url.as_str(),
        },
        "scope": {
            "name": scope.name.as_str(),
            "version": scope.version.as_str(),
            "schema_url": scope.schema_url.as_str(),
            "attributes": attributes(&scope.attributes),
        },
        "parent_span_id": span.parent_span_id.map(|id| id.to_string()).unwrap_or_default(),
        "name": span.name.as_str(),
        "kind": span.kind as u8,
        "start": span.start_time_unix_nano.to_string(),
        "end": span.end_time_unix_nano.to_string(),
        "attributes": attributes(&span.attributes),
        "dropped_attributes": span.attributes.dropped(),
        "events": events.collect::<Json>(),
        "dropped_events": span.dropped_events_count,
        "links": links.collect::<Json>(),
        "dropped_links": span.dropped_links_count,
        "status": status,
    });
    if let (Json::Object(document), Json::Object(rest)) = (&mut document, rest) {
        document.extend(rest);
    }
    document
}

fn context(context: &SpanContext, flags: u32) -> Json {
    json!({
        "trace_id": context.trace_id.to_string(),
        "span_id": context.span_id.to_string(),
        "trace_state": context.trace_state.as_str(),
        "flags": flags,
    })
}

fn attributes<'a>(entries: impl IntoIterator<Item = &'a KeyValue>) -> Json {
    entries.into_iter().map(|entry| json!([entry.key.as_str(), value(&entry.value)])).collect()
}

fn value(given: &Value<'_>) -> Json {
    match given {
        Value::Empty => json!(["empty"]),
        Value::String(text) => json!(["string", text]),
        Value::Bool(truth) => json!(["bool", truth]),
        Value::Int(number) => json!(["int", number.to_string()]),
        Value::Double(number) => json!(["double", format!("{:016x}", number.to_bits())]),
        Value::Bytes(bytes) => {
            json!(["bytes", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()])
        }
        Value::Array(values) => json!(["array", values.iter().map(value).collect::<Json>()]),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, of)| json!([key, value(of)]));
            json!(["map", entries.collect::<Json>()])
        }
    }
}
