//! What a reader must not take, and what it says about it.

use spanwire_codec::json::{JsonErrorKind, read_request};

use crate::golden;
use crate::text::{around_span, around_value, read, span_error, value_error};

/// Faults 38.
#[test]
fn ids_that_are_not_hexadecimal_are_refused() {
    for id in ["abc", "W47/95gDgQPSabYzgT/GDA==", "0x12", "zz", "0g", " 00", "00-11", r"\u00e9"] {
        assert_eq!(span_error(&format!(r#""traceId":"{id}""#)), JsonErrorKind::Hex, "{id}");
    }
    assert_eq!(span_error(r#""links":[{"spanId":"1"}]"#), JsonErrorKind::Hex);
    assert_eq!(span_error(r#""spanId":1"#), JsonErrorKind::String);
}

/// Faults 39.
#[test]
fn enums_by_name_are_refused() {
    for kind in ["\"SPAN_KIND_SERVER\"", "\"2\"", "true", "{}"] {
        assert_eq!(span_error(&format!(r#""kind":{kind}"#)), JsonErrorKind::Enum, "{kind}");
    }
    assert_eq!(span_error(r#""status":{"code":"STATUS_CODE_OK"}"#), JsonErrorKind::Enum);
    assert_eq!(span_error(r#""kind":1.5"#), JsonErrorKind::Integer);
    assert_eq!(span_error(r#""kind":2147483648"#), JsonErrorKind::Range);
}

/// Faults 40.
#[test]
fn integers_beyond_their_type_are_refused() {
    for text in ["18446744073709551616", "\"18446744073709551616\"", "-1", "1e20", "1e999999999999"]
    {
        let error = span_error(&format!(r#""startTimeUnixNano":{text}"#));
        assert_eq!(error, JsonErrorKind::Range, "{text}");
    }
    for text in ["9223372036854775808", "\"-9223372036854775809\""] {
        assert_eq!(
            value_error(&format!(r#"{{"intValue":{text}}}"#)),
            JsonErrorKind::Range,
            "{text}"
        );
    }
    for text in ["4294967296", "-1"] {
        assert_eq!(span_error(&format!(r#""flags":{text}"#)), JsonErrorKind::Range, "{text}");
    }
}

/// Faults 40.
#[test]
fn integers_with_a_fraction_are_refused() {
    for text in ["1.5", "\"1.5\"", "1e-1", "0.1"] {
        let error = span_error(&format!(r#""startTimeUnixNano":{text}"#));
        assert_eq!(error, JsonErrorKind::Integer, "{text}");
    }
}

#[test]
fn strings_that_are_no_numbers_are_refused() {
    for text in ["", " 1", "1 ", "+1", "01", "0x10", "1_000", "one", "NaN"] {
        let error = span_error(&format!(r#""startTimeUnixNano":"{text}""#));
        assert_eq!(error, JsonErrorKind::Integer, "{text}");
    }
    for text in ["", "nan", "inf", "+Infinity", "1.", ".5", "1e999"] {
        let error = value_error(&format!(r#"{{"doubleValue":"{text}"}}"#));
        assert_eq!(error, JsonErrorKind::Double, "{text}");
    }
    assert_eq!(value_error(r#"{"doubleValue":1e999}"#), JsonErrorKind::Double);
}

#[test]
fn what_is_no_number_in_json_is_refused() {
    for text in ["01", "1.", "-", "1e", "- 1"] {
        assert_eq!(span_error(&format!(r#""flags":{text}"#)), JsonErrorKind::Number, "{text}");
    }
    for text in [".5", "+1", "NaN", "Infinity", "1.e"] {
        assert!(read(&around_value(&format!(r#"{{"doubleValue":{text}}}"#))).is_err(), "{text}");
        assert!(read(&around_span(&format!(r#""unknown":{text}"#))).is_err(), "{text}");
    }
}

#[test]
fn base64_that_is_none_is_refused() {
    for text in ["A", "AA=", "A===", "AAAA====", "A*==", "AA==AAAA", " AAA"] {
        let error = value_error(&format!(r#"{{"bytesValue":"{text}"}}"#));
        assert_eq!(error, JsonErrorKind::Base64, "{text}");
    }
}

#[test]
fn values_of_another_type_are_refused() {
    for (members, kind) in [
        (r#""name":5"#, JsonErrorKind::String),
        (r#""name":["n"]"#, JsonErrorKind::String),
        (r#""attributes":{}"#, JsonErrorKind::Array),
        (r#""attributes":"a""#, JsonErrorKind::Array),
        (r#""attributes":[null]"#, JsonErrorKind::Object),
        (r#""attributes":[[]]"#, JsonErrorKind::Object),
        (r#""status":2"#, JsonErrorKind::Object),
        (r#""startTimeUnixNano":true"#, JsonErrorKind::Integer),
        (r#""attributes":[{"key":null,"value":"plain"}]"#, JsonErrorKind::Object),
    ] {
        assert_eq!(span_error(members), kind, "{members}");
    }
    assert_eq!(value_error(r#"{"boolValue":1}"#), JsonErrorKind::Bool);
    assert_eq!(value_error(r#"{"boolValue":"true"}"#), JsonErrorKind::Bool);
    assert_eq!(value_error(r#"{"arrayValue":[]}"#), JsonErrorKind::Object);
    assert_eq!(value_error(r#"{"arrayValue":{"values":{}}}"#), JsonErrorKind::Array);
}

/// Faults 43.
#[test]
fn a_text_that_is_not_one_object_is_refused() {
    for (json, offset, kind) in [
        ("", 0, JsonErrorKind::Object),
        ("  ", 2, JsonErrorKind::Object),
        ("[]", 0, JsonErrorKind::Object),
        ("null", 0, JsonErrorKind::Object),
        ("\u{FEFF}{}", 0, JsonErrorKind::Object),
        ("{}{}", 2, JsonErrorKind::End),
        ("{}\n{}", 3, JsonErrorKind::End),
        ("{} x", 3, JsonErrorKind::End),
        ("{}\0", 2, JsonErrorKind::End),
        ("{,}", 1, JsonErrorKind::Name),
        (r#"{"a":1,}"#, 7, JsonErrorKind::Name),
        (r#"{"a" 1}"#, 5, JsonErrorKind::Colon),
        (r#"{"a":1 "b":2}"#, 7, JsonErrorKind::Comma),
        (r#"{"a":[1 2]}"#, 8, JsonErrorKind::Comma),
        (r#"{"a":[1,]}"#, 8, JsonErrorKind::Value),
        (r#"{"a":[1}}"#, 7, JsonErrorKind::Comma),
        (r#"{"a":nul}"#, 5, JsonErrorKind::Value),
        (r#"{"a":tru}"#, 5, JsonErrorKind::Bool),
        ("{'a':1}", 1, JsonErrorKind::Name),
        ("{\"a\":\"\n\"}", 6, JsonErrorKind::Quote),
        (r#"{"a"#, 3, JsonErrorKind::Quote),
        ("{\"resourceSpans\":\u{a0}[]}", 17, JsonErrorKind::Array),
        ("/**/{}", 0, JsonErrorKind::Object),
    ] {
        let error = read(json).expect_err(json);
        assert_eq!((error.offset(), error.kind()), (offset, kind), "{json}");
    }
}

/// Faults 43.
#[test]
fn text_in_another_encoding_is_refused() {
    let json = [br#"{"a":""#, &b"\xED\xA0\x80"[..], br#""}"#].concat();
    let error = read_request(&json).unwrap_err();
    assert_eq!((error.offset(), error.kind()), (6, JsonErrorKind::Utf8));
    let utf16: Vec<u8> = "{\"a\":\u{e9}}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read_request(&utf16).unwrap_err().kind(), JsonErrorKind::Utf8);
    let error = read_request(&[b'{', 0, b'}', 0]).unwrap_err();
    assert_eq!(error.kind(), JsonErrorKind::Name);
}

/// Faults 43.
#[test]
fn escapes_that_are_none_are_refused_wherever_they_are() {
    for escape in
        [r"\x", r"\u12", r"\u12g4", r"\ud83d", r"\ud83d\u0041", r"\udd80", r"\U0041", "\\\n"]
    {
        let error = |json: String| read(&json).expect_err(escape).kind();
        assert_eq!(error(around_span(&format!(r#""name":"{escape}""#))), JsonErrorKind::Escape);
        assert_eq!(
            error(around_span(&format!(r#""unknown":["{escape}"]"#))),
            JsonErrorKind::Escape
        );
        assert_eq!(error(around_span(&format!(r#""{escape}":1"#))), JsonErrorKind::Escape);
    }
}

#[test]
fn a_text_cut_anywhere_is_refused() {
    let json = golden::compact();
    for end in (0..json.len()).filter(|&end| json.is_char_boundary(end)) {
        let error = read(&json[..end]).expect_err("the closing brace is missing");
        assert!(error.offset() <= end, "{error} in {end} bytes");
    }
}

#[test]
fn errors_say_where_and_what() {
    let error = read(r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"SERVER"}]}]}]}"#);
    assert_eq!(
        error.unwrap_err().to_string(),
        "malformed JSON at byte 51: expected an enum as a number, not by name"
    );
}
