//! The processors against `opentelemetry-proto`: what they do to bytes is what their documentation says
//! of the decoded spans.

mod actions;
mod generate;
mod hostile;
mod model;
mod plain;
mod sampler;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use spanwire_processors::Edited;

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, key_strindex: 0 }
}

fn text(key: &str, text: &str) -> KeyValue {
    attribute(key, Value::StringValue(text.to_owned()))
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

fn encoded(request: &ExportTraceServiceRequest) -> Bytes {
    request.encode_to_vec().into()
}

/// What came out, its own account of itself checked.
fn decoded(edited: Edited) -> ExportTraceServiceRequest {
    let (bytes, spans) = (edited.bytes, edited.spans);
    let joined = edited.joined();
    assert_eq!(joined.len(), bytes);
    let request = ExportTraceServiceRequest::decode(joined).expect("a request");
    assert_eq!(self::spans(&request).count(), spans);
    request
}

fn spans(request: &ExportTraceServiceRequest) -> impl Iterator<Item = &Span> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans)
}
