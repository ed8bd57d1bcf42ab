use std::fmt;

use super::fields::{Fields, Repeated};
use crate::field::{Len, any_value, array_value, key_value, key_value_list};
use crate::wire::Field;

/// An attribute, as it lies in the buffer.
///
/// Source: `message KeyValue` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct KeyValue<'a> {
    body: &'a [u8],
}

impl<'a> KeyValue<'a> {
    pub(crate) const fn new(body: &'a [u8]) -> Self {
        Self { body }
    }

    /// The key, UTF-8 by contract but not checked. `key_strindex`, which only profiles may use,
    /// reads as absent.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        Fields::new(self.body).bytes(key_value::KEY)
    }

    /// The value; an absent one reads as empty.
    #[must_use]
    pub fn value(&self) -> AnyValue<'a> {
        Fields::of_singular(self.body, key_value::VALUE).map_or(AnyValue::Empty, AnyValue::read)
    }

    /// The raw body of the message, unknown fields included.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.body
    }
}

impl fmt::Debug for KeyValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyValue({} bytes)", self.body.len())
    }
}

/// An attribute's value, as it lies in the buffer.
///
/// `string_value_strindex`, which only profiles may use, reads as [`Empty`](Self::Empty).
///
/// Source: `message AnyValue` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy, Debug)]
pub enum AnyValue<'a> {
    /// No value.
    Empty,
    /// Text, UTF-8 by contract but not checked.
    String(&'a [u8]),
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A double, bit for bit.
    Double(f64),
    /// Values of any kinds.
    Array(ArrayValue<'a>),
    /// Keys and values.
    Map(KeyValueList<'a>),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl<'a> AnyValue<'a> {
    /// Reads the oneof: the last kind set wins, pieces of one array or map in a row are merged.
    fn read(mut fields: Fields<'a>) -> Self {
        let mut value = AnyValue::Empty;
        while let Some(field) = fields.next_field() {
            value = match field {
                Field::Len(any_value::STRING_VALUE, text) => AnyValue::String(text),
                Field::Varint(any_value::BOOL_VALUE, truth) => AnyValue::Bool(truth != 0),
                Field::Varint(any_value::INT_VALUE, number) => AnyValue::Int(number as i64),
                Field::Fixed64(any_value::DOUBLE_VALUE, bits) => {
                    AnyValue::Double(f64::from_bits(bits))
                }
                Field::Len(any_value::ARRAY_VALUE, piece) => match value {
                    AnyValue::Array(_) => value,
                    _ => AnyValue::Array(ArrayValue(Elements::new(
                        piece,
                        array_value::VALUES,
                        fields,
                        any_value::ARRAY_VALUE,
                    ))),
                },
                Field::Len(any_value::KVLIST_VALUE, piece) => match value {
                    AnyValue::Map(_) => value,
                    _ => AnyValue::Map(KeyValueList(Elements::new(
                        piece,
                        key_value_list::VALUES,
                        fields,
                        any_value::KVLIST_VALUE,
                    ))),
                },
                Field::Len(any_value::BYTES_VALUE, bytes) => AnyValue::Bytes(bytes),
                Field::Varint(any_value::STRING_VALUE_STRINDEX, _) => AnyValue::Empty,
                _ => value,
            };
        }
        value
    }
}

/// An array, as it lies in the buffer: iterates over its values.
///
/// Source: `message ArrayValue` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct ArrayValue<'a>(Elements<'a>);

impl<'a> Iterator for ArrayValue<'a> {
    type Item = AnyValue<'a>;

    fn next(&mut self) -> Option<AnyValue<'a>> {
        self.0.next().map(|body| AnyValue::read(Fields::new(body)))
    }
}

impl fmt::Debug for ArrayValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArrayValue({} values)", self.count())
    }
}

/// A map, as it lies in the buffer: iterates over its entries.
///
/// Source: `message KeyValueList` in `common/v1/common.proto`, opentelemetry-proto v1.11.0.
#[derive(Clone, Copy)]
pub struct KeyValueList<'a>(Elements<'a>);

impl<'a> Iterator for KeyValueList<'a> {
    type Item = KeyValue<'a>;

    fn next(&mut self) -> Option<KeyValue<'a>> {
        self.0.next().map(KeyValue::new)
    }
}

impl fmt::Debug for KeyValueList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyValueList({} entries)", self.count())
    }
}

/// The elements of an array or a map, across the pieces that its `AnyValue` has of it.
#[derive(Clone, Copy)]
struct Elements<'a> {
    piece: Repeated<'a>,
    /// What follows the piece in the `AnyValue`: further pieces, and nothing of another kind.
    parent: Repeated<'a>,
    element: Len,
}

impl<'a> Elements<'a> {
    fn new(piece: &'a [u8], element: Len, parent: Fields<'a>, field: Len) -> Self {
        let piece = Fields::new(piece).repeated(element);
        Self { piece, parent: parent.repeated(field), element }
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            if let Some(body) = self.piece.next() {
                return Some(body);
            }
            self.piece = Fields::new(self.parent.next()?).repeated(self.element);
        }
    }
}
