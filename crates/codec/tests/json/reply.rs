//! Answers and refusals.

use proptest::prelude::*;
use prost::Message;
use spanwire_codec::json::{
    JsonErrorKind, read_response, read_status, write_response, write_status,
};
use spanwire_codec::message::{
    Any, Duration, ExportTracePartialSuccess, ExportTraceServiceResponse, RetryInfo, Status,
};

fn response(rejected_spans: i64, error_message: &str) -> ExportTraceServiceResponse {
    let error_message = error_message.to_owned();
    ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess { rejected_spans, error_message }),
    }
}

fn retry_after(seconds: i64, nanos: i32) -> Any {
    let retry = RetryInfo { retry_delay: Some(Duration { seconds, nanos }) };
    Any { type_url: RetryInfo::TYPE_URL.to_owned(), value: retry.encode_to_vec() }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn full_success_is_an_empty_object() {
    let full = ExportTraceServiceResponse::default();
    assert_eq!(written(|out| write_response(&full, out)), "{}");
    for json in ["{}", r#"{"partialSuccess":null}"#, r#"{"other":[{}]}"#] {
        assert_eq!(read_response(json.as_bytes()), Ok(full.clone()), "{json}");
    }
}

#[test]
fn rejected_spans_are_a_string_and_read_from_a_number_too() {
    let json =
        r#"{"partialSuccess":{"rejectedSpans":"9007199254740993","errorMessage":"a \"b\""}}"#;
    let expected = response(9_007_199_254_740_993, "a \"b\"");
    assert_eq!(written(|out| write_response(&expected, out)), json);
    assert_eq!(read_response(json.as_bytes()), Ok(expected.clone()));
    let number = json.replace("\"9007199254740993\"", "9007199254740993");
    assert_eq!(read_response(number.as_bytes()), Ok(expected));
}

#[test]
fn a_warning_rejects_nothing() {
    let warning = response(0, "slow down");
    let json = r#"{"partialSuccess":{"errorMessage":"slow down"}}"#;
    assert_eq!(written(|out| write_response(&warning, out)), json);
    assert_eq!(read_response(json.as_bytes()), Ok(warning));
    assert_eq!(written(|out| write_response(&response(0, ""), out)), r#"{"partialSuccess":{}}"#);
}

#[test]
fn negative_counts_are_read_as_they_are() {
    let json = br#"{"partialSuccess":{"rejectedSpans":-1}}"#;
    assert_eq!(read_response(json), Ok(response(-1, "")));
}

#[test]
fn an_answer_that_is_none_is_refused() {
    for (json, kind) in [
        ("", JsonErrorKind::Object),
        ("<html>", JsonErrorKind::Object),
        ("{}{}", JsonErrorKind::End),
        (r#"{"partialSuccess":{"rejectedSpans":1.5}}"#, JsonErrorKind::Integer),
        (r#"{"partialSuccess":{"errorMessage":1}}"#, JsonErrorKind::String),
    ] {
        assert_eq!(
            read_response(json.as_bytes()).map_err(|error| error.kind()),
            Err(kind),
            "{json}"
        );
    }
}

#[test]
fn a_status_has_its_code_message_and_delay() {
    let status = Status { code: 14, message: "later".to_owned(), details: vec![retry_after(5, 0)] };
    let json = concat!(
        r#"{"code":14,"message":"later","details":["#,
        r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"5s"}]}"#
    );
    assert_eq!(written(|out| write_status(&status, out)), json);
    assert_eq!(read_status(json.as_bytes()), Ok(status));
    assert_eq!(written(|out| write_status(&Status::default(), out)), "{}");
}

#[test]
fn the_type_of_a_detail_may_come_last() {
    let detail = r#"{"retryDelay":"0.25s","@type":"type.googleapis.com\/google.rpc.RetryInfo"}"#;
    let json = format!(r#"{{"details":[{detail}]}}"#);
    assert_eq!(read_status(json.as_bytes()).unwrap().details, [retry_after(0, 250_000_000)]);
}

#[test]
fn details_of_other_types_keep_their_name_in_writing_and_are_ignored_in_reading() {
    let other = Any { type_url: "type.googleapis.com/x.Y".to_owned(), value: vec![8, 1] };
    let status = Status { details: vec![other, retry_after(1, 0)], ..Status::default() };
    let json = written(|out| write_status(&status, out));
    assert!(
        json.starts_with(r#"{"details":[{"@type":"type.googleapis.com/x.Y"},{"@type""#),
        "{json}"
    );
    assert_eq!(read_status(json.as_bytes()).unwrap().details, [retry_after(1, 0)]);
    // Whatever such a detail has, it concerns nobody here.
    let json =
        br#"{"details":[{"@type":"x","retryDelay":{"a":[]}},{"@type":"x","retryDelay":"soon"}]}"#;
    assert_eq!(read_status(json), Ok(Status::default()));
}

#[test]
fn only_the_first_delay_is_kept() {
    let detail = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1s"}"#;
    let details = vec![detail; 10_000].join(",");
    let json = format!(r#"{{"details":[{details}]}}"#);
    assert_eq!(read_status(json.as_bytes()).unwrap().details, [retry_after(1, 0)]);
}

#[test]
fn a_delay_that_is_none_is_refused() {
    let detail = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"soon"}"#;
    let json = format!(r#"{{"details":[{detail}]}}"#);
    let error = read_status(json.as_bytes()).unwrap_err();
    let at = json.find("\"soon\"").unwrap();
    assert_eq!((error.kind(), error.offset()), (JsonErrorKind::Duration, at));
    assert_eq!(read_status(br#"{"code":2147483648}"#).unwrap_err().kind(), JsonErrorKind::Range);
}

proptest! {
    #[test]
    fn answers_and_refusals_survive_the_way_through_json(
        rejected in any::<i64>(), code in any::<i32>(), text: String,
        seconds in 0..315_576_000_000_i64, nanos in 0..1_000_000_000_i32,
    ) {
        let answer = response(rejected, &text);
        let json = written(|out| write_response(&answer, out));
        prop_assert_eq!(read_response(json.as_bytes()), Ok(answer));
        let status = Status { code, message: text, details: vec![retry_after(seconds, nanos)] };
        let json = written(|out| write_status(&status, out));
        prop_assert_eq!(read_status(json.as_bytes()), Ok(status));
    }
}
