//! One destination: its queue, its batches, and the requests on their way to it.
//!
//! ```text
//! accept ──> places ──> queue ──> batches ──> consumers ──> destination
//!            (by the sizer)       (merged by joining bytes)  (retries, bisection)
//! ```
//!
//! A destination has all of this to itself, so one that is stuck holds up no other.

mod debug;
mod end;
mod file;
mod otlp;
mod room;

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use spanwire_batcher::{Batch, Batcher, Limits, Strategy};
use spanwire_receiver::{Budget, Reservation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

pub(crate) use self::debug::Debug;
use self::end::End;
pub(crate) use self::file::{File, Rotation};
pub(crate) use self::otlp::Otlp;
use self::room::Room;
use crate::batches::BatchStats;
use crate::delivery::{Answer, Outcome};
use crate::health::{Ailment, Health};
use crate::item::{Item, Request};
use crate::ledger::{Account, DropReason, Ledger};
use crate::log::Failures;

/// How a destination is queued for, batched for and waited for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) sizer: Sizer,
    /// In the sizer's unit.
    pub(crate) capacity: usize,
    /// Requests on their way at once.
    pub(crate) consumers: usize,
    /// Whether a sender waits while the queue is full; else it is told to come back.
    pub(crate) blocks: bool,
    /// Whether a sender is answered by what the destination answers, not by the queue.
    pub(crate) waits_for_result: bool,
    pub(crate) batch: Option<Batching>,
    /// The batch processor that asks for `batch`, if one does.
    pub(crate) batch_processor: Option<String>,
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
    /// Where it is, if that is elsewhere.
    fn endpoint(&self) -> Option<&str> {
        match self {
            Self::Otlp(otlp) => Some(&otlp.endpoint),
            Self::Debug(_) | Self::File(_) | Self::Nop => None,
        }
    }

    /// Sends items, or says what else became of them. What comes back is for the destination that
    /// stands in the place of this one.
    async fn deliver(&self, items: Vec<Item>, shared: &Shared) -> Vec<Item> {
        match self {
            Self::Otlp(otlp) => otlp.deliver(items, shared).await,
            Self::File(file) => file.deliver(items, shared).await,
            Self::Debug(debug) => debug.deliver(items, shared).await,
            Self::Nop => {
                items.into_iter().for_each(|item| item.claim.sent(0, None));
                Vec::new()
            }
        }
    }
}

/// A running destination.
pub(crate) struct Exporter {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Item>,
    end: watch::Sender<End>,
    /// Closed when the queue's worker is gone.
    working: watch::Receiver<()>,
    worker: AbortHandle,
}

/// What the queue's worker and the requests on their way know of their destination.
pub(crate) struct Shared {
    /// `otlp/2`, as in the configuration.
    pub(crate) id: String,
    settings: Settings,
    destination: Destination,
    pub(crate) ledger: Arc<Ledger>,
    places: Arc<Semaphore>,
    /// What the queue holds at most besides, so that senders wait before the memory of the process
    /// is used up and they have to be refused.
    room: Room,
    /// What is on its way at once, so that a destination that is stuck leaves memory to the others.
    in_flight: Room,
    /// Of the process: what copies of spans on their way are charged to.
    budget: Arc<Budget>,
    consumers: Arc<Semaphore>,
    pub(crate) health: Health,
    pub(crate) log: Failures,
    /// Requests for which there was no room, apart from what keeps the queue full: those whose spans
    /// are lost here, and those whose spans are the senders' still.
    shed: Failures,
    refused: Failures,
    end: watch::Receiver<End>,
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

    /// For a copy of spans that is held beside them, for as long as it is.
    fn charge(&self, bytes: usize) -> Option<Reservation> {
        (bytes > 0).then(|| self.budget.charge(bytes))
    }

    /// Gives items up for a fault of the destination or of ours. None of them is left then.
    fn lost(&self, items: Vec<Item>, why: DropReason, message: &str) -> Vec<Item> {
        let spans = items.iter().map(|item| item.request.spans).sum();
        self.health.failed(message, Instant::now());
        self.log.failed(message, spans);
        items.into_iter().for_each(|item| item.claim.dropped(why, message));
        Vec::new()
    }
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
    /// It takes no more, and none stands in its place.
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
        bytes_max: usize,
        budget: Arc<Budget>,
    ) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(End::default());
        let shared = Arc::new(Shared {
            places: Arc::new(Semaphore::new(settings.capacity.min(CAPACITY_MAX))),
            room: Room::new(bytes_max),
            in_flight: Room::new(bytes_max / IN_FLIGHT_PART),
            budget,
            consumers: Arc::new(Semaphore::new(settings.consumers.min(CONSUMERS_MAX))),
            ledger,
            health: Health::default(),
            log: Failures::of(&id, destination.endpoint()),
            shed: Failures::of(&id, None),
            refused: Failures::of(&id, None),
            end: ended.clone(),
            id,
            settings,
            destination,
        });
        let (alive, working) = watch::channel(());
        let work = work(items, ended, Arc::clone(&shared));
        let worker = tokio::spawn(async move {
            work.await;
            drop(alive);
        });
        Self { shared, queue, end, working, worker: worker.abort_handle() }
    }

    pub(crate) fn id(&self) -> &str {
        &self.shared.id
    }

    pub(crate) fn account(&self) -> Account {
        self.shared.ledger.read()
    }

    /// What fails at the moment, if anything does.
    pub(crate) fn ailment(&self, now: Instant) -> Option<Ailment> {
        self.shared.health.ailment(now, self.account().queued)
    }

    /// Logs what was only counted, and that nothing is taken, if the time for it has come.
    pub(crate) fn tell(&self, now: Instant) {
        self.shared.log.flush(now);
        self.shared.shed.flush(now);
        self.shared.refused.flush(now);
        if let Some(silent) = self.shared.health.news(now, self.account().queued) {
            tracing::warn!(component = self.id(), "{silent}");
        }
    }

    /// What the queue holds, in its sizer's unit.
    pub(crate) fn queue_size(&self) -> usize {
        self.capacity().saturating_sub(self.shared.places.available_permits())
    }

    pub(crate) fn batches(&self) -> Option<BatchStats> {
        let Settings { batch, batch_processor, .. } = &self.shared.settings;
        batch.map(|_| self.shared.ledger.batches().read(batch_processor.as_deref()))
    }

    pub(crate) fn blocks(&self) -> bool {
        self.shared.settings.blocks
    }

    pub(crate) fn waits_for_result(&self) -> bool {
        self.shared.settings.waits_for_result
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    /// Whether its worker is gone though nobody ended it.
    pub(crate) fn is_dead(&self) -> bool {
        self.queue.is_closed() && !self.is_closed()
    }

    /// Whether the queue takes no more.
    fn is_closed(&self) -> bool {
        self.end.borrow().is_closed
    }

    /// What the queue holds at most, in its sizer's unit.
    pub(crate) fn capacity(&self) -> usize {
        self.shared.capacity()
    }

    /// What the queue may hold from now on, in bytes.
    pub(crate) fn resize(&self, bytes_max: usize) {
        self.shared.room.resize(bytes_max);
        self.shared.in_flight.resize(bytes_max / IN_FLIGHT_PART);
    }

    /// Takes a request if there is room at once, here or at whoever stands in this one's place.
    pub(crate) fn try_accept(&self, request: &Request) -> Result<Taken, NotTaken> {
        match self.try_accept_here(request) {
            Err(NotTaken::Closed) => {
                self.shared.heir().ok_or(NotTaken::Closed)?.try_accept(request)
            }
            here => here,
        }
    }

    fn try_accept_here(&self, request: &Request) -> Result<Taken, NotTaken> {
        if self.is_closed() {
            return Err(NotTaken::Closed);
        }
        let places = Arc::clone(&self.shared.places);
        let places = places.try_acquire_many_owned(self.shared.weight(request));
        let places = places.map_err(|_| NotTaken::Full)?;
        let room = self.shared.room.try_take(request.bytes).ok_or(NotTaken::Full)?;
        self.enqueue(request, Place { _places: places, _room: room })
    }

    /// Takes a request when there is room, here or at whoever stands in this one's place.
    pub(crate) async fn accept(&self, request: &Request) -> Result<Taken, NotTaken> {
        match self.accept_here(request).await {
            Err(NotTaken::Closed) => {
                let heir = self.shared.heir().ok_or(NotTaken::Closed)?;
                Box::pin(heir.accept(request)).await
            }
            here => here,
        }
    }

    async fn accept_here(&self, request: &Request) -> Result<Taken, NotTaken> {
        let mut ended = self.shared.end.clone();
        tokio::select! {
            place = self.place(request) => self.enqueue(request, place?),
            _ = ended.wait_for(|end| end.is_closed) => Err(NotTaken::Closed),
        }
    }

    async fn place(&self, request: &Request) -> Result<Place, NotTaken> {
        let places = Arc::clone(&self.shared.places);
        let places = places.acquire_many_owned(self.shared.weight(request)).await;
        let places = places.map_err(|_| NotTaken::Closed)?;
        let room = self.shared.room.take(request.bytes).await.ok_or(NotTaken::Closed)?;
        Ok(Place { _places: places, _room: room })
    }

    /// The spans are lost for this destination.
    pub(crate) fn shed(&self, request: &Request) {
        self.shared.ledger.shed(request.spans);
        let full = self.full_by(request);
        let message =
            format_args!("its queue is {full}: what other destinations take is lost for this one");
        self.shared.shed.failed(message, request.spans);
    }

    /// The spans are the sender's still.
    pub(crate) fn refuse(&self, request: &Request) {
        self.shared.ledger.refused(request.spans);
        let full = self.full_by(request);
        let message = format_args!("its queue is {full}: senders are asked to come back");
        self.shared.refused.failed(message, 0);
    }

    /// What leaves no room for a request, as far as that is so still.
    pub(crate) fn full_by(&self, request: &Request) -> &'static str {
        match self.shared.places.available_permits() < self.shared.weight(request) as usize {
            true => "full",
            false => "full, by its share of memory",
        }
    }

    fn enqueue(&self, request: &Request, place: Place) -> Result<Taken, NotTaken> {
        let (answer, answered) = match self.shared.settings.waits_for_result {
            true => Some(Answer::new()).unzip(),
            false => (None, None),
        };
        let item = Item::new(request.clone(), &self.shared.ledger, answer, place);
        match self.shared.ledger.accept(request.spans, || self.push(item)) {
            None => Ok(answered),
            Some(item) => {
                item.claim.withdraw();
                Err(NotTaken::Closed)
            }
        }
    }

    /// Tells when the end will be, before the queue is closed: what can be sent by then without
    /// waiting for more is sent, so that senders that wait for the result have it soon.
    pub(crate) fn hurry(&self, deadline: tokio::time::Instant) {
        self.end.send_modify(|end| end.by = Some(deadline));
    }

    /// Takes no more, and sends what there is.
    pub(crate) fn close(&self) {
        self.end.send_modify(|end| end.is_closed = true);
    }

    /// Takes no more, and gives what there is to the destination that stands in its place; what is
    /// being sent at this moment is finished.
    pub(crate) fn hand_over(&self, to: Arc<Self>) {
        self.end.send_modify(|end| {
            end.is_closed = true;
            end.heir = Some(to);
        });
    }

    /// Into the queue, or back where that is closed.
    fn push(&self, item: Item) -> Option<Item> {
        self.queue.send(item).err().map(|mpsc::error::SendError(item)| item)
    }

    /// Takes what the destination has accepted that stood here before; what comes back can be taken
    /// neither here nor by whoever stands here by now.
    fn inherit(&self, item: Item) -> Option<Item> {
        let item = self.push(item)?;
        match self.shared.heir() {
            Some(heir) => heir.inherit(item),
            None => Some(item),
        }
    }

    /// Waits until nothing is left of what it held. What is left at the deadline is dropped and counted.
    pub(crate) async fn ended(&self, deadline: tokio::time::Instant) {
        let mut working = self.working.clone();
        // It says nothing but that it is gone, which is an error.
        if tokio::time::timeout_at(deadline, working.changed()).await.is_err() {
            self.worker.abort();
            let _gone = working.changed().await;
        }
    }

    /// Whether nothing is left of what it held, and nothing will come.
    pub(crate) fn has_ended(&self) -> bool {
        self.working.has_changed().is_err()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Shared {
    fn batched(&self, batch: Batch<Item>) -> Vec<Item> {
        self.ledger.batches().note(&batch);
        batch.items
    }
}

/// Requests on their way hold half of what the queue may hold, in bytes, or are one request.
const IN_FLIGHT_PART: usize = 2;

/// Requests on their way at once, whatever the configuration asks for.
const CONSUMERS_MAX: usize = 1 << 16;

/// Gathers what is queued into batches, and hands these to as many consumers as there may be.
async fn work(
    mut items: mpsc::UnboundedReceiver<Item>,
    mut ended: watch::Receiver<End>,
    shared: Arc<Shared>,
) {
    let batching = shared.settings.batch;
    let mut batcher =
        batching.map(|batching| (Batcher::new(batching.limits, Strategy::Hybrid), batching));
    let mut in_flight = JoinSet::new();
    let mut taken = Vec::new();
    let mut hurries = false;
    loop {
        let due = batcher.as_ref().and_then(|(batcher, _)| batcher.deadline());
        tokio::select! {
            biased;
            changed = ended.changed(), if !items.is_closed() => {
                let end = ended.borrow_and_update();
                hurries = end.hurries();
                if changed.is_err() || end.is_closed {
                    items.close();
                }
            }
            count = items.recv_many(&mut taken, TAKEN_AT_ONCE) => if count == 0 { break },
            () = until(due) => {}
        }
        while in_flight.try_join_next().is_some() {}
        let now = Instant::now();
        let mut complete = Vec::new();
        for mut item in taken.drain(..) {
            let Some((batcher, batching)) = &mut batcher else {
                complete.push(vec![item]);
                continue;
            };
            // A batch may be larger than the queue.
            item.place = None;
            let parts = item.within(batching.spans_max, batching.bytes_max, &shared.budget);
            for part in parts {
                complete.extend(batcher.push(part, now).map(|batch| shared.batched(batch)));
            }
        }
        if let Some((batcher, _)) = &mut batcher {
            let due = std::iter::from_fn(|| match hurries {
                true => batcher.flush(),
                false => batcher.poll(now),
            });
            complete.extend(due.map(|batch| shared.batched(batch)));
        }
        for items in complete {
            start(items, &mut in_flight, &shared).await;
        }
    }
    if let Some((batcher, _)) = &mut batcher {
        while let Some(batch) = batcher.flush() {
            start(shared.batched(batch), &mut in_flight, &shared).await;
        }
    }
    while in_flight.join_next().await.is_some() {}
}

/// Items that one look at the queue takes.
const TAKEN_AT_ONCE: usize = 64;

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Sends a batch as soon as a consumer is free, and memory for what is on its way. Meanwhile the queue
/// fills.
async fn start(items: Vec<Item>, in_flight: &mut JoinSet<()>, shared: &Arc<Shared>) {
    let mut replaced = shared.end.clone();
    let bytes = items.iter().map(|item| item.request.bytes).sum();
    let mut consumer = pin!(async {
        let consumer = Arc::clone(&shared.consumers).acquire_owned().await.ok()?;
        Some((consumer, shared.in_flight.take(bytes).await?))
    });
    let free = tokio::select! {
        biased;
        // Whoever stands in its place has consumers of its own.
        Ok(_) = replaced.wait_for(|end| end.heir.is_some()) => None,
        free = &mut consumer => Some(free),
    };
    let mut items = shared.hand_on(items);
    if items.is_empty() {
        return;
    }
    let consumer = match free {
        Some(free) => free,
        None => consumer.await,
    };
    // Never closed.
    let Some(consumer) = consumer else { return };
    // What waits for a consumer is in the queue still.
    items.iter_mut().for_each(|item| item.place = None);
    let counted = shared.ledger.in_flight();
    let shared = Arc::clone(shared);
    in_flight.spawn(async move {
        let _watched = shared.health.in_flight();
        while !items.is_empty() {
            let left = shared.destination.deliver(items, &shared).await;
            items = shared.hand_on(left);
        }
        drop((counted, consumer));
    });
}
