//! The protobuf wire format: varints, tags, fields, and the skipping of what is not known.
//!
//! Every length is checked against what is there before it is used, and no read allocates. Source:
//! "Encoding", protobuf.dev; the verdicts follow prost 0.14, which the tests use as oracle.

use bytes::BufMut;

use crate::field::{Fixed32, Fixed64, Len, Varint};

pub(crate) const VARINT: u32 = 0;
pub(crate) const FIXED64: u32 = 1;
pub(crate) const LEN: u32 = 2;
const GROUP_START: u32 = 3;
const GROUP_END: u32 = 4;
pub(crate) const FIXED32: u32 = 5;

/// Groups within groups that are skipped; more are refused. No OTLP message has a group, so this
/// only bounds what an unknown field may cost: 256 bytes of stack.
const GROUP_NESTING_MAX: usize = 64;

/// Bytes of the longest varint: ten groups of seven bits hold 64.
const VARINT_LEN_MAX: usize = 10;

/// Bytes `value` takes as a varint: 1 to 10.
#[inline]
pub(crate) const fn varint_len(value: u64) -> usize {
    if value < 0x80 {
        // Nearly every length and tag: a comparison that is always predicted.
        return 1;
    }
    // Bits / 7 rounded up, without the division.
    ((value.ilog2() as usize) * 9 + 73) / 64
}

/// Appends `value` as a varint of minimal length.
#[inline]
pub(crate) fn put_varint(out: &mut impl BufMut, value: u64) {
    if value < 0x80 {
        out.put_u8(value as u8);
        return;
    }
    if value < 0x4000 {
        // Statuses, ports and lengths of spans: one store, where a length known only later takes a call.
        out.put_slice(&[value as u8 | 0x80, (value >> 7) as u8]);
        return;
    }
    let mut bytes = [0; VARINT_LEN_MAX];
    let mut len = 0;
    let mut rest = value;
    while rest >= 0x80 {
        bytes[len] = rest as u8 | 0x80;
        rest >>= 7;
        len += 1;
    }
    bytes[len] = rest as u8;
    out.put_slice(&bytes[..=len]);
}

/// Appends a short text as two pieces of fixed size that overlap, each a single store.
#[inline(always)]
pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        8..=16 => put_overlapping::<8>(out, text),
        17..=32 => put_overlapping::<16>(out, text),
        _ => out.extend_from_slice(text),
    }
}

#[inline(always)]
fn put_overlapping<const N: usize>(out: &mut Vec<u8>, text: &[u8]) {
    if let (Some(first), Some(last)) = (text.first_chunk::<N>(), text.last_chunk::<N>()) {
        let end = out.len() + text.len();
        out.extend_from_slice(first);
        out.truncate(end - N);
        out.extend_from_slice(last);
    }
}

/// Why bytes are not a protobuf message of the kind they should be.
///
/// The texts say what was expected; [`Malformed`](crate::view::Malformed) says where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Expected {
    /// The message ends within a varint, or the varint exceeds ten bytes or 64 bits.
    #[error("a varint of at most 64 bits")]
    Varint,
    /// A tag has field number 0, one above 2^29 - 1, or wire type 6 or 7.
    #[error("a tag with field number 1 to 536870911 and a known wire type")]
    Tag,
    /// A length, or a value of fixed width, reaches past the end of its message.
    #[error("a value that ends within its message")]
    Value,
    /// A field of the schema came with a wire type other than its own.
    #[error("the wire type of the schema for field {number}")]
    WireType {
        /// The field's number.
        number: u32,
    },
    /// A group was closed that was not open, was left open, or lies deeper than 64 levels.
    #[error("a balanced group of at most 64 levels")]
    Group,
    /// An attribute value nests arrays and maps deeper than 64 levels.
    #[error("an attribute value of at most 64 levels")]
    Nesting,
}

/// Accepts a field that the schema doesn't have; refuses one that it has with another wire type.
#[inline]
pub(crate) fn unknown(at: usize, field: &Field<'_>, number_max: u32) -> Result<(), Fault> {
    let number = field.number();
    if number > number_max {
        return Ok(());
    }
    Err(Fault { offset: at, expected: Expected::WireType { number } })
}

/// What was expected where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) offset: usize,
    pub(crate) expected: Expected,
}

/// One field as read; the typed number makes it a pattern: `Field::Len(span::NAME, name)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Field<'a> {
    Varint(Varint, u64),
    Fixed64(Fixed64, u64),
    Len(Len, &'a [u8]),
    /// Skipped whole; the number it had.
    Group(u32),
    Fixed32(Fixed32, u32),
}

impl Field<'_> {
    pub(crate) const fn number(&self) -> u32 {
        match *self {
            Field::Varint(Varint(number), _)
            | Field::Fixed64(Fixed64(number), _)
            | Field::Len(Len(number), _)
            | Field::Group(number)
            | Field::Fixed32(Fixed32(number), _) => number,
        }
    }
}

/// Reads the fields of one message in order.
///
/// A nested message is read by a reader of its own that knows where the message ends in the outermost
/// buffer, so that errors can name offsets into that buffer for nothing.
///
/// What a well-formed message needs is inlined everywhere: a [`Field`] then never exists, as the
/// caller's `match` becomes one on the tag. What is not inlined takes slices: a reader that is given to
/// a function lives in memory, where each field waits until the one before it is stored.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    /// What has not been read yet.
    rest: &'a [u8],
    /// Where the message ends in the outermost buffer.
    end: usize,
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) const fn new(message: &'a [u8]) -> Self {
        Reader { rest: message, end: message.len() }
    }

    #[inline]
    pub(crate) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read yet.
    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Where the next field begins, in the outermost buffer.
    #[inline]
    pub(crate) const fn pos(&self) -> usize {
        self.end - self.rest.len()
    }

    #[cold]
    pub(crate) const fn fault(self, expected: Expected) -> Fault {
        Fault { offset: self.pos(), expected }
    }

    /// Where a tag or a length was to be read: the varint's fault, or else the one that is `expected`.
    #[cold]
    fn fault_of(self, expected: Expected) -> Fault {
        let varint = split_varint_long(self.rest);
        self.fault(if varint.is_none() { Expected::Varint } else { expected })
    }

    /// The tag of the next field, as `number << 3 | wire type`; both are checked.
    #[inline(always)]
    pub(crate) fn tag(&mut self) -> Result<u32, Fault> {
        let Some((tag, rest)) = split_tag(self.rest) else {
            return Err(self.fault_of(Expected::Tag));
        };
        self.rest = rest;
        Ok(tag)
    }

    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, Fault> {
        let Some((value, rest)) = split_varint(self.rest) else {
            return Err(self.fault(Expected::Varint));
        };
        self.rest = rest;
        Ok(value)
    }

    /// A reader of the next `LEN` value, which is a message; this reader moves past it.
    ///
    /// Inlined always: a call for each attribute is a twelfth of what writing JSON takes.
    #[inline(always)]
    pub(crate) fn message(&mut self) -> Result<Reader<'a>, Fault> {
        let body = self.len_value()?;
        Ok(self.within(body))
    }

    /// The body of the next `LEN` value.
    #[inline(always)]
    pub(crate) fn len_value(&mut self) -> Result<&'a [u8], Fault> {
        let Some((body, rest)) = split_len(self.rest) else {
            return Err(self.fault_of(Expected::Value));
        };
        self.rest = rest;
        Ok(body)
    }

    /// The body of the next field if it is this one, below number 16, and shorter than 128 bytes.
    /// Otherwise nothing is read.
    ///
    /// For repeated fields: a third of what telling the next field apart from all others takes.
    #[inline(always)]
    pub(crate) fn short(&mut self, field: Len) -> Option<&'a [u8]> {
        let [tag, len @ 0..0x80, ref rest @ ..] = *self.rest else { return None };
        if u32::from(tag) != field.tag() {
            return None;
        }
        let (body, rest) = rest.split_at_checked(usize::from(len))?;
        crate::work::add(1);
        self.rest = rest;
        Some(body)
    }

    /// Moves past fields that together have `N` bytes and the form that `is_plain` knows: one
    /// comparison where each by itself would take several. Otherwise nothing is read.
    #[inline(always)]
    pub(crate) fn plain<const N: usize>(&mut self, is_plain: impl Fn(&[u8; N]) -> bool) -> bool {
        match self.rest.split_first_chunk() {
            Some((fields, rest)) if is_plain(fields) => {
                crate::work::add(1);
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn fixed32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        match self.rest.split_first_chunk() {
            Some((&array, rest)) => {
                self.rest = rest;
                Ok(array)
            }
            None => Err(self.fault(Expected::Value)),
        }
    }

    /// The next field, or `None` at the message's end. A group is skipped and reported as such.
    #[inline(always)]
    pub(crate) fn field(&mut self) -> Result<Option<Field<'a>>, Fault> {
        if self.is_at_end() {
            return Ok(None);
        }
        let tag = self.tag()?;
        let number = tag >> 3;
        Ok(Some(match tag & 7 {
            VARINT => Field::Varint(Varint(number), self.varint()?),
            FIXED64 => Field::Fixed64(Fixed64(number), self.fixed64()?),
            LEN => Field::Len(Len(number), self.len_value()?),
            FIXED32 => Field::Fixed32(Fixed32(number), self.fixed32()?),
            _ => {
                self.skip(tag)?;
                Field::Group(number)
            }
        }))
    }

    /// The next field and where it starts.
    #[inline(always)]
    pub(crate) fn field_at(&mut self) -> Result<Option<(usize, Field<'a>)>, Fault> {
        let at = self.pos();
        Ok(self.field()?.map(|field| (at, field)))
    }

    /// The next field and its bytes, tag included.
    #[inline(always)]
    pub(crate) fn field_bytes(&mut self) -> Result<Option<(&'a [u8], Field<'a>)>, Fault> {
        let start = self.rest;
        let field = self.field()?;
        Ok(field.map(|field| (&start[..start.len() - self.rest.len()], field)))
    }

    /// A reader of the `LEN` value that was read last.
    #[inline(always)]
    pub(crate) fn within(&self, body: &'a [u8]) -> Reader<'a> {
        Reader { rest: body, end: self.pos() }
    }

    /// Moves past the value of a field whose tag has just been read.
    #[inline(always)]
    pub(crate) fn skip(&mut self, tag: u32) -> Result<(), Fault> {
        match tag & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.array::<8>().map(drop),
            LEN => self.len_value().map(drop),
            FIXED32 => self.array::<4>().map(drop),
            _ => {
                self.rest = skip_group(*self, tag)?;
                Ok(())
            }
        }
    }
}

/// A tag and what follows it; `None` where there is no valid one.
///
/// These functions say only that something is wrong: an error to be carried through each field would
/// take a third of the time. [`Reader`] finds out what it is once it matters.
#[inline(always)]
pub(crate) fn split_tag(bytes: &[u8]) -> Option<(u32, &[u8])> {
    crate::work::add(1);
    match *bytes {
        // Numbers 1 to 15, which are all of the schema's but one.
        [byte @ 0x08..0x80, ref rest @ ..] if u32::from(byte) & 7 <= FIXED32 => {
            Some((u32::from(byte), rest))
        }
        // That one, which nearly every span has, and up to number 2047.
        [low @ 0x80..=0xFF, high @ 0x01..0x80, ref rest @ ..] if u32::from(low) & 7 <= FIXED32 => {
            Some((u32::from(low & 0x7F) | u32::from(high) << 7, rest))
        }
        _ => split_tag_long(bytes),
    }
}

#[cold]
fn split_tag_long(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (tag, rest) = split_varint_long(bytes)?;
    let tag = u32::try_from(tag).ok()?;
    (tag >= 8 && tag & 7 <= FIXED32).then_some((tag, rest))
}

/// A varint and what follows it.
#[inline(always)]
pub(crate) fn split_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    match *bytes {
        [byte @ 0..0x80, ref rest @ ..] => Some((u64::from(byte), rest)),
        // Statuses and ports.
        [low, high @ 0..0x80, ref rest @ ..] => {
            Some((u64::from(low & 0x7F) | u64::from(high) << 7, rest))
        }
        _ => split_varint_long(bytes),
    }
}

#[cold]
fn split_varint_long(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(VARINT_LEN_MAX).enumerate() {
        // The tenth byte has room for the last of 64 bits only.
        if index == VARINT_LEN_MAX - 1 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

/// The body behind a length, and what follows it.
#[inline(always)]
pub(crate) fn split_len(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match *bytes {
        [len @ 0..0x80, ref rest @ ..] => rest.split_at_checked(usize::from(len)),
        // Lengths of most spans.
        [low, high @ 0..0x80, ref rest @ ..] => {
            rest.split_at_checked(usize::from(low & 0x7F) | usize::from(high) << 7)
        }
        _ => split_len_long(bytes),
    }
}

#[cold]
fn split_len_long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = split_varint_long(bytes)?;
    // A length beyond the address space is beyond the message too.
    rest.split_at_checked(usize::try_from(len).ok()?)
}

/// What follows the value of a field with this tag, and short values that come under the same tag
/// right behind it: attributes are passed in half the time that telling each anew would take.
#[inline(always)]
pub(crate) fn skip_run(tag: u32, bytes: &[u8]) -> Option<&[u8]> {
    match tag & 7 {
        LEN => {
            let (_, mut rest) = split_len(bytes)?;
            while let [next @ 0..0x80, len @ 0..0x80, body @ ..] = rest
                && u32::from(*next) == tag
                && let Some(behind) = body.get(usize::from(*len)..)
            {
                crate::work::add(1);
                rest = behind;
            }
            Some(rest)
        }
        VARINT => split_varint(bytes).map(|(_, rest)| rest),
        FIXED64 => bytes.get(8..),
        FIXED32 => bytes.get(4..),
        _ => skip_group(Reader::new(bytes), tag).ok(),
    }
}

/// What follows a group whose tag `fields` has just read, however deep, without recursion.
#[cold]
fn skip_group(mut fields: Reader<'_>, mut tag: u32) -> Result<&[u8], Fault> {
    let mut open = [0; GROUP_NESTING_MAX];
    let mut depth = 0;
    loop {
        match tag & 7 {
            GROUP_START if depth < GROUP_NESTING_MAX => {
                open[depth] = tag >> 3;
                depth += 1;
            }
            GROUP_END if depth > 0 && open[depth - 1] == tag >> 3 => depth -= 1,
            GROUP_START | GROUP_END => return Err(fields.fault(Expected::Group)),
            _ => fields.skip(tag)?,
        }
        if depth == 0 {
            return Ok(fields.rest);
        }
        if fields.is_at_end() {
            return Err(fields.fault(Expected::Group));
        }
        tag = fields.tag()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
        let mut reader = Reader::new(bytes);
        let value = reader.varint().ok()?;
        Some((value, bytes.len() - reader.rest().len()))
    }

    #[test]
    fn a_varint_reads_as_it_was_put() {
        for bit in 0..64 {
            for value in [1 << bit, (1 << bit) - 1, u64::MAX >> bit] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, value);
                assert_eq!(bytes.len(), varint_len(value), "{value}");
                assert_eq!(varint(&bytes), Some((value, bytes.len())));
                assert_eq!(prost::encoding::decode_varint(&mut &bytes[..]).ok(), Some(value));
            }
        }
    }

    /// Faults 6.
    #[test]
    fn a_padded_varint_of_ten_bytes_is_read() {
        assert_eq!(varint(&[0x85, 0x80, 0x00]), Some((5, 3)));
        let mut padded = [0x80; 10];
        padded[9] = 0;
        assert_eq!(varint(&padded), Some((0, 10)));
    }

    /// Faults 6.
    #[test]
    fn a_varint_over_64_bits_or_ten_bytes_is_refused() {
        let mut bytes = [0xFF; 11];
        bytes[9] = 0x01;
        assert_eq!(varint(&bytes), Some((u64::MAX, 10)));
        bytes[9] = 0x02;
        assert_eq!(varint(&bytes), None);
        bytes[9] = 0x81;
        bytes[10] = 0x00;
        assert_eq!(varint(&bytes), None, "eleven bytes");
        assert_eq!(varint(&[0x80]), None, "no end");
        assert_eq!(varint(&[]), None);
    }

    /// Faults 7.
    #[test]
    fn a_tag_needs_a_valid_number_and_wire_type() {
        let tag = |tag: u64| {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, tag);
            Reader::new(&bytes).tag()
        };
        assert_eq!(tag(8), Ok(8));
        assert_eq!(tag(u64::from(u32::MAX) - 2), Ok(u32::MAX - 2), "number 2^29 - 1, I32");
        for bad in [0, 2, 8 | 6, 8 | 7, 1 << 32, u64::MAX] {
            let refused = Err(Fault { offset: 0, expected: Expected::Tag });
            assert_eq!(tag(bad), refused, "{bad}");
        }
    }

    /// Faults 10, 11.
    #[test]
    fn groups_are_skipped_to_their_own_end_and_64_deep() {
        fn skip(bytes: &[u8]) -> Option<Field<'_>> {
            let mut reader = Reader::new(bytes);
            let field = reader.field().ok()??;
            reader.is_at_end().then_some(field)
        }
        assert_eq!(skip(&[0x0B, 0x0C]), Some(Field::Group(1)));
        assert_eq!(skip(&[0x0B, 0x10, 1, 0x1B, 0x1C, 0x0C]), Some(Field::Group(1)));
        assert_eq!(skip(&[0x0B, 0x14]), None, "ended by another number");
        assert_eq!(skip(&[0x0B, 0x10, 1]), None, "never ended");
        assert_eq!(skip(&[0x0C]), None, "never begun");
        for (depth, ok) in [(64, true), (65, false), (1_000_000, false)] {
            let mut bytes = vec![0x0B; depth];
            bytes.resize(depth * 2, 0x0C);
            assert_eq!(skip(&bytes).is_some(), ok, "{depth}");
        }
    }

    /// Faults 5.
    #[test]
    fn no_declared_length_is_trusted() {
        for len in [1, 1 << 31, u64::MAX >> 1, u64::MAX] {
            let mut bytes = vec![0x0A];
            put_varint(&mut bytes, len);
            let refused = Err(Fault { offset: 1, expected: Expected::Value });
            assert_eq!(Reader::new(&bytes).field(), refused, "{len}");
        }
        assert!(Reader::new(&[0x09, 0, 0, 0, 0, 0, 0, 0]).field().is_err());
        assert!(Reader::new(&[0x0D, 0, 0, 0]).field().is_err());
    }
}
