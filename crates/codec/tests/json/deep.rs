//! Nesting: to the limit and no further, on a flat stack.

use prost::Message;
use spanwire_codec::json::{JsonErrorKind, read_request, write_request};
use spanwire_codec::message::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value};
use spanwire_codec::view::{Expected, NESTING_MAX};

use crate::text::{around_span, around_value, read, value_error, write};

const ARRAY: (&str, &str) = (r#"{"arrayValue":{"values":["#, "]}}");
const MAP: (&str, &str) = (r#"{"kvlistValue":{"values":[{"value":"#, "}]}}");

/// A value within `levels` lists, which alternate between these.
fn nested(levels: usize, lists: &[(&str, &str)]) -> String {
    let lists = || (0..levels).map(|level| lists[level % lists.len()]);
    let mut json: String = lists().map(|(open, _)| open).collect();
    json.push_str(r#"{"intValue":"1"}"#);
    json.extend(lists().collect::<Vec<_>>().into_iter().rev().map(|(_, close)| close));
    json
}

/// Faults 42.
#[test]
fn values_may_nest_to_the_limit_and_no_further() {
    for lists in [&[ARRAY][..], &[MAP], &[ARRAY, MAP]] {
        for levels in [0, 1, NESTING_MAX - 1, NESTING_MAX] {
            let json = around_value(&nested(levels, lists));
            let wire = read_request(json.as_bytes()).unwrap();
            let written = write(&wire);
            assert_eq!(read_request(written.as_bytes()), Ok(wire), "{levels} levels");
        }
        for levels in [NESTING_MAX + 1, 100_000] {
            assert_eq!(value_error(&nested(levels, lists)), JsonErrorKind::Nesting);
        }
    }
}

/// Faults 12, 13.
#[test]
fn wire_values_beyond_the_limit_are_refused_and_leave_nothing_behind() {
    let request = |levels: usize| {
        let mut value = AnyValue { value: None };
        for level in 0..levels {
            let list = if level % 2 == 0 {
                Value::ArrayValue(ArrayValue { values: vec![value] })
            } else {
                let entry = KeyValue { value: Some(value), ..KeyValue::default() };
                Value::KvlistValue(KeyValueList { values: vec![entry] })
            };
            value = AnyValue { value: Some(list) };
        }
        let attribute = KeyValue { value: Some(value), ..KeyValue::default() }.encode_to_vec();
        // The attribute of a span of a scope of a resource: each one longer than what it holds.
        [0x4A, 0x12, 0x12, 0x0A].iter().fold(attribute, |body, tag| {
            let mut out = vec![*tag];
            prost::encoding::encode_varint(body.len() as u64, &mut out);
            out.extend(body);
            out
        })
    };
    write(&request(NESTING_MAX));
    let mut out = b"before".to_vec();
    let error = write_request(&request(NESTING_MAX + 1), &mut out).unwrap_err();
    assert_eq!((error.expected(), &out[..]), (Expected::Nesting, &b"before"[..]));
    // Unfinished, but nobody gets to its end.
    let deep = [0x0A, 0x7F].repeat(100_000);
    assert!(write_request(&deep, &mut out).is_err());
}

/// Faults 42.
#[test]
fn unknown_members_may_nest_to_their_own_limit() {
    let nested = |levels: usize, open: &str, close: &str| {
        around_span(&format!(r#""new":{}1{}"#, open.repeat(levels), close.repeat(levels)))
    };
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        assert!(read(&nested(128, open, close)).is_ok());
        for levels in [129, 1_000_000] {
            let error = read(&nested(levels, open, close)).unwrap_err();
            assert_eq!(error.kind(), JsonErrorKind::Nesting, "{levels} levels of {open}");
        }
    }
    // Closed ones don't count, and each bracket closes its own kind.
    assert!(read(&around_span(&format!(r#""new":[{}[]]"#, "[{}],".repeat(1_000)))).is_ok());
    let crossed = around_span(r#""new":[{"a":[}]]"#);
    assert_eq!(read(&crossed).unwrap_err().kind(), JsonErrorKind::Value);
    let crossed = around_span(r#""new":[{"a":[1}]]"#);
    assert_eq!(read(&crossed).unwrap_err().kind(), JsonErrorKind::Comma);
}

#[test]
fn long_bodies_deep_within_lists_are_read_right() {
    for len in [0, 50, 120, 1_000, 1_030, 20_000] {
        let text = "t".repeat(len);
        let json = nested(NESTING_MAX, &[ARRAY, MAP]);
        let json = json.replace(r#"{"intValue":"1"}"#, &format!(r#"{{"stringValue":"{text}"}}"#));
        let wire = read_request(around_value(&json).as_bytes()).unwrap();
        // Lengths may be padded here; prost must read them, and our writer.
        let request = spanwire_codec::message::ExportTraceServiceRequest::decode(&wire[..]);
        let canonical = request.map(|request| write(&request.encode_to_vec()));
        // prost nests 100 messages at most, each level of ours is two or three.
        if let Ok(canonical) = canonical {
            assert_eq!(write(&wire), canonical);
        }
        assert!(write(&wire).contains(&format!(r#""stringValue":"{text}""#)));
    }
}

/// Faults 42.
#[test]
fn brackets_without_an_end_are_refused_wherever_they_open() {
    for open in ["[", "{\"a\":", "[{\"a\":"] {
        let deep = open.repeat(100_000);
        for json in [
            deep.clone(),
            format!(r#"{{"resourceSpans":{deep}"#),
            format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{deep}"#),
            around_span(&format!(r#""attributes":[{{"value":{{"arrayValue":{deep}"#)),
        ] {
            assert!(read_request(json.as_bytes()).is_err(), "{open}");
        }
    }
}
