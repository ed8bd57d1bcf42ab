//! A body in chunks. Source: RFC 9112 section 7.1.

use crate::fault::Fault;
use crate::stats::Reason;

/// Takes chunks apart, however they arrive.
#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    /// Of the chunk at hand: what is known of its size, and then what is missing.
    size: u64,
    digits: u32,
    /// Bytes of extensions and trailers so far, which nobody wants.
    extra: usize,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    SizeSpace,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    Line,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastEnd,
    Over,
    /// Nobody can tell where the body ends.
    Broken,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { at: At::Size, size: 0, digits: 0, extra: 0 }
    }
}

impl Chunks {
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Shows `data` what `input` has of the body, up to its end, and counts the bytes `taken`.
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        taken: &mut usize,
        mut data: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while !self.is_over()
            && let Some(&byte) = input.get(*taken)
        {
            if self.at == At::Data {
                let rest = &input[*taken..];
                let left = usize::try_from(self.size).unwrap_or(usize::MAX);
                let part = &rest[..left.min(rest.len())];
                *taken += part.len();
                self.size -= part.len() as u64;
                if self.size == 0 {
                    self.at = At::DataReturn;
                }
                data(part)?;
                continue;
            }
            *taken += 1;
            self.at = self.step(byte).unwrap_or(At::Broken);
            if self.at == At::Broken {
                return Err(Fault::new(Reason::Framing, "the body's chunks are malformed"));
            }
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Option<At> {
        let next = match (self.at, byte) {
            (At::Size | At::SizeSpace, b'\r') if self.digits > 0 => At::SizeEnd,
            (At::Size | At::SizeSpace, b';') if self.digits > 0 => At::Extension,
            (At::Size | At::SizeSpace, b' ' | b'\t') if self.digits > 0 => {
                self.beside(At::SizeSpace)?
            }
            (At::Size, digit) => {
                let digit = char::from(digit).to_digit(16)?;
                self.size = self.size << 4 | u64::from(digit);
                self.digits += 1;
                // One more would not fit.
                return (self.digits <= DIGITS_MAX).then_some(At::Size);
            }
            (At::Extension, b'\r') => At::SizeEnd,
            (At::SizeEnd, b'\n') => {
                self.digits = 0;
                if self.size == 0 { At::Line } else { At::Data }
            }
            (At::DataReturn, b'\r') => At::DataEnd,
            (At::DataEnd, b'\n') => At::Size,
            (At::Line, b'\r') => At::LastEnd,
            (At::LastEnd, b'\n') => At::Over,
            (At::Line | At::TrailerName, byte) if is_of_token(byte) => {
                self.beside(At::TrailerName)?
            }
            (At::TrailerName, b':') => At::TrailerValue,
            (At::TrailerValue, b'\r') => At::TrailerEnd,
            (At::TrailerEnd, b'\n') => At::Line,
            (at @ (At::Extension | At::TrailerValue), byte)
                if byte == b'\t' || !byte.is_ascii_control() =>
            {
                self.beside(at)?
            }
            _ => return None,
        };
        Some(next)
    }

    /// Counts a byte of `at`, which is not the body's.
    fn beside(&mut self, at: At) -> Option<At> {
        self.extra += 1;
        (self.extra <= EXTRA_BYTES_MAX).then_some(at)
    }
}

/// Of a field's name: `tchar` of RFC 9110 section 5.6.2.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Digits of 64 bits.
const DIGITS_MAX: u32 = 16;

/// Extensions and trailers of a whole body.
const EXTRA_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body, and how many bytes were taken, if it is over; else why not.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize), Option<Reason>> {
        let (mut chunks, mut body, mut taken) = (Chunks::default(), Vec::new(), 0);
        for piece in pieces {
            let mut of_piece = 0;
            let fed = chunks.feed(piece, &mut of_piece, |data| {
                body.extend_from_slice(data);
                Ok(())
            });
            fed.map_err(|fault| Some(fault.reason))?;
            taken += of_piece;
        }
        if chunks.is_over() { Ok((body, taken)) } else { Err(None) }
    }

    #[test]
    fn chunks_become_a_body_whatever_else_they_carry() {
        for (wire, body) in [
            (&b"0\r\n\r\n"[..], &b""[..]),
            (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
            (b"1\r\na\r\n2;e=\"f\"\r\nbc\r\n0000;g\r\nh: i\r\nj: k\r\n\r\n", b"abc"),
            (b"0000000000000003 \r\na\r\n\r\n0\r\n\r\n", b"a\r\n"),
            (b"1\t ;e\r\na\r\n0\r\nh:\tb c\xe4\r\n#!:\r\n\r\n", b"a"),
            (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        ] {
            assert_eq!(read(&[wire]), Ok((body.to_vec(), wire.len())));
            let beyond = [wire, b"POST"].concat();
            assert_eq!(read(&[&beyond]), Ok((body.to_vec(), wire.len())));
            assert_eq!(read(&[&wire[..wire.len() - 1]]), Err(None));
        }
    }

    /// Faults 63.
    #[test]
    fn what_is_no_chunk_is_malformed() {
        let long = |start: &str, end: &str| format!("{start}{}{end}", "x".repeat(EXTRA_BYTES_MAX));
        for wire in [
            "\r\n",
            ";e\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1\n",
            "1 1\r\n",
            "1 x\r\n",
            "1;e\x0bf\r\n",
            "1;e\x7f\r\n",
            "1\rx",
            "1;\n",
            "00000000000000001\r\n",
            "1\r\nab",
            "1\r\na\n",
            "0\r\n\n",
            "0\r\na: b\n",
            "0\r\na: b\r\r",
            "0\r\n\rx",
            "0\r\nPOST / HTTP/1.1\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\na\r\n\r\n",
            "0\r\na : b\r\n\r\n",
            "0\r\na: b\r\n c\r\n\r\n",
            "0\r\na: b\0\r\n\r\n",
            &long("1;", "x\r\na\r\n0\r\n\r\n"),
            &long("0\r\nx", ":\r\n\r\n"),
            &long("0\r\nx:y", "\r\n\r\n"),
        ] {
            assert_eq!(read(&[wire.as_bytes()]), Err(Some(Reason::Framing)), "{wire:.40}");
        }
    }

    #[test]
    fn what_was_malformed_once_never_ends() {
        let (mut chunks, mut taken) = (Chunks::default(), 0);
        let wire = b"x0\r\n\r\n";
        assert!(chunks.feed(wire, &mut taken, |_| Ok(())).is_err());
        assert!(chunks.feed(wire, &mut taken, |_| Ok(())).is_err());
        assert!(!chunks.is_over());
    }

    proptest! {
        #[test]
        fn chunks_are_the_same_however_they_are_cut(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let mut wire = Vec::new();
            for part in &parts {
                wire.extend_from_slice(format!("{:x};a=b\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\nc: d\r\n\r\n");
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut begin = 0;
            for cut in cuts {
                pieces.push(&wire[begin..cut]);
                begin = cut;
            }
            pieces.push(&wire[begin..]);
            prop_assert_eq!(read(&pieces), Ok((parts.concat(), wire.len())));
        }
    }
}
