//! OTLP/JSON both ways.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;
use spanwire_codec::json::{read_request, write_request};
use spanwire_codec::view::{Request, SpanError};

use super::normal::values;
use super::oracle::spans;

/// What is read is JSON and stays the same when written and read again; what is written of wire
/// bytes is JSON and reads as the message `prost` makes of them.
///
/// # Panics
///
/// Where that does not hold.
pub fn check(data: &[u8]) {
    read(data);
    write(data);
}

fn read(json: &[u8]) {
    let Ok(wire) = read_request(json) else { return };
    assert_json(json);
    assert!(wire.len() <= json.len(), "{} bytes from {}", wire.len(), json.len());
    let request = Request::parse(&wire).expect("what was read is a request");
    for span in spans(&request) {
        assert!(!matches!(span.check(), Err(SpanError::Malformed(_))));
    }

    let mut written = Vec::new();
    write_request(&wire, &mut written).expect("what was read can be written");
    let again = read_request(&written).expect("what was written can be read");
    let mut twice = Vec::new();
    write_request(&again, &mut twice).expect("what was read can be written");
    assert_eq!(written, twice);
    if let Ok(request) = ExportTraceServiceRequest::decode(&wire[..]) {
        let again = ExportTraceServiceRequest::decode(&again[..]).expect("the same request");
        assert_eq!(request.encode_to_vec(), again.encode_to_vec());
    }
}

fn write(wire: &[u8]) {
    let mut json = b"before".to_vec();
    let written = write_request(wire, &mut json);
    let Some(json) = json.strip_prefix(b"before") else { panic!("what was there is gone") };
    if let Err(error) = written {
        assert!(json.is_empty());
        let checked =
            Request::parse(wire).map(|request| spans(&request).try_for_each(|span| span.check()));
        return assert!(!matches!(checked, Ok(Ok(()))), "the view finds no fault: {error}");
    }
    assert_json(json);
    let read = read_request(json).expect("what is written can be read");
    // prost refuses what isn't UTF-8, which is repaired here, and what nests too deep for it.
    if let Ok(mut expected) = ExportTraceServiceRequest::decode(wire) {
        values(&mut expected, |value| {
            // JSON has one NaN.
            if let Some(Value::DoubleValue(double)) = value
                && double.is_nan()
            {
                *double = f64::NAN;
            }
        });
        let read = ExportTraceServiceRequest::decode(&read[..]).expect("the same request");
        assert_eq!(read.encode_to_vec(), expected.encode_to_vec());
    }
}

fn assert_json(json: &[u8]) {
    if let Err(error) = serde_json::from_slice::<serde_json::Value>(json) {
        // Limits of theirs, not of JSON's: a number in an unknown field that no double can hold, and
        // 128 levels, where a value of 64 has three for each.
        let error = error.to_string();
        assert!(error.contains("out of range") || error.contains("recursion"), "{error}");
    }
}
