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
use tokio::task::{JoinHandle, JoinSet};

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
    /// Whether a sender waits while the queue is full; else it is told to come back.
    pub(crate) blocks: bool,
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
            Self::Debug(debug) => debug.deliver(items, shared).await,
            Self::File(file) => file.deliver(items, shared).await,
            Self::Nop => items.into_iter().for_each(|item| item.claim.sent(0, None)),
        }
    }
}

/// A running destination.
pub(crate) struct Exporter {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Item>,
    ending: watch::Sender<Ending>,
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
    ended: watch::Receiver<Ending>,
}

/// How a destination ends.
#[derive(Clone)]
enum Ending {
    Not,
    /// It sends what it has.
    Drain,
    /// What it has goes to the one that stands in its place.
    HandOver(Arc<Exporter>),
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

/// Why a request was not taken; the spans are the sender's still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The queue has no room.
    Full,
    /// Another destination stands in the place of this one, or none.
    Closed,
}

/// What became of a request that was taken, where the sender is to wait for it.
pub(crate) type Taken = Option<oneshot::Receiver<Outcome>>;

impl Exporter {
    /// Starts the queue's worker on the current runtime. `ledger` is that of a destination in whose
    /// place it stands.
    pub(crate) fn spawn(
        id: String,
        settings: Settings,
        destination: Destination,
        ledger: Arc<Ledger>,
    ) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        let (ending, ended) = watch::channel(Ending::Not);
        let shared = Arc::new(Shared {
            places: Arc::new(Semaphore::new(settings.capacity.min(CAPACITY_MAX))),
            room: Arc::new(Semaphore::new(room(&settings))),
            consumers: Arc::new(Semaphore::new(settings.consumers.min(CONSUMERS_MAX))),
            ledger,
            health: Health::default(),
            log: Failures::default(),
            ended: ended.clone(),
            id,
            settings,
            destination,
        });
        let worker = tokio::spawn(work(items, ended, Arc::clone(&shared)));
        Self { shared, queue, ending, worker: Mutex::new(Some(worker)) }
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

    pub(crate) fn log(&self) -> &Failures {
        &self.shared.log
    }

    /// What the queue holds, in its sizer's unit.
    pub(crate) fn queue_size(&self) -> usize {
        self.capacity().saturating_sub(self.shared.places.available_permits())
    }

    pub(crate) fn blocks(&self) -> bool {
        self.shared.settings.blocks
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    /// Whether its worker is gone though nobody ended it.
    pub(crate) fn is_dead(&self) -> bool {
        self.queue.is_closed() && matches!(*self.ending.borrow(), Ending::Not)
    }

    /// What the queue holds at most, in its sizer's unit.
    pub(crate) fn capacity(&self) -> usize {
        self.shared.capacity()
    }

    /// Takes a request if there is room at once.
    pub(crate) fn try_accept(&self, request: &Request) -> Result<Taken, NotTaken> {
        if !matches!(*self.shared.ended.borrow(), Ending::Not) {
            return Err(NotTaken::Closed);
        }
        let full = |_| NotTaken::Full;
        let Shared { places, room, .. } = &*self.shared;
        let weight = self.shared.weight(request);
        let places = Arc::clone(places).try_acquire_many_owned(weight).map_err(full)?;
        let kibibytes = self.shared.kibibytes(request);
        let room = Arc::clone(room).try_acquire_many_owned(kibibytes).map_err(full)?;
        self.enqueue(request, Place { _places: places, _room: room })
    }

    /// Takes a request when there is room.
    pub(crate) async fn accept(&self, request: &Request) -> Result<Taken, NotTaken> {
        let mut ended = self.shared.ended.clone();
        tokio::select! {
            place = self.place(request) => self.enqueue(request, place?),
            _ = ended.wait_for(|ending| !matches!(ending, Ending::Not)) => Err(NotTaken::Closed),
        }
    }

    async fn place(&self, request: &Request) -> Result<Place, NotTaken> {
        let closed = |_| NotTaken::Closed;
        let Shared { places, room, .. } = &*self.shared;
        let weight = self.shared.weight(request);
        let places = Arc::clone(places).acquire_many_owned(weight).await.map_err(closed)?;
        let kibibytes = self.shared.kibibytes(request);
        let room = Arc::clone(room).acquire_many_owned(kibibytes).await.map_err(closed)?;
        Ok(Place { _places: places, _room: room })
    }

    /// The spans are lost for this destination.
    pub(crate) fn shed(&self, request: &Request) {
        self.shared.ledger.shed(request.spans);
    }

    /// The spans are the sender's still.
    pub(crate) fn refuse(&self, request: &Request) {
        self.shared.ledger.refused(request.spans);
    }

    fn enqueue(&self, request: &Request, place: Place) -> Result<Taken, NotTaken> {
        let (answer, answered) = match self.shared.settings.waits_for_result {
            true => Some(Answer::new()).unzip(),
            false => (None, None),
        };
        let mut item = Item::new(request.clone(), &self.shared.ledger, answer);
        item.place = Some(place);
        match self.queue.send(item) {
            Ok(()) => Ok(answered),
            Err(mpsc::error::SendError(item)) => {
                item.claim.withdraw();
                Err(NotTaken::Closed)
            }
        }
    }

    /// Sends all there is, and takes no more; what is not sent by then is dropped and counted.
    pub(crate) async fn drain(&self, deadline: tokio::time::Instant) {
        self.ending.send_replace(Ending::Drain);
        self.end(deadline).await;
    }

    /// Gives all there is to the destination that stands in its place; what is being sent at this
    /// moment is finished.
    pub(crate) async fn hand_over(&self, to: Arc<Self>, deadline: tokio::time::Instant) {
        self.ending.send_replace(Ending::HandOver(to));
        self.end(deadline).await;
    }

    /// Takes what the destination has accepted that stood here before. If another stands here by now,
    /// that one has it.
    fn inherit(self: Arc<Self>, mut item: Item) {
        let mut heir = self;
        while let Err(mpsc::error::SendError(back)) = heir.queue.send(item) {
            item = back;
            let Some(next) = heir.shared.successor() else {
                return item.claim.dropped(DropReason::Shutdown, "the collector is shutting down");
            };
            heir = next;
        }
    }

    async fn end(&self, deadline: tokio::time::Instant) {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut worker) = worker else { return };
        if tokio::time::timeout_at(deadline, &mut worker).await.is_err() {
            self.shared.ledger.shutting_down();
            worker.abort();
            let _aborted = worker.await;
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.get_mut().unwrap_or_else(PoisonError::into_inner) {
            self.shared.ledger.shutting_down();
            worker.abort();
        }
    }
}

impl Shared {
    /// Where to go instead, if another destination stands in the place of this one.
    pub(crate) fn successor(&self) -> Option<Arc<Exporter>> {
        match &*self.ended.borrow() {
            Ending::HandOver(to) => Some(Arc::clone(to)),
            Ending::Not | Ending::Drain => None,
        }
    }

    /// Waits, unless another destination takes the place of this one meanwhile.
    pub(crate) async fn pause(&self, wait: std::time::Duration) {
        let mut ended = self.ended.clone();
        let handed_over = ended.wait_for(|ending| matches!(ending, Ending::HandOver(_)));
        let _either = tokio::time::timeout(wait, handed_over).await;
    }

    /// Gives requests on their way to the destination that stands in the place of this one.
    pub(crate) fn hand_on(&self, items: Vec<Item>, to: &Arc<Exporter>) {
        for item in items {
            self.ledger.returned();
            hand_on_queued(item, to);
        }
    }
}

fn hand_on_queued(mut item: Item, to: &Arc<Exporter>) {
    item.place = None;
    Arc::clone(to).inherit(item);
}

/// Requests on their way at once, whatever the configuration asks for.
const CONSUMERS_MAX: usize = 1 << 16;

/// Gathers what is queued into batches, and hands these to as many consumers as there may be.
async fn work(
    mut items: mpsc::UnboundedReceiver<Item>,
    mut ended: watch::Receiver<Ending>,
    shared: Arc<Shared>,
) {
    let batching = shared.settings.batch;
    let mut batcher =
        batching.map(|batching| (Batcher::new(batching.limits, Strategy::Hybrid), batching));
    let mut on_their_way = JoinSet::new();
    let mut taken = Vec::new();
    loop {
        let due = batcher.as_ref().and_then(|(batcher, _)| batcher.deadline());
        tokio::select! {
            biased;
            _ = ended.wait_for(|ending| !matches!(ending, Ending::Not)), if !items.is_closed() => {
                items.close();
            }
            count = items.recv_many(&mut taken, TAKEN_AT_ONCE) => if count == 0 { break },
            () = until(due) => {}
        }
        while on_their_way.try_join_next().is_some() {}
        if let Some(to) = shared.successor() {
            taken.drain(..).for_each(|item| hand_on_queued(item, &to));
            continue;
        }
        let now = Instant::now();
        let mut complete = Vec::new();
        for mut item in taken.drain(..) {
            item.place = None;
            let Some((batcher, batching)) = &mut batcher else {
                complete.push(vec![item]);
                continue;
            };
            let parts = item.within(batching.spans_max, batching.bytes_max);
            shared.ledger.queued_as(parts.len());
            for part in parts {
                complete.extend(batcher.push(part, now).map(|batch| batch.items));
            }
        }
        if let Some((batcher, _)) = &mut batcher {
            complete.extend(std::iter::from_fn(|| batcher.poll(now)).map(|batch| batch.items));
        }
        for items in complete {
            start(items, &mut on_their_way, &shared).await;
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
async fn start(items: Vec<Item>, on_their_way: &mut JoinSet<()>, shared: &Arc<Shared>) {
    let mut ended = shared.ended.clone();
    let consumer = tokio::select! {
        biased;
        _ = ended.wait_for(|ending| matches!(ending, Ending::HandOver(_))) => None,
        consumer = Arc::clone(&shared.consumers).acquire_owned() => Some(consumer),
    };
    let Some(consumer) = consumer else {
        if let Some(to) = shared.successor() {
            items.into_iter().for_each(|item| hand_on_queued(item, &to));
        }
        return;
    };
    // Never closed.
    let Ok(consumer) = consumer else { return };
    let in_flight = shared.ledger.left_queue(items.len());
    let shared = Arc::clone(shared);
    on_their_way.spawn(async move {
        shared.destination.deliver(items, &shared).await;
        drop((in_flight, consumer));
    });
}
