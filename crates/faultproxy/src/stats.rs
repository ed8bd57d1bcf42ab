use std::sync::atomic::{AtomicU64, Ordering};

/// What a proxy has done so far. A fault is counted when it strikes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted, refused ones included.
    pub connections: u64,
    /// Connections of them that have not ended.
    pub connections_open: u64,
    /// Bytes passed from clients to the server.
    pub bytes_up: u64,
    /// Bytes passed from the server to clients.
    pub bytes_down: u64,
    /// Connections refused, or cut by [`Plan::refuse`](crate::Plan::refuse) while open.
    pub refusals: u64,
    /// Connections reset because the server could not be reached.
    pub unreachable: u64,
    /// [`Fault::Reset`](crate::Fault::Reset).
    pub resets: u64,
    /// [`Fault::Close`](crate::Fault::Close).
    pub closes: u64,
    /// [`Fault::HalfClose`](crate::Fault::HalfClose).
    pub half_closes: u64,
    /// [`Fault::Stall`](crate::Fault::Stall).
    pub stalls: u64,
    /// [`Fault::Swallow`](crate::Fault::Swallow).
    pub swallows: u64,
}

impl Stats {
    /// Faults of all kinds; an unreachable server is none.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.refusals + self.resets + self.closes + self.half_closes + self.stalls + self.swallows
    }
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) bytes_up: AtomicU64,
    pub(crate) bytes_down: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) unreachable: AtomicU64,
    pub(crate) resets: AtomicU64,
    pub(crate) closes: AtomicU64,
    pub(crate) half_closes: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) swallows: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Read before `connections`, so that a connection between the two isn't counted as ended
        // before it began.
        let ended = get(&self.ended);
        let connections = get(&self.connections);
        Stats {
            connections,
            connections_open: connections.saturating_sub(ended),
            bytes_up: get(&self.bytes_up),
            bytes_down: get(&self.bytes_down),
            refusals: get(&self.refusals),
            unreachable: get(&self.unreachable),
            resets: get(&self.resets),
            closes: get(&self.closes),
            half_closes: get(&self.half_closes),
            stalls: get(&self.stalls),
            swallows: get(&self.swallows),
        }
    }
}

/// Relaxed, here and in [`Counters::read`]: counters order nothing.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
