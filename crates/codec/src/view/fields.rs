use crate::field::{Fixed32, Fixed64, Len, Varint};
use crate::wire::{Fault, Field, Reader};

/// The fields of one message, in order; ends at the first malformed one.
///
/// A singular message may arrive in pieces: several occurrences of its field, which protobuf merges.
/// Merging is concatenation, so this reads the first piece, then looks for further ones in what
/// follows it in the parent. Views thereby merge exactly, without a place to merge into.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    piece: Reader<'a>,
    /// What follows the piece in the parent; empty where a message can't be in pieces.
    parent: &'a [u8],
    field: Len,
}

impl<'a> Fields<'a> {
    /// The fields of a message in one piece: a request, or an element of a repeated field.
    #[inline]
    pub(crate) const fn new(message: &'a [u8]) -> Self {
        Self { piece: Reader::new(message), parent: &[], field: Len(0) }
    }

    /// The fields of the message that `parent` has, in one or more pieces, as its singular `field`.
    #[inline]
    pub(crate) fn of_singular(parent: &'a [u8], field: Len) -> Option<Self> {
        let mut pieces = Fields::new(parent).repeated(field);
        let piece = Reader::new(pieces.next()?);
        Some(Self { piece, parent: pieces.fields.piece.rest(), field })
    }

    #[cold]
    fn next_piece(&mut self) -> bool {
        let mut pieces = Fields::new(self.parent).repeated(self.field);
        let piece = pieces.next();
        self.parent = pieces.fields.piece.rest();
        self.piece = Reader::new(piece.unwrap_or_default());
        piece.is_some()
    }

    /// The tag of the next field; its value must be read or skipped next.
    #[inline(always)]
    fn tag(&mut self) -> Result<Option<u32>, Fault> {
        while self.piece.is_at_end() {
            if self.parent.is_empty() || !self.next_piece() {
                return Ok(None);
            }
        }
        self.piece.tag().map(Some)
    }

    /// What `read` makes of the last field with this tag, or the type's zero.
    #[inline]
    fn last<T: Default>(
        mut self,
        wanted: u32,
        read: impl Fn(&mut Reader<'a>) -> Result<T, Fault>,
    ) -> T {
        let mut last = T::default();
        while let Ok(Some(tag)) = self.tag() {
            if tag != wanted {
                if self.piece.skip(tag).is_err() {
                    break;
                }
            } else if let Ok(value) = read(&mut self.piece) {
                last = value;
            } else {
                break;
            }
        }
        last
    }

    /// The value of a string or bytes field: the last one, or empty.
    pub(crate) fn bytes(self, wanted: Len) -> &'a [u8] {
        self.last(wanted.tag(), Reader::len_value)
    }

    /// The value of a varint field: the last one, or zero.
    pub(crate) fn varint(self, wanted: Varint) -> u64 {
        self.last(wanted.tag(), Reader::varint)
    }

    /// The value of a field of 64 bits: the last one, or zero.
    pub(crate) fn fixed64(self, wanted: Fixed64) -> u64 {
        self.last(wanted.tag(), Reader::fixed64)
    }

    /// The value of a field of 32 bits: the last one, or zero.
    pub(crate) fn fixed32(self, wanted: Fixed32) -> u32 {
        self.last(wanted.tag(), Reader::fixed32)
    }

    /// The bodies of a repeated message, string or bytes field.
    #[inline]
    pub(crate) const fn repeated(self, wanted: Len) -> Repeated<'a> {
        Repeated { fields: self, tag: wanted.tag() }
    }

    /// The next field, for readers that need more than one kind.
    #[inline]
    pub(crate) fn next_field(&mut self) -> Option<Field<'a>> {
        loop {
            match self.piece.field() {
                Ok(Some(field)) => return Some(field),
                Ok(None) if !self.parent.is_empty() && self.next_piece() => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// The bodies of one repeated field; see [`Fields::repeated`].
#[derive(Clone, Copy)]
pub(crate) struct Repeated<'a> {
    fields: Fields<'a>,
    tag: u32,
}

impl<'a> Iterator for Repeated<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while let Ok(Some(tag)) = self.fields.tag() {
            if tag == self.tag {
                return self.fields.piece.len_value().ok();
            }
            self.fields.piece.skip(tag).ok()?;
        }
        None
    }
}
