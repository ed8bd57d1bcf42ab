//! Attributes and their values.

use super::close;
use super::fields::{Pieces, Repeated};
use crate::field::plain_tag::{BOOL, DOUBLE, INT, KEY, STRING, VALUE};
use crate::field::{Len, any_value, array_value, key_value, key_value_list};
use crate::json::binary::put_base64;
use crate::json::number::{put_f64, put_i64};
use crate::json::text::put_contents;
use crate::view::NESTING_MAX;
use crate::wire::{Expected, Fault, Field, Reader, unknown};

/// Appends a member with attributes, unless there are none.
#[inline]
pub(super) fn key_values(attributes: Repeated<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    attributes.write(out, br#""attributes":["#, |body, out| key_value(body, 0, out))
}

/// Appends an attribute, or an entry of a map that lies within `nesting` arrays and maps.
pub(super) fn key_value(
    reader: Reader<'_>,
    nesting: usize,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let (key, value) = match plain(reader.rest()) {
        Some((key, value)) => (key, Some(value)),
        None => general(Pieces::whole(reader))?,
    };
    out.extend_from_slice(br#"{"key":""#);
    put_contents(out, key);
    match value {
        // The one kind that is worth a piece of its own.
        Some(Value::String(text)) => {
            out.extend_from_slice(br#"","value":{"stringValue":""#);
            put_contents(out, text);
            out.extend_from_slice(br#""}}"#);
        }
        Some(value) => {
            out.extend_from_slice(br#"","value":"#);
            put_value(value, nesting, out)?;
            out.push(b'}');
        }
        None => out.extend_from_slice(br#""}"#),
    }
    Ok(())
}

/// An attribute of the form that nearly all have: a key, then a scalar, each shorter than 128
/// bytes, and nothing else. A few comparisons, where [`general`] takes many.
#[inline]
fn plain(key_value: &[u8]) -> Option<(&[u8], Value<'_>)> {
    let [KEY, key_len @ 0..0x80, rest @ ..] = key_value else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(*key_len))?;
    let [VALUE, len @ 0..0x80, value @ ..] = rest else { return None };
    if value.len() != usize::from(*len) {
        return None;
    }
    let value = match *value {
        [STRING, len @ 0..0x80, ref text @ ..] if text.len() == usize::from(len) => {
            Value::String(text)
        }
        [BOOL, truth @ 0..0x80] => Value::Bool(truth != 0),
        [INT, low @ 0..0x80] => Value::Int(i64::from(low)),
        [INT, low @ 0x80..=0xFF, high @ 0..0x80] => {
            Value::Int(i64::from(low & 0x7F) | i64::from(high) << 7)
        }
        [DOUBLE, ref bits @ ..] => Value::Double(f64::from_le_bytes(bits.try_into().ok()?)),
        _ => return None,
    };
    Some((key, value))
}

/// An attribute of any form.
fn general<'a>(mut fields: Pieces<'a>) -> Result<(&'a [u8], Option<Value<'a>>), Fault> {
    let mut key: &[u8] = &[];
    let mut value = None;
    while let Some((at, field)) = fields.next()? {
        match field {
            Field::Len(key_value::KEY, text) => key = text,
            Field::Len(key_value::VALUE, body) => fields.merge(&mut value, key_value::VALUE, body),
            Field::Varint(key_value::KEY_STRINDEX, _) => {}
            field => unknown(at, &field, key_value::NUMBER_MAX)?,
        }
    }
    Ok((key, value.map(Value::read).transpose()?))
}

/// What an `AnyValue` holds.
#[derive(Clone, Copy)]
enum Value<'a> {
    Empty,
    String(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    Array(List<'a>),
    Map(List<'a>),
}

impl<'a> Value<'a> {
    /// Reads the oneof: the kind set last wins, pieces of one array or map in a row are merged.
    fn read(mut fields: Pieces<'a>) -> Result<Self, Fault> {
        let mut value = Value::Empty;
        while let Some((at, field)) = fields.next()? {
            value = match field {
                Field::Len(any_value::STRING_VALUE, text) => Value::String(text),
                Field::Varint(any_value::BOOL_VALUE, truth) => Value::Bool(truth != 0),
                Field::Varint(any_value::INT_VALUE, number) => Value::Int(number as i64),
                Field::Fixed64(any_value::DOUBLE_VALUE, bits) => {
                    Value::Double(f64::from_bits(bits))
                }
                Field::Len(any_value::BYTES_VALUE, bytes) => Value::Bytes(bytes),
                Field::Len(any_value::ARRAY_VALUE, body) => match value {
                    Value::Array(_) => value,
                    _ => Value::Array(List::new(&fields, any_value::ARRAY_VALUE, body)),
                },
                Field::Len(any_value::KVLIST_VALUE, body) => match value {
                    Value::Map(_) => value,
                    _ => Value::Map(List::new(&fields, any_value::KVLIST_VALUE, body)),
                },
                Field::Varint(any_value::STRING_VALUE_STRINDEX, _) => Value::Empty,
                field => {
                    unknown(at, &field, any_value::NUMBER_MAX)?;
                    value
                }
            };
        }
        Ok(value)
    }
}

/// The elements of an array or a map, across the pieces that its `AnyValue` has of it.
#[derive(Clone, Copy)]
struct List<'a> {
    piece: Reader<'a>,
    /// The value from behind the piece on.
    rest: Pieces<'a>,
    field: Len,
}

impl<'a> List<'a> {
    fn new(fields: &Pieces<'a>, field: Len, body: &'a [u8]) -> Self {
        Self { piece: fields.within(body), rest: *fields, field }
    }

    /// Appends the elements, each with a comma behind it. `ArrayValue` and `KeyValueList` both have
    /// them as their field 1 and no other.
    fn put(
        mut self,
        out: &mut Vec<u8>,
        element: impl Fn(Reader<'a>, &mut Vec<u8>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        const { assert!(array_value::VALUES.0 == key_value_list::VALUES.0) };
        loop {
            while let Some((at, field)) = self.piece.field_at()? {
                match field {
                    Field::Len(array_value::VALUES, body) => {
                        element(self.piece.within(body), out)?;
                        out.push(b',');
                    }
                    field => unknown(at, &field, array_value::NUMBER_MAX)?,
                }
            }
            loop {
                match self.rest.next()? {
                    Some((_, Field::Len(field, body))) if field == self.field => {
                        self.piece = self.rest.within(body);
                        break;
                    }
                    Some(_) => {}
                    None => return Ok(()),
                }
            }
        }
    }
}

/// Appends a value that lies within `nesting` arrays and maps. The recursion ends at
/// [`NESTING_MAX`], whatever the peer sent.
fn put_value(value: Value<'_>, nesting: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    match value {
        Value::Empty => out.extend_from_slice(b"{"),
        Value::String(text) => {
            out.extend_from_slice(br#"{"stringValue":""#);
            put_contents(out, text);
            out.push(b'"');
        }
        Value::Bool(true) => out.extend_from_slice(br#"{"boolValue":true"#),
        Value::Bool(false) => out.extend_from_slice(br#"{"boolValue":false"#),
        Value::Int(number) => {
            out.extend_from_slice(br#"{"intValue":""#);
            put_i64(out, number);
            out.push(b'"');
        }
        Value::Double(number) => {
            out.extend_from_slice(br#"{"doubleValue":"#);
            put_f64(out, number);
        }
        Value::Bytes(bytes) => {
            out.extend_from_slice(br#"{"bytesValue":""#);
            put_base64(out, bytes);
            out.push(b'"');
        }
        Value::Array(list) | Value::Map(list) if nesting == NESTING_MAX => {
            return Err(list.piece.fault(Expected::Nesting));
        }
        Value::Array(list) => {
            out.extend_from_slice(br#"{"arrayValue":{"values":["#);
            list.put(out, |body, out| {
                put_value(Value::read(Pieces::whole(body))?, nesting + 1, out)
            })?;
            close(out, b']');
            out.push(b'}');
        }
        Value::Map(list) => {
            out.extend_from_slice(br#"{"kvlistValue":{"values":["#);
            list.put(out, |body, out| key_value(body, nesting + 1, out))?;
            close(out, b']');
            out.push(b'}');
        }
    }
    out.push(b'}');
    Ok(())
}
