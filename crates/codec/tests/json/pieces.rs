//! Wire bytes as other encoders write them, and what is wrong with wire bytes.

use prost::Message;
use spanwire_codec::json::write_request;
use spanwire_codec::message::ExportTraceServiceRequest;

use crate::golden;
use crate::text::write;

/// A field with a body: tag, length, body.
fn len(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    prost::encoding::encode_varint(body.len() as u64, &mut out);
    out.extend(body);
    out
}

/// A request with one span of this body.
fn around_span(body: &[u8]) -> Vec<u8> {
    len(0x0A, &len(0x12, &len(0x12, body)))
}

/// What is written of a span with this body.
fn span(body: &[u8]) -> String {
    let json = write(&around_span(body));
    let inner = json.strip_prefix(r#"{"resourceSpans":[{"scopeSpans":[{"spans":["#);
    inner.and_then(|json| json.strip_suffix("]}]}]}")).expect("one span").to_owned()
}

#[test]
fn the_resource_may_come_behind_its_spans() {
    let resource = len(0x0A, &[0x10, 5]);
    let spans = len(0x12, &len(0x12, &[0x30, 1]));
    let expected = concat!(
        r#"{"resourceSpans":[{"resource":{"droppedAttributesCount":5},"#,
        r#""scopeSpans":[{"spans":[{"kind":1}]}]}]}"#
    );
    assert_eq!(write(&len(0x0A, &[&resource[..], &spans].concat())), expected);
    assert_eq!(write(&len(0x0A, &[&spans[..], &resource].concat())), expected);
}

/// Faults 18.
#[test]
fn a_repeated_field_may_be_scattered_over_its_message() {
    let event = |name: &str| len(0x5A, &len(0x12, name.as_bytes()));
    let scattered = [event("a"), vec![0x30, 1], event("b"), len(0x2A, b"n"), event("c")].concat();
    let expected = r#"{"name":"n","kind":1,"events":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#;
    assert_eq!(span(&scattered), expected);
}

/// Faults 17.
#[test]
fn of_a_scalar_set_twice_the_last_one_is_written() {
    assert_eq!(
        span(&[len(0x2A, b"a"), len(0x2A, b"b"), vec![0x30, 1, 0x30, 0]].concat()),
        r#"{"name":"b"}"#
    );
}

/// Faults 17.
#[test]
fn messages_in_pieces_are_merged() {
    let status = [len(0x7A, &[0x18, 2]), len(0x7A, &[]), len(0x7A, &len(0x12, b"m"))].concat();
    assert_eq!(span(&status), r#"{"status":{"message":"m","code":2}}"#);
    // An attribute's value in pieces, and an array in pieces within those.
    let array = |text: &str| len(0x12, &len(0x2A, &len(0x0A, &len(0x0A, text.as_bytes()))));
    let attribute = len(0x4A, &[array("a"), len(0x0A, b"k"), array("b")].concat());
    let values = r#"[{"stringValue":"a"},{"stringValue":"b"}]"#;
    assert_eq!(
        span(&attribute),
        format!(
            r#"{{"attributes":[{{"key":"k","value":{{"arrayValue":{{"values":{values}}}}}}}]}}"#
        )
    );
    // A kind in between ends the array; what follows is another one.
    let attribute = len(0x4A, &[array("a"), len(0x12, &[0x10, 1]), array("b")].concat());
    assert!(span(&attribute).contains(r#""arrayValue":{"values":[{"stringValue":"b"}]}"#));
}

/// Faults 17, 28.
#[test]
fn a_value_takes_the_kind_set_last() {
    let attribute = len(0x4A, &len(0x12, &[len(0x0A, b"s"), vec![0x18, 7]].concat()));
    assert_eq!(span(&attribute), r#"{"attributes":[{"key":"","value":{"intValue":"7"}}]}"#);
    // An index into a table that only profiles have is no value.
    let attribute = len(0x4A, &len(0x12, &[len(0x0A, b"s"), vec![0x40, 7]].concat()));
    assert_eq!(span(&attribute), r#"{"attributes":[{"key":"","value":{}}]}"#);
}

#[test]
fn unknown_fields_and_groups_are_left_out() {
    let unknown = [0xF8, 0x01, 7, 0xF3, 0x01, 0x08, 1, 0xF4, 0x01];
    assert_eq!(span(&[&unknown[..], &[0x30, 1], &unknown].concat()), r#"{"kind":1}"#);
}

#[test]
fn ids_of_any_length_are_written_as_they_are() {
    assert_eq!(span(&[0x0A, 2, 0xAB, 0xCD, 0x12, 1, 0x0F]), r#"{"traceId":"abcd","spanId":"0f"}"#);
}

/// Faults 24, 25.
#[test]
fn invalid_utf8_is_repaired_and_the_rest_is_kept() {
    let body = [
        len(0x2A, b"a\xFFb"),
        len(0x4A, &[len(0x0A, b"\xC3"), len(0x12, &len(0x0A, b"\xED\xA0\x80"))].concat()),
    ];
    assert_eq!(
        span(&body.concat()),
        "{\"name\":\"a\u{FFFD}b\",\"attributes\":[{\"key\":\"\u{FFFD}\",\
         \"value\":{\"stringValue\":\"\u{FFFD}\u{FFFD}\u{FFFD}\"}}]}"
    );
}

/// Faults 19, 20.
#[test]
fn numbers_are_cut_to_their_type_as_protobuf_does_it() {
    let varint = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    let body = [&[0x30][..], &varint, &[0x50], &varint].concat();
    assert_eq!(span(&body), r#"{"kind":-1,"droppedAttributesCount":4294967295}"#);
    assert_eq!(
        span(&len(0x4A, &len(0x12, &[0x10, 2]))),
        r#"{"attributes":[{"key":"","value":{"boolValue":true}}]}"#
    );
}

/// Faults 8.
#[test]
fn a_known_field_of_another_wire_type_is_malformed() {
    let mut out = Vec::new();
    for body in [&[0x28, 1][..], &[0x32, 0], &[0x4D, 0, 0, 0, 0], &[0x80, 0x01, 1]] {
        let error = write_request(&around_span(body), &mut out).unwrap_err();
        assert_eq!((error.offset(), out.len()), (6, 0), "{body:x?}");
    }
}

/// Faults 3.
#[test]
fn a_request_cut_anywhere_is_written_only_if_prost_reads_it() {
    let wire = golden::request().encode_to_vec();
    let mut out = Vec::new();
    for end in 0..wire.len() {
        let written = write_request(&wire[..end], &mut out).is_ok();
        let read = ExportTraceServiceRequest::decode(&wire[..end]).is_ok();
        assert_eq!(written, read, "{end} bytes");
    }
}

#[test]
fn json_is_appended_to_what_is_there() {
    let mut out = b"[1,".to_vec();
    write_request(&[], &mut out).unwrap();
    assert_eq!(out, b"[1,{}");
}
