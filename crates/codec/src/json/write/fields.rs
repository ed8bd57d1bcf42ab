//! The fields of messages that may come in pieces and in any order, without a place to sort them.

use crate::field::Len;
use crate::json::write::close;
use crate::wire::{Fault, Field, Reader};

/// Reads the fields of one message, across the pieces that its parent may have it in.
///
/// Protobuf merges the occurrences of a singular message, and merging is concatenation: so this
/// reads the first piece, then looks for further ones in the rest of the parent.
#[derive(Clone, Copy)]
pub(super) struct Pieces<'a> {
    piece: Reader<'a>,
    /// What follows the piece in the parent; empty where a message can't be in pieces.
    parent: Reader<'a>,
    field: Len,
}

impl<'a> Pieces<'a> {
    /// A message in one piece: a request, or an element of a repeated field.
    #[inline]
    pub(super) const fn whole(message: Reader<'a>) -> Self {
        Self { piece: message, parent: Reader::new(&[]), field: Len(0) }
    }

    /// The next field and where it starts.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(usize, Field<'a>)>, Fault> {
        if self.piece.is_at_end() && (self.parent.is_at_end() || !self.next_piece()?) {
            return Ok(None);
        }
        self.piece.field_at()
    }

    /// Moves to the next piece that has a field in it.
    #[cold]
    fn next_piece(&mut self) -> Result<bool, Fault> {
        while let Some(field) = self.parent.field()? {
            if let Field::Len(field, body) = field
                && field == self.field
                && !body.is_empty()
            {
                self.piece = self.parent.within(body);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A reader of the `LEN` value that was read last.
    #[inline]
    pub(super) fn within(&self, body: &'a [u8]) -> Reader<'a> {
        self.piece.within(body)
    }

    /// Takes note of a singular message, whose `body` was just read as `field`: the first piece
    /// opens it, any other will be found from there. Only for a parent that is in one piece.
    #[inline]
    pub(super) fn merge(&self, message: &mut Option<Self>, field: Len, body: &'a [u8]) {
        message.get_or_insert_with(|| Self { piece: self.within(body), parent: self.piece, field });
    }
}

/// The occurrences of a repeated field: where the first is and how many there are.
#[derive(Clone, Copy)]
pub(super) struct Repeated<'a> {
    field: Len,
    count: usize,
    first: Reader<'a>,
    /// The message from behind the first occurrence on.
    rest: Pieces<'a>,
}

impl<'a> Repeated<'a> {
    #[inline]
    pub(super) const fn new(field: Len) -> Self {
        let nothing = Reader::new(&[]);
        Self { field, count: 0, first: nothing, rest: Pieces::whole(nothing) }
    }

    /// Takes note of an occurrence, whose `body` was just read from `fields`.
    #[inline]
    pub(super) fn add(&mut self, fields: &Pieces<'a>, body: &'a [u8]) {
        if self.count == 0 {
            self.first = fields.within(body);
            self.rest = *fields;
        }
        self.count += 1;
    }

    /// Shows every occurrence to `visit`.
    #[inline]
    pub(super) fn each(
        mut self,
        mut visit: impl FnMut(Reader<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.count == 0 {
            return Ok(());
        }
        visit(self.first)?;
        let mut left = self.count - 1;
        while left > 0
            && let Some((_, field)) = self.rest.next()?
        {
            if let Field::Len(field, body) = field
                && field == self.field
            {
                visit(self.rest.within(body))?;
                left -= 1;
            }
        }
        Ok(())
    }

    /// Appends the occurrences as an array, unless there are none; `name` ends with its bracket.
    #[inline]
    pub(super) fn write(
        self,
        out: &mut Vec<u8>,
        name: &[u8],
        element: impl Fn(Reader<'a>, &mut Vec<u8>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.count == 0 {
            return Ok(());
        }
        out.extend_from_slice(name);
        self.each(|body| {
            element(body, out)?;
            out.push(b',');
            Ok(())
        })?;
        close(out, b']');
        out.push(b',');
        Ok(())
    }
}
