//! Header fields as HPACK has them, RFC 7541: read with the whole of it, written as literals only.

use std::collections::VecDeque;

use super::huffman;

/// A header block that HPACK does not have, or one that is not wanted to its end. The connection's
/// table is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Malformed,
    Unwanted,
}

/// The header blocks of one connection, in the order they come.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Those fields that the peer may refer to, the last one first.
    entries: VecDeque<Entry>,
    entries_bytes: usize,
    entries_bytes_max: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.name.len() + self.value.len() + FIELD_OVERHEAD_BYTES
    }
}

impl Decoder {
    pub(super) const fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            entries_bytes: 0,
            entries_bytes_max: TABLE_BYTES_MAX,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Reads one block, field by field, until one is answered with `false`. Holds no more than the
    /// table and one field.
    pub(super) fn read(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Unread> {
        let mut rest = block;
        let mut fields = 0;
        while let Some(&first) = rest.first() {
            // Section 6: by its first bits.
            let goes_on = if first & 0x80 != 0 {
                let index = integer(&mut rest, 7)?;
                let (name, value) = self.indexed(index)?;
                field(name, value)
            } else if first & 0xE0 == 0x20 {
                // Section 4.2: before the first field, and not over what was agreed.
                let bytes_max = integer(&mut rest, 5)?;
                if fields > 0 || bytes_max > TABLE_BYTES_MAX {
                    return Err(Unread::Malformed);
                }
                self.entries_bytes_max = bytes_max;
                self.evict(0);
                continue;
            } else {
                let is_kept = first & 0x40 != 0;
                let index = integer(&mut rest, if is_kept { 6 } else { 4 })?;
                self.name.clear();
                match index {
                    0 => text(&mut rest, &mut self.name)?,
                    index => {
                        let mut name = std::mem::take(&mut self.name);
                        name.extend_from_slice(self.indexed(index)?.0);
                        self.name = name;
                    }
                }
                self.value.clear();
                text(&mut rest, &mut self.value)?;
                let goes_on = field(&self.name, &self.value);
                if is_kept {
                    self.keep();
                }
                goes_on
            };
            if !goes_on {
                return Err(Unread::Unwanted);
            }
            fields += 1;
        }
        Ok(())
    }

    fn indexed(&self, index: usize) -> Result<(&[u8], &[u8]), Unread> {
        let index = index.checked_sub(1).ok_or(Unread::Malformed)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(index - STATIC.len()).ok_or(Unread::Malformed)?;
        Ok((&entry.name, &entry.value))
    }

    /// Section 4.4: one that is over the limit by itself empties the table.
    fn keep(&mut self) {
        let entry =
            Entry { name: self.name.as_slice().into(), value: self.value.as_slice().into() };
        self.evict(entry.bytes());
        if entry.bytes() <= self.entries_bytes_max {
            self.entries_bytes += entry.bytes();
            self.entries.push_front(entry);
        }
    }

    fn evict(&mut self, more: usize) {
        while self.entries_bytes + more > self.entries_bytes_max {
            let Some(last) = self.entries.pop_back() else { break };
            self.entries_bytes -= last.bytes();
        }
    }
}

/// Section 5.1.
fn integer(rest: &mut &[u8], prefix_bits: u32) -> Result<usize, Unread> {
    let mask = (1_u8 << prefix_bits) - 1;
    let (first, mut tail) = rest.split_first().ok_or(Unread::Malformed)?;
    let mut value = usize::from(first & mask);
    if value == usize::from(mask) {
        // Nothing that is counted here takes more than four bytes.
        for shift in [0, 7, 14, 21] {
            let (byte, further) = tail.split_first().ok_or(Unread::Malformed)?;
            tail = further;
            value += usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                *rest = tail;
                return Ok(value);
            }
        }
        return Err(Unread::Malformed);
    }
    *rest = tail;
    Ok(value)
}

/// Section 5.2.
fn text(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Unread> {
    let is_huffman = rest.first().ok_or(Unread::Malformed)? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (text, tail) = rest.split_at_checked(length).ok_or(Unread::Malformed)?;
    *rest = tail;
    if is_huffman {
        huffman::decode(text, out).map_err(|_malformed| Unread::Malformed)
    } else {
        out.extend_from_slice(text);
        Ok(())
    }
}

/// Begins a block with a table of no size, whatever the peer allows: of nothing that is written here is
/// a table kept, and a peer that lowers its limit asks for that word (section 4.2).
pub(super) fn block() -> Vec<u8> {
    vec![0x20]
}

/// Appends the status of an answer.
pub(crate) fn write_status(status: u16, block: &mut Vec<u8>) {
    const STATUS: u8 = 8;
    match status {
        200 => block.push(0x80 | STATUS),
        status => {
            block.push(STATUS);
            write_text(status.to_string().as_bytes(), block);
        }
    }
}

/// Appends a field that no table is to keep.
pub(crate) fn write_field(name: &str, value: &[u8], block: &mut Vec<u8>) {
    block.push(0);
    write_text(name.as_bytes(), block);
    write_text(value, block);
}

fn write_text(text: &[u8], block: &mut Vec<u8>) {
    const MASK: u8 = 0x7F;
    let mut length = text.len();
    if length < usize::from(MASK) {
        block.push(length as u8);
    } else {
        block.push(MASK);
        length -= usize::from(MASK);
        while length > 0x7F {
            block.push(length as u8 | 0x80);
            length >>= 7;
        }
        block.push(length as u8);
    }
    block.extend_from_slice(text);
}

/// What a field counts beside its texts, RFC 7541 section 4.1 and RFC 9113 section 6.5.2.
pub(super) const FIELD_OVERHEAD_BYTES: usize = 32;

/// What SETTINGS_HEADER_TABLE_SIZE is, where nobody says otherwise.
const TABLE_BYTES_MAX: usize = 4096;

/// RFC 7541 appendix A.
#[rustfmt::skip]
static STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = Vec<(String, String)>;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Unread> {
        let mut fields = Vec::new();
        let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        decoder.read(block, |name, value| {
            fields.push((text(name), text(value)));
            true
        })?;
        Ok(fields)
    }

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// RFC 7541 appendix C.4: three requests on one connection.
    #[test]
    fn requests_of_the_rfc_refer_to_those_before() {
        let mut decoder = Decoder::new();
        let head = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
        let authority = (":authority", "www.example.com");
        let first = b"\x82\x86\x84\x41\x8C\xF1\xE3\xC2\xE5\xF2\x3A\x6B\xA0\xAB\x90\xF4\xFF";
        let expected = [&head[..], &[authority]].concat();
        assert_eq!(read(&mut decoder, first), Ok(fields(&expected)));
        let second = b"\x82\x86\x84\xBE\x58\x86\xA8\xEB\x10\x64\x9C\xBF";
        let expected = [&expected[..], &[("cache-control", "no-cache")]].concat();
        assert_eq!(read(&mut decoder, second), Ok(fields(&expected)));
        let third = b"\x82\x87\x85\xBF\x40\x88\x25\xA8\x49\xE9\x5B\xA9\x7D\x7F\x89\x25\xA8\x49\xE9\x5B\xB8\xE8\xB4\xBF";
        let expected = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            authority,
            ("custom-key", "custom-value"),
        ];
        assert_eq!(read(&mut decoder, third), Ok(fields(&expected)));
        assert_eq!(decoder.entries_bytes, 164);
    }

    #[test]
    fn the_table_keeps_to_its_size_and_forgets_the_oldest() {
        let mut decoder = Decoder::new();
        let entry = |number: u8| [&[0x40, 1, b'k', 0x7F, 0xE9, 0x06][..], &[number; 1000]].concat();
        for number in 0..10 {
            read(&mut decoder, &entry(number)).expect("a field");
            assert!(decoder.entries_bytes <= TABLE_BYTES_MAX);
        }
        assert_eq!(decoder.entries.len(), 3);
        assert_eq!(decoder.entries[2].value[0], 7);
        assert_eq!(read(&mut decoder, &[0x80 | 65]), Err(Unread::Malformed));
        // To nothing and back, and one that is larger than the table.
        read(&mut decoder, b"\x20\x3F\xE1\x1F").expect("two sizes");
        assert_eq!((decoder.entries.len(), decoder.entries_bytes), (0, 0));
        read(&mut decoder, &entry(1)).expect("a field");
        let large = [&b"\x40\x01k\x7F\xA1\x1F"[..], &[b'v'; 4128]].concat();
        assert_eq!(read(&mut decoder, &large).expect("a field").len(), 1);
        assert_eq!((decoder.entries.len(), decoder.entries_bytes), (0, 0));
    }

    #[test]
    fn what_hpack_does_not_have_is_malformed_wherever_it_ends() {
        for block in [
            &b"\x80"[..],                // index 0
            b"\xBE",                     // an entry that is not there
            b"\x3F\xE2\x1F",             // a table of 4,097 bytes
            b"\x82\x20",                 // a size after a field
            b"\xFF\xFF\xFF\xFF\xFF\x7F", // an index without end
            b"\x40\x01a\x82\xFF\xFF",    // padding of a byte and more
        ] {
            assert_eq!(read(&mut Decoder::new(), block), Err(Unread::Malformed), "{block:02X?}");
        }
        let whole = b"\x82\x40\x03key\x05value";
        for end in 2..whole.len() {
            assert_eq!(read(&mut Decoder::new(), &whole[..end]), Err(Unread::Malformed), "{end}");
        }
    }

    #[test]
    fn reading_stops_where_nothing_more_is_wanted() {
        let mut seen = 0;
        let read = Decoder::new().read(&[0x82; 100], |_, _| {
            seen += 1;
            seen < 3
        });
        assert_eq!((read, seen), (Err(Unread::Unwanted), 3));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for length in [0, 1, 126, 127, 128, 254, 255, 300, 16_510, 20_000] {
            let mut block = Vec::new();
            write_status(if length == 0 { 200 } else { 431 }, &mut block);
            let value = "v".repeat(length);
            write_field("grpc-message", value.as_bytes(), &mut block);
            let status = if length == 0 { "200" } else { "431" };
            let expected = fields(&[(":status", status), ("grpc-message", &value)]);
            assert_eq!(read(&mut Decoder::new(), &block), Ok(expected));
        }
    }
}
