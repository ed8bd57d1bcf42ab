//! Snappy's block format: one piece, whose first bytes say how long it will be.

use snap::raw::{Decoder, decompress_len};

use super::{Inflated, Wire, corrupt};
use crate::fault::Fault;

/// A block that there is room for.
pub(super) struct Block {
    wire: Wire,
    len: usize,
}

impl Block {
    /// Takes the block at its word as far as its own bytes can bear it out, and its output from the
    /// budget.
    pub(super) fn admit(mut wire: Wire, bytes_max: usize) -> Result<Self, Fault> {
        let len = decompress_len(&wire.bytes).map_err(|_error| corrupt())?;
        if len > bytes_max {
            return Err(Fault::too_large(bytes_max));
        }
        if len / COPY_BYTES_MAX > wire.bytes.len() / COPY_WIRE_BYTES {
            return Err(corrupt());
        }
        match wire.reservation.grow(len) {
            true => Ok(Self { wire, len }),
            false => Err(Fault::budget()),
        }
    }

    /// The bytes it says it has.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn inflate(self) -> Result<Inflated, Fault> {
        let mut out = vec![0; self.len];
        // An error as well where it has fewer than it says.
        Decoder::new().decompress(&self.wire.bytes, &mut out).map_err(|_error| corrupt())?;
        Ok(self.wire.inflated(out))
    }
}

/// The element that makes the most of its bytes is a copy of 64 bytes with an offset of two: section
/// 2.2.2 of snappy's `format_description.txt`.
const COPY_BYTES_MAX: usize = 64;
const COPY_WIRE_BYTES: usize = 3;
