use crate::field::{Fixed32, Fixed64, Len, Varint, any_value, key_value};
use crate::json::binary::{get_base64, get_hex};
use crate::json::error::{JsonError, JsonErrorKind};
use crate::json::lexer::{Lexer, Plain, Text};
use crate::json::number::{get_f64, get_i64, get_u64, in_string};
use crate::json::pull::{Pull, array, integer, without_escapes};
use crate::json::text::put_unescaped;
use crate::wire::{put_varint, varint_len};

/// Bodies within lists up to here are moved so that their length takes no byte more than it needs.
/// Larger ones may lie within three messages for each of 64 levels, each of which would move them.
const MOVED_MAX: usize = 1024;

/// Bytes kept for the length of a message whose body is yet to come.
#[derive(Clone, Copy)]
pub(super) struct Room {
    bytes: usize,
    /// A longer body is not moved if there is too much room; its length is padded then.
    moved_max: usize,
}

impl Room {
    /// For a message in no array or map: there are few around it, so it may be moved.
    pub(super) const fn guess(bytes: usize) -> Self {
        Self { bytes, moved_max: usize::MAX }
    }
}

/// Pulls members and values out of the text and appends them as fields.
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    out: Vec<u8>,
    /// A string without its escapes; only for those that are not text in the end.
    scratch: Vec<u8>,
}

/// The scalar fields that an object has had so far, by number.
///
/// A field's default is not written, unless it must overrule another value of the same field.
#[derive(Default)]
pub(super) struct Seen(u32);

impl Seen {
    /// Whether the field was there before.
    #[inline]
    fn again(&mut self, number: u32) -> bool {
        let bit = 1 << number;
        let again = self.0 & bit != 0;
        self.0 |= bit;
        again
    }
}

impl<'a> Parser<'a> {
    pub(super) fn new(json: &'a [u8]) -> Result<Self, JsonError> {
        // Names and digits make JSON at least twice as long, strings of attributes excepted.
        let out = Vec::with_capacity(json.len() / 2);
        Ok(Self { lexer: Lexer::new(json)?, out, scratch: Vec::new() })
    }

    /// The fields, if nothing follows the value that was read.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, JsonError> {
        self.lexer.end()?;
        Ok(self.out)
    }

    pub(super) fn error(&self, kind: JsonErrorKind) -> JsonError {
        self.lexer.error(kind)
    }

    /// Moves past a member that the schema doesn't have.
    pub(super) fn skip(&mut self) -> Result<(), JsonError> {
        self.lexer.skip()
    }

    /// A message: `body` appends its fields, `room` is for its length.
    #[inline]
    pub(super) fn message(
        &mut self,
        field: Len,
        room: Room,
        body: impl FnOnce(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        put_varint(&mut self.out, u64::from(field.tag()));
        let start = self.open(room);
        body(self)?;
        self.close(start, room);
        Ok(())
    }

    /// An array of messages.
    #[inline]
    pub(super) fn messages(
        &mut self,
        field: Len,
        room: Room,
        body: impl Fn(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        array(self, |parser| parser.message(field, room, &body))
    }

    /// An attribute as `field`, if it has the form of [`Lexer::plain_attribute`]. Its lengths are known
    /// before its bytes, so that nothing need be filled in or moved.
    #[inline]
    pub(super) fn plain_attribute(&mut self, field: Len) -> bool {
        let Some((key, value)) = self.lexer.plain_attribute() else { return false };
        let value_len = match value {
            Plain::String(text) => any_value::STRING_VALUE.size(text.len()),
            Plain::Int(number) => any_value::INT_VALUE.size(number as u64),
        };
        let key_len = if key.is_empty() { 0 } else { key_value::KEY.size(key.len()) };
        field.put_header(&mut self.out, key_len + key_value::VALUE.size(value_len));
        key_value::KEY.put_nonempty(&mut self.out, key);
        key_value::VALUE.put_header(&mut self.out, value_len);
        match value {
            Plain::String(text) => any_value::STRING_VALUE.put(&mut self.out, text),
            Plain::Int(number) => any_value::INT_VALUE.put(&mut self.out, number as u64),
        }
        true
    }

    /// Room for the length of a message that holds most of what is left.
    pub(super) fn room_for_most(&self) -> Room {
        Room::guess(varint_len(self.lexer.left() as u64 / 2))
    }

    /// Room for the length of a message that lies within `nesting` arrays and maps. If there are
    /// any, it is room for all that is left, so that [`close`](Self::close) need not make more.
    pub(super) fn room_within(&self, nesting: usize) -> Room {
        if nesting == 0 {
            Room::guess(1)
        } else {
            Room { bytes: varint_len(self.lexer.left() as u64), moved_max: MOVED_MAX }
        }
    }

    /// Appends room for a length; returns where it is.
    #[inline]
    fn open(&mut self, room: Room) -> usize {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; LENGTH_MAX][..room.bytes]);
        start
    }

    /// Fills in the length of the body that follows the room at `start`.
    #[inline]
    fn close(&mut self, start: usize, room: Room) {
        let len = self.out.len() - start - room.bytes;
        if room.bytes == 1 && len < 0x80 {
            self.out[start] = len as u8;
        } else {
            self.close_long(start, room, len);
        }
    }

    fn close_long(&mut self, start: usize, room: Room, len: usize) {
        let width = room.bytes;
        let mut needed = varint_len(len as u64);
        crate::work::add(if needed == width { 0 } else { len });
        if needed < width && len > room.moved_max {
            needed = width;
        } else if needed > width {
            self.out.resize(self.out.len() + needed - width, 0);
            self.out.copy_within(start + width..start + width + len, start + needed);
        } else if needed < width {
            self.out.copy_within(start + width.., start + needed);
            self.out.truncate(start + needed + len);
        }
        let mut rest = len;
        for byte in &mut self.out[start..start + needed] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.out[start + needed - 1] &= 0x7F;
    }

    /// A string field, unless it is empty.
    #[inline]
    pub(super) fn text(&mut self, field: Len, seen: &mut Seen) -> Result<(), JsonError> {
        if let Some(text) = self.lexer.plain_string() {
            if seen.again(field.0) || !text.is_empty() {
                field.put(&mut self.out, text);
            }
            return Ok(());
        }
        let text = self.lexer.string(JsonErrorKind::String)?;
        if seen.again(field.0) || !text.raw.is_empty() {
            self.put_text(field, text);
        }
        Ok(())
    }

    /// A string field, an empty one included.
    #[inline]
    pub(super) fn text_always(&mut self, field: Len) -> Result<(), JsonError> {
        let text = self.lexer.string(JsonErrorKind::String)?;
        self.put_text(field, text);
        Ok(())
    }

    #[inline]
    fn put_text(&mut self, field: Len, text: Text<'_>) {
        if !text.escaped {
            field.put(&mut self.out, text.raw);
            return;
        }
        put_varint(&mut self.out, u64::from(field.tag()));
        let room = Room::guess(varint_len(text.raw.len() as u64));
        let start = self.open(room);
        put_unescaped(&mut self.out, text.raw);
        self.close(start, room);
    }

    /// An identifier, unless it is empty.
    #[inline]
    pub(super) fn id(&mut self, field: Len, seen: &mut Seen) -> Result<(), JsonError> {
        let offset = self.lexer.offset();
        let digits = match self.lexer.plain_string() {
            Some(digits) => digits,
            None => {
                let text = self.lexer.string(JsonErrorKind::String)?;
                without_escapes(text, &mut self.scratch)
            }
        };
        if seen.again(field.0) || !digits.is_empty() {
            field.put_header(&mut self.out, digits.len() / 2);
            get_hex(&mut self.out, digits).ok_or(JsonError::new(offset, JsonErrorKind::Hex))?;
        }
        Ok(())
    }

    /// A bytes field, an empty one included.
    pub(super) fn base64_always(&mut self, field: Len) -> Result<(), JsonError> {
        let text = self.lexer.string(JsonErrorKind::String)?;
        let digits = without_escapes(text, &mut self.scratch);
        put_varint(&mut self.out, u64::from(field.tag()));
        let room = Room::guess(varint_len(digits.len() as u64 / 4 * 3));
        let start = self.out.len();
        self.out.extend_from_slice(&[0; LENGTH_MAX][..room.bytes]);
        get_base64(&mut self.out, digits)
            .ok_or(JsonError::new(text.offset, JsonErrorKind::Base64))?;
        self.close(start, room);
        Ok(())
    }

    /// A `bool` field, `false` included.
    pub(super) fn bool_always(&mut self, field: Varint) -> Result<(), JsonError> {
        let truth = self.lexer.bool()?;
        field.put(&mut self.out, u64::from(truth));
        Ok(())
    }

    /// An `int64` field, a zero included.
    pub(super) fn int64_always(&mut self, field: Varint) -> Result<(), JsonError> {
        let value = integer(self, get_i64)?;
        field.put(&mut self.out, value as u64);
        Ok(())
    }

    /// A `double` field, a zero included.
    pub(super) fn double_always(&mut self, field: Fixed64) -> Result<(), JsonError> {
        let offset = self.lexer.offset();
        let value = if self.lexer.peek() == b'"' {
            let text = self.lexer.string(JsonErrorKind::Double)?;
            match without_escapes(text, &mut self.scratch) {
                b"NaN" => Ok(f64::NAN),
                b"Infinity" => Ok(f64::INFINITY),
                b"-Infinity" => Ok(f64::NEG_INFINITY),
                text => in_string(text, JsonErrorKind::Double).and_then(get_f64),
            }
        } else {
            get_f64(self.lexer.number(JsonErrorKind::Double)?)
        };
        let value = value.map_err(|kind| JsonError::new(offset, kind))?;
        field.put(&mut self.out, value.to_bits());
        Ok(())
    }

    /// A `uint32` field, unless it is zero.
    pub(super) fn uint32(&mut self, field: Varint, seen: &mut Seen) -> Result<(), JsonError> {
        let value = integer(self, get_u32)?;
        if seen.again(field.0) || value != 0 {
            field.put(&mut self.out, u64::from(value));
        }
        Ok(())
    }

    /// A `fixed32` field, unless it is zero.
    pub(super) fn fixed32(&mut self, field: Fixed32, seen: &mut Seen) -> Result<(), JsonError> {
        let value = integer(self, get_u32)?;
        if seen.again(field.0) || value != 0 {
            put_varint(&mut self.out, u64::from(field.tag()));
            self.out.extend_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    /// A `fixed64` field, unless it is zero.
    #[inline]
    pub(super) fn fixed64(&mut self, field: Fixed64, seen: &mut Seen) -> Result<(), JsonError> {
        let value = match self.lexer.quoted_digits() {
            Some(value) => value,
            None => integer(self, get_u64)?,
        };
        if seen.again(field.0) || value != 0 {
            field.put(&mut self.out, value);
        }
        Ok(())
    }

    /// An enum field, unless it is zero. Names are refused, numbers without a name are not.
    pub(super) fn number_of_enum(
        &mut self,
        field: Varint,
        seen: &mut Seen,
    ) -> Result<(), JsonError> {
        let offset = self.lexer.offset();
        let value = get_i64(self.lexer.number(JsonErrorKind::Enum)?)
            .and_then(|value| i32::try_from(value).map_err(|_| JsonErrorKind::Range))
            .map_err(|kind| JsonError::new(offset, kind))?;
        if seen.again(field.0) || value != 0 {
            // Protobuf extends the sign of enums to 64 bits.
            field.put(&mut self.out, i64::from(value) as u64);
        }
        Ok(())
    }
}

impl<'a> Pull<'a> for Parser<'a> {
    #[inline]
    fn lexer(&mut self) -> &mut Lexer<'a> {
        &mut self.lexer
    }
}

fn get_u32(text: &[u8]) -> Result<u32, JsonErrorKind> {
    get_u64(text)?.try_into().map_err(|_| JsonErrorKind::Range)
}

/// Bytes of the longest length.
const LENGTH_MAX: usize = varint_len(u64::MAX);
