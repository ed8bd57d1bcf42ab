//! Attributes and their values to wire bytes.

use std::borrow::Cow;

use bytes::BufMut;
use spanwire_model::{KeyValue, Limits, Value};

use super::nonempty_size;
use crate::field::{Len, any_value, array_value, key_value, key_value_list, span};
use crate::wire::put_text;

/// Appends one attribute of a span: a part of a [`SpanWriter`](super::SpanWriter)'s body.
///
/// Cost: two copies, of the key and of the value. Inlined always: where the kind of the value is known
/// when compiled, the others cost nothing.
#[inline(always)]
pub(super) fn put_attribute(key: &str, value: &Value<'_>, out: &mut Vec<u8>) {
    put_key_value(span::ATTRIBUTES, key, value, 0, out);
}

pub(super) type Entries<'a> = std::slice::Iter<'a, KeyValue>;

fn pairs(entries: Entries<'_>) -> impl Iterator<Item = (&str, &Value<'_>)> + Clone {
    entries.map(|entry| (&*entry.key, &entry.value))
}

pub(super) fn attributes_len(field: Len, entries: Entries<'_>) -> usize {
    pairs_len(field, pairs(entries))
}

pub(super) fn put_attributes(field: Len, entries: Entries<'_>, out: &mut Vec<u8>) {
    put_pairs(field, pairs(entries), out);
}

pub(super) fn pairs_len<'a>(
    field: Len,
    pairs: impl Iterator<Item = (&'a str, &'a Value<'a>)>,
) -> usize {
    pairs.map(|(key, value)| pair_size(field, key, value)).sum()
}

/// Bytes of an attribute, tag and length included.
#[inline]
fn pair_size(field: Len, key: &str, value: &Value<'_>) -> usize {
    match value {
        Value::String(text) if is_short(key, text) => SHORT_OVERHEAD + key.len() + text.len(),
        _ => field.size(key_value_len(key, value, 0)),
    }
}

/// Whether the attribute's key is not empty and each of its four lengths takes one byte.
#[inline(always)]
fn is_short(key: &str, text: &str) -> bool {
    // What precedes the key is not part of the outermost length.
    !key.is_empty() && key.len() + text.len() < ONE_BYTE_LEN - (SHORT_OVERHEAD - 2)
}

/// Tags and lengths of an attribute with a key and a text, if each takes one byte.
const SHORT_OVERHEAD: usize =
    2 + key_value::KEY.size(0) + key_value::VALUE.size(any_value::STRING_VALUE.size(0));

pub(super) fn put_pairs<'a>(
    field: Len,
    pairs: impl Iterator<Item = (&'a str, &'a Value<'a>)>,
    out: &mut Vec<u8>,
) {
    for (key, value) in pairs {
        put_key_value(field, key, value, 0, out);
    }
}

#[inline]
fn key_value_len(key: &str, value: &Value<'_>, depth: u32) -> usize {
    nonempty_size(key_value::KEY, key.len()) + key_value::VALUE.size(value_len(value, depth))
}

#[inline(always)]
fn put_key_value(field: Len, key: &str, value: &Value<'_>, depth: u32, out: &mut Vec<u8>) {
    if let Value::String(text) = value
        && is_short(key, text)
    {
        const { assert!(key_value::KEY.tag() < 0x80 && key_value::VALUE.tag() < 0x80) };
        let [outer, key_tag] = [field.tag() as u8, key_value::KEY.tag() as u8];
        let len = SHORT_OVERHEAD - 2 + key.len() + text.len();
        out.put_slice(&[outer, len as u8, key_tag, key.len() as u8]);
        put_text(out, key.as_bytes());
        let [tag, text_tag] = [key_value::VALUE.tag() as u8, any_value::STRING_VALUE.tag() as u8];
        out.put_slice(&[tag, text.len() as u8 + 2, text_tag, text.len() as u8]);
        put_text(out, text.as_bytes());
        return;
    }
    let value_len = value_len(value, depth);
    let len = nonempty_size(key_value::KEY, key.len()) + key_value::VALUE.size(value_len);
    if len < ONE_BYTE_LEN && !key.is_empty() {
        // Short, as nearly all are: every length within is one byte too.
        const { assert!(key_value::KEY.tag() < 0x80 && key_value::VALUE.tag() < 0x80) };
        let [outer, key_tag] = [field.tag() as u8, key_value::KEY.tag() as u8];
        out.put_slice(&[outer, len as u8, key_tag, key.len() as u8]);
        put_text(out, key.as_bytes());
        let [tag, value_len] = [key_value::VALUE.tag() as u8, value_len as u8];
        match value {
            Value::Bool(truth) => {
                let bool_tag = any_value::BOOL_VALUE.tag() as u8;
                out.put_slice(&[tag, value_len, bool_tag, u8::from(*truth)]);
            }
            // Statuses and ports: one store, as for the next.
            Value::Int(number @ 0..0x80) => {
                let int_tag = any_value::INT_VALUE.tag() as u8;
                out.put_slice(&[tag, value_len, int_tag, *number as u8]);
            }
            Value::Int(number @ 0x80..0x4000) => {
                let int_tag = any_value::INT_VALUE.tag() as u8;
                let [low, high] = [*number as u8 | 0x80, (*number >> 7) as u8];
                out.put_slice(&[tag, value_len, int_tag, low, high]);
            }
            _ => {
                out.put_slice(&[tag, value_len]);
                put_value(value, depth, out);
            }
        }
    } else {
        put_long_key(field, key, len, out);
        key_value::VALUE.put_header(out, value_len);
        put_value(value, depth, out);
    }
}

/// Appends a name unless it is empty.
#[inline]
pub(super) fn put_name(field: Len, name: &str, out: &mut Vec<u8>) {
    if !name.is_empty() {
        field.put_header(out, name.len());
        put_text(out, name.as_bytes());
    }
}

/// Lengths below it take one byte.
const ONE_BYTE_LEN: usize = 0x80;

#[cold]
#[inline(never)]
fn put_long_key(field: Len, key: &str, len: usize, out: &mut Vec<u8>) {
    field.put_header(out, len);
    key_value::KEY.put_nonempty(out, key.as_bytes());
}

/// Bytes of an `AnyValue`'s body. A oneof has presence: zeros and empty texts are written.
#[inline(always)]
fn value_len(value: &Value<'_>, depth: u32) -> usize {
    match value {
        Value::Empty => 0,
        Value::String(text) => any_value::STRING_VALUE.size(text.len()),
        Value::Bool(truth) => any_value::BOOL_VALUE.size(u64::from(*truth)),
        Value::Int(number) => any_value::INT_VALUE.size(*number as u64),
        Value::Double(_) => any_value::DOUBLE_VALUE.size(),
        Value::Bytes(bytes) => any_value::BYTES_VALUE.size(bytes.len()),
        Value::Array(_) | Value::Map(_) => nested_len(value, depth),
    }
}

#[inline(always)]
fn put_value(value: &Value<'_>, depth: u32, out: &mut Vec<u8>) {
    match value {
        Value::Empty => {}
        Value::String(text) => any_value::STRING_VALUE.put(out, text.as_bytes()),
        Value::Bool(truth) => any_value::BOOL_VALUE.put(out, u64::from(*truth)),
        Value::Int(number) => any_value::INT_VALUE.put(out, *number as u64),
        Value::Double(number) => any_value::DOUBLE_VALUE.put(out, number.to_bits()),
        Value::Bytes(bytes) => any_value::BYTES_VALUE.put(out, bytes),
        Value::Array(_) | Value::Map(_) => put_nested(value, depth, out),
    }
}

/// Out of line: few attributes are nested, and the flat ones are the hot path.
#[cold]
#[inline(never)]
fn nested_len(value: &Value<'_>, depth: u32) -> usize {
    match value {
        _ if depth >= Limits::DEPTH_MAX => 0,
        Value::Array(values) => any_value::ARRAY_VALUE.size(array_len(values, depth)),
        Value::Map(entries) => any_value::KVLIST_VALUE.size(map_len(entries, depth)),
        _ => 0,
    }
}

#[cold]
#[inline(never)]
fn put_nested(value: &Value<'_>, depth: u32, out: &mut Vec<u8>) {
    match value {
        _ if depth >= Limits::DEPTH_MAX => {}
        Value::Array(values) => {
            any_value::ARRAY_VALUE.put_header(out, array_len(values, depth));
            for value in values {
                array_value::VALUES.put_header(out, value_len(value, depth + 1));
                put_value(value, depth + 1, out);
            }
        }
        Value::Map(entries) => {
            any_value::KVLIST_VALUE.put_header(out, map_len(entries, depth));
            for (key, value) in entries {
                put_key_value(key_value_list::VALUES, key, value, depth + 1, out);
            }
        }
        _ => {}
    }
}

fn array_len(values: &[Value<'_>], depth: u32) -> usize {
    values.iter().map(|value| array_value::VALUES.size(value_len(value, depth + 1))).sum()
}

fn map_len(entries: &[(Cow<'_, str>, Value<'_>)], depth: u32) -> usize {
    let len = |(key, value): &(_, _)| {
        let key: &Cow<'_, str> = key;
        key_value_list::VALUES.size(key_value_len(key, value, depth + 1))
    };
    entries.iter().map(len).sum()
}
