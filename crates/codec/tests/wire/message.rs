use opentelemetry_proto::tonic::collector::trace::v1 as theirs;
use proptest::prelude::*;
use prost::Message;
use spanwire_codec::message::{
    Any, Duration, ExportTraceServiceRequest, ExportTraceServiceResponse, RetryInfo, Status,
};

use crate::generate;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn own_messages_read_and_write_what_the_generated_ones_do(request in generate::request()) {
        let bytes = request.encode_to_vec();
        let own = ExportTraceServiceRequest::decode(&bytes[..]).expect("prost wrote it");
        prop_assert!(own.encode_to_vec() == bytes);
        prop_assert_eq!(format!("{own:?}").len() > 20, true);
    }

    #[test]
    fn own_responses_are_those_of_the_schema(rejected in any::<i64>(), text in "\\PC{0,9}") {
        let response = theirs::ExportTraceServiceResponse {
            partial_success: Some(theirs::ExportTracePartialSuccess {
                rejected_spans: rejected,
                error_message: text.clone(),
            }),
        };
        let bytes = response.encode_to_vec();
        let own = ExportTraceServiceResponse::decode(&bytes[..]).expect("prost wrote it");
        let partial = own.partial_success.clone().expect("was set");
        prop_assert_eq!((partial.rejected_spans, partial.error_message), (rejected, text));
        prop_assert!(own.encode_to_vec() == bytes);
    }
}

#[test]
fn a_status_with_retry_info_has_the_bytes_of_google_rpc() {
    let retry = RetryInfo { retry_delay: Some(Duration { seconds: 2, nanos: 500 }) };
    assert_eq!(retry.encode_to_vec(), [0x0A, 5, 0x08, 2, 0x10, 0xF4, 0x03]);
    let any = Any { type_url: RetryInfo::TYPE_URL.to_owned(), value: retry.encode_to_vec() };
    let status = Status { code: 8, message: "full".to_owned(), details: vec![any] };
    let mut expected = vec![0x08, 8, 0x12, 4, b'f', b'u', b'l', b'l', 0x1A, 51, 0x0A, 40];
    expected.extend(b"type.googleapis.com/google.rpc.RetryInfo");
    expected.extend([0x12, 7, 0x0A, 5, 0x08, 2, 0x10, 0xF4, 0x03]);
    assert_eq!(status.encode_to_vec(), expected);
}
