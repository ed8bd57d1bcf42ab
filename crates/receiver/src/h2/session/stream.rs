//! What a connection knows of each of its requests.

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::grpc::Call;
use crate::h2::frame::ErrorCode;
use crate::message::Message;
use crate::stats::Tally;

/// What a peer may send before it hears of more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    left: u32,
    most: u32,
}

impl Window {
    pub(super) const fn new(most: u32) -> Self {
        Self { left: most, most }
    }

    /// Takes `bytes`; answers with what to give back to the peer, once it is worth a frame.
    pub(super) fn take(&mut self, bytes: usize) -> Result<Option<u32>, ErrorCode> {
        let bytes = u32::try_from(bytes).map_err(|_larger| ErrorCode::FlowControl)?;
        self.left = self.left.checked_sub(bytes).ok_or(ErrorCode::FlowControl)?;
        if self.left > self.most / 2 {
            return Ok(None);
        }
        let back = self.most - self.left;
        self.left = self.most;
        Ok((back > 0).then_some(back))
    }
}

/// A request, until it is answered.
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) state: State,
    /// What may be sent on it.
    pub(super) sendable: i64,
}

pub(super) enum State {
    Arriving(Box<Arriving>),
    /// The request was handed out.
    Working {
        _task: Option<Work>,
    },
    Answering {
        message: Vec<u8>,
        sent: usize,
    },
}

/// A request whose message is on its way.
pub(super) struct Arriving {
    pub(super) call: Call,
    pub(super) message: Message,
    pub(super) tally: Tally,
    pub(super) deadline: Option<Instant>,
    pub(super) received: Window,
    pub(super) content_length: Option<u64>,
    pub(super) arrived: u64,
    /// Since when it is waited for.
    pub(super) since: Option<Instant>,
}

/// Work on a request in a task of its own, which ends with its stream.
pub(in crate::h2) struct Work(pub(in crate::h2) AbortHandle);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}
