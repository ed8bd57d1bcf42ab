//! What a reader must take, by "JSON Protobuf Encoding" and the JSON mapping of proto3.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use spanwire_codec::json::read_request;

use crate::golden;
use crate::text::{around_span, read, span, value};

/// Faults 35.
#[test]
fn unknown_names_are_ignored_with_their_whole_value() {
    let unknown = r#""new":{"a":[1,-2.5e3,[[]],{"name":"x","b":null}],"c":"\u0041\"","d":true}"#;
    assert_eq!(span(&format!(r#"{unknown},"name":"n",{unknown}"#)), span(r#""name":"n""#));
    // At every level: a new member behind each opening brace of an object that has members.
    let json = golden::compact().replace(r#"{""#, &format!(r#"{{{unknown},""#));
    let wire = read_request(golden::compact().as_bytes());
    // What was inserted has braces of its own only where nothing follows that looks like a member.
    assert_eq!(read_request(json.as_bytes()), wire);
}

/// Faults 36.
#[test]
fn names_in_snake_case_are_unknown() {
    let members =
        r#""trace_id":"zz","start_time_unix_nano":"-1","dropped_links_count":{},"NAME":1"#;
    assert_eq!(span(members), Span::default());
    assert_eq!(value(r#"{"string_value":"a"}"#), None);
    assert_eq!(read(r#"{"resource_spans":[7]}"#).unwrap().resource_spans, []);
}

/// Faults 28.
#[test]
fn names_that_only_profiles_may_use_are_unknown() {
    assert_eq!(value(r#"{"stringValueStrindex":3}"#), None);
    let attributes = span(r#""attributes":[{"key":"k","keyStrindex":3}]"#).attributes;
    assert_eq!((&*attributes[0].key, attributes[0].key_strindex), ("k", 0));
}

#[test]
fn names_may_be_written_with_escapes() {
    assert_eq!(span(r#""na\u006de":"n""#).name, "n");
    let longest = "droppedAttributesCount".chars();
    let escaped: String = longest.map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    assert_eq!(span(&format!(r#""{escaped}":5"#)).dropped_attributes_count, 5);
    assert_eq!(span(&format!(r#""{escaped}\u0041":"unknown""#)), Span::default());
}

/// Faults 37.
#[test]
fn ids_are_hexadecimal_of_either_case() {
    for id in ["5b8efff798038103", "5B8EFFF798038103", "5b8EFFf798038103", r"5b8efff79803810\u0033"]
    {
        let span_id = span(&format!(r#""spanId":"{id}""#)).span_id;
        assert_eq!(span_id, 0x5B8E_FFF7_9803_8103_u64.to_be_bytes(), "{id}");
    }
}

#[test]
fn an_empty_id_has_zero_length() {
    let empty = span(r#""traceId":"","spanId":"","parentSpanId":"""#);
    assert_eq!(empty, Span::default());
}

#[test]
fn ids_of_any_length_pass_as_the_view_judges_them() {
    assert_eq!(span(r#""traceId":"00ff""#).trace_id, [0, 0xFF]);
}

/// Faults 19.
#[test]
fn enum_numbers_without_a_name_are_kept() {
    for kind in [0, 5, 99, -1, i32::MAX, i32::MIN] {
        assert_eq!(span(&format!(r#""kind":{kind}"#)).kind, kind);
    }
    assert_eq!(
        span(r#""status":{"code":7}"#).status,
        Some(Status { code: 7, ..Status::default() })
    );
}

/// Faults 40.
#[test]
fn integers_of_64_bits_are_strings_or_numbers() {
    for (text, time) in [
        (r#""1544712660000000000""#, 1_544_712_660_000_000_000),
        ("1544712660000000000", 1_544_712_660_000_000_000),
        ("1e3", 1_000),
        ("\"1e3\"", 1_000),
        ("1.5E+1", 15),
        ("2.0", 2),
        ("18446744073709551615", u64::MAX),
        (r#""18446744073709551615""#, u64::MAX),
        ("0", 0),
        ("-0", 0),
    ] {
        assert_eq!(
            span(&format!(r#""endTimeUnixNano":{text}"#)).end_time_unix_nano,
            time,
            "{text}"
        );
    }
    for (text, int) in [
        ("\"-9223372036854775808\"", i64::MIN),
        ("-9223372036854775808", i64::MIN),
        ("9223372036854775807", i64::MAX),
        (r#""\u0031\u0032""#, 12),
    ] {
        assert_eq!(
            value(&format!(r#"{{"intValue":{text}}}"#)),
            Some(Value::IntValue(int)),
            "{text}"
        );
    }
}

/// Faults 40.
#[test]
fn integers_of_32_bits_are_numbers_or_strings() {
    for text in ["4294967295", "\"4294967295\"", "4294967295.0"] {
        let span = span(&format!(r#""flags":{text},"droppedEventsCount":{text}"#));
        assert_eq!((span.flags, span.dropped_events_count), (u32::MAX, u32::MAX), "{text}");
    }
}

/// Faults 31.
#[test]
fn doubles_are_numbers_or_strings() {
    for (text, double) in [
        ("0.1", 0.1),
        ("5", 5.0),
        ("-0.0", -0.0),
        ("1e-7", 1e-7),
        ("1.7976931348623157e308", f64::MAX),
        ("\"2.5\"", 2.5),
        ("\"Infinity\"", f64::INFINITY),
        ("\"-Infinity\"", f64::NEG_INFINITY),
        ("\"NaN\"", f64::NAN),
        (&format!("0.{}1", "0".repeat(5_000)), 0.0),
    ] {
        match value(&format!(r#"{{"doubleValue":{text}}}"#)) {
            Some(Value::DoubleValue(read)) => {
                assert_eq!(read.to_bits(), double.to_bits(), "{text}")
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn bytes_are_base64_of_either_alphabet_padded_or_not() {
    for text in ["+/8=", "+/8", "-_8=", "-_8", r"+\/8="] {
        let expected = Some(Value::BytesValue(vec![0xFB, 0xFF]));
        assert_eq!(value(&format!(r#"{{"bytesValue":"{text}"}}"#)), expected, "{text}");
    }
}

/// Faults 41.
#[test]
fn null_is_as_if_the_member_were_not_there() {
    for name in [
        "traceId",
        "spanId",
        "traceState",
        "parentSpanId",
        "name",
        "kind",
        "startTimeUnixNano",
        "endTimeUnixNano",
        "attributes",
        "droppedAttributesCount",
        "events",
        "droppedEventsCount",
        "links",
        "droppedLinksCount",
        "status",
        "flags",
        "unknown",
    ] {
        assert_eq!(span(&format!(r#""{name}":null"#)), Span::default(), "{name}");
    }
    for name in [
        "stringValue",
        "boolValue",
        "intValue",
        "doubleValue",
        "arrayValue",
        "kvlistValue",
        "bytesValue",
    ] {
        assert_eq!(value(&format!(r#"{{"{name}":null}}"#)), None, "{name}");
        let other = format!(r#"{{"intValue":1,"{name}": null }}"#);
        assert_eq!(value(&other), Some(Value::IntValue(1)), "{name}");
    }
    assert_eq!(span(r#""attributes":[{"key":"k","value":null}]"#).attributes[0].value, None);
    assert_eq!(span(r#""name":"n","name":null"#).name, "n");
}

/// Faults 41.
#[test]
fn a_value_without_a_kind_is_the_empty_value() {
    assert_eq!(value("{}"), None);
    assert_eq!(value(r#"{"futureValue":{"x":[]}}"#), None);
}

#[test]
fn empty_values_are_values() {
    assert_eq!(value(r#"{"stringValue":""}"#), Some(Value::StringValue(String::new())));
    assert_eq!(value(r#"{"boolValue":false}"#), Some(Value::BoolValue(false)));
    assert_eq!(value(r#"{"intValue":"0"}"#), Some(Value::IntValue(0)));
    assert_eq!(value(r#"{"doubleValue":0}"#), Some(Value::DoubleValue(0.0)));
    assert_eq!(value(r#"{"bytesValue":""}"#), Some(Value::BytesValue(vec![])));
    for list in ["{}", r#"{"values":[]}"#, r#"{"values":null}"#] {
        let array = value(&format!(r#"{{"arrayValue":{list}}}"#));
        assert_eq!(array, Some(Value::ArrayValue(ArrayValue::default())), "{list}");
        let map = value(&format!(r#"{{"kvlistValue":{list}}}"#));
        assert_eq!(map, Some(Value::KvlistValue(KeyValueList::default())), "{list}");
    }
}

/// Faults 43.
#[test]
fn of_a_repeated_scalar_the_last_value_counts() {
    assert_eq!(span(r#""name":"a","name":"b""#).name, "b");
    let span = span(
        r#""name":"a","name":"","spanId":"01","spanId":"","kind":1,"kind":0,"flags":1,"flags":0,
        "endTimeUnixNano":1,"endTimeUnixNano":0,"droppedLinksCount":1,"droppedLinksCount":0"#,
    );
    assert_eq!(span, Span::default(), "defaults overrule as well");
    assert_eq!(value(r#"{"intValue":1,"stringValue":"s"}"#), Some(Value::StringValue("s".into())));
}

/// Faults 43.
#[test]
fn repeated_lists_go_on_and_repeated_messages_are_merged() {
    let events = span(r#""events":[{"name":"a"}],"name":"n","events":[{"name":"b"}]"#).events;
    assert_eq!(events.iter().map(|event| &*event.name).collect::<Vec<_>>(), ["a", "b"]);
    let status = span(r#""status":{"code":2},"status":{"message":"m"}"#).status;
    assert_eq!(status, Some(Status { code: 2, message: "m".into() }));
}

#[test]
fn text_is_read_with_every_escape() {
    let name = span(r#""name":"\"\\\/\b\f\n\r\t\u00e9\uD83E\udd80\u0000 plain é🦀""#).name;
    assert_eq!(name, "\"\\/\u{8}\u{c}\n\r\té🦀\0 plain é🦀");
}

#[test]
fn lengths_of_every_size_are_right() {
    // Around each number of bytes that the length of a string, and of all around it, may take.
    for len in [0, 1, 100, 126, 127, 128, 16_370, 16_383, 16_384, 2_097_140, 2_097_152] {
        let name = "n".repeat(len);
        assert_eq!(span(&format!(r#""name":"{name}""#)).name, name);
        let escaped = format!(r#""name":"{}\n""#, "n".repeat(len));
        assert_eq!(span(&escaped).name, format!("{name}\n"));
        assert_eq!(
            value(&format!(r#"{{"stringValue":"{name}"}}"#)),
            Some(Value::StringValue(name))
        );
    }
}

#[test]
fn white_space_may_stand_between_any_two_tokens() {
    let spaced: String = around_span(r#""kind":2,"name":"n""#)
        .chars()
        .map(|c| if "{}[],:".contains(c) { format!(" \n{c}\r\t") } else { c.to_string() })
        .collect();
    assert_eq!(read(&spaced), read(&around_span(r#""kind":2,"name":"n""#)));
}
