//! The one message of a unary gRPC request, as it arrives.
//!
//! Source: "Length-Prefixed-Message" in gRPC's `doc/PROTOCOL-HTTP2.md`.

use std::sync::Arc;

use bytes::BufMut;

use crate::body::{Admitted, Declared};
use crate::budget::Share;
use crate::fault::Fault;
use crate::stats::Reason;

/// A message on its way. The five bytes before it decide: one over the limit, or one that the budget
/// has no room for, is refused before any of it is waited for.
#[derive(Debug, Default)]
pub(crate) struct Message {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    admitted: Option<Body>,
}

#[derive(Debug)]
struct Body {
    is_compressed: bool,
    declared: Declared,
}

impl Message {
    /// Takes what has arrived.
    pub(crate) fn push(
        &mut self,
        mut data: &[u8],
        bytes_max: usize,
        share: &Arc<Share>,
    ) -> Result<(), Fault> {
        let body = match &mut self.admitted {
            Some(body) => body,
            None => {
                let missing = PREFIX_BYTES - self.prefix_bytes;
                let (part, rest) = data.split_at(missing.min(data.len()));
                self.prefix[self.prefix_bytes..][..part.len()].copy_from_slice(part);
                self.prefix_bytes += part.len();
                if self.prefix_bytes < PREFIX_BYTES {
                    return Ok(());
                }
                data = rest;
                self.admitted.insert(Body::admit(self.prefix, bytes_max, share)?)
            }
        };
        match body.declared.push(data) {
            [] => Ok(()),
            _ => Err(Fault::new(Reason::Framing, "more than one message")),
        }
    }

    /// Where up to `arriving` bytes may be read to, if that is worth it: at least `least` bytes.
    pub(crate) fn room(&mut self, arriving: usize, least: usize) -> Option<impl BufMut> {
        let body = self.admitted.as_mut()?;
        let wanted = arriving.min(body.declared.missing());
        if wanted < least {
            return None;
        }
        Some(body.declared.room(wanted))
    }

    /// The message, and whether it is flagged as compressed, once the peer has ended its side.
    pub(crate) fn end(self) -> Result<(bool, Admitted), Fault> {
        match self.admitted {
            Some(body) if body.declared.missing() == 0 => {
                Ok((body.is_compressed, body.declared.admitted()))
            }
            None if self.prefix_bytes == 0 => Err(Fault::new(Reason::Framing, "no message")),
            _ => Err(Fault::new(Reason::Framing, "the message ends early")),
        }
    }
}

impl Body {
    fn admit(
        prefix: [u8; PREFIX_BYTES],
        bytes_max: usize,
        share: &Arc<Share>,
    ) -> Result<Self, Fault> {
        let [flag, length @ ..] = prefix;
        let is_compressed = match flag {
            0 => false,
            1 => true,
            _ => return Err(Fault::new(Reason::Framing, "unknown flag before the message")),
        };
        let length = u32::from_be_bytes(length).into();
        Ok(Self { is_compressed, declared: Declared::admit(length, bytes_max, share)? })
    }
}

/// A flag byte and a length of four bytes, big-endian.
const PREFIX_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]], bytes_max: usize) -> Result<(bool, Vec<u8>), Reason> {
        let share = Share::alone(1000);
        let mut message = Message::default();
        let read = pieces.iter().try_for_each(|piece| message.push(piece, bytes_max, &share));
        match read.and_then(|()| message.end()) {
            Ok((is_compressed, admitted)) => {
                assert_eq!(share.bytes(), admitted.bytes.len());
                Ok((is_compressed, admitted.bytes.into()))
            }
            Err(fault) => {
                assert_eq!(share.bytes(), 0);
                Err(fault.reason)
            }
        }
    }

    #[test]
    fn one_message_is_read_however_it_is_cut() {
        let wire = b"\x01\0\0\0\x06abcdef";
        for first in 0..wire.len() {
            for second in first..wire.len() {
                let pieces = [&wire[..first], &wire[first..second], &wire[second..], b""];
                assert_eq!(read(&pieces, 1000), Ok((true, b"abcdef".to_vec())));
            }
        }
        assert_eq!(read(&[b"\0\0\0\0\0"], 1000), Ok((false, vec![])));
    }

    /// Faults 56, 81.
    #[test]
    fn anything_but_one_whole_message_is_a_framing_error() {
        let wrong: [&[&[u8]]; 7] = [
            &[],
            &[b"", b""],
            &[b"\0\0\0\0"],
            &[b"\0\0\0\0\x02a"],
            &[b"\0\0\0\0\x01ab"],
            &[b"\0\0\0\0\x01a", b"\0\0\0\0\x01b"],
            &[b"\x02\0\0\0\x01a"],
        ];
        for pieces in wrong {
            assert_eq!(read(pieces, 1000), Err(Reason::Framing), "{pieces:?}");
        }
    }

    /// Faults 82.
    #[test]
    fn a_message_is_refused_by_its_prefix_alone() {
        let share = Share::alone(100);
        let cases: [(&[u8], Reason); 3] = [
            (b"\0\0\0\0\xC9", Reason::TooLarge),
            (b"\0\xFF\xFF\xFF\xFF", Reason::TooLarge),
            (b"\0\0\0\0\x65", Reason::Budget),
        ];
        for (prefix, reason) in cases {
            let fault = Message::default().push(prefix, 200, &share).expect_err("refused");
            assert_eq!(fault.reason, reason);
            assert_eq!(fault.retry_after.is_some(), reason == Reason::Budget);
        }
    }

    #[test]
    fn what_is_read_in_place_has_room_up_to_the_end_of_the_message_and_no_further() {
        let share = Share::alone(100_000);
        let mut message = Message::default();
        assert!(message.room(1000, 1).is_none(), "before the prefix");
        message.push(b"\0\0\0\x27\x10", 100_000, &share).expect("admitted");
        assert!(message.room(10, 11).is_none());
        let mut placed = 0;
        while let Some(mut room) = message.room(3000, 1) {
            placed += room.remaining_mut();
            assert!(room.remaining_mut() <= 3000);
            room.put_bytes(7, room.remaining_mut());
        }
        assert_eq!(placed, 10_000);
        let (_, admitted) = message.end().expect("whole");
        assert_eq!(admitted.bytes, vec![7; 10_000]);
        assert_eq!(share.bytes(), 10_000);
    }
}
