use std::fmt;
use std::ops::Range;

use arrayvec::ArrayVec;
use bytes::Bytes;

use crate::field::Len;
use crate::wire::{put_varint, varint_len};

/// A request after an edit.
#[derive(Clone, Default)]
#[must_use]
pub struct Edited {
    /// The encoded request, in pieces to be written one after the other. An untouched request is its
    /// own single piece; there is none where every span was left out.
    pub pieces: Vec<Bytes>,
    /// Length of all pieces.
    pub bytes: usize,
    /// Spans in it.
    pub spans: usize,
}

impl Edited {
    /// The request as one buffer: the piece itself where there is only one, else a copy.
    ///
    /// ```
    /// use spanwire_codec::edit::Edited;
    ///
    /// let edited = Edited { pieces: vec!["ab".into(), "c".into()], bytes: 3, spans: 0 };
    /// assert_eq!(edited.joined(), "abc");
    /// ```
    #[must_use]
    pub fn joined(mut self) -> Bytes {
        if self.pieces.len() > 1 {
            self = self.copied();
        }
        self.pieces.pop().unwrap_or_default()
    }

    fn copied(self) -> Self {
        Self { pieces: vec![self.pieces.concat().into()], ..self }
    }
}

impl fmt::Debug for Edited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pieces, bytes, spans } = self;
        write!(f, "Edited({spans} spans, {bytes} bytes in {} pieces)", pieces.len())
    }
}

/// From here on a stretch that stays as it came becomes a piece of its own, a slice of the request.
/// A shorter one is copied: that costs less than carrying one more piece through to the socket.
const SHARED_BYTES_MIN: usize = 4096;

/// `ResourceSpans`, `ScopeSpans`, `Span`: how deep an edit reaches.
const ENVELOPES_MAX: usize = 3;

/// Writes a request anew from the first change on, in one pass over it.
///
/// The stretches between changes stay as they came. Only a change opens the envelopes around it:
/// those in which nothing changes are part of a stretch. A length is guessed to take as many bytes
/// as it did, and put right when the envelope is left.
///
/// ```text
/// request  [....[..change..................................change..]....]
/// out      [....[..new..                                 ..new..]....]
/// shared                 [..a stretch of 4 KiB or more..]
/// ```
pub(super) struct Script<'a> {
    request: &'a Bytes,
    /// Up to where the request has been dealt with. All before it is in `out` and `shared`, or gone.
    done: usize,
    out: Vec<u8>,
    shared: Vec<Shared>,
    shared_bytes: usize,
    /// The envelopes the edit is in, outermost first.
    envelopes: ArrayVec<Envelope, ENVELOPES_MAX>,
    /// How many of them, from the outermost, have their header in `out`.
    opened: usize,
}

/// A stretch of the request that goes between `out[..at]` and `out[at..]`.
struct Shared {
    at: usize,
    range: Range<usize>,
}

struct Envelope {
    field: Len,
    /// All of it in the request, tag and length included.
    range: Range<usize>,
    /// Length of its body in the request.
    len: usize,
    /// Once it is opened: where its header is in `out`.
    header: usize,
    /// Once it is opened: `shared_bytes` before it.
    shared_bytes: usize,
    /// What to go back to where it is cut.
    before: State,
}

/// How far a script is; changes made since can be undone by going back.
#[derive(Clone, Copy)]
struct State {
    done: usize,
    out: usize,
    shared: usize,
    shared_bytes: usize,
    opened: usize,
}

impl<'a> Script<'a> {
    pub(super) fn new(request: &'a Bytes) -> Self {
        Self {
            request,
            done: 0,
            out: Vec::new(),
            shared: Vec::new(),
            shared_bytes: 0,
            envelopes: ArrayVec::new(),
            opened: 0,
        }
    }

    /// Goes into the message that lies at `range`, tag and length included, with a body of `len` bytes.
    pub(super) fn enter(&mut self, field: Len, range: Range<usize>, len: usize) {
        let before = State {
            done: self.done,
            out: self.out.len(),
            shared: self.shared.len(),
            shared_bytes: self.shared_bytes,
            opened: self.opened,
        };
        self.envelopes.push(Envelope { field, range, len, header: 0, shared_bytes: 0, before });
    }

    /// Puts what `write` appends in the place of a range of the request, behind all ranges before.
    pub(super) fn replace(&mut self, range: Range<usize>, write: impl FnOnce(&mut Vec<u8>)) {
        self.open();
        self.keep_to(range.start);
        write(&mut self.out);
        self.done = range.end;
    }

    pub(super) fn remove(&mut self, range: Range<usize>) {
        self.replace(range, |_| {});
    }

    /// Leaves the innermost envelope.
    pub(super) fn leave(&mut self) {
        let Some(envelope) = self.envelopes.pop() else { return };
        if self.opened <= self.envelopes.len() {
            return;
        }
        self.opened -= 1;
        let body = envelope.header + envelope.field.size(envelope.len) - envelope.len;
        // What was kept since the last change is not written yet: it may go on beyond the envelope.
        let len = self.out.len() - body
            + (self.shared_bytes - envelope.shared_bytes)
            + (envelope.range.end - self.done);
        self.set_len(body, envelope.len, len);
    }

    /// Leaves the innermost envelope and leaves it out.
    pub(super) fn cut(&mut self) {
        let Some(Envelope { range, before, .. }) = self.envelopes.pop() else { return };
        self.done = before.done;
        self.out.truncate(before.out);
        self.shared.truncate(before.shared);
        self.shared_bytes = before.shared_bytes;
        self.opened = before.opened;
        self.remove(range);
    }

    pub(super) fn finish(mut self, spans: usize) -> Edited {
        let request = self.request;
        if self.done == 0 {
            return Edited { pieces: vec![request.clone()], bytes: request.len(), spans };
        }
        self.keep_to(request.len());
        self.out.shrink_to_fit();
        let bytes = self.out.len() + self.shared_bytes;
        let mut pieces = Vec::with_capacity(2 * self.shared.len() + 1);
        let mut out = Bytes::from(self.out);
        let mut taken = 0;
        for Shared { at, range } in self.shared {
            let before = out.split_to(at - taken);
            taken = at;
            pieces.extend([before, request.slice(range)]);
        }
        pieces.push(out);
        pieces.retain(|piece| !piece.is_empty());
        let edited = Edited { pieces, bytes, spans };
        // Slices would keep all of the request in memory, for less than half of it.
        if self.shared_bytes > 0 && bytes < request.len() / 2 { edited.copied() } else { edited }
    }

    /// Writes the headers of the envelopes that have none yet, with the lengths they had.
    fn open(&mut self) {
        for index in self.opened..self.envelopes.len() {
            let Envelope { field, len, ref range, .. } = self.envelopes[index];
            let body = range.end - len;
            self.keep_to(range.start);
            self.envelopes[index].header = self.out.len();
            self.envelopes[index].shared_bytes = self.shared_bytes;
            field.put_header(&mut self.out, len);
            self.done = body;
        }
        self.opened = self.envelopes.len();
    }

    /// Takes what lies between what has been dealt with and `end` as it is.
    fn keep_to(&mut self, end: usize) {
        if self.out.capacity() == 0 {
            // All of the rest, should it be copied, and an attribute for each span. What is not
            // needed is given back in the end.
            let rest = self.request.len() - self.done;
            self.out.reserve_exact(rest + rest / 8);
        }
        let range = self.done..end;
        if range.len() < SHARED_BYTES_MIN {
            self.out.extend_from_slice(&self.request[range]);
        } else {
            self.shared_bytes += range.len();
            self.shared.push(Shared { at: self.out.len(), range });
        }
        self.done = end;
    }

    /// Writes the length of a body that begins at `body` in `out`, in the place of the one that is
    /// there. Where the new one is longer or shorter the body moves: by nine bytes at most, and each
    /// byte at most once for each envelope it is in.
    fn set_len(&mut self, body: usize, was: usize, len: usize) {
        let (was, is) = (varint_len(was as u64), varint_len(len as u64));
        let moved = body - was + is;
        let end = self.out.len();
        if is > was {
            self.out.resize(end + is - was, 0);
        }
        if is != was {
            crate::work::add(end - body);
            self.out.copy_within(body..end, moved);
            self.out.truncate(end - body + moved);
            for shared in self.shared.iter_mut().rev().take_while(|shared| shared.at >= body) {
                crate::work::add(1);
                shared.at = shared.at - body + moved;
            }
        }
        put_varint(&mut &mut self.out[body - was..moved], len as u64);
    }
}
