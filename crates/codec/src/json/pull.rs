//! Objects, arrays and integers, pulled out of the text by whoever knows what they mean.

use super::error::{JsonError, JsonErrorKind};
use super::lexer::{Lexer, Text};
use super::number::in_string;
use super::text::put_unescaped;

/// Reads from text; beside the lexer it may have a place where what is read goes to.
pub(super) trait Pull<'a> {
    fn lexer(&mut self) -> &mut Lexer<'a>;
}

impl<'a> Pull<'a> for Lexer<'a> {
    fn lexer(&mut self) -> &mut Lexer<'a> {
        self
    }
}

/// The next value, which must be an object: shows each member that is not null to `member`.
#[inline]
pub(super) fn object<'a, P: Pull<'a>>(
    from: &mut P,
    mut member: impl FnMut(&mut P, &[u8]) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    from.lexer().expect(b'{', JsonErrorKind::Object)?;
    if from.lexer().eat(b'}') {
        return Ok(());
    }
    loop {
        let without_escapes;
        let name = match from.lexer().plain_name() {
            Some(name) => name,
            None => match from.lexer().name()? {
                name if name.escaped => {
                    without_escapes = resolved(name);
                    &without_escapes
                }
                name => name.raw,
            },
        };
        if !from.lexer().eat_null() {
            member(from, name)?;
        }
        if !from.lexer().eat(b',') {
            return from.lexer().expect(b'}', JsonErrorKind::Comma);
        }
    }
}

/// The next value, which must be an array: has `element` read each element.
#[inline]
pub(super) fn array<'a, P: Pull<'a>>(
    from: &mut P,
    mut element: impl FnMut(&mut P) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    from.lexer().expect(b'[', JsonErrorKind::Array)?;
    if from.lexer().eat(b']') {
        return Ok(());
    }
    loop {
        element(from)?;
        if !from.lexer().eat(b',') {
            return from.lexer().expect(b']', JsonErrorKind::Comma);
        }
    }
}

/// The next value, which must be an integer, as a number or in a string.
#[inline]
pub(super) fn integer<'a, T>(
    from: &mut impl Pull<'a>,
    get: impl FnOnce(&[u8]) -> Result<T, JsonErrorKind>,
) -> Result<T, JsonError> {
    let lexer = from.lexer();
    let offset = lexer.offset();
    let value = if lexer.peek() == b'"' {
        let text = lexer.string(JsonErrorKind::Integer)?;
        let mut scratch = Vec::new();
        in_string(without_escapes(text, &mut scratch), JsonErrorKind::Integer).and_then(get)
    } else {
        get(lexer.number(JsonErrorKind::Integer)?)
    };
    value.map_err(|kind| JsonError::new(offset, kind))
}

/// A string's text: as it stands, or without its escapes in `scratch`.
#[inline]
pub(super) fn without_escapes<'s>(text: Text<'s>, scratch: &'s mut Vec<u8>) -> &'s [u8] {
    if !text.escaped {
        return text.raw;
    }
    scratch.clear();
    put_unescaped(scratch, text.raw);
    scratch
}

/// A name with escapes, resolved; empty, which no field is called, if it is longer than any that is
/// known.
#[cold]
fn resolved(name: Text<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    if name.raw.len() <= ESCAPE_MAX * NAME_MAX {
        put_unescaped(&mut text, name.raw);
    }
    text
}

/// Bytes of the longest name in the schema, `droppedAttributesCount`.
const NAME_MAX: usize = 22;

/// Bytes of the longest escape of an ASCII character, such as `\u0041`.
const ESCAPE_MAX: usize = 6;
