use crate::field::{Fixed32, Fixed64, Len, Varint};
use crate::wire::{self, Field, Reader};

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
    fn next_piece(self) -> Option<Self> {
        let mut pieces = Fields::new(self.parent).repeated(self.field);
        let piece = Reader::new(pieces.next()?);
        Some(Self { piece, parent: pieces.fields.piece.rest(), ..self })
    }

    /// Whether there is another field, in this piece or in the next that has one.
    #[inline(always)]
    fn more(&mut self) -> bool {
        while self.piece.is_at_end() {
            if self.parent.is_empty() {
                return false;
            }
            match self.next_piece() {
                Some(next) => *self = next,
                None => return false,
            }
        }
        true
    }

    /// What `read` makes of the last field with this tag, or the type's zero.
    #[inline]
    fn last<T: Default>(
        mut self,
        wanted: u32,
        read: impl Fn(&'a [u8]) -> Option<(T, &'a [u8])>,
    ) -> T {
        let mut last = T::default();
        while last_in(self.piece.rest(), wanted, &read, &mut last).is_some()
            && !self.parent.is_empty()
        {
            match self.next_piece() {
                Some(next) => self = next,
                None => break,
            }
        }
        last
    }

    /// The value of a string or bytes field: the last one, or empty.
    pub(crate) fn bytes(self, wanted: Len) -> &'a [u8] {
        self.last(wanted.tag(), wire::split_len)
    }

    /// The value of a varint field: the last one, or zero.
    pub(crate) fn varint(self, wanted: Varint) -> u64 {
        self.last(wanted.tag(), wire::split_varint)
    }

    /// The value of a field of 64 bits: the last one, or zero.
    pub(crate) fn fixed64(self, wanted: Fixed64) -> u64 {
        self.last(wanted.tag(), |bytes| {
            bytes.split_first_chunk().map(|(bits, rest)| (u64::from_le_bytes(*bits), rest))
        })
    }

    /// The value of a field of 32 bits: the last one, or zero.
    pub(crate) fn fixed32(self, wanted: Fixed32) -> u32 {
        self.last(wanted.tag(), |bytes| {
            bytes.split_first_chunk().map(|(bits, rest)| (u32::from_le_bytes(*bits), rest))
        })
    }

    /// The bodies of a repeated message, string or bytes field.
    #[inline]
    pub(crate) const fn repeated(self, wanted: Len) -> Repeated<'a> {
        Repeated { fields: self, tag: wanted.tag() }
    }

    /// The next field, for readers that need more than one kind.
    #[inline]
    pub(crate) fn next_field(&mut self) -> Option<Field<'a>> {
        if self.more() { self.piece.field().ok()? } else { None }
    }
}

/// Sets `last` to what `read` makes of the last field with this tag in one piece, if there is one.
/// `None` where the piece is malformed.
#[inline(always)]
fn last_in<'a, T>(
    piece: &'a [u8],
    wanted: u32,
    read: impl Fn(&'a [u8]) -> Option<(T, &'a [u8])>,
    last: &mut T,
) -> Option<()> {
    let mut rest = piece;
    while !rest.is_empty() {
        let (tag, value) = wire::split_tag(rest)?;
        rest = if tag == wanted {
            let (value, rest) = read(value)?;
            *last = value;
            rest
        } else {
            wire::skip_run(tag, value)?
        };
    }
    Some(())
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
        while self.fields.more() {
            let tag = self.fields.piece.tag().ok()?;
            if tag == self.tag {
                return self.fields.piece.len_value().ok();
            }
            self.fields.piece.skip(tag).ok()?;
        }
        None
    }
}
