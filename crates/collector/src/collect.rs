//! Spans of this very process into the pipelines, without a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spanwire_batcher::{Bounds, Overflow, Queue, Weigh};
use spanwire_codec::encode::{self, EncodedResource, EncodedScope};
use spanwire_model::{Resource, Scope, Span};
use spanwire_receiver::{Accepted, Refusal};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::intake::Intake;
use crate::item::{Hold, Pieces, Request};

/// Takes spans from the code around it, as a receiver takes them from sockets; made by
/// [`Collector::inlet`](crate::Collector::inlet).
///
/// Any number of threads may collect: a span is encoded where it is given, and pushed into a queue
/// without a lock. What the queue cannot hold is refused to the caller. What it holds waits there
/// while the pipeline has no room.
///
/// Dropping it hands on what it holds, in the background; [`close`](Self::close) waits for that.
#[derive(Debug)]
pub struct Inlet {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Queue<Encoded>,
    wake: Notify,
    closing: AtomicBool,
    resource: EncodedResource,
    scope: EncodedScope,
    intake: Arc<Intake>,
    collected: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
    taken: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// Spans framed as `ScopeSpans` repeats them.
struct Encoded {
    framed: Vec<u8>,
    spans: usize,
}

impl Weigh for Encoded {
    fn spans(&self) -> usize {
        self.spans
    }

    fn wire_bytes(&self) -> usize {
        self.framed.len()
    }

    fn held_bytes(&self) -> usize {
        self.framed.capacity()
    }
}

/// Why spans were not taken.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    /// There may be room later.
    #[error("the collector's queue is full; {spans} spans were not taken")]
    QueueFull {
        /// So many.
        spans: usize,
    },
    /// There is never room for so many at once.
    #[error("{bytes} bytes of spans at once; the collector takes {bytes_max}")]
    TooLarge {
        /// Of all of them, encoded.
        bytes: usize,
        /// Half of the memory that requests may hold.
        bytes_max: usize,
    },
}

/// What became of the spans that were collected:
/// `collected = forwarded + lost + queued`, and what was refused on top.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InletStats {
    /// Taken from the caller.
    pub collected: u64,
    /// Not taken.
    pub refused: u64,
    /// Handed to the pipeline.
    pub forwarded: u64,
    /// Refused by the pipeline for good, or not handed to it in time.
    pub lost: u64,
}

/// What the queue holds at most.
const BYTES_MAX: usize = 64 << 20;
const ITEMS_MAX: usize = 1 << 17;
/// A request to the pipeline is made of spans until it has so many bytes.
const REQUEST_BYTES: usize = 1 << 20;
/// Less than this waits for more until the next look.
const WAKE_BYTES: usize = 256 << 10;
const LOOK: Duration = Duration::from_millis(10);
/// What the pipeline could not take is offered to it again after that.
const COME_BACK: Duration = Duration::from_millis(100);

impl Inlet {
    pub(crate) fn new(intake: Arc<Intake>, resource: &Resource, scope: &Scope) -> Self {
        let bounds = Bounds::new(ITEMS_MAX, BYTES_MAX).expect("neither is zero");
        let shared = Arc::new(Shared {
            queue: Queue::new(bounds),
            wake: Notify::new(),
            closing: AtomicBool::new(false),
            resource: EncodedResource::new(resource),
            scope: EncodedScope::new(scope),
            intake,
            collected: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        });
        let worker = tokio::spawn(work(Arc::clone(&shared)));
        Self { shared, worker: Some(worker) }
    }

    /// Takes a finished span. It is encoded here; nothing else keeps a copy.
    ///
    /// # Errors
    ///
    /// [`CollectError`], at once: nobody waits.
    pub fn collect(&self, span: &Span) -> Result<(), CollectError> {
        self.collect_batch(std::slice::from_ref(span))
    }

    /// Takes finished spans, all or none.
    ///
    /// # Errors
    ///
    /// [`CollectError`], at once: nobody waits.
    pub fn collect_batch(&self, spans: &[Span]) -> Result<(), CollectError> {
        if spans.is_empty() {
            return Ok(());
        }
        let mut framed = Vec::with_capacity(spans.len() * SPAN_BYTES_EXPECTED);
        spans.iter().for_each(|span| encode::put_framed(span, &mut framed));
        if spans.len() > 1 {
            framed.shrink_to_fit();
        }
        let (spans, shared) = (spans.len(), &self.shared);
        let refused = |error| {
            shared.refused.fetch_add(spans as u64, Ordering::Relaxed);
            Err(error)
        };
        let (bytes, bytes_max) = (framed.len(), shared.batch_bytes_max());
        if bytes > bytes_max {
            return refused(CollectError::TooLarge { bytes, bytes_max });
        }
        let item = Encoded { framed, spans };
        match shared.queue.push(item, Overflow::DropNewest, |_| {}) {
            Ok(pushed) => {
                shared.collected.fetch_add(spans as u64, Ordering::Relaxed);
                if pushed.crossed(WAKE_BYTES) {
                    shared.wake.notify_one();
                }
                Ok(())
            }
            Err(_) => {
                shared.wake.notify_one();
                refused(CollectError::QueueFull { spans })
            }
        }
    }

    /// What became of the spans so far.
    #[must_use]
    pub fn stats(&self) -> InletStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        InletStats {
            forwarded: read(&self.shared.taken),
            lost: read(&self.shared.lost),
            refused: read(&self.shared.refused),
            collected: read(&self.shared.collected),
        }
    }

    /// Hands everything collected to the pipeline, and tells what became of it; what the pipeline has
    /// not answered for by the deadline is lost. To be called before the collector's own shutdown,
    /// from which on nothing is taken.
    pub async fn close(mut self, deadline: Duration) -> InletStats {
        self.shared.close();
        if let Some(mut worker) = self.worker.take()
            && tokio::time::timeout(deadline, &mut worker).await.is_err()
        {
            worker.abort();
            let _gone = worker.await;
        }
        // Nobody collects any more, and nobody forwards.
        let stats = self.stats();
        InletStats { lost: stats.collected - stats.forwarded, ..stats }
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Spans of few attributes; longer ones make the buffer grow.
const SPAN_BYTES_EXPECTED: usize = 256;

async fn work(shared: Arc<Shared>) {
    loop {
        // Either is a reason to look.
        let _woken = tokio::time::timeout(LOOK, shared.wake.notified()).await;
        // Before the last look: what was pushed before the close is seen by it.
        let closing = shared.closing.load(Ordering::Acquire);
        while !shared.queue.is_empty() {
            shared.forward().await;
        }
        if closing {
            return;
        }
    }
}

impl Shared {
    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// What is gathered for a request before, and its header, take a quarter each at most.
    fn batch_bytes_max(&self) -> usize {
        BYTES_MAX.min(self.intake.budget().bytes_max() / 2)
    }

    /// Makes one request of what is queued, and hands it on.
    async fn forward(&self) {
        let mut spans = Vec::new();
        let (mut bytes, mut count) = (0, 0);
        let enough = REQUEST_BYTES.min(self.intake.budget().bytes_max() / 4);
        while bytes < enough {
            let Some(item) = self.queue.pop() else { break };
            bytes += item.framed.len();
            count += item.spans;
            spans.push(item.framed);
        }
        if spans.is_empty() {
            // A push is half done.
            return tokio::task::yield_now().await;
        }
        let mut header = BytesMut::new();
        self.resource.put_header(self.scope.field_len(bytes), &mut header);
        self.scope.put_header(bytes, &mut header);
        let mut request = Vec::with_capacity(header.len() + bytes);
        request.extend_from_slice(&header);
        spans.iter().for_each(|framed| request.extend_from_slice(framed));
        drop(spans);
        let lost = match self.hand_on(request.into(), count).await {
            Ok(accepted) => accepted.rejected_spans.min(count as u64),
            Err(_refusal) => count as u64,
        };
        self.lost.fetch_add(lost, Ordering::Relaxed);
        self.taken.fetch_add(count as u64 - lost, Ordering::Relaxed);
    }

    /// Waits for memory, and for the pipeline while there is one.
    async fn hand_on(&self, request: Bytes, spans: usize) -> Result<Accepted, Refusal> {
        let bytes = request.len();
        let hold = loop {
            match self.intake.budget().reserve(bytes) {
                Some(reservation) => break Some(Arc::new(reservation) as Hold),
                None if bytes > self.intake.budget().bytes_max() => {
                    let message = format!("{bytes} bytes are more than the memory has room for");
                    return Err(Refusal::TooLarge { message });
                }
                // Others hold all of it, and will give it back.
                None => tokio::time::sleep(LOOK).await,
            }
        };
        let pieces = Pieces::One(request);
        let request = Request { bytes, pieces, spans, compressed: None, hold };
        loop {
            match self.intake.take(request.clone(), bytes).await {
                Err(
                    Refusal::Unavailable { .. }
                    | Refusal::Undelivered { .. }
                    | Refusal::Exhausted { .. },
                ) if self.intake.is_fed() => tokio::time::sleep(COME_BACK).await,
                answer => return answer,
            }
        }
    }
}
