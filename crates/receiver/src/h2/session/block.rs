//! A header block, gathered from its frames.

use crate::h2::frame::{self, ErrorCode, Head};

/// A header block that is not whole yet. Frames of other kinds must not come in between.
pub(super) struct Block {
    pub(super) head: Head,
    pub(super) is_last: bool,
    pub(super) bytes: Vec<u8>,
    /// Where the first frame's payload ends, padding included.
    pub(super) first_bytes: usize,
}

impl Block {
    /// The block without what surrounds it in its first frame.
    pub(super) fn whole(self) -> Result<Vec<u8>, ErrorCode> {
        let (mut before, mut after) = (0, 0);
        if self.head.has(frame::PADDED) {
            before += 1;
            after = usize::from(*self.bytes.first().ok_or(ErrorCode::FrameSize)?);
        }
        if self.head.has(frame::HAS_PRIORITY) {
            before += 5;
        }
        if before == 0 {
            return Ok(self.bytes);
        }
        let (first, rest) = self.bytes.split_at(self.first_bytes.min(self.bytes.len()));
        let end = first.len().checked_sub(after).filter(|end| *end >= before);
        let end = end.ok_or(ErrorCode::Protocol)?;
        Ok([&first[before..end], rest].concat())
    }
}
