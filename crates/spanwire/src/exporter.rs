//! The exporter's thread: takes finished spans, batches them, sends them, accounts for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spanwire_batcher::{Batch, Batcher, Overflow, Queue, Refusal, Strategy, Weigh};
use spanwire_codec::encode::EncodedResource;
use spanwire_tracer::{HandOvers, Loss, Outlet, Provider, TracedChunk, TracedSlice};
use spanwire_transport::{Backoff, Body, EncodeError, Retry, RetryPolicy, SendError, Transport};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::client::Report;
use crate::config::RetryIf;
use crate::item::{self, Item, Queued};
use crate::stats::{Counters, Reason, Stats};

/// What recording threads and the exporter's thread share.
pub(crate) struct Shared {
    queue: Queue<Queued>,
    overflow: Overflow,
    wake: Notify,
    /// Bytes in the queue at which the exporter is woken before its next tick.
    wake_bytes: usize,
    /// Whether a thread was refused since the exporter last took something.
    starved: AtomicBool,
    /// Whether a thread has waited for memory in vain since a batch last was settled.
    stalled: AtomicBool,
    counters: Counters,
}

impl Shared {
    pub(crate) fn new(queue: Queue<Queued>, overflow: Overflow, wake_bytes: usize) -> Self {
        Self {
            queue,
            overflow,
            wake: Notify::new(),
            wake_bytes,
            starved: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    /// Counts what a queue that is to keep the newest has let go.
    fn shed(&self, oldest: Queued) {
        self.counters.dropped(oldest.chunk.chunk.discard(), Reason::QueueFull);
    }

    /// Wakes the exporter for a thread in want; one word is enough until it is heard, or every span
    /// shed would cost a system call.
    fn ask_for_room(&self) {
        if !self.starved.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    pub(crate) fn stats(&self, provider: &Provider) -> Stats {
        self.counters.stats(&provider.stats(), self.queue.stats().queued())
    }
}

/// Between two looks for free memory, of a thread that is to wait for it.
const MEMORY_PAUSE: Duration = Duration::from_millis(1);

/// The recording threads' side.
pub(crate) struct QueueOutlet(pub(crate) Arc<Shared>);

impl Outlet for QueueOutlet {
    fn accept(&self, chunk: TracedChunk) -> Result<(), Loss> {
        self.push(chunk, self.0.overflow)
    }

    /// As for a full queue: memory is used up where it holds less than the threads and requests do.
    fn make_room(&self, waited: Duration) -> bool {
        let Self(shared) = self;
        match shared.overflow {
            Overflow::DropNewest => false,
            Overflow::DropOldest => shared.queue.pop().map(|oldest| shared.shed(oldest)).is_some(),
            Overflow::Block { timeout } if waited >= timeout => {
                shared.stalled.store(true, Ordering::Relaxed);
                false
            }
            // A dead collector costs one timeout, not one for each span.
            Overflow::Block { .. } if shared.stalled.load(Ordering::Relaxed) => false,
            Overflow::Block { .. } => {
                shared.ask_for_room();
                std::thread::sleep(MEMORY_PAUSE);
                true
            }
        }
    }

    fn accept_last(&self, chunk: TracedChunk) -> Result<(), Loss> {
        match self.0.overflow {
            // A thread that is ending does not wait for a collector.
            Overflow::Block { .. } => self.push(chunk, Overflow::DropNewest),
            overflow => self.push(chunk, overflow),
        }
    }
}

impl QueueOutlet {
    fn push(&self, chunk: TracedChunk, overflow: Overflow) -> Result<(), Loss> {
        let Self(shared) = self;
        match shared.queue.push(Queued::new(chunk), overflow, |oldest| shared.shed(oldest)) {
            Ok(pushed) => {
                // Once for each crossing, so that a wake-up pays for many chunks.
                if pushed.crossed(shared.wake_bytes) {
                    shared.wake.notify_one();
                }
                Ok(())
            }
            Err(refused) => {
                // The queue may have filled in one go.
                shared.ask_for_room();
                Err(match refused.reason {
                    Refusal::Closed => Loss::Shutdown,
                    Refusal::Full | Refusal::TimedOut | Refusal::TooLarge => Loss::QueueFull,
                })
            }
        }
    }
}

/// What a client asks of the exporter.
pub(crate) enum Command {
    /// Send what has ended so far.
    Flush { deadline: Instant, reply: Reply },
    /// The same, and then stop.
    Shutdown { deadline: Instant, reply: Reply },
}

/// Called once, with what became of it.
pub(crate) type Reply = Box<dyn FnOnce(Report) + Send>;

/// A flush that waits for its last batch.
struct Flush {
    stage: Stage,
    deadline: Instant,
    before: Stats,
    reply: Reply,
}

/// How far a flush has come.
enum Stage {
    /// Nobody has looked at it yet.
    New,
    /// Some of what it is about is still on its way from a thread to the queue.
    HandOvers(HandOvers),
    /// All of it is in batches, or among the first so many spans ever pushed to the queue.
    Queued(u64),
    /// All of it is in batches up to this number; later ones are not its business.
    Batches(u64),
}

/// Between two looks for a chunk that a thread is about to hand over.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(1);

/// A batch on its way.
struct Held {
    number: u64,
    spans: usize,
    bytes: usize,
}

/// What a batch's task needs.
pub(crate) struct Line {
    pub(crate) transport: Transport,
    pub(crate) retry: RetryPolicy,
    pub(crate) retry_if: RetryIf,
    pub(crate) permits: Semaphore,
}

pub(crate) struct Exporter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) provider: Provider,
    pub(crate) line: Arc<Line>,
    pub(crate) resource: EncodedResource,
    pub(crate) request_bytes_max: usize,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) tick: Duration,
    pub(crate) strategy: Strategy,
    pub(crate) batcher: Batcher<Item>,
    pub(crate) state: State,
}

#[derive(Default)]
pub(crate) struct State {
    tasks: JoinSet<Result<u64, Reason>>,
    held: HashMap<Id, Held>,
    held_bytes: usize,
    batches: u64,
    flushes: Vec<Flush>,
}

impl Exporter {
    /// Runs until a shutdown is done.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        // The first tick after one interval: at once, it would find the first span or miss it.
        let mut tick = tokio::time::interval_at(Instant::now() + self.tick, self.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        loop {
            let flush_deadline = self.flush_deadline();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Flush { deadline, reply }) => self.flush(deadline, reply),
                    Some(Command::Shutdown { deadline, reply }) => {
                        return self.shut_down(commands, deadline, reply).await;
                    }
                    // The client is gone without a word: its thread was killed within `drop`.
                    None => return self.shut_down(commands, Instant::now(), Box::new(drop)).await,
                },
                () = shared.wake.notified() => self.fill(),
                _ = tick.tick() => self.collect(),
                Some(joined) = self.state.tasks.join_next_with_id() => {
                    self.settle(joined);
                    self.fill();
                }
                () = sleep_until(flush_deadline) => {}
            }
            self.answer_flushes();
        }
    }

    /// Takes what waits in the queue, as far as there is memory for requests.
    fn fill(&mut self) {
        while self.state.held_bytes < self.in_flight_bytes_max {
            let Some(queued) = self.pop() else { return };
            self.take(queued);
        }
        // Memory is the limit now: what is gathered cannot grow any more, so it goes.
        self.send_gathered();
    }

    fn pop(&mut self) -> Option<Queued> {
        let queued = self.shared.queue.pop()?;
        self.shared.starved.store(false, Ordering::Relaxed);
        Some(queued)
    }

    /// Takes what is finished anywhere and sends it, as far as its time has come.
    fn collect(&mut self) {
        if self.state.held_bytes < self.in_flight_bytes_max {
            self.sweep();
        }
        self.fill();
        match self.strategy {
            Strategy::SizeFirst => {}
            // Each tick is one age apart, so that everything gathered is that old at the next one.
            Strategy::TimeFirst | Strategy::Hybrid => self.send_gathered(),
        }
    }

    fn send_gathered(&mut self) {
        while let Some(batch) = self.batcher.flush() {
            self.send(batch);
        }
    }

    fn take(&mut self, queued: Queued) {
        if let Some(slice) = queued.chunk.take() {
            self.add(slice);
        }
    }

    fn sweep(&mut self) -> HandOvers {
        let mut taken: Vec<TracedSlice> = Vec::new();
        let missed = self.provider.sweep(|slice| taken.push(slice));
        for mut slice in taken {
            // The chunk goes on being filled: its memory is its thread's share. The bytes themselves
            // and what a request of few spans takes beside them are what is held here.
            slice.slice.held_bytes = slice.slice.bytes.len() + SWEPT_OVERHEAD;
            self.add(slice);
        }
        missed
    }

    fn add(&mut self, slice: TracedSlice) {
        self.shared.counters.taken(slice.slice.spans);
        self.state.held_bytes += slice.slice.held_bytes;
        let batches: Vec<_> = self.batcher.push(slice.into(), Instant::now().into_std()).collect();
        for batch in batches {
            self.send(batch);
        }
    }

    fn send(&mut self, batch: Batch<Item>) {
        let spans = batch.spans;
        let bytes = batch.items.iter().map(Weigh::held_bytes).sum();
        let body = Body::new(item::request(&self.resource, batch.items), spans);
        if spans == 1 && body.len() > self.request_bytes_max {
            self.shared.counters.dropped_in_flight(spans, Reason::TooLarge);
            self.state.held_bytes -= bytes;
            return;
        }
        self.state.batches += 1;
        let (line, shared) = (Arc::clone(&self.line), Arc::clone(&self.shared));
        let task =
            self.state.tasks.spawn(async move { deliver(&line, &shared.counters, body).await });
        let held = Held { number: self.state.batches, spans, bytes };
        self.state.held.insert(task.id(), held);
    }

    /// Accounts for a batch that is done, or whose task was aborted or panicked.
    fn settle(&mut self, joined: Result<(Id, Result<u64, Reason>), JoinError>) {
        let (id, outcome) = match joined {
            Ok((id, outcome)) => (id, outcome),
            Err(error) if error.is_cancelled() => (error.id(), Err(Reason::Shutdown)),
            Err(error) => (error.id(), Err(Reason::Internal)),
        };
        let Some(held) = self.state.held.remove(&id) else { return };
        self.state.held_bytes -= held.bytes;
        self.shared.stalled.store(false, Ordering::Relaxed);
        match outcome {
            Ok(rejected) => self.shared.counters.exported(held.spans, rejected),
            Err(reason) => self.shared.counters.dropped_in_flight(held.spans, reason),
        }
    }

    /// Starts sending everything there is, beyond what memory for requests is set aside: for the
    /// shutdown, when no more comes.
    ///
    /// First the threads' own chunks: one that leaves its thread after that look goes to the queue,
    /// which comes next. Returns those that were in between.
    fn collect_all(&mut self) -> HandOvers {
        let missed = self.sweep();
        while let Some(queued) = self.pop() {
            self.take(queued);
        }
        self.send_gathered();
        missed
    }

    fn flush(&mut self, deadline: Instant, reply: Reply) {
        let before = self.shared.stats(&self.provider);
        self.state.flushes.push(Flush { stage: Stage::New, deadline, before, reply });
    }

    /// When the next flush wants to be looked at.
    fn flush_deadline(&self) -> Option<Instant> {
        let flushes = self.state.flushes.iter();
        flushes
            .map(|flush| match flush.stage {
                Stage::Queued(_) | Stage::Batches(_) => flush.deadline,
                Stage::New | Stage::HandOvers(_) => {
                    flush.deadline.min(Instant::now() + HAND_OVER_PAUSE)
                }
            })
            .min()
    }

    fn answer_flushes(&mut self) {
        for mut flush in std::mem::take(&mut self.state.flushes) {
            flush.stage = self.advance(flush.stage);
            let settled = match flush.stage {
                Stage::Batches(batches) => {
                    self.oldest_batch().is_none_or(|oldest| batches < oldest)
                }
                Stage::New | Stage::HandOvers(_) | Stage::Queued(_) => false,
            };
            if settled || flush.deadline <= Instant::now() {
                let after = self.shared.stats(&self.provider);
                (flush.reply)(Report::between(&flush.before, &after, settled));
            } else {
                self.state.flushes.push(flush);
            }
        }
    }

    /// Takes a flush as far as it goes: from the threads' chunks over the queue into batches, at the
    /// pace that memory for requests allows.
    fn advance(&mut self, mut stage: Stage) -> Stage {
        loop {
            stage = match stage {
                Stage::New => Stage::HandOvers(self.sweep()),
                Stage::HandOvers(missed) if missed.is_empty() => {
                    Stage::Queued(self.shared.queue.stats().pushed)
                }
                Stage::HandOvers(missed) if missed.are_over() => {
                    let again = missed.missed_again(self.sweep());
                    if !again.is_empty() {
                        return Stage::HandOvers(again);
                    }
                    Stage::HandOvers(again)
                }
                Stage::HandOvers(_) => {
                    // A thread may be waiting for room.
                    self.fill();
                    return stage;
                }
                Stage::Queued(pushed) => {
                    self.fill();
                    let queue = self.shared.queue.stats();
                    if queue.popped + queue.evicted < pushed {
                        return stage;
                    }
                    self.send_gathered();
                    Stage::Batches(self.state.batches)
                }
                Stage::Batches(_) => return stage,
            };
        }
    }

    fn oldest_batch(&self) -> Option<u64> {
        self.state.held.values().map(|held| held.number).min()
    }

    async fn shut_down(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        deadline: Instant,
        reply: Reply,
    ) {
        let before = self.shared.stats(&self.provider);
        // What ended before the call first; then nothing more is recorded, and what ended meanwhile.
        self.collect_all();
        self.provider.close();
        self.collect_all();
        self.shared.queue.close();
        let complete = loop {
            // Closed, the queue still takes what was being pushed; threads it refused keep theirs.
            let more = !self.collect_all().is_empty() || !self.shared.queue.is_finished();
            self.answer_flushes();
            if !more && self.state.tasks.is_empty() {
                break true;
            }
            let flush_deadline = self.flush_deadline();
            tokio::select! {
                Some(joined) = self.state.tasks.join_next_with_id() => self.settle(joined),
                Some(command) = commands.recv() => match command {
                    Command::Flush { deadline, reply } | Command::Shutdown { deadline, reply } => {
                        self.flush(deadline, reply);
                    }
                },
                () = sleep_until(flush_deadline) => {}
                () = tokio::time::sleep(HAND_OVER_PAUSE), if more => {}
                () = tokio::time::sleep_until(deadline) => break false,
            }
        };
        self.state.tasks.abort_all();
        while let Some(joined) = self.state.tasks.join_next_with_id().await {
            self.settle(joined);
        }
        // What is left in spite of all: nobody will take it any more.
        while let Some(queued) = self.pop() {
            self.shared.counters.dropped(queued.chunk.chunk.discard(), Reason::Shutdown);
        }
        self.provider.abandon();
        let after = self.shared.stats(&self.provider);
        for flush in self.state.flushes.drain(..) {
            (flush.reply)(Report::between(&flush.before, &after, complete));
        }
        reply(Report::between(&before, &after, complete));
    }
}

/// Memory a small request takes beside its spans' bytes: a task, headers, a frame.
const SWEPT_OVERHEAD: usize = 4 << 10;

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Sends one batch until it is accepted or given up; returns how many spans were rejected.
async fn deliver(line: &Line, counters: &Counters, body: Body) -> Result<u64, Reason> {
    // Before anything is compressed: a batch that waits for its turn is not held twice.
    let mut permit = line.permits.acquire().await;
    let bytes = body.len();
    let encoded = line.transport.encode(&body).await.map_err(|error| {
        counters.note(&error);
        match error {
            EncodeError::Oversize { .. } => Reason::TooLarge,
            _ => Reason::Internal,
        }
    })?;
    // Compressed, the spans' own memory is free again.
    drop(body);
    counters.encoded(bytes, encoded.len());
    let mut backoff = Backoff::new(line.retry, Instant::now().into_std());
    loop {
        let sent = line.transport.send(&encoded).await;
        // Held for the attempt only: a batch that waits keeps no other from being sent.
        drop(permit);
        let error = match sent {
            Ok(accepted) => {
                if let Some(message) = &accepted.message {
                    counters.note_rejected(accepted.rejected_spans, message);
                }
                return Ok(accepted.rejected_spans);
            }
            Err(error) => error,
        };
        counters.failed(&error);
        let retry = match line.retry_if.allows(&error) {
            true => error.retry(),
            false => Retry::Never,
        };
        match (retry, backoff.wait_after(retry, Instant::now().into_std(), fastrand::u64(..))) {
            (Retry::Never, _) if matches!(error, SendError::Oversize { .. }) => {
                return Err(Reason::TooLarge);
            }
            (Retry::Never, _) => return Err(Reason::Refused),
            (_, None) => return Err(Reason::RetriesExhausted),
            (_, Some(wait)) => tokio::time::sleep(wait).await,
        }
        permit = line.permits.acquire().await;
    }
}
