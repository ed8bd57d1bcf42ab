//! The tokens of JSON (RFC 8259), pulled one at a time from text known to be UTF-8.

use super::error::{JsonError, JsonErrorKind};
use super::number::{get_i64, leading_digits};
use super::scan;

/// Arrays and objects within each other in a value that is skipped. One bit each in a `u128`.
const SKIP_NESTING_MAX: u32 = 128;

/// A string as it stands between its quotes; its escapes are known to be valid.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) raw: &'a [u8],
    pub(super) escaped: bool,
    /// Where the opening quote is.
    pub(super) offset: usize,
}

/// What an attribute of the plainest form holds; see [`Lexer::plain_attribute`].
pub(super) enum Plain<'a> {
    String(&'a [u8]),
    Int(i64),
}

pub(super) struct Lexer<'a> {
    json: &'a [u8],
    pos: usize,
}

impl<'a> Lexer<'a> {
    /// Checks the encoding of the whole text first: a later look at single strings costs more.
    pub(super) fn new(json: &'a [u8]) -> Result<Self, JsonError> {
        match simdutf8::compat::from_utf8(json) {
            Ok(_) => Ok(Self { json, pos: 0 }),
            Err(error) => Err(JsonError::new(error.valid_up_to(), JsonErrorKind::Utf8)),
        }
    }

    /// Bytes not read yet.
    pub(super) fn left(&self) -> usize {
        self.json.len() - self.pos
    }

    /// Where the next token begins, once white space has been passed.
    pub(super) fn offset(&mut self) -> usize {
        self.peek();
        self.pos
    }

    /// The first byte of the next token; zero, which begins none, at the end.
    #[inline]
    pub(super) fn peek(&mut self) -> u8 {
        crate::work::add(1);
        loop {
            match self.json.get(self.pos) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.pos += 1,
                Some(&byte) => return byte,
                None => return 0,
            }
        }
    }

    /// Moves past `byte` if the next token is that one.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.pos += usize::from(found);
        found
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8, kind: JsonErrorKind) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { Err(self.error(kind)) }
    }

    #[cold]
    pub(super) fn error(&self, kind: JsonErrorKind) -> JsonError {
        JsonError::new(self.pos, kind)
    }

    /// Moves past `literal`, whose first byte the caller has seen.
    fn literal(&mut self, literal: &[u8]) -> bool {
        let found = self.json[self.pos..].starts_with(literal);
        self.pos += if found { literal.len() } else { 0 };
        found
    }

    /// Moves past `null` if that is next.
    #[inline]
    pub(super) fn eat_null(&mut self) -> bool {
        self.peek() == b'n' && self.literal(b"null")
    }

    pub(super) fn bool(&mut self) -> Result<bool, JsonError> {
        match self.peek() {
            b't' if self.literal(b"true") => Ok(true),
            b'f' if self.literal(b"false") => Ok(false),
            _ => Err(self.error(JsonErrorKind::Bool)),
        }
    }

    /// The next string.
    #[inline]
    pub(super) fn string(&mut self, kind: JsonErrorKind) -> Result<Text<'a>, JsonError> {
        self.expect(b'"', kind)?;
        let start = self.pos;
        self.pos += scan::plain(&self.json[start..]);
        let escaped = match self.json.get(self.pos) {
            Some(b'"') => false,
            _ => {
                self.escaped()?;
                true
            }
        };
        let raw = &self.json[start..self.pos];
        self.pos += 1;
        Ok(Text { raw, escaped, offset: start - 1 })
    }

    /// Moves to the closing quote of a string, checking the escapes on the way there.
    fn escaped(&mut self) -> Result<(), JsonError> {
        loop {
            match self.json.get(self.pos) {
                Some(b'"') => return Ok(()),
                Some(b'\\') => self.pos += self.escape()?,
                _ => return Err(self.error(JsonErrorKind::Quote)),
            }
            self.pos += scan::plain(&self.json[self.pos..]);
        }
    }

    /// The length of the escape at the position.
    fn escape(&self) -> Result<usize, JsonError> {
        let rest = &self.json[self.pos..];
        match rest.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'u') => match scan::unicode_escape(rest) {
                Some((_, len)) => Ok(len),
                None => Err(self.error(JsonErrorKind::Escape)),
            },
            _ => Err(self.error(JsonErrorKind::Escape)),
        }
    }

    /// The next number, as it is written.
    #[inline]
    pub(super) fn number(&mut self, kind: JsonErrorKind) -> Result<&'a [u8], JsonError> {
        if !matches!(self.peek(), b'-' | b'0'..=b'9') {
            return Err(self.error(kind));
        }
        let rest = &self.json[self.pos..];
        let len = scan::number(rest).ok_or_else(|| self.error(JsonErrorKind::Number))?;
        self.pos += len;
        Ok(&rest[..len])
    }

    /// An unsigned integer in quotes, of up to 19 digits, as all writers give times. Otherwise nothing
    /// is read.
    #[inline]
    pub(super) fn quoted_digits(&mut self) -> Option<u64> {
        let text = self.json[self.pos..].strip_prefix(b"\"")?;
        let (value, len) = leading_digits(text);
        let zero_led = len > 1 && text[0] == b'0';
        if len == 0 || zero_led || text.get(len) != Some(&b'"') {
            return None;
        }
        crate::work::add(len);
        self.pos += len + 2;
        Some(value)
    }

    /// Moves past an attribute, if it has the form that nearly all writers give nearly all of theirs:
    /// first the key, then a string or an integer, no white space and no escapes. A few comparisons,
    /// where five strings and as many names would be told apart. Otherwise nothing is read.
    #[inline]
    pub(super) fn plain_attribute(&mut self) -> Option<(&'a [u8], Plain<'a>)> {
        let text = self.json[self.pos..].strip_prefix(br#"{"key":""#)?;
        let (key, text) = text.split_at(scan::plain(text));
        let text = text.strip_prefix(br#"","value":{""#)?;
        let (value, text) = if let Some(text) = text.strip_prefix(br#"stringValue":""#) {
            let (value, text) = text.split_at(scan::plain(text));
            (Plain::String(value), text)
        } else {
            let text = text.strip_prefix(br#"intValue":""#)?;
            let (number, text) = text.split_at(scan::number(text)?);
            (Plain::Int(get_i64(number).ok()?), text)
        };
        let rest = text.strip_prefix(br#""}}"#)?;
        self.pos = self.json.len() - rest.len();
        Some((key, value))
    }

    /// Moves past a value of any kind, which is checked to be JSON. No recursion, no allocation.
    pub(super) fn skip(&mut self) -> Result<(), JsonError> {
        let mut depth = 0;
        // The kinds of what is open, the innermost in the lowest bit: 1 is an object.
        let mut objects = 0_u128;
        loop {
            match self.peek() {
                open @ (b'{' | b'[') => {
                    if depth == SKIP_NESTING_MAX {
                        return Err(self.error(JsonErrorKind::Nesting));
                    }
                    self.pos += 1;
                    depth += 1;
                    objects = objects << 1 | u128::from(open == b'{');
                    // Both closing brackets follow the opening one by two in ASCII.
                    if !self.eat(open + 2) {
                        if open == b'{' {
                            self.name()?;
                        }
                        continue;
                    }
                    depth -= 1;
                    objects >>= 1;
                }
                b'"' => drop(self.string(JsonErrorKind::String)?),
                b't' | b'f' => drop(self.bool()?),
                b'n' if self.literal(b"null") => {}
                _ => drop(self.number(JsonErrorKind::Value)?),
            }
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let object = objects & 1 == 1;
                if self.eat(b',') {
                    if object {
                        self.name()?;
                    }
                    break;
                }
                self.expect(if object { b'}' } else { b']' }, JsonErrorKind::Comma)?;
                depth -= 1;
                objects >>= 1;
            }
        }
    }

    /// Moves past a string that has no white space before it and no escapes. Otherwise nothing is read.
    #[inline]
    pub(super) fn plain_string(&mut self) -> Option<&'a [u8]> {
        let text = self.json[self.pos..].strip_prefix(b"\"")?;
        let (string, text) = text.split_at(scan::plain(text));
        text.starts_with(b"\"").then(|| {
            self.pos += string.len() + 2;
            string
        })
    }

    /// Moves past a member's name and the colon behind it, as [`plain_string`](Self::plain_string)
    /// does.
    #[inline]
    pub(super) fn plain_name(&mut self) -> Option<&'a [u8]> {
        let text = self.json[self.pos..].strip_prefix(b"\"")?;
        let (name, text) = text.split_at(scan::plain(text));
        text.starts_with(b"\":").then(|| {
            self.pos += name.len() + 3;
            name
        })
    }

    /// A member's name, and the colon behind it.
    #[inline]
    pub(super) fn name(&mut self) -> Result<Text<'a>, JsonError> {
        let name = self.string(JsonErrorKind::Name)?;
        self.expect(b':', JsonErrorKind::Colon)?;
        Ok(name)
    }

    /// Checks that nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<(), JsonError> {
        self.peek();
        if self.left() == 0 { Ok(()) } else { Err(self.error(JsonErrorKind::End)) }
    }
}
