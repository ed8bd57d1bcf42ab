//! Values as text, the way the Go Collector's `pcommon.Value.AsString` writes them.

use std::fmt::Write as _;
use std::vec;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use spanwire_codec::view::{AnyValue, ArrayValue, KeyValue, NESTING_MAX};

/// The text of a value; `None` where it nests deeper than [`NESTING_MAX`].
///
/// Numbers are written as in JSON, bytes in base64, arrays and maps as JSON with sorted keys.
pub(crate) fn of(value: AnyValue<'_>) -> Option<Vec<u8>> {
    let mut out = String::new();
    match value {
        AnyValue::Empty => {}
        AnyValue::String(text) => return Some(text.to_vec()),
        AnyValue::Double(number) if !number.is_finite() => {
            out.push_str("json: unsupported value: ");
            out.push_str(match number {
                f64::INFINITY => "+Inf",
                f64::NEG_INFINITY => "-Inf",
                _ => "NaN",
            });
        }
        AnyValue::Bytes(bytes) => BASE64_STANDARD.encode_string(bytes, &mut out),
        value @ (AnyValue::Bool(_) | AnyValue::Int(_) | AnyValue::Double(_)) => {
            scalar(&mut out, value);
        }
        value @ (AnyValue::Array(_) | AnyValue::Map(_)) => {
            // JSON has no such number, and there Go gives up on all of it.
            if json(&mut out, value)? == Wrote::NotFinite {
                out.clear();
            }
        }
    }
    Some(out.into_bytes())
}

#[derive(PartialEq)]
enum Wrote {
    All,
    NotFinite,
}

/// An array or a map that is being written.
enum Open<'a> {
    Array(ArrayValue<'a>),
    Map(vec::IntoIter<KeyValue<'a>>),
}

/// Writes JSON without recursion: a peer decides how deep it is.
fn json(out: &mut String, mut value: AnyValue<'_>) -> Option<Wrote> {
    let mut open = Vec::new();
    loop {
        match value {
            AnyValue::Array(array) => {
                out.push('[');
                open.push(Open::Array(array));
            }
            AnyValue::Map(entries) => {
                out.push('{');
                open.push(Open::Map(sorted(entries.collect())));
            }
            AnyValue::Double(number) if !number.is_finite() => return Some(Wrote::NotFinite),
            value => scalar(out, value),
        }
        if open.len() > NESTING_MAX {
            return None;
        }
        value = loop {
            let Some(innermost) = open.last_mut() else { return Some(Wrote::All) };
            let (next, end) = match innermost {
                Open::Array(values) => (values.next().map(|value| (None, value)), ']'),
                Open::Map(entries) => {
                    (entries.next().map(|entry| (Some(entry.key()), entry.value())), '}')
                }
            };
            let Some((key, value)) = next else {
                out.push(end);
                open.pop();
                continue;
            };
            if !out.ends_with(['[', '{']) {
                out.push(',');
            }
            if let Some(key) = key {
                string(out, key);
                out.push(':');
            }
            break value;
        };
    }
}

/// The entries by key, the last one of each.
fn sorted(mut entries: Vec<KeyValue<'_>>) -> vec::IntoIter<KeyValue<'_>> {
    // Stable, so that turned around the last one of a key is its first.
    entries.reverse();
    entries.sort_by(|one, other| one.key().cmp(other.key()));
    entries.dedup_by(|one, before| one.key() == before.key());
    entries.into_iter()
}

fn scalar(out: &mut String, value: AnyValue<'_>) {
    match value {
        AnyValue::Bool(truth) => out.push_str(if truth { "true" } else { "false" }),
        AnyValue::Int(number) => _ = write!(out, "{number}"),
        AnyValue::Double(number) => double(out, number),
        AnyValue::String(text) => string(out, text),
        AnyValue::Bytes(bytes) => {
            out.push('"');
            BASE64_STANDARD.encode_string(bytes, out);
            out.push('"');
        }
        AnyValue::Empty | AnyValue::Array(_) | AnyValue::Map(_) => out.push_str("null"),
    }
}

/// The shortest digits that read back, with an exponent where JavaScript writes one.
fn double(out: &mut String, number: f64) {
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let start = out.len();
        _ = write!(out, "{number:e}");
        if let Some(exponent) = out[start..].find('e').map(|at| start + at + 1)
            && !out[exponent..].starts_with('-')
        {
            out.insert(exponent, '+');
        }
    } else {
        _ = write!(out, "{number}");
    }
}

/// A JSON string as Go's `encoding/json` writes it: safe within HTML, bad UTF-8 replaced.
fn string(out: &mut String, text: &[u8]) {
    out.push('"');
    for chunk in text.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\u{8}' => out.push_str("\\b"),
                '\u{C}' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    _ = write!(out, "\\u{:04x}", u32::from(char));
                }
                char => out.push(char),
            }
        }
        for _ in chunk.invalid() {
            out.push_str("\\ufffd");
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{self, KeyValueList};
    use prost::Message;
    use spanwire_codec::view::Span;

    use super::*;

    /// The text of a value that `opentelemetry-proto` encoded.
    fn text(value: Value) -> Option<String> {
        let value = Some(v1::AnyValue { value: Some(value) });
        let attributes = vec![v1::KeyValue { key: "k".into(), value, key_strindex: 0 }];
        let span = opentelemetry_proto::tonic::trace::v1::Span { attributes, ..Default::default() };
        let body = span.encode_to_vec();
        let attribute = Span::new(&body).attributes().next().expect("it has one");
        of(attribute.value()).map(|text| String::from_utf8(text).expect("UTF-8 came in"))
    }

    fn array(values: Vec<Value>) -> Value {
        let values = values.into_iter().map(|value| v1::AnyValue { value: Some(value) }).collect();
        Value::ArrayValue(v1::ArrayValue { values })
    }

    #[test]
    fn doubles_are_written_as_javascript_does() {
        for (number, expected) in [
            (1.0, "1"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.25e-9, "1.25e-9"),
            (5e-324, "5e-324"),
            (f64::NAN, "json: unsupported value: NaN"),
            (f64::INFINITY, "json: unsupported value: +Inf"),
            (f64::NEG_INFINITY, "json: unsupported value: -Inf"),
        ] {
            assert_eq!(text(Value::DoubleValue(number)).as_deref(), Some(expected));
        }
    }

    #[test]
    fn maps_are_json_with_sorted_keys_the_last_of_each() {
        let entry = |key: &str, value| v1::KeyValue {
            key: key.into(),
            value: Some(v1::AnyValue { value }),
            key_strindex: 0,
        };
        let list = KeyValueList {
            values: vec![
                entry("b", Some(Value::BoolValue(true))),
                entry("a", Some(Value::IntValue(1))),
                entry("c", None),
                entry("a", Some(array(vec![Value::BytesValue(vec![255]), array(vec![])]))),
            ],
        };
        let expected = r#"{"a":["/w==",[]],"b":true,"c":null}"#;
        assert_eq!(text(Value::KvlistValue(list)).as_deref(), Some(expected));
    }

    #[test]
    fn strings_within_json_are_escaped_as_go_does() {
        let special = Value::StringValue("<a&\"\\\u{8}\u{c}\n\r\t\u{1}\u{2028}é".into());
        let expected = "[\"\\u003ca\\u0026\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u2028é\"]";
        let text = text(array(vec![special]));
        assert_eq!(text.as_deref(), Some(expected));
        let parsed: Vec<String> = serde_json::from_str(expected).expect("JSON");
        assert_eq!(parsed, ["<a&\"\\\u{8}\u{c}\n\r\t\u{1}\u{2028}é"]);
    }

    #[test]
    fn a_number_that_json_does_not_have_empties_the_text() {
        assert_eq!(text(array(vec![Value::DoubleValue(f64::NAN)])).as_deref(), Some(""));
    }

    #[test]
    fn a_value_nested_too_deeply_has_no_text() {
        let nested = |levels| (1..levels).fold(array(vec![]), |inner, _| array(vec![inner]));
        assert!(text(nested(NESTING_MAX)).is_some());
        assert_eq!(text(nested(NESTING_MAX + 1)), None);
    }
}
