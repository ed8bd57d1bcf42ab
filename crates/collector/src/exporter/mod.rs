//! One destination: its queue, its batches, and the requests on their way to it.
//!
//! ```text
//! accept ──> places ──> queue ──> batches ──> consumers ──> destination
//!            (by the sizer)       (merged by joining bytes)  (retries, bisection)
//! ```
//!
//! A destination has all of this to itself, so one that is stuck holds up no other.

mod debug;
mod file;
mod otlp;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use spanwire_batcher::{Batcher, Limits, Strategy};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) use self::debug::Debug;
pub(crate) use self::file::{File, Rotation};
pub(crate) use self::otlp::Otlp;
use crate::delivery::{Answer, Outcome};
use crate::health::Health;
use crate::item::{Item, Request};
use crate::ledger::{Account, DropReason, Ledger};
use crate::log::Failures;

/// How a destination is queued for, batched for and waited for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) sizer: Sizer,
    /// In the sizer's unit.
    pub(crate) capacity: usize,
    /// What the queue holds at most besides, so that senders wait before the memory of the process
    /// is used up and they have to be refused.
    pub(crate) bytes_max: usize,
    /// Requests on their way at once.
    pub(crate) consumers: usize,
    pub(crate) blocks: Blocks,
    /// Whether a sender is answered by what the destination answers, not by the queue.
    pub(crate) waits_for_result: bool,
    pub(crate) batch: Option<Batching>,
}

/// What a place in the queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizer {
    Requests,
    Spans,
    Bytes,
}

/// What a full queue means to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// It waits.
    Always,
    /// It is told to come back.
    Never,
    /// It waits where no other destination of its pipeline has room; otherwise the spans are dropped
    /// for this destination, and counted.
    UnlessOthersTake,
}

/// When a batch is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batching {
    /// A batch that has so many spans or bytes, or is so old, is complete.
    pub(crate) limits: Limits,
    /// Larger requests are cut.
    pub(crate) spans_max: usize,
    pub(crate) bytes_max: usize,
}

/// Where requests go in the end.
pub(crate) enum Destination {
    Otlp(Box<Otlp>),
    Debug(Debug),
    File(File),
    Nop,
}

impl Destination {
    async fn deliver(&self, items: Vec<Item>, shared: &Shared) {
        match self {
            Self::Otlp(otlp) => otlp.deliver(items, shared).await,
            Self::Debug(debug) => debug.deliver(items).await,
            Self::File(file) => file.deliver(items, shared).await,
            Self::Nop => items.into_iter().for_each(|item| item.claim.sent(0, None)),
        }
    }
}

/// A running destination.
pub(crate) struct Exporter {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Item>,
    closing: watch::Sender<bool>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

/// What the queue's worker and the requests on their way know of their destination.
pub(crate) struct Shared {
    /// `otlp/2`, as in the configuration.
    pub(crate) id: String,
    settings: Settings,
    destination: Destination,
    pub(crate) ledger: Arc<Ledger>,
    places: Arc<Semaphore>,
    room: Arc<Semaphore>,
    consumers: Arc<Semaphore>,
    pub(crate) health: Health,
    pub(crate) log: Failures,
}

impl Shared {
    /// Places that a request takes; one that is larger than the queue takes all of it.
    fn weight(&self, request: &Request) -> u32 {
        let weight = match self.settings.sizer {
            Sizer::Requests => 1,
            Sizer::Spans => request.spans,
            Sizer::Bytes => request.bytes,
        };
        weight.min(self.capacity()) as u32
    }

    fn capacity(&self) -> usize {
        self.settings.capacity.min(CAPACITY_MAX)
    }

    /// The same for the room in KiB, as permits are counted in 32 bits.
    fn kibibytes(&self, request: &Request) -> u32 {
        request.bytes.div_ceil(1024).min(room(&self.settings)) as u32
    }
}

fn room(settings: &Settings) -> usize {
    (settings.bytes_max / 1024).clamp(1, CAPACITY_MAX)
}

/// A place in the queue, given back when it is dropped.
pub(crate) struct Place {
    _places: OwnedSemaphorePermit,
    _room: OwnedSemaphorePermit,
}

/// What the places of a queue can be counted to.
const CAPACITY_MAX: usize = u32::MAX as usize >> 3;

/// The queue has no room, and the sender is not to wait for any.
#[derive(Debug)]
pub(crate) struct Full;

impl Exporter {
    /// Starts the queue's worker on the current runtime.
    pub(crate) fn spawn(id: String, settings: Settings, destination: Destination) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        let (closing, closed) = watch::channel(false);
        let shared = Arc::new(Shared {
            places: Arc::new(Semaphore::new(settings.capacity.min(CAPACITY_MAX))),
            room: Arc::new(Semaphore::new(room(&settings))),
            consumers: Arc::new(Semaphore::new(settings.consumers)),
            ledger: Arc::default(),
            health: Health::default(),
            log: Failures::default(),
            id,
            settings,
            destination,
        });
        let worker = tokio::spawn(work(items, closed, Arc::clone(&shared)));
        Self { shared, queue, closing, worker: Mutex::new(Some(worker)) }
    }

    pub(crate) fn id(&self) -> &str {
        &self.shared.id
    }

    pub(crate) fn account(&self) -> Account {
        self.shared.ledger.read()
    }

    pub(crate) fn health(&self) -> &Health {
        &self.shared.health
    }

    pub(crate) fn blocks(&self) -> Blocks {
        self.shared.settings.blocks
    }

    /// What the queue holds at most, in its sizer's unit.
    pub(crate) fn capacity(&self) -> usize {
        self.shared.capacity()
    }

    /// Takes a request if there is room at once.
    pub(crate) fn try_accept(
        &self,
        request: &Request,
    ) -> Result<Option<oneshot::Receiver<Outcome>>, Full> {
        let Shared { places, room, .. } = &*self.shared;
        let weight = self.shared.weight(request);
        let places = Arc::clone(places).try_acquire_many_owned(weight).map_err(|_| Full)?;
        let kibibytes = self.shared.kibibytes(request);
        let room = Arc::clone(room).try_acquire_many_owned(kibibytes).map_err(|_| Full)?;
        Ok(self.enqueue(request, Place { _places: places, _room: room }))
    }

    /// Takes a request when there is room.
    pub(crate) async fn accept(
        &self,
        request: &Request,
    ) -> Result<Option<oneshot::Receiver<Outcome>>, Full> {
        let Shared { places, room, .. } = &*self.shared;
        let weight = self.shared.weight(request);
        let places = Arc::clone(places).acquire_many_owned(weight).await.map_err(|_| Full)?;
        let kibibytes = self.shared.kibibytes(request);
        let room = Arc::clone(room).acquire_many_owned(kibibytes).await.map_err(|_| Full)?;
        Ok(self.enqueue(request, Place { _places: places, _room: room }))
    }

    /// The spans are lost for this destination.
    pub(crate) fn shed(&self, request: &Request) {
        self.shared.ledger.shed(request.spans);
    }

    /// The spans are the sender's still.
    pub(crate) fn refuse(&self, request: &Request) {
        self.shared.ledger.refused(request.spans);
    }

    fn enqueue(&self, request: &Request, place: Place) -> Option<oneshot::Receiver<Outcome>> {
        let (answer, answered) = match self.shared.settings.waits_for_result {
            true => Some(Answer::new()).unzip(),
            false => (None, None),
        };
        let mut item = Item::new(request.clone(), &self.shared.ledger, answer);
        item.place = Some(place);
        if let Err(mpsc::error::SendError(item)) = self.queue.send(item) {
            item.claim.dropped(DropReason::Shutdown, SHUTTING_DOWN);
        }
        answered
    }

    /// Sends all there is, and takes no more; what is not sent by then is dropped and counted.
    pub(crate) async fn drain(&self, deadline: tokio::time::Instant) {
        self.closing.send_replace(true);
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut worker) = worker else { return };
        if tokio::time::timeout_at(deadline, &mut worker).await.is_err() {
            self.shared.ledger.shutting_down();
            worker.abort();
            let _aborted = worker.await;
        }
    }
}

const SHUTTING_DOWN: &str = "the collector is shutting down";

/// Gathers what is queued into batches, and hands these to as many consumers as there may be.
async fn work(
    mut items: mpsc::UnboundedReceiver<Item>,
    mut closed: watch::Receiver<bool>,
    shared: Arc<Shared>,
) {
    let batching = shared.settings.batch;
    let mut batcher =
        batching.map(|batching| (Batcher::new(batching.limits, Strategy::Hybrid), batching));
    let mut on_their_way = tokio::task::JoinSet::new();
    let mut taken = Vec::new();
    loop {
        let due = batcher.as_ref().and_then(|(batcher, _)| batcher.deadline());
        tokio::select! {
            biased;
            count = items.recv_many(&mut taken, TAKEN_AT_ONCE) => if count == 0 { break },
            () = until(due) => {}
            _ = closed.wait_for(|closed| *closed), if !items.is_closed() => items.close(),
            Some(_done) = on_their_way.join_next(), if !on_their_way.is_empty() => {}
        }
        let now = Instant::now();
        for mut item in taken.drain(..) {
            item.place = None;
            let Some((batcher, batching)) = &mut batcher else {
                start(vec![item], &mut on_their_way, &shared).await;
                continue;
            };
            for item in item.within(batching.spans_max, batching.bytes_max) {
                let complete: Vec<_> = batcher.push(item, now).collect();
                for batch in complete {
                    start(batch.items, &mut on_their_way, &shared).await;
                }
            }
        }
        if let Some((batcher, _)) = &mut batcher {
            while let Some(batch) = batcher.poll(now) {
                start(batch.items, &mut on_their_way, &shared).await;
            }
        }
    }
    if let Some((batcher, _)) = &mut batcher {
        while let Some(batch) = batcher.flush() {
            start(batch.items, &mut on_their_way, &shared).await;
        }
    }
    while on_their_way.join_next().await.is_some() {}
}

/// Items that one look at the queue takes.
const TAKEN_AT_ONCE: usize = 64;

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Sends a batch as soon as a consumer is free. Meanwhile the queue fills.
async fn start(
    items: Vec<Item>,
    on_their_way: &mut tokio::task::JoinSet<()>,
    shared: &Arc<Shared>,
) {
    // Never closed.
    let Ok(consumer) = Arc::clone(&shared.consumers).acquire_owned().await else { return };
    shared.ledger.left_queue(items.len());
    let shared = Arc::clone(shared);
    on_their_way.spawn(async move {
        shared.destination.deliver(items, &shared).await;
        shared.ledger.arrived();
        drop(consumer);
    });
}
