//! How much a peer may ask for that is of no use.

use super::frame::ErrorCode;

/// What is left of the patience with a peer: frames that bring no request on its way use it up,
/// requests that are answered and time bring it back. So floods end (CVE-2023-44487, CVE-2025-8671,
/// CVE-2024-27316, CVE-2019-9511 to 9518), and a client that gives up some calls, pings, or is
/// refused goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience(u32);

/// What a frame costs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cost {
    /// Reading it, and perhaps a few bytes of an answer.
    Frame = 1,
    /// A stream's life, begun for nothing.
    Stream = 10,
}

/// A list of header fields of this many bytes costs as much as a frame: a few bytes may refer to many.
const FIELDS_BYTES: usize = 4 << 10;

impl Default for Patience {
    fn default() -> Self {
        Self(MOST)
    }
}

impl Patience {
    /// # Errors
    ///
    /// It has ended.
    pub(super) fn tire(&mut self, cost: Cost) -> Result<(), ErrorCode> {
        self.0 = self.0.checked_sub(cost as u32).ok_or(ErrorCode::EnhanceYourCalm)?;
        Ok(())
    }

    /// For having read a list of header fields; an ordinary one costs nothing.
    pub(super) fn tire_of_fields(&mut self, bytes: usize) -> Result<(), ErrorCode> {
        (0..bytes / FIELDS_BYTES).try_for_each(|_| self.tire(Cost::Frame))
    }

    /// For a request that was answered.
    pub(super) fn rest_a_little(&mut self) {
        self.0 = (self.0 + PER_REQUEST).min(MOST);
    }
}

/// A thousand streams reset, or a message of 10,000 tiny frames.
const MOST: u32 = 10_000;

const PER_REQUEST: u32 = 100;
