//! Shorthand for requests as text.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use spanwire_codec::json::{JsonError, JsonErrorKind, read_request, write_request};

/// A request with one span, whose members these are.
pub(crate) fn around_span(members: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{members}}}]}}]}}]}}"#)
}

/// A request with one attribute on one span, of this value.
pub(crate) fn around_value(value: &str) -> String {
    around_span(&format!(r#""attributes":[{{"key":"k","value":{value}}}]"#))
}

/// What `prost` makes of the wire bytes that a text is read into.
pub(crate) fn read(json: &str) -> Result<ExportTraceServiceRequest, JsonError> {
    let wire = read_request(json.as_bytes())?;
    Ok(ExportTraceServiceRequest::decode(&wire[..]).expect("wire bytes are valid protobuf"))
}

/// The span in a request of this module's making.
pub(crate) fn span(members: &str) -> Span {
    let mut request =
        read(&around_span(members)).unwrap_or_else(|error| panic!("{members}: {error}"));
    request.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
}

/// The value in a request of this module's making.
pub(crate) fn value(json: &str) -> Option<Value> {
    let mut request = read(&around_value(json)).unwrap_or_else(|error| panic!("{json}: {error}"));
    let span = request.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0);
    span.attributes[0].value.clone().expect("there is a value").value
}

/// Why the span in a request of this module's making is refused.
pub(crate) fn span_error(members: &str) -> JsonErrorKind {
    match read(&around_span(members)) {
        Ok(request) => panic!("{members} was read as {request:?}"),
        Err(error) => error.kind(),
    }
}

/// Why the value in a request of this module's making is refused.
pub(crate) fn value_error(json: &str) -> JsonErrorKind {
    match read(&around_value(json)) {
        Ok(request) => panic!("{json} was read as {request:?}"),
        Err(error) => error.kind(),
    }
}

/// A request's wire bytes as text.
pub(crate) fn write(request: &[u8]) -> String {
    let mut json = Vec::new();
    write_request(request, &mut json).expect("the request is valid");
    String::from_utf8(json).expect("JSON is UTF-8")
}
