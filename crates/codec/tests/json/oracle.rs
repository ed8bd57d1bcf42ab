//! Generated requests through both encodings, ours and `opentelemetry-proto`'s with `serde_json`.
//!
//! That one departs from the protocol in ways these tests step around: it writes infinities and NaN
//! as `null` and can't read them as strings; it demands every member of an entity reference; and
//! `serde_json` as configured there reads long doubles one unit off.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use proptest::prelude::*;
use prost::Message;
use spanwire_codec::json::{read_request, write_request};
use spanwire_codec::view::Request;

use crate::generate;
use crate::normal::values;
use crate::soup::{Cook, REQUEST};

fn write(request: &[u8]) -> Vec<u8> {
    let mut json = Vec::new();
    write_request(request, &mut json).expect("the request is valid");
    json
}

fn read(json: &[u8]) -> ExportTraceServiceRequest {
    let wire = read_request(json).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(json));
    });
    Request::parse(&wire).expect("the view reads it too");
    ExportTraceServiceRequest::decode(&wire[..]).expect("wire bytes are valid protobuf")
}

/// Whether the lengths in a list may be longer than they need be.
fn has_long_list(mut request: ExportTraceServiceRequest) -> bool {
    let mut long = false;
    values(&mut request, |value| {
        long |= match value {
            Some(Value::ArrayValue(array)) => array.encoded_len() > 512,
            Some(Value::KvlistValue(map)) => map.encoded_len() > 512,
            _ => false,
        };
    });
    long
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_request_survives_the_way_through_json(request in generate::request()) {
        let wire = request.encode_to_vec();
        let json = write(&wire);
        prop_assert_eq!(&read(&json), &request);
        if !has_long_list(request) {
            // Minimal and in number order, as prost writes it, byte for byte.
            prop_assert_eq!(read_request(&json).unwrap(), wire);
        }
    }

    #[test]
    fn what_serde_writes_we_read(mut request in generate::request()) {
        let json = serde_json::to_vec(&request).unwrap();
        values(&mut request, |value| {
            if matches!(value, Some(Value::DoubleValue(double)) if double.is_infinite()) {
                *value = None;
            }
        });
        prop_assert_eq!(read(&json), request);
    }

    #[test]
    fn what_serde_writes_prettily_we_read_the_same(request in generate::request()) {
        let pretty = serde_json::to_vec_pretty(&request).unwrap();
        prop_assert_eq!(read(&pretty), read(&serde_json::to_vec(&request).unwrap()));
    }

    #[test]
    fn what_we_write_serde_reads(mut request in generate::request()) {
        values(&mut request, |value| {
            if let Some(Value::DoubleValue(double)) = value {
                // Few digits, which every reader gets right; infinities become the largest integer.
                *double = f64::from(*double as i32) / 4.0;
            }
        });
        for entity in request.resource_spans.iter_mut().flat_map(|spans| &mut spans.resource)
            .flat_map(|resource| &mut resource.entity_refs)
        {
            for text in [&mut entity.schema_url, &mut entity.r#type] {
                text.push('x');
            }
            for keys in [&mut entity.id_keys, &mut entity.description_keys] {
                keys.push("key".to_owned());
            }
        }
        let json = write(&request.encode_to_vec());
        let theirs: ExportTraceServiceRequest = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(theirs, request);
    }

    #[test]
    fn fields_in_any_order_and_number_of_pieces_become_the_message_prost_reads(
        numbers in prop::collection::vec(any::<u8>(), 0..600)
    ) {
        let wire = Cook::new(&numbers).message(&REQUEST);
        let mut expected = ExportTraceServiceRequest::decode(&wire[..]).unwrap();
        values(&mut expected, |value| {
            // JSON has one NaN.
            if let Some(Value::DoubleValue(double)) = value && double.is_nan() {
                *double = f64::NAN;
            }
        });
        let json = write(&wire);
        serde_json::from_slice::<serde_json::Value>(&json).expect("what is written is JSON");
        prop_assert_eq!(read(&json).encode_to_vec(), expected.encode_to_vec());
    }
}
